"""``tus fsck``: each kind of damage is made on a disk, told in words, and repaired or left with a reason."""

import concurrent.futures
import contextlib
import fcntl
import grp
import io
import json
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from tusclient.client import TusClient

from tests.support.clients import head
from tests.support.serving import ROOT, serving
from tests.support.subjects import PATH, FilterSubject
from tests.support.users import needs_root
from tests.support.wsgi import OCTETS
from tus import Upload
from tus.cli import main as cli
from tus.filesystem import locks
from tus.models import State
from tus.stores.directory import record_format as sidecar
from tus.stores.directory.fsck import check as fsck
from tus.stores.directory.fsck.check import Severity
from tus.stores.directory.fsck.diagnosis import LARGEST_SIDECAR
from tus.stores.directory.fsck.place import Place
from tus.stores.directory.store import DirectoryStore

OLD = 3 * 3600  # seconds; longer than anything is taken for being under way
FINAL = "f" * 32


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "uploads").mkdir()
    return tmp_path / "uploads"


@pytest.fixture
def store(directory):
    return DirectoryStore(str(directory))


@dataclass
class Checked:
    """What ``tus fsck --json`` has said."""

    status: int
    findings: list[dict]
    totals: dict

    @property
    def kinds(self):
        return [finding["kind"] for finding in self.findings]


@pytest.fixture
def check(directory, capsys):
    def check(*options):
        status = cli.main(["fsck", str(directory), "--json", *options])
        captured = capsys.readouterr()
        assert captured.err == ""
        said = json.loads(captured.out)
        return Checked(status, said.pop("findings"), said)

    return check


def make(store, data=b"12345", length=10, concat=None):
    """An upload of which this much has come."""
    upload = store.create(Upload(length=length, raw_metadata="filename YS5iaW4=", concat=concat))
    return store.append(upload, 0, data) if data else upload


def accepted(store):
    upload = make(store, length=5)
    store.claim(upload).accept()
    return upload


def final_of(store, *parts):
    return store.create(Upload(id=FINAL, concat="final;x", parts=tuple(part.id for part in parts)))


def car_of(upload):
    return Path(f"{upload.path}.tus")


def age(path, seconds=OLD):
    """Let a file have been changed so long ago."""
    past = time.time() - seconds
    os.utime(path, (past, past))


def change(path, data):
    path.write_bytes(data)
    age(path)


def flip(upload, *positions):
    """Change bytes of a side-car."""
    data = bytearray(car_of(upload).read_bytes())
    for position in positions:
        data[position] ^= 0x5A
    change(car_of(upload), data)


def write_slot(upload, **changes):
    """Write the next slot as the store does, with something in it that the store would not write."""
    data = bytearray(car_of(upload).read_bytes())
    slot = sidecar.unpack_slots(data)._replace(**changes)
    slot = slot._replace(sequence=slot.sequence + 1)
    position = sidecar.position_of(slot)
    data[position : position + sidecar.SLOT_SIZE] = sidecar.pack_slot(slot)
    change(car_of(upload), data)


def current_position(upload):
    return sidecar.position_of(sidecar.unpack_slots(car_of(upload).read_bytes()))


# -- Making each kind of damage; each returns the id that the finding has -----------------------------------------


def creation_of_nothing(store):
    upload = make(store, b"")
    change(car_of(upload), b"")
    os.unlink(upload.path)
    return upload.id


def creation_cut_short(store):
    upload = make(store, b"")
    change(car_of(upload), car_of(upload).read_bytes()[:150])
    return upload.id


def creation_of_zeros(store):
    upload = make(store, b"")
    change(car_of(upload), bytes(200))
    return upload.id


def creation_without_data(store):
    upload = make(store, b"")
    age(car_of(upload))
    os.unlink(upload.path)
    return upload.id


def sidecar_cut_short(store):
    upload = make(store)
    change(car_of(upload), car_of(upload).read_bytes()[:40])
    return upload.id


def sidecar_zeroed(store):
    upload = make(store)
    change(car_of(upload), bytes(200))
    return upload.id


def both_slots_torn(store):
    upload = make(store)
    flip(upload, 10, 138)
    return upload.id


def both_slots_torn_after_acceptance(store):
    upload = accepted(store)
    flip(upload, 10, 138)
    return upload.id


def record_torn(store):
    upload = make(store)
    flip(upload, 300)
    return upload.id


def record_of_another_version(store):
    upload = make(store)
    data = car_of(upload).read_bytes()[: sidecar.SLOTS_SIZE]
    record = json.dumps({"id": upload.id}).encode()
    change(car_of(upload), data + sidecar._RECORD_HEAD.pack(b"rec1", len(record), sidecar.crc32(record)) + record)
    return upload.id


def record_torn_after_acceptance(store):
    upload = accepted(store)
    flip(upload, 300)
    return upload.id


def copied_by_hand(store):
    upload = make(store)
    for end in ("", ".tus"):
        shutil.copy2(f"{upload.path}{end}", os.path.join(store.directory, FINAL + end))
    return FINAL


def more_than_the_length(store):
    upload = make(store)
    write_slot(upload, offset=11)
    return upload.id


def complete_too_early(store):
    upload = make(store)
    write_slot(upload, state=State.COMPLETE)
    return upload.id


def data_removed(store):
    upload = make(store)
    os.unlink(upload.path)
    return upload.id


def data_taken_for_good(store):
    upload = make(store, length=5)
    os.unlink(upload.path)
    age(car_of(upload))
    return upload.id


def data_of_a_part_removed(store):
    upload = make(store, length=5, concat="partial")
    os.unlink(upload.path)
    return upload.id


def data_cut(store):
    upload = make(store)
    os.truncate(upload.path, 3)
    return upload.id


def complete_data_cut(store):
    upload = make(store, length=5)
    os.truncate(upload.path, 3)
    return upload.id


def final_data_cut(store):
    part = make(store, length=5, concat="partial")
    final = final_of(store, part)
    store.concatenate(final.id, [store.load(part.id)])
    os.truncate(final.path, 3)
    return final.id


def data_written_by_another(store):
    upload = make(store, length=5)
    with open(upload.path, "ab") as file:
        file.write(b"more")
    return upload.id


def removal_that_died(store):
    upload = make(store)
    write_slot(upload, state=State.TERMINATED)
    return upload.id


def removal_that_died_of_a_torn_record(store):
    upload = make(store)
    write_slot(upload, state=State.TERMINATED)
    flip(upload, 300)
    return upload.id


def accepted_data_after_its_time(store):
    store = DirectoryStore(store.directory, completed_keep=1, keep_finished=True, clock=lambda: time.time() - OLD)
    return accepted(store).id


def sidecar_is_a_link(store):
    upload = make(store)
    car_of(upload).rename(f"{upload.path}.elsewhere")
    car_of(upload).symlink_to(f"{upload.path}.elsewhere")
    return upload.id


def sidecar_is_a_directory(store):
    upload = make(store)
    car_of(upload).unlink()
    car_of(upload).mkdir()
    return upload.id


def sidecar_is_a_pipe(store):
    upload = make(store)
    car_of(upload).unlink()
    os.mkfifo(car_of(upload))
    return upload.id


def data_is_a_link(store):
    upload = make(store)
    os.rename(upload.path, f"{upload.path}.elsewhere")
    os.symlink(f"{upload.path}.elsewhere", upload.path)
    return upload.id


def data_is_a_directory(store):
    upload = make(store)
    os.unlink(upload.path)
    os.mkdir(upload.path)
    return upload.id


def sidecar_for_all(store):
    upload = make(store)
    car_of(upload).chmod(0o666)
    return upload.id


def data_for_nobody(store):
    upload = make(store)
    os.chmod(upload.path, 0)
    return upload.id


def another_programs_sidecar(store):
    change(Path(store.directory, f"{FINAL}.tus"), b"a note that somebody else has left here")
    return FINAL


def enormous_sidecar(store):
    upload = make(store)
    os.truncate(car_of(upload), LARGEST_SIDECAR + 1)
    return upload.id


def data_alone(store):
    Path(store.directory, FINAL).write_bytes(b"somebody's")
    return FINAL


def garbled_watchers(store):
    part = make(store, length=5, concat="partial")
    store.watch(part.id, final_of(store, part).id)
    with car_of(part).open("ab") as file:
        file.write(b"?" * 32)
    return part.id


def too_many_watchers(store):
    part = make(store, length=5, concat="partial")
    with car_of(part).open("ab") as file:
        file.write(b"0" * 32 * 17)
    return part.id


def a_part_removed(store):
    part = make(store, concat="partial")
    final = final_of(store, part)
    store.remove(part.id)
    return final.id


def probe_left(store):
    path = Path(store.directory, ".tus-probe-abcd_123")
    path.touch()
    age(path)
    return path.name


def copy_left(store):
    path = Path(store.directory, f".tus-{'ab' * 16}")
    path.write_bytes(b"abc")
    age(path)
    return path.name


def draft_left(store):
    path = Path(store.directory, ".tus-adopting-abcd_123")
    path.touch()
    age(path)
    return path.name


def unknown_file(store):
    Path(store.directory, ".tus-something").touch()
    return ".tus-something"


def sweeper_is_a_directory(store):
    Path(store.directory, ".tus-sweeper").mkdir()
    return ".tus-sweeper"


def hand_over_left(store):
    upload = make(store, length=5)
    path = Path(store.directory, f".tus-handover-{upload.id}-0123abcd")
    os.link(upload.path, path)
    return path.name


def hand_over_left_alone(store):
    name = hand_over_left(store)
    store.remove(name.split("-")[2])
    return name


DAMAGE, NOTICE = Severity.DAMAGE, Severity.NOTICE
GONE, ASIDE, LEFT, MENDED = "gone", "aside", "left", "mended"

#: How it is made, its kind, its severity, what the explanation says, and what a repair makes of it.
CASES = [
    (creation_of_nothing, "creation-torn", NOTICE, "crashed before any data arrived", GONE),
    (creation_cut_short, "creation-torn", NOTICE, "crashed before any data arrived", GONE),
    (creation_of_zeros, "creation-torn", NOTICE, "crashed before any data arrived", GONE),
    (creation_without_data, "creation-torn", NOTICE, "crashed before any data arrived", GONE),
    (sidecar_cut_short, "sidecar-damaged", DAMAGE, "5 bytes stored", ASIDE),
    (sidecar_zeroed, "sidecar-damaged", DAMAGE, "The whole side-car is damaged", ASIDE),
    (both_slots_torn, "slots-damaged", DAMAGE, "the offset of a.bin is lost", ASIDE),
    (both_slots_torn_after_acceptance, "slots-damaged", DAMAGE, "Both slots", GONE),
    (record_torn, "record-damaged", DAMAGE, "5 of 10 bytes counted", ASIDE),
    (record_of_another_version, "record-damaged", DAMAGE, "creation record", ASIDE),
    (record_torn_after_acceptance, "record-damaged", DAMAGE, "accepted", GONE),
    (copied_by_hand, "id-differs", DAMAGE, "copied or renamed by hand", ASIDE),
    (more_than_the_length, "numbers-impossible", DAMAGE, "counts more bytes", ASIDE),
    (complete_too_early, "numbers-impossible", DAMAGE, "marked as complete", ASIDE),
    (data_removed, "data-missing", DAMAGE, "removed the data", GONE),
    (data_taken_for_good, "data-missing", DAMAGE, "moved it away without accepting it", GONE),
    (data_of_a_part_removed, "data-missing", DAMAGE, "removed the data", GONE),
    (data_cut, "data-short", DAMAGE, "5 of 10 bytes counted, 3 bytes stored", MENDED),
    (complete_data_cut, "data-short", DAMAGE, "machine crashed", MENDED),
    (final_data_cut, "data-short", DAMAGE, "After the parts were concatenated", ASIDE),
    (data_written_by_another, "data-long", DAMAGE, "longer than the upload", LEFT),
    (removal_that_died, "removal-unfinished", NOTICE, "A sweep also removes them", GONE),
    (removal_that_died_of_a_torn_record, "removal-unfinished", NOTICE, "A sweep also removes them", GONE),
    (accepted_data_after_its_time, "accepted-data", NOTICE, "is over", GONE),
    (sidecar_is_a_link, "not-regular", DAMAGE, "a symbolic link", LEFT),
    (sidecar_is_a_directory, "not-regular", DAMAGE, "not a regular file", LEFT),
    (sidecar_is_a_pipe, "not-regular", DAMAGE, "not a regular file", LEFT),
    (data_is_a_link, "not-regular", DAMAGE, "The data is a symbolic link", LEFT),
    (data_is_a_directory, "not-regular", DAMAGE, "The data is not a regular file", LEFT),
    (sidecar_for_all, "mode", DAMAGE, "permissions", MENDED),
    (data_for_nobody, "mode", DAMAGE, "permissions", MENDED),
    (another_programs_sidecar, "not-ours", NOTICE, "nothing in it shows that tus wrote it", LEFT),
    (enormous_sidecar, "not-ours", NOTICE, "larger than any", LEFT),
    (data_alone, "orphan-data", NOTICE, "10 bytes, but no side-car", LEFT),
    (garbled_watchers, "watchers-garbled", DAMAGE, "invalid ids", MENDED),
    (too_many_watchers, "watchers-garbled", DAMAGE, "invalid ids", MENDED),
    (a_part_removed, "parts-missing", NOTICE, "1 of 1 parts", LEFT),
    (probe_left, "probe-left", NOTICE, "checked the locks", GONE),
    (copy_left, "copy-left", NOTICE, "after 3 bytes", GONE),
    (draft_left, "draft-left", NOTICE, "tus import", LEFT),
    (hand_over_left, "hand-over-left", NOTICE, "5 bytes by this name", GONE),
    (hand_over_left_alone, "hand-over-left", NOTICE, "5 bytes by this name", LEFT),
    (unknown_file, "unknown-file", NOTICE, "this version does not know the name", LEFT),
    (sweeper_is_a_directory, "not-regular", DAMAGE, "cannot open it", LEFT),
]


def files_of(directory, name):
    """Every file of an upload, with its content; what a directory, a link or a pipe holds is not looked at."""
    return {
        path.name: path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        for path in Path(directory).iterdir()
        if path.name.startswith(name)
    }


@pytest.mark.parametrize(
    ("damage", "kind", "severity", "words", "fate"), CASES, ids=lambda value: getattr(value, "__name__", "")
)
def test_each_kind_of_damage(damage, kind, severity, words, fate, store, directory, check):
    sound = make(store, b"sound", length=None)
    name = damage(store)
    before = files_of(directory, name)
    told = check()
    assert (told.kinds, told.findings[0]["id"], told.findings[0]["severity"]) == ([kind], name, severity)
    assert words in told.findings[0]["explanation"]
    assert told.status == (1 if severity == DAMAGE else 0)
    assert files_of(directory, name) == before, "nothing is changed by looking"
    repaired = check("--repair")
    assert repaired.kinds == [kind]
    assert repaired.findings[0]["repaired"] is (None if fate == LEFT else True)
    after, again = files_of(directory, name), check()
    if fate == LEFT:
        assert repaired.findings[0]["reason"], "it is said why"
        assert (after, again.kinds, again.status) == (before, [kind], told.status)
    elif fate == ASIDE:
        assert set(after) == {f"{name}.damaged", f"{name}.tus.damaged"}
        assert after[f"{name}.damaged"] == before[name], "every byte is kept"
        assert (again.kinds, again.status) == (["set-aside", "set-aside"], 0)
    else:
        assert (again.kinds, again.status) == ([], 0)
        assert bool(after) == (fate == MENDED)
    assert repaired.status == again.status
    assert store.load(sound.id).offset == 5


def test_every_kind_has_its_case():
    rooms = [Path(fsck.__file__).with_name(name).read_text() for name in ("diagnosis.py", "check.py", "strays.py")]
    known = set(re.findall(r'^ +"([a-z]+-[a-z]+|mode|held|unreadable|expired)",?$', "\n".join(rooms), re.MULTILINE))
    known |= {"sidecar-damaged", "record-damaged", "slots-damaged"}
    told = {kind for _, kind, _, _, _ in CASES}
    tested_below = {"being-created", "being-taken", "slot-torn", "uncounted-bytes", "watcher-torn", "watcher-absent"}
    tested_below |= {"held", "unreadable", "owners-differ", "set-aside", "names-added", "directory-shared"}
    assert known <= told | tested_below | {"expired"}


# -- What a repair leads to ---------------------------------------------------------------------------------------


def test_an_upload_that_was_counted_back_goes_on(store, check):
    upload = store.load(make(store).id)
    os.truncate(upload.path, 3)
    session = store.open(store.load(upload.id), 3)
    os.truncate(upload.path, 2)
    assert check("--repair").kinds == ["data-short"]
    with pytest.raises(Exception, match="taken over"), session:
        session.write(b"x")
    always = DirectoryStore(store.directory, fsync="always")
    stands = always.load(upload.id)
    assert (stands.offset, stands.state) == (2, State.RECEIVING)
    always.append(stands, 2, b"345----6")
    assert Path(upload.path).read_bytes() == b"12345----6"
    assert store.load(upload.id).state == State.COMPLETE


def test_a_complete_upload_that_was_counted_back_has_a_day(store, check):
    made = DirectoryStore(store.directory, lifetime=60, clock=lambda: time.time() - OLD)
    upload = make(made, length=5)
    os.truncate(upload.path, 3)
    check("--repair")
    store.sweep()
    assert store.load(upload.id).expires_at == pytest.approx(time.time() + 86400, abs=60)


def test_whoever_appends_writes_no_more_to_what_is_set_aside(store, check):
    upload = make(store)
    with store.open(store.load(upload.id), 5) as session:
        flip(upload, 300)
        session.write(b"6")
        age(car_of(upload))
        assert check("--repair").kinds == ["record-damaged"]
        with pytest.raises(Exception, match="taken over"):
            session.write(b"7")
    assert Path(f"{upload.path}.damaged").read_bytes() == b"123456"


def test_what_was_set_aside_before_is_not_replaced(store, directory, check):
    for number in ("", "2", "3"):
        upload = store.create(Upload(id=FINAL, length=10))
        store.append(upload, 0, f"bytes{number}".encode())
        flip(upload, 300)
        check("--repair")
    asides = {path.name: path.read_bytes() for path in directory.glob(f"{FINAL}.damaged*")}
    assert asides == {f"{FINAL}.damaged{number}": f"bytes{number}".encode() for number in ("", "2", "3")}


def test_good_watchers_are_kept(store, check):
    part = make(store, concat="partial")
    final = final_of(store, part)
    with car_of(part).open("ab") as file:
        file.write(b"?" * 32)
    with car_of(part).open("ab") as file:
        file.write(final.id.encode())
    check("--repair")
    assert list(store.finals_of(part.id)) == [final.id]
    store.watch(part.id, "e" * 32)
    assert list(store.finals_of(part.id)) == [final.id, "e" * 32]


def test_two_kinds_at_once_need_one_repair(store, check):
    upload = make(store)
    os.truncate(upload.path, 3)
    car_of(upload).chmod(0o640)
    told = check("--repair")
    assert (told.kinds, told.status) == (["mode", "data-short"], 0)
    assert told.totals == {"damaged": 2, "repaired": 2, "expired": 0}


@pytest.mark.parametrize("state", ["complete", "receiving"])
def test_what_is_being_handed_over_or_joined_is_left(state, store, check):
    upload = make(store, length=5 if state == "complete" else 10)
    flip(upload, 300)
    with open(upload.path, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        told = check("--repair")
        assert (told.status, told.findings[0]["repaired"]) == (1, False)
        assert "another process is using it" in told.findings[0]["reason"]
        assert car_of(upload).exists()
    assert check("--repair").status == 0


def test_the_second_name_of_what_is_being_handed_over_is_left(store, directory, check):
    name = hand_over_left(store)
    claim = store.claim(store.load(name.split("-")[2]))
    with claim.open():
        pass
    assert check("--repair", "--verbose").findings == []
    claim.release()
    assert (directory / name).exists()


def test_a_repair_looks_again(store, directory):
    """What was found may not be so any more when it is repaired."""
    upload = make(store)
    os.truncate(upload.path, 3)
    (finding,) = fsck.examine(Place(str(directory)), f"{upload.id}.tus")
    store.append(store.load(upload.id), 3, b"45")
    assert finding.repair.perform() is False
    assert store.load(upload.id).offset == 5
    store.remove(upload.id)
    assert finding.repair.perform() is False


@pytest.mark.parametrize("is_made_again", [False, True])
def test_an_upload_that_is_removed_while_it_is_looked_at(is_made_again, store, check, monkeypatch):
    """The side-car that was opened may have been unlinked before its lock was had."""
    upload = store.create(Upload(id=FINAL, length=10))
    store.append(upload, 0, b"12345")
    real = fsck.lock

    def lock(fd):
        monkeypatch.undo()
        store.remove(FINAL)
        if is_made_again:
            store.create(Upload(id=FINAL, length=10))
        real(fd)

    os.truncate(upload.path, 3)
    monkeypatch.setattr(fsck, "lock", lock)
    assert check("--repair", "--verbose").findings == []


def test_data_whose_sidecar_came_between_two_looks(store, directory):
    upload = make(store)
    assert list(fsck.examine(Place(str(directory)), upload.id)) == []
    store.remove(upload.id)
    assert list(fsck.examine(Place(str(directory)), upload.id)) == []


# -- What is normal -----------------------------------------------------------------------------------------------


def test_uploads_at_rest(store, check):
    part = make(store, concat="partial")
    final = final_of(store, part)
    store.watch(part.id, final.id)
    make(store)
    make(store, length=5)
    make(store, length=None)
    make(store, b"", length=0)
    accepted(store)
    store.sweep()
    assert check("--verbose").findings == []


def normal(check):
    told = check("--repair")
    assert (told.status, told.findings) == (0, [])
    (finding,) = check("--verbose").findings
    assert finding["severity"] == "normal"
    assert finding["repair"] is None
    return finding["kind"]


def test_a_torn_slot(store, check):
    upload = make(store)
    flip(upload, 10 + sidecar.SLOT_SIZE - current_position(upload))  # not the one that holds
    assert normal(check) == "slot-torn"
    assert store.append(store.load(upload.id), 5, b"6").offset == 6
    assert check("--verbose").findings == []


def test_the_slot_that_holds_is_torn(store, check):
    """It is as if the last change had not been made, so what it has counted is sent again."""
    upload = make(store)
    flip(upload, 10 + current_position(upload))
    assert set(check("--verbose").kinds) == {"slot-torn", "uncounted-bytes"}
    assert store.load(upload.id).offset == 0


def test_a_staged_session(store, check):
    upload = make(store)
    with store.open(upload, 5, staged=True) as session:
        session.write(b"678")
        assert normal(check) == "uncounted-bytes"
        session.commit()
    assert store.load(upload.id).offset == 8


@pytest.mark.parametrize("size", [0, 100, 150])
def test_a_creation_under_way(size, store, check):
    upload = make(store, b"")
    os.truncate(car_of(upload), size)
    assert normal(check) == "being-created"


def test_a_creation_whose_data_is_yet_to_come(store, check):
    os.unlink(make(store, b"").path)
    assert normal(check) == "being-created"


def test_a_file_that_an_application_has_moved_away(store, check):
    upload = make(store, length=5)
    claim = store.claim(upload)
    claim.begin()
    os.unlink(upload.path)
    assert normal(check) == "being-taken"
    claim.release()


def test_finished_files_that_are_kept(directory, check):
    upload = accepted(DirectoryStore(str(directory), keep_finished=True))
    assert normal(check) == "accepted-data"
    assert Path(upload.path).exists()


def test_a_watcher_that_was_torn(store, check):
    part = make(store, concat="partial")
    with car_of(part).open("ab") as file:
        file.write(b"abc")
    assert normal(check) == "watcher-torn"


def test_a_watcher_that_is_gone(store, check):
    part = make(store, concat="partial")
    store.watch(part.id, "e" * 32)
    assert normal(check) == "watcher-absent"


def test_a_probe_of_a_server_that_starts(directory, check):
    names = (".tus-probe-abcdefgh", f".tus-{'ab' * 16}")
    for name in names:
        (directory / name).touch()
    assert check("--repair", "--verbose").findings == []
    assert all((directory / name).exists() for name in names)


def test_other_programs_files(directory, check):
    for name in ("readme.txt", "x.tus", "a" * 31, "A" * 32, f"{'a' * 32}.txt", ".hidden", ".tus"):
        (directory / name).mkdir() if name == ".hidden" else (directory / name).touch()
    before = sorted(directory.iterdir())
    assert check("--repair", "--verbose").findings == []
    assert sorted(directory.iterdir()) == before


def test_expired_uploads_are_counted(directory, check, capsys):
    long_ago = DirectoryStore(str(directory), lifetime=1, completed_keep=1, clock=lambda: time.time() - OLD)
    make(long_ago)
    accepted(long_ago)
    told = check("--repair")
    assert (told.findings, told.totals) == ([], {"damaged": 0, "repaired": 0, "expired": 2})
    assert check("--verbose").kinds == ["expired", "expired"]
    cli.main(["fsck", str(directory)])
    assert capsys.readouterr().out == "no damage, 2 expired, which tus clean removes\n"


# -- Rights and locks ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def as_nobody():
    """Be a user without rights for a while; the tests may run as root, who may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_sidecar_that_its_owner_cannot_read():
    with tempfile.TemporaryDirectory() as directory:
        if os.geteuid() == 0:
            os.chown(directory, 65534, 65534)
        with as_nobody():
            upload = make(DirectoryStore(directory))
            car_of(upload).chmod(0)
            ((finding, outcome),) = fsck.check(Place(directory), repair=True)
            assert (finding.kind, outcome, car_of(upload).stat().st_mode & 0o777) == ("mode", "", 0o600)


@needs_root
@pytest.mark.parametrize("end", ["", ".tus"])
def test_owners_that_differ(store, check, end):
    upload = make(store)
    os.chown(upload.path + end, 65534, -1)
    os.chmod(upload.path + end, 0o666)
    for _ in range(2):
        told = check("--repair")
        assert (told.kinds, told.status) == (["owners-differ"], 1)
        assert "65534" in told.findings[0]["explanation"]
        assert "chown" in told.findings[0]["reason"]
    assert os.stat(upload.path + end).st_mode & 0o777 == 0o666


def test_a_sidecar_with_other_names(store, check):
    upload = make(store)
    for name in ("one", "two"):
        os.link(car_of(upload), Path(store.directory, name))
    told = check("--repair")
    assert (told.kinds, told.status) == (["names-added"], 1)
    assert "3 names" in told.findings[0]["explanation"]


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770])
def test_nothing_is_repaired_where_others_can_replace_files(store, directory, check, monkeypatch, mode):
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group(("staff", "x", gid, ["bob"])))
    upload = make(store)
    car_of(upload).chmod(0o644)
    directory.chmod(mode)
    told = check("--repair")
    assert (told.kinds, told.status) == (["directory-shared", "mode"], 1)
    assert "chmod" in told.findings[0]["explanation"]
    assert "change that first" in told.findings[1]["reason"]
    directory.chmod(0o700)
    assert check("--repair").kinds == ["mode"]
    assert car_of(upload).stat().st_mode & 0o777 == 0o600


def swap_for_a_link(path, victim):
    path.rename(f"{path}.old")
    path.symlink_to(victim)


def swap_for_a_second_name(path, victim):
    os.chown(victim, 65534, -1)
    path.rename(f"{path}.old")
    os.link(victim, path)


@pytest.mark.parametrize("swap", [swap_for_a_link, pytest.param(swap_for_a_second_name, marks=needs_root)])
@pytest.mark.parametrize("end", ["", ".tus"])
def test_a_file_that_is_swapped_before_its_mode_is_repaired(store, directory, tmp_path, swap, end):
    victim = tmp_path / "victim"
    victim.write_text("secret")
    victim.chmod(0o400)
    upload = make(store)
    for path in (Path(upload.path), car_of(upload)):
        path.chmod(0o666)
    (finding,) = fsck.examine(Place(str(directory)), f"{upload.id}.tus")
    swap(Path(upload.path + end), victim)
    finding.repair.perform()
    assert victim.stat().st_mode & 0o777 == 0o400


@pytest.mark.parametrize("mode", [0o666, 0o604, 0o640, 0o620, 0o177, 0o4755, 0])
def test_a_repair_grants_nothing_to_others(store, check, mode):
    upload = make(store)
    os.chmod(upload.path, mode)
    car_of(upload).chmod(mode)
    assert check("--repair").kinds == ["mode"]
    for path in (upload.path, car_of(upload)):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert store.append(store.load(upload.id), 5, b"6").offset == 6


def test_a_repair_leaves_what_the_application_may_have_granted(store, check):
    upload = make(store, length=5)
    claim = store.claim(upload)
    claim.begin()
    os.chmod(upload.path, 0o445)
    claim.release()
    assert check("--repair").kinds == ["mode"]
    assert stat.S_IMODE(os.stat(upload.path).st_mode) == 0o645


@pytest.mark.skipif(os.geteuid() != 0, reason="root is refused nothing else")
def test_a_repair_that_the_system_refuses():
    with tempfile.TemporaryDirectory() as directory:
        store = DirectoryStore(directory)
        upload = make(store)
        flip(upload, 300)
        for end in ("", ".tus"):
            os.chown(f"{upload.path}{end}", 65534, -1)
        os.chmod(directory, 0o755)
        with as_nobody():
            ((finding, outcome),) = fsck.check(Place(directory), repair=True)
        assert (finding.kind, outcome) == ("record-damaged", "the system refused: Permission denied")
        assert car_of(upload).exists()


def test_a_lock_that_is_held_by_a_stopped_process(store, check, monkeypatch):
    monkeypatch.setattr(locks.lock, "__defaults__", (0.05,))
    upload = make(store)
    os.truncate(upload.path, 3)
    with car_of(upload).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        told = check("--repair")
    assert (told.kinds, told.status) == (["held"], 0)
    assert check().kinds == ["data-short"]


# -- Processes that die -------------------------------------------------------------------------------------------

DYING = """
import os, signal, sys
from tus import Upload
from tus.stores.directory import record as files, store as directory
def die(*arguments, **options): os.kill(os.getpid(), signal.SIGKILL)
store = directory.DirectoryStore(sys.argv[1])
upload = store.append(store.create(Upload(length=5)), 0, b"12345")
{death}
"""
DEATHS = [
    ("files.unlink = die; store.remove(upload.id)", "removal-unfinished"),
    ("from tus.stores.directory import creation; creation.write_at = die; store.create(Upload())", "creation-torn"),
    (
        "open_ = os.open; os.open = lambda p, *a: open_(p, *a) if p[-1] == 's' else die(); store.create(Upload())",
        "creation-torn",
    ),
    ("from tus.filesystem import locks; locks.os.unlink = die; locks.check_locks_work(sys.argv[1])", "probe-left"),
    ("from tus.stores.directory import claims; claims.unlink = die; store.claim(upload).accept()", None),
]


@pytest.mark.parametrize(("death", "kind"), DEATHS, ids=["remove", "create", "create-data", "start", "accept"])
def test_a_process_that_was_killed(death, kind, directory, check):
    done = subprocess.run([sys.executable, "-c", DYING.format(death=death), str(directory)], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    for path in directory.iterdir():
        age(path, 1800)  # less than a hand-over may take
    found = check()
    assert found.kinds == ([kind] if kind else [])
    assert found.status == 0  # the crash of a process damages no upload
    assert check("--repair").status == 0
    assert check().kinds == []
    assert check("--verbose").kinds == ([] if kind else ["accepted-data"])


# -- The command --------------------------------------------------------------------------------------------------


def test_what_it_prints(store, directory, capsys):
    def said(status, *options):
        assert cli.main(["fsck", str(directory), *options]) == status
        lines = capsys.readouterr().out.splitlines()
        assert all(len(line) <= 100 for line in lines)
        return "\n".join(lines).replace("\n  ", " ")

    broken, long = make(store), make(store, length=5)
    flip(broken, 300)
    Path(long.path).write_bytes(b"1234567")
    out = said(1)
    asides = f"to {broken.id}.damaged and {broken.id}.tus.damaged.\n"
    assert f"damage: {broken.id}: record-damaged The creation record" in out
    assert f" --repair would set it aside and rename its files {asides}" in out
    assert " No repair: decide whether the bytes at its end belong to it, and cut them off if not.\n" in out + "\n"
    assert out.endswith("2 damaged\n1 can be repaired, by tus fsck --repair")
    out = said(1, "--repair")
    assert f" Repaired: it was set aside and its files were renamed {asides}" in out
    assert out.endswith("2 damaged, 1 of them repaired")
    os.truncate(long.path, 5)
    assert said(0).endswith("no damage, 2 notices")


def test_every_kind_is_in_the_document():
    document = (ROOT / "docs" / "operating.rst").read_text()
    kinds = {kind for _, kind, _, _, _ in CASES} | {"set-aside", "held", "unreadable", "owners-differ"}
    kinds |= {"names-added", "directory-shared"}
    assert kinds == set(
        re.findall(
            r"``([a-z-]+)``(?=[,\n])", document[document.index("These are the kinds") : document.index("Health\n")]
        )
    )


def test_nothing_to_say(directory, capsys):
    assert cli.main(["fsck", str(directory)]) == 0
    assert capsys.readouterr() == ("no damage\n", "")


def test_a_directory_that_is_not_there(directory, capsys):
    assert cli.main(["fsck", str(directory / "missing")]) == 2
    assert "DIR" in capsys.readouterr().err


def test_a_directory_of_tus_serve(directory, check):
    """Its probes lie beside the finished files; those belong to somebody else."""
    (directory / ".tus").mkdir()
    store = DirectoryStore(str(directory / ".tus"))
    upload = make(store)
    os.truncate(upload.path, 3)
    left = (".tus-probe-abcdefgh", f".tus-{'d' * 32}")
    for name in (*left, ".tus-whatever", "b" * 32, f"{'c' * 32}.tus"):
        (directory / name).touch()
        age(directory / name)
    assert check("--repair").kinds == ["data-short", "copy-left", "probe-left"]
    assert {path.name for path in directory.iterdir()} == {".tus", ".tus-whatever", "b" * 32, f"{'c' * 32}.tus"}


# -- Whatever is in a side-car ------------------------------------------------------------------------------------


def mangled(data, chance):
    data = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5, 40))):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return data[: chance.randrange(len(data) + 1)] if chance.random() < 0.4 else data


@pytest.mark.parametrize("seed", range(6))
def test_nothing_fails_on_damaged_sidecars(seed, tmp_path, capsys):
    chance = random.Random(seed)
    subject = FilterSubject(tmp_file_dir=str(tmp_path))
    store = DirectoryStore(str(tmp_path))
    for number in range(25):
        part = make(store, length=5 if number % 2 else 10, concat=chance.choice(("partial", None)))
        if part.concat:
            store.watch(part.id, chance.choice(("e" * 32, part.id)))
        if number % 5 == 4:
            store.claim(store.load(make(store, length=5).id)).accept()
    urls = []
    for car in tmp_path.glob("*.tus"):
        change(car, mangled(car.read_bytes(), chance))
        if chance.random() < 0.2:
            with contextlib.suppress(FileNotFoundError):
                os.truncate(car.with_suffix(""), chance.randrange(12))
        urls.append(f"{PATH}/{car.stem}")
    for url in urls:
        parts = {"Upload-Concat": f"final;{url} {chance.choice(urls)}"}
        for method, headers, body in (
            ("HEAD", {}, b""),
            ("POST", parts, b""),
            ("PATCH", OCTETS | {"Upload-Offset": "5"}, b"67890"),
            ("PATCH", OCTETS | {"Upload-Offset": "0"}, b""),
        ):
            where = PATH if method == "POST" else url
            assert subject.send(method, where, headers, body).status in (
                200,
                201,
                204,
                400,
                403,
                404,
                409,
                410,
                413,
                423,
            )
    for arguments in (["ls"], ["ls", "--json"], ["fsck"], ["clean", "--dry-run"], ["clean"]):
        assert cli.main([*arguments, str(tmp_path)]) in (0, 1)
    for url in urls:
        assert cli.main(["show", url[-32:], "--dir", str(tmp_path)]) in (0, 1)
    for car in tmp_path.glob("*.tus"):
        age(car)
    cli.main(["fsck", "--repair", str(tmp_path)])
    capsys.readouterr()
    status = cli.main(["fsck", "--json", str(tmp_path)])
    left = {finding["kind"] for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert left <= {"set-aside", "not-ours", "orphan-data", "data-long"}
    assert status == ("data-long" in left)
    for url in urls:
        subject.send("DELETE", url)


# -- Beside a server ----------------------------------------------------------------------------------------------


def test_repairing_beside_a_server_breaks_nothing(tmp_path):
    """tuspy uploads, as fast as it can, while everything is looked at and repaired again and again."""
    with serving("gunicorn-gthread", tmp_path, max_total_size="1G") as served:
        client = TusClient(served.url)
        chance = random.Random(1)
        contents = [chance.randbytes(chance.choice((0, 1, 5001, 300_000, 300_001))) for _ in range(120)]

        def upload(content):
            verified = len(content) % 2 == 0  # those are staged until they are
            uploader = client.uploader(file_stream=io.BytesIO(content), chunk_size=70_000, upload_checksum=verified)
            uploader.upload()
            return uploader.url

        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            running = [pool.submit(upload, content) for content in contents]
            looks, wrong = 0, []
            while not served.store.exists():
                time.sleep(0.01)
            while looks < 20 or not all(future.done() for future in running):
                wrong += [
                    (finding.kind, finding.explanation)
                    for finding, _ in fsck.check(Place(str(served.store)), repair=True)
                    if finding.severity != Severity.NORMAL
                ]
                looks += 1
            urls = [future.result() for future in running]
        assert wrong == []
        for url, content in zip(urls, contents, strict=True):
            assert (served.landed / url.rpartition("/")[2]).read_bytes() == content
            assert head(url)[0] == 200


def test_repairing_beside_writers_that_are_killed(tmp_path):
    """The race of ``tests/fencing.py`` accounts for every byte; what the killed have left is no damage."""
    code = (
        "import sys, pathlib; from tests import fencing; sys.exit(fencing.run(pathlib.Path(sys.argv[1]), 60, 50) != [])"
    )
    race = [sys.executable, "-c", code, str(tmp_path)]
    looks = 0
    with subprocess.Popen(race, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        while process.poll() is None:
            if (tmp_path / "store").exists():
                found = [finding for finding, _ in fsck.check(Place(str(tmp_path / "store")), repair=True)]
                assert [finding for finding in found if finding.severity == Severity.DAMAGE] == []
                looks += 1
        printed = process.stdout.read().decode()
    assert process.returncode == 0, printed
    assert looks > 10
