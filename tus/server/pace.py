"""The limits on slow clients, whose connections then count as cut, so that they do not occupy a thread for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Patience:
    """The time for which a client may be silent, or slow, before its connection counts as cut.

    Attributes:
        silence: seconds without a byte; 0 means no limit.
        min_rate: bytes per second, averaged over that time; 0 means no limit.
        clock: returns seconds that only pass.
    """

    silence: float = 60.0
    min_rate: int = 0
    clock: Callable[[], float] = time.monotonic

    def pace(self, since: float | None = None) -> Pace:
        """Measure the pace of a body, or of a response.

        Args:
            since: the time of its start by the clock; None for now.
        """
        return Pace(self, self.clock() if since is None else since)


class Pace:
    """The pace of one body, or of one response."""

    def __init__(self, patience: Patience, since: float) -> None:
        self._rate = patience.min_rate
        self._span = patience.silence
        self._clock = patience.clock
        self._since = since
        self._from = 0

    def keeps_up(self, moved: int) -> bool:
        """Return whether enough bytes have moved by now.

        Args:
            moved: bytes since the start.
        """
        if not self._rate or (passed := self._clock() - self._since) < self._span:
            return True
        came, self._from, self._since = moved - self._from, moved, self._since + passed
        return came >= self._rate * passed
