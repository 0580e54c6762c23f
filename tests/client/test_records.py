"""Resume records: one suite over the stores, and what the database survives."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.support.serving import ROOT
from tests.support.waiting import wait_until
from tus.client.errors import ClientError
from tus.client.records import MemoryRecords, NoRecords, Records, ResumeRecord, open_records, sqlite
from tus.client.records.identity import FileIdentity, key_of
from tus.client.records.interface import LIMIT_LIFETIME
from tus.client.records.sqlite import SqliteRecords

ENDPOINT = "https://host/files/"
DAY = 86400.0
ours = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs users as POSIX has them")
unprivileged = pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may write anywhere")


class Clock:
    def __init__(self):
        self.now = 1_800_000_000.25

    def __call__(self):
        return self.now


def a_record(key="a", clock=None, **changes):
    now = clock() if clock else time.time()
    record = ResumeRecord(
        key=key,
        url=f"{ENDPOINT}{key}",
        endpoint=ENDPOINT,
        path=f"/home/me/{key}",
        size=2**63 + 1,
        protocol="ietf",
        version=9,
        idempotency_key="once",
        parts=(f"{ENDPOINT}1", f"{ENDPOINT}2"),
        unfinished_status=500,
        created_at=now,
        expires_at=now + DAY,
    )
    return replace(record, **changes)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["sqlite", "memory"])
def records(request, tmp_path, clock):
    return (
        SqliteRecords(tmp_path / "uploads.sqlite", clock=clock)
        if request.param == "sqlite"
        else MemoryRecords(clock=clock)
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "uploads.sqlite"


def warnings_in(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def is_sound(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# -- All of them --


def test_a_record_comes_back_as_it_was_saved(records, clock):
    record = a_record(clock=clock)
    records.save(record)
    assert records.find("a") == record
    assert records.all() == [record]
    assert records.find("b") is None


def test_another_record_replaces_the_one_of_its_key(records, clock):
    records.save(a_record(clock=clock, url=""))
    records.save(a_record(clock=clock))
    assert records.find("a").url == f"{ENDPOINT}a"
    assert len(records.all()) == 1


def test_a_record_without_the_optional_values(records, clock):
    record = ResumeRecord(
        key="a", url="", endpoint=ENDPOINT, path="", size=0, protocol="tus", created_at=clock(), expires_at=clock() + 1
    )
    records.save(record)
    assert records.find("a") == record


def test_a_path_that_is_not_utf_8(records, clock):
    record = a_record(clock=clock, path=os.fsdecode(b"/home/me/\xff\n'\""))
    records.save(record)
    assert records.find("a") == record


def test_forget(records, clock):
    records.save(a_record("a", clock))
    records.save(a_record("b", clock))
    records.forget("a")
    records.forget("a")
    assert records.find("a") is None
    assert [record.key for record in records.all()] == ["b"]


def test_the_oldest_comes_first(records, clock):
    for key in "cab":
        clock.now += 1
        records.save(a_record(key, clock))
    assert [record.key for record in records.all()] == ["c", "a", "b"]


def test_an_expired_record_does_not_exist(records, clock):
    records.save(a_record("a", clock))
    records.save(a_record("b", clock, expires_at=clock() + 2 * DAY))
    clock.now += DAY
    assert records.find("a") is None
    assert [record.key for record in records.all()] == ["b"]
    assert records.prune() == 1
    assert records.prune() == 0
    clock.now -= DAY
    assert records.find("a") is None


def test_the_limit_of_an_endpoint(records, clock):
    assert records.chunk_limit(ENDPOINT) is None
    records.limit_chunks(ENDPOINT, 8 << 20)
    records.limit_chunks(ENDPOINT, 4 << 20)
    assert records.chunk_limit(ENDPOINT) == 4 << 20
    assert records.chunk_limit("https://other/") is None
    clock.now += LIMIT_LIFETIME - 1
    assert records.chunk_limit(ENDPOINT) == 4 << 20
    clock.now += 1
    assert records.chunk_limit(ENDPOINT) is None


def test_many_threads(records, clock):
    failures = []

    def work(name):
        try:
            for number in range(20):
                key = f"{name}-{number}"
                records.save(a_record(key, clock))
                assert records.find(key) is not None
                if number % 2:
                    records.forget(key)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert {record.key for record in records.all()} == {
        f"{name}-{number}" for name in range(8) for number in range(0, 20, 2)
    }


def test_no_records():
    records = NoRecords()
    records.save(a_record())
    records.limit_chunks(ENDPOINT, 1)
    records.forget("a")
    assert (records.find("a"), records.all(), records.prune(), records.chunk_limit(ENDPOINT)) == (None, [], 0, None)


KEYS = st.sampled_from("abc")


class AgainstDictionaries(RuleBasedStateMachine):
    """The stores do what two dictionaries do."""

    @initialize(kind=st.sampled_from(["sqlite", "memory"]))
    def begin(self, kind):
        self.clock = Clock()
        self.directory = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.directory.name, "uploads.sqlite")
        self.records = (
            SqliteRecords(self.path, clock=self.clock) if kind == "sqlite" else MemoryRecords(clock=self.clock)
        )
        self.model, self.limits = {}, {}

    def live(self):
        return {key: record for key, record in self.model.items() if record.expires_at > self.clock.now}

    @rule(key=KEYS, lifetime=st.integers(0, 5), url=st.text(max_size=3))
    def save(self, key, lifetime, url):
        record = a_record(key, self.clock, url=url, expires_at=self.clock.now + lifetime)
        self.records.save(record)
        self.model[key] = record

    @rule(key=KEYS)
    def forget(self, key):
        self.records.forget(key)
        self.model.pop(key, None)

    @rule(seconds=st.sampled_from([1, 3, LIMIT_LIFETIME]))
    def wait(self, seconds):
        self.clock.now += seconds

    @rule()
    def prune(self):
        self.records.prune()
        self.model = self.live()

    @rule(endpoint=KEYS, size=st.integers(1, 2**40))
    def limit(self, endpoint, size):
        self.records.limit_chunks(endpoint, size)
        self.limits[endpoint] = (size, self.clock.now)

    @rule()
    def begin_again(self):
        if isinstance(self.records, SqliteRecords):
            self.records = SqliteRecords(self.path, clock=self.clock)

    @invariant()
    def is_the_same(self):
        live = self.live()
        assert {key: self.records.find(key) for key in "abc"} == {key: live.get(key) for key in "abc"}
        assert self.records.all() == sorted(live.values(), key=lambda record: (record.created_at, record.key))
        for endpoint in "abc":
            size, since = self.limits.get(endpoint, (None, 0))
            assert self.records.chunk_limit(endpoint) == (size if since + LIMIT_LIFETIME > self.clock.now else None)

    def teardown(self):
        if hasattr(self, "directory"):
            self.directory.cleanup()


TestAgainstDictionaries = AgainstDictionaries.TestCase
TestAgainstDictionaries.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)


# -- Opening them --


def test_open_records(path, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    own = MemoryRecords()
    assert open_records(own) is own
    assert isinstance(open_records(None), NoRecords)
    assert open_records(path).path == str(path)
    assert open_records(str(path)).path == str(path)
    default = open_records("default")
    assert isinstance(default, Records)
    default.save(a_record())
    assert Path(default.path).name == "uploads.sqlite"
    assert Path(default.path).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other directories")
def test_the_default_place_on_linux(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert open_records("default").path == str(tmp_path / "tus" / "uploads.sqlite")


def test_without_platformdirs(monkeypatch):
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with pytest.raises(ClientError, match="pip install platformdirs"):
        open_records("default")


def test_nothing_is_made_before_there_is_a_record(tmp_path):
    records = SqliteRecords(tmp_path / "new" / "uploads.sqlite")
    assert (records.find("a"), records.all(), records.prune(), records.chunk_limit(ENDPOINT)) == (None, [], 0, None)
    records.forget("a")
    assert not [*tmp_path.iterdir()]


# -- The file --


@ours
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_no_other_user_can_read_it_at_any_time(tmp_path, umask):
    path = tmp_path / "state" / "tus" / "uploads.sqlite"
    seen = set()

    def watch(event, arguments):
        if event in {"sqlite3.connect", "sqlite3.connect/handle"} and path.exists():
            seen.add(path.stat().st_mode & 0o777)

    with _audited(watch):
        before = os.umask(umask)
        try:
            SqliteRecords(path).save(a_record())
        finally:
            os.umask(before)
    assert seen == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert {name.stat().st_mode & 0o777 for name in path.parent.iterdir()} == {0o600}


_watching = None
sys.addaudithook(lambda event, arguments: _watching(event, arguments) if _watching else None)


@contextlib.contextmanager
def _audited(hook):
    global _watching
    _watching = hook
    try:
        yield
    finally:
        _watching = None


@ours
def test_a_symbolic_link_is_refused(path, tmp_path):
    path.symlink_to(tmp_path / "other")
    with pytest.raises(ClientError, match="symbolic link"):
        SqliteRecords(path)


@ours
def test_a_file_of_another_user_is_refused(path, monkeypatch):
    SqliteRecords(path).save(a_record())
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with pytest.raises(ClientError, match="belong to another user"):
        SqliteRecords(path)


@ours
def test_a_link_that_comes_later_is_not_followed(path, tmp_path, caplog):
    records = SqliteRecords(path)
    path.symlink_to(tmp_path / "other")
    records.save(a_record())
    assert records.find("a") is not None
    assert not (tmp_path / "other").exists()
    assert len(warnings_in(caplog)) == 1


def test_a_system_without_users(path, monkeypatch):
    monkeypatch.delattr(os, "geteuid", raising=False)
    SqliteRecords(path).save(a_record())
    assert SqliteRecords(path).find("a") is not None


def test_the_database_of_a_directory_that_was_removed(tmp_path):
    path = tmp_path / "state" / "uploads.sqlite"
    records = SqliteRecords(path)
    records.save(a_record("a"))
    shutil.rmtree(path.parent)
    assert records.find("a") is None
    records.save(a_record("b"))
    assert [record.key for record in SqliteRecords(path).all()] == ["b"]


def test_a_forgotten_url_is_not_in_the_file(path):
    records = SqliteRecords(path)
    records.save(a_record(url="https://host/files/very-secret"))
    assert b"very-secret" in path.read_bytes()
    records.forget("a")
    assert b"very-secret" not in b"".join(name.read_bytes() for name in path.parent.iterdir())


def test_expired_records_go_with_the_next_one(path, clock):
    records = SqliteRecords(path, clock=clock)
    records.save(a_record("a", clock, url="https://host/files/very-secret"))
    clock.now += DAY
    records.save(a_record("b", clock))
    assert b"very-secret" not in path.read_bytes()


# -- Damage --


def _nothing(data):
    return b""


def _noise(data):
    return random.Random(1).randbytes(len(data))


def _zeros(data):
    return bytes(len(data))


def _half(data):
    return data[: len(data) // 2 + 100]


def _head(data):
    return data[:50]


def _broken_pages(data):
    return data[:200] + b"\xff" * (len(data) - 200)


@pytest.mark.parametrize("damage", [_noise, _zeros, _half, _head, _broken_pages])
def test_a_damaged_database_is_set_aside(tmp_path, monkeypatch, damage, caplog):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    records = open_records("default")
    path = Path(records.path)
    for number in range(50):
        records.save(a_record(f"{number}"))
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    assert records.find("1") is None
    records.save(a_record("new"))
    assert records.find("new") is not None
    assert [record.key for record in open_records("default").all()] == ["new"]
    assert Path(f"{path}.damaged").read_bytes() == damaged
    [warning] = warnings_in(caplog)
    assert "set aside" in warning


def test_an_empty_file_is_a_new_database(path, caplog):
    path.touch()
    records = SqliteRecords(path)
    assert records.find("a") is None
    records.save(a_record())
    assert SqliteRecords(path).find("a") is not None
    assert not warnings_in(caplog)


@pytest.mark.parametrize(
    "statement", ["DROP TABLE uploads", "UPDATE uploads SET record = '{}'", "DROP TABLE chunk_limits"]
)
def test_content_that_makes_no_sense(path, statement, caplog):
    records = SqliteRecords(path)
    records.save(a_record())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()
    records.all()
    records.chunk_limit(ENDPOINT)
    records.save(a_record("b"))
    records.limit_chunks(ENDPOINT, 5)
    assert [record.key for record in SqliteRecords(path).all()] == ["b"]
    assert SqliteRecords(path).chunk_limit(ENDPOINT) == 5
    assert "set aside" in warnings_in(caplog)[0]


def test_text_that_is_not_utf_8(path, caplog):
    records = SqliteRecords(path)
    records.save(a_record())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE uploads SET record = cast(record || x'ff' AS text)")
        connection.commit()
    assert records.find("a") is None
    [warning] = warnings_in(caplog)
    assert f"{ENDPOINT}a" not in warning
    records.save(a_record())
    assert SqliteRecords(path).find("a") is not None


def test_no_damage_stops_an_upload(path):
    """Any byte can be another one. What remains can be wrong, as there are no checksums, but is never an error."""
    chance = random.Random(20)
    records = SqliteRecords(path)
    for number in range(20):
        records.save(a_record(f"{number}"))
    whole = path.read_bytes()
    for _ in range(150):
        broken = bytearray(whole)
        for _ in range(chance.choice([1, 3, 30])):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        path.write_bytes(broken)
        records = SqliteRecords(path)
        records.find("1")
        records.all()
        records.save(a_record("new"))
        records.find("new")
        records.chunk_limit(ENDPOINT)
        records.limit_chunks(ENDPOINT, 1)
        records.forget("new")
        records.prune()


@pytest.mark.parametrize("content", [b"a film" * 1000, _noise(bytes(5000))])
def test_a_file_of_another_program_is_left_alone(path, content, caplog):
    path.write_bytes(content)
    records = SqliteRecords(path)
    records.save(a_record())
    assert records.find("a") is not None
    assert path.read_bytes() == content
    assert [name.name for name in path.parent.iterdir()] == [path.name]
    assert len(warnings_in(caplog)) == 1


def test_a_database_of_another_program_is_left_alone(path, caplog):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE uploads (id)")
    content = path.read_bytes()
    records = SqliteRecords(path)
    records.save(a_record())
    assert records.find("a") is not None
    assert path.read_bytes() == content
    assert len(warnings_in(caplog)) == 1


def test_a_database_of_a_later_version_is_left_alone(path, caplog):
    SqliteRecords(path).save(a_record("old"))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")
        connection.execute("ALTER TABLE uploads ADD COLUMN more")
    content = path.read_bytes()
    records = SqliteRecords(path)
    records.save(a_record())
    records.limit_chunks(ENDPOINT, 7)
    assert [record.key for record in records.all()] == ["a"]
    assert records.chunk_limit(ENDPOINT) == 7
    assert path.read_bytes() == content
    [warning] = warnings_in(caplog)
    assert "later version" in warning


# -- No room, no permission --


def test_a_disk_on_which_nothing_can_be_created(path, monkeypatch, caplog):
    real = os.open

    def refuse(name, flags, *arguments, **others):
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(name, flags, *arguments, **others)

    monkeypatch.setattr(os, "open", refuse)
    records = SqliteRecords(path)
    for key in "ab":
        records.save(a_record(key))
    records.limit_chunks(ENDPOINT, 7)
    assert {record.key for record in records.all()} == {"a", "b"}
    assert records.chunk_limit(ENDPOINT) == 7
    records.forget("a")
    assert records.find("a") is None
    [warning] = warnings_in(caplog)
    assert "No space left" in warning
    monkeypatch.undo()
    records.save(a_record("b"))  # there is room again
    assert [record.key for record in SqliteRecords(path).all()] == ["b"]
    assert [record.key for record in records.all()] == ["b"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system with a limit")
def test_a_disk_that_becomes_full(path):
    """In a process whose files can have 64 KiB only, so that SQLite gets the error."""
    code = f"""
import logging, resource, signal
from tests.client.test_records import *
logging.basicConfig()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
records = SqliteRecords({str(path)!r})
for number in range(200):
    records.save(a_record(str(number), path="/" + "x" * 1000))
assert len(records.all()) == 200
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.count("WARNING") == 1
    assert is_sound(path)
    assert 5 < len(SqliteRecords(path).all()) < 200


@ours
@unprivileged
def test_a_directory_that_cannot_be_written(path, caplog):
    SqliteRecords(path).save(a_record("old"))
    path.chmod(0o400)
    path.parent.chmod(0o500)
    try:
        records = SqliteRecords(path)
        records.save(a_record())
        assert {record.key for record in records.all()} == {"old", "a"}
        assert records.find("old") is not None
    finally:
        path.parent.chmod(0o700)
    assert len(warnings_in(caplog)) == 1


def test_a_directory_in_place_of_the_file(path, caplog):
    path.mkdir()
    records = SqliteRecords(path)
    records.save(a_record())
    assert records.find("a") is not None
    assert len(warnings_in(caplog)) == 1


def test_a_process_that_does_not_release_its_lock(path, monkeypatch, caplog):
    monkeypatch.setattr("tus.client.records.sqlite._PATIENCE", 0.1)
    records = SqliteRecords(path)
    records.save(a_record("a"))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        records.save(a_record("b"))
        assert records.find("b") is not None
    assert records.find("a") is not None
    assert len(warnings_in(caplog)) == 1


def test_threads_that_wait_share_a_transaction(path, monkeypatch, caplog):
    records = SqliteRecords(path)
    records.save(a_record("first"))
    sizes, real = [], sqlite._perform_all

    def perform(connection, changes):
        sizes.append(len(changes))
        return real(connection, changes)

    monkeypatch.setattr(sqlite, "_perform_all", perform)
    threads = [threading.Thread(target=records.save, args=(a_record(f"{number}"),)) for number in range(6)]
    threads.append(threading.Thread(target=records.forget, args=("first",)))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for thread in threads:
            thread.start()
        wait_until(lambda: len(records._changes) == 6, lambda: records._changes)
        other.execute("COMMIT")
    for thread in threads:
        thread.join()
    assert sizes == [1, 6]
    assert {record.key for record in SqliteRecords(path).all()} == {f"{number}" for number in range(6)}
    assert not warnings_in(caplog)


def test_a_change_that_fails_fails_for_those_beside_it(path, monkeypatch):
    records = SqliteRecords(path)
    monkeypatch.setattr(sqlite, "_perform_all", lambda connection, changes: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        records.save(a_record("a"))
    monkeypatch.undo()
    records.save(a_record("b"))
    assert [record.key for record in SqliteRecords(path).all()] == ["b"]


# -- Processes --


def worker(what, path, argument, **others):
    command = [sys.executable, "-m", "tests.client.records_worker", what, str(path), str(argument)]
    return subprocess.Popen(command, cwd=ROOT, text=True, **others)


def run_workers(what, path, count):
    """Run so many workers at once, and return what they have logged."""
    workers = [worker(what, path, number, stderr=subprocess.PIPE) for number in range(count)]
    logged = [each.communicate()[1] for each in workers]
    assert [each.returncode for each in workers] == [0] * count, logged
    return "".join(logged)


def test_eight_processes_at_once(path):
    assert not run_workers("hammer", path, 8)
    expected = {f"{name}-{number}" for name in range(8) for number in range(0, 15, 2)}
    assert {record.key for record in SqliteRecords(path).all()} == expected
    assert is_sound(path)


def test_processes_that_find_the_same_damage(path):
    run_workers("damage", path, 4)
    SqliteRecords(path).save(a_record("end"))
    assert SqliteRecords(path).find("end") is not None


@ours
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_while_threads_write(path, monkeypatch):
    monkeypatch.setattr("tus.client.records.sqlite._PATIENCE", 200.0)  # the disk may be slow
    records = SqliteRecords(path)
    is_over = threading.Event()

    def write():
        number = 0
        while not is_over.is_set():
            records.save(a_record(f"{number % 5}"))
            number += 1

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(15):
            child = os.fork()
            if not child:
                code = 2
                try:
                    signal.alarm(250)
                    records.save(a_record(f"child-{number}"))
                    code = 0 if records.find(f"child-{number}") and not records._has_warned else 1
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert {f"child-{number}" for number in range(15)} <= {record.key for record in records.all()}
    assert is_sound(path)


@pytest.mark.long
@ours
def test_no_kill_loses_a_record(path):
    """A writer is killed 50 times while another one goes on. Each save and removal that returned is there."""
    chance = random.Random(9)
    kept, begin = set(), 1
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(worker("disturb", path, 0))
        stack.callback(other.kill)
        for _ in range(50):
            with worker("write", path, begin, stdout=subprocess.PIPE) as writer:
                line = writer.stdout.readline()
                time.sleep(chance.random() * 0.1)
                writer.kill()
                lines = [*map(int, (line + writer.stdout.read()).split())]
            kept = (kept | {number for number in lines if number > 0}) - {-number for number in lines}
            last = abs(lines[-1])
            unknown = {last, last + 1}  # one of them was written or removed when the writer was killed
            found = {int(record.key) for record in SqliteRecords(path).all() if record.key.isdigit()}
            assert found - unknown == kept - unknown
            kept, begin = found, last + 2
        assert other.poll() is None
    assert is_sound(path)
    assert [name.name for name in path.parent.iterdir() if "damaged" in name.name] == []


# -- Identity --


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(b"head" * 100)
    return path


def key(file, endpoint=ENDPOINT, metadata=None, account=""):
    return key_of(FileIdentity.of(file), endpoint, metadata, account)


def test_a_path_and_the_open_file_are_one(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    (file.parent / "link").symlink_to(file)
    with open("film.mp4", "rb") as opened, open(file, "rb", buffering=0) as raw, open(b"link", "rb") as linked:
        sources = [file, str(file), "film.mp4", "../" + file.parent.name + "/film.mp4", "link", opened, raw, linked]
        assert len({key(source) for source in sources}) == 1
    identity = FileIdentity.of(file)
    status = file.stat()
    assert identity.path == os.path.realpath(file)
    assert identity == FileIdentity("", status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def test_another_endpoint_metadata_or_account_is_another_upload(file):
    keys = [
        key(file),
        key(file, "https://other/files/"),
        key(file, metadata={"filename": "a"}),
        key(file, metadata={"filename": b"b"}),
        key(file, metadata={"filename": ""}),
        key(file, metadata={"filename": None}),
        key(file, metadata={"filenam": "ea"}),
        key(file, metadata={"a": "b", "c": "d"}),
        key(file, metadata={"a": "bcd"}),
        key(file, account="me"),
        key(file, account="you"),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(one) == 64 for one in keys)


def test_the_same_metadata_in_another_form(file):
    assert key(file, metadata={}) == key(file)
    assert key(file, metadata={"a": "ä", "b": None}) == key(file, metadata={"b": None, "a": "ä".encode()})


def test_two_files_of_one_size_and_beginning(file):
    other = file.with_name("other.mp4")
    other.write_bytes(file.read_bytes())
    os.utime(other, ns=(0, file.stat().st_mtime_ns))
    assert key(file) != key(other)


def test_a_file_that_was_touched_replaced_or_moved(file):
    keys = {key(file)}
    mtime_ns = file.stat().st_mtime_ns
    os.utime(file, ns=(0, mtime_ns + 1000))
    keys.add(key(file))
    other = file.with_name("other")
    other.write_bytes(file.read_bytes())
    os.utime(other, ns=(0, mtime_ns))
    os.replace(other, file)
    keys.add(key(file))
    file.rename(file.with_name("moved"))
    keys.add(key(file.with_name("moved")))
    assert len(keys) == 4


def test_a_mount_that_gets_another_number(file):
    identity = FileIdentity.of(file)
    again = replace(identity, device=identity.device + 1)
    assert key_of(identity, ENDPOINT) == key_of(again, ENDPOINT)
    assert key_of(replace(identity, path=""), ENDPOINT) != key_of(replace(again, path=""), ENDPOINT)


def test_a_file_system_without_inodes(file, monkeypatch):
    identity = replace(FileIdentity.of(file), inode=0)
    others = [replace(identity, path="C:\\other"), replace(identity, size=1), replace(identity, mtime_ns=1)]
    assert len({key_of(one, ENDPOINT) for one in (identity, *others)}) == 4


def test_an_open_file_whose_name_is_not_its_own(file):
    with open(file, "rb") as opened:
        before = FileIdentity.of(opened)
        file.unlink()
        assert FileIdentity.of(opened) == before
        assert FileIdentity.of(opened).path == ""
        file.write_bytes(b"another")
        assert FileIdentity.of(opened).path == ""
    with open(os.open(file, os.O_RDONLY), "rb") as by_descriptor:
        assert FileIdentity.of(by_descriptor).path == ""
        assert FileIdentity.of(by_descriptor).size == 7


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        FileIdentity.of(tmp_path / "none")
    with pytest.raises(OSError):
        FileIdentity.of(io.BytesIO(b"none"))
