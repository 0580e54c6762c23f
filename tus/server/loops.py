"""What belongs to one event loop, on asyncio and on trio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from anyio.lowlevel import current_token

_T = TypeVar("_T")


def running_loop() -> Any:
    """Return the event loop of asyncio that runs here, or what stands for the one of trio."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return current_token().native_token


class PerLoop(Generic[_T]):
    """A value for each event loop. It lives as long as its loop, so it must not keep the loop alive.

    It is :class:`anyio.lowlevel.RunVar` for the way of every request: a look on asyncio takes three calls, not ten.

    Args:
        make: makes the value, on the loop that asks first.
    """

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        self._values: WeakKeyDictionary[Any, _T] = WeakKeyDictionary()

    def get(self) -> _T:
        """Return the value of the running loop."""
        loop = running_loop()
        try:
            return self._values[loop]
        except KeyError:
            value = self._values[loop] = self._make()
            return value
