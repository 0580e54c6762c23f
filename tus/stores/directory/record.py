"""One upload's two files, and every way in which they change.

Laws of this room:

1. Whatever changes an upload happens under the lock of its side-car, in microseconds, on the slot read under it.
2. Data goes to its offset, and the slot that counts it is written after it.
3. Reading takes no lock.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from tus.errors import OffsetMismatch, StorageFull, UploadGone, UploadNotFound
from tus.filesystem.io import FLAGS, Directory, sync, translate_error, unlink, write_at
from tus.filesystem.locks import lock, unlock
from tus.models import Fsync, Response, State, Upload
from tus.stores import ledger
from tus.stores.directory import record_format as sidecar
from tus.stores.directory.record_format import RECORD_HEAD_END, SLOT_SIZE, SLOTS_SIZE, Damaged
from tus.stores.directory.space import Space
from tus.stores.slots import Lifetimes, Slot, upload_of

_LARGEST = 16 << 20  # bytes; more is no side-car, whatever it is called
_FIRST_READ = 4096  # bytes; nearly every side-car in one system call


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator decided for a directory.

    Attributes:
        fsync: see :mod:`tus.stores.directory.store`.
        lifetimes: how long uploads are kept.
        keep_finished: whether the data of an accepted upload is kept as long as its record.
        clock: seconds since 1970.
        names: the directory, whose entries are forced to the disk.
        space: the room that uploads may take; None if it is not limited.
    """

    fsync: Fsync
    lifetimes: Lifetimes
    keep_finished: bool
    clock: Callable[[], float]
    names: Directory
    space: Space | None = None

    def as_far_as_stored(self, record: Upload, slot: Slot, size: int) -> Slot:
        """Return where an upload goes on, given the size of its data.

        After the machine crashed a file may be shorter than its record.

        Raises:
            UploadGone: that must not happen under this policy, or cannot be mended by sending the rest again.
        """
        if size >= slot.offset:
            return slot
        never = record.is_final or slot.state == State.REJECTED or record.offset_is_final
        if self.fsync == "always" or never:
            raise UploadGone("Data of this upload was lost; create a new one.")
        return ledger.shorten(slot, size)


class SideCar:
    """An open side-car. As a context manager it holds the lock.

    Args:
        path: the path of the data; the side-car's has ``.tus`` behind it.
        policy: the directory's.

    Attributes:
        fd: the file, -1 once it is closed.
        slot: where the upload stands, as it was read last.
    """

    def __init__(self, path: str, policy: Policy, fd: int | None = None) -> None:
        self.path = path
        try:
            self.fd = os.open(path + ".tus", os.O_RDWR | FLAGS) if fd is None else fd
        except FileNotFoundError:
            raise UploadNotFound() from None
        self.slot: Slot
        self.is_synced = policy.fsync == "always"
        self._policy = policy
        self._slots = b""

    def begin_with(self, slot: Slot, packed: bytes) -> None:
        """Take the slot of a side-car that the caller has just written."""
        self.slot, self._slots = slot, packed[:SLOTS_SIZE]

    def __enter__(self) -> Self:
        try:
            self.lock()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.unlock()
        self.close()

    def close(self) -> None:
        """Close the file, once."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def lock(self) -> None:
        """Take the lock and read the slots; after an error the lock is not held."""
        lock(self.fd)
        try:
            slots = os.pread(self.fd, SLOTS_SIZE, 0)
            if slots != self._slots or self.slot.state == State.TERMINATED:
                self._take_in(slots)
        except BaseException:
            self.unlock()
            raise

    def _take_in(self, slots: bytes) -> None:
        """See what another caller has written since the last look."""
        if slots != self._slots:
            try:
                self.slot = sidecar.unpack_slots(slots)
            except Damaged:
                raise UploadGone("The record of this upload is damaged; create a new one.") from None
            self._slots = slots
        if self.slot.state == State.TERMINATED:
            raise UploadGone()

    def unlock(self) -> None:
        """Release the lock."""
        fcntl.flock(self.fd, fcntl.LOCK_UN)

    def look(self, record: Upload) -> Upload:
        """Return the upload as it stands, read without the lock."""
        self._take_in(os.pread(self.fd, SLOTS_SIZE, 0))
        return self.upload(record)

    def upload(self, record: Upload) -> Upload:
        """Return the upload as it was read last, given what creation fixed."""
        return upload_of(record, self.slot, self.path)

    def open_data(self, record: Upload, offset: int, length: int | None) -> int:
        """Open the data for writing; the caller holds the lock.

        Args:
            record: what creation fixed.
            offset: where the caller takes the upload to stand.
            length: the upload's, if it is about to be settled.

        Raises:
            StorageFull: there is no room for it.
            OffsetMismatch: the upload does not go on at this offset.
            UploadGone: the data is lost.
        """
        if self.slot.state in (State.ACCEPTED, State.REJECTED):  # the application may have taken the data
            raise OffsetMismatch(self.slot.offset)
        try:
            fd = os.open(self.path, os.O_WRONLY | FLAGS)
        except FileNotFoundError:
            raise UploadGone() from None
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise UploadGone("The data of this upload is no file any more; create a new one.")
            size = status.st_size
            slot = self.slot if size >= self.slot.offset else self._policy.as_far_as_stored(record, self.slot, size)
            if slot.offset != offset or slot.state != State.RECEIVING:
                ledger.check_offset(slot, offset)
            self.slot = slot
            if size > offset:
                # Bytes that were never counted. A staged session that is still open means to count them: end it first,
                # because a process that overwrites them may crash before it writes another slot.
                self.change(ledger.fence(slot))
                self.truncate(fd)
            if self._policy.space is not None:
                self._make_room(self._policy.space, fd, length)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _make_room(self, space: Space, fd: int, length: int | None) -> None:
        if self.slot.length is None:
            if length is None:
                space.check()  # all that can be said of an upload whose length is not known
            else:
                space.reserve(fd, length)

    def truncate(self, data_fd: int) -> None:
        """Cut off bytes that were stored and never counted. The caller holds the lock."""
        os.ftruncate(data_fd, self.slot.offset)
        if self._policy.space is not None:
            self._policy.space.restore(data_fd, self.slot.length)

    def count(self, data_fd: int, slot: Slot) -> None:
        """Write the next slot, which counts bytes of the data. The caller holds the lock.

        Args:
            data_fd: the data, open for writing; the bytes are in it.
            slot: what a transition of :mod:`tus.stores.ledger` gave.
        """
        if self.is_synced:
            sync(data_fd)
        self.change(slot)
        if self.is_synced:
            sync(self.fd)

    def write_outcome(self, error: str | None, answer: Response | None) -> None:
        """Record the outcome of a hand-over. The caller holds the lock."""
        end = sidecar.record_end(os.pread(self.fd, RECORD_HEAD_END, 0))
        packed = sidecar.pack_outcome(error, answer)
        if write_at(self.fd, end, packed) < len(packed):
            raise StorageFull()

    def change(self, slot: Slot) -> None:
        """Write the next slot, if it differs from the last one. The caller holds the lock."""
        if slot is self.slot:
            return
        packed, position = sidecar.pack_slot(slot), SLOT_SIZE * (slot.sequence & 1)
        self.write_slot(packed, position)
        self._slots = packed + self._slots[SLOT_SIZE:] if position == 0 else self._slots[:SLOT_SIZE] + packed
        self.slot = slot

    def write_slot(self, packed: bytes, position: int) -> None:
        """Put a slot in its place."""
        try:
            os.pwrite(self.fd, packed, position)
        except OSError as error:
            raise translate_error(error) from error

    def remove(self) -> None:
        """End the upload. The caller holds the lock.

        A session that has the side-car open learns it from the slot. It is unlinked last: it names the data ours.
        """
        self.change(ledger.terminate(self.slot))
        unlink(self.path)
        unlink(self.path + ".tus")


def finish_removal(path: str) -> None:
    """Remove the files of an upload that was terminated by a process which then crashed."""
    fd = open_sidecar(path, os.O_RDWR)
    try:
        lock(fd)
        try:
            ended = sidecar.unpack_slots(os.pread(fd, SLOTS_SIZE, 0)).state == State.TERMINATED
            if ended and os.path.samestat(os.fstat(fd), os.stat(path + ".tus")):
                unlink(path)
                unlink(path + ".tus")
        finally:
            unlock(fd)
    finally:
        os.close(fd)


def open_sidecar(path: str, flags: int) -> int:
    """Open the side-car of the data at a path.

    Raises:
        UploadNotFound: there is none.
    """
    try:
        return os.open(path + ".tus", flags | FLAGS)
    except FileNotFoundError:
        raise UploadNotFound() from None


def read_upload(fd: int, path: str) -> Upload:
    """Return the upload that an open side-car describes, whose data is at a path.

    Raises:
        UploadGone: it describes none.
    """
    for _ in range(3):  # without a lock one can meet a side-car that is being created
        try:
            data = os.pread(fd, _FIRST_READ, 0)
            if len(data) == _FIRST_READ:
                data = read_all(fd)
            return sidecar.unpack(data, path)
        except Damaged:
            time.sleep(0.001)
    raise UploadGone("The record of this upload is damaged; create a new one.")


def read_all(fd: int) -> bytes:
    """Return the bytes of a side-car."""
    data = os.pread(fd, _FIRST_READ, 0)
    if len(data) < _FIRST_READ:
        return data
    return data + os.pread(fd, min(os.fstat(fd).st_size, _LARGEST), _FIRST_READ)
