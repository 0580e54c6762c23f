"""The client for event loops: asyncio and trio."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectSendStream

from tus.client.arguments import (
    HeaderSource,
    Means,
    Metadata,
    OnProgress,
    describe_file,
    needing_httpx,
    read_arguments,
    record_key,
)
from tus.client.capabilities import Capabilities
from tus.client.commands import Flow, Progress
from tus.client.control import Control
from tus.client.driver_async import AsyncDriver
from tus.client.driving import Meter, Pacer
from tus.client.errors import ClientError
from tus.client.flow import discovery, simple
from tus.client.flow import download as downloading
from tus.client.flow.context import Context
from tus.client.flow.parallel import upload as upload_in_parts
from tus.client.flow.upload import Upload
from tus.client.messages import Request, Response
from tus.client.records import Records, open_records
from tus.client.results import DownloadResult, Outcome, UploadInfo, UploadResult
from tus.client.retry import Retry
from tus.client.sources import source_of
from tus.client.transports.interface import AsyncTransport

_T = TypeVar("_T")
_END = object()
_TICK = 0.05


class AsyncClient:
    """Uploads files to a server, over tus 1.0.0 or the IETF's protocol, on an event loop of asyncio or trio.

    Its arguments are those of :class:`~tus.client.Client`. ``http`` is an ``httpx2.AsyncClient``, and ``headers``,
    ``on_request``, ``on_response`` and ``on_progress`` may be coroutine functions. A file is read in threads. To cancel
    an upload, cancel its task.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        headers: HeaderSource = None,
        auth: tuple[str, str] | None = None,
        protocol: str = "auto",
        chunk_size: int | None = None,
        checksum: str | None = None,
        digest: str | None = None,
        retry: Retry | None = None,
        records: Records | Literal["default"] | str | os.PathLike[str] | None = "default",
        verify: bool | str | ssl.SSLContext = True,
        cert: str | tuple[str, ...] | None = None,
        proxy: str | None = None,
        http: Any = None,
        transport: AsyncTransport | None = None,
        max_rate: float | None = None,
        override_patch: bool = False,
        trusted_origins: Iterable[str] = (),
        on_request: Callable[[Request], Any] | None = None,
        on_response: Callable[[Request, Response], Any] | None = None,
    ) -> None:
        if transport is None:
            with needing_httpx():
                from tus.client.transports.httpx_async import AsyncHttpxTransport

            transport = AsyncHttpxTransport(verify=verify, cert=cert, proxy=proxy, client=http)
        arguments = read_arguments(
            endpoint,
            headers=headers,
            auth=auth,
            protocol=protocol,
            chunk_size=chunk_size,
            checksum=checksum,
            digest=digest,
            retry=retry or Retry(),
            override_patch=override_patch,
            trusted_origins=trusted_origins,
            sends_trailers=transport.sends_trailers,
        )
        self._context = Context(arguments.settings, open_records(records))
        self._means = Means(
            transport=transport,
            arguments=arguments,
            pacer=Pacer(max_rate),
            on_request=on_request,
            on_response=on_response,
            has_own_session=http is not None,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._means.transport.close()

    @property
    def endpoint(self) -> str:
        """The URL that creates uploads."""
        return self._context.settings.endpoint

    @property
    def records(self) -> Records:
        """Where unfinished uploads are remembered."""
        return self._context.records

    async def upload(
        self,
        source: Any,
        *,
        metadata: Metadata | None = None,
        filename: str | None = None,
        filetype: str | None = None,
        size: int | None = None,
        parallel: int = 1,
        resume: bool = True,
        on_progress: OnProgress | None = None,
        control: Control | None = None,
    ) -> UploadResult:
        """Do what :meth:`Client.upload <tus.client.Client.upload>` does. A source may be an async iterable of bytes."""
        made = await anyio.to_thread.run_sync(lambda: source_of(source, size=size, filename=filename))
        described = describe_file(made, metadata, filename, filetype)
        key = record_key(made, self.endpoint, described) if resume else ""
        return await self._run(upload_in_parts(self._context, made, described, key, parallel), on_progress, control)

    async def upload_many(
        self,
        sources: Iterable[Any],
        *,
        jobs: int = 4,
        on_progress: Callable[[Any, Progress], Any] | None = None,
        control: Control | None = None,
        **options: Any,
    ) -> AsyncIterator[Outcome]:
        """Do what :meth:`Client.upload_many <tus.client.Client.upload_many>` does."""
        send, receive = anyio.create_memory_object_stream[Outcome](0)
        waiting = iter(sources)

        async def work(own: MemoryObjectSendStream[Outcome]) -> None:
            async with own:
                for source in waiting:
                    await own.send(await self._attempt(source, on_progress, control, options))

        async with receive, anyio.create_task_group() as group:
            async with send:
                for _ in range(jobs):
                    group.start_soon(work, send.clone())
            try:
                async for outcome in receive:
                    yield outcome
            finally:
                group.cancel_scope.cancel()

    async def _attempt(
        self,
        source: Any,
        on_progress: Callable[[Any, Progress], Any] | None,
        control: Control | None,
        options: Mapping[str, Any],
    ) -> Outcome:
        follow = None if on_progress is None else (lambda progress: on_progress(source, progress))
        try:
            return Outcome(source, await self.upload(source, on_progress=follow, control=control, **options))
        except (ClientError, OSError) as error:
            return Outcome(source, error=error)

    async def create(self, size: int | None, metadata: Metadata | None = None) -> str:
        """Do what :meth:`Client.create <tus.client.Client.create>` does."""
        return await self._run(simple.create(self._context, size, metadata or {}))

    async def resume(
        self,
        url: str,
        source: Any,
        *,
        size: int | None = None,
        on_progress: OnProgress | None = None,
        control: Control | None = None,
    ) -> UploadResult:
        """Do what :meth:`Client.resume <tus.client.Client.resume>` does."""
        made = await anyio.to_thread.run_sync(lambda: source_of(source, size=size))
        return await self._run(Upload(self._context, made, {}, url=url).run(), on_progress, control)

    async def head(self, url: str) -> UploadInfo:
        """Do what :meth:`Client.head <tus.client.Client.head>` does."""
        return await self._run(simple.head(self._context, url))

    async def delete(self, url: str) -> None:
        """Do what :meth:`Client.delete <tus.client.Client.delete>` does."""
        await self._run(simple.delete(self._context, url))

    async def options(self) -> Capabilities:
        """Do what :meth:`Client.options <tus.client.Client.options>` does."""
        return await self._run(discovery.discover(self._context))

    async def download(
        self,
        url: str,
        path: str | os.PathLike[str],
        *,
        verify_digest: bool = True,
        overwrite: bool = False,
        on_progress: OnProgress | None = None,
        control: Control | None = None,
    ) -> DownloadResult:
        """Do what :meth:`Client.download <tus.client.Client.download>` does."""
        flow = downloading.download(self._context, url, os.fspath(path), verify_digest, overwrite)
        return await self._run(flow, on_progress, control)

    async def _run(self, flow: Flow[_T], on_progress: OnProgress | None = None, control: Control | None = None) -> _T:
        control = control or Control()
        return await AsyncDriver(self._means, control, Meter(), on_progress).run(flow)
