"""Downloads of finished uploads: conditions, ranges, and what a browser is told about a stranger's file."""

import base64
import email
import email.policy
import time
from wsgiref.util import FileWrapper

import pytest

from tests.support.descriptors import opened_below
from tests.support.subjects import PATH, SUBJECTS, AsgiSubject, FilterSubject
from tests.support.wsgi import call
from tus.http.conditions import MAX_RANGES, parse_ranges
from tus.models import Upload
from tus.server.downloads import content_disposition, content_type

DATA = bytes(range(256)) * 40


@pytest.fixture(params=SUBJECTS)
def subject(request, tmp_path):
    return request.param(tmp_file_dir=str(tmp_path), download="true", keep_finished="true")


def metadata(**fields):
    return {
        "Upload-Metadata": ",".join(
            f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in fields.items()
        )
    }


@pytest.fixture
def url(subject):
    reply = subject.create(len(DATA), metadata(filename="a b.png", filetype="image/png"), DATA)
    assert reply.status == 201
    return reply["Location"]


def get(subject, url, headers=(), method="GET", **how):
    return call(subject.app, method, url, headers, **how)


def test_the_whole(subject, url):
    reply = get(subject, url)
    assert (reply.status, reply.body) == (200, DATA)
    assert reply["Content-Length"] == str(len(DATA))
    assert reply["Content-Type"] == "image/png"
    assert reply["Content-Disposition"] == 'inline; filename="a b.png"'
    assert reply["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in reply["Content-Security-Policy"]
    assert reply["Accept-Ranges"] == "bytes"
    assert reply["ETag"].startswith('"')
    assert reply["Last-Modified"].endswith("GMT")
    assert reply["Tus-Resumable"] == "1.0.0"


def test_head_says_what_get_would(subject, url):
    reply, head = get(subject, url), get(subject, url, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers == reply.headers
    ranged = get(subject, url, {"Range": "bytes=0-1"}, method="HEAD")  # RFC 9110 section 14.2: for GET alone
    assert (ranged.status, ranged["Content-Length"]) == (200, str(len(DATA)))


def test_a_client_of_the_protocol_still_hears_its_own_head(subject, url):
    reply = subject.head(url)
    assert (reply["Upload-Offset"], reply["Content-Length"]) == (str(len(DATA)), "0")
    plain = get(subject, url, method="HEAD")
    assert (plain["Upload-Offset"], plain["Upload-Length"]) == (str(len(DATA)), str(len(DATA)))


@pytest.mark.parametrize(
    ("field", "first", "stop"),
    [("0-0", 0, 1), ("1-4", 1, 5), ("10000-", 10000, 10240), ("-5", 10235, 10240), ("-99999", 0, 10240),
     ("10239-99999", 10239, 10240), ("0-, ", 0, 10240)],
)  # fmt: skip
def test_one_range(subject, url, field, first, stop):
    reply = get(subject, url, {"Range": f"bytes={field}"})
    assert (reply.status, reply.body) == (206, DATA[first:stop])
    assert reply["Content-Range"] == f"bytes {first}-{stop - 1}/{len(DATA)}"
    assert reply["Content-Length"] == str(stop - first)
    assert reply["Content-Type"] == "image/png"


@pytest.mark.parametrize("field", ["bytes=10240-", "bytes=99999-100000", "bytes=-0", "bytes=10240-,-0"])
def test_ranges_beyond_the_end(subject, url, field):
    reply = get(subject, url, {"Range": field})
    assert reply.status == 416
    assert reply["Content-Range"] == f"bytes */{len(DATA)}"


@pytest.mark.parametrize("field", ["bytes=5-1", "bytes=a-b", "lines=1-2", "bytes", "bytes=", "bytes=-", "bytes=1-2-3"])
def test_what_is_no_range_is_ignored(subject, url, field):
    reply = get(subject, url, {"Range": field})
    assert (reply.status, reply.body) == (200, DATA)


def test_several_ranges(subject, url):
    reply = get(subject, url, {"Range": "bytes=0-3, 100-199 ,-2,99999-"})
    assert reply.status == 206
    assert reply["Content-Length"] == str(len(reply.body))
    head = f"Content-Type: {reply['Content-Type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + reply.body, policy=email.policy.HTTP)
    assert message.get_content_type() == "multipart/byteranges"
    parts = [(part["Content-Range"], part["Content-Type"]) for part in message.iter_parts()]
    assert parts == [(f"bytes {span}/10240", "image/png") for span in ("0-3", "100-199", "10238-10239")]
    boundary = reply["Content-Type"].partition("boundary=")[2].encode()
    bodies = [part.partition(b"\r\n\r\n")[2] for part in reply.body.split(b"\r\n--" + boundary)[1:-1]]
    assert bodies == [DATA[:4], DATA[100:200], DATA[-2:]]
    assert reply.body.endswith(b"\r\n--" + boundary + b"--\r\n")


def test_ranges_that_ask_for_more_than_there_is_get_the_whole(subject, url):
    for field in ("0-,0-", ",".join(["0-0"] * (MAX_RANGES + 1))):
        assert get(subject, url, {"Range": f"bytes={field}"}).status == 200


def test_conditions(subject, url):
    whole = get(subject, url)
    tag, date = whole["ETag"], whole["Last-Modified"]
    old, new = "Mon, 01 Jan 2001 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"
    for headers, status in (
        ({"If-None-Match": tag}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-None-Match": f'"other", {tag}', "Range": "bytes=0-1,4-5"}, 304),
        ({"If-Modified-Since": date}, 304),
        ({"If-Modified-Since": old}, 200),
        ({"If-Modified-Since": date, "If-None-Match": '"other"'}, 200),
        ({"If-Match": tag}, 200),
        ({"If-Match": '"other"'}, 412),
        ({"If-Unmodified-Since": old}, 412),
        ({"If-Unmodified-Since": new}, 200),
        ({"If-Range": tag, "Range": "bytes=0-1"}, 206),
        ({"If-Range": '"other"', "Range": "bytes=0-1"}, 200),
        ({"If-Range": date, "Range": "bytes=0-1"}, 206),
        ({"If-Range": old, "Range": "bytes=0-1"}, 200),
        ({"If-Range": '"other"', "Range": "bytes=0-1,4-5"}, 200),
        ({"If-Range": tag, "Range": "bytes=0-1,4-5"}, 206),
    ):
        reply = get(subject, url, headers)
        assert reply.status == status, headers
        if status in (304, 412):
            assert reply.body == b""
        if status == 304:
            assert reply["ETag"] == tag


FAR = ("Mon, 01 Jan 99999 00:00:00 GMT", "Mon, 99 Jan 2001 99:00:00 GMT", "9" * 5000, "\xff, 99", "0", "Mon")


@pytest.mark.parametrize("name", ["If-Modified-Since", "If-Unmodified-Since", "If-Range"])
def test_a_date_that_no_clock_shows_is_ignored(subject, url, name):
    for date in FAR:
        reply = get(subject, url, {name: date, "Range": "bytes=0-1"})
        assert reply.status == (200 if name == "If-Range" else 206), date


def test_a_number_of_any_length_is_a_number(subject, url):
    far = "9" * 4301
    assert get(subject, url, {"Range": f"bytes={far}-"}).status == 416
    assert get(subject, url, {"Range": f"bytes=2-{far}"}).body == DATA[2:]
    assert get(subject, url, {"Range": f"bytes=-{far}"}).body == DATA
    assert get(subject, url, {"Range": f"bytes={'0' * 4301}2-{'0' * 4301}3"}).body == DATA[2:4]


def test_many_entity_tags_are_read_in_one_pass(subject, url):
    tag = get(subject, url)["ETag"]
    began = time.process_time()
    for many in ('"' * 60_001, 'W/"' * 20_000, '"a" ' * 15_000):
        assert get(subject, url, {"If-None-Match": many}).status == 200
    assert get(subject, url, {"If-None-Match": '"a", ' * 10_000 + f"W/{tag}"}).status == 304
    assert get(subject, url, {"If-Match": f"W/{tag}"}).status == 412, "a weak validator proves nothing here"
    assert time.process_time() - began < 5


def test_an_empty_file(subject):
    url = subject.url(0)
    assert (get(subject, url).status, get(subject, url).body) == (200, b"")
    assert get(subject, url, {"Range": "bytes=0-"}).status == 416
    assert get(subject, url, environ={"wsgi.file_wrapper": FileWrapper}).body == b""


def test_only_finished_files_are_sent(subject):
    """A GET of another upload reports the offset, because a cache may have made it of a client's HEAD."""
    url = subject.url(4)
    part = subject.url(1, {"Upload-Concat": "partial"}, b"x")
    for unfinished, offset in ((url, "0"), (part, "1")):
        for method in ("GET", "HEAD"):
            reply = get(subject, unfinished, method=method)
            assert (reply.status, reply.body, reply["Upload-Offset"]) == (200, b"", offset)
            assert reply["Cache-Control"] == "no-store"
    missing = get(subject, PATH + "/" + "0" * 32)
    assert (missing.status, missing["Cache-Control"]) == (404, "no-store")


def test_a_get_of_a_rejected_file_reports_it_like_head(tmp_path):
    subject = FilterSubject(tmp_file_dir=str(tmp_path), download=True, reject_statuses="422")
    subject.fail = "422 Unprocessable Content"
    url = subject.url(4)
    assert subject.patch(url, 0, b"abcd").status == 422
    assert (get(subject, url).body, get(subject, url)["Upload-Offset"]) == (b"", "3")


def test_a_file_that_was_not_accepted_can_be_sent(subject):
    subject.fail = "503 Later"
    url = subject.url(4)
    assert subject.patch(url, 0, b"abcd").status == 503
    assert (get(subject, url).body, get(subject, url)["Upload-Offset"]) == (b"abcd", "3")


def test_off_by_default(tmp_path):
    subject = FilterSubject(tmp_file_dir=str(tmp_path), keep_finished=True)
    url = subject.url(4)
    subject.patch(url, 0, b"abcd")
    for method in ("GET", "HEAD"):
        reply = get(subject, url, method=method)
        assert (reply.status, reply.body, reply["Upload-Offset"], reply.get("ETag")) == (200, b"", "4", None)


def test_what_is_not_kept_is_gone_but_known(tmp_path):
    subject = FilterSubject(tmp_file_dir=str(tmp_path), download=True)
    url = subject.url(4)
    subject.patch(url, 0, b"abcd")
    assert get(subject, url).status == 410
    assert get(subject, url, method="HEAD")["Upload-Offset"] == "4"
    allow = subject.send("PUT", url)["Allow"]
    assert allow == "GET, HEAD, PATCH, DELETE, OPTIONS"


def test_downloads_are_asked_about(tmp_path):
    asked = []

    def gate(request, intent, upload):
        asked.append((str(intent), upload.id))
        return request.headers.get("X-User")

    subject = FilterSubject(tmp_file_dir=str(tmp_path), download=True, keep_finished=True, authorize=gate)
    url = subject.url(1, {"X-User": "ann"}, b"x")
    del asked[:]
    assert get(subject, url, {"X-User": "bob"}).status == 404
    assert get(subject, url, {"X-User": "bob"}, method="HEAD").status == 404
    assert get(subject, url, {"X-User": "ann"}).body == b"x"
    assert asked == [("download", url[-32:])] * 3


def test_the_servers_wrapper_is_used_where_it_cannot_send_too_much(subject, url):
    if isinstance(subject, AsgiSubject):
        return  # ASGI has none
    wrapped = []

    def wrapper(file, size):
        wrapped.append(file)
        return FileWrapper(file, size)

    environ = {"wsgi.file_wrapper": wrapper}
    assert get(subject, url, environ=environ).body == DATA
    assert get(subject, url, {"Range": "bytes=-5"}, environ=environ).body == DATA[-5:]
    assert len(wrapped) == 2
    assert get(subject, url, {"Range": "bytes=3-9"}, environ=environ).body == DATA[3:10]
    assert get(subject, url, {"Range": "bytes=3-9,12-13"}, environ=environ).status == 206
    assert len(wrapped) == 2
    assert all(file.closed for file in wrapped)


def test_no_file_stays_open(subject, url, tmp_path):
    for headers in (
        {},
        {"Range": "bytes=0-3"},
        {"Range": "bytes=0-3,5-6"},
        {"Range": "bytes=99999-"},
        {"If-Match": "x"},
        {"If-None-Match": "*"},
    ):
        get(subject, url, headers)
        get(subject, url, headers, method="HEAD")
    assert opened_below(tmp_path) == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "application/octet-stream"),
        ({"filetype": "image/PNG"}, "image/png"),
        ({"type": "video/mp4"}, "video/mp4"),
        ({"filetype": "text/html"}, "text/html"),
        ({"filetype": "text/html; charset=utf-8"}, "application/octet-stream"),
        ({"filetype": "text/html\r\nSet-Cookie: a=b"}, "application/octet-stream"),
        ({"filetype": "nonsense"}, "application/octet-stream"),
    ],
)
def test_types(fields, expected):
    assert (
        content_type(Upload(id="f" * 32, raw_metadata=metadata(**fields)["Upload-Metadata"] if fields else ""))
        == expected
    )


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("a.txt", "text/plain", 'inline; filename="a.txt"'),
        ("a.html", "text/html", 'attachment; filename="a.html"'),
        ("a.svg", "image/svg+xml", 'attachment; filename="a.svg"'),
        ("a.js", "", 'attachment; filename="a.js"'),
        ("a%b.txt", "", "attachment; filename=\"a_b.txt\"; filename*=UTF-8''a%25b.txt"),
        ("ü€.txt", "", "attachment; filename=\"__.txt\"; filename*=UTF-8''%C3%BC%E2%82%AC.txt"),
        ("a\r\nX: y", "", None),
    ],
)
def test_names(name, kind, expected):
    field = content_disposition(
        Upload(id="f" * 32, raw_metadata=metadata(filename=name, filetype=kind)["Upload-Metadata"])
    )
    assert "\r" not in field
    assert "\n" not in field
    assert expected in (None, field)


def test_ranges_of_nothing():
    assert parse_ranges("bytes=0-", 0) == []
    assert parse_ranges("bytes=-5", 0) == []
    assert parse_ranges(None, 5) is None
