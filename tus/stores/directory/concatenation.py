"""Concatenation in a directory: parts record the final uploads that wait, which are filled with the data of parts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from tus.errors import StorageFull, UploadGone, UploadNotFound
from tus.filesystem.descriptors import close
from tus.filesystem.io import can_share_blocks, copy_file, translate_error, write_at
from tus.filesystem.locks import unlock, unlock_and_close
from tus.models import State, Upload
from tus.stores import ledger
from tus.stores.charges import charge_of
from tus.stores.directory import record_format as sidecar
from tus.stores.directory.data_lock import lock_data
from tus.stores.directory.quota import Quota
from tus.stores.directory.record import Policy, SideCar, open_sidecar, read_all
from tus.stores.directory.space import Space
from tus.stores.slots import Slot


class Concatenation:
    """The methods of :class:`~tus.stores.interface.Concatenates` for a directory."""

    directory: str
    _policy: Policy
    _quota: Quota | None

    def _path(self, upload_id: str) -> str:
        raise NotImplementedError

    def load(self, upload_id: str) -> Upload:
        """Load an upload, see :class:`~tus.stores.interface.Store`."""
        raise NotImplementedError

    def watch(self, part_id: str, final_id: str) -> Upload:
        with SideCar(self._path(part_id), self._policy) as car:
            data = read_all(car.fd)
            watchers = sidecar.unpack_watchers(data)
            if len(ledger.watch(watchers, final_id)) > len(watchers):
                end = sidecar.record_end(data) + len(watchers) * sidecar.WATCHER_SIZE
                if write_at(car.fd, end, final_id.encode()) < sidecar.WATCHER_SIZE:
                    raise StorageFull()
            car.change(ledger.prolong(car.slot, now=self._policy.clock(), lifetimes=self._policy.lifetimes))
        return self.load(part_id)

    def touch(self, *final_ids: str) -> None:
        parts: dict[str, None] = {}
        for final_id in final_ids:
            with contextlib.suppress(UploadNotFound, UploadGone):
                if self._prolong(final_id):  # else the parts were prolonged with it, less than a minute ago
                    parts |= dict.fromkeys(self.load(final_id).parts)
        for part_id in parts:
            with contextlib.suppress(UploadNotFound, UploadGone):
                self._prolong(part_id)

    def _prolong(self, upload_id: str) -> bool:
        """Extend the life of an upload, and return whether that changed it."""
        with SideCar(self._path(upload_id), self._policy) as car:
            slot = ledger.prolong(car.slot, now=self._policy.clock(), lifetimes=self._policy.lifetimes)
            is_new = slot is not car.slot
            car.change(slot)
            return is_new

    def finals_of(self, part_id: str) -> Sequence[str]:
        try:
            fd = open_sidecar(self._path(part_id), os.O_RDONLY, self._policy.ownership)
        except UploadNotFound:
            self._policy.home.check()
            raise
        try:
            return sidecar.unpack_watchers(read_all(fd))
        finally:
            close(fd)

    def concatenate(self, final_id: str, parts: Sequence[Upload]) -> Upload:
        path = self._path(final_id)
        final = self.load(final_id)
        if final.state != State.RECEIVING:
            return final
        try:
            data_fd = lock_data(path, self._policy.ownership, os.O_RDWR)
        except UploadGone:
            return self.load(final_id)  # another process has already filled it and handed it over
        try:
            final = self.load(final_id)  # it may have been filled before this process got the lock
            if final.state == State.RECEIVING:
                with self._charged(final, sum(part.offset for part in parts)):
                    self._fill(path, data_fd, parts)
        finally:
            if not unlock_and_close(data_fd):
                with SideCar(path, self._policy) as car:
                    car.mark(ledger.doubt, is_locked=True)
        return self.load(final_id)

    @contextlib.contextmanager
    def _charged(self, final: Upload, length: int) -> Iterator[None]:
        """Charge a final upload, whose length was unknown before, unless the ``with`` block fails."""
        if self._quota is None:
            yield
            return
        grant = self._quota.charge_length(final, length, charge_of(final).size)
        try:
            yield
        except BaseException:
            self._quota.give_back(final, grant)
            raise

    def _fill(self, path: str, data_fd: int, parts: Sequence[Upload]) -> None:
        # Opened before copying, so that an upload that is removed and created again meanwhile is not completed.
        car = SideCar(path, self._policy)
        joined: Slot | None = None
        try:
            end = self._copy(data_fd, parts)
            car.lock()
            try:
                joined = ledger.join(car.slot, size=end, now=self._policy.clock(), lifetimes=self._policy.lifetimes)
                car.count(data_fd, joined)
            finally:
                unlock(car.fd)
        except BaseException:
            if joined is None or car.slot is not joined:
                with contextlib.suppress(OSError):
                    os.ftruncate(data_fd, 0)  # nothing of it is counted, and others need the room
            raise
        finally:
            car.close()

    def _copy(self, data_fd: int, parts: Sequence[Upload]) -> int:
        """Copy the data of all parts, and return the size.

        Raises:
            StorageFull: there is no room. Where the free space says so, nothing is copied.
            UploadGone: a part is gone.
        """
        end = 0
        try:
            self._check_room(data_fd, parts)
            for part in parts:
                copy_file(self._path(part.id), data_fd, end, part.offset, self._policy.ownership)
                end += part.offset
            os.ftruncate(data_fd, end)
        except FileNotFoundError:
            self._policy.home.check()
            raise UploadGone("A part of this upload is gone; create the parts again.") from None
        except OSError as error:
            raise translate_error(error) from error
        return end

    def _check_room(self, data_fd: int, parts: Sequence[Upload]) -> None:
        """Check that the parts fit, unless the file system can share their blocks.

        Raises:
            StorageFull: they do not fit.
        """
        if parts and not can_share_blocks(self._path(parts[0].id), data_fd, self._policy.ownership):
            space = self._policy.space or Space(self.directory, 0)
            space.check(sum(part.offset for part in parts))
