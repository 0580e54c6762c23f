"""What the store, the spool and the outbox promise about a loss of power; see :mod:`tests.powerloss`."""

import os
import random
import sys

import pytest

from tests.powerloss.disk import SECTOR, Disk, File, Folder, Killed, PowerLoss
from tests.powerloss.histories import POLICIES, run
from tests.powerloss.mutants import find

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the model finds files by /proc")


@pytest.mark.parametrize("policy", POLICIES)
def test_each_policy_keeps_its_promises(policy):
    _, failure = run("short", 70, policy=policy)
    assert failure is None, failure


@pytest.mark.long
def test_a_store_that_leaves_out_a_sync_is_found():
    assert find("mutants", 3000) == []


def test_the_model_loses_any_sectors_that_were_not_synced():
    first, second = b"a" * SECTOR, b"b" * SECTOR
    file, seen = File(first + first), set()
    file.write(0, second)
    file.write(SECTOR, second)
    for seed in range(200):
        seen.add(file.after_loss(random.Random(seed)))
    assert seen == {first + first, first + second, second + first, second + second}
    file.sync()
    assert {file.after_loss(random.Random(seed)) for seed in range(20)} == {second + second}


def test_the_model_tears_no_sector_and_may_lose_a_size():
    file = File(b"abc")
    file.write(3, b"def")
    assert {file.after_loss(random.Random(seed)) for seed in range(200)} == {b"abc", b"abcdef", b"abc\0\0\0"}


def test_after_a_failed_sync_the_model_writes_only_what_changes_again():
    file = File()
    file.write(0, bytes(SECTOR) + b"x" * SECTOR)
    file.disk, file.dirty, file.sizes = b"", {}, []  # as after a sync that failed, and wrote nothing
    file.write(0, b"y")
    file.sync()
    assert file.disk == b"y".ljust(2 * SECTOR, b"\0")


def test_the_model_loses_names_that_were_not_synced():
    folder, file, seen = Folder(), File(), set()
    folder.change(a=file)
    folder.change(b=file)
    for seed in range(100):
        seen.add("".join(folder.after_loss(random.Random(seed))))
    assert seen == {"", "a", "b", "ab"}
    folder.sync([])
    assert "".join(folder.after_loss(random.Random(0))) == "ab"


def test_the_model_has_a_moved_directory_in_one_place():
    old, new, entry = Folder(), Folder(), Folder()
    folders = [old, new, entry]
    entry.move((old, "a"))
    places = lambda: {entry.place_after_loss(random.Random(seed)) for seed in range(100)}  # noqa: E731
    assert places() == {None, (old, "a")}
    old.sync(folders)
    entry.move((new, "a"))
    old.sync(folders)
    assert places() == {(old, "a"), (new, "a")}
    new.sync(folders)
    assert places() == {(new, "a")}


def test_a_failed_sync_of_names_is_final_until_they_change():
    folder = Folder()
    folder.change(a=File())
    folder.disk, folder.changes, folder.is_changed, folder.has_failed = {}, [], False, True
    folder.sync([])
    assert folder.after_loss(random.Random(0)) == {}
    folder.change(b=File())
    folder.sync([])
    assert "".join(folder.after_loss(random.Random(0))) == "ab"


def test_the_model_sees_what_a_stream_writes_and_loses_marks(tmp_path):
    disk, seen = Disk([str(tmp_path)], random.Random(0)), set()
    with disk.watched():
        with open(os.open(str(tmp_path / "file"), os.O_CREAT | os.O_RDWR, 0o600), "wb") as file:
            file.write(b"x")
            file.flush()
            os.setxattr(file.fileno(), "user.tus.key", b"y")
            os.fdatasync(file.fileno())
        for _ in range(100):
            _, contents = disk.after_loss()
            seen |= {(content, *marks) for content, marks in contents.values()}
    assert seen == {(b"x",), (b"x", "user.tus.key")}


def test_a_killed_process_changes_nothing_more(tmp_path):
    disk = Disk([str(tmp_path)], random.Random(0), cut_after=1)
    disk.ending = Killed
    with disk.watched():
        os.mkdir(tmp_path / "a")
        for _ in range(2):
            with pytest.raises(Killed):
                os.mkdir(tmp_path / "b")
        disk.left = None
        disk.restart()
        os.rmdir(tmp_path / "a")
    assert os.listdir(tmp_path) == []


def test_the_model_ends_at_its_moment(tmp_path):
    disk = Disk([str(tmp_path)], random.Random(0), cut_after=2)
    with disk.watched(), pytest.raises(PowerLoss):
        fd = os.open(tmp_path / "file", os.O_CREAT | os.O_WRONLY)
        os.close(fd)
        fd = os.open(str(tmp_path / "other"), os.O_CREAT | os.O_WRONLY)
        try:
            os.pwrite(fd, b"x", 0)
            os.fsync(fd)
        finally:
            os.close(fd)
    assert disk.is_off
