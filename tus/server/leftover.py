"""The bytes of a request's body that its response did not need. They are read after the response was sent.

If a server closes a connection with unread bytes, the kernel sends a reset. Clients that look for a response only after
they have sent everything, such as http.client, then see a broken pipe and not the response; nginx responds with 502.

Law of this room: reading ends after a number of bytes and of seconds, however slow or silent the client is. It happens
only on streams whose socket can be waited for: gunicorn's, and the buffered file that wsgiref and the development
servers of frameworks use. The other servers read the rest of a body themselves, or have read it before the application
was called.
"""

from __future__ import annotations

import logging
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from tus.adapters.wsgi import close_empty
from tus.http.headers import number_in
from tus.models import Readable, Request, Response
from tus.server.body_gunicorn import GunicornInput
from tus.server.pace import Patience

log = logging.getLogger(__name__)

LARGEST: Final = 64 << 20  # bytes
LONGEST: Final = 5.0  # seconds
_BLOCK: Final = 256 << 10


def read_behind(response: Response, request: Request, stream: Readable, received: int) -> None:
    """Let the server read the rest of a request's body behind the response, if there is a rest.

    Args:
        response: its body may be replaced.
        request: the head.
        stream: the body.
        received: the number of bytes of the body that were read.
    """
    length = request.fields.get("Content-Length")
    left = None
    if length:
        left = (number_in(length) or 0) - received
        if left <= 0:
            return
    elif "Transfer-Encoding" not in request.fields:
        return
    reader = _reader_of(stream, left, request)
    if reader is not None:
        response.body = _Behind(response.body, reader)


class _Behind:
    """The body of a response, behind which the rest of the request's body is read."""

    def __init__(self, body: Iterable[bytes], reader: Callable[[float], None]) -> None:
        self._body = body
        self._reader = reader

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body or close_empty(self._body))

    def close(self) -> None:
        """Close the body, and read the rest. Servers call this after they have sent the response."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            try:
                self._reader(time.monotonic() + LONGEST)
            except Exception as error:
                log.debug("the rest of a body was not read: %r", error)


def _reader_of(stream: Any, left: int | None, request: Request) -> Callable[[float], None] | None:
    """Return a function that reads the rest of a body until a time; None for a stream that cannot be waited for."""
    direct = GunicornInput.of(stream, left)
    if direct is not None:
        return lambda deadline: _read_gunicorn(direct, deadline)
    if left is None or "Expect" in request.fields:
        return None  # a client that expects 100 waits for the response, and sends no body after a refusal
    if type(stream).__module__ == "cheroot.server" and isinstance(getattr(stream, "remaining", None), int):
        # After most responses cheroot has read the rest itself; after a 413 it closes the connection.
        return lambda deadline: _read_file(stream.rfile, stream.remaining, deadline)
    return None if _socket_of(stream) is None else lambda deadline: _read_file(stream, left, deadline)


def _read_gunicorn(direct: GunicornInput, deadline: float) -> None:
    received = 0
    for block in direct.blocks(lambda: time.monotonic() < deadline, Patience(silence=LONGEST)):
        received += len(block)
        if received > LARGEST or time.monotonic() >= deadline:
            direct.abandon()
            return


def _socket_of(stream: Any) -> socket.socket | None:
    """Return the socket behind a buffered file; None for another stream, or if the socket decrypts."""
    raw = getattr(stream, "raw", None)  # cheroot's file is not derived from io.BufferedReader
    connection = getattr(raw, "_sock", None) if isinstance(raw, socket.SocketIO) else None
    return connection if type(connection) is socket.socket else None


def _read_file(stream: Any, left: int, deadline: float) -> None:
    connection = _socket_of(stream)
    if connection is None:
        return
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    left = min(left, LARGEST)
    timeout = connection.gettimeout()
    connection.settimeout(0)  # the file may hold bytes that poll() does not see
    try:
        is_readable = False
        while left > 0 and (wait := deadline - time.monotonic()) > 0:
            block = stream.read1(min(_BLOCK, left))
            left -= len(block or b"")
            if not block and (is_readable or not poll.poll(wait * 1000)):
                return  # the connection has ended, or the time has
            is_readable = not block
    finally:
        connection.settimeout(timeout)
