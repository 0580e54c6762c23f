"""The check of a directory of uploads: it reports states that no server leaves, and repairs damage if that is safe.

Laws of this room:

1. It may run while servers run. It reports damage only after a check under the lock, and never for a creation that may
   be in progress. A repair checks again, under the same locks as a server, before it changes anything.
2. It removes no received bytes (see :mod:`tus.stores.directory.fsck.diagnosis`), and only files that this package
   wrote.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator

from tus.errors import UploadGone, UploadLocked, UploadNotFound
from tus.filesystem.boot import boot_id
from tus.filesystem.descriptors import close
from tus.filesystem.io import write_at
from tus.filesystem.locks import lock, unlock, unlock_and_close
from tus.models import State, Upload, is_upload_id
from tus.stores import ledger
from tus.stores.directory.data_lock import LONGEST_HAND_OVER, lock_data
from tus.stores.directory.expiry import is_lost
from tus.stores.directory.fsck import strays
from tus.stores.directory.fsck.diagnosis import (
    DONE,
    LARGEST_SIDECAR,
    Cure,
    Diagnosis,
    Evidence,
    Finding,
    Repair,
    Severity,
    diagnose,
    good_watchers,
)
from tus.stores.directory.fsck.place import Place
from tus.stores.directory.record import open_sidecar, read_upload
from tus.stores.directory.record_format import pack_slot, position_of, record_end
from tus.stores.slots import Slot

__all__ = ["Finding", "Repair", "Severity", "check", "examine", "expired", "names"]

_NEEDS_NO_LOCK = ("expired", "not-regular", "owners-differ", "mode")
_MORE_TIME = 86400.0  # seconds that an upload is kept at least after its count was corrected


def names(place: Place) -> list[str]:
    """Return the names of the files in a directory that :func:`examine` checks, sorted.

    A side-car represents its upload. Data is only included if it has no side-car.
    """
    there = set(place.names())
    return sorted(
        name
        for name in there
        if (is_upload_id(name.removesuffix(".tus")) and (name.endswith(".tus") or f"{name}.tus" not in there))
        or strays.is_stray(name)
    )


def examine(place: Place, name: str, clock: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Yield the findings about one of :func:`names`; none if it was removed meanwhile.

    Args:
        place: the directory of the file.
        name: the name of a side-car, or of a file that belongs to no upload.
        clock: returns the time in seconds since 1970.
    """
    if strays.is_stray(name) or not name.endswith(".tus"):
        yield from strays.examine(place, name, clock)
        return
    upload = _ExaminedUpload(place, name.removesuffix(".tus"), clock)
    for diagnosis in upload.diagnose():
        yield Finding(
            upload.id,
            diagnosis.kind,
            diagnosis.severity,
            diagnosis.explanation,
            upload.repair(diagnosis),
            diagnosis.reason,
        )


def check(place: Place, repair: bool = False, probes_only: bool = False) -> Iterator[tuple[Finding, str | None]]:
    """Examine everything in a directory.

    Args:
        place: the directory of the uploads.
        repair: whether to repair damage if that is safe.
        probes_only: only check for probe files and copies of crashed servers, in a directory that contains no uploads.

    Yields:
        A finding and the outcome of its repair: None without a repair, an empty text after success, or else the reason
        for the failure.
    """
    problem = None if probes_only else place.ownership.problem_of(place.path)
    if problem is not None:
        yield _describe_shared(problem), None
    for name in filter(strays.is_transient, names(place)) if probes_only else names(place):
        reported: set[str] = set()
        changed = True
        while changed:  # a repair may reveal another finding
            changed = False
            for finding in examine(place, name):
                if finding.kind in reported:
                    continue
                reported.add(finding.kind)
                outcome = _try(finding.repair, problem is None) if repair and finding.repair else None
                changed = changed or outcome == ""
                yield finding, outcome
                if changed:
                    break


def _describe_shared(problem: str) -> Finding:
    return Finding(
        ".", "directory-shared", Severity.DAMAGE, f"{problem}.", reason="servers refuse the directory until then"
    )


def _try(repair: Repair, is_safe: bool) -> str:
    """Repair, and return an empty text, or the reason for the failure."""
    if not is_safe:
        return "other users can replace files of this directory; change that first"
    try:
        repair.perform()
    except UploadLocked:
        return "another process is using it; try again later"
    except OSError as error:
        return f"the system refused: {error.strerror}"
    return ""


def expired(place: Place, clock: Callable[[], float] = time.time) -> Iterator[Upload]:
    """Yield the uploads that a sweep would remove now."""
    for name in names(place):
        path = os.path.join(place.path, name.removesuffix(".tus"))
        with contextlib.suppress(UploadNotFound, UploadGone, OSError):
            fd = open_sidecar(path, os.O_RDONLY, place.ownership)
            try:
                upload = read_upload(fd, path, boot_id())
            finally:
                close(fd)
            if upload.state != State.TERMINATED and (upload.has_expired(clock()) or is_lost(path, upload, clock())):
                yield upload


# -- Uploads ------------------------------------------------------------------------------------------------------


class _ExaminedUpload:
    """An upload to check, and to repair if necessary."""

    def __init__(self, place: Place, upload_id: str, clock: Callable[[], float]) -> None:
        self.id = upload_id
        self._place = place
        self._car = f"{upload_id}.tus"
        self._clock = clock

    def diagnose(self) -> list[Diagnosis]:
        """Return the diagnoses. If a check without the lock finds anything, check again under the lock."""
        try:
            found = self._diagnose()
            if all(diagnosis.kind in _NEEDS_NO_LOCK for diagnosis in found):
                return found
            with self._open_locked() as fd:
                return self._diagnose(fd)
        except FileNotFoundError:
            return []
        except UploadLocked:
            return [
                Diagnosis(
                    "held",
                    Severity.NOTICE,
                    "A process has held the lock of its side-car for seconds. Locks are normally held for "
                    "microseconds, so that process is probably stopped.",
                    reason="it cannot be checked while it is locked; resume or end the stopped process",
                )
            ]
        except OSError as error:
            return [
                Diagnosis(
                    "unreadable",
                    Severity.DAMAGE,
                    f"The system cannot read it: {error.strerror}.",
                    reason="check the disk and its file system",
                )
            ]

    def _diagnose(self, fd: int = -1) -> list[Diagnosis]:
        evidence = self._evidence(fd)
        return list(diagnose(evidence, self._is_there))

    def _is_there(self, upload_id: str) -> bool:
        return bool(is_upload_id(upload_id)) and self._place.has(f"{upload_id}.tus")

    def _evidence(self, fd: int) -> Evidence:
        # A removal that crashes is not covered by the locks. It removes the data first, so the side-car is read first:
        # data without a side-car is never seen.
        car = self._place.status_of(self._car)
        content = self._content(fd, car)
        try:
            data = self._place.status_of(self.id)
        except FileNotFoundError:
            data = None
        ownership = self._place.ownership
        return Evidence(self.id, car, data, content, self._clock(), LONGEST_HAND_OVER, boot_id(), ownership)

    def _content(self, fd: int, car: os.stat_result) -> bytes | None:
        """Return the bytes of the side-car; None if it is not ours, or its mode does not let us read it."""
        if fd >= 0:
            return os.pread(fd, min(os.fstat(fd).st_size, LARGEST_SIDECAR), 0)
        if not self._place.ownership.believes(car, is_offered=True):
            return None
        try:
            fd = self._place.open(self._car, os.O_RDONLY)
        except PermissionError:
            return None
        try:
            return self._content(fd, car)
        finally:
            close(fd)

    @contextlib.contextmanager
    def _open_locked(self) -> Iterator[int]:
        """Open and lock the side-car.

        Raises:
            UploadLocked: another process holds the lock.
            FileNotFoundError: the side-car was removed.
        """
        try:
            fd = self._place.open(self._car, os.O_RDWR)
        except PermissionError:
            fd = self._place.open(self._car, os.O_RDONLY)
        try:
            lock(fd)
            try:
                if not os.path.samestat(os.fstat(fd), self._place.status_of(self._car)):
                    raise FileNotFoundError(self._car)
                yield fd
            finally:
                unlock(fd)
        finally:
            close(fd)

    def repair(self, diagnosis: Diagnosis) -> Repair | None:
        """Return the repair for a diagnosis; None if there is none."""
        cure = diagnosis.cure
        if cure is None:
            return None
        words, done = (text.replace("<id>", self.id) for text in (cure.value, DONE[cure]))
        if cure is Cure.PROTECT:
            return Repair(words, done, self._protect)
        return Repair(words, done, lambda: self._cure(diagnosis.kind, cure))

    def _protect(self) -> bool:
        self._place.protect(self._car, kept=0)
        evidence = self._evidence(-1)
        self._place.protect(self.id, kept=0o755 if evidence.is_offered else 0)
        return True

    def _cure(self, kind: str, cure: Cure) -> bool:
        with contextlib.ExitStack() as held:
            if cure is not Cure.TRIM_WATCHERS:
                # As in a removal, lock the data first. A hand-over or a concatenation holds this lock.
                with contextlib.suppress(UploadGone):
                    held.callback(unlock_and_close, lock_data(self.id, self._place.ownership, dir_fd=self._place.fd))
            try:
                fd = held.enter_context(self._open_locked())
                evidence = self._evidence(fd)
            except FileNotFoundError:
                return False
            if all(diagnosis.kind != kind for diagnosis in diagnose(evidence, self._is_there)):
                return False
            if cure is Cure.REMOVE:
                self._remove(fd, evidence)
            elif cure is Cure.SET_ASIDE:
                self._set_aside(fd, evidence)
            elif cure is Cure.COUNT_BACK:
                self._count_back(fd, evidence)
            else:
                content = evidence.content or b""
                watchers, end = good_watchers(content), record_end(content)
                write_at(fd, end, watchers)  # before the truncation, so that a reader without the lock misses no id
                os.ftruncate(fd, end + len(watchers))
        return True

    def _remove(self, fd: int, evidence: Evidence) -> None:
        if evidence.slot is not None:
            self._change(fd, evidence.slot._replace(state=State.TERMINATED))
        self._place.remove(self.id)
        self._place.remove(self._car)

    def _set_aside(self, fd: int, evidence: Evidence) -> None:
        if evidence.slot is not None:
            self._change(fd, evidence.slot)  # ends an open session
        number = ""
        while any(self._place.has(f"{name}.damaged{number}") for name in (self.id, self._car)):
            number = str(int(number or 1) + 1)
        self._place.rename(self._car, f"{self._car}.damaged{number}")
        if evidence.data is not None:
            self._place.rename(self.id, f"{self.id}.damaged{number}")

    def _count_back(self, fd: int, evidence: Evidence) -> None:
        slot = evidence.slot
        assert slot is not None
        data_fd = self._place.open(self.id, os.O_RDONLY)
        try:
            os.fsync(data_fd)  # before the data is counted, because the server's policy is not known here
        except OSError:
            self._change(fd, ledger.doubt(slot))
            raise
        finally:
            close(data_fd)
        expires_at = slot.expires_at and max(slot.expires_at, self._clock() + _MORE_TIME)
        size = evidence.size
        self._change(fd, slot._replace(offset=size, synced=size, state=State.RECEIVING, expires_at=expires_at))

    @staticmethod
    def _change(fd: int, slot: Slot) -> None:
        """Write the next slot, which ends an open session."""
        slot = slot._replace(sequence=slot.sequence + 1, generation=slot.generation + 1, writing=False)
        os.pwrite(fd, pack_slot(slot), position_of(slot))
