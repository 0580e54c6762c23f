"""The file of the counts, which is parsed only if another process has changed it."""

import json
import os
import threading

import pytest

from tus.errors import UploadLocked
from tus.filesystem.ownership import NotOurs, Ownership
from tus.models import Upload
from tus.stores.directory.quota import Limits, Quota


@pytest.fixture
def quota(tmp_path):
    return Quota(str(tmp_path / "counts"), Limits(uploads=1000), lambda: (), Ownership())


def charge(quota, times=1):
    for _ in range(times):
        with quota.charge_creation(Upload(length=1), "an id"):
            pass


def test_another_process_may_change_the_file(quota, tmp_path):
    charge(quota, 2)
    path = tmp_path / "counts"
    path.write_text(path.read_text().replace('"uploads": 2', '"uploads": 7'))
    charge(quota)
    assert quota.read().uploads == 8


def test_another_file_may_take_its_place(quota, tmp_path):
    charge(quota, 2)
    path, new = tmp_path / "counts", tmp_path / "new"
    new.write_text(path.read_text().replace('"uploads": 2', '"uploads": 7'))
    new.chmod(0o600)
    new.rename(path)
    charge(quota)
    assert json.loads(path.read_text())["uploads"] == 8


def test_a_file_that_others_may_write_is_not_believed(quota, tmp_path):
    charge(quota)
    (tmp_path / "counts").chmod(0o666)
    with pytest.raises(NotOurs):
        charge(quota)


def test_the_file_may_be_lost(quota, tmp_path):
    charge(quota, 2)
    (tmp_path / "counts").unlink()
    charge(quota)
    assert json.loads((tmp_path / "counts").read_text())["uploads"] == 1  # the list of uploads is empty


def fail(fd):
    raise OSError("no locks")


def fork(quota):
    """Let four threads of a child charge uploads."""
    child = os.fork()
    if child:
        return child
    try:
        threads = [threading.Thread(target=charge, args=(quota, 50)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        os._exit(0)


def test_many_threads_and_processes_count_every_upload(quota, tmp_path):
    """The parent holds the lock among its threads while it forks."""
    charge(quota)
    with quota._file:
        children = [fork(quota) for _ in range(3)]
    charge(quota, 100)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert quota.read().uploads == 1 + 3 * 4 * 50 + 100


def test_a_thread_that_waits_too_long_gives_up(quota, monkeypatch):
    """As with the lock among processes, the client may try again."""
    monkeypatch.setattr("tus.stores.directory.counts_file.LIMIT", 0.05)
    with quota._file, pytest.raises(UploadLocked):
        charge(quota)
    charge(quota)
    assert quota.read().uploads == 1


def test_a_lock_that_fails_is_left_free(quota, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("tus.stores.directory.counts_file.lock", fail)
        with pytest.raises(OSError, match="no locks"):
            charge(quota)
    charge(quota)
    assert quota.read().uploads == 1
