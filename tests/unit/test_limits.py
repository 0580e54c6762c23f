"""Limits: numbers and sizes of unfinished uploads, and room on the disk."""

import os
import time
from base64 import b64encode

import pytest

from tests.support.ietf import VERSIONS, Client
from tests.support.limits import COUNTS, counts, set_counts
from tests.support.subjects import REJECTS, SUBJECTS, AsgiSubject, FilterSubject
from tests.support.wsgi import call
from tus.errors import QuotaExceeded, StorageFull, TooLarge, TooManyUploads
from tus.filesystem.ownership import Ownership
from tus.models import Upload, is_upload_id
from tus.stores.charges import Charge, charge_of
from tus.stores.directory import space
from tus.stores.directory.quota import Limits, Quota
from tus.stores.directory.store import DirectoryStore
from tus.testing import Clock

ANN, BOB = {"X-User": "ann"}, {"X-User": "bob"}


def who(request, intent, upload):
    return request.headers.get("X-User")


@pytest.fixture(params=SUBJECTS)
def make(request, tmp_path):
    return lambda **options: request.param(tmp_file_dir=str(tmp_path), authorize=who, **options)


# -- Numbers and sizes --


def test_as_many_uploads_as_may_be(make, tmp_path):
    subject = make(max_uploads=2)
    urls = [subject.url(3), subject.url(3)]
    refused = subject.create(3)
    assert (refused.status, refused["Retry-After"]) == (429, "60")
    assert refused.get("Location") is None
    assert "unfinished" in refused.body.decode()
    assert len(list(tmp_path.glob("*.tus"))) == 2
    subject.patch(urls[0], 0, b"abc")  # an accepted one makes room
    third = subject.url(3)
    assert subject.create(3).status == 429
    subject.send("DELETE", third)  # and so does a removed one
    assert subject.create(3).status == 201


def test_as_many_bytes_as_may_be(make, tmp_path):
    subject = make(max_total_size="10")
    assert subject.create(11).status == 413
    url = subject.url(6)
    refused = subject.create(5)
    assert (refused.status, refused["Retry-After"]) == (507, "60")
    assert subject.create(4).status == 201
    assert subject.create(0).status == 201
    assert subject.create(1).status == 507
    subject.patch(url, 0, b"abcdef")
    assert subject.create(6).status == 201
    assert counts(tmp_path)["size"] == 10


@pytest.mark.parametrize(
    ("limits", "largest"),
    [({"max_size": 9}, 9), ({"max_total_size": 9}, 9), ({"max_size": 9, "max_total_size": 20}, 9)]
    + [({"max_size": 20, "max_total_size": 9}, 9), ({}, None)],
)
def test_the_largest_upload_that_can_be_is_told(make, limits, largest):
    subject = make(**limits)
    assert subject.send("OPTIONS").headers.get("tus-max-size") == (str(largest) if largest else None)
    reply = call(subject.app, "OPTIONS", "/files", {"Upload-Draft-Interop-Version": "8"})
    assert [limit for limit in reply["Upload-Limit"].split(", ") if limit.startswith("max-size=")] == (
        [f"max-size={largest}"] if largest else []
    )
    assert subject.create(largest or 99).status == 201
    assert not largest or subject.create(largest + 1).status == 413


def test_each_principal_has_its_own(make):
    subject = make(max_uploads_per_principal=1, max_total_size_per_principal=10)
    url = subject.url(3, ANN)
    assert subject.create(3, ANN).status == 429
    assert subject.create(3, BOB).status == 201
    assert subject.create(11, {"X-User": "eve"}).status == 413
    for _ in range(5):  # nobody in particular has none
        assert subject.create(11).status == 201
    subject.patch(url, 0, b"abc", ANN)
    assert subject.create(10, ANN).status == 201


def test_a_refused_creation_reads_no_byte_and_leaves_nothing(make, tmp_path):
    subject = make(max_uploads=1)
    subject.url(3)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert subject.create(3, {}, b"abc").status == 429
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert counts(tmp_path)["uploads"] == 1
    assert subject.landed == []


def test_a_failed_hand_over_still_counts(make):
    subject = make(max_uploads=1)
    subject.fail = "503 Later"
    url = subject.url(3)
    assert subject.patch(url, 0, b"abc").status == 503
    assert subject.create(3).status == 429
    subject.fail = None
    assert subject.patch(url, 3).status == 204
    assert subject.create(3).status == 201


def test_a_deferred_length_counts_by_what_comes_and_then_as_it_is_settled(make, tmp_path):
    subject = make(max_total_size=10)
    url = subject.url()
    assert counts(tmp_path)["size"] == 0
    subject.patch(url, 0, b"abcd")
    assert counts(tmp_path)["size"] == 4
    assert subject.create(7).status == 507
    assert subject.patch(url, 4, b"ef", {"Upload-Length": "11"}).status == 413
    assert subject.offset(url) == 4
    assert subject.patch(url, 4, b"ef", {"Upload-Length": "10"}).status == 204
    assert counts(tmp_path)["size"] == 10
    assert subject.create(1).status == 507
    subject.patch(url, 6, b"ghij")
    assert counts(tmp_path)["size"] == 0
    assert subject.create(10).status == 201


def test_settling_that_fails_counts_nothing(make, tmp_path):
    subject = make(max_total_size=10)
    url = subject.url()
    subject.url(8)
    assert subject.patch(url, 0, b"ab", {"Upload-Length": "3"}).status == 507
    assert subject.patch(url, 1, b"ab", {"Upload-Length": "2"}).status == 409
    assert counts(tmp_path) == {"uploads": 2, "size": 8, "each": {}}


def test_large_bodies_count_too(tmp_path):
    subject = FilterSubject(tmp_file_dir=str(tmp_path), max_total_size="1M")
    url = subject.url()
    data = bytes(200_000)
    assert subject.patch(url, 0, data).status == 204
    assert counts(tmp_path)["size"] == 200_000
    assert subject.patch(url, 200_000, data, length=300_000).status == 204  # cut
    assert counts(tmp_path)["size"] == 400_000
    assert subject.patch(url, 400_000, data, chunked=True).status == 204
    assert counts(tmp_path)["size"] == 600_000


MIB = 1 << 20


def stored_bytes(tmp_path):
    return sum(path.stat().st_size for path in tmp_path.iterdir() if is_upload_id(path.name))


@pytest.mark.parametrize("how", [{}, {"chunked": True}], ids=["content-length", "chunked"])
def test_a_deferred_length_is_no_way_around_the_limit(make, tmp_path, how):
    subject = make(max_total_size="1M")
    url = subject.url()
    assert subject.patch(url, 0, bytes(3 * MIB), **how).status == 507
    assert subject.offset(url) == stored_bytes(tmp_path) == counts(tmp_path)["size"] == MIB, "what fits is kept"
    assert subject.patch(url, MIB, b"a").status == 507
    assert subject.create(1).status == 507
    assert subject.patch(url, MIB, b"", {"Upload-Length": str(MIB)}).status == 204
    assert counts(tmp_path)["size"] == 0


def test_it_goes_on_where_it_stopped_once_there_is_room(make, tmp_path):
    subject = make(max_total_size="1M")
    other, url, data = subject.url(MIB // 2), subject.url(), os.urandom(MIB)
    assert subject.patch(url, 0, data).status == 507
    assert subject.offset(url) == MIB // 2
    subject.send("DELETE", other)
    assert subject.patch(url, MIB // 2, data[MIB // 2 :], {"Upload-Length": str(MIB)}).status == 204
    assert [landed for _, landed in subject.landed] == [data]


def test_a_creation_with_its_first_bytes_keeps_what_fits(make, tmp_path):
    subject = make(max_total_size="1M")
    reply = subject.create(None, {}, bytes(3 * MIB))
    assert (reply.status, reply["Upload-Offset"]) == (201, str(MIB))
    assert stored_bytes(tmp_path) == counts(tmp_path)["size"] == MIB


def test_unverified_bytes_are_charged_too(make, tmp_path):
    subject = make(max_total_size="1M")
    url = subject.url()
    checksum = {"Upload-Checksum": "sha1 " + b64encode(bytes(20)).decode()}
    assert subject.patch(url, 0, bytes(3 * MIB), checksum).status == 507
    assert (subject.offset(url), stored_bytes(tmp_path), counts(tmp_path)["size"]) == (0, 0, 0)
    assert subject.patch(url, 0, bytes(MIB // 2), checksum).status == 460
    assert (subject.offset(url), stored_bytes(tmp_path), counts(tmp_path)["size"]) == (0, 0, 0)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("complete", [True, False])
def test_an_ietf_upload_without_a_length_is_no_way_around_the_limit(tmp_path, version, complete):
    client = Client(FilterSubject(tmp_file_dir=str(tmp_path), max_total_size="1M"), version)
    client.create(bytes(3 * MIB), complete=complete, chunked=True)
    assert client.s.landed == []
    assert stored_bytes(tmp_path) == counts(tmp_path)["size"] <= MIB


def test_each_principal_is_charged_as_its_bytes_come(make, tmp_path):
    subject = make(max_total_size_per_principal="1M")
    url = subject.url(None, ANN)
    assert subject.patch(url, 0, bytes(3 * MIB), ANN).status == 507
    assert counts(tmp_path)["each"] == {"ann": [1, MIB]}
    assert subject.create(1, ANN).status == 507
    assert subject.create(MIB, BOB).status == 201


def test_a_charge_covers_more_than_one_block(tmp_path, monkeypatch):
    """The file of counts is opened once in 4 MiB, not at each block."""
    store = DirectoryStore(str(tmp_path), limits=Limits(size=1 << 40))
    upload = store.create(Upload())
    with store.open(upload, 0) as session:
        opened = []
        opening = os.open
        monkeypatch.setattr(
            os, "open", lambda path, *rest, **words: opened.append(path) or opening(path, *rest, **words)
        )
        for _ in range(160):
            session.write(bytes(64 << 10))
        assert sum(path.startswith(str(tmp_path)) for path in opened) <= 3
        assert counts(tmp_path)["size"] >= 10 << 20
    assert counts(tmp_path)["size"] == 10 << 20


def test_a_final_counts_beside_its_parts(make, tmp_path):
    subject = make(max_total_size=20)
    parts = [subject.url(5, {"Upload-Concat": "partial"}, b"abcde") for _ in range(2)]
    subject.fail = "503 Later"
    final = {"Upload-Concat": "final;" + " ".join(parts)}
    assert subject.send("POST", headers=final).status == 503
    assert counts(tmp_path) == {"uploads": 3, "size": 20, "each": {}}
    subject.fail = None
    for _ in range(2):  # the repeated request finds the same upload
        assert subject.send("POST", headers=final).status == 201
        assert counts(tmp_path) == {"uploads": 2, "size": 10, "each": {}}
    for part in parts:
        subject.send("DELETE", part)
    assert counts(tmp_path) == {"uploads": 0, "size": 0, "each": {}}


def test_one_part_many_times_is_no_way_around_the_limit(make, tmp_path):
    subject = make(max_total_size="1M")
    part = subject.url(9000, {"Upload-Concat": "partial"}, bytes(9000))
    assert subject.send("POST", headers={"Upload-Concat": "final;" + " ".join([part] * 200)}).status == 413
    subject.fail = "503 Later"
    final = {"Upload-Concat": "final;" + " ".join([part] * 100)}
    assert subject.send("POST", headers=final).status == 503
    assert subject.send("POST", headers=final | {"Upload-Metadata": "a YQ=="}).status == 507
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1 << 20


def test_parts_without_a_length_are_charged_to_their_final_once_it_is_known(make, tmp_path):
    subject = make(max_total_size=24)
    part = subject.url(None, {"Upload-Concat": "partial"})
    final = subject.send("POST", headers={"Upload-Concat": f"final;{part} {part} {part}"})
    assert final.status == 201
    assert subject.patch(part, 0, b"abcdefg", {"Upload-Length": "7"}).status == 507  # 28 bytes
    assert subject.offset(part) == 7
    assert (counts(tmp_path)["size"], subject.landed) == (7, [])


@pytest.mark.parametrize("kind", [FilterSubject, AsgiSubject])
def test_rejected_files_count_as_long_as_they_are_kept(kind, tmp_path):
    subject = kind(tmp_file_dir=str(tmp_path), max_total_size="1M", max_uploads=1)
    subject.fields.append(REJECTS)
    data = bytes(300 << 10)
    assert [subject.create(len(data), body=data).status for _ in range(5)][3:] == [507, 507]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1 << 20
    assert counts(tmp_path)["uploads"] == 0


def test_kept_files_count_as_long_as_they_are_kept(make, tmp_path):
    subject = make(max_total_size=20, keep_finished=True)
    url = subject.url(15, body=bytes(15))
    assert counts(tmp_path) == {"uploads": 0, "size": 15, "each": {}}
    assert subject.create(6).status == 507
    assert subject.send("DELETE", url).status == 204
    assert counts(tmp_path)["size"] == 0


def test_what_exists_is_found_also_where_there_is_room_for_no_more(make):
    subject = make(max_uploads=3)
    parts = [subject.url(5, {"Upload-Concat": "partial"}, b"abcde") for _ in range(2)]
    final = {"Upload-Concat": "final;" + " ".join(parts)}
    subject.fail = "503 Later"
    for _ in range(2):
        assert subject.send("POST", headers=final).status == 503
    assert subject.create(1).status == 429
    subject.fail = None
    assert subject.send("POST", headers=final).status == 201


def test_removing_an_accepted_record_does_not_count_twice(make, tmp_path):
    subject = make(max_uploads=5)
    url, other = subject.url(1), subject.url(1)
    subject.patch(url, 0, b"a")
    assert subject.send("DELETE", url).status == 204
    assert counts(tmp_path)["uploads"] == 1
    assert subject.offset(other) == 0


LIMITS = Limits(uploads=3, size=100, uploads_each=2, size_each=60)


def stored(tmp_path, **options):
    return DirectoryStore(str(tmp_path), limits=LIMITS, **options)


def test_expiry_makes_room(tmp_path):
    clock = Clock()
    store = stored(tmp_path, lifetime=60, completed_keep=10, clock=clock)
    for principal in ("ann", "bob", None):
        store.create(Upload(length=1, principal=principal))
    with pytest.raises(TooManyUploads):
        store.create(Upload(length=1))
    clock.now += 61
    with pytest.raises(TooManyUploads):  # nobody has looked yet
        store.create(Upload(length=1))
    assert store.sweep() == 3
    assert counts(tmp_path) == {"uploads": 0, "size": 0, "each": {}}
    upload = store.create(Upload(length=1, principal="ann"))
    store.append(upload, 0, b"a")
    store.claim(upload).accept()
    clock.now += 61
    assert store.sweep() == 1  # the record of an accepted one: it was counted off before
    assert counts(tmp_path)["uploads"] == 0


@pytest.mark.parametrize("damage", [None, b"", b"{", b"[]", b'{"uploads": 1}', b'{"uploads":"x","size":0,"each":true}'])
def test_a_counter_that_is_missing_or_damaged_is_made_anew(tmp_path, damage):
    store = stored(tmp_path)
    store.create(Upload(length=40, principal="ann"))
    accepted = store.create(Upload(length=1, principal="ann"))
    store.append(accepted, 0, b"a")
    store.claim(accepted).accept()
    path = tmp_path / COUNTS
    path.unlink() if damage is None else path.write_bytes(damage)
    with pytest.raises(QuotaExceeded):
        store.create(Upload(length=30, principal="ann"))
    store.create(Upload(length=20, principal="ann"))
    assert counts(tmp_path) == {"uploads": 2, "size": 60, "each": {"ann": [2, 60]}}


def test_the_sweeper_corrects_what_a_crash_left_wrong(tmp_path):
    store = stored(tmp_path)
    kept = store.create(Upload(length=40, principal="ann"))
    set_counts(tmp_path, 3, 99, ann=(2, 60), eve=(1, 7))
    with pytest.raises(TooManyUploads):
        store.create(Upload(length=1))
    store.sweep()
    assert counts(tmp_path) == {"uploads": 1, "size": 40, "each": {"ann": [1, 40]}}
    set_counts(tmp_path, 0, 0, ann=(0, 0))
    store.sweep()
    assert counts(tmp_path) == {"uploads": 1, "size": 40, "each": {"ann": [1, 40]}}
    assert store.load(kept.id).length == 40


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_changes_while_a_sweep_counts_is_neither_lost_nor_counted_twice(tmp_path, monkeypatch, when):
    from tus.stores.directory import expiry

    store = stored(tmp_path, clock=time.time)
    first, second = store.create(Upload(length=10, principal="ann")), store.create(Upload())
    ids_in = expiry.ids_in

    def meanwhile(directory):
        if when == "after":  # all that the sweep sees, and then the changes
            yield from list(ids_in(directory))
        store.create(Upload(length=20, principal="bob"))
        store.append(second, 0, bytes(5))
        store.remove(first.id)
        if when == "before":
            yield from list(ids_in(directory))

    monkeypatch.setattr(expiry, "ids_in", meanwhile)
    store.sweep()
    assert counts(tmp_path) == {"uploads": 2, "size": 25, "each": {"bob": [1, 20]}}


def test_a_session_over_a_sweep(tmp_path):
    """A sweep counts what is stored, so that a session has nothing to give back after it."""
    store = stored(tmp_path)
    upload, other = store.create(Upload()), store.create(Upload(length=50))
    with store.open(upload, 0, staged=True) as session:
        session.write(bytes(20))
        store.remove(upload.id)
        store.sweep()
    assert counts(tmp_path)["size"] == 50
    store.remove(other.id)
    assert counts(tmp_path)["size"] == 0


def test_the_file_never_gets_shorter_in_between(tmp_path):
    quota = Quota(str(tmp_path / "counts"), Limits(uploads=1000), lambda: (), Ownership())
    uploads = [Upload(length=10**9, principal=f"user {number}") for number in range(200)]
    for upload in uploads:
        with quota.charge_creation(upload, "an id"):
            pass
    size = (tmp_path / "counts").stat().st_size
    for upload in uploads:
        quota.end(upload, charge_of(upload), Charge())
    assert (tmp_path / "counts").stat().st_size == size
    assert quota.read().uploads == 0
    assert set(quota.read(*(upload.principal for upload in uploads)).each.values()) <= {(0, 0)}


def test_without_limits_there_is_no_counter(make, tmp_path):
    subject = make()
    subject.patch(subject.url(1), 0, b"a")
    assert not (tmp_path / COUNTS).exists()


# -- Room on the disk --


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """A disk of 32 MiB, as far as anybody can tell who looks for room."""

    def free(self):
        return (32 << 20) - sum(os.stat(path).st_blocks * 512 for path in tmp_path.iterdir())

    monkeypatch.setattr(space.Space, "free", free)


def test_room_is_reserved_when_an_upload_is_created(tmp_path):
    store = DirectoryStore(str(tmp_path), keep_free=1)
    upload = store.create(Upload(length=64 << 20))
    status = os.stat(tmp_path / upload.id)
    assert status.st_size == 0  # the size says what has come
    assert status.st_blocks * 512 >= 64 << 20
    assert store.load(upload.id).offset == 0
    store.append(upload, 0, b"x" * 1000)
    assert os.stat(tmp_path / upload.id).st_blocks * 512 >= 64 << 20
    store.sweep()
    assert 60 << 20 < store.statistics().reserved_bytes < 65 << 20
    store.remove(upload.id)


def test_what_does_not_fit_is_refused_before_its_first_byte(make, tmp_path, disk):
    subject = make(keep_free="1M")
    reply = subject.create(64 << 20, {}, b"abc", length=64 << 20)
    assert reply.status == 507
    assert reply.get("Location") is None
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == []
    assert subject.create(30 << 20).status == 201
    assert subject.create(2 << 20).status == 507
    assert subject.create(512 << 10).status == 201


def reserved(tmp_path, upload):
    return os.stat(tmp_path / upload.id).st_blocks * 512


def age(tmp_path, upload, monkeypatch):
    """Let two minutes pass without a byte, for this upload and for the process."""
    now = time.monotonic()
    os.utime(tmp_path / upload.id, (time.time() - 120,) * 2)
    monkeypatch.setattr(space.time, "monotonic", lambda: now + 120)


@pytest.mark.parametrize("first", [0, 5000])
@pytest.mark.parametrize("by", ["tend", "sweep"])
def test_a_reservation_without_bytes_is_given_back_and_made_again(tmp_path, monkeypatch, by, first):
    store = DirectoryStore(str(tmp_path), keep_free=1)
    upload = store.create(Upload(length=8 << 20))
    if first:
        with store.open(upload, 0) as session:
            session.write(bytes(first))
    getattr(store, by)()
    assert reserved(tmp_path, upload) >= 8 << 20, "not at once"
    age(tmp_path, upload, monkeypatch)
    getattr(store, by)()
    assert reserved(tmp_path, upload) <= 2 * first
    store.append(store.load(upload.id), first, b"a")
    assert reserved(tmp_path, upload) >= 8 << 20
    getattr(store, by)()
    assert reserved(tmp_path, upload) >= 8 << 20
    age(tmp_path, upload, monkeypatch)
    getattr(store, by)()
    assert reserved(tmp_path, upload) <= 2 * first + 4096
    assert store.load(upload.id).offset == first + 1


def test_no_reservation_is_left_behind_in_memory(tmp_path, monkeypatch):
    store = DirectoryStore(str(tmp_path), keep_free=1)
    done = store.create_whole(Upload(length=5000), bytes(5000))
    done.accept()
    removed = store.create(Upload(length=5000))
    store.remove(removed.id)
    now = time.monotonic()
    monkeypatch.setattr(space.time, "monotonic", lambda: now + 120)
    store.tend()
    assert store._policy.space._reserved == {}


def test_an_upload_whose_space_was_given_back_is_refused_before_its_next_byte(tmp_path, monkeypatch, disk):
    store = DirectoryStore(str(tmp_path), keep_free=1 << 20)
    upload = store.create(Upload(length=20 << 20))
    age(tmp_path, upload, monkeypatch)
    store.tend()
    other = store.create(Upload(length=20 << 20))
    with pytest.raises(StorageFull):
        store.open(store.load(upload.id), 0)
    store.remove(other.id)
    with store.open(store.load(upload.id), 0) as session:
        session.write(bytes(1000))


@pytest.mark.parametrize("length", [10**15, (1 << 62) - 1, 1 << 62, (1 << 63) - 1])
def test_an_absurd_length_does_not_fit(make, tmp_path, length):
    subject = make(keep_free="1M")
    assert subject.create(length).status in (413, 507)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == []
    url = subject.url()
    assert subject.patch(url, 0, b"a", {"Upload-Length": str(length)}).status in (413, 507)
    assert subject.offset(url) == 0


def test_a_reservation_that_does_not_fit_touches_nothing(tmp_path, monkeypatch, disk):
    monkeypatch.setattr(space, "_fallocate", lambda *_: pytest.fail("it would have filled the disk"))
    with pytest.raises(StorageFull):
        DirectoryStore(str(tmp_path), keep_free=1).create(Upload(length=64 << 20))


@pytest.mark.parametrize("length", [None, 24 << 20])
def test_the_room_is_looked_at_while_bytes_come(tmp_path, monkeypatch, length):
    """The disk fills up by others; 4 MiB are stored between two looks."""
    monkeypatch.setattr(space, "_fallocate", None)
    room = [25 << 20]
    monkeypatch.setattr(space.Space, "free", lambda self: room[0])
    store = DirectoryStore(str(tmp_path), keep_free=1 << 20)
    upload = store.create(Upload(length=length))
    with store.open(upload, 0) as session:
        session.write(bytes(MIB))
        room[0] = 1 << 19
        with pytest.raises(StorageFull):
            for _ in range(5):
                session.write(bytes(MIB))
        room[0] = 25 << 20
        session.write(bytes(MIB))
    assert 1 << 20 < store.load(upload.id).offset < 7 << 20


def test_a_disk_that_fills_up_while_bytes_come_keeps_what_came(make, tmp_path, monkeypatch):
    subject = make(keep_free="1M")
    monkeypatch.setattr(space.Space, "free", lambda self: (10 << 20) - stored_bytes(tmp_path))
    url = subject.url()
    reply = subject.patch(url, 0, bytes(20 << 20))
    assert reply.status == 507
    assert 4 << 20 < subject.offset(url) == stored_bytes(tmp_path) <= 13 << 20


def test_a_length_that_is_settled_later_is_reserved_then(tmp_path, disk):
    store = DirectoryStore(str(tmp_path), keep_free=1)
    upload = store.create(Upload(length=None))
    with pytest.raises(StorageFull):
        store.append(upload, 0, b"abc", 64 << 20)
    assert (store.load(upload.id).offset, store.load(upload.id).length) == (0, None)
    store.append(upload, 0, b"abc", 16 << 20)
    assert os.stat(tmp_path / upload.id).st_blocks * 512 >= 16 << 20


def test_without_a_length_the_room_is_looked_at(tmp_path):
    store = DirectoryStore(str(tmp_path), keep_free=1 << 60)
    upload = store.create(Upload(length=None))
    with pytest.raises(StorageFull):
        store.append(upload, 0, b"abc")
    with pytest.raises(StorageFull):
        store.open(upload, 0)


def test_bytes_that_were_not_counted_do_not_cost_the_reservation(tmp_path):
    store = DirectoryStore(str(tmp_path), keep_free=1)
    upload = store.create(Upload(length=8 << 20))
    with store.open(upload, 0, staged=True) as session:
        session.write(b"x" * 5000)
    assert os.stat(tmp_path / upload.id).st_size == 0
    assert os.stat(tmp_path / upload.id).st_blocks * 512 >= 8 << 20
    with (tmp_path / upload.id).open("wb") as file:  # what a process that died has left
        file.write(b"y" * 5000)
    store.append(upload, 0, b"z")
    assert os.stat(tmp_path / upload.id).st_blocks * 512 >= 8 << 20


@pytest.mark.parametrize("fallocate", [None, lambda *_: -1])
def test_where_nothing_can_be_reserved_the_room_is_looked_at(tmp_path, monkeypatch, disk, fallocate):
    monkeypatch.setattr(space, "_fallocate", fallocate)
    monkeypatch.setattr(space.ctypes, "get_errno", lambda: space.errno.EOPNOTSUPP)
    store = DirectoryStore(str(tmp_path), keep_free=1)
    with pytest.raises(StorageFull):
        store.create(Upload(length=64 << 20))
    assert list(tmp_path.iterdir()) == []
    assert os.stat(tmp_path / store.create(Upload(length=1 << 20)).id).st_blocks == 0


def test_a_limit_and_a_full_disk_together_count_nothing(tmp_path):
    store = DirectoryStore(str(tmp_path), keep_free=1 << 60, limits=LIMITS)
    with pytest.raises(StorageFull):
        store.create(Upload(length=50))
    assert counts(tmp_path) == {"uploads": 0, "size": 0, "each": {}}
    with pytest.raises(TooLarge):
        store.create(Upload(length=101))


# -- Numbers that no file can have --


def test_more_than_any_file_can_have(make):
    """2**63 - 1 bytes may come at offset 0, but not behind ten others."""
    subject, largest = make(), 2**63 - 1
    url = subject.url(None, ANN, b"0123456789")
    reply = subject.patch(url, 10, b"abc", ANN, length=largest)
    assert reply.status == 413
    assert str(largest) in reply.body.decode()
    ietf = {"Upload-Draft-Interop-Version": "8", "Upload-Complete": "?0"} | ANN
    url = subject.send("POST", headers=ietf, body=b"0123456789")["Location"]
    ends = ietf | {"Upload-Complete": "?1", "Upload-Offset": "10", "Content-Type": "application/partial-upload"}
    for headers in (ends, ends | {"Upload-Complete": "?0"}):
        reply = subject.send("PATCH", url, headers, b"abc", length=largest)
        assert (reply.status, reply["Upload-Complete"]) == (413, "?0")
    assert subject.send("PATCH", url, ends, b"abc").status // 100 == 2
    assert [data for _, data in subject.landed] == [b"0123456789abc"]


@pytest.mark.parametrize("length", ["9" * 4301, "9" * 20, "-1", "\xb2", "1, 1"])
def test_a_length_that_is_no_number(make, length):
    subject = make()
    url = subject.url(9, ANN)
    reply = subject.patch(url, 0, b"abc", ANN | {"Content-Length": length}, validate=False)
    assert (reply.status, reply["Tus-Resumable"]) == (400, "1.0.0")
    assert subject.head(url, ANN)["Upload-Offset"] == "0"


def test_without_their_limits_the_counts_do_not_grow_with_the_principals(tmp_path):
    store = DirectoryStore(str(tmp_path), limits=Limits(uploads=1000, size=1000))
    for number in range(50):
        store.create(Upload(length=1, principal=f"user {number}"))
    assert counts(tmp_path) == {"uploads": 50, "size": 50, "each": {}}
    store.sweep()
    assert counts(tmp_path)["each"] == {}
    other = DirectoryStore(str(tmp_path), limits=Limits(uploads_each=1))
    other.create(Upload(length=1, principal="ann"))
    store.create(Upload(length=1, principal="bob"))
    assert counts(tmp_path)["each"] == {"ann": [1, 1], "bob": [1, 1]}, "another service needs them"


def test_a_length_that_is_set_on_a_full_disk_counts(tmp_path, monkeypatch):
    """The record has it then, although only some of the bytes were stored."""
    store = DirectoryStore(str(tmp_path), limits=Limits(size=100))
    upload = store.create(Upload())
    monkeypatch.setattr(
        "tus.stores.directory.store.write_at", lambda fd, offset, block: os.pwrite(fd, block[:3], offset)
    )
    with pytest.raises(StorageFull):
        store.append(upload, 0, bytes(20), 40)
    stored = store.load(upload.id)
    assert (stored.offset, stored.length) == (3, 40)
    assert counts(tmp_path)["size"] == 40


def test_the_memory_of_reserved_space_has_a_largest_size(tmp_path, monkeypatch):
    monkeypatch.setattr(space, "_MOST_NOTED", 3)
    noted = space.Space(str(tmp_path), 1)
    for number in range(9):
        noted.note(str(number))
    monkeypatch.setattr(space, "RESERVED_FOR", 0.0)
    assert noted.take_due() == ["6", "7", "8"]
