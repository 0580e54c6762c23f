"""Disk space, reserved when an upload is created, so that it is refused before its first byte.

A reservation lasts while bytes come. After a minute without one it is given back, so that a client cannot hold the disk
by announcing a length. When the next bytes come, the space is reserved again.

``fallocate(2)`` with ``KEEP_SIZE`` allocates the blocks of a file, but does not change its size, which is the number of
stored bytes. Without this call (macOS, some file systems) the free space is checked, but not reserved.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from tus.errors import StorageFull, StorageUnavailable
from tus.filesystem.descriptors import close
from tus.filesystem.io import is_full, translate_error, write_at

#: Seconds without a byte after which a reservation is given back.
RESERVED_FOR: Final = 60.0
#: The number of bytes of a session after which the free space is checked again.
CHECK_EVERY: Final = 4 << 20

_MOST_NOTED = 4096  # files
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE in linux/falloc.h
_CANNOT = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM})


class Space:
    """The disk space of a directory.

    Args:
        directory: the directory of the uploads.
        keep_free: bytes that must stay free for unprivileged users.
    """

    def __init__(self, directory: str, keep_free: int) -> None:
        self._directory = directory
        self._keep_free = keep_free
        self._reserved: dict[str, float] = {}  # when this process has reserved space, by path, the oldest first

    def reserve(self, fd: int, size: int, path: str) -> None:
        """Reserve space for an open file of ``size`` bytes, unless it has its space already.

        Raises:
            StorageFull: less than ``keep_free`` bytes would stay free; nothing is reserved.
        """
        missing = missing_space(os.fstat(fd), size)
        if not missing:
            return
        self.check(missing)  # first, because a reservation that does not fit may fill the disk before it fails
        try:
            # Check again, so that of two simultaneous requests each sees the space of the other.
            self.check(0 if _allocate(fd, size) else missing)
        except (StorageFull, OSError) as error:
            give_back(fd)
            raise translate_error(error) from error
        self.note(path)

    def note(self, path: str) -> None:
        """Note that space is reserved for the file at a path."""
        self._reserved.pop(path, None)
        self._reserved[path] = time.monotonic()
        if len(self._reserved) > _MOST_NOTED:  # the sweep gives back the space of the oldest
            self._reserved.pop(next(iter(self._reserved)), None)

    def take_due(self) -> list[str]:
        """Return the paths that were noted a while ago, and forget them."""
        before = time.monotonic() - RESERVED_FOR
        due = list(itertools.takewhile(lambda path: self._reserved.get(path, before) <= before, list(self._reserved)))
        for path in due:
            self._reserved.pop(path, None)
        return due

    def restore(self, fd: int, size: int | None, path: str) -> None:
        """Reserve the space again that a truncation has freed, if there is room."""
        if size:
            with suppress(StorageFull):
                self.reserve(fd, size, path)

    def check_growth(self, fd: int, length: int | None) -> None:
        """Check that there is room for more bytes of an open file, unless its space is reserved.

        Raises:
            StorageFull: there is no room.
        """
        if length is None or missing_space(os.fstat(fd), length):
            self.check()

    def check(self, wanted: int = 0) -> None:
        """Check that there is room for this many bytes more.

        Raises:
            StorageFull: there is no room.
        """
        if self.free() - wanted < self._keep_free:
            raise StorageFull()

    def free(self) -> int:
        """Return the number of bytes that are free for unprivileged users."""
        status = os.statvfs(self._directory)
        return status.f_bavail * status.f_frsize


def missing_space(status: os.stat_result, size: int) -> int:
    """Return how many of a file's ``size`` bytes have no space yet."""
    return max(size - max(status.st_blocks * 512, status.st_size), 0)


def give_back(fd: int) -> None:
    """Free the space that is reserved beyond the end of an open file."""
    os.ftruncate(fd, os.fstat(fd).st_size)


def has_reserved(status: os.stat_result) -> bool:
    """Return whether a file has more space than its bytes need."""
    return status.st_blocks * 512 - status.st_size > max(status.st_blksize, 4096)


def is_idle(status: os.stat_result) -> bool:
    """Return whether a file has reserved space and got no byte for a while; a clock may have been set."""
    return has_reserved(status) and abs(time.time() - status.st_mtime) >= RESERVED_FOR


def probe(directory: str) -> None:
    """Check that a file can be created and written in a directory; only an attempt shows every limit of a disk.

    Raises:
        StorageFull: there is no room, no inode, or a quota of the system is used up.
        StorageUnavailable: the disk is read-only, or fails.
    """
    try:
        fd, path = tempfile.mkstemp(prefix=".tus-probe-", dir=directory)
        try:
            written = write_at(fd, 0, b"probe")
        finally:
            close(fd)
            os.unlink(path)
    except OSError as error:
        raise (StorageFull() if is_full(error) else StorageUnavailable()) from error
    if written < len(b"probe"):
        raise StorageFull()


def _allocate(fd: int, size: int) -> bool:
    """Reserve the first bytes of a file; return False if the system cannot do that."""
    if _fallocate is None:
        return False
    if _fallocate(fd, _KEEP_SIZE, 0, size) == 0:
        return True
    code = ctypes.get_errno()
    if code in _CANNOT:
        return False
    raise OSError(code, os.strerror(code))


def _find_fallocate() -> Callable[[int, int, int, int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None, use_errno=True)
    function = getattr(library, "fallocate64", None) or getattr(library, "fallocate", None)
    if function is None:
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    function.restype = ctypes.c_int
    return function  # type: ignore[no-any-return]


_fallocate = _find_fallocate()
