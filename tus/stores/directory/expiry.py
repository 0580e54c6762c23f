"""The sweep of a directory: it removes expired uploads and counts the others. It never runs within a request.

The lock and the time of one file, ``.tus-sweeper``, ensure that one process sweeps at a time, and not too often.
The file contains the results of the sweep, so that metrics need not read every upload.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from sys import float_info

from tus.errors import RequestError, SweepIncomplete, UploadGone, UploadLocked, UploadNotFound
from tus.events import Ended, emit
from tus.filesystem.descriptors import close
from tus.filesystem.io import write_at
from tus.filesystem.locks import lock, unlock_and_close
from tus.filesystem.ownership import Ownership
from tus.models import State, Upload, is_upload_id
from tus.stores import ledger
from tus.stores.charges import Charge, charge_of
from tus.stores.directory import pending
from tus.stores.directory.clock import Moment, has_jumped, previous, remember, unpack_moment
from tus.stores.directory.damaged import remove_damaged
from tus.stores.directory.data_lock import lock_data
from tus.stores.directory.quota import Quota, Recount, stored_charge
from tus.stores.directory.record import (
    Policy,
    SideCar,
    finish_removal,
    give_back_reserved,
    open_sidecar,
    read_slot,
    read_upload,
)
from tus.stores.directory.slices import gently
from tus.stores.directory.space import is_idle
from tus.stores.interface import Statistics
from tus.stores.slots import Slot

_MOMENT = "looked_at"  # the name of the moment of the last look, among the statistics

log = logging.getLogger(__name__)

#: Seconds that the record of a finished upload without its data is kept. It counts for the limits until then.
LOST_KEPT = 86400.0
#: Errors about a side-car that this user or package has not made: not readable, a link, a pipe or a directory.
_FOREIGN = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ESPIPE})
_FULL_SHARE = 0.005  # of a processor, that full sweeps may take
_GRACE = 0.5  # seconds that a request has between a change of a record and one of the counts
ELECTED = ".tus-elected-"  # the file of an election; the name of the work follows
NAME = ".tus-sweeper"


def ids_in(directory: str) -> Iterator[str]:
    """Yield the ids of the uploads that have a side-car."""
    with os.scandir(directory) as entries:
        for entry in entries:
            stem, _, extension = entry.name.rpartition(".")
            if extension == "tus" and is_upload_id(stem):
                yield stem


def is_lost(path: str, upload: Upload, now: float) -> bool:
    """Return whether an upload's data was moved away long ago, and no acceptance was recorded."""
    return upload.is_pending and not 0 <= now - upload.since < LOST_KEPT and not has_data(path)


def has_data(path: str) -> bool:
    """Return whether there is data at a path.

    Raises:
        OSError: it cannot be looked at. The data of a finished upload must not be taken for missing then.
    """
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


class Schedule:
    """What a process that sweeps again and again knows: when each upload expires.

    A full sweep looks at every upload; it is due at each interval, but costs at most half a percent of a processor.
    Sweeps in between only look at new uploads, and at uploads that may have expired.
    """

    def __init__(self) -> None:
        self._expires_at: dict[str, float] = {}
        self._full_at = 0.0  # by the clock of time.monotonic()

    def is_full_due(self) -> bool:
        """Return whether the next sweep must look at every upload."""
        return time.monotonic() >= self._full_at

    def select(self, upload_ids: Iterable[str], now: float) -> Iterator[str]:
        """Yield the uploads to look at, given the ids of all."""
        known, self._expires_at = self._expires_at, {}
        for upload_id in upload_ids:
            expires_at = known.get(upload_id, now)
            if expires_at <= now:
                yield upload_id
            else:
                self._expires_at[upload_id] = expires_at

    def note(self, upload_id: str, expires_at: float | None) -> None:
        """Note when an upload expires, if it changes no more."""
        self._expires_at[upload_id] = math.inf if expires_at is None else expires_at

    def note_full(self, cost: float) -> None:
        """Note that a full sweep has ended, which took so many seconds of a processor."""
        self._full_at = time.monotonic() + cost / _FULL_SHARE


@dataclass(slots=True)
class Sweep:
    """One pass over all uploads of a directory.

    Attributes:
        removed: the number of expired uploads that were removed.
        failed: the number of uploads that could not be removed or read.
        cause: the first error.
        may_expire: whether uploads may expire in this look; not if the clock has jumped.
        boot_keep: the seconds for which an upload stays that ended with its boot, as this process believes.
        recount: the counts of the limits, counted again; None if nothing counts.
        statistics: the statistics of the remaining uploads.
        schedule: learns when the remaining uploads expire.
        pending: the ids of the uploads that wait for the application.
    """

    directory: str
    policy: Policy
    quota: Quota | None
    removed: int
    recount: Recount | None
    statistics: Statistics
    schedule: Schedule = field(default_factory=Schedule)
    pending: list[str] = field(default_factory=list)
    failed: int = 0
    cause: Exception | None = None
    may_expire: bool = True
    boot_keep: float = LOST_KEPT

    def visit(self, upload_id: str) -> None:
        """Remove an upload if it has expired, or else count it. No upload stops the sweep of the others."""
        path = os.path.join(self.directory, upload_id)
        try:
            self._visit(path)
        except (UploadNotFound, UploadGone, UploadLocked):
            pass  # requests append and terminate during the sweep
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _FOREIGN:
                log.debug("a side-car belongs to another program: %s", error)
                return
            log.debug("upload %s could not be removed or read", upload_id, exc_info=True)
            self.failed += 1
            self.cause = self.cause or error

    def _visit(self, path: str) -> None:
        policy = self.policy
        if self.recount is None:  # else the record tells who is charged
            slot = read_slot(path, policy.ownership, policy.boot)
            if slot is not None and ledger.is_at_rest(slot, now=policy.clock(), lifetimes=policy.lifetimes):
                self._count_state(path, slot)
                return
        self._visit_record(path)

    def _visit_record(self, path: str) -> None:
        try:
            upload = self._read(path)
        except UploadGone:
            self.removed += remove_damaged(path, self.policy, self.may_expire)
            return
        if upload.state == State.TERMINATED:
            finish_removal(path, self.policy.ownership, self.policy.boot, self.boot_keep)
        elif upload.has_expired(self.policy.clock()) or is_lost(path, upload, self.policy.clock()):
            if self.may_expire:
                self._expire(path, upload)
            else:
                self._renew(path, upload)
                self._count(path, upload)
        else:
            if ledger.is_too_far(upload, now=self.policy.clock(), lifetimes=self.policy.lifetimes):
                self._renew(path, upload)
            self._count(path, upload)

    def _renew(self, path: str, upload: Upload) -> None:
        with SideCar(path, self.policy) as car:
            if car.slot.expires_at == upload.expires_at:  # else a request has changed it meanwhile
                car.change(ledger.renew(car.slot, now=self.policy.clock(), lifetimes=self.policy.lifetimes))

    def finish(self) -> int:
        """Return the number of uploads that were removed.

        Raises:
            SweepIncomplete: others could not be removed or read.
        """
        if self.failed:
            raise SweepIncomplete(self.removed, self.failed, self.cause)
        return self.removed

    def _read(self, path: str) -> Upload:
        fd = open_sidecar(path, os.O_RDONLY, self.policy.ownership)
        try:
            return read_upload(fd, path, self.policy.boot)
        finally:
            close(fd)

    def _expire(self, path: str, upload: Upload) -> None:
        with ExitStack() as held:
            if upload.is_pending and has_data(path):
                # Another process may be handing it over now.
                held.callback(unlock_and_close, lock_data(path, self.policy.ownership))
            car = held.enter_context(SideCar(path, self.policy))
            upload = car.upload(upload)
            now = self.policy.clock()
            lost = is_lost(path, upload, now)
            if not lost and not ledger.has_expired(car.slot, now=now, is_partial=upload.is_partial):
                return  # a request has changed it meanwhile
            if not lost and upload.state == State.HANDING_OVER and not has_data(path):
                return  # the application has just moved the data away
            before = charge_of(upload, has_data(path))
            if lost:
                log.warning("the data of upload %s was moved away, but no acceptance was recorded", upload.id)
            car.remove()
        self.removed += 1
        if self.quota is not None:
            self.quota.end(upload, before, Charge())
        if upload.state not in (State.ACCEPTED, State.REJECTED):  # else its end was reported before
            emit(Ended(upload, "expired"))

    def _count(self, path: str, upload: Upload) -> None:
        if upload.is_pending:
            self.pending.append(upload.id)
        if self.recount is not None:
            self.recount.add(upload.id, upload.principal, stored_charge(upload, path))
        self._count_state(path, upload, upload.is_pending)

    def _count_state(self, path: str, upload: Upload | Slot, is_pending: bool = False) -> None:
        seen = self.statistics
        self.schedule.note(os.path.basename(path), upload.expires_at)
        if upload.state == State.ACCEPTED:
            seen.accepted += 1
            return
        if upload.state == State.REJECTED:
            seen.rejected += 1
            return
        try:
            status = os.stat(path, follow_symlinks=False)
        except FileNotFoundError:
            return
        if is_pending and upload.is_known:
            seen.pending += 1
            seen.aside += upload.is_aside
            seen.pending_since = min(seen.pending_since or status.st_mtime, status.st_mtime)
            return
        seen.unfinished += 1
        seen.unfinished_bytes += upload.offset
        if self.policy.space is not None and is_idle(status):
            give_back_reserved(path, self.policy)
        seen.reserved_bytes += max(status.st_blocks * 512 - status.st_size - 4096, 0)


def expire(directory: str, policy: Policy, quota: Quota | None, upload_id: str) -> None:
    """Remove one upload if it has expired, or was terminated by a process that crashed before it removed the files."""
    may_expire = not has_jumped(_previous_moment(directory, policy), policy.moment())
    Sweep(directory, policy, quota, 0, None, Statistics(swept_at=0.0), may_expire=may_expire, boot_keep=0.0).visit(
        upload_id
    )


def _may_expire(directory: str, policy: Policy) -> bool:
    """Return whether uploads may expire in this look: not if the clock has jumped since the last one."""
    moment = policy.moment()
    has_clock_jumped = has_jumped(_previous_moment(directory, policy), moment)
    remember(directory, moment)
    if has_clock_jumped:
        log.warning("the clock has jumped, so nothing expires in this look at the uploads of %s", directory)
    return not has_clock_jumped


def _previous_moment(directory: str, policy: Policy) -> Moment | None:
    """Return the moment of the last look by any process, as far as it is known."""
    try:
        return previous(directory, _read_moment(directory, policy))
    except (OSError, RequestError):
        return previous(directory, None)


def _read_moment(directory: str, policy: Policy) -> Moment | None:
    fd = policy.ownership.open(os.path.join(directory, NAME), os.O_RDONLY)
    try:
        fields = json.loads(os.pread(fd, 4096, 0))
        return unpack_moment(fields.get(_MOMENT)) if isinstance(fields, dict) else None
    except (ValueError, RecursionError):
        return None
    finally:
        close(fd)


def sweep(
    directory: str, policy: Policy, quota: Quota | None, at_most_every: float, schedule: Schedule | None = None
) -> int:
    """Sweep a directory, unless another process is doing so; return the number of expired uploads.

    Args:
        directory: the directory of the uploads.
        policy: its policy.
        quota: the counts of its limits.
        at_most_every: see :meth:`tus.stores.interface.Expires.sweep`.
        schedule: what a thread of this process has learned; None to look at every upload, without rests.

    Raises:
        SweepIncomplete: some uploads could not be removed.
        StorageUnavailable: the volume of the directory is away.
    """
    if not policy.home.check():
        return 0
    fd = -1
    with _bookkeeping():
        fd = policy.ownership.open_or_create(os.path.join(directory, NAME))
    if fd < 0:
        return _sweep(directory, policy, quota, schedule).finish()
    try:
        lock(fd, limit=0)
        swept_at = os.fstat(fd).st_mtime if os.fstat(fd).st_size else 0.0
        if 0 <= time.time() - swept_at < at_most_every:  # a clock may have been set back
            return 0
        with _bookkeeping():  # before the sweep, so that a sweep that fails is not repeated at once
            if not os.fstat(fd).st_size:
                os.pwrite(fd, b"{}\n", 0)
            os.utime(fd)
        if schedule is not None and not schedule.is_full_due():
            return _sweep_due(directory, policy, quota, schedule).finish()
        done = _sweep(directory, policy, quota, schedule)
        with _bookkeeping():
            data = json.dumps(asdict(done.statistics) | {_MOMENT: previous(directory, None)}).encode() + b"\n"
            write_at(fd, 0, data.ljust(os.fstat(fd).st_size))  # torn, they are not read
        return done.finish()
    except UploadLocked:
        return 0
    finally:
        unlock_and_close(fd)


@contextmanager
def _bookkeeping() -> Iterator[None]:
    """Log a failure of what a sweep does beside removing uploads: a full disk is emptied without it."""
    try:
        yield
    except (OSError, RequestError) as error:
        log.warning("the results of a sweep could not be recorded: %s", error)


def _sweep(directory: str, policy: Policy, quota: Quota | None, schedule: Schedule | None) -> Sweep:
    """Look at every upload, count again, and rebuild the index of waiting uploads."""
    in_slices = gently if schedule is not None else iter
    schedule = schedule or Schedule()
    began = time.thread_time()
    recount: Recount | None = None
    with _bookkeeping():
        recount = None if quota is None else quota.begin_recount()
    _let_requests_end(in_slices is gently)
    done = Sweep(directory, policy, quota, 0, recount, Statistics(swept_at=time.time()), schedule)
    if not _may_expire(directory, policy):
        done.may_expire, done.boot_keep = False, math.inf
    for upload_id in schedule.select(in_slices(list(in_slices(ids_in(directory)))), math.inf):
        done.visit(upload_id)
    with _bookkeeping():
        pending.write_index(directory, policy.ownership, policy.boot, done.pending)
    if quota is not None and recount is not None:
        _let_requests_end(in_slices is gently)
        with _bookkeeping():
            policy.home.check()  # no count may be written below the mount point of a volume that is away
            quota.finish_recount(recount, in_slices)
    schedule.note_full(time.thread_time() - began)
    return done


def _let_requests_end(is_gentle: bool) -> None:
    """Let requests end that have charged the limits and changed no record yet, or the other way round."""
    if is_gentle:
        time.sleep(_GRACE)


def _sweep_due(directory: str, policy: Policy, quota: Quota | None, schedule: Schedule) -> Sweep:
    """Look at the uploads that are new or may have expired."""
    done = Sweep(directory, policy, quota, 0, None, Statistics(swept_at=0.0), schedule)
    if not _may_expire(directory, policy):
        done.may_expire, done.boot_keep = False, math.inf
    for upload_id in schedule.select(gently(list(gently(ids_in(directory)))), policy.clock()):
        done.visit(upload_id)
    return done


def read_statistics(directory: str, ownership: Ownership) -> Statistics | None:
    """Return the results of the last sweep; None before the first one."""
    try:
        fd = ownership.open(os.path.join(directory, NAME), os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return _unpack_statistics(os.pread(fd, 4096, 0))
    finally:
        close(fd)


def _unpack_statistics(data: bytes) -> Statistics | None:
    try:
        fields = json.loads(data)
        fields.pop(_MOMENT, None)
        found = Statistics(**fields)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    numbers = [number for name, number in asdict(found).items() if name != "pending_since" or number is not None]
    right = all(type(number) in (int, float) and 0 <= number <= float_info.max for number in numbers)
    return found if right else None
