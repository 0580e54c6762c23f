"""Bytes that could not be forced to the disk, and bytes that were written before the machine was restarted."""

import errno
import io
import os
import threading
from pathlib import Path

import pytest

from tests.support.waiting import wait_until
from tus import Filter, Options
from tus.errors import OffsetMismatch, OptionError, StorageUnavailable, UploadGone, UploadReplaced
from tus.filesystem import boot
from tus.filesystem import io as files
from tus.filesystem.ownership import Ownership
from tus.handover.finished import FinishedUpload
from tus.handover.receivers import SpoolReceiver
from tus.handover.spool import Spool, SpoolEmpty
from tus.hooks.outbox import Event, Outbox
from tus.models import Response, State, Upload
from tus.protocols.handover import decided, hand_over_alone, promise
from tus.stores.directory import flushing, secret
from tus.stores.directory import record as records
from tus.stores.directory.store import DirectoryStore

OTHER = b"another boot".ljust(16)
DATA = b"abcdefghi"


@pytest.fixture
def store(tmp_path):
    return DirectoryStore(str(tmp_path))


class Disk:
    """A disk that fails some of the next calls that force a file to it, and then reports nothing more."""

    def __init__(self):
        self.failures, self.passes, self.failed = [], 0, ""

    def fail(self, *endings):
        """Fail the next sync of a file of each of these endings; the data has none, the record has ``.tus``."""
        self.failures = [*endings]

    def fail_nth(self, ending, number):
        """Fail one sync, after a number of others of the same kind."""
        self.failures, self.passes, self.failed = [ending], number, ""

    def sync(self, fd):
        path = os.readlink(f"/proc/self/fd/{fd}")
        ending = "names" if os.path.isdir(path) else os.path.splitext(path)[1]
        if ending in self.failures and self.passes:
            self.passes -= 1
        elif ending in self.failures:
            self.failed = os.path.basename(path)
            self.failures.remove(ending)
            raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.fixture
def disk(monkeypatch):
    disk = Disk()
    monkeypatch.setattr(files, "_fdatasync", disk.sync)
    monkeypatch.setattr(os, "fsync", disk.sync)
    return disk


class HalfRead:
    """``os.pread``, of which the first call returns a half of the bytes, as a network file system may."""

    def __init__(self, monkeypatch):
        self.real, self.is_done = os.pread, False
        monkeypatch.setattr(os, "pread", self)

    def __call__(self, fd, size, offset):
        data = self.real(fd, size, offset)
        if self.is_done:
            return data
        self.is_done = True
        return data[: len(data) // 2]


def begun(store, **fields):
    """Return an upload with a few bytes."""
    upload = store.create(Upload(length=len(DATA), **fields))
    return store.append(upload, 0, DATA[:4])


def content(claim):
    with claim.open() as file:
        return file.read()


@pytest.mark.parametrize("blocks", [1, 2])
def test_slots_that_are_read_in_part_are_read_again(store, monkeypatch, blocks):
    """The first slot alone may be the older one, and its offset a stale one."""
    upload = begun(store)
    if blocks == 2:
        upload = store.append(upload, 4, DATA[4:6])
    with monkeypatch.context() as patches:
        half = HalfRead(patches)
        upload = store.append(upload, upload.offset, DATA[upload.offset : 8])
    assert half.is_done
    assert store.load(upload.id).offset == upload.offset == 8


def test_a_secret_that_is_read_in_part_is_read_again(store, monkeypatch):
    """Else another one would replace it, and each id would change that is made from it."""
    before = store.id_for("text")
    with monkeypatch.context() as patches:
        HalfRead(patches)
        assert DirectoryStore(store.directory).id_for("text") == before
    assert DirectoryStore(store.directory).id_for("text") == before


def assert_starts_again(store, upload):
    """The upload has lost its bytes, and takes them again."""
    upload = store.load(upload.id)
    assert (upload.state, upload.offset) == (State.RECEIVING, 0)
    with pytest.raises(OffsetMismatch):
        store.complete(upload, len(DATA) - 1, DATA[-1:])
    claim = store.complete(upload, 0, DATA)
    assert content(claim) == DATA
    claim.accept()


# -- A sync that failed --


def complete(store, upload):
    store.complete(upload, 4, DATA[4:])


def append_and_claim(store, upload):
    store.claim(store.append(upload, 4, DATA[4:]))


def append_and_promise(store, upload):
    store.promise(store.append(upload, 4, DATA[4:]))


WAYS = [complete, append_and_claim, append_and_promise]


@pytest.mark.parametrize("way", WAYS)
def test_after_a_failed_sync_the_client_sends_the_bytes_again(store, disk, way):
    upload = begun(store)
    disk.fail("")
    with pytest.raises(OSError, match="Input/output"):
        way(store, upload)
    assert_starts_again(store, upload)


@pytest.mark.parametrize("way", WAYS)
def test_after_a_failed_sync_other_processes_know_it(store, disk, way, tmp_path):
    upload = begun(store)
    disk.fail("")
    with pytest.raises(OSError, match="Input/output"):
        way(store, upload)
    assert_starts_again(DirectoryStore(str(tmp_path)), upload)


@pytest.mark.parametrize("way", WAYS)
def test_after_a_failed_sync_an_offset_that_must_not_decrease_is_gone(store, disk, way):
    upload = begun(store, protocol="ietf")
    disk.fail("")
    with pytest.raises(OSError, match="Input/output"):
        way(store, upload)
    with pytest.raises(UploadGone):
        store.load(upload.id)
    with pytest.raises(UploadGone):
        store.append(upload, 4, DATA[4:])
    assert store.sweep() == 0  # it is not one that has expired,
    assert not os.path.exists(upload.path)  # but its files are removed


@pytest.mark.parametrize("ending", [".tus", "names"])
@pytest.mark.parametrize("way", WAYS)
def test_after_a_failed_sync_of_the_record_the_upload_is_gone(store, disk, way, ending):
    upload = begun(store)
    disk.fail(ending)
    with pytest.raises(OSError, match="Input/output"):
        way(store, upload)
    with pytest.raises(UploadGone):
        store.load(upload.id)


def test_a_whole_creation_that_cannot_be_synced_leaves_nothing(store, disk, tmp_path):
    disk.fail("")
    with pytest.raises(OSError, match="Input/output"):
        store.create_whole(Upload(length=len(DATA)), DATA)
    assert list(tmp_path.iterdir()) == []


def test_a_concatenation_that_cannot_be_synced_is_gone(store, disk):
    part = store.append(store.create(Upload(length=9, concat="partial")), 0, DATA)
    final = store.create(Upload(concat=f"final;/{part.id}", parts=(part.id,)))
    final = store.concatenate(final.id, [part])
    disk.fail("")
    with pytest.raises(OSError, match="Input/output"):
        store.claim(final)
    with pytest.raises(UploadGone):
        store.load(final.id)
    again = store.create(Upload(concat=f"final;/{part.id}", parts=(part.id,)))
    store.claim(store.concatenate(again.id, [part])).accept()


def test_where_every_block_is_synced_a_failure_ends_the_session(tmp_path, disk):
    store = DirectoryStore(str(tmp_path), fsync="always")
    upload = begun(store, protocol="ietf")
    with store.open(upload, 4) as session:
        disk.fail("")
        with pytest.raises(OSError, match="Input/output"):
            session.write(DATA[4:6])
        with pytest.raises(UploadReplaced):
            session.write(DATA[6:])
    assert store.load(upload.id).offset == 4
    claim = store.complete(upload, 4, DATA[4:])
    assert content(claim) == DATA
    claim.release()


def test_where_every_block_is_synced_an_unsynced_count_is_not_told(tmp_path, disk):
    store = DirectoryStore(str(tmp_path), fsync="always")
    upload = begun(store)
    disk.fail(".tus")
    with pytest.raises(OSError, match="Input/output"):
        store.append(upload, 4, DATA[4:])
    with pytest.raises(UploadGone):
        store.load(upload.id)


def test_what_cannot_even_be_recorded_is_remembered(store, disk, monkeypatch):
    upload = store.append(begun(store), 4, DATA[4:])
    disk.fail("")
    with monkeypatch.context() as broken, pytest.raises(OSError, match="Input/output"):
        broken.setattr(records.SideCar, "change", _fail)
        store.claim(upload)
    for use in (
        lambda: store.load(upload.id),
        lambda: store.claim(upload),
        lambda: store.promise(upload),
        lambda: store.append(upload, 4, DATA[4:]),
    ):
        with pytest.raises(UploadGone):
            use()
    assert upload.path not in records._unmarked  # it could be recorded later
    store.sweep()
    assert not os.path.exists(upload.path)


def _fail(*arguments):
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_save_to_forces_the_data_once(tmp_path, disk):
    """Under ``none`` nothing was forced before, so this may be the sync that fails."""
    (tmp_path / "site").mkdir()
    (tmp_path / "store").mkdir()
    store = DirectoryStore(str(tmp_path / "store"), fsync="none")
    claim = store.complete(begun(store), 4, DATA[4:])
    disk.fail("")
    with pytest.raises(OSError, match="Input/output"):
        claim.sync()
    claim.release()
    assert_starts_again(store, claim.upload)


def test_a_put_into_the_spool_forces_the_data_with_each_policy(tmp_path, disk):
    """The spool shares the data, which an upload that has lost its bytes would write again."""
    store = DirectoryStore(str(tmp_path / "store"), fsync="none")
    (tmp_path / "store").mkdir()
    spool = Spool(str(tmp_path / "spool"))
    claim = store.complete(begun(store), 4, DATA[4:])
    disk.fail("")
    with pytest.raises(StorageUnavailable):
        SpoolReceiver(spool.put)(claim)
    claim.release()
    assert_starts_again(store, claim.upload)
    with pytest.raises(SpoolEmpty), spool.claim(0):
        pass


# -- Names that could not be forced to the disk --


@pytest.mark.parametrize("policy", ["none", "finish", "always"])
def test_a_removal_is_forced_to_the_disk(tmp_path, disk, policy, caplog):
    store = DirectoryStore(str(tmp_path), fsync=policy)
    upload = begun(store)
    disk.fail("names")
    store.remove(upload.id)
    assert os.listdir(tmp_path) == [], "a failure changes nothing"
    assert ("may bring it back" in caplog.text) == (policy != "none")


def test_a_new_directory_is_forced_to_the_disk(tmp_path, disk):
    disk.fail("names")
    with pytest.raises(OptionError, match="Input/output"):
        Ownership().prepare_directory(str(tmp_path / "new"), "tmp_file_dir")
    assert os.listdir(tmp_path) == []
    Ownership().prepare_directory(str(tmp_path / "new"), "tmp_file_dir")


@pytest.mark.parametrize("nth", [0, 1, 2])
def test_a_put_into_the_spool_that_failed_is_made_again(tmp_path, disk, nth):
    spool = Spool(str(tmp_path / "spool"))
    upload = Upload(id="b" * 32, offset=9, length=9, path=str(tmp_path / "data"), state=State.COMPLETE)
    (tmp_path / "data").write_bytes(DATA)
    disk.fail_nth("names", nth)
    with pytest.raises(OSError, match="Input/output"):
        spool.put(upload, "c" * 32)
    assert spool.counts()["new"] == 0
    left = [name for name in ("tmp", "put") if os.path.exists(tmp_path / "spool" / name / ("c" * 32))]
    assert left == (["tmp", "put"] if disk.failed == "put" else []), "a draft without a marker is never used again"
    spool.put(upload, "c" * 32)
    with spool.claim(0) as spooled:
        assert spooled.key == "c" * 32


@pytest.mark.parametrize("nth", [0, 1, 2])
def test_an_event_that_could_not_be_synced_is_not_there(tmp_path, disk, nth):
    sent = []
    box = Outbox(str(tmp_path / "box"), sent.append)
    event = Event("e", "post-finish", "u", "{}")
    disk.fail_nth("names", nth)
    with pytest.raises(OSError, match="Input/output"):
        box.put("a" * 32, event)
    assert box.counts()["pending"] == 0
    box.put("a" * 32, event)
    assert box.flush() is None
    assert sent == [event]


def test_a_name_that_could_not_be_synced_is_removed(tmp_path, disk):
    (tmp_path / "store").mkdir()
    (tmp_path / "site").mkdir()
    store = DirectoryStore(str(tmp_path / "store"))
    claim = store.complete(begun(store), 4, DATA[4:])
    disk.fail("names")
    with pytest.raises(OSError, match="Input/output"):
        FinishedUpload(claim).save_to(str(tmp_path / "site"), "film")
    assert os.listdir(tmp_path / "site") == []
    path = FinishedUpload(claim).save_to(str(tmp_path / "site"), "film")
    claim.accept()
    assert Path(path).read_bytes() == DATA


def test_a_secret_that_could_not_be_synced_makes_no_id(store, disk, tmp_path):
    for ending in ("", "names"):
        disk.fail(ending)
        with pytest.raises(OSError, match="Input/output"):
            store.id_for("text")
        assert (tmp_path / secret.NAME).read_bytes() == b""
    assert store.id_for("text") == DirectoryStore(str(tmp_path)).id_for("text")


def test_where_a_name_can_not_even_be_removed_no_more_are_made(tmp_path, disk):
    disk.fail("names")
    with pytest.raises(OSError, match="Input/output"):
        files.sync_name(str(tmp_path), _fail)
    with pytest.raises(OSError, match="earlier change"):
        files.sync_name(str(tmp_path), _fail)


# -- The protocol after bytes were lost --


def test_an_upload_that_is_not_complete_any_more_was_not_accepted():
    with pytest.raises(OffsetMismatch):
        decided(Upload(offset=3, length=9))
    steps = hand_over_alone(Upload(offset=9, length=9, state=State.COMPLETE), Options.build(tmp_file_dir="/x"))
    next(steps)
    with pytest.raises(OffsetMismatch):
        steps.send(Upload(offset=3, length=9))


def test_an_upload_that_is_not_complete_any_more_is_not_promised():
    steps = promise(Upload(offset=9, length=9, state=State.COMPLETE))
    next(steps)
    with pytest.raises(OffsetMismatch):
        steps.send(Upload(offset=3, length=9))


@pytest.mark.parametrize("handover", ["request", "background"])
def test_no_client_is_told_success_after_a_failed_sync(tmp_path, disk, handover):
    taken = []

    def app(environ, start_response):
        with environ["tus.upload"].open() as file:
            taken.append(file.read())
        start_response("200 OK", [])
        return [b""]

    subject = Filter(app, upload_path="/files", tmp_file_dir=str(tmp_path), handover=handover)

    def call(method, path, body=b"", **fields):
        environ = {"REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": path, "SERVER_NAME": "x"}
        environ |= {"SERVER_PORT": "80", "wsgi.url_scheme": "http", "HTTP_HOST": "x", "wsgi.input": io.BytesIO(body)}
        environ |= {"CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": "application/offset+octet-stream"}
        environ |= {"HTTP_TUS_RESUMABLE": "1.0.0", **{f"HTTP_{name}": value for name, value in fields.items()}}
        head = []
        b"".join(subject(environ, lambda status, headers, error=None: head.extend((status, dict(headers)))))
        return int(head[0].split()[0]), head[1]

    location = call("POST", "/files", UPLOAD_LENGTH="9")[1]["Location"].partition("://x")[2]
    disk.fail("")
    assert call("PATCH", location, DATA, UPLOAD_OFFSET="0")[0] == 503
    assert call("PATCH", location, DATA[-1:], UPLOAD_OFFSET="8")[0] == 409
    assert call("HEAD", location)[1]["Upload-Offset"] == "0"
    assert call("PATCH", location, DATA, UPLOAD_OFFSET="0")[0] == 204
    wait_until(lambda: taken)
    assert taken == [DATA]
    subject.service.close()


# -- While bytes arrive --


@pytest.fixture
def flushed(monkeypatch):
    """Flush whenever four bytes are not synced, and wait for it."""
    monkeypatch.setattr(flushing, "FLUSH_EVERY", 4)

    def start(flush, path):
        original(flush, path)
        flush_threads.append((flush, path))

    flush_threads = []
    original = flushing.start
    monkeypatch.setattr(flushing, "start", start)
    return flush_threads


def ended(flush_threads):
    for flush, _ in flush_threads:
        assert flush.has_ended.wait(60)


def test_many_bytes_are_synced_while_they_arrive(store, flushed, tmp_path):
    upload = store.create(Upload(length=len(DATA)))
    with store.open(upload, 0) as session:
        session.write(DATA[:3])
        assert flushed == []
        session.write(DATA[3:5])
        ended(flushed)
    store.append(upload, 5, DATA[5:6])
    assert len(flushed) == 1
    assert not flushing.flushes
    assert DirectoryStore(str(tmp_path), boot=OTHER).load(upload.id).offset == 5


def test_a_stalled_disk_gets_no_thread_for_each_upload(store, flushed, monkeypatch):
    may_end = threading.Event()
    original = files._fdatasync
    monkeypatch.setattr(files, "_fdatasync", lambda fd: (may_end.wait(60), original(fd)))
    monkeypatch.setattr(flushing, "_MOST", 2)
    uploads = [store.append(store.create(Upload(length=len(DATA))), 0, DATA[:5]) for _ in range(4)]
    assert len(flushing.flushes) == 2
    may_end.set()
    wait_until(lambda: not flushing.flushes)
    store.append(uploads[3], 5, DATA[5:6])  # a later block tries again
    assert uploads[3].path in [path for _, path in flushed]


def test_a_session_that_follows_keeps_what_an_earlier_one_has_synced(store, flushed, monkeypatch, tmp_path):
    """Many clients send a large file by many requests, so a flush often outlives its session."""
    may_end = threading.Event()
    original = files._fdatasync
    monkeypatch.setattr(files, "_fdatasync", lambda fd: (may_end.wait(60), original(fd)))
    upload = store.create(Upload(length=len(DATA)))
    store.append(upload, 0, DATA[:5])
    store.append(upload, 5, DATA[5:6])
    may_end.set()
    ended(flushed)
    assert DirectoryStore(str(tmp_path), boot=OTHER).load(upload.id).offset == 5


@pytest.mark.parametrize("ends", ["complete", "claim"])
def test_a_flush_that_fails_is_known_before_the_upload_is_complete(store, flushed, disk, monkeypatch, ends):
    upload = store.create(Upload(length=len(DATA)))
    may_fail = threading.Event()
    sync, failing = disk.sync, threading.current_thread()

    def slow(fd):
        if threading.current_thread() is not failing:
            may_fail.wait(60)
            disk.fail("")
        sync(fd)

    monkeypatch.setattr(files, "_fdatasync", slow)
    upload = store.append(upload, 0, DATA[:5])
    if ends == "claim":
        upload = store.append(upload, 5, DATA[5:])
    threading.Timer(0.05, may_fail.set).start()
    with pytest.raises((OffsetMismatch, UploadReplaced)):
        if ends == "claim":
            store.claim(upload)
        else:
            store.complete(upload, 5, DATA[5:])
    monkeypatch.undo()
    assert_starts_again(store, upload)


def test_a_late_flush_says_nothing_about_bytes_that_were_sent_again(store, flushed, disk, tmp_path):
    upload = store.create(Upload(length=len(DATA)))
    late = []
    with pytest.MonkeyPatch.context() as held:
        held.setattr(flushing, "start", lambda flush, path: late.append((flush, path)))
        upload = store.append(upload, 0, DATA[:5])
        upload = store.append(upload, 5, DATA[5:])
        disk.fail("")
        with pytest.raises(OSError, match="Input/output"):
            store.claim(upload)
        store.append(upload, 0, DATA[:6])
        (first, path), *_ = late
    first.run(path)
    for flush, _ in late[1:]:
        os.close(flush.data_fd)
    assert DirectoryStore(str(tmp_path), boot=OTHER).load(upload.id).offset == 0


@pytest.mark.parametrize("fails", [False, True])
def test_a_late_flush_says_nothing_about_another_upload_of_the_same_id(store, flushed, disk, tmp_path, fails):
    late = []
    with pytest.MonkeyPatch.context() as held:
        held.setattr(flushing, "start", lambda flush, path: late.append((flush, path)))
        upload = store.append(store.create_once(Upload(id="c" * 32, length=len(DATA))), 0, DATA[:5])
        store.remove(upload.id)
        store.append(store.create_once(Upload(id="c" * 32, length=len(DATA))), 0, DATA[3:])
        (first, path), (second, _) = late
    disk.fail(*[""] * fails)
    first.run(path)
    os.close(second.data_fd)
    assert store.load(upload.id).offset == len(DATA[3:])
    assert DirectoryStore(str(tmp_path), boot=OTHER).load(upload.id).offset == 0


def test_no_policy_but_finish_flushes(flushed, tmp_path):
    for policy in ("none", "always"):
        store = DirectoryStore(str(tmp_path), fsync=policy)
        store.append(store.create(Upload(length=len(DATA))), 0, DATA[:8])
    assert flushed == []


# -- After a restart of the machine --


RECEIVED, STORED, PROMISED = "received", "stored", "promised"


@pytest.mark.parametrize(
    ("fsync", "protocol", "stage", "expected"),
    [
        ("none", "tus", RECEIVED, 0),
        ("none", "tus", STORED, 0),
        ("none", "tus", PROMISED, 0),
        ("none", "ietf", RECEIVED, None),
        ("none", "ietf", PROMISED, None),
        ("finish", "tus", RECEIVED, 0),
        ("finish", "tus", STORED, 0),
        ("finish", "tus", PROMISED, 9),
        ("finish", "ietf", RECEIVED, None),
        ("finish", "ietf", STORED, None),
        ("finish", "ietf", PROMISED, 9),
        ("always", "tus", RECEIVED, 4),
        ("always", "tus", STORED, 9),
        ("always", "ietf", RECEIVED, 4),
        ("always", "ietf", PROMISED, 9),
    ],
)
def test_what_is_left_after_a_restart(tmp_path, fsync, protocol, stage, expected):
    store = DirectoryStore(str(tmp_path), fsync=fsync)
    upload = begun(store, protocol=protocol)
    if stage != RECEIVED:
        upload = store.append(upload, 4, DATA[4:])
    if stage == PROMISED:
        store.promise(upload)
    again = DirectoryStore(str(tmp_path), fsync=fsync, boot=OTHER)
    if expected is None:
        for use in (lambda: again.load(upload.id), lambda: again.append(upload, 4, DATA[4:])):
            with pytest.raises(UploadGone):
                use()
        again.sweep()
        assert os.path.exists(upload.path), "a process that does not know the boot may still write to it"
        os.utime(f"{upload.path}.tus", (0, 0))
        again.sweep()
        assert not os.path.exists(upload.path)
        return
    upload = again.load(upload.id)
    assert upload.offset == expected
    assert upload.state == (State.COMPLETE if expected == 9 else State.RECEIVING)
    claim = again.claim(upload) if expected == 9 else again.complete(upload, expected, DATA[expected:])
    assert content(claim) == DATA
    claim.accept()


@pytest.mark.parametrize("state", [State.ACCEPTED, State.REJECTED])
def test_a_decision_outlives_a_restart(store, tmp_path, state):
    claim = store.complete(begun(store), 4, DATA[4:])
    if state == State.ACCEPTED:
        claim.accept(Response(201, "Created", [("X-App", "1")]))
    else:
        claim.reject(Response(415, "No", [("X-App", "1")]))
    upload = DirectoryStore(str(tmp_path), boot=OTHER).load(claim.upload.id)
    assert upload.state == state
    assert upload.answer.headers == [("X-App", "1")]


def test_a_final_upload_that_waits_for_its_parts_outlives_a_restart(store, tmp_path):
    final = store.create(Upload(concat="final;/a", parts=("a" * 32,)))
    assert DirectoryStore(str(tmp_path), boot=OTHER).load(final.id).state == State.RECEIVING


def test_an_unsynced_final_upload_is_gone_after_a_restart(store, tmp_path):
    part = store.append(store.create(Upload(length=9, concat="partial")), 0, DATA)
    final = store.create(Upload(concat=f"final;/{part.id}", parts=(part.id,)))
    store.concatenate(final.id, [part])
    with pytest.raises(UploadGone):
        DirectoryStore(str(tmp_path), boot=OTHER).load(final.id)


def test_unsynced_bytes_are_cut_off_before_others_are_counted(store, tmp_path):
    upload = begun(store)
    again = DirectoryStore(str(tmp_path), boot=OTHER)
    again.append(upload, 0, b"xy")
    assert os.path.getsize(upload.path) == 2
    assert again.load(upload.id).offset == 2


def test_a_boot_has_one_id(monkeypatch):
    assert len(boot.boot_id()) == boot.ID_SIZE
    assert boot.boot_id() == boot._linux_id() or boot._linux_id() is None
    monkeypatch.setattr(boot, "_LINUX", "/nonexistent")
    assert boot._linux_id() is None
    first = boot.boot_id.__wrapped__()
    assert len(first) == boot.ID_SIZE


def test_the_time_since_the_boot_grows():
    assert 0 < boot.uptime() <= boot.uptime()
