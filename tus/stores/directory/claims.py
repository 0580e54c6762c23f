"""Claims: the right to hand an upload of a directory over, and the record of the outcome."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import BinaryIO

from tus.errors import RequestError, StorageFull, UploadGone, UploadReplaced
from tus.filesystem import processes
from tus.filesystem.descriptors import close
from tus.filesystem.io import sync, translate_error, unlink
from tus.filesystem.locks import unlock
from tus.models import Response, State, Upload
from tus.stores import ledger
from tus.stores.directory import flushing
from tus.stores.directory.data_lock import lock_data
from tus.stores.directory.digests import with_digests
from tus.stores.directory.record import Policy, SideCar, read_upload
from tus.stores.slots import Slot, upload_of

log = logging.getLogger(__name__)

_PENDING = (State.COMPLETE, State.HANDING_OVER)


class DirectoryClaim:
    """A :class:`~tus.stores.interface.Claim`: the lock of the data file, which ends with the process.

    Args:
        record: the loaded upload.
        car: the side-car of the upload; it is closed with the claim.
        policy: the policy of the directory.
        ended: is called with the upload after it was accepted or rejected.
        data_fd: the descriptor of the data, if the caller has locked it, or else -1.

    Attributes:
        upload: the current upload.
    """

    def __init__(
        self,
        record: Upload,
        car: SideCar,
        policy: Policy,
        ended: Callable[[Upload], None] | None,
        data_fd: int = -1,
    ) -> None:
        self.upload = record
        self._car = car
        self._policy = policy
        self._ended = ended
        self._data_fd = data_fd
        self._is_known = record.is_known
        self._keeps = policy.keep_finished
        self._generation = -1
        self._is_durable = False
        self._process = processes.current

    def take(self) -> None:
        """Lock the data, unless the upload is decided already."""
        try:
            car = self._car
            self.upload = car.look(self.upload)
            if self.upload.state in _PENDING:
                self._lock()
            if self.upload.state not in _PENDING:  # decided: read the outcome instead
                self.upload = read_upload(car.fd, car.path, car.boot)
                self._close()
        except BaseException:
            self.release()
            raise

    def _lock(self) -> None:
        try:
            self._data_fd = lock_data(self._car.path, self._policy.ownership)
        except UploadGone:
            self.upload = self._car.look(self.upload)
            if self.upload.state in _PENDING:  # otherwise another process decided it, and then removed the data
                self._policy.home.check()
                raise
            return
        self.upload = self._car.look(self.upload)  # it may have been accepted before this process got the lock
        self._generation = self._car.slot.generation
        if self.upload.state in _PENDING:
            self.make_durable()

    def go_on(self) -> None:
        """Go on with a hand-over that the caller has begun under the locks of both files, with synced data.

        The record and the names are forced to the disk, if the policy requires it.
        """
        car, policy = self._car, self._policy
        self._generation = car.slot.generation
        try:
            if policy.fsync != "none":
                car.force_record(policy.names)
                self._is_durable = True
            self.upload = upload_of(self.upload, car.slot, car.path)
        except BaseException:
            self.release("the upload could not be forced to the disk")
            raise

    def promise(self) -> Upload:
        """Make the upload known, as durably as the policy requires, and return it."""
        if self._data_fd < 0:  # it is decided
            return self.upload
        if not self.upload.is_known:
            self._change(ledger.promise)
            if self._policy.fsync != "none":
                self._car.force_record(otherwise=ledger.withdraw)
        if self._is_durable:
            self._change(ledger.settle)
        return self.upload

    def make_durable(self) -> None:
        """Force the upload to the disk, if the policy requires it."""
        if self._policy.fsync != "none" and self._data_fd >= 0 and not self._car.slot.is_durable:
            self._sync_data()
            self._car.force_record(self._policy.names)
            self._is_durable = True  # the next change records it

    def sync(self) -> None:
        if self._policy.fsync == "none":  # else it was done when the upload was claimed
            self._sync_data()
            self._car.force_record()  # else the upload might lose its bytes, which the caller shares, and take others

    def _sync_data(self) -> None:
        car = self._car
        if self._data_fd < 0 or car.slot.synced >= car.slot.offset:
            return
        flushing.wait(car.path)
        try:
            sync(self._data_fd)  # without the lock: the data of a concatenation takes long
        except OSError as error:
            car.mark(ledger.doubt)
            self.upload = car.upload(self.upload)  # it has other bytes now
            raise translate_error(error) from error
        self._change(self._force)

    def _force(self, slot: Slot) -> Slot:
        ledger.check_claim(slot, self._generation)
        return ledger.force(slot, slot.offset, slot.losses)

    def open(self) -> BinaryIO:
        return self._policy.ownership.open_reading(self._car.path)

    def digest(self) -> Upload:
        if self.upload.hashes and self.upload.state in _PENDING:
            self.upload = with_digests(self._car, self.upload, self._policy.ownership)
        return self.upload

    def begin(self, is_last: bool = False) -> Upload:
        if self._data_fd < 0:
            raise UploadReplaced()
        self._change(
            partial(
                ledger.begin,
                generation=self._generation,
                now=self._policy.clock(),
                is_known=self._is_known,
                is_last=is_last,
                is_durable=self._is_durable,
            )
        )
        return self.upload

    def keep(self) -> bool:
        changes, self._keeps = not self._keeps, True
        return changes

    def accept(self, answer: Response | None = None) -> None:
        if self._data_fd >= 0:
            decide = partial(ledger.accept, keeps=True) if self._keeps else ledger.accept
            self._decide(decide, answer, answer is None or not (answer.headers or answer.body))

    def reject(self, answer: Response | None = None) -> None:
        if self._data_fd >= 0:
            self._decide(ledger.reject, answer, answer is None)

    def _decide(self, decide: Callable[..., Slot], answer: Response | None, says_nothing: bool) -> None:
        car, policy = self._car, self._policy
        car.lock()
        try:
            slot = decide(car.slot, generation=self._generation, now=policy.clock(), lifetimes=policy.lifetimes)
            if not says_nothing or slot.attempts > 1:  # the outcome also replaces the error of an earlier attempt
                with suppress(StorageFull, OSError):  # the decision matters more than its text
                    car.write_outcome(None, answer)  # before the slot, because the slot makes the decision valid
            try:
                car.change(slot)
            except StorageFull:
                if slot.state != State.ACCEPTED or self._keeps:
                    raise
                unlink(car.path)  # the application has the file, and the record needs the room
                car.change(slot)
        finally:
            unlock(car.fd)
        self._generation = slot.generation
        self.upload = upload_of(self.upload, slot, car.path)
        # The application has decided. A later failure does not change the response; the sweeper removes the rest.
        try:
            if policy.fsync != "none":
                sync(car.fd)
            if slot.state == State.ACCEPTED and not self._keeps:
                unlink(car.path)
                if not policy.lifetimes.completed_keep:
                    unlink(car.path + ".tus")
        except OSError:
            log.exception("upload %s is decided, but its files could not be removed", self.upload.id)
        finally:
            self._close()
        if self._ended is not None:
            self._ended(self.upload)

    def _change(
        self, transition: Callable[[Slot], Slot], outcome: tuple[str | None, Response | None] | None = None
    ) -> None:
        car = self._car
        car.lock()
        try:
            slot = transition(car.slot)
            if outcome is not None:
                with suppress(StorageFull, OSError):  # the state matters more than the text of the outcome
                    car.write_outcome(*outcome)  # before the slot, because the slot makes the outcome valid
            car.change(slot)
        finally:
            unlock(car.fd)
        self._generation = slot.generation
        self.upload = car.upload(self.upload)

    def release(self, error: str | None = None) -> None:
        try:
            is_ours = self._process is processes.current  # a forked child must not end what its parent goes on with
            if is_ours and self._data_fd >= 0 and self._car.slot.state == State.HANDING_OVER:
                generation, now, is_durable = self._generation, self._policy.clock(), self._is_durable
                with suppress(RequestError, OSError):  # after a failure, the next claim finds that the lock is free
                    self._change(
                        lambda slot: ledger.release(slot, generation=generation, now=now, is_durable=is_durable),
                        (error, None),
                    )
        finally:
            self._close()

    def _close(self) -> None:
        """Close the files, and release the lock, unless this is a forked child, which shares it."""
        data_fd, self._data_fd = self._data_fd, -1
        fd, self._car.fd = self._car.fd, -1
        if data_fd >= 0 and self._process is processes.current:
            unlock(data_fd)
        close(data_fd, fd)

    def __del__(self) -> None:
        if self._data_fd >= 0:
            if self._process is processes.current:
                text = f"the claim on upload {self.upload.id} was never released"
                warnings.warn(text, ResourceWarning, stacklevel=2, source=self)
            self._close()  # its slot stays: the upload is read as complete, because no process has the lock
