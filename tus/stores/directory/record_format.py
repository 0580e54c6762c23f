"""The bytes of a side-car file, ``<id>.tus``. Pure: bytes in, values out.

A side-car consists of:

1. Two slots of 128 bytes, written in turn, with the state of the upload. The valid slot with the higher sequence
   counts, so after a torn write the previous state holds. Both are in one sector of a disk.
2. The record that creation wrote, which never changes.
3. Room for digests of the whole file, if any are wanted. They may be torn, because the file itself can be read.
4. In a part, the ids of the final uploads that wait for it. In any other upload, the outcome of its hand-over. It may
   be torn, because only texts depend on it.

The file is created once, and never renamed or replaced. It is locked, and a lock on a replaced file protects nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain
from struct import Struct
from sys import float_info
from typing import Any
from zlib import crc32

from tus.checksums import FILE_ALGORITHMS, Hashed
from tus.http.headers import MAX_INTEGER
from tus.models import PROTOCOLS, Origin, Response, State, Upload, is_upload_id
from tus.stores.slots import Slot

SLOT_SIZE = 128
SLOTS_SIZE = 2 * SLOT_SIZE
WATCHER_SIZE = 32

# magic, state, flags, sequence, generation, offset, length or -1, expiry or 0, attempts, since, synced, losses, boot
_SLOT = Struct("<4sBB2xQQQqdIdQI16s36x")
_WRITING, _UNKNOWN, _ASIDE, _ENDS_WITH_BOOT, _DURABLE = 1, 2, 4, 8, 16  # the flags; nearly every upload has none
_SEQUENCES = Struct("<8xQ112x8xQ112x")  # of both slots
_NO_SLOT = bytes(SLOT_SIZE)
_SLOT_AND_CRC = Struct(_SLOT.format + "I")
_SLOT_END = _SLOT.size
_CRC = Struct("<I")
_RECORD_HEAD = Struct("<4sII")  # magic, size, CRC-32
_STATES = {int(state): state for state in State}
_SLOT_MAGIC = b"tus2"
_NO_STATE = Slot()
_as_slot = partial(tuple.__new__, Slot)  # its own constructor is a function in Python
_RECORD_MAGIC = b"rec1"
_ROOMY_MAGIC = b"rec2"  # a record with room for digests behind it
_DIGESTS_MAGIC = b"dig1"
_OUTCOME_MAGIC = b"out1"
MAGICS = (_SLOT_MAGIC, _RECORD_MAGIC, _ROOMY_MAGIC)
_ROOM = 512  # bytes
_HASHED = Struct("<QB16s")  # offset, whether it is the whole file, boot
LARGEST_ANSWER = 64 << 10  # bytes; the body of a larger response is not kept
_LATEST = float_info.max  # a time; it excludes inf and nan
_MOST_TIMES = 1 << 31  # attempts or losses; more could not be counted on
_OPTIONAL_TEXT = (str, type(None))
RECORD_HEAD_END = SLOTS_SIZE + _RECORD_HEAD.size
_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
_quoted = json.encoder.encode_basestring_ascii


class Damaged(Exception):
    """The bytes are not a whole side-car."""


def pack_slot(slot: Slot) -> bytes:
    """Return the bytes of a slot."""
    flags = (_WRITING if slot.writing else 0) | (0 if slot.is_known else _UNKNOWN) | (_ASIDE if slot.is_aside else 0)
    if slot.ends_with_boot:
        flags |= _ENDS_WITH_BOOT
    if slot.is_durable:
        flags |= _DURABLE
    packed = _SLOT.pack(
        _SLOT_MAGIC,
        slot.state,
        flags,
        slot.sequence,
        slot.generation,
        slot.offset,
        -1 if slot.length is None else slot.length,
        slot.expires_at or 0.0,
        slot.attempts,
        slot.since,
        slot.synced,
        slot.losses,
        slot.boot,
    )
    return packed + _CRC.pack(crc32(packed))


def position_of(slot: Slot) -> int:
    """Return the position of a slot in the file."""
    return SLOT_SIZE * (slot.sequence & 1)


def unpack_slots(data: bytes) -> Slot:
    """Return the valid slot with the higher sequence.

    A slot with a number that no store writes is not valid, although its checksum is: later code computes with it.

    Raises:
        Damaged: neither slot is whole.
    """
    if len(data) < SLOTS_SIZE:
        data = data.ljust(SLOTS_SIZE, b"\0")
    first, second = _SEQUENCES.unpack_from(data)
    for start in (0, SLOT_SIZE) if first >= second else (SLOT_SIZE, 0):
        (
            magic, state, flags, sequence, generation, offset, length, expires_at,
            attempts, since, synced, losses, boot, crc,
        ) = _SLOT_AND_CRC.unpack_from(data, start)  # fmt: skip
        is_whole = crc == crc32(data[start : start + _SLOT_END]) and magic == _SLOT_MAGIC and state in _STATES
        if (
            is_whole
            and synced <= offset <= MAX_INTEGER
            and sequence <= MAX_INTEGER
            and generation <= MAX_INTEGER
            and attempts <= _MOST_TIMES
            and losses <= _MOST_TIMES
            and 0.0 <= expires_at <= _LATEST
            and 0.0 <= since <= _LATEST
        ):
            return _as_slot(
                (
                    sequence,
                    generation,
                    offset,
                    None if length < 0 else length,
                    _STATES[state],
                    expires_at or None,
                    flags & _WRITING != 0,
                    not flags & _UNKNOWN,
                    attempts,
                    since,
                    flags & _ASIDE != 0,
                    synced,
                    boot,
                    flags & _ENDS_WITH_BOOT != 0,
                    losses,
                    flags & _DURABLE != 0,
                )
            )
    raise Damaged("neither slot of the side-car is whole")


def pack(upload: Upload, slot: Slot) -> bytes:
    """Return a whole new side-car."""
    concat, principal, service = upload.concat, upload.principal, upload.service
    parts = ", ".join([_quoted(part) for part in upload.parts]) if upload.parts else ""
    # The same text as from json.dumps(), in a fifth of its time.
    text = (
        f'{{"id": "{upload.id}", "created_at": {upload.created_at!r}, "metadata": {_quoted(upload.raw_metadata)}, '
        f'"concat": {"null" if concat is None else _quoted(concat)}, "parts": [{parts}], '
        f'"principal": {"null" if principal is None else _quoted(principal)}, '
        f'"upload_path": {"null" if service is None else _quoted(service)}, "protocol": "{upload.protocol}"'
    )
    origin = upload.origin
    if origin is not None:  # nearly always it is its URL, and everything else has its default
        is_plain = not (origin.mount or origin.headers or origin.path_values or origin.method != "POST")
        text += f', "origin": {_quoted(origin.url) if is_plain else _pack_origin(origin)}'
    if upload.fingerprint:
        text += f', "fingerprint": {_quoted(upload.fingerprint)}'
    magic, room = _RECORD_MAGIC, b""
    if upload.hashes:
        magic, room = _ROOMY_MAGIC, bytes(_ROOM)
        announced = [(algorithm, digest.hex()) for algorithm, digest in upload.announced]
        text += f', "hashes": {json.dumps(upload.hashes)}, "announced": {json.dumps(announced)}'
    record = (text + "}").encode()
    packed = pack_slot(slot)
    slots = packed + _NO_SLOT if not slot.sequence & 1 else _NO_SLOT + packed
    return slots + _RECORD_HEAD.pack(magic, len(record), crc32(record)) + record + room


def _pack_origin(origin: Origin) -> str:
    return json.dumps([*origin[:-1], dict(origin.path_values)])


def _unpack_origin(packed: Any) -> Origin:
    url, method, mount, headers, path_values = packed
    origin = Origin(url, method, mount, tuple([(name, value) for name, value in headers]), dict(path_values))
    texts = (url, method, mount, *chain(*origin.headers), *chain(*origin.path_values.items()))
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("each value must be text")
    return origin


def record_end(data: bytes) -> int:
    """Return the position of the end of the creation record and the room behind it.

    The first :data:`RECORD_HEAD_END` bytes of the file are enough.

    Raises:
        Damaged: there is no record.
    """
    if len(data) < RECORD_HEAD_END:
        raise Damaged("the side-car is too short")
    magic, size, _ = _RECORD_HEAD.unpack_from(data, SLOTS_SIZE)
    if magic not in (_RECORD_MAGIC, _ROOMY_MAGIC):
        raise Damaged("the side-car has no creation record")
    return RECORD_HEAD_END + int(size) + (_ROOM if magic == _ROOMY_MAGIC else 0)


def unpack_record(data: bytes) -> Upload:
    """Return the upload as it was created.

    Raises:
        Damaged: the creation record is not whole.
    """
    return unpack_upload(data, _NO_STATE, None)


def unpack_upload(data: bytes, slot: Slot, path: str | None) -> Upload:
    """Return the upload of a side-car.

    Args:
        data: the bytes of the side-car.
        slot: what is certain of its slots.
        path: the path of the upload's data, if it is known.

    Raises:
        Damaged: the creation record is not whole.
    """
    if len(data) < RECORD_HEAD_END:
        raise Damaged("the side-car is too short")
    magic, size, crc = _RECORD_HEAD.unpack_from(data, SLOTS_SIZE)
    if magic != _RECORD_MAGIC and magic != _ROOMY_MAGIC:
        raise Damaged("the side-car has no creation record")
    record = data[RECORD_HEAD_END : RECORD_HEAD_END + size]
    if crc32(record) != crc or len(record) < size:
        raise Damaged("the creation record is not whole")
    try:
        fields, _ = _scan(record.decode(), 0)
        upload = Upload(
            id=fields["id"],
            offset=slot.offset,
            length=slot.length,
            raw_metadata=fields["metadata"],
            concat=fields["concat"],
            state=slot.state,
            created_at=fields["created_at"],
            expires_at=slot.expires_at,
            path=path,
            principal=fields["principal"],
            is_known=slot.is_known,
            attempts=slot.attempts,
            since=slot.since,
            is_aside=slot.is_aside,
            service=fields.get("upload_path"),
            protocol=fields.get("protocol", "tus"),
        )
        if (  # no calls, because every request comes through here
            upload.id.__class__ is not str
            or (path is not None and upload.id != path[-WATCHER_SIZE:])  # a side-car of another upload
            or upload.raw_metadata.__class__ is not str
            or upload.concat.__class__ not in _OPTIONAL_TEXT
            or upload.principal.__class__ not in _OPTIONAL_TEXT
            or upload.service.__class__ not in _OPTIONAL_TEXT
            or upload.protocol not in PROTOCOLS
            or not 0.0 <= upload.created_at <= _LATEST
        ):
            raise TypeError("a value is of another type")
        if parts := fields["parts"]:
            if not all(map(is_upload_id, parts)):
                raise ValueError("a part is no id")
            upload.parts = tuple(parts)
        if "origin" in fields:
            packed = fields["origin"]
            upload.origin = Origin(packed) if packed.__class__ is str else _unpack_origin(packed)
        if "fingerprint" in fields:
            upload.fingerprint = str(fields["fingerprint"])
        if magic == _ROOMY_MAGIC and fields["hashes"]:
            upload = _with_hashes(upload, fields, data)
    except (ValueError, KeyError, TypeError, StopIteration, RecursionError):
        raise Damaged("the creation record is not one of this version") from None
    is_decided = slot.attempts or slot.state == State.REJECTED  # a hook may reject an upload before its first attempt
    return with_outcome(upload, data) if is_decided else upload


def _with_hashes(upload: Upload, fields: dict[str, Any], data: bytes) -> Upload:
    """Return an upload with the digests that are wanted, announced and known."""
    upload.hashes = tuple(fields["hashes"])
    if not FILE_ALGORITHMS.issuperset(upload.hashes):
        raise ValueError("this version does not know these digests")
    upload.announced = tuple([(name, bytes.fromhex(digest)) for name, digest in fields["announced"]])
    return with_digests(upload, data)


def room_start(data: bytes) -> int:
    """Return the position for :func:`pack_hashed`, in a side-car that has room for it."""
    return record_end(data) - _ROOM


def pack_hashed(hashed: Hashed | None) -> bytes:
    """Return the bytes for the room behind the creation record; None overwrites the digests."""
    if hashed is None:
        return bytes(_RECORD_HEAD.size)
    packed = _HASHED.pack(hashed.offset, hashed.is_whole, hashed.boot) + hashed.values
    return _RECORD_HEAD.pack(_DIGESTS_MAGIC, len(packed), crc32(packed)) + packed


def unpack_hashed(data: bytes) -> Hashed | None:
    """Return the kept digests; None if there are none."""
    start = room_start(data)
    room = data[start : start + _ROOM]
    if len(room) < _ROOM:
        return None
    magic, size, crc = _RECORD_HEAD.unpack_from(room)
    packed = room[_RECORD_HEAD.size : _RECORD_HEAD.size + size]
    if magic != _DIGESTS_MAGIC or crc32(packed) != crc:
        return None
    if len(packed) < _HASHED.size:
        return None
    offset, is_whole, boot = _HASHED.unpack_from(packed)
    return Hashed(offset, bool(is_whole), packed[_HASHED.size :], boot)


def with_digests(upload: Upload, data: bytes) -> Upload:
    """Return a complete upload with its digests, as far as they are known."""
    hashed = unpack_hashed(data)
    if hashed is None or not hashed.is_whole or not upload.is_complete or hashed.offset != upload.offset:
        return upload
    return replace(upload, digests=hashed.digests(upload.hashes))


def pack_outcome(error: str | None, answer: Response | None) -> bytes:
    """Return the bytes of the outcome of a hand-over, which go behind the creation record.

    Args:
        error: the error text.
        answer: the application's response, with its body as a sequence. A body that is too long is left out.
    """
    kept = None
    if answer is not None:
        body = b"".join(answer.body)
        kept = [
            answer.status,
            answer.reason,
            answer.headers,
            body.decode("latin-1") if len(body) <= LARGEST_ANSWER else "",
        ]
    outcome = json.dumps({"error": error, "answer": kept}).encode()
    return _RECORD_HEAD.pack(_OUTCOME_MAGIC, len(outcome), crc32(outcome)) + outcome


def with_outcome(upload: Upload, data: bytes) -> Upload:
    """Return the upload with the outcome of its hand-over; unchanged if the outcome is torn or missing."""
    tail = data[record_end(data) :]
    if len(tail) < _RECORD_HEAD.size:
        return upload
    magic, size, crc = _RECORD_HEAD.unpack_from(tail)
    outcome = tail[_RECORD_HEAD.size : _RECORD_HEAD.size + size]
    if magic != _OUTCOME_MAGIC or crc32(outcome) != crc:
        return upload
    try:
        fields = json.loads(outcome)
        error, kept = fields["error"], fields["answer"]
        answer = None if kept is None else _unpack_answer(kept)
    except (ValueError, KeyError, TypeError, RecursionError):
        return upload
    return replace(upload, error=error, answer=answer) if error.__class__ in _OPTIONAL_TEXT else upload


def _unpack_answer(kept: Any) -> Response:
    status, reason, headers, body = kept
    if not 100 <= status <= 999 or body.__class__ is not str:
        raise ValueError("no response has these values")
    fields = [(str(name), str(value)) for name, value in headers]
    return Response(status, str(reason), fields, (body.encode("latin-1"),))


def unpack_watchers(data: bytes) -> tuple[str, ...]:
    """Return the ids behind the creation record, without a torn one."""
    tail = data[record_end(data) :]
    whole = len(tail) - len(tail) % WATCHER_SIZE
    return tuple(tail[i : i + WATCHER_SIZE].decode("ascii", "replace") for i in range(0, whole, WATCHER_SIZE))
