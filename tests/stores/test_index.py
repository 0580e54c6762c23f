"""What processes know instead of reading all uploads: who waits, what expires next, and which of them looks."""

import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support.serving import ROOT
from tests.support.waiting import GUARD, wait_until
from tus import Filter
from tus.filesystem.election import Election
from tus.filesystem.ownership import Ownership
from tus.handover import backlog
from tus.models import Upload
from tus.stores.directory import expiry, pending, slices
from tus.stores.directory.expiry import Schedule
from tus.stores.directory.store import DirectoryStore
from tus.testing import Clock

LATER = 1e12


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path, clock):
    return DirectoryStore(str(tmp_path), lifetime=1000, clock=clock)


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """The names of the side-cars here that are opened; threads of other tests may open others."""
    names, opening = [], os.open

    def noting(path, *rest, **words):
        if str(path).startswith(str(tmp_path)) and str(path).endswith(".tus"):
            names.append(os.path.basename(path)[:-4])
        return opening(path, *rest, **words)

    monkeypatch.setattr(os, "open", noting)
    return names


def waiting(store):
    return store.append(store.create(Upload(length=3)), 0, b"abc")


def ids(uploads):
    return [upload.id for upload in uploads]


# -- Who waits --


def test_the_first_look_is_at_all_and_later_ones_at_those_that_wait(store, opened):
    for _ in range(20):
        store.create(Upload(length=3))
    first = waiting(store)
    assert ids(store.pending(LATER, 9)) == [first.id]
    opened.clear()
    assert ids(store.pending(LATER, 9)) == [first.id]
    assert set(opened) == {first.id}


def test_a_sweep_adds_what_other_processes_left_waiting(store, tmp_path, opened):
    other = DirectoryStore(str(tmp_path))
    assert ids(store.pending(LATER, 9)) == []
    for _ in range(20):
        other.create(Upload(length=3))
    upload = waiting(other)
    other.sweep()
    opened.clear()
    assert ids(store.pending(LATER, 9)) == [upload.id]
    assert set(opened) == {upload.id}


def test_only_the_record_shows_who_waits(store):
    decided, removed, upload = waiting(store), waiting(store), waiting(store)
    part = store.append(store.create(Upload(length=1, concat="partial")), 0, b"a")
    store.sweep()
    store.pending(LATER, 9)
    store.claim(decided).accept()
    store.remove(removed.id)
    assert part.id not in pending.read_index(store.directory, Ownership(), store._policy.boot)
    assert ids(store.pending(LATER, 9)) == [upload.id]


@pytest.mark.parametrize("damage", ["missing", "torn", "another boot", "old", "a link"])
def test_without_a_valid_index_all_are_looked_at(store, tmp_path, damage):
    store.pending(LATER, 9)
    upload, path = waiting(store), tmp_path / pending.NAME
    if damage == "missing":
        path.unlink()
    elif damage == "torn":
        path.write_bytes(path.read_bytes()[:7])
    elif damage == "another boot":
        path.write_bytes(bytes(len(path.read_bytes())))
    elif damage == "old":
        os.utime(path, (time.time() - 4000,) * 2)
    else:
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    assert ids(store.pending(LATER, 9)) == [upload.id]
    assert damage == "a link" or pending.read_index(store.directory, Ownership(), store._policy.boot) == [upload.id]


# -- What expires next --


def test_a_sweep_between_two_full_ones_looks_at_what_is_new_or_due(store, clock, opened):
    for _ in range(20):
        store.create(Upload(length=3))
    schedule = Schedule()

    def sweep():
        opened.clear()
        return expiry.sweep(store.directory, store._policy, None, 0, schedule)

    assert sweep() == 0
    assert len(set(opened)) == 20
    schedule.note_full(1.0)  # it was dear, so the next one is not due yet
    clock.now += 500
    new = store.create(Upload(length=3))
    assert sweep() == 0
    assert set(opened) == {new.id}
    assert sweep() == 0
    assert opened == []
    clock.now += 501
    assert sweep() == 20
    assert new.id not in opened
    clock.now += 500
    assert sweep() == 1


def test_an_upload_that_lives_longer_than_was_known_is_not_removed(store, clock):
    upload = store.create(Upload(length=3))
    schedule = Schedule()
    expiry.sweep(store.directory, store._policy, None, 0, schedule)
    schedule.note_full(1.0)
    clock.now += 999
    store.append(upload, 0, b"a")
    clock.now += 2
    assert expiry.sweep(store.directory, store._policy, None, 0, schedule) == 0
    assert store.load(upload.id).offset == 1


def test_full_sweeps_cost_little(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(expiry.time, "monotonic", lambda: now[0])
    schedule = Schedule()
    assert schedule.is_full_due()
    schedule.note_full(5.0)
    now[0] += 999
    assert not schedule.is_full_due()
    now[0] += 1
    assert schedule.is_full_due()


class Machine:
    """Clocks, and a sleep that is noted.

    Attributes:
        rests: the seconds of each sleep between two slices.
        load: the part of a processor that requests use.
    """

    def __init__(self, clock):
        self.clock, self.rests, self.load, self.worked = clock, [], 1.0, 0.0

    def perf_counter(self):
        return self.clock()

    def thread_time(self):
        return self.worked

    def process_time(self):
        return self.worked + self.load * self.clock()

    def sleep(self, pause):
        self.rests.append(pause)
        self.clock.now += pause

    def work(self, seconds):
        self.clock.now += seconds
        self.worked += seconds


@pytest.fixture
def machine(monkeypatch, clock):
    machine = Machine(clock)
    monkeypatch.setattr(slices, "BUSY", slices.Pace(1.0, 10.0))
    monkeypatch.setattr(slices, "QUIET", slices.Pace(5.0, 2.0))
    monkeypatch.setattr(slices, "LOOK", 100.0)
    monkeypatch.setattr(slices, "_turns", slices._Turns())
    monkeypatch.setattr(slices, "time", machine)
    return machine


def test_the_work_of_threads_comes_in_slices(machine):
    for _ in slices.gently(range(100)):
        machine.work(0.25)
    assert machine.rests == [10.0] * 25


def test_threads_take_turns(machine, monkeypatch):
    monkeypatch.setattr(machine, "sleep", machine.rests.append)
    for _ in zip(*[slices.gently(range(2)) for _ in range(3)], strict=True):
        machine.work(1.0)
    assert machine.rests == [10.0, 20.0, 30.0, 39.0, 49.0, 59.0]


def test_slices_are_longer_while_requests_use_little(machine):
    machine.load = 0.01
    for number in slices.gently(range(200)):
        machine.work(1.0)
        if number == 100:
            machine.load = 0.5
    assert machine.rests[0] == 10.0  # nothing is known yet
    quiet = machine.rests.index(2.0)
    busy = machine.rests.index(10.0, quiet)
    assert quiet * 11 < 100 + 2 * 11
    assert set(machine.rests[quiet:busy]) == {2.0}
    assert (busy - quiet) * 7 < 100 + 2 * 100  # a look after the requests came
    assert set(machine.rests[busy:]) == {10.0}


# -- Which process looks --

WINS = """
import os, signal, sys
from functools import partial
from tus.filesystem.election import Election
from tus.filesystem.ownership import Ownership
path = sys.argv[1]
election = Election(path, partial(Ownership().open_or_create, path))
print(election.win(), flush=True)
if sys.argv[2:] == ["fork"]:
    child = os.fork()
    if child == 0:
        signal.pause()
    print(child, flush=True)
sys.stdin.read()
"""


def candidate(path, *more):
    command = [sys.executable, "-c", WINS, str(path), *more]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, **pipes)
    process.won = process.stdout.readline().strip() == "True"
    return process


def end(process):
    process.kill()
    process.wait(GUARD)
    process.stdin.close()
    process.stdout.close()


def election(path):
    return Election(str(path), lambda: Ownership().open_or_create(str(path)))


def test_one_process_wins_until_it_ends(tmp_path):
    first, second = candidate(tmp_path / "elected"), candidate(tmp_path / "elected")
    ours = election(tmp_path / "elected")
    try:
        assert (first.won, second.won, ours.win()) == (True, False, False)
        end(first)
        wait_until(ours.win)
    finally:
        for process in (first, second):
            end(process) if process.poll() is None else None


def test_a_forked_child_does_not_keep_the_lock_of_its_parent(tmp_path):
    process = candidate(tmp_path / "elected", "fork")
    child = int(process.stdout.readline())
    ours = election(tmp_path / "elected")
    try:
        assert process.won
        assert not ours.win()
        end(process)
        wait_until(ours.win)
    finally:
        os.kill(child, signal.SIGKILL)


def test_all_candidates_of_a_process_win_and_the_last_one_gives_up_the_lock(tmp_path):
    first, second = election(tmp_path / "elected"), election(tmp_path / "elected")
    assert first.win()
    assert second.win()
    del first
    other = candidate(tmp_path / "elected")
    assert not other.won
    end(other)
    del second
    other = candidate(tmp_path / "elected")
    assert other.won
    end(other)


def test_an_elected_process_lets_an_operator_make_the_disk_read_only(store):
    elected = store.candidate("work")
    assert elected.win()
    assert fcntl.fcntl(elected._lock.fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY


def test_where_nothing_can_be_elected_each_process_works(tmp_path):
    assert election(tmp_path / "missing" / "elected").win()


def test_a_process_that_is_not_elected_looks_once_the_other_has_ended(tmp_path, monkeypatch):
    """It offers what the other one left."""
    monkeypatch.setattr(backlog, "_PATIENCE", 0.01)
    store = DirectoryStore(str(tmp_path))
    (path,) = {store.candidate("look for /files")._path}
    other = candidate(path)
    assert other.won
    landed = []
    app = Filter(lambda *_: [], upload_path="/files", tmp_file_dir=str(tmp_path), on_finished=landed.append)
    try:
        looks = []
        monkeypatch.setattr(app.backlog, "look", lambda: looks.append(time.monotonic()))
        app.backlog.start()
        assert not app.backlog.is_elected()
        assert looks == []
        end(other)
        wait_until(lambda: looks)
    finally:
        app.service.close()


def test_a_periodic_sweep_is_for_the_elected_process(tmp_path, clock):
    store = DirectoryStore(str(tmp_path), lifetime=10, clock=clock)
    store.create(Upload(length=1))
    clock.now += 11
    other = candidate(store._sweeping._path)
    assert other.won
    try:
        assert store.sweep(at_most_every=1e-9) == 0
        assert store.sweep() == 1, "a command sweeps at once"
    finally:
        end(other)
    store.create(Upload(length=1))
    clock.now += 11
    wait_until(lambda: store.sweep(at_most_every=1e-9) == 1)
