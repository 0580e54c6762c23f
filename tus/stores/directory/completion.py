"""Completion in one step, the usual case: the last bytes, completion and the beginning of the hand-over.

A crash leaves the same states as several steps. The process takes the lock of the data before it writes the slot with
``HANDING_OVER``. So if it crashes after that, the upload is complete and waits for another attempt.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable

from tus.errors import StorageFull
from tus.events import TakenOver, emit
from tus.filesystem.io import write_at
from tus.filesystem.locks import unlock, unlock_and_close
from tus.models import Block, Upload
from tus.stores import ledger
from tus.stores.directory import flushing
from tus.stores.directory.claims import DirectoryClaim
from tus.stores.directory.record import Policy, SideCar

_LOCK = fcntl.LOCK_EX | fcntl.LOCK_NB


def complete(
    upload: Upload,
    path: str,
    policy: Policy,
    ended: Callable[[Upload], None] | None,
    offset: int,
    block: Block,
    length: int | None,
    is_last: bool,
) -> DirectoryClaim | None:
    """Append the last block of an upload and begin its hand-over, if :meth:`DirectoryStore.can_complete` allows it.

    Returns:
        The claim; None if another process holds the data's lock, so that the upload is complete and not claimed.

    Raises:
        StorageFull: there is no room for the whole block; the bytes that fitted are counted.
        RequestError: the same as :func:`tus.stores.ledger.complete`.
    """
    if flushing.flushes:
        flushing.wait(path)
    car = SideCar(path, policy)
    data_fd = -1
    try:
        car.lock()
        try:
            is_takeover = car.slot.writing
            data_fd = car.open_data(upload, offset, length)
            now, lifetimes, is_known = policy.clock(), policy.lifetimes, upload.is_known
            is_synced = policy.fsync != "none"
            slot = whole = ledger.complete(
                car.slot,
                offset=offset,
                end=offset + len(block),
                now=now,
                lifetimes=lifetimes,
                length=length,
                is_known=is_known,
                is_last=is_last,
                is_synced=is_synced,
            )
            try:
                fcntl.flock(data_fd, _LOCK)
            except BlockingIOError:
                is_locked = False
            else:
                is_locked = True
            written = write_at(data_fd, offset, block)
            if written < len(block) or not is_locked:
                slot = ledger.append(
                    car.slot,
                    offset=offset,
                    end=offset + written,
                    now=now,
                    lifetimes=lifetimes,
                    length=length,
                    is_known=is_known,
                )
            if slot is not whole:
                car.count(data_fd, slot)
            else:
                if is_synced:
                    car.force(data_fd)  # before the slot that tells so
                car.change(slot)
        finally:
            unlock(car.fd)
        if is_takeover:
            emit(TakenOver(car.upload(upload)))
        if written < len(block):
            raise StorageFull()
        if slot is whole:
            claim = DirectoryClaim(upload, car, policy, ended, data_fd)
    except BaseException:
        _close(car, data_fd)
        raise
    if slot is not whole:
        _close(car, data_fd)
        return None
    claim.go_on()
    return claim


def _close(car: SideCar, data_fd: int) -> None:
    if data_fd >= 0:
        unlock_and_close(data_fd)
    car.close()
