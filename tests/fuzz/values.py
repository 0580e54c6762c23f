"""What is parsed elsewhere than in heads: single fields, side-cars, entries of the spool, replies to webhooks."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from struct import Struct
from typing import Any
from zlib import crc32

from tests.fuzz.heads import FIELDS, Maker
from tests.fuzz.sites import Finding
from tus.checksums import Hashed
from tus.errors import RequestError
from tus.handover.spool_entries import new_record, unpack_record
from tus.hooks import tusd
from tus.http import conditions, digests, disposition, headers, origins, structured
from tus.models import HookType, Origin, Request, Response, State, Upload
from tus.options import Options
from tus.protocols import forwarded, hook_replies, idempotency
from tus.protocols.tus1.replies import appended
from tus.stores.directory import record_format
from tus.stores.ledger import trust
from tus.stores.slots import Slot

ID = "0123456789abcdef" * 2
_OPTIONS = Options.build(tmp_file_dir="x", trusted_proxies="10.0.0.0/8 unix")


def _digest(text: str) -> object:
    return digests.format_digest(digests.parse_digest(text))


def _public_url(text: str) -> object:
    names = ("Forwarded", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Prefix", "X-Forwarded-For")
    for name in names:
        request = Request("POST", "http://a/files", {name: text, "X-Forwarded-For": text}, peer="10.0.0.1")
        url = forwarded.public_url(request.url, request, _OPTIONS)
        assert url.isprintable(), url
    return None


#: The parsers of a field, each with the exceptions that it announces.
PARSERS: tuple[tuple[Callable[[str], object], tuple[type[Exception], ...]], ...] = (
    (structured.parse_boolean, ()),
    (structured.parse_count, ()),
    (structured.parse_counts, ()),
    (structured.parse_string, ()),
    (structured.parse_bytes, ()),
    (_digest, ()),
    (disposition.parse_filename, ()),
    (conditions.parse_date, ()),
    (lambda text: conditions.parse_ranges(text, 5), ()),
    (lambda text: conditions.holds_for_range(text, f'"{ID}"', 5), ()),
    (headers.number_in, ()),
    (headers.parse_metadata, (RequestError,)),
    (headers.parse_concat, (RequestError,)),
    (lambda text: headers.parse_integer("X", text), (RequestError,)),
    (lambda text: headers.parse_checksum(text, {"sha1": 20}), (RequestError,)),
    (lambda text: idempotency.parse_key(text, None), (RequestError,)),
    (lambda text: origins.matches(text, ("https://*.example.org", "https://a.*.org")), ()),
    (_public_url, ()),
)


def check_field(text: str) -> None:
    """Give a field to every parser of fields."""
    for parse, announced in PARSERS:
        try:
            parse(text)
        except announced:
            pass
        except Exception as error:
            raise Finding(f"a parser fails: {error!r}\n{text[:200]!r}") from error


# -- Side-cars --

_PLAIN = Upload(
    id=ID, length=9, raw_metadata="filename YQ==", created_at=1.5, service="/files", origin=Origin("http://a/")
)
_RICH = Upload(
    id=ID, length=9, raw_metadata="a YQ==", concat="final;x", parts=(ID, ID), created_at=1.5, principal="ann",
    hashes=("sha256",), announced=(("sha256", bytes(32)),), fingerprint="f" * 32, protocol="ietf",
    origin=Origin("http://a/", "PUT", "/m", (("Content-Type", "a"),), {"user": "7"}),
)  # fmt: skip
_ANSWER = Response(200, "OK", [("A", "b")], (b"hi",))
SIDE_CARS = tuple(
    record_format.pack(upload, Slot(sequence=3, offset=9, length=9, state=state, attempts=2, expires_at=1e9)) + tail
    for upload in (_PLAIN, _RICH)
    for state in (State.RECEIVING, State.ACCEPTED, State.REJECTED)
    for tail in (b"", record_format.pack_outcome("no", _ANSWER), ID.encode() * 2)
)
_HEAD = Struct("<4sII")


def check_side_car(data: bytes) -> None:
    """Read a side-car in every way."""
    readers: tuple[Callable[[bytes], Any], ...] = (
        lambda data: _unpack(data, bytes(16)),
        lambda data: _unpack(data, bytes(range(16))),
        record_format.unpack_record,
        record_format.unpack_slots,
        record_format.unpack_watchers,
        record_format.unpack_hashed,
    )
    for read in readers:
        try:
            found = read(data)
            if isinstance(found, Upload):
                appended(found)
                found.has_expired(1e9)
            elif isinstance(found, Slot):
                record_format.pack_slot(found)
        except record_format.Damaged:
            pass
        except Exception as error:
            raise Finding(f"a side-car is neither read nor damaged: {error!r}\n{data!r}") from error


def _unpack(data: bytes, boot: bytes) -> Upload:
    return record_format.unpack_upload(data, trust(record_format.unpack_slots(data), boot), "/path")


def resealed(data: bytes, chance: random.Random) -> bytes:
    """Return a side-car whose checksums are right again, with a changed record, as another program could write it."""
    slots, rest = bytearray(data[: record_format.SLOTS_SIZE]), data[record_format.SLOTS_SIZE :]
    for start in (0, record_format.SLOT_SIZE):
        slots[start : start + 4] = b"tus1"
        end = start + record_format._SLOT_END
        slots[end : end + 4] = crc32(slots[start:end]).to_bytes(4, "little")
    if len(rest) < _HEAD.size:
        return bytes(slots) + rest
    magic, size, _ = _HEAD.unpack_from(rest)
    record, tail = rest[_HEAD.size : _HEAD.size + size], rest[_HEAD.size + size :]
    if chance.random() < 0.7:
        record = json_changed(record, chance)
    packed = bytes(slots) + _HEAD.pack(magic, len(record), crc32(record)) + record
    if len(tail) >= _HEAD.size:
        kept = json_changed(tail[_HEAD.size :], chance)
        tail = _HEAD.pack(tail[:4], len(kept), crc32(kept)) + kept
    return packed + tail


# -- JSON --

_STRANGE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 1e308, -1e308, 2**63, 2**64, 10**400, float("nan"), float("inf"), "", "a", "\ud800",
    "\0", "../x", "a" * 5000, [], [1], [None, "a"], {}, {"a": 1}, {"a": "b"}, {"A": "b\r\nC: d"}, "\x80", 1 << 4000,
    "application/x\x7f", [["a", "b"]], [["a"]], "99999999999999999999",
)  # fmt: skip
_KEYS = ("RejectUpload", "StopUpload", "HTTPResponse", "StatusCode", "Body", "Header", "ChangeFileInfo", "MetaData",
"ID",
         "Storage", "Path", "id", "origin", "parts", "answer", "error", "announced", "hashes", "a", "",
         "\ud800")  # fmt: skip


def changed(value: Any, chance: random.Random) -> Any:
    """Return JSON values with one change somewhere."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        name = chance.choice(list(value))
        pick = chance.random()
        if pick < 0.1:
            return {key: each for key, each in value.items() if key != name}
        if pick < 0.25:
            return value | {chance.choice(_KEYS): chance.choice(_STRANGE)}
        return value | {name: changed(value[name], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        place = chance.randrange(len(value))
        return [*value[:place], changed(value[place], chance), *value[place + 1 :]]
    return chance.choice(_STRANGE)


def json_changed(data: bytes, chance: random.Random) -> bytes:
    """Return JSON with a change of a value, or of a byte."""
    if chance.random() < 0.75:
        try:
            value = json.loads(data)
            for _ in range(chance.randrange(1, 4)):
                value = changed(value, chance)
            return json.dumps(value).encode()
        except ValueError:
            pass
    if chance.random() < 0.02:
        return data[:1] * chance.choice((3, 500, 200_000))
    return bytes_changed(data, chance)


def bytes_changed(data: bytes, chance: random.Random) -> bytes:
    """Return bytes with a few changes."""
    changing = bytearray(data)
    for _ in range(chance.randrange(1, 5)):
        place = chance.randrange(len(changing) + 1)
        pick = chance.random()
        if pick < 0.5 and place < len(changing):
            changing[place] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        elif pick < 0.7:
            changing[place:place] = chance.randbytes(chance.randrange(1, 9))
        elif pick < 0.85:
            del changing[place : place + chance.randrange(1, 20)]
        else:
            del changing[place:]
    return bytes(changing)


# -- Entries of the spool --

_FINISHED = Upload(
    id=ID, offset=9, length=9, raw_metadata="filename YQ==", created_at=1.5, digests=(("sha256", bytes(32)),)
)
ENTRY = json.dumps(new_record(_FINISHED, "key", 2.5) | {"done_at": 3, "error": "no", "principal": "ann"}).encode()


def check_entry(data: bytes) -> None:
    """Read the record of an entry."""
    try:
        record = unpack_record(data)
    except ValueError:
        return
    except Exception as error:
        raise Finding(f"an entry of the spool is neither read nor refused: {error!r}\n{data!r}") from error
    if "/" in record["filename"] or not 0 <= record["not_before"] < 2**64:
        raise Finding(f"an entry of the spool is accepted: {data!r}")


# -- Replies to webhooks --

REPLIES = (
    {"RejectUpload": True, "HTTPResponse": {"StatusCode": 403, "Body": "no", "Header": {"X-A": "b"}}},
    {"ChangeFileInfo": {"ID": ID, "MetaData": {"filename": "a"}, "Storage": {"Path": "b"}}},
    {"StopUpload": True, "HTTPResponse": {"StatusCode": 507}},
    {"RejectTermination": True, "HTTPResponse": {"Header": {"A-B": "c"}}},
)
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def check_reply(body: bytes) -> None:
    """Decode the reply of an endpoint, and let it have its effects."""
    for kind in HookType:
        try:
            reply = tusd.decode(body, kind)
        except ValueError:
            continue
        except Exception as error:
            raise Finding(f"a reply to a webhook is neither read nor refused: {error!r}\n{body!r}") from error
        try:
            draft = hook_replies.changed(_PLAIN, reply)
            draft.filename  # noqa: B018 - it is computed
            responses = [
                hook_replies.refusal(reply, "no"),
                hook_replies.rejection(reply),
                hook_replies.objection(reply),
            ]
            responses.append(hook_replies.merged(Response(204, "No Content"), reply))
        except Exception as error:
            raise Finding(f"a reply to a webhook has no effect: {error!r}\n{body!r}") from error
        for response in filter(None, responses):
            for name, value in response.headers:
                if not _VALUE.fullmatch(name + value):
                    raise Finding(f"a reply to a webhook makes a malformed field: {body!r}")


class Values:
    """Makes values from a seed, and checks each."""

    def __init__(self, seed: int | str) -> None:
        self._maker = Maker(seed)
        self._chance = self._maker.random
        self._checks = (self._field, self._side_car, self._entry, self._reply)

    def check(self) -> None:
        """Check one more value of each kind."""
        for check in self._checks:
            check()

    def _field(self) -> None:
        text = self._chance.choice(FIELDS[self._chance.choice(list(FIELDS))])
        check_field(self._maker.bytes_changed(text))

    def _side_car(self) -> None:
        data = self._chance.choice(SIDE_CARS)
        if self._chance.random() < 0.7:
            data = bytes_changed(data, self._chance)
        check_side_car(resealed(data, self._chance) if self._chance.random() < 0.7 else data)

    def _entry(self) -> None:
        check_entry(json_changed(ENTRY, self._chance))

    def _reply(self) -> None:
        check_reply(json_changed(json.dumps(self._chance.choice(REPLIES)).encode(), self._chance))


#: A digest in a side-car, whose size does not fit.
HASHED = record_format.pack_hashed(Hashed(9, True, bytes(32)))
