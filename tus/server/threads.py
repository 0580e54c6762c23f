"""The threads that make the calls of one event loop.

Under asyncio a call costs about half of one by :func:`anyio.to_thread.run_sync`, and less beside others: it is one
entry in a queue, and the results of several calls wake the loop once. But they cannot call back into the loop by
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
from typing import Any, NamedTuple, TypeVar

from anyio import CancelScope, CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

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
        self._of_loop: RunVar[_AsyncioThreads | CapacityLimiter] = RunVar(name)

    async def run(self, function: Callable[[], _T]) -> _T:
        """Call a function in a thread; a task that is cancelled waits for its end."""
        with CancelScope(shield=True):
            threads = self._get()
            if isinstance(threads, CapacityLimiter):
                return await to_thread.run_sync(function, limiter=threads)
            result: _T = await threads.call(function)
            return result
        raise AssertionError("a shield lets every exception through")

    def _get(self) -> _AsyncioThreads | CapacityLimiter:
        try:
            return self._of_loop.get()
        except LookupError:
            most = self._most()
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:  # trio
                threads: _AsyncioThreads | CapacityLimiter = CapacityLimiter(most)
            else:
                threads = _AsyncioThreads(loop, self._name, most)
            self._of_loop.set(threads)
            return threads


class _Job(NamedTuple):
    context: contextvars.Context
    function: Callable[[], Any]
    future: asyncio.Future[Any]


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
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._done = _Done(self._loop)
        self._count = 0  # threads
        self._given = 0  # calls

    def call(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Begin a call; to be used on the loop."""
        loop = self._loop()
        assert loop is not None, "it runs"
        self._given += 1
        if self._count < self._most and self._count < self._given - self._done.reported:
            thread = threading.Thread(target=_work, args=(self._jobs, self._done), name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system gives no more, so the present ones take the call
                if not self._count:
                    self._given -= 1
                    raise
            else:
                self._count += 1
        future = loop.create_future()
        self._jobs.put(_Job(contextvars.copy_context(), function, future))
        return future

    def __del__(self) -> None:
        for _ in range(self._count):
            self._jobs.put(None)


class _Done:
    """The results of calls on their way to the loop.

    Attributes:
        reported: how many there were.
    """

    def __init__(self, loop: weakref.ref[asyncio.AbstractEventLoop]) -> None:
        self._loop = loop
        self._results: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._is_waking = False
        self.reported = 0

    def add(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        """Add a result, in a thread; wake the loop unless an earlier result does."""
        self._results.append((future, result, error))
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
            future, result, error = self._results.popleft()
            self.reported += 1
            if future.done():
                continue  # the task was cancelled
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)


def _work(jobs: SimpleQueue[_Job | None], done: _Done) -> None:
    """Make calls until the loop is gone."""
    while (job := jobs.get()) is not None:
        context, function, future = job
        error: BaseException | None = None
        result = None
        try:
            result = context.run(function)
        except StopIteration as stop:  # which a future does not take
            error = RuntimeError(f"{function!r} raised StopIteration")
            error.__cause__ = stop
        except BaseException as failure:
            error = failure
        done.add(future, result, error)
        del job, context, function, future, result, error  # a thread that waits keeps nothing alive
