"""Every store under the one suite, and what only the directory store promises."""

import errno
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from unittest import mock

import pytest

from tests.support.descriptors import opened_below
from tests.support.disk import full_disk
from tests.support.waiting import GUARD
from tus.errors import (
    OptionError,
    QuotaExceeded,
    RequestError,
    StorageFull,
    TooLarge,
    UploadGone,
    UploadLocked,
    UploadReplaced,
)
from tus.filesystem import io as files_io
from tus.filesystem import locks
from tus.filesystem.ownership import Ownership
from tus.models import Response, State, Upload
from tus.stores import ledger
from tus.stores.directory import expiry, preparation
from tus.stores.directory import record as files
from tus.stores.directory import record_format as sidecar
from tus.stores.directory.claims import DirectoryClaim
from tus.stores.directory.preparation import prepare_directory
from tus.stores.directory.quota import Limits
from tus.stores.directory.store import DirectoryStore
from tus.stores.memory import MemoryStore
from tus.stores.slots import Slot
from tus.testing import Clock, StoreSuite


class TestMemoryStore(StoreSuite):
    has_limits = True

    def make_store(self, **options):
        return MemoryStore(**options)


class TestMemoryStoreThatCountsLate(StoreSuite):
    """As a store on another host does, with leases for claims."""

    has_leases = True
    has_limits = True

    def make_store(self, **options):
        return MemoryStore(counts="late", lease=15, **options)

    def lapse(self, claim, clock):
        claim.pause()
        clock.now += 15


class TestMemoryStoreWithLeases(TestMemoryStoreThatCountsLate):
    def make_store(self, **options):
        return MemoryStore(lease=15, **options)


class TestMemoryStoreThatCountsLateWithoutLeases(StoreSuite):
    has_limits = True

    def make_store(self, **options):
        return MemoryStore(counts="late", **options)


class TestDirectoryStore(StoreSuite):
    has_limits = True

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path):
        self.directory = tmp_path

    def make_store(self, **options):
        return DirectoryStore(str(self.directory), **options)


class TestDirectoryStoreSyncingAlways(TestDirectoryStore):
    def make_store(self, **options):
        return DirectoryStore(str(self.directory), fsync="always", **options)


class TestDirectoryStoreNeverSyncing(TestDirectoryStore):
    def make_store(self, **options):
        return DirectoryStore(str(self.directory), fsync="none", **options)


def test_a_kept_file_may_be_moved_away(tmp_path):
    clock = Clock()
    store = DirectoryStore(str(tmp_path), keep_finished=True, completed_keep=50, clock=clock)
    upload = receive(store, b"abc", 3)
    store.claim(upload).accept()
    (tmp_path / upload.id).rename(tmp_path / "theirs")
    assert store.load(upload.id).offset == 3
    with pytest.raises(UploadGone):
        store.read(upload)
    clock.now += 51
    assert store.sweep() == 1
    assert (tmp_path / "theirs").read_bytes() == b"abc"


SWEEPER, PENDING = ".tus-sweeper", ".tus-pending"  # what a sweep writes


@pytest.fixture
def store(tmp_path):
    return DirectoryStore(str(tmp_path))


def receive(store, data, length=None):
    upload = store.create(Upload(length=length))
    return store.append(upload, 0, data)


# -- The files --


def test_the_data_is_named_after_the_id_and_beside_it_is_one_side_car(store, tmp_path):
    upload = receive(store, b"abc", 9)
    assert {path.name for path in tmp_path.iterdir()} == {upload.id, f"{upload.id}.tus"}
    assert (tmp_path / upload.id).read_bytes() == b"abc"
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.iterdir())


def test_the_side_car_keeps_its_inode_for_life(store, tmp_path):
    upload = store.create(Upload(length=4))
    inode = (tmp_path / f"{upload.id}.tus").stat().st_ino
    store.append(upload, 0, b"ab")
    with store.open(upload, 2) as session:
        session.write(b"cd")
    store.claim(upload).accept()
    assert (tmp_path / f"{upload.id}.tus").stat().st_ino == inode


def test_sweeping_leaves_what_others_wrote(tmp_path):
    clock = Clock()
    store = DirectoryStore(str(tmp_path), lifetime=10, clock=clock)
    upload = store.create(Upload(length=1))
    strangers = ["a" * 32, "b" * 32 + ".tus", "notes.tus", "x.txt", upload.id + ".tus.bak"]
    for name in strangers:
        (tmp_path / name).write_bytes(b"not ours")
        os.utime(tmp_path / name, (1, 1))
    # What cannot be read as a side-car must not hold the others up.
    (tmp_path / ("d" * 32 + ".tus")).mkdir()
    os.mkfifo(tmp_path / ("e" * 32 + ".tus"))
    (tmp_path / ("f" * 32 + ".tus")).symlink_to("nowhere")
    strangers += ["d" * 32 + ".tus", "e" * 32 + ".tus", "f" * 32 + ".tus"]
    assert [listed.id for listed in store.list()] == [upload.id]
    clock.now += 11
    assert store.sweep() == 1
    assert {path.name for path in tmp_path.iterdir()} == {*strangers, SWEEPER, PENDING}


def test_sweeping_tolerates_files_that_vanish(tmp_path, monkeypatch):
    clock = Clock()
    store = DirectoryStore(str(tmp_path), lifetime=10, clock=clock)
    kept, gone = store.create(Upload(length=1)), store.create(Upload(length=1))
    ids = [gone.id, kept.id]
    monkeypatch.setattr(expiry, "ids_in", lambda directory: iter(ids))
    store.remove(gone.id)
    clock.now += 11
    assert store.sweep() == 1


def test_sweeping_finishes_a_removal_that_died_in_the_middle(store, tmp_path):
    upload = receive(store, b"abc", 9)
    with files.SideCar(str(tmp_path / upload.id), store._policy) as car:
        car.change(ledger.terminate(car.slot))
    with pytest.raises(UploadGone):
        store.load(upload.id)
    store.sweep()
    assert {path.name for path in tmp_path.iterdir()} == {SWEEPER, PENDING}


def test_only_one_sweeps_and_not_too_often(tmp_path):
    clock = Clock()
    store = DirectoryStore(str(tmp_path), lifetime=10, clock=clock)
    assert store.sweep(at_most_every=60) == 0
    store.create(Upload(length=1))
    clock.now += 11
    assert store.sweep(at_most_every=60) == 0  # somebody was here just now
    fd = os.open(tmp_path / SWEEPER, os.O_RDWR)
    locks.lock(fd)
    assert store.sweep() == 0  # somebody is at it
    os.close(fd)
    assert store.sweep() == 1


class Death(BaseException):
    """The process is gone at this point."""


@pytest.mark.parametrize("how", ["open", "append"])
def test_who_dies_over_staged_bytes_has_ended_their_session(store, monkeypatch, tmp_path, how):
    """Else the session would count bytes that are no longer its own."""
    upload = store.create(Upload(length=9))
    with store.open(upload, 0, staged=True) as session:
        session.write(b"abc")
        with monkeypatch.context() as broken, pytest.raises(Death):
            broken.setattr(files.SideCar, "count", mock.Mock(side_effect=Death))
            if how == "open":
                store.open(upload, 0)
            else:
                store.append(upload, 0, b"XXXXX")
        with pytest.raises(UploadReplaced):
            session.write(b"def")
        with pytest.raises(UploadReplaced):
            session.commit()
    assert store.load(upload.id).offset == 0
    store.append(upload, 0, b"abcdefghi")
    assert (tmp_path / upload.id).read_bytes() == b"abcdefghi"


# -- Damage --


def test_data_that_got_shorter_is_resumed_from_where_it_ends(store, tmp_path):
    upload = receive(store, b"abcdef", 9)
    os.truncate(tmp_path / upload.id, 4)
    assert store.load(upload.id).offset == 4
    store.append(upload, 4, b"EF")
    assert store.append(upload, 6, b"GHI").state == State.COMPLETE
    assert (tmp_path / upload.id).read_bytes() == b"abcdEFGHI"


def test_a_complete_file_that_got_shorter_is_received_again(store, tmp_path):
    upload = receive(store, b"abcdef", 6)
    os.truncate(tmp_path / upload.id, 4)
    assert (store.load(upload.id).state, store.load(upload.id).offset) == (State.RECEIVING, 4)
    with store.open(upload, 4) as session:
        session.write(b"EF")
        assert session.commit().state == State.COMPLETE
    assert (tmp_path / upload.id).read_bytes() == b"abcdEF"


def test_where_every_block_is_synced_lost_data_is_damage(tmp_path):
    store = DirectoryStore(str(tmp_path), fsync="always")
    upload = receive(store, b"abcdef", 9)
    os.truncate(tmp_path / upload.id, 4)
    with pytest.raises(UploadGone):
        store.load(upload.id)
    with pytest.raises(UploadGone):
        store.append(upload, 4, b"x")


def test_bytes_that_were_never_counted_are_overwritten_and_cut_off(store, tmp_path):
    upload = receive(store, b"abc", None)
    with (tmp_path / upload.id).open("ab") as file:
        file.write(b"XXXXXXXXXX")  # a process died between the data and the slot
    assert store.load(upload.id).offset == 3
    store.append(upload, 3, b"d", length=4)
    assert (tmp_path / upload.id).read_bytes() == b"abcd"


def test_data_that_vanished_is_gone(store, tmp_path):
    upload, complete = receive(store, b"abc", 9), receive(store, b"abc", 3)
    (tmp_path / upload.id).unlink()
    (tmp_path / complete.id).unlink()
    os.utime(tmp_path / f"{complete.id}.tus", (1, 1))  # long ago: no application is just taking it
    for use in (
        lambda: store.load(upload.id),
        lambda: store.open(upload, 3),
        lambda: store.append(upload, 3, b"x"),
        lambda: store.load(complete.id),
        lambda: store.claim(complete),
    ):
        with pytest.raises(UploadGone):
            use()


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 267, 268, 269, 300])
def test_a_side_car_cut_short_is_gone_and_not_an_accident(store, tmp_path, size):
    upload = receive(store, b"abc", 9)
    path = tmp_path / f"{upload.id}.tus"
    whole = path.read_bytes()
    assert size < len(whole)
    path.write_bytes(whole[:size])
    with pytest.raises(UploadGone):
        store.load(upload.id)
    assert list(store.list()) == []
    store.sweep()
    assert path.exists()  # it may be evidence


def test_a_torn_slot_leaves_the_state_before_it(store, tmp_path):
    upload = store.create(Upload(length=9))
    store.append(upload, 0, b"abc")
    path = tmp_path / f"{upload.id}.tus"
    before = path.read_bytes()
    store.append(upload, 3, b"def")
    after = path.read_bytes()
    changed = [i for i in range(len(after)) if after[i] != before[i]]
    assert changed[-1] - changed[0] < 128  # one slot, and nothing else, was written
    for torn in changed:
        path.write_bytes(after[:torn] + bytes([after[torn] ^ 0x55]) + after[torn + 1 :])
        assert store.load(upload.id).offset == 3
    path.write_bytes(after)
    assert store.load(upload.id).offset == 6


@pytest.mark.parametrize("is_empty", [False, True], ids=["zeros", "empty"])
def test_both_slots_torn_is_gone(store, tmp_path, is_empty):
    """An empty side-car is one that is being created, that a crash has left, or that a full disk could not remove."""
    upload = receive(store, b"abc", 9)
    path = tmp_path / f"{upload.id}.tus"
    path.write_bytes(b"" if is_empty else bytes(256) + path.read_bytes()[256:])
    for use in (
        lambda: store.load(upload.id),
        lambda: store.remove(upload.id),
        lambda: store.open(upload, 3).__enter__(),
        lambda: store.append(upload, 3, b"x"),
        lambda: store.complete(upload, 3, b"abcdef"),
        lambda: store.fence(upload),
        lambda: store.promise(upload),
        lambda: store.claim(upload),
        lambda: store.watch(upload.id, "a" * 32),
    ):
        with pytest.raises(UploadGone):
            use()
    store.touch(upload.id)


def test_a_long_record_is_read_whole(store):
    upload = store.create(Upload(length=1, raw_metadata="a " + "x" * 20_000, concat="partial"))
    store.watch(upload.id, "c" * 32)
    assert store.load(upload.id).raw_metadata == upload.raw_metadata
    assert store.finals_of(upload.id) == ("c" * 32,)


def test_every_field_of_a_slot_survives_packing():
    for state in State:
        for length, expires_at in ((None, None), (0, 1.5), (2**63 - 1, 2e9)):
            slot = Slot(
                sequence=2**40 + 1,
                generation=2**33,
                offset=2**50,
                length=length,
                state=state,
                expires_at=expires_at,
                writing=True,
                is_known=False,
                attempts=7,
                since=1.5,
                is_aside=True,
                synced=2**49,
                boot=b"of this machine.",
                ends_with_boot=True,
                losses=2**31,
            )
            assert sidecar.unpack_slots(bytes(128) + sidecar.pack_slot(slot)) == slot


# -- A full disk --


@pytest.mark.parametrize("blocks", [(b"cdef",), (b"c", b"def"), (b"cd", b"", b"ef")])
def test_a_disk_that_fills_keeps_and_counts_what_fitted(store, monkeypatch, tmp_path, blocks):
    upload = store.create(Upload(length=10))
    disk = full_disk(4)
    monkeypatch.setattr(files.os, "pwrite", disk)
    monkeypatch.setattr(files.os, "pwritev", disk)
    with store.open(upload, 0) as session:
        session.write(b"ab")
        with pytest.raises(StorageFull):
            session.write(*blocks)
    assert store.load(upload.id).offset == 4
    with pytest.raises(StorageFull):
        store.append(upload, 4, b"ef")
    disk.room = 100
    assert store.append(upload, 4, b"efghij").state == State.COMPLETE
    assert (tmp_path / upload.id).read_bytes() == b"abcdefghij"


def test_a_disk_that_fills_forgets_staged_blocks(store, monkeypatch):
    upload = store.create(Upload(length=10))
    monkeypatch.setattr(files.os, "pwrite", full_disk(4))
    with pytest.raises(StorageFull), store.open(upload, 0, staged=True) as session:
        session.write(b"abcdef")
    assert store.load(upload.id).offset == 0


def test_a_full_disk_creates_nothing(store, monkeypatch, tmp_path):
    def pwrite(fd, block, offset):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "pwrite", pwrite)
    with pytest.raises(StorageFull):
        store.create(Upload(length=10))
    assert list(tmp_path.iterdir()) == []


# -- Completing in one step --


def test_what_is_synced_when_an_upload_is_completed_in_one_step(tmp_path, monkeypatch):
    synced = []

    def note(fd):
        synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")))

    monkeypatch.setattr(files_io, "_fdatasync", note)
    monkeypatch.setattr(os, "fsync", note)
    for policy in ("none", "finish", "always"):
        store = DirectoryStore(str(tmp_path), fsync=policy)
        upload = store.create(Upload(length=4))
        data, car = tmp_path / upload.id, tmp_path / f"{upload.id}.tus"
        synced.clear()
        claim = store.complete(upload, 0, b"abcd")
        durable = [data, car, tmp_path]
        assert synced == ([] if policy == "none" else durable)
        synced.clear()
        claim.accept()
        assert synced == ([] if policy == "none" else [car])
        synced.clear()
        claim = store.create_whole(Upload(length=4), b"abcd")
        data, car = tmp_path / claim.upload.id, tmp_path / f"{claim.upload.id}.tus"
        durable = [data, car, tmp_path]
        assert synced == ([] if policy == "none" else durable)
        claim.release()


def test_a_sync_that_fails_hands_nothing_over(store, monkeypatch):
    def fail(fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    for begin in (
        lambda: store.complete(store.create(Upload(length=3)), 0, b"abc"),
        lambda: store.create_whole(Upload(length=3), b"abc"),
    ):
        with monkeypatch.context() as broken, pytest.raises(OSError, match="Input/output"):
            broken.setattr(files_io, "_fdatasync", fail)
            begin()
    (upload,) = store.list()  # of a whole creation nothing is left
    assert (upload.state, upload.offset) == (State.RECEIVING, 0)
    store.complete(upload, 0, b"abc").accept()


def test_a_data_file_that_another_process_has_locked(store, tmp_path):
    """The bytes are counted all the same, and the upload waits for its hand-over."""
    upload = store.create(Upload(length=3))
    fd = os.open(tmp_path / upload.id, os.O_RDONLY)
    locks.lock(fd)
    with pytest.raises(UploadLocked):
        store.complete(upload, 0, b"abc")
    os.close(fd)
    complete = store.load(upload.id)
    assert (complete.state, complete.attempts) == (State.COMPLETE, 0)
    store.claim(complete).accept()


def test_a_lock_that_is_free_after_all(store, tmp_path, monkeypatch):
    """Another process only looked whether it was held."""
    upload = store.create(Upload(length=3))
    fd = os.open(tmp_path / upload.id, os.O_RDONLY)
    locks.lock(fd)
    original = store._claim_and_begin

    def begun(*arguments):
        os.close(fd)
        return original(*arguments)

    monkeypatch.setattr(store, "_claim_and_begin", begun)
    claim = store.complete(upload, 0, b"abc", is_last=True)
    assert (claim.upload.state, claim.upload.attempts, claim.upload.is_aside) == (State.HANDING_OVER, 1, True)
    claim.accept()


STEPS = ["nothing", "side-car", "data", "slot", "sync"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("whole", [True, False])
def test_a_process_that_dies_over_a_step(tmp_path, step, whole):
    """It is killed before one of its writes; what is left says no more than what is stored."""
    code = """
import os, signal, sys
from tus.models import Upload
from tus.filesystem import io
from tus.stores.directory.store import DirectoryStore
directory, step, whole = sys.argv[1:]
steps = ["nothing", "side-car", "data", "slot"]
store = DirectoryStore(directory, lifetime=10)
upload = None if whole == "True" else store.create(Upload(length=3, is_known=False))
left = {"nothing": 0, "side-car": 0, "data": 1, "slot": 2, "sync": 99}[step]
pwrite = os.pwrite
def dying(fd, data, offset):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return pwrite(fd, data, offset)
if upload is not None:
    left = {"nothing": 0, "side-car": 0, "data": 0, "slot": 1, "sync": 99}[step]
os.pwrite = dying
if step == "sync":
    def sync(fd):
        if os.readlink(f"/proc/self/fd/{fd}").endswith(".tus"):
            os.kill(os.getpid(), signal.SIGKILL)
    io._fdatasync = sync
if upload is None:
    store.create_whole(Upload(length=3, is_known=False), b"abc")
else:
    store.complete(upload, 0, b"abc")
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), step, str(whole)], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    clock = Clock()
    clock.now = time.time()
    store = DirectoryStore(str(tmp_path), lifetime=10, clock=clock)
    left = list(store.list())
    if whole and step in ("nothing", "side-car"):
        assert left == []  # only an empty side-car, which `tus fsck` names
        return
    (upload,) = left
    assert upload.offset <= (tmp_path / upload.id).stat().st_size
    if step == "sync":
        assert (upload.state, upload.attempts, upload.offset) == (State.COMPLETE, 1, 3)
        assert "crashed during the hand-over" in upload.error
    else:
        assert (upload.state, upload.attempts, upload.offset) == (State.RECEIVING, 0, 0)
        assert (tmp_path / upload.id).read_bytes() in (b"", b"abc")
    clock.now += 11
    assert store.sweep() == 1, "no client knows it"
    assert {path.name for path in tmp_path.iterdir()} == {SWEEPER, PENDING}


def test_a_full_disk_counts_what_fitted_of_the_last_block(store, monkeypatch, tmp_path):
    upload = store.create(Upload(length=6))
    disk = full_disk(4)
    monkeypatch.setattr(files.os, "pwrite", disk)
    with pytest.raises(StorageFull):
        store.complete(upload, 0, b"abcdef")
    assert (store.load(upload.id).offset, store.load(upload.id).state) == (4, State.RECEIVING)
    with pytest.raises(StorageFull):
        store.create_whole(Upload(length=6), b"abcdef")
    assert len(list(tmp_path.iterdir())) == 2, "nothing was created"
    disk.room = 100
    store.complete(upload, 4, b"ef").accept()


def test_uncounted_bytes_are_overwritten_and_cut_off_in_one_step(store, tmp_path):
    upload = store.create(Upload(length=3))
    (tmp_path / upload.id).write_bytes(b"XXXXXXXXXX")
    claim = store.complete(upload, 0, b"abc")
    assert (tmp_path / upload.id).read_bytes() == b"abc"
    claim.release()


def test_limits_count_what_is_completed_in_one_step(tmp_path):
    store = DirectoryStore(str(tmp_path), limits=Limits(size=10))
    claim = store.create_whole(Upload(length=6), b"abcdef")
    with pytest.raises(QuotaExceeded):
        store.create_whole(Upload(length=6), b"abcdef")
    claim.accept()
    store.create_whole(Upload(length=6), b"abcdef").accept()
    deferred = store.create(Upload())
    assert not store.can_complete(deferred)
    with pytest.raises(TooLarge):
        store.complete(deferred, 0, bytes(11), 11)
    store.complete(deferred, 0, bytes(10), 10).accept()
    store.create_whole(Upload(length=10), bytes(10)).accept()


def test_the_directory_is_synced_that_is_there_now(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    here = tmp_path / "uploads"
    here.mkdir()
    store = DirectoryStore(str(here))
    store.create_whole(Upload(length=1), b"a").accept()
    here.rename(tmp_path / "before")
    here.mkdir()
    store.create_whole(Upload(length=1), b"a").accept()
    assert synced == [(tmp_path / "before").stat().st_ino, here.stat().st_ino]


def test_what_fails_after_the_decision_changes_nothing(store, monkeypatch, caplog):
    claim = store.create_whole(Upload(length=3), b"abc")
    monkeypatch.setattr("tus.stores.directory.claims.unlink", mock.Mock(side_effect=OSError(5, "the disk")))
    claim.accept()
    assert store.load(claim.upload.id).state == State.ACCEPTED
    assert "is decided, but its files could not be removed" in caplog.text


# -- Locks and processes --


def test_a_busy_upload_is_locked_and_reading_does_not_wait(store, tmp_path, monkeypatch):
    monkeypatch.setattr(locks.lock, "__defaults__", (0.05,))
    upload = receive(store, b"abc", 9)
    fd = os.open(tmp_path / f"{upload.id}.tus", os.O_RDWR)
    locks.lock(fd)
    assert store.load(upload.id).offset == 3
    with pytest.raises(UploadLocked):
        store.append(upload, 3, b"d")
    with pytest.raises(UploadLocked):
        store.open(upload, 3)
    os.close(fd)
    assert store.append(upload, 3, b"d").offset == 4


def test_nothing_is_left_open(store, tmp_path):
    upload = receive(store, b"abc", 9)
    store.claim(receive(store, b"abc", 3)).release()  # the directory itself stays open from here on
    with pytest.raises(Exception, match="offset of this upload is 3"):
        store.open(upload, 0)
    with store.open(upload, 3, staged=True) as session:
        session.write(b"d")
    with store.open(upload, 3) as session:
        session.write(b"defghi")
    store.claim(upload).release()
    store.claim(upload).accept()
    store.remove(upload.id)
    store.complete(store.create(Upload(length=3)), 0, b"abc").accept()
    store.complete(store.create(Upload(length=3)), 0, b"abc").release()
    store.create_whole(Upload(length=3), b"abc").reject()
    for wrong in (b"ab", b"abcd"):
        with pytest.raises(RequestError):
            store.complete(store.create(Upload(length=3)), 0, wrong)
    assert opened_below(tmp_path) == []


@pytest.mark.parametrize("failing", ["digest", "begin"])
@pytest.mark.parametrize("way", ["complete", "create_whole", "create_whole with an id"])
def test_a_completion_that_fails_leaves_no_lock_and_no_file_open(store, tmp_path, monkeypatch, failing, way):
    def fail(claim, *arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(DirectoryClaim, failing, fail)
    draft = Upload(length=3, hashes=("sha256",), id="0" * 32 if way.endswith("id") else "")
    upload = store.create(draft) if way == "complete" else draft
    with pytest.raises(OSError, match="Input/output") as caught:
        if way == "complete":
            store.complete(upload, 0, b"abc")
        else:
            store.create_whole(draft, b"abc")
    assert caught.value.__traceback__ is not None, "it keeps the claim alive, as a logged exception may"
    assert opened_below(tmp_path) == []
    monkeypatch.undo()
    (left,) = store.list()
    assert (left.state, left.attempts) == (State.COMPLETE, 0)
    DirectoryStore(str(tmp_path)).claim(left).accept()


def test_a_claim_that_is_never_released_warns_and_closes(store, tmp_path):
    upload = receive(store, b"abc", 3)
    claim = store.claim(upload)
    claim.begin()
    assert len(opened_below(tmp_path)) == 2
    with pytest.warns(ResourceWarning, match=f"upload {upload.id} was never released"):
        del claim
    assert opened_below(tmp_path) == []
    left = DirectoryStore(str(tmp_path)).load(upload.id)
    assert (left.state, left.attempts) == (State.COMPLETE, 1)
    store.claim(left).accept()


def _claim_and_hang(directory, upload_id, ready):
    claim = DirectoryStore(directory).claim(Upload(id=upload_id))
    claim.begin()
    ready.set()
    claim.lock_forever = ready
    import time

    time.sleep(60)


def test_a_claim_ends_with_its_process(store, tmp_path):
    upload = receive(store, b"abc", 3)
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_claim_and_hang, args=(str(tmp_path), upload.id, ready))
    process.start()
    assert ready.wait(GUARD)
    with pytest.raises(UploadLocked):
        store.claim(upload)
    assert store.load(upload.id).state == State.HANDING_OVER
    process.kill()
    process.join()
    left = store.load(upload.id)
    assert (left.state, left.attempts) == (State.COMPLETE, 1)
    assert "crashed during the hand-over" in left.error
    store.claim(upload).release()


def test_a_torn_outcome_costs_words_only(store, tmp_path):
    upload = receive(store, b"abc", 3)
    claim = store.claim(upload)
    claim.begin()
    claim.accept(Response(200, "OK", [("X-App", "1")]))
    car = tmp_path / f"{upload.id}.tus"
    whole = car.read_bytes()
    for torn in (whole[:-1], whole[:-40], whole[:-3] + b"???"):
        car.write_bytes(torn)
        left = store.load(upload.id)
        assert (left.state, left.answer) == (State.ACCEPTED, None)


# -- Copying --


def test_copying_falls_back_where_the_kernel_cannot(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(3_000_001))
    for copy in (os.copy_file_range, refuse, None):
        monkeypatch.setattr(files_io.os, "copy_file_range", copy)
        target.write_bytes(b"head")
        with target.open("r+b") as file:
            files_io.copy_file(str(source), file.fileno(), 4, 3_000_001, Ownership())
        assert target.read_bytes() == b"head" + source.read_bytes()


def test_concatenation_copies_inside_the_kernel(store, monkeypatch):
    calls = []
    copy = os.copy_file_range
    monkeypatch.setattr(files_io.os, "copy_file_range", lambda *args: calls.append(args[2]) or copy(*args))
    monkeypatch.setattr(files_io, "_BUFFER", None)  # what a copy through memory would need
    part = receive(store, b"abc", 3)
    final = store.create(Upload(concat="final;", parts=(part.id,)))
    store.concatenate(final.id, [store.load(part.id)])
    assert sum(calls) == 3


# -- Preparing the directory --


def test_the_last_level_is_made_for_us_alone(tmp_path):
    path = tmp_path / "new"
    assert prepare_directory(str(path)) == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert list(path.iterdir()) == []


def test_a_missing_parent_is_an_error(tmp_path):
    with pytest.raises(OptionError, match="tmp_file_dir"):
        prepare_directory(str(tmp_path / "a" / "b"))


def test_a_file_or_a_directory_that_cannot_be_written_is_an_error(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OptionError, match="tmp_file_dir"):
        prepare_directory(str(file))
    with pytest.raises(OptionError, match="tmp_file_dir"):
        prepare_directory("/proc")


def test_locks_that_guard_nothing_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(locks.fcntl, "flock", lambda *args: None)
    with pytest.raises(OptionError, match="same lock twice"):
        prepare_directory(str(tmp_path))


def test_locks_are_proven_once_for_each_directory(tmp_path, monkeypatch):
    """A view may open a store in each request."""
    proven = []
    monkeypatch.setattr(preparation, "check_locks_work", proven.append)
    for _ in range(3):
        for name in ("one", "two", "two/../one"):
            prepare_directory(str(tmp_path / name))
    assert proven == [str(tmp_path / "one"), str(tmp_path / "two")]
    (tmp_path / "one").rename(tmp_path / "three")
    prepare_directory(str(tmp_path / "one"))
    assert proven[2:] == [str(tmp_path / "one")], "another directory has the name now"


def test_locks_that_guard_nothing_are_an_error_each_time(tmp_path, monkeypatch):
    def fail(path):
        raise OptionError("tmp_file_dir", "its locks do not work")

    monkeypatch.setattr(preparation, "check_locks_work", fail)
    for _ in range(2):
        with pytest.raises(OptionError):
            prepare_directory(str(tmp_path))


def test_what_fsync_promises_is_what_is_synced(tmp_path, monkeypatch):
    """Counted: which files are synced, and when, under each policy."""
    synced = []

    def note(fd):
        synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")))

    monkeypatch.setattr(files_io, "_fdatasync", note)
    monkeypatch.setattr(os, "fsync", note)
    for policy in ("none", "finish", "always"):
        store = DirectoryStore(str(tmp_path), fsync=policy)
        synced.clear()
        upload = store.create(Upload(length=4))
        data, car = tmp_path / upload.id, tmp_path / f"{upload.id}.tus"
        assert synced == {"none": [], "finish": [], "always": [car, tmp_path]}[policy]
        synced.clear()
        store.append(upload, 0, b"ab")
        store.append(upload, 2, b"cd")
        assert synced == {"none": [], "finish": [], "always": [data, car, data, car]}[policy]
        synced.clear()
        claim = store.claim(upload)
        assert synced == {"none": [], "finish": [data, car, tmp_path], "always": [car, tmp_path]}[policy]
        claim.release()
        synced.clear()
        claim = store.claim(upload)
        assert synced == ([] if policy == "none" else [car, tmp_path])  # the data is on the disk for sure
        synced.clear()
        claim.accept()
        assert synced == ([] if policy == "none" else [car])


def test_a_limit_of_the_system_is_a_full_disk(tmp_path):
    """The kernel itself refuses here: a process may not make files larger than 100 000 bytes."""
    code = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
from tests.support.disk import full_disk
from tests.support.waiting import GUARD
from tus.errors import StorageFull
from tus.models import Upload
from tus.stores.directory.store import DirectoryStore
store = DirectoryStore(sys.argv[1])
upload = store.create(Upload(length=300_000))
try:
    with store.open(upload, 0) as session:
        for number in range(10):
            session.write(bytes([number]) * 30_000)
except StorageFull:
    pass
assert store.load(upload.id).offset == 100_000, store.load(upload.id)
try:
    store.append(store.load(upload.id), 100_000, b"x")
except StorageFull:
    pass
else:
    raise SystemExit("there was room")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(store.append(store.load(upload.id), 100_000, bytes(200_000)).id)
"""
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    data = (tmp_path / result.stdout.strip()).read_bytes()
    expected = b"".join(bytes([number]) * 30_000 for number in range(10))[:100_000] + bytes(200_000)
    assert data == expected


def test_two_who_create_the_same_final_upload_at_once_find_one(store, monkeypatch):
    """The second comes between the first one's two files."""
    draft = Upload(id="a" * 32, length=3, concat="final;x", parts=("b" * 32,))
    found, others = [], []
    opened = os.open

    def interleaved(path, flags, *mode, **options):
        if str(path).endswith("a" * 32) and flags & os.O_CREAT:
            other = threading.Thread(target=lambda: found.append(store.create(draft)))
            other.start()
            time.sleep(0.05)
            monkeypatch.undo()
            fd = opened(path, flags, *mode, **options)
            others.append(other)
            return fd
        return opened(path, flags, *mode, **options)

    monkeypatch.setattr(files.os, "open", interleaved)
    made = store.create(draft)
    others.pop().join()
    assert [upload.id for upload in found] == [made.id]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_that_was_forked_during_a_sweep_does_not_keep_its_lock(tmp_path, monkeypatch):
    children = []

    def fork(directory):
        children.append(os.fork())
        if not children[-1]:
            time.sleep(60)
            os._exit(0)
        return iter(())

    monkeypatch.setattr(expiry, "ids_in", fork)
    DirectoryStore(str(tmp_path)).sweep()
    try:
        fd = os.open(tmp_path / SWEEPER, os.O_RDWR)
        locks.lock(fd, limit=0)
        os.close(fd)
    finally:
        os.kill(children[0], signal.SIGKILL)
        os.waitpid(children[0], 0)


# -- What lies in a directory that ought not to --


def test_a_record_of_another_version_stops_no_sweep(tmp_path):
    clock = Clock()
    store = DirectoryStore(str(tmp_path), lifetime=10, clock=clock)
    expired = store.create(Upload(length=1))
    other = store.create(Upload(length=1))
    path = tmp_path / f"{other.id}.tus"
    data = path.read_bytes()
    record = b'{"format": 9}'
    path.write_bytes(
        data[: sidecar.SLOTS_SIZE] + sidecar._RECORD_HEAD.pack(b"rec1", len(record), zlib.crc32(record)) + record
    )
    with pytest.raises(UploadGone):
        store.load(other.id)
    assert [upload.id for upload in store.list()] == [expired.id]
    clock.now += 11
    assert store.sweep() == 1
    assert path.exists()


def test_a_sweep_in_the_future_stops_no_sweep(tmp_path):
    store = DirectoryStore(str(tmp_path), lifetime=1, clock=Clock())
    store.sweep()
    late = store.create(Upload(length=1))
    os.utime(tmp_path / SWEEPER, (time.time() + 10_000,) * 2)
    store._policy.clock.now += 5
    assert store.sweep(at_most_every=600) == 1
    assert not (tmp_path / late.id).exists()


def test_a_giant_side_car_is_not_read_whole(tmp_path):
    (tmp_path / ("a" * 32 + ".tus")).touch()
    os.truncate(tmp_path / ("a" * 32 + ".tus"), 1 << 40)
    with pytest.raises(UploadGone):
        DirectoryStore(str(tmp_path)).load("a" * 32)


@pytest.mark.parametrize("put", [os.mkfifo, os.mkdir])
def test_what_is_no_file_holds_nobody_up(tmp_path, put):
    store = DirectoryStore(str(tmp_path))
    upload = store.create(Upload(length=3))
    (tmp_path / upload.id).unlink()
    put(tmp_path / upload.id)
    with pytest.raises((UploadGone, OSError)):
        store.append(upload, 0, b"abc")
    with pytest.raises((UploadGone, OSError)):
        store.open(upload, 0)
    with pytest.raises(UploadGone):
        store.load(upload.id)
