"""The lock of the data file, which long operations hold: a hand-over or a concatenation.

It ends with the process, so no process waits for a crashed one.
"""

from __future__ import annotations

import fcntl
import os

from tus.errors import UploadGone
from tus.filesystem.descriptors import close
from tus.filesystem.locks import lock, unlock
from tus.filesystem.ownership import Ownership

LONGEST_HAND_OVER = 3600.0  # seconds that an application may need after it has moved the data away
LOOK = 0.05  # seconds; a process that only checks the lock holds it for microseconds


def lock_data(path: str, ownership: Ownership, flags: int = os.O_RDONLY, dir_fd: int | None = None) -> int:
    """Open the data and lock it, without waiting for a long operation of another process.

    Args:
        path: the path of the data.
        ownership: whose data is locked.
        flags: the flags of the open call. Reading is enough for a lock, and applications may make files read-only.
        dir_fd: an open directory to which the path is relative.

    Raises:
        UploadLocked: another process holds the lock.
        UploadGone: the data does not exist.
    """
    try:
        fd = ownership.open_data(path, flags, dir_fd)
    except FileNotFoundError:
        raise UploadGone() from None
    try:
        lock(fd, limit=LOOK)
    except BaseException:
        close(fd)
        raise
    return fd


def is_held(path: str, ownership: Ownership) -> bool:
    """Return whether a process holds the lock.

    Raises:
        FileNotFoundError: the data is gone, so its lock cannot be checked.
    """
    fd = ownership.open_data(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        unlock(fd)
        return False
    finally:
        close(fd)
