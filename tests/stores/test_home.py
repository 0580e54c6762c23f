"""A directory of uploads that a cleaner removes, or whose volume is unmounted for a moment."""

import errno
import os
import shutil
import stat
import subprocess

import pytest

from tests.support.commands import filled, store_in
from tests.support.disk import mount, mounted
from tests.support.subjects import FilterSubject, ViewSubject
from tests.support.wsgi import OCTETS, TUS, call
from tus import Filter, Tus, WebobAdapter
from tus.apps.files import Files
from tus.apps.front import Front
from tus.apps.operations import Operations
from tus.errors import StorageUnavailable, UploadGone, UploadNotFound
from tus.filesystem import home
from tus.handover.spool import Spool, SpoolEmpty
from tus.models import Upload
from tus.stores.interface import Limits

IETF = {"Upload-Draft-Interop-Version": "8"}


@pytest.fixture(params=[FilterSubject, ViewSubject])
def subject(request, tmp_path):
    return request.param(tmp_file_dir=str(tmp_path / "uploads"), max_uploads=9)


# -- Removed ------------------------------------------------------------------------------------------------------


def test_a_directory_that_a_cleaner_has_removed_is_created_again(subject, tmp_path):
    url = subject.url(5)
    shutil.rmtree(tmp_path / "uploads")
    assert subject.head(url).status == 404, "it is gone for good"
    assert subject.patch(url, 0, b"hello").status == 404
    url = subject.url(5)
    assert subject.patch(url, 0, b"hello").status == 204
    assert stat.S_IMODE((tmp_path / "uploads").stat().st_mode) == 0o700


def test_it_is_checked_as_at_the_start(subject, tmp_path, monkeypatch):
    subject.url(5)
    shutil.rmtree(tmp_path / "uploads")
    proven = []
    monkeypatch.setattr("tus.stores.directory.preparation.check_locks_work", proven.append)
    tmp_path.chmod(0o777)  # now every user could replace it
    assert subject.create(5).status == 503
    tmp_path.chmod(0o755)
    assert subject.create(5).status == 201
    assert proven == [str(tmp_path / "uploads")]


def test_another_process_may_create_it_first(subject, tmp_path):
    subject.url(5)
    shutil.rmtree(tmp_path / "uploads")
    (tmp_path / "uploads").mkdir(0o700)
    upload = filled(store_in(tmp_path / "uploads"), 10, b"half ")
    assert subject.offset(f"/files/{upload.id}") == 5
    assert subject.create(5).status == 201


def test_the_directory_above_is_created_again_as_well(tmp_path):
    """A cleaner of /tmp removes the whole directory of tus serve, of which the uploads are a part."""
    target = tmp_path / "served"
    app = Filter(Files(str(target)), upload_path="/files", tmp_file_dir=str(target / ".tus"), threads=False)
    mode = stat.S_IMODE(target.stat().st_mode)
    shutil.rmtree(target)
    reply = call(app, "POST", "/files", TUS | OCTETS | {"Upload-Length": "5"}, b"hello")
    assert reply.status == 201
    assert stat.S_IMODE(target.stat().st_mode) == mode
    assert [path.read_bytes() for path in target.iterdir() if path.is_file()] == [b"hello"]
    app.service.close()


def test_the_directory_of_finished_files_is_created_again(tmp_path):
    target = tmp_path / "files"
    app = Filter(Files(str(target)), upload_path="/files", tmp_file_dir=str(tmp_path / "uploads"), threads=False)
    target.rmdir()
    reply = call(app, "POST", "/files", TUS | OCTETS | {"Upload-Length": "5"}, b"hello")
    assert reply.status == 201
    assert [path.read_bytes() for path in target.iterdir()] == [b"hello"]
    app.service.close()


def test_the_names_in_a_directory_that_was_replaced_are_forced_to_the_disk(tmp_path, monkeypatch):
    """Files keeps a descriptor of the earlier one."""
    target = tmp_path / "files"
    app = Filter(Files(str(target)), upload_path="/files", tmp_file_dir=str(tmp_path / "uploads"), threads=False)
    synced, fsync = [], os.fsync

    def note(fd):
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", note)
    for step in (lambda: None, lambda: target.rename(tmp_path / "old"), lambda: shutil.rmtree(target)):
        step()
        synced.clear()
        reply = call(app, "POST", "/files", TUS | OCTETS | {"Upload-Length": "5"}, b"hello")
        assert reply.status == 201
        assert synced[-1] == str(target)
        assert [path.read_bytes() for path in target.iterdir()] == [b"hello"]
    app.service.close()


def test_finished_files_wait_while_the_volume_of_their_directory_is_away(tmp_path, monkeypatch):
    target = tmp_path / "files"
    app = Filter(Files(str(target)), upload_path="/files", tmp_file_dir=str(tmp_path / "uploads"), threads=False)
    url = call(app, "POST", "/files", TUS | {"Upload-Length": "5"})["Location"]
    with Away(target, monkeypatch):
        assert call(app, "PATCH", url, TUS | OCTETS | {"Upload-Offset": "0"}, b"hello").status == 503
    assert call(app, "PATCH", url, TUS | OCTETS | {"Upload-Offset": "4"}, b"o").status == 204
    assert [path.read_bytes() for path in target.iterdir()] == [b"hello"]
    app.service.close()


@pytest.mark.parametrize("removed", ["", "tmp", "put", "new", "claimed", "done", "failed"])
def test_a_spool_is_created_again(tmp_path, removed):
    """A cleaner removes the directories in it as well, each when nothing was in it for a while."""
    options = {"tmp_file_dir": str(tmp_path / "uploads"), "spool": str(tmp_path / "spool"), "threads": False}
    app = Filter(no_application, upload_path="/files", **options)
    spool = Spool(str(tmp_path / "spool"))
    shutil.rmtree(tmp_path / "spool" / removed)
    with pytest.raises(SpoolEmpty), spool.claim(0):
        pass
    shutil.rmtree(tmp_path / "spool" / removed)
    assert call(app, "POST", "/files", TUS | OCTETS | {"Upload-Length": "5"}, b"hello")["Upload-Offset"] == "5"
    with spool.claim(0) as upload:
        assert upload.length == 5
        if removed not in ("", "claimed"):
            shutil.rmtree(tmp_path / "spool" / removed)
    with pytest.raises(SpoolEmpty), spool.claim(0):
        pass
    shutil.rmtree(tmp_path / "spool" / removed)
    assert set(spool.counts()) == {"new", "claimed", "done", "failed"}
    assert spool.purge(0) == (removed not in ("", "done"))
    assert stat.S_IMODE((tmp_path / "spool" / "new").stat().st_mode) == 0o700
    app.service.close()


def no_application(environ, start_response):
    raise AssertionError("the spool gets the files")


def test_a_removed_directory_is_swept_listed_and_healthy(tmp_path):
    path = tmp_path / "uploads"
    path.mkdir()
    store = store_in(path, limits=Limits(uploads=9))
    filled(store, 5)
    shutil.rmtree(path)
    assert store.sweep() == 0
    assert list(store.list()) == []
    assert not path.exists(), "nothing needs it"
    assert call(Front(None, Operations(store)), "GET", "/health").status == 200
    for text in ("one", "two"):
        shutil.rmtree(path)
        assert store.create_once(Upload(id=store.id_for(text), length=5)) is not None
    shutil.rmtree(path)
    store.create_whole(Upload(length=5), b"hello").accept()


# -- Away ---------------------------------------------------------------------------------------------------------


class Away:
    """A mount point whose volume is away: another directory lies below it, in another mount."""

    def __init__(self, path, monkeypatch):
        self.path, self.kept = path, path.with_name("kept")
        real = home._mount_of
        monkeypatch.setattr(home, "_mount_of", lambda fd: 7 if self.is_below(fd) else real(fd))

    def is_below(self, fd):
        return self.kept.exists() and os.path.samestat(os.fstat(fd), self.path.stat())

    def __enter__(self):
        self.path.rename(self.kept)
        self.path.mkdir(0o755)

    def __exit__(self, *_):
        assert os.listdir(self.path) == [], "nothing may be written below the mount point"
        self.path.rmdir()
        self.kept.rename(self.path)


@pytest.fixture
def away(tmp_path, monkeypatch):
    return Away(tmp_path / "uploads", monkeypatch)


def test_an_upload_still_exists_while_its_volume_is_away(subject, away):
    url = subject.url(10)
    assert subject.patch(url, 0, b"half ").status == 204
    with away:
        assert subject.head(url).status == 423, "after 404, 410 or 503 clients would begin again"
        assert subject.patch(url, 5, b"whole").status == 503
        assert subject.send("DELETE", url).status == 503
        assert subject.create(5).status == 503
        assert subject.create(5, body=b"hello").status == 503
        assert subject.create(5, {"Idempotency-Key": '"a-key-of-16-bytes"'}).status == 503
        assert call(subject.app, "HEAD", url, IETF).status in (423, 503)
        assert call(subject.app, "POST", "/files", IETF | {"Upload-Complete": "?1"}, b"hello").status == 503
        assert call(subject.app, "DELETE", url, IETF).status == 503
    assert subject.offset(url) == 5
    assert subject.patch(url, 5, b"whole").status == 204


def test_a_part_and_its_final_upload_still_exist(tmp_path, away):
    subject = FilterSubject(tmp_file_dir=str(tmp_path / "uploads"))
    parts = [subject.url(4, {"Upload-Concat": "partial"}, b"part") for _ in range(2)]
    with away:
        assert subject.send("POST", headers={"Upload-Concat": f"final;{' '.join(parts)}"}).status == 503
    assert subject.send("POST", headers={"Upload-Concat": f"final;{' '.join(parts)}"}).status == 201


def test_a_view_with_options_writes_nothing_below_the_mount_point(tmp_path, away):
    """It opens the directory in each request."""
    from webob import Request

    def view(environ, start_response):
        tus = Tus(WebobAdapter(Request(environ)), tmp_file_dir=str(tmp_path / "uploads"), upload_path="/files")
        tus.handle()
        return tus.adapter.resp(environ, start_response)

    url = call(view, "POST", "/files", TUS | {"Upload-Length": "5"})["Location"]
    with away:
        assert call(view, "HEAD", url, TUS).status == 423
        assert call(view, "POST", "/files", TUS | {"Upload-Length": "5"}).status == 503
    assert call(view, "HEAD", url, TUS).status == 200


def test_a_spool_waits_while_its_volume_is_away(tmp_path, monkeypatch):
    options = {"tmp_file_dir": str(tmp_path / "uploads"), "spool": str(tmp_path / "spool"), "threads": False}
    app = Filter(no_application, upload_path="/files", **options)
    spool = Spool(options["spool"])
    url = call(app, "POST", "/files", TUS | {"Upload-Length": "5"})["Location"]
    with Away(tmp_path / "spool", monkeypatch):
        assert call(app, "PATCH", url, TUS | OCTETS | {"Upload-Offset": "0"}, b"hello").status == 503
        for waiting in (spool, Spool(options["spool"])):  # a view may open it in each request
            with pytest.raises(SpoolEmpty), waiting.claim(0):
                pass
        with pytest.raises(StorageUnavailable):
            spool.purge(0)
        assert set(spool.counts().values()) == {0}
    assert call(app, "PATCH", url, TUS | OCTETS | {"Upload-Offset": "4"}, b"o").status == 204
    with spool.claim(0) as upload:
        assert upload.length == 5
    app.service.close()


def test_a_spool_that_another_user_could_replace_is_not_created_again(tmp_path):
    spool = Spool(str(tmp_path / "spool"))
    (tmp_path / "data").write_bytes(b"hello")
    finished = Upload(id="a" * 32, offset=5, length=5, path=str(tmp_path / "data"))
    for removed in (tmp_path / "spool", tmp_path / "spool" / "new"):
        shutil.rmtree(removed)
        tmp_path.chmod(0o777)
        with pytest.raises(StorageUnavailable):
            spool.put(finished, "c" * 32)
        tmp_path.chmod(0o755)
        spool.put(finished, "c" * 32)


def test_the_store_says_for_everything_that_it_is_away(tmp_path, away):
    path = tmp_path / "uploads"
    path.mkdir()
    store = store_in(path, limits=Limits(uploads=9))
    upload = filled(store, 10, b"half ")
    whole = store.append(store.create(Upload(length=5)), 0, b"whole")
    with away:
        for ask in (
            lambda: store.load(upload.id),
            lambda: store.open(upload, 5),
            lambda: store.append(upload, 5, b"whole"),
            lambda: store.complete(upload, 5, b"whole"),
            lambda: store.fence(upload),
            lambda: store.claim(whole),
            lambda: store.promise(whole),
            lambda: store.read(whole),
            lambda: store.remove(upload.id),
            lambda: store.watch(upload.id, whole.id),
            lambda: store.touch(upload.id),
            lambda: store.finals_of(upload.id),
            lambda: store.concatenate(upload.id, [whole]),
            lambda: store.id_for("text"),
            lambda: store.create_once(Upload(id="ab" * 16, length=5)),
            lambda: store.create_whole(Upload(length=5), b"hello"),
            lambda: list(store.list()),
            store.sweep,
            store.check,
        ):
            with pytest.raises(StorageUnavailable):
                ask()
    assert store.load(upload.id).offset == 5
    assert store.sweep() == 0


def test_a_missing_mount_is_not_a_removed_directory(tmp_path, monkeypatch):
    """An automounter removes the mount point, too."""
    path = tmp_path / "uploads"
    path.mkdir()
    real = home._mount_of
    inside = path.stat().st_ino
    monkeypatch.setattr(home, "_mount_of", lambda fd: 7 if os.fstat(fd).st_ino == inside else real(fd))
    store = store_in(path)
    upload = filled(store, 10, b"half ")
    path.rename(tmp_path / "kept")
    with pytest.raises(StorageUnavailable):
        store.load(upload.id)
    with pytest.raises(StorageUnavailable):
        store.create(Upload(length=5))
    assert not path.exists()
    (tmp_path / "kept").rename(path)
    assert store.load(upload.id).offset == 5


def test_another_directory_above_means_that_the_volume_is_away(tmp_path):
    """The uploads are a directory in the volume."""
    volume = tmp_path / "volume"
    (volume / "uploads").mkdir(parents=True)
    store = store_in(volume / "uploads")
    upload = filled(store, 10, b"half ")
    volume.rename(tmp_path / "kept")
    volume.mkdir()
    with pytest.raises(StorageUnavailable):
        store.load(upload.id)
    with pytest.raises(StorageUnavailable):
        store.create(Upload(length=5))
    assert os.listdir(volume) == []


def test_a_directory_that_cannot_be_looked_at_is_away(tmp_path, monkeypatch):
    store = store_in(tmp_path)
    upload = filled(store, 10, b"half ")

    def fail(path, *arguments, **words):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", fail)
        with pytest.raises(StorageUnavailable):
            store.load("ab" * 16)
    with pytest.raises(UploadNotFound):
        store.load("ab" * 16)
    assert store.load(upload.id).offset == 5


def test_lost_data_is_still_gone(tmp_path):
    store = store_in(tmp_path)
    upload = filled(store, 10, b"half ")
    os.unlink(tmp_path / upload.id)
    with pytest.raises(UploadGone):
        store.load(upload.id)
    with pytest.raises(UploadGone):
        store.append(upload, 5, b"whole")


@pytest.mark.long
@pytest.mark.parametrize("inner", ["", "uploads"])
def test_a_real_volume_that_is_unmounted_for_a_moment(tmp_path, inner):
    with mounted("ext4", tmp_path, 16) as disk:
        disk.chmod(0o755)
        path = disk / inner
        subject = FilterSubject(tmp_file_dir=str(path))
        url = subject.url(10)
        assert subject.patch(url, 0, b"half ").status == 204
        subprocess.run(["umount", "-l", str(disk)], check=True)
        assert subject.head(url).status == 423
        assert subject.patch(url, 5, b"whole").status == 503
        assert subject.create(5).status == 503
        assert os.listdir(disk) == []
        mount("ext4", tmp_path, disk)
        assert subject.offset(url) == 5
        assert subject.patch(url, 5, b"whole").status == 204


def test_a_directory_that_another_user_creates_first_is_refused(tmp_path, monkeypatch):
    """It may have the inode of the removed one."""
    path = tmp_path / "uploads"
    path.mkdir()
    store = store_in(path)
    store.create(Upload(length=5))
    real = os.stat

    def belongs_to_another(status):
        return os.stat_result([*status[:4], 4321, *status[5:]], {"st_blocks": status.st_blocks})

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", lambda path, **words: belongs_to_another(real(path, **words)))
        patch.setattr(os, "fstat", lambda fd, real=os.fstat: belongs_to_another(real(fd)))
        with pytest.raises(StorageUnavailable):
            store.create(Upload(length=5))
    store.create(Upload(length=5))
