"""A client on a raw socket that can misbehave, and what each server makes of that."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import random
import socket
import struct
import sys
import termios
from dataclasses import dataclass

import tus
from tests.support.serving import SERVERS, WSGI_SERVERS, Serving
from tests.support.waiting import GUARD, wait_until


@dataclass(frozen=True)
class Row:
    """What is expected of a server.

    Attributes:
        fin: bytes kept of the 1 000 000 that came before a FIN.
        rst: the same before a RST.
        dripped: bytes counted once the first 10 000 of a long body have dripped in.
        later: bytes counted once 100 000 of it are there.
        chunked: status of the reply to a chunked body.
        broken_chunks: bytes kept of three chunks of 100 000 and half of a fourth.
        answers_half_closed: whether a client that has sent FIN, but still listens, hears how far it came.
        keeps_alive: whether a connection goes on after a 204. waitress ends it, as it does with every reply that has
            no Content-Length, and a 204 must not have one.
        drains: whether a connection goes on after a refusal whose body, of 5 MB, was not read; None where that is a
            matter of moments.
        continues: whether ``Expect: 100-continue`` is answered.
    """

    fin: int
    rst: int
    dripped: int
    later: int
    chunked: int
    broken_chunks: int
    answers_half_closed: bool
    keeps_alive: bool
    drains: bool | None
    continues: bool


TABLE = {
    # fin, rst, dripped, later, chunked, broken_chunks, answers_half_closed, keeps_alive, drains, continues
    "gunicorn-sync": Row(1_000_000, 1_000_000, 10_000, 100_000, 204, 350_000, True, False, False, True),
    "gunicorn-gthread": Row(1_000_000, 1_000_000, 10_000, 100_000, 204, 350_000, True, True, False, True),
    "waitress": Row(0, 0, 0, 0, 204, 0, False, False, True, True),
    "cheroot": Row(1_000_000, 983_040, 0, 65_536, 204, 262_144, True, True, True, True),
    "gevent": Row(983_040, 983_040, 0, 65_536, 204, 327_680, True, True, True, True),
    "wsgiref": Row(1_000_000, 983_040, 0, 65_536, 411, 0, True, False, False, False),
    "uvicorn-httptools": Row(1_000_000, 1_000_000, 10_000, 100_000, 204, 350_000, True, True, True, True),
    "uvicorn-h11": Row(1_000_000, 1_000_000, 10_000, 100_000, 204, 350_000, False, True, True, True),
    "hypercorn": Row(1_000_000, 1_000_000, 10_000, 100_000, 204, 350_000, False, True, True, True),
    "hypercorn-trio": Row(1_000_000, 1_000_000, 10_000, 100_000, 204, 350_000, False, True, True, True),
    "granian": Row(1_000_000, 1_000_000, 10_000, 100_000, 204, 350_000, True, True, None, True),
    "gunicorn-asgi": Row(1_000_000, 1_000_000, 10_000, 100_000, 204, 350_000, False, True, True, True),
}

GUNICORNS = [server for server in WSGI_SERVERS if server.startswith("gunicorn")]

KEEPERS = [server for server in SERVERS if TABLE[server].keeps_alive]

PACKAGE = os.path.join(os.path.dirname(tus.__file__), "")

PATIENCE = GUARD  # seconds for what must happen

CALM = 0.25  # seconds in which nothing more must happen

PROMPT = 20  # seconds for an append that finds a half-open one in its way, which would last a minute


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """A socket to a server; as a context manager it is closed at the end."""

    def __init__(self, served: Serving) -> None:
        self.socket = socket.create_connection(("127.0.0.1", served.port), PATIENCE)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Send FIN, and listen no more."""
        self._file.close()
        self.socket.close()

    def half_close(self) -> None:
        """Send FIN, and listen on."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Send RST, once everything sent before has reached the other side: a RST drops what is still to be sent."""
        wait_until(lambda: self._unacknowledged() == 0)
        self.abort()

    def abort(self) -> None:
        """Send RST, whatever has reached the other side."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def _unacknowledged(self) -> int:
        if sys.platform == "darwin":
            return self.socket.getsockopt(socket.SOL_SOCKET, 0x1024)  # SO_NWRITE
        return struct.unpack("i", fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(4)))[0]

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def push(self, data: bytes) -> None:
        """Send what the server still takes."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)

    def reply(self, method: str = "PATCH") -> Reply:
        """The next reply; EOFError where the connection ends instead."""
        reply = self.reply_if_any(method)
        if reply is None:
            raise EOFError("the connection ended without a reply")
        return reply

    def reply_if_any(self, method: str = "PATCH") -> Reply | None:
        with contextlib.suppress(ConnectionError):
            line = self._file.readline()
            if line:
                return self._rest_of_reply(int(line.split()[1]), method)
        return None

    def _rest_of_reply(self, status: int, method: str) -> Reply:
        headers = {}
        while (line := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        bodiless = method == "HEAD" or status < 200 or status == 204
        return Reply(status, headers, b"" if bodiless else self._file.read(int(headers.get("content-length", -1))))

    def everything(self) -> bytes:
        """All that comes until the server closes."""
        return self._file.read()

    def ends(self, patience: float) -> bool:
        """Whether the server closes; nothing may come before that."""
        self.socket.settimeout(patience)
        try:
            data = self._file.read(1)
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        assert data == b""
        return True


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def content(size: int, seed: int = 0) -> bytes:
    """Bytes in which no block equals another, so that one in the wrong place is noticed."""
    return random.Random(seed).randbytes(size)


def ask(served: Serving, method: str, request: bytes) -> Reply:
    """One request on a connection of its own."""
    with Connection(served) as connection:
        connection.send(request)
        return connection.reply(method)


def assert_landed(served: Serving, path: str, *data: bytes) -> None:
    """What has landed is one of these."""
    landed = (served.landed / path.rpartition("/")[2]).read_bytes()
    assert (len(landed), hashlib.sha256(landed).hexdigest()) in [
        (len(one), hashlib.sha256(one).hexdigest()) for one in data
    ]
