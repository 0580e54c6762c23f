"""The client for event loops: asyncio and trio."""

from __future__ import annotations

import hashlib
import inspect
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, aclosing, closing
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectSendStream

from tus.client.capabilities import Capabilities
from tus.client.client import (
    HeaderSource,
    Metadata,
    OnProgress,
    describe_file,
    needing_httpx,
    parallel_upload,
    read_arguments,
    record_key,
    resumed_upload,
)
from tus.client.commands import Call, Fill, Flow, OnInterim, Progress, Report, Send, Together, Wait
from tus.client.control import Control, Paused
from tus.client.dialects.tus1 import format_checksum
from tus.client.driving import Kept, Meter, Pacer, body_length, wire_headers
from tus.client.errors import ClientError, ConnectionFailed, ForeignOrigin
from tus.client.flow import discovery, simple
from tus.client.flow import download as downloading
from tus.client.flow.context import Context, origin_of
from tus.client.messages import Body, Headers, Request, Response
from tus.client.records import Records, open_records
from tus.client.results import DownloadResult, Outcome, UploadInfo, UploadResult
from tus.client.retry import Retry
from tus.client.sources import AsyncStreamSource, BytesSource, source_of
from tus.client.transports.interface import AsyncTransport, AsyncWireResponse, WireRequest

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
        self._transport = transport
        self._arguments = read_arguments(
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
        self._has_own_session = http is not None
        self._context = Context(self._arguments.settings, open_records(records))
        self._pacer = Pacer(max_rate)
        self._on_request, self._on_response = on_request, on_response

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

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
        return await self._run(parallel_upload(self._context, made, described, key, parallel), on_progress, control)

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
        return await self._run(resumed_upload(self._context, made, url), on_progress, control)

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
        return await _AsyncDriver(self, control, Meter(), on_progress).run(flow)


class _AsyncDriver:
    """Performs the commands of one flow on an event loop."""

    def __init__(self, client: AsyncClient, control: Control, meter: Meter, on_progress: OnProgress | None) -> None:
        self._client = client
        self._control = control
        self._meter = meter
        self._on_progress = on_progress

    async def run(self, flow: Flow[_T]) -> _T:
        with closing(flow):
            try:
                command = next(flow)
                while True:
                    try:
                        result = await self._perform(command)
                    except Exception as error:
                        command = flow.throw(error)
                    else:
                        command = flow.send(result)
            except StopIteration as end:
                value: _T = end.value
                return value

    async def _perform(self, command: Any) -> Any:
        match command:
            case Send():
                return await self._send(command)
            case Fill(source=AsyncStreamSource() as stream):
                return await stream.fill_async(command.offset, command.size)
            case Fill(source=source) if source.spool:
                return await anyio.to_thread.run_sync(source.fill, command.offset, command.size, abandon_on_cancel=True)
            case Fill():
                return command.source.fill(command.offset, command.size)
            case Call():
                return await anyio.to_thread.run_sync(command.function)
            case Report():
                await self._tell(self._meter.report(command.progress))
            case Wait():
                await self._sleep(command.seconds)
            case Together():
                return await self._together(command.flows)
        return None

    async def _tell(self, progress: Progress | None) -> None:
        if progress is not None and self._on_progress is not None:
            await _settled(self._on_progress(progress))

    async def _sleep(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            while not self._control.is_cancelled:
                await anyio.sleep(_TICK)
        if self._control.is_cancelled:
            self._control.check()

    async def _wait_until_resumed(self) -> None:
        while self._control.is_paused and not self._control.is_cancelled:
            await anyio.sleep(_TICK)
        if self._control.is_cancelled:
            self._control.check()

    async def _send(self, command: Send) -> Response:
        client, control, request = self._client, self._control, command.request
        await self._wait_until_resumed()
        callers = await self._callers(command)
        if client._on_request is not None:
            await _settled(client._on_request(request))
        body, stack = _AsyncBody(self, request), ExitStack()
        retry = client._arguments.settings.retry
        wire = WireRequest(
            method=request.method,
            url=request.url,
            headers=wire_headers(request, callers),
            body=body.blocks(),
            length=body_length(request),
            trailer=body.trailer if isinstance(request.body, Body) and request.body.trailer else None,
            on_interim=None if command.on_interim is None else partial(body.take_interim, command.on_interim),
            on_start=lambda abort: stack.enter_context(control.aborting(abort)),
            stall_timeout=retry.stall_timeout,
            answer_timeout=retry.answer_timeout,
            connect_timeout=retry.connect_timeout,
        )
        if wire.length == 0 and request.method not in ("POST", "PATCH", "PUT"):
            wire.body = wire.length = None
        try:
            with stack:
                async with client._transport.send(wire) as answer:
                    response = await self._receive(command, answer)
        except Exception as error:
            if body.failure is not None:
                raise body.failure from None
            if isinstance(error, ConnectionFailed) and (control.is_paused or control.is_cancelled):
                await self._wait_until_resumed()
                raise Paused("The upload was paused.", url=request.url) from None
            raise
        if client._on_response is not None:
            await _settled(client._on_response(request, response))
        return response

    async def _callers(self, command: Send) -> Mapping[str, str]:
        """Return the caller's own fields for a request."""
        if not command.has_credentials:
            if self._client._has_own_session:
                raise ForeignOrigin(
                    f"The server names a URL at {origin_of(command.request.url)}, and the session of the caller could "
                    "send its credentials there; allow it with trusted_origins=.",
                    url=command.request.url,
                )
            return {}
        arguments = self._client._arguments
        headers = await _settled(arguments.headers()) if callable(arguments.headers) else arguments.headers
        return {**arguments.credentials, **(headers or {})}

    async def _receive(self, command: Send, answer: AsyncWireResponse) -> Response:
        kept = Kept()
        response = Response(answer.status, answer.headers, b"", command.request.url)
        sink = command.sink if response.is_success else None
        async with aclosing(answer.blocks()) as blocks:  # type: ignore[type-var]
            async for block in blocks:
                if sink is None:
                    if not kept.add(block):
                        break
                else:
                    self._control.check()
                    await anyio.to_thread.run_sync(sink, response, block)
                    await self._tell(self._meter.sent(self._meter.position + len(block), len(block)))
        return response if sink is not None else Response(answer.status, answer.headers, kept.whole(), response.url)

    async def _together(self, flows: Iterable[Flow[Any]]) -> list[Any]:
        """Run flows in tasks. The first error ends the others."""
        flows = list(flows)
        results: list[Any] = [None] * len(flows)
        errors: list[Exception] = []

        async def run(index: int, flow: Flow[Any], driver: _AsyncDriver) -> None:
            try:
                results[index] = await driver.run(flow)
            except Exception as error:
                errors.append(error)
                group.cancel_scope.cancel()

        drivers = [_AsyncDriver(self._client, self._control, self._meter.part(), self._on_progress) for _ in flows]
        async with anyio.create_task_group() as group:
            for index, (driver, flow) in enumerate(zip(drivers, flows, strict=True)):
                group.start_soon(run, index, flow, driver)
        if errors:
            raise errors[0]
        return results


class _AsyncBody:
    """The body of a request, as a transport takes it.

    Attributes:
        failure: what has gone wrong while the source was read. A transport may have another view of it.
    """

    def __init__(self, driver: _AsyncDriver, request: Request) -> None:
        self._driver, self._body = driver, request.body
        self._hasher = None
        if isinstance(request.body, Body) and request.body.trailer:
            self._hasher = hashlib.new(request.body.trailer, usedforsecurity=False)
        self._asked: list[Callable[[], Any]] = []
        self.failure: BaseException | None = None

    def take_interim(self, on_interim: OnInterim, status: int, headers: Headers) -> None:
        """Take an interim response. What it asks for may block, so it is done between two blocks."""
        function = on_interim(status, headers)
        if function is not None:
            self._asked.append(function)

    async def blocks(self) -> AsyncIterator[bytes]:
        body, driver = self._body, self._driver
        if not isinstance(body, Body):
            if body:
                yield body
            return
        pacer, meter, control = driver._client._pacer, driver._meter, driver._control
        position = body.offset
        is_in_memory = isinstance(body.source, BytesSource) or bool(body.source.spool)
        blocks: Iterator[bytes] = body.source.blocks(body.offset, body.length, pacer.block)
        try:
            while True:
                while self._asked:
                    await anyio.to_thread.run_sync(self._asked.pop(0))
                if is_in_memory:
                    block = next(blocks, _END)
                else:
                    block = await anyio.to_thread.run_sync(next, blocks, _END)
                if not isinstance(block, bytes):
                    return
                control.check()
                if delay := pacer.delay(len(block)):
                    await driver._sleep(delay)
                if self._hasher is not None:
                    self._hasher.update(block)
                yield block
                position += len(block)
                await driver._tell(meter.sent(position, len(block)))
        except GeneratorExit:
            raise
        except Exception as error:
            self.failure = error
            raise

    def trailer(self) -> tuple[str, str]:
        assert isinstance(self._body, Body) and self._hasher is not None
        return "Upload-Checksum", format_checksum(self._body.trailer, self._hasher.digest())


async def _settled(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
