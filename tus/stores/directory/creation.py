"""Creation of the two files of an upload; after an error neither is left.

The side-car comes first, because no process could know that data without one belongs to this package. If the whole body
comes with the creation, the record first says that no byte was received. So a crash at any point leaves an upload that
expires or waits for its hand-over. It never leaves a record that counts more than is stored.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable

from tus.errors import StorageFull
from tus.filesystem.descriptors import close
from tus.filesystem.io import sync, translate_error, unlink, write_at
from tus.filesystem.locks import lock, unlock, unlock_and_close
from tus.models import Block, State, Upload
from tus.stores import ledger
from tus.stores.directory import record_format as sidecar
from tus.stores.directory.claims import DirectoryClaim
from tus.stores.directory.data_lock import LOOK
from tus.stores.directory.record import Policy, SideCar
from tus.stores.slots import Slot, upload_of

log = logging.getLogger(__name__)


class _AbandonedError(Exception):
    """Another process has taken a creation for abandoned before it could take its lock."""


def create(draft: Upload, path: str, policy: Policy) -> Upload:
    """Create an upload with its data at a path.

    Raises:
        FileExistsError: there is an upload at this path.
        StorageFull: there is no room for the upload.
    """
    upload, fd, data_fd, _, _ = _make(draft, path, policy, is_locked=bool(draft.id))
    if draft.id:
        unlock(fd)
    close(data_fd, fd)
    return upload


def create_whole(
    draft: Upload,
    path: str,
    policy: Policy,
    ended: Callable[[Upload], None] | None,
    block: Block,
    is_last: bool,
) -> DirectoryClaim:
    """Create an upload with its whole data, and begin its hand-over.

    Raises:
        FileExistsError: there is an upload at this path.
        StorageFull: there is no room for the upload.
    """
    upload, fd, data_fd, slot, packed = _make(draft, path, policy, is_locked=True)
    try:
        lock(data_fd, limit=LOOK)
        now, size, is_synced = upload.created_at, len(block), policy.fsync != "none"
        if slot.state == State.RECEIVING:
            lifetimes = policy.lifetimes
            whole = ledger.complete(
                slot, offset=0, end=size, now=now, lifetimes=lifetimes, is_last=is_last, is_synced=is_synced
            )
        else:
            whole = ledger.begin(slot, generation=slot.generation, now=now, is_last=is_last)
        if write_at(data_fd, 0, block) < size:
            raise StorageFull()
        if is_synced:
            sync(data_fd)  # before the slot that tells so
        car = SideCar(path, policy, fd, slot, packed[: sidecar.SLOTS_SIZE])
        car.change(whole)
        unlock(car.fd)
    except BaseException as error:
        _undo(path, fd, data_fd)
        raise translate_error(error) from error
    claim = DirectoryClaim(upload, car, policy, ended, data_fd)
    try:
        claim.go_on()
    except BaseException:
        _remove_files(path, has_data=True)
        raise
    return claim


def _make(draft: Upload, path: str, policy: Policy, is_locked: bool = False) -> tuple[Upload, int, int, Slot, bytes]:
    """Create both files; return the upload, the open side-car, the open data, the slot and the side-car's bytes.

    With ``is_locked`` the side-car's lock is held, so that no process that lists the directory can interfere, and none
    that knows the id takes the creation for abandoned.
    """
    now = policy.clock()
    slot = ledger.create(
        length=draft.length,
        now=now,
        lifetimes=policy.lifetimes,
        is_known=draft.is_known,
        is_final=bool(draft.parts),
        expires_at=draft.expires_at,
        boot=policy.boot,
        ends_with_boot=policy.fsync != "always" and draft.offset_is_final,
    )
    upload = upload_of(draft, slot, path)
    upload.id, upload.created_at = path[-32:], now
    if draft.id:
        sync(names=policy.names.open())  # a removed upload of this id must not come back, with the data of this one
    try:
        fd = policy.ownership.create(path + ".tus")
    except FileExistsError:
        raise
    except OSError as error:
        raise translate_error(error) from error
    data_fd = -1
    try:
        if is_locked:
            lock(fd)
            if draft.id and not os.fstat(fd).st_nlink:
                raise _AbandonedError
        packed = sidecar.pack(upload, slot)
        if write_at(fd, 0, packed) < len(packed):
            raise StorageFull()
        data_fd = policy.ownership.create(path)
        if policy.space is not None:
            policy.space.reserve(data_fd, draft.length or 0, path)
        if policy.fsync == "always" and (draft.id or not is_locked):  # else it is synced with its data
            sync(fd, names=policy.names.open())
    except _AbandonedError:  # another process has removed it, so what is at the path now is not this creation's
        unlock_and_close(fd)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None
    except BaseException as error:
        _undo(path, fd, data_fd)
        raise translate_error(error) from error
    return upload, fd, data_fd, slot, packed


def _undo(path: str, fd: int, data_fd: int) -> None:
    _remove_files(path, data_fd >= 0)
    if data_fd >= 0:
        unlock_and_close(data_fd)
    unlock_and_close(fd)


def _remove_files(path: str, has_data: bool) -> None:
    """Remove the files. What cannot be removed expires. Data that is not the upload's own is left."""
    try:
        if has_data:
            unlink(path)
        unlink(path + ".tus")
    except OSError as error:
        log.warning("the files of a failed creation could not be removed: %s", error)
