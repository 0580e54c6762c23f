"""The decisions, without a store or a server: a head, an upload and options in, a command or a refusal out."""

from dataclasses import replace

import pytest

from tus.errors import RequestError
from tus.models import Intent, Origin, Outcome, Request, Response, State, Upload
from tus.options import Options
from tus.protocols.bodies import Body, Intake, body_length
from tus.protocols.effects import (
    Authorize,
    Begin,
    Claim,
    Create,
    Load,
    Offer,
    Offered,
    Receive,
    Received,
    Remove,
    Settle,
)
from tus.protocols.exchange import exchange
from tus.protocols.routing import Target, is_under, route, upload_id_of
from tus.protocols.tus1 import replies as tus1_replies
from tus.protocols.tus1 import requests as tus1

ID, OTHER = "a" * 32, "b" * 32
SITE = "http://example.org"
ALL = frozenset(tus1_replies.EXTENSIONS)
TUS = {"Tus-Resumable": "1.0.0"}
PATCH = TUS | {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0", "Content-Length": "4"}


class HOOKS:
    def pre_create(self, event):
        return None


def options(**values):
    return Options.build(tmp_file_dir="unused", upload_path="/files", **values)


# -- Where a URL leads --


@pytest.mark.parametrize(
    ("url", "method", "upload_path", "target"),
    [
        ("/files", "POST", "/files", ("/files", None)),
        ("/files/", "POST", "/files", ("/files", None)),
        (f"/files/{ID}", "HEAD", "/files", ("/files", ID)),
        (f"/files/{ID}/", "HEAD", "/files", ("/files", ID)),
        (f"/files/{ID}", "POST", "/files", ("/files", ID)),
        ("/files/x", "HEAD", "/files", ("/files", "")),
        (f"/files/x/{ID}", "HEAD", "/files", ("/files/x", "")),
        ("/a%20b", "POST", "/a b", ("/a%20b", None)),
        (f"/a%20b/{ID}", "HEAD", "/a b", ("/a%20b", ID)),
        ("/doc/upload", "POST", None, ("/doc/upload", None)),
        ("/doc/upload", "GET", None, ("/doc/upload", None)),
        ("/doc/upload", "OPTIONS", None, ("/doc/upload", None)),
        ("/doc/upload", "HEAD", None, ("/doc", "")),
        (f"/doc/upload/{ID}", "PATCH", None, ("/doc/upload", ID)),
        (f"/doc/upload/{ID}", "POST", None, ("/doc/upload", ID)),
    ],
)
def test_routing(url, method, upload_path, target):
    assert route(SITE + url, method, upload_path) == Target(SITE + target[0], target[1])


@pytest.mark.parametrize(
    ("path", "under"),
    [("/files", True), ("/files/", True), ("/files/x", True), ("/files-public", False), ("/file", False), ("/", False)],
)
def test_what_is_under_the_upload_path(path, under):
    assert is_under(path, "/files") is under


@pytest.mark.parametrize(
    ("url", "upload_id"),
    [
        (f"{SITE}/files/{ID}", ID),
        (f"https://EXAMPLE.org/files/{ID}", ID),
        (f"/files/{ID}", ID),
        (ID, ID),
        (f"{SITE}/files/{ID}/", ID),
        (f"http://other.org/files/{ID}", None),
        (f"{SITE}:81/files/{ID}", None),
        (f"/other/{ID}", None),
        (f"/files/{ID}?x", None),
        (f"/files/../{ID}", None),
        ("/files/x", None),
        ("", None),
        ("http://[bad", None),
    ],
)
def test_the_ids_of_parts(url, upload_id):
    assert upload_id_of(url, f"{SITE}/files") == upload_id


# -- What a head asks for --


@pytest.mark.parametrize(
    ("method", "path", "headers", "command"),
    [
        ("OPTIONS", "/files", {}, tus1.Discover()),
        ("OPTIONS", "/files/x", {"Tus-Resumable": "9"}, tus1.Discover()),
        ("HEAD", f"/files/{ID}", TUS, tus1.Inspect(ID, may_download=False)),
        ("HEAD", f"/files/{ID}", {}, tus1.Inspect(ID, may_download=False)),
        ("GET", f"/files/{ID}", TUS, tus1.Inspect(ID, may_download=False)),
        ("GET", f"/files/{ID}", {}, tus1.Inspect(ID, may_download=False)),
        ("DELETE", f"/files/{ID}", TUS, tus1.Terminate(ID)),
        ("POST", f"/files/{ID}", TUS | {"X-HTTP-Method-Override": "DELETE"}, tus1.Terminate(ID)),
        ("POST", "/files", TUS | {"Upload-Length": "4"}, tus1.Create(4, "", None, (), None, SITE + "/files")),
        ("POST", "/files", TUS | {"Upload-Defer-Length": "1"}, tus1.Create(None, "", None, (), None, SITE + "/files")),
        (
            "POST",
            "/files",
            TUS | {"Upload-Length": "4", "Upload-Metadata": "a YQ==", "Upload-Concat": "partial"},
            tus1.Create(4, "a YQ==", "partial", (), None, SITE + "/files"),
        ),
        (
            "POST",
            "/files",
            TUS | {"Upload-Concat": f"final;/files/{ID} {OTHER}"},
            tus1.Create(None, "", f"final;/files/{ID} {OTHER}", (ID, OTHER), None, SITE + "/files"),
        ),
        ("POST", "/files", PATCH | {"Upload-Length": "9"}, tus1.Create(9, "", None, (), Body(4), SITE + "/files")),
        ("PATCH", f"/files/{ID}", PATCH, tus1.Append(ID, 0, None, Body(4))),
        ("PATCH", f"/files/{ID}", PATCH | {"Upload-Length": "4"}, tus1.Append(ID, 0, 4, Body(4))),
        (
            "PATCH",
            f"/files/{ID}",
            PATCH | {"Upload-Checksum": "crc32 AAAAAA=="},
            tus1.Append(ID, 0, None, Body(4, (("crc32", bytes(4)),))),
        ),
    ],
)
def test_commands(method, path, headers, command):
    assert tus1.parse(Request(method, SITE + path, headers), options(), ALL) == command


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/files", {"Upload-Length": "4"}, 412),
        ("HEAD", f"/files/{ID}", {"Tus-Resumable": "2"}, 412),
        ("POST", "/files", TUS, 400),
        ("POST", "/files", TUS | {"Upload-Length": "4", "Upload-Defer-Length": "1"}, 400),
        ("POST", "/files", TUS | {"Upload-Length": "1001"}, 413),
        ("POST", "/files", PATCH | {"Upload-Length": "3"}, 413),
        ("POST", "/files", TUS | {"Upload-Length": "4", "Upload-Metadata": "x" * 5000}, 431),
        ("POST", "/files", TUS | {"Upload-Concat": "final;/elsewhere/" + ID}, 404),
        ("POST", "/files", TUS | {"Upload-Concat": "final;" + ID, "Upload-Length": "4"}, 400),
        ("POST", "/files", PATCH | {"Upload-Concat": "final;" + ID}, 403),
        ("POST", f"/files/{ID}", TUS | {"Upload-Length": "4"}, 405),
        ("PATCH", "/files", PATCH, 405),
        ("DELETE", "/files", TUS, 405),
        ("PUT", f"/files/{ID}", TUS, 405),
        ("GET", "/files/x", {}, 404),
        ("PATCH", "/files/x", PATCH, 404),
        ("PATCH", f"/files/{ID}", PATCH | {"Content-Type": "text/plain"}, 415),
        ("PATCH", f"/files/{ID}", {**PATCH, "Upload-Offset": "x"}, 400),
        ("PATCH", f"/files/{ID}", {**PATCH, "Content-Length": "x"}, 400),
        ("PATCH", f"/files/{ID}", PATCH | {"Transfer-Encoding": "chunked"}, 411),
    ],
)
def test_refusals(method, path, headers, status):
    with pytest.raises(RequestError) as refused:
        tus1.parse(Request(method, SITE + path, headers), options(max_size=1000), ALL)
    assert refused.value.status == status


def test_what_is_not_offered_is_refused():
    for headers, method, path, status in (
        (TUS | {"Upload-Length": "4", "Upload-Concat": "partial"}, "POST", "/files", 400),
        (TUS, "DELETE", f"/files/{ID}", 405),
    ):
        with pytest.raises(RequestError) as refused:
            tus1.parse(Request(method, SITE + path, headers), options(), frozenset({"creation"}))
        assert refused.value.status == status
    parts = [Upload(id=ID, length=4, concat="partial")]
    with pytest.raises(RequestError, match="only complete uploads"):
        tus1.decide_concatenation(parts, options(), ALL - {"concatenation-unfinished"})


@pytest.mark.parametrize(
    ("length", "encoding", "terminated", "expected"),
    [("4", "", False, 4), ("0", "", True, 0), ("", "", False, 0), (None, "", False, 0), (None, "", True, None)]
    + [(None, "chunked", True, None), ("4", "chunked", True, None)],
)
def test_body_lengths(length, encoding, terminated, expected):
    headers = {"Content-Length": length, "Transfer-Encoding": encoding}
    request = Request("PATCH", SITE, {k: v for k, v in headers.items() if v is not None}, terminated)
    assert body_length(request) == expected


# -- What an upload takes --


def append(offset, length=None, body=4):
    return tus1.Append(ID, offset, length, Body(body))


@pytest.mark.parametrize(
    ("upload", "command", "settles", "limit"),
    [
        (Upload(id=ID, offset=0, length=4), append(0), None, 4),
        (Upload(id=ID, offset=2, length=6), append(2), None, 4),
        (Upload(id=ID, offset=2, length=6), append(2, 6), None, 4),
        (Upload(id=ID, offset=2), append(2, 6), 6, 4),
        (Upload(id=ID, offset=2), append(2), None, 998),
        (Upload(id=ID, offset=2), append(2, 2, 0), 2, 0),
        (Upload(id=ID, offset=4, length=4, state=State.COMPLETE), append(4, body=0), None, 0),
        (Upload(id=ID, offset=4, length=4, state=State.COMPLETE), append(4, body=None), None, 0),
    ],
)
def test_intakes(upload, command, settles, limit):
    intake = tus1.decide_append(command, upload, options(max_size=1000))
    assert (intake.offset, intake.length, intake.limit) == (command.offset, settles, limit)


@pytest.mark.parametrize(
    ("upload", "command", "status"),
    [
        (Upload(id=ID, offset=2, length=6), append(0), 409),
        (Upload(id=ID, offset=2, length=6), append(99), 409),
        (Upload(id=ID, offset=2, length=5), append(2), 413),
        (Upload(id=ID, offset=2, length=6), append(2, 7), 400),
        (Upload(id=ID, offset=2), append(2, 1), 400),
        (Upload(id=ID, offset=2), append(2, 1001), 413),
        (Upload(id=ID, offset=2), append(2, 5), 413),
        (Upload(id=ID, offset=998), append(998), 413),
        (Upload(id=ID, offset=4, length=4, state=State.COMPLETE), append(4), 413),
        (Upload(id=ID, offset=0, concat="final;x", parts=(OTHER,)), append(0), 403),
    ],
)
def test_what_is_not_taken(upload, command, status):
    with pytest.raises(RequestError) as refused:
        tus1.decide_append(command, upload, options(max_size=1000))
    assert refused.value.status == status


def test_without_a_limit_a_deferred_upload_takes_anything():
    assert tus1.decide_append(append(0), Upload(id=ID), options()).limit is None


# -- What the client hears --


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_a_success_of_the_application_becomes_the_protocols(status):
    headers = [
        ("Location", "/doc"),
        ("Content-Type", "x"),
        ("Content-Length", "3"),
        ("Set-Cookie", "a"),
        ("Set-Cookie", "b"),
    ]
    theirs = Response(status, "Whatever", headers, [b"abc"])
    upload = Upload(id=ID, offset=4, length=4, state=State.COMPLETE)
    patch = tus1_replies.answered(tus1_replies.appended(upload), theirs)
    assert (patch.status, patch.body) == (204, ())
    assert patch.headers[-3:] == [("Location", "/doc"), ("Set-Cookie", "a"), ("Set-Cookie", "b")]
    assert dict(patch.headers)["Upload-Offset"] == "4"
    post = tus1_replies.answered(tus1_replies.created(upload, SITE + "/files", True), theirs)
    assert post.status == 201
    assert [value for name, value in post.headers if name == "Location"] == [f"{SITE}/files/{ID}"]
    assert [value for name, value in post.headers if name == "Content-Length"] == ["0"]


@pytest.mark.parametrize("status", [301, 302, 400, 401, 403, 404, 409, 413, 423, 500, 503])
def test_any_other_answer_is_the_clients(status):
    theirs = Response(status, "Theirs", [("Location", "/login"), ("Upload-Offset", "7"), ("X", "y")], [b"abc"])
    reply = tus1_replies.answered(tus1_replies.appended(Upload(id=ID, offset=4, length=4)), theirs)
    assert (reply.status, reply.reason, reply.body) == (status, "Theirs", [b"abc"])
    assert reply.headers == [("Tus-Resumable", "1.0.0"), ("Location", "/login"), ("X", "y")]


# -- The exchange as a conversation of effects --


def test_a_patch_step_by_step():
    upload = Upload(id=ID, offset=0, length=4)
    asking = options(authorize=lambda request, intent, upload: None)
    steps = exchange(Request("PATCH", f"{SITE}/files/{ID}", PATCH), asking, ALL, now=0)
    assert next(steps) == Load(ID)
    assert steps.send(upload) == Authorize(Intent.APPEND, upload)
    receive = steps.send(None)
    assert receive == Receive(upload, Intake(0, None, 4, Body(4)), begin=Begin(is_last=False))
    done = Upload(id=ID, offset=4, length=4, state=State.COMPLETE)
    assert steps.send(Received(done)) == Claim(done)
    assert steps.send(done) == Begin(is_last=False)
    offer = steps.send(replace(done, state=State.HANDING_OVER, attempts=1))
    assert isinstance(offer, Offer)
    assert offer.pending().status == 503
    settle = steps.send(Offered(Response(200, "OK", [("X-App", "1"), ("Content-Length", "2")], (b"ok",))))
    assert settle == Settle(Outcome.ACCEPTED, Response(200, "OK", [("X-App", "1")]), None)
    with pytest.raises(StopIteration) as end:
        steps.send(None)
    assert end.value.value.status == 204


def test_nothing_is_read_before_it_is_wanted():
    """A refusal that the head or the record suffices for comes without a Receive."""
    for headers, upload, status in (
        (PATCH | {"Upload-Offset": "3"}, Upload(id=ID, offset=0, length=4), 409),
        (PATCH | {"Content-Length": "5"}, Upload(id=ID, offset=0, length=4), 413),
        (PATCH, Upload(id=ID, offset=0, length=4, expires_at=-1.0), 410),
    ):
        steps = exchange(Request("PATCH", f"{SITE}/files/{ID}", headers), options(), ALL, now=0)
        assert next(steps) == Load(ID)
        with pytest.raises(StopIteration) as end:
            steps.send(upload)
        assert end.value.value.status == status


def test_the_last_bytes_and_the_beginning_of_the_hand_over_are_one_step():
    """Where nothing lies between them, and nobody is asked; what the store has begun is not begun again."""
    upload = Upload(id=ID, offset=0, length=4)
    steps = exchange(Request("PATCH", f"{SITE}/files/{ID}", PATCH), options(), ALL, now=0)
    assert next(steps) == Load(ID)
    assert steps.send(upload).begin == Begin(is_last=False)
    done = Upload(id=ID, offset=4, length=4, state=State.HANDING_OVER, attempts=1)
    assert isinstance(steps.send(Received(done, is_begun=True)), Offer)
    for lies_between in (
        (options(hooks=HOOKS), upload),
        (options(handover="background", on_finished=print), upload),
        (options(), replace(upload, hashes=("sha256",))),
        (options(), replace(upload, concat="partial")),
    ):
        steps = exchange(Request("PATCH", f"{SITE}/files/{ID}", PATCH), lies_between[0], ALL, now=0)
        next(steps)
        assert steps.send(lies_between[1]).begin is None


def test_a_creation_whose_bytes_are_refused_leaves_nothing():
    asking = options(authorize=lambda request, intent, upload: None)
    steps = exchange(Request("POST", f"{SITE}/files", PATCH | {"Upload-Defer-Length": "1"}), asking, ALL, now=0)
    draft = Upload(is_known=False, service="/files", origin=Origin(f"{SITE}/files"))
    assert next(steps) == Authorize(Intent.CREATE, draft)
    assert steps.send("ann") == Create(replace(draft, principal="ann"))
    assert isinstance(steps.send(Upload(id=ID)), Receive)
    assert steps.throw(RequestError("no")) == Remove(ID)
    with pytest.raises(StopIteration) as end:
        steps.send(None)
    assert end.value.value.status == 400
    assert "Location" not in dict(end.value.value.headers)
