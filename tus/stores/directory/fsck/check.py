"""Looks through a directory of uploads for whatever is not as a server leaves it, and mends what is safe to mend.

Laws of this room:

1. It may run beside servers. Nothing is reported as damage on a look without the lock, nor what may be a creation that
   is under way; and a repair looks again, under the locks that a server takes, before it touches anything.
2. It destroys no received bytes (see :mod:`tus.stores.directory.fsck.diagnosis`), and removes only what this package
   wrote.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator

from tus.errors import UploadGone, UploadLocked, UploadNotFound
from tus.filesystem.io import FLAGS, unlink, write_at
from tus.filesystem.locks import lock, unlock
from tus.models import State, Upload, is_upload_id
from tus.stores.directory.data_lock import LONGEST_HAND_OVER, lock_data, unlock_data
from tus.stores.directory.expiry import is_lost
from tus.stores.directory.fsck import strays
from tus.stores.directory.fsck.diagnosis import (
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
from tus.stores.directory.record import open_sidecar, read_upload
from tus.stores.directory.record_format import pack_slot, position_of, record_end
from tus.stores.slots import Slot

__all__ = ["Finding", "Repair", "Severity", "check", "examine", "expired", "names"]

_MORE_TIME = 86400.0  # seconds that an upload gets at least whose count was put right


def names(directory: str) -> list[str]:
    """The names in a directory that :func:`examine` has something to say about, in order.

    Side-cars stand for their uploads; data is among them only where it has none.
    """
    there = set(os.listdir(directory))
    return sorted(
        name
        for name in there
        if (is_upload_id(name.removesuffix(".tus")) and (name.endswith(".tus") or f"{name}.tus" not in there))
        or strays.is_stray(name)
    )


def examine(directory: str, name: str, clock: Callable[[], float] = time.time) -> Iterator[Finding]:
    """What there is to say about one of :func:`names`; nothing about what was removed meanwhile.

    Args:
        directory: where it lies.
        name: of a side-car, or of a file that belongs to no upload.
        clock: seconds since 1970.
    """
    path = os.path.join(directory, name)
    if strays.is_stray(name) or not name.endswith(".tus"):
        yield from strays.examine(path, name, clock)
        return
    upload = _Examined(directory, name.removesuffix(".tus"), clock)
    for diagnosis in upload.diagnoses():
        yield Finding(
            upload.id,
            diagnosis.kind,
            diagnosis.severity,
            diagnosis.explanation,
            upload.repair(diagnosis),
            diagnosis.reason,
        )


def check(directory: str, repair: bool = False, probes_only: bool = False) -> Iterator[tuple[Finding, str | None]]:
    """Examine everything in a directory.

    Args:
        directory: of the uploads.
        repair: whether to repair what can be.
        probes_only: look only for what a server that was starting has left; the directory is no place of uploads.

    Yields:
        A finding and, where a repair was tried, what came of it: an empty text if it is repaired, else why not.
    """
    for name in filter(strays.is_probe, names(directory)) if probes_only else names(directory):
        told: set[str] = set()
        changed = True
        while changed:  # a repair may let one see what it had hidden
            changed = False
            for finding in examine(directory, name):
                if finding.kind in told:
                    continue
                told.add(finding.kind)
                outcome = _tried(finding.repair) if repair and finding.repair else None
                changed = changed or outcome == ""
                yield finding, outcome
                if changed:
                    break


def _tried(repair: Repair) -> str:
    try:
        repair.perform()
    except UploadLocked:
        return "somebody is at work on it just now"
    except OSError as error:
        return f"the system refuses: {error.strerror}"
    return ""


def expired(directory: str, clock: Callable[[], float] = time.time) -> Iterator[Upload]:
    """The uploads that a sweep would remove now, as their records have them."""
    for name in names(directory):
        path = os.path.join(directory, name.removesuffix(".tus"))
        with contextlib.suppress(UploadNotFound, UploadGone, OSError):
            fd = open_sidecar(path, os.O_RDONLY)
            try:
                upload = read_upload(fd, path)
            finally:
                os.close(fd)
            if upload.state != State.TERMINATED and (upload.has_expired(clock()) or is_lost(path, upload, clock())):
                yield upload


# -- Uploads ------------------------------------------------------------------------------------------------------


class _Examined:
    """An upload that is looked at, and perhaps repaired."""

    def __init__(self, directory: str, upload_id: str, clock: Callable[[], float]) -> None:
        self.id = upload_id
        self._directory = directory
        self._path = os.path.join(directory, upload_id)
        self._clock = clock

    def diagnoses(self) -> list[Diagnosis]:
        """What is to be said, from a look under the lock wherever one without it is not at rest."""
        try:
            found = self._look()
            if all(diagnosis.kind in ("expired", "not-regular") for diagnosis in found):
                return found
            with self._locked() as fd:
                return self._look(fd)
        except FileNotFoundError:
            return []
        except UploadLocked:
            return [
                Diagnosis(
                    "held",
                    Severity.NOTICE,
                    "Somebody has held the lock of its side-car for seconds; locks are held for microseconds, so that "
                    "is a process that was stopped.",
                    reason="it cannot be looked at meanwhile",
                )
            ]
        except PermissionError:
            return [self._forbidden()]
        except OSError as error:
            return [
                Diagnosis(
                    "unreadable",
                    Severity.DAMAGE,
                    f"The system cannot read it: {error.strerror}.",
                    reason="this is for whoever looks after the disk",
                )
            ]

    def _forbidden(self) -> Diagnosis:
        status = os.stat(self._directory)
        shared = bool(status.st_mode & stat.S_ISVTX)
        return Diagnosis(
            "unreadable",
            Severity.NOTICE if shared else Severity.DAMAGE,
            f"User {os.geteuid()} may not open the side-car, and neither may a server of this user."
            + (" Several users share this directory, so it may be another one's upload." if shared else ""),
            reason="its owner, or root, can look at it",
        )

    def _look(self, fd: int = -1) -> list[Diagnosis]:
        evidence = self._evidence(fd)
        return list(diagnose(evidence, self._is_there))

    def _is_there(self, upload_id: str) -> bool:
        return is_upload_id(upload_id) and os.path.lexists(os.path.join(self._directory, f"{upload_id}.tus"))

    def _evidence(self, fd: int) -> Evidence:
        # What the locks do not cover, a removal by somebody who dies meanwhile, takes the data first: so it is looked
        # at last, and the side-car is there for sure.
        car = os.lstat(f"{self._path}.tus")
        content = b""
        if stat.S_ISREG(car.st_mode):
            content = self._content(fd)
        try:
            data = os.lstat(self._path)
        except FileNotFoundError:
            data = None
        return Evidence(self.id, car, data, content, self._clock(), LONGEST_HAND_OVER)

    def _content(self, fd: int) -> bytes:
        if fd >= 0:
            return os.pread(fd, min(os.fstat(fd).st_size, LARGEST_SIDECAR), 0)
        fd = os.open(f"{self._path}.tus", os.O_RDONLY | os.O_NONBLOCK | FLAGS)
        try:
            return self._content(fd)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The side-car, open and locked.

        Raises:
            UploadLocked: somebody holds it.
            FileNotFoundError: it was removed.
        """
        path = f"{self._path}.tus"
        try:
            fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | FLAGS)
        except PermissionError:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | FLAGS)
        try:
            lock(fd)
            try:
                if not os.path.samestat(os.fstat(fd), os.lstat(path)):
                    raise FileNotFoundError(path)
                yield fd
            finally:
                unlock(fd)
        finally:
            os.close(fd)

    def repair(self, diagnosis: Diagnosis) -> Repair | None:
        """What can be done about one of the diagnoses."""
        cure = diagnosis.cure
        if cure is None:
            return None
        words = cure.value.replace("<id>", self.id)
        if cure is Cure.PROTECT:
            return Repair(words, self._protect)
        return Repair(words, lambda: self._cure(diagnosis.kind, cure))

    def _protect(self) -> bool:
        for path, mode, at_least in ((f"{self._path}.tus", 0, 0o600), (self._path, 0o777, 0o600)):
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode):
                    os.chmod(path, status.st_mode & mode | at_least)
        return True

    def _cure(self, kind: str, cure: Cure) -> bool:
        with contextlib.ExitStack() as held:
            if cure is not Cure.TRIM_WATCHERS:
                # As when an upload is removed: the data first, which a hand-over and a concatenation hold.
                with contextlib.suppress(UploadGone):
                    held.callback(unlock_data, lock_data(self._path))
            try:
                fd = held.enter_context(self._locked())
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
                watchers = good_watchers(evidence.content)
                end = record_end(evidence.content)
                write_at(fd, end, watchers)  # first, so that who reads without the lock misses none
                os.ftruncate(fd, end + len(watchers))
        return True

    def _remove(self, fd: int, evidence: Evidence) -> None:
        if evidence.slot is not None:
            self._change(fd, evidence.slot._replace(state=State.TERMINATED))
        unlink(self._path)
        unlink(f"{self._path}.tus")

    def _set_aside(self, fd: int, evidence: Evidence) -> None:
        if evidence.slot is not None:
            self._change(fd, evidence.slot)  # whoever is appending writes no more
        number = ""
        while any(os.path.lexists(f"{self._path}{end}.damaged{number}") for end in ("", ".tus")):
            number = str(int(number or 1) + 1)
        os.rename(f"{self._path}.tus", f"{self._path}.tus.damaged{number}")
        if evidence.data is not None:
            os.rename(self._path, f"{self._path}.damaged{number}")

    def _count_back(self, fd: int, evidence: Evidence) -> None:
        slot = evidence.slot
        assert slot is not None
        with open(self._path, "rb") as data:
            os.fsync(data.fileno())  # before it is counted, whatever the server's policy
        expires_at = slot.expires_at and max(slot.expires_at, self._clock() + _MORE_TIME)
        self._change(fd, slot._replace(offset=evidence.size, state=State.RECEIVING, expires_at=expires_at))

    @staticmethod
    def _change(fd: int, slot: Slot) -> None:
        """Write the next slot, which ends the session that is open."""
        slot = slot._replace(sequence=slot.sequence + 1, generation=slot.generation + 1, writing=False)
        os.pwrite(fd, pack_slot(slot), position_of(slot))
