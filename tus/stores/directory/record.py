"""The two files of an upload, and all changes of them.

Laws of this room:

1. Every change of an upload takes the lock of its side-car, reads the slot under it, and takes microseconds.
2. Data is written at its offset first, and then the slot that counts it.
3. Reading takes no lock.
4. No code sees a slot as it was stored, but only what is certain of it in this boot, see
   :func:`tus.stores.ledger.trust`.
5. After bytes could not be forced to the disk, the slot records it under the lock, see :meth:`SideCar.force`. If that
   is impossible too, this process remembers it, and the upload is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Self

from tus.errors import OffsetMismatch, StorageFull, StorageUnavailable, UploadGone, UploadLocked, UploadNotFound
from tus.filesystem.boot import boot_id
from tus.filesystem.descriptors import close
from tus.filesystem.home import Home
from tus.filesystem.io import Directory, read_at, sync, translate_error, unlink, write_at
from tus.filesystem.locks import NOW, lock, unlock, unlock_and_close
from tus.filesystem.ownership import Ownership
from tus.models import Fsync, Response, State, Upload
from tus.stores import ledger
from tus.stores.directory import flushing
from tus.stores.directory import record_format as sidecar
from tus.stores.directory.clock import Moment
from tus.stores.directory.record_format import RECORD_HEAD_END, SLOT_SIZE, SLOTS_SIZE, Damaged
from tus.stores.directory.space import Space, give_back, has_reserved, is_idle
from tus.stores.slots import NO_BOOT, Lifetimes, Slot, upload_of

log = logging.getLogger(__name__)

_LARGEST = 16 << 20  # bytes; a larger file is not a side-car
NAMES = 2  # the most names that a new file can have, see tus.stores.directory.adopt
_FIRST_READ = 4096  # bytes; one system call reads nearly every side-car


@dataclass(frozen=True, slots=True)
class Policy:
    """The options of a directory store.

    Attributes:
        fsync: see :mod:`tus.stores.directory.store`.
        lifetimes: how long uploads are kept.
        keep_finished: whether the data of an accepted upload is kept as long as its record.
        clock: returns the time in seconds since 1970.
        names: the directory, whose entries are forced to the disk.
        home: the directory, which can go and come.
        space: the disk space that uploads may use; None if it is not limited.
        ownership: whose files are believed.
        boot: the id of this boot of the machine.
        steady: returns the seconds since the boot; None if the clock is not that of the machine.
    """

    fsync: Fsync
    lifetimes: Lifetimes
    keep_finished: bool
    clock: Callable[[], float]
    names: Directory
    home: Home
    space: Space | None = None
    ownership: Ownership = field(default_factory=Ownership)
    boot: bytes = field(default_factory=boot_id)
    steady: Callable[[], float] | None = None

    def moment(self) -> Moment:
        """Return the time by both clocks. A clock that is not the machine's never jumps."""
        now = self.clock()
        return Moment(now, now if self.steady is None else self.steady(), self.boot.hex() if self.steady else "")

    def shorten_to_stored(self, record: Upload, slot: Slot, size: int) -> Slot:
        """Return the slot from which an upload goes on, given the size of its data.

        After a crash of the machine a file may be shorter than its record.

        Raises:
            UploadGone: under this policy no counted data may be lost, or the client cannot send it again.
        """
        if size >= slot.offset:
            return slot
        never = record.is_final or slot.state == State.REJECTED or record.offset_is_final
        if self.fsync == "always" or never:
            raise UploadGone("Data of this upload was lost; create a new one.")
        return ledger.shorten(slot, size)


#: In place of slots that were not read yet; longer than any read, so that it differs from those of an empty file too.
_UNREAD: Final = bytes(SLOTS_SIZE + 1)
_UNREAD_SLOT: Final = Slot()


#: Unpacks slots. A request that changes an upload reads them first without the lock, and again under it.
_unpack_slots = lru_cache(maxsize=256)(sidecar.unpack_slots)


class SideCar:
    """An open side-car. As a context manager it holds the lock.

    Args:
        path: the path of the data. The path of the side-car is the same with ``.tus``.
        policy: the policy of the directory.
        fd: the descriptor, if the caller has just created the file.
        slot: its slot.
        slots: its first bytes.

    Attributes:
        fd: the descriptor of the file, -1 once it is closed.
        slot: the slot that was read or written last.
    """

    def __init__(
        self, path: str, policy: Policy, fd: int | None = None, slot: Slot = _UNREAD_SLOT, slots: bytes = _UNREAD
    ) -> None:
        if fd is None:
            try:
                fd, _ = policy.ownership.open_with_status(path + ".tus", os.O_RDWR, NAMES)
            except FileNotFoundError:
                policy.home.check()
                raise UploadNotFound() from None
        self.path = path
        self.fd = fd
        self.slot = slot
        self.boot = policy.boot
        self.is_synced = policy.fsync == "always"
        self._policy = policy
        self._slots = slots

    def __enter__(self) -> Self:
        try:
            self.lock()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        unlock(self.fd)
        self.close()

    def close(self) -> None:
        """Close the file, unless it is closed."""
        fd, self.fd = self.fd, -1
        close(fd)

    def lock(self) -> None:
        """Take the lock and read the slots. After an error the lock is not held."""
        try:
            fcntl.flock(self.fd, NOW)
        except BlockingIOError:
            lock(self.fd)
        try:
            slots = os.pread(self.fd, SLOTS_SIZE, 0)
            if slots != self._slots or self.slot.state == State.TERMINATED:
                self._update_slot(slots)
            if _unmarked and self.path in _unmarked:
                self._mark_again()
        except BaseException:
            unlock(self.fd)
            raise

    def _update_slot(self, slots: bytes) -> None:
        """Update the slot, if another process has written since the last read."""
        if slots != self._slots:
            if not slots[SLOTS_SIZE - 1 :]:  # read in part, and one slot alone may be the older one
                slots = read_at(self.fd, 0, SLOTS_SIZE)
            try:
                slot = _unpack_slots(slots)
            except Damaged:
                raise UploadGone("The record of this upload is damaged; create a new one.") from None
            self.slot = slot if slot.boot == self.boot else ledger.trust(slot, self.boot)
            self._slots = slots
        if self.slot.state == State.TERMINATED:
            raise UploadGone()

    def _mark_again(self) -> None:
        """Try once more to record that the upload is lost. The caller holds the lock.

        Raises:
            UploadGone: always.
        """
        self.change(ledger.terminate(self.slot))
        _unmarked.discard(self.path)
        raise UploadGone()

    def look(self, record: Upload) -> Upload:
        """Return the current upload, read without the lock."""
        if _unmarked:
            check_mark(self.path)
        self._update_slot(os.pread(self.fd, SLOTS_SIZE, 0))
        return self.upload(record)

    def upload(self, record: Upload) -> Upload:
        """Return the upload from the record of its creation and the slot that was read last."""
        return upload_of(record, self.slot, self.path)

    def open_data(self, record: Upload, offset: int, length: int | None) -> int:
        """Open the data for writing; the caller holds the lock.

        Args:
            record: the values that creation fixed.
            offset: the expected offset.
            length: the upload's length, if the request sets it.

        Raises:
            StorageFull: there is no room for the upload.
            OffsetMismatch: the upload has another offset.
            UploadGone: the data is lost.
        """
        if self.slot.state in (State.ACCEPTED, State.REJECTED):  # the application may have taken the data
            raise OffsetMismatch(self.slot.offset)
        is_offered = self.slot.attempts > 0
        try:
            fd, status = self._policy.ownership.open_with_status(self.path, os.O_WRONLY, NAMES, is_offered)
        except FileNotFoundError:
            self._policy.home.check()
            raise UploadGone() from None
        try:
            size = status.st_size
            slot = self.slot if size >= self.slot.offset else self._policy.shorten_to_stored(record, self.slot, size)
            if slot.offset != offset or slot.state != State.RECEIVING:
                ledger.check_offset(slot, offset)
            self.slot = slot
            if size > offset:
                # These bytes were never counted. If a staged session is open, it will count them at its end. End it
                # first, because this process may overwrite the bytes and then crash before it writes another slot.
                self.change(ledger.fence(slot))
                self.truncate(fd)
            if self._policy.space is not None:
                self._make_room(self._policy.space, fd, length)
        except BaseException:
            close(fd)
            raise
        return fd

    def _make_room(self, space: Space, fd: int, length: int | None) -> None:
        length = self.slot.length if length is None else length
        if length is None:
            space.check()  # without a length, nothing can be reserved
        else:
            space.reserve(fd, length, self.path)

    def truncate(self, data_fd: int) -> None:
        """Cut off the stored bytes that are not counted. The caller holds the lock."""
        os.ftruncate(data_fd, self.slot.offset)
        if self._policy.space is not None:
            self._policy.space.restore(data_fd, self.slot.length, self.path)

    def count(self, data_fd: int, slot: Slot) -> None:
        """Write the next slot, which counts bytes of the data. The caller holds the lock.

        Args:
            data_fd: the data, open for writing, with the bytes in it.
            slot: the result of a transition of :mod:`tus.stores.ledger`.
        """
        if self.is_synced:
            self.force(data_fd)
            slot = slot._replace(synced=slot.offset)
        self.change(slot)
        if self.is_synced:
            self.force_record(is_locked=True)
        elif slot.offset - slot.synced >= flushing.FLUSH_EVERY and self._policy.fsync != "none":
            self._flush(data_fd)

    def _flush(self, data_fd: int) -> None:
        """Force the counted bytes to the disk in the background."""
        path, policy, slot = self.path, self._policy, self.slot
        if slot.state != State.RECEIVING or flushing.is_running(path):
            return

        data_fd = os.dup(data_fd)

        def is_ours(car: SideCar) -> bool:
            """Return whether the upload is the same one, and not a later one with its id."""
            with contextlib.suppress(FileNotFoundError):
                return os.path.samestat(os.stat(car.path), os.fstat(data_fd))
            return False

        def synced() -> None:
            with SideCar(path, policy) as car:
                if is_ours(car):
                    car.change(ledger.force(car.slot, slot.offset, slot.losses))

        def failed() -> None:
            with contextlib.closing(SideCar(path, policy)) as car:
                if is_ours(car):
                    car.mark(lambda now: ledger.doubt(now, slot.synced))

        flushing.start(flushing.Flush(data_fd, synced, failed), path)

    def force(self, data_fd: int) -> None:
        """Force the data to the disk. The caller holds the lock.

        Raises:
            StorageFull: there is no room for it.
            OSError: it could not be written. The upload goes on from the bytes that were synced before, or is gone.
        """
        try:
            sync(data_fd)
        except OSError as error:
            self.mark(ledger.doubt, is_locked=True)
            raise translate_error(error) from error

    def force_record(
        self,
        names: Directory | None = None,
        is_locked: bool = False,
        otherwise: Callable[[Slot], Slot] = ledger.terminate,
    ) -> None:
        """Force the record to the disk, and then the names in a directory.

        Args:
            names: the directory.
            is_locked: whether the caller holds the lock.
            otherwise: the transition after a failure. An upload that was durable before need not end.

        Raises:
            OSError: it could not be written, or the directory could not be opened.
        """
        opened = None if names is None else names.open()  # before: if that fails, no bytes are in doubt
        try:
            sync(self.fd, names=opened)
        except OSError as error:
            self.mark(otherwise, is_locked)
            raise translate_error(error) from error

    def close_data(self, data_fd: int, is_locked: bool = False) -> None:
        """Close data that was written.

        Raises:
            StorageUnavailable: bytes are lost, as after :meth:`force`.
        """
        if not close(data_fd):
            self.mark(ledger.doubt, is_locked)
            raise StorageUnavailable()

    def mark(self, transition: Callable[[Slot], Slot], is_locked: bool = False) -> None:
        """Record that bytes of the upload could not be forced to the disk. If that fails too, remember it.

        Args:
            transition: returns the next slot.
            is_locked: whether the caller holds the lock.
        """
        try:
            if not is_locked:
                self.lock()
            try:
                self.change(transition(self.slot))
                self.slot = ledger.trust(self.slot, self.boot)
            finally:
                if not is_locked:
                    unlock(self.fd)
        except UploadGone:  # it is terminated already
            pass
        except (OSError, StorageFull, UploadLocked):
            log.exception("upload %s is lost: not even that could be recorded", os.path.basename(self.path))
            _unmarked.add(self.path)

    def write_outcome(self, error: str | None, answer: Response | None) -> None:
        """Record the outcome of a hand-over. The caller holds the lock."""
        end = sidecar.record_end(os.pread(self.fd, RECORD_HEAD_END, 0))
        packed = sidecar.pack_outcome(error, answer)
        if write_at(self.fd, end, packed) < len(packed):
            raise StorageFull()

    def change(self, slot: Slot) -> None:
        """Write the next slot, if it differs from the last one. The caller holds the lock.

        Raises:
            StorageFull: the slot is not written, or torn; the previous slot counts.
        """
        if slot is self.slot:
            return
        packed, position = sidecar.pack_slot(slot), SLOT_SIZE * (slot.sequence & 1)
        try:
            written = os.pwrite(self.fd, packed, position)
        except OSError as error:
            raise translate_error(error) from error
        if written < SLOT_SIZE:
            raise StorageFull()
        self._slots = packed + self._slots[SLOT_SIZE:] if position == 0 else self._slots[:SLOT_SIZE] + packed
        self.slot = slot

    def remove(self) -> None:
        """Terminate the upload, and remove its files. The caller holds the lock.

        An open session learns it from the slot. A full copy-on-write disk may have no room even for that. Then the
        side-car is emptied, which needs none, and the session finds its upload damaged. The side-car is removed last,
        because it shows whose the data is.
        """
        try:
            self.change(ledger.terminate(self.slot))
        except (StorageFull, OSError):
            os.ftruncate(self.fd, 0)
        unlink(self.path)
        unlink(self.path + ".tus")
        _unmarked.discard(self.path)


#: The paths of the uploads with bytes that could not be forced to the disk, where not even that could be recorded.
_unmarked: set[str] = set()


def check_mark(path: str) -> None:
    """Check that this process does not remember a failure of an upload that it could not record.

    Raises:
        UploadGone: it does.
    """
    if path in _unmarked:
        raise UploadGone()


def give_back_reserved(path: str, policy: Policy) -> None:
    """Free the space reserved for an upload that got no byte for a while; its next byte reserves it again."""
    assert policy.space is not None, "without it nothing is reserved"
    with SideCar(path, policy):  # no process begins to write meanwhile
        fd = policy.ownership.open_data(path, os.O_WRONLY)
        try:
            status = os.fstat(fd)
            if is_idle(status):
                give_back(fd)
            elif has_reserved(status):
                policy.space.note(path)  # look again later
        finally:
            close(fd)


def finish_removal(path: str, ownership: Ownership, boot: bytes, kept: float) -> None:
    """Remove the files of a terminated upload, after a process crashed before it removed them.

    Args:
        path: the path of the data.
        ownership: whose files are believed.
        boot: the id of this boot of the machine.
        kept: seconds. An upload that only ended with its boot, and not by a failed sync, is removed if its record has
            not changed for so long. A process that knows the boot may still write to it.
    """
    fd = open_sidecar(path, os.O_RDWR, ownership)
    try:
        lock(fd)
        slot, status = sidecar.unpack_slots(os.pread(fd, SLOTS_SIZE, 0)), os.fstat(fd)
        age = time.time() - status.st_mtime
        is_certain = slot.boot == NO_BOOT or not kept or age >= kept
        if not is_certain and age < -kept:
            os.utime(fd)  # a clock was wrong, so it stays as if its record had changed now
        has_ended = slot.state == State.TERMINATED or (
            is_certain and ledger.trust(slot, boot).state == State.TERMINATED
        )
        if has_ended and os.path.samestat(status, os.stat(path + ".tus")):
            unlink(path)
            unlink(path + ".tus")
    finally:
        unlock_and_close(fd)


def remove_abandoned(path: str, ownership: Ownership) -> None:
    """Remove the side-car of a creation whose process died before there was data.

    A creation under an id that others know holds the lock of its side-car until both files are there. Before that, its
    side-car may be empty. Data that has begun is never missing without a reason, so such an upload stays as it is.

    Raises:
        UploadLocked: another process holds the lock for too long.
    """
    try:
        fd = open_sidecar(path, os.O_RDWR, ownership)
    except UploadNotFound:
        return
    try:
        lock(fd)
        slots = os.pread(fd, SLOTS_SIZE, 0)
        slot = sidecar.unpack_slots(slots) if slots else None
        is_new = slot is None or (slot.state == State.RECEIVING and not slot.offset)
        if is_new and not os.path.lexists(path) and os.path.samestat(os.fstat(fd), os.stat(path + ".tus")):
            unlink(path + ".tus")
    except (Damaged, FileNotFoundError):
        return
    finally:
        unlock_and_close(fd)


def open_sidecar(path: str, flags: int, ownership: Ownership) -> int:
    """Open the side-car of the data at a path.

    Raises:
        UploadNotFound: there is no side-car that is ours.
    """
    try:
        return ownership.open(path + ".tus", flags, NAMES)
    except FileNotFoundError:
        raise UploadNotFound() from None


def read_slot(path: str, ownership: Ownership, boot: bytes) -> Slot | None:
    """Return what is certain of the slot of the data at a path; None if only the whole side-car can tell.

    Raises:
        UploadNotFound: there is no side-car that is ours.
    """
    fd = open_sidecar(path, os.O_RDONLY, ownership)
    try:
        slot = sidecar.unpack_slots(os.pread(fd, SLOTS_SIZE, 0))
    except Damaged:
        return None
    finally:
        close(fd)
    if path in _unmarked:
        return None
    return slot if slot.boot == boot else ledger.trust(slot, boot)


def read_upload(fd: int, path: str, boot: bytes) -> Upload:
    """Return the upload of an open side-car.

    Args:
        fd: the side-car.
        path: the path of the data.
        boot: the id of this boot of the machine.

    Raises:
        UploadGone: the side-car is damaged.
    """
    for _ in range(3):  # a reader without a lock may find a side-car that is being created
        try:
            data = os.pread(fd, _FIRST_READ, 0)
            if len(data) == _FIRST_READ:
                data = read_all(fd)
            if _unmarked:
                check_mark(path)
            slot = _unpack_slots(data[:SLOTS_SIZE])
            return sidecar.unpack_upload(data, slot if slot.boot == boot else ledger.trust(slot, boot), path)
        except Damaged:
            time.sleep(0.001)
    raise UploadGone("The record of this upload is damaged; create a new one.")


def read_all(fd: int) -> bytes:
    """Return the bytes of a side-car."""
    data = os.pread(fd, _FIRST_READ, 0)
    if len(data) < _FIRST_READ:
        return data
    return data + os.pread(fd, min(os.fstat(fd).st_size, _LARGEST), _FIRST_READ)
