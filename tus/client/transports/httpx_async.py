"""The default transport, over httpx2, on an event loop: asyncio or trio."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2

from tus.client.messages import Headers
from tus.client.transports.certificates import Cert, Verify
from tus.client.transports.exchange import Exchange, sending
from tus.client.transports.failures import in_plain_words
from tus.client.transports.httpx import Session, stop_if_aborted
from tus.client.transports.interface import AsyncWireResponse, WireRequest

_PIECE = 64 * 1024  # httpx2 allows the stall timeout for each block, not for each byte


class AsyncHttpxTransport(Session[httpx2.AsyncClient]):
    """Sends requests by httpx2, on an event loop; the arguments are those of HttpxTransport."""

    def __init__(
        self,
        client: httpx2.AsyncClient | None = None,
        *,
        verify: Verify = True,
        cert: Cert | None = None,
        proxy: str | None = None,
    ) -> None:
        super().__init__(httpx2.AsyncClient, "AsyncListeningTransport", client, verify=verify, cert=cert, proxy=proxy)

    @contextlib.asynccontextmanager
    async def send(self, request: WireRequest) -> AsyncIterator[AsyncWireResponse]:
        """Send a request, see :meth:`~tus.client.transports.interface.AsyncTransport.send`."""
        exchange = self._exchange(request)
        with in_plain_words(exchange), sending(exchange):
            body = request.body if self.is_own or request.body is None else _pieces(request.body, exchange)
            response = await self._client.send(self._built(request, body), stream=True, follow_redirects=False)
        try:
            yield AsyncWireResponse(
                response.status_code,
                Headers(response.headers.multi_items()),
                lambda: _blocks(response, exchange),
            )
        finally:
            await response.aclose()

    async def close(self) -> None:
        """Close all connections, unless the client is the caller's."""
        if self.is_own:
            await self._client.aclose()


async def _blocks(response: httpx2.Response, exchange: Exchange) -> AsyncIterator[bytes]:
    blocks = response.aiter_bytes()
    while True:
        with in_plain_words(exchange):
            block = await anext(blocks, None)
            stop_if_aborted(exchange)
        if block is None:
            return
        yield block


async def _pieces(body: Any, exchange: Exchange) -> AsyncIterator[bytes]:
    async for block in body:
        for start in range(0, len(block), _PIECE):
            stop_if_aborted(exchange)
            yield block[start : start + _PIECE]
