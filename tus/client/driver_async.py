"""Performs the commands of flows on an event loop, of asyncio or trio."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack, aclosing, closing
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from tus.client.arguments import Means, OnProgress
from tus.client.commands import Call, Fill, Flow, OnInterim, Progress, Report, Send, Together, Wait
from tus.client.control import Control, Paused
from tus.client.dialects.tus1 import format_checksum
from tus.client.driving import WITH_BODY, Kept, Meter
from tus.client.errors import ConnectionFailed
from tus.client.messages import Body, Headers, Request, Response
from tus.client.sources import AsyncStreamSource, BytesSource
from tus.client.transports.interface import AsyncTransport, AsyncWireResponse

_T = TypeVar("_T")
_END = object()
_TICK = 0.05


class AsyncDriver:
    """Performs the commands of one flow on an event loop."""

    def __init__(
        self, means: Means[AsyncTransport], control: Control, meter: Meter, on_progress: OnProgress | None
    ) -> None:
        self._means = means
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
        means, control, request = self._means, self._control, command.request
        await self._wait_until_resumed()
        headers = await _settled(means.headers(command))
        if means.on_request is not None:
            await _settled(means.on_request(request))
        body, stack = _AsyncBody(self, request), ExitStack()
        wire = means.wire(command, headers)
        if wire.length != 0 or request.method in WITH_BODY:
            wire.body = body.blocks()
        else:
            wire.length = None
        if isinstance(request.body, Body) and request.body.trailer:
            wire.trailer = body.trailer
        if command.on_interim is not None:
            wire.on_interim = partial(body.take_interim, command.on_interim)
        wire.on_start = lambda abort: stack.enter_context(control.aborting(abort))
        try:
            with stack:
                async with means.transport.send(wire) as answer:
                    response = await self._receive(command, answer)
        except Exception as error:
            if body.failure is not None:
                raise body.failure from None
            if isinstance(error, ConnectionFailed) and (control.is_paused or control.is_cancelled):
                await self._wait_until_resumed()
                raise Paused("The upload was paused.", url=request.url) from None
            raise
        if means.on_response is not None:
            await _settled(means.on_response(request, response))
        return response

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

        async def run(index: int, flow: Flow[Any], driver: AsyncDriver) -> None:
            try:
                results[index] = await driver.run(flow)
            except Exception as error:
                errors.append(error)
                group.cancel_scope.cancel()

        drivers = [AsyncDriver(self._means, self._control, self._meter.part(), self._on_progress) for _ in flows]
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

    def __init__(self, driver: AsyncDriver, request: Request) -> None:
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
        pacer, meter, control = driver._means.pacer, driver._meter, driver._control
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
