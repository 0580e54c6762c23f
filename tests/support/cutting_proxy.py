"""A proxy on 127.0.0.1 that spoils a request on its way: cut, reset, stalled, a byte changed, or its reply lost.

It follows the framing of HTTP/1.1 so far that it knows the byte of a body where a fault is to happen, and keeps a note
of every request that came by. Everything else goes through as it is.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Literal, Self

_BLOCK = 64 * 1024


@dataclass
class Seen:
    """A request that came by.

    Attributes:
        method: as sent.
        target: as sent, usually a path.
        headers: by their names in lower case.
        body: bytes of the body that went on to the server, without the framing of chunks.
        status: of the reply that came back, 0 if there was none yet.
        interim: how many interim replies came back before it.
    """

    method: str
    target: str
    headers: dict[str, str]
    body: int = 0
    status: int = 0
    interim: int = 0

    @property
    def meant(self) -> str:
        """The method, or what overrides it."""
        return self.headers.get("x-http-method-override", self.method)


@dataclass
class _Fault:
    kind: Literal["cut", "reset", "stall", "flip", "lose"]
    method: str
    after: int
    when: Callable[[Seen], bool]
    held: bool = False
    once: Callable[[Seen], object] | None = None


def _always(seen: Seen) -> bool:
    return True


class CuttingProxy:
    """Forwards to a port of 127.0.0.1; a context manager.

    Each fault is asked for before the requests are made, and happens once, to the first request that it fits. Leaving
    the context fails if a fault did not happen, because then the test has shown nothing.

    Attributes:
        port: where clients connect.
        origin: the same as the beginning of a URL.
        requests: all that came by, in the order of their heads.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self.port = int(self._listener.getsockname()[1])
        self.origin = f"http://127.0.0.1:{self.port}"
        self.requests: list[Seen] = []
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._hung_up = threading.Event()
        self._connections: list[_Connection] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    # -- What is to go wrong --

    def cut(
        self,
        method: str,
        after: int,
        *,
        reset: bool = False,
        when: Callable[[Seen], bool] = _always,
        once: Callable[[Seen], object] | None = None,
    ) -> None:
        """End the connection, on both sides, once ``after`` bytes of a longer body have gone on.

        With ``once`` that is called first, with the request; it may wait for what the server does with the bytes.
        """
        self._faults.append(_Fault("reset" if reset else "cut", method, after, when, once=once))

    def stall(self, method: str, after: int, *, held: bool = False, when: Callable[[Seen], bool] = _always) -> None:
        """Let nothing through after ``after`` bytes of a longer body, while the client may go on sending.

        Once the client hangs up, the server's side is closed, or with ``held`` stays open and silent.
        """
        self._faults.append(_Fault("stall", method, after, when, held))

    def flip(self, method: str, at: int, *, when: Callable[[Seen], bool] = _always) -> None:
        """Change the byte of a body at the index ``at``."""
        self._faults.append(_Fault("flip", method, at, when))

    def lose_reply(self, method: str, *, when: Callable[[Seen], bool] = _always) -> None:
        """Let the whole request through, and end the connection where the reply should have come."""
        self._faults.append(_Fault("lose", method, 0, when))

    def of(self, method: str) -> list[Seen]:
        """The requests that meant this method."""
        return [seen for seen in self.requests if seen.meant == method]

    def hang_up(self) -> None:
        """End every connection that is open, also those that are held."""
        self._hung_up.set()
        for connection in self._connections:
            connection.wake()

    # -- For the connections --

    def note(self, seen: Seen) -> bool:
        """Take a request down; returns whether its reply is to be lost."""
        with self._lock:
            self.requests.append(seen)
            return self._take(lambda fault: fault.kind == "lose" and self._fits(fault, seen)) is not None

    def fault_within(self, seen: Seen, size: int) -> _Fault | None:
        """What happens within the next so many bytes of a body, if anything does."""
        with self._lock:
            return self._take(
                lambda fault: (
                    fault.kind != "lose" and self._fits(fault, seen) and seen.body <= fault.after < seen.body + size
                )
            )

    def wait_until_hung_up(self) -> None:
        """Keep a connection that is held."""
        self._hung_up.wait()

    def _fits(self, fault: _Fault, seen: Seen) -> bool:
        return fault.method == seen.meant and fault.when(seen)

    def _take(self, wanted: Callable[[_Fault], bool]) -> _Fault | None:
        for fault in self._faults:
            if wanted(fault):
                self._faults.remove(fault)
                return fault
        return None

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            client.settimeout(None)
            try:
                connection = _Connection(self, client, self._server_port)
            except OSError:  # the server is not there just now
                client.close()
                continue
            self._connections.append(connection)
            connection.start()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._thread.join()
        self._listener.close()
        self.hang_up()
        for connection in self._connections:
            connection.join(10)
            assert not connection.is_alive()
        assert error is not None or not self._faults, f"did not happen: {self._faults}"


class _ConnectionEnded(Exception):
    """The client has hung up."""


class _Cut(Exception):
    """Both sides are to be closed."""


class _Connection(threading.Thread):
    """One client's connection and the one to the server; the requests in this thread, the replies in another."""

    def __init__(self, proxy: CuttingProxy, client: socket.socket, server_port: int) -> None:
        super().__init__(daemon=True)
        self._proxy = proxy
        self._client = client
        self._server = socket.create_connection(("127.0.0.1", server_port))
        for side in (self._client, self._server):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._seen: Seen | None = None
        self._loses_reply = False
        self._is_cut = False
        self._replies = threading.Thread(target=self._carry_replies, daemon=True)

    def wake(self) -> None:
        """Have both threads end, whatever they wait for."""
        for side in (self._client, self._server):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        self._replies.start()
        try:
            with self._client.makefile("rb", buffering=_BLOCK) as reader:
                self._carry_requests(reader)
        except _Cut:
            self._is_cut = True
            self._stop_reading(self._server)
        except _ConnectionEnded:
            with contextlib.suppress(OSError):
                self._server.shutdown(socket.SHUT_WR)
        except OSError:  # one side is gone; if it is the server, its last words still go to the client
            pass
        self._replies.join()
        with contextlib.suppress(OSError):
            if not self._is_cut:
                self._see_off_client()
        self._client.close()
        self._server.close()

    def _see_off_client(self) -> None:
        """Read what the client still sends: closed with bytes unread, the connection would lose the last reply."""
        self._client.settimeout(2)
        self._client.shutdown(socket.SHUT_WR)
        while self._client.recv(_BLOCK):
            pass

    @staticmethod
    def _stop_reading(side: socket.socket) -> None:
        with contextlib.suppress(OSError):
            side.shutdown(socket.SHUT_RD)

    # -- From the client to the server --

    def _carry_requests(self, reader: BinaryIO) -> None:
        while True:
            head = b"".join(_lines(reader))
            seen = _parse(head)
            self._seen = seen
            self._loses_reply = self._proxy.note(seen)
            self._server.sendall(head)
            if seen.headers.get("transfer-encoding", "").lower() == "chunked":
                self._carry_chunks(reader, seen)
            else:
                self._carry_bytes(reader, seen, int(seen.headers.get("content-length", 0)))

    def _carry_chunks(self, reader: BinaryIO, seen: Seen) -> None:
        while True:
            line = _line(reader)
            self._server.sendall(line)
            size = int(line.split(b";")[0], 16)
            if not size:
                for trailer in _lines(reader):
                    self._server.sendall(trailer)
                return
            self._carry_bytes(reader, seen, size)
            self._server.sendall(_line(reader))

    def _carry_bytes(self, reader: BinaryIO, seen: Seen, size: int) -> None:
        while size:
            block = reader.read1(min(size, _BLOCK))  # type: ignore[attr-defined]
            if not block:
                raise _ConnectionEnded
            size -= len(block)
            fault = self._proxy.fault_within(seen, len(block))
            if fault is None:
                self._server.sendall(block)
                seen.body += len(block)
            else:
                self._spoil(fault, reader, seen, block)

    def _spoil(self, fault: _Fault, reader: BinaryIO, seen: Seen, block: bytes) -> None:
        place = fault.after - seen.body
        if fault.kind == "flip":
            block = block[:place] + bytes([block[place] ^ 0xFF]) + block[place + 1 :]
            self._server.sendall(block)
            seen.body += len(block)
            return
        self._server.sendall(block[:place])
        seen.body += place
        if fault.once is not None:
            fault.once(seen)
        if fault.kind == "stall":
            with contextlib.suppress(OSError):
                while reader.read1(_BLOCK):  # type: ignore[attr-defined]
                    pass
            if fault.held:
                self._proxy.wait_until_hung_up()
        elif fault.kind == "reset":
            for side in (self._client, self._server):
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise _Cut

    # -- From the server to the client --

    def _carry_replies(self) -> None:
        try:
            while data := self._server.recv(_BLOCK):
                if self._is_cut:
                    return
                while data.startswith(b"HTTP/1.1 1"):  # an interim reply: go on and send the body
                    interim, mark, data = data.partition(b"\r\n\r\n")
                    self._client.sendall(interim + mark)
                    if self._seen is not None:
                        self._seen.interim += 1
                if data and self._loses_reply:
                    self._is_cut = True
                    self._stop_reading(self._client)
                    return
                if self._seen is not None and data.startswith(b"HTTP/1.1 "):
                    self._seen.status = int(data[9:12])
                self._client.sendall(data)
        except OSError:
            pass
        if not self._is_cut:
            with contextlib.suppress(OSError):
                self._client.shutdown(socket.SHUT_WR)


def _line(reader: BinaryIO) -> bytes:
    line = reader.readline()
    if not line.endswith(b"\n"):
        raise _ConnectionEnded
    return line


def _lines(reader: BinaryIO) -> Iterator[bytes]:
    """The lines up to the next empty one, and that."""
    while True:
        line = _line(reader)
        yield line
        if line == b"\r\n":
            return


def _parse(head: bytes) -> Seen:
    first, *fields = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {}
    for field in fields:
        name, _, value = field.partition(":")
        headers[name.lower()] = value.strip()
    return Seen(method, target, headers)
