"""What both drivers share: the fields of a request on the wire, its pace, and the account of progress. No I/O."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from tus.client.commands import Progress
from tus.client.messages import Body, Request
from tus.client.sources import BLOCK
from tus.version import __version__

USER_AGENT: Final = f"tus/{__version__} (Python)"
#: The most bytes of a response that are kept.
LARGEST_RESPONSE: Final = 1 << 20

#: The methods whose requests say the length of their body, also of an empty one.
WITH_BODY: Final = ("POST", "PATCH", "PUT")

_WINDOW: Final = 5.0
_INTERVAL: Final = 0.05


def wire_headers(request: Request, callers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the fields of a request, without the ones that frame its body.

    Args:
        request: what to send.
        callers: the caller's own fields. The protocol's win.
    """
    fields = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    for more in (callers, request.headers):
        names = {name.lower() for name in more}
        fields = {name: value for name, value in fields.items() if name.lower() not in names} | dict(more)
    return list(fields.items())


def body_length(request: Request) -> int | None:
    """Return the number of bytes in the body of a request; None for a body that goes in chunks."""
    if isinstance(request.body, Body):
        return None if request.body.trailer else request.body.length
    return len(request.body)


class Pacer:
    """A limit on the bytes that a client sends in a second, over all its uploads.

    Args:
        rate: bytes a second; None for no limit.
        clock: returns seconds.
    """

    def __init__(self, rate: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._free_at = 0.0
        self._lock = threading.Lock()

    @property
    def block(self) -> int:
        """The size of a block, so that one takes a tenth of a second at most."""
        return BLOCK if self._rate is None else max(min(BLOCK, int(self._rate / 10)), 1 << 10)

    def delay(self, size: int) -> float:
        """Return the seconds to wait before these bytes may leave."""
        if self._rate is None:
            return 0.0
        with self._lock:
            now = self._clock()
            start = max(self._free_at, now)
            self._free_at = start + size / self._rate
            return start - now


class Meter:
    """The account of one upload: what was sent and accepted, and how fast. A block costs the same however many came.

    Args:
        clock: returns seconds.

    Attributes:
        last: the last progress that was passed on.
        position: the offset up to which bytes have left, or have come.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._moved = 0
        self._samples: deque[tuple[float, int]] = deque([(clock(), 0)])
        self._passed_at = 0.0
        self._lock = threading.Lock()
        self._parts: list[_PartMeter] = []
        self.last = Progress("started")
        self.position = 0

    def report(self, progress: Progress) -> Progress | None:
        """Return the progress to pass to the caller; None for nothing."""
        with self._lock:
            self.position = progress.sent
            self.last = replace(progress, rate=self._rate(self._clock()))
            return self.last

    def sent(self, offset: int, size: int) -> Progress | None:
        """Count bytes that have left. Returns the progress to pass to the caller; None so soon after the last one.

        Args:
            offset: of the upload, after these bytes.
            size: how many they are.
        """
        with self._lock:
            self._moved += size
            self.position = offset
            now = self._clock()
            if not self._is_time(now, offset):
                return None
            self.last = replace(self.last, kind="sent", sent=offset, rate=self._rate(now))
            return self.last

    def part(self) -> _PartMeter:
        """Return the account of a part of this upload."""
        part = _PartMeter(self)
        self._parts.append(part)
        return part

    def _combined(self, progress: Progress, size: int) -> Progress | None:
        """Return the progress of the whole after one of a part."""
        with self._lock:
            self._moved += size
            self.position = sum(part.position for part in self._parts)
            now = self._clock()
            if progress.kind in ("started", "finished"):  # each part has these; the whole reports its own
                return None
            if progress.kind == "sent" and not self._is_time(now, self.position):
                return None
            parts = [part.last for part in self._parts]
            self.last = replace(
                self.last,
                kind=progress.kind,
                sent=self.position,
                accepted=sum(part.accepted for part in parts),
                resumed_from=sum(part.resumed_from for part in parts),
                attempt=max(part.attempt for part in parts),
                rate=self._rate(now),
                reason=progress.reason,
                wait=progress.wait,
            )
            return self.last

    def _is_time(self, now: float, offset: int) -> bool:
        if now - self._passed_at < _INTERVAL and offset != self.last.total:
            return False
        self._passed_at = now
        return True

    def _rate(self, now: float) -> float:
        if now - self._samples[-1][0] >= _INTERVAL:
            self._samples.append((now, self._moved))
        while len(self._samples) > 2 and now - self._samples[0][0] > _WINDOW:
            self._samples.popleft()
        since, before = self._samples[0]
        return (self._moved - before) / (now - since) if now > since else 0.0


class _PartMeter(Meter):
    def __init__(self, whole: Meter) -> None:
        super().__init__()
        self._whole = whole

    def report(self, progress: Progress) -> Progress | None:
        self.position, self.last = progress.sent, progress
        return self._whole._combined(progress, 0)

    def sent(self, offset: int, size: int) -> Progress | None:
        self.position = offset
        return self._whole._combined(_SENT, size)


_SENT: Final = Progress("sent")


class Kept:
    """The body of a response, cut after :data:`LARGEST_RESPONSE` bytes."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._size = 0

    def add(self, block: bytes) -> bool:
        """Keep a block. Returns whether another one has room."""
        self._blocks.append(block[: LARGEST_RESPONSE - self._size])
        self._size += len(block)
        return self._size < LARGEST_RESPONSE

    def whole(self) -> bytes:
        return b"".join(self._blocks)
