"""The uploaders for threads and for event loops."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from tus.client.commands import Flow
from tus.client.errors import ClientError
from tus.client.flow.context import Context
from tus.client.tusclient.exceptions import TusCommunicationError
from tus.client.tusclient.request import AsyncTusRequest, TusRequest
from tus.client.tusclient.uploader.baseuploader import BaseUploader, tls_context

if TYPE_CHECKING:
    from tus.client.transports.httpx_async import AsyncHttpxTransport

_T = TypeVar("_T")


class Uploader(BaseUploader):
    """An upload of one file, in a thread."""

    def upload(self, stop_at: int | None = None) -> None:
        """Upload the file, up to an offset if there is one.

        Raises:
            TusCommunicationError: the server has not taken it.
        """
        self.stop_at = stop_at or self.get_file_size()
        self._ensure_url()
        while self.offset < self.stop_at:
            self.upload_chunk()

    def upload_chunk(self) -> None:
        """Upload the next chunk.

        Raises:
            TusCommunicationError: the server has not taken it.
        """
        self._ensure_url()
        self._retried = 0
        failure = None
        while True:
            try:
                if failure is not None:
                    self.offset = self.get_offset()
                self.request = request = TusRequest(self)
                request.perform()
                return self._take(request)
            except TusCommunicationError as error:
                failure = error
            time.sleep(self._delay(failure))

    def _ensure_url(self) -> None:
        if not self.url:
            self.set_url(self.create_url())
            self.offset = 0

    def create_url(self) -> str:
        """Create an upload, and return its URL.

        Raises:
            TusCommunicationError: the server has not created it.
        """
        try:
            return self._run(self._creation, self.get_url_creation_headers())
        except ClientError as error:
            raise TusCommunicationError.of(error) from error


class AsyncUploader(BaseUploader):
    """An upload of one file, on an event loop.

    As in tuspy, it is made without waiting: if there is a URL already, that blocks for one request.
    """

    _transport: AsyncHttpxTransport | None = None

    async def upload(self, stop_at: int | None = None) -> None:
        """Do what :meth:`Uploader.upload` does."""
        self.stop_at = stop_at or self.get_file_size()
        async with self._connected():
            await self._ensure_url()
            while self.offset < self.stop_at:
                await self.upload_chunk()

    async def upload_chunk(self) -> None:
        """Do what :meth:`Uploader.upload_chunk` does."""
        import anyio

        async with self._connected():
            await self._ensure_url()
            self._retried = 0
            failure = None
            while True:
                try:
                    if failure is not None:
                        self.offset = await anyio.to_thread.run_sync(self.get_offset)
                    self.request = request = AsyncTusRequest(self)
                    await request.perform()
                    return self._take(request)
                except TusCommunicationError as error:
                    failure = error
                await anyio.sleep(self._delay(failure))

    async def _ensure_url(self) -> None:
        if not self.url:
            self.set_url(await self.create_url())
            self.offset = 0

    async def create_url(self) -> str:
        """Do what :meth:`Uploader.create_url` does."""
        try:
            return await self._run_async(self._creation, self.get_url_creation_headers())
        except ClientError as error:
            raise TusCommunicationError.of(error) from error

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncHttpxTransport]:
        """Have connections: those of the caller of this method, if it has some."""
        if self._transport is not None:
            yield self._transport
            return
        from tus.client.transports.httpx_async import AsyncHttpxTransport

        self._transport = transport = AsyncHttpxTransport(verify=tls_context(self.verify_tls_cert, self.client_cert))
        try:
            yield transport
        finally:
            self._transport = None
            await transport.close()

    async def _run_async(self, flow: Callable[[Context], Flow[_T]], headers: Mapping[str, str] | None = None) -> _T:
        """Run a flow on the event loop."""
        from tus.client.aio import AsyncClient

        async with self._connected() as transport:
            client: Any = AsyncClient(**self._arguments(headers or self.get_headers()), transport=transport)
            result: _T = await client._run(flow(client._context))
            return result
