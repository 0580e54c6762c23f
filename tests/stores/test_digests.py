"""Digests of whole files: computed on the way, carried over, announced, told; and how often a file is read for them."""

import functools
import hashlib
import json
import multiprocessing
import os
import random
import tempfile
from base64 import b64encode
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.subjects import PATH, SUBJECTS, FilterSubject, ViewSubject
from tests.support.waiting import GUARD
from tests.support.wsgi import call
from tus import Options
from tus.checksums import Hashed
from tus.cli.main import main
from tus.errors import ChecksumMismatch, OptionError, RequestError, StorageFull, UploadGone
from tus.filesystem.boot import boot_id
from tus.http.digests import format_digest, parse_digest
from tus.models import State, Upload
from tus.protocols.bodies import Body, Intake
from tus.server.reception import Reception
from tus.stores.directory import digests as digesting
from tus.stores.directory import record_format as sidecar
from tus.stores.directory.record import SideCar
from tus.stores.directory.record_format import MAGICS
from tus.stores.directory.store import DirectoryStore
from tus.stores.hashing import Hashing

DATA = random.Random(1).randbytes(300_000)
LENGTH = len(DATA)
BOTH = ("sha256", "sha512")


def digests_of(data, *algorithms):
    return tuple((name, hashlib.new(name, data).digest()) for name in algorithms or ("sha256",))


def field_of(data, *algorithms):
    return format_digest(digests_of(data, *algorithms))


@pytest.fixture
def read(monkeypatch):
    """The ranges of bytes that were read back."""
    ranges = []
    original = Hashing.read

    def counting(self, file, length):
        start = self.offset
        original(self, file, length)
        if self.offset > start:
            ranges.append((start, self.offset))

    monkeypatch.setattr(Hashing, "read", counting)
    return ranges


@pytest.fixture
def store(tmp_path):
    return DirectoryStore(str(tmp_path))


def made(store, length=LENGTH, *hashes):
    return store.create(Upload(length=length, hashes=hashes or ("sha256",)))


def send(store, upload, start, stop, block=10_000):
    """One request's worth."""
    with store.open(upload, start) as session:
        for offset in range(start, stop, block):
            session.write(DATA[offset : min(offset + block, stop)])
        return session.commit()


def finished(store, upload):
    """The digests that the application would see."""
    claim = store.claim(store.load(upload.id))
    try:
        return claim.digest().digests
    finally:
        claim.release()


# -- Fields --


@pytest.mark.parametrize(
    ("field", "digests"),
    [
        (field_of(b"a"), digests_of(b"a")),
        (field_of(b"a", *BOTH), digests_of(b"a", *BOTH)),
        (field_of(b"a") + ";q=1, md5=:AAAA:, unixsum=7", digests_of(b"a")),
        ("md5=:" + b64encode(bytes(16)).decode() + ":", ()),
        ("sha-256=:AAAA:", (("sha256", bytes(3)),)),
        ("sha-256=" + b64encode(bytes(32)).decode(), ()),
        ('sha-256="abc", ' + field_of(b"a", "sha512"), digests_of(b"a", "sha512")),
        (field_of(b"a") + ",,", ()),
        ("sha-256=(:AAAA:)", ()),
        ("sha-256", ()),
        ("", ()),
        ("\u20ac", ()),
        ("\xe4=:AAAA:", ()),
    ],
)
def test_a_field_is_parsed(field, digests):
    assert parse_digest(field) == digests


def test_a_field_is_formatted():
    assert format_digest((("sha256", bytes(32)),)) == f"sha-256=:{'A' * 43}=:"


@given(st.text(max_size=80))
def test_no_field_is_an_error(text):
    assert isinstance(parse_digest(text), tuple)


def test_the_option():
    def built(value):
        return Options.build(tmp_file_dir="x", digest=value).digest

    assert built("") == Options.build(tmp_file_dir="x").digest == ()
    assert built("sha-256") == built(["SHA256"]) == ("sha256",)
    assert built("sha-512, sha-256 sha512") == ("sha512", "sha256")
    for bad in ("md5", "sha-1", 7):
        with pytest.raises(OptionError, match="sha-256, sha-512"):
            built(bad)


# -- On the way, and at the end --


def test_what_came_in_several_requests_is_read_once(store, read, tmp_path):
    upload = made(store, LENGTH, *BOTH)
    send(store, upload, 0, 100_000)
    upload = DirectoryStore(str(tmp_path)).load(upload.id)
    send(DirectoryStore(str(tmp_path)), upload, 100_000, 150_001)
    for offset in range(150_001, 160_001, 100):
        store.append(upload, offset, DATA[offset : offset + 100])
    assert send(store, upload, 160_001, LENGTH).digests == ()
    assert read == []
    assert finished(store, upload) == digests_of(DATA, *BOTH)
    assert store.load(upload.id).digests == digests_of(DATA, *BOTH)
    assert finished(store, upload) == digests_of(DATA, *BOTH)
    assert read == [(0, LENGTH)]


def test_what_comes_in_one_request_is_not_read_back(store, read):
    upload = made(store)
    assert send(store, upload, 0, LENGTH).digests == digests_of(DATA)
    small = made(store, 3)
    assert store.append(small, 0, b"abc").digests == digests_of(b"abc")
    assert finished(store, upload) == digests_of(DATA)
    assert read == []


def test_attempts_that_fail_read_the_file_once(store, read):
    upload = made(store)
    send(store, upload, 0, 100_000)
    send(store, upload, 100_000, 200_000)
    assert send(store, upload, 200_000, LENGTH).digests == ()
    assert read == []
    for _ in range(3):
        claim = store.claim(store.load(upload.id))
        assert claim.digest().digests == digests_of(DATA)
        claim.begin()
        claim.release("not now")
    assert read == [(0, LENGTH)]


def test_a_session_that_is_replaced_leaves_the_rest_for_the_end(store, read):
    upload = made(store)
    replaced = store.open(upload, 0)
    for offset in range(0, 100_000, 5000):
        replaced.write(DATA[offset : offset + 5000])
    again = store.open(upload, 100_000)
    third = store.open(upload, 100_000)
    replaced.__exit__(None, None, None)
    again.__exit__(None, None, None)
    with third:
        third.write(DATA[100_000:])
        assert third.commit().digests == ()
    assert read == []
    assert finished(store, upload) == digests_of(DATA)
    assert read == [(0, LENGTH)]


def test_a_session_that_begins_again_at_the_first_byte(store, read, tmp_path):
    upload = made(store)
    died = store.open(upload, 0, staged=True)
    died.write(DATA[:50_000])
    again = store.open(upload, 0)
    again.write(DATA[:100_000])
    os.truncate(tmp_path / upload.id, 0)
    with store.open(upload, 0) as session:
        session.write(DATA)
        assert session.commit().digests == digests_of(DATA)
    for left in (died, again):
        left.__exit__(None, None, None)
    assert store.load(upload.id).digests == digests_of(DATA)
    assert read == []


def test_a_process_that_dies_over_reading_a_file_begins_again(store, read, monkeypatch):
    final = store.create(Upload(parts=("a" * 32,), hashes=BOTH))
    part = store.create(Upload(length=LENGTH, concat="partial"))
    final = store.concatenate(final.id, [store.append(part, 0, DATA)])
    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(Hashing, "read", mock.Mock(side_effect=KeyboardInterrupt))
        finished(store, final)
    assert finished(store, final) == digests_of(DATA, *BOTH)
    assert read == [(0, LENGTH)]


@pytest.mark.parametrize("offset", [0, 3, 6, 64])
def test_what_an_older_version_has_kept_on_the_way_is_ignored(store, tmp_path, read, offset):
    """It was the state of hashes that could go on; a side-car with one is read like any other."""
    upload = made(store, 9)
    store.append(upload, 0, b"abcdef")
    path = tmp_path / f"{upload.id}.tus"
    content = path.read_bytes()
    packed = sidecar.pack_hashed(Hashed(offset, False, bytes(32) + b"abcdef"[:offset], boot_id()))
    start = sidecar.room_start(content)
    path.write_bytes(content[:start] + packed + content[start + len(packed) :])
    assert store.load(upload.id).digests == ()
    store.append(upload, 6, b"ghi")
    assert sidecar.unpack_hashed(path.read_bytes()) is None
    assert finished(store, upload) == digests_of(b"abcdefghi")
    assert read == [(0, 9)]


def test_a_file_that_is_shorter_than_its_record_is_gone(store, tmp_path):
    upload = made(store, 9)
    store.append(upload, 0, b"abc")
    store.append(upload, 3, b"defghi")
    claim = store.claim(store.load(upload.id))
    os.truncate(tmp_path / upload.id, 4)
    with pytest.raises(UploadGone):
        claim.digest()
    claim.release()


def test_the_room_is_found_by_the_end_of_a_large_record(store):
    upload = store.create(Upload(length=4, hashes=("sha256",), raw_metadata="name " + "YQ" * 3000))
    store.append(upload, 0, b"ab")
    store.append(upload, 2, b"cd")
    assert finished(store, upload) == digests_of(b"abcd") == store.load(upload.id).digests
    assert store.load(upload.id).raw_metadata == upload.raw_metadata


def test_a_checksum_that_does_not_match(store, read):
    upload = made(store)
    send(store, upload, 0, 50_000)
    wrong = Intake(50_000, None, LENGTH - 50_000, Body(50_000, (("sha1", bytes(20)),)))
    with pytest.raises(ChecksumMismatch), Reception(store, upload, wrong) as sink:
        sink.write(DATA[:30_000])
        sink.write(DATA[:20_000])
        sink.end(cut=False)
    right = Body(50_000, (("sha1", hashlib.sha1(DATA[50_000:100_000]).digest()),))
    with Reception(store, upload, Intake(50_000, None, LENGTH - 50_000, right)) as sink:
        sink.write(DATA[50_000:80_000])
        sink.write(DATA[80_000:100_000])
        assert sink.end(cut=False).upload.offset == 100_000
    send(store, upload, 100_000, LENGTH)
    assert read == []
    assert finished(store, upload) == digests_of(DATA)


@pytest.mark.parametrize("cut", [False, True])
def test_a_body_of_unknown_length_holds_a_byte_back(store, read, cut):
    upload = made(store)
    with Reception(store, upload, Intake(0, None, LENGTH, Body(None))) as sink:
        sink.write(DATA[:200_000])
        sink.write(DATA[200_000:])
        received = sink.end(cut=cut)
    assert received.upload.digests == digests_of(DATA)
    assert read == []


def test_a_body_that_overruns(store, read):
    upload = made(store)
    with Reception(store, upload, Intake(0, None, LENGTH, Body(None))) as sink:
        sink.write(DATA[:200_000])
        assert not sink.write(DATA)
        assert sink.end(cut=False).upload.offset == 200_000
    send(store, upload, 200_000, LENGTH)
    assert read == []
    assert finished(store, upload) == digests_of(DATA)


def test_a_block_for_which_there_was_no_room(store, read):
    upload = made(store)

    def half(fd, offset, block):
        return os.pwrite(fd, block[: len(block) // 2], offset)

    with (
        mock.patch("tus.stores.directory.sessions.write_at", half),
        pytest.raises(StorageFull),
        store.open(upload, 0) as session,
    ):
        session.write(DATA[:10_000])
    with mock.patch("tus.stores.directory.store.write_at", half), pytest.raises(StorageFull):
        store.append(upload, 5000, DATA[5000:6000])
    assert store.load(upload.id).offset == 5500
    send(store, upload, 5500, LENGTH)
    assert read == []
    assert finished(store, upload) == digests_of(DATA)


def test_room_for_digests_that_cannot_be_written(store, read, monkeypatch):
    """As on a file system that copies on write and is full: nothing else suffers."""
    upload = made(store)
    original = os.pwrite

    def pwrite(fd, data, offset):
        if bytes(data[:4]) == b"dig1":
            raise OSError(28, "full")
        return original(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    send(store, upload, 0, 100_000)
    send(store, upload, 100_000, LENGTH)
    assert finished(store, upload) == digests_of(DATA)
    assert store.load(upload.id).digests == ()


def test_data_that_got_shorter_and_goes_on_otherwise(store, tmp_path):
    upload = made(store, 9)
    store.append(upload, 0, b"abcdef")
    os.truncate(tmp_path / upload.id, 4)
    died = store.open(upload, 4)
    died.write(b"EF")  # and whatever it knew of the digest is lost; the state of "abcdef" must not come back
    store.append(upload, 6, b"GHI")
    assert finished(store, upload) == digests_of(b"abcdEFGHI")
    died.__exit__(None, None, None)


def test_a_complete_file_that_got_shorter(store, tmp_path):
    upload = made(store, 6)
    assert store.append(upload, 0, b"abcdef").digests
    os.truncate(tmp_path / upload.id, 4)
    assert store.load(upload.id).digests == ()
    died = store.open(upload, 4)
    died.write(b"EF")
    assert store.load(upload.id).state == State.COMPLETE
    assert store.load(upload.id).digests == ()
    assert finished(store, upload) == digests_of(b"abcdEF")


def test_a_session_that_was_replaced_keeps_nothing(store, tmp_path):
    upload = made(store, 9)
    replaced = store.open(upload, 0)
    replaced.write(b"abcdef")
    os.truncate(tmp_path / upload.id, 4)
    with store.open(upload, 4) as newer:
        newer.write(b"EF")
    replaced.__exit__(None, None, None)
    store.append(upload, 6, b"GHI")
    assert finished(store, upload) == digests_of(b"abcdEFGHI")


def test_what_is_known_of_another_length_is_not_believed(store, tmp_path):
    upload = made(store, 6)
    store.append(upload, 0, b"abcdef")
    path = tmp_path / f"{upload.id}.tus"
    content = path.read_bytes()
    for hashed in (Hashed(5, True, bytes(32)), Hashed(6, False, bytes(32)), Hashed(7, False, bytes(39))):
        packed = sidecar.pack_hashed(hashed)
        start = sidecar.room_start(content)
        path.write_bytes(content[:start] + packed + content[start + len(packed) :])
        assert store.load(upload.id).digests == ()
        assert finished(store, upload) == digests_of(b"abcdef")


def test_what_is_torn_is_not_believed(store, tmp_path):
    upload = made(store)
    assert send(store, upload, 0, LENGTH).digests == digests_of(DATA)
    path = tmp_path / f"{upload.id}.tus"
    content = bytearray(path.read_bytes())
    content[content.index(b"dig1") + 30] ^= 1
    path.write_bytes(content)
    assert store.load(upload.id).digests == ()
    assert finished(store, upload) == digests_of(DATA)


def test_without_digests_nothing_more_is_done(store, monkeypatch, tmp_path):
    monkeypatch.setattr(digesting, "Digesting", mock.Mock(side_effect=AssertionError))
    monkeypatch.setattr("tus.stores.directory.sessions.Digesting", mock.Mock(side_effect=AssertionError))
    monkeypatch.setattr("tus.stores.directory.store.Digesting", mock.Mock(side_effect=AssertionError))
    upload = store.create(Upload(length=LENGTH))
    locked = mock.Mock(side_effect=SideCar.lock, autospec=True)
    monkeypatch.setattr(SideCar, "lock", lambda car: locked(car))
    send(store, upload, 0, LENGTH, block=100_000)
    assert locked.call_count == 4, "once to open, and once for each block"
    assert MAGICS[1] in (tmp_path / f"{upload.id}.tus").read_bytes()


# -- Processes --


def work(directory, pipe):
    """A process that appends what it is told to."""
    store = DirectoryStore(directory)
    while (job := pipe.recv()) is not None:
        upload_id, start, stop = job
        pipe.send(send(store, store.load(upload_id), start, stop).digests)


class Worker:
    def __init__(self, directory):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(directory, theirs))
        self.process.start()

    def send(self, upload, start, stop):
        self.pipe.send((upload.id, start, stop))
        assert self.pipe.poll(GUARD)
        return self.pipe.recv()

    def end(self):
        self.pipe.send(None)
        self.process.join(GUARD)
        assert self.process.exitcode == 0


def test_two_processes_in_turn_and_one_after_a_restart(store, read, tmp_path):
    upload = made(store)
    one, other = Worker(str(tmp_path)), Worker(str(tmp_path))
    for start in range(0, 200_000, 50_000):
        (one, other)[start // 50_000 % 2].send(upload, start, start + 50_000)
    one.end()
    other.end()
    after = Worker(str(tmp_path))
    assert after.send(upload, 200_000, LENGTH) == ()
    after.end()
    assert finished(store, upload) == digests_of(DATA)
    assert read == [(0, LENGTH)]


cuts = st.lists(
    st.tuples(
        st.integers(0, 4000),
        st.sampled_from(["session", "append", "staged", "mismatch", "killed", "cut", "full", "shortened"]),
        st.booleans(),
    ),
    max_size=12,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=cuts)
def test_whatever_happens_on_the_way(steps):
    """The digest is that of the file."""
    with tempfile.TemporaryDirectory() as directory:
        store = DirectoryStore(directory)
        upload = store.create(Upload(hashes=BOTH))
        content, left = b"", []
        for number, (size, how, other_process) in enumerate(steps):
            data = (b"%d " % number * 2000)[:size]  # what comes after a loss is never what was lost
            if other_process:
                store = DirectoryStore(directory)
            now = store.load(upload.id)
            assert now.offset == len(content)
            middle = size // 2
            if how == "append":
                store.append(now, now.offset, data)
            elif how == "shortened":
                kept = max(0, len(content) - size)
                os.truncate(now.path, kept)
                content, data = content[:kept], b""
            else:
                session = store.open(now, now.offset, staged=how in ("staged", "mismatch"))
                left.append(session)
                session.write(data[:middle])
                if how == "full":
                    with mock.patch(
                        "tus.stores.directory.sessions.write_at", lambda fd, at, block: os.pwrite(fd, block[:7], at)
                    ):
                        if size - middle > 7:
                            with pytest.raises(StorageFull):
                                session.write(data[middle:])
                            data = data[: middle + 7]
                        else:
                            session.write(data[middle:])
                else:
                    session.write(data[middle:])
                if how != "killed" and how != "mismatch":
                    if how != "cut":
                        session.commit()
                    left.pop().__exit__(None, None, None)
                elif how == "mismatch":
                    left.pop().__exit__(None, None, None)
                    data = b""
            content += data
        store.append(store.load(upload.id), len(content), b"", len(content))
        claim = store.claim(store.load(upload.id))
        assert claim.digest().digests == digests_of(content, *BOTH)
        claim.release()
        for session in left:
            session.__exit__(None, None, None)
        assert store.load(upload.id).digests == digests_of(content, *BOTH)


# -- Requests --


@pytest.fixture(params=SUBJECTS)
def make(request, tmp_path):
    return lambda **options: request.param(**{"tmp_file_dir": str(tmp_path), "digest": "sha-256"} | options)


def record(subject, url):
    return subject.stored().load(url.rpartition("/")[2])


def test_the_application_and_the_client_are_told(make, read):
    subject = make(keep_finished="true", download="true")
    url = subject.url(LENGTH)
    assert subject.head(url).get("Repr-Digest") is None
    assert subject.patch(url, 0, DATA[:70_000], length=LENGTH).status == 204  # cut
    subject.fail = "503 Service Unavailable"
    assert subject.patch(url, 70_000, DATA[70_000:]).status == 503
    assert subject.head(url)["Repr-Digest"] == field_of(DATA), "also before it is accepted"
    subject.fail = None
    reply = subject.patch(url, LENGTH - 1, DATA[-1:])
    assert (reply.status, reply["Repr-Digest"]) == (204, field_of(DATA))
    assert [upload.digest("sha256") for upload, _ in subject.landed] == [hashlib.sha256(DATA).digest()]
    assert subject.patch(url, LENGTH - 1, DATA[-1:])["Repr-Digest"] == field_of(DATA), "a reply that was lost"
    for method, headers in (
        ("HEAD", {}),
        ("GET", {}),
        ("GET", {"Range": "bytes=5-9"}),
        ("HEAD", {"Tus-Resumable": "1.0.0"}),
    ):
        reply = call(subject.app, method, url, headers)
        assert (reply.status in (200, 206), reply["Repr-Digest"]) == (True, field_of(DATA))
    assert call(subject.app, "GET", url, {"Range": "bytes=999999-"}).get("Repr-Digest") is None
    assert read == [(0, LENGTH)]


def test_a_post_that_is_all(make):
    subject = make(digest="sha-512 sha-256")
    reply = subject.create(LENGTH, body=DATA)
    assert (reply.status, reply["Repr-Digest"]) == (201, field_of(DATA, "sha512", "sha256"))
    assert subject.head(reply["Location"])["Repr-Digest"] == field_of(DATA, "sha512", "sha256")
    reply = subject.create(0)
    assert (reply.status, reply["Repr-Digest"]) == (201, field_of(b"", "sha512", "sha256"))


def test_what_is_announced_need_not_be_an_option(make):
    subject = make(digest="")
    url = subject.url(LENGTH, {"Repr-Digest": field_of(DATA, *BOTH) + ", md5=:AAAA:"})
    reply = subject.patch(url, 0, DATA)
    assert (reply.status, reply["Repr-Digest"]) == (204, field_of(DATA, *BOTH))
    url = subject.url(LENGTH, {"Repr-Digest": "nonsense :"})
    reply = subject.patch(url, 0, DATA)
    assert (reply.status, reply.get("Repr-Digest"), len(subject.landed)) == (204, None, 2)


class Hooks:
    def __init__(self):
        self.asked = []

    def pre_finish(self, hook):
        self.asked.append("pre_finish")

    def post_finish(self, hook):
        self.asked.append("post_finish")


def test_a_file_that_is_not_the_one_announced(make):
    hooks = Hooks()
    subject = make(hooks=hooks)
    url = subject.url(LENGTH, {"Repr-Digest": field_of(b"another", "sha512")})
    reply = subject.patch(url, 0, DATA)
    assert (reply.status, reply["Tus-Resumable"]) == (422, "1.0.0")
    assert b"digest in Repr-Digest" in reply.body
    again = subject.patch(url, LENGTH - 1, DATA[-1:])
    assert (again.status, again.body) == (422, reply.body)
    assert (subject.landed, hooks.asked) == ([], []), "the application has not heard of it"
    kept = record(subject, url)
    assert (kept.state, kept.attempts) == (State.REJECTED, 0)
    reply = subject.create(3, {"Repr-Digest": field_of(b"abd")}, b"abc")
    assert (reply.status, reply.get("Location")) == (422, None)
    assert subject.create(0, {"Repr-Digest": field_of(b"abd")}).status == 422
    assert subject.create(3, {"Repr-Digest": field_of(b"abc")}, b"abc").status == 201
    assert hooks.asked == ["pre_finish", "post_finish"]


def test_a_file_that_has_to_be_read_is_rejected_as_well(make, read):
    subject = make()
    url = subject.url(LENGTH, {"Repr-Digest": field_of(b"another")})
    subject.patch(url, 0, DATA[:100_000])
    assert subject.patch(url, 100_000, DATA[100_000:]).status == 422
    assert subject.patch(url, 100_000, DATA[100_000:]).status == 422
    assert (read, subject.landed) == ([(0, LENGTH)], [])


def test_attempts_do_not_read_again(make, read):
    subject = make()
    url = subject.url(LENGTH)
    subject.patch(url, 0, DATA[:100_000])
    subject.fail = RuntimeError("a bug")
    for offset in (100_000, LENGTH - 1, LENGTH - 1):
        try:
            subject.patch(url, offset, DATA[offset:])
        except RuntimeError:
            assert isinstance(subject, ViewSubject)
    subject.fail = None
    assert subject.patch(url, LENGTH - 1, DATA[-1:])["Repr-Digest"] == field_of(DATA)
    assert read == [(0, LENGTH)]


def test_a_concatenation_is_read_once(make, read):
    subject = make()
    partial = {"Upload-Concat": "partial"}
    parts = [subject.url(5, partial | {"Repr-Digest": field_of(b"?")}, body) for body in (b"hello", b"world")]
    assert [record(subject, part).hashes for part in parts] == [(), ()], "the parts need none"
    final = {"Upload-Concat": f"final;{' '.join(parts)}"}
    reply = subject.send("POST", headers=final | {"Repr-Digest": field_of(b"helloWorld")})
    assert (reply.status, subject.landed) == (422, [])
    reply = subject.send("POST", headers=final | {"Repr-Digest": field_of(b"helloworld", *BOTH)})
    assert (reply.status, reply["Repr-Digest"]) == (201, field_of(b"helloworld", *BOTH))
    assert subject.head(reply["Location"])["Repr-Digest"] == field_of(b"helloworld", *BOTH)
    assert read == [(0, 10), (0, 10)]
    assert len(subject.landed) == 1


def test_in_the_background(tmp_path):
    subject = FilterSubject(tmp_file_dir=str(tmp_path), digest="sha-256", handover="background")
    url = subject.url(LENGTH, {"Repr-Digest": field_of(DATA)})
    assert subject.patch(url, 0, DATA)["Repr-Digest"] == field_of(DATA)
    wrong = subject.url(LENGTH, {"Repr-Digest": field_of(b"another")})
    assert subject.patch(wrong, 0, DATA).status == 422, "its client can as well hear it at once"
    late = subject.url(LENGTH, {"Repr-Digest": field_of(b"another")})
    for start, stop in ((0, 100_000), (100_000, LENGTH)):
        assert subject.patch(late, start, DATA[start:stop]).status == 204
    assert sorted(str(outcome) for _, outcome in subject.app.backlog.run()) == ["accepted", "rejected"]
    assert [upload.digests for upload, _ in subject.landed] == [digests_of(DATA)]
    assert [record(subject, one).state for one in (url, wrong, late)] == [
        State.ACCEPTED, State.REJECTED, State.REJECTED,
    ]  # fmt: skip
    assert subject.head(url)["Repr-Digest"] == field_of(DATA)


def test_a_file_that_cannot_be_read_is_kept(tmp_path, monkeypatch):
    subject = FilterSubject(tmp_file_dir=str(tmp_path), digest="sha-256")
    url = subject.url(LENGTH)
    subject.patch(url, 0, DATA[:100_000])
    with monkeypatch.context() as broken:
        broken.setattr(Hashing, "read", mock.Mock(side_effect=OSError(5, "the disk")))
        assert subject.patch(url, 100_000, DATA[100_000:]).status == 503
    kept = record(subject, url)
    assert (kept.state, kept.attempts, subject.landed) == (State.COMPLETE, 0, [])
    assert subject.patch(url, LENGTH - 1, DATA[-1:]).status == 204


def test_the_spool_tells_it_too(tmp_path):
    import tus

    subject = FilterSubject(tmp_file_dir=str(tmp_path / "up"), digest="sha-256", spool=str(tmp_path / "spool"))
    assert subject.create(LENGTH, body=DATA).status == 201
    with tus.spool(str(tmp_path / "spool")).claim() as upload:
        assert upload.digests == dict(digests_of(DATA))


def test_the_command_line_shows_it(store, tmp_path, capsys):
    upload = store.append(made(store, 3, *BOTH), 0, b"abc")
    main(["show", upload.id, "--dir", str(tmp_path)])
    told = capsys.readouterr().out
    assert f"sha256:     {hashlib.sha256(b'abc').hexdigest()}" in told
    main(["show", upload.id, "--dir", str(tmp_path), "--json"])
    assert json.loads(capsys.readouterr().out)["digests"]["sha512"] == hashlib.sha512(b"abc").hexdigest()


def test_a_record_of_another_version_is_an_error(store, tmp_path):
    upload = made(store, 3)
    path = tmp_path / f"{upload.id}.tus"
    content = path.read_bytes()
    size = sidecar._RECORD_HEAD.unpack_from(content, sidecar.SLOTS_SIZE)[1]
    end = sidecar.RECORD_HEAD_END + size
    text = content[sidecar.RECORD_HEAD_END : end].replace(b"sha256", b"sha999")
    head = sidecar._RECORD_HEAD.pack(b"rec2", size, sidecar.crc32(text))
    path.write_bytes(content[: sidecar.SLOTS_SIZE] + head + text + content[end:])
    with pytest.raises(RequestError):
        store.load(upload.id)


# -- The IETF protocol --------------------------------------------------------------------------------------------

IETF = {"Upload-Draft-Interop-Version": "9"}
PARTIAL = IETF | {"Content-Type": "application/partial-upload", "Upload-Complete": "?1"}


@pytest.mark.parametrize("make", SUBJECTS)
def test_ietf_announced_and_wanted(tmp_path, make):
    subject = make(tmp_file_dir=str(tmp_path))
    fields = IETF | {"Upload-Complete": "?0", "Want-Repr-Digest": "sha-512=3, md5=1, sha-256=0"}
    url = call(subject.app, "POST", PATH, fields | {"Repr-Digest": field_of(DATA)}, DATA[:3])["Location"]
    assert call(subject.app, "HEAD", url, IETF).get("Repr-Digest") is None
    reply = call(subject.app, "PATCH", url, PARTIAL | {"Upload-Offset": "3"}, DATA[3:])
    assert (reply["Upload-Complete"], reply["Repr-Digest"]) == ("?1", field_of(DATA, *BOTH))
    assert call(subject.app, "HEAD", url, IETF)["Repr-Digest"] == field_of(DATA, *BOTH)
    assert len(subject.landed) == 1
    assert subject.landed[0][0].digests


@pytest.mark.parametrize("make", SUBJECTS)
@pytest.mark.parametrize("handover", ["request", "background"])
def test_ietf_a_file_that_is_another_is_rejected_unseen(tmp_path, make, handover):
    if handover == "background" and make is ViewSubject:
        make = functools.partial(make, on_finished=print)
    subject = make(tmp_file_dir=str(tmp_path), handover=handover)
    fields = IETF | {"Upload-Complete": "?1", "Repr-Digest": field_of(b"another")}
    reply = call(subject.app, "POST", PATH, fields, DATA)
    assert (reply.status, reply["Upload-Complete"]) == (422, "?1"), "resuming would not mend it"
    assert subject.landed == []
    assert call(subject.app, "HEAD", reply["Location"], IETF)["Upload-Complete"] == "?1"


# -- After the machine was down ------------------------------------------------------------------------------------


OTHER_BOOT = b"another".ljust(16)


@pytest.mark.parametrize("fsync", ["none", "finish", "always"])
@pytest.mark.parametrize("at", ["half", "end"])
def test_what_was_kept_is_not_trusted_after_the_machine_was_down(tmp_path, fsync, at):
    """Digests that were kept in the record may have been there before the bytes of the file were."""
    store = DirectoryStore(str(tmp_path), fsync=fsync)
    upload = store.create(Upload(length=20_000_000, hashes=("sha256",)))
    data = random.Random(0).randbytes(20_000_000)
    half = 10_000_000 if at == "half" else len(data)
    with store.open(upload, 0) as session:
        session.write(data[:half])
    if at == "end":
        store.claim(store.load(upload.id)).release()  # from now on the file is on the disk
    with open(tmp_path / upload.id, "r+b") as file:
        file.write(bytes(1000))
    store = DirectoryStore(str(tmp_path), fsync=fsync, boot=OTHER_BOOT)
    upload = store.load(upload.id)
    if fsync == "none" or (fsync == "finish" and at == "half"):
        assert (upload.state, upload.offset, upload.digests) == (State.RECEIVING, 0, ())
        return
    if at == "half":
        with store.open(upload, half) as session:
            session.write(data[half:])
    claim = store.claim(store.load(upload.id))
    found = claim.digest().digest("sha256")
    claim.release()
    lost = hashlib.sha256(bytes(1000) + data[1000:]).digest()
    is_trusted = fsync == "always" and at == "end"
    assert found == (hashlib.sha256(data).digest() if is_trusted else lost)
