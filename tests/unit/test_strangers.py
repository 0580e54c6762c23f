"""What another user learns about an upload: the same as about one that never was, by every method of both protocols."""

import os
import time
from functools import partial

import pytest

from tests.support.subjects import PATH, REJECTS, AsgiSubject, FilterSubject
from tests.support.wsgi import OCTETS, TUS, call
from tus import Filter
from tus.errors import Forbidden, Unauthorized
from tus.models import Upload

UNKNOWN = "0123456789abcdef" * 2
ANN, BOB = {"X-User": "ann"}, {"X-User": "bob"}
STRANGERS = {"bob": BOB, "nobody": {}}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "FOO")
IETF = {"Upload-Draft-Interop-Version": "8"}
PARTIAL_UPLOAD = {"Content-Type": "application/partial-upload"}
#: What a request may carry; each with every method.
HEADS = [
    {},
    {"Upload-Offset": "0"},
    {"Range": "bytes=0-1"},
    {"If-None-Match": "*"},
    TUS,
    {"Tus-Resumable": "9"},
    TUS | OCTETS,
    TUS | OCTETS | {"Upload-Offset": "0"},
    TUS | OCTETS | {"Upload-Offset": "4"},
    TUS | OCTETS | {"Upload-Offset": "99", "Upload-Length": "4"},
    TUS | {"Upload-Length": "5", "Upload-Metadata": "filename eA=="},
    TUS | OCTETS | {"Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"},
    TUS | {"X-HTTP-Method-Override": "DELETE"},
    IETF,
    IETF | PARTIAL_UPLOAD | {"Upload-Complete": "?1", "Upload-Offset": "0"},
    IETF | PARTIAL_UPLOAD | {"Upload-Complete": "?0", "Upload-Offset": "4"},
    {"Upload-Complete": "?1", "Upload-Offset": "0"},
    {"Upload-Draft-Interop-Version": "3", "Upload-Incomplete": "?0", "Upload-Offset": "0"},
    {"Upload-Draft-Interop-Version": "5", "Upload-Complete": "?1", "Upload-Offset": "2"},
    {"Content-Type": "application/x-www-form-urlencoded"},
    {"Origin": "https://a.example", "Access-Control-Request-Method": "PATCH"},
]


def names(request, intent, upload):
    """A gate that knows users, and lets each do everything."""
    return request.headers.get("X-User")


def demands(request, intent, upload):
    """A gate that everybody must have a name for."""
    user = names(request, intent, upload)
    if user is None:
        raise Unauthorized("Log in.", [("WWW-Authenticate", "Basic")])
    return user


def trusts_ann(request, intent, upload):
    """A gate that refuses all others, without a look at the upload."""
    if names(request, intent, upload) != "ann":
        raise Forbidden("This is Ann's.")
    return "ann"


def is_broken(request, intent, upload):
    return names(request, intent, upload) if names(request, intent, upload) == "ann" else object()


class Asked(FilterSubject):
    """A filter that asks the application about creations; it names users, and all others must log in."""

    def make(self):
        self.fail = None

        def application(environ, start_response):
            user = environ.get("HTTP_X_USER")
            if "tus.intent" in environ:
                named = [("Tus-Principal", user)] if user else [("WWW-Authenticate", "Basic")]
                start_response("204 No Content" if user else "401 Unauthorized", named)
                return []
            start_response(self.fail or "204 No Content", list(self.fields) if self.fail else [])
            return [b"no"] if self.fail else []

        return Filter(application, **{"upload_path": PATH, "send_file": True} | self.options)


SITES = {
    "names": partial(FilterSubject, authorize=names),
    "demands": partial(FilterSubject, authorize=demands),
    "trusts ann": partial(FilterSubject, authorize=trusts_ann),
    "broken": partial(FilterSubject, authorize=is_broken),
    "asks about creations": partial(Asked, ask_app="create"),
    "asks always": partial(Asked, ask_app="all"),
    "asgi": partial(AsgiSubject, authorize=names),
}


#: The claims that a test holds until its end.
claims = []


@pytest.fixture(autouse=True)
def _release():
    yield
    while claims:
        claims.pop().release()


def make(name, directory, **options):
    options = {"tmp_file_dir": str(directory), "download": True, "keep_finished": True, **options}
    return SITES[name](**options)


def uploads_of_ann(subject):
    """The URL of an upload of Ann's in each state, by the name of the state."""
    url = subject.url(4, ANN)
    urls = {"receiving": url, "begun": subject.url(4, ANN), "deferred": subject.url(None, ANN)}
    assert subject.patch(urls["begun"], 0, b"ab", ANN).status == 204
    reply = call(subject.app, "POST", PATH, IETF | ANN | {"Upload-Complete": "?0", "Upload-Length": "4"}, b"ab")
    assert reply.status == 201
    urls["ietf"] = reply["Location"]
    urls["part"] = subject.url(2, ANN | {"Upload-Concat": "partial"}, b"ab")
    waiting = subject.url(2, ANN | {"Upload-Concat": "partial"})
    urls["final"] = subject.send("POST", PATH, ANN | {"Upload-Concat": f"final;{urls['part']}"})["Location"]
    urls["waiting final"] = subject.send("POST", PATH, ANN | {"Upload-Concat": f"final;{waiting}"})["Location"]
    urls["accepted"] = subject.url(2, ANN, b"ab")
    subject.fail = "503 Busy"
    urls["pending"] = subject.url(2, ANN)
    assert subject.patch(urls["pending"], 0, b"ab", ANN).status == 503
    subject.fail, subject.fields = "415 Unsupported Media Type", [REJECTS, ("Content-Type", "text/plain")]
    urls["rejected"] = subject.url(2, ANN)
    assert subject.patch(urls["rejected"], 0, b"ab", ANN).status == 415
    store = subject.stored()
    drafts = {
        "expired": Upload(length=4, principal="ann", service=PATH, expires_at=time.time() - 9),
        "of another service": Upload(length=4, service="/other"),
        "lost, of another service": Upload(length=4, service="/other"),
        "lost": Upload(length=4, principal="ann", service=PATH),
        "damaged": Upload(length=4, principal="ann", service=PATH),
    }
    urls |= {state: f"{PATH}/{store.create(draft).id}" for state, draft in drafts.items()}
    urls["taken away"] = f"{PATH}/{store.create(Upload(length=0, principal='ann', service=PATH)).id}"
    claim = store.claim(subject.record(urls["taken away"]))
    claim.begin()  # and the application moves the file away
    for state in ("lost", "lost, of another service", "taken away"):
        os.unlink(path_of(subject, urls[state]))
    with open(path_of(subject, urls["damaged"]) + ".tus", "r+b") as file:
        file.write(b"\0" * 4096)
    claims.append(claim)
    return urls


def path_of(subject, url):
    return os.path.join(subject.options["tmp_file_dir"], url.rpartition("/")[2])


def everything(directory):
    """Every file of an upload in a directory, with its bytes."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != ".tus-secret"}


def seen(subject, method, url, headers, body=b""):
    """What a client sees, without the id that it has sent."""
    reply = call(subject.app, method, url, headers, body, validate=False)
    fields = sorted((name, value) for name, value in reply.header_list if name.lower() != "date")
    return repr((reply.status, reply.reason, fields, reply.body)).replace(url.rpartition("/")[2], "<id>")


#: The sites and strangers of the short run.
SHORT = (("names", "bob"), ("demands", "nobody"), ("asks about creations", "nobody"), ("asgi", "bob"))
PAIRS = [
    pytest.param(site, stranger, marks=[] if (site, stranger) in SHORT else pytest.mark.long)
    for site in SITES
    for stranger in STRANGERS
]


@pytest.mark.parametrize(("site", "stranger"), PAIRS)
def test_a_stranger_cannot_tell_an_upload_from_none(tmp_path, site, stranger):
    subject = make(site, tmp_path)
    check_hidden(subject, uploads_of_ann(subject), STRANGERS[stranger], tmp_path)


def check_hidden(subject, urls, stranger, directory):
    """Check that each request gets the same reply about these uploads as about none, and changes nothing."""
    before = everything(directory)
    for head in HEADS:
        for method in METHODS:
            body = b"ab" if method in ("POST", "PUT", "PATCH") else b""
            expected = seen(subject, method, f"{PATH}/{UNKNOWN}", head | stranger, body)
            for state, url in urls.items():
                found = seen(subject, method, url, head | stranger, body)
                assert found == expected, (state, method, head)
    assert everything(directory) == before


@pytest.mark.long
@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize(
    "options", [{}, {"protocols": "tus"}, {"protocols": "ietf"}, {"handover": "background"}], ids=str
)
@pytest.mark.parametrize("download", [True, False])
def test_nor_with_other_options(tmp_path, options, download, stranger):
    first = make("demands", tmp_path)
    urls = uploads_of_ann(first)
    first.app.service.close()
    subject = make("demands", tmp_path, **{"download": download} | options)
    check_hidden(subject, urls, STRANGERS[stranger], tmp_path)


@pytest.mark.parametrize(("site", "stranger"), PAIRS)
def test_nor_a_part_from_none(tmp_path, site, stranger):
    stranger, asked = STRANGERS[stranger], []

    class Hooks:
        def pre_create(self, event):
            asked.append(event.upload)

    subject = make(site, tmp_path, hooks=Hooks())
    urls = uploads_of_ann(subject)
    before = everything(tmp_path)
    asked.clear()
    for key in ({}, {"Idempotency-Key": "a-long-and-random-key"}):
        for others in ([], [urls["part"]], [f"{PATH}/{UNKNOWN[::-1]}"]):
            listed = lambda url: {"Upload-Concat": "final;" + " ".join([*others, url])}  # noqa: B023, E731
            expected = seen(subject, "POST", PATH, TUS | key | stranger | listed(f"{PATH}/{UNKNOWN}"))
            for state, url in urls.items():
                assert seen(subject, "POST", PATH, TUS | key | stranger | listed(url)) == expected, state
    assert everything(tmp_path) == before
    assert asked == [], "of a request that is refused"


@pytest.mark.parametrize("site", ["names", "asks always"])
@pytest.mark.parametrize("protocol", ["tus", "ietf"])
def test_nor_the_key_of_another_from_a_new_one(tmp_path, site, protocol):
    subject = make(site, tmp_path)
    key = {"Idempotency-Key": "a-long-and-random-key"}
    asked = TUS | {"Upload-Length": "4"} if protocol == "tus" else {"Upload-Complete": "?0", "Upload-Length": "4"}
    url = call(subject.app, "POST", PATH, asked | key | ANN)["Location"]
    other = {"Idempotency-Key": "another-random-key-of-bob"}
    replies = [call(subject.app, "POST", PATH, asked | one | BOB) for one in (key, other)]
    assert [reply.status for reply in replies] == [201, 201]
    assert url not in [reply["Location"] for reply in replies]
    assert call(subject.app, "POST", PATH, asked | key | ANN)["Location"] == url


@pytest.mark.parametrize("site", SITES)
def test_the_owner_is_told_what_has_become_of_it(tmp_path, site):
    subject = make(site, tmp_path)
    urls = uploads_of_ann(subject)
    statuses = {"receiving": 200, "accepted": 200, "expired": 410, "lost": 410, "damaged": 404, "taken away": 423}
    assert {state: subject.head(urls[state], ANN).status for state in statuses} == statuses
    assert subject.send("DELETE", urls["begun"], ANN).status == 204
    assert call(subject.app, "DELETE", urls["receiving"], ANN).status == 412, "the owner learns that a field is missing"


def test_without_users_a_damaged_upload_is_gone(tmp_path):
    subject = FilterSubject(tmp_file_dir=str(tmp_path))
    url = subject.url(4)
    with open(path_of(subject, url) + ".tus", "r+b") as file:
        file.write(b"\0" * 4096)
    assert subject.head(url).status == 410


def test_authorize_is_asked_about_an_upload_that_does_not_exist(tmp_path):
    """With an upload that is terminated, so that it can tell, and without anything that a client has sent."""
    asked = []
    subject = FilterSubject(tmp_file_dir=str(tmp_path), authorize=lambda *question: asked.append(question[1:]))
    assert subject.head(f"{PATH}/{UNKNOWN}").status == 404
    ((intent, upload),) = asked
    assert (intent, upload.id, upload.state.name, upload.metadata) == ("head", UNKNOWN, "TERMINATED", {})
