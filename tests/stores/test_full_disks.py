"""Disks without room: freeing room needs none, and what does not fit leaves nothing.

A full copy-on-write disk (btrfs, ZFS) has no room even to overwrite a byte. Here the writes of records fail; the last
tests fill a real one.
"""

import contextlib
import errno
import os
import subprocess

import pytest

from tests.support.commands import filled, run, store_in
from tests.support.disk import mounted
from tests.support.wsgi import OCTETS, TUS, call
from tus import Filter
from tus.cli.main import main
from tus.errors import StorageFull, SweepIncomplete, UploadGone, UploadNotFound
from tus.handover.spool import Spool
from tus.models import State, Upload
from tus.stores.directory import concatenation, space
from tus.stores.directory.record_format import SLOT_SIZE
from tus.stores.directory.store import DirectoryStore
from tus.stores.interface import Limits

LONG_AGO = 10 * 86400


def failing(number):
    def fail(*arguments, **words):
        raise OSError(number, os.strerror(number))

    return fail


@contextlib.contextmanager
def no_room(directory):
    """Let no byte be written to a record, no file be created, and no time be set, below a directory."""
    real_open = os.open

    def open_(path, flags, *arguments, **words):
        if flags & os.O_CREAT and str(path).startswith(str(directory)) and not os.path.lexists(path):
            failing(errno.ENOSPC)()
        return real_open(path, flags, *arguments, **words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", open_)
        for name in ("pwrite", "pwritev", "utime", "rename", "link"):
            patch.setattr(os, name, failing(errno.ENOSPC))
        yield


def files_in(directory):
    return [name for name in os.listdir(directory) if not name.startswith(".")]


@pytest.fixture
def store(tmp_path):
    return DirectoryStore(str(tmp_path))


# -- Removing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [None, Limits(uploads=9)])
def test_an_upload_is_removed_without_room_and_its_session_ends(tmp_path, limits):
    store = DirectoryStore(str(tmp_path), limits=limits)
    upload = store.create(Upload(length=100))
    with store.open(upload, 0) as session:
        session.write(b"x" * 10)
        with no_room(tmp_path):
            DirectoryStore(str(tmp_path), limits=limits).remove(upload.id)
        assert files_in(tmp_path) == []
        assert not session.is_current()
        with pytest.raises(UploadGone):
            session.write(b"x" * 10)
    with pytest.raises(UploadNotFound):
        store.load(upload.id)


def test_nothing_is_removed_if_the_session_could_not_learn_it(store, tmp_path, monkeypatch):
    upload = store.append(store.create(Upload(length=100)), 0, b"x" * 10)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", failing(errno.EROFS))
        patch.setattr(os, "ftruncate", failing(errno.EROFS))
        with pytest.raises(OSError, match="Read-only"):
            store.remove(upload.id)
    assert store.load(upload.id).offset == 10
    assert (tmp_path / upload.id).read_bytes() == b"x" * 10


@pytest.mark.parametrize("limits", [None, Limits(uploads=9)])
def test_a_sweep_needs_no_room(tmp_path, limits):
    old = store_in(tmp_path, LONG_AGO, limits=limits)
    for _ in range(3):
        filled(old, 100, b"x" * 10)
    kept = filled(store_in(tmp_path), 100, b"x" * 10)
    for name in os.listdir(tmp_path):
        if name.startswith(".tus-"):
            os.unlink(tmp_path / name)  # so that the sweep would have to create them
    with no_room(tmp_path):
        assert store_in(tmp_path, limits=limits).sweep() == 3
    assert sorted(files_in(tmp_path)) == [kept.id, f"{kept.id}.tus"]


@pytest.mark.parametrize("failure", [StorageFull(), OSError(errno.EIO, "I/O error"), ValueError("no JSON")], ids=repr)
def test_one_bad_upload_stops_no_sweep(tmp_path, monkeypatch, failure):
    old = store_in(tmp_path, LONG_AGO)
    uploads = [filled(old, 100, b"x" * 10) for _ in range(5)]
    bad = os.path.join(str(tmp_path), uploads[2].id)
    real = os.unlink

    def unlink(path, *arguments, **words):
        if path == bad:
            raise failure
        return real(path, *arguments, **words)

    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(SweepIncomplete) as caught:
        store_in(tmp_path).sweep()
    assert (caught.value.removed, caught.value.failed, caught.value.cause) == (4, 1, failure)
    assert sorted(files_in(tmp_path)) == [uploads[2].id, f"{uploads[2].id}.tus"]
    monkeypatch.setattr(os, "unlink", real)
    store_in(tmp_path).sweep()
    assert files_in(tmp_path) == []


def test_clean_says_what_failed_and_exits_with_1(tmp_path, monkeypatch, capsys):
    uploads = [filled(store_in(tmp_path, LONG_AGO), 100, b"x" * 10) for _ in range(2)]
    bad, real = os.path.join(str(tmp_path), uploads[0].id), os.unlink
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", lambda path: failing(errno.EIO)() if path == bad else real(path))
        assert main(["clean", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert printed.out == "1 removed\n"
    assert "1 of the expired uploads could not be removed" in printed.err
    assert main(["clean", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "0 removed\n", "what is left of the other is no upload any more"
    assert files_in(tmp_path) == []


def test_a_client_deletes_its_upload_although_the_event_has_no_room(tmp_path, monkeypatch):
    """The removal makes the room that the event needs."""
    app = Filter(
        None, upload_path="/files", tmp_file_dir=str(tmp_path), threads=False,
        webhook="http://127.0.0.1:9/", webhook_events=["post-terminate"], on_finished=print,
    )  # fmt: skip
    upload = app.service.create_upload(length=10)
    outbox = app.service.hooks._objects[0].outbox
    put, has_room = outbox._put, []

    def put_if_there_is_room(stream, event):
        has_room.append(not (tmp_path / upload.id).exists())
        return put(stream, event) if has_room[-1] else failing(errno.ENOSPC)()

    monkeypatch.setattr(outbox, "_put", put_if_there_is_room)
    assert call(app, "DELETE", f"/files/{upload.id}", TUS).status == 204
    assert has_room == [False, True]
    assert outbox.counts()["pending"] == 1
    second = app.service.create_upload(length=10)
    has_room.clear()
    upload = second
    app.service.cancel(second)
    assert has_room == [False, True]
    assert outbox.counts()["pending"] == 2
    app.service.close()


def test_a_purge_of_the_spool_needs_no_room(tmp_path, monkeypatch):
    spool = Spool(str(tmp_path / "spool"))
    for number in range(2):
        path = tmp_path / f"{number}"
        path.write_bytes(b"data")
        spool.put(Upload(id=f"{number:032x}", offset=4, length=4, path=str(path), created_at=1.0), f"{number:032x}")
        with spool.claim(0):
            pass
    real = os.rename

    def rename(source, target):
        if os.path.exists(os.path.join(source, "data")):
            failing(errno.ENOSPC)()
        return real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    assert spool.purge(0) == 2
    assert spool.counts()["done"] == 0


# -- Writing ------------------------------------------------------------------------------------------------------


def test_a_slot_that_is_written_in_part_is_an_error_and_counts_nothing(store, monkeypatch):
    upload = store.append(store.create(Upload(length=100)), 0, b"x" * 10)
    real = os.pwrite

    def write_a_part(fd, data, offset):
        is_slot = len(data) == SLOT_SIZE and os.readlink(f"/proc/self/fd/{fd}").endswith(".tus")
        return real(fd, data[: SLOT_SIZE // 2] if is_slot else data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", write_a_part)
        with pytest.raises(StorageFull):
            store.append(upload, 10, b"y" * 10)
        with pytest.raises(StorageFull):
            store.fence(store.load(upload.id))
    assert store.load(upload.id).offset == 10
    assert store.append(store.load(upload.id), 10, b"z" * 90).state == State.COMPLETE


def test_counts_that_have_no_room_refuse_a_creation(tmp_path, monkeypatch):
    store = DirectoryStore(str(tmp_path), limits=Limits(uploads=9))
    store.create(Upload(length=100))
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:5], offset) and failing(errno.ENOSPC)())
    with pytest.raises(StorageFull):
        store.create(Upload(length=100))
    monkeypatch.setattr(os, "pwrite", real)
    for _ in range(8):
        store.create(Upload(length=100))  # the counts were torn, and are right again


# -- Concatenation ------------------------------------------------------------------------------------------------


@pytest.fixture
def app(tmp_path):
    made = Filter(None, upload_path="/files", tmp_file_dir=str(tmp_path), threads=False, on_finished=print)
    yield made
    made.service.close()


def a_part(app, data=b"part"):
    length = {"Upload-Length": str(len(data)), "Upload-Concat": "partial"}
    reply = call(app, "POST", "/files", TUS | OCTETS | length, data)
    assert reply.status == 201
    return reply["Location"]


def concatenate(app, *parts):
    return call(app, "POST", "/files", TUS | {"Upload-Concat": f"final;{' '.join(parts)}"})


def test_a_concatenation_that_cannot_fit_is_refused_before_it_copies(app, tmp_path, monkeypatch):
    parts = [a_part(app), a_part(app)]
    before = set(files_in(tmp_path))
    monkeypatch.setattr(concatenation, "can_share_blocks", lambda source, target, ownership: False)
    monkeypatch.setattr(space.Space, "free", lambda self: 7)
    with monkeypatch.context() as patch:
        patch.setattr(concatenation, "copy_file", lambda *arguments: pytest.fail("it was copied"))
        assert concatenate(app, *parts).status == 507
    assert set(files_in(tmp_path)) == before, "nothing is left"
    monkeypatch.setattr(space.Space, "free", lambda self: 8)
    assert concatenate(app, *parts).status == 201


def test_blocks_that_are_shared_need_no_room(app, monkeypatch):
    parts = [a_part(app), a_part(app)]
    monkeypatch.setattr(concatenation, "can_share_blocks", lambda source, target, ownership: True)
    monkeypatch.setattr(space.Space, "free", lambda self: 0)
    assert concatenate(app, *parts).status == 201


@pytest.mark.parametrize("at", ["copy", "record"])
def test_a_concatenation_that_fails_on_its_way_leaves_nothing(app, tmp_path, monkeypatch, at):
    parts = [a_part(app), a_part(app)]
    before, real = set(files_in(tmp_path)), concatenation.copy_file

    def copy(source, target, offset, *arguments):
        real(source, target, offset, *arguments)
        if offset and at == "copy":
            failing(errno.ENOSPC)()
        if offset:
            patch.setattr(os, "pwrite", failing(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(concatenation, "copy_file", copy)
        assert concatenate(app, *parts).status == 507
    assert set(files_in(tmp_path)) == before, "nothing is left"
    assert concatenate(app, *parts).status == 201


def test_a_final_upload_that_waits_gives_back_the_room_of_a_failed_copy(app, tmp_path, monkeypatch):
    """Its client knows the URL, so it stays; the last part can be sent again."""
    first, late = a_part(app), call(app, "POST", "/files", TUS | {"Upload-Length": "4", "Upload-Concat": "partial"})
    final = concatenate(app, first, late["Location"])
    assert final.status == 201
    data = tmp_path / final["Location"].rpartition("/")[2]
    real = concatenation.copy_file

    def copy(source, target, offset, *arguments):
        real(source, target, offset, *arguments)
        failing(errno.ENOSPC)()

    with monkeypatch.context() as patch:
        patch.setattr(concatenation, "copy_file", copy)
        assert call(app, "PATCH", late["Location"], TUS | OCTETS | {"Upload-Offset": "0"}, b"last").status == 507
    assert data.stat().st_size == 0
    assert call(app, "PATCH", late["Location"], TUS | OCTETS | {"Upload-Offset": "4"}).status == 204
    assert call(app, "HEAD", final["Location"], TUS)["Upload-Length"] == "8"
    assert app.service.store.load(data.name).state == State.ACCEPTED


# -- A real disk --------------------------------------------------------------------------------------------------


def fill(directory):
    subprocess.run(f"dd if=/dev/zero of={directory}/other bs=4k", shell=True, capture_output=True, check=False)


@pytest.mark.long
def test_a_full_btrfs_is_emptied_by_remove_rm_clean_and_sweep(tmp_path):
    with mounted("btrfs", tmp_path, 120) as disk:
        store, old = store_in(disk), store_in(disk, LONG_AGO)
        removed, given, cleaned, swept = (filled(how, 99 << 20) for how in (store, store, old, old))
        for upload, how in ((removed, store), (given, store), (cleaned, old), (swept, old)):
            how.append(upload, 0, os.urandom(4 << 20))
        with contextlib.suppress(StorageFull), store.open(store.create(Upload(length=99 << 20)), 0) as session:
            while True:
                session.write(os.urandom(1 << 20))
        fill(disk)
        store.remove(removed.id)
        fill(disk)
        assert run("rm", "--dir", disk, given.id).returncode == 0
        fill(disk)
        assert store.sweep() == 2
        filled(old, 1 << 20, b"")
        fill(disk)
        done = run("clean", disk)
        assert (done.returncode, done.stdout) == (0, "1 removed\n")
        assert not {removed.id, given.id, cleaned.id, swept.id} & set(os.listdir(disk))


@pytest.mark.long
def test_a_concatenation_on_a_small_disk_leaves_its_room(tmp_path):
    with mounted("tmpfs", tmp_path, 16) as disk:
        store = store_in(disk)
        parts = [
            store.append(store.create(Upload(length=5 << 20, concat="partial")), 0, os.urandom(5 << 20))
            for _ in range(2)
        ]
        before = os.statvfs(disk).f_bavail
        final = store.create(Upload(length=10 << 20, concat="final", parts=tuple(part.id for part in parts)))
        with pytest.raises(StorageFull):
            store.concatenate(final.id, parts)
        store.remove(final.id)
        assert os.statvfs(disk).f_bavail == before
