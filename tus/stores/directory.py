"""Uploads as files of one directory: ``<id>`` is the data, ``<id>.tus`` the side-car (see :mod:`tus.stores.sidecar`).

What holds an upload for longer than microseconds, a hand-over or a concatenation, holds the lock of its data file;
everything else is in :mod:`tus.stores.files`.

What ``fsync`` promises. A process that dies loses nothing that was counted, under every policy. When the machine dies:

``none``
    everything since the kernel last wrote back may be lost. An upload goes on from the smaller of record and file.
``finish`` (the default)
    the same while an upload is being received; but a complete file, its record and its directory entry are on the
    disk before the application hears of it.
``always``
    nothing that a client was told is lost: each block is on the disk before it is counted.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

if sys.platform == "win32":  # pragma: no cover
    raise ImportError("tus.stores.directory needs a POSIX system such as Linux or macOS; Windows has no flock().")

from tus.errors import OptionError, StorageFull, UploadGone, UploadLocked, UploadNotFound
from tus.models import State, Upload, is_upload_id
from tus.options import Fsync
from tus.stores import sidecar
from tus.stores.copying import copy_file
from tus.stores.files import (
    FLAGS,
    Policy,
    SideCar,
    lock_data,
    open_sidecar,
    read_all,
    read_upload,
    sync_directory,
    translated,
    unlink,
    unlock_data,
    write_at,
)
from tus.stores.interface import Block
from tus.stores.locks import check_locks_work, lock
from tus.stores.sessions import DirectoryClaim, DirectorySession
from tus.stores.sidecar import Slot

_SWEEPER = ".tus-sweeper"


def prepare_directory(path: str) -> str:
    """Make the last level of a directory where it is missing, with mode 0700, and see that it serves.

    Returns:
        Its absolute path.

    Raises:
        OptionError: the parent is missing, it cannot be written, or its locks guard nothing.
    """
    path = os.path.abspath(path)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise OptionError("tmp_file_dir", f"{path!r} cannot be created: {error.strerror}") from None
    check_locks_work(path)
    return path


class DirectoryStore:
    """A :class:`~tus.stores.interface.Store` in a directory that it may share with other programs.

    Args:
        directory: an existing directory.
        fsync: see above.
        lifetime: seconds after its last byte that an unfinished upload is kept; 0 means for ever.
        completed_keep: seconds that the record of an accepted upload is kept.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        directory: str,
        *,
        fsync: Fsync = "finish",
        lifetime: float = 86400,
        completed_keep: float = 86400,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.directory = directory
        self._prefix = os.path.join(directory, "")
        self._policy = Policy(fsync, lifetime, completed_keep, clock)

    def _path(self, upload_id: str) -> str:
        if not is_upload_id(upload_id):
            raise UploadNotFound()
        return self._prefix + upload_id

    # -- Reading --

    def load(self, upload_id: str) -> Upload:
        path = self._path(upload_id)
        upload = self._record(path)
        if upload.state == State.TERMINATED:
            raise UploadGone()
        if upload.state == State.ACCEPTED:
            return upload
        try:
            size = os.stat(path, follow_symlinks=False).st_size
        except FileNotFoundError:
            raise UploadGone() from None
        return self._policy.as_far_as_stored(upload, size)

    def _record(self, path: str) -> Upload:
        fd = open_sidecar(path, os.O_RDONLY)
        try:
            return read_upload(fd, path)
        finally:
            os.close(fd)

    def list(self) -> Iterator[Upload]:
        for upload_id in self._ids():
            with contextlib.suppress(UploadNotFound, UploadGone):
                yield self.load(upload_id)

    def _ids(self) -> Iterator[str]:
        with os.scandir(self.directory) as entries:
            for entry in entries:
                stem, _, extension = entry.name.rpartition(".")
                if extension == "tus" and is_upload_id(stem):
                    yield stem

    # -- Creating and removing --

    def create(self, draft: Upload) -> Upload:
        upload_id = draft.id or secrets.token_hex(16)
        path = self._path(upload_id)
        done = draft.length == 0 and not draft.is_final
        state = State.COMPLETE if done else State.RECEIVING
        slot = Slot(0, 0, 0, draft.length, state, self._policy.expiry())
        upload = sidecar.with_slot(replace(draft, id=upload_id, created_at=self._policy.clock()), slot, path)
        # The side-car comes first: data without one would be a file that nobody knows to be ours.
        try:
            fd = os.open(path + ".tus", os.O_WRONLY | os.O_CREAT | os.O_EXCL | FLAGS, 0o600)
        except FileExistsError:
            return self.load(upload_id)
        except OSError as error:
            raise translated(error) from error
        try:
            packed = sidecar.pack(upload, slot)
            if write_at(fd, packed, 0) < len(packed):
                raise StorageFull()
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | FLAGS, 0o600))
            if self._policy.fsync == "always":
                os.fsync(fd)
                sync_directory(self.directory)
        except BaseException as error:
            os.unlink(path + ".tus")
            raise translated(error) from error
        finally:
            os.close(fd)
        return upload

    def remove(self, upload_id: str) -> None:
        with SideCar(self._path(upload_id), self._policy) as car:
            car.remove()

    def sweep(self, at_most_every: float = 0) -> int:
        fd = os.open(self._prefix + _SWEEPER, os.O_RDWR | os.O_CREAT | FLAGS, 0o600)
        try:
            lock(fd, limit=0)
            swept_at = os.fstat(fd).st_mtime if os.fstat(fd).st_size else 0.0
            if time.time() - swept_at < at_most_every:
                return 0
            os.pwrite(fd, b"The time of this file is that of the last sweep.\n", 0)
            os.utime(fd)
            return sum(map(self._expire, list(self._ids())))
        except UploadLocked:
            return 0
        finally:
            os.close(fd)

    def _expire(self, upload_id: str) -> bool:
        # Others append and terminate beside us: what vanishes, is busy or unreadable is left to them.
        with contextlib.suppress(UploadNotFound, UploadGone, UploadLocked):
            path = self._path(upload_id)
            record = self._record(path)
            if record.state == State.TERMINATED:  # somebody died between the slot and the files
                unlink(path)
                unlink(path + ".tus")
            if not record.has_expired(self._policy.clock()):
                return False
            with SideCar(path, self._policy) as car:
                if car.upload(record).has_expired(self._policy.clock()):  # it may have gone on while we looked
                    car.remove()
                    return True
        return False

    # -- Appending --

    def open(self, upload: Upload, offset: int, length: int | None = None, staged: bool = False) -> DirectorySession:
        return DirectorySession(upload, self._path(upload.id), self._policy, offset, length, staged)

    def append(self, upload: Upload, offset: int, block: Block, length: int | None = None) -> Upload:
        with SideCar(self._path(upload.id), self._policy) as car:
            data_fd = car.open_data(offset)
            try:
                written = write_at(data_fd, block, offset)
                settled = car.slot.length if length is None else length
                car.count(data_fd, offset + written, settled, car.slot.generation + 1)
            finally:
                os.close(data_fd)
            if written < len(block):
                raise StorageFull()
            return car.upload(upload)

    # -- Hand-over and concatenation --

    def claim(self, upload: Upload) -> DirectoryClaim:
        return DirectoryClaim(upload, SideCar(self._path(upload.id), self._policy), self._policy)

    def watch(self, part_id: str, final_id: str) -> Upload:
        with SideCar(self._path(part_id), self._policy) as car:
            data = read_all(car.fd)
            watchers = sidecar.unpack_watchers(data)
            if final_id not in watchers:
                end = sidecar.record_end(data) + len(watchers) * sidecar.WATCHER_SIZE
                os.pwrite(car.fd, final_id.encode(), end)
        return self.load(part_id)

    def finals_of(self, part_id: str) -> Sequence[str]:
        fd = open_sidecar(self._path(part_id), os.O_RDONLY)
        try:
            return sidecar.unpack_watchers(read_all(fd))
        finally:
            os.close(fd)

    def concatenate(self, final_id: str, parts: Sequence[Upload]) -> Upload:
        path = self._path(final_id)
        final = self.load(final_id)
        if final.state != State.RECEIVING:
            return final
        data_fd = lock_data(path)
        try:
            final = self.load(final_id)  # it may have been filled before the lock was ours
            if final.state == State.RECEIVING:
                self._fill(path, data_fd, parts)
        finally:
            unlock_data(data_fd)
        return self.load(final_id)

    def _fill(self, path: str, data_fd: int, parts: Sequence[Upload]) -> None:
        end = 0
        try:
            for part in parts:
                copy_file(self._path(part.id), data_fd, end, part.offset)
                end += part.offset
            os.ftruncate(data_fd, end)
        except FileNotFoundError:
            raise UploadGone("A part of this upload is gone; create the parts again.") from None
        except OSError as error:
            raise translated(error) from error
        with SideCar(path, self._policy) as car:
            car.count(data_fd, end, end, car.slot.generation + 1)
