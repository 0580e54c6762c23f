"""The threads that make the calls of one event loop.

Under asyncio a call costs less than half of one by :func:`anyio.to_thread.run_sync`, and far less beside others: it is
one entry in a queue, and the results of several calls wake the loop once. But they cannot call back into the loop by
:mod:`anyio.from_thread`. So they are for code of this package, and never for an application's.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import weakref
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from anyio import CancelScope, CapacityLimiter, to_thread

from tus.server.loops import PerLoop

_T = TypeVar("_T")


class Threads:
    """Some threads of one loop; a name stands for them on every loop.

    Args:
        name: of the threads.
        most: returns their number.
    """

    def __init__(self, name: str, most: Callable[[], int]) -> None:
        self._name = name
        self._most = most
        self._of_loop = PerLoop(self._make)

    async def run(self, function: Callable[[], _T]) -> _T:
        """Call a function in a thread; a task that is cancelled waits for its end, and drops the result."""
        threads = self._of_loop.get()
        if isinstance(threads, CapacityLimiter):
            with CancelScope(shield=True):
                return await to_thread.run_sync(function, limiter=threads)
            raise AssertionError("a shield lets every exception through")
        call = threads.call(function)
        try:
            result: _T = await call.future
        except asyncio.CancelledError:
            # Only here a shield is entered: it costs as much as the call.
            with CancelScope(shield=True):
                await call.wait()
            raise
        return result

    def _make(self) -> _AsyncioThreads | CapacityLimiter:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # trio
            return CapacityLimiter(self._most())
        return _AsyncioThreads(loop, self._name, self._most())


class _Call:
    """A call that a thread makes, or will make.

    Attributes:
        function: is called.
        context: in which it is called.
        future: of the result; cancelled together with the task that waits for it.
        has_ended: whether the function has returned, and the loop knows.
    """

    __slots__ = ("_end", "context", "function", "future", "has_ended")

    def __init__(self, function: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        self.function = function
        self.context = contextvars.copy_context()
        self.future = future
        self.has_ended = False
        self._end: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """Wait for the end of the function, although the future was cancelled."""
        if not self.has_ended:
            self._end = self.future.get_loop().create_future()
            await self._end

    def end(self, result: Any, error: BaseException | None) -> None:
        """Give the result to the task that waits."""
        self.has_ended = True
        if self._end is not None and not self._end.done():
            self._end.set_result(None)
        if self.future.done():
            return  # the task was cancelled
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class _AsyncioThreads:
    """The threads of a loop of asyncio. They end once the loop is gone.

    Args:
        loop: the loop. Only a weak reference is kept, because the loop keeps this.
        name: of the threads.
        most: their number.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str, most: int) -> None:
        self._loop = weakref.ref(loop)
        self._name = name
        self._most = most
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._done = _Done(self._loop)
        self._count = 0  # threads
        self._given = 0  # calls

    def call(self, function: Callable[[], Any]) -> _Call:
        """Begin a call; to be used on the loop."""
        loop = self._loop()
        assert loop is not None, "it runs"
        self._given += 1
        if self._count < self._most and self._count < self._given - self._done.reported:
            thread = threading.Thread(target=_work, args=(self._calls, self._done), name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system gives no more, so the present ones take the call
                if not self._count:
                    self._given -= 1
                    raise
            else:
                self._count += 1
        call = _Call(function, loop.create_future())
        self._calls.put(call)
        return call

    def __del__(self) -> None:
        for _ in range(self._count):
            self._calls.put(None)


class _Done:
    """The results of calls on their way to the loop.

    Attributes:
        reported: how many there were.
    """

    def __init__(self, loop: weakref.ref[asyncio.AbstractEventLoop]) -> None:
        self._loop = loop
        self._results: deque[tuple[_Call, Any, BaseException | None]] = deque()
        self._is_waking = False
        self.reported = 0

    def add(self, call: _Call, result: Any, error: BaseException | None) -> None:
        """Add a result, in a thread; wake the loop unless an earlier result does."""
        self._results.append((call, result, error))
        if self._is_waking:
            return  # report() has not begun, because it would have said so first
        self._is_waking = True
        loop = self._loop()
        try:
            if loop is not None:
                loop.call_soon_threadsafe(self.report)
        except RuntimeError:  # it was closed, so no task waits, and the futures must not keep it alive
            self._results.clear()
            self._is_waking = False

    def report(self) -> None:
        """Give the results to those who wait, on the loop."""
        self._is_waking = False
        while self._results:
            call, result, error = self._results.popleft()
            self.reported += 1
            call.end(result, error)


def _work(calls: SimpleQueue[_Call | None], done: _Done) -> None:
    """Make calls until the loop is gone."""
    while (call := calls.get()) is not None:
        error: BaseException | None = None
        result = None
        try:
            result = call.context.run(call.function)
        except StopIteration as stop:  # which a future does not take
            error = RuntimeError(f"{call.function!r} raised StopIteration")
            error.__cause__ = stop
        except BaseException as failure:
            error = failure
        done.add(call, result, error)
        del call, result, error  # a thread that waits keeps nothing alive
