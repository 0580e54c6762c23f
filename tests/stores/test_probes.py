"""What is checked at the start and by the health check, and what full and read-only disks still allow."""

import contextlib
import errno
import os
import subprocess

import pytest

from tests.support.commands import filled, run, store_in
from tests.support.disk import System, another_disk, mounted, simple_disk
from tests.support.wsgi import OCTETS, TUS, call
from tus import Filter
from tus.apps.files import Files
from tus.apps.front import Front
from tus.apps.operations import Operations
from tus.cli.main import main
from tus.errors import OptionError
from tus.filesystem import saving
from tus.handover.spool import Spool
from tus.models import Upload
from tus.stores import open_store
from tus.stores.directory import preparation


def refusing(number, *names):
    """Let calls that create files fail, as on a disk that is full or read-only."""
    patch = pytest.MonkeyPatch()
    real = os.open

    def open_(path, flags, *arguments, **words):
        if flags & os.O_CREAT or (number == errno.EROFS and flags & (os.O_WRONLY | os.O_RDWR)):
            raise OSError(number, os.strerror(number))
        return real(path, flags, *arguments, **words)

    def refuse(*arguments, **words):
        raise OSError(number, os.strerror(number))

    patch.setattr(os, "open", open_)
    for name in (*names, "pwrite", "link", "rename"):
        patch.setattr(os, name, refuse)

    @contextlib.contextmanager
    def undoing():
        try:
            yield
        finally:
            patch.undo()

    return undoing()


DISKS = [errno.ENOSPC, errno.EDQUOT, errno.EROFS]


@pytest.fixture
def finished(tmp_path):
    """A directory with an upload, and another one for the files."""
    (tmp_path / "files").mkdir()
    (tmp_path / "uploads").mkdir()
    return filled(store_in(tmp_path / "uploads"), 10, b"half ")


def build(tmp_path):
    preparation._proven.clear()
    files = Files(str(tmp_path / "files"))
    return Filter(files, upload_path="/files", tmp_file_dir=str(tmp_path / "uploads"), threads=False)


@pytest.mark.parametrize("number", DISKS)
def test_a_server_starts_on_a_disk_that_takes_nothing(tmp_path, finished, number):
    with refusing(number):
        app = build(tmp_path)
        reply = call(app, "HEAD", f"/files/{finished.id}", TUS)
        assert (reply.status, reply["Upload-Offset"]) == (200, "5")
        assert call(app, "POST", "/files", TUS | {"Upload-Length": "5"}).status in (503, 507)
        assert preparation._proven == set(), "what was not proven is checked again"
    append = TUS | OCTETS | {"Upload-Offset": "5"}
    assert call(app, "PATCH", f"/files/{finished.id}", append, b"whole").status == 204
    assert [file.read_bytes() for file in (tmp_path / "files").iterdir()] == [b"half whole"]
    app.service.close()


@pytest.mark.parametrize("number", DISKS)
def test_a_spool_starts_on_a_disk_that_takes_nothing(tmp_path, finished, number):
    spool = Spool(str(tmp_path / "spool"))
    with refusing(number):
        spool.check_links_from(str(tmp_path / "uploads"))


def test_a_directory_that_is_closed_to_us_is_still_an_error(tmp_path):
    with refusing(errno.EACCES), pytest.raises(OptionError, match="directory"):
        build(tmp_path)
    (tmp_path / "files").mkdir(exist_ok=True)
    with refusing(errno.EACCES), pytest.raises(OptionError, match="writable"):
        Files(str(tmp_path / "files"))


@pytest.mark.parametrize("disk", [simple_disk(), System(), another_disk("/tmp")], ids=["no links", "usual", "another"])
def test_the_target_is_probed_in_the_ways_of_save_to(tmp_path, disk):
    with disk.installed():
        Files(str(tmp_path))
    assert {"open", "fsync", "rename" if disk.refused and "setxattr" in disk.refused else "link"} <= set(disk.calls)
    assert os.listdir(tmp_path) == []


def test_a_target_that_takes_no_names_is_refused(tmp_path):
    """Files could be created there, and not be given their name."""
    disk = System(link=errno.EPERM, rename=errno.EPERM, setxattr=errno.ENOTSUP)
    with disk.installed(), pytest.raises(OptionError, match="must be a writable directory"):
        Files(str(tmp_path))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("limit", [175, 143, 80])
def test_a_name_gets_the_room_that_the_file_system_says(tmp_path, monkeypatch, limit):
    """Encrypting file systems have shorter names."""

    def too_long(*paths):
        return errno.ENAMETOOLONG if any(len(os.path.basename(str(path))) > limit for path in paths) else 0

    monkeypatch.setattr(os, "pathconf", lambda path, name: limit)
    data = tmp_path / "data"
    data.write_bytes(b"data")
    target = tmp_path / "target"
    target.mkdir()
    source = saving.Source(Upload(id="ab" * 16, length=4, path=str(data)), data.open, None)
    disk = System(link=lambda *paths: too_long(paths[1]), lstat=too_long)
    with disk.installed():
        path = saving.save(source, str(target), "n" * 300 + ".txt")
    assert len(os.path.basename(path)) == limit
    assert path.endswith(".txt")


@pytest.mark.parametrize("arguments", [["ls"], ["fsck"], ["show", "--dir"], ["clean", "--dry-run"]])
def test_commands_that_read_create_no_file(tmp_path, monkeypatch, capsys, arguments):
    upload = filled(store_in(tmp_path), 10, b"half ")
    preparation._proven.clear()
    names = set(os.listdir(tmp_path))
    more = [upload.id] if arguments[0] == "show" else []
    with refusing(errno.EROFS, "unlink", "utime", "mkdir", "ftruncate"):
        assert main([*arguments, str(tmp_path), *more]) == 0
    assert set(os.listdir(tmp_path)) == names
    assert upload.id[:8] in capsys.readouterr().out or arguments[0] in ("fsck", "clean")


def test_rm_and_clean_need_no_probe(tmp_path, capsys):
    given = filled(store_in(tmp_path), 10, b"half ")
    filled(store_in(tmp_path, 10 * 86400), 10, b"half ")
    preparation._proven.clear()
    with refusing(errno.ENOSPC, "utime"):
        assert main(["rm", "--dir", str(tmp_path), given.id]) == 0
        assert main(["clean", str(tmp_path)]) == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["removed", "removed"]
    assert [name for name in os.listdir(tmp_path) if not name.startswith(".")] == []


# -- Health -------------------------------------------------------------------------------------------------------


def health(directory):
    return call(Front(None, Operations(open_store(str(directory)))), "GET", "/health").status


class Free:
    """What statvfs says, with other numbers."""

    def __init__(self, real, **numbers):
        self.__dict__.update({name: getattr(real, name) for name in dir(real) if name.startswith("f_")} | numbers)


def test_the_health_check_leaves_nothing(tmp_path):
    assert health(tmp_path) == 200
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [*DISKS, errno.EIO])
def test_the_health_check_tells_of_a_disk_that_takes_nothing(tmp_path, number):
    operations = Front(None, Operations(open_store(str(tmp_path))))
    with refusing(number):
        assert call(operations, "GET", "/health").status == 503
    assert call(operations, "GET", "/health").status == 200


def test_the_health_check_tells_of_a_disk_without_free_blocks(tmp_path, monkeypatch):
    operations = Front(None, Operations(open_store(str(tmp_path))))
    real = os.statvfs
    monkeypatch.setattr(os, "statvfs", lambda path: Free(real(path), f_bavail=0))
    assert call(operations, "GET", "/health").status == 503


# -- Real disks ---------------------------------------------------------------------------------------------------


def exhaust(disk, kind):
    if kind == "btrfs":
        subprocess.run(f"dd if=/dev/zero of={disk}/fill bs=4k", shell=True, capture_output=True, check=False)
    if kind == "ext4":
        with contextlib.suppress(OSError):
            for number in range(1 << 20):
                (disk / f"inode-{number}").touch()
    if kind == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, capture_output=True)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["ext4", "btrfs", "read-only"])
def test_a_real_disk_that_takes_nothing(tmp_path, kind):
    with mounted("btrfs" if kind == "btrfs" else "ext4", tmp_path, 120 if kind == "btrfs" else 8) as disk:
        (disk / "uploads").mkdir(mode=0o700)
        (disk / "files").mkdir()
        disk.chmod(0o755)
        upload = filled(store_in(disk / "uploads"), 10, b"half ")
        exhaust(disk, kind)
        app = build(disk)
        assert call(app, "HEAD", f"/files/{upload.id}", TUS)["Upload-Offset"] == "5"
        if kind != "btrfs":  # there it depends on how the metadata is laid out
            assert health(disk / "uploads") == 503
        for command in ("ls", "fsck"):
            assert run(command, disk / "uploads").returncode == 0
        assert run("show", "--dir", disk / "uploads", upload.id).returncode == 0
        removed = run("rm", "--dir", disk / "uploads", upload.id)
        assert removed.returncode == (1 if kind == "read-only" else 0)
        app.service.close()
