"""Moving a body into a store that counts late: what a client is told, and when it is counted."""

import hashlib

import pytest

from tus import Service
from tus.errors import StorageUnavailable
from tus.models import State, Upload
from tus.protocols.bodies import Body, Intake
from tus.server import reception
from tus.server.reception import Reception
from tus.stores.interface import SMALL
from tus.stores.memory import MemoryStore

pytestmark = pytest.mark.quick


class Time:
    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def time(monkeypatch):
    time = Time()
    monkeypatch.setattr(reception, "time", time)
    return time


@pytest.fixture
def store():
    return MemoryStore(counts="late")


def receive(store, watcher=None, checksums=(), length=9):
    service = Service(store=store, send_file=True, threads=False)
    upload = store.create(Upload(length=length))
    intake = Intake(0, None, length, Body(length, checksums))
    return upload, Reception(store, upload, intake, watcher, small=SMALL if service.small is None else service.small)


def test_nothing_is_told_that_is_not_counted(store, time):
    told = []
    upload, sink = receive(store, told.append)
    with sink:
        sink.write(b"abc")
        time.now += 2
        sink.write(b"def")
        assert told == [0]
        sink._session.keep()
        time.now += 2
        sink.write(b"g")
        assert told == [0, 6]
        assert sink.end(cut=True).upload.offset == 7
    assert store.load(upload.id).offset == 7


def test_a_store_that_counts_at_once_is_told_so(time):
    told = []
    _, sink = receive(MemoryStore(), told.append)
    with sink:
        time.now += 2
        sink.write(b"abc")
    assert told == [3]


def test_what_a_silent_client_has_sent_is_counted_after_a_while(store, time):
    upload, sink = receive(store)
    with sink:
        sink.write(b"abc")
        for offset in (0, 0, 3, 3):
            assert sink.is_wanted()
            assert store.load(upload.id).offset == offset
            time.now += 2.6
        sink.write(b"defghi")
        assert sink.end(cut=False).upload.state == State.COMPLETE


def test_what_is_yet_to_be_verified_is_not_counted(store, time):
    digest = hashlib.sha1(b"abcdefghi").digest()
    upload, sink = receive(store, checksums=(("sha1", digest),))
    with sink:
        sink.write(b"abc")
        time.now += 60
        assert sink.is_wanted()
        assert store.load(upload.id).offset == 0
        sink.write(b"defghi")
        assert sink.end(cut=False).upload.offset == 9


def test_a_body_that_was_replaced_is_wanted_no_more(store, time):
    upload, sink = receive(store)
    with sink:
        sink.write(b"abc")
        store.append(upload, 0, b"XYZ")
        time.now += 6
        assert not sink.is_wanted()


def test_a_store_that_cannot_count_now_says_so_at_the_end(store, time, monkeypatch):
    def fail(session):
        raise StorageUnavailable()

    upload, sink = receive(store)
    with sink:
        sink.write(b"abc")
        with monkeypatch.context() as broken:
            broken.setattr(type(sink._session), "keep", fail)
            time.now += 6
            assert sink.is_wanted()
        assert sink.end(cut=True).upload.offset == 3
    assert store.load(upload.id).offset == 3


@pytest.mark.parametrize(("small", "steps"), [(3, ["open"]), (9, ["append"]), (None, ["append"])])
def test_a_store_says_which_bodies_are_one_step(store, monkeypatch, small, steps):
    taken = []
    for name in ("open", "append"):
        method = getattr(store, name)
        monkeypatch.setattr(
            store, name, lambda *a, _name=name, _method=method, **k: (taken.append(_name), _method(*a, **k))[1]
        )
    if small is not None:
        store.small = small
    _, sink = receive(store)
    with sink:
        sink.write(b"abcdefghi")
        sink.end(cut=False)
    assert taken == steps
