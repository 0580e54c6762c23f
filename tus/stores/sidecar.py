"""The bytes of a side-car file, ``<id>.tus``. Pure: bytes in, values out.

Two slots of 64 bytes, written in turn, say where the upload stands; the valid slot with the higher sequence is the
truth, so a torn write leaves the state before it. Behind them is the record that creation wrote and nobody changes,
and behind that the ids of the final uploads that wait for this part, one after the other. The file is created once
and never renamed or replaced: locks are taken on it, and a lock on a file that was replaced guards nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from struct import Struct
from zlib import crc32

from tus.models import State, Upload

SLOT_SIZE = 64
SLOTS_SIZE = 2 * SLOT_SIZE
WATCHER_SIZE = 32

_SLOT = Struct("<4sB?2xQQQqd12x")  # magic, state, writing, sequence, generation, offset, length or -1, expiry or 0
_CRC = Struct("<I")
_RECORD_HEAD = Struct("<4sII")  # magic, size, CRC-32
_STATES = {int(state): state for state in State}
_SLOT_MAGIC = b"tus1"
_RECORD_MAGIC = b"rec1"
RECORD_HEAD_END = SLOTS_SIZE + _RECORD_HEAD.size


class Damaged(Exception):
    """The bytes are not those of a whole side-car."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where an upload stands.

    Attributes:
        sequence: grows by one with each change; its parity is the slot's place in the file.
        generation: grows by one with each append session, so that an older one can tell that it was replaced.
        offset: bytes stored and counted.
        length: bytes announced, or None.
        state: see :class:`State`.
        expires_at: in seconds since 1970, or None.
        writing: whether a session is open, or has died. Nothing depends on it; it lets a takeover be seen as one.
    """

    sequence: int
    generation: int
    offset: int
    length: int | None
    state: State
    expires_at: float | None
    writing: bool = False

    def pack(self) -> bytes:
        """The 64 bytes of this slot."""
        length = -1 if self.length is None else self.length
        packed = _SLOT.pack(
            _SLOT_MAGIC,
            self.state,
            self.writing,
            self.sequence,
            self.generation,
            self.offset,
            length,
            self.expires_at or 0.0,
        )
        return packed + _CRC.pack(crc32(packed))

    @property
    def position(self) -> int:
        """Where in the file it is written."""
        return SLOT_SIZE * (self.sequence & 1)


def unpack_slots(data: bytes) -> Slot:
    """The slot that holds.

    Raises:
        Damaged: neither slot is whole.
    """
    best: Slot | None = None
    for start in (0, SLOT_SIZE):
        packed = data[start : start + _SLOT.size]
        if data[start + _SLOT.size : start + SLOT_SIZE] != _CRC.pack(crc32(packed)):
            continue
        magic, state, writing, sequence, generation, offset, length, expires_at = _SLOT.unpack(packed)
        if magic == _SLOT_MAGIC and state in _STATES and (best is None or sequence > best.sequence):
            known = None if length < 0 else length
            best = Slot(sequence, generation, offset, known, _STATES[state], expires_at or None, writing)
    if best is None:
        raise Damaged("neither slot of the side-car is whole")
    return best


def pack(upload: Upload, slot: Slot) -> bytes:
    """A whole new side-car."""
    record = json.dumps(
        {
            "id": upload.id,
            "created_at": upload.created_at,
            "metadata": upload.raw_metadata,
            "concat": upload.concat,
            "parts": upload.parts,
            "principal": upload.principal,
        }
    ).encode()
    slots = slot.pack() + bytes(SLOT_SIZE) if slot.position == 0 else bytes(SLOT_SIZE) + slot.pack()
    return slots + _RECORD_HEAD.pack(_RECORD_MAGIC, len(record), crc32(record)) + record


def record_end(data: bytes) -> int:
    """Where the creation record ends, in bytes from the start of the file, read from the first 140 bytes.

    Raises:
        Damaged: there is no record.
    """
    if len(data) < RECORD_HEAD_END:
        raise Damaged("the side-car is too short")
    magic, size, _ = _RECORD_HEAD.unpack_from(data, SLOTS_SIZE)
    if magic != _RECORD_MAGIC:
        raise Damaged("the side-car has no creation record")
    return RECORD_HEAD_END + int(size)


def unpack_record(data: bytes) -> Upload:
    """The creation record.

    Raises:
        Damaged: it is not whole.
    """
    end = record_end(data)
    record = data[RECORD_HEAD_END:end]
    if len(data) < end or crc32(record) != _RECORD_HEAD.unpack_from(data, SLOTS_SIZE)[2]:
        raise Damaged("the creation record is not whole")
    try:
        fields = json.loads(record.decode())
        return Upload(
            id=fields["id"],
            created_at=fields["created_at"],
            raw_metadata=fields["metadata"],
            concat=fields["concat"],
            parts=tuple(fields["parts"]),
            principal=fields["principal"],
        )
    except (ValueError, KeyError, TypeError):
        raise Damaged("the creation record is not one of this version") from None


def with_slot(upload: Upload, slot: Slot, path: str | None) -> Upload:
    """The upload as the slot has it, with the path of its data."""
    # Written out: dataclasses.replace() takes as long as the system calls around it.
    return Upload(
        upload.id,
        slot.offset,
        slot.length,
        upload.raw_metadata,
        upload.concat,
        upload.parts,
        slot.state,
        upload.created_at,
        slot.expires_at,
        path,
        upload.principal,
    )


def unpack_watchers(data: bytes) -> tuple[str, ...]:
    """The ids behind the creation record; one that was torn is left out."""
    tail = data[record_end(data) :]
    whole = len(tail) - len(tail) % WATCHER_SIZE
    return tuple(tail[i : i + WATCHER_SIZE].decode("ascii", "replace") for i in range(0, whole, WATCHER_SIZE))
