"""Claims: the right to hand an upload in a directory over, and what comes of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

from tus.errors import RequestError, StorageFull, UploadGone
from tus.filesystem.io import open_reading, sync, sync_directory, unlink
from tus.models import Response, State, Upload
from tus.stores import ledger
from tus.stores.directory.data_lock import lock_data, unlock_data
from tus.stores.directory.digests import finished
from tus.stores.directory.record import Policy, SideCar, read_upload
from tus.stores.slots import Slot

_PENDING = (State.COMPLETE, State.HANDING_OVER)


class DirectoryClaim:
    """A :class:`~tus.stores.interface.Claim`: the lock of the data file, which ends with the process.

    Args:
        record: the upload as it was loaded.
        car: its side-car; closed with the claim.
        policy: the directory's.
        ended: called once it was accepted or rejected.
    """

    def __init__(self, record: Upload, car: SideCar, policy: Policy, ended: Callable[[Upload], None]) -> None:
        self._policy = policy
        self._ended = ended
        self._car = car
        self._data_fd: int | None = None
        self._process = os.getpid()
        self._is_known = record.is_known
        self._generation = -1
        try:
            self.upload = car.look(record)
            if self.upload.state in _PENDING:
                self._take(record)
            if self.upload.state not in _PENDING:
                self.upload = read_upload(car.fd, car.path)
        except BaseException:
            self.release()
            raise

    def _take(self, record: Upload) -> None:
        try:
            self._data_fd = lock_data(self._car.path)
        except UploadGone:
            self.upload = self._car.look(record)
            if self.upload.state in _PENDING:  # else it was somebody else who then removed the data
                raise
            return
        self.upload = self._car.look(record)  # it may have been accepted before the lock was ours
        self._generation = self._car.slot.generation
        if self.upload.state in _PENDING:
            self.make_durable()

    def make_durable(self) -> None:
        """Force the upload to the disk, if the policy wants that at all."""
        if self._policy.fsync != "none" and self._data_fd is not None:
            sync(self._data_fd)
            sync(self._car.fd)
            sync_directory(os.path.dirname(self._car.path))

    def open(self) -> BinaryIO:
        return open_reading(self._car.path)

    def digest(self) -> Upload:
        if self.upload.hashes and self.upload.state in _PENDING:
            self.upload = finished(self._car, self.upload)
        return self.upload

    def begin(self, is_last: bool = False) -> Upload:
        now = self._policy.clock()
        self._change(
            lambda slot: ledger.begin(
                slot, generation=self._generation, now=now, is_known=self._is_known, is_last=is_last
            )
        )
        return self.upload

    def accept(self, answer: Response | None = None) -> None:
        if self._data_fd is None:
            return
        self._end(ledger.accept, answer)
        if not self._policy.keep_finished:
            unlink(self._car.path)
        if not self._policy.lifetimes.completed_keep:
            unlink(self._car.path + ".tus")
        self.release()
        self._ended(self.upload)

    def reject(self, answer: Response | None = None) -> None:
        if self._data_fd is None:
            return
        self._end(ledger.reject, answer)
        self.release()
        self._ended(self.upload)

    def _end(self, decide: Callable[..., Slot], answer: Response | None) -> None:
        now, lifetimes = self._policy.clock(), self._policy.lifetimes
        is_accepted = decide is ledger.accept
        says_nothing = answer is None or (is_accepted and not answer.headers and not answer.body)
        outcome = None if says_nothing and self.upload.attempts <= 1 else (None, answer)  # else it covers an error
        self._change(lambda slot: decide(slot, generation=self._generation, now=now, lifetimes=lifetimes), outcome)
        if self._policy.fsync != "none":
            sync(self._car.fd)

    def _change(
        self, transition: Callable[[Slot], Slot], outcome: tuple[str | None, Response | None] | None = None
    ) -> None:
        car = self._car
        car.lock()
        try:
            slot = transition(car.slot)
            if outcome is not None:
                with suppress(StorageFull):  # only words would be lost
                    car.write_outcome(*outcome)  # first, because the slot is what counts
            car.change(slot)
        finally:
            car.unlock()
        self._generation = slot.generation
        self.upload = car.upload(self.upload)

    def release(self, error: str | None = None) -> None:
        if self._process != os.getpid():
            self._forget()
            return
        try:
            if self._data_fd is not None and self._car.slot.state == State.HANDING_OVER:
                now = self._policy.clock()
                with suppress(RequestError, OSError):  # the next claim then finds that no process has the lock
                    self._change(lambda slot: ledger.release(slot, generation=self._generation, now=now), (error, None))
        finally:
            if self._data_fd is not None:
                unlock_data(self._data_fd)
                self._data_fd = None
            self._car.close()

    def _forget(self) -> None:
        """Let go in a forked child, which shares the lock and must not end it."""
        if self._data_fd is not None:
            os.close(self._data_fd)
            self._data_fd = None
        self._car.close()

    def __del__(self) -> None:
        self.release("the application did not say whether it takes the file")  # a view may forget to
