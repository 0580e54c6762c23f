"""Long operations, a hand-over or a concatenation, hold the lock of the data file.

It ends with the process, so no process waits for a crashed one.
"""

from __future__ import annotations

import fcntl
import os

from tus.errors import UploadGone
from tus.filesystem.io import FLAGS
from tus.filesystem.locks import lock, unlock

LONGEST_HAND_OVER = 3600.0  # seconds that an application may take over data that it has moved away
LOOK = 0.05  # seconds; a process that only looks whether the lock is held holds it for microseconds


def lock_data(path: str, flags: int = os.O_RDONLY) -> int:
    """Open the data and lock it, without waiting for another holder to be done.

    Args:
        path: of the data.
        flags: for reading by default, which is enough for a lock, whatever an application has made of the file's mode.

    Raises:
        UploadLocked: another process has it.
        UploadGone: there is none.
    """
    try:
        fd = os.open(path, flags | FLAGS)
    except FileNotFoundError:
        raise UploadGone() from None
    try:
        lock(fd, limit=LOOK)
    except BaseException:
        os.close(fd)
        raise
    return fd


def unlock_data(fd: int) -> None:
    """Unlock the data and close it."""
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def is_held(path: str) -> bool:
    """Return whether a process has the lock.

    Raises:
        FileNotFoundError: the data is gone, so its lock cannot be seen.
    """
    fd = os.open(path, os.O_RDONLY | FLAGS)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        unlock(fd)
        return False
    finally:
        os.close(fd)
