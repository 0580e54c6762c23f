"""Work of background threads in small slices, so that requests of the same process wait for none of it.

A request waits for a slice if it arrives in it, or if the slice begins between two of its steps. So a slice is much
shorter than a request. It ends with a sleep, because a thread that only releases Python's lock may keep its processor.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

_T = TypeVar("_T")

SLICE: Final = 0.00015  # seconds of work
REST: Final = 0.003  # seconds between two slices of all threads, in which requests run

_last = 0.0  # when the last slice begins for which a thread rests now


def gently(items: Iterable[_T]) -> Iterator[_T]:
    """Yield items, and sleep whenever the caller has worked on them for a slice; threads take turns."""
    began = time.perf_counter()
    for item in items:
        yield item
        if time.perf_counter() - began >= SLICE:
            _rest()
            began = time.perf_counter()


def _rest() -> None:
    """Sleep until a slice that no other thread waits for. Two threads in here at once may take the same one."""
    global _last
    now = time.perf_counter()
    _last = begin = max(now, _last) + REST
    time.sleep(begin - now)
