"""Calls that may hang, each in a thread of its own, so that a thread of the server can leave them.

Nothing ends the look-up of a name, and the timeout of a socket is per operation, so a peer that sends a byte now and
then is never cut off. Laws of this room:

- A caller waits no longer than its time, whatever the call does.
- At most ``most`` calls run, including abandoned ones, and at most as many callers wait for a place.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Final, TypeVar

from tus.errors import TusException

#: Seconds for which a caller waits for a place, from the beginning of the oldest call. Calls that take longer are slow,
#: so that waiting for their end would only hold more threads.
QUICK: Final = 1.0

_T = TypeVar("_T")


class Busy(TusException):
    """As many calls as may run are running."""


class Deadline:
    """The time of one call.

    Attributes:
        seconds: the whole time.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_over = False

    @property
    def remaining(self) -> float:
        """The seconds that are left, never less than 0."""
        return max(self._end - time.monotonic(), 0.0)

    def watch(self, connection: socket.socket) -> None:
        """Shut a connection once the caller has left.

        Raises:
            TimeoutError: it has left already.
        """
        with self._lock:
            self._socket = connection
            if self._is_over:
                raise TimeoutError

    def leave(self) -> None:
        """Leave the call: its connection is shut, so that it ends."""
        with self._lock:
            self._is_over = True
            if self._socket is not None:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)


class BoundedCalls:
    """A few threads that call functions for others.

    Args:
        most: the calls that may run at a time in this process.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._began: dict[Deadline, float] = {}  # the running calls, in the order of their beginnings
        self._waiting = 0
        self._changed = threading.Condition()

    def run(self, function: Callable[[Deadline], _T], seconds: float) -> _T:
        """Call a function with its deadline, and return its result.

        Args:
            function: is left at the deadline; what it does after that has no effect on the caller.
            seconds: the whole time, with the wait for a place.

        Raises:
            Busy: there is no place.
            TimeoutError: the function has not ended in time.
        """
        deadline = Deadline(seconds)
        self._enter(deadline)
        future: Future[_T] = Future()
        thread = threading.Thread(target=self._work, args=(function, deadline, future), name="tus-call", daemon=True)
        try:
            thread.start()
        except BaseException:
            self._exit(deadline)
            raise
        try:
            return future.result(deadline.remaining)
        finally:
            deadline.leave()

    def _work(self, function: Callable[[Deadline], _T], deadline: Deadline, future: Future[_T]) -> None:
        try:
            result = function(deadline)
        except BaseException as error:
            self._exit(deadline)  # first, so that the caller finds a place for its next call
            future.set_exception(error)
        else:
            self._exit(deadline)
            future.set_result(result)

    def _enter(self, deadline: Deadline) -> None:
        with self._changed:
            if len(self._began) >= self._most and not self._wait(deadline.remaining):
                raise Busy()
            self._began[deadline] = time.monotonic()

    def _wait(self, longest: float) -> bool:
        """Wait for a place while the running calls are quick, and return whether there is one."""
        if self._waiting >= self._most:
            return False
        oldest = next(iter(self._began.values()))
        self._waiting += 1
        try:
            patience = min(max(oldest + QUICK - time.monotonic(), 0.0), longest)
            return self._changed.wait_for(lambda: len(self._began) < self._most, patience)
        finally:
            self._waiting -= 1

    def _exit(self, deadline: Deadline) -> None:
        with self._changed:
            del self._began[deadline]
            self._changed.notify()
