"""Work of background threads in slices, so that requests of the same process wait for none of it.

A request waits for a slice if it arrives in it, or if the slice begins between two of its steps. So a slice is much
shorter than a request, unless requests use next to nothing of a processor. It ends with a sleep, because a thread that
only releases Python's lock may keep its processor.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, TypeVar

_T = TypeVar("_T")


class Pace(NamedTuple):
    """How fast the threads of a process work together.

    Attributes:
        slice: seconds of work.
        rest: seconds between two slices of all threads, in which requests run.
    """

    slice: float
    rest: float


BUSY: Final = Pace(0.00015, 0.003)
QUIET: Final = Pace(0.001, 0.001)
#: The part of a processor below which requests count as quiet, and the seconds in which it is measured.
LITTLE: Final = 0.05
LOOK: Final = 0.02


class _Turns:
    """The turns of all threads. Two threads in here at once may take the same turn, or count a slice as a request's."""

    def __init__(self) -> None:
        self.pace = BUSY
        self._last = 0.0  # when the last slice begins for which a thread rests now
        self._own = 0.0  # processor time of all slices
        self._looked = self._spent = 0.0  # at the last look: the time, and the processor time of everything else

    def rest(self, used: float) -> None:
        """Sleep until a slice that no other thread waits for.

        Args:
            used: processor time of the slice that has ended.
        """
        self._own += used
        now = time.perf_counter()
        seconds = now - self._looked
        if seconds >= LOOK:
            spent = time.process_time() - self._own
            is_quiet = (
                seconds < 10 * LOOK and spent - self._spent < LITTLE * seconds
            )  # else there were no slices lately
            self.pace = QUIET if is_quiet else BUSY
            self._looked, self._spent = now, spent
        self._last = begin = max(now, self._last) + self.pace.rest
        time.sleep(begin - now)


_turns = _Turns()


def gently(items: Iterable[_T]) -> Iterator[_T]:
    """Yield items, and sleep whenever the caller has worked on them for a slice; threads take turns."""
    began, used = time.perf_counter(), time.thread_time()
    for item in items:
        yield item
        if time.perf_counter() - began >= _turns.pace.slice:
            _turns.rest(time.thread_time() - used)
            began, used = time.perf_counter(), time.thread_time()
