"""How slow a client may be before its connection counts as cut, so that it does not hold a thread for ever."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(slots=True)
class Patience:
    """How long a client may be silent, or slow, before its connection counts as cut.

    Attributes:
        silence: seconds without a byte; 0 means for ever.
        min_rate: bytes a second, over that time; 0 means that any will do.
    """

    silence: float = 60.0
    min_rate: int = 0

    def pace(self) -> Pace:
        """Begin to look."""
        return Pace(self)


class Pace:
    """Looks at how fast one body comes."""

    def __init__(self, patience: Patience) -> None:
        self._rate = patience.min_rate
        self._span = patience.silence
        self._since = time.monotonic() if self._rate else 0.0
        self._from = 0

    def keeps_up(self, received: int) -> bool:
        """Whether the bytes that have come by now are enough."""
        if not self._rate or (passed := time.monotonic() - self._since) < self._span:
            return True
        came, self._from, self._since = received - self._from, received, self._since + passed
        return came >= self._rate * passed
