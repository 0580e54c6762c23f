"""An exception that nobody expects: the client gets a 500 that it can read, and nothing stays open."""

import logging

import pytest

from tests.support.subjects import SUBJECTS, FilterSubject, ViewSubject
from tests.support.waiting import wait_until
from tus.models import State
from tus.protocols.ietf import replies as ietf_replies
from tus.protocols.tus1 import replies as tus1_replies

ORIGIN = {"Origin": "https://example.org"}
CORS = {"cors_allow_origin": "https://example.org"}
IETF = {"Upload-Draft-Interop-Version": "8", "Upload-Complete": "?0"}


@pytest.fixture(params=SUBJECTS, ids=["filter", "view", "asgi"])
def make(request, tmp_path):
    return lambda **options: request.param(tmp_file_dir=str(tmp_path), **CORS, **options)


def fail(*arguments, **others):
    raise RuntimeError("/secret/path is broken")


def check(reply, **fields):
    assert reply.status == 500
    assert reply["Access-Control-Allow-Origin"] == "https://example.org"
    assert "Access-Control-Expose-Headers".lower() in reply.headers
    for name, value in fields.items():
        assert reply[name.replace("_", "-")] == value
    for told in (b"secret", b"Traceback", b"RuntimeError"):
        assert told not in reply.body


def test_a_fault_of_the_package_in_tus(make, monkeypatch, caplog):
    subject = make()
    url = subject.url(5)
    monkeypatch.setattr(tus1_replies, "inspected", fail)
    check(subject.head(url, ORIGIN), Tus_Resumable="1.0.0", Content_Length="0")
    monkeypatch.setattr(tus1_replies, "created", fail)
    reply = subject.create(5, ORIGIN)
    check(reply, Tus_Resumable="1.0.0")
    assert b"operator" in reply.body
    assert "/secret/path is broken" in caplog.text, "the operator finds the reason in the log"


def test_a_fault_of_the_package_in_the_protocol_of_the_ietf(make, monkeypatch):
    subject = make()
    monkeypatch.setattr(ietf_replies, "created", fail)
    reply = subject.send("POST", headers=IETF | ORIGIN | {"Tus-Resumable": "1.0.0"}, body=b"abc")
    check(reply, Upload_Complete="?0", Upload_Draft_Interop_Version="8", Content_Type="application/problem+json")


def test_a_fault_where_only_the_upload_would_show_the_protocol(tmp_path, monkeypatch):
    subject = FilterSubject(tmp_file_dir=str(tmp_path), **CORS)
    url = subject.url(5)
    monkeypatch.setattr(tus1_replies, "terminated", fail)
    reply = subject.send("DELETE", url, ORIGIN | {"Tus-Resumable": "1.0.0"})
    check(reply, Tus_Resumable="1.0.0")


def test_the_claim_on_a_file_ends(make, monkeypatch):
    subject = make(upload_valid_duration=0)
    url = subject.url(5)
    monkeypatch.setattr(tus1_replies, "appended", fail)
    check(subject.patch(url, 0, b"abcde", ORIGIN))
    wait_until(lambda: subject.record(url).state == State.COMPLETE, lambda: subject.record(url))
    monkeypatch.undo()
    assert subject.patch(url, 4, b"e").status == 204


def test_a_file_that_was_to_be_sent_is_closed(make, monkeypatch):
    subject = make(download=True, keep_finished=True)
    url = subject.url(5)
    assert subject.patch(url, 0, b"abcde").status == 204
    files = []

    def keep(upload, response, options):
        files.append(response.body.file)
        fail()

    monkeypatch.setattr(tus1_replies, "downloaded", keep)
    check(subject.send("GET", url, ORIGIN), Tus_Resumable="1.0.0")
    wait_until(lambda: files[0].closed, "the file stays open")


def test_a_fault_of_the_site(make, caplog):
    """A view raises it again, because frameworks have responses for exceptions of their own."""
    caplog.set_level(logging.ERROR)
    subject = make(authorize=fail)
    if isinstance(subject, ViewSubject):
        with pytest.raises(RuntimeError, match="is broken"):
            subject.create(5, ORIGIN)
        return
    check(subject.create(5, ORIGIN), Tus_Resumable="1.0.0")
    assert "/secret/path is broken" in caplog.text


def test_what_ends_the_process_is_no_response(tmp_path):
    def end(request, intent, upload):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FilterSubject(tmp_file_dir=str(tmp_path), authorize=end).create(5)
