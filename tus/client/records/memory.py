"""Records that end with the process, and records that are not kept at all."""

from __future__ import annotations

import time
from collections.abc import Callable

from tus.client.records.interface import LIMIT_LIFETIME, ResumeRecord


class MemoryRecords:
    """Records in memory.

    Args:
        clock: returns the time in seconds since the epoch.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._records: dict[str, ResumeRecord] = {}
        self._limits: dict[str, tuple[int, float]] = {}

    # Each step on a dictionary is atomic, and a copy is what a loop runs over.

    def find(self, key: str) -> ResumeRecord | None:
        record = self._records.get(key)
        return record if record is not None and record.expires_at > self._clock() else None

    def save(self, record: ResumeRecord) -> None:
        self._records[record.key] = record

    def forget(self, key: str) -> None:
        self._records.pop(key, None)

    def all(self) -> list[ResumeRecord]:
        now = self._clock()
        live = [record for record in self._records.copy().values() if record.expires_at > now]
        return sorted(live, key=lambda record: (record.created_at, record.key))

    def prune(self) -> int:
        now = self._clock()
        expired = [key for key, record in self._records.copy().items() if record.expires_at <= now]
        return sum(self._records.pop(key, None) is not None for key in expired)

    def chunk_limit(self, endpoint: str) -> int | None:
        size, learned_at = self._limits.get(endpoint, (None, 0.0))
        return size if learned_at + LIMIT_LIFETIME > self._clock() else None

    def limit_chunks(self, endpoint: str, size: int) -> None:
        self._limits[endpoint] = (size, self._clock())


class NoRecords:
    """No records: each upload begins anew."""

    def find(self, key: str) -> ResumeRecord | None:
        return None

    def save(self, record: ResumeRecord) -> None:
        pass

    def forget(self, key: str) -> None:
        pass

    def all(self) -> list[ResumeRecord]:
        return []

    def prune(self) -> int:
        return 0

    def chunk_limit(self, endpoint: str) -> int | None:
        return None

    def limit_chunks(self, endpoint: str, size: int) -> None:
        pass
