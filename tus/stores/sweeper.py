"""Expiry beside the requests: a daemon thread that sweeps a store now and then.

It starts with the first creation in a process, because a server may fork after it has loaded the application. Every
process has one, and the store sees to it that one of them sweeps at a time, and not more often than is useful. Where
threads do not run (uWSGI without ``enable-threads``), ``tus clean`` does the same.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from weakref import WeakKeyDictionary, ref

from tus.stores.interface import Expires, Store

log = logging.getLogger(__name__)

LONGEST_INTERVAL = 600.0  # seconds
SHORTEST_INTERVAL = 1.0

_started: WeakKeyDictionary[Store, int] = WeakKeyDictionary()  # the process in which a store's thread was started


def keep_swept(store: Store, lifetime: float) -> None:
    """Start the thread, unless this process has it.

    Args:
        store: swept if it can expire uploads.
        lifetime: seconds that an unfinished upload is kept; a tenth of it passes between two sweeps.
    """
    if _started.get(store) == os.getpid() or not isinstance(store, Expires):
        return
    _started[store] = os.getpid()
    interval = min(max(lifetime / 10 or LONGEST_INTERVAL, SHORTEST_INTERVAL), LONGEST_INTERVAL)
    threading.Thread(target=_sweep_for_ever, args=(ref(store), interval), name="tus-sweeper", daemon=True).start()


def _sweep_for_ever(reference: ref[Expires], interval: float) -> None:
    while (store := reference()) is not None:
        try:
            store.sweep(at_most_every=interval)
        except Exception:
            log.exception("expired uploads could not be removed; the next try is in %d seconds", interval)
        del store
        time.sleep(interval)
