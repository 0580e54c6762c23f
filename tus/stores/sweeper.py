"""Expiry between requests: a daemon thread that sweeps stores at intervals.

It starts with the first creation in a process, because a server may fork after it has loaded the application. The store
ensures that one process sweeps at a time, and not too often. If threads do not run (uWSGI without ``enable-threads``,
or by the option ``threads``), ``tus clean`` does the same.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from weakref import ref

from tus.errors import SweepIncomplete
from tus.stores.interface import Expires, Tends

log = logging.getLogger(__name__)

LONGEST_INTERVAL = 600.0  # seconds
SHORTEST_INTERVAL = 1.0
_PATIENCE = 60.0  # seconds after which the thread tends the stores, and checks whether its sweeper still exists
_MOST_DIRECTORIES = 1024


class Sweeper:
    """A thread that sweeps stores, and ends with this object.

    Args:
        most: the largest number of stores; a new store replaces the store that was added first.
    """

    def __init__(self, most: int = 1) -> None:
        self._most = most
        self._stores: dict[object, tuple[Expires, float]] = {}
        self._changed = threading.Condition()
        self._conditions: dict[int, threading.Condition] = {}  # by process
        self._process = 0
        self._threads: dict[int, threading.Thread] = {}  # by process
        self._is_stopped = False

    def add(self, store: Expires, lifetime: float, key: object = None) -> None:
        """Sweep a store from now on, in this process. This is cheap for a store that was added before.

        Args:
            store: the store.
            lifetime: seconds that an unfinished upload is kept. The interval between two sweeps is a tenth of it.
            key: identifies the store.
        """
        process = os.getpid()
        if self._process == process and key in self._stores:
            return
        interval = min(max(lifetime / 10 or LONGEST_INTERVAL, SHORTEST_INTERVAL), LONGEST_INTERVAL)
        if self._process != process:
            # After a fork the parent's condition may be locked for ever; simultaneous first requests share the new one.
            self._changed = self._conditions.setdefault(process, threading.Condition())
            thread = threading.Thread(target=_work, args=(ref(self),), name="tus-sweeper", daemon=True)
            if self._threads.setdefault(process, thread) is thread:  # one of several requests starts it
                try:
                    thread.start()
                except RuntimeError:  # there are too many threads; the next creation tries again
                    del self._threads[process]
                    raise
            self._process = process
        with self._changed:
            if key not in self._stores and len(self._stores) >= self._most:
                del self._stores[next(iter(self._stores))]
            self._stores[key] = (store, interval)
            self._changed.notify()

    def stop(self) -> None:
        """End the thread."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify()

    def sweep_due(self, swept_at: dict[object, float]) -> bool:
        """Sweep the stores that are due, and wait for the next one; return whether the thread must go on.

        Args:
            swept_at: when each store was swept last, by key; this method updates it.
        """
        with self._changed:
            stores = dict(self._stores)
        for key in swept_at.keys() - stores.keys():
            del swept_at[key]
        pause = _PATIENCE
        for key, (store, interval) in stores.items():
            _tend(store)
            left = swept_at.get(key, -interval) + interval - time.monotonic()
            if key not in swept_at or left <= 0:
                _sweep(store, interval)
                swept_at[key] = time.monotonic()
                left = interval
            pause = min(pause, left)
        changed = self._changed
        with changed:
            if not self._is_stopped and self._stores.keys() == stores.keys():
                changed.wait(pause)
            return not self._is_stopped


def _sweep(store: Expires, interval: float) -> None:
    try:
        store.sweep(at_most_every=interval)
    except SweepIncomplete as error:
        log.warning("%s; the next attempt is in %d seconds", error, interval)
    except Exception:
        log.exception("expired uploads could not be removed; the next attempt is in %d seconds", interval)


def _tend(store: Expires) -> None:
    try:
        if isinstance(store, Tends):
            store.tend()
    except Exception:
        log.exception("a store could not be tended")


def _work(reference: ref[Sweeper]) -> None:
    swept_at: dict[object, float] = {}
    while (sweeper := reference()) is not None and sweeper.sweep_due(swept_at):
        del sweeper


#: For views that pass options with each request: one thread of the process sweeps all their directories.
_directories = Sweeper(_MOST_DIRECTORIES)


def keep_directory_swept(store: Expires, lifetime: float) -> None:
    """Sweep the directory of a store from now on, although the store itself ends with its request."""
    _directories.add(store, lifetime, getattr(store, "directory", None) or id(store))
