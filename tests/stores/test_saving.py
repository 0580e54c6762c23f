"""``save_to()``: a whole file, once, under a name of its own, whatever fails in between.

``python -m tests.stores.test_saving DIRECTORY`` kills processes at each step; it needs a process without threads.
"""

import contextlib
import errno
import itertools
import json
import os
import pickle
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest

import tus
from tests.support.disk import System, another_disk, simple_disk
from tests.support.serving import ROOT
from tus.errors import StorageFull, StorageUnavailable, UploadGone
from tus.filesystem import permissions, processes, saving
from tus.handover.finished import FinishedUpload
from tus.http.headers import format_metadata
from tus.models import Upload
from tus.stores.directory.store import DirectoryStore
from tus.stores.memory import MemoryStore

CONTENT = os.urandom(3_000_000)

#: How a file can reach the directory: by a link, by a copy, by a copy to a simple disk, from a store without files.
WAYS = ("link", "copy", "simple", "memory")

MOST_CALLS = 60


def upload_of(store, name="film.mp4", content=CONTENT):
    """A finished upload as an application gets it."""
    draft = Upload(length=len(content), raw_metadata=format_metadata({"filename": name}))
    claim = store.claim(store.append(store.create(draft), 0, content))
    claim.begin()
    return FinishedUpload(claim)


_places = []


@pytest.fixture(autouse=True)
def _release():
    yield
    while _places:
        _places.pop().release()


class Place:
    """A store, a directory of the application, and the system between them."""

    def __init__(self, directory, way="link", **options):
        self.arrived = directory / "arrived"
        self.arrived.mkdir(parents=True)
        stored = directory / "stored"
        stored.mkdir()
        self.system = {"copy": partial(another_disk, stored), "simple": simple_disk}.get(way, System)()
        self.claims = []
        _places.append(self)
        self.store = MemoryStore() if way == "memory" else DirectoryStore(str(stored), **options)

    def upload(self, *arguments):
        upload = upload_of(self.store, *arguments)
        self.claims.append(upload._claim)
        return upload

    def release(self):
        for claim in self.claims:
            claim.release()

    def save(self, upload, name=None, mode=None, directory=None):
        with self.system.installed():
            return upload.save_to(directory or self.arrived, name, mode)

    def files(self):
        return {path.name: path.read_bytes() for path in self.arrived.iterdir()}


@pytest.fixture(params=WAYS)
def way(request):
    return request.param


@pytest.fixture
def place(way, tmp_path):
    return Place(tmp_path, way)


def accept(upload):
    upload._claim.accept()


def test_a_file_is_saved_under_its_name(place, way):
    upload = place.upload()
    path = place.save(upload)
    name = f"film-{upload.key}.mp4" if way == "simple" else "film.mp4"
    assert path == str(place.arrived / name)
    assert place.files() == {name: CONTENT}
    assert os.stat(path).st_nlink == (2 if way == "link" else 1)
    accept(upload)
    assert place.files() == {name: CONTENT}
    assert os.stat(path).st_nlink == 1


def test_saving_again_returns_the_same_path(place):
    upload = place.upload()
    paths = {place.save(upload) for _ in range(3)}
    assert len(paths) == 1
    assert len(place.files()) == 1


def test_saving_again_after_the_name_had_a_suffix_and_is_free_now(place):
    (place.arrived / "film.mp4").write_text("another")
    upload = place.upload()
    path = place.save(upload)
    (place.arrived / "film.mp4").unlink()
    assert place.save(upload) == path
    assert place.files() == {os.path.basename(path): CONTENT}


@pytest.mark.parametrize("taken", ["file", "link", "folder"])
def test_nothing_is_replaced(place, taken, tmp_path):
    target = place.arrived / "film.mp4"
    if taken == "file":
        target.write_text("another")
    elif taken == "link":
        target.symlink_to(tmp_path / "outside.mp4")
    else:
        target.mkdir()
    before = os.lstat(target)
    path = place.save(place.upload())
    assert Path(path).read_bytes() == CONTENT
    assert path != str(target)
    assert os.lstat(target) == before
    assert not (tmp_path / "outside.mp4").exists()


def test_equal_files_of_one_name_are_different_uploads(place):
    uploads = [place.upload() for _ in range(5)]
    paths = [place.save(upload) for upload in uploads]
    assert [place.save(upload) for upload in uploads] == paths
    assert len(set(paths)) == len(place.files()) == 5
    assert all(upload.key[:6] in path for upload, path in zip(uploads[1:], paths[1:], strict=True))


def test_uploads_that_arrive_together_get_names_of_their_own(way, tmp_path):
    """Each other upload takes the name just before this one gets it."""
    place = Place(tmp_path, way)
    first, second = place.upload("film.mp4", b"first"), place.upload("film.mp4", b"second")
    link, is_busy = os.link, []

    def lose_the_race(source, target, **words):
        if not is_busy:
            is_busy.append(True)
            place.save(second)
        return link(source, target, **words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "link", lose_the_race)
        place.save(first)
    if not is_busy:  # where nothing is linked
        place.save(second)
    assert sorted(place.files().values()) == [b"first", b"second"]


@pytest.mark.parametrize("count", [0, 1, 10_000])
def test_the_number_of_system_calls_does_not_grow_with_files_of_the_name(count, way, tmp_path):
    place = Place(tmp_path, way)
    if count:
        (place.arrived / "film.mp4").write_text("another")
    for number in range(count):  # as of as many uploads
        (place.arrived / f"film-{number:06x}.mp4").touch()
    upload = place.upload("film.mp4", b"content")
    place.save(upload)
    assert len(place.system.calls) <= 40
    assert place.system.calls.count("link") <= 4
    place.system.calls.clear()
    place.save(upload)
    assert len(place.system.calls) <= 20


def test_no_directory_is_read(place, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a directory was read")

    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, refuse)
    place.save(place.upload())


@pytest.mark.parametrize("name", ["{key}.mp4", "film-{key}.mp4", "{key}"])
def test_a_file_that_the_application_has_named_by_the_key_is_not_the_upload(place, name):
    """It may have reserved the name."""
    upload = place.upload()
    name = name.format(key=upload.key)
    (place.arrived / name).write_text("reserved")
    paths = {place.save(upload, name) for _ in range(2)}
    assert [Path(path).read_bytes() for path in paths] == [CONTENT]
    assert (place.arrived / name).read_text() == "reserved"
    assert len(place.files()) == 2


@pytest.fixture
def _shown_for_long(monkeypatch):
    """What a new file has shown counts for as long as a busy machine takes to save the next one."""
    monkeypatch.setattr(permissions, "_LASTS", 1000.0)


@pytest.mark.usefixtures("_shown_for_long")
def test_the_first_attempt_makes_few_calls(tmp_path):
    """As long as its data can be linked, and another file has shown which permissions new files get."""
    place = Place(tmp_path)
    place.save(place.upload())
    upload = place.upload("other.mp4")
    place.system.calls.clear()
    place.save(upload)
    look, adapt = ["stat", "lstat", "open", "fstat"], ["pread", "getxattr", "getxattr", "fchmod"]
    assert place.system.calls == [*look, *adapt, "link", "open", "fsync"]


def attempt_again(place, upload):
    """The upload, as it is offered after an attempt without a result."""
    upload._claim.release()
    claim = place.store.claim(place.store.load(upload.id))
    claim.begin()
    place.claims.append(claim)
    return FinishedUpload(claim)


@pytest.mark.usefixtures("_shown_for_long")
@pytest.mark.parametrize("is_shown", [False, True])
def test_a_hidden_file_of_an_earlier_attempt_is_removed(place, is_shown):
    """It crashed while it looked at the permissions of a new file, or while it copied."""
    upload = attempt_again(place, place.upload())
    if is_shown:
        place.save(place.upload("other.mp4"))
    (place.arrived / f".tus-{upload.key}").touch()
    place.save(upload)
    assert not [name for name in place.files() if name.startswith(".")]


@pytest.mark.parametrize("crash", ["of the process", "of the machine"])
def test_a_file_of_an_earlier_attempt_is_found_by_another_name(place, crash):
    """The name that was taken then is free now. A crash of the machine may have taken the record of the attempt."""
    taken = place.arrived / "film.mp4"
    taken.touch()
    upload = place.upload()
    path = place.save(upload)
    taken.unlink()
    again = FinishedUpload(upload._claim) if crash == "of the machine" else attempt_again(place, upload)
    assert place.save(again) == path
    assert len(place.files()) == 1


def test_a_copy_is_found_although_the_data_can_be_linked_now(tmp_path):
    """The first attempt was refused the group of the directory, for example."""
    place = Place(tmp_path, "copy")
    taken = place.arrived / "film.mp4"
    taken.touch()
    upload = place.upload()
    path = place.save(upload)
    taken.unlink()
    place.system.refused.clear()
    assert place.save(attempt_again(place, upload)) == place.save(upload) == path
    assert len(place.files()) == 1


@pytest.mark.usefixtures("_shown_for_long")
def test_each_file_in_a_target_takes_few_calls(tmp_path):
    """The directory is looked at once for each file, and stays open."""
    place = Place(tmp_path)
    target = saving.Target(str(place.arrived), partial(os.stat, place.arrived))
    place.save(place.upload(), directory=target)
    upload = place.upload("other.mp4")
    place.system.calls.clear()
    place.save(upload, directory=target)
    look, adapt = ["lstat", "open", "fstat"], ["pread", "getxattr", "getxattr", "fchmod"]
    assert place.system.calls == [*look, *adapt, "link", "fsync"]
    assert sorted(place.files()) == ["film.mp4", "other.mp4"]


# -- Names --


@pytest.mark.parametrize(
    ("name", "saved"),
    [
        ("../../etc/passwd", "passwd"),
        ("a/b/c.txt", "c.txt"),
        (".tus-hidden", "tus-hidden"),
        ("..", "film.mp4"),
        ("", "film.mp4"),
        ("grün.txt", "grün.txt"),
    ],
)
def test_a_name_is_one_safe_segment(tmp_path, name, saved):
    place = Place(tmp_path)
    assert place.save(place.upload(), name) == str(place.arrived / saved)
    assert place.files() == {saved: CONTENT}


@pytest.mark.parametrize("longest", [255, 143, 64])
@pytest.mark.parametrize("name", ["n" * 190 + ".tar", "ü" * 95 + ".jpeg", "日" * 60, "short.txt"])
def test_a_name_that_is_too_long_keeps_its_extension(tmp_path, way, longest, name):
    """As on encrypting file systems; a character is never cut in two."""
    place = Place(tmp_path, way)

    def check(path, *others, **words):
        target = others[0] if others and isinstance(others[0], str) else path
        return errno.ENAMETOOLONG if len(os.path.basename(os.fsencode(target))) > longest else 0

    earlier = place.system.refused.get("link")

    def check_link(source, target, **words):
        return (earlier(source, target) if callable(earlier) else earlier) or check(target)

    place.system.refused |= {"lstat": lambda path: isinstance(path, str) and check(path), "rename": check}
    place.system.refused["link"] = check_link
    uploads = [place.upload(name, content) for content in (b"one", b"two", b"three")]
    paths = [place.save(upload) for upload in uploads]
    assert [place.save(upload) for upload in uploads] == paths
    assert sorted(place.files().values()) == [b"one", b"three", b"two"]
    for saved in place.files():
        assert len(saved.encode()) <= longest
        assert os.path.splitext(saved)[1] == os.path.splitext(name)[1]
        assert "\ufffd" not in saved


# -- Permissions --


@pytest.fixture(params=[0o022, 0o027, 0o077, 0o002])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_file_has_the_mode_of_any_file_created_there(place, umask):
    path = place.save(place.upload())
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("mode", [0o640, 0o444, 0o600])
def test_a_mode_can_be_given(place, mode):
    path = place.save(place.upload(), mode=mode)
    assert stat.S_IMODE(os.stat(path).st_mode) == mode


def test_a_mode_without_reading_makes_a_copy(tmp_path):
    """The data must stay readable for another attempt."""
    place = Place(tmp_path)
    path = place.save(place.upload(), mode=0o200)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o200
    assert os.stat(path).st_nlink == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a second group for certain")
@pytest.mark.parametrize("is_refused", [False, True])
def test_a_file_has_the_group_of_a_directory_that_passes_it_on(place, way, is_refused):
    os.chown(place.arrived, -1, 12345)
    place.arrived.chmod(0o2775)
    if is_refused:  # as for a user that is not in the group
        place.system.refused["fchown"] = errno.EPERM
    path = place.save(place.upload())
    assert os.stat(path).st_gid == 12345
    assert os.stat(path).st_nlink == (2 if way == "link" and not is_refused else 1)


#: u::rwx, u:12345:rw-, g::r-x, m::rwx, o::---, as ``setfacl -d`` writes it.
ACL = bytes.fromhex("02000000 01000700ffffffff 0200060039300000 04000500ffffffff 10000700ffffffff 20000000ffffffff")


def test_a_file_has_the_acl_that_a_directory_gives(place):
    try:
        os.setxattr(place.arrived, "system.posix_acl_default", ACL)
    except (OSError, AttributeError):
        pytest.skip("the disk of the tests has no ACLs")
    other = place.arrived / "other"
    other.touch()
    path = place.save(place.upload())
    assert os.stat(path).st_mode == other.stat().st_mode
    assert os.getxattr(path, "system.posix_acl_access") == os.getxattr(other, "system.posix_acl_access")


def modes_of(place, *steps):
    """The modes of files that are saved after each of some steps, and the mode of a file that is created then."""
    saved, created = [], []
    for number, step in enumerate(steps):
        step()
        saved.append(stat.S_IMODE(os.stat(place.save(place.upload(f"{number}.mp4"))).st_mode))
        (place.arrived / f"created-{number}").touch()
        created.append(stat.S_IMODE((place.arrived / f"created-{number}").stat().st_mode))
    return saved, created


@pytest.mark.parametrize("umask", [0o022], indirect=True)
def test_a_change_of_the_umask_counts_at_once(place, umask):
    saved, created = modes_of(place, *(partial(os.umask, mask) for mask in (0o022, 0o077, 0o002, 0o022)))
    assert saved == created == [0o644, 0o600, 0o664, 0o644]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a second group for certain")
def test_a_change_of_the_directory_counts_at_once(place):
    steps = [lambda: None, lambda: os.chown(place.arrived, -1, 12345), lambda: place.arrived.chmod(0o2775)]
    groups = []
    for number, step in enumerate(steps):
        step()
        groups.append(os.stat(place.save(place.upload(f"{number}.mp4"))).st_gid)
    assert groups == [os.getegid(), os.getegid(), 12345]


@pytest.mark.parametrize("is_linked", [False, True])
def test_a_change_of_the_acl_counts_at_once(place, is_linked, tmp_path):
    """Also of a directory that a symbolic link leads to."""
    arrived = place.arrived
    if is_linked:
        (tmp_path / "link").symlink_to(place.arrived)
        place.arrived = tmp_path / "link"
    try:
        os.setxattr(arrived, "system.posix_acl_default", ACL)
        os.removexattr(arrived, "system.posix_acl_default")
    except (OSError, AttributeError):
        pytest.skip("the disk of the tests has no ACLs")
    steps = [
        lambda: None,
        lambda: os.setxattr(arrived, "system.posix_acl_default", ACL),
        lambda: os.removexattr(arrived, "system.posix_acl_default"),
    ]
    saved, created = modes_of(place, *steps)
    assert saved == created
    assert saved[0] == saved[2] != saved[1]


def shown(place, monkeypatch, seconds=0.0):
    """How many files are created for a moment, to save two files so many seconds after each other."""
    create, shows = saving._Saving._create, []

    def count(saving):
        shows.append(saving)
        return create(saving)

    monkeypatch.setattr(saving._Saving, "_create", count)
    now = [1000.0]
    monkeypatch.setattr(permissions, "time", SimpleNamespace(monotonic=lambda: now[0]))
    for number in range(2):
        place.save(place.upload(f"{number}.mp4"))
        now[0] += seconds
    return len(shows)


@pytest.mark.parametrize(("seconds", "count"), [(0.0, 1), (0.9, 1), (1.1, 2)])
def test_what_a_new_file_has_shown_counts_for_a_second(tmp_path, monkeypatch, seconds, count):
    assert shown(Place(tmp_path), monkeypatch, seconds) == count


def test_where_the_umask_cannot_be_read_each_file_shows_it(tmp_path, monkeypatch):
    monkeypatch.setattr(processes.Process, "read_umask", lambda process: None)
    assert shown(Place(tmp_path), monkeypatch) == 2


def test_a_mode_that_does_not_follow_from_the_umask_counts_once(tmp_path, monkeypatch):
    """Another thread may have changed the umask for a moment, or the file system has rules of its own."""
    monkeypatch.setattr(processes.Process, "read_umask", lambda process: 0o777)
    assert shown(Place(tmp_path), monkeypatch) == 2


# -- Durability --


def synced(place, monkeypatch):
    """The kinds of files that are forced to the disk while a file is saved."""
    upload, forced = place.upload(), []
    for name in ("fsync", "fdatasync"):
        real = getattr(os, name)

        def record(fd, real=real):
            forced.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
            real(fd)

        monkeypatch.setattr(os, name, record)
    monkeypatch.setattr("tus.filesystem.io._fdatasync", os.fdatasync)
    place.save(upload)
    return forced


@pytest.mark.parametrize(("fsync", "forced"), [("none", ["file", "file", "directory"]), ("finish", ["directory"])])
def test_a_link_is_durable_and_nothing_is_synced_twice(tmp_path, monkeypatch, fsync, forced):
    """Under ``none`` that is the data, and the record that says so: else a later append could cut the file off."""
    assert synced(Place(tmp_path, fsync=fsync), monkeypatch) == forced


@pytest.mark.parametrize("way", ["copy", "simple", "memory"])
def test_a_copy_is_durable(tmp_path, way, monkeypatch):
    assert synced(Place(tmp_path, way), monkeypatch) == ["file", "directory"]


def test_a_directory_that_cannot_be_read_is_enough(place, way):
    """As that of a drop box, with mode 1733; root may read every directory."""
    arrived = str(place.arrived)
    place.system.refused["open"] = lambda path, *others: errno.EACCES if path == arrived else 0
    assert Path(place.save(place.upload())).read_bytes() == CONTENT
    target = saving.Target(arrived, partial(os.stat, arrived))
    assert Path(place.save(place.upload("other.mp4"), directory=target)).read_bytes() == CONTENT
    assert place.system.calls.count("fsync") == 2 if way == "link" else 4


# -- Errors --


@pytest.mark.parametrize(
    ("call", "number", "error"),
    [
        ("open", errno.EROFS, StorageUnavailable),
        ("open", errno.ENOSPC, StorageFull),
        ("open", errno.EDQUOT, StorageFull),
        ("open", errno.EACCES, PermissionError),
        ("fsync", errno.EIO, OSError),
    ],
)
def test_errors_of_the_disk(place, call, number, error):
    upload = place.upload()
    system = place.system
    arrived = str(place.arrived)
    system.refused[call] = lambda file, *others: number if call == "fsync" or str(file).startswith(arrived) else 0
    with pytest.raises(error) as caught:
        place.save(upload)
    if isinstance(caught.value, tus.TusException):
        assert str(place.arrived) not in str(caught.value)
        assert caught.value.status in (503, 507)
    assert not [name for name in place.files() if name.startswith(".")]
    system.refused.pop(call)
    assert Path(place.save(upload)).read_bytes() == CONTENT
    assert len(place.files()) == 1


@pytest.mark.parametrize("way", ["copy", "simple", "memory"])
@pytest.mark.parametrize("call", ["copy_file_range", "pwrite"])
def test_a_disk_that_fills_up_keeps_no_partial_copy(tmp_path, way, call):
    place = Place(tmp_path, way)
    upload = place.upload()
    if call == "pwrite":
        place.system.refused["copy_file_range"] = errno.ENOSYS
    elif way == "memory":
        pytest.skip("memory is written, not copied")
    place.system.refused[call] = errno.ENOSPC
    with pytest.raises(StorageFull):
        place.save(upload)
    assert place.files() == {}


@pytest.mark.parametrize("is_file", [False, True])
def test_a_directory_that_is_missing_is_named_for_the_log(place, is_file):
    place.arrived.rmdir()
    if is_file:
        place.arrived.write_text("a file")
    with pytest.raises(OSError, match="existing directory") as caught:
        place.save(place.upload())
    assert caught.value.filename == str(place.arrived)


def test_an_upload_that_was_accepted_is_gone(place):
    upload = place.upload()
    accept(upload)
    for take in (upload.open, partial(place.save, upload)):
        with pytest.raises(UploadGone):
            take()
    assert place.files() == {}


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_that_cannot_be_linked_is_copied(tmp_path, number):
    place = Place(tmp_path)
    stored = str(tmp_path / "stored")
    place.system.refused["link"] = lambda source, target, **words: number if source.startswith(stored) else 0
    path = place.save(place.upload())
    assert (os.path.basename(path), os.stat(path).st_nlink) == ("film.mp4", 1)
    assert place.files() == {"film.mp4": CONTENT}


def test_a_system_without_extended_attributes(tmp_path, monkeypatch):
    """Such as macOS, as far as Python knows."""
    for name in ("getxattr", "setxattr", "removexattr"):
        monkeypatch.delattr(os, name, raising=False)
    place = Place(tmp_path / "copied", "copy")
    upload = place.upload()
    paths = {place.save(upload) for _ in range(2)}
    assert paths == {str(place.arrived / f"film-{upload.key}.mp4")}
    place = Place(tmp_path / "linked")
    assert os.path.basename(place.save(place.upload())) == "film.mp4"


def test_a_file_comes_from_another_disk(tmp_path):
    """With a real second file system, if the machine has one."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK) or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    place = Place(tmp_path)
    arrived = shared / f"tus-test-{os.getpid()}"
    arrived.mkdir()
    try:
        upload = place.upload()
        paths = {upload.save_to(arrived) for _ in range(2)}
        assert [Path(path).read_bytes() for path in paths] == [CONTENT]
        assert [path.name for path in arrived.iterdir()] == [os.path.basename(path) for path in paths]
    finally:
        for path in arrived.iterdir():
            path.unlink()
        arrived.rmdir()


@pytest.mark.parametrize("left", ["link", "folder", "foreign"])
def test_a_hidden_name_that_is_not_ours_is_not_written(place, way, left, tmp_path):
    upload = place.upload()
    hidden = place.arrived / f".tus-{upload.key}"
    victim = tmp_path / "victim"
    victim.write_text("precious")
    if left == "link":
        hidden.symlink_to(victim)
    elif left == "foreign":
        os.link(victim, hidden)
    else:
        hidden.mkdir()
        with pytest.raises(OSError):
            place.save(upload)
        hidden.rmdir()
    place.save(upload)
    assert victim.read_text() == "precious"
    assert list(place.files().values()) == [CONTENT]


@pytest.mark.parametrize("kind", ["pipe", "link", "another's"])
def test_data_that_is_not_ours_is_not_saved(tmp_path, kind):
    place = Place(tmp_path)
    upload = place.upload()
    path = upload._offered.path
    if kind == "another's":
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        os.chown(path, 12345, -1)
    else:
        os.rename(path, tmp_path / "data")
        os.mkfifo(path) if kind == "pipe" else os.symlink(tmp_path / "data", path)
    with pytest.raises(FileNotFoundError):
        place.save(upload)
    assert place.files() == {}


# -- The upload that the application gets --


def test_an_upload_keeps_its_attributes(place):
    upload = place.upload()
    assert isinstance(upload, Upload)
    assert (upload.length, upload.filename, upload.metadata) == (len(CONTENT), "film.mp4", {"filename": b"film.mp4"})
    assert upload.key in str(upload.key)
    assert upload.id in repr(upload)
    assert not upload.is_taken, "printing it takes nothing"
    with pytest.raises(AttributeError):
        _ = upload.no_such_attribute


def test_an_upload_can_be_opened_from_every_store(place):
    upload = place.upload()
    with upload.open() as file:
        assert file.read() == CONTENT
    assert upload.is_taken


def test_a_pickled_upload_is_a_plain_one(place):
    upload = place.upload()
    again = pickle.loads(pickle.dumps(upload))
    assert type(again) is Upload
    assert (again.id, again.filename) == (upload.id, "film.mp4")
    assert upload.is_taken, "the other process may use its path"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_async_application_saves_in_a_thread(tmp_path, backend):
    place = Place(tmp_path)
    path = anyio.run(place.upload().save_to_async, place.arrived, "other.mp4", backend=backend)
    assert path == str(place.arrived / "other.mp4")
    assert place.files() == {"other.mp4": CONTENT}


# -- A failure at each step, and then another attempt --


def failing(directory, way, is_taken, number, fail):
    """A place where the attempt fails at one call, and an upload for it.

    With ``is_taken`` a file of another upload has the name, and is gone at the next attempt.
    """
    place = Place(directory / f"{is_taken}-{number}", way)
    if is_taken:
        (place.arrived / "film.mp4").write_text("another")
    place.system.fails_at, place.system.fail = number, fail
    return place, place.upload("film.mp4", CONTENT[:100_000])


def check_next_attempt(place, upload, earlier):
    """Check that another attempt, without a failure, saves the file once; ``earlier`` is the path that is known."""
    if (place.arrived / "film.mp4").exists() and (place.arrived / "film.mp4").read_bytes() == b"another":
        (place.arrived / "film.mp4").unlink()
    place.system.fails_at = None
    path = place.save(upload)
    assert place.save(upload) == path
    assert earlier in (None, path)
    assert place.files() == {os.path.basename(path): CONTENT[:100_000]}


def refuse(call):
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def refuse_late(call):
    call()
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("is_taken", [False, True])
@pytest.mark.parametrize("fail", [refuse, refuse_late])
def test_a_call_that_fails_at_any_step(way, fail, is_taken, tmp_path):
    for number in range(MOST_CALLS):
        place, upload = failing(tmp_path, way, is_taken, number, fail)
        path = None
        with contextlib.suppress(OSError):
            path = place.save(upload)
        visible = [name for name in place.files() if not name.startswith(".") and name != "film.mp4"]
        assert all(place.files()[name] == CONTENT[:100_000] for name in visible)
        if len(place.system.calls) <= number:
            assert number > 12
            return
        check_next_attempt(place, upload, path)
    raise AssertionError("there are more calls than were tried")


def die(call):
    os._exit(9)


def kill(directory):
    """Kill a process before each call, and make the next attempt in this one; return the number of kills."""
    killed = dict.fromkeys(WAYS, 0)
    for way, is_taken in itertools.product(WAYS, (False, True)):
        for number in range(MOST_CALLS):
            place, upload = failing(directory / way, way, is_taken, number, die)
            pid = os.fork()
            if not pid:
                try:
                    place.save(upload)
                finally:
                    os._exit(0)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            assert status in (0, 9)
            check_next_attempt(place, upload, None)
            place.release()
            if status == 0:
                break
            killed[way] += 1
    return killed


def test_a_process_that_is_killed_at_any_step(tmp_path):
    command = [sys.executable, "-m", "tests.stores.test_saving", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    killed = json.loads(done.stdout)
    assert set(killed) == set(WAYS)
    assert min(killed.values()) > 20


def test_a_partial_copy_of_a_crash_is_not_taken_for_the_file(tmp_path):
    place = Place(tmp_path, "copy")
    upload = place.upload()
    (place.arrived / f".tus-{upload.key}").write_bytes(b"x" * (len(CONTENT) + 5))
    place.save(upload)
    assert place.files() == {"film.mp4": CONTENT}


def test_two_processes_with_one_upload_make_one_file(tmp_path):
    """The claim of the first one has lapsed; it goes on after the second one has saved the file."""
    place = Place(tmp_path, "memory")
    upload = place.upload()
    fill, is_busy = saving._Saving._fill, []

    def pause(self, fd):
        fill(self, fd)
        if not is_busy:
            is_busy.append(True)
            upload.save_to(place.arrived)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving._Saving, "_fill", pause)
        with contextlib.suppress(FileNotFoundError):  # the other one has removed its copy
            place.save(upload)
    assert place.files() == {"film.mp4": CONTENT}


if __name__ == "__main__":
    print(json.dumps(kill(Path(sys.argv[1]))))
