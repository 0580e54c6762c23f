"""Work of background threads in small slices, so that requests of the same process wait for none of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

_T = TypeVar("_T")

SLICE: Final = 0.002  # seconds of work
REST: Final = 0.01  # seconds between two slices, in which other threads run


def gently(items: Iterable[_T]) -> Iterator[_T]:
    """Yield items, and sleep whenever the caller has worked on them for a slice."""
    began = time.perf_counter()
    for item in items:
        yield item
        if time.perf_counter() - began >= SLICE:
            time.sleep(REST)
            began = time.perf_counter()
