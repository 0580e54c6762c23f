"""tus 1.0.0, requirement by requirement, held against every way of using the package.

A row's first ids are the requirement's; TRAP ids are mistakes that other servers make.
"""

import hashlib
import os
import time
import zlib
from base64 import b64encode
from email.utils import parsedate_to_datetime
from unittest import mock

import pytest

from tests.support.clocks import later
from tests.support.disk import full_disk
from tests.support.subjects import ASYNC_SUBJECTS, PATH, SUBJECTS, TrioSubject, ViewSubject
from tests.support.wsgi import OCTETS, TUS, call

ROWS = []
BIG = str(2**63)


def row(*ids, **options):
    def add(function):
        ROWS.append(pytest.param(function, options, id=f"{'+'.join(ids)}-{function.__name__}"))
        return function

    return add


@pytest.mark.parametrize(("requirement", "options"), ROWS)
@pytest.mark.parametrize("subject_class", (*SUBJECTS, TrioSubject), ids=lambda subject: subject.__name__)
def test_requirement(requirement, options, subject_class, tmp_path):
    requirement(subject_class(**{"tmp_file_dir": str(tmp_path), "fsync": "none"} | options))


def data_of(subject):
    assert len(subject.landed) == 1, subject.landed
    return subject.landed[0][1]


def digest(algorithm, data):
    if algorithm == "crc32":
        return zlib.crc32(data).to_bytes(4, "big")
    return hashlib.new(algorithm, data).digest()


def checksum(algorithm, data):
    return {"Upload-Checksum": f"{algorithm} {b64encode(digest(algorithm, data)).decode()}"}


def part(subject, data=b"", length=None, headers=()):
    return subject.url(len(data) if length is None else length, {"Upload-Concat": "partial"} | dict(headers), data)


def final(subject, *urls, headers=(), **how):
    return subject.send("POST", headers={"Upload-Concat": "final;" + " ".join(urls)} | dict(headers), **how)


# -- Core ---------------------------------------------------------------------------------------------------------


@row("TUS-CORE-02", "TRAP-1")
def every_reply_names_the_version(s):
    url = s.url(4)
    replies = [
        s.send("OPTIONS"),
        s.head(url),
        s.patch(url, 0, b"ab"),
        s.patch(url, 0, b"ab"),
        s.patch(url, 2, b"abcdef"),
        s.patch(url, 2, b"ab", {"Content-Type": "text/plain"}),
        s.patch(url, 2, b"ab", checksum("sha1", b"x")),
        s.send("POST", headers={"Tus-Resumable": "0.2.2"}),
        s.send("POST"),
        s.head(f"{PATH}/{'0' * 32}"),
        s.send("DELETE", url),
        s.send("PUT", url),
    ]
    assert [reply.status for reply in replies] == [200, 200, 204, 409, 413, 415, 460, 412, 400, 404, 204, 405]
    assert {reply.get("Tus-Resumable") for reply in replies} == {"1.0.0"}


@row("TUS-CORE-03", "TRAP-2", "A-01", "A-02")
def another_version_changes_nothing(s):
    url = s.url(4)
    for method, target in (("POST", PATH), ("PATCH", url), ("DELETE", url)):
        for version in ("0.2.2", "1.0", "1.0.0, 1.0.0", "", None):
            headers = OCTETS | {"Upload-Offset": "0", "Upload-Length": "4"}
            spoken = {} if version is None else {"Tus-Resumable": version}
            reply = call(s.app, method, target, headers | spoken, b"abcd")
            assert (reply.status, reply.get("Tus-Version")) == (412, "1.0.0")
    assert s.head(url, {"Tus-Resumable": "2.0.0"}).status == 412
    assert s.offset(url) == 0
    assert s.landed == []


@row("TUS-CORE-01", "TUS-CORE-04", "TUS-CORE-05", "TUS-CORE-06", "TUS-CORE-07", "A-27", max_size=1000)
def options_describes_the_server(s):
    for target in (PATH, PATH + "/", s.url(4)):
        for version in ("1.0.0", "7.7.7"):
            reply = s.send("OPTIONS", target, {"Tus-Resumable": version})
            assert reply.status == 200
            assert reply["Tus-Version"] == "1.0.0"
            assert reply["Tus-Max-Size"] == "1000"
            assert reply["Tus-Extension"].split(",") == [
                "creation",
                "creation-with-upload",
                "creation-defer-length",
                "expiration",
                "checksum",
                "termination",
                "concatenation",
                "concatenation-unfinished",
            ]


@row("A-28")
def without_a_limit_no_limit_is_reported(s):
    assert s.send("OPTIONS").get("Tus-Max-Size") is None
    assert s.create(10**15).status == 201


@row("TUS-CORE-08", "TUS-CLI-09")
def post_and_put_can_stand_for_another_method(s):
    for number, method in enumerate(("POST", "PUT")):
        url = s.url(4)
        headers = OCTETS | {"Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
        reply = s.send(method, url, headers, b"ab")
        assert (reply.status, reply["Upload-Offset"]) == (204, "2")
        assert s.send(method, url, {"X-HTTP-Method-Override": "HEAD"})["Upload-Offset"] == "2"
        assert s.send(method, url, headers | {"Upload-Offset": "2"}, b"cd").status == 204
        assert len(s.landed) == number + 1
        assert s.landed[number][1] == b"abcd"
        assert s.send(method, url, {"X-HTTP-Method-Override": "DELETE"}).status == 204
        assert s.head(url).status in (404, 410)
    assert s.send("PUT", headers={"Upload-Length": "4", "X-HTTP-Method-Override": "POST"}).status == 201


@row("A-25")
def a_safe_method_cannot_be_overridden(s):
    url = s.url(4)
    for method in ("GET", "HEAD", "OPTIONS"):
        s.send(method, url, {"X-HTTP-Method-Override": "DELETE"})
    assert s.offset(url) == 0


@row("TUS-CORE-10", "A-31")
def numbers_are_digits(s):
    for value in (
        "-1",
        "+4",
        "4.0",
        "0x4",
        " ",
        "",
        "4 4",
        "4,4",
        "4, 5",
        "\u0664",
        "abc",
        BIG,
        "9" * 5000,
        "1e3",
        "1_0",
    ):
        assert s.create(headers={"Upload-Length": value, "Upload-Defer-Length": "1"}).status == 400, value
        assert s.send("POST", headers={"Upload-Length": value}).status == 400, value
    url = s.url(4)
    for value in ("-1", "+0", "0.0", "", "0,0", "0, 4", "\u0660", BIG):
        assert s.patch(url, value, b"ab").status == 400, value
    assert s.create(2**63 - 1).status == 201
    assert s.patch(url, "00", b"ab").status == 204


@row("TUS-CORE-11", "TUS-CORE-12", "TUS-CORE-13", "TUS-CORE-14", "TRAP-16")
def head_reports_offset_and_length(s):
    url = s.url(4)
    for offset, data in ((0, b"ab"), (2, b"cd"), (4, None)):
        reply = s.head(url)
        assert (reply.status, reply["Upload-Offset"], reply["Upload-Length"]) == (200, str(offset), "4")
        assert reply["Cache-Control"] == "no-store"
        assert reply.body == b""
        assert reply.get("Content-Length") in (None, "0")
        if data:
            s.patch(url, offset, data)


@row("TUS-CORE-15", "A-32", "A-30", "TRAP-17")
def an_unknown_upload_is_not_found(s):
    for name in (
        "0" * 32,
        "x",
        "..",
        "%2e%2e",
        "..%2f..%2fetc%2fpasswd",
        "A" * 32,
        "0" * 31,
        "0" * 33,
        "a%00b",
        "0" * 32 + ".tus",
    ):
        url = f"{PATH}/{name}"
        for reply in (s.head(url), s.patch(url, 0, b"x"), s.send("DELETE", url), s.send("GET", url)):
            if reply.body == b"the application's own page":  # a view leaves what is no upload to its framework
                assert isinstance(s, ViewSubject)
                continue
            assert reply.status == 404, (name, reply)
            assert reply.get("Upload-Offset") is None


@row("TUS-CORE-15", "TRAP-17")
def a_side_car_cannot_be_reached(s):
    url = s.url(4)
    for method in ("HEAD", "PATCH", "DELETE") if isinstance(s, ViewSubject) else ("HEAD", "GET", "PATCH", "DELETE"):
        assert s.send(method, url + ".tus", OCTETS | {"Upload-Offset": "0"}).status == 404
    assert s.offset(url) == 0


@row("TUS-CORE-16", "A-03", "A-04")
def the_media_type_is_required(s):
    url = s.url(4)
    for content_type in ("text/plain", "", "application/octet-stream", "application/offset+octet-streams"):
        reply = s.patch(url, 0, b"ab", {"Content-Type": content_type})
        assert reply.status == 415
    assert s.offset(url) == 0
    for content_type in ("application/offset+octet-stream; charset=x", "Application/Offset+Octet-Stream"):
        assert s.patch(url, s.offset(url), b"ab", {"Content-Type": content_type}).status == 204
    assert data_of(s) == b"abab"


@row("TUS-CORE-17", "A-06", "A-29", "REGRESSION-1", "REGRESSION-2")
def a_wrong_offset_is_refused(s):
    url = s.url(8)
    for offset in (1, 8, 9, 999):
        reply = s.patch(url, offset, b"data")
        assert (reply.status, reply["Upload-Offset"]) == (409, "0")
    assert s.patch(url, 0, b"data").status == 204
    for offset in (0, 3, 5, 8, 999):
        reply = s.patch(url, offset, b"data")
        assert (reply.status, reply["Upload-Offset"]) == (409, "4")
    assert s.patch(url, 4, b"more").status == 204
    assert data_of(s) == b"datamore"
    assert s.send("PATCH", s.url(4), OCTETS, b"ab").status == 400


@row("TUS-CORE-18", "TUS-CORE-22")
def patch_reports_the_new_offset(s):
    url = s.url(10)
    for offset, size in ((0, 3), (3, 0), (3, 1), (4, 6)):
        reply = s.patch(url, offset, b"x" * size)
        assert (reply.status, reply["Upload-Offset"], reply.body) == (204, str(offset + size), b"")


@row("TUS-CORE-18", "TUS-CORE-22")
def large_bodies_arrive_whole(s):
    data = os.urandom(5_000_001)
    url = s.url(len(data))
    assert s.patch(url, 0, data[:3_000_000]).status == 204
    assert s.patch(url, 3_000_000, data[3_000_000:], chunked=True).status == 204
    assert data_of(s) == data


@row("TUS-CORE-20", "A-08", "TRAP-3", "REGRESSION-5")
def the_bytes_of_a_cut_body_are_kept(s):
    for size in (5, 70_000, 3_000_000):
        data = os.urandom(size)
        url = s.url(size + 10)
        reply = s.patch(url, 0, data, length=size + 10)
        assert (reply.status, reply["Upload-Offset"]) == (204, str(size))
        assert s.offset(url) == size
        s.landed.clear()
        s.patch(url, size, b"0123456789")
        assert data_of(s) == data + b"0123456789"


@row("TUS-CORE-20")
def an_error_of_the_connection_loses_one_block(s):
    for error in (OSError(), ConnectionResetError(), ValueError("cheroot"), TimeoutError(), AttributeError()):
        data = os.urandom(200_000)
        url = s.url(300_000)
        s.patch(url, 0, data, length=300_000, error=error)
        assert s.offset(url) == (200_000 if isinstance(s, ASYNC_SUBJECTS) else 200_000 // 65536 * 65536)
        s.patch(url, s.offset(url), data[s.offset(url) :])
        assert s.offset(url) == 200_000


@row("A-05", "REGRESSION-6")
def a_complete_upload_accepts_no_more_bytes_and_is_handed_over_once(s):
    url = s.url(4, body=b"abcd")
    reply = s.patch(url, 4, b"")
    assert (reply.status, reply["Upload-Offset"]) == (204, "4")
    assert s.patch(url, 4, b"", chunked=True).status == 204
    assert s.patch(url, 4, b"e").status == 413
    assert s.patch(url, 4, b"e", chunked=True).status == 413
    assert s.patch(url, 0, b"abc").status == 409
    assert s.patch(url, 2, b"c").status == 409
    for body in (b"abcd", b"wxyz"):
        again = s.patch(url, 0, body)
        assert (again.status, again["Upload-Offset"]) == (409, "4")  # the client asks for the offset, and is done
    assert s.offset(url) == 4
    assert data_of(s) == b"abcd"


@row("A-07", "TUS-CORE-18", "REGRESSION-4")
def a_body_that_overruns_is_refused(s):
    url = s.url(4)
    assert s.patch(url, 0, b"abcde").status == 413
    assert s.offset(url) == 0
    assert s.patch(url, 0, b"abcde", chunked=True).status == 413
    assert s.offset(url) == 0
    assert s.patch(url, 0, b"ab").status == 204
    assert s.patch(url, 2, b"cde").status == 413
    assert s.patch(url, 2, b"cd").status == 204
    assert data_of(s) == b"abcd"


@row("A-07")
def the_blocks_before_an_overrun_are_kept(s):
    data = os.urandom(200_000)
    url = s.url(100_000)
    assert s.patch(url, 0, data, chunked=True).status == 413
    assert s.offset(url) == 65536
    assert s.patch(url, 65536, data[65536:100_000]).status == 204
    assert data_of(s) == data[:100_000]


@row("A-07")
def an_overrun_right_after_the_last_byte_does_not_complete_the_upload(s):
    data = os.urandom(65536)
    for headers in ({}, checksum("sha1", data)):
        url = s.url(65536)
        assert s.patch(url, 0, data + b"!", headers, chunked=True).status == 413
        offset = s.offset(url)
        assert offset == (0 if headers else 65535)
    assert s.landed == []
    assert s.patch(url, offset, data[offset:], chunked=True).status == 204
    assert data_of(s) == data


@row("A-07", "TUS-DEFER-05")
def an_overrun_does_not_set_a_length_that_is_reached(s):
    for headers in ({}, checksum("sha1", b"abcd")):
        url = s.url(body=b"abc")
        reply = s.patch(url, 3, b"d", headers | {"Upload-Length": "3"}, chunked=True)
        assert reply.status == 413
        assert s.head(url).get("Upload-Length") is None
    assert s.landed == []


@row("TUS-CONCAT-12", "TUS-CORE-10")
def a_sum_above_the_largest_number_is_refused(s):
    huge = part(s, length=2**63 - 1)
    assert final(s, huge, huge).status == 413
    assert final(s, huge).status == 201
    assert final(s, *[huge] * 1001).status == 400


@row("TUS-CONCAT-05")
def the_number_of_final_uploads_that_wait_for_one_part_is_limited(s):
    one = part(s, length=3)
    statuses = [
        final(s, one, headers={"Upload-Metadata": f"n {b64encode(bytes([n])).decode()}"}).status for n in range(17)
    ]
    assert statuses == [201] * 16 + [400]


@row("TUS-EXP-01", "TUS-CONCAT-05", upload_valid_duration=100)
def a_final_upload_does_not_expire_while_its_parts_are_uploaded(s):
    done, one = part(s, b"done"), part(s, length=3)
    url = final(s, done, one)["Location"]
    now = time.time()
    for step, body in enumerate((b"o", b"n", b"e")):
        with mock.patch("time.time", lambda step=step: now + 60 * (step + 1)):
            assert s.patch(one, step, body).status == 204
    with mock.patch("time.time", lambda: now + 181):
        assert s.offset(url) == 7
    assert data_of(s) == b"doneone"


@row("TUS-TERM-02")
def an_upload_that_is_being_handed_over_cannot_be_terminated(s):
    url = s.url(4)
    seen = []

    def land(upload, data):
        seen.append((s.send("DELETE", url).status, s.head(url).status))
        s.landed.append((upload, data))

    s.land = land
    assert s.patch(url, 0, b"abcd").status == 204
    assert seen == [(423, 423)]
    assert data_of(s) == b"abcd"
    assert s.send("DELETE", url).status == 204


@row("REGRESSION-12")
def an_upload_whose_data_was_just_moved_is_busy_and_not_gone(s):
    url = s.url(4)
    seen = []

    def land(upload, data):
        os.rename(upload.path, upload.path + ".moved")
        seen.append((s.head(url).status, s.patch(url, 4, b"").status))
        s.landed.append((upload, data))

    s.land = land
    assert s.patch(url, 0, b"abcd").status == 204
    assert seen == [(423, 423)]
    assert s.offset(url) == 4
    assert data_of(s) == b"abcd"


@row("TRAP-8")
def a_body_without_an_end_is_refused(s):
    url = s.url(4)
    if not isinstance(s, ASYNC_SUBJECTS):  # whose servers mark the end of every body
        reply = s.patch(url, 0, b"ab", environ={"HTTP_TRANSFER_ENCODING": "chunked"})
        assert reply.status == 411
        assert s.create(4, OCTETS, environ={"HTTP_TRANSFER_ENCODING": "chunked"}).status == 411
    assert s.offset(url) == 0
    assert s.patch(url, 0, b"ab", chunked=True).status == 204
    assert s.patch(url, 2, b"cd", chunked=True).status == 204
    assert data_of(s) == b"abcd"


@row("TUS-CORE-18")
def a_length_that_is_not_a_number_is_refused(s):
    url = s.url(4)
    for length in ("x", "-1", "1,2"):
        assert s.patch(url, 0, b"", {"Content-Length": length}, validate=False).status == 400
    assert s.patch(url, 0, b"", environ={"CONTENT_LENGTH": ""}, validate=False).status == 204


@row("A-34", "TUS-CORE-13")
def get_responds_as_head(s):
    """Caches turn HEAD into GET, and give the client the header of the response."""
    url = s.url(4, {"Upload-Metadata": "a YQ=="})
    replies = []
    for body in (b"ab", b"cd"):
        replies += [[call(s.app, method, url, given) for method in ("HEAD", "GET")] for given in ({}, TUS)]
        assert s.patch(url, s.offset(url), body).status == 204
    replies.append([call(s.app, method, url) for method in ("HEAD", "GET")])
    for head, reply in replies:
        assert (reply.status, reply.body, reply["Cache-Control"]) == (200, b"", "no-store")
        assert reply.headers == head.headers
    assert [reply["Upload-Offset"] for _, reply in replies] == ["0", "0", "2", "2", "4"]


@row("TUS-CORE-13", "A-23")
def a_404_of_an_upload_is_never_stored(s):
    gone = s.url(4)
    assert s.send("DELETE", gone).status == 204
    for url in (gone, f"{PATH}/{'0' * 32}"):
        for version in ({}, TUS, {"Upload-Draft-Interop-Version": "10"}):
            for method in ("HEAD", "GET", "DELETE", "PATCH"):
                fields = OCTETS | {"Upload-Offset": "0"} if method == "PATCH" else {}
                if method == "PATCH" and "Upload-Draft-Interop-Version" in version:
                    fields = {
                        "Content-Type": "application/partial-upload",
                        "Upload-Offset": "0",
                        "Upload-Complete": "?1",
                    }
                reply = call(s.app, method, url, version | fields)
                if reply.status == 412:  # tus asks for a version first
                    continue
                assert reply.status in (404, 410), (method, version, reply)
                assert reply["Cache-Control"] == "no-store"


@row("TUS-CORE-19")
def other_methods_are_not_allowed(s):
    url = s.url(4)
    reply = s.send("PUT", url, OCTETS, b"ab")
    assert (reply.status, reply["Allow"]) == (405, "GET, HEAD, PATCH, DELETE, OPTIONS")
    assert s.send("POST", url, {"Upload-Length": "4"}).status == 405
    assert s.offset(url) == 0


# -- Creation -----------------------------------------------------------------------------------------------------


@row("TUS-CREATE-01", "TUS-CREATE-02", "TUS-CREATE-03", "TUS-CREATE-07")
def creation_reports_the_url(s):
    reply = s.create(4)
    assert reply.status == 201
    assert reply["Location"].startswith(f"http://localhost{PATH}/")
    assert s.offset(reply["Location"]) == 0


@row("TUS-CREATE-03")
def the_url_is_right_for_every_form_of_the_request_url(s):
    for target, environ, expected in (
        (f"http://example.org:8080{PATH}", {}, f"http://example.org:8080{PATH}/"),
        (f"https://example.org{PATH}/", {}, f"https://example.org{PATH}/"),
        (f"http://example.org{PATH}?job_key=a/b&c=d", {}, f"http://example.org{PATH}/"),
        (f"http://example.org{PATH}/?x", {}, f"http://example.org{PATH}/"),
        (f"http://[::1]:1080{PATH}", {}, f"http://[::1]:1080{PATH}/"),
        (f"http://example.org{PATH}", {"SCRIPT_NAME": "/files"}, f"http://example.org{PATH}/"),
        (
            f"http://localhost{PATH}",
            {"HTTP_HOST": "", "SERVER_NAME": "srv", "SERVER_PORT": "8080"},
            f"http://srv:8080{PATH}/",
        ),
    ):
        reply = s.send("POST", target, {"Upload-Length": "1"}, environ=environ)
        assert reply.status == 201, (target, reply)
        assert reply["Location"].startswith(expected)
        assert len(reply["Location"]) == len(expected) + 32
        assert s.offset(reply["Location"]) == 0


@row("TUS-CREATE-03", "TRAP-17")
def a_malformed_host_is_accepted(s):
    for host in ("[bad", "x:y:z", "a b", "\xe4", ""):
        assert s.create(4, environ={"HTTP_HOST": host}).status == 201
        reply = s.send("POST", headers={"Upload-Concat": "final;http://[bad /x"}, environ={"HTTP_HOST": host})
        assert reply.status == 404


@row("TUS-CREATE-04", "TUS-CWU-02", max_size=10)
def an_upload_that_is_too_large_is_not_created(s):
    assert s.create(11).status == 413
    assert s.create(10).status == 201
    assert s.create(4, body=b"abcde").status == 413
    assert s.create(None, body=b"x" * 11).status == 413
    assert s.create(None, body=b"x" * 11, chunked=True).status == 413
    uploads = [name for name in os.listdir(s.options["tmp_file_dir"]) if name.endswith(".tus")]
    assert len(uploads) == 1


@row("TUS-CREATE-05", "A-20", "TRAP-7", "REGRESSION-9")
def an_empty_file_is_complete_at_once(s):
    reply = s.create(0)
    assert (reply.status, reply["Upload-Offset"]) == (201, "0")
    assert data_of(s) == b""
    assert s.offset(reply["Location"]) == 0
    assert s.patch(reply["Location"], 0, b"").status == 204
    assert len(s.landed) == 1


@row("TUS-CWU-02", "TUS-CLI-01")
def an_empty_file_can_have_an_empty_body_without_a_length(s):
    reply = s.create(0, chunked=True)  # tus-js-client sends it like that, if it is to send data with the creation
    assert (reply.status, reply["Upload-Offset"]) == (201, "0")
    assert data_of(s) == b""


@row("A-09")
def exactly_one_length_header_is_required(s):
    assert s.send("POST").status == 400
    assert s.send("POST", headers={"Upload-Length": "4", "Upload-Defer-Length": "1"}).status == 400


@row("TUS-DEFER-01", "TUS-DEFER-02", "TUS-DEFER-03", "TUS-DEFER-04", "TUS-CLI-08")
def the_length_can_come_later(s):
    for value in ("0", "2", "true", "", "1,1"):
        assert s.send("POST", headers={"Upload-Defer-Length": value}).status == 400
    url = s.url()
    reply = s.head(url)
    assert (reply["Upload-Defer-Length"], reply.get("Upload-Length")) == ("1", None)
    assert s.patch(url, 0, b"abc").status == 204
    assert s.patch(url, 3, b"d", {"Upload-Length": "6"}).status == 204
    reply = s.head(url)
    assert (reply.get("Upload-Defer-Length"), reply["Upload-Length"]) == (None, "6")
    assert s.patch(url, 4, b"ef").status == 204
    assert data_of(s) == b"abcdef"


@row("TUS-DEFER-04", "A-36", "TRAP-7")
def the_length_can_come_with_an_empty_body(s):
    url = s.url()
    s.patch(url, 0, b"abc")
    reply = s.patch(url, 3, b"", {"Upload-Length": "3"})
    assert (reply.status, reply["Upload-Offset"]) == (204, "3")
    assert data_of(s) == b"abc"
    s.landed.clear()
    assert s.patch(s.url(), 0, b"", {"Upload-Length": "0"}).status == 204
    assert data_of(s) == b""


@row("TUS-DEFER-05", "A-10")
def the_length_never_changes(s):
    for url in (s.url(6), s.url()):
        assert s.patch(url, 0, b"a", {"Upload-Length": "6"}).status == 204
        assert s.patch(url, 1, b"b", {"Upload-Length": "6"}).status == 204
        for other in ("5", "7", "0"):
            assert s.patch(url, 2, b"c", {"Upload-Length": other}).status == 400
        assert s.offset(url) == 2


@row("TUS-DEFER-06", "A-11", max_size=10)
def an_impossible_length_is_refused(s):
    url = s.url()
    s.patch(url, 0, b"abc")
    assert s.patch(url, 3, b"", {"Upload-Length": "2"}).status == 400
    assert s.patch(url, 3, b"d", {"Upload-Length": "11"}).status == 413
    assert s.patch(url, 3, b"defg", {"Upload-Length": "5"}).status == 413
    assert s.head(url).get("Upload-Length") is None
    assert s.patch(url, 3, b"x" * 8).status == 413
    assert s.patch(url, 3, b"x" * 8, chunked=True).status == 413
    assert s.offset(url) == 3


@row("TUS-CWU-01", "TUS-CWU-03", "A-21", "TUS-CWU-04")
def creation_accepts_bytes(s):
    reply = s.create(4, body=b"ab")
    assert (reply.status, reply["Upload-Offset"]) == (201, "2")
    assert s.patch(reply["Location"], 2, b"cd").status == 204
    assert data_of(s) == b"abcd"
    assert s.create(4, OCTETS)["Upload-Offset"] == "0"


@row("TUS-CWU-03")
def creation_accepts_the_whole_file(s):
    for how in ({}, {"chunked": True}):
        for data in (b"abcd", os.urandom(200_000)):
            s.landed.clear()
            reply = s.create(len(data), body=data, **how)
            assert (reply.status, reply["Upload-Offset"]) == (201, str(len(data)))
            assert data_of(s) == data
    reply = s.create(body=b"abcd")
    assert (reply.status, reply["Upload-Offset"]) == (201, "4")


@row("TUS-CWU-03", "A-22")
def a_disconnected_creation_keeps_its_bytes(s):
    for data in (b"abc", os.urandom(100_000)):
        s.landed.clear()
        reply = s.create(len(data) + 1, body=data, length=len(data) + 1)
        assert (reply.status, reply["Upload-Offset"]) == (201, str(len(data)))
        s.patch(reply["Location"], len(data), b"!")
        assert data_of(s) == data + b"!"


@row("TUS-CWU-05")
def a_body_of_another_type_is_ignored(s):
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "application/octet-stream"):
        reply = s.create(4, {"Content-Type": content_type}, b"abcd")
        assert (reply.status, reply.get("Upload-Offset")) == (201, None)
        assert s.offset(reply["Location"]) == 0


@row("A-22")
def an_error_response_to_a_creation_has_no_url(s):
    for reply in (
        s.create(4, body=b"abcde"),
        s.create(4, body=b"abcde", chunked=True),
        s.create(4, checksum("sha1", b"x"), b"abcd"),
        s.create(4, {"Upload-Metadata": "a !"}),
        s.create(4, {"Upload-Checksum": "sha1 x"}, b"abcd"),
    ):
        assert reply.status in (400, 413, 460)
        assert reply.get("Location") is None
        assert reply.get("Upload-Offset") is None
    assert [name for name in os.listdir(s.options["tmp_file_dir"]) if name.endswith(".tus")] == []


# -- Metadata -----------------------------------------------------------------------------------------------------


@row("TUS-CREATE-06", "TUS-META-01", "TUS-META-02", "TUS-META-03", "TUS-META-05", "A-13")
def metadata_is_returned_as_it_was_sent(s):
    for raw in (
        "filename d29ybGQ=",
        "filename d29ybGQ=,is_confidential",
        "is_confidential ,b YQ==",
        "flag",
        "  a YQ== , b Yg==",
        "bytes //79AAECAw==",
        "\xc3\xa4\xff YQ==",
        "a-b_c.d/e:f;g=h?\"' YQ==",
        "crlf DQo=,nul AA==,dots Li4vLi4v",
    ):
        url = s.url(4, {"Upload-Metadata": raw})
        reply = s.head(url)
        assert reply["Upload-Metadata"] == raw


@row("TUS-META-03", "TUS-META-04", "REGRESSION-10", "REGRESSION-14", "TRAP-17")
def the_application_gets_decoded_metadata_and_a_safe_name(s):
    name = b64encode("../../etc/\u202epässwd\r\n\0.txt".encode()).decode()
    s.create(0, {"Upload-Metadata": f"filename {name},raw //79,flag"})
    upload = s.landed[0][0]
    assert upload.metadata == {
        "filename": "../../etc/\u202epässwd\r\n\0.txt".encode(),
        "raw": b"\xff\xfe\xfd",
        "flag": b"",
    }
    assert upload.text_metadata["raw"] == "\ufffd\ufffd\ufffd"
    assert upload.filename == "pässwd.txt"


@row("A-12", "TUS-META-02")
def bad_metadata_is_refused(s):
    for raw in (
        "a\x01b YQ==",
        "a\x7f YQ==",
        ",",
        "a YQ==,",
        "a YQ==,,b Yg==",
        " ,a",
        "a YQ==,a Yg==",
        "a !!!!",
        "a YQ",
        "a YQ=",
        "a YQ== x",
        "a YQ==  ",
        "a \xe4",
    ):
        assert s.create(4, {"Upload-Metadata": raw}).status == (201 if raw == "a YQ==  " else 400), raw


@row("TUS-META-03", "TUS-CLI-01")
def empty_metadata_is_accepted(s):
    for raw in ("", " "):
        url = s.url(4, {"Upload-Metadata": raw})
        assert s.head(url).get("Upload-Metadata") in (None, raw)


@row("TUS-META-04", max_metadata_size=20)
def metadata_has_a_limit(s):
    assert s.create(4, {"Upload-Metadata": "k " + "YWFh" * 5}).status == 431
    assert s.create(4, {"Upload-Metadata": "k " + "YWFh" * 4}).status == 201


# -- Expiration ---------------------------------------------------------------------------------------------------


@row("TUS-EXP-01", "TUS-EXP-02", "TUS-EXP-03", "TUS-EXP-06", upload_valid_duration=1000)
def the_expiry_is_reported(s):
    reply = s.create(4)
    expires = parsedate_to_datetime(reply["Upload-Expires"])
    assert reply["Upload-Expires"].endswith(" GMT")
    assert 990 <= expires.timestamp() - time.time() <= 1001
    url = reply["Location"]
    assert s.patch(url, 0, b"ab").get("Upload-Expires")
    assert s.head(url).get("Upload-Expires")
    assert s.patch(url, 2, b"cd").get("Upload-Expires") is None
    assert s.head(url).get("Upload-Expires") is None


@row("TUS-EXP-01", upload_valid_duration=0)
def without_an_expiry_none_is_reported(s):
    assert "expiration" not in s.send("OPTIONS")["Tus-Extension"]
    assert s.create(4).get("Upload-Expires") is None


@row("TUS-EXP-04", "A-23", upload_valid_duration=1)
def an_expired_upload_is_gone(s):
    url, done, piece = s.url(4), s.url(4, body=b"abcd"), part(s, b"abcd")
    later = time.time() + 5
    with mock.patch("time.time", lambda: later):
        for target in (url, piece):
            for reply in (s.head(target), s.patch(target, 0, b"ab"), s.send("DELETE", target)):
                assert reply.status in (404, 410)
                assert reply.get("Upload-Offset") is None
        assert final(s, piece).status in (404, 410)
        assert s.offset(done) == 4


# -- Checksum -----------------------------------------------------------------------------------------------------


@row("TUS-SUM-01", "TUS-SUM-02", "TUS-SUM-03", "A-35")
def checksums_are_verified(s):
    algorithms = s.send("OPTIONS")["Tus-Checksum-Algorithm"].split(",")
    assert algorithms == ["sha1", "sha256", "sha512", "md5", "crc32"]
    for algorithm in algorithms:
        for size in (3, 200_000):
            s.landed.clear()
            data = os.urandom(2 * size)
            url = s.url(2 * size)
            assert s.patch(url, 0, data[:size], checksum(algorithm, data[:size])).status == 204
            assert s.patch(url, size, data[size:], checksum(algorithm, data[size:]), chunked=True).status == 204
            assert data_of(s) == data


@row("TUS-SUM-04", "TUS-SUM-05", "TRAP-6")
def a_mismatch_keeps_nothing(s):
    for size in (3, 200_000, 3_000_000):
        url = s.url(size + 1)
        s.patch(url, 0, b"!")
        for how in ({}, {"chunked": True}):
            reply = s.patch(url, 1, b"x" * size, checksum("sha1", b"y" * size), **how)
            assert reply.status == 460
            assert reply.reason == ("" if isinstance(s, ASYNC_SUBJECTS) else "Checksum Mismatch")  # ASGI has none
            assert s.offset(url) == 1
        stored = os.path.getsize(os.path.join(s.options["tmp_file_dir"], url.rpartition("/")[2]))
        assert stored == 1
        s.landed.clear()
        assert s.patch(url, 1, b"x" * size).status == 204
        assert data_of(s) == b"!" + b"x" * size


@row("TUS-SUM-07")
def a_disconnect_under_a_checksum_keeps_nothing(s):
    for size in (3, 200_000):
        url = s.url(size + 1)
        reply = s.patch(url, 0, b"x" * size, checksum("sha1", b"x" * (size + 1)), length=size + 1)
        assert reply.status == 400
        assert s.offset(url) == 0


@row("TUS-SUM-04", "TUS-SUM-08")
def a_bad_checksum_header_is_refused_before_the_body(s):
    url = s.url(3)
    for value in (
        "",
        "sha1",
        "sha1 ",
        "sha1 !!!",
        "sha1 YQ==",
        "SHA1 " + "A" * 27 + "=",
        "sha3 YQ==",
        "whirlpool YQ==",
        "sha1  YQ==",
    ):
        reply = s.patch(url, 0, b"abc", {"Upload-Checksum": value})
        assert reply.status == 400, value
        assert s.offset(url) == 0
        assert s.create(3, {"Upload-Checksum": value}, b"abc").status == 400


@row("TUS-SUM-09")
def creation_with_bytes_can_have_a_checksum(s):
    for data in (b"abc", os.urandom(200_000)):
        s.landed.clear()
        assert s.create(len(data), checksum("sha256", data), data).status == 201
        assert data_of(s) == data
        assert s.create(len(data), checksum("sha256", b"x"), data).status == 460


@row("TUS-SUM-05", "TUS-DEFER-05")
def a_mismatch_does_not_set_the_length(s):
    for size in (3, 200_000):
        url = s.url()
        reply = s.patch(url, 0, b"x" * size, checksum("sha1", b"y") | {"Upload-Length": str(size)})
        assert reply.status == 460
        assert s.head(url)["Upload-Defer-Length"] == "1"


@row("TUS-SUM-06", "TUS-SUM-10")
def trailers_are_not_advertised(s):
    assert "checksum-trailer" not in s.send("OPTIONS")["Tus-Extension"]


# -- Termination --------------------------------------------------------------------------------------------------


@row("TUS-TERM-01", "TUS-TERM-02", "TUS-TERM-03", "A-33")
def an_upload_can_be_terminated(s):
    for url in (s.url(4), s.url(4, body=b"ab"), s.url(4, body=b"abcd"), part(s, b"abcd")):
        reply = s.send("DELETE", url)
        assert (reply.status, reply.body) == (204, b"")
        for after in (s.head(url), s.patch(url, 0, b"ab"), s.send("DELETE", url)):
            assert after.status in (404, 410)
            assert after.get("Upload-Offset") is None
    assert os.listdir(s.options["tmp_file_dir"]) == []


# -- Concatenation ------------------------------------------------------------------------------------------------


@row("TUS-CONCAT-01", "TUS-CONCAT-02", "TUS-CONCAT-03", "TUS-CONCAT-04", "TUS-CONCAT-06")
def parts_become_one_file(s):
    urls = [part(s, b"one", headers={"Upload-Metadata": "filename YQ=="}), part(s, b""), part(s, b"three")]
    assert s.landed == []
    reply = final(s, *urls, headers={"Upload-Metadata": "filename Yg=="})
    assert (reply.status, reply["Upload-Offset"]) == (201, "8")
    assert data_of(s) == b"onethree"
    assert s.landed[0][0].metadata == {"filename": b"b"}
    assert final(s, *urls).status == 201
    assert s.landed[1][0].metadata == {}


@row("TUS-CONCAT-07", "A-19")
def parts_can_be_used_again(s):
    one, two = part(s, b"one"), part(s, b"two")
    first = final(s, one, two, one)
    second = final(s, one, two, one, headers={"Upload-Metadata": "copy Mg=="})
    third = final(s, two)
    assert [data for _, data in s.landed] == [b"onetwoone", b"onetwoone", b"two"]
    assert len({first["Location"], second["Location"], third["Location"]}) == 3
    assert s.offset(one) == 3


@row("TUS-CONCAT-08", "A-17")
def the_concatenation_is_returned_as_it_was_sent(s):
    one = part(s, b"one")
    assert s.head(one)["Upload-Concat"] == "partial"
    assert s.head(one)["Upload-Offset"] == "3"
    value = "final;" + one + "  /files/" + one.rpartition("/")[2] + " "
    url = s.send("POST", headers={"Upload-Concat": value})["Location"]
    assert s.head(url)["Upload-Concat"] == value
    assert data_of(s) == b"oneone"


@row("TUS-CONCAT-09")
def a_final_upload_accepts_no_bytes(s):
    one, two = part(s, b"one"), part(s, length=3)
    for url in (final(s, one)["Location"], final(s, one, two)["Location"]):
        for offset in (0, 3):
            assert s.patch(url, offset, b"x").status == 403
            assert s.patch(url, offset, b"").status == 403
    assert (s.offset(one), s.offset(two)) == (3, 0)
    reply = final(s, one, headers=OCTETS, body=b"abc")
    assert reply.status == 403


@row("TUS-CONCAT-05", "TUS-CONCAT-10", "TUS-CONCAT-11")
def a_final_upload_can_wait_for_its_parts(s):
    one, two = part(s, b"one"), s.url(None, {"Upload-Concat": "partial"})
    reply = final(s, one, two)
    assert (reply.status, reply.get("Upload-Offset")) == (201, None)
    url = reply["Location"]
    waiting = s.head(url)
    assert (waiting.get("Upload-Offset"), waiting.get("Upload-Length")) == (None, None)
    s.patch(two, 0, b"t", {"Upload-Length": "3"})
    waiting = s.head(url)
    assert (waiting.get("Upload-Offset"), waiting["Upload-Length"]) == (None, "6")
    assert s.landed == []
    reply = s.patch(two, 1, b"wo")
    assert (reply.status, reply["Upload-Offset"]) == (204, "3")
    assert data_of(s) == b"onetwo"
    after = s.head(url)
    assert (after["Upload-Offset"], after["Upload-Length"]) == ("6", "6")


@row("TUS-CONCAT-05")
def a_part_can_be_completed_by_its_creation_or_its_length(s):
    one = s.url(None, {"Upload-Concat": "partial"})
    final(s, one)
    s.patch(one, 0, b"abc")
    assert s.landed == []
    assert s.patch(one, 3, b"", {"Upload-Length": "3"}).status == 204
    assert data_of(s) == b"abc"


@row("TUS-CONCAT-12", "A-15", "A-16", "A-18", "TRAP-10")
def uploads_that_cannot_be_concatenated_are_refused(s):
    one, plain = part(s, b"one"), s.url(3, body=b"abc")
    unknown = f"{PATH}/{'0' * 32}"
    for value in ("", "final", "final;", "final; ", "Final;" + one, "partial;", "partial,partial", "x", "final:" + one):
        assert s.send("POST", headers={"Upload-Concat": value}).status == 400, value
    for urls, status in (
        ([unknown], 404),
        ([one, unknown], 404),
        ([plain], 400),
        ([one, plain], 400),
        (["http://elsewhere.example" + one.removeprefix("http://localhost")], 404),
        ([one.replace(PATH, "/other")], 404),
        ([one + "/x"], 404),
        ([one + "?x=y"], 404),
        (["../../etc/passwd"], 404),
    ):
        assert final(s, *urls).status == status, urls
    for headers in ({"Upload-Length": "3"}, {"Upload-Defer-Length": "1"}):
        assert final(s, one, headers=headers).status == 400
    assert [data for _, data in s.landed] == [b"abc"]


@row("TUS-CONCAT-03", "TRAP-10")
def parts_can_be_named_by_every_equivalent_url(s):
    one = part(s, b"one")
    name = one.rpartition("/")[2]
    for url in (
        one,
        f"{PATH}/{name}",
        name,
        f"./{name}",
        f"//localhost{PATH}/{name}",
        f"https://LOCALHOST{PATH}/{name}",
    ):
        s.landed.clear()
        reply = final(s, url, headers={"Upload-Metadata": "name " + b64encode(url.encode()).decode()})
        assert reply.status == 201, url
        assert data_of(s) == b"one"


@row("TUS-CONCAT-12", max_size=5)
def a_sum_that_is_too_large_is_refused(s):
    one, two, three = part(s, b"one"), part(s, b"two"), s.url(None, {"Upload-Concat": "partial"})
    assert final(s, one, two).status == 413
    url = final(s, one, three)["Location"]
    assert s.patch(three, 0, b"abc", {"Upload-Length": "3"}).status == 204
    assert s.head(url).status in (404, 410)
    assert s.landed == []


@row("TUS-CONCAT-04")
def a_repeated_final_request_finds_the_upload(s):
    one, two = part(s, b"one"), part(s, length=3)
    first, second = final(s, one, two), final(s, one, two)
    assert first["Location"] == second["Location"]
    s.fail = "503 Service Unavailable"
    s.patch(two, 0, b"two")
    third = final(s, one, two)
    assert third.status == 503
    s.fail = None
    fourth = final(s, one, two)
    assert (fourth.status, fourth["Location"]) == (201, first["Location"])
    assert data_of(s) == b"onetwo"
    fifth = final(s, one, two)  # after acceptance too: its reply may have been lost
    assert (fifth.status, fifth["Location"], fifth["Upload-Offset"]) == (201, first["Location"], "6")
    assert len(s.landed) == 1
    assert s.send("DELETE", first["Location"]).status == 204
    assert final(s, one, two).status == 201
    assert len(s.landed) == 2


@row("TUS-CONCAT-05", "TUS-CONCAT-07")
def a_part_can_complete_several_final_uploads(s):
    one = part(s, length=3)
    finals = [final(s, one, headers={"Upload-Metadata": f"copy {value}"})["Location"] for value in ("MQ==", "Mg==")]
    reply = s.patch(one, 0, b"abc")
    if isinstance(s, ViewSubject):  # it takes one at a time
        assert (reply.status, len(s.landed)) == (204, 1)
        reply = s.patch(one, 3, b"")
    assert reply.status == 204
    assert {upload.id for upload, _ in s.landed} == {url.rpartition("/")[2] for url in finals}
    assert [data for _, data in s.landed] == [b"abc", b"abc"]


@row("TUS-CONCAT-05")
def a_part_is_complete_even_if_its_final_upload_is_gone(s):
    one = part(s, length=3)
    url = final(s, one)["Location"]
    assert s.send("DELETE", url).status == 204
    reply = s.patch(one, 0, b"abc")
    assert (reply.status, reply["Upload-Offset"]) == (204, "3")
    assert s.landed == []


# -- The application ----------------------------------------------------------------------------------------------


@row("REGRESSION-6", "TUS-CREATE-05")
def a_postponed_file_is_kept_and_offered_again(s):
    s.fail = "503 Service Unavailable"
    url = s.url(4)
    assert s.patch(url, 0, b"abcd").status == 503
    assert s.patch(url, 4, b"").status == 503
    assert s.landed == []
    s.fail = None
    reply = s.patch(url, 4, b"")
    assert (reply.status, reply["Upload-Offset"]) == (204, "4")
    assert data_of(s) == b"abcd"
    assert s.patch(url, 4, b"").status == 204
    assert len(s.landed) == 1


@row("REGRESSION-6")
def a_file_is_kept_if_the_application_crashes(s):
    s.fail = RuntimeError("the application's bug")
    url = s.url(4)
    if isinstance(s, ViewSubject):
        with pytest.raises(RuntimeError, match="the application's bug"):
            s.patch(url, 0, b"abcd")
    else:
        reply = s.patch(url, 0, b"abcd")
        assert (reply.status, reply["Tus-Resumable"]) == (500, "1.0.0")
        assert b"bug" not in reply.body
    s.fail = None  # whose traceback holds on to the request, and so to the hand-over
    assert s.offset(url) == 3
    assert s.patch(url, 4, b"").status == 204
    assert data_of(s) == b"abcd"


@row("TUS-CORE-18")
def the_data_is_removed_after_acceptance(s):
    s.url(4, body=b"abcd")
    assert [name for name in os.listdir(s.options["tmp_file_dir"]) if not name.endswith(".tus")] == []


@row("TUS-CORE-19")
def pages_and_forms_at_the_same_url_go_to_the_application(s):
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert call(s.app, "GET", PATH).body == b"the application's own page"
    assert call(s.app, "POST", PATH, form, b"--x--").body == b"the application's own page"
    assert call(s.app, "POST", PATH, form | {"Upload-Length": "4"}, b"--x--").status == 412
    for kind in ("image/jpeg", "application/json", None):
        plain = call(s.app, "POST", PATH, {} if kind is None else {"Content-Type": kind}, b"{}")
        assert plain.body == b"the application's own page"
    assert call(s.app, "PUT", PATH, {"Content-Type": "image/jpeg"}, b"...").body == b"the application's own page"
    override = {"Content-Type": "application/json", "X-HTTP-Method-Override": "PUT"}
    assert call(s.app, "POST", PATH, override, b"{}").body == b"the application's own page"
    assert call(s.app, "DELETE", PATH).body == b"the application's own page"
    assert call(s.app, "GET", f"{PATH}/17").body == b"the application's own page"
    assert call(s.app, "POST", PATH, {"Content-Type": "application/offset+octet-stream"}).status == 412
    assert call(s.app, "HEAD", PATH).get("Tus-Resumable") is None
    assert s.head(PATH).status in (404, 405)


# -- Failures of the store ----------------------------------------------------------------------------------------


@row("REGRESSION-8")
def a_damaged_record_is_gone(s):
    url = s.url(4)
    path = os.path.join(s.options["tmp_file_dir"], url.rpartition("/")[2] + ".tus")
    with open(path, "r+b") as file:
        file.truncate(70)
    for reply in (s.head(url), s.patch(url, 0, b"ab")):
        assert reply.status == 410
        assert reply.get("Upload-Offset") is None
        assert str(s.options["tmp_file_dir"]) not in reply.body.decode()


@row("REGRESSION-12")
def a_temporary_error_does_not_make_clients_start_again(s):
    url = s.url(4)
    with mock.patch(
        "tus.stores.directory.record.os.pread", side_effect=OSError(5, "Input/output error", "/secret/path")
    ):
        head, patch = s.head(url), s.patch(url, 0, b"ab")
    assert (head.status, head.get("Upload-Offset")) == (423, None)
    assert head.get("Retry-After")
    assert (patch.status, patch.get("Upload-Offset")) == (503, None)
    assert b"/secret" not in patch.body
    assert s.offset(url) == 0


@row("TUS-CORE-20")
def a_full_disk_gets_507_and_the_upload_can_resume(s):
    for size in (100, 200_000):
        s.landed.clear()
        url = s.url(size)
        disk = full_disk(size // 2)
        with (
            mock.patch("tus.stores.directory.record.os.pwrite", disk),
            mock.patch("tus.stores.directory.record.os.pwritev", disk),
        ):
            reply = s.patch(url, 0, b"x" * size)
        assert (reply.status, reply.get("Upload-Offset")) == (507, None)
        assert s.offset(url) == size // 2
        s.patch(url, size // 2, b"x" * (size // 2))
        assert data_of(s) == b"x" * size


# -- Idempotency-Key ----------------------------------------------------------------------------------------------

KEY = {"Idempotency-Key": '"8e03978e-40d5-43e8-bc93-6894a57f9324"'}


def uploads_of(subject):
    return list(subject.stored().list())


@row("IDEM-01", "IDEM-07")
def a_malformed_key_is_refused(s):
    for value in ("", '""', '"open', "two keys of sixteen characters", "?1", '"k"', '"k", "k"', '"' + "k" * 256 + '"'):
        assert s.create(4, {"Idempotency-Key": value}).status == 400, value
    assert uploads_of(s) == []
    for value in ('"' + "k" * 255 + '"', '"with a space and \\"quotes\\""', "YWJjZGVmZ2hpamtsbW4+/w=="):
        assert s.create(4, {"Idempotency-Key": value}).status == 201, value


@row("IDEM-02")
def a_repeated_creation_finds_its_upload(s):
    for headers in ({"Upload-Length": "4"}, {"Upload-Defer-Length": "1"}):
        key = f"the-key-with-{next(iter(headers))}"
        reply = s.send("POST", headers=headers | {"Idempotency-Key": key})
        assert (reply.status, reply.get("Upload-Offset")) == (201, None)
        url = reply["Location"]
        again = s.send("POST", headers=headers | {"Idempotency-Key": f'"{key}"'})
        assert (again.status, again["Location"], again.get("Upload-Offset")) == (201, url, None)
        s.patch(url, 0, b"ab")
        later = s.send("POST", headers=headers | {"Idempotency-Key": key})
        assert (later.status, later["Location"], later["Upload-Offset"]) == (201, url, "2")
    assert len(uploads_of(s)) == 2


@row("IDEM-10")
def parts_ignore_a_key(s):
    urls = [part(s, length=4, headers=KEY) for _ in range(2)]
    assert urls[0] != urls[1]
    whole = final(s, *urls, headers=KEY)["Location"]
    s.patch(urls[0], 0, b"abcd")
    s.patch(urls[1], 0, b"efgh")
    assert data_of(s) == b"abcdefgh"
    assert final(s, *urls, headers=KEY)["Location"] == whole


@row("IDEM-03")
def another_request_under_a_key_is_refused(s):
    url = s.url(4, KEY)
    one = part(s, b"one")
    others = (
        {"Upload-Length": "5"},
        {"Upload-Defer-Length": "1"},
        {"Upload-Length": "4", "Upload-Metadata": "filename eA=="},
        {"Upload-Length": "4", "Repr-Digest": f"sha-256=:{b64encode(bytes(32)).decode()}:"},
        {"Upload-Concat": f"final;{one}"},
    )
    for headers in others:
        reply = s.send("POST", headers=headers | KEY)
        assert (reply.status, reply.get("Location")) == (422, None), headers
        assert b"Idempotency-Key" in reply.body
    assert s.offset(url) == 0
    assert len(uploads_of(s)) == 2


@row("IDEM-03")
def a_length_that_came_later_is_no_other_request(s):
    url = s.url(None, KEY)
    s.patch(url, 0, b"abcd", {"Upload-Length": "4"})
    assert s.create(None, KEY)["Location"] == url
    assert s.create(4, KEY).status == 422
    assert data_of(s) == b"abcd"


@row("IDEM-04")
def a_repeated_creation_resumes_after_a_cut(s):
    for number, size in enumerate((2, 200_000)):
        headers = {"Idempotency-Key": f'"a key with the number {number}"'}
        data = os.urandom(2 * size)
        s.create(len(data), headers, data[:size], length=len(data))  # its response never arrives
        reply = s.create(len(data), headers, data)
        assert (reply.status, reply["Upload-Offset"]) == (201, str(size))
        url = reply["Location"]
        assert s.offset(url) == size
        assert s.patch(url, size, data[size:]).status == 204
        assert s.landed.pop()[1] == data
        assert s.landed == []


@row("IDEM-04")
def a_repeated_creation_sends_its_body_if_the_first_one_got_nowhere(s):
    s.create(4, KEY, length=4)
    assert s.create(4, KEY, b"ab")["Upload-Offset"] == "2"
    url = s.create(4, KEY, b"ab")["Location"]
    assert s.patch(url, 2, b"cd").status == 204
    assert data_of(s) == b"abcd"


@row("IDEM-04", "TUS-SUM-03")
def a_wrong_checksum_does_not_use_the_key_up(s):
    assert s.create(4, KEY | checksum("sha1", b"x"), b"abcd").status == 460
    reply = s.create(4, KEY | checksum("sha1", b"abcd"), b"abcd")
    assert (reply.status, reply["Upload-Offset"]) == (201, "4")
    assert data_of(s) == b"abcd"
    assert len(uploads_of(s)) == 1


@row("IDEM-05")
def a_repeated_creation_gets_the_recorded_outcome(s):
    for data in (b"abcd", b""):
        headers = {"Idempotency-Key": f"a-key-of-{len(data)}-or-so-bytes"}
        first = s.create(len(data), headers, data, chunked=True)
        again = s.create(len(data), headers, data, chunked=True)
        assert (first.status, again.status) == (201, 201)
        assert (again["Location"], again["Upload-Offset"]) == (first["Location"], str(len(data)))
        assert again.get("X-App") == first.get("X-App")
        assert s.landed.pop()[1] == data
        assert s.landed == []


@row("IDEM-05", reject_statuses="422")
def a_repeated_creation_gets_the_recorded_rejection(s):
    if isinstance(s, ViewSubject):
        return  # a view rejects by a call
    s.fail = "422 Unprocessable Content"
    first = s.create(4, KEY, b"abcd")
    s.fail = None
    again = s.create(4, KEY, b"abcd")
    assert (first.status, first.body) == (again.status, again.body) == (422, b"the application's answer")
    assert s.landed == []


@row("IDEM-05")
def a_repeated_creation_offers_the_file_again(s):
    for data in (b"abcd", b""):
        headers = {"Idempotency-Key": f"a-key-of-{len(data)}-or-so-bytes"}
        s.fail = "503 Service Unavailable"
        s.create(len(data), headers, data)
        s.fail = None
        assert s.create(len(data), headers, data).status == 201
        assert s.landed.pop()[1] == data
    assert len(uploads_of(s)) == 2


@row("IDEM-06")
def a_key_makes_a_new_upload_after_the_end_of_the_first(s):
    url = s.url(4, KEY, b"ab")
    assert s.send("DELETE", url).status == 204
    assert s.create(4, KEY, b"abc")["Upload-Offset"] == "3"
    assert s.create(4, KEY, b"abc")["Upload-Offset"] == "3"


@row("IDEM-06", upload_valid_duration=100, completed_keep=200, max_uploads=1)
def a_key_makes_a_new_upload_after_the_first_has_expired(s):
    s.url(4, KEY, b"ab")
    with later(101):
        url = s.create(4, KEY, b"abc")["Location"]
        assert s.offset(url) == 3
        s.patch(url, 3, b"d")
    with later(101 + 150):
        assert s.create(4, KEY, b"abc")["Upload-Offset"] == "4"
    with later(101 + 202):
        assert s.create(4, KEY, b"abc")["Upload-Offset"] == "3"
    assert len(s.landed) == 1


@row("IDEM-02", "IDEM-03", "IDEM-05")
def a_final_upload_can_have_a_key(s):
    one, two = part(s, b"one"), part(s, length=3)
    url = final(s, one, two, headers=KEY)["Location"]
    assert final(s, one, two, headers=KEY)["Location"] == url
    assert final(s, two, one, headers=KEY).status == 422
    assert final(s, one, two, headers={"Idempotency-Key": "another-key-of-this-client"})["Location"] != url
    s.patch(two, 0, b"two")
    assert {data for _, data in s.landed} == {b"onetwo"}
    s.send("DELETE", one)
    assert final(s, one, two, headers=KEY)["Location"] == url
    assert final(s, one, two, headers={"Idempotency-Key": "a-key-that-was-never-used"}).status in (404, 410)


@row("IDEM-08")
def a_repeated_creation_waits_while_the_application_has_the_file(s):
    if isinstance(s, ViewSubject):
        return  # its claim is held by the view
    url = s.url(4, KEY, b"abc")
    claim = s.stored().claim(s.stored().append(s.record(url), 3, b"d"))
    claim.begin()
    reply = s.create(4, KEY, b"abcd")
    assert (reply.status, reply.get("Location"), reply["Retry-After"]) == (423, None, "1")
    claim.accept()
    assert s.create(4, KEY, b"abcd")["Location"] == url
    assert s.landed == []


# -- Completeness -------------------------------------------------------------------------------------------------

#: What Part 1 of the requirements asks of a server; those for clients are not ours.
REQUIREMENTS = {
    "CORE": [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20],
    "CREATE": [1, 2, 3, 4, 5, 6, 7],
    "DEFER": [1, 2, 3, 4, 5, 6],
    "CWU": [1, 2, 3, 4, 5],
    "META": [1, 2, 3, 4, 5],
    "EXP": [1, 2, 3, 4, 6],
    "SUM": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    "TERM": [1, 2, 3],
    "CONCAT": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
}


def test_every_requirement_has_a_row():
    covered = {name for param in ROWS for name in param.id.partition("-" + param.values[0].__name__)[0].split("+")}
    wanted = {f"TUS-{group}-{number:02}" for group, numbers in REQUIREMENTS.items() for number in numbers}
    assert wanted - covered == set()
