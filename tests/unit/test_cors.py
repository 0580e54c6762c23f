"""What a browser's pages may read and send."""

import pytest

from tests.support.subjects import SUBJECTS
from tests.support.wsgi import call
from tus.protocols import cors

PAGE = {"Origin": "https://page.example"}
PREFLIGHT = PAGE | {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "upload-offset"}


@pytest.fixture(params=SUBJECTS)
def make(request, tmp_path):
    return lambda **options: request.param(tmp_file_dir=str(tmp_path), **options)


def test_nothing_is_allowed_unless_asked_for(make):
    subject = make()
    for reply in (subject.create(4, PAGE), call(subject.app, "OPTIONS", "/files", PREFLIGHT)):
        assert not [name for name in reply.headers if name.startswith("access-control") or name == "vary"]


@pytest.mark.parametrize("allowed", ["*", "https://page.example", "https://other.example, https://page.example"])
def test_a_preflight_is_answered_without_being_asked_who_it_is(make, allowed):
    reply = call(make(cors_allow_origin=allowed).app, "OPTIONS", "/files", PREFLIGHT)
    assert reply.status == 200
    assert reply["Access-Control-Allow-Origin"] == ("*" if allowed == "*" else "https://page.example")
    assert {"POST", "PATCH", "HEAD", "DELETE"} <= set(reply["Access-Control-Allow-Methods"].split(", "))
    assert reply["Access-Control-Max-Age"] == "86400"
    headers = set(reply["Access-Control-Allow-Headers"].lower().split(", "))
    assert {"upload-length", "upload-offset", "tus-resumable", "upload-metadata", "upload-defer-length"} <= headers
    assert {"upload-concat", "upload-checksum", "content-type", "authorization", "x-http-method-override"} <= headers
    assert {"x-request-id", "x-requested-with", "upload-complete", "content-disposition", "repr-digest"} <= headers


def test_every_reply_can_be_read_errors_too(make):
    subject = make(cors_allow_origin="https://page.example")
    url = subject.url(4)
    replies = [
        subject.create(4, PAGE),
        subject.create(-4, PAGE),
        subject.head(url, PAGE),
        subject.patch(url, 9, b"x", PAGE),
        subject.patch(url, 0, b"abcdef", PAGE),
        subject.send("POST", headers=PAGE | {"Tus-Resumable": "9"}),
        subject.head("/files/" + "0" * 32, PAGE),
        subject.patch(url, 0, b"abcd", PAGE),
        subject.send("DELETE", url, PAGE),
        subject.send("PUT", url, PAGE),
    ]
    assert [reply.status for reply in replies] == [201, 400, 200, 409, 413, 412, 404, 204, 204, 405]
    for reply in replies:
        assert reply["Access-Control-Allow-Origin"] == "https://page.example"
        assert reply["Vary"] == "Origin"
        assert {"Upload-Offset", "Location", "Tus-Resumable", "Upload-Expires", "Upload-Metadata"} <= set(
            reply["Access-Control-Expose-Headers"].split(", ")
        )


def test_other_origins_get_nothing_and_caches_keep_them_apart(make):
    subject = make(cors_allow_origin="https://page.example")
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "https://page.example.evil"}, {}):
        reply = subject.create(4, headers)
        assert reply.get("Access-Control-Allow-Origin") is None
        assert reply["Vary"] == "Origin"


def test_credentials_only_when_asked_for(make):
    assert make(cors_allow_origin="*").create(4, PAGE).get("Access-Control-Allow-Credentials") is None
    subject = make(cors_allow_origin="https://page.example", cors_allow_credentials=True)
    assert subject.create(4, PAGE)["Access-Control-Allow-Credentials"] == "true"
    assert subject.create(4, {"Origin": "https://x.example"}).get("Access-Control-Allow-Credentials") is None


def test_an_application_that_cares_itself_is_left_alone(tmp_path):
    subject = SUBJECTS[0](tmp_file_dir=str(tmp_path), cors_allow_origin="*")

    def application(environ, start_response):
        start_response(
            "403 Forbidden", [("Content-Type", "text/plain"), ("Access-Control-Allow-Origin", "https://mine")]
        )
        return [b"no"]

    subject.app._app = application
    reply = subject.create(0, PAGE)
    assert (reply.status, reply["Access-Control-Allow-Origin"]) == (403, "https://mine")

    def careless(environ, start_response):
        start_response("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"no"]

    subject.app._app = careless
    reply = subject.create(0, PAGE)
    assert (reply.status, reply["Access-Control-Allow-Origin"]) == (403, "*")


def test_the_lists_name_no_header_twice():
    for names in (cors.REQUEST_HEADERS.split(", "), cors.EXPOSED_HEADERS.split(", ")):
        assert len(names) == len(set(names))
