"""System calls on files: writing at an offset, forcing to the disk, and copying."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

from tus.errors import StorageFull
from tus.events import Synced, emit, listeners
from tus.filesystem.descriptors import close
from tus.filesystem.ownership import Ownership
from tus.models import Block

log = logging.getLogger(__name__)

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_LONGEST_VECTOR = 1024  # blocks; IOV_MAX of POSIX systems


def write_at(fd: int, offset: int, *blocks: Block) -> int:
    """Write blocks at an offset, until the disk is full; return the number of bytes written."""
    size = sum(map(len, blocks))
    written = 0
    try:
        written = os.pwrite(fd, blocks[0], offset) if len(blocks) == 1 else _write_vector(fd, blocks, offset)
        while written < size:
            count = os.pwrite(fd, memoryview(b"".join(blocks))[written:], offset + written)
            if not count:  # a file system that has no room and does not say so
                break
            written += count
    except OSError as error:
        if error.errno not in _FULL:
            raise
    return written


def read_at(fd: int, offset: int, size: int) -> bytes:
    """Return the bytes at an offset; fewer only if the file ends there. A network file system may return a part."""
    data = b""
    while len(data) < size and (block := os.pread(fd, size - len(data), offset + len(data))):
        data += block
    return data


def _write_vector(fd: int, blocks: Sequence[Block], offset: int) -> int:
    """Write blocks by one system call, without joining them in memory if the system allows that."""
    if len(blocks) > _LONGEST_VECTOR or not hasattr(os, "pwritev"):
        return os.pwrite(fd, b"".join(blocks), offset)
    return os.pwritev(fd, blocks, offset)


def is_full(error: BaseException) -> bool:
    """Return whether an error says that the disk is full, or a quota of the system is used up."""
    return isinstance(error, OSError) and error.errno in _FULL


def takes_no_bytes(error: BaseException) -> bool:
    """Return whether an error says that the disk takes no bytes at the moment: it is full or read-only."""
    return is_full(error) or (isinstance(error, OSError) and error.errno == errno.EROFS)


def translate_error(error: BaseException) -> BaseException:
    """Return StorageFull for an error of a full disk, and any other error unchanged."""
    return StorageFull() if is_full(error) else error


_fdatasync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


def sync(*fds: int, names: OpenDirectory | None = None) -> None:
    """Force the data of files to the disk, in this order, and then the names in a directory."""
    if listeners[Synced]:
        for fd in fds:
            _measure(partial(_fdatasync, fd))
        if names is not None:
            _measure(partial(os.fsync, names.fd))
        return
    for fd in fds:
        _fdatasync(fd)
    if names is not None:
        os.fsync(names.fd)


def sync_file(fd: int) -> None:
    """Force a file with all its attributes to the disk."""
    if listeners[Synced]:
        _measure(partial(os.fsync, fd))
    else:
        os.fsync(fd)


def _measure(sync: Callable[[], None]) -> None:
    began = time.monotonic()
    sync()
    emit(Synced(time.monotonic() - began))


def sync_directory(directory: str) -> None:
    """Force the names in a directory to the disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_file(fd)
    finally:
        close(fd)


def sync_name(directory: str, undo: Callable[[], object], names: OpenDirectory | None = None) -> None:
    """Force a name that was just made in a directory to the disk.

    Args:
        directory: the directory.
        names: the same, if it is open.
        undo: removes the name after a failure. Another sync would prove nothing, but another try makes it again.

    Raises:
        OSError: it could not be written. If it cannot be undone either, this process makes no more names there.
    """
    if directory in _doubtful:
        raise OSError(errno.EIO, "an earlier change of this directory could not be forced to the disk")
    try:
        sync(names=names) if names is not None else sync_directory(directory)
    except PermissionError:  # it cannot be opened, so nothing has failed
        raise
    except OSError:
        try:
            undo()
        except FileNotFoundError:
            pass
        except OSError:
            _doubtful.add(directory)
        raise


_doubtful: set[str] = set()


class Directory:
    """A directory whose names can be forced to the disk repeatedly, by a descriptor that stays open.

    Args:
        path: the path of the directory. If it is replaced by another directory, the new one is used.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._opened: OpenDirectory | None = None

    def open(self, status: os.stat_result | None = None) -> OpenDirectory:
        """Return the open directory.

        Args:
            status: of the path, if the caller has looked at it.
        """
        opened, status = self._opened, status or os.stat(self._path)
        if opened is None or opened.identity != (status.st_dev, status.st_ino):
            self._opened = opened = OpenDirectory(self._path)
        return opened


class OpenDirectory:
    """A descriptor of a directory that is closed once no thread uses it.

    Attributes:
        fd: the descriptor.
        identity: the device and the inode of the directory.
    """

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        status = os.fstat(self.fd)
        self.identity = (status.st_dev, status.st_ino)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):
            close(self.fd)


def unlink(path: str) -> None:
    """Remove a file that may be gone already."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


_BLOCK = 1 << 30  # bytes; the kernel copies little more in one call


_BUFFER = 1 << 20


_CANNOT = frozenset({errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM})


def copy_file(source: str, target_fd: int, offset: int, size: int, ownership: Ownership) -> None:
    """Copy the first ``size`` bytes of a file to an offset of another.

    copy_file_range shares the blocks if the file system supports that (a reflink), or else copies inside the kernel. If
    the system has no such call, the data is copied through memory.

    Raises:
        FileNotFoundError: the source is gone, is not ours, or shorter than ``size``.
        OSError: another error of the file system.
    """
    fd = ownership.open_data(source, os.O_RDONLY)
    try:
        copy_data(fd, target_fd, offset, size)
    finally:
        close(fd)


def copy_data(fd: int, target_fd: int, offset: int, size: int) -> None:
    """Copy the first ``size`` bytes of an open file, see :func:`copy_file`."""
    done = _copy_in_kernel(fd, target_fd, offset, size)
    while done < size:
        block = os.pread(fd, min(_BUFFER, size - done), done)
        if not block:
            raise FileNotFoundError(errno.ENOENT, "the file is shorter than expected")
        written = write_at(target_fd, offset + done, block)
        if written < len(block):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done += written


_FICLONE = 0x40049409  # in linux/fs.h


def can_share_blocks(source: str, target_fd: int, ownership: Ownership) -> bool:
    """Return whether a copy of one file in another needs no room; the content of the target is lost."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        fd = ownership.open_data(source, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.ioctl(target_fd, _FICLONE, fd)
    except OSError:
        return False
    else:
        return True
    finally:
        close(fd)


def _copy_in_kernel(fd: int, target_fd: int, offset: int, size: int) -> int:
    """Return the number of bytes copied; fewer than ``size`` if the kernel cannot copy, or the source ends."""
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
