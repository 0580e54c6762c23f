"""The spool, with processes that race, fail and are killed."""

import contextlib
import errno
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tus
from tests.support.documents import blocks
from tests.support.serving import ROOT
from tests.support.waiting import GUARD
from tests.support.wsgi import OCTETS, TUS, call
from tus.errors import OptionError
from tus.handover import spool_entries
from tus.handover.spool import Spool, SpoolEmpty
from tus.handover.spool_entries import Entry
from tus.models import State, Upload


def uploaded(directory, number, data=b"data"):
    """A finished upload as a server has it."""
    directory.mkdir(exist_ok=True)
    path = directory / f"{number:032x}"
    path.write_bytes(data)
    return Upload(
        id=f"{number:032x}", offset=len(data), length=len(data), path=str(path), created_at=1.0,
        state=State.HANDING_OVER, principal="ann", raw_metadata="filename w7wudHh0,weird gIE=",
    )  # fmt: skip


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "spool"


def put(directory, numbers, data=b"data"):
    keys = []
    for number in numbers:
        upload = uploaded(directory.parent / "uploads", number, data)
        Spool(str(directory)).put(upload, upload.key)
        keys.append(upload.key)
    return keys


def worker(directory, body, *arguments):
    """A process that runs ``body`` with a spool, which says ``ready`` when it is to be waited for."""
    script = f"import os, sys, time\nimport tus\nspool = tus.spool(sys.argv[1], delay=0.01)\n{body}\n"
    return subprocess.Popen(
        [sys.executable, "-c", script, str(directory), *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip


def test_an_upload_goes_through(directory):
    (key,) = put(directory, [1], b"hello")
    with tus.spool(str(directory)).claim(timeout=5) as upload:
        assert Path(upload.path).read_bytes() == b"hello"
        assert (upload.key, upload.filename, upload.length, upload.principal) == (key, "ü.txt", 5, "ann")
        assert upload.metadata == {"filename": "ü.txt".encode(), "weird": b"\x80\x81"}
        assert upload.text_metadata["filename"] == "ü.txt"
        assert (upload.created_at, upload.attempts, upload.error) == (1.0, 0, None)
        assert time.time() - upload.handed_over_at < 10
        assert Spool(str(directory)).counts() == {"new": 0, "claimed": 1, "done": 0, "failed": 0}
        with pytest.raises(SpoolEmpty), tus.spool(str(directory)).claim(timeout=0):
            pass
    assert Spool(str(directory)).counts() == {"new": 0, "claimed": 0, "done": 1, "failed": 0}
    assert (directory / "done" / key / "data").read_bytes() == b"hello"


def test_the_record_holds_no_id(directory):
    (key,) = put(directory, [1])
    assert f"{1:032x}" not in (directory / "new" / key / "upload.json").read_text()
    nameless = uploaded(directory.parent / "uploads", 2)
    nameless = Upload(id=nameless.id, offset=4, length=4, path=nameless.path)
    Spool(str(directory)).put(nameless, nameless.key)
    assert nameless.id not in (directory / "new" / nameless.key / "upload.json").read_text()


def test_the_oldest_comes_first(directory):
    keys = put(directory, range(5))
    seen = []
    for _ in keys:
        with Spool(str(directory)).claim(timeout=1) as upload:
            seen.append(upload.key)
    assert seen == keys


def test_an_empty_spool_is_waited_for(directory):
    began = time.monotonic()
    with pytest.raises(TimeoutError), Spool(str(directory)).claim(timeout=0.3):
        pass
    assert time.monotonic() - began >= 0.3
    process = worker(directory, "with spool.claim() as upload:\n    print(upload.key)")
    (key,) = put(directory, [1])
    assert process.communicate(timeout=GUARD)[0].split() == [key]


def test_every_file_is_claimed_by_one(directory):
    keys = put(directory, range(200))
    body = """
print("ready", flush=True)
sys.stdin.readline()
while True:
    try:
        with spool.claim(timeout=0.5) as upload:
            print(upload.key, flush=True)
    except TimeoutError:
        break
"""
    workers = [worker(directory, body) for _ in range(4)]
    for process in workers:
        assert process.stdout.readline() == "ready\n"
    for process in workers:
        process.stdin.write("go\n")
        process.stdin.flush()
    seen = [process.communicate(timeout=GUARD)[0].split() for process in workers]
    assert sorted(itertools.chain(*seen)) == sorted(keys)
    assert sum(map(bool, seen)) > 1, "one of them had it all"
    assert Spool(str(directory)).counts() == {"new": 0, "claimed": 0, "done": 200, "failed": 0}


def test_what_a_dead_worker_had_goes_to_another(directory):
    (key,) = put(directory, [1])
    process = worker(directory, "with spool.claim() as upload:\n    print('ready', flush=True)\n    time.sleep(60)")
    assert process.stdout.readline() == "ready\n"
    with pytest.raises(SpoolEmpty), Spool(str(directory), delay=0.01).claim(timeout=0.2):
        pass
    process.kill()
    process.communicate()
    with Spool(str(directory), delay=0.01).claim(timeout=5) as upload:
        assert (upload.key, upload.attempts, upload.error) == (key, 1, "the worker crashed")


def test_a_child_of_a_worker_holds_nothing_up(directory):
    """It has the lock's descriptor, leaves the block as well, and outlives its parent."""
    put(directory, [1])
    body = """
with spool.claim() as upload:
    child = os.fork()
if not child:
    time.sleep(20)
    os._exit(0)
print(child, flush=True)
os._exit(0)
"""
    process = worker(directory, body)
    child = int(process.stdout.readline())
    try:
        assert Spool(str(directory)).counts()["done"] == 1
        (entry,) = (directory / "done").iterdir()
        assert Spool(str(directory)).purge(0) == 1
        assert not entry.exists()
    finally:
        os.kill(child, signal.SIGKILL)
        process.communicate()


def test_failures_come_back_later_and_end_in_failed(directory):
    (key,) = put(directory, [1], b"hello")
    spool = Spool(str(directory), attempts=3, delay=0.2)
    times = []
    for attempt in range(3):
        with pytest.raises(ZeroDivisionError), spool.claim(timeout=5) as upload:
            times.append(time.monotonic())
            assert upload.attempts == attempt
            1 / 0  # noqa: B018
    assert times[1] - times[0] >= 0.2
    assert times[2] - times[1] >= 0.4
    assert spool.counts() == {"new": 0, "claimed": 0, "done": 0, "failed": 1}
    (failed,) = spool.uploads("failed")
    assert (failed.key, failed.attempts, failed.error) == (key, 3, "ZeroDivisionError: division by zero")
    assert Path(failed.path).read_bytes() == b"hello"
    assert not spool.retry("0" * 32)
    assert spool.retry(key)
    with spool.claim(timeout=0) as upload:
        assert (upload.attempts, upload.error) == (0, "ZeroDivisionError: division by zero")


def test_one_that_waits_holds_up_no_other(directory):
    keys = put(directory, [1, 2])
    spool = Spool(str(directory), delay=60)
    with pytest.raises(ValueError, match="bad"), spool.claim(timeout=1) as upload:
        raise ValueError("bad")
    with spool.claim(timeout=1) as upload:
        assert upload.key == keys[1]
    for other in (spool, Spool(str(directory))):
        with pytest.raises(SpoolEmpty), other.claim(timeout=0):
            pass


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interruption_is_no_failure(directory, interruption):
    put(directory, [1])
    spool = Spool(str(directory))
    with pytest.raises(interruption), spool.claim(timeout=1):
        raise interruption
    with spool.claim(timeout=0) as upload:
        assert (upload.attempts, upload.error) == (0, None)


def test_the_data_may_be_moved_away(directory, tmp_path):
    (key,) = put(directory, [1], b"hello")
    with Spool(str(directory)).claim(timeout=1) as upload:
        os.rename(upload.path, tmp_path / "mine")
    assert (tmp_path / "mine").read_bytes() == b"hello"
    upload = uploaded(tmp_path / "uploads", 1)
    (tmp_path / "mine").unlink()
    Spool(str(directory)).put(upload, key)  # as after a crash of the server
    assert Spool(str(directory)).counts() == {"new": 0, "claimed": 0, "done": 1, "failed": 0}


def test_purge_takes_only_what_is_done_and_old(directory):
    keys = put(directory, [1, 2, 3])
    spool = Spool(str(directory), attempts=1)
    with spool.claim(timeout=1):
        pass
    with pytest.raises(ValueError, match="x"), spool.claim(timeout=1):
        raise ValueError("x")
    assert spool.purge(3600) == 0
    assert spool.purge(0) == 1
    assert spool.counts() == {"new": 1, "claimed": 0, "done": 0, "failed": 1}
    Spool(str(directory)).put(uploaded(directory.parent / "uploads", 1), keys[0])
    assert spool.counts()["new"] == 1, "a server that repeats itself late does not bring back what is gone"


DAMAGES = {
    "torn": "{",
    "no object": "[]",
    "nested": "[" * 100_000,
    "no time": {"not_before": "now"},
    "no number": {"attempts": None},
    "below zero": {"length": -1},
    "no end": {"handed_over_at": float("nan")},
    "too much": {"created_at": 10**400},
    "a path": {"filename": "../x"},
    "no Base64": {"metadata": {"a": "!"}},
    "no texts": {"digests": {"a": 1}},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_holds_up_nobody(directory, caplog, damage):
    keys = put(directory, [1, 2])
    record = directory / "new" / keys[0] / "upload.json"
    damage = DAMAGES[damage]
    record.write_text(damage if isinstance(damage, str) else json.dumps(json.loads(record.read_text()) | damage))
    assert [upload.key for upload in Spool(str(directory)).uploads("new")] == [keys[1]]
    with Spool(str(directory)).claim(timeout=1) as upload:
        assert upload.key == keys[1]
    assert "cannot be read" in caplog.text


def test_an_entry_that_fails_holds_up_nobody(directory, caplog, monkeypatch):
    """Neither one whose record cannot be read, nor one of a crashed worker that cannot be put back."""
    keys = put(directory, [1, 2, 3])
    (directory / "new" / keys[1]).rename(directory / "claimed" / keys[1])
    read = spool_entries._read

    def fail(entry, *_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Entry, "change", lambda entry, **values: fail(entry))
    monkeypatch.setattr(
        spool_entries, "_read", lambda entry, *rest: fail(entry) if keys[0] in entry else read(entry, *rest)
    )
    spool = Spool(str(directory))
    entry = spool._wait(time.monotonic() + GUARD)
    assert entry.upload.key == keys[2]
    entry.move("new")
    entry.unlock()
    assert keys[0] in caplog.text
    assert keys[1] in caplog.text
    monkeypatch.undo()
    with spool.claim(GUARD) as upload:
        assert upload.key == keys[0]
    assert keys[1] in {upload.key for upload in spool.uploads("new")}, "the lock was given back"


def test_an_entry_that_is_not_ours_is_reported(directory, caplog):
    keys = put(directory, [1])
    (directory / "new" / keys[0] / "lock").chmod(0o666)
    with pytest.raises(SpoolEmpty), Spool(str(directory)).claim(0):
        pass
    assert keys[0] in caplog.text


def put_in_a_child(directory, number, steps):
    """Put an upload in a process that dies before so many system calls that change something; None for never.

    Returns:
        Whether it has died.
    """
    pid = os.fork()
    if pid:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code in (0, -signal.SIGKILL)
        return code != 0
    upload = uploaded(directory.parent / "uploads", number, b"x" * 1000)
    spool = Spool(str(directory))
    left = steps

    def dying(call):
        def wrapped(*arguments, **keywords):
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return call(*arguments, **keywords)

        return wrapped

    if steps is not None:
        for name in ("mkdir", "link", "rename", "open", "chmod", "fsync"):
            setattr(os, name, dying(getattr(os, name)))
    spool.put(upload, upload.key)
    os._exit(0)


def kill_puts(directory):
    """At each step, then twice; an entry is never seen by halves. Prints how many have died."""
    died = 0
    for step in range(60):
        fates = [put_in_a_child(directory, step, steps) for steps in (step, max(0, step - 3), None)]
        died += sum(fates)
        assert fates[-1] is False
        for entry in (directory / "new").iterdir():
            assert json.loads((entry / "upload.json").read_text())["length"] == 1000
            assert (entry / "data").stat().st_size == 1000
        assert Spool(str(directory)).counts()["new"] == step + 1
        if not fates[0]:
            print(died)
            return
    raise AssertionError("put() has more steps than were tried")


def test_a_put_that_is_killed_is_repeated_to_one_entry(directory):
    """In a process without threads, because it forks."""
    (directory.parent / "uploads").mkdir()
    script = "import sys, pathlib, tests.stores.test_spool as here; here.kill_puts(pathlib.Path(sys.argv[1]))"
    process = subprocess.run(
        [sys.executable, "-c", script, str(directory)], capture_output=True, text=True, cwd=ROOT, timeout=GUARD
    )
    assert process.returncode == 0, process.stderr
    assert int(process.stdout) > 10


def test_a_draft_that_a_crash_has_left_is_not_used(directory):
    """Some of it may not be on the disk."""
    spool, upload = Spool(str(directory)), uploaded(directory.parent / "uploads", 1, b"hello")
    draft = directory / "tmp" / upload.key
    draft.mkdir()
    (draft / "data").write_bytes(b"torn")
    with pytest.raises(SpoolEmpty), spool.claim(timeout=0):
        pass
    spool.put(upload, upload.key)
    with spool.claim(timeout=0) as spooled:
        assert Path(spooled.path).read_bytes() == b"hello"


@pytest.mark.parametrize("by", ["worker", "put"])
def test_a_put_that_a_crash_has_interrupted_is_finished(directory, by):
    """As after a power failure that has lost the last rename. The server may have been told of success already."""
    (key,) = put(directory, [1])
    os.rename(directory / "new" / key, directory / "tmp" / key)
    if by == "put":
        put(directory, [1])
        assert Spool(str(directory)).counts()["new"] == 1
    with Spool(str(directory)).claim(timeout=0) as upload:
        assert upload.key == key
        put(directory, [1])
    assert Spool(str(directory)).counts() == {"new": 0, "claimed": 0, "done": 1, "failed": 0}


@pytest.mark.parametrize("lost", [["lock"], ["upload.json", "data"], ["lock", "upload.json", "data"]])
def test_what_a_crash_has_left_of_a_purged_entry_is_purged(directory, lost):
    (key,) = put(directory, [1])
    with Spool(str(directory)).claim(timeout=0):
        pass
    for name in lost:
        os.unlink(directory / "done" / key / name)
    Spool(str(directory)).purge(0)
    assert os.listdir(directory / "done") == []


def test_workers_that_are_killed_at_random_lose_nothing(directory):
    keys = put(directory, range(30))
    body = """
spool = tus.spool(sys.argv[1], attempts=0, delay=0.001)
while True:
    try:
        with spool.claim(timeout=0.5) as upload:
            print(upload.key, flush=True)
            time.sleep(0.002)
            if not os.path.exists(upload.path):
                raise SystemExit("no data")
    except TimeoutError:
        break
"""
    rng = random.Random(4)
    spool = Spool(str(directory), attempts=0)
    while spool.counts()["done"] < 30:
        process = worker(directory, body)
        for _ in range(rng.randint(1, 5)):  # of this many claims the last one is to be broken off
            process.stdout.readline()  # or nothing, where no more is to be had
        time.sleep(rng.uniform(0, 0.004))
        process.kill()
        process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), "no data"
    assert sorted(upload.key for upload in spool.uploads("done")) == sorted(keys)


@pytest.mark.parametrize("what", ["missing/spool", "file"])
def test_a_bad_directory(tmp_path, what):
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match="spool"):
        tus.spool(str(tmp_path / what))


def test_a_spool_on_another_file_system(tmp_path):
    if os.stat("/dev/shm").st_dev == tmp_path.stat().st_dev:
        pytest.fail("this test needs /dev/shm to be a file system of its own")
    with contextlib.suppress(FileNotFoundError):
        os.rmdir("/dev/shm/tus-test-uploads")
    os.mkdir("/dev/shm/tus-test-uploads")
    try:
        with pytest.raises(OptionError, match="file system of tmp_file_dir"):
            Spool(str(tmp_path / "spool")).check_links_from("/dev/shm/tus-test-uploads")
        assert os.listdir("/dev/shm/tus-test-uploads") == []
        assert os.listdir(tmp_path / "spool" / "tmp") == []
    finally:
        os.rmdir("/dev/shm/tus-test-uploads")


def test_a_filter_puts_what_is_finished_there(tmp_path, directory):
    asked = []

    def application(environ, start_response):
        asked.append(environ["REQUEST_METHOD"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    app = tus.Filter(application, upload_path="/files", tmp_file_dir=tmp_path / "store", spool=directory, threads=False)
    url = call(app, "POST", "/files", TUS | {"Upload-Length": "5", "Upload-Metadata": "filename w7wudHh0"})["Location"]
    assert call(app, "PATCH", url, TUS | OCTETS | {"Upload-Offset": "0"}, b"hello").status == 204
    with tus.spool(str(directory)).claim(timeout=0) as upload:
        assert Path(upload.path).read_bytes() == b"hello"
        assert upload.filename == "ü.txt"
    assert asked == []
    assert [path.suffix for path in (tmp_path / "store").iterdir()] == [".tus"]


def test_a_view_puts_what_is_finished_there(tmp_path, directory):
    from webob import Request

    request = Request.blank(
        "/files", method="POST", headers=TUS | OCTETS | {"Upload-Length": "5"}, body=b"hello"
    )  # fmt: skip
    adapter = tus.WebobAdapter(request)
    view = tus.Tus(adapter, tmp_file_dir=tmp_path / "store", spool=str(directory))
    view.handle()
    assert not view.upload_finished
    assert (adapter.resp.status_int, adapter.resp.headers["Upload-Offset"]) == (201, "5")
    with tus.spool(str(directory)).claim(timeout=0) as upload:
        assert Path(upload.path).read_bytes() == b"hello"


def test_the_example_of_the_documents(directory, tmp_path):
    put(directory, [1], b"hello")
    (example,) = blocks("python", "docs/spool.rst")
    example, replaced = re.subn(r"def process\(.*?\n\n", "", example, flags=re.DOTALL)
    assert replaced == 1
    seen = []

    def process(path, filename, metadata):
        seen.append((Path(path).read_bytes(), filename))
        if len(seen) == 1:
            raise OSError("the disk is full")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exec(example.replace("/var/lib/myapp/spool", str(directory)), {"process": process})
    assert seen == [(b"hello", "ü.txt")] * 2
