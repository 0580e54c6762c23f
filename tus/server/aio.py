"""One request on an event loop: the asynchronous driver of an exchange.

Law of this room: the loop never touches the disk. What does is done in a worker thread, from one effect that waits to
the next in one go, so that a small request takes one to three of them; no thread waits for a client. It runs on
asyncio and on trio, by anyio.
"""

from __future__ import annotations

import inspect
import logging
import math
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import anyio
from anyio import CancelScope, CapacityLimiter, from_thread, to_thread
from anyio.lowlevel import EventLoopToken, RunVar, current_token

from tus.adapters.interface import AsyncAdapter
from tus.converters import is_async
from tus.errors import StorageUnavailable
from tus.handover.attempt import Receiver
from tus.models import Response
from tus.protocols.effects import Ask, Authorize, Effect, Offer, Offered, Peek, Peeked, Receive, Received, Tell, Wait
from tus.server.body_async import AsyncBody
from tus.server.reception import Sink
from tus.server.runner import Asker, Runner
from tus.server.service import Service
from tus.stores.interface import Claim

log = logging.getLogger(__name__)

#: Of each kind: those that write bodies, those that call what is the application's, and those that do the rest, so that
#: these wait neither for a disk nor for somebody who may in turn wait for a request.
THREADS = 32
LOOK = 0.5  # seconds without a byte until the first look at whether there is a reason to wait on
_LONGEST_LOOK = 4.0

#: Gives a complete upload to the application, and answers with what that said. What it raises is "not now".
AsyncReceiver = Callable[[Claim], Awaitable[Response]]

_T = TypeVar("_T")
_hands: RunVar[CapacityLimiter] = RunVar("tus_hands")
_writers: RunVar[CapacityLimiter] = RunVar("tus_writers")
_callers: RunVar[CapacityLimiter] = RunVar("tus_callers")


def _limiter(variable: RunVar[CapacityLimiter]) -> CapacityLimiter:
    try:
        return variable.get()
    except LookupError:
        limiter = CapacityLimiter(THREADS)
        variable.set(limiter)
        return limiter


async def in_thread(function: Callable[[], _T]) -> _T:
    """Have a worker thread do what may touch the disk."""
    return await to_thread.run_sync(function, limiter=_limiter(_hands))


class AsyncTus:
    """One request to the uploads, on an event loop.

    Args:
        adapter: the request.
        service: where uploads are kept.
        receiver: takes finished uploads, called in a worker thread.
        async_receiver: takes them on the loop instead.
        asker: asks for the intents of ``ask_app``.
    """

    def __init__(
        self,
        adapter: AsyncAdapter,
        service: Service,
        receiver: Receiver | None = None,
        async_receiver: AsyncReceiver | None = None,
        asker: Asker | None = None,
    ) -> None:
        self._adapter = adapter
        self._receiver = async_receiver
        self._runner = Runner(adapter, service, receiver, asker)
        self._runner.left += (Wait, Offer)
        if service.options.has_hooks:
            self._runner.left += (Ask, Tell)
        if asker is not None or is_async(service.options.authorize):
            self._runner.left += (Authorize,)
        # A task can be cancelled while its thread is at work; what follows then must not begin beside that.
        self._lock = threading.Lock()
        self._pouring: _Pouring | None = None
        self._is_concluded = False

    @property
    def valid(self) -> bool:
        """Whether the request speaks to the uploads; else it is for a page or a form at the same URL."""
        return self._runner.is_ours

    async def handle(self) -> None:
        """Answer the request; refusals too become the adapter's response."""
        try:
            effect = await self._hop(partial(self._as_far_as_possible, self._runner.begin))
            while effect is not None:
                perform = await self._performance(effect)
                step = partial(self._runner.go_on, perform, effect)
                effect = await self._hop(partial(self._as_far_as_possible, step))
        except BaseException:
            await self._surely(self._break_off)
            raise

    def _as_far_as_possible(self, step: Callable[[], Effect | None]) -> Effect | None:
        effect = step()
        while isinstance(effect, Receive | Peek) and effect.intake.body.length == 0:
            effect = self._runner.go_on(self._begin_pouring(effect).end, effect)
        if effect is None:
            self._runner.conclude()
            self._is_concluded = True
        return effect

    def _break_off(self) -> None:
        if self._pouring is not None:
            self._pouring.rescue()
        if not self._is_concluded:
            self._runner.break_off()

    async def _hop(self, function: Callable[[], _T], variable: RunVar[CapacityLimiter] = _hands) -> _T:
        """Have a thread do something; a task that is told to stop does so before or after that."""
        work = partial(self._locked, function)
        with CancelScope(shield=True):
            return await to_thread.run_sync(work, limiter=_limiter(variable))
        raise AssertionError("a shield lets every exception through")

    async def _surely(self, function: Callable[[], object]) -> None:
        """Do what must be done although this task is cancelled, be it once more before a thread has begun with it."""
        work = threading.Thread(target=self._locked, args=(function,), name="tus-breaking-off")
        work.start()
        with CancelScope(shield=True):
            await to_thread.run_sync(work.join, limiter=CapacityLimiter(math.inf))

    def _locked(self, function: Callable[[], _T]) -> _T:
        with self._lock:
            return function()

    async def _performance(self, effect: Effect) -> Callable[[Any], Any]:
        """Wait for what an effect has to wait for; returns what is to be done then."""
        match effect:
            case Receive() | Peek():
                return await self._poured(effect)
            case Wait(seconds):
                await anyio.sleep(seconds)
                return lambda effect: None
        result: object
        try:
            if isinstance(effect, Authorize):
                result = await self._authorize(effect)
            elif isinstance(effect, Offer) and self._receiver is not None:
                result = await self._offer(self._receiver)
            else:
                result = await self._hop(partial(self._runner.perform, effect), _callers)
        except Exception as error:
            return partial(_throw, error)
        return lambda effect: result

    # -- The application --

    async def _authorize(self, effect: Authorize) -> str | Response | None:
        calls = self._runner.authorizing(effect)
        answer: Any = None
        try:
            while True:
                call = calls.send(answer)
                answer = call() if is_async(call) else await to_thread.run_sync(call, limiter=_limiter(_callers))
                if inspect.isawaitable(answer):
                    answer = await answer
        except StopIteration as stop:
            verdict: str | Response | None = stop.value
            return verdict

    async def _offer(self, receiver: AsyncReceiver) -> Offered:
        attempt = self._runner.attempt
        assert attempt.claim is not None, "an Offer follows a Claim"
        try:
            return attempt.take_answer(await receiver(attempt.claim))
        except BaseException as error:
            return attempt.take_exception(error)

    # -- The body --

    def _begin_pouring(self, effect: Receive | Peek) -> _Pouring:
        runner = self._runner
        runner.body = body = AsyncBody(self._adapter.receive, effect.intake.body.length)
        self._pouring = _Pouring(runner, effect, body)
        return self._pouring

    async def _poured(self, effect: Receive | Peek) -> Callable[[Any], Any]:
        """Move the body, up to its last batch, which is taken in together with what follows."""
        pouring = self._begin_pouring(effect)
        async with anyio.create_task_group() as group:
            group.start_soon(pouring.body.read)
            await self._move(pouring)
            group.cancel_scope.cancel()
        return pouring.end

    async def _move(self, pouring: _Pouring) -> None:
        body = pouring.body
        patience = self._runner.patience()
        pace = patience.pace()
        silent, look = 0.0, LOOK
        while True:
            pouring.add(await body.take(look))
            if body.is_over:
                return
            if pouring.has_blocks:
                silent, look = 0.0, LOOK
                if not await self._hop(pouring.write, _writers):
                    return
            else:
                silent += look
                if silent >= patience.silence > 0 or not await self._hop(pouring.is_wanted):
                    body.give_up()
                    return
                look = min(2 * look, _LONGEST_LOOK, patience.silence - silent if patience.silence else math.inf)
            if not pace.keeps_up(body.received):
                body.give_up()
                return


class _Pouring:
    """A body on its way from the loop, which adds blocks, into a sink, which a thread fills.

    What was added stays here until a thread has taken it: the loop may be told to stop at any time.
    """

    def __init__(self, runner: Runner, effect: Receive | Peek, body: AsyncBody) -> None:
        self.body = body
        self._runner = runner
        self._effect = effect
        self._sink: Sink = runner.sink(effect)
        self._blocks: list[bytes] = []
        self._is_wanted = True
        self._has_ended = False
        self._failure: Exception | None = None

    @property
    def has_blocks(self) -> bool:
        """Whether there is something to write."""
        return bool(self._blocks)

    def add(self, blocks: list[bytes]) -> None:
        """Have these written next."""
        self._blocks += blocks

    def write(self) -> bool:
        """Write what was added; False where no more is wanted."""
        blocks, self._blocks = self._blocks, []
        try:
            if blocks and self._is_wanted:
                self._is_wanted = self._sink.write(*blocks)
        except Exception as error:
            self._is_wanted, self._failure = False, error
        return self._is_wanted

    def is_wanted(self) -> bool:
        """Whether there is a point in waiting for more."""
        try:
            return self._sink.is_wanted()
        except Exception as error:
            self._is_wanted, self._failure = False, error
            return False

    def end(self, effect: Effect | None = None) -> Received | Peeked:
        """Write the last, and see what came of it."""
        self._has_ended = True
        with self._sink:
            self.write()
            if self._failure is not None:
                raise self._failure
            came = self._sink.end(self.body.cut)
        return self._runner.poured(self._effect, came)

    def rescue(self) -> None:
        """Keep what has come, where there will be nobody to tell."""
        if self._has_ended:
            return
        self.add(self.body.rest())
        self.body.give_up()
        try:
            self.end()
        except Exception as error:
            log.debug("a request was broken off, and its body could not be taken in: %r", error)


def _throw(error: Exception, effect: Effect) -> None:
    raise error


class Loop:
    """The event loop of an application, for threads that have something for it to do."""

    def __init__(self) -> None:
        self._token: EventLoopToken | None = None

    def remember(self) -> None:
        """Take the loop that runs now."""
        self._token = current_token()

    def run(self, function: Callable[..., Awaitable[_T]], *arguments: object) -> _T:
        """Call a coroutine function there, from a thread, and wait for what it returns."""
        if self._token is None:
            raise StorageUnavailable()

        async def call() -> _T:
            return await function(*arguments)

        return from_thread.run(call, token=self._token)

    def hooks(self, hooks: object) -> object:
        """Hooks whose async methods run there; whoever calls them need not know."""
        return hooks if hooks is None else _LoopHooks(hooks, self)


class _LoopHooks:
    def __init__(self, hooks: object, loop: Loop) -> None:
        self._hooks = hooks
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._hooks, name)
        return partial(self._loop.run, method) if is_async(method) else method
