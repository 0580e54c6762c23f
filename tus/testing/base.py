"""What every suite needs: how a store is made, and a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tus.models import Block, Upload
from tus.stores.interface import AppendSession, Claim, Store


class Clock:
    """A clock that the test moves; seconds."""

    def __init__(self) -> None:
        self.now = 1_000_000_000.0

    def __call__(self) -> float:
        return self.now


class Base:
    """How a store is made, and what every test needs."""

    def make_store(self, **options: object) -> Store:
        """A new, empty store.

        Args:
            **options: ``lifetime``, ``completed_keep``, ``rejected_keep`` (seconds), ``keep_finished`` and ``clock``,
                as for :class:`tus.stores.memory.MemoryStore`.
        """
        raise NotImplementedError

    def write(self, session: AppendSession, *blocks: Block) -> None:
        """Write blocks and have them counted."""
        session.write(*blocks)
        session.keep()

    #: Whether claims are leases, so that :meth:`lapse` works; else they end with their process.
    has_leases = False

    def lapse(self, claim: Claim, clock: Clock) -> None:
        """Let the holder of a claim show no sign of life for longer than its lease, as one that is cut off does."""
        raise NotImplementedError

    @pytest.fixture
    def needs_leases(self) -> None:
        """Skip a test of leases where there are none."""
        if not self.has_leases:
            pytest.skip("claims of this store end with their process")

    def read(self, store: Store, upload: Upload) -> bytes:
        """The data of a complete upload."""
        claim = store.claim(upload)
        try:
            with claim.open() as file:
                return file.read()
        finally:
            claim.release()

    @pytest.fixture
    def clock(self) -> Clock:
        """The store's clock."""
        return Clock()

    @pytest.fixture
    def store(self, clock: Clock) -> Iterator[Store]:
        """A store whose unfinished uploads live for 100 seconds, and accepted records for 50."""
        yield self.make_store(lifetime=100, completed_keep=50, clock=clock)
