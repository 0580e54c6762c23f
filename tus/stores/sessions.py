"""The two long-lived hands on an upload in a directory: a session appends to it, a claim hands it over."""

from __future__ import annotations

import contextlib
import os
from types import TracebackType
from typing import BinaryIO, Self

from tus.errors import StorageFull, UploadGone, UploadReplaced
from tus.models import State, Upload
from tus.stores.files import (
    FLAGS,
    Policy,
    SideCar,
    fdatasync,
    lock_data,
    sync_directory,
    unlink,
    unlock_data,
    write_at,
)
from tus.stores.interface import Block


class DirectorySession:
    """An :class:`~tus.stores.interface.AppendSession`. It writes only while its generation is the upload's latest."""

    def __init__(
        self, record: Upload, path: str, policy: Policy, offset: int, length: int | None, staged: bool
    ) -> None:
        self._staged = staged
        self._offset = offset  # where the next byte goes; ahead of the slot's while blocks are staged
        with contextlib.ExitStack() as undo:
            self._car = car = SideCar(path, policy)
            undo.callback(car.close)
            car.lock()
            try:
                self._data_fd = car.open_data(offset)
                undo.callback(os.close, self._data_fd)
                self._length = car.slot.length if length is None else length
                self._generation = car.slot.generation + 1
                # A staged session changes nothing that a client can see, not even the length, until it is committed.
                car.count(self._data_fd, offset, car.slot.length if staged else self._length, self._generation)
            finally:
                car.unlock()
            self.upload = car.upload(record)
            undo.pop_all()

    def write(self, block: Block) -> None:
        car = self._car
        car.lock()
        try:
            self._check_generation()
            written = write_at(self._data_fd, block, self._offset)
            self._offset += written
            if not self._staged:
                car.count(self._data_fd, self._offset, self._length, self._generation)
        finally:
            car.unlock()
        if written < len(block):
            raise StorageFull()

    def _check_generation(self) -> None:
        if self._car.slot.generation != self._generation:
            raise UploadReplaced()

    def is_current(self) -> bool:
        try:
            self._car.look(self.upload)
        except UploadGone:
            return False
        return self._car.slot.generation == self._generation

    def commit(self) -> Upload:
        if self._staged:
            self._car.lock()
            try:
                self._check_generation()
                self._car.count(self._data_fd, self._offset, self._length, self._generation)
            finally:
                self._car.unlock()
            self._staged = False
        self.upload = self._car.upload(self.upload)
        return self.upload

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._staged:
                self._discard()
        finally:
            os.close(self._data_fd)
            self._car.close()

    def _discard(self) -> None:
        """Give the room of staged blocks back, if nobody has taken the upload over."""
        with contextlib.suppress(UploadGone, UploadReplaced):
            self._car.lock()
            try:
                self._check_generation()
                os.ftruncate(self._data_fd, self._car.slot.offset)
            finally:
                self._car.unlock()


class DirectoryClaim:
    """A :class:`~tus.stores.interface.Claim`: the lock of the data file, which ends with the process."""

    def __init__(self, record: Upload, car: SideCar, policy: Policy) -> None:
        self._policy = policy
        self._car = car
        self._data_fd: int | None = None
        try:
            self.upload = self._car.look(record)
            if self.upload.state == State.COMPLETE:
                self._take(record)
        except BaseException:
            self.release()
            raise

    def _take(self, record: Upload) -> None:
        try:
            self._data_fd = lock_data(self._car.path)
        except UploadGone:
            self.upload = self._car.look(record)
            if self.upload.state != State.ACCEPTED:  # by somebody else, who then removed the data
                raise
            return
        self.upload = self._car.look(record)  # it may have been accepted before the lock was ours
        if self._policy.fsync != "none":
            fdatasync(self._data_fd)
            fdatasync(self._car.fd)
            sync_directory(os.path.dirname(self._car.path))

    def open(self) -> BinaryIO:
        return os.fdopen(os.open(self._car.path, os.O_RDONLY | FLAGS), "rb")

    def accept(self) -> None:
        if self.upload.state == State.ACCEPTED:
            return
        car = self._car
        car.lock()
        try:
            car.end(State.ACCEPTED, self._policy.clock() + self._policy.completed_keep)
            if self._policy.fsync != "none":
                fdatasync(car.fd)
            if not self._policy.keep_finished:
                unlink(car.path)
            if not self._policy.completed_keep:
                unlink(car.path + ".tus")
        finally:
            car.unlock()
        self.upload = car.upload(self.upload)
        self.release()

    def release(self) -> None:
        if self._data_fd is not None:
            unlock_data(self._data_fd)
            self._data_fd = None
        self._car.close()

    def __del__(self) -> None:
        self.release()  # a view may forget to
