"""One request on its way, as network streams see it: what the server says before its final response, and an end."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

from tus.client.messages import Headers
from tus.client.transports.interface import WireRequest

_LONGEST_HEAD = 64 * 1024
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])")
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")


class Aborted(Exception):
    """The request was ended by another thread."""


@dataclass(eq=False)
class Exchange:
    """A request that is being sent, as the streams see it. Pure, apart from :meth:`abort`.

    Attributes:
        request: what is sent.
        is_answered: whether the final response has begun.
        is_aborted: whether another thread has ended the request.
        has_begun: whether its head was sent.
    """

    request: WireRequest
    is_answered: bool = False
    is_aborted: bool = False
    has_begun: bool = False
    _pending: bytes = b""
    _socket: socket.socket | None = field(default=None, repr=False)

    def begins_with(self, data: bytes) -> bool:
        """Whether this is the head of the request, and not the first message to a proxy on the way."""
        return not self.has_begun and data.startswith(self.request.method.encode() + b" ")

    @property
    def has_received(self) -> bool:
        return self.is_answered or bool(self._pending)

    def take(self, data: bytes) -> bytes:
        """Take what the server says; return what is of the final response."""
        if self.is_answered:
            return data
        self._pending += data
        while interim := self._interim():
            status, headers = interim
            if self.request.on_interim is not None:
                self.request.on_interim(status, headers)
        line = _STATUS_LINE.match(self._pending)
        if line is None:
            self.is_answered = len(self._pending) >= len("HTTP/1.1 200")
        else:
            is_final = line[1][:1] != b"1" or line[1] == b"101"
            self.is_answered = is_final or len(self._pending) > _LONGEST_HEAD
        return self.rest() if self.is_answered else b""

    def rest(self) -> bytes:
        """Return what came last and is no complete interim response."""
        rest, self._pending = self._pending, b""
        return rest

    def _interim(self) -> tuple[int, Headers] | None:
        line, end = _STATUS_LINE.match(self._pending), _END_OF_HEAD.search(self._pending)
        if line is None or end is None or line[1][:1] != b"1" or line[1] == b"101":
            return None
        head, self._pending = self._pending[: end.start()], self._pending[end.end() :]
        fields = (row.decode("latin-1").partition(":") for row in head.splitlines()[1:])
        return int(line[1]), Headers((name.strip(), value.strip()) for name, _, value in fields)

    # -- For other threads --

    def use(self, used: socket.socket) -> None:
        """Name the socket that the request is on now."""
        self._socket = used
        if self.is_aborted:
            raise Aborted

    def abort(self) -> None:
        """End the request. Whatever waits for its socket wakes up."""
        self.is_aborted = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


current: ContextVar[Exchange | None] = ContextVar("tus-client-exchange", default=None)


@contextlib.contextmanager
def sending(exchange: Exchange) -> Iterator[None]:
    """Have the streams that are used in this context serve a request."""
    token = current.set(exchange)
    try:
        yield
    finally:
        current.reset(token)
