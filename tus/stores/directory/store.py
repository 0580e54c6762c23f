"""The directory store: uploads as files of one directory, ``<id>`` for the data and ``<id>.tus`` for the side-car.

The format of a side-car is in :mod:`tus.stores.directory.record_format`.

A hand-over and a concatenation take long, so they hold the lock of the data file. All other changes are in
:mod:`tus.stores.directory.record`.

The option ``fsync`` decides how durable data is. A crash of a process loses no counted bytes, with any value. After a
crash of the machine:

``none``
    Nothing was forced to the disk. Unfinished uploads, and finished ones that the application has not taken, start
    again.
``finish`` (the default)
    An upload goes on from the bytes that were forced to the disk in the background, in steps of 32 MiB. A complete
    file, its record and its directory entry are on the disk before the application gets the file.
``always``
    No bytes are lost if a client learned an offset beyond them: each block is on the disk before it is counted.

An upload of the IETF protocol must never have a smaller offset. Unless its policy is ``always``, it is gone after a
restart of the machine, if it was not complete. The same is true after a sync has failed, because bytes that could not
be forced to the disk are never believed again, see :func:`tus.stores.ledger.doubt`.

"On the disk" means that ``fsync(2)`` has returned; on macOS the drive may keep the data in its own cache for a while.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import heapq
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from operator import methodcaller
from typing import BinaryIO

if sys.platform == "win32":  # pragma: no cover
    raise ImportError("tus.stores.directory needs a POSIX system such as Linux or macOS; Windows has no flock().")

from tus.errors import (
    InconsistentLength,
    QuotaExceeded,
    RequestError,
    StorageFull,
    StorageUnavailable,
    UploadGone,
    UploadLocked,
    UploadNotFound,
)
from tus.events import TakenOver, emit
from tus.filesystem import home
from tus.filesystem.boot import boot_id, uptime
from tus.filesystem.descriptors import close
from tus.filesystem.election import Election
from tus.filesystem.io import Directory, sync, write_at
from tus.filesystem.locks import LIMIT, unlock_and_close
from tus.filesystem.ownership import Ownership
from tus.models import Block, Fsync, State, Upload, is_upload_id
from tus.stores import ledger
from tus.stores.charges import Charge, charge_of
from tus.stores.directory import completion, creation, expiry, quota
from tus.stores.directory.claims import DirectoryClaim
from tus.stores.directory.clock import begin
from tus.stores.directory.concatenation import Concatenation
from tus.stores.directory.data_lock import LONGEST_HAND_OVER, is_held, lock_data
from tus.stores.directory.digests import Digesting
from tus.stores.directory.pending import read_index, write_index
from tus.stores.directory.preparation import prepare_again
from tus.stores.directory.quota import Quota, Tab, stored_charge
from tus.stores.directory.record import (
    NAMES,
    Policy,
    SideCar,
    give_back_reserved,
    read_slot,
    read_upload,
    remove_abandoned,
)
from tus.stores.directory.secret import read_secret
from tus.stores.directory.sessions import DirectorySession
from tus.stores.directory.slices import gently
from tus.stores.directory.space import Space, probe
from tus.stores.interface import Limits, Statistics, is_waiting
from tus.stores.naming import id_from
from tus.stores.slots import Lifetimes, Slot

log = logging.getLogger(__name__)

_CREATION = 1.0  # seconds that the creation of an upload's two files may take


#: Returns the time. It looks the function up in each call, as ``time.time()`` does, but without a function in Python.
_now: Callable[[], float] = partial(methodcaller("time"), time)


class DirectoryStore(Concatenation):
    """A :class:`~tus.stores.interface.Store` in a directory that it may share with other programs.

    Args:
        directory: an existing directory.
        fsync: see the module.
        lifetime: seconds after its last byte that an unfinished upload is kept; 0 means for ever.
        completed_keep: seconds that the record of an accepted upload is kept.
        keep_finished: whether the data of an accepted upload is kept as long as its record.
        rejected_keep: seconds that a rejected upload is kept.
        limits: the limits on the number and size of uploads.
        keep_free: bytes of the disk that must stay free; 0 means no limit.
        clock: returns the time in seconds since 1970.
        ownership: whose files are believed; by default those of this process's user.
        boot: the id of this boot of the machine, for tests.
        steady: returns the seconds since the boot. By default it is the machine's, if ``clock`` is.
    """

    def __init__(
        self,
        directory: str,
        *,
        fsync: Fsync = "finish",
        lifetime: float = 86400,
        completed_keep: float = 86400,
        keep_finished: bool = False,
        rejected_keep: float = 86400,
        limits: Limits | None = None,
        keep_free: int = 0,
        clock: Callable[[], float] = _now,
        ownership: Ownership | None = None,
        boot: bytes = b"",
        steady: Callable[[], float] | None = None,
    ) -> None:
        self._ownership = ownership = ownership or Ownership()
        self.directory = directory
        self._prefix = os.path.join(directory, "")
        space = Space(directory, keep_free) if keep_free else None
        lifetimes = Lifetimes(lifetime=lifetime, completed_keep=completed_keep, rejected_keep=rejected_keep)
        self.limits = limits or Limits()
        names = Directory(directory)
        self._home = home.home_of(os.path.abspath(directory), partial(prepare_again, directory, ownership))
        if steady is None and clock is _now:
            steady = uptime
        self._policy = Policy(
            fsync, lifetimes, keep_finished, clock, names, self._home, space, ownership, boot or boot_id(), steady
        )
        begin(directory, self._policy.moment)
        self._has_looked = False  # at every upload, in this process
        self._schedule = expiry.Schedule()
        self._sweeping = self.candidate("sweep")
        self._quota = Quota(self._prefix + quota.NAME, limits, self._list_charges, ownership) if limits else None
        self._ended = None if self._quota is None else self._count_decided

    def _path(self, upload_id: str) -> str:
        if not is_upload_id(upload_id):
            raise UploadNotFound()
        return self._prefix + upload_id

    # -- Reading --

    def load(self, upload_id: str) -> Upload:
        path = self._path(upload_id)
        upload = record = self._record(path)
        state = upload.state
        if state == State.ACCEPTED:
            return upload
        try:
            if state == State.TERMINATED:
                raise UploadGone()
            try:
                if state == State.HANDING_OVER and not is_held(path, self._ownership):
                    upload = self._load_unlocked(path)
                status = os.lstat(path)
            except FileNotFoundError:
                return self._load_without_data(path)
            if not self._ownership.believes(status, NAMES, upload.attempts > 0 or upload.state != State.RECEIVING):
                return self._load_without_data(path)
            size = status.st_size
            if size >= upload.offset:
                return upload
            # Its hand-over and its digests depended on the lost bytes.
            slot = self._policy.shorten_to_stored(upload, Slot(offset=upload.offset, state=upload.state), size)
            return replace(upload, offset=slot.offset, state=slot.state, since=slot.since, digests=())
        except (UploadGone, UploadLocked) as error:
            error.upload = record
            raise

    def _load_unlocked(self, path: str) -> Upload:
        """Return an upload whose lock is free: with the recorded outcome, or COMPLETE if the lock's holder crashed."""
        upload = self._record(path)
        if upload.state != State.HANDING_OVER:
            return upload
        return replace(upload, state=State.COMPLETE, error="the process crashed during the hand-over")

    def read(self, upload: Upload) -> tuple[BinaryIO, float]:
        try:
            file = self._ownership.open_reading(self._path(upload.id))
        except FileNotFoundError:
            self._home.check()
            raise UploadGone("The file of this upload was removed.") from None
        try:
            return file, os.fstat(file.fileno()).st_mtime
        except BaseException:
            file.close()
            raise

    def _load_without_data(self, path: str) -> Upload:
        """Return an upload whose data is missing, if it has just been accepted.

        Raises:
            UploadLocked: the application may be moving the data away.
            UploadGone: the data is lost.
        """
        upload = self._record(path)
        if upload.state == State.ACCEPTED:
            return upload
        if upload.state == State.HANDING_OVER and 0 <= self._policy.clock() - upload.since < LONGEST_HAND_OVER:
            raise UploadLocked()
        self._home.check()
        raise UploadGone()

    def _record(self, path: str) -> Upload:
        try:
            fd, _ = self._ownership.open_with_status(path + ".tus", os.O_RDONLY, NAMES)
        except FileNotFoundError:
            self._home.check()
            raise UploadNotFound() from None
        try:
            return read_upload(fd, path, self._policy.boot)
        finally:
            close(fd)

    def list(self) -> Iterator[Upload]:
        if not self._home.check():
            return
        for upload_id in expiry.ids_in(self.directory):
            with contextlib.suppress(UploadNotFound, UploadGone, UploadLocked, OSError):
                yield self.load(upload_id)

    def pending(
        self, due_before: float, limit: int, is_wanted: Callable[[Upload], bool] = lambda upload: True
    ) -> Iterable[Upload]:
        waiting = (upload for upload in self._list_pending() if is_waiting(upload, due_before) and is_wanted(upload))
        return heapq.nsmallest(limit, waiting, key=lambda upload: upload.since)

    def _list_pending(self) -> Iterator[Upload]:
        """Yield the uploads of the index. At first, and without a valid index, look at every upload and make one."""
        directory, ownership, boot = self.directory, self._ownership, self._policy.boot
        ids = read_index(directory, ownership, boot) if self._has_looked else None
        found = []
        for upload_id in self._list_complete() if ids is None else gently(ids):
            with contextlib.suppress(UploadNotFound, UploadGone, UploadLocked, OSError):
                upload = self.load(upload_id)
                if upload.is_pending:
                    found.append(upload_id)
                    yield upload
        if ids is None:
            with contextlib.suppress(StorageFull, OSError):
                write_index(directory, ownership, boot, found)
                self._has_looked = True

    def _list_complete(self) -> Iterator[str]:
        """Yield the ids of the uploads that may be complete. Their slots show it, in half of the time of a load."""
        if not self._home.check():
            return
        for upload_id in gently(list(gently(expiry.ids_in(self.directory)))):
            with contextlib.suppress(UploadNotFound, OSError):
                slot = read_slot(self._prefix + upload_id, self._ownership, self._policy.boot)
                if slot is None or slot.state in (State.COMPLETE, State.HANDING_OVER):
                    yield upload_id

    def candidate(self, work: str) -> Election:
        digest = hashlib.blake2b(work.encode(), digest_size=8).hexdigest()
        path = self._prefix + expiry.ELECTED + digest
        return Election(path, partial(self._open_shared, path))

    def _open_shared(self, path: str) -> int:
        """Open a file with which processes share work, and create it, unless the volume of the directory is away.

        It stays open for reading only. A file that is open for writing would keep an operator from making the disk
        read-only.
        """
        try:
            if self._home.check():
                close(self._ownership.open_or_create(path))
                return self._ownership.open(path, os.O_RDONLY)
        except StorageUnavailable as error:
            raise FileNotFoundError(errno.ENOENT, "the volume of the directory is away") from error
        raise FileNotFoundError(errno.ENOENT, "the directory was removed")

    def path_of(self, upload: Upload) -> str:
        return self._path(upload.id)

    def _list_charges(self) -> Iterator[tuple[Upload, Charge]]:
        """Return every upload, and what it is charged."""
        for upload in self.list():
            yield upload, stored_charge(upload, self._path(upload.id))

    # -- Creating and removing --

    def create(self, draft: Upload) -> Upload:
        self._home.ensure()
        if draft.id:
            return self._create_or_load(draft, self._path(draft.id))[0]
        path = self._prefix + os.urandom(16).hex()
        return creation.create(draft, path, self._policy) if self._quota is None else self._create(draft, path)

    def _create(self, draft: Upload, path: str) -> Upload:
        if self._quota is None:
            return creation.create(draft, path, self._policy)
        with self._quota.charge_creation(draft, path[-32:]):
            return creation.create(draft, path, self._policy)

    def id_for(self, text: str) -> str:
        self._home.ensure()
        # Each time, because another process may have made a removed directory again, with another secret.
        return id_from(read_secret(self.directory, self._ownership), text)

    def create_once(self, draft: Upload) -> Upload | None:
        self._home.ensure()
        path = self._path(draft.id)
        if os.path.lexists(path + ".tus"):
            expiry.expire(self.directory, self._policy, self._quota, draft.id)
        try:
            upload, is_new = self._create_or_load(draft, path)
        except UploadLocked:  # it exists, and the application is moving its data away
            return None
        return upload if is_new else None

    def _exists(self, path: str) -> bool:
        """Return whether there is an upload, or one that a living process is creating."""
        if os.path.lexists(path + ".tus") and not os.path.lexists(path):
            with contextlib.suppress(UploadLocked):
                remove_abandoned(path, self._ownership)
        return os.path.lexists(path + ".tus")

    def _create_or_load(self, draft: Upload, path: str) -> tuple[Upload, bool]:
        """Create an upload with a given id, or load the one that there is; return whether it was created, too."""
        deadline = time.monotonic() + _CREATION
        while True:
            if not self._exists(path):  # else it is counted already, so the limits must not refuse it
                with contextlib.suppress(FileExistsError):
                    return self._create(draft, path), True
            try:
                return self.load(draft.id), False
            except UploadNotFound:  # it was removed meanwhile, or not yet created again
                if time.monotonic() > deadline:
                    raise UploadGone() from None
            except UploadGone:  # or another process creates its two files now
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.005)

    def remove(self, upload_id: str) -> None:
        path = self._path(upload_id)
        try:
            data_fd = lock_data(path, self._ownership)  # fails while a process hands it over
        except UploadGone:
            self._remove(path)  # it was accepted, so only the record exists
        else:
            try:
                self._remove(path)
            finally:
                unlock_and_close(data_fd)
        if self._policy.fsync != "none":
            try:
                sync(names=self._policy.names.open())
            except OSError:
                log.exception("upload %s is removed, but a crash of the machine may bring it back", upload_id)

    def _remove(self, path: str) -> None:
        quota = self._quota
        with SideCar(path, self._policy) as car:
            if quota is None:
                car.remove()
                return
            upload = read_upload(car.fd, path, car.boot)
            before = charge_of(upload, os.path.lexists(path))
            car.remove()
        quota.end(upload, before, Charge())

    def _count_decided(self, upload: Upload) -> None:
        """Count an upload that was just accepted or rejected: only what is kept of it."""
        assert self._quota is not None, "only a store with limits counts"
        is_kept = os.path.lexists(self._path(upload.id))
        self._quota.end(upload, Charge(1, upload.offset), charge_of(upload, is_kept))

    def sweep(self, at_most_every: float = 0) -> int:
        if not at_most_every:
            return expiry.sweep(self.directory, self._policy, self._quota, 0)
        if not self._sweeping.win():
            return 0
        return expiry.sweep(self.directory, self._policy, self._quota, at_most_every, self._schedule)

    def tend(self) -> None:
        """Give back the disk space that this process has reserved for uploads that get no bytes."""
        for path in self._policy.space.take_due() if self._policy.space is not None else ():
            with contextlib.suppress(RequestError, OSError):
                give_back_reserved(path, self._policy)

    def check(self) -> None:
        self._home.ensure()
        if not os.access(self.directory, os.W_OK | os.X_OK):
            raise StorageUnavailable()
        (self._policy.space or Space(self.directory, 1)).check()
        probe(self.directory)

    def statistics(self) -> Statistics | None:
        return expiry.read_statistics(self.directory, self._ownership)

    # -- Appending --

    def open(
        self,
        upload: Upload,
        offset: int,
        length: int | None = None,
        staged: bool = False,
        completes: bool = True,
    ) -> DirectorySession:
        path = self._path(upload.id)
        tab = self._tab(upload, offset, length)
        try:
            return DirectorySession(upload, path, self._policy, offset, length, staged, completes, tab)
        except BaseException:
            if tab is not None:
                tab.settle(offset)
            raise

    def _tab(self, upload: Upload, offset: int, length: int | None) -> Tab | None:
        """Return what a writer is charged; None for an upload that was charged its length before."""
        if self._quota is None or upload.length is not None:
            return None
        return Tab(self._quota, upload, offset, length)

    def append(
        self, upload: Upload, offset: int, block: Block, length: int | None = None, completes: bool = True
    ) -> Upload:
        tab = self._tab(upload, offset, length)
        if tab is None:
            return self._append(upload, offset, block, length, completes)
        kept = offset
        try:
            allowed = tab.take(offset, len(block), ahead=False)
            try:
                appended = self._append(upload, offset, block[:allowed], length, completes)
            except StorageFull:
                stored = self.load(upload.id)
                kept = stored.offset if stored.length is None else stored.length
                raise
            kept = offset + allowed if length is None else length
        finally:
            tab.settle(kept)
        if allowed < len(block):
            raise QuotaExceeded()
        return appended

    def _append(self, upload: Upload, offset: int, block: Block, length: int | None, completes: bool) -> Upload:
        with SideCar(self._path(upload.id), self._policy) as car:
            is_takeover = car.slot.writing
            data_fd = car.open_data(upload, offset, length)
            digests: tuple[tuple[str, bytes], ...] = ()
            try:
                digesting = Digesting(car, upload, offset) if upload.hashes else None
                written = write_at(data_fd, offset, block)
                counted = ledger.append(
                    car.slot,
                    offset=offset,
                    end=offset + written,
                    length=length,
                    now=self._policy.clock(),
                    lifetimes=self._policy.lifetimes,
                    is_known=upload.is_known,
                    completes=completes,
                )
                car.count(data_fd, counted)
                if digesting is not None:
                    digesting.update((block,), written)
                    digests = digesting.keep()
            except BaseException:
                close(data_fd)
                raise
            car.close_data(data_fd, is_locked=True)
            if written < len(block):
                raise StorageFull()
        appended = car.upload(replace(upload, digests=digests) if digests else upload)
        if is_takeover:
            emit(TakenOver(appended))
        return appended

    def fence(self, upload: Upload) -> Upload:
        with SideCar(self._path(upload.id), self._policy) as car:
            is_takeover = car.slot.writing
            car.change(ledger.fence(car.slot))
        if is_takeover:
            emit(TakenOver(car.upload(upload)))
        return self.load(upload.id)

    # -- Hand-over; for concatenation see Concatenation --

    def promise(self, upload: Upload) -> Upload:
        claim = self._claim_unless_promised(upload)
        if isinstance(claim, Upload):
            return claim
        try:
            if claim.upload.state == State.RECEIVING and not claim.upload.is_known:
                with SideCar(self._path(upload.id), self._policy) as car:
                    car.change(ledger.promise(car.slot))
                return car.upload(claim.upload)
            return claim.promise()
        finally:
            claim.release()

    def _claim_unless_promised(self, upload: Upload) -> DirectoryClaim | Upload:
        """Claim an upload; if its hand-over has begun and it is known, return the upload, which is durable already."""
        deadline = time.monotonic() + LIMIT
        while True:
            try:
                return self.claim(upload)
            except UploadLocked:
                current = self.load(upload.id)
                if current.state == State.HANDING_OVER and current.is_known:
                    return current
                if not current.is_known or time.monotonic() > deadline:
                    raise

    def claim(self, upload: Upload) -> DirectoryClaim:
        claim = DirectoryClaim(upload, SideCar(self._path(upload.id), self._policy), self._policy, self._ended)
        claim.take()
        return claim

    def can_pour(self, upload: Upload) -> bool:
        return not upload.hashes

    def can_complete(self, upload: Upload) -> bool:
        if upload.hashes or upload.concat or upload.parts:
            return False  # the data must be read first, or the upload takes part in a concatenation
        return upload.length is not None or self._quota is None

    def complete(
        self, upload: Upload, offset: int, block: Block, length: int | None = None, is_last: bool = False
    ) -> DirectoryClaim:
        if self.can_complete(upload):
            path = self._path(upload.id)
            claim = completion.complete(upload, path, self._policy, self._ended, offset, block, length, is_last)
            if claim is not None:
                return claim
        elif self.append(upload, offset, block, length).state == State.RECEIVING:
            raise InconsistentLength("These bytes do not reach the length of the upload.")
        return self._claim_and_begin(upload, is_last)

    def _claim_and_begin(self, upload: Upload, is_last: bool) -> DirectoryClaim:
        claim = self.claim(upload)
        if not claim.upload.is_pending:  # another process has decided it meanwhile
            claim.release()
            raise UploadLocked()
        try:
            claim.digest()
            claim.begin(is_last)
        except BaseException:
            claim.release()
            raise
        return claim

    def create_whole(self, draft: Upload, block: Block, is_last: bool = False) -> DirectoryClaim:
        if draft.length != len(block):
            raise InconsistentLength("The number of bytes differs from the length of the upload.")
        if draft.id or not self.can_complete(draft):
            upload = self.create(draft)
            return self.complete(upload, 0, block, is_last=is_last) if block else self._claim_and_begin(upload, is_last)
        self._home.ensure()
        path = self._prefix + os.urandom(16).hex()
        with self._quota.charge_creation(draft, path[-32:]) if self._quota is not None else contextlib.nullcontext():
            return creation.create_whole(draft, path, self._policy, self._ended, block, is_last)
