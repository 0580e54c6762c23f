"""Disk space, reserved when an upload is created, so that it is refused before its first byte.

``fallocate(2)`` with ``KEEP_SIZE`` allocates the blocks of a file, but does not change its size, which is the number of
stored bytes. Without this call (macOS, some file systems) the free space is checked, but not reserved.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable

from tus.errors import StorageFull

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

    def reserve(self, fd: int, size: int) -> None:
        """Reserve space for an open file of ``size`` bytes.

        Raises:
            StorageFull: less than ``keep_free`` bytes would stay free; nothing is reserved.
        """
        if not size:
            return
        # Reserve before checking, so that of two simultaneous requests each sees the space of the other.
        missing = 0 if _allocate(fd, size) else max(size - os.fstat(fd).st_size, 0)
        try:
            self.check(missing)
        except StorageFull:
            os.ftruncate(fd, os.fstat(fd).st_size)  # to the same size, which frees the blocks beyond it
            raise

    def restore(self, fd: int, size: int | None) -> None:
        """Reserve the space again that a truncation has freed, unless the disk is full."""
        if size:
            try:
                _allocate(fd, size)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise

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
