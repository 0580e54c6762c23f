"""A creation under an id that a client can ask for again, whose process dies between its two files."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.waiting import GUARD
from tus.errors import UploadGone
from tus.filesystem.ownership import Ownership
from tus.models import State, Upload
from tus.stores.directory.record import remove_abandoned
from tus.stores.directory.store import DirectoryStore
from tus.stores.interface import Limits


@pytest.fixture(params=["none", "finish", "always"])
def store(request, tmp_path):
    return DirectoryStore(str(tmp_path), fsync=request.param, limits=Limits(uploads=100))


def draft(store, length=5):
    return Upload(id=store.id_for("a key of a client"), length=length)


@pytest.mark.parametrize("after", [".tus", ""])
def test_the_client_tries_again_after_its_process_was_killed(store, monkeypatch, after):
    wanted = draft(store)
    child = os.fork()
    if not child:
        create = Ownership.create

        def die(ownership, path, *arguments):
            fd = create(ownership, path, *arguments)
            if path == store.path_of(wanted) + after:
                os.kill(os.getpid(), signal.SIGKILL)
            return fd

        monkeypatch.setattr(Ownership, "create", die)
        try:
            store.create_once(wanted)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    made = store.create_once(wanted)
    if made is None:  # both files were there
        assert not after
    upload = store.load(wanted.id)
    assert (upload.state, upload.offset, upload.length) == (State.RECEIVING, 0, 5)
    with store.open(upload, 0) as session:
        session.write(b"hello")
    assert store.create_once(wanted) is None
    assert store.load(wanted.id).offset == 5


def test_the_record_was_written_and_the_data_was_not_made(store):
    wanted = draft(store)
    first = store.create_once(wanted)
    os.unlink(store.path_of(first))
    assert store.create_once(wanted) is not None
    assert store.load(wanted.id).offset == 0


def test_data_that_has_begun_and_is_missing_is_not_created_again(store):
    wanted = draft(store)
    upload = store.create_once(wanted)
    with store.open(upload, 0) as session:
        session.write(b"he")
    os.unlink(store.path_of(upload))
    with pytest.raises(UploadGone):
        store.create_once(wanted)


def test_a_living_creation_is_waited_for(store, monkeypatch):
    """It stands between its two files for a while."""
    wanted, begun, go_on = draft(store), threading.Event(), threading.Event()
    create = Ownership.create

    def slowly(ownership, path, *arguments):
        if path == store.path_of(wanted):
            begun.set()
            go_on.wait(GUARD)
        return create(ownership, path, *arguments)

    monkeypatch.setattr(Ownership, "create", slowly)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(store.create_once, wanted)
        assert begun.wait(GUARD)
        second = pool.submit(store.create_once, wanted)
        go_on.set()
        assert first.result(GUARD).id == wanted.id
        assert second.result(GUARD) is None
    assert store.load(wanted.id).offset == 0


def test_a_creation_whose_empty_record_was_removed_is_not_undone(store, monkeypatch):
    """It was stopped before it took the lock, and another request has created the upload meanwhile."""
    wanted, create = draft(store), Ownership.create
    other = DirectoryStore(store.directory, fsync="none", limits=Limits(uploads=100))

    def stop(ownership, path, *arguments):
        fd = create(ownership, path, *arguments)
        monkeypatch.undo()
        assert other.create_once(wanted) is not None
        return fd

    monkeypatch.setattr(Ownership, "create", stop)
    assert store.create_once(wanted) is None
    assert store.load(wanted.id).offset == 0
    assert sorted(name for name in os.listdir(store.directory) if wanted.id in name) == [wanted.id, f"{wanted.id}.tus"]


def test_a_creation_whose_empty_record_was_removed_is_tried_again(store, monkeypatch):
    """It was stopped before it took the lock, and the request that removed its record has not created the upload."""
    wanted, create = draft(store), Ownership.create

    def stop(ownership, path, *arguments):
        fd = create(ownership, path, *arguments)
        monkeypatch.undo()
        remove_abandoned(store.path_of(wanted), ownership)
        return fd

    monkeypatch.setattr(Ownership, "create", stop)
    assert store.create_once(wanted).id == wanted.id
    assert store.load(wanted.id).offset == 0
