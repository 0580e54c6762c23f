"""Who holds an upload for longer than microseconds, a hand-over or a concatenation, holds the lock of its data file.

It ends with the process, so nobody waits for a dead one.
"""

from __future__ import annotations

import fcntl
import os

from tus.errors import UploadGone
from tus.filesystem.io import FLAGS
from tus.filesystem.locks import lock, unlock

LONGEST_HAND_OVER = 3600.0  # seconds that an application may hold data which it has moved away, and so nobody can see
LOOK = 0.05  # seconds; whoever only looks whether the lock is held holds it for microseconds


def lock_data(path: str, flags: int = os.O_RDONLY) -> int:
    """Open the data and lock it; nobody waits for somebody else to be done.

    Args:
        path: of the data.
        flags: for reading by default, which is enough for a lock, whatever an application has made of the file's mode.

    Raises:
        UploadLocked: somebody else has it.
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
    """Whether somebody has the lock.

    Raises:
        FileNotFoundError: the data is gone, so nobody can tell.
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
