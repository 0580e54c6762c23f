"""Advisory locks of whole files, ``flock(2)``, which end with the process that holds them.

Code always releases them explicitly, because a child that is forked while a lock is held shares the lock and would keep
it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import time
from typing import Final

from tus.errors import OptionError, StorageUnavailable, UploadLocked
from tus.filesystem.descriptors import close
from tus.filesystem.io import takes_no_bytes
from tus.filesystem.ownership import Ownership

log = logging.getLogger(__name__)

#: The operation of flock(2) that takes a lock without waiting for it.
NOW: Final = fcntl.LOCK_EX | fcntl.LOCK_NB

LIMIT = 5.0  # seconds; critical sections take microseconds, so only a stopped process makes others wait this long


def lock(fd: int, limit: float = LIMIT) -> None:
    """Take the lock of an open file.

    Args:
        fd: the open file.
        limit: seconds to wait for the lock.

    Raises:
        UploadLocked: another process held the lock for all that time.
    """
    try:
        fcntl.flock(fd, NOW)
        return
    except BlockingIOError:
        pass
    deadline = time.monotonic() + limit
    pause = 0.0001
    while time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(pause * 2, 0.02)
        try:
            fcntl.flock(fd, NOW)
            return
        except BlockingIOError:
            continue
    raise UploadLocked()


def unlock(fd: int) -> None:
    """Release the lock. An error is logged: the lock ends when the file is closed, at the latest."""
    try:
        fcntl.flock(fd, fcntl.LOCK_UN)
    except OSError as error:
        log.warning("a lock could not be released before its file is closed: %s", error)


def unlock_and_close(fd: int) -> bool:
    """Release the lock, also for children that were forked meanwhile, and close the file; return the result of that."""
    unlock(fd)
    return close(fd)


def check_locks_work(directory: str) -> None:
    """Check that a second lock on a file in a directory is refused; some network file systems grant every lock.

    Raises:
        StorageUnavailable: the disk is full or read-only at the moment, so that nothing can be checked.
        OptionError: the directory cannot be written, its locks protect nothing, or its files have other owners or modes
            than they are given.
    """
    try:
        first, path = tempfile.mkstemp(prefix=".tus-probe-", dir=directory)
    except OSError as error:
        if takes_no_bytes(error):
            raise StorageUnavailable() from error
        raise OptionError("tmp_file_dir", f"must be a writable directory: {error.strerror}") from None
    try:
        if not Ownership().believes(os.fstat(first)):
            raise OptionError(
                "tmp_file_dir",
                "is on a file system that does not keep the owner and the mode of a file, so it cannot be known which "
                "files are ours; use one that does, such as ext4 or XFS",
            )
        second = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(first, NOW)
            fcntl.flock(second, NOW)
        except BlockingIOError:
            return
        except OSError as error:
            raise OptionError("tmp_file_dir", f"is on a file system without locks: {error.strerror}") from None
        finally:
            close(second)
    finally:
        close(first)
        os.unlink(path)
    raise OptionError("tmp_file_dir", "is on a file system that grants the same lock twice; uploads would not be safe")
