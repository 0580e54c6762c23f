"""The suite that every store must pass, for people who write their own (needs pytest).

Subclass :class:`StoreSuite`, say how a store is made, and let pytest collect the class::

    class TestMyStore(StoreSuite):
        def make_store(self, **options):
            return MyStore(**options)
"""

from tus.testing.base import Clock
from tus.testing.completing import Completing
from tus.testing.concatenation import Concatenation
from tus.testing.endings import Endings
from tus.testing.receiving import Receiving

__all__ = ["Clock", "StoreSuite"]


class StoreSuite(Receiving, Endings, Completing, Concatenation):
    """What :class:`tus.stores.interface.Store` and its capabilities mean, as tests."""
