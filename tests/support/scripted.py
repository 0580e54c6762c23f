"""A server on 127.0.0.1 whose every word a test decides, and proxies for it."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator

from tests.support.waiting import GUARD


class Talk:
    """One connection, from the server's side."""

    def __init__(self, connection: socket.socket, number: int) -> None:
        self.socket = connection
        self.number = number
        self._read = b""

    def until(self, mark: bytes) -> bytes:
        """The bytes up to a mark, and that; EOFError if the client ends before."""
        while mark not in self._read:
            self._more()
        data, found, self._read = self._read.partition(mark)
        return data + found

    def head(self) -> str:
        """The next request's."""
        return self.until(b"\r\n\r\n").decode("latin-1")

    def body(self, size: int) -> bytes:
        while len(self._read) < size:
            self._more()
        data, self._read = self._read[:size], self._read[size:]
        return data

    def request(self) -> tuple[str, bytes]:
        """A whole request, with the framing of its chunks if it has any."""
        head = self.head()
        if "transfer-encoding: chunked" in head.lower():
            body = self.until(b"\r\n0\r\n")
            return head, body + self.until(b"\r\n\r\n" if "trailer:" in head.lower() else b"\r\n")
        length = re.search(r"(?i)content-length: (\d+)", head)
        return head, self.body(int(length[1])) if length else b""

    def say(self, *texts: str) -> None:
        for text in texts:
            self.socket.sendall(text.encode("latin-1"))

    def answer(self, status: int = 204, body: str = "", **fields: str) -> None:
        length = f"Content-Length: {len(body)}\r\n" if status != 204 else ""
        more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
        self.say(f"HTTP/1.1 {status} X\r\n{more}{length}\r\n{body}")

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def wait_for_end(self) -> None:
        """Wait until the client has closed; what it still sends is dropped."""
        with contextlib.suppress(OSError):
            while self.socket.recv(1 << 16):
                pass

    @property
    def has_pending(self) -> bool:
        """Whether bytes can be read although the socket has none."""
        return isinstance(self.socket, ssl.SSLSocket) and self.socket.pending() > 0

    def _more(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            raise EOFError
        self._read += data


@contextlib.contextmanager
def scripted(
    script: Callable[[Talk], None],
    tls: ssl.SSLContext | None = None,
    buffer: int | None = None,
    host: str = "127.0.0.1",
) -> Iterator[int]:
    """Run a script for each connection, in a thread, and yield the port; a failure of a script is raised at the end.

    With a ``buffer`` the server's side takes no more than about so many bytes that the script does not read.
    """
    listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    if buffer is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    threads: list[threading.Thread] = []
    open_sockets: list[socket.socket] = []
    failures: list[Exception] = []

    def serve(connection: socket.socket, number: int) -> None:
        try:
            if tls is not None:
                connection = tls.wrap_socket(connection, server_side=True)
                open_sockets.append(connection)
            script(Talk(connection, number))
        except (EOFError, OSError):  # the client has closed
            pass
        except Exception as error:
            failures.append(error)
        finally:
            connection.close()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.settimeout(GUARD)
                open_sockets.append(connection)
                threads.append(threading.Thread(target=serve, args=(connection, len(threads)), daemon=True))
                threads[-1].start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join(GUARD)
        for connection in open_sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(GUARD)
            assert not thread.is_alive()
    if failures:
        raise failures[0]


def as_proxy(seen: list[str], password: str = "") -> Callable[[Talk], None]:
    """A script for a proxy that forwards, and that opens tunnels for CONNECT. It notes the heads of requests."""

    def script(talk: Talk) -> None:
        head = talk.head()
        seen.append(head)
        if password and f"Proxy-Authorization: Basic {password}" not in head:
            talk.answer(407, "who?")
            return
        method, target, _ = head.split("\r\n")[0].split(" ")
        if method == "CONNECT":
            host, _, port = target.rpartition(":")
            beyond = socket.create_connection((host, int(port)))
            talk.say("HTTP/1.1 200 Connected\r\n\r\n")
        else:
            port, slash, path = target.removeprefix("http://").partition(":")[2].partition("/")
            beyond = socket.create_connection(("127.0.0.1", int(port)))
            beyond.sendall(head.replace(target, slash + path, 1).encode("latin-1"))
        _carry_both_ways(talk, beyond)

    return script


def as_socks_proxy(seen: list[bytes]) -> Callable[[Talk], None]:
    """A script for a SOCKS5 proxy without authentication."""

    def script(talk: Talk) -> None:
        talk.body(talk.body(2)[1])
        talk.socket.sendall(b"\5\0")
        kind = talk.body(4)[3]
        host = talk.body(4) if kind == 1 else talk.body(talk.body(1)[0])
        (port,) = struct.unpack("!H", talk.body(2))
        seen.append(host)
        beyond = socket.create_connection(("127.0.0.1", port))
        talk.socket.sendall(b"\5\0\0\1\0\0\0\0\0\0")
        _carry_both_ways(talk, beyond)

    return script


def _carry_both_ways(talk: Talk, beyond: socket.socket) -> None:
    """In one thread, because two must not use a TLS socket at once."""
    beyond.sendall(talk._read)
    other = {talk.socket: beyond, beyond: talk.socket}
    with beyond:
        while other:
            waiting = [talk.socket] if talk.has_pending and talk.socket in other else select.select([*other], [], [])[0]
            for source in waiting:
                data = source.recv(1 << 16)
                if data:
                    other[source].sendall(data)
                else:
                    other.pop(source).shutdown(socket.SHUT_WR)
