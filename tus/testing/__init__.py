"""Tests for authors of stores and protocols (they need pytest): the suite of stores, and the dialogue tester.

:mod:`tus.testing.dialogue` tests the rules of a protocol without a store. For a store, subclass :class:`StoreSuite`,
implement ``make_store()``, and let pytest collect the class::

    class TestMyStore(StoreSuite):
        def make_store(self, **options):
            return MyStore(**options)
"""

from tus.testing.base import Clock
from tus.testing.completing import Completing
from tus.testing.concatenation import Concatenation
from tus.testing.endings import Endings
from tus.testing.limiting import Limiting
from tus.testing.naming import Naming
from tus.testing.pouring import Pouring
from tus.testing.receiving import Receiving

__all__ = ["Clock", "StoreSuite"]


class StoreSuite(Receiving, Pouring, Endings, Completing, Concatenation, Naming, Limiting):
    """The tests of :class:`tus.stores.interface.Store` and of its capabilities."""
