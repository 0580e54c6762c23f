"""After the application has said yes, no error of the disk changes the response, and no other client's file is made."""

import contextlib
import errno
import fcntl
import gc
import os
import tempfile

import pytest

from tests.support.clocks import later
from tests.support.subjects import SUBJECTS, AsgiSubject, FilterSubject
from tests.support.wsgi import OCTETS, TUS, call
from tus import Filter, Rejected
from tus.errors import UploadReplaced
from tus.models import Outcome, State
from tus.protocols.handover import FIRST_DELAY
from tus.stores.directory.claims import DirectoryClaim

DATA = b"hello world"
LENGTH = str(len(DATA))
IETF = {"Upload-Draft-Interop-Version": "8", "Upload-Complete": "?1"}
PARTIAL = {"Content-Type": "application/partial-upload"}


class Disk:
    """The disk, which fails from the moment when the application has the file."""

    def __init__(self, call, number, directory):
        self.call, self.number, self.directory = call, number, str(directory)
        self.patch = pytest.MonkeyPatch()

    def fail(self):
        module = fcntl if self.call == "flock" else os
        real = getattr(module, self.call)

        def call_(*arguments):
            if self.call == "close":
                real(*arguments)
            if self._is_hit(arguments):
                raise OSError(self.number, os.strerror(self.number))
            return real(*arguments)

        self.patch.setattr(module, self.call, call_)

    def _is_hit(self, arguments):
        if self.call == "flock":
            return arguments[1] & fcntl.LOCK_EX
        if self.call == "pwrite" and self.number == errno.ENOSPC:
            return any(len(name) == 32 for name in os.listdir(self.directory))  # the data takes all the room
        return True


FAILURES = [
    ("pwrite", errno.ENOSPC, True),
    ("unlink", errno.EIO, True),
    ("fdatasync", errno.EIO, True),
    ("close", errno.EIO, True),
    ("pwrite", errno.EIO, False),
    ("flock", errno.ENOLCK, False),
]


@contextlib.contextmanager
def failing_disk(subject, call_, number):
    disk = Disk(call_, number, subject.options["tmp_file_dir"])
    land = subject.land

    def land_and_fail(upload, data):
        land(upload, data)
        disk.fail()

    subject.land = land_and_fail
    try:
        yield
    finally:
        disk.patch.undo()
        del subject.land


@pytest.mark.parametrize("make", SUBJECTS)
@pytest.mark.parametrize("protocol", ["tus", "ietf"])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize(("name", "number", "is_recorded"), FAILURES)
def test_an_error_of_the_disk(tmp_path, make, protocol, method, name, number, is_recorded):
    subject = make(tmp_file_dir=str(tmp_path))
    url = subject.url(len(DATA)) if method == "PATCH" else "/files"
    headers = IETF | PARTIAL if protocol == "ietf" else TUS | OCTETS
    headers |= {"Upload-Offset": "0"} if method == "PATCH" else {"Upload-Length": LENGTH}
    with failing_disk(subject, name, number):
        reply = call(subject.app, method, url, headers, DATA)
    assert reply.status in (200, 201, 204), reply
    assert [data for _, data in subject.landed] == [DATA]
    record = subject.stored().load(subject.landed[0][0].id)
    assert record.state == (State.ACCEPTED if is_recorded else State.COMPLETE)
    assert reply.get("Location") or method == "PATCH" or protocol == "ietf"


@pytest.mark.parametrize("make", [FilterSubject, AsgiSubject])
def test_an_acceptance_of_a_creation_that_is_not_recorded_is_asked_for_again(tmp_path, make, monkeypatch):
    """The client has its success, and no request will name the URL. So the upload must not expire as an unknown one."""
    subject = make(tmp_file_dir=str(tmp_path))

    def fail(*_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patches:
        patches.setattr("tus.stores.ledger.accept", fail)
        assert subject.create(len(DATA), body=DATA).status == 201
    (upload, _), *_ = subject.landed
    record = subject.stored().load(upload.id)
    assert (record.state, record.is_known) == (State.COMPLETE, True)
    with later(FIRST_DELAY + 1):
        assert [outcome for _, outcome in subject.app.backlog.run()] == [Outcome.ACCEPTED]
    assert subject.stored().load(upload.id).state == State.ACCEPTED


@pytest.mark.parametrize("make", [FilterSubject, AsgiSubject])
@pytest.mark.parametrize(("name", "number", "is_recorded"), FAILURES)
def test_an_error_of_the_disk_without_a_client(tmp_path, make, name, number, is_recorded):
    subject = make(tmp_file_dir=str(tmp_path), handover="background")
    url = subject.url(len(DATA))
    assert subject.patch(url, 0, DATA).status == 204
    with failing_disk(subject, name, number):
        assert [outcome for _, outcome in subject.app.backlog.run()] == [Outcome.ACCEPTED]
    assert subject.record(url).state == (State.ACCEPTED if is_recorded else State.COMPLETE)
    if not is_recorded:  # it is offered again, under the same key
        assert [outcome for _, outcome in subject.app.backlog.run(everything=True)] == [Outcome.ACCEPTED]
    assert len({upload.key for upload, _ in subject.landed}) == 1


@pytest.mark.parametrize("handover", ["request", "background"])
def test_an_outbox_that_fails_after_the_acceptance(tmp_path, monkeypatch, handover):
    """The event is in it already; only the path of the saved file cannot be added."""
    saved = tmp_path / "saved"
    saved.mkdir()
    app = Filter(
        None, upload_path="/files", tmp_file_dir=str(tmp_path), threads=False, handover=handover,
        webhook="http://127.0.0.1:9/", webhook_events=["post-finish"],
        on_finished=lambda upload: (upload.save_to(saved), break_outbox()),
    )  # fmt: skip
    outbox = app.service.hooks._objects[0].outbox

    def break_outbox():
        def fail(*arguments):
            raise OSError(errno.EIO, "I/O error")

        monkeypatch.setattr(outbox, "_put", fail)

    reply = call(app, "POST", "/files", TUS | OCTETS | {"Upload-Length": LENGTH}, DATA)
    assert reply.status == 201
    upload_id = reply["Location"].rpartition("/")[2]
    if handover == "background":
        assert [outcome for _, outcome in app.backlog.run()] == [Outcome.ACCEPTED]
    assert app.service.store.load(upload_id).state == State.ACCEPTED
    assert len(os.listdir(saved)) == 1
    assert outbox.counts()["pending"] == 1
    app.service.close()


def test_an_event_that_cannot_be_dropped_does_not_change_a_rejection(tmp_path, monkeypatch):
    def reject(upload):
        monkeypatch.setattr(outbox, "drop", drop)
        raise Rejected("no cats")

    def drop(*arguments):
        raise OSError(errno.EIO, "I/O error")

    app = Filter(
        None, upload_path="/files", tmp_file_dir=str(tmp_path), threads=False, on_finished=reject,
        webhook="http://127.0.0.1:9/", webhook_events=["post-finish"],
    )  # fmt: skip
    outbox = app.service.hooks._objects[0].outbox
    assert call(app, "POST", "/files", TUS | OCTETS | {"Upload-Length": LENGTH}, DATA).status == 422
    app.service.close()


@pytest.mark.parametrize("make", [FilterSubject, AsgiSubject])
def test_a_long_response_that_cannot_be_kept_is_still_a_success(tmp_path, monkeypatch, make):
    """An IETF client gets the application's own response, which waits in a temporary file if it is long."""
    subject = make(tmp_file_dir=str(tmp_path))
    subject.answer = b"x" * (3 << 20)
    subject.fields.append(("Content-Length", str(3 << 20)))
    url = subject.url(len(DATA))

    def fail(*arguments, **words):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    headers = IETF | PARTIAL | {"Upload-Offset": "0"}
    reply = call(subject.app, "POST", "/files", IETF, DATA)
    assert (reply.status, reply.body, reply["X-App"]) == (200, b"", "was here")
    assert reply.get("Content-Length") in (None, "0")
    reply = call(subject.app, "PATCH", url, headers, DATA)
    assert reply.status in (200, 204)
    assert len(subject.landed) == 2


@pytest.mark.parametrize("name", ["accept", "release"])
def test_a_store_that_fails_in_any_way_after_the_acceptance(tmp_path, monkeypatch, name):
    subject = FilterSubject(tmp_file_dir=str(tmp_path))

    real = DirectoryClaim.release

    def fail(claim, *arguments):
        real(claim)
        raise ValueError("what no store should raise")

    monkeypatch.setattr(DirectoryClaim, "accept", fail)
    if name == "release":
        monkeypatch.setattr(DirectoryClaim, "release", fail)
    url = subject.url(len(DATA))
    assert subject.patch(url, 0, DATA).status == 204


@pytest.mark.parametrize("subject_class", SUBJECTS)
def test_a_claim_that_another_holder_has_replaced_is_released(subject_class, tmp_path, monkeypatch):
    """Without waiting for the collection of garbage, because nobody else can have the file until then."""
    subject = subject_class(tmp_file_dir=str(tmp_path))
    url = subject.url(len(DATA))

    def accept(*_):
        raise UploadReplaced()

    gc.disable()
    try:
        with monkeypatch.context() as patches:
            patches.setattr(DirectoryClaim, "accept", accept)
            assert subject.patch(url, 0, DATA).status == 423
        assert subject.record(url).state == State.COMPLETE
        assert subject.patch(url, len(DATA)).status == 204
    finally:
        gc.enable()
