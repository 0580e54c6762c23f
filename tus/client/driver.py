"""Performs the commands of flows in threads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from typing import Any, TypeVar

from tus.client.arguments import Means, OnProgress
from tus.client.commands import Call, Fill, Flow, OnInterim, Progress, Report, Send, Together, Wait
from tus.client.control import Control, Paused
from tus.client.dialects.tus1 import format_checksum
from tus.client.driving import WITH_BODY, Kept, Meter
from tus.client.errors import ConnectionFailed
from tus.client.messages import Body, Headers, Request, Response
from tus.client.transports.interface import Transport, WireResponse

_T = TypeVar("_T")


class Driver:
    """Performs the commands of one flow."""

    def __init__(self, means: Means[Transport], control: Control, meter: Meter, on_progress: OnProgress | None) -> None:
        self._means = means
        self._control = control
        self._meter = meter
        self._on_progress = on_progress

    def run(self, flow: Flow[_T]) -> _T:
        with closing(flow):
            try:
                command = next(flow)
                while True:
                    try:
                        result = self._perform(command)
                    except Exception as error:
                        command = flow.throw(error)
                    else:
                        command = flow.send(result)
            except StopIteration as end:
                value: _T = end.value
                return value

    def _perform(self, command: Any) -> Any:
        match command:
            case Send():
                return self._send(command)
            case Fill():
                return command.source.fill(command.offset, command.size)
            case Call():
                return command.function()
            case Report():
                self._tell(self._meter.report(command.progress))
            case Wait():
                self._control.sleep(command.seconds)
            case Together():
                return self._together(command.flows)
        return None

    def _tell(self, progress: Progress | None) -> None:
        if progress is not None and self._on_progress is not None:
            self._on_progress(progress)

    def _send(self, command: Send) -> Response:
        means, control, request = self._means, self._control, command.request
        control.wait_until_resumed()
        headers = means.headers(command)
        if means.on_request is not None:
            means.on_request(request)
        body, stack = _Body(self, request), ExitStack()
        wire = means.wire(command, headers)
        if wire.length != 0 or request.method in WITH_BODY:
            wire.body = body.blocks()
        else:
            wire.length = None
        if isinstance(request.body, Body) and request.body.trailer:
            wire.trailer = body.trailer
        if command.on_interim is not None:
            wire.on_interim = _acting(command.on_interim)
        wire.on_start = lambda abort: stack.enter_context(control.aborting(abort))
        try:
            with stack, means.transport.send(wire) as answer:
                response = self._receive(command, answer)
        except Exception as error:
            if body.failure is not None:
                raise body.failure from None
            if isinstance(error, ConnectionFailed) and (control.is_paused or control.is_cancelled):
                control.wait_until_resumed()
                raise Paused("The upload was paused.", url=request.url) from None
            raise
        if means.on_response is not None:
            means.on_response(request, response)
        return response

    def _receive(self, command: Send, answer: WireResponse) -> Response:
        kept = Kept()
        response = Response(answer.status, answer.headers, b"", command.request.url)
        sink = command.sink if response.is_success else None
        for block in answer.blocks():
            if sink is None:
                if not kept.add(block):
                    break
            else:
                self._control.check()
                sink(response, block)
                self._tell(self._meter.sent(self._meter.position + len(block), len(block)))
        return response if sink is not None else Response(answer.status, answer.headers, kept.whole(), response.url)

    def _together(self, flows: Iterable[Flow[Any]]) -> list[Any]:
        """Run flows in threads. The first error ends the others."""
        flows = list(flows)
        group = Control(self._control)
        drivers = [Driver(self._means, group, self._meter.part(), self._on_progress) for _ in flows]
        with ThreadPoolExecutor(len(flows), thread_name_prefix="tus-part") as pool:
            futures = [pool.submit(driver.run, flow) for driver, flow in zip(drivers, flows, strict=True)]
            try:
                waiting = set(futures)
                while waiting:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
            except BaseException:
                group.cancel()
                raise
        return [future.result() for future in futures]


def _acting(on_interim: OnInterim) -> Callable[[int, Headers], None]:
    """Return a function that also does what an interim response asks for. It is called by the thread that sends."""

    def act(status: int, headers: Headers) -> None:
        function = on_interim(status, headers)
        if function is not None:
            function()

    return act


class _Body:
    """The body of a request, as a transport takes it.

    Attributes:
        failure: what has gone wrong while the source was read. A transport may have another view of it.
    """

    def __init__(self, driver: Driver, request: Request) -> None:
        self._driver, self._body = driver, request.body
        self._hasher = None
        if isinstance(request.body, Body) and request.body.trailer:
            self._hasher = hashlib.new(request.body.trailer, usedforsecurity=False)
        self.failure: BaseException | None = None

    def blocks(self) -> Iterator[bytes]:
        body, driver = self._body, self._driver
        if not isinstance(body, Body):
            if body:
                yield body
            return
        pacer, meter, control = driver._means.pacer, driver._meter, driver._control
        position = body.offset
        try:
            for block in body.source.blocks(body.offset, body.length, pacer.block):
                control.check()
                if delay := pacer.delay(len(block)):
                    control.sleep(delay)
                if self._hasher is not None:
                    self._hasher.update(block)
                yield block
                position += len(block)
                driver._tell(meter.sent(position, len(block)))
        except GeneratorExit:
            raise
        except BaseException as error:
            self.failure = error
            raise

    def trailer(self) -> tuple[str, str]:
        assert isinstance(self._body, Body) and self._hasher is not None
        return "Upload-Checksum", format_checksum(self._body.trailer, self._hasher.digest())
