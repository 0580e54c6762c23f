"""The common base of the suites, and a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tus.models import Block, Upload
from tus.stores.interface import AppendSession, Claim, Store


class Clock:
    """A clock that the test moves, in seconds."""

    def __init__(self) -> None:
        self.now = 1_000_000_000.0

    def __call__(self) -> float:
        return self.now


class Base:
    """The methods and fixtures that every test needs."""

    def make_store(self, **options: object) -> Store:
        """Return a new, empty store.

        Args:
            **options: ``lifetime``, ``completed_keep``, ``rejected_keep`` (seconds), ``keep_finished`` and ``clock``,
                as for :class:`tus.stores.memory.MemoryStore`; ``limits`` only if :attr:`has_limits` is true.
        """
        raise NotImplementedError

    def write(self, session: AppendSession, *blocks: Block) -> None:
        """Write blocks and let the store count them."""
        session.write(*blocks)
        session.keep()

    #: Whether the store enforces limits, as :class:`tus.stores.interface.Limited`.
    has_limits = False

    #: Whether claims are leases, so that :meth:`lapse` works; else they end with their process.
    has_leases = False

    def lapse(self, claim: Claim, clock: Clock) -> None:
        """Let the lease of a claim end, as if its holder had crashed or lost its connection to the store."""
        raise NotImplementedError

    @pytest.fixture
    def needs_leases(self) -> None:
        """Skip a test of leases if the store has none."""
        if not self.has_leases:
            pytest.skip("claims of this store end with their process")

    def read(self, store: Store, upload: Upload) -> bytes:
        """Return the data of a complete upload."""
        claim = store.claim(upload)
        try:
            with claim.open() as file:
                return file.read()
        finally:
            claim.release()

    @pytest.fixture
    def clock(self) -> Clock:
        """Return the store's clock."""
        return Clock()

    @pytest.fixture
    def store(self, clock: Clock) -> Iterator[Store]:
        """Yield a store that keeps unfinished uploads for 100 seconds, and accepted records for 50."""
        yield self.make_store(lifetime=100, completed_keep=50, clock=clock)
