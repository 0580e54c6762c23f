"""Descriptors and locks on a file system whose close and unlock fail: FUSE and NFS can report an error there."""

import contextlib
import errno
import fcntl
import gc
import itertools
import os
import sys
import threading
import traceback

import pytest

from tests.support.descriptors import needs_proc, opened_below
from tests.support.life import live
from tus.errors import StorageUnavailable, UploadGone, UploadLocked
from tus.models import Upload
from tus.stores.directory.store import DirectoryStore


class Failing:
    """A system call that does its work, and reports an error at one of its calls in this thread."""

    def __init__(self, real, fails_at, then=lambda *arguments: None, counts=lambda *arguments: True):
        self.real, self.fails_at, self.then, self.counts = real, fails_at, then, counts
        self.thread = threading.current_thread()
        self.calls = 0
        self.has_failed = False

    def __call__(self, *arguments):
        if threading.current_thread() is not self.thread or not self.counts(*arguments):
            return self.real(*arguments)
        self.calls += 1
        if self.calls - 1 != self.fails_at:
            return self.real(*arguments)
        self.has_failed = True
        self.then(*arguments)
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def alone(work, tmp_path):
    """Run a function in a child without threads, because those of other tests open and close files as well."""
    result = tmp_path / "result"
    child = os.fork()
    if not child:
        try:
            gc.collect()
            gc.disable()  # what other tests have left must not be closed meanwhile
            with pytest.MonkeyPatch.context() as patch:
                work(tmp_path, patch)
            result.write_text("done")
        except BaseException:
            result.write_text(traceback.format_exc())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert result.read_text() == "done"


def is_called_by_the_package(fd):
    """shutil of the standard library closes twice. Data that was written is lost after an error, see below."""
    name = os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
    is_written = fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR) and len(name) == 32
    return sys._getframe(2).f_globals["__name__"].startswith("tus.") and not is_written


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@needs_proc
def test_a_close_that_fails_disturbs_nothing_and_is_never_repeated(tmp_path):
    alone(close_with_errors, tmp_path)


def close_with_errors(tmp_path, monkeypatch):
    real, strangers = os.close, []

    def take_the_number(fd):
        real(fd)
        strangers.append(os.open(os.devnull, os.O_RDONLY))  # another thread gets the number that is free now
        assert strangers[-1] == fd

    for number in itertools.count():
        close = Failing(real, number, take_the_number, is_called_by_the_package)
        with monkeypatch.context() as patch:
            patch.setattr(os, "close", close)
            live(tmp_path / str(number), fsync="none")
        if not close.has_failed:
            break
        os.fstat(strangers[-1])  # it is still open
        real(strangers.pop())
        assert opened_below(tmp_path) == []
    assert number > 40


@needs_proc
def test_an_unlock_that_fails_leaves_no_lock_and_no_descriptor(tmp_path):
    alone(unlock_with_errors, tmp_path)


def unlock_with_errors(tmp_path, monkeypatch):
    real = fcntl.flock
    for number in itertools.count():
        flock = Failing(real, number, counts=lambda fd, how: how == fcntl.LOCK_UN)
        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "flock", flock)
            live(tmp_path / str(number), fsync="none")
        if not flock.has_failed:
            break
        assert opened_below(tmp_path) == []
    assert number > 40


def test_an_upload_is_not_locked_for_ever_by_an_unlock_that_failed(tmp_path, monkeypatch, caplog):
    store = DirectoryStore(str(tmp_path))
    upload = store.create(Upload(length=100))
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", Failing(fcntl.flock, 0, counts=lambda fd, how: how == fcntl.LOCK_UN))
        upload = store.append(upload, 0, b"x" * 10)
    assert "lock could not be released" in caplog.text
    try:
        assert store.append(upload, 10, b"x" * 10).offset == 20
    except UploadLocked:
        pytest.fail("a lock was left")


@needs_proc
def test_a_claim_that_is_dropped_closes_its_file_once(tmp_path, monkeypatch):
    store = DirectoryStore(str(tmp_path))
    claim = store.create_whole(Upload(length=4), b"four")
    real, strangers = os.close, []

    def take_the_number(fd):
        real(fd)
        strangers.append(os.open(os.devnull, os.O_RDONLY))

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", Failing(real, 0, take_the_number))
        claim.release("not now")
    del claim
    gc.collect()
    os.fstat(strangers[0])
    real(strangers[0])


def is_written_data(fd):
    name = os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
    return len(name) == 32 and fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR)


@needs_proc
@pytest.mark.parametrize("way", ["session", "append", "concatenate"])
def test_written_data_that_is_closed_with_an_error_is_lost(tmp_path, monkeypatch, way):
    """NFS reports there, and only there, that bytes did not reach the server."""
    store = DirectoryStore(str(tmp_path))
    parts = [store.append(store.create(Upload(length=4, concat="partial")), 0, b"part") for _ in range(2)]
    final = store.create(Upload(length=8, concat="final", parts=tuple(part.id for part in parts)))
    upload = final if way == "concatenate" else store.create(Upload(length=8))

    def close(fd):
        fails = is_written_data(fd)
        real(fd)
        if fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    real = os.close
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", close)
        if way == "concatenate":
            with contextlib.suppress(UploadGone):
                store.concatenate(final.id, parts)
        elif way == "append":
            with pytest.raises(StorageUnavailable):
                store.append(upload, 0, b"four")
        else:
            with pytest.raises(StorageUnavailable), store.open(upload, 0) as session:
                session.write(b"four")
    try:
        assert store.load(upload.id).offset == 0, "nothing was synced"
    except UploadGone:
        assert way == "concatenate"


def test_data_that_cannot_be_looked_at_is_closed(tmp_path, monkeypatch):
    """At once, and not when the error and its traceback are gone."""
    store = DirectoryStore(str(tmp_path))
    upload = store.create(Upload(length=3))
    claim = store.append(upload, 0, b"abc") and store.claim(upload)
    claim.keep()
    claim.begin()
    claim.accept()
    real, seen = os.fstat, []

    def fail_later(fd):
        if seen:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        seen.append(fd)
        return real(fd)

    with monkeypatch.context() as patches, pytest.raises(OSError, match="Input/output") as raised:
        patches.setattr(os, "fstat", fail_later)
        store.read(upload)
    assert raised.value.__traceback__ is not None
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(seen[0])
