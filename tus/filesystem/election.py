"""The election of one process for work that only one must do: it holds the lock of a file until it ends.

All threads of a process win together, because they share what the process knows.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import weakref
from collections.abc import Callable

from tus.filesystem.descriptors import close


class _Lock:
    """A lock that this process holds, until the last election that won by it has ended."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        weakref.finalize(self, _release, fd, os.getpid()).atexit = False


def _release(fd: int, process: int) -> None:
    if os.getpid() == process:  # a forked child has closed its copy already
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)
        close(fd)


_held: weakref.WeakValueDictionary[str, _Lock] = weakref.WeakValueDictionary()
_guard = threading.Lock()


def _forget() -> None:
    """Close the locks in a forked child, which would keep them after its parent has ended."""
    global _guard
    _guard = threading.Lock()
    for lock in list(_held.values()):
        close(lock.fd)
    _held.clear()


os.register_at_fork(after_in_child=_forget)


class Election:
    """A candidate. The lock ends with the last candidate of the process that has won it.

    Args:
        path: the path of the file.
        open_file: opens it, and creates it if it is missing.
    """

    def __init__(self, path: str, open_file: Callable[[], int]) -> None:
        self._path = path
        self._open = open_file
        self._lock: _Lock | None = None
        self._process = 0

    def win(self) -> bool:
        """Return whether this process is the elected one. If nothing can be elected, as on a full disk, each one is."""
        if self._lock is not None and self._process == os.getpid():
            return True
        with _guard:
            self._process = os.getpid()
            self._lock = _held.get(self._path)
            if self._lock is not None:
                return True
            try:
                fd = self._open()
            except OSError:
                return True
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                close(fd)
                return False
            _held[self._path] = self._lock = _Lock(fd)
            return True
