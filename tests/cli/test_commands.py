"""The commands that look after a directory of uploads: ``tus ls``, ``show``, ``rm``, ``clean``."""

import base64
import fcntl
import json
import os
import re
import subprocess
import textwrap
import time
import tracemalloc
from datetime import datetime
from pathlib import Path

import pytest

import tus
from tests.support.commands import TUS_COMMAND, assert_refused, filled, run, store_in
from tests.support.serving import ROOT
from tests.support.waiting import GUARD
from tus import Upload, register_store
from tus.cli import main as cli
from tus.cli import text
from tus.errors import UploadNotFound
from tus.models import State
from tus.stores.directory.store import DirectoryStore
from tus.stores.memory import MemoryStore

HEADING = ["ID", "STATE", "OFFSET", "LENGTH", "%", "AGE", "EXPIRES", "NAME"]
EVIL = "naïve\n\x1b[31m\u202e file.bin"


@pytest.fixture(params=["tmp_file_dir", "of tus serve"])
def kept(request, tmp_path):
    """A directory for the command line, and where its uploads are."""
    inner = tmp_path / "uploads" / ".tus" if request.param == "of tus serve" else tmp_path / "uploads"
    inner.mkdir(parents=True)
    return tmp_path / "uploads", inner


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "uploads").mkdir()
    return tmp_path / "uploads"


@pytest.fixture
def store(directory):
    return store_in(directory)


@pytest.fixture
def command(capsys):
    """Run a command in this process; returns its status, what it has printed, and its complaints."""

    def command(*arguments):
        status = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return command


def metadata(**values):
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in values.items())


# -- tus ls -------------------------------------------------------------------------------------------------------


@pytest.fixture
def stopped_clock(monkeypatch):
    """The time stands still, for ages that are equal to the second."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)


@pytest.mark.usefixtures("stopped_clock")
def test_ls(kept, command):
    directory, inner = kept
    running = filled(store_in(inner, ago=7300), 1000, b"12345", EVIL)
    finished = filled(store_in(inner, ago=100), 5, b"12345", "../done.bin")
    deferred = filled(store_in(inner, ago=50, lifetime=0), None)
    expired = filled(store_in(inner, ago=200_000, lifetime=10), 7, b"1", "old")
    part = store_in(inner, ago=5).create(Upload(length=3 * 2**20, concat="partial"))
    accepted = filled(store_in(inner, ago=20), 2, b"ok", "taken")
    store_in(inner).claim(accepted).accept()
    (inner / "somebody-elses.tus").write_text("not ours")
    status, printed, complaints = command("ls", directory)
    assert (status, complaints) == (0, "")
    heading, *rows, summary = printed.splitlines()
    assert heading.split() == HEADING
    assert [row.split(maxsplit=9) for row in rows[:-1]] == [
        [expired.id, "receiving", "1", "B", "7", "B", "14%", "2d", "expired", "old"],
        [running.id, "receiving", "5", "B", "1000", "B", "0%", "2h", "21h", "naïve[31m file.bin"],
        [finished.id, "complete", "5", "B", "5", "B", "100%", "1m", "never", "done.bin"],
        [deferred.id, "receiving", "0", "B", "?", "?", "50s", "never"],
        [accepted.id, "accepted", "2", "B", "2", "B", "100%", "20s", "1d", "taken"],
    ]
    assert rows[-1].split() == [part.id, "receiving", "part", "0", "B", "3.0", "MiB", "0%", "5s", "23h"]
    assert summary == "6 uploads, 4 unfinished and 2 finished, holding 11 B"
    assert len({row.index(" B ") for row in rows if " B " in row} | {rows[-1].index(" B ")}) <= 1, "they are columns"


@pytest.mark.parametrize(
    ("option", "ids"), [("--unfinished", ["running", "part"]), ("--finished", ["finished", "accepted"])]
)
def test_ls_filtered(option, ids, store, directory, command):
    made = {
        "running": filled(store, 9, b"12"),
        "part": store.create(Upload(length=1, concat="partial")),
        "finished": filled(store, 2, b"12"),
        "accepted": filled(store, 2, b"12"),
    }
    store.claim(made["accepted"]).accept()
    listed = json.loads(command("ls", directory, option, "--json")[1])
    assert {upload["id"] for upload in listed} == {made[name].id for name in ids}
    table = command("ls", directory, option)[1]
    assert {line.split()[0] for line in table.splitlines()[1:-1]} == {made[name].id for name in ids}


def test_ls_bytes(store, directory, command):
    store.append(filled(store, 2**41 + 1), 0, b"x" * 5000)
    row, summary = command("ls", directory, "--bytes")[1].splitlines()[1:]
    assert row.split()[2:4] == ["5000", "2199023255553"]
    assert summary == "1 upload, 1 unfinished and 0 finished, holding 5000 bytes"


def test_ls_json(kept, command):
    directory, inner = kept
    part = store_in(inner, ago=60).create(Upload(length=3, concat="partial"))
    draft = Upload(
        id="f" * 32,
        raw_metadata=metadata(filename=EVIL, note="\x1b]0;x\x07"),
        concat="final;x",
        parts=(part.id,),
        principal="ann\n",
    )
    final = store_in(inner, ago=30).create(draft)
    accepted = filled(store_in(inner, lifetime=0), 2, b"ok")
    store_in(inner).claim(accepted).accept()
    printed = command("ls", directory, "--json")[1]
    assert printed.isascii()
    assert not set(printed) & set(map(chr, range(32))) - {"\n"}
    first, second, third = json.loads(printed)
    created = datetime.fromisoformat(second["created_at"])
    assert (created.utcoffset().total_seconds(), created.timestamp()) == (0, pytest.approx(final.created_at, abs=1e-5))
    assert second | {"created_at": "", "expires_at": ""} == {
        "id": final.id,
        "state": "receiving",
        "offset": 0,
        "length": None,
        "created_at": "",
        "expires_at": "",
        "expired": False,
        "metadata": {"filename": EVIL, "note": "\x1b]0;x\x07"},
        "filename": "naïve[31m file.bin",
        "is_partial": False,
        "is_final": True,
        "parts": [part.id],
        "principal": "ann\n",
        "protocol": "tus",
        "service": None,
        "digests": {},
        "key": final.key,
        "attempts": 0,
        "since": None,
        "is_aside": False,
        "is_known": True,
        "error": None,
        "answer": None,
        "path": str(inner / final.id),
    }
    assert second["expires_at"].endswith("Z")
    assert (first["is_partial"], first["filename"], first["length"]) == (True, None, 3)
    assert (third["state"], third["path"]) == ("accepted", None), "its data is gone"


def test_ls_of_nothing(kept):
    done = run("ls", kept[0])
    assert (done.returncode, done.stdout, done.stderr) == (0, f"no uploads in {kept[0]}\n", "")
    assert run("ls", kept[0], "--finished").stdout == f"no finished uploads in {kept[0]}\n"
    assert json.loads(run("ls", kept[0], "--json").stdout) == []


def test_ls_whose_reader_has_seen_enough(tmp_path):
    store = store_in(tmp_path)
    for number in range(2000):
        filled(store, number)
    read_end, write_end = os.pipe()
    with subprocess.Popen([TUS_COMMAND, "ls", str(tmp_path)], stdout=write_end, stderr=subprocess.PIPE) as process:
        os.close(write_end)
        os.read(read_end, 10)
        os.close(read_end)
        assert process.communicate(timeout=GUARD)[1] == b""
        assert process.returncode == 0


def test_ls_whose_reader_is_gone_before(tmp_path):
    filled(store_in(tmp_path), 5)
    read_end, write_end = os.pipe()
    os.close(read_end)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [TUS_COMMAND, "ls", str(tmp_path)]
    with subprocess.Popen(command, stdout=write_end, stderr=subprocess.PIPE, env=buffered) as process:
        os.close(write_end)
        assert process.communicate(timeout=GUARD)[1] == b""
        assert process.returncode == 0


def test_ls_for_a_terminal_that_knows_only_ascii(tmp_path):
    filled(store_in(tmp_path), 5, b"1", "naïve ☃")
    done = run("ls", tmp_path, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "na\\xefve \\u2603" in done.stdout


def test_ls_where_metadata_is_none(store, directory, command):
    """A record can be whole and yet have what no request can bring, after an import perhaps."""
    upload = store.create(Upload(raw_metadata="a !"))
    status, table, _ = command("ls", directory)
    assert (status, table.splitlines()[1].split()[0]) == (0, upload.id)
    assert json.loads(command("ls", directory, "--json")[1])[0]["metadata"] == {}
    assert command("show", upload.id, "--dir", directory)[0] == 0


def test_ls_while_uploads_come_and_go(store, directory, command, monkeypatch):
    """What goes between the two looks is left out."""
    first, second = filled(store, 5), filled(store, 5)
    real = DirectoryStore.load
    looks = []

    def load(self, upload_id):
        looks.append(upload_id)
        if len(looks) == 3:
            self.remove(first.id)
        return real(self, upload_id)

    monkeypatch.setattr(DirectoryStore, "load", load)
    status, table, _ = command("ls", directory)
    assert (status, [line.split()[0] for line in table.splitlines()[1:-1]]) == (0, [second.id])


def test_ls_holds_no_metadata(store, directory, command):
    long = metadata(filename="x" * 180, note="y" * 2500)
    for _ in range(1500):
        store.create(Upload(length=1, raw_metadata=long))
    tracemalloc.start()
    command("ls", directory)  # twice, because what is imported and cached first counts too
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    command("ls", directory)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert peak < 1500 * 1000, "a third of the metadata, with what it printed"


# -- tus show -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("stopped_clock")
def test_show(kept, command):
    directory, inner = kept
    upload = store_in(inner, ago=100).create(
        Upload(
            length=4096,
            raw_metadata=metadata(filename=EVIL, **{"x-y": "\x1b[2J"}),
            principal="a\x07nn",
            protocol="ietf",
        )
    )
    store_in(inner).append(upload, 0, b"x" * 2048)
    status, printed, complaints = command("show", upload.id, "--dir", directory)
    assert (status, complaints) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in printed.splitlines() if not line.startswith(" "))
    assert lines["id:"] == upload.id
    assert lines["state:"] == "receiving"
    assert lines["name:"] == "naïve[31m file.bin"
    assert lines["offset:"] == "2048 bytes (2.0 KiB)"
    assert lines["length:"] == "4096 bytes (4.0 KiB)"
    assert lines["received:"] == "50%"
    assert lines["created:"].endswith("Z, 1m ago")
    assert lines["expires:"].endswith("Z, in 1d")
    assert lines["principal:"] == r"a\x07nn"
    assert lines["protocol:"] == "ietf"
    assert lines["metadata:"] == r"filename = naïve\n\x1b[31m\u202e file.bin"
    assert r"            x-y = \x1b[2J" in printed.splitlines()
    assert lines["data:"] == str(inner / upload.id)


@pytest.mark.parametrize(
    ("ago", "options", "words"),
    [(0, {"lifetime": 0}, "never"), (99, {"lifetime": 1}, "has expired; the next sweep removes it")],
)
def test_show_expiry(ago, options, words, directory, command):
    upload = filled(store_in(directory, ago=ago, **options), None)
    printed = command("show", upload.id, "--dir", directory)[1]
    assert f"expires:    {words}\n" in printed
    assert "length:     not known yet" in printed


def test_show_json(store, directory, command):
    upload = filled(store, 5, b"1", "a")
    status, printed, _ = command("show", upload.id[:8], "--dir", directory, "--json")
    assert (status, json.loads(printed)) == (0, json.loads(command("ls", directory, "--json")[1])[0])


def test_show_what_was_accepted(store, directory, command):
    upload = filled(store, 2, b"ok")
    store.claim(upload).accept()
    assert "data:       the application has it" in command("show", upload.id, "--dir", directory)[1]


def test_show_parts(store, directory, command):
    parts = [store.create(Upload(length=1, concat="partial")).id for _ in range(2)]
    store.create(Upload(id="f" * 32, concat="final;x", parts=tuple(parts)))
    printed = command("show", "f" * 20, "--dir", directory)[1]
    assert "state:      receiving final\n" in printed
    assert f"parts:      {parts[0]}\n            {parts[1]}\n" in printed


def test_a_beginning_of_an_id(store, directory, command):
    for number in range(7):
        store.create(Upload(id=f"abc{number}" + "0" * 28))
    assert command("show", "ABC3", "--dir", directory)[1].startswith(f"id:         abc3{'0' * 28}\n")
    status, out, err = command("show", "abc", "--dir", directory)
    assert (status, out) == (1, "")
    assert "it could be any of abc0" in err
    assert " and 2 more; give more digits" in err
    for wrong, words in (
        ("abd", "no upload whose id begins with this"),
        ("e" * 32, "there is no upload with this id"),
        ("../x", "32 hexadecimal digits"),
        ("", "32 hexadecimal digits"),
        ("abc0" + "0" * 29, "32 hexadecimal digits"),
        ("\x1b[2J", "32 hexadecimal digits"),
    ):
        for name in ("show", "rm"):
            status, out, err = command(name, wrong, "--dir", directory)
            assert (status, out) == (1, "")
            assert err.startswith("tus: ")
            assert words in err
            assert "\x1b" not in err
    assert len(list(directory.glob("*.tus"))) == 7


def test_show_what_is_lost(store, directory, command):
    taken, lost, moved = filled(store, 2, b"ok"), filled(store, 5, b"1"), filled(store, 2, b"ok")
    claim = store.claim(moved)
    claim.begin()
    for upload in (taken, lost, moved):
        os.unlink(upload.path)
    status, _, err = command("show", moved.id, "--dir", directory)
    assert (status, "an application is receiving it" in err) == (1, True)
    claim.release()
    status, _, err = command("show", taken.id, "--dir", directory)
    assert (status, "Run tus fsck for details" in err) == (1, True)
    status, _, err = command("show", lost.id, "--dir", directory)
    assert (status, "Run tus fsck for details" in err) == (1, True)


# -- tus rm -------------------------------------------------------------------------------------------------------


def test_rm(kept):
    directory, inner = kept
    store = store_in(inner)
    running, complete, accepted, kept_one = (filled(store, size, b"ok") for size in (5, 2, 2, 5))
    store.claim(accepted).accept()
    done = run("rm", running.id, complete.id[:12], accepted.id, "--dir", directory)
    removed = "".join(f"{upload.id} removed\n" for upload in (running, complete, accepted))
    assert (done.returncode, done.stdout, done.stderr) == (0, removed, "")
    assert {path.name for path in inner.iterdir() if path.name[0] != "."} == {kept_one.id, f"{kept_one.id}.tus"}


def test_rm_goes_on_after_what_it_cannot(store, directory, command):
    upload = filled(store, 5, b"1")
    status, out, err = command("rm", "e" * 32, upload.id, "--dir", directory)
    assert (status, out) == (1, f"{upload.id} removed\n")
    assert err == f"tus: {'e' * 32}: there is no upload with this id\n"
    with pytest.raises(UploadNotFound):
        store.load(upload.id)


def test_rm_of_what_is_being_handed_over(store, directory, command):
    upload = filled(store, 2, b"ok")
    with open(upload.path, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        status, out, err = command("rm", upload.id, "--dir", directory)
    assert (status, out) == (1, "")
    assert "is being handed over" in err
    assert store.load(upload.id).state == State.COMPLETE
    claim = store.claim(store.load(upload.id))
    assert command("rm", upload.id, "--dir", directory)[0] == 1
    claim.release()
    assert command("rm", upload.id, "--dir", directory)[0] == 0


def test_rm_of_what_is_damaged(store, directory, command):
    upload = filled(store, 5, b"1")
    Path(f"{upload.path}.tus").write_bytes(bytes(200))
    status, _, err = command("rm", upload.id, "--dir", directory)
    assert (status, "Run tus fsck for details" in err) == (1, True)
    assert Path(upload.path).exists()


def test_rm_ends_whoever_appends(store, directory, command):
    upload = filled(store, 5, b"1")
    with store.open(upload, 1) as session:
        assert command("rm", upload.id, "--dir", directory)[0] == 0
        with pytest.raises(tus.TusException):
            session.write(b"2")


# -- tus clean ----------------------------------------------------------------------------------------------------


def test_clean(kept):
    directory, inner = kept
    alive = filled(store_in(inner, ago=60), 10, b"12345")
    expired = filled(store_in(inner, ago=3600, lifetime=60), 10, b"12345", EVIL)
    finished = filled(store_in(inner, ago=3600, lifetime=60), 5, b"12345")
    for_ever = filled(store_in(inner, ago=3600, lifetime=0), 10, b"12345")
    accepted = filled(store_in(inner, ago=3600), 2, b"ok")
    store_in(inner, ago=3600, completed_keep=60).claim(accepted).accept()
    told = filled(store_in(inner), 2, b"ok")
    store_in(inner).claim(told).accept()
    foreign = [inner / "readme.txt", inner / "x.tus", inner / ("0" * 32), directory / "landed.bin"]
    for path in foreign:
        path.write_text("not ours")
    before = sorted(inner.iterdir())
    dry = run("clean", directory, "--dry-run")
    assert (dry.returncode, dry.stderr) == (0, "")
    *lines, summary = dry.stdout.splitlines()
    assert sorted(lines) == sorted(
        [f"{expired.id}  receiving, 5 B  naïve[31m file.bin", f"{accepted.id}  accepted, 2 B"]
    )
    assert summary == "2 would be removed, holding 5 B"
    assert sorted(inner.iterdir()) == before
    done = run("clean", directory)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 removed\n", "")
    names = {path.name for path in inner.iterdir() if not path.name.startswith(".")}
    ours = {f"{upload.id}{end}" for upload in (alive, finished, for_ever) for end in ("", ".tus")}
    assert names == ours | {f"{told.id}.tus"} | {path.name for path in foreign if path.parent == inner}
    assert all(path.read_text() == "not ours" for path in foreign)
    assert expired.id not in names
    done = run("clean", directory)
    assert (done.returncode, done.stdout) == (0, "0 removed\n")
    assert run("clean", directory, "--dry-run").stdout == "0 would be removed, holding 0 B\n"


def test_clean_dry_run_says_what_clean_does(directory, command):
    """Whatever has happened to the data: a sweep goes by the record."""
    long_ago = store_in(directory, ago=3600, lifetime=60)
    for size, left in ((10, None), (10, 2), (5, None), (5, 2)):
        upload = filled(long_ago, size, b"12345")
        os.unlink(upload.path) if left is None else os.truncate(upload.path, left)
    printed = command("clean", directory, "--dry-run")[1]
    assert printed.splitlines()[-1].startswith("2 would be removed")
    assert command("clean", directory)[1] == "2 removed\n"


# -- All of them --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["ls"], ["clean"], ["fsck"], ["show", "a"], ["rm", "a"]])
def test_no_such_directory(arguments, tmp_path):
    option = ["--dir"] if arguments[0] in ("show", "rm") else []
    assert_refused(run(*arguments, *option, tmp_path / "missing"), "DIR", str(tmp_path / "missing"))
    assert_refused(run(*arguments, directory=tmp_path), "DIR", "./uploads")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["ls"], ["clean"], ["fsck"], ["show", "a"], ["rm", "a"]])
def test_the_directory_that_serve_uses_is_the_default(arguments, tmp_path):
    (tmp_path / "uploads" / ".tus").mkdir(parents=True)
    store_in(tmp_path / "uploads" / ".tus").create(Upload(id="a" * 32))
    done = run(*arguments, directory=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_version():
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"tus {tus.__version__}\n", "")


def test_import_is_a_command():
    assert "tusd" in run("import", "--help").stdout


# -- Values as a person reads them --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024 * 1023, "1023.0 KiB"),
        (2**20 - 1, "1.0 MiB"),
        (5 * 2**30, "5.0 GiB"),
        (2**63 - 1, "8192.0 PiB"),
    ],
)
def test_sizes(size, expected):
    assert text.size_text(size) == expected


@pytest.mark.parametrize(
    ("offset", "length", "expected"), [(0, 0, "100%"), (999, 1000, "99%"), (1000, 1000, "100%"), (5, None, "?")]
)
def test_percentages(offset, length, expected):
    assert text.percent_text(Upload(offset=offset, length=length)) == expected


@pytest.mark.parametrize("timestamp", [None, float("inf"), float("nan"), 1e300, -1e300])
def test_times_that_are_none(timestamp):
    assert text.iso_text(timestamp) is None


def test_times():
    assert text.iso_text(0) == "1970-01-01T00:00:00Z"
    assert text.iso_text(1.5) == "1970-01-01T00:00:01.500000Z"
    assert [text.duration_text(seconds) for seconds in (-5, 0, 59.9, 60, 3600, 86400 * 400)] == [
        "0s",
        "0s",
        "59s",
        "1m",
        "1h",
        "400d",
    ]


# -- The hand-over ------------------------------------------------------------------------------------------------


def finished(store, name, data=b"data"):
    """A file that the application was not asked to take yet, and that is due."""
    return filled(store, len(data), data, name)


def take(upload):
    """What ``--on-finished`` names in these tests."""
    if upload.filename == "wrong.bin":
        raise tus.Rejected("There is something wrong with it.", 415)
    if upload.filename == "busy.bin":
        raise RuntimeError("no time \x1b[31m")
    with open(os.environ["TAKEN"], "a") as taken:
        taken.write(f"{upload.key} {Path(upload.path).read_text()}\n")


def test_handover_to_where_tus_serve_puts_files(tmp_path, command):
    inner = tmp_path / "uploads" / ".tus"
    inner.mkdir(parents=True)
    ours = finished(store_in(inner, ago=60), EVIL)
    part = store_in(inner, ago=60).create(Upload(length=3, concat="partial"))
    store_in(inner, ago=60).append(part, 0, b"abc")
    filled(store_in(inner, ago=60), 9, b"some")
    status, printed, complaints = command("handover", tmp_path / "uploads")
    name = text.printable("naïve[31m file.bin")
    assert (status, printed, complaints) == (0, f"{ours.id}  accepted  {name}\n1 accepted\n", "")
    assert (tmp_path / "uploads" / "naïve[31m file.bin").read_bytes() == b"data"
    assert store_in(inner).load(ours.id).state == State.ACCEPTED
    assert command("handover", tmp_path / "uploads") == (0, "nothing is due\n", "")


def test_handover_to_a_function(directory, store, command, monkeypatch, tmp_path):
    monkeypatch.setenv("TAKEN", str(tmp_path / "taken"))
    early = store_in(directory, ago=60)
    uploads = {name: finished(early, name) for name in ("a.bin", "wrong.bin", "busy.bin")}
    recent = finished(store, "recent.bin")
    arguments = ("handover", directory, "--on-finished", "tests.cli.test_commands:take")
    status, printed, _ = command(*arguments)
    assert status == 1
    assert set(printed.splitlines()) == {
        f"{uploads['a.bin'].id}  accepted  a.bin",
        f"{uploads['wrong.bin'].id}  rejected  wrong.bin",
        f"{uploads['busy.bin'].id}  postponed, RuntimeError: no time \\x1b[31m  busy.bin",
        "1 accepted, 1 rejected, 1 postponed",
    }
    assert (tmp_path / "taken").read_text() == f"{uploads['a.bin'].key} data\n"
    assert command(*arguments) == (0, "nothing is due\n", ""), (
        "one failed just now, and a client may come for the other"
    )
    printed = command("ls", directory, "--pending")[1].splitlines()
    assert {line.split()[0] for line in printed[1:-1]} == {uploads["busy.bin"].id, recent.id}
    assert command(*arguments, "--all")[:2][0] == 1
    assert (tmp_path / "taken").read_text().split()[2:] == [recent.key, "data"]
    shown = command("show", uploads["busy.bin"].id, "--dir", directory)[1]
    for line in ("attempts:   2\n", "error:      RuntimeError: no time \\x1b[31m", uploads["busy.bin"].key):
        assert line in shown
    shown = command("show", uploads["wrong.bin"].id, "--dir", directory)[1]
    assert "state:      rejected" in shown
    assert "answer:     415 Unsupported Media Type" in shown


def test_uploads_that_wait_for_services(directory, store, command, monkeypatch, tmp_path):
    """They are named, also where no such service is configured any more; without a config all are handed over."""
    early = store_in(directory, ago=60)
    uploads = {}
    for name in ("photos", "photos", "", "vid\x1beos", None):
        upload = early.append(early.create(Upload(length=4, service=name)), 0, b"data")
        uploads[name] = upload.id
    early.create(Upload(length=4, service="unfinished"))
    printed = command("ls", directory)[1].splitlines()
    assert printed[-4:-1] == [
        "1 upload waits for a service without a name",
        "2 uploads wait for the service 'photos'",
        r"1 upload waits for the service 'vid\\x1beos'",
    ]
    shown = {name: command("show", upload_id, "--dir", directory)[1] for name, upload_id in uploads.items()}
    assert "service:    photos\n" in shown["photos"]
    assert "service:    without a name\n" in shown[""]
    assert "service:" not in shown[None]
    listed = json.loads(command("ls", directory, "--json")[1])
    assert {upload["id"]: upload["service"] for upload in listed}.items() >= {(uploads["photos"], "photos")}
    monkeypatch.setenv("TAKEN", str(tmp_path / "taken"))
    status, printed, _ = command("handover", directory, "--on-finished", "tests.cli.test_commands:take")
    assert (status, printed.splitlines()[-1]) == (0, "5 accepted")
    assert "wait" not in command("ls", directory)[1]


def test_serve_refuses_a_store_without_files(tmp_path):
    done = run("serve", "--dir", tmp_path / "uploads", "-o", "store=memory:")
    assert_refused(done, "'store'", "must keep files", "on_finished")


def test_handover_puts_aside_and_takes_up_again(directory, store, command, monkeypatch, tmp_path):
    monkeypatch.setenv("TAKEN", str(tmp_path / "taken"))
    upload = finished(store_in(directory, ago=60), "busy.bin")
    arguments = ("handover", directory, "--on-finished", "tests.cli.test_commands:take", "-o", "handover_attempts=1")
    assert command(*arguments)[0] == 1
    assert store.load(upload.id).is_aside
    assert "set aside" in command("ls", directory)[1]
    assert json.loads(command("ls", directory, "--json")[1])[0]["is_aside"] is True
    assert command(*arguments) == (0, "nothing is due\n", "")
    assert command(*arguments, "--all")[0] == 1
    assert store.load(upload.id).attempts == 2


def test_handover_to_a_pipeline(directory, store, tmp_path):
    (tmp_path / "site.ini").write_text(
        "[pipeline:main]\npipeline = tus files\n"
        f"[filter:tus]\nuse = egg:tus#main\nupload_path = /files\ntmp_file_dir = {directory}\n"
        f"[app:files]\nuse = egg:tus#files\ndirectory = {tmp_path}/landed\n"
    )
    first = finished(store_in(directory, ago=60), "a.bin")
    done = run("handover", "--config", tmp_path / "site.ini")
    assert (done.returncode, done.stdout) == (0, f"{first.id}  accepted  a.bin\n1 accepted\n")
    assert (tmp_path / "landed" / "a.bin").read_bytes() == b"data"
    (tmp_path / "other").mkdir()
    done = run("handover", tmp_path / "other", "--config", tmp_path / "site.ini")
    assert done.returncode == 1
    assert "has no tus filter for these uploads" in done.stderr


APPS = {
    "flask": """
        from flask import Flask, request
        from tus import Filter
        app = Flask(__name__)
        @app.route("/files/<rest>", methods=["PATCH"])
        def take(rest):
            assert request.environ["tus.handover"] == "background"
            open("taken", "ab").write(request.get_data())
            return "", 204
        app.wsgi_app = Filter(app.wsgi_app, upload_path="/files", tmp_file_dir={directory!r}, send_file=True)
    """,
    "starlette": """
        from contextlib import asynccontextmanager
        from starlette.applications import Starlette
        from starlette.responses import Response
        from starlette.routing import Route
        from tus.asgi import TusMiddleware
        @asynccontextmanager
        async def lifespan(app):
            print("started", flush=True)
            yield {{"name": "taken"}}
            print("stopped", flush=True)
        async def take(request):
            open(request.state.name, "ab").write(await request.body())
            return Response(status_code=204)
        app = Starlette(routes=[Route("/files/{{rest}}", take, methods=["PATCH"])], lifespan=lifespan)
        app.add_middleware(TusMiddleware, upload_path="/files", tmp_file_dir={directory!r}, send_file=True)
    """,
    "mounted": """
        import anyio
        from fastapi import FastAPI
        from tus.asgi import TusApp
        async def take(upload):
            await anyio.Path("taken").write_bytes(await anyio.Path(upload.path).read_bytes())
        app = FastAPI()
        app.mount("/files", TusApp(tmp_file_dir={directory!r}, on_finished=take))
    """,
    "plain": """
        from tus.asgi import TusMiddleware
        async def take(scope, receive, send):
            assert scope["type"] == "http", "it knows no lifespan"
            assert scope["tus.handover"] == "background"
            open("taken", "ab").write((await receive())["body"])
            await send({{"type": "http.response.start", "status": 204, "headers": []}})
            await send({{"type": "http.response.body"}})
        app = TusMiddleware(take, upload_path="/files", tmp_file_dir={directory!r}, send_file=True)
    """,
}


@pytest.mark.parametrize("kind", APPS)
def test_handover_to_an_application(directory, tmp_path, kind):
    (tmp_path / "site_app.py").write_text(textwrap.dedent(APPS[kind].format(directory=str(directory))))
    first = finished(store_in(directory, ago=60), "a.bin")
    done = run("handover", "--app", "site_app:app", directory=tmp_path)
    printed = f"{first.id}  accepted  a.bin\n1 accepted\n"
    if kind == "starlette":
        printed = f"started\n{printed}stopped\n"
    assert (done.returncode, done.stdout) == (0, printed), done.stderr
    assert (tmp_path / "taken").read_bytes() == b"data"
    done = run("handover", directory, "--app", "site_app:app", directory=tmp_path)
    assert (done.returncode, "nothing is due" in done.stdout) == (0, True)
    (tmp_path / "other").mkdir()
    done = run("handover", tmp_path / "other", "--app", "site_app:app", directory=tmp_path)
    assert (done.returncode, "has no Filter or TusMiddleware for these uploads" in done.stderr) == (1, True)
    assert "Traceback" not in done.stderr


def test_handover_to_an_application_that_postpones(directory, tmp_path):
    source = APPS["starlette"].replace("status_code=204", "status_code=500")
    (tmp_path / "site_app.py").write_text(textwrap.dedent(source.format(directory=str(directory))))
    first = finished(store_in(directory, ago=60), "a.bin")
    done = run("handover", "--app", "site_app:app", directory=tmp_path)
    assert (done.returncode, f"{first.id}  postponed" in done.stdout) == (1, True)


def test_handover_to_an_application_that_cannot_start(directory, tmp_path):
    source = APPS["starlette"].replace('print("started", flush=True)', 'raise RuntimeError("no database")')
    (tmp_path / "site_app.py").write_text(textwrap.dedent(source.format(directory=str(directory))))
    finished(store_in(directory, ago=60), "a.bin")
    done = run("handover", "--app", "site_app:app", directory=tmp_path)
    assert done.returncode == 1
    assert "the application could not start" in done.stderr
    assert "no database" in done.stderr
    assert not (tmp_path / "taken").exists()


def test_handover_to_an_application_that_is_not_there(directory):
    assert_refused(run("handover", "--app", "no_such_module:app"), "--app", "no_such_module")
    assert_refused(run("handover", "--app", "os:sep"), "--app", "must be callable")
    assert_refused(run("handover", "--app", "os:getcwd", "-o", "max_size=1"), "--option")
    done = run("handover", "--app", "os:getcwd")
    assert (done.returncode, "has no Filter or TusMiddleware" in done.stderr) == (1, True)


def test_handover_leaves_alone_what_somebody_has(directory, store, command, monkeypatch, tmp_path):
    monkeypatch.setenv("TAKEN", str(tmp_path / "taken"))
    upload = finished(store_in(directory, ago=60), "a.bin")
    claim = store.claim(store.load(upload.id))
    printed = command("handover", directory, "--on-finished", "tests.cli.test_commands:take")
    assert printed[:2] == (1, f"{upload.id}  busy, another process is handing it over  a.bin\n1 busy\n")
    claim.release()


def test_handover_to_a_function_that_is_here(directory, tmp_path):
    finished(store_in(directory, ago=60), "a.bin")
    (tmp_path / "ours.py").write_text("def take(upload):\n    open('taken', 'w').write(upload.filename)\n")
    assert run("handover", directory, "--on-finished", "ours:take", directory=tmp_path).returncode == 0
    assert (tmp_path / "taken").read_text() == "a.bin"


def test_handover_wants_to_know_who_takes_files(directory, command):
    assert_refused(run("handover", directory), "--on-finished")
    assert_refused(run("handover", directory, "-o", "nothing=1", "--on-finished", "os:getcwd"), "nothing")
    assert_refused(run("handover", "--config", directory / "no.ini"), "CONFIG.ini")


# -- The document -------------------------------------------------------------------------------------------------

SESSION = re.compile(r"\.\. code-block:: console\n\n((?:    .*\n|\n)+)")
# What differs each time: moments, and how long the record with one is.
VARIES = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z"
    r"|(?<=\.tus\.damaged: set-aside\n  An earlier repair has set this aside, )[0-9]+"
)


def told_in(document):
    """The commands of a document, each with what it prints."""
    blocks = SESSION.findall((ROOT / "docs" / document).read_text())
    lines = "".join(textwrap.dedent(block).strip("\n") + "\n" for block in blocks)
    return [part.partition("\n")[::2] for part in lines.removeprefix("$ ").split("\n$ ")]


def test_the_commands_of_the_document(tmp_path):
    (tmp_path / "uploads" / ".tus").mkdir(parents=True)
    store = tmp_path / "uploads" / ".tus"

    def put(ago, upload_id, name, size, come, **options):
        made = store_in(store, ago=ago, **options).create(
            Upload(id=upload_id, length=size, raw_metadata=metadata(filename=name), principal="ann")
        )
        return store_in(store, ago=ago, **options).append(made, 0, bytes(come))

    put(90_000, "27d1c0a59be84f6e8f0d6b3c19e2a457", "old.iso", 700 * 2**20, 2**19)
    damaged = put(9000, "c4f03b7e2a9d4c51b86e0d7f92a1e358", "lost.bin", 2**20, 3 * 2**18)
    put(7300, "5cc90e13a7f24d0bb1e66d4f8a03c972", "holiday.mp4", 8 * 2**20, 3 * 2**20)
    put(130, "e81f7a6d02c94b3f9a5512cd7be04f66", "report.pdf", 120_000, 120_000)
    with open(f"{damaged.path}.tus", "r+b") as car:
        car.seek(300)
        car.write(b"?")
    long_ago = time.time() - 3600
    os.utime(f"{damaged.path}.tus", (long_ago, long_ago))
    told = told_in("operating.rst")
    assert {command.split()[1] for command, _ in told} == {"ls", "show", "rm", "clean", "handover", "fsck"}
    for command, printed in told:
        arguments = command.split()
        assert arguments.pop(0) == "tus"
        done = run(*arguments, directory=tmp_path)
        assert done.stderr == ""
        said = "".join(f"{line}\n" for line in done.stdout.replace(str(tmp_path), "/srv").splitlines())
        assert VARIES.sub("ANY", said) == VARIES.sub("ANY", printed.rstrip("\n") + "\n"), command


# -- Stores that are no directories -------------------------------------------------------------------------------


received = []


def receive(upload):
    received.append(upload.id)


def test_commands_take_the_url_of_a_store(command):
    store = MemoryStore()
    register_store("kept", lambda url, options: store)
    half = store.append(store.create(Upload(length=9)), 0, b"abc")
    done = store.append(store.create(Upload(length=3, raw_metadata="filename YQ==")), 0, b"abc")
    status, printed, _ = command("ls", "kept:uploads")
    assert (status, half.id in printed, done.id in printed) == (0, True, True)
    status, printed, _ = command("show", half.id[:8], "--dir", "kept:uploads")
    assert (status, half.id in printed) == (0, True)
    status, printed, _ = command("handover", "kept:uploads", "--all", "--on-finished", f"{__name__}:receive")
    assert (status, printed.splitlines()[-1], received) == (0, "1 accepted", [done.id])
    assert command("rm", half.id, "--dir", "kept:uploads")[0] == 0
    assert command("clean", "kept:uploads") == (0, "0 removed\n", "")
    assert command("clean", "--dry-run", "kept:uploads")[0] == 2
    status, _, complaint = command("ls", "nowhere:uploads")
    assert (status, "no store has 'nowhere'" in complaint) == (2, True)


def test_the_nearest_command_is_suggested(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["serv", "--port", "0"])
    assert ended.value.code == 2
    assert "there is no command 'serv'; did you mean serve; the commands are serve, ls" in capsys.readouterr().err


def test_the_nearest_option_is_suggested(tmp_path, capsys):
    assert cli.main(["serve", "--dir", str(tmp_path), "-o", "max_sise=10M"]) == 2
    assert "did you mean max_size" in capsys.readouterr().err
    assert cli.main(["serve", "--dir", str(tmp_path), "-o", "fsync=finsh"]) == 2
    assert "did you mean finish" in capsys.readouterr().err
