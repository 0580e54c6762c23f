"""The diagnosis of one upload of a directory. Pure: bytes and file status in, texts out.

Law of this room: a cure never destroys received bytes. A record without bytes may be removed. An upload that has bytes
and cannot be trusted is set aside for the operator: ``<id>`` becomes ``<id>.damaged`` and ``<id>.tus`` becomes
``<id>.tus.damaged``. No server reads these files and no sweep removes them.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from os import stat_result

from tus.errors import BadRequest
from tus.filesystem.ownership import Ownership
from tus.models import State, Upload, is_upload_id
from tus.stores.directory import record_format as sidecar
from tus.stores.directory.record import NAMES
from tus.stores.directory.record_format import SLOT_SIZE, SLOTS_SIZE, WATCHER_SIZE, Damaged
from tus.stores.ledger import MAX_WATCHERS, trust
from tus.stores.slots import Slot, upload_of

#: Bytes; a larger file is not a side-car of this package.
LARGEST_SIDECAR = 16 * 2**20


class Cure(StrEnum):
    """The kinds of repair. The value is a text for the operator, an imperative; ``DONE`` has the past forms."""

    REMOVE = "remove its remaining files"
    SET_ASIDE = "set it aside and rename its files to <id>.damaged and <id>.tus.damaged"
    COUNT_BACK = "count the stored bytes, so that the client resumes from there"
    TRIM_WATCHERS = "drop the invalid ids"
    PROTECT = "reset the permissions of both files"


#: The texts for the operator after a repair.
DONE = {
    Cure.REMOVE: "its remaining files were removed",
    Cure.SET_ASIDE: "it was set aside and its files were renamed to <id>.damaged and <id>.tus.damaged",
    Cure.COUNT_BACK: "the stored bytes were counted, so that the client resumes from there",
    Cure.TRIM_WATCHERS: "the invalid ids were dropped",
    Cure.PROTECT: "the permissions of both files were reset",
}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One finding about an upload.

    Attributes:
        kind: a stable name.
        severity: see :class:`Severity`.
        explanation: the problem and its effect, for the operator.
        cure: the repair, if one is safe.
        reason: why there is no repair, or what the operator must do.
    """

    kind: str
    severity: Severity
    explanation: str
    cure: Cure | None = None
    reason: str = ""


@dataclass(frozen=True)
class Evidence:
    """The files of an upload as they were read.

    Attributes:
        id: the upload id, which is the name of the data.
        car: the status of the side-car; a link is not followed.
        data: the status of the data; None if it is missing.
        content: the bytes of the side-car; None if it is not ours, or cannot be read.
        now: the time in seconds since 1970.
        longest_hand_over: seconds that an application may need after it has moved the data away.
        boot: the id of this boot of the machine.
        ownership: whose files are believed.
        slot: what is certain of the valid slot; None if both are damaged.
        record: the creation record; None if it is damaged.
    """

    id: str
    car: stat_result
    data: stat_result | None
    content: bytes | None
    now: float
    longest_hand_over: float
    boot: bytes
    ownership: Ownership
    slot: Slot | None = field(init=False)
    record: Upload | None = field(init=False)

    def __post_init__(self) -> None:
        content = self.content or b""
        slot = slot_of(content)
        object.__setattr__(self, "slot", None if slot is None else trust(slot, self.boot))
        object.__setattr__(self, "record", _record_of(content))

    def has_changed_within(self, seconds: float) -> bool:
        """Return whether the side-car was written less than this many seconds ago."""
        return 0 <= self.now - self.car.st_mtime < seconds

    @property
    def size(self) -> int:
        """The size of the data in bytes."""
        return self.data.st_size if self.data else 0

    @property
    def is_offered(self) -> bool:
        """Whether an application may have given the data other names and another mode."""
        return self.slot is not None and (self.slot.state != State.RECEIVING or self.slot.attempts > 0)

    @property
    def summary(self) -> str:
        """The state of the upload as a text for the operator."""
        if self.slot is None:
            return f"{self.size} bytes stored"
        length = "an unknown number" if self.slot.length is None else str(self.slot.length)
        counted = f"{self.slot.offset} of {length} bytes counted"
        return f"{self.slot.state.name.lower()}, {counted}, {self.size} bytes stored"


def slot_of(content: bytes) -> Slot | None:
    """Return the valid slot; None if both are damaged."""
    try:
        return sidecar.unpack_slots(content)
    except Damaged:
        return None


def _record_of(content: bytes) -> Upload | None:
    try:
        return sidecar.unpack_record(content)
    except (Damaged, ValueError, LookupError, TypeError):  # the record may be whole, but from another version
        return None


def diagnose(evidence: Evidence, is_there: Callable[[str], bool]) -> Iterator[Diagnosis]:
    """Yield all findings about one upload; none for a sound upload that no process is changing.

    Args:
        evidence: the files of the upload. If it was read under the side-car's lock, it shows no unfinished change.
        is_there: returns whether an id has a side-car.
    """
    foreign = _diagnose_foreign(evidence)
    if foreign is not None:
        yield foreign
        return
    if evidence.slot is not None and evidence.slot.state == State.TERMINATED:
        yield Diagnosis(
            "removal-unfinished",
            Severity.NOTICE,
            "This upload was terminated, but the process crashed before it removed all files. Or it cannot go on, "
            "because its bytes were not forced to the disk before the machine was restarted. A sweep also removes "
            "them.",
            Cure.REMOVE,
        )
        return
    yield from _diagnose_permissions(evidence)
    if evidence.content is None:
        return  # its mode comes first
    if evidence.slot is None or evidence.record is None:
        yield _diagnose_damaged(evidence)
        return
    yield from _diagnose_slots(evidence)
    slot, record = evidence.slot, evidence.record
    if record.id != evidence.id:
        yield Diagnosis(
            "id-differs",
            Severity.DAMAGE,
            f"The side-car belongs to upload {_text(record.id)}; it was copied or renamed by hand. Appending would "
            f"change that upload ({evidence.summary}).",
            Cure.SET_ASIDE,
        )
    elif (contradiction := _contradiction_in(slot)) is not None:
        text = f"{contradiction} ({evidence.summary})."
        yield Diagnosis("numbers-impossible", Severity.DAMAGE, text, Cure.SET_ASIDE)
    else:
        yield from _diagnose_data(evidence, slot, record)
        yield from _diagnose_concatenation(evidence, slot, record, is_there)


def _diagnose_foreign(evidence: Evidence) -> Diagnosis | None:
    for status, name in ((evidence.car, "side-car"), (evidence.data, "data")):
        if status is not None and not stat.S_ISREG(status.st_mode):
            what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a regular file"
            return Diagnosis(
                "not-regular",
                Severity.DAMAGE,
                f"The {name} is {what}, so no server opens it.",
                reason="tus did not create it; remove it, or restore the file",
            )
    if (foreign := _diagnose_owners(evidence)) is not None:
        return foreign
    if evidence.car.st_size > LARGEST_SIDECAR:
        return Diagnosis("not-ours", Severity.NOTICE, "It is larger than any side-car.", reason="tus did not write it")
    content = evidence.content or b""  # after a crash, a file system may leave only zeros of a side-car
    if content.strip(b"\0") and not any(magic in content for magic in sidecar.MAGICS):
        return Diagnosis(
            "not-ours",
            Severity.NOTICE,
            "It has the name of a side-car, but nothing in it shows that tus wrote it.",
            reason="it may belong to another program",
        )
    return None


def _diagnose_owners(evidence: Evidence) -> Diagnosis | None:
    for status, name in ((evidence.car, "side-car"), (evidence.data, "data")):
        if status is not None and not evidence.ownership.is_by_us(status):
            return Diagnosis(
                "owners-differ",
                Severity.DAMAGE,
                f"The {name} belongs to user {status.st_uid}, so for a server of user {evidence.ownership.uid} it does "
                "not exist.",
                reason="another user may have planted it; if it is an upload, use chown to give both files to the user "
                "of the server",
            )
    return None


def _diagnose_permissions(evidence: Evidence) -> Iterator[Diagnosis]:
    car, data = evidence.car, evidence.data
    if car.st_nlink > NAMES:
        yield Diagnosis(
            "names-added",
            Severity.DAMAGE,
            f"The side-car has {car.st_nlink} names, so for servers it does not exist.",
            reason="tus has not given them to it; remove the others",
        )
    is_closed = data is not None and data.st_mode & 0o600 != 0o600
    is_open = data is not None and not evidence.is_offered and data.st_mode & 0o022 & ~evidence.ownership.file_mode
    if stat.S_IMODE(car.st_mode) != evidence.ownership.file_mode or is_closed or is_open:
        yield Diagnosis(
            "mode",
            Severity.DAMAGE,
            "The permissions have changed since the files were created: other users may read or change the upload, or "
            "the server cannot.",
            Cure.PROTECT,
        )


def _diagnose_damaged(evidence: Evidence) -> Diagnosis:
    slot, record = evidence.slot, evidence.record
    if evidence.has_changed_within(GRACE):
        return Diagnosis("being-created", Severity.NORMAL, "The side-car is not complete, and was written just now.")
    if not evidence.size and record is None and (slot is None or slot.sequence == slot.offset == 0):
        return _diagnose_torn_creation()
    if record is not None:
        what = f"Both slots of the side-car are damaged, so the offset of {_name_of(record)} is lost"
        kind = "slots-damaged"
    elif slot is not None:
        what, kind = (
            "The creation record in the side-car is damaged, so the name and the owner of the file are lost",
            "record-damaged",
        )
    else:
        what, kind = "The whole side-car is damaged", "sidecar-damaged"
    nothing_lost = not evidence.size and (
        slot is None or slot.offset == 0 or slot.state in (State.ACCEPTED, State.TERMINATED)
    )
    return Diagnosis(
        kind,
        Severity.DAMAGE,
        f"{what}. Clients must start again ({evidence.summary}).",
        Cure.REMOVE if nothing_lost else Cure.SET_ASIDE,
    )


def _diagnose_torn_creation() -> Diagnosis:
    return Diagnosis(
        "creation-torn",
        Severity.NOTICE,  # the crash of a process can leave it, and no counted byte is lost
        "The process creating this upload crashed before any data arrived.",
        Cure.REMOVE,
    )


def _diagnose_slots(evidence: Evidence) -> Iterator[Diagnosis]:
    content = evidence.content or b""
    for start in (0, SLOT_SIZE):
        part = content[start : start + SLOT_SIZE]
        if part.strip(b"\0") and slot_of(part.ljust(SLOTS_SIZE, b"\0")) is None:
            yield Diagnosis(
                "slot-torn",
                Severity.NORMAL,
                "One of the two slots was not completely written. The other one is valid, and the next change replaces "
                "the torn one.",
            )


def _contradiction_in(slot: Slot) -> str | None:
    if slot.length is not None and slot.offset > slot.length:
        return "The record counts more bytes than the length of the upload"
    if slot.state not in (State.RECEIVING, State.TERMINATED) and slot.offset != slot.length:
        return "The upload is marked as complete, but not all its bytes are counted"
    return None


def _diagnose_data(evidence: Evidence, slot: Slot, record: Upload) -> Iterator[Diagnosis]:
    upload = upload_of(record, slot)
    if slot.state == State.ACCEPTED:
        yield from _diagnose_accepted(evidence, upload)
        return
    if upload.has_expired(evidence.now):
        yield Diagnosis("expired", Severity.NORMAL, f"The next sweep, or tus clean, removes it ({evidence.summary}).")
    if evidence.data is None:
        yield _diagnose_missing_data(evidence, upload, slot)
    elif evidence.size < slot.offset and slot.state == State.REJECTED:
        yield Diagnosis("data-short", Severity.NOTICE, f"A rejected file is no longer whole ({evidence.summary}).")
    elif evidence.size < slot.offset:
        yield _diagnose_short_data(evidence, upload)
    elif evidence.size > slot.offset and slot.state == State.RECEIVING:
        yield Diagnosis(
            "uncounted-bytes",
            Severity.NORMAL,
            f"{evidence.size - slot.offset} bytes are stored but not counted: they wait for their checksum, parts are "
            "being concatenated, a process crashed in between, or the machine was restarted before they were forced to "
            "the disk. The next request replaces them.",
        )
    elif evidence.size > slot.offset:
        yield Diagnosis(
            "data-long",
            Severity.DAMAGE,
            f"Another program has written to the data: it is longer than the upload ({evidence.summary}).",
            reason="decide whether the bytes at its end belong to it, and cut them off if not",
        )


def _diagnose_accepted(evidence: Evidence, upload: Upload) -> Iterator[Diagnosis]:
    if upload.has_expired(evidence.now):
        if evidence.data is not None:
            yield Diagnosis(
                "accepted-data",
                Severity.NOTICE,
                "The application has accepted this file, and the time to keep it is over.",
                Cure.REMOVE,
            )
        else:
            yield Diagnosis("expired", Severity.NORMAL, "The time to keep the record of an accepted upload is over.")
    elif evidence.data is not None:
        yield Diagnosis(
            "accepted-data",
            Severity.NORMAL,
            "The application has accepted this file, and the data is still here: keep_finished is set, or the process "
            "crashed before it removed the data. A sweep removes it with its record.",
        )


def _diagnose_missing_data(evidence: Evidence, upload: Upload, slot: Slot) -> Diagnosis:
    if slot.sequence == 0 and slot.offset == 0:
        if evidence.has_changed_within(GRACE):
            return Diagnosis(
                "being-created", Severity.NORMAL, "The side-car was written just now, and the data is missing."
            )
        return _diagnose_torn_creation()
    if upload.state == State.HANDING_OVER and evidence.has_changed_within(evidence.longest_hand_over):
        return Diagnosis(
            "being-taken",
            Severity.NORMAL,
            "An application has moved the data away, and has not accepted the file yet.",
        )
    taken = upload.is_pending
    return Diagnosis(
        "data-missing",
        Severity.DAMAGE,
        (
            "The file was complete, and an application has moved it away without accepting it"
            if taken
            else "Another program has removed the data"
        )
        + f". Clients must start again ({evidence.summary}, {_name_of(upload)}).",
        Cure.REMOVE,
    )


def _diagnose_short_data(evidence: Evidence, upload: Upload) -> Diagnosis:
    if upload.is_final:
        return Diagnosis(
            "data-short",
            Severity.DAMAGE,
            "After the parts were concatenated the machine crashed, or another program truncated the data "
            f"({evidence.summary}). Clients must start again.",
            Cure.SET_ASIDE,
        )
    return Diagnosis(
        "data-short",
        Severity.DAMAGE,
        "The machine crashed before the data was on the disk, or another program truncated the data "
        f"({evidence.summary}). Clients resume from the stored bytes; with fsync = always they must start again.",
        Cure.COUNT_BACK,
    )


def _diagnose_concatenation(
    evidence: Evidence, slot: Slot, record: Upload, is_there: Callable[[str], bool]
) -> Iterator[Diagnosis]:
    if slot.state == State.RECEIVING:
        gone = [part for part in record.parts if not is_there(part)]
        if gone:
            yield Diagnosis(
                "parts-missing",
                Severity.NOTICE,
                f"{len(gone)} of {len(record.parts)} parts of this concatenation are gone, so it is never completed.",
                reason="it has no data, and "
                + ("tus rm removes it" if slot.expires_at is None else "a sweep removes it when it expires"),
            )
    if not record.is_partial:
        return
    content = evidence.content or b""
    tail = content[sidecar.record_end(content) :]
    if len(tail) > MAX_WATCHERS * WATCHER_SIZE or any(not is_upload_id(watcher) for watcher in _watchers_in(tail)):
        yield Diagnosis(
            "watchers-garbled",
            Severity.DAMAGE,
            "The list of the concatenations that wait for this part has invalid ids, or too many.",
            Cure.TRIM_WATCHERS,
        )
        return
    if len(tail) % WATCHER_SIZE:
        yield Diagnosis(
            "watcher-torn",
            Severity.NORMAL,
            "The id of a concatenation that waits for this part was not completely written. The client retries.",
        )
    absent = [watcher for watcher in _watchers_in(tail) if not is_there(watcher)]
    if absent:
        yield Diagnosis(
            "watcher-absent",
            Severity.NORMAL,
            f"{len(absent)} of the concatenations that waited for this part no longer exist.",
        )


def _watchers_in(tail: bytes) -> list[str]:
    whole = len(tail) - len(tail) % WATCHER_SIZE
    return [tail[start : start + WATCHER_SIZE].decode("latin-1") for start in range(0, whole, WATCHER_SIZE)]


def good_watchers(content: bytes) -> bytes:
    """Return the valid watchers of a side-car, as its bytes."""
    tail = content[sidecar.record_end(content) :]
    return "".join(list(filter(is_upload_id, _watchers_in(tail)))[:MAX_WATCHERS]).encode()


def _name_of(upload: Upload) -> str:
    try:
        return _text(upload.filename)
    except BadRequest:  # its metadata is damaged
        return "a file without a name"


def _text(text: str) -> str:
    """Return a client's text without terminal control characters."""
    return repr(text) if not text.isprintable() or len(text) > 200 else text


#: Seconds for which an incomplete file may still be a creation in progress.
GRACE = 60.0


class Severity(StrEnum):
    """The severity of a finding."""

    DAMAGE = "damage"
    NOTICE = "notice"  # harms no upload, but may interest the operator
    NORMAL = "normal"  # a state that servers leave for a while


@dataclass(frozen=True, slots=True)
class Repair:
    """The repair of a finding.

    Attributes:
        words: a text for the operator before the repair, an imperative.
        done: a text for the operator after the repair, in the past.
        perform: repairs, and returns whether it was still necessary. It raises UploadLocked while another process uses
            the upload, and OSError if the system refuses.
    """

    words: str
    done: str
    perform: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding about a directory.

    Attributes:
        id: the id of the upload, or the name of a file that belongs to no upload.
        kind: a stable name.
        severity: see :class:`Severity`.
        explanation: the problem and its effect, for the operator.
        repair: the repair; None if none is safe.
        reason: why there is no repair, or what the operator must do.
    """

    id: str
    kind: str
    severity: Severity
    explanation: str
    repair: Repair | None = None
    reason: str = ""
