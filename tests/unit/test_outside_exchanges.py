"""Replies that no exchange makes: a client of either protocol recognizes them, and a page can read them."""

import threading

import pytest

from tests.support.subjects import PATH, FilterSubject, OnLoop, ViewSubject
from tests.support.wsgi import call
from tus import Options
from tus.apps.front import Front
from tus.apps.hosts import HostCheck
from tus.asgi import TusApp

PAGE = "https://example.org"
TUS = {"Tus-Resumable": "1.0.0"}
IETF = {"Upload-Draft-Interop-Version": "8", "Upload-Complete": "?0"}
OPTIONS = {"cors_allow_origin": PAGE, "threads": False}


def check(reply, status, **fields):
    assert reply.status == status
    assert reply["Access-Control-Allow-Origin"] == PAGE
    assert "Tus-Resumable" in reply["Access-Control-Expose-Headers"]
    for name, value in fields.items():
        assert reply[name.replace("_", "-")] == value


@pytest.fixture(params=[PATH, None], ids=["filter", "view"])
def misled(request, tmp_path):
    """A request that a page has led to the server, under a name that is not the server's."""
    subject = (FilterSubject if request.param else ViewSubject)(tmp_file_dir=str(tmp_path), **OPTIONS)
    url = subject.url(5)
    at_path = {"upload_path": request.param} if request.param else {}
    app = Front(subject.app, HostCheck(["up.example"], [Options.build(**subject.options, **at_path)]))

    def send(method, path, headers=(), body=b""):
        headers = {"Origin": PAGE} | dict(headers)
        return call(app, method, path or url, headers, body, environ={"HTTP_HOST": "evil.example"})

    return send


def test_a_request_for_the_host_of_others_in_tus(misled):
    check(misled("HEAD", "", TUS), 421, Tus_Resumable="1.0.0", Content_Length="0")
    reply = misled("POST", "/files", TUS | {"Upload-Length": "5"})
    check(reply, 421, Tus_Resumable="1.0.0")
    assert b"start tus serve with --allow-host evil.example" in reply.body
    check(misled("DELETE", ""), 421, Tus_Resumable="1.0.0", Upload_Complete="?0")
    check(misled("OPTIONS", "/files"), 421, Tus_Resumable="1.0.0")


def test_a_request_for_the_host_of_others_in_the_protocol_of_the_ietf(misled):
    reply = misled("POST", "/files", IETF | {"Content-Length": "5"}, b"abcde")
    check(reply, 421, Upload_Complete="?0", Upload_Draft_Interop_Version="8", Content_Type="application/problem+json")


@pytest.mark.parametrize("path", ["/", "/filesystem", "/form"])
def test_a_page_for_the_host_of_others_has_no_fields_of_uploads(tmp_path, path):
    subject = FilterSubject(tmp_file_dir=str(tmp_path), **OPTIONS)
    app = Front(subject.app, HostCheck(["up.example"], [subject.app.service.options]))
    reply = call(app, "HEAD", path, {"Origin": PAGE}, environ={"HTTP_HOST": "evil.example"})
    assert (reply.status, reply.body) == (421, b"")
    assert (reply.get("Tus-Resumable"), reply.get("Access-Control-Allow-Origin")) == (None, None)


def test_a_request_that_is_not_for_uploads_to_an_application_by_itself(tmp_path):
    app = OnLoop(TusApp(tmp_file_dir=str(tmp_path), on_finished=print, **OPTIONS), "asyncio")
    reply = call(app, "POST", "/", {"Origin": PAGE, "Content-Type": "text/plain"}, b"a form")
    check(reply, 404, Tus_Resumable="1.0.0", Cache_Control="no-store")
    assert b"Use a tus client." in reply.body
    check(call(app, "HEAD", "/", {"Origin": PAGE}), 404, Tus_Resumable="1.0.0", Content_Length="0")


def test_a_process_without_room_for_another_thread(tmp_path, monkeypatch, caplog):
    """The request itself needs none."""

    def start(thread):
        raise RuntimeError("can't start new thread")

    subject = FilterSubject(tmp_file_dir=str(tmp_path), **OPTIONS | {"threads": True})
    monkeypatch.setattr(threading.Thread, "start", start)
    check(subject.head(f"/files/{'0' * 32}", {"Origin": PAGE}), 404, Tus_Resumable="1.0.0")
    assert "could not be started" in caplog.text
    assert subject.send("GET", "/").body == b"the application's own page"
