"""Make an upload of a directory out of data that another program has received.

Laws of this room:

1. Nobody's bytes are lost, and nothing that is there is replaced: names appear by hard links, which fail where the name
   is taken, and the name under which the other program has the data goes last.
2. The data comes first and the side-car last, in one step and whole. Data without a side-car is no upload yet, and the
   same call, repeated after a crash, goes on from there; a side-car without data would be a lost upload.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import os
import stat
import tempfile
from collections.abc import Iterator
from enum import StrEnum

from tus.errors import TusException
from tus.filesystem.io import FLAGS, copy_file, sync_directory, unlink, write_at
from tus.models import Upload
from tus.stores.directory import record_format as sidecar
from tus.stores.slots import Slot

_CANNOT_LINK = frozenset({errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})
_PREFIX = ".tus-adopting-"


class CannotAdopt(TusException):
    """The data cannot become an upload; the text says why."""


class How(StrEnum):
    """What became of the data."""

    IN_PLACE = "in place"
    MOVED = "moved"
    COPIED = "copied"  # the original is where it was
    CREATED = "created"  # there was none, because no byte had come
    KNOWN = "known"  # it is an upload already


def is_known(directory: str, upload_id: str) -> bool:
    """Whether a directory has an upload of this id, in whatever state."""
    return os.path.lexists(os.path.join(directory, upload_id + ".tus"))


def clear(directory: str) -> None:
    """Remove the drafts of calls that died; the caller sees to it that no other call is at work there."""
    with os.scandir(directory) as entries:
        drafts = [entry.path for entry in entries if entry.name.startswith(_PREFIX)]
    for path in drafts:
        unlink(path)


def check(directory: str, upload: Upload, data: str | None) -> None:
    """Find out whether :func:`adopt` can do it, and change nothing.

    Raises:
        CannotAdopt: it cannot.
    """
    target = os.path.join(directory, upload.id)
    if data is not None:
        with _opened(data, upload.offset):
            pass
    if os.path.lexists(target) and not _is_the_data(target, data):
        raise CannotAdopt("a file of that name, which is none of its data, lies where its data has to be")


def adopt(directory: str, upload: Upload, data: str | None, owner: tuple[int, int]) -> How:
    """Make data an upload.

    Args:
        directory: where the upload will be, that of a :class:`~tus.stores.directory.store.DirectoryStore`.
        upload: what it is to be; its offset is the size of the data.
        data: the path of the data, None where no byte has come.
        owner: the ids of the user and the group that run the server, who get the files if root makes them.

    Raises:
        CannotAdopt: the data is not what it should be, or its place is taken.
        OSError: what the file system says; nothing was lost, and the call can be repeated.
    """
    target = os.path.join(directory, upload.id)
    if is_known(directory, upload.id):
        _forget(data, target)
        return How.KNOWN
    check(directory, upload, data)
    how = _bring(directory, target, data)
    with _opened(target, upload.offset) as fd:
        _give(fd, owner)
        os.fsync(fd)
    sync_directory(directory)
    if not _write_sidecar(directory, target, upload, owner):
        how = How.KNOWN  # somebody else was faster
    _forget(data, target)
    return how


@contextlib.contextmanager
def _opened(path: str, size: int) -> Iterator[int]:
    """The data, if it is a file of that size which the server will be able to write."""
    try:
        fd = os.open(path, os.O_RDWR | FLAGS | os.O_NONBLOCK)
    except FileNotFoundError:
        raise CannotAdopt("its data is missing") from None
    except OSError as error:
        raise CannotAdopt(f"its data cannot be opened: {error.strerror}") from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise CannotAdopt("its data is no regular file")
        if status.st_size != size:
            raise CannotAdopt(f"its data has changed meanwhile, from {size} to {status.st_size} bytes")
        yield fd
    finally:
        os.close(fd)


def _is_the_data(target: str, data: str | None) -> bool:
    """Whether what lies at the target is the data, or a whole copy that an earlier call had made before it died."""
    if not stat.S_ISREG(os.lstat(target).st_mode):
        return False
    if data is None:
        return os.lstat(target).st_size == 0
    return os.path.samefile(target, data) or filecmp.cmp(target, data, shallow=False)


def _bring(directory: str, target: str, data: str | None) -> How:
    """See to it that the data lies at the target."""
    if data is not None and os.path.lexists(target):
        if os.path.realpath(data) == os.path.realpath(target):
            return How.IN_PLACE
        return How.MOVED if os.path.samefile(data, target) else How.COPIED
    if data is not None:
        try:
            os.link(data, target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _CANNOT_LINK:
                raise
        else:
            return How.MOVED
    if not os.path.lexists(target):
        with _draft(directory) as (fd, draft):
            if data is not None:
                copy_file(data, fd, 0, os.stat(data).st_size)
            os.fsync(fd)
            os.link(draft, target)
    return How.CREATED if data is None else How.COPIED


def _write_sidecar(directory: str, target: str, upload: Upload, owner: tuple[int, int]) -> bool:
    """Make the side-car appear, whole; False if there is one."""
    slot = Slot(offset=upload.offset, length=upload.length, state=upload.state, expires_at=upload.expires_at)
    packed = sidecar.pack(upload, slot)
    with _draft(directory) as (fd, draft):
        if write_at(fd, 0, packed) < len(packed):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        _give(fd, owner)
        os.fsync(fd)
        try:
            os.link(draft, target + ".tus")
        except FileExistsError:
            return False
    sync_directory(directory)
    return True


@contextlib.contextmanager
def _draft(directory: str) -> Iterator[tuple[int, str]]:
    """A new file without a name that anybody looks for; what is to stay of it has been linked by the end."""
    fd, path = tempfile.mkstemp(prefix=_PREFIX, dir=directory)
    try:
        yield fd, path
    finally:
        os.close(fd)
        os.unlink(path)


def _give(fd: int, owner: tuple[int, int]) -> None:
    if os.geteuid() == 0:
        os.fchown(fd, *owner)


def _forget(data: str | None, target: str) -> None:
    """Drop the name that the other program has for data which lies at the target as well; it is the same file."""
    if data is None or os.path.realpath(data) == os.path.realpath(target):
        return
    with contextlib.suppress(FileNotFoundError):
        if os.path.samefile(data, target):
            unlink(data)
            sync_directory(os.path.dirname(data))
