"""Copy between files inside the kernel."""

from __future__ import annotations

import errno
import os

_BLOCK = 1 << 30  # what the kernel takes in one call anyway
_BUFFER = 1 << 20
_CANNOT = frozenset({errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM})


def copy_file(source: str, target_fd: int, offset: int, size: int) -> None:
    """Copy the first ``size`` bytes of a file to an offset of another.

    copy_file_range shares the blocks where the file system can (a reflink), and copies inside the kernel elsewhere;
    where there is no such call, through memory.

    Raises:
        FileNotFoundError: the source is gone, or shorter than that.
        OSError: what the file system says.
    """
    fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        done = _copy_in_kernel(fd, target_fd, offset, size)
        while done < size:
            block = os.pread(fd, min(_BUFFER, size - done), done)
            if not block:
                raise FileNotFoundError(errno.ENOENT, "the file is shorter than it should be")
            done += os.pwrite(target_fd, block, offset + done)
    finally:
        os.close(fd)


def _copy_in_kernel(fd: int, target_fd: int, offset: int, size: int) -> int:
    """Returns the bytes copied; fewer than asked where the kernel cannot, or the source ends."""
    copy = getattr(os, "copy_file_range", None)
    done = 0
    try:
        while copy is not None and done < size:
            count = copy(fd, target_fd, min(_BLOCK, size - done), done, offset + done)
            if not count:
                break
            done += count
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    return done
