"""Resumable Uploads for HTTP, requirement by requirement and version by version, held against every way of using it.

A row's ids are the requirement's; TRAP ids are mistakes that other servers make. A row holds for the versions it names;
99 stands for a version that nobody knows, none for a client that names none.
"""

import functools
import json
import re
from unittest import mock

import pytest

from tests.support.clocks import later
from tests.support.hooks import Recorder
from tests.support.ietf import ALL, PARTIAL, UNKNOWN, VERSIONS, Blocks, Client, digest
from tests.support.subjects import PATH, REJECTS, SUBJECTS, FilterSubject, ViewSubject
from tests.support.wsgi import TUS, call
from tus import HookReply
from tus.adapters.wsgi import EnvironHeaders
from tus.errors import Forbidden, Unauthorized
from tus.models import Request, Response
from tus.options import Options
from tus.protocols.ietf.profiles import PROFILES, UNVERSIONED, takes_interim

ROWS = []
KNOWN = VERSIONS
OLD = (3, 4, 5, 6)  # the offset reaching the length completes an upload
NEW = (7, 8, 9, 10, UNKNOWN, None)
WITH_LIMITS = (6, *NEW)
REPLAYING = (3, 4, 5, 9, 10, UNKNOWN, None)
WSGI_SUBJECTS = (FilterSubject, ViewSubject)
#: Those with an application behind them that answers by itself.
APPLICATIONS = tuple(subject for subject in SUBJECTS if subject is not ViewSubject)


def row(*ids, versions=ALL, subjects=SUBJECTS, **options):
    """A requirement.

    Args:
        versions: for which it holds.
        subjects: the ways of using the package that it is about.
        options: of the package.
    """

    def add(function):
        ROWS.append((function, ids, versions, subjects, options))
        return function

    return add


def cases():
    for function, ids, versions, subjects, options in ROWS:
        for version in versions:
            for subject in subjects:
                name = f"{'+'.join(ids)}-{function.__name__}-{subject.__name__}-{version or 'none'}"
                yield pytest.param(function, subject, version, options, id=name)


def data_of(c):
    assert len(c.s.landed) == 1, c.s.landed
    return c.s.landed[0][1]


def metadata_of(c, headers, body=b"x"):
    """What the application hears of a file that was created with these header fields."""
    reply = c.create(body, True, headers)
    assert c.told(reply) is True, reply
    upload, _ = c.s.landed.pop()
    return upload.text_metadata


def limits_of(reply):
    """The ``Upload-Limit`` of a reply as a mapping."""
    pairs = [member.strip().partition("=") for member in reply["Upload-Limit"].split(",")]
    return {key: int(value) for key, _, value in pairs}


def is_view(c):
    return isinstance(c.s, ViewSubject)


def accepted(c, reply, created=False):
    """See that a reply is the last word of an application that has taken the file, in its own words."""
    assert c.told(reply) is True, reply
    if is_view(c):  # which says so by cleanup_file()
        assert (reply.status, reply.body) == (204, b"")
    else:
        assert (reply.status, reply.body) == (200, b"the application's answer")
        assert (reply["Content-Type"], reply["X-App"]) == ("text/plain", "was here")
    return reply


# -- Versions and fields ------------------------------------------------------------------------------------------


@row("RUFH-VER-05")
def every_reply_names_the_version_of_the_client(c):
    url = c.url(b"ab")
    replies = [
        c.head(url),
        c.append(url, 2, b"cd"),
        c.append(url, 9),
        c.append(url, "x"),
        c.append(url, 4, b"ef", True),
        c.append(f"{PATH}/{'0' * 32}", 0),
        c.send("DELETE", c.url()),
    ]
    statuses = [reply.status for reply in replies]
    assert statuses == [204, 201 if c.like <= 6 else 204, 409, 400, 204 if is_view(c) else 200, 404, 204]
    named = {str(c.version)} if c.version in KNOWN else {None}
    assert {reply.get("Upload-Draft-Interop-Version") for reply in replies} == named
    assert {reply.get("Tus-Resumable") for reply in replies} == {None}


@row("RUFH-STATE-04", "RUFH-APPEND-04", "RUFH-CREATE-04", "RUFH-CREATE-05", "RUFH-APPEND-03", "TRAP-11")
def completeness_is_reported_by_the_field_of_the_version(c):
    reply = c.create(b"ab")
    assert (reply.status, c.told(reply), reply["Upload-Offset"]) == (201, False, "2")
    url = reply["Location"]
    assert c.told(c.head(url)) is False
    reply = c.append(url, 2, b"cd")
    assert (reply.status, c.told(reply), reply["Upload-Offset"]) == (201 if c.like <= 6 else 204, False, "4")
    accepted(c, c.append(url, 4, b"ef", True))
    assert c.told(c.head(url)) is True
    assert data_of(c) == b"abcdef"


@row("RUFH-FIELD-01", "TRAP-12", versions=KNOWN)
def a_field_of_another_type_counts_as_absent(c):
    for value in ("1", "true", "?2", "?", "", '"?1"', "?1, ?1", "?0,?1", "yes"):
        assert c.create(b"", None, {c.field: value}).status == 400, value
    for value in (
        "-1",
        "+4",
        "4.0",
        '"4"',
        "9" * 16,
        "four",
        "",
        "4, 4",
        "(4)",
        "?1",
        "@4",
        "\u0664".encode().decode("latin-1"),
    ):
        url = c.url(b"ab", False, {"Upload-Length": value})
        assert c.head(url).get("Upload-Length") is None, value
        reply = c.append(url, value, b"cd")
        assert reply.status == 400, value
        c.problem(reply)
        assert c.offset(url) == 2
    assert c.s.landed == []


@row("RUFH-FIELD-01")
def parameters_of_a_value_are_ignored(c):
    reply = c.send(
        "POST", PATH, {key: f"{value};x=1;y" for key, value in c.mark(False).items()} | {"Upload-Length": "4;z"}
    )
    assert (reply.status, c.told(reply)) == (201, False)
    assert c.head(reply["Location"])["Upload-Length"] == "4"
    assert c.append(reply["Location"], " 0;a=?1 ", b"ab").status in (201, 204)
    assert c.offset(reply["Location"]) == 2


@row("RUFH-APPEND-08", versions=KNOWN)
def an_append_without_completeness(c):
    url = c.url(b"ab", False, {"Upload-Length": "6"})
    reply = c.append(url, 2, b"cd", None)
    if c.like == 3:  # where that means "this is all"
        assert (reply.status, c.told(reply), c.offset(url)) == (400, False, 2)
        reply = c.append(url, 2, b"cdef", None)
    elif c.like <= 6:
        assert (reply.status, c.told(reply), c.offset(url)) == (201, False, 4)
        reply = c.append(url, 4, b"ef", None)
    else:
        assert (reply.status, c.told(reply), c.offset(url)) == (400, False, 2)
        reply = c.append(url, 2, b"cdef", True)
    accepted(c, reply)
    assert data_of(c) == b"abcdef"


@row("RUFH-APPEND-08", "TRAP-11", versions=KNOWN)
def the_field_of_another_version_is_ignored(c):
    other = "Upload-Complete" if c.like == 3 else "Upload-Incomplete"
    assert c.create(b"ab", None, {other: "?1"}).status == 400
    url = c.url()
    assert c.append(url, 0, b"ab", False, {other: "?0" if c.like != 3 else "?1"}).status in (201, 204)
    assert c.told(c.head(url)) is False


@row("RUFH-APPEND-08", "A-03", "A-04", versions=KNOWN)
def the_media_type_of_an_append(c):
    url = c.url()
    for content_type in ("text/plain", "", "application/partial-uploads", "application/offset+octet-stream"):
        reply = c.append(url, 0, b"ab", False, {"Content-Type": content_type})
        if c.like >= 6:
            assert (reply.status, reply["Accept-Patch"], c.offset(url)) == (415, PARTIAL, 0)
            c.problem(reply)
        else:
            assert (reply.status, c.offset(url)) == (201, 2)
            url = c.url()
    for content_type in ("application/partial-upload; charset=x", "Application/Partial-Upload"):
        assert c.append(url, c.offset(url), b"ab", False, {"Content-Type": content_type}).status in (201, 204)
    assert c.offset(url) == 4


@row("RUFH-APPEND-08")
def an_append_without_an_offset_changes_nothing(c):
    url = c.url(b"ab")
    reply = c.send("PATCH", url, {"Content-Type": PARTIAL} | c.mark(False), b"cd")
    assert reply.status == 400
    c.problem(reply)
    assert c.offset(url) == 2


# -- Which protocol ------------------------------------------------------------------------------------------------


@row("RUFH-VER-06", "A-41", versions=KNOWN)
def a_known_version_comes_before_tus(c):
    reply = c.create(b"ab", False, TUS | {"Upload-Length": "4"})
    assert (reply.status, c.told(reply), reply.get("Tus-Resumable")) == (201, False, None)
    assert c.head(reply["Location"], TUS).status == 204


@row("RUFH-VER-06", "A-39", versions=(UNKNOWN, None))
def tus_comes_before_a_request_without_a_version(c):
    reply = c.create(b"", False, TUS | {"Upload-Length": "4"})
    assert (reply.status, c.told(reply), reply["Tus-Resumable"]) == (201, None, "1.0.0")
    assert c.head(reply["Location"], TUS)["Upload-Offset"] == "0"
    assert c.head(reply["Location"]).status == 200  # which could be of either, so the upload decides
    assert c.head(c.url()).status == 204


@row("RUFH-VER-06")
def an_upload_of_tus_can_be_continued(c):
    url = c.s.url(6, body=b"ab")
    if c.version in KNOWN:
        reply = c.head(url)
        assert (reply.status, c.told(reply), reply["Upload-Offset"]) == (204, False, "2")
    assert c.append(url, 2, b"cd").status in (201, 204)
    reply = c.append(url, 4, b"ef", True)
    assert (reply.status, c.told(reply), reply.body) == (204, True, b"")  # whose answers have no body
    assert data_of(c) == b"abcdef"
    assert c.s.offset(url) == 6


@row("RUFH-VER-06")
def tus_can_continue_an_upload(c):
    url = c.url(b"ab", False, {"Upload-Length": "6"})
    assert c.s.offset(url) == 2
    assert c.s.patch(url, 2, b"cd").status == 204
    assert c.offset(url) == 4
    reply = c.s.patch(url, 4, b"ef")
    assert (reply.status, reply.body) == (204, b"")
    assert data_of(c) == b"abcdef"
    assert c.told(c.head(url)) is True


@row("RUFH-VER-06", versions=NEW)
def tus_completes_an_upload_that_has_only_reached_its_length(c):
    url = c.url(b"abcd", False, {"Upload-Length": "4"})
    assert (c.offset(url), c.s.landed) == (4, [])
    assert c.s.offset(url) == 3  # or its client would take that for success
    assert c.s.patch(url, 3, b"x").status == 400
    assert c.s.patch(url, 3, b"d").status == 204
    assert data_of(c) == b"abcd"


@row("RUFH-VER-06", versions=(UNKNOWN, None))
def a_cancellation_of_an_unknown_upload_without_a_version(c):
    assert c.send("DELETE", f"{PATH}/{'0' * 32}").status == 404
    url = c.url()
    assert [c.send("DELETE", url).status, c.send("DELETE", url).status] == [204, 404]


@row("RUFH-OPT-01", "RUFH-VER-07")
def options_describes_both_protocols(c):
    for target in (PATH, c.url()):
        reply = c.send("OPTIONS", target)
        assert (reply.status, reply["Tus-Version"]) == (200, "1.0.0")
        assert reply["Accept-Patch"] == PARTIAL
        if c.like >= 6:
            assert reply["Upload-Limit"].startswith("max-age=" if c.like >= 7 else "expires=")


@row("RUFH-OPT-01", versions=WITH_LIMITS, upload_valid_duration=0)
def no_limits_are_reported_too(c):
    assert c.send("OPTIONS")["Upload-Limit"] == "min-size=0"
    assert c.head(c.url())["Upload-Limit"] == "min-size=0"


@row("RUFH-VER-06", protocols="tus")
def a_site_may_speak_tus_alone(c):
    assert c.create(b"ab").body == b"the application's own page", "as on a server without resumption"
    assert c.append(c.s.url(4), 0, b"ab").status == 412
    reply = c.send("OPTIONS")
    assert (reply["Tus-Version"], reply.get("Upload-Limit"), reply.get("Accept-Patch")) == ("1.0.0", None, None)
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert c.create(b"--x--", True, form).body == b"the application's own page"
    assert c.s.landed == []


@row("RUFH-VER-06", protocols="ietf")
def a_site_may_speak_the_ietf_protocol_alone(c):
    url = c.url(b"ab")
    assert call(c.s.app, "HEAD", url).status == 204
    assert call(c.s.app, "HEAD", url, TUS).status == 204
    assert c.s.send("POST", PATH, {"Upload-Length": "4"}).status == 400
    reply = c.send("OPTIONS")
    assert (reply.status, reply.get("Tus-Version"), reply.get("Tus-Resumable")) == (200, None, None)
    accepted(c, c.append(url, 2, b"cd", True))
    assert data_of(c) == b"abcd"


# -- Creation ------------------------------------------------------------------------------------------------------


@row("RUFH-CREATE-01", "RUFH-CREATE-04", "RUFH-CREATE-06")
def careful_creation(c):
    reply = c.create()
    assert (reply.status, c.told(reply), reply["Upload-Offset"]) == (201, False, "0")
    assert reply["Location"].startswith("http://localhost/files/")
    assert (reply.get("Upload-Limit") is not None) == (c.like >= 6)
    assert c.offset(reply["Location"]) == 0
    accepted(c, c.append(reply["Location"], 0, b"abcd", True))
    assert data_of(c) == b"abcd"


@row("RUFH-CREATE-05", "RUFH-STATE-04", "TRAP-13")
def creation_with_everything(c):
    reply = c.create(b"abcd", True)
    assert data_of(c) == b"abcd"
    accepted(c, reply)
    url = reply["Location"]
    assert (c.told(c.head(url)), c.offset(url), c.head(url)["Upload-Length"]) == (True, 4, "4")


@row("RUFH-CREATE-06", subjects=APPLICATIONS)
def the_location_in_the_response_of_the_application(c):
    c.s.fields.append(("Location", "/album/7"))
    location = c.create(b"abcd", True)["Location"]
    if c.like <= 6:  # whose clients compare it
        assert "/files/" in location
    else:
        assert location == "/album/7"
    url = c.url(b"ab")
    assert c.append(url, 2, b"cd", True)["Location"] == "/album/7"


@row("RUFH-CREATE-01")
def an_empty_file_at_once(c):
    for chunked in (False, True):
        accepted(c, c.create(b"", True, chunked=chunked))
        assert data_of(c) == b""
        c.s.landed.clear()


@row("RUFH-CREATE-01", "TRAP-7")
def an_empty_file_later(c):
    for chunked in (False, True):
        url = c.url()
        assert c.append(url, 0, b"", False, chunked=chunked).status in (201, 204)
        assert (c.told(c.head(url)), c.s.landed) == (False, [])
        accepted(c, c.append(url, 0, b"", True, chunked=chunked))
        assert data_of(c) == b""
        c.s.landed.clear()


@row("RUFH-CREATE-01", "TRAP-7", "A-37")
def an_empty_file_by_its_length(c):
    reply = c.create(b"", False, {"Upload-Length": "0"})
    url = reply["Location"]
    if c.like <= 6:
        accepted(c, reply)
    else:
        assert (reply.status, c.told(reply), c.head(url)["Upload-Length"], c.s.landed) == (201, False, "0", [])
        accepted(c, c.append(url, 0, b"", True))
    assert data_of(c) == b""


@row("RUFH-CREATE-01")
def put_creates_an_upload(c):
    reply = c.create(b"ab", False, method="PUT")
    assert (reply.status, c.told(reply)) == (201, False)
    accepted(c, c.append(reply["Location"], 2, b"cd", True))
    assert data_of(c) == b"abcd"
    accepted(c, c.create(b"ab", True, method="PUT"))


def whoever_says_so(request, intent, upload):
    return request.headers.get("Authorization")


@row("RUFH-STATE-05", "RUFH-VER-06", authorize=whoever_says_so)
def an_upload_of_another_principal_is_refused_like_an_unknown_one(c):
    url = c.url(b"ab", headers={"Authorization": "ann"})
    nowhere = url[:-1] + ("0" if url[-1] != "0" else "1")
    for method in ("HEAD", "GET", "DELETE"):
        theirs, none = (call(c.s.app, method, one, {"Authorization": "ben"}) for one in (url, nowhere))
        assert (theirs.status, theirs.headers, theirs.body) == (404, none.headers, none.body)


@row("RUFH-CREATE-01", subjects=APPLICATIONS)
def the_application_gets_the_request_that_created_the_upload(c):
    """As a server without this protocol sees it: the same method, URL and description of the file."""
    described = {
        "Content-Type": "image/jpeg",
        "Content-Disposition": 'attachment; filename="a.jpg"',
        "Content-Encoding": "gzip",
        "Content-Language": "de",
        "Content-Location": "/a",
        "Accept": "text/html",
    }
    query = {"environ": {"QUERY_STRING": "album=7&x=%20"}}
    for method in ("POST", "PUT", "PATCH"):
        accepted(c, c.create(b"abcd", True, described, method=method, **query))
        at_once = seen(c)
        created = c.create(b"ab", False, described, method=method, **query)
        accepted(c, c.append(created["Location"], 2, b"cd", True, {"Accept": "text/html"}))
        assert at_once == seen(c) == (method, PATH, "album=7&x=%20", described | {"Content-Length": "4"})
        assert [data for _, data in c.s.landed] == [b"abcd"] * 2
        c.s.landed.clear()


def seen(c):
    """Method, path, query and fields of what the application was called with, without those of the connection."""
    if not hasattr(c.s, "scope"):
        environ = c.s.environ
        fields = dict(EnvironHeaders(environ))
        target = environ["SCRIPT_NAME"] + environ["PATH_INFO"], environ["QUERY_STRING"]
        return environ["REQUEST_METHOD"], *target, without_host(fields)
    scope = c.s.scope
    fields = {name.decode().title(): value.decode() for name, value in scope["headers"]}
    return scope["method"], scope["path"], scope["query_string"].decode(), without_host(fields)


def without_host(fields):
    return {name: value for name, value in fields.items() if name != "Host"}


@row("RUFH-CREATE-01", subjects=APPLICATIONS)
def patch_creates_an_upload(c):
    reply = c.create(b"ab", False, method="PATCH")
    assert (reply.status, c.told(reply)) == (201, False)
    assert c.offset(reply["Location"]) == 2


@row("RUFH-CREATE-01", "RUFH-CREATE-03")
def a_form_goes_to_the_application_unless_it_has_the_fields_of_an_upload(c):
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert call(c.s.app, "POST", PATH, form, b"--x--").body == b"the application's own page"
    assert c.s.landed == []
    accepted(c, c.create(b"--x--", True, form))
    assert data_of(c) == b"--x--"
    assert c.s.landed[0][0].text_metadata == {"filetype": "multipart/form-data; boundary=x"}


@row("RUFH-CREATE-03")
def other_methods_are_refused(c):
    url = c.url()
    for method in ("POST", "PUT"):
        reply = c.send(method, url, c.mark(False), b"ab")
        assert (reply.status, reply["Allow"]) == (405, "HEAD, GET, PATCH, DELETE, OPTIONS")
        c.problem(reply)
    assert c.offset(url) == 0


@row("RUFH-CREATE-08", "RUFH-STATE-03", "TRAP-3", "A-22")
def a_disconnected_creation_keeps_the_received_bytes(c):
    for complete in (False, True):
        reply = c.create(b"abc", complete, length=6)
        assert (reply.status, c.told(reply), reply["Upload-Offset"]) == (201, False, "3")
        url = reply["Location"]
        assert (c.offset(url), c.told(c.head(url)), c.s.landed) == (3, False, [])
        assert c.head(url).get("Upload-Length") == ("6" if complete else None)
        accepted(c, c.append(url, 3, b"def", True))
        assert data_of(c) == b"abcdef"
        c.s.landed.clear()


@row("RUFH-CREATE-08", "RUFH-APPEND-05")
def a_body_that_ends_with_an_error_is_not_complete(c):
    reply = c.create(b"abc", True, chunked=True, error=OSError("reset"))
    assert (reply.status, c.told(reply)) == (201, False)
    url = reply["Location"]
    offset = c.offset(url)
    assert (c.told(c.head(url)), c.s.landed) == (False, [])
    reply = c.append(url, offset, b"def", True, length=6, error=ValueError("cheroot"))
    assert (c.told(reply), c.told(c.head(url)), c.s.landed) == (False, False, [])


@row("RUFH-APPEND-05", "TRAP-3")
def a_disconnected_append_keeps_the_received_bytes(c):
    url = c.url(b"ab")
    reply = c.append(url, 2, b"cd", True, length=6)
    assert (reply.status, c.told(reply), reply["Upload-Offset"]) == (201 if c.like <= 6 else 204, False, "4")
    assert (c.offset(url), c.s.landed) == (4, [])
    accepted(c, c.append(url, 4, b"efgh", True))
    assert data_of(c) == b"abcdefgh"


# -- What the creation says of the file ----------------------------------------------------------------------------


@row("RUFH-CREATE-11")
def the_type_and_the_name_become_metadata(c):
    headers = {"Content-Type": "image/png", "Content-Disposition": 'inline; filename="a b.png"'}
    assert metadata_of(c, headers) == {"filetype": "image/png", "filename": "a b.png"}
    assert metadata_of(c, {}) == {}
    for nothing in (PARTIAL, "application/offset+octet-stream", ""):
        assert metadata_of(c, {"Content-Type": nothing}) == {}


@row("RUFH-CREATE-11", versions=(3, 10))
def the_name_of_a_file_in_every_form(c):
    for disposition, name in (
        ("attachment; filename=plain.txt", "plain.txt"),
        ('INLINE; FILENAME="a;b, c.txt"', "a;b, c.txt"),
        ('inline; filename="a\\"b.txt"', 'a"b.txt'),
        ("inline; filename*=UTF-8''%e2%82%ac%20rates.txt", "€ rates.txt"),
        ("inline; filename*=iso-8859-1'en'%A3.txt", "£.txt"),
        ("inline; filename=\"EURO.txt\"; filename*=UTF-8''%e2%82%ac.txt", "€.txt"),
        ("inline; filename*=UTF-8''%e2%82%ac.txt; filename=\"EURO.txt\"", "€.txt"),
        ("inline; filename*=UTF-8''%C3%83%C2%A9.txt", "Ã©.txt"),
        ('inline; filename="€.txt"'.encode().decode("latin-1"), "€.txt"),
        ('inline; filename="caf\xe9.txt"', "café.txt"),
    ):
        assert metadata_of(c, {"Content-Disposition": disposition}) == {"filename": name}, disposition
    for disposition in ("inline", "", ";", "inline; filename=", 'inline; filename=""', "\xff", "filename", "=;=" * 99):
        assert metadata_of(c, {"Content-Disposition": disposition}) == {}, disposition


@row("RUFH-CREATE-11", "TRAP-17", versions=(3, 10))
def a_hostile_name_is_never_a_path(c):
    for disposition in (
        'inline; filename="../../etc/passwd"',
        "inline; filename*=UTF-8''..%2f..%2fetc%2fpasswd",
        "inline; filename*=UTF-8''a%00%0d%0aSet-Cookie:x",
        'inline; filename="C:\\\\autoexec.bat"',
        "inline; filename*=nonsense''x",
        "inline; filename*0*=UTF-8''a; filename*1=../b",
        "inline; filename*=UTF-8''a; filename*0=b",
    ):
        assert c.create(b"x", True, {"Content-Disposition": disposition}).status in (200, 201, 204), disposition
        name = c.s.landed.pop()[0].filename
        assert not set(name) & set("/\\\0\r\n"), disposition
        assert name not in ("", ".", "..")


@row("RUFH-CREATE-11")
def the_metadata_of_clients_that_were_made_from_tus_clients(c):
    headers = {"Upload-Metadata": "filename YS50eHQ=,note eA==", "Content-Type": "text/plain"}
    named = headers | {"Content-Disposition": "inline; filename=b.txt"}
    assert metadata_of(c, named) == {"filename": "a.txt", "note": "x", "filetype": "text/plain"}
    assert metadata_of(c, {"Upload-Metadata": "cl\xe9 eA==", "Content-Type": "text/plain"}) == {
        "cl\xe9": "x",
        "filetype": "text/plain",
    }
    assert c.create(b"x", True, {"Upload-Metadata": "filename !"}).status == 400
    assert c.s.landed == []


@row("RUFH-CREATE-11", max_metadata_size=40)
def metadata_has_a_limit(c):
    for field in ("Content-Type", "Content-Disposition", "Upload-Metadata"):
        value = {"Content-Type": "x/" + "y" * 60, "Content-Disposition": "inline; filename=" + "y" * 60}
        reply = c.create(b"x", True, {field: value.get(field, "note " + "eHh4" * 20)})
        assert (reply.status, c.told(reply), c.s.landed) == (431, False, [])


# -- Length --------------------------------------------------------------------------------------------------------


@row("RUFH-LEN-02", "TRAP-14")
def a_creation_that_contradicts_itself(c):
    for body, length, complete in ((b"abcd", 5, True), (b"abcd", 3, True), (b"abcd", 3, False)):
        reply = c.create(body, complete, {"Upload-Length": str(length)})
        assert (reply.status, c.problem(reply)) == (400, "inconsistent-upload-length" if c.like >= 6 else None)
        assert reply.get("Location") is None
    assert c.s.landed == []


@row("RUFH-LEN-02", "RUFH-LEN-03", "TRAP-14")
def a_length_never_changes(c):
    url = c.url(b"ab", False, {"Upload-Length": "6"})
    for length in (5, 7, 1):
        reply = c.append(url, 2, b"cd", False, {"Upload-Length": str(length)})
        assert (reply.status, c.problem(reply)) == (400, "inconsistent-upload-length" if c.like >= 6 else None)
    assert (c.offset(url), c.head(url)["Upload-Length"]) == (2, "6")
    assert c.append(url, 2, b"cd", False, {"Upload-Length": "6"}).status in (201, 204)
    accepted(c, c.append(url, 4, b"ef", True, {"Upload-Length": "6"}))
    assert data_of(c) == b"abcdef"


@row("RUFH-LEN-03")
def a_length_can_be_sent_later(c):
    url = c.url(b"ab")
    assert c.head(url).get("Upload-Length") is None
    reply = c.append(url, 2, b"", False, {"Upload-Length": "1"})
    assert (reply.status, c.problem(reply)) == (400, "inconsistent-upload-length" if c.like >= 6 else None)
    assert c.append(url, 2, b"c", False, {"Upload-Length": "4"}).status in (201, 204)
    assert c.head(url)["Upload-Length"] == "4"
    url = c.url(b"ab")
    assert c.append(url, 2, b"", False, {"Upload-Length": "4"}).status in (201, 204)
    assert c.head(url)["Upload-Length"] == "4"


@row("RUFH-LEN-02", "A-38")
def the_end_before_the_length(c):
    for chunked in (False, True):
        url = c.url(b"ab", False, {"Upload-Length": "6"})
        reply = c.append(url, 2, b"cd", True, chunked=chunked)
        assert (reply.status, c.problem(reply)) == (400, "inconsistent-upload-length" if c.like >= 6 else None)
        offset = c.offset(url)
        assert offset == (4 if chunked else 2)  # what is known before it is read is not read
        assert c.s.landed == []
        accepted(c, c.append(url, offset, b"cdef"[offset - 2 :], True))
        assert data_of(c) == b"abcdef"
        c.s.landed.clear()
    assert c.create(b"ab", True, {"Upload-Length": "6"}, chunked=True).status == 400
    assert c.s.landed == []
    url = c.url(b"ab", False, {"Upload-Length": "6"})
    assert c.append(url, 2, b"", True, chunked=True).status == 400
    assert (c.offset(url), c.head(url)["Upload-Length"], c.s.landed) == (2, "6", [])


@row("RUFH-LEN-04", "TRAP-14")
def more_bytes_than_the_length(c):
    for chunked in (False, True):
        for complete in (False, True):
            url = c.url(b"ab", False, {"Upload-Length": "4"})
            reply = c.append(url, 2, b"cde", complete, chunked=chunked)
            assert (reply.status, c.problem(reply)) == (400, "inconsistent-upload-length" if c.like >= 6 else None)
            if c.like >= 7:
                assert c.is_gone(url)
            else:
                assert (c.offset(url), c.told(c.head(url))) == (2, False)
                accepted(c, c.append(url, 2, b"cd", True))
                c.s.landed.clear()
            assert c.s.landed == []


@row("RUFH-LEN-04")
def more_bytes_than_the_length_in_a_creation(c):
    for complete in (False, True):
        reply = c.create(b"abcde", complete, {"Upload-Length": "4"}, chunked=True)
        assert (reply.status, c.problem(reply)) == (400, "inconsistent-upload-length" if c.like >= 6 else None)
        assert reply.get("Location") is None
    assert c.s.landed == []


@row("RUFH-STATE-04", "A-37", "TRAP-7")
def reaching_the_length(c):
    for chunked in (False, True):
        url = c.url(b"ab", False, {"Upload-Length": "4"})
        reply = c.append(url, 2, b"cd", False, chunked=chunked)
        if c.like <= 6:
            accepted(c, reply)
        else:
            assert (reply.status, c.told(reply), c.offset(url), c.told(c.head(url))) == (204, False, 4, False)
            assert c.append(url, 4, b"", False).status == 204
            assert c.s.landed == []
            accepted(c, c.append(url, 4, b"", True))
        assert data_of(c) == b"abcd"
        c.s.landed.clear()


@row("TRAP-8", "RUFH-LEN-01")
def a_body_without_a_length(c):
    url = c.url(b"ab", chunked=True)
    assert c.append(url, 2, b"cd", chunked=True).status in (201, 204)
    assert c.head(url).get("Upload-Length") is None
    accepted(c, c.append(url, 4, b"ef", True, chunked=True))
    assert data_of(c) == b"abcdef"
    assert c.head(url)["Upload-Length"] == "6"
    c.s.landed.clear()
    accepted(c, c.create(b"abcd" * 50_000, True, chunked=True))
    assert data_of(c) == b"abcd" * 50_000


@row("TRAP-8", subjects=WSGI_SUBJECTS)
def a_body_whose_end_is_unknown_is_refused(c):
    environ = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": False}
    reply = c.create(b"abcd", True, environ=environ)
    assert (reply.status, c.told(reply), c.s.landed) == (411, False, [])


# -- Limits and OPTIONS --------------------------------------------------------------------------------------------


ALL_LIMITS = {
    "max_size": 100,
    "min_size": 3,
    "max_append_size": 10,
    "min_append_size": 2,
    "upload_valid_duration": 1000,
}


@row("RUFH-LIMIT-01", "RUFH-OPT-01", "RUFH-HEAD-02", "RUFH-CREATE-04", **ALL_LIMITS)
def every_limit_is_reported(c):
    replies = [c.send("OPTIONS"), c.create(b"ab")]
    replies += [c.head(replies[-1]["Location"]), c.append(replies[-1]["Location"], 2, b"cd")]
    if c.like < 6:  # which has no such field
        assert {reply.get("Upload-Limit") for reply in replies} == {None}
        return
    for reply in replies:
        limits = limits_of(reply)
        age = limits.pop("expires" if c.like == 6 else "max-age")
        assert limits == {"max-size": 100, "min-size": 3, "max-append-size": 10, "min-append-size": 2}
        assert 990 <= age <= 1000


@row("RUFH-LIMIT-01", versions=WITH_LIMITS, max_size=10**16, max_append_size=10**17, upload_valid_duration=10**16)
def a_limit_that_is_too_large_for_a_field_is_not_reported(c):
    assert c.send("OPTIONS")["Upload-Limit"] == "min-size=0"
    url = c.url(b"ab")
    assert c.head(url)["Upload-Limit"] == "min-size=0"


@row("RUFH-LIMIT-04", versions=NEW, upload_valid_duration=1000)
def the_end_of_an_upload_s_life_never_becomes_earlier(c):
    with mock.patch("time.time", lambda: 1e9):
        url = c.url(b"ab")
    with mock.patch("time.time", lambda: 1e9 + 600):
        assert limits_of(c.head(url))["max-age"] >= 400
        assert limits_of(c.append(url, 2, b"cd"))["max-age"] == 1000
    with mock.patch("time.time", lambda: 1e9 + 1500):
        assert limits_of(c.head(url))["max-age"] >= 100


@row("RUFH-LIMIT-06", "TUSD-NET-08", max_size=10)
def an_upload_that_is_larger_than_its_limit(c):
    replies = [
        c.create(b"x" * 11, True),
        c.create(b"x" * 11, False),
        c.create(b"", False, {"Upload-Length": "11"}),
        c.create(b"x" * 11, True, chunked=True),
        c.create(b"x" * 11, False, chunked=True),
    ]
    url = c.url(b"x" * 9)
    replies.append(c.append(url, 9, b"xx"))
    replies.append(c.append(url, 9, b"xx", chunked=True))
    replies.append(c.append(url, 9, b"xx", True, chunked=True))
    replies.append(c.append(url, 9, b"", False, {"Upload-Length": "11"}))
    for reply in replies:
        assert (reply.status, c.told(reply)) == (413, False)
        if c.like >= 6:
            assert limits_of(reply)["max-size"] == 10
    assert c.offset(url) == 9
    accepted(c, c.append(url, 9, b"x", True))


@row("RUFH-LIMIT-02", "RUFH-LIMIT-06", max_append_size=4)
def a_request_that_is_larger_than_its_limit(c):
    replies = [c.create(b"abcde", True), c.create(b"abcde"), c.create(b"abcde", chunked=True)]
    url = c.url(b"abcd", False, {"Upload-Length": "20"})
    replies.append(c.append(url, 4, b"efghi"))
    replies.append(c.append(url, 4, b"efghi", chunked=True))
    for reply in replies:
        assert (reply.status, c.told(reply)) == (413, False)
        assert b"abcde" not in reply.body
        if c.like >= 6:
            assert limits_of(reply)["max-append-size"] == 4
    assert c.offset(url) == 4  # the upload goes on: it is not the upload that is too long
    assert c.append(url, 4, b"efgh", chunked=True).status in (201, 204)
    assert c.s.landed == []


@row("RUFH-LIMIT-02", "RUFH-LIMIT-06", min_append_size=4)
def a_request_that_is_smaller_than_its_limit(c):
    url = c.url()  # not so a creation without bytes
    for reply in (c.create(b"ab"), c.append(url, 0, b"ab")):
        assert (reply.status, c.told(reply)) == (400, False)
        if c.like >= 6:
            assert limits_of(reply)["min-append-size"] == 4
    assert c.offset(url) == 0
    assert c.append(url, 0, b"abcd").status in (201, 204)
    accepted(c, c.append(url, 4, b"ef", True))  # nor the last one
    assert data_of(c) == b"abcdef"
    c.s.landed.clear()
    accepted(c, c.create(b"ab", True))


@row("RUFH-STATE-05", "RUFH-SEC-01", max_uploads=1)
def the_number_of_uploads_is_limited(c):
    url = c.url(b"ab")
    reply = c.create(b"ab")
    assert (reply.status, c.told(reply), reply["Retry-After"]) == (429, False, "60")
    accepted(c, c.append(url, 2, b"cd", True))
    c.url(b"ab")


@row("RUFH-SEC-01", max_total_size=10)
def the_sum_of_bytes_is_limited(c):
    url = c.url(b"abcdef")
    reply = c.create(b"abcdef", True)
    assert (reply.status, c.told(reply)) == (507, False)
    assert c.send("DELETE", url).status == 204
    accepted(c, c.create(b"abcdef", True))


# -- Offset retrieval ----------------------------------------------------------------------------------------------


@row("RUFH-HEAD-01", "RUFH-HEAD-02", "RUFH-HEAD-04", "TRAP-16", "A-40")
def head_and_get_report_the_same(c):
    url = c.url(b"ab", False, {"Upload-Length": "4"})
    answers = []
    for method in ("HEAD", "GET"):
        reply = c.head(url, method=method)
        assert (reply.status, reply.body, reply.get("Content-Length")) == (204, b"", None)
        assert (c.told(reply), reply["Upload-Offset"], reply["Upload-Length"]) == (False, "2", "4")
        assert reply["Cache-Control"] == "no-store"
        assert (reply.get("Upload-Limit") is not None) == (c.like >= 6)
        answers.append(reply.headers)
    assert answers[0] == answers[1]


@row("RUFH-HEAD-02", versions=KNOWN)
def head_and_delete_must_not_have_fields_of_the_state(c):
    url = c.url(b"ab")
    for field, value in (("Upload-Offset", "2"), (c.field, "?1"), ("Upload-Length", "4")):
        for method in ("HEAD", "GET"):
            reply = c.send(method, url, {field: value})
            assert reply.status == (400 if c.like <= 6 else 204)
            if method == "HEAD":
                assert reply.body == b""
    for field, value in (("Upload-Offset", "2"), (c.field, "?1")):
        if c.like <= 6:
            assert c.send("DELETE", url, {field: value}).status == 400
    assert c.offset(url) == 2
    assert c.send("DELETE", url, {} if c.like <= 6 else {"Upload-Offset": "2"}).status == 204


@row("RUFH-HEAD-05", "RUFH-CONC-02", "RUFH-CONC-03", "TRAP-4", subjects=WSGI_SUBJECTS)
def the_offset_from_head_stays_true(c):
    """A newer request ends the append that is running, or it could have written on after the offset was told."""
    url, seen = c.url(b"ab"), []
    half_open = Blocks(b"c" * 65536, lambda: seen.append(c.offset(url)), b"d" * 65536)
    old = c.append(url, 2, b"", length=131072, environ={"wsgi.input": half_open}, validate=False)
    assert (old.status, c.told(old)) == (409, False)
    assert seen == [65538]
    assert c.offset(url) == 65538
    assert c.append(url, 65538, b"e").status in (201, 204)


@row("RUFH-HEAD-02")
def head_needs_no_disk_space(c):
    url = c.url(b"ab")
    full = type(c)(type(c.s)(**c.s.options, keep_free=10**15), c.version)
    assert full.append(url, 2, b"c").status == 507
    assert full.offset(url) == 2


@row("RUFH-LIMIT-01", upload_valid_duration=1000)
def head_does_not_prolong_the_life_of_an_upload(c):
    with mock.patch("time.time", lambda: 1e9):
        url = c.url(b"ab")
    with mock.patch("time.time", lambda: 1e9 + 900):
        assert c.offset(url) == 2
    with mock.patch("time.time", lambda: 1e9 + 1001):
        assert c.is_gone(url)


@row("RUFH-STATE-01", "RUFH-STATE-02", "TRAP-9")
def an_upload_that_has_lost_bytes_is_gone(c):
    url = c.url(b"abcd")
    with open(f"{c.s.options['tmp_file_dir']}/{url.rpartition('/')[2]}", "r+b") as file:
        file.truncate(2)
    assert c.is_gone(url)
    for reply in (c.append(url, 2, b"cd"), c.append(url, 4, b"ef", True)):
        assert reply.status == (404 if c.like <= 6 else 410)
        assert c.told(reply) is False
    assert c.s.landed == []


@row("RUFH-HEAD-07", "A-23", "A-32")
def an_unknown_upload_is_not_found(c):
    url = f"{PATH}/{'0' * 32}"
    for reply in (c.append(url, 0, b"ab"), c.append(url, 0, b"", True), c.send("DELETE", url, c.mark(None))):
        assert reply.status == 404
        c.problem(reply)
        assert reply.get("Upload-Offset") is None
    assert c.head(url).status == 404


@row("A-23", upload_valid_duration=1000)
def an_expired_upload_is_gone(c):
    with mock.patch("time.time", lambda: 1e9):
        url = c.url(b"ab")
    with mock.patch("time.time", lambda: 1e9 + 1001):
        assert c.head(url).status == (404 if c.like <= 6 else 410)
        for reply in (c.append(url, 2, b"cd"), c.append(url, 2, b"", True)):
            assert (reply.status, c.told(reply)) == (404 if c.like <= 6 else 410, False)
    assert c.s.landed == []


@row("RUFH-CANCEL-01")
def a_cancelled_upload_is_gone(c):
    url = c.url(b"ab")
    reply = c.send("DELETE", url)
    assert (reply.status, reply.body) == (204, b"")
    assert c.is_gone(url)
    assert c.append(url, 2, b"cd").status == 404


@row("RUFH-CANCEL-01", "RUFH-CONC-02", subjects=WSGI_SUBJECTS)
def a_cancellation_ends_the_running_append(c):
    url, seen = c.url(b"ab"), []
    half_open = Blocks(b"c" * 65536, lambda: seen.append(c.send("DELETE", url).status), b"d" * 65536)
    old = c.append(url, 2, b"", True, length=131072, environ={"wsgi.input": half_open}, validate=False)
    assert (old.status, c.told(old), seen) == (404 if c.like <= 6 else 410, False, [204])
    assert c.is_gone(url)
    assert c.s.landed == []


# -- Append --------------------------------------------------------------------------------------------------------


@row("RUFH-APPEND-02", "RUFH-PROB-01", "TRAP-13", "A-06", "A-29")
def a_wrong_offset_is_refused(c):
    url = c.url(b"abcd")
    for offset in (0, 3, 5, 999_999_999_999_999):
        reply = c.append(url, offset, b"x", True)
        assert (reply.status, reply["Upload-Offset"]) == (409, "4")
        assert c.problem(reply) == (None if c.like < 6 else "mismatching-upload-offset")
        if c.like >= 6:
            described = json.loads(reply.body)
            assert (described["expected-offset"], described["provided-offset"]) == (4, offset)
    assert (c.offset(url), c.s.landed) == (4, [])


@row("TRAP-5", subjects=WSGI_SUBJECTS)
def only_one_of_two_appends_at_one_offset_counts(c):
    url, seen = c.url(b"ab"), []
    half_open = Blocks(lambda: seen.append(c.append(url, 2, b"other").status), b"c" * 65536, b"d" * 65536)
    old = c.append(url, 2, b"", length=131072, environ={"wsgi.input": half_open}, validate=False)
    assert (old.status, c.told(old), seen) == (409, False, [201 if c.like <= 6 else 204])
    assert c.append(url, 7, b"!", True).status in (200, 204)
    assert data_of(c) == b"abother!"


@row("RUFH-LEN-04", "RUFH-CONC-02", subjects=WSGI_SUBJECTS)
def a_replaced_append_that_overruns_ends_nothing(c):
    """It may not write any more, and so it may not take away either what a newer one has completed."""
    for first in ((), (b"c" * 65536,)):
        url = c.url(b"ab", headers={"Upload-Length": "131074"})
        newer = functools.partial(replace_and_complete, c, url, 131074)
        old = c.append(url, 2, b"", True, chunked=True, environ={"wsgi.input": Blocks(*first, newer, b"d" * 262144)})
        assert (old.status, c.told(old)) == (409, False)
        assert c.told(c.head(url)) is True
        assert c.s.landed.pop()[1].endswith(b"e")


def replace_and_complete(c, url, length):
    offset = c.offset(url)
    accepted(c, c.append(url, offset, b"e" * (length - offset), True))


@row("RUFH-APPEND-06", versions=REPLAYING)
def the_final_response_is_sent_again(c):
    url = c.url(b"ab")
    first = c.append(url, 2, b"cd", True)
    for _ in range(2):
        again = c.append(url, 4, b"", True)
        accepted(c, again)
        assert (again.status, again.body, again.headers) == (first.status, first.body, first.headers)
    accepted(c, c.append(url, 4, b"", True, chunked=True))
    assert data_of(c) == b"abcd"


@row("RUFH-APPEND-06", "RUFH-PROB-01", versions=(6, 7, 8))
def an_append_to_a_completed_upload_is_refused(c):
    url = c.url(b"ab")
    accepted(c, c.append(url, 2, b"cd", True))
    for body, complete in ((b"", True), (b"", False), (b"e", True), (b"e", False)):
        reply = c.append(url, 4, body, complete)
        assert (reply.status, c.problem(reply)) == (400, "completed-upload")
    assert data_of(c) == b"abcd"


@row("RUFH-APPEND-06", "A-05")
def a_completed_upload_accepts_no_more_bytes(c):
    url = c.url(b"ab")
    accepted(c, c.append(url, 2, b"cd", True))
    for chunked in (False, True):
        for complete in (False, True):
            assert c.append(url, 4, b"e", complete, chunked=chunked).status == 400
    assert c.append(url, 4, b"", False).status == 400
    assert c.append(url, 2, b"cd", True).status == 409
    assert c.append(url, 4, b"", True, {"Upload-Length": "5"}).status == 400
    assert (c.offset(url), data_of(c)) == (4, b"abcd")


@row("RUFH-APPEND-03", "RUFH-APPEND-06", subjects=APPLICATIONS)
def a_response_of_any_length_is_passed_on(c):
    for size in (65_535, 65_537, 300_000):
        c.s.answer = b"0123456789" * (size // 10) + b"x" * (size % 10)
        c.s.fields = [("Content-Type", "application/json"), ("Content-Length", str(size)), ("ETag", '"1"')]
        for url in (None, c.url(b"ab")):
            reply = c.create(b"abcd", True) if url is None else c.append(url, 2, b"cd", True)
            assert (reply.status, c.told(reply), reply["ETag"], reply.body) == (200, True, '"1"', c.s.answer)
            assert reply["Content-Length"] == str(size)
        if c.like not in (6, 7, 8):  # which never give it again
            again = c.append(url, 4, b"", True)
            assert (again.status, c.told(again), again["ETag"]) == (200, True, '"1"')
            assert again.get("Content-Length") in (None, str(len(again.body)))
            assert again.body == (c.s.answer if size <= 65_536 else b"")


@row("RUFH-APPEND-03", subjects=APPLICATIONS)
def a_response_to_an_upload_of_tus_has_no_body_and_no_length(c):
    c.s.fields = [("Content-Type", "application/json"), ("Content-Length", "24"), ("ETag", '"1"')]
    url = c.s.url(4, body=b"ab")
    for _ in range(1 if c.like in (6, 7, 8) else 2):
        reply = c.append(url, c.s.offset(url), b"cd" if not c.s.landed else b"", True)
        assert (reply.status, c.told(reply), reply["ETag"], reply.body) == (204, True, '"1"', b"")
        assert (reply.get("Content-Length"), reply.get("Content-Type")) == (None, None)


@row("RUFH-CREATE-10", "RUFH-CREATE-12", "TRAP-13", subjects=APPLICATIONS)
def a_rejection_is_final(c):
    c.s.fail = "422 Unprocessable Content"
    c.s.fields.append(REJECTS)
    reply = c.create(b"abcd", True)
    assert (reply.status, c.told(reply), reply.body) == (422, True, b"the application's answer")
    assert reply.get("Tus-Outcome") is None
    url = c.url(b"ab")
    for _ in range(1 if c.like in (6, 7, 8) else 3):
        reply = c.append(url, c.offset(url), b"cd" if c.offset(url) == 2 else b"", True)
        assert (reply.status, c.told(reply), reply.body) == (422, True, b"the application's answer")
        c.s.fail = None
    told = c.head(url)
    assert (c.told(told), c.offset(url), c.s.landed) == (True, 4, [])
    # A client that takes offset == length for success must ask what came of it, if it lost the reply.
    assert told.get("Upload-Length") == (None if c.like <= 6 else "4")


FAILURES = ("503 Service Unavailable", "500 Oops", "401 Unauthorized", "404 Not Found", "409 Conflict")


@row("RUFH-APPEND-03", "RUFH-RETRY-01", "RUFH-STATE-01", subjects=APPLICATIONS)
def a_postponed_file_can_be_asked_for_again(c):
    for failure in (*FAILURES, RuntimeError("a bug")):
        c.s.fail = failure
        url = c.url(b"ab")
        status = 500 if isinstance(failure, Exception) else int(failure[:3])
        for body in (b"cd", b"", b""):
            reply = c.append(url, 4 - len(body), body, True)
            assert (reply.status, c.told(reply), reply["Upload-Offset"]) == (status, False, "4")
            assert (c.offset(url), c.told(c.head(url))) == (4, False)
            assert c.head(url).get("Upload-Length") == (None if c.like <= 6 else "4")
        assert c.s.landed == []
        c.s.fail = None
        assert c.append(url, 4, b"", False).status in (201, 204)  # asks for nothing
        assert c.s.landed == []
        accepted(c, c.append(url, 4, b"", True))
        assert data_of(c) == b"abcd"
        c.s.landed.clear()


@row("RUFH-CREATE-12", "RUFH-RETRY-01", subjects=APPLICATIONS)
def a_creation_whose_file_is_postponed_reports_the_url_for_the_retry(c):
    for failure in (*FAILURES, RuntimeError("a bug")):
        c.s.fail = failure
        reply = c.create(b"abcd", True)
        assert c.told(reply) is False
        c.s.fail = None
        accepted(c, c.append(reply["Location"], 4, b"", True))
        assert data_of(c) == b"abcd"
        c.s.landed.clear()


@row("RUFH-CREATE-09", "RUFH-APPEND-07", subjects=APPLICATIONS)
def a_redirection_is_not_passed_on(c):
    """A client that follows one to a page for logging in would take its 200 for success."""
    c.s.fields.append(("Location", "/login"))
    for failure in ("302 Found", "301 Moved Permanently", "307 Temporary Redirect"):
        c.s.fail = failure
        replies = [c.create(b"abcd", True), c.append(c.url(b"ab"), 2, b"cd", True)]
        assert [(reply.status, c.told(reply)) for reply in replies] == [(503, False)] * 2
        assert "/files/" in replies[0]["Location"]
        assert replies[1].get("Location") is None
        c.s.fail = None
        accepted(c, c.append(replies[0]["Location"], 4, b"", True))
        c.s.landed.clear()


@row("RUFH-CREATE-09", "RUFH-APPEND-07", subjects=APPLICATIONS)
def see_other_is_acceptance(c):
    """After a form an application often sends its client on; a 303 says that the form was taken."""
    c.s.fields.append(("Location", "/photos/17"))
    c.s.fail = "303 See Other"
    created, appended = c.create(b"abcd", True), c.append(c.url(b"ab"), 2, b"cd", True)
    for reply in (created, appended):
        assert (reply.status, c.told(reply)) == (303, True)
    assert appended["Location"] == "/photos/17"
    if c.like not in (3, 4, 5, 6):  # whose Location is the upload's
        assert created["Location"] == "/photos/17"


@row("RUFH-APPEND-03", subjects=(ViewSubject,))
def a_view_that_has_postponed_the_file_gets_it_again(c):
    c.s.fail = "503 Service Unavailable"
    url = c.url(b"ab")
    assert c.append(url, 2, b"cd", True).status == 503
    assert (c.offset(url), c.told(c.head(url))) == (4, False)
    c.s.fail = None
    accepted(c, c.append(url, 4, b"", True))
    assert data_of(c) == b"abcd"


@row("RUFH-APPEND-03", "TRAP-1", subjects=(ViewSubject,), cors_allow_origin="https://page.example")
def a_view_that_names_no_outcome_has_postponed_the_file(c):
    page = {"Origin": "https://page.example"}
    with mock.patch("tus.Tus.cleanup_file", lambda self: None):
        replies = [c.create(b"abcd", True, page), c.append(c.url(b"ab"), 2, b"cd", True, page)]
    for reply in replies:
        assert (reply.status, c.told(reply), reply["Upload-Offset"], reply["Retry-After"]) == (503, False, "4", "5")
        assert reply["Access-Control-Allow-Origin"] == "https://page.example"
        assert reply.get("Upload-Draft-Interop-Version") == (str(c.version) if c.version in KNOWN else None)
    accepted(c, c.append(replies[0]["Location"], 4, b"", True))


@row("RUFH-STATE-01")
def the_offset_never_decreases(c):
    url = c.url(b"ab")
    told = [c.offset(url)]
    for body, how in (
        (b"cd", {"length": 9}),
        (b"", {"length": 9}),
        (b"ef", {"headers": {"Content-Digest": digest(b"no")}}),
        (b"gh", {"error": OSError(), "length": 9}),
        (b"ij", {"chunked": True}),
    ):
        c.append(url, told[-1], body, **how)
        told.append(c.offset(url))
    c.s.fail = "503 Service Unavailable"
    c.append(url, told[-1], b"kl", True)
    told.append(c.offset(url))
    c.s.fail = None
    c.append(url, told[-1], b"", True)
    told.append(c.offset(url))
    assert told == sorted(told)
    assert len(data_of(c)) == told[-1]


# -- Digests -------------------------------------------------------------------------------------------------------


@row("RUFH-DIG-01", "RUFH-DIG-04", "TRAP-6")
def a_body_is_verified(c):
    for algorithm in ("sha-256", "sha-512"):
        url = c.url(b"ab", False, {"Content-Digest": digest(b"ab", algorithm)})
        assert c.append(url, 2, b"cd", False, {"Content-Digest": digest(b"cd", algorithm)}).status in (201, 204)
        for chunked in (False, True):
            wrong = {"Content-Digest": digest(b"xx", algorithm)}
            reply = c.append(url, 4, b"ef", True, wrong, chunked=chunked)
            assert (reply.status, c.told(reply), reply["Upload-Offset"]) == (400, False, "4")
            c.problem(reply)
            assert b"Upload-Checksum" not in reply.body
            assert (c.offset(url), c.told(c.head(url)), c.s.landed) == (4, False, [])
        accepted(c, c.append(url, 4, b"ef", True, {"Content-Digest": digest(b"ef", algorithm)}))
        assert data_of(c) == b"abcdef"
        c.s.landed.clear()


@row("RUFH-DIG-01")
def a_creation_whose_body_does_not_match_leaves_nothing_behind(c):
    for chunked in (False, True):
        reply = c.create(b"ab", True, {"Content-Digest": digest(b"xx")}, chunked=chunked)
        assert (reply.status, c.told(reply), reply.get("Location"), c.s.landed) == (400, False, None, [])


@row("RUFH-DIG-04")
def all_known_digests_must_match(c):
    both = f"{digest(b'ab')}, {digest(b'ab', 'sha-512')}, crc32c=:AAAA:, sha-256x=?1"
    assert c.create(b"ab", False, {"Content-Digest": both}).status == 201
    one_wrong = f"{digest(b'ab')}, {digest(b'xx', 'sha-512')}"
    assert c.create(b"ab", False, {"Content-Digest": one_wrong}).status == 400
    for ignored in ("crc32c=:AAAA:", "md5=:AAAA:", "nonsense", "sha-256", "sha-256=AAAA", ""):
        assert c.create(b"ab", False, {"Content-Digest": ignored}).status == 201, ignored
    assert c.create(b"ab", False, {"Content-Digest": "sha-256=:AAAA:"}).status == 400


@row("RUFH-DIG-01")
def a_disconnect_leaves_no_unverified_bytes(c):
    url = c.url(b"ab")
    reply = c.append(url, 2, b"cd", True, {"Content-Digest": digest(b"cdef")}, length=4)
    assert (reply.status, c.told(reply), c.offset(url), c.s.landed) == (400, False, 2, [])
    accepted(c, c.append(url, 2, b"cdef", True, {"Content-Digest": digest(b"cdef")}))


# -- Interim responses ---------------------------------------------------------------------------------------------


class Socket:
    """What gunicorn lends."""

    def __init__(self):
        self.sent = b""

    def sendall(self, data):
        self.sent += data

    @property
    def heads(self):
        """What was sent, as a status line and a dict of fields each."""
        found = []
        for head in self.sent.decode("latin-1").split("\r\n\r\n")[:-1]:
            line, *fields = head.split("\r\n")
            found.append((line, dict(field.split(": ", 1) for field in fields)))
        return found


@row("RUFH-VER-02", "RUFH-VER-03", "RUFH-CREATE-02", "RUFH-CREATE-06", "RUFH-104-01", subjects=WSGI_SUBJECTS)
def a_creation_is_announced_to_a_client_that_names_a_known_version(c):
    for complete in (False, True):
        socket = Socket()
        reply = c.create(b"abcd", complete, environ={"gunicorn.socket": socket})
        if c.version not in KNOWN:
            assert socket.sent == b""
            continue
        ((line, fields),) = socket.heads
        assert line == "HTTP/1.1 104 Upload Resumption Supported"
        assert fields["Upload-Draft-Interop-Version"] == str(c.version)
        assert fields["Location"] == reply["Location"]
        assert ("Upload-Limit" in fields) == (c.like >= 6)
        assert set(fields) <= {"Upload-Draft-Interop-Version", "Location", "Upload-Limit"}


@row("RUFH-104-02", "RUFH-CREATE-02", versions=KNOWN, subjects=WSGI_SUBJECTS)
def no_other_request_gets_an_announcement(c):
    socket = Socket()
    url = c.url(environ={"gunicorn.socket": socket})
    for reply in (
        c.append(url, 0, b"ab", environ={"gunicorn.socket": socket}),
        c.head(url, environ={"gunicorn.socket": socket}),
        c.create(b"ab", None, environ={"gunicorn.socket": socket}),
        c.create(b"abcd", True, {"Upload-Length": "3"}, environ={"gunicorn.socket": socket}),
        c.append(url, 2, b"cd", True, environ={"gunicorn.socket": socket}),
        c.create(b"ab", environ={"gunicorn.socket": socket, "SERVER_PROTOCOL": "HTTP/1.0"}),
    ):
        assert reply.status != 104
    assert socket.sent == b""


@row("RUFH-LIMIT-02", versions=KNOWN, subjects=WSGI_SUBJECTS, min_size=4)
def an_upload_that_is_too_small_is_not_announced(c):
    for body, announced in ((b"abc", 0), (b"abcd", 1)):
        socket = Socket()
        with mock.patch("tus.server.reception._TELL_EVERY", 0), mock.patch("tus.server.runner.SMALL", 0):
            accepted(c, c.create(body, True, environ={"gunicorn.socket": socket}))
        assert len([fields for _, fields in socket.heads if "Location" in fields]) == announced
        assert announced or not socket.heads


@row("RUFH-CREATE-06", "RUFH-CREATE-08", versions=KNOWN, subjects=WSGI_SUBJECTS)
def an_announced_upload_stays_after_an_error(c):
    socket = Socket()
    headers = {"Content-Digest": digest(b"xxxx")}
    assert c.create(b"abcd", True, headers, environ={"gunicorn.socket": socket}).status == 400
    url = socket.heads[0][1]["Location"]
    assert c.offset(url) == 0
    accepted(c, c.append(url, 0, b"abcd", True))


@row("RUFH-LEN-04", versions=KNOWN, subjects=WSGI_SUBJECTS)
def an_announced_upload_that_overruns(c):
    socket = Socket()
    headers = {"Upload-Length": "4"}
    reply = c.create(b"abcdef", False, headers, chunked=True, environ={"gunicorn.socket": socket})
    assert (reply.status, c.problem(reply)) == (400, "inconsistent-upload-length" if c.like >= 6 else None)
    url = socket.heads[0][1]["Location"]
    if c.like >= 7:
        assert c.is_gone(url)
    else:
        assert c.offset(url) == 0


@row("RUFH-CREATE-07", "RUFH-104-01", "RUFH-STATE-03", versions=KNOWN, subjects=WSGI_SUBJECTS)
def only_counted_bytes_are_reported_as_progress(c):
    socket = Socket()
    body = Blocks(*[b"a" * 65536] * 3)
    with mock.patch("tus.server.reception._TELL_EVERY", 0):
        environ = {"gunicorn.socket": socket, "wsgi.input": body}
        assert c.create(b"", False, chunked=True, environ=environ, validate=False).status == 201
    url = next(fields["Location"] for _, fields in socket.heads if "Location" in fields)
    progress = [fields for _, fields in socket.heads if "Upload-Offset" in fields]
    if c.like <= 4:
        assert progress == []
        return
    assert progress
    for fields in progress:
        assert set(fields) == {"Upload-Draft-Interop-Version", "Upload-Offset"}
        assert fields["Upload-Draft-Interop-Version"] == str(c.version)
    offsets = [int(fields["Upload-Offset"]) for fields in progress]
    assert offsets == sorted(offsets)
    assert offsets[-1] <= c.offset(url)


@row("RUFH-STATE-03", "RUFH-DIG-01", versions=KNOWN, subjects=WSGI_SUBJECTS)
def no_progress_is_reported_for_bytes_under_a_digest(c):
    socket, url = Socket(), c.url()
    environ = {"gunicorn.socket": socket, "wsgi.input": Blocks(*[b"a" * 65536] * 3)}
    with mock.patch("tus.server.reception._TELL_EVERY", 0):
        wrong = {"Content-Digest": digest(b"x")}
        assert c.append(url, 0, b"", True, wrong, chunked=True, environ=environ, validate=False).status == 400
    assert (socket.sent, c.offset(url)) == (b"", 0)


@row("RUFH-STATE-03", "RUFH-APPEND-05", versions=(5, 6, 7, 8, 9, 10), subjects=WSGI_SUBJECTS)
def no_progress_is_reported_for_a_byte_that_is_held_back(c):
    """A body without a length that has reached the upload's may have more; so its last byte is not counted yet."""
    socket, stood = Socket(), []
    url = c.url(b"", False, {"Upload-Length": "131072"})
    body = Blocks(b"a" * 65536, b"a" * 65536, lambda: stood.append(standing(c, url)))
    with mock.patch("tus.server.reception._TELL_EVERY", 0):
        how = {"environ": {"gunicorn.socket": socket, "wsgi.input": body}, "validate": False}
        accepted(c, c.append(url, 0, b"", True, chunked=True, **how))
    assert [int(fields["Upload-Offset"]) for _, fields in socket.heads] == [65536, 131071]
    assert stood == [131071]
    assert data_of(c) == b"a" * 131072


def standing(c, url):
    """Where an upload stands, read from the store, so that no append is ended by it."""
    return c.s.stored().load(url.rpartition("/")[2]).offset


# -- Who may do what -----------------------------------------------------------------------------------------------


def gate(request, intent, upload):
    user = request.headers.get("X-User")
    if user is None:
        raise Unauthorized("Who are you?")
    if user == "eve":
        raise Forbidden("Not you.")
    return user


@row("RUFH-STATE-05", "RUFH-SEC-01", authorize=gate)
def only_the_principal_that_created_an_upload_may_continue(c):
    for headers, status in (({}, 401), ({"X-User": "eve"}, 403)):
        reply = c.create(b"ab", True, headers)
        assert (reply.status, c.told(reply), c.s.landed) == (status, False, [])
    ann, bob = {"X-User": "ann"}, {"X-User": "bob"}
    url = c.create(b"ab", False, ann)["Location"]
    for headers, status in (({}, 401), ({"X-User": "eve"}, 403), (bob, 404)):
        for reply in (
            c.append(url, 2, b"cd", True, headers),
            c.send("DELETE", url, headers),
        ):
            assert (reply.status, c.told(reply)) == (status, False)
        assert c.head(url, headers).status == status
    assert c.head(url, ann)["Upload-Offset"] == "2"
    accepted(c, c.append(url, 2, b"cd", True, ann))


@row("RUFH-SEC-01", "RUFH-CREATE-10")
def hooks_are_asked_and_can_refuse(c):
    teapot = Response(418, "I'm a teapot", [("X-Hook", "tea"), ("Content-Type", "text/plain")], (b"short",))
    hooks = Recorder(pre_create=HookReply(reject=True, response=teapot))
    s = type(c.s)(**c.s.options | {"hooks": hooks})
    refused = Client(s, c.version).create(b"ab", True)
    assert (refused.status, c.told(refused), refused.body, refused["X-Hook"]) == (418, False, b"short", "tea")
    assert s.landed == []
    hooks = Recorder()
    s = type(c.s)(**c.s.options | {"hooks": hooks})
    accepted(c, Client(s, c.version).create(b"ab", True))
    assert hooks.types == ["pre-create", "post-create", "pre-finish", "post-finish"]


@row("RUFH-SEC-01")
def a_hook_can_stop_an_upload(c):
    hooks = Recorder(post_receive=HookReply(stop=True))
    with mock.patch("tus.server.reception._TELL_EVERY", 0), mock.patch("tus.server.runner.SMALL", 0):
        s = type(c.s)(**c.s.options | {"hooks": hooks})
        client = Client(s, c.version)
        reply = client.create(b"abcd", True)
    assert (reply.status, c.told(reply), s.landed) == (400, False, [])
    assert b"stopped" in reply.body
    assert hooks.types == ["pre-create", "post-create", "post-receive", "post-terminate"]


@row("TRAP-1", "TRAP-18", cors_allow_origin="https://page.example")
def a_page_can_read_every_reply(c):
    page = {"Origin": "https://page.example"}
    url = c.create(b"ab", False, page)["Location"]
    replies = [
        c.create(b"ab", False, page),
        c.create(b"ab", False, page | {"Upload-Length": "1"}),
        c.head(url, page),
        c.append(url, 9, b"x", False, page),
        c.append(url, 2, b"cd", True, page),
        c.send("DELETE", url, page),
    ]
    statuses = [reply.status for reply in replies]
    assert statuses == [201, 400, 204, 409, 204 if is_view(c) else 200, 204]
    for reply in replies:
        assert reply["Access-Control-Allow-Origin"] == "https://page.example"
        exposed = set(reply["Access-Control-Expose-Headers"].split(", "))
        assert {"Location", "Upload-Offset", "Upload-Limit", c.field, "Upload-Draft-Interop-Version"} <= exposed
    asked = page | {"Access-Control-Request-Method": "PUT"}
    reply = call(c.s.app, "OPTIONS", PATH, asked)
    assert reply.status == 200
    assert {"POST", "PUT", "PATCH", "HEAD", "GET", "DELETE"} <= set(reply["Access-Control-Allow-Methods"].split(", "))
    allowed = set(reply["Access-Control-Allow-Headers"].split(", "))
    assert {c.field, "Upload-Draft-Interop-Version", "Content-Disposition", "Content-Digest"} <= allowed


# -- Hand-over in the background, and downloads --------------------------------------------------------------------


@row("RUFH-STATE-04", subjects=(FilterSubject,), handover="background")
def in_background_mode_a_durable_upload_is_complete(c):
    reply = c.create(b"abcd", True)
    assert (reply.status, c.told(reply), reply["Upload-Offset"], reply.body) == (201, True, "4", b"")
    assert "/files/" in reply["Location"]
    url = c.url(b"ab")
    reply = c.append(url, 2, b"cd", True)
    assert (reply.status, c.told(reply), c.told(c.head(url)), c.s.landed) == (204, True, True, [])
    assert len(list(c.s.app.backlog.run(everything=True))) == 2
    assert [data for _, data in c.s.landed] == [b"abcd", b"abcd"]
    assert c.told(c.head(url)) is True


@row("A-34", "A-40", download=True, keep_finished=True)
def get_is_a_download_after_the_upload_is_finished(c):
    url = c.url(b"ab")
    assert call(c.s.app, "GET", url).status == 204
    accepted(c, c.append(url, 2, b"cd", True))
    if is_view(c) or c.s.landed:
        reply = call(c.s.app, "GET", url)
        assert (reply.status, reply.body) == (200, b"abcd")
    asked = c.head(url, method="GET")
    if c.version in KNOWN:
        assert (asked.status, asked["Upload-Offset"], c.told(asked)) == (204, "4", True)
    else:
        assert asked.body == b"abcd"
    assert c.head(url).status == 204


@row("A-34", "A-40", versions=(10,), download=True, keep_finished=True, protocols="ietf")
def get_is_a_download_also_without_tus(c):
    url = c.url(b"ab")
    assert call(c.s.app, "GET", url).status == 204
    accepted(c, c.append(url, 2, b"cd", True))
    assert call(c.s.app, "GET", url).body == b"abcd"
    assert call(c.s.app, "HEAD", url).status == 204
    assert c.head(url, method="GET").status == 204


# -- What is run ---------------------------------------------------------------------------------------------------


# -- Idempotency-Key ----------------------------------------------------------------------------------------------

KEY = {"Idempotency-Key": '"8e03978e-40d5-43e8-bc93-6894a57f9324"'}


@row("IDEM-01", "IDEM-07")
def a_malformed_key_is_refused(c):
    for value in (
        "",
        '""',
        '"open',
        "two keys of sixteen characters",
        "?1",
        ":YWJj:",
        '"k"',
        '"k", "k"',
        '"' + "k" * 256 + '"',
    ):
        reply = c.create(b"ab", headers={"Idempotency-Key": value})
        assert (reply.status, c.told(reply)) == (400, False), value
    assert list(c.s.stored().list()) == []


@row("IDEM-02")
def a_repeated_creation_finds_its_upload(c):
    url = c.url(headers=KEY)
    assert c.url(headers=KEY) == url
    assert c.url(headers={"Idempotency-Key": KEY["Idempotency-Key"].strip('"')}) == url
    c.append(url, 0, b"abc")
    reply = c.create(headers=KEY)
    assert (reply.status, reply["Location"], reply["Upload-Offset"], c.told(reply)) == (201, url, "3", False)
    assert len(list(c.s.stored().list())) == 1


@row("IDEM-03")
def another_request_under_a_key_is_refused(c):
    url = c.url(headers=KEY | {"Upload-Length": "9"})
    assert c.create(headers=KEY).status == 422
    assert c.create(headers=KEY | {"Upload-Length": "8"}).status == 422
    reply = c.create(headers=KEY | {"Upload-Length": "9", "Content-Disposition": 'attachment; filename="x"'})
    assert (reply.status, reply.get("Location"), c.told(reply)) == (422, None, False)
    assert call(c.s.app, "POST", PATH, TUS | KEY | {"Upload-Length": "9"}).status == 422
    assert c.offset(url) == 0
    assert len(list(c.s.stored().list())) == 1


@row("IDEM-04")
def a_repeated_creation_resumes_after_a_cut(c):
    for number, size in enumerate((2, 200_000)):
        headers = {"Idempotency-Key": f'"a key with the number {number}"'}
        data = bytes(range(256)) * (2 * size // 256) + b"x" * (2 * size % 256)
        c.create(data[:size], True, headers, length=len(data))  # its response never arrives
        reply = c.create(data, True, headers)
        assert (reply.status, reply["Upload-Offset"], c.told(reply)) == (201, str(size), False)
        url = reply["Location"]
        assert c.offset(url) == size
        accepted(c, c.append(url, size, data[size:], True))
        assert c.s.landed.pop()[1] == data
        assert c.s.landed == []


@row("IDEM-04")
def a_repeated_creation_sends_its_body_if_the_first_one_got_nowhere(c):
    c.create(b"", True, KEY, length=4)
    accepted(c, c.create(b"abcd", True, KEY))
    assert data_of(c) == b"abcd"


@row("IDEM-05")
def a_repeated_creation_gets_the_recorded_outcome(c):
    first = accepted(c, c.create(b"abcd", True, KEY))
    again = accepted(c, c.create(b"abcd", True, KEY))
    assert again["Location"] == first["Location"]
    assert data_of(c) == b"abcd"


@row("IDEM-05", subjects=APPLICATIONS, reject_statuses="422")
def a_repeated_creation_gets_the_recorded_rejection(c):
    c.s.fail = "422 Unprocessable Content"
    first = c.create(b"abcd", True, KEY)
    c.s.fail = None
    again = c.create(b"abcd", True, KEY)
    assert (first.status, first.body) == (again.status, again.body) == (422, b"the application's answer")
    assert c.told(again) is True
    assert c.s.landed == []


@row("IDEM-05")
def a_repeated_creation_offers_the_file_again(c):
    for data in (b"abcd", b""):
        headers = {"Idempotency-Key": f"a-key-of-{len(data)}-or-so-bytes"}
        c.s.fail = "503 Service Unavailable"
        assert c.create(data, True, headers).status == 503
        c.s.fail = None
        accepted(c, c.create(data, True, headers))
        assert c.s.landed.pop()[1] == data
    assert len(list(c.s.stored().list())) == 2


@row("IDEM-06")
def a_key_makes_a_new_upload_after_the_end_of_the_first(c):
    url = c.url(b"ab", headers=KEY)
    assert c.send("DELETE", url).status == 204
    assert c.offset(c.url(headers=KEY)) == 0


@row("IDEM-06", upload_valid_duration=100)
def a_key_makes_a_new_upload_after_the_first_has_expired(c):
    c.url(b"ab", headers=KEY)
    with later(101):
        url = c.url(headers=KEY)
        assert c.offset(url) == 0
        assert c.url(headers=KEY) == url


@row("IDEM-07", subjects=WSGI_SUBJECTS[:1], authorize=lambda request, intent, upload: request.headers.get("User"))
def a_key_is_that_of_a_principal(c):
    ann = c.url(headers=KEY | {"User": "ann"})
    urls = {ann, c.url(headers=KEY | {"User": "bob"}), c.url(headers=KEY)}
    assert len(urls) == 3
    assert c.url(headers=KEY | {"User": "ann"}) == ann
    short = {"Idempotency-Key": '"7"', "User": "ann"}
    assert c.url(headers=short) == c.url(headers=short)


@row("IDEM-09", hooks=Recorder(), max_uploads=1, versions=(9,), subjects=WSGI_SUBJECTS)
def a_repeated_creation_calls_no_hook_and_counts_once(c):
    recorder = c.s.options["hooks"]
    recorder.seen.clear()
    url = c.url(b"ab", headers=KEY)
    before = recorder.types
    assert before == ["pre-create", "post-create"]
    assert c.url(b"ab", headers=KEY) == url
    assert recorder.types == before


@pytest.mark.parametrize(("requirement", "subject_class", "version", "options"), [*cases()])
def test_requirement(requirement, subject_class, version, options, tmp_path):
    subject = subject_class(**{"tmp_file_dir": str(tmp_path), "fsync": "none"} | options)
    requirement(Client(subject, version))


def test_every_row_has_its_name():
    names = [function.__name__ for function, *_ in ROWS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("interim", ["direct", "always", "never"])
def test_who_takes_an_interim_response(interim):
    options = Options.build(tmp_file_dir="/x", interim=interim)

    def takes(profile, **headers):
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return takes_interim(Request("POST", "http://localhost/files", fields), profile, options)

    for profile in PROFILES.values():
        assert takes(profile) == (interim != "never")
        for field in ("Via", "Forwarded", "X_Forwarded_For", "X_Forwarded_Proto", "X_Real_IP"):
            assert takes(profile, **{field: "x"}) == (interim == "always"), field
    assert not takes(UNVERSIONED)


def test_the_drafts_that_are_implemented():
    assert {version: profile.drafts for version, profile in PROFILES.items()} == {
        3: "-01",
        4: "-02",
        5: "-03",
        6: "-04 and -05",
        7: "-06 to -08",
        8: "-09 to -11",
        9: "-12",
        10: "-13",
    }
    assert all(
        re.fullmatch(r"(RUFH-[A-Z0-9]+|IDEM)-\d\d|A-\d\d|TRAP-\d+|TUSD-\w+-\d\d", i) for _, ids, *_ in ROWS for i in ids
    )
