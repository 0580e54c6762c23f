"""Room on the disk: reserved for an upload when it is created, so that it is refused before its first byte if at all.

``fallocate(2)`` with ``KEEP_SIZE`` gives a file its blocks and leaves its size alone, which says how much of it has
come. Where there is no such call (macOS, some file systems) the room is looked at, but not held.
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
    """The room of a directory.

    Args:
        directory: where the uploads are.
        keep_free: bytes that must stay free for unprivileged users.
    """

    def __init__(self, directory: str, keep_free: int) -> None:
        self._directory = directory
        self._keep_free = keep_free

    def reserve(self, fd: int, size: int) -> None:
        """Give an open file room for this many bytes.

        Raises:
            StorageFull: there would be less than ``keep_free`` left; nothing stays reserved.
        """
        if not size:
            return
        # The room is taken before it is looked at: of two that come at once neither can then miss the other.
        missing = 0 if _allocate(fd, size) else max(size - os.fstat(fd).st_size, 0)
        try:
            self.check(missing)
        except StorageFull:
            os.ftruncate(fd, os.fstat(fd).st_size)  # to the same size: that gives back what is beyond it
            raise

    def restore(self, fd: int, size: int | None) -> None:
        """Take the room again that a truncation gave back, if there still is some."""
        if size:
            try:
                _allocate(fd, size)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise

    def check(self, wanted: int = 0) -> None:
        """See whether there is room for so many bytes more.

        Raises:
            StorageFull: there is not.
        """
        if self.free() - wanted < self._keep_free:
            raise StorageFull()

    def free(self) -> int:
        """Bytes that are free for unprivileged users."""
        status = os.statvfs(self._directory)
        return status.f_bavail * status.f_frsize


def _allocate(fd: int, size: int) -> bool:
    """Reserve the first bytes of a file; False where that cannot be done here."""
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
