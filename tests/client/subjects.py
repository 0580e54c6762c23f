"""The transports for threads and for event loops, with one face, so that one suite tries them all."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import anyio.from_thread
import httpx2

from tus.client.messages import Headers
from tus.client.transports.httpx import HttpxTransport
from tus.client.transports.httpx_async import AsyncHttpxTransport
from tus.client.transports.interface import WireRequest

LOOPS = ("asyncio", "trio")


@dataclass
class Got:
    status: int
    headers: Headers
    body: bytes


class Subject:
    """Runs requests of one kind of transport; a context manager, that closes all transports."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._stack = contextlib.ExitStack()
        self._default = None

    def __enter__(self) -> Subject:
        if self.kind in LOOPS:
            self._portal = self._stack.enter_context(anyio.from_thread.start_blocking_portal(self.kind))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def transport(self, client=None, **settings):
        """A transport; ``client`` is the arguments of a client of the caller's."""
        own = None
        if self.kind not in LOOPS:
            if client is not None:
                own = self._stack.enter_context(httpx2.Client(**client))
            transport = HttpxTransport(own, **settings)
            self._stack.callback(transport.close)
        else:
            if client is not None:
                own = httpx2.AsyncClient(**client)
                self._stack.callback(self._portal.call, own.aclose)
            transport = AsyncHttpxTransport(own, **settings)
            self._stack.callback(self._portal.call, transport.close)
        transport.client_of_caller = own
        return transport

    def send(self, transport, method, url, body=None, **how) -> Got:
        """Send a request and read the whole response."""
        request = WireRequest(method, url, **how)
        if self.kind not in LOOPS:
            request.body = body
            with transport.send(request) as response:
                return Got(response.status, response.headers, b"".join(response.blocks()))
        if body is not None:
            request.body = _on_loop(body)
        return self._portal.call(self._send, transport, request)

    async def _send(self, transport, request):
        async with transport.send(request) as response:
            blocks = [block async for block in response.blocks()]
            return Got(response.status, response.headers, b"".join(blocks))


async def _on_loop(blocks):
    for block in blocks:
        yield block
