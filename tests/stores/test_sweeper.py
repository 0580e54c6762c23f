"""Expiry beside the requests."""

import os
import subprocess
import sys
import threading

from tests.support.serving import ROOT
from tests.support.subjects import FilterSubject
from tests.support.waiting import GUARD, wait_until
from tus import Service
from tus.stores import sweeper
from tus.stores.memory import MemoryStore


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "tus-sweeper"]


def test_the_first_creation_starts_one_daemon_thread(tmp_path):
    before = set(threads())
    subject = FilterSubject(threads=True, tmp_file_dir=str(tmp_path / "store"), upload_valid_duration=1)
    assert not set(threads()) - before
    for _ in range(3):
        subject.create(4)
    (thread,) = set(threads()) - before
    assert thread.daemon


def test_expired_uploads_go_by_themselves(tmp_path):
    subject = FilterSubject(threads=True, tmp_file_dir=str(tmp_path / "store"), upload_valid_duration=1)
    url, done = subject.url(4), subject.url(4, body=b"abcd")
    assert subject.offset(url) == 0
    wait_until(lambda: len(list((tmp_path / "store").glob("*.tus"))) == 1)
    assert subject.head(url).status == 404
    assert subject.offset(done) == 4


def test_several_first_creations_start_one_thread():
    class Counted(MemoryStore):
        sweeps = 0

        def sweep(self, at_most_every=0):
            self.sweeps += 1
            return 0

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(50):
            before = set(threads())
            ours, stores = sweeper.Sweeper(8), [Counted() for _ in range(8)]
            barrier = threading.Barrier(8)

            def add(number, ours=ours, stores=stores, barrier=barrier):
                barrier.wait(GUARD)
                ours.add(stores[number], 60, number)

            requests = [threading.Thread(target=add, args=(number,)) for number in range(8)]
            for request in requests:
                request.start()
            for request in requests:
                request.join(GUARD)
            assert len(set(threads()) - before) == 1
            wait_until(lambda stores=stores: all(store.sweeps for store in stores))
            ours.stop()
    finally:
        sys.setswitchinterval(interval)


def test_a_store_that_fails_is_tried_again(monkeypatch, caplog):
    class Failing(MemoryStore):
        sweeps = 0

        def sweep(self, at_most_every=0):
            self.sweeps += 1
            raise OSError("the disk is away")

    monkeypatch.setattr(sweeper, "SHORTEST_INTERVAL", 0.01)
    store = Failing()
    ours = sweeper.Sweeper()
    ours.add(store, lifetime=0.01)
    wait_until(lambda: store.sweeps >= 3)
    assert "could not be removed" in caplog.text


def test_a_store_is_tended_beside_its_sweeps(monkeypatch, caplog):
    class Tended(MemoryStore):
        tended = sweeps = 0

        def sweep(self, at_most_every=0):
            self.sweeps += 1
            return 0

        def tend(self):
            self.tended += 1
            raise OSError("the disk is away")

    monkeypatch.setattr(sweeper, "_PATIENCE", 0.01)
    store = Tended()
    ours = sweeper.Sweeper()
    ours.add(store, lifetime=86400)
    wait_until(lambda: store.tended >= 3)
    ours.stop()
    assert store.sweeps == 1
    assert "could not be tended" in caplog.text


def test_the_thread_ends_with_its_service():
    before = set(threads())
    service = Service(store=MemoryStore(), send_file=True)
    service.create_upload(length=4)
    (thread,) = set(threads()) - before
    service.close()
    thread.join(GUARD)
    assert not thread.is_alive()


def test_a_forked_process_gets_a_thread_of_its_own(tmp_path):
    code = """
import os, sys, threading
from tests.support.subjects import FilterSubject
subject = FilterSubject(threads=True, tmp_file_dir=sys.argv[1])
subject.create(4)
assert len([t for t in threading.enumerate() if t.name == "tus-sweeper"]) == 1
child = os.fork()
if child == 0:
    assert not [t for t in threading.enumerate() if t.name == "tus-sweeper"]
    subject.create(4)
    os._exit(0 if [t for t in threading.enumerate() if t.name == "tus-sweeper"] else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "store")]
    assert subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=GUARD).returncode == 0
