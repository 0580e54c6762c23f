"""The outbox of the webhooks, with processes that race, fail and are killed."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.support.serving import ROOT
from tests.support.waiting import GUARD
from tus.errors import OptionError, StorageUnavailable
from tus.hooks import outbox as room
from tus.hooks.configured import _has_happened
from tus.hooks.outbox import Event, Outbox
from tus.hooks.webhook import Webhook
from tus.models import HookEvent, HookType, Upload
from tus.stores.directory.store import DirectoryStore

STREAM = "0" * 32


def event(number):
    return Event(f"id-{number}", "post-finish", "ab" * 16, json.dumps({"n": number}))


def numbers(told):
    return [json.loads(event.payload)["n"] for event in told]


class Box(Outbox):
    """An outbox of one process, whose time is the test's; ``down`` has the payloads that cannot be told."""

    def __init__(self, tmp_path, **how):
        self.now, self.told, self.tried, self.down = time.time(), [], [], set()
        super().__init__(str(tmp_path / "outbox"), self._tell, clock=lambda: self.now, **how)

    def _tell(self, event):
        self.tried.append(event)
        if event.payload in self.down or "all" in self.down:
            raise OSError("it is down")
        self.told.append(event)

    def fill(self, count, stream=STREAM, first=0):
        for number in range(first, first + count):
            self.put(stream, event(number))


def test_events_keep_their_order(tmp_path):
    box = Box(tmp_path)
    box.fill(12)
    box.fill(12)  # the same ones
    assert box.counts() == {"pending": 12, "aside": 0}
    box.drop(STREAM, "id-3")
    box.drop(STREAM, "unknown")
    box.drop("1" * 32, "id-4")
    assert box.flush() is None
    assert numbers(box.told) == [number for number in range(12) if number != 3]
    assert os.listdir(tmp_path / "outbox") == ["tmp"]
    assert os.listdir(tmp_path / "outbox" / "tmp") == []


def test_a_later_event_of_the_same_id_replaces_the_first(tmp_path):
    box = Box(tmp_path)
    box.fill(3)
    box.put(STREAM, Event("id-1", "post-finish", "ab" * 16, '{"n": 17}'))
    assert box.counts()["pending"] == 3
    assert (box.flush(), numbers(box.told)) == (None, [0, 17, 2])
    assert os.listdir(tmp_path / "outbox" / "tmp") == []


def test_an_event_is_void_once_the_change_of_a_later_one_has_happened(tmp_path):
    box = Box(tmp_path, has_happened=lambda event: event.id in happened)
    happened = {"id-0", "id-1"}
    box.fill(2)
    box.put(STREAM, Event("end", "post-terminate", "ab" * 16, '{"n": 2}', voids="id-1"))
    box.down = {'{"n": 0}'}
    box.flush()
    happened.add("end")  # while the first event still waits for its endpoint
    box.down, box.now = set(), box.now + room.FIRST_DELAY
    assert (box.flush(), numbers(box.told)) == (None, [0, 2])


def test_an_event_is_not_void_while_the_change_of_the_later_one_has_not_happened(tmp_path):
    box = Box(tmp_path, has_happened=lambda event: not event.voids)
    box.fill(1)
    box.put(STREAM, Event("end", "post-terminate", "ab" * 16, '{"n": 2}', voids="id-0"))
    box.flush()
    assert numbers(box.told) == [0]


def test_one_that_is_told_before_it_is_put_is_not_put_again(tmp_path, monkeypatch):
    box, sync = Box(tmp_path), room.sync_directory

    def late(path):
        if path.endswith(STREAM):
            monkeypatch.setattr(room, "sync_directory", sync)
            assert box.flush() is None
        sync(path)

    monkeypatch.setattr(room, "sync_directory", late)
    box.fill(1)
    assert (box.flush(), numbers(box.told)) == (None, [0])


def test_a_failure_holds_up_its_own_stream_only(tmp_path):
    box = Box(tmp_path)
    box.fill(3)
    box.fill(3, "1" * 32, 3)
    box.down = {event(1).payload}
    assert box.flush() == 1
    assert sorted(numbers(box.told)) == [0, 3, 4, 5]
    for pause in (1, 2, 4, 8):
        assert numbers(box.tried).count(1) == pause.bit_length()
        box.now += pause - 0.1
        Box.flush(box)
        assert numbers(box.tried).count(1) == pause.bit_length(), "too soon"
        box.now += 0.2
        box.flush()
    box.down = set()
    box.now += 16
    assert box.flush() is None
    assert [number for number in numbers(box.told) if number < 3] == [0, 1, 2]


def test_what_failed_too_often_is_put_aside(tmp_path, caplog):
    box = Box(tmp_path, attempts=3)
    box.fill(2)
    box.down = {"all"}
    for _ in range(10):
        box.flush()
        box.now += 4000
    assert (len(box.tried), box.counts()) == (3, {"pending": 2, "aside": 2})
    assert "set aside" in caplog.text
    box.down = set()
    box.fill(1, "1" * 32, 5)
    box.flush()
    assert numbers(box.told) == [5]
    assert (box.retry_aside(), box.retry_aside()) == (1, 0)
    assert box.flush() is None
    assert numbers(box.told) == [5, 0, 1]


def test_thirty_attempts_are_about_a_day():
    assert 15 < sum(map(room.delay, range(1, room.ATTEMPTS))) / 3600 < 30


def test_what_has_not_happened_is_not_told(tmp_path):
    happened = None
    box = Box(tmp_path, has_happened=lambda event: happened)
    for happened, later, told, left in (
        (None, 1000, 0, 1), (False, 0, 0, 1), (False, 50, 0, 1), (True, 0, 1, 0), (False, 59, 0, 1), (False, 61, 0, 0),
    ):  # fmt: skip
        del box.told[:]
        box.fill(1)
        box.now = time.time() + later
        for _ in range(2):
            box._not_before.clear()
            box.flush()
        assert (len(box.told), box.counts()["pending"]) == (told, left), (happened, later)


def test_what_has_happened_to_an_upload_whose_id_another_one_has(tmp_path):
    store, posted = DirectoryStore(str(tmp_path)), []
    webhook = Webhook(
        "http://127.0.0.1:9/", events=list(HookType), directory=str(tmp_path / "outbox"),
        has_happened=partial(_has_happened, store),
    )  # fmt: skip
    webhook.post = lambda payload, event_id: posted.append(event_id)
    first = store.create_once(Upload(id="c" * 32, length=1))
    store.remove(first.id)
    second = store.create_once(Upload(id="c" * 32, length=1))
    for upload in (first, second):
        webhook.queue(HookEvent(HookType.POST_TERMINATE, f"{upload.key}-post-terminate", upload, None))
    webhook.outbox._clock = lambda: time.time() + 2 * room.PATIENCE
    assert webhook.flush() == 0
    assert posted == [f"{first.key}-post-terminate"]


def test_a_stream_that_a_crash_has_left_is_forced_to_the_disk(tmp_path, monkeypatch):
    """Its process may have crashed before it did so."""
    box, synced = Box(tmp_path), []
    box.fill(1, "1" * 32)
    os.mkdir(tmp_path / "outbox" / STREAM)
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    box.fill(2)
    assert synced.count(str(tmp_path / "outbox")) == 1
    os.rmdir(tmp_path / "outbox" / "tmp")
    box.fill(1, "2" * 32)
    assert synced.count(str(tmp_path)) == 1


@pytest.mark.parametrize("damage", ["event", "state", "question", "file"])
def test_damage_holds_up_no_other_stream(tmp_path, caplog, damage):
    def has_happened(event):
        if damage == "question" and event.id == "id-1":
            raise StorageUnavailable()
        return True

    box = Box(tmp_path, has_happened=has_happened)
    box.fill(1, "1" * 32, 1)
    stream = tmp_path / "outbox" / ("1" * 32)
    if damage == "event":
        next(stream.iterdir()).write_bytes(b"")
    elif damage == "state":
        (stream / ".state").write_bytes(b"")
    elif damage == "file":
        (tmp_path / "outbox" / "a file").write_bytes(b"")
    for number in range(3, 8):
        box.fill(1, str(number) * 32, number)
    box.flush()
    assert {3, 4, 5, 6, 7} <= set(numbers(box.told))
    logged = {"event": "cannot read the event", "question": f"the events in {tmp_path}"}
    assert logged.get(damage, "") in caplog.text
    assert bool(caplog.records) == (damage in logged)


@pytest.mark.parametrize(
    "damage", ["{", "[]", "[" * 100_000, '{"id": 1}', '{"id": 1, "type": "x", "upload": "y", "payload": "z"}']
)
def test_a_damaged_event_does_not_hold_up_its_stream(tmp_path, caplog, damage):
    box = Box(tmp_path)
    box.fill(3)
    stream = tmp_path / "outbox" / STREAM
    second = sorted(stream.iterdir())[1]
    second.write_text(damage)
    assert box.flush() > 1, "something is left, and no thread is kept busy by it"
    assert numbers(box.told) == [0, 2]
    assert box.counts() == {"pending": 0, "aside": 0}
    assert [path.name for path in stream.iterdir()] == [f".damaged-{second.name}"]
    assert "cannot read the event" in caplog.text


@pytest.mark.parametrize(
    "damage", ["[]", "[" * 100_000, '{"attempts": "x"}', '{"attempts": -1}', '{"next_at": null}', '{"error": 1}']
)
def test_a_damaged_state_is_an_empty_one(tmp_path, damage):
    box = Box(tmp_path)
    box.fill(1)
    (tmp_path / "outbox" / STREAM / ".state").write_text(damage)
    (tmp_path / "outbox" / STREAM / ".state").chmod(0o600)
    assert box.counts() == {"pending": 1, "aside": 0}
    assert box.flush() is None
    assert numbers(box.told) == [0]


def name_twice_more(path):
    os.link(path, path.with_name("x"))
    os.link(path, path.with_name("y"))


@pytest.mark.parametrize("plant", [lambda path: path.chmod(0o606), name_twice_more])
def test_an_event_that_is_not_ours_is_not_delivered(tmp_path, plant):
    box = Box(tmp_path)
    box.fill(2)
    plant(min((tmp_path / "outbox" / STREAM).iterdir()))
    assert box.flush() > 1
    assert numbers(box.told) == [1]


def test_a_directory_that_others_can_write_is_refused(tmp_path):
    box = Box(tmp_path)
    box.fill(1)
    (tmp_path / "outbox").chmod(0o777)
    with pytest.raises(OptionError, match="tmp_file_dir"):
        Box(tmp_path)
    with pytest.raises(PermissionError):
        box.fill(1, first=1)
    with pytest.raises(PermissionError):
        box.flush()
    (tmp_path / "outbox").chmod(0o700)
    assert (box.flush(), numbers(box.told), os.listdir(tmp_path / "outbox" / "tmp")) == (None, [0], [])


def test_what_was_begun_long_ago_is_removed(tmp_path):
    box = Box(tmp_path)
    box.fill(1)
    for name, age in (("old", 4000), ("young", 1000)):
        draft = tmp_path / "outbox" / "tmp" / name
        draft.write_bytes(b"{")
        os.utime(draft, (time.time() - age,) * 2)
    box.start()
    assert os.listdir(tmp_path / "outbox" / "tmp") == ["young"]


# -- In processes of their own, which have no threads and may fork --


def child(work, dies_before=None):
    """Run in a fork, which kills itself before the given one of the system calls that change something.

    Returns its exit status.
    """
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    signal.alarm(GUARD)
    left = itertools.count()

    def dying(call):
        def wrapped(*arguments, **keywords):
            if next(left) == dies_before:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **keywords)

        return wrapped

    for name in ("mkdir", "link", "open", "fsync", "unlink", "rmdir", "replace"):
        setattr(os, name, dying(getattr(os, name)))
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def kill_puts(directory):
    """Kill a put before each of its steps, and once more, and then repeat it."""
    for step in range(60):
        box = Box(directory / str(step))
        os.mkdir(directory / str(step))
        box.fill(step % 2)
        ends = [child(lambda box=box: box.fill(2), fate) for fate in (step, step // 2, None)]
        assert ends[2] == 0
        assert box.flush() is None
        assert numbers(box.told) == [0, 1], step
        if not ends[0]:
            return {"kills": step}
        assert ends[0] == signal.SIGKILL
    raise AssertionError("put() has more steps than were tried")


def kill_flushes(directory):
    """Kill a flush before each of its steps, and the next one a little later, with a send that fails now and then."""
    room.FIRST_DELAY = 0
    kills, repeated, rng = 0, 0, random.Random(1)
    for step in range(100):
        os.mkdir(directory / str(step))
        log = directory / str(step) / "log"
        box = Box(directory / str(step))

        def send(event, log=log):
            if rng.random() < 0.3:
                raise OSError("now and then")
            with log.open("a") as file:
                file.write(f"{event.id}\n")

        def flush(box=box):
            while box.flush() is not None:
                pass

        box.fill(4)
        box.fill(3, "1" * 32, 10)
        box._send = send
        ends = []
        while not ends or ends[-1]:
            rng.seed(step * 100 + len(ends))
            ends.append(child(flush, (step % 30, step * 7 % 23, step % 11, None)[len(ends)]))
            assert ends[-1] in (0, signal.SIGKILL), "an endless loop, or an error"
        told = log.read_text().split()
        for ids in ([f"id-{n}" for n in range(4)], [f"id-{n}" for n in range(10, 13)]):
            assert [id for id, _ in itertools.groupby(id for id in told if id in ids)] == ids, told
        assert box.counts()["pending"] == 0
        kills += len(ends) - 1
        repeated += len(told) - 7
    return {"kills": kills, "repeated": repeated}


def flush_together(directory):
    """Several processes deliver from one outbox, while another one still puts."""
    room._BUSY = 0.002
    log = directory / "log"
    box = Box(directory)
    box.fill(1, "f" * 32, 1000)

    def send(event):
        time.sleep(0.001)
        with log.open("a") as file:
            file.write(f"{event.id} {os.getpid()}\n")

    def flush():
        box._clock, box._send = time.time, send
        while box.counts()["pending"] or not (directory / "all").exists():
            box.flush()

    def put():
        for number in range(200):
            box.fill(1, f"{number % 10:032x}", number)
        (directory / "all").touch()

    workers = []
    for work in (flush, flush, flush, flush, put):
        pid = os.fork()
        if not pid:
            signal.alarm(GUARD)
            work()
            os._exit(0)
        workers.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in workers] == [0] * 5
    told = [line.split() for line in log.read_text().splitlines()]
    for stream in range(10):
        ours = [id for id, _ in told if int(id[3:]) % 10 == stream and id != "id-1000"]
        assert ours == [f"id-{number}" for number in range(stream, 200, 10)]
    return {"told": len(told), "processes": len({pid for _, pid in told})}


def apart(work, tmp_path):
    command = [sys.executable, "-m", "tests.stores.test_outbox", work.__name__, tmp_path]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, timeout=3 * GUARD, check=True)
    return json.loads(done.stdout)


def test_a_put_that_is_killed_is_repeated_to_one_event(tmp_path):
    assert apart(kill_puts, tmp_path)["kills"] > 10


def test_a_flush_that_is_killed_loses_nothing_and_keeps_the_order(tmp_path):
    done = apart(kill_flushes, tmp_path)
    assert done["kills"] > 100
    assert done["repeated"] > 0, "no kill came between telling and taking down that it was told"


def test_many_processes_tell_each_event_once(tmp_path):
    done = apart(flush_together, tmp_path)
    assert done["told"] == 201
    assert done["processes"] > 1


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](Path(sys.argv[2]))))
