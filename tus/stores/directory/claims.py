"""Claims: the right to hand an upload in a directory over, and what comes of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO

from tus.errors import RequestError, StorageFull, UploadGone
from tus.filesystem.io import open_reading, sync, sync_directory, unlink
from tus.models import Response, State, Upload
from tus.stores.directory.data_lock import lock_data, unlock_data
from tus.stores.directory.digests import finished
from tus.stores.directory.record import Policy, SideCar, read_upload

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
        slot = self._car.slot
        self._change(
            State.HANDING_OVER,
            slot.expires_at,
            is_known=slot.is_known or self._is_known,
            attempts=slot.attempts + 1,
            since=self._policy.clock(),
            is_aside=is_last,
        )
        return self.upload

    def accept(self, answer: Response | None = None) -> None:
        if self._data_fd is None:
            return
        keep = self._policy.completed_keep
        self._end(State.ACCEPTED, keep, answer)
        if not self._policy.keep_finished:
            unlink(self._car.path)
        if not keep:
            unlink(self._car.path + ".tus")
        self.release()
        self._ended(self.upload)

    def reject(self, answer: Response | None = None) -> None:
        if self._data_fd is None:
            return
        self._end(State.REJECTED, self._policy.rejected_keep, answer)
        self.release()
        self._ended(self.upload)

    def _end(self, state: State, keep: float, answer: Response | None) -> None:
        now = self._policy.clock()
        says_nothing = answer is None or (state == State.ACCEPTED and not answer.headers and not answer.body)
        outcome = None if says_nothing and self.upload.attempts <= 1 else (None, answer)  # else it covers an error
        self._change(state, now + keep, outcome, since=now, is_aside=False)
        if self._policy.fsync != "none":
            sync(self._car.fd)

    def _change(
        self,
        state: State,
        expires_at: float | None,
        outcome: tuple[str | None, Response | None] | None = None,
        **others: Any,
    ) -> None:
        car = self._car
        car.lock()
        try:
            if outcome is not None:
                with suppress(StorageFull):  # only words would be lost
                    car.write_outcome(*outcome)  # first, because the slot is what counts
            car.end(state, expires_at, **others)
        finally:
            car.unlock()
        self.upload = car.upload(self.upload)

    def release(self, error: str | None = None) -> None:
        if self._process != os.getpid():
            self._forget()
            return
        try:
            if self._data_fd is not None and self._car.slot.state == State.HANDING_OVER:
                slot = self._car.slot
                with suppress(RequestError, OSError):  # then whoever comes next finds that nobody has the lock
                    since = self._policy.clock()
                    self._change(State.COMPLETE, slot.expires_at, (error, None), since=since)
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
