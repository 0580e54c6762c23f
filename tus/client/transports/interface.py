"""What the client needs of an HTTP library.

Law of this room: a transport sends one request and returns its response. It follows no redirect and repeats nothing;
all that is decided elsewhere. Whatever goes wrong on the way is a :class:`~tus.client.errors.ConnectionFailed`.

A transport for another library is about 80 lines: ``send``, ``close``, and a table of that library's exceptions. It
need not know trailers (``sends_trailers``) or interim responses: then it never calls ``on_interim``. Nor need it end a
request from another thread: without ``on_start``, a pause takes effect at the next block of the body.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from tus.client.messages import Headers


@dataclass(slots=True)
class WireRequest:
    """A request as it is sent.

    Attributes:
        method: such as ``PATCH``.
        url: absolute.
        headers: fields in their order. Host, Content-Length and Transfer-Encoding are added by the transport.
        body: its blocks, each sent as it is, once; None for none. An :class:`AsyncTransport` takes an async iterable.
        length: the number of bytes in the body. None with a body means that it is sent in chunks.
        trailer: called after the last block; returns the name and value of a field that follows the body. Such a
            request has no length. Only for a transport that ``sends_trailers``.
        on_interim: called with the status and the fields of each interim response (1xx).
        on_start: called before anything is sent, with a function that ends this request at once from any thread.
        stall_timeout: seconds without one byte moving before :class:`~tus.client.errors.Stalled`.
        answer_timeout: the same while the whole request is sent and nothing of the response has come.
        connect_timeout: seconds for a connection, TLS included.
    """

    method: str
    url: str
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: Iterable[bytes] | AsyncIterable[bytes] | None = None
    length: int | None = None
    trailer: Callable[[], tuple[str, str]] | None = None
    on_interim: Callable[[int, Headers], None] | None = None
    on_start: Callable[[Callable[[], None]], None] | None = None
    stall_timeout: float = 30.0
    answer_timeout: float = 60.0
    connect_timeout: float = 20.0


@dataclass(frozen=True, slots=True)
class WireResponse:
    """A final response whose body has not been read yet.

    Attributes:
        status: such as 204.
        headers: the fields.
        blocks: called once, returns the body's blocks as they come. They raise what ``send`` raises.
    """

    status: int
    headers: Headers
    blocks: Callable[[], Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class AsyncWireResponse:
    """The same on an event loop."""

    status: int
    headers: Headers
    blocks: Callable[[], AsyncIterator[bytes]]


class Transport(Protocol):
    """Sends requests, from any number of threads.

    Attributes:
        sends_trailers: whether requests may have a ``trailer``.
    """

    sends_trailers: bool

    def send(self, request: WireRequest) -> AbstractContextManager[WireResponse]:
        """Send a request, and return the response while the context lasts.

        If the server responds before the whole body is sent, the rest of the body is not sent.

        Raises:
            ConnectionFailed: there is no complete response.
            Stalled: nothing moved for too long.
        """

    def close(self) -> None:
        """Close all connections."""


class AsyncTransport(Protocol):
    """Sends requests on an event loop."""

    sends_trailers: bool

    def send(self, request: WireRequest) -> AbstractAsyncContextManager[AsyncWireResponse]:
        """Do what :meth:`Transport.send` does."""

    async def close(self) -> None:
        """Close all connections."""
