"""What is wrong with one upload of a directory, told from what lies there. Pure: bytes and file status in, words out.

Law of this room: a cure never destroys received bytes. What names no bytes may be removed; what holds some, and cannot
be trusted any more, is set aside for a person: ``<id>`` becomes ``<id>.damaged`` and ``<id>.tus`` becomes
``<id>.tus.damaged``, which no server looks at and no sweep removes.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from os import stat_result

from tus.models import State, Upload, is_upload_id
from tus.stores.directory import record_format as sidecar
from tus.stores.directory.record_format import SLOT_SIZE, SLOTS_SIZE, WATCHER_SIZE, Damaged
from tus.stores.ledger import MAX_WATCHERS
from tus.stores.slots import Slot, upload_of

#: No side-car is larger, in bytes; whatever is was not written by this package.
LARGEST_SIDECAR = 16 * 2**20


class Cure(StrEnum):
    """What can be done; the value is what an operator reads."""

    REMOVE = "remove what is left of it"
    SET_ASIDE = "rename its files to <id>.damaged and <id>.tus.damaged, for a person to look at"
    COUNT_BACK = "count what is stored, so that the client goes on from there"
    TRIM_WATCHERS = "drop those ids"
    PROTECT = "give both files the permissions that they are created with"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing that was found.

    Attributes:
        kind: a stable name.
        severity: see :class:`Severity`.
        explanation: what it is and what follows from it, for an operator.
        cure: what can safely be done, if anything.
        reason: why nothing is done, where that is not plain.
    """

    kind: str
    severity: Severity
    explanation: str
    cure: Cure | None = None
    reason: str = ""


@dataclass(frozen=True)
class Evidence:
    """What lies there under an upload's id, as it was read.

    Attributes:
        id: the name of the data.
        car: the status of the side-car itself, not of what it may link to.
        data: that of the data, None where there is none.
        content: the bytes of the side-car.
        now: seconds since 1970.
        longest_hand_over: seconds that an application may take with data that it has moved away.
    """

    id: str
    car: stat_result
    data: stat_result | None
    content: bytes
    now: float
    longest_hand_over: float
    slot: Slot | None = field(init=False)
    record: Upload | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "slot", slot_of(self.content))
        object.__setattr__(self, "record", _record_of(self.content))

    def changed_within(self, seconds: float) -> bool:
        """Whether the side-car was written in the last so many seconds."""
        return 0 <= self.now - self.car.st_mtime < seconds

    @property
    def size(self) -> int:
        """Bytes of data."""
        return self.data.st_size if self.data else 0

    @property
    def stands(self) -> str:
        """Where the upload stands, in words."""
        if self.slot is None:
            return f"{self.size} bytes of data are there"
        length = "an unknown number" if self.slot.length is None else str(self.slot.length)
        counted = f"{self.slot.offset} of {length} bytes counted"
        return f"{self.slot.state.name.lower()}, {counted}, {self.size} bytes of data there"


def slot_of(content: bytes) -> Slot | None:
    """The slot that holds, None where neither does."""
    try:
        return sidecar.unpack_slots(content)
    except Damaged:
        return None


def _record_of(content: bytes) -> Upload | None:
    try:
        return sidecar.unpack_record(content)
    except (Damaged, ValueError, LookupError, TypeError):  # whole, but not what this version writes
        return None


def diagnose(evidence: Evidence, is_there: Callable[[str], bool]) -> Iterator[Diagnosis]:
    """Everything that can be said about one upload; nothing for one at rest.

    Args:
        evidence: what lies there. Read under the side-car's lock, it is free of what a server is in the middle of.
        is_there: whether there is a side-car of this id.
    """
    foreign = _foreign(evidence)
    if foreign is not None:
        yield foreign
        return
    if evidence.slot is not None and evidence.slot.state == State.TERMINATED:
        yield Diagnosis(
            "removal-unfinished",
            Severity.NOTICE,
            "This upload was removed, and whoever did it died before all its files were gone; a sweep ends that too.",
            Cure.REMOVE,
        )
        return
    yield from _rights(evidence)
    if evidence.slot is None or evidence.record is None:
        yield _not_whole(evidence)
        return
    yield from _slots(evidence)
    slot, record = evidence.slot, evidence.record
    if record.id != evidence.id:
        yield Diagnosis(
            "id-differs",
            Severity.DAMAGE,
            f"The side-car is that of upload {_text(record.id)}, copied or renamed by hand; appending to it would "
            f"change that one ({evidence.stands}).",
            Cure.SET_ASIDE,
        )
    elif (impossible := _impossible(slot)) is not None:
        yield Diagnosis("numbers-impossible", Severity.DAMAGE, f"{impossible} ({evidence.stands}).", Cure.SET_ASIDE)
    else:
        yield from _data(evidence, slot, record)
        yield from _neighbours(evidence, slot, record, is_there)


def _foreign(evidence: Evidence) -> Diagnosis | None:
    for status, name in ((evidence.car, "side-car"), (evidence.data, "data")):
        if status is not None and not stat.S_ISREG(status.st_mode):
            what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no regular file"
            return Diagnosis(
                "not-regular",
                Severity.DAMAGE,
                f"In the place of the {name} is {what}, which no server opens.",
                reason="whoever put it there knows what it is",
            )
    if evidence.car.st_size > LARGEST_SIDECAR:
        return Diagnosis("not-ours", Severity.NOTICE, "It is larger than any side-car.", reason="tus did not write it")
    content = evidence.content  # zeros are what a file system may leave of one that was not on the disk
    if content.strip(b"\0") and not any(magic in content for magic in sidecar.MAGICS):
        return Diagnosis(
            "not-ours",
            Severity.NOTICE,
            "It has the name of a side-car, but nothing in it shows that tus wrote it.",
            reason="it may belong to another program",
        )
    return None


def _rights(evidence: Evidence) -> Iterator[Diagnosis]:
    if evidence.data is not None and evidence.data.st_uid != evidence.car.st_uid:
        yield Diagnosis(
            "owners-differ",
            Severity.DAMAGE,
            f"The side-car belongs to user {evidence.car.st_uid} and the data to user {evidence.data.st_uid}; a server "
            "can use them only if they are both its own.",
            reason="which of the two is the server is for you to say, by chown",
        )
    locked_out = evidence.data is not None and evidence.data.st_mode & 0o600 != 0o600
    if stat.S_IMODE(evidence.car.st_mode) != 0o600 or locked_out:
        yield Diagnosis(
            "mode",
            Severity.DAMAGE,
            "The permissions are not those that the files were created with: others could read or change the record, "
            "or their own server cannot.",
            Cure.PROTECT,
        )


def _not_whole(evidence: Evidence) -> Diagnosis:
    slot, record = evidence.slot, evidence.record
    if evidence.changed_within(GRACE):
        return Diagnosis("being-created", Severity.NORMAL, "The side-car is not whole, and was written just now.")
    if not evidence.size and record is None and (slot is None or slot.sequence == slot.offset == 0):
        return Diagnosis(
            "creation-torn",
            Severity.DAMAGE,
            "Whoever was creating this upload died over it. No byte of it is there.",
            Cure.REMOVE,
        )
    if record is not None:
        what = f"Neither slot of the side-car is whole, so nobody knows how far {_text(record.filename)} has come"
        kind = "slots-damaged"
    elif slot is not None:
        what, kind = (
            "The creation record in the side-car is not whole, so name and owner of the file are lost",
            "record-damaged",
        )
    else:
        what, kind = "Nothing in the side-car is whole", "sidecar-damaged"
    nothing_lost = not evidence.size and (
        slot is None or slot.offset == 0 or slot.state in (State.ACCEPTED, State.TERMINATED)
    )
    return Diagnosis(
        kind,
        Severity.DAMAGE,
        f"{what}; clients are told to begin again ({evidence.stands}).",
        Cure.REMOVE if nothing_lost else Cure.SET_ASIDE,
    )


def _slots(evidence: Evidence) -> Iterator[Diagnosis]:
    for start in (0, SLOT_SIZE):
        part = evidence.content[start : start + SLOT_SIZE]
        if part.strip(b"\0") and slot_of(part.ljust(SLOTS_SIZE, b"\0")) is None:
            yield Diagnosis(
                "slot-torn",
                Severity.NORMAL,
                "One of the two slots was not written to its end; the other one holds, and the next change mends it.",
            )


def _impossible(slot: Slot) -> str | None:
    if slot.length is not None and slot.offset > slot.length:
        return "More bytes are counted than the upload has"
    if slot.state not in (State.RECEIVING, State.TERMINATED) and slot.offset != slot.length:
        return "It is called complete, but its bytes are not all counted"
    return None


def _data(evidence: Evidence, slot: Slot, record: Upload) -> Iterator[Diagnosis]:
    upload = upload_of(record, slot)
    if slot.state == State.ACCEPTED:
        yield from _accepted(evidence, upload)
        return
    if upload.has_expired(evidence.now):
        yield Diagnosis("expired", Severity.NORMAL, f"The next sweep, or tus clean, removes it ({evidence.stands}).")
    if evidence.data is None:
        yield _without_data(evidence, upload, slot)
    elif evidence.size < slot.offset and slot.state == State.REJECTED:
        yield Diagnosis("data-short", Severity.NOTICE, f"A rejected file is not whole any more ({evidence.stands}).")
    elif evidence.size < slot.offset:
        yield _too_short(evidence, upload)
    elif evidence.size > slot.offset and slot.state == State.RECEIVING:
        yield Diagnosis(
            "uncounted-bytes",
            Severity.NORMAL,
            f"{evidence.size - slot.offset} bytes are stored but not counted: their checksum is awaited, parts are "
            "being joined, or somebody died in between. What is sent next replaces them.",
        )
    elif evidence.size > slot.offset:
        yield Diagnosis(
            "data-long",
            Severity.DAMAGE,
            f"Somebody else has written to the data: it is longer than the upload ({evidence.stands}).",
            reason="whether the bytes at its end belong to it is for you to say",
        )


def _accepted(evidence: Evidence, upload: Upload) -> Iterator[Diagnosis]:
    if upload.has_expired(evidence.now):
        if evidence.data is not None:
            yield Diagnosis(
                "accepted-data",
                Severity.NOTICE,
                "The application has taken this file, and the time for which it was to be kept here is over.",
                Cure.REMOVE,
            )
        else:
            yield Diagnosis("expired", Severity.NORMAL, "The record of an accepted upload was kept long enough.")
    elif evidence.data is not None:
        yield Diagnosis(
            "accepted-data",
            Severity.NORMAL,
            "The application has taken this file, and it is still here: keep_finished asks for that, or the process "
            "died before it had removed it. It goes with its record.",
        )


def _without_data(evidence: Evidence, upload: Upload, slot: Slot) -> Diagnosis:
    if slot.sequence == 0 and slot.offset == 0:
        if evidence.changed_within(GRACE):
            return Diagnosis(
                "being-created", Severity.NORMAL, "The side-car was written just now, the data is not there."
            )
        return Diagnosis(
            "creation-torn",
            Severity.DAMAGE,
            "Whoever was creating this upload died over it. No byte of it is there.",
            Cure.REMOVE,
        )
    if upload.state == State.HANDING_OVER and evidence.changed_within(evidence.longest_hand_over):
        return Diagnosis(
            "being-taken",
            Severity.NORMAL,
            "An application has moved the data away, and has not said yet that it accepts.",
        )
    taken = upload.is_pending
    return Diagnosis(
        "data-missing",
        Severity.DAMAGE,
        (
            "The file was complete, and an application has moved it away without saying that it accepts it"
            if taken
            else "Somebody else has removed the data"
        )
        + f"; clients are told to begin again ({evidence.stands}, {_text(upload.filename)}).",
        Cure.REMOVE,
    )


def _too_short(evidence: Evidence, upload: Upload) -> Diagnosis:
    if upload.is_final:
        return Diagnosis(
            "data-short",
            Severity.DAMAGE,
            f"The machine died, or somebody has cut the data, after the parts were joined ({evidence.stands}); clients "
            "are told to begin again.",
            Cure.SET_ASIDE,
        )
    return Diagnosis(
        "data-short",
        Severity.DAMAGE,
        f"The machine died before the data was on the disk, or somebody has cut it ({evidence.stands}). Clients go on "
        "from what is stored; under fsync = always they are told to begin again.",
        Cure.COUNT_BACK,
    )


def _neighbours(evidence: Evidence, slot: Slot, record: Upload, is_there: Callable[[str], bool]) -> Iterator[Diagnosis]:
    if slot.state == State.RECEIVING:
        gone = [part for part in record.parts if not is_there(part)]
        if gone:
            yield Diagnosis(
                "parts-missing",
                Severity.NOTICE,
                f"{len(gone)} of {len(record.parts)} parts of this concatenation are gone; it will never be complete.",
                reason="it holds no bytes, and "
                + ("tus rm removes it" if slot.expires_at is None else "goes when it expires"),
            )
    if not record.is_partial:
        return
    tail = evidence.content[sidecar.record_end(evidence.content) :]
    if len(tail) > MAX_WATCHERS * WATCHER_SIZE or any(not is_upload_id(watcher) for watcher in _whole(tail)):
        yield Diagnosis(
            "watchers-garbled",
            Severity.DAMAGE,
            "Among the ids of the concatenations that wait for this part are some that are none.",
            Cure.TRIM_WATCHERS,
        )
        return
    if len(tail) % WATCHER_SIZE:
        yield Diagnosis(
            "watcher-torn",
            Severity.NORMAL,
            "The id of a concatenation that wants this part was not written to its end; the client asks again.",
        )
    absent = [watcher for watcher in _whole(tail) if not is_there(watcher)]
    if absent:
        yield Diagnosis(
            "watcher-absent",
            Severity.NORMAL,
            f"{len(absent)} of the concatenations that waited for this part are there no more.",
        )


def _whole(tail: bytes) -> list[str]:
    whole = len(tail) - len(tail) % WATCHER_SIZE
    return [tail[start : start + WATCHER_SIZE].decode("latin-1") for start in range(0, whole, WATCHER_SIZE)]


def good_watchers(content: bytes) -> bytes:
    """The watchers of a side-car that are ids, one after the other."""
    tail = content[sidecar.record_end(content) :]
    return "".join(list(filter(is_upload_id, _whole(tail)))[:MAX_WATCHERS]).encode()


def _text(text: str) -> str:
    """Somebody else's text, so that it cannot speak to a terminal."""
    return repr(text) if not text.isprintable() or len(text) > 200 else text


#: Seconds after which files that are not whole are no longer taken for ones that somebody is making.
GRACE = 60.0


class Severity(StrEnum):
    """How much a finding means."""

    DAMAGE = "damage"
    NOTICE = "notice"  # harms no upload, but somebody may want to know
    NORMAL = "normal"  # a step that a server was at, or a trace of one


@dataclass(frozen=True, slots=True)
class Repair:
    """What can be done about a finding.

    Attributes:
        words: what that is, for an operator.
        perform: does it; returns whether it was still necessary. Raises UploadLocked while somebody is at work on the
            upload, and OSError where the system refuses.
    """

    words: str
    perform: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes:
        id: the upload's; the file's name where that is none.
        kind: a stable name.
        severity: see :class:`Severity`.
        explanation: what it is and what follows from it, for an operator.
        repair: what can be done, None where that is not safe.
        reason: why nothing is done, where that is not plain.
    """

    id: str
    kind: str
    severity: Severity
    explanation: str
    repair: Repair | None = None
    reason: str = ""
