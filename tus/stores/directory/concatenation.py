"""Concatenation in a directory: parts record the final uploads that wait, which are filled with the data of parts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from tus.errors import StorageFull, UploadGone, UploadNotFound
from tus.filesystem.io import copy_file, translate_error, write_at
from tus.models import State, Upload
from tus.stores import ledger
from tus.stores.directory import record_format as sidecar
from tus.stores.directory.data_lock import lock_data, unlock_data
from tus.stores.directory.record import Policy, SideCar, open_sidecar, read_all


class Concatenation:
    """The methods of :class:`~tus.stores.interface.Concatenates` for a directory."""

    _policy: Policy

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
        return self.load(part_id)

    def touch(self, final_id: str) -> None:
        final = self.load(final_id)
        for upload_id in (final_id, *final.parts):
            with contextlib.suppress(UploadNotFound, UploadGone), SideCar(self._path(upload_id), self._policy) as car:
                car.change(ledger.prolong(car.slot, now=self._policy.clock(), lifetimes=self._policy.lifetimes))

    def finals_of(self, part_id: str) -> Sequence[str]:
        fd = open_sidecar(self._path(part_id), os.O_RDONLY, self._policy.ownership)
        try:
            return sidecar.unpack_watchers(read_all(fd))
        finally:
            os.close(fd)

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
                self._fill(path, data_fd, parts)
        finally:
            unlock_data(data_fd)
        return self.load(final_id)

    def _fill(self, path: str, data_fd: int, parts: Sequence[Upload]) -> None:
        # Opened before copying, so that an upload that is removed and created again meanwhile is not completed.
        car = SideCar(path, self._policy)
        end = 0
        try:
            for part in parts:
                copy_file(self._path(part.id), data_fd, end, part.offset, self._policy.ownership)
                end += part.offset
            os.ftruncate(data_fd, end)
        except FileNotFoundError:
            raise UploadGone("A part of this upload is gone; create the parts again.") from None
        except OSError as error:
            raise translate_error(error) from error
        else:
            car.lock()
            try:
                now = self._policy.clock()
                car.count(data_fd, ledger.join(car.slot, size=end, now=now, lifetimes=self._policy.lifetimes))
            finally:
                car.unlock()
        finally:
            car.close()
