"""The hand-over: what an application's answer does, what the client hears, and who asks again."""

import contextlib
import os
import threading
import time
from dataclasses import replace

import pytest
from webob import Request

from tests.support.descriptors import opened_below
from tests.support.documents import blocks, moved
from tests.support.subjects import PATH, REJECTS, AsgiSubject, FilterSubject, ViewSubject
from tests.support.waiting import GUARD, wait_until
from tests.support.wsgi import OCTETS, TUS, call
from tus import Filter, Options, Rejected, Tus, Upload, WebobAdapter
from tus.errors import OptionError, UploadGone, UploadLocked, UploadNotFound
from tus.models import Origin, Outcome, Response, State
from tus.protocols.effects import Offered
from tus.protocols.handover import delay, due_at, goes_aside, outcome_of
from tus.stores.directory.claims import DirectoryClaim
from tus.stores.directory.quota import Limits
from tus.stores.directory.store import DirectoryStore
from tus.stores.memory import MemoryStore
from tus.testing import Clock

DATA = b"hello world"
LENGTH = len(DATA)


@pytest.fixture(params=[FilterSubject, AsgiSubject])
def subject(request, tmp_path):
    return request.param(tmp_file_dir=str(tmp_path))


def final_of(parts):
    return {"Upload-Concat": f"final;{' '.join(parts)}"}


def record(subject, url):
    """How the upload stands, from the disk."""
    return subject.stored().load(url.rpartition("/")[2])


def backlog(subject):
    return subject.app.backlog


def filled(subject, **how):
    """An upload whose last byte has come, and the reply to that."""
    url = subject.url(LENGTH)
    return url, subject.patch(url, 0, DATA, **how)


# -- What an answer means -----------------------------------------------------------------------------------------

#: Each 4xx below is what some framework answers by itself: for a Host, a token, a size or a type that it does not like.
NOT_NOW = ("302 Found", "303 See Other", "400 Bad Request", "401 Unauthorized", "403 Forbidden", "404 Not Found",
           "405 Method Not Allowed", "409 Conflict", "410 Gone", "413 Content Too Large", "415 Unsupported Media Type",
           "422 Unprocessable Content", "423 Locked", "429 Too Many Requests", "500 Internal Server Error",
           "503 Service Unavailable")  # fmt: skip
NO = ("400 Bad Request", "403 Forbidden", "410 Gone", "413 Content Too Large", "415 Unsupported Media Type",
      "422 Unprocessable Content")  # fmt: skip


@pytest.mark.parametrize("status", NOT_NOW)
def test_not_now(subject, status):
    subject.fail = status
    url, reply = filled(subject)
    code = int(status[:3])
    # A client that hears another 4xx than these gives up; and a redirection of a PATCH leads nowhere.
    assert reply.status == code
    kept = record(subject, url)
    assert (kept.state, kept.attempts) == (State.COMPLETE, 1)
    assert kept.error.startswith(f"the response was {code} ")
    assert subject.offset(url) == LENGTH - 1
    subject.fail = None
    reply = subject.patch(url, LENGTH - 1, DATA[-1:])
    assert (reply.status, reply["Upload-Offset"], reply["X-App"]) == (204, str(LENGTH), "was here")
    assert [(upload.key, upload.attempts, data) for upload, data in subject.landed] == [(kept.key, 2, DATA)]


@pytest.mark.parametrize("status", NO)
def test_no(subject, status):
    subject.fail = status
    subject.fields.append(REJECTS)
    url, reply = filled(subject)
    assert (reply.status, reply.body, reply.get("Tus-Outcome")) == (int(status[:3]), b"the application's answer", None)
    subject.fail = None
    subject.landed.clear()
    for offset, body in ((LENGTH - 1, DATA[-1:]), (LENGTH, b""), (0, DATA)):
        again = subject.patch(url, offset, body)
        assert (again.status, again.body, again["X-App"]) == (reply.status, reply.body, "was here")
    assert subject.offset(url) == LENGTH - 1, "or the client would take it for success"
    assert list(backlog(subject).run(everything=True)) == []
    assert subject.landed == [], "nobody is asked again"
    assert record(subject, url).state == State.REJECTED


@pytest.mark.parametrize("status", ["200 OK", "302 Found", "409 Conflict", "423 Locked", "500 Internal Server Error"])
def test_a_rejection_is_never_taken_for_success_nor_retried(subject, status):
    subject.fail = status
    subject.fields.append(("TUS-outcome", " Rejected "))
    url, reply = filled(subject)
    assert (reply.status, reply.get("Tus-Outcome")) == (422, None)
    assert record(subject, url).state == State.REJECTED


def test_another_word_in_that_field_says_nothing(subject):
    subject.fields.append(("Tus-Outcome", "later"))
    subject.fail = "422 Unprocessable Content"
    assert record(subject, filled(subject)[0]).state == State.COMPLETE


def test_a_file_that_a_framework_refuses_is_set_aside_at_the_end_and_never_removed(tmp_path):
    subject = FilterSubject(tmp_file_dir=str(tmp_path), handover_attempts=3, upload_valid_duration=1)
    subject.fail = "400 Bad Request"
    url, _ = filled(subject)
    for _ in range(3):
        list(backlog(subject).run(everything=True))
    kept = record(subject, url)
    assert (kept.is_aside, kept.attempts, kept.expires_at is None or not kept.has_expired(1e12)) == (True, 4, True)
    assert (tmp_path / kept.id).read_bytes() == DATA
    subject.fail = None
    assert [outcome for _, outcome in backlog(subject).run(everything=True)] == [Outcome.ACCEPTED]


def test_the_statuses_are_an_option(tmp_path):
    subject = FilterSubject(tmp_file_dir=str(tmp_path), reject_statuses="404")
    subject.fail = "404 Not Found"
    assert record(subject, filled(subject)[0]).state == State.REJECTED
    subject.fail = "403 Forbidden"
    assert record(subject, filled(subject)[0]).state == State.COMPLETE
    for bad in ("409", "423", "302", "500"):
        with pytest.raises(OptionError):
            Options.build(tmp_file_dir=str(tmp_path), reject_statuses=bad)


def test_an_exception(subject, caplog):
    subject.fail = RuntimeError("a bug at /srv/app.py")
    url, reply = filled(subject)
    assert reply.status == 500
    assert b"/srv" not in reply.body
    assert reply["Tus-Resumable"] == "1.0.0"
    assert "RuntimeError" in caplog.text, "whoever runs the application sees where"
    assert record(subject, url).error == "RuntimeError: a bug at /srv/app.py"


@pytest.mark.parametrize(
    "body",
    [lambda: iter([b"a", *[1 / 0 for _ in "x"]]), lambda: (1 / (number - 1) for number in range(3)), lambda: Closes()],
    ids=["at once", "in its iterable", "in close"],
)
def test_a_success_that_is_not_produced_to_its_end(tmp_path, body):
    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return body()

    subject = FilterSubject(tmp_file_dir=str(tmp_path))
    subject.app = Filter(application, **{"upload_path": PATH} | subject.options)
    url, reply = filled(subject, validate=False)
    assert (reply.status, subject.offset(url)) == (500, LENGTH - 1)
    assert "Error" in record(subject, url).error


class Closes:
    """A response that fails when it is all sent."""

    def __iter__(self):
        return iter([b"done"])

    def close(self):
        raise RuntimeError("the transaction could not be committed")


def test_rejected_by_an_exception(subject):
    subject.fail = Rejected("This is no picture.", 415)
    url, reply = filled(subject)
    assert (reply.status, reply.body) == (415, b"This is no picture.\n")
    assert record(subject, url).state == State.REJECTED
    for status in (409, 423, 500, 302):
        with pytest.raises(ValueError, match="4xx"):
            Rejected("", status)


def test_what_is_rejected_is_kept_for_a_while(tmp_path):
    subject = FilterSubject(tmp_file_dir=str(tmp_path), rejected_keep=50, reject_statuses="415")
    subject.fail = "415 Unsupported Media Type"
    url, _ = filled(subject)
    kept = record(subject, url)
    assert kept.expires_at - time.time() == pytest.approx(50, abs=5)
    assert (tmp_path / kept.id).read_bytes() == DATA, "for a person to look at"


def test_outcomes():
    def outcomes(upload, statuses=range(100, 600), **chosen):
        options = Options.build(tmp_file_dir="/tmp", **chosen)
        said = {status: outcome_of(Offered(Response(status, "")), upload, options)[0] for status in statuses}
        return {outcome: {status for status in said if said[status] == outcome} for outcome in Outcome}

    found = outcomes(Upload())
    assert (found[Outcome.ACCEPTED], found[Outcome.REJECTED]) == (set(range(200, 300)), set())
    found = outcomes(Upload(protocol="ietf", origin=Origin("http://localhost/files")), reject_statuses="404, 422")
    assert (found[Outcome.ACCEPTED], found[Outcome.REJECTED]) == ({*range(200, 300), 303}, {404, 422})


# -- After acceptance ---------------------------------------------------------------------------------------------


def test_the_last_patch_repeated_is_409_and_an_empty_one_has_the_same_answer(subject):
    """The offset is wrong, whatever the bytes. A client that asks for the offset then finds that it has succeeded."""
    url, reply = filled(subject)
    for offset, body in ((0, DATA), (0, DATA.upper()), (5, DATA[5:]), (LENGTH - 1, DATA[-1:]), (0, DATA[:5])):
        for chunked in (False, True):
            again = subject.patch(url, offset, body, chunked=chunked)
            assert (again.status, again["Upload-Offset"]) == (409, str(LENGTH))
    assert subject.offset(url) == LENGTH
    again = subject.patch(url, LENGTH)
    assert (again.status, again.header_list) == (reply.status, reply.header_list)
    assert len(subject.landed) == 1


def test_the_byte_that_was_withheld_has_the_same_answer(subject):
    """HEAD has reported this offset after the failed attempt; the acceptance may come between HEAD and the PATCH."""
    subject.fail = "503 Service Unavailable"
    url, _ = filled(subject)
    subject.fail = None
    assert subject.offset(url) == LENGTH - 1
    reply = subject.patch(url, LENGTH - 1, DATA[-1:])
    again = subject.patch(url, LENGTH - 1, DATA[-1:])
    assert (again.status, again.header_list) == (reply.status, reply.header_list)
    assert len(subject.landed) == 1
    assert subject.patch(url, LENGTH - 2, DATA[-2:]).status == 409
    assert subject.patch(url, LENGTH - 1, DATA[-2:]).status in (409, 413)


def test_the_record_goes_after_a_while(tmp_path):
    subject = FilterSubject(tmp_file_dir=str(tmp_path), completed_keep=0)
    url, reply = filled(subject)
    assert reply.status == 204
    assert subject.head(url).status in (404, 410)


# -- The byte that comes once more --------------------------------------------------------------------------------


def test_the_byte_is_compared(subject):
    subject.fail = "503 Service Unavailable"
    url, _ = filled(subject)
    subject.fail = None
    reply = subject.patch(url, LENGTH - 1, b"?")
    assert reply.status == 400
    assert b"another file" in reply.body
    wrong = {"Upload-Checksum": "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0="}
    assert subject.patch(url, LENGTH - 1, DATA[-1:], wrong).status == 460
    assert subject.patch(url, LENGTH - 1, b"d?").status == 413
    assert subject.patch(url, LENGTH - 1, b"d?", chunked=True).status == 413
    assert subject.patch(url, 0, DATA)["Upload-Offset"] == str(LENGTH - 1)
    assert subject.patch(url, LENGTH, b"", {"Upload-Length": "3"}).status == 400
    cut = subject.patch(url, LENGTH - 1, b"", length=1)
    assert (cut.status, cut["Upload-Offset"]) == (204, str(LENGTH - 1))
    assert subject.landed == []
    assert (subject.patch(url, LENGTH - 1, b"d", chunked=True).status, len(subject.landed)) == (204, 1)


def test_an_empty_patch_asks_again(subject):
    subject.fail = "503 Service Unavailable"
    url, _ = filled(subject)
    assert subject.patch(url, LENGTH).status == 503
    subject.fail = None
    assert subject.patch(url, LENGTH).status == 204
    assert [upload.attempts for upload, _ in subject.landed] == [3]


def test_the_application_sees_the_request_that_asks_again(subject):
    subject.fail = "401 Unauthorized"
    url, _ = filled(subject, environ={"HTTP_COOKIE": "session=old"})
    assert subject.environ["HTTP_COOKIE"] == "session=old"
    subject.fail = None
    subject.patch(url, LENGTH - 1, b"d", environ={"HTTP_COOKIE": "session=new"})
    assert subject.environ["HTTP_COOKIE"] == "session=new"
    assert subject.environ["tus.handover"] == "request"


def test_while_the_application_has_it(subject):
    url = subject.url(LENGTH)
    seen = []

    class Looks(FilterSubject):
        def land(self, upload, data):
            for method, offset in (("HEAD", None), ("PATCH", LENGTH - 1), ("PATCH", LENGTH), ("DELETE", None)):
                headers = OCTETS | {"Upload-Offset": str(offset)} if offset else {}
                body = DATA[-1:] if offset == LENGTH - 1 else b""
                reply = call(subject.app, method, url, TUS | headers, body)
                seen.append((method, reply.status, int(reply["Retry-After"]) > 0))

    looks = Looks(**subject.options)
    assert looks.patch(url, 0, DATA).status == 204
    assert seen == [("HEAD", 423, True), ("PATCH", 423, True), ("PATCH", 423, True), ("DELETE", 423, True)]
    assert record(subject, url).state == State.ACCEPTED


# -- Uploads that a POST completes --------------------------------------------------------------------------------


def test_created_with_all_its_data(subject):
    subject.fail = "503 Service Unavailable"
    reply = subject.create(LENGTH, body=DATA)
    assert (reply.status, reply["Upload-Offset"]) == (201, str(LENGTH - 1))
    subject.fail = None
    assert subject.patch(reply["Location"], LENGTH - 1, DATA[-1:]).status == 204
    assert [data for _, data in subject.landed][-1] == DATA


def test_created_without_a_byte(subject, tmp_path):
    subject.fail = "503 Service Unavailable"
    reply = subject.create(0)
    assert reply.status == 503
    assert reply.get("Location") is None
    assert not [name for name in tmp_path.iterdir() if len(name.name) == 32], "it is dropped"
    subject.fail = None
    assert subject.create(0).status == 201


def test_created_without_a_length(subject):
    """There is no byte to spare where an upload turns out to be empty."""
    subject.fail = "503 Service Unavailable"
    url = subject.url()
    assert subject.patch(url, 0, b"", {"Upload-Length": "0"}).status == 503
    reply = subject.head(url)
    assert (reply["Upload-Offset"], reply.get("Upload-Length"), reply["Upload-Defer-Length"]) == ("0", None, "1")
    subject.fail = None
    assert subject.patch(url, 0, b"", {"Upload-Length": "0"}).status == 204
    assert subject.head(url)["Upload-Length"] == "0"


@pytest.fixture
def parts(subject):
    urls = []
    for body in (DATA[:5], DATA[5:]):
        urls.append(subject.url(len(body), {"Upload-Concat": "partial"}))
        assert subject.patch(urls[-1], 0, body).status == 204
    return urls


def test_partial_uploads_are_not_handed_over(subject, parts):
    assert subject.landed == []
    assert list(backlog(subject).run(everything=True)) == []
    assert [subject.offset(url) for url in parts] == [5, 6]


def test_a_final_post_repeated_finds_what_it_made(subject, parts):
    subject.fail = "503 Service Unavailable"
    how = final_of(parts)
    reply = subject.send("POST", PATH, how)
    assert (reply.status, reply.get("Location")) == (503, None)
    subject.fail = None
    key = subject.environ["tus.upload"].key
    reply = subject.send("POST", PATH, how)
    assert reply.status == 201
    assert [(upload.key, upload.attempts, data) for upload, data in subject.landed] == [(key, 2, DATA)]
    assert subject.send("POST", PATH, how)["Location"] == reply["Location"]
    assert len(subject.landed) == 1, "after acceptance it runs nothing"


class Died(BaseException):
    """The process dies here."""


def crash(subject, request):
    """Send a request over which the process dies while the application has the file."""
    subject.fail = Died()
    with pytest.raises(Died):
        request()
    subject.fail.__traceback__ = None  # which holds on to the claim, that a process would take with it
    subject.fail = None
    subject.landed.clear()


@pytest.mark.parametrize("kind", ["data", "nothing", "final"])
def test_what_no_client_was_told_of_is_not_handed_over_alone(subject, parts, kind, tmp_path):
    requests = {
        "data": lambda: subject.create(LENGTH, body=DATA),
        "nothing": lambda: subject.create(0),
        "final": lambda: subject.send("POST", PATH, final_of(parts)),
    }
    crash(subject, requests[kind])
    store = subject.stored()
    (left,) = [upload for upload in store.list() if upload.is_pending]
    assert not left.is_known
    assert list(backlog(subject).run(everything=True)) == []
    assert left.has_expired(left.expires_at), "so it does not stay for ever"
    assert requests[kind]().status == 201  # the client begins again
    assert len(subject.landed) == 1
    if kind == "final":
        assert subject.landed[0][0].id == left.id


def test_what_a_client_asks_for_is_known(subject):
    subject.fail = "503 Service Unavailable"
    reply = subject.create(LENGTH, body=DATA)
    assert not record(subject, reply["Location"]).is_known
    subject.patch(reply["Location"], LENGTH - 1, DATA[-1:])
    assert record(subject, reply["Location"]).is_known
    subject.fail = None
    ((left, outcome),) = backlog(subject).run(everything=True)
    assert outcome == Outcome.ACCEPTED
    assert left.attempts == 2


# -- Without a client ---------------------------------------------------------------------------------------------


def test_a_crash_is_made_good_without_the_client(subject):
    url = subject.url(LENGTH)
    crash(subject, lambda: subject.patch(url, 0, DATA))
    kept = record(subject, url)
    assert (kept.state, kept.attempts) == (State.COMPLETE, 1)
    assert subject.offset(url) == LENGTH - 1
    ((upload, outcome),) = backlog(subject).run(everything=True)
    assert (upload.id, outcome) == (kept.id, Outcome.ACCEPTED)
    assert [data for _, data in subject.landed] == [DATA]
    assert subject.landed[0][0].key == kept.key
    assert subject.patch(url, LENGTH - 1, DATA[-1:]).status == 204, "the client hears of it"
    assert len(subject.landed) == 1


def test_what_the_application_sees_without_a_client(tmp_path):
    subject = FilterSubject(tmp_file_dir=str(tmp_path), authorize="tests.unit.test_handover:name")
    url = subject.url(LENGTH)
    secrets = {"HTTP_COOKIE": "a=b", "HTTP_AUTHORIZATION": "Basic eA==", "REMOTE_ADDR": "192.0.2.1"}
    crash(subject, lambda: subject.patch(url, 0, DATA, environ=secrets | {"SCRIPT_NAME": "", "SERVER_NAME": "host"}))
    list(backlog(subject).run(everything=True))
    environ = subject.environ
    assert environ["tus.handover"] == "background"
    assert not environ.keys() & secrets.keys()
    assert (environ["REQUEST_METHOD"], environ["PATH_INFO"]) == ("PATCH", url.removeprefix("http://localhost"))
    assert environ["SERVER_NAME"] == "host"
    assert environ["tus.upload"].principal == "ann"


def name(request, intent, upload):
    """The principal in a test."""
    return "ann"


def test_a_limit_and_then_aside(tmp_path):
    subject = FilterSubject(tmp_file_dir=str(tmp_path), handover_attempts=3)
    subject.fail = "503 Service Unavailable"
    url, _ = filled(subject)
    for _ in range(2):
        list(backlog(subject).run(everything=True))
    kept = record(subject, url)
    assert (kept.is_aside, kept.attempts, kept.state) == (True, 3, State.COMPLETE)
    assert due_at(kept, Options.build(**subject.options), time.time()) is None
    assert not kept.can_expire
    store = subject.stored()
    store.sweep()
    assert (store.statistics().pending, store.statistics().aside) == (1, 1)
    subject.fail = None
    assert subject.patch(url, LENGTH - 1, DATA[-1:]).status == 204, "its client can have it asked all the same"


def test_delays():
    options = Options.build(tmp_file_dir="/tmp", handover_attempts=3)
    assert [delay(attempts) for attempts in (1, 2, 3, 9, 10, 1000)] == [10, 20, 40, 2560, 3600, 3600]
    pending = Upload(id="0" * 32, offset=1, length=1, state=State.COMPLETE, since=100.0)
    assert due_at(pending, options, 1000.0) == 110
    failed = Upload(id="0" * 32, offset=1, length=1, state=State.COMPLETE, since=100.0, attempts=2)
    assert due_at(failed, options, 1000.0) == 120
    background = Options.build(tmp_file_dir="/tmp", handover="background")
    assert due_at(pending, background, 1000.0) == 100
    assert due_at(pending, Options.build(tmp_file_dir="/tmp", handover_attempts=0), 1000.0) is None
    assert [goes_aside(attempts, options) for attempts in (2, 3, 4)] == [False, True, True]
    for others in ({"state": State.ACCEPTED}, {"state": State.REJECTED}, {"concat": "partial"}, {"is_known": False}):
        fields = {"state": State.COMPLETE, "since": 1.0} | others
        assert due_at(Upload(id="0" * 32, offset=1, length=1, **fields), options, 1000.0) is None
    assert due_at(replace(failed, since=1e9), options, 1000.0) == 1000, "a clock was wrong, so it is due now"


def test_beside_the_requests(tmp_path, monkeypatch):
    """The thread of a process offers what has failed here, and what it finds."""
    monkeypatch.setattr("tus.protocols.handover.FIRST_DELAY", 0.05)
    subject = FilterSubject(tmp_file_dir=str(tmp_path))  # a process that dies leaves no threads
    left = subject.url(LENGTH)
    crash(subject, lambda: subject.patch(left, 0, DATA))
    subject = FilterSubject(tmp_file_dir=str(tmp_path), threads=True)
    subject.fail = "503 Service Unavailable"
    url, _ = filled(subject)
    wait_until(lambda: record(subject, url).attempts > 2)
    subject.fail = None
    wait_until(lambda: {record(subject, one).state for one in (url, left)} == {State.ACCEPTED})
    assert subject.offset(url) == LENGTH


def test_no_thread_where_threads_do_not_run(tmp_path):
    def backlogs():
        return {thread for thread in threading.enumerate() if thread.name == "tus-backlog"}

    subject = FilterSubject(tmp_file_dir=str(tmp_path), threads=True, handover_attempts=0)
    before = backlogs()
    filled(subject)
    assert backlogs() <= before
    subject = FilterSubject(tmp_file_dir=str(tmp_path), threads=True)
    alone = {"environ": {"wsgi.multithread": False}}
    assert subject.patch(subject.url(LENGTH, **alone), 0, DATA, **alone).status == 204
    assert backlogs() <= before
    before = set(threading.enumerate())
    subject = FilterSubject(tmp_file_dir=str(tmp_path), threads=False)
    filled(subject)
    assert set(threading.enumerate()) <= before


def test_in_the_background(tmp_path):
    subject = FilterSubject(tmp_file_dir=str(tmp_path), threads=True, handover="background")
    hold = threading.Event()
    subject.land = lambda upload, data: (hold.wait(GUARD), subject.landed.append((upload, data)))
    url, reply = filled(subject)
    assert (reply.status, reply.get("X-App")) == (204, None)
    assert subject.offset(url) == LENGTH, "the client may go"
    wait_until(lambda: record(subject, url).state == State.HANDING_OVER)
    assert subject.patch(url, LENGTH, b"").status == 204, "whoever takes it just now is no reason to come again"
    created = subject.create(LENGTH, body=DATA)
    assert (created.status, created["Upload-Offset"]) == (201, str(LENGTH))
    assert subject.create(0).status == 201
    hold.set()
    wait_until(lambda: len(subject.landed) == 3)
    wait_until(lambda: record(subject, url).state == State.ACCEPTED)
    assert subject.environ["tus.handover"] == "background"


def test_over_ietf_a_hand_over_is_joined_but_not_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("tus.protocols.ietf.flow.LONGEST_JOIN", 0.2)
    subject = FilterSubject(tmp_file_dir=str(tmp_path))
    hold = threading.Event()
    subject.land = lambda upload, data: (hold.wait(GUARD), subject.landed.append((upload, data)))
    spoken = {"Upload-Draft-Interop-Version": "9", "Upload-Complete": "?1"}
    url = call(subject.app, "POST", PATH, spoken | {"Upload-Complete": "?0"}, DATA)["Location"]
    end = spoken | {"Upload-Offset": str(LENGTH), "Content-Type": "application/partial-upload"}
    replies = []
    first = threading.Thread(target=lambda: replies.append(call(subject.app, "PATCH", url, end, b"")))
    first.start()
    wait_until(lambda: record(subject, url).state == State.HANDING_OVER)
    late = call(subject.app, "PATCH", url, end, b"")
    assert (late.status, late["Upload-Complete"], late["Retry-After"]) == (503, "?0", "1")
    monkeypatch.undo()
    second = threading.Thread(target=lambda: replies.append(call(subject.app, "PATCH", url, end, b"")))
    second.start()
    hold.set()
    first.join()
    second.join()
    assert [(reply.status, reply["Upload-Complete"]) for reply in replies] == [(200, "?1")] * 2
    assert len(subject.landed) == 1


def test_in_the_background_a_failure_is_the_servers_business(tmp_path, monkeypatch):
    monkeypatch.setattr("tus.protocols.handover.FIRST_DELAY", 0.05)
    subject = FilterSubject(tmp_file_dir=str(tmp_path), threads=True, handover="background")
    subject.fail = "503 Service Unavailable"
    url, reply = filled(subject)
    assert reply.status == 204
    wait_until(lambda: record(subject, url).attempts > 1)
    assert subject.offset(url) == LENGTH
    subject.fail = None
    wait_until(lambda: record(subject, url).state == State.ACCEPTED)


# -- A view -------------------------------------------------------------------------------------------------------


@pytest.fixture
def view(tmp_path):
    """A view that does what ``view.do`` says."""

    class View(ViewSubject):
        def make(self):
            def view(environ, start_response):
                adapter = WebobAdapter(Request(environ))
                tus = Tus(adapter, **self.options)
                tus.handle()
                if tus.upload_finished:
                    self.do(tus)
                return adapter.resp(environ, start_response)

            return view

    return View(tmp_file_dir=str(tmp_path))


def test_a_view_that_accepts(view):
    view.do = Tus.cleanup_file
    url, reply = filled(view)
    assert (reply.status, view.offset(url), record(view, url).state) == (204, LENGTH, State.ACCEPTED)


def test_a_view_that_rejects(view):
    view.do = lambda tus: tus.reject_file("No room for it.", 413)
    url, reply = filled(view)
    assert (reply.status, reply.body) == (413, b"No room for it.\n")
    view.do = Tus.cleanup_file
    assert view.patch(url, LENGTH - 1, DATA[-1:]).status == 413
    assert record(view, url).state == State.REJECTED


@pytest.mark.parametrize("do", [lambda tus: tus.postpone_file("Later."), lambda tus: None], ids=["later", "silence"])
def test_a_view_that_does_not_accept(view, do):
    view.do = do
    url, reply = filled(view)
    assert reply.status == 503
    assert view.offset(url) == LENGTH - 1
    view.do = Tus.cleanup_file
    assert view.patch(url, LENGTH - 1, DATA[-1:]).status == 204
    assert record(view, url).attempts == 2


def test_a_view_cannot_be_in_the_background(tmp_path):
    with pytest.raises(OptionError, match="background"):
        ViewSubject(tmp_file_dir=str(tmp_path), handover="background").url(LENGTH)


# -- A function ---------------------------------------------------------------------------------------------------

taken = []


def take(upload):
    """``on_finished`` in these tests."""
    with open(upload.path, "rb") as file:
        taken.append((upload.key, file.read()))
    if upload.filename == "bad.bin":
        raise Rejected("Not this one.")
    if upload.filename == "busy.bin" and upload.attempts == 1:
        raise OSError("/srv is full")


@pytest.mark.parametrize("kind", [FilterSubject, ViewSubject])
def test_a_function(tmp_path, kind):
    taken.clear()
    subject = kind(tmp_file_dir=str(tmp_path), on_finished="tests.unit.test_handover:take")
    url, reply = filled(subject)
    assert (reply.status, subject.landed, [data for _, data in taken]) == (204, [], [DATA])
    assert record(subject, url).state == State.ACCEPTED
    url = subject.url(LENGTH, {"Upload-Metadata": "filename YmFkLmJpbg=="})
    reply = subject.patch(url, 0, DATA)
    assert (reply.status, reply.body) == (422, b"Not this one.\n")
    taken.clear()
    url = subject.url(LENGTH, {"Upload-Metadata": "filename YnVzeS5iaW4="})
    reply = subject.patch(url, 0, DATA)
    assert reply.status == 500
    assert b"/srv" not in reply.body
    assert subject.patch(url, LENGTH - 1, DATA[-1:]).status == 204
    assert taken == [taken[0]] * 2, "under the same key"


def test_a_missing_function_is_told_at_the_start(tmp_path):
    with pytest.raises(OptionError, match="on_finished"):
        FilterSubject(tmp_file_dir=str(tmp_path), on_finished="tests.unit.test_handover:nothing")
    with pytest.raises(OptionError, match="spool"):
        FilterSubject(tmp_file_dir=str(tmp_path), on_finished=take, spool=str(tmp_path / "spool"))


def test_what_is_removed_is_gone(subject):
    subject.fail = "503 Service Unavailable"
    url, _ = filled(subject)
    assert subject.send("DELETE", url).status == 204
    with pytest.raises(UploadNotFound):
        record(subject, url)
    assert list(backlog(subject).run(everything=True)) == []


# -- The document -------------------------------------------------------------------------------------------------


def test_the_function_and_the_hooks_of_the_document(tmp_path, capsys):
    function, hooks = ({}, {})
    code = blocks("python", "docs/handover.rst")
    exec(moved(code[0], tmp_path), function)
    exec(code[1], hooks)
    options = {"on_finished": function["take"], "hooks": hooks["Hooks"]}
    subject = FilterSubject(tmp_file_dir=str(tmp_path / "uploads"), **options)
    url = subject.url(LENGTH, {"Upload-Metadata": "filename YS5jc3Y="})
    assert subject.patch(url, 0, DATA).status == 204
    kept = record(subject, url)
    assert kept.metadata["checked"] == b"yes"
    assert (tmp_path / "arrived" / "a.csv").read_bytes() == DATA
    assert capsys.readouterr().out == "a.csv was accepted\n"
    url = subject.url(LENGTH)
    assert subject.patch(url, 0, DATA).body == b"Only CSV files are taken.\n"
    assert subject.create().status == 400, "without a length"


def test_an_upload_waits_once_however_often_it_is_found(subject):
    subject.fail = "503 Service Unavailable"
    without_thread = {"environ": {"wsgi.multithread": False}}
    url = subject.url(LENGTH, **without_thread)
    assert subject.patch(url, 0, DATA, **without_thread).status == 503
    waiting = backlog(subject)
    for _ in range(50):
        waiting.look()
    assert len(waiting._due) == 1
    assert waiting.next_due(0) is None, "it is not due yet"
    waiting._add(0.0, url.rpartition("/")[2])
    assert waiting.next_due(0) == url.rpartition("/")[2]
    assert waiting.next_due(0) is None, "and the later entry does not count any more"


# -- What goes wrong beside the application's answer --------------------------------------------------------------


def test_a_limit_on_attempts_that_kill_the_process(tmp_path):
    """What dies over a file cannot say so afterwards; or the file would kill one process after the other."""
    subject = FilterSubject(tmp_file_dir=str(tmp_path), handover_attempts=2)
    url = subject.url(LENGTH)
    crash(subject, lambda: subject.patch(url, 0, DATA))
    assert not record(subject, url).is_aside
    crash(subject, lambda: subject.patch(url, LENGTH - 1, b"d"))
    left = record(subject, url)
    assert (left.state, left.is_aside) == (State.COMPLETE, True)
    assert due_at(left, Options.build(**subject.options), time.time()) is None


def test_one_file_that_cannot_be_handed_over_holds_up_no_other(tmp_path, monkeypatch):
    """Whatever it raises, and also where there is no more than a thread to raise it in."""
    monkeypatch.setattr("tus.protocols.handover.FIRST_DELAY", 0.02)
    taken.clear()

    def take(upload):
        if upload.filename == "poison":
            raise SystemExit(1)
        taken.append(upload.filename)

    subject = FilterSubject(tmp_file_dir=str(tmp_path), threads=True, on_finished=take, handover="background")
    for encoded in ("Z29vZA==", "cG9pc29u", "YmV0dGVy"):
        assert subject.create(LENGTH, {"Upload-Metadata": f"filename {encoded}"}, DATA).status == 201
        time.sleep(0.1)
    wait_until(lambda: taken == ["good", "better"])


def fails_for(name, claim):
    def failing(upload):
        if upload.filename == name:
            raise PermissionError(13, "Permission denied")
        return claim(upload)

    return failing


def test_a_file_that_cannot_be_read_holds_up_no_other(subject, monkeypatch, caplog):
    subject.fail = "503 Service Unavailable"
    for encoded in ("YmFk", "Z29vZA=="):
        subject.patch(subject.url(LENGTH, {"Upload-Metadata": f"filename {encoded}"}), 0, DATA)
    subject.fail = None
    store = subject.app.service.store
    monkeypatch.setattr(store, "claim", fails_for("bad", store.claim))
    outcomes = {upload.filename: outcome for upload, outcome in backlog(subject).run(everything=True)}
    assert outcomes == {"bad": Outcome.POSTPONED, "good": Outcome.ACCEPTED}
    assert "Permission denied" in caplog.text


def test_a_mode_that_the_application_has_set_stops_nobody(subject):
    subject.fail = "503 Service Unavailable"
    url, _ = filled(subject)
    os.chmod(record(subject, url).path, 0o440)
    subject.fail = None
    assert subject.patch(url, LENGTH - 1, b"d").status == 204


def test_another_applications_files_are_left_alone(tmp_path):
    """Two filters over one directory: what the one has received the other must not get by itself."""
    payroll = FilterSubject(tmp_file_dir=str(tmp_path), upload_path="/payroll")
    public = FilterSubject(tmp_file_dir=str(tmp_path), upload_path="/public")
    view = ViewSubject(tmp_file_dir=str(tmp_path))
    payroll.fail = "503 Service Unavailable"
    headers = {"Upload-Length": str(LENGTH)}
    url = payroll.send("POST", "/payroll", headers)["Location"]
    assert payroll.patch(url, 0, DATA).status == 503
    view.fail = "503 Service Unavailable"
    assert view.patch(view.url(LENGTH), 0, DATA).status == 503
    payroll.fail = None
    assert list(backlog(public).run(everything=True)) == []
    assert [outcome for _, outcome in backlog(payroll).run(everything=True)] == [Outcome.ACCEPTED]


@pytest.mark.parametrize("status", ["200 OK", "403 Forbidden"])
def test_cookies_are_for_one_client(tmp_path, status):
    def application(environ, start_response):
        start_response(status, [("Content-Type", "text/plain"), ("Set-Cookie", "session=ann"), ("X-App", "1")])
        return [b""]

    subject = FilterSubject(tmp_file_dir=str(tmp_path), reject_statuses="403")
    subject.app = Filter(application, **{"upload_path": PATH} | subject.options)
    url, reply = filled(subject)
    again = subject.patch(url, LENGTH)
    assert (reply["Set-Cookie"], again.get("Set-Cookie"), again["X-App"]) == ("session=ann", None, "1")
    assert b"session" not in (tmp_path / f"{url.rpartition('/')[2]}.tus").read_bytes()


def test_a_final_whose_post_was_refused_is_not_handed_over(subject):
    partial = {"Upload-Concat": "partial"}
    one, other = subject.url(3, partial), subject.url(3, partial)
    for number in range(16):
        many = {"Upload-Concat": f"final;{other}", "Upload-Metadata": f"n{number}"}
        assert subject.send("POST", PATH, many).status == 201
    refused = subject.send("POST", PATH, final_of([one, other]))
    assert refused.status == 400
    assert subject.patch(other, 0, b"abc").status == 204
    assert subject.patch(one, 0, b"abc").status == 204
    assert {upload.raw_metadata for upload, _ in subject.landed} == {f"n{number}" for number in range(16)}
    assert list(backlog(subject).run(everything=True)) == []


def test_parts_that_are_completed_while_their_final_is_made(subject, monkeypatch):
    """Whenever that is: the request that completes the part, or the one that makes the final, hands it over."""
    store = subject.stored()
    for method in ("create", "watch", "promise"):
        part = subject.url(3, {"Upload-Concat": "partial"})
        original = getattr(type(store), method)

        def between(self, *arguments, part=part, original=original):
            monkeypatch.undo()
            assert subject.patch(part, 0, b"abc").status == 204
            return original(self, *arguments)

        monkeypatch.setattr(type(store), method, between)
        reply = subject.send("POST", PATH, final_of([part]))
        assert reply.status == 201
        assert subject.landed[-1][0].id == reply["Location"].rpartition("/")[2]
    assert len(subject.landed) == 3


def test_every_final_of_a_part_has_its_turn(subject):
    part = subject.url(3, {"Upload-Concat": "partial"})
    for number in range(3):
        final = final_of([part]) | {"Upload-Metadata": f"n{number}"}
        assert subject.send("POST", PATH, final).status == 201
    subject.land = lambda upload, data: subject.landed.append(upload.raw_metadata)
    subject.fail = "503 Service Unavailable"
    assert subject.patch(part, 0, b"abc").status == 503
    assert subject.landed == ["n0", "n1", "n2"]
    subject.fail = None
    assert [outcome for _, outcome in backlog(subject).run(everything=True)] == [Outcome.ACCEPTED] * 3


def test_a_client_that_looks_has_heard_of_its_upload(subject):
    subject.fail = "503 Service Unavailable"
    url = subject.create(LENGTH, body=DATA)["Location"]
    subject.fail = None
    assert list(backlog(subject).run(everything=True)) == []
    assert subject.offset(url) == LENGTH - 1
    assert [outcome for _, outcome in backlog(subject).run(everything=True)] == [Outcome.ACCEPTED]


def test_data_that_is_moved_away_and_not_accepted(tmp_path):
    """Nothing is left that could be handed over; its client begins again, and the limits forget it in the end."""
    now = [time.time()]
    store = DirectoryStore(str(tmp_path), limits=Limits(uploads=1), clock=lambda: now[0])
    upload = store.append(store.create(Upload(length=3, is_known=False)), 0, b"abc")
    claim = store.claim(upload)
    claim.begin()
    os.unlink(upload.path)
    with pytest.raises(UploadLocked):
        store.load(upload.id)
    claim.release("it could not be taken")
    with pytest.raises(UploadGone):
        store.load(upload.id)
    assert store.sweep() == 0, "a person may want to know"
    now[0] += 86401
    assert store.sweep() == 1
    store.create(Upload(length=3))


def test_async_functions_are_refused(tmp_path):
    async def later(upload):
        raise AssertionError("nobody awaits it")

    with pytest.raises(OptionError, match="async"):
        FilterSubject(tmp_file_dir=str(tmp_path), on_finished=later)
    subject = FilterSubject(tmp_file_dir=str(tmp_path), on_finished=lambda upload: later(upload))
    assert filled(subject)[1].status == 500
    with pytest.raises(OptionError, match="hashable"):
        FilterSubject(tmp_file_dir=str(tmp_path), hooks=Unhashable())


class Unhashable:
    __hash__ = None

    def pre_create(self, event):
        raise AssertionError


def test_a_view_lets_go_at_the_end_of_its_block(view):
    kept = []

    def do(tus):
        kept.append(tus)  # as a debugger would, or a request that refers to it
        with tus:
            pass

    view.do = do
    url, reply = filled(view)
    assert (reply.status, view.offset(url)) == (503, LENGTH - 1)
    assert record(view, url).error == "the application did not say whether it takes the file"


@pytest.mark.parametrize("failure", [OSError("the disk is away"), UploadLocked(), Died()], ids=repr)
def test_a_commit_that_cannot_be_recorded_releases_the_claim(tmp_path, monkeypatch, failure):
    """The framework calls back at the end of the transaction, when the response is decided.

    Only the end of the process is reported to it: an error of the disk does not change what the application has said.
    """
    ends = []

    class Adapter(WebobAdapter):
        def at_transaction_end(self, callback):
            ends.append(callback)
            return True

    class View(ViewSubject):
        def make(self):
            def view(environ, start_response):
                adapter = Adapter(Request(environ))
                tus = Tus(adapter, **self.options)
                tus.handle()
                if tus.upload_finished:
                    tus.cleanup_file()
                return adapter.resp(environ, start_response)

            return view

    def fail(*arguments):
        raise failure

    view = View(tmp_file_dir=str(tmp_path))
    url, reply = filled(view)
    assert reply.status == 204
    assert view.head(url).status == 423, "the transaction is under way"
    raised = contextlib.nullcontext() if isinstance(failure, Exception) else pytest.raises(type(failure))
    with monkeypatch.context() as broken, raised:
        broken.setattr(DirectoryClaim, "accept", fail)
        ends.pop()(True)
    assert opened_below(tmp_path) == []
    kept = record(view, url)
    assert (kept.state, kept.attempts) == (State.COMPLETE, 1)
    assert view.patch(url, LENGTH - 1, DATA[-1:]).status == 204
    ends.pop()(True)
    assert record(view, url).state == State.ACCEPTED


@pytest.mark.parametrize("spoken", [{"Upload-Draft-Interop-Version": "8", "Upload-Complete": "?1"}, None])
def test_an_answer_that_a_busy_record_does_not_take(subject, monkeypatch, spoken):
    """Another process was stopped while it held the lock of the record. The application has the file all the same."""
    accept, failures = DirectoryClaim.accept, [UploadLocked()] * 3

    def fail(claim, *arguments):
        if failures:
            raise failures.pop()
        return accept(claim, *arguments)

    monkeypatch.setattr(DirectoryClaim, "accept", fail)
    url = subject.url(LENGTH)
    if spoken is None:
        reply = subject.patch(url, 0, DATA)
    else:
        headers = spoken | {"Upload-Offset": "0", "Content-Type": "application/partial-upload"}
        reply = call(subject.app, "PATCH", url, headers, DATA)
    assert reply.status in (200, 204), "nothing changes what the application has said"
    assert (len(failures), [upload.attempts for upload, _ in subject.landed]) == (2, [1]), "it is asked once"
    kept = record(subject, url)
    assert (kept.state, kept.attempts) == (State.COMPLETE, 1)
    failures.clear()
    assert subject.patch(url, LENGTH - 1, DATA[-1:]).status == 204
    assert [upload.attempts for upload, _ in subject.landed] == [1, 2]


# -- A lease that was lost ----------------------------------------------------------------------------------------


def test_a_claim_that_another_holder_took_over_changes_nothing(monkeypatch):
    """The process is stopped while the application has the file, and another host hands it over meanwhile."""
    clock = Clock()
    clock.now = time.time()
    store = MemoryStore(lease=15, clock=clock)
    subject = FilterSubject(store=store)
    url = subject.url(LENGTH)
    claims = []
    complete = store.complete
    monkeypatch.setattr(store, "complete", lambda *arguments: claims.append(complete(*arguments)) or claims[-1])

    def take(upload, data):
        claims[0].pause()
        clock.now += 20
        other = store.claim(store.load(upload.id))
        other.begin()
        other.accept(Response(200, "OK", [("X-App", "the other one")]))

    subject.land = take
    reply = subject.patch(url, 0, DATA)
    assert (reply.status, reply["X-App"]) == (204, "the other one")
    assert subject.offset(url) == LENGTH
