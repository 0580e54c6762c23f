"""A clock that is wrong and then put right: nothing waits for years, and no upload is lost."""

import json
import os
import time

import pytest

from tests.support.clocks import Clocks
from tus import Options
from tus.errors import UploadGone
from tus.filesystem import boot
from tus.handover import backlog as backlogs
from tus.handover import spool as spools
from tus.handover import spool_entries
from tus.handover.backlog import Backlog
from tus.handover.spool import Spool, SpoolEmpty
from tus.hooks.calling import Hooks
from tus.hooks.outbox import Event, Outbox
from tus.models import Outcome, Response, State, Upload
from tus.stores.directory import clock as clocks
from tus.stores.directory.clock import Moment, has_jumped, unpack_moment
from tus.stores.directory.data_lock import LONGEST_HAND_OVER
from tus.stores.directory.store import DirectoryStore
from tus.stores.memory import MemoryStore

DAY = 86400.0
YEARS = 3650 * DAY


@pytest.fixture
def clock():
    return Clocks()


@pytest.fixture
def make(tmp_path, clock):
    def make(new_process=False, **options):
        if new_process:
            clocks._looked.clear()
            clocks._began.clear()
        return DirectoryStore(str(tmp_path), clock=clock, steady=clock.steady, lifetime=DAY, **options)

    return make


def received(store, **fields):
    return store.append(store.create(Upload(length=9, **fields)), 0, b"abc")


# -- Expiry --


@pytest.mark.parametrize("new_process", [False, True])
def test_a_clock_that_is_fast_for_a_while_removes_nothing(make, clock, new_process):
    store = make()
    upload = received(store)
    store.sweep()
    clock.wait(600)
    clock.now += 2 * DAY
    store = make(new_process)
    assert store.sweep() == 0
    clock.wait(600)
    assert store.sweep() == 0, "it lives as long as if it got a byte at the first look"
    clock.now -= 2 * DAY
    assert store.sweep() == 0
    clock.wait(DAY / 2)
    assert store.sweep() == 0
    assert store.load(upload.id).offset == 3
    clock.wait(2 * DAY)
    assert store.sweep() == 1, "but it does not live for ever"


def test_before_the_first_sweep_a_process_knows_when_it_began(make, clock):
    store = make()
    upload = received(store)
    clock.now += 2 * DAY
    assert make().sweep() == 0
    assert store.load(upload.id)


def test_an_upload_expires_if_only_time_has_passed(make, clock):
    store = make()
    received(store)
    store.sweep()
    clock.wait(2 * DAY)
    assert make(new_process=True).sweep() == 1


def test_a_creation_with_the_same_id_removes_nothing_after_a_jump(make, clock):
    store = make()
    upload = received(store, id="a" * 32)
    clock.now += 2 * DAY
    assert store.create_once(Upload(id="a" * 32, length=1)) is None
    assert store.load(upload.id).offset == 3


def test_an_upload_of_a_fast_clock_does_not_live_for_years(make, clock):
    store = make()
    clock.now += YEARS
    uploads = [received(store), store.create(Upload(length=9))]
    claim = store.claim(store.append(store.create(Upload(length=3)), 0, b"abc"))
    claim.accept()
    clock.now -= YEARS
    store.sweep()
    clock.wait(60)
    store.sweep()
    for upload in [*uploads, claim.upload]:
        assert store.load(upload.id).expires_at <= clock.now + DAY
    clock.wait(DAY + 1)
    assert store.sweep() == 3


def test_an_upload_may_have_a_longer_life_from_its_creation_on(make, clock):
    store = make()
    upload = store.create(Upload(length=9, expires_at=clock.now + 30 * DAY))
    store.sweep()
    clock.wait(29 * DAY)
    store.sweep()
    assert store.load(upload.id).expires_at == clock.now + DAY


def test_after_a_restart_the_clock_may_not_be_set_yet(make, clock):
    store = make()
    received(store)
    store.sweep()
    clock.now, clock.up = clock.now + 2 * DAY, 30.0
    store = make(new_process=True, boot=b"another".ljust(16))
    assert store.sweep() == 0
    clock.wait(2 * DAY)
    assert store.sweep() == 1


def test_after_a_restart_long_ago_the_clock_is_right(make, clock):
    store = make()
    received(store)
    store.sweep()
    clock.now, clock.up = clock.now + 2 * DAY, clocks.SETTLED + 1
    assert make(new_process=True, boot=b"another".ljust(16)).sweep() == 1


@pytest.mark.parametrize(
    ("passed", "shown", "expected"),
    [(0, 0, False), (0, 59, False), (0, 61, True), (0, -61, True), (DAY, DAY, False), (DAY, DAY + 140, False)]
    + [(DAY, DAY + 160, True), (DAY, 0, True)],
)
def test_when_a_clock_has_jumped(passed, shown, expected):
    assert has_jumped(Moment(1000.0, 500.0, "a"), Moment(1000.0 + shown, 500.0 + passed, "a")) is expected


def test_a_moment_that_was_not_stored():
    assert not has_jumped(None, Moment(0.0, 0.0, ""))
    assert unpack_moment([1.5, 2, "ab"]) == Moment(1.5, 2, "ab")
    for packed in (None, [], [1.5, "x", "ab"], {"now": 1}, [1.5, 2.5, "ab", 1]):
        assert unpack_moment(packed) is None


def test_the_clock_of_the_machine_is_compared_by_default(tmp_path):
    store = DirectoryStore(str(tmp_path))
    assert store._policy.steady is boot.uptime
    store.sweep()
    (path,) = [path for path in tmp_path.iterdir() if "sweeper" in path.name]
    assert unpack_moment(json.loads(path.read_bytes())["looked_at"]).boot == boot.boot_id().hex()
    assert store.statistics() is not None


# -- The hand-over --


def test_data_that_is_being_moved_away_was_not_missing_for_years(make, clock):
    store = make()
    claim = store.complete(store.create(Upload(length=3)), 0, b"abc")
    os.unlink(claim.upload.path)
    claim._close()  # the process is killed
    clock.now -= LONGEST_HAND_OVER / 2
    with pytest.raises(UploadGone):
        store.load(claim.upload.id)


def test_a_file_that_a_fast_clock_has_postponed_is_offered_now(monkeypatch):
    store = MemoryStore(clock=lambda: backlogs.time.time())
    answers = [Response(500, "No"), Response(200, "OK")]
    backlog = Backlog(store, Options.build(tmp_file_dir="/x", upload_path="/f"), lambda claim: answers.pop(0), Hooks())
    real = backlogs.time.time
    with monkeypatch.context() as wrong:
        wrong.setattr(backlogs.time, "time", lambda: real() + YEARS)
        upload = store.append(store.create(Upload(length=3, service="/f")), 0, b"abc")
        assert backlog.hand_over(upload) == Outcome.POSTPONED
        backlog.add(store.load(upload.id))
    assert backlog.next_due(0) == upload.id
    backlog.look()
    assert backlog.next_due(0) == upload.id
    assert [outcome for _, outcome in backlog.run()] == [Outcome.ACCEPTED]


def test_an_event_that_a_fast_clock_has_postponed_is_delivered_now(tmp_path):
    clock, sent = Clocks(), []

    def fail(event):
        raise ConnectionError

    event = Event("e", "post-finish", "u", "{}")
    first = Outbox(str(tmp_path / "box"), fail, clock=clock)
    clock.now += YEARS
    first.put("a" * 32, event)
    assert 0 < first.flush() <= 60
    clock.now -= YEARS
    assert Outbox(str(tmp_path / "box"), sent.append, clock=clock).flush() is None
    assert sent == [event]
    first.put("a" * 32, event)
    first._send = sent.append
    assert first.flush() is None, "in the same process too"


def test_an_event_from_the_future_is_not_waited_for(tmp_path):
    clock = Clocks()
    box = Outbox(str(tmp_path / "box"), lambda event: None, lambda event: False, clock=clock)
    box.put("a" * 32, Event("e", "post-finish", "u", "{}"))
    assert clock.now < os.stat(tmp_path / "box").st_mtime  # the files have the time of the machine
    assert box.flush() is None
    assert box.counts()["pending"] == 0


def test_a_file_that_a_fast_clock_has_postponed_is_claimed_now(tmp_path, monkeypatch):
    spool = Spool(str(tmp_path / "spool"))
    data = tmp_path / "data"
    data.write_bytes(b"abc")
    spool.put(Upload(id="b" * 32, offset=3, length=3, path=str(data), state=State.COMPLETE), "c" * 32)
    real = spools.time.time
    with monkeypatch.context() as wrong:
        wrong.setattr(spools.time, "time", lambda: real() + YEARS)
        with pytest.raises(RuntimeError), spool.claim(1):
            raise RuntimeError
        with pytest.raises(SpoolEmpty):
            spool._claim_oldest() or _empty()
    for again in (spool, Spool(str(tmp_path / "spool"))):
        with pytest.raises(RuntimeError), again.claim(0):
            raise RuntimeError
        record = tmp_path / "spool" / "new" / ("c" * 32) / "upload.json"
        fields = json.loads(record.read_text())
        assert fields["not_before"] < real() + 2 * spool_entries.LONGEST_DELAY
        record.write_text(json.dumps(fields | {"not_before": real() + YEARS}))


def _empty():
    raise SpoolEmpty


# -- Boots --


def test_the_id_of_an_unknown_boot_is_the_same_in_each_process(monkeypatch, caplog):
    """As in a service that cannot read /proc/sys; else each process would take the bytes of the others for lost."""
    monkeypatch.setattr(boot, "_linux_id", lambda: None)
    monkeypatch.setattr(boot, "_sysctl_id", lambda: None)
    found = boot.boot_id.__wrapped__()
    assert found == boot.boot_id.__wrapped__()
    assert len(found) == boot.ID_SIZE
    assert "no id of its boot" in caplog.text


def test_an_upload_that_ended_with_its_boot_stays_while_its_record_changes(tmp_path):
    """A server that knows another boot may write to it; see tus clean from a shell."""
    store = DirectoryStore(str(tmp_path), boot=b"b" * boot.ID_SIZE)
    upload = store.create(Upload(length=6, protocol="ietf"))
    upload = store.append(upload, 0, b"abc")
    elsewhere = DirectoryStore(str(tmp_path), boot=b"c" * boot.ID_SIZE)
    with pytest.raises(UploadGone):
        elsewhere.load(upload.id)
    assert elsewhere.sweep() == 0
    assert store.append(upload, 3, b"def").is_complete
    old = (tmp_path / f"{upload.id}.tus").stat().st_mtime - 2 * DAY
    other = store.append(store.create(Upload(length=6, protocol="ietf")), 0, b"abc")
    os.utime(tmp_path / f"{other.id}.tus", (old, old))
    elsewhere.sweep()
    assert not (tmp_path / f"{other.id}.tus").exists()
    assert (tmp_path / upload.id).exists()


@pytest.mark.parametrize("wrong", [2 * DAY, -2 * DAY])
def test_a_wrong_clock_removes_no_upload_that_ended_with_its_boot(tmp_path, clock, monkeypatch, wrong):
    """A process in a container may know another boot than the server, whose upload goes on."""
    clock.now = time.time()
    monkeypatch.setattr(time, "time", clock)

    def opened(boot):
        return DirectoryStore(str(tmp_path), clock=clock, steady=clock.steady, lifetime=DAY, boot=boot * 16)

    store, elsewhere = opened(b"b"), opened(b"c")
    upload = store.append(store.create(Upload(length=6, protocol="ietf")), 0, b"abc")
    elsewhere.sweep()
    clock.wait(600)
    clock.now += wrong
    elsewhere.sweep()
    assert store.append(upload, 3, b"def").is_complete


def test_an_upload_that_ended_with_its_boot_does_not_stay_for_years(tmp_path):
    store = DirectoryStore(str(tmp_path), boot=b"b" * boot.ID_SIZE)
    upload = store.append(store.create(Upload(length=6, protocol="ietf")), 0, b"abc")
    elsewhere, sidecar, now = DirectoryStore(str(tmp_path), boot=b"c" * boot.ID_SIZE), f"{upload.path}.tus", time.time()
    os.utime(sidecar, (now + YEARS, now + YEARS))
    elsewhere.sweep()
    assert now - 60 < os.stat(sidecar).st_mtime < now + DAY, "it stays as if it had changed now"
    os.utime(sidecar, (now - 2 * DAY, now - 2 * DAY))
    elsewhere.sweep()
    assert not os.path.lexists(upload.path)


# -- Uploads of other services --


def test_uploads_of_another_service_do_not_fill_the_list(monkeypatch):
    """It is away, and its uploads wait longest."""
    monkeypatch.setattr(backlogs, "MOST", 2)
    store = MemoryStore()
    for name in ["gone"] * 3 + ["here"]:
        upload = store.create(Upload(length=1, service=name))
        last = store.append(upload, 0, b"a")
    options = Options.build(tmp_file_dir="/x", upload_path="/f", name="here")
    backlog = Backlog(store, options, lambda claim: Response(204, "No Content"), Hooks())
    backlog.look()
    assert list(backlog._due_at) == [last.id]
