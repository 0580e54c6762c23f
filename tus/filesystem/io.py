"""Writing to an open file at an offset, as far as there is room."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import BinaryIO

from tus.errors import StorageFull
from tus.events import Synced, emit, listeners
from tus.models import Block

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_LONGEST_VECTOR = 1024  # blocks, what POSIX systems take in one call


def write_at(fd: int, offset: int, *blocks: Block) -> int:
    """Write blocks to an offset, as much as there is room for; return how many bytes that were."""
    size = sum(map(len, blocks))
    written = 0
    try:
        written = os.pwrite(fd, blocks[0], offset) if len(blocks) == 1 else _write_vector(fd, blocks, offset)
        while written < size:
            written += os.pwrite(fd, memoryview(b"".join(blocks))[written:], offset + written)
    except OSError as error:
        if error.errno not in _FULL:
            raise
    return written


def _write_vector(fd: int, blocks: Sequence[Block], offset: int) -> int:
    """Write blocks by one system call, without copying them into one, where that is possible."""
    if len(blocks) > _LONGEST_VECTOR or not hasattr(os, "pwritev"):
        return os.pwrite(fd, b"".join(blocks), offset)
    return os.pwritev(fd, blocks, offset)


def translated(error: BaseException) -> BaseException:
    """Return the error in this package's terms, where it has one for it."""
    return StorageFull() if isinstance(error, OSError) and error.errno in _FULL else error


FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe at that name must not make us wait


_fdatasync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


def open_reading(path: str) -> BinaryIO:
    """Open data for reading, as an ordinary file that knows its path: plone.namedfile asks for that."""
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | FLAGS))


def sync(*fds: int, names: Directory | None = None) -> None:
    """Force the data of files to the disk, one after the other, and then the names in a directory."""
    if listeners[Synced]:
        for fd in fds:
            _measure(partial(_fdatasync, fd))
        if names is not None:
            _measure(names.sync)
        return
    for fd in fds:
        _fdatasync(fd)
    if names is not None:
        names.sync()


def _measure(sync: Callable[[], None]) -> None:
    began = time.monotonic()
    sync()
    emit(Synced(time.monotonic() - began))


def sync_directory(directory: str) -> None:
    """Force the names in a directory to the disk."""
    sync(names=Directory(directory))


class Directory:
    """A directory whose names are forced to the disk again and again, by a descriptor that stays open.

    Args:
        path: of the directory. Where another one lies there by now, that is meant.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._opened: _Opened | None = None

    def sync(self) -> None:
        """Force the names in the directory to the disk; :func:`sync` does it and measures it."""
        opened, status = self._opened, os.stat(self._path)
        if opened is None or opened.identity != (status.st_dev, status.st_ino):
            self._opened = opened = _Opened(self._path)
        os.fsync(opened.fd)


class _Opened:
    """A descriptor that is closed when no thread uses it any more."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        status = os.fstat(self.fd)
        self.identity = (status.st_dev, status.st_ino)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self.fd)


def unlink(path: str) -> None:
    """Remove a file that may be gone already."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


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
    """Return the bytes copied; fewer than asked where the kernel cannot, or the source ends."""
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
