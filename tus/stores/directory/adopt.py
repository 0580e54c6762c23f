"""Adoption: data that another program has received becomes an upload of a directory.

Laws of this room:

1. No bytes are lost and no file is replaced. New names are hard links, which fail if the name exists. The other
   program's name for the data is removed last.
2. The data comes first. The side-car comes last and appears complete, in one step. Data without a side-car is not an
   upload yet, and the same call, repeated after a crash, continues from there. A side-car without data would be a lost
   upload.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import os
import stat
from collections.abc import Iterator
from enum import StrEnum

from tus.errors import TusException
from tus.filesystem.boot import boot_id
from tus.filesystem.descriptors import close
from tus.filesystem.io import copy_file, sync_directory, unlink, write_at
from tus.filesystem.ownership import NotOurs, Ownership
from tus.models import Upload
from tus.stores.directory import record_format as sidecar
from tus.stores.directory.record import NAMES
from tus.stores.slots import Slot

_CANNOT_LINK = frozenset({errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})
_PREFIX = ".tus-adopting-"


class CannotAdopt(TusException):
    """The data cannot become an upload; the text says why."""


class How(StrEnum):
    """The way in which data became an upload."""

    IN_PLACE = "in place"
    MOVED = "moved"
    COPIED = "copied"  # the original is kept
    CREATED = "created"  # there was no data, because no byte had arrived
    EXISTING = "existing"  # it was an upload already


def has_upload(directory: str, upload_id: str) -> bool:
    """Return whether a directory has an upload of this id, in any state."""
    return os.path.lexists(os.path.join(directory, upload_id + ".tus"))


def remove_drafts(directory: str) -> None:
    """Remove the drafts of crashed calls; the caller must ensure that no other call runs in this directory."""
    with os.scandir(directory) as entries:
        drafts = [entry.path for entry in entries if entry.name.startswith(_PREFIX)]
    for path in drafts:
        unlink(path)


def check(directory: str, upload: Upload, data: str | None, ownership: Ownership) -> None:
    """Check that :func:`adopt` can adopt the data, without changes.

    Raises:
        CannotAdopt: the data is not as expected, or its place is taken.
    """
    target = os.path.join(directory, upload.id)
    if data is not None:
        with _open_data(data, upload.offset, ownership):
            pass
    if os.path.lexists(target) and not _is_the_data(target, data):
        raise CannotAdopt("another file already has the name that its data needs")


def adopt(directory: str, upload: Upload, data: str | None, ownership: Ownership) -> How:
    """Make data an upload.

    Args:
        directory: the directory of a :class:`~tus.stores.directory.store.DirectoryStore`.
        upload: the upload to create; its offset is the size of the data.
        data: the path of the data; None if no byte has arrived.
        ownership: whose files the server believes; the data must belong to its user.

    Raises:
        CannotAdopt: the data is not as expected, or its place is taken.
        OSError: the file system failed; nothing was lost, and the call can be repeated.
    """
    target = os.path.join(directory, upload.id)
    if has_upload(directory, upload.id):
        _forget(data, target)
        return How.EXISTING
    check(directory, upload, data, ownership)
    how = _place(directory, target, data, ownership)
    with _open_data(target, upload.offset, ownership) as fd:
        os.fchmod(fd, ownership.file_mode)
        os.fsync(fd)
    sync_directory(directory)
    if not _write_sidecar(directory, target, upload, ownership):
        how = How.EXISTING  # another process was faster
    _forget(data, target)
    return how


@contextlib.contextmanager
def _open_data(path: str, size: int, ownership: Ownership) -> Iterator[int]:
    """Open the data, and check that it is a writable regular file of our user, and of this size."""
    try:
        fd = ownership.open_data(path, os.O_RDWR)
    except NotOurs:
        raise CannotAdopt("its data is not a regular file of the same user") from None
    except FileNotFoundError:
        raise CannotAdopt("its data is missing") from None
    except OSError as error:
        raise CannotAdopt(f"its data cannot be opened: {error.strerror}") from None
    try:
        status = os.fstat(fd)
        if status.st_nlink > NAMES:
            raise CannotAdopt("its data has other names, by which another program could change it")
        if status.st_size != size:
            raise CannotAdopt(f"its data has changed meanwhile, from {size} to {status.st_size} bytes")
        yield fd
    finally:
        close(fd)


def _is_the_data(target: str, data: str | None) -> bool:
    """Return whether the target is the data, or a whole copy from an earlier call that crashed."""
    if not stat.S_ISREG(os.lstat(target).st_mode):
        return False
    if data is None:
        return os.lstat(target).st_size == 0
    return os.path.samefile(target, data) or filecmp.cmp(target, data, shallow=False)


def _place(directory: str, target: str, data: str | None, ownership: Ownership) -> How:
    """Link or copy the data to the target, unless it is there already."""
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
        with _create_draft(directory, ownership) as (fd, draft):
            if data is not None:
                copy_file(data, fd, 0, os.lstat(data).st_size, ownership)
            os.fsync(fd)
            os.link(draft, target)
    return How.CREATED if data is None else How.COPIED


def _write_sidecar(directory: str, target: str, upload: Upload, ownership: Ownership) -> bool:
    """Create the whole side-car in one step; return False if there is one already."""
    slot = Slot(
        offset=upload.offset,
        length=upload.length,
        state=upload.state,
        expires_at=upload.expires_at,
        synced=upload.offset,  # the caller has forced the data to the disk
        boot=boot_id(),
        ends_with_boot=upload.offset_is_final,
    )
    packed = sidecar.pack(upload, slot)
    with _create_draft(directory, ownership) as (fd, draft):
        if write_at(fd, 0, packed) < len(packed):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(fd)
        try:
            os.link(draft, target + ".tus")
        except FileExistsError:
            return False
    sync_directory(directory)
    return True


@contextlib.contextmanager
def _create_draft(directory: str, ownership: Ownership) -> Iterator[tuple[int, str]]:
    """Create a temporary file, and remove its name at the end; the caller links the file to keep it."""
    path = os.path.join(directory, _PREFIX + os.urandom(4).hex())
    fd = ownership.create(path)
    try:
        yield fd, path
    finally:
        close(fd)
        os.unlink(path)


def _forget(data: str | None, target: str) -> None:
    """Remove the other program's name for the data, if the target is the same file."""
    if data is None or os.path.realpath(data) == os.path.realpath(target):
        return
    with contextlib.suppress(FileNotFoundError):
        if os.path.samefile(data, target):
            unlink(data)
            sync_directory(os.path.dirname(data))
