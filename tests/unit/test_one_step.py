"""A creation with its whole body: one step of the store, and no byte lost where it takes several."""

import pytest

from tests.support.subjects import PATH, AsgiSubject, FilterSubject, TrioSubject, ViewSubject
from tests.support.wsgi import call
from tus.models import State
from tus.stores.directory.store import DirectoryStore
from tus.stores.interface import SMALL


@pytest.fixture(params=[FilterSubject, ViewSubject, AsgiSubject, TrioSubject])
def subject(request, tmp_path):
    return request.param(tmp_file_dir=str(tmp_path))


@pytest.fixture
def steps(monkeypatch):
    """The names of the store's methods that are called."""
    names = []

    def noting(name, method):
        def note(self, *arguments, **others):
            names.append(name)
            return method(self, *arguments, **others)

        return note

    for name in ("create", "create_whole", "complete", "append", "open", "claim"):
        monkeypatch.setattr(DirectoryStore, name, noting(name, getattr(DirectoryStore, name)))
    return names


def test_a_small_file_is_one_step(subject, steps):
    reply = subject.create(5, body=b"hello")
    assert (reply.status, reply["Upload-Offset"]) == (201, "5")
    assert [data for _, data in subject.landed] == [b"hello"]
    assert steps == ["create_whole"]
    assert subject.record(reply["Location"]).state == State.ACCEPTED
    assert subject.offset(reply["Location"]) == 5


def test_a_file_of_the_ietf_protocol_is_one_step(subject, steps):
    """One whose client gets no interim response."""
    reply = call(subject.app, "POST", PATH, {"Upload-Complete": "?1", "Content-Type": "text/plain"}, b"hello")
    assert reply.status in (200, 201, 204)
    assert [data for _, data in subject.landed] == [b"hello"]
    assert steps == ["create_whole"]


def test_the_largest_file_of_one_step(subject, steps):
    data = bytes(range(256)) * (SMALL // 256)
    subject.create(len(data), body=data)
    subject.create(len(data) + 1, body=data + b"x")
    assert [data for _, data in subject.landed] == [data, data + b"x"]
    assert steps[0] == "create_whole"
    assert steps[1] == "create"


@pytest.mark.parametrize("came", [b"", b"hel"])
def test_the_bytes_before_a_cut_are_kept(subject, steps, came):
    reply = subject.create(5, body=came, length=5)
    assert (reply.status, steps) == (201, ["create", "open"] if came else ["create"])
    url = reply["Location"]
    assert subject.offset(url) == len(came)
    assert subject.patch(url, len(came), b"hello"[len(came) :]).status == 204
    assert [data for _, data in subject.landed] == [b"hello"]


def test_a_file_that_the_application_does_not_take_now_is_offered_again(subject, steps):
    subject.fail = "503 Busy"
    reply = subject.create(5, body=b"hello")
    assert (steps, subject.landed) == (["create_whole"], [])
    if isinstance(subject, ViewSubject):
        assert reply.status == 503  # its own response does not say where the file is
        return
    assert (reply.status, reply["Upload-Offset"]) == (201, "4")
    subject.fail = None
    assert subject.patch(reply["Location"], 4, b"o").status == 204
    assert [data for _, data in subject.landed] == [b"hello"]


def test_a_full_disk_leaves_nothing(subject, steps, tmp_path, monkeypatch):
    monkeypatch.setattr("tus.stores.directory.creation.write_at", lambda fd, offset, *blocks: 0)
    reply = subject.create(5, body=b"hello")
    assert (reply.status, reply.get("Location")) == (507, None)
    assert [path for path in tmp_path.iterdir() if len(path.stem) == 32] == []
