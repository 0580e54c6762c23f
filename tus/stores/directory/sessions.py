"""Sessions that append to an upload of a directory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self

from tus.errors import QuotaExceeded, StorageFull, UploadGone, UploadLocked, UploadReplaced
from tus.events import Fenced, TakenOver, emit
from tus.filesystem.descriptors import close
from tus.filesystem.io import write_at
from tus.filesystem.locks import unlock
from tus.filesystem.pipes import Pipe
from tus.models import Block, Upload
from tus.stores import ledger
from tus.stores.directory.digests import Digesting
from tus.stores.directory.quota import Tab
from tus.stores.directory.record import Policy, SideCar
from tus.stores.directory.space import CHECK_EVERY


class DirectorySession:
    """An :class:`~tus.stores.interface.AppendSession`, which writes only while its generation is the upload's latest.

    The bytes are charged to ``tab``, if there is one.
    """

    def __init__(
        self,
        record: Upload,
        path: str,
        policy: Policy,
        offset: int,
        length: int | None,
        staged: bool,
        completes: bool,
        tab: Tab | None = None,
    ) -> None:
        self._record = record
        self._staged = staged
        self._completes = completes
        self._policy = policy
        self._is_fenced = False
        self._tab = tab
        self._kept = offset if length is None or staged else length  # the end of what this session is charged for
        self._room_until = offset  # the offset at which the space of the disk is checked again
        self._offset = offset  # of the next byte; larger than the slot's offset while blocks are staged
        with contextlib.ExitStack() as undo:
            self._car = car = SideCar(path, policy)
            undo.callback(car.close)
            car.lock()
            try:
                is_takeover = car.slot.writing
                self._data_fd = car.open_data(record, offset, length)
                undo.callback(close, self._data_fd)
                opened = ledger.open(
                    car.slot,
                    offset=offset,
                    length=length,
                    now=policy.clock(),
                    lifetimes=policy.lifetimes,
                    is_known=record.is_known,
                    staged=staged,
                    completes=completes,
                )
                car.count(self._data_fd, opened)
                self._length = car.slot.length if length is None else length
                self._generation = opened.generation
                self._digesting = Digesting(car, record, offset) if record.hashes else None
            finally:
                unlock(car.fd)
            undo.pop_all()
        if is_takeover:
            emit(TakenOver(self.upload))

    @property
    def upload(self) -> Upload:
        """The upload with the counted bytes."""
        return self._car.upload(self._record)

    def write(self, *blocks: Block) -> None:
        size = sum(map(len, blocks))
        allowed = self._allowed(size)
        if allowed == size:
            self._write(*blocks)
            return
        if allowed:
            self._write(memoryview(b"".join(blocks))[:allowed])
        raise QuotaExceeded()

    def pour(self, pipe: Pipe, is_last: bool) -> None:
        size = len(pipe)
        if self._digesting is not None:
            self.write(bytes(pipe))
            return
        allowed = self._allowed(size)
        if allowed and self._store(partial(pipe.pour, size=allowed), is_last) < allowed:
            raise StorageFull()
        if allowed < size:
            raise QuotaExceeded()

    def _allowed(self, size: int) -> int:
        """Return how many of the next bytes the disk and the limits allow."""
        self._check_room(size)
        return size if self._tab is None else self._tab.take(self._offset, size)

    def _check_room(self, size: int) -> None:
        """Check from time to time that the disk has room for bytes whose space is not reserved."""
        space = self._policy.space
        if space is not None and self._offset + size > self._room_until:
            space.check_growth(self._data_fd, self._length)
            self._room_until = self._offset + max(size, CHECK_EVERY)

    def _write(self, *blocks: Block) -> None:
        written = self._store(lambda fd, offset: write_at(fd, offset, *blocks))
        if self._digesting is not None:
            self._digesting.update(blocks, written)
        if written < sum(map(len, blocks)):
            raise StorageFull()

    def _store(self, write: Callable[[int, int], int], is_last: bool = False) -> int:
        """Store and count bytes by a function that writes them at an offset; return their number."""
        car = self._car
        car.lock()
        try:
            self._check_generation()
            written = write(self._data_fd, self._offset)
            self._offset += written
            if not self._staged:
                self._count(writing=not is_last)
        finally:
            unlock(car.fd)
        return written

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
            self._car.look(self._record)
        except UploadGone:
            return False
        return self._is_latest()

    def _count(self, writing: bool) -> None:
        counted = ledger.count(
            self._car.slot,
            generation=self._generation,
            offset=self._offset,
            length=self._length,
            now=self._policy.clock(),
            lifetimes=self._policy.lifetimes,
            completes=self._completes,
            writing=writing,
        )
        self._car.count(self._data_fd, counted)
        self._kept = max(self._kept, self._offset if self._length is None else self._length)

    def keep(self) -> Upload:
        return self.upload  # every block is counted when it is written

    def commit(self, ends: bool = False) -> Upload:
        ends = ends and self._length is None
        if ends:
            self._length = self._offset
        if self._staged or ends:
            self._car.lock()
            try:
                self._check_generation()
                self._count(writing=False)
            finally:
                unlock(self._car.fd)
            self._staged = False
        self._keep_digests()
        self._digesting = None
        return self.upload

    def _keep_digests(self) -> None:
        """Keep the digests of an upload that this session has completed.

        Errors are ignored, because nothing depends on the digests, and the bytes are counted already.
        """
        if self._digesting is None or not self._digesting.is_whole():
            return
        with contextlib.suppress(UploadGone, UploadLocked, OSError):
            self._car.lock()
            try:
                if self._car.slot.generation == self._generation:
                    self._record = replace(self._record, digests=self._digesting.keep())
            finally:
                unlock(self._car.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._keep_digests()
            if self._staged or self._car.slot.writing:
                self._leave()
        finally:
            try:
                data_fd, self._data_fd = self._data_fd, -1
                self._car.close_data(data_fd)
            finally:
                self._car.close()
                if self._tab is not None:
                    self._tab.settle(self._kept)

    def _leave(self) -> None:
        """Record the end of the session, and free the space of staged blocks.

        Errors are ignored, because nothing depends on this, and the bytes are counted already.
        """
        with contextlib.suppress(UploadGone, UploadReplaced, UploadLocked, OSError):
            self._car.lock()
            try:
                self._check_generation()
                if self._staged:
                    self._car.truncate(self._data_fd)
                self._car.change(ledger.leave(self._car.slot, generation=self._generation))
            finally:
                unlock(self._car.fd)
