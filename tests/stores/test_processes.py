"""The process that runs, and a forked child, which shares the locks of its parent."""

import os
import warnings

import pytest

from tus.errors import UploadLocked
from tus.filesystem import processes
from tus.models import State, Upload
from tus.stores.directory.store import DirectoryStore

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def in_child(function):
    """Call a function in a forked child, and return its exit code: 1 for a false result, 2 for an exception."""
    child = os.fork()
    if not child:
        code = 2
        try:
            code = 0 if function() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_is_another_process():
    parent = processes.current
    assert in_child(lambda: processes.current is not parent) == 0
    assert processes.current is parent


def test_each_process_reads_its_own_umask():
    before = os.umask(0o027)

    def read():
        os.umask(0o077)
        return processes.current.read_umask() == 0o077

    try:
        assert processes.current.read_umask() == 0o027
        assert in_child(read) == 0
        assert processes.current.read_umask() == 0o027
    finally:
        os.umask(before)
    assert processes.current.read_umask() == before


@pytest.mark.parametrize("status", [b"", b"Name:\tpython\n", b"Name:\tpython\nUmask:\t\n"])
def test_a_system_that_does_not_say_the_umask(monkeypatch, status):
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: status)
    assert processes.current.read_umask() is None


@pytest.mark.parametrize("how", ["release", "__del__"])
def test_a_forked_child_does_not_end_the_claim_of_its_parent(tmp_path, how):
    store = DirectoryStore(str(tmp_path))
    claim = store.complete(store.create(Upload(length=3)), 0, b"abc")

    def end():
        with warnings.catch_warnings(record=True) as warned:
            getattr(claim, how)()
        return claim._data_fd < 0 and not warned

    assert in_child(end) == 0
    assert store.load(claim.upload.id).state == State.HANDING_OVER
    with pytest.raises(UploadLocked):
        store.claim(claim.upload)
    claim.accept()
    assert store.load(claim.upload.id).state == State.ACCEPTED
