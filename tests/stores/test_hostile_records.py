"""Records with wrong types and absurd numbers, whole as they are: no sweep, list, look or check ends with them."""

import io
import itertools
import json
import os
import struct
import time
from contextlib import redirect_stdout
from pathlib import Path
from zlib import crc32

import pytest

from tus import Service
from tus.cli import main as cli
from tus.filesystem.ownership import Ownership
from tus.models import State, Upload
from tus.stores.directory import expiry, quota
from tus.stores.directory import record as files
from tus.stores.directory import record_format as sidecar
from tus.stores.directory.store import DirectoryStore
from tus.stores.interface import Limits
from tus.stores.slots import Slot

ID, PENDING, EXPIRED = "5" * 32, "e" * 32, "f" * 32
HUGE = 10**400
VALUES = [None, True, -1, HUGE, 1e308, float("inf"), float("nan"), "", "x", "\ud800", "a b c,,", [], [[]], {"a": []}]
FIELDS = ("id", "created_at", "metadata", "concat", "parts", "principal", "upload_path", "protocol", "origin")
STATES = (State.RECEIVING, State.COMPLETE, State.HANDING_OVER, State.REJECTED)
#: A field that a slot has, and numbers that no store writes.
NUMBERS = [
    ("sequence", 2**64 - 1),
    ("generation", 2**64 - 1),
    ("offset", 2**64 - 1),
    ("length", 2**63 - 1),
    ("length", 0),
    ("expires_at", float("nan")),
    ("expires_at", float("inf")),
    ("expires_at", -1.0),
    ("expires_at", 1e300),
    ("attempts", 2**32 - 1),
    ("since", float("nan")),
    ("since", 1e300),
    ("synced", 2**64 - 1),
    ("losses", 2**32 - 1),
]


RECORDS = [b"", b"{}", b"[]", b"1", b"[" * 100_000, b'{"a":' * 50_000, b"1" * 5000, b"\xff"]
ORIGINS = [["u"], [1, 2, 3, 4, 5], ["u", "POST", "", [["a", 1]], {}], ["u", "POST", "", [], {"a": 1}]]
OUTCOMES = [b"", b"[]", b"{}", b'{"error": 1, "answer": null}', b'{"error": null, "answer": [1, 2]}', b"[" * 100_000]
OUTCOMES += [b'{"error": null, "answer": ["200", "OK", [], ""]}', b'{"error": null, "answer": [200, "OK", [[1]], ""]}']


def framed(magic, text):
    """A text as a side-car has it; its checksum is right."""
    return struct.pack("<4sII", magic, len(text), crc32(text)) + text


def packed(upload_id, state, slot=None, **fields):
    """The bytes of a side-car whose slot and record say something else than any store writes."""
    upload = Upload(id=upload_id, created_at=time.time(), raw_metadata="filename eA==")
    data = sidecar.pack(upload, Slot(offset=3, length=3, state=state, since=1.0, attempts=1)._replace(**slot or {}))
    record = json.loads(data[sidecar.RECORD_HEAD_END :])
    return data[: sidecar.SLOTS_SIZE] + framed(b"rec1", json.dumps(record | fields).encode())


def hostile():
    """Yield ids and side-cars, each bad in another way."""
    ids = (f"{number:032x}" for number in itertools.count(1))
    for state, field, value in itertools.product(STATES, FIELDS, VALUES):
        yield (upload_id := next(ids)), packed(upload_id, state, **{field: value})
    for state, (field, value) in itertools.product(STATES, NUMBERS):
        yield (upload_id := next(ids)), packed(upload_id, state, slot={field: value})
    for state, text in itertools.product(STATES, RECORDS):
        yield (upload_id := next(ids)), packed(upload_id, state)[: sidecar.SLOTS_SIZE] + framed(b"rec1", text)
    for origin in ORIGINS:
        yield (upload_id := next(ids)), packed(upload_id, State.COMPLETE, origin=origin)
    for text in OUTCOMES:
        yield (upload_id := next(ids)), packed(upload_id, State.REJECTED) + framed(b"out1", text)


@pytest.fixture
def store(tmp_path):
    return DirectoryStore(str(tmp_path), limits=Limits(uploads=10_000))


@pytest.fixture
def place(tmp_path, store, monkeypatch):
    """A directory with hostile records, a good upload that is complete, and one that has expired."""
    monkeypatch.setattr(files.time, "sleep", lambda seconds: None)  # no record is being written now
    store.append(store.create(Upload(id=PENDING, length=3)), 0, b"abc")
    DirectoryStore(str(tmp_path), lifetime=1, clock=lambda: time.time() - 10**6).create(Upload(id=EXPIRED, length=5))
    for upload_id, content in hostile():
        for name, data in ((upload_id, b"abc"), (f"{upload_id}.tus", content)):
            (tmp_path / name).write_bytes(data)
            (tmp_path / name).chmod(0o600)
            os.utime(tmp_path / name, (1.0, 1.0))
    return tmp_path


def command(*arguments):
    output = io.StringIO()
    with redirect_stdout(output):
        status = cli.main(list(map(str, arguments)))
    return status, output.getvalue()


def test_they_are_listed_or_left_out(place, store):
    for found in (store.list(), store.pending(time.time() + 1, 10_000)):
        assert PENDING in [upload.id for upload in found]
    for arguments in (["ls"], ["ls", "--json"], ["clean", "--dry-run"]):
        status, output = command(*arguments, place)
        assert status == 0
        assert (EXPIRED if "clean" in arguments else PENDING) in output


def test_each_is_shown_or_refused(place, capsys):
    for upload_id, _ in itertools.islice(hostile(), 0, None, 11):
        assert cli.main(["show", "--dir", str(place), upload_id]) in (0, 1)


def test_a_sweep_goes_past_them(place, store, caplog):
    assert store.sweep() >= 1
    assert not os.path.lexists(place / EXPIRED)
    assert os.path.lexists(place / PENDING)
    assert store.statistics().pending >= 1
    assert not caplog.records, "each is either believed or not"


def test_the_backlog_goes_past_them(place):
    service = Service(tmp_file_dir=str(place), on_finished=lambda upload: None, threads=False)
    service.backlog.look()
    offered = {upload.id: str(outcome) for upload, outcome in service.backlog.run(everything=True)}
    service.close()
    assert offered[PENDING] == "accepted"
    assert set(offered.values()) <= {"accepted", "postponed"}


def test_a_check_goes_past_them(place, store):
    for arguments in (["fsck", "--json"], ["fsck", "--repair"], ["fsck"]):
        status, output = command(*arguments, place)
        assert status in (0, 1)
        assert "damage" in output
    assert {PENDING, EXPIRED} <= {upload.id for upload in store.list()}


def test_a_sidecar_of_another_upload_does_not_stand_for_it(tmp_path, store):
    """Or a request for one upload would change another one."""
    upload = store.create(Upload(length=3, principal="ann"))
    (tmp_path / f"{ID}.tus").write_bytes(Path(upload.path + ".tus").read_bytes())
    (tmp_path / f"{ID}.tus").chmod(0o600)
    (tmp_path / ID).touch(0o600)
    assert [found.id for found in store.list()] == [upload.id]


BAD_COUNTS = [b"[]", b"[" * 100_000, b'{"uploads": Infinity, "size": 0, "each": false}']
BAD_COUNTS += [b'{"uploads": -5, "size": 0, "each": false}', b'{"uploads": 0, "size": 1e999, "each": false}']
BAD_COUNTS += [b'{"uploads": 0, "size": 0, "each": {"a": [1, 2]}}']


@pytest.mark.parametrize("damage", BAD_COUNTS)
def test_damaged_counts_are_counted_again(tmp_path, store, damage):
    store.create(Upload(length=3))
    (tmp_path / quota.NAME).write_bytes(damage)
    store.create(Upload(length=4))
    assert (store._quota.read().uploads, store._quota.read().size) == (2, 7)


@pytest.mark.parametrize(
    "damage", [b"[]", b"[" * 4096, b'{"swept_at": "x"}', b'{"swept_at": NaN}', b'{"swept_at": 1, "accepted": -1}']
)
def test_damaged_statistics_are_none(tmp_path, store, damage):
    (tmp_path / expiry.NAME).write_bytes(damage)
    (tmp_path / expiry.NAME).chmod(0o600)
    assert expiry.read_statistics(str(tmp_path), Ownership()) is None
    store.create(Upload(length=3))
    store.sweep()
    assert store.statistics().unfinished == 1
