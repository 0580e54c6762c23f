"""``AsyncTus``: one request, on an event loop.

Law of this room: the loop never touches the disk, and no thread waits for a client. A worker thread performs all
effects up to the next one that waits. A small body is read before the first call of a thread, so that one call does
everything, or two if an ASGI application takes the file. It runs on asyncio and on trio, by anyio.
"""

from __future__ import annotations

import inspect
import logging
import math
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Any, ClassVar, TypeVar

import anyio
from anyio import CancelScope, CapacityLimiter, from_thread, to_thread
from anyio.lowlevel import EventLoopToken, checkpoint_if_cancelled, current_token

from tus.adapters.interface import AsyncAdapter
from tus.converters import is_async
from tus.errors import StorageUnavailable
from tus.filesystem.pipes import Pipe
from tus.handover.attempt import Receiver
from tus.http.headers import number_in
from tus.models import Block, Request, Response
from tus.protocols.effects import (
    Ask,
    Authorize,
    CreateWhole,
    Effect,
    Offer,
    Offered,
    Peek,
    Peeked,
    Receive,
    Received,
    Tell,
    Wait,
)
from tus.server.body_async import AsyncBody, Batch, LentSource, Source
from tus.server.loops import PerLoop, running_loop
from tus.server.reception import Sink
from tus.server.runner import Asker, Runner
from tus.server.service import Service
from tus.server.threads import Threads
from tus.stores.interface import SMALL, Claim

log = logging.getLogger(__name__)

#: The number of threads of each kind. Threads that write bodies, threads that call the application, and all others are
#: apart: the others must not wait for a slow disk, nor for an application that waits for a request to this server.
THREADS = 32
LOOK = 0.5  # seconds without a byte until the first check whether the session is still wanted
_LONGEST_LOOK = 4.0

#: Gives a complete upload to the application, and returns a function that does the rest in a thread and returns the
#: response. An exception of either postpones the hand-over.
AsyncReceiver = Callable[[Claim], Awaitable[Callable[[], Response]]]

_T = TypeVar("_T")
_hands = Threads("tus-hand", lambda: THREADS)
_writers = Threads("tus-writer", lambda: THREADS)
#: These are anyio's, because functions of the application may use ``anyio.from_thread``: on_finished and hooks, and
#: ``authorize`` and ``cors_allow_origin``, which run among the steps of the package.
_callers = PerLoop(lambda: CapacityLimiter(THREADS))
_askers = PerLoop(lambda: CapacityLimiter(THREADS))


class _Bodies:
    """The bodies that move on one loop.

    Attributes:
        is_interrupted: whether the server stops, so that each body ends.
        scopes: of their moving.
    """

    def __init__(self) -> None:
        self.is_interrupted = False
        self.scopes: set[CancelScope] = set()


_bodies = PerLoop(_Bodies)


def interrupt_bodies() -> None:
    """End every body on this loop as a cut, so that the bytes received are kept. For a server that stops."""
    bodies = _bodies.get()
    bodies.is_interrupted = True
    for scope in bodies.scopes:
        scope.cancel()


def is_interrupted() -> bool:
    """Return whether the server stops, so that bodies on this loop end."""
    return _bodies.get().is_interrupted


async def in_thread(function: Callable[[], _T]) -> _T:
    """Call a function that may touch the disk in a worker thread."""
    return await _hands.run(function)


class AsyncTus:
    """One request to the uploads, on an event loop.

    Args:
        adapter: the request.
        service: the options, the store and the hooks.
        receiver: gets finished uploads, in a worker thread. If it has an attribute ``calls_out`` that is false, it is
            the package's own.
        async_receiver: gets finished uploads on the loop instead.
        asker: asks the application for permission for the intents of ``ask_app``.
        lend: returns another source of a body of some length, None for the adapter's.
    """

    def __init__(
        self,
        adapter: AsyncAdapter,
        service: Service,
        receiver: Receiver | None = None,
        async_receiver: AsyncReceiver | None = None,
        asker: Asker | None = None,
        lend: Callable[[int | None], LentSource | None] = lambda length: None,
    ) -> None:
        self._adapter = adapter
        self._lend = lend
        self._receiver = async_receiver
        self._calls_out: bool = getattr(receiver, "calls_out", True)
        self._runner = Runner(adapter, service, receiver, asker)
        self._runner.left += (Wait, Offer)
        if service.options.has_hooks:
            self._runner.left += (Ask, Tell)
        authorize = service.options.authorize
        if asker is not None or (authorize is not None and is_async(authorize)):
            self._runner.left += (Authorize,)
        calls = authorize is not None and Authorize not in self._runner.left
        self._has_calls_in_steps = calls or callable(service.options.cors_allow_origin)
        # A task can be cancelled while its thread runs. The lock keeps the clean-up from running at the same time.
        self._lock = threading.Lock()
        self._body: AsyncBody | None = None  # a small body, which is read before its exchange begins
        self._transfer: _BodyTransfer | None = None
        self._is_begun = self._is_concluded = False

    async def handle(self) -> None:
        """Handle the request, and give the adapter the response; a refusal is a response too, and so is a failure."""
        try:
            length = _small_length(self._adapter.request)
            calls_out = await self._read_ahead(length) if length else False
            effect = await self._run_step(self._runner.begin, calls_out)
            while effect is not None:
                perform = await self._wait_for(effect)
                effect = await self._run_step(partial(self._runner.go_on, perform, effect))
        except BaseException as error:
            await self._run_even_if_cancelled(self._break_off)
            if not isinstance(error, Exception):
                raise
            self._runner.answer_failure()

    async def _read_ahead(self, length: int) -> bool:
        """Read a small body before its exchange begins, and return whether that may call the application."""
        self._body = body = AsyncBody(self._adapter.receive, length)
        if self._adapter.has_received(length):
            await body.read()
        else:
            await body.read_ahead()
            await checkpoint_if_cancelled()  # before the application's attempt counts
        is_threaded = self._receiver is None and Ask not in self._runner.left
        if not (is_threaded and body.is_read):
            return False
        if self._calls_out and not _callers.get().available_tokens:
            return False
        # The thread that takes the body calls the receiver, too. Such threads may wait for one.
        self._runner.left = tuple(kind for kind in self._runner.left if kind is not Offer)
        return self._calls_out

    def _run_step(self, step: Callable[[], Effect | None], calls_out: bool = False) -> Awaitable[Effect | None]:
        """Run a step, and all others up to the next wait, in one call of a thread."""
        work = partial(self._run_to_next_wait, step)
        if calls_out:
            return self._call_out(work)
        return self._call_out(work, _askers) if self._has_calls_in_steps else self._run_in_thread(work)

    def _run_to_next_wait(self, step: Callable[[], Effect | None]) -> Effect | None:
        self._is_begun = True
        effect = step()
        while True:
            if isinstance(effect, CreateWhole):
                effect = self._runner.go_on(self._create_whole, effect)
            elif isinstance(effect, Receive | Peek) and (effect.intake.body.length == 0 or self._is_body_read):
                effect = self._runner.go_on(self._receive_read, effect)
            else:
                break
        if effect is None:
            self._runner.conclude()
            self._is_concluded = True
        return effect

    def _create_whole(self, effect: CreateWhole) -> Received | None:
        body = self._body
        if body is None or not body.is_read or body.cut or not self._runner.can_create_whole(effect):
            return None
        return self._runner.create_whole(effect, self._take_whole(body))

    def _receive_read(self, effect: Receive | Peek) -> Received | Peeked:
        """Move a body that is read, or empty."""
        body, runner = self._body, self._runner
        if body is None or body.received != effect.intake.body.length or not runner.takes_whole(effect):
            return self._begin_transfer(effect).end()
        return runner.record_body(effect, runner.append_whole(effect, self._take_whole(body)))

    def _take_whole(self, body: AsyncBody) -> Block:
        self._runner.body = body
        blocks = [block for batch in body.take_now() for blocks in batch for block in blocks]
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    @property
    def _is_body_read(self) -> bool:
        return self._body is not None and self._body.is_read

    def _break_off(self) -> None:
        if self._body is not None and not self._is_begun:
            effect = self._runner.begin()  # so that the received bytes are kept
            if isinstance(effect, Receive | Peek):
                self._begin_transfer(effect)
        if self._transfer is not None:
            self._transfer.rescue()
        if not self._is_concluded:
            self._runner.break_off()

    def _run_in_thread(self, function: Callable[[], _T], threads: Threads = _hands) -> Awaitable[_T]:
        """Call a function in a thread; a task can be cancelled only before or after the call."""
        return threads.run(partial(self._run_locked, function))

    async def _call_out(self, function: Callable[[], _T], threads: PerLoop[CapacityLimiter] = _callers) -> _T:
        """Do the same with a function that may call the application."""
        with CancelScope(shield=True):
            return await to_thread.run_sync(partial(self._run_locked, function), limiter=threads.get())
        raise AssertionError("a shield lets every exception through")

    async def _run_even_if_cancelled(self, function: Callable[[], object]) -> None:
        """Call a function in a thread although this task is cancelled, even if it is cancelled again meanwhile."""
        work = threading.Thread(target=self._run_locked, args=(function,), name="tus-breaking-off")
        work.start()
        with CancelScope(shield=True):
            await to_thread.run_sync(work.join, limiter=CapacityLimiter(math.inf))

    def _run_locked(self, function: Callable[[], _T]) -> _T:
        with self._lock:
            return function()

    async def _wait_for(self, effect: Effect) -> Callable[[Any], Any]:
        """Do the part of an effect that waits, and return a function that does the rest."""
        match effect:
            case Receive() | Peek():
                return await self._transfer_body(effect)
            case Wait(seconds):
                await anyio.sleep(seconds)
                return lambda effect: None
            case Offer() if self._receiver is not None:
                return await self._offer(self._receiver)
        result: object
        try:
            if isinstance(effect, Authorize):
                result = await self._authorize(effect)
            else:
                result = await self._call_out(partial(self._runner.perform, effect))
        except Exception as error:
            return partial(_throw, error)
        return lambda effect: result

    # -- The application --

    async def _authorize(self, effect: Authorize) -> str | Response | None:
        calls = self._runner.authorization_calls(effect)
        answer: Any = None
        try:
            while True:
                call = calls.send(answer)
                answer = call() if is_async(call) else await to_thread.run_sync(call, limiter=_callers.get())
                if inspect.isawaitable(answer):
                    answer = await answer
        except StopIteration as stop:
            verdict: str | Response | None = stop.value
            return verdict

    async def _offer(self, receiver: AsyncReceiver) -> Callable[[Any], Offered]:
        """Offer the upload on the loop, and return a function that does the rest in a thread."""
        runner = self._runner
        assert runner.claim is not None, "an Offer follows a Claim"
        try:
            finish = await receiver(runner.claim)
        except BaseException as error:
            offered = runner.take_exception(error)
            return lambda effect: offered

        def take_answer(effect: Effect) -> Offered:
            try:
                return runner.take_answer(finish())
            except Exception as error:
                return runner.take_exception(error)

        return take_answer

    # -- The body --

    def _begin_transfer(self, effect: Receive | Peek, lent: Source | None = None) -> _BodyTransfer:
        runner = self._runner
        body = lent or self._body or AsyncBody(self._adapter.receive, effect.intake.body.length)
        runner.body = body
        self._transfer = _BodyTransfer(runner, effect, body)
        if self._is_body_read:
            self._transfer.add(body.take_now())
        return self._transfer

    async def _transfer_body(self, effect: Receive | Peek) -> Callable[[Any], Any]:
        """Move the body up to its last batch, and return a function that takes the last batch.

        The thread that takes it performs the next effects too.
        """
        lent = self._lend(effect.intake.body.length) if self._body is None else None
        transfer = self._begin_transfer(effect, lent)
        if lent is not None:
            lent.can_pour = transfer.can_pour
        body = transfer.body
        if isinstance(body, AsyncBody):
            async with anyio.create_task_group() as group:
                group.start_soon(body.read)
                await self._move_until_interrupted(transfer)
                group.cancel_scope.cancel()
        else:
            await self._move_until_interrupted(transfer)
        return transfer.end

    async def _move_until_interrupted(self, transfer: _BodyTransfer) -> None:
        bodies = _bodies.get()
        with CancelScope() as scope:
            bodies.scopes.add(scope)
            try:
                if bodies.is_interrupted:
                    scope.cancel()
                await self._move(transfer)
            finally:
                bodies.scopes.discard(scope)
        if scope.cancelled_caught:
            transfer.add(transfer.body.take_now())
            transfer.body.give_up()

    async def _move(self, transfer: _BodyTransfer) -> None:
        body = transfer.body
        patience = self._runner.patience
        pace = patience.pace()
        silent, look = 0.0, LOOK
        while True:
            transfer.add(await body.take(look))
            if body.is_over:
                return
            if transfer.has_blocks:
                silent, look = 0.0, LOOK
                if not await self._run_in_thread(transfer.write, _writers) or body.is_over:
                    return
            else:
                silent += look
                if silent >= patience.silence > 0 or not await self._run_in_thread(transfer.is_wanted):
                    body.give_up()
                    return
                look = min(2 * look, _LONGEST_LOOK, patience.silence - silent if patience.silence else math.inf)
            if not pace.keeps_up(body.received):
                body.give_up()
                return


class _BodyTransfer:
    """A body between the loop, which adds blocks, and a thread, which writes them into a sink.

    Blocks stay here until a thread has taken them, because the task can be cancelled at any time.

    Attributes:
        can_pour: returns whether a batch can be a pipe.
    """

    def __init__(self, runner: Runner, effect: Receive | Peek, body: Source) -> None:
        self.body = body
        self._runner = runner
        self._effect = effect
        self._sink: Sink = runner.sink(effect)
        self._batches: list[Iterable[Batch]] = []
        self._is_wanted = True
        self._has_ended = False
        self._failure: Exception | None = None
        self.can_pour = self._sink.can_pour

    @property
    def has_blocks(self) -> bool:
        """Whether there are blocks to write."""
        return bool(self._batches)

    def add(self, batches: Sequence[Iterable[Batch]]) -> None:
        """Add blocks to write."""
        self._batches += batches

    def write(self) -> bool:
        """Write the added blocks, and return whether the sink wants more."""
        batches, self._batches = self._batches, []
        try:
            for batch in chain.from_iterable(batches) if self._is_wanted else ():
                if type(batch) is Pipe:
                    self._is_wanted = self._sink.pour(batch)
                else:
                    self._is_wanted = self._sink.write(*batch)
                if not self._is_wanted:
                    break
        except Exception as error:
            self._is_wanted, self._failure = False, error
        return self._is_wanted

    def is_wanted(self) -> bool:
        """Return whether the sink wants more."""
        try:
            return self._sink.is_wanted()
        except Exception as error:
            self._is_wanted, self._failure = False, error
            return False

    def end(self, effect: Effect | None = None) -> Received | Peeked:
        """Write the last blocks, and return the result of the body."""
        self._has_ended = True
        with self._sink:
            self.write()
            if self._failure is not None:
                raise self._failure
            result = self._sink.end(self.body.cut)
        return self._runner.record_body(self._effect, result)

    def rescue(self) -> None:
        """Keep the received bytes of a request that gets no response."""
        if self._has_ended:
            return
        self.add(self.body.take_now())
        self.body.give_up()
        self._runner.may_begin = False  # the application will not be asked
        try:
            self.end()
        except Exception as error:
            log.debug("the request was broken off, and its last bytes could not be stored: %r", error)


def _small_length(request: Request) -> int | None:
    """Return the length of a body that is worth waiting for, before anything is known of the upload; None for another.

    A client that asks for permission to send it (``Expect``) must get an answer first.
    """
    fields = request.fields
    length = number_in(fields.get("Content-Length"))
    if length is None or length > SMALL or "Expect" in fields or "Transfer-Encoding" in fields:
        return None
    return length


def _throw(error: Exception, effect: Effect) -> None:
    raise error


class Loop:
    """The event loop of an application, for threads that must call coroutines.

    Attributes:
        token: names it; None before the first request.
    """

    _shared: ClassVar[EventLoopToken | None] = None

    @classmethod
    def remember_for_all(cls) -> None:
        """Let the running loop be that of every application in this process that has not been called yet."""
        cls._shared = current_token()

    def __init__(self) -> None:
        self.token: EventLoopToken | None = None
        self._running: Any = None

    def remember(self) -> None:
        """Remember the running loop."""
        running = running_loop()
        if running is not self._running:
            self._running, self.token = running, current_token()

    def run(self, function: Callable[..., Awaitable[_T]], *arguments: object) -> _T:
        """Call a coroutine function on the loop from a thread, and return its result.

        Raises:
            StorageUnavailable: no loop is known yet.
        """
        token = self.token or self._shared
        if token is None:
            raise StorageUnavailable()

        async def call() -> _T:
            return await function(*arguments)

        return from_thread.run(call, token=token)

    def hooks(self, hooks: object) -> object:
        """Return the hooks with async methods that run on the loop and can be called like ordinary ones."""
        return hooks if hooks is None else _LoopHooks(hooks, self)


class _LoopHooks:
    def __init__(self, hooks: object, loop: Loop) -> None:
        self._hooks = hooks
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._hooks, name)
        return partial(self._loop.run, method) if is_async(method) else method
