"""A proxy on 127.0.0.1 between a client and a server, that does to each request what a schedule says.

It knows HTTP/1.1 so far that it finds the ends of requests and responses, keeps the client's connection where it can,
and has a connection of its own to the server for each request. ``cutting_proxy`` spoils a byte of a stream; this one
also answers itself, and sends things twice.
"""

from __future__ import annotations

import contextlib
import random
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate

from tests.support.waiting import GUARD

_BLOCK = 64 * 1024


@dataclass
class Deed:
    """What is done to one request.

    Attributes:
        name: one of :data:`DEEDS`, or a status to answer with, or ``pass``.
        place: a number from 0 to 1, that says where in the body, how long, or how.
    """

    name: str
    place: float = 0.5


@dataclass
class Passed:
    """A request that came by.

    Attributes:
        method: as sent.
        target: as sent.
        headers: by their names in lower case.
        deed: what was done to it.
        status: of the response that the client got; 0 for none.
        took: of the response that the server gave; 0 for none.
    """

    method: str
    target: str
    headers: dict[str, str]
    deed: Deed
    status: int = 0
    took: int = 0

    @property
    def length(self) -> int:
        return int(self.headers.get("content-length", 0))

    @property
    def is_chunked(self) -> bool:
        return "chunked" in self.headers.get("transfer-encoding", "")


class Ended(Exception):
    """The connection with the client is over."""


class _Side:
    """One end of a connection, with what was read too much."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        connection.settimeout(GUARD)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def some(self) -> bytes:
        """What there is next; nothing at the end."""
        if self.buffer:
            data, self.buffer = self.buffer, b""
            return data
        return self.socket.recv(_BLOCK)

    def until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            data = self.socket.recv(_BLOCK)
            if not data:
                raise Ended
            self.buffer += data
        data, found, self.buffer = self.buffer.partition(mark)
        return data + found

    @property
    def is_readable(self) -> bool:
        return bool(self.buffer) or bool(select.select([self.socket], [], [], 0)[0])


def random_deeds(seed: int, often: float = 0.6, names: tuple[str, ...] | None = None) -> Callable[[Passed], Deed]:
    """A schedule of chance; the same for the same seed and the same requests."""
    chance, lock = random.Random(seed), threading.Lock()

    def schedule(passed: Passed) -> Deed:
        with lock:
            name = chance.choice(names or tuple(DEEDS)) if chance.random() < often else "pass"
            return Deed(name, chance.random())

    return schedule


class HostileProxy:
    """Forwards to a port of 127.0.0.1, in its way; a context manager.

    Attributes:
        port: where clients connect.
        largest: requests with a longer body get 413; None for no limit.
        passed: the requests that came by, in their order.
    """

    def __init__(self, server_port: int, schedule: Callable[[Passed], Deed], largest: int | None = None) -> None:
        self._server_port = server_port
        self._schedule = schedule
        self.largest = largest
        self.passed: list[Passed] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def count(self, name: str) -> int:
        return sum(passed.deed.name == name for passed in self.passed)

    def __enter__(self) -> HostileProxy:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(GUARD)
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(GUARD)
            assert not thread.is_alive()

    # -- Connections and requests --

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    @contextlib.contextmanager
    def _held(self, connection: socket.socket) -> Iterator[_Side]:
        self._open.add(connection)
        try:
            yield _Side(connection)
        finally:
            self._open.discard(connection)
            connection.close()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(Ended, OSError), self._held(connection) as client:
            while True:
                head = client.until(b"\r\n\r\n")
                passed = self._noted(head)
                if self.largest is not None and passed.length > self.largest:
                    passed.deed = Deed("too large")
                    self._answer(client, passed, 413)
                if passed.deed.name.isdigit():
                    self._answer(client, passed, int(passed.deed.name))
                DEEDS.get(passed.deed.name, HostileProxy._pass)(self, client, head, passed)

    def _noted(self, head: bytes) -> Passed:
        first, *rows = head.decode("latin-1").rstrip().split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in rows)}
        passed = Passed(method, target, headers, Deed("pass"))
        passed.deed = self._schedule(passed)
        self.passed.append(passed)
        return passed

    def _to_server(self) -> contextlib.AbstractContextManager[_Side]:
        return self._held(socket.create_connection(("127.0.0.1", self._server_port), GUARD))

    def _body(self, client: _Side, passed: Passed) -> Iterator[bytes]:
        """The body as it comes, with the framing of chunks if it has any."""
        if passed.is_chunked:
            while True:
                line = client.until(b"\r\n")
                size = int(line, 16)
                yield line
                if not size:
                    while line != b"\r\n":
                        line = client.until(b"\r\n")
                        yield line
                    return
                yield from self._bytes(client, size + 2)
        else:
            yield from self._bytes(client, passed.length)

    def _bytes(self, client: _Side, left: int) -> Iterator[bytes]:
        while left:
            data = client.some()
            if not data:
                raise Ended
            client.buffer = data[left:]
            data = data[:left]
            left -= len(data)
            yield data

    def _forward(
        self,
        *ends: _Side,
        head: bytes,
        passed: Passed,
        until: int | None = None,
        pause: float = 0.0,
    ) -> None:
        """Send a request on, or the first so many bytes of its body; stops early if the server answers."""
        client, server = ends
        server.socket.sendall(head)
        sent = 0
        for block in self._body(client, passed):
            if until is not None and sent + len(block) >= until:
                server.socket.sendall(block[: until - sent])
                return
            server.socket.sendall(block)
            sent += len(block)
            if pause:
                time.sleep(pause)
            while server.is_readable:
                interim = server.until(b"\r\n\r\n")
                if not interim.startswith(b"HTTP/1.1 1"):
                    server.buffer = interim + server.buffer
                    return
                client.socket.sendall(interim)

    def _response(self, server: _Side, passed: Passed, interim: _Side | None) -> tuple[bytes, bool]:
        """The whole response of the server, and whether the client can find its end."""
        while True:
            head = server.until(b"\r\n\r\n")
            status = int(head[9:12])
            if status >= 200:
                break
            if interim is not None:
                interim.socket.sendall(head)
        passed.took = status
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        if passed.method == "HEAD" or status in (204, 304):
            return head, True
        if length is not None:
            while len(server.buffer) < int(length[1]):
                data = server.socket.recv(_BLOCK)
                if not data:
                    raise Ended
                server.buffer += data
            return head + server.buffer[: int(length[1])], True
        if b"chunked" in head.lower():
            return head + server.until(b"0\r\n\r\n"), True
        while data := server.socket.recv(_BLOCK):
            server.buffer += data
        return head + server.buffer, False

    def _give(self, client: _Side, passed: Passed, response: bytes, *, is_framed: bool = True) -> None:
        passed.status = int(response[9:12])
        client.socket.sendall(response)
        if not is_framed or b"connection: close" in response.partition(b"\r\n\r\n")[0].lower():
            self._see_off(client)

    def _answer(self, client: _Side, passed: Passed, status: int, *rows: str) -> None:
        """Answer without the server, and end the connection."""
        more = "".join(f"{row}\r\n" for row in rows)
        body = f"The proxy says {status}.\n"
        head = f"HTTP/1.1 {status} Hostile\r\n{more}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self._give(client, passed, (head + ("" if passed.method == "HEAD" else body)).encode())

    def _see_off(self, client: _Side) -> None:
        """Read what still comes: closed with bytes unread, the connection would lose the response."""
        client.socket.shutdown(socket.SHUT_WR)
        client.socket.settimeout(2)
        while client.socket.recv(_BLOCK):
            pass
        raise Ended

    def _passed_on(self, client: _Side, head: bytes, passed: Passed, pause: float = 0.0) -> tuple[bytes, bool]:
        with self._to_server() as server:
            self._forward(client, server, head=head, passed=passed, pause=pause)
            return self._response(server, passed, client)

    # -- Deeds --

    def _pass(self, client: _Side, head: bytes, passed: Passed) -> None:
        response, is_framed = self._passed_on(client, head, passed)
        self._give(client, passed, response, is_framed=is_framed)

    def _cut_before(self, client: _Side, head: bytes, passed: Passed) -> None:
        raise Ended

    def _reset(self, client: _Side, head: bytes, passed: Passed) -> None:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._cut_in(client, head, passed)

    def _cut_in(self, client: _Side, head: bytes, passed: Passed) -> None:
        with self._to_server() as server:
            self._forward(client, server, head=head, passed=passed, until=int(passed.deed.place * passed.length))
        raise Ended

    def _cut_after(self, client: _Side, head: bytes, passed: Passed) -> None:
        with self._to_server() as server:
            self._forward(client, server, head=head, passed=passed)
        raise Ended

    def _lose_reply(self, client: _Side, head: bytes, passed: Passed) -> None:
        self._passed_on(client, head, passed)
        raise Ended

    def _cut_reply(self, client: _Side, head: bytes, passed: Passed) -> None:
        response, _ = self._passed_on(client, head, passed)
        client.socket.sendall(response[: int(len(response) * passed.deed.place)])
        raise Ended

    def _delay(self, client: _Side, head: bytes, passed: Passed) -> None:
        time.sleep(0.2 * passed.deed.place)
        self._pass(client, head, passed)

    def _delay_reply(self, client: _Side, head: bytes, passed: Passed) -> None:
        response, is_framed = self._passed_on(client, head, passed)
        time.sleep(0.2 * passed.deed.place)
        self._give(client, passed, response, is_framed=is_framed)

    def _throttle(self, client: _Side, head: bytes, passed: Passed) -> None:
        response, is_framed = self._passed_on(client, head, passed, pause=0.01 * passed.deed.place)
        self._give(client, passed, response, is_framed=is_framed)

    def _stall(self, client: _Side, head: bytes, passed: Passed) -> None:
        """Read nothing for a second, and say nothing until the client goes away."""
        with self._to_server() as server:
            self._forward(client, server, head=head, passed=passed, until=int(passed.deed.place * passed.length))
            time.sleep(1)
            while client.socket.recv(_BLOCK):
                pass
        raise Ended

    def _duplicate(self, client: _Side, head: bytes, passed: Passed) -> None:
        """Send the request twice, one after the other, and give one of the two responses."""
        body = b"".join(self._body(client, passed))
        responses = []
        for _ in range(2):
            with self._to_server() as server:
                again = _Side(client.socket)
                again.buffer = body
                self._forward(again, server, head=head, passed=passed)
                responses.append(self._response(server, passed, None))
        response, is_framed = responses[passed.deed.place < 0.5]
        self._give(client, passed, response, is_framed=is_framed)

    def _busy(self, client: _Side, head: bytes, passed: Passed) -> None:
        """Answer with a status that passes, with or without ``Retry-After``."""
        status = (423, 429, 500, 502, 503, 504)[int(passed.deed.place * 6)]
        after = ((), ("Retry-After: 0",), (f"Retry-After: {formatdate(time.time(), usegmt=True)}",))
        self._answer(client, passed, status, *after[int(passed.deed.place * 18) % 3])

    def _interim(self, client: _Side, head: bytes, passed: Passed) -> None:
        offset = passed.headers.get("upload-offset", "0")
        client.socket.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        client.socket.sendall(f"HTTP/1.1 104 Upload Resumption Supported\r\nUpload-Offset: {offset}\r\n\r\n".encode())
        self._pass(client, head, passed)

    def _redirect(self, client: _Side, head: bytes, passed: Passed) -> None:
        status = 307 if passed.deed.place < 0.5 else 308
        self._answer(client, passed, status, f"Location: http://localhost:{self.port}{passed.target}")

    def _deny_end(self, client: _Side, head: bytes, passed: Passed) -> None:
        """Have the server take the request, and answer with an error if it succeeded."""
        response, is_framed = self._passed_on(client, head, passed)
        if passed.method == "PATCH" and passed.took < 300:
            self._answer(client, passed, (500, 502, 504)[int(passed.deed.place * 3)])
        self._give(client, passed, response, is_framed=is_framed)


DEEDS = {
    "cut before": HostileProxy._cut_before,
    "cut in": HostileProxy._cut_in,
    "cut after": HostileProxy._cut_after,
    "reset": HostileProxy._reset,
    "lose reply": HostileProxy._lose_reply,
    "cut reply": HostileProxy._cut_reply,
    "delay": HostileProxy._delay,
    "delay reply": HostileProxy._delay_reply,
    "throttle": HostileProxy._throttle,
    "stall": HostileProxy._stall,
    "duplicate": HostileProxy._duplicate,
    "busy": HostileProxy._busy,
    "interim": HostileProxy._interim,
    "redirect": HostileProxy._redirect,
    "deny end": HostileProxy._deny_end,
}
