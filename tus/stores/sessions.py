"""The two long-lived hands on an upload in a directory: a session appends to it, a claim hands it over."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from types import TracebackType
from typing import BinaryIO, Self

from tus.errors import StorageFull, UploadGone, UploadLocked, UploadReplaced
from tus.events import Fenced, TakenOver, emit
from tus.models import State, Upload
from tus.stores.files import (
    Policy,
    SideCar,
    lock_data,
    open_reading,
    sync,
    sync_directory,
    unlink,
    unlock_data,
    write_at,
)
from tus.stores.interface import Block


class DirectorySession:
    """An :class:`~tus.stores.interface.AppendSession`. It writes only while its generation is the upload's latest.

    Attributes:
        ended: called at the end with the upload and the bytes that it has gained.
    """

    def __init__(
        self, record: Upload, path: str, policy: Policy, offset: int, length: int | None, staged: bool
    ) -> None:
        self._staged = staged
        self._is_fenced = False
        self.ended: Callable[[Upload, int], None] = lambda upload, gained: None
        self._start = offset
        self._offset = offset  # where the next byte goes; ahead of the slot's while blocks are staged
        with contextlib.ExitStack() as undo:
            self._car = car = SideCar(path, policy)
            undo.callback(car.close)
            car.lock()
            try:
                self._data_fd = car.open_data(offset, length)
                undo.callback(os.close, self._data_fd)
                is_takeover = car.slot.writing
                self._length = car.slot.length if length is None else length
                self._generation = car.slot.generation + 1
                # A staged session changes nothing that a client can see, not even the length, until it is committed.
                known = car.slot.length if staged else self._length
                car.count(self._data_fd, offset, known, self._generation, writing=True)
            finally:
                car.unlock()
            self.upload = car.upload(record)
            undo.pop_all()
        if is_takeover:
            emit(TakenOver(self.upload))

    def write(self, block: Block) -> None:
        car = self._car
        car.lock()
        try:
            self._check_generation()
            written = write_at(self._data_fd, block, self._offset)
            self._offset += written
            if not self._staged:
                car.count(self._data_fd, self._offset, self._length, self._generation, writing=True)
        finally:
            car.unlock()
        if written < len(block):
            raise StorageFull()

    def _check_generation(self) -> None:
        if not self._is_latest():
            raise UploadReplaced()

    def _is_latest(self) -> bool:
        if self._car.slot.generation == self._generation:
            return True
        if not self._is_fenced:
            self._is_fenced = True
            emit(Fenced(self.upload))
        return False

    def is_current(self) -> bool:
        try:
            self._car.look(self.upload)
        except UploadGone:
            return False
        return self._is_latest()

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
            if self._staged or self._car.slot.writing:
                self._leave()
        finally:
            os.close(self._data_fd)
            self._car.close()
            self.ended(self.upload, self._offset - self._start if not self._staged else 0)

    def _leave(self) -> None:
        """Say that nobody writes any more, and give the room of staged blocks back.

        Nothing depends on it, so what happened before is not to fail because this does.
        """
        with contextlib.suppress(UploadGone, UploadReplaced, UploadLocked, OSError):
            self._car.lock()
            try:
                self._check_generation()
                if self._staged:
                    self._car.truncate(self._data_fd)
                self._car.stop_writing()
            finally:
                self._car.unlock()


class DirectoryClaim:
    """A :class:`~tus.stores.interface.Claim`: the lock of the data file, which ends with the process."""

    def __init__(self, record: Upload, car: SideCar, policy: Policy, accepted: Callable[[Upload], None]) -> None:
        self._policy = policy
        self._accepted = accepted
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
            sync(self._data_fd)
            sync(self._car.fd)
            sync_directory(os.path.dirname(self._car.path))

    def open(self) -> BinaryIO:
        return open_reading(self._car.path)

    def accept(self) -> None:
        if self.upload.state == State.ACCEPTED:
            return
        car = self._car
        car.lock()
        try:
            car.end(State.ACCEPTED, self._policy.clock() + self._policy.completed_keep)
            if self._policy.fsync != "none":
                sync(car.fd)
            if not self._policy.keep_finished:
                unlink(car.path)
            if not self._policy.completed_keep:
                unlink(car.path + ".tus")
        finally:
            car.unlock()
        self.upload = car.upload(self.upload)
        self.release()
        self._accepted(self.upload)

    def release(self) -> None:
        if self._data_fd is not None:
            unlock_data(self._data_fd)
            self._data_fd = None
        self._car.close()

    def __del__(self) -> None:
        self.release()  # a view may forget to
