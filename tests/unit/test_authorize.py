"""Who may do what: ``authorize``, ``ask_app``, and uploads that belong to the principal that created them."""

import base64

import pytest
from webob import Request

from tests.support.subjects import ASYNC_SUBJECTS, PATH, SUBJECTS, FilterSubject, Subject, ViewSubject
from tests.support.wsgi import OCTETS, TUS, call
from tus import Filter, Service, Tus, WebobAdapter
from tus.errors import Forbidden, OptionError, Unauthorized
from tus.models import Intent
from tus.options import Options


class Gate:
    """An ``authorize`` that takes down what it is asked, and knows people by a header of their own."""

    def __init__(self):
        self.asked = []
        self.refusals = {}

    def __call__(self, request, intent, upload):
        self.asked.append((intent, upload))
        who = request.headers.get("X-User")
        if intent in self.refusals:
            raise self.refusals[intent]
        return who


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture(params=SUBJECTS)
def subject(request, tmp_path, gate):
    return request.param(tmp_file_dir=str(tmp_path), authorize=gate)


ANN, BOB = {"X-User": "ann"}, {"X-User": "bob"}
PARTIAL = {"Upload-Concat": "partial"}


def test_every_request_is_asked_with_its_intent_and_the_upload(subject, gate):
    metadata = {"Upload-Metadata": "filename " + base64.b64encode(b"a.txt").decode()}
    url = subject.url(4, ANN | metadata)
    draft = gate.asked[0][1]
    assert (draft.id, draft.length, draft.filename, draft.principal) == ("", 4, "a.txt", None)
    subject.head(url, ANN)
    subject.patch(url, 0, b"ab", ANN)
    subject.send("DELETE", url, ANN)
    parts = [subject.url(1, ANN | PARTIAL, b"x") for _ in range(2)]
    subject.send("POST", PATH, ANN | {"Upload-Concat": "final;" + " ".join(parts)})
    assert [intent for intent, _ in gate.asked] == [
        Intent.CREATE, Intent.HEAD, Intent.APPEND, Intent.TERMINATE, Intent.CREATE, Intent.CREATE, Intent.CONCATENATE,
    ]  # fmt: skip
    assert [upload.id for _, upload in gate.asked[1:4]] == [url.rpartition("/")[2]] * 3
    assert [upload.offset for _, upload in gate.asked[1:4]] == [0, 0, 2]
    assert gate.asked[-1][1].parts == tuple(part.rpartition("/")[2] for part in parts)
    assert gate.asked[-1][1].length == 2


def test_options_is_for_everybody(subject, gate):
    gate.refusals = dict.fromkeys(Intent, Forbidden("no"))
    assert subject.send("OPTIONS").status == 200
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    assert subject.send("OPTIONS", PATH, preflight).status == 200
    assert gate.asked == []


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (lambda: Unauthorized("Log in first.", [("WWW-Authenticate", 'Basic realm="uploads"')]), 401),
        (lambda: Forbidden("Your plan has no uploads.", [("X-Plan", "free")]), 403),
    ],
)
@pytest.mark.parametrize("intent", [Intent.CREATE, Intent.APPEND, Intent.HEAD, Intent.TERMINATE, Intent.CONCATENATE])
def test_a_refusal_reaches_the_client_and_changes_nothing(subject, gate, intent, refusal, status):
    url = subject.url(4, ANN)
    parts = [subject.url(1, ANN | PARTIAL, b"x") for _ in range(2)]
    gate.refusals = {intent: refusal()}
    before = len(gate.asked)
    reply = {
        Intent.CREATE: lambda: subject.create(4, ANN, b"abcd"),
        Intent.APPEND: lambda: subject.patch(url, 0, b"ab", ANN),
        Intent.HEAD: lambda: subject.head(url, ANN),
        Intent.TERMINATE: lambda: subject.send("DELETE", url, ANN),
        Intent.CONCATENATE: lambda: subject.send("POST", PATH, ANN | {"Upload-Concat": "final;" + " ".join(parts)}),
    }[intent]()
    assert reply.status == status
    assert len(gate.asked) == before + 1
    header, value = gate.refusals[intent].headers[0]
    assert reply[header] == value
    assert reply["Tus-Resumable"] == "1.0.0"
    assert reply.get("Location") is None
    assert str(gate.refusals[intent]) in reply.body.decode() or intent == Intent.HEAD
    gate.refusals = {}
    assert int(subject.head(url, ANN)["Upload-Offset"]) == 0
    assert subject.landed == []


def test_a_body_is_not_read_before_its_sender_may(subject, gate):
    url = subject.url(4, ANN)
    gate.refusals = {Intent.APPEND: Forbidden("no"), Intent.CREATE: Forbidden("no")}
    for method, target, headers in (("PATCH", url, {"Upload-Offset": "0"}), ("POST", PATH, {"Upload-Length": "4"})):
        stream = type("Unread", (), {"read": lambda self, size: pytest.fail("the body was read")})()
        unread = {"wsgi.input": stream}
        reply = call(
            subject.app, method, target, TUS | OCTETS | headers, length=4, environ=unread, validate=False
        )  # fmt: skip
        assert reply.status == 403


def test_to_another_principal_an_upload_does_not_exist(subject):
    url = subject.url(4, ANN)
    for stranger in (BOB, {}):
        for reply in (
            subject.head(url, stranger),
            subject.patch(url, 0, b"ab", stranger),
            subject.patch(url, 3, b"ab", stranger),  # not even where it stands can be learnt
            subject.send("DELETE", url, stranger),
        ):
            assert reply.status == 404
            assert reply.get("Upload-Offset") is None
        missing = subject.patch(url[:-32] + "0" * 32, 0, b"ab", stranger)
        assert subject.patch(url, 0, b"ab", stranger).body == missing.body
    assert int(subject.head(url, ANN)["Upload-Offset"]) == 0
    assert subject.patch(url, 0, b"abcd", ANN).status == 204
    assert [upload.principal for upload, _ in subject.landed] == ["ann"]


def test_nor_does_it_as_a_part(subject):
    parts = [subject.url(1, ANN | PARTIAL, b"x"), subject.url(1, BOB | PARTIAL, b"y")]
    final = {"Upload-Concat": "final;" + " ".join(parts)}
    assert subject.send("POST", PATH, ANN | final).status == 404
    assert subject.send("POST", PATH, BOB | final).status == 404
    assert subject.send("POST", PATH, final).status == 404
    assert subject.landed == []
    mine = {"Upload-Concat": f"final;{parts[0]} {parts[0]}"}
    assert subject.send("POST", PATH, ANN | mine).status == 201
    assert [data for _, data in subject.landed] == [b"xx"]


def test_what_nobody_in_particular_created_is_everybodys(subject):
    url = subject.url(4)
    assert subject.patch(url, 0, b"ab", ANN).status == 204
    assert subject.patch(url, 2, b"cd", BOB).status == 204
    assert len(subject.landed) == 1


def test_expiry_is_told_to_the_owner_alone(tmp_path, gate, monkeypatch):
    subject = FilterSubject(tmp_file_dir=str(tmp_path), authorize=gate, upload_valid_duration=60)
    url = subject.url(4, ANN)
    import time

    later = time.time() + 100
    monkeypatch.setattr("tus.server.runner.time.time", lambda: later)
    assert subject.head(url, ANN).status == 410
    assert subject.head(url, BOB).status == 404


def test_a_view_says_whose_request_it_is(tmp_path):
    class Owned(ViewSubject):
        def make(self):
            from webob import Request

            from tus import WebobAdapter

            def view(environ, start_response):
                adapter = WebobAdapter(Request(environ))
                tus = Tus(adapter, tmp_file_dir=str(tmp_path), principal=environ.get("HTTP_X_USER"))
                tus.handle()
                return adapter.resp(environ, start_response)

            return view

    subject = Owned()
    url = subject.url(4, ANN)
    assert subject.head(url, BOB).status == 404
    assert subject.head(url).status == 404
    assert subject.head(url, ANN).status == 200


def returning(value, is_async=False):
    """An ``authorize`` that returns a value, whatever is asked."""

    async def later(request, intent, upload):
        return value

    return later if is_async else lambda request, intent, upload: value


@pytest.mark.parametrize(("user", "principal"), [(7, "7"), (0, "0"), (-1, "-1"), (Intent.HEAD, "head"), ("0", "0")])
@pytest.mark.parametrize("kind", SUBJECTS)
def test_users_may_be_numbers(tmp_path, kind, user, principal):
    subject = kind(tmp_file_dir=str(tmp_path), authorize=returning(user))
    url = subject.url(1)
    assert subject.patch(url, 0, b"a").status == 204
    assert subject.landed[0][0].principal == principal


ORIGIN = {"Origin": "https://a.example"}
#: A creation in both protocols, and what shows that a reply is of the protocol.
CREATIONS = {
    "tus": (TUS | {"Upload-Length": "0"}, ("Tus-Resumable", "1.0.0")),
    "ietf": ({"Upload-Complete": "?1"}, ("Upload-Complete", "?0")),
}
#: Nobody has meant these as the name of a user. ``True`` is what most people return to allow.
NO_PRINCIPALS = [True, "", b"ann", 1.0, [], (), {}, object(), Forbidden("raised by nobody"), lambda: "ann"]


def refused(subject, status, protocol="tus"):
    """Create an upload, which must be refused by a reply that the client's page can read, and leave nothing."""
    headers, mark = CREATIONS[protocol]
    reply = call(subject.app, "POST", PATH, headers | ORIGIN)
    assert reply.status == status
    assert (mark[0], reply[mark[0]]) == mark
    assert reply["Access-Control-Allow-Origin"] == "https://a.example"
    assert reply.get("Location") is None
    assert subject.landed == []
    assert list(subject.stored().list()) == []
    return reply


def kinds(value):
    """The ways to an ``authorize`` that returns a value."""
    return [
        *((kind, {"authorize": returning(value)}) for kind in SUBJECTS),
        *((kind, {"authorize": returning(value, is_async=True)}) for kind in ASYNC_SUBJECTS),
        (ViewSubject, {"principal": value}),
    ]


@pytest.mark.parametrize("protocol", CREATIONS)
@pytest.mark.parametrize("value", NO_PRINCIPALS, ids=lambda value: type(value).__name__)
def test_what_is_no_principal_is_an_error_of_the_site_and_allows_nothing(tmp_path, value, protocol, caplog):
    for number, (kind, options) in enumerate(kinds(value)):
        caplog.clear()
        subject = kind(tmp_file_dir=str(tmp_path / str(number)), cors_allow_origin="https://a.example", **options)
        reply = refused(subject, 500, protocol)
        assert b"Traceback" not in reply.body
        assert str(tmp_path).encode() not in reply.body
        (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert "a principal must be None, a text that is not empty, or an int" in line
        assert next(iter(options)) in line


@pytest.mark.parametrize("protocol", CREATIONS)
def test_false_refuses(tmp_path, protocol, caplog):
    for number, (kind, options) in enumerate(kinds(False)):
        subject = kind(tmp_file_dir=str(tmp_path / str(number)), cors_allow_origin="https://a.example", **options)
        refused(subject, 403, protocol)
    assert caplog.records == []


@pytest.mark.parametrize(("value", "status"), [(False, 403), (True, 500)])
def test_no_request_is_allowed_by_what_is_no_principal(tmp_path, value, status):
    """Neither for an upload that has an owner, nor for one that has none."""
    said = ["ann"]
    subject = FilterSubject(tmp_file_dir=str(tmp_path), authorize=lambda request, intent, upload: said[0])
    parts = [subject.url(1, PARTIAL, b"x")]
    urls = [subject.url(4)]
    said[0] = None
    urls.append(subject.url(4))
    before = {upload.id: upload for upload in subject.stored().list()}
    said[0] = value
    for url in urls:
        assert subject.patch(url, 0, b"abcd").status == status
        assert subject.head(url).status == status
        assert subject.send("DELETE", url).status == status
    assert subject.send("POST", PATH, {"Upload-Concat": "final;" + parts[0]}).status == status
    assert {upload.id: upload for upload in subject.stored().list()} == before
    assert subject.landed == []


def test_nor_by_a_coroutine_that_is_not_awaited(tmp_path, caplog):
    """``authorize`` is async, but does not look so."""
    subject = FilterSubject(tmp_file_dir=str(tmp_path), authorize=lambda *asked: returning("ann", True)(*asked))
    assert subject.create(4).status == 500
    assert "only an async def under ASGI is awaited" in caplog.text


class NamesBoth(Subject):
    """A view that knows its user, over a service that has an ``authorize`` of its own."""

    def make(self):
        service = Service(**self.options)

        def view(environ, start_response):
            adapter = WebobAdapter(Request(environ))
            with Tus(adapter, service=service, principal=environ.get("HTTP_X_VIEWER")) as tus:
                tus.handle()
            return adapter.resp(environ, start_response)

        return view


def test_a_gate_that_names_nobody_keeps_the_principal_of_the_view(tmp_path, gate):
    subject = NamesBoth(tmp_file_dir=str(tmp_path), authorize=gate)
    url = subject.url(4, {"X-Viewer": "ann"})
    assert subject.record(url).principal == "ann"
    for named, status in (({}, 404), (ANN, 200), ({"X-Viewer": "ann"}, 200), ({"X-Viewer": "bob"}, 404)):
        assert subject.head(url, named).status == status


def test_two_principals_of_one_request_must_be_the_same(tmp_path, gate, caplog):
    subject = NamesBoth(tmp_file_dir=str(tmp_path), authorize=gate, cors_allow_origin="https://a.example")
    reply = subject.create(4, ANN | ORIGIN | {"X-Viewer": "bob"})
    assert (reply.status, reply["Tus-Resumable"]) == (403, "1.0.0")
    assert reply["Access-Control-Allow-Origin"] == "https://a.example"
    assert list(subject.stored().list()) == []
    assert "different principals" in caplog.text
    url = subject.url(4, ANN | {"X-Viewer": "ann"})
    for reply in (
        subject.head(url, BOB | {"X-Viewer": "ann"}),
        subject.patch(url, 0, b"abcd", ANN | {"X-Viewer": "bob"}),
    ):
        assert reply.status == 403
    assert subject.record(url).offset == 0


@pytest.mark.parametrize("kind", SUBJECTS)
def test_a_key_is_that_of_the_principal(tmp_path, gate, kind):
    """A request that names two principals, or none that is one, finds the upload of neither."""
    subject = kind(tmp_file_dir=str(tmp_path), authorize=gate)
    key = {"Idempotency-Key": "7a0b5c1e-secret-of-ann"}
    url = subject.url(4, ANN | key)
    assert subject.url(4, ANN | key) == url
    assert subject.url(4, BOB | key) != url
    assert subject.url(4, key) != url
    assert subject.create(4, {"X-User": ""} | key).status == 500


def test_hooks_are_not_asked_about_a_request_without_permission(tmp_path, gate):
    asked = []

    class Hooks:
        def pre_create(self, event):
            asked.append(event.upload.principal)

    subject = FilterSubject(tmp_file_dir=str(tmp_path), authorize=gate, hooks=Hooks())
    assert subject.create(4, {"X-User": ""}).status == 500
    assert asked == []
    assert subject.create(4, ANN).status == 201
    assert asked == ["ann"]


def test_after_an_error_of_the_gate_nothing_is_allowed(tmp_path, caplog):
    def broken(request, intent, upload):
        raise OSError("the user database is away")

    subject = FilterSubject(tmp_file_dir=str(tmp_path), authorize=broken)
    reply = subject.create(4)
    assert (reply.status, reply.get("Location")) == (500, None)
    assert b"database" not in reply.body
    assert "the user database is away" in caplog.text
    assert not list(tmp_path.glob("*.tus"))


def test_the_gate_sees_the_frameworks_request(tmp_path):
    seen = []

    def gate(request, intent, upload):
        seen.append((request.native["REMOTE_USER"], request.peer, request.method))

    subject = FilterSubject(tmp_file_dir=str(tmp_path), authorize=gate)
    subject.create(4, environ={"REMOTE_USER": "ann", "REMOTE_ADDR": "192.0.2.7"})
    assert seen == [("ann", "192.0.2.7", "POST")]


# -- ask_app --


class Asked(Subject):
    """An application that knows its users by a cookie, behind a filter that asks it first."""

    def make(self):
        self.questions = []
        self.answer = "204 No Content"
        self.principal = None

        def application(environ, start_response):
            if "tus.upload" in environ:
                self.land(environ["tus.upload"], environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
                start_response("204 No Content", [])
                return []
            assert environ["REQUEST_METHOD"] == "POST"
            assert environ["wsgi.input"].read() == b""
            self.questions.append((environ["tus.intent"], environ["tus.about"], environ))
            headers = [("Content-Type", "text/html"), ("X-Why", "because")]
            if self.principal is not None:
                headers.append(("Tus-Principal", self.principal))
            start_response(self.answer, headers if self.answer[:3] != "204" else headers[1:])
            return [] if self.answer[:3] == "204" else [b"<p>the application's words</p>"]

        return Filter(application, **{"upload_path": PATH, "send_file": True} | self.options)


def asked(tmp_path, intents):
    return Asked(tmp_file_dir=str(tmp_path), ask_app=intents)


def test_the_application_is_asked_by_a_request_without_a_body(tmp_path):
    subject = asked(tmp_path, "create")
    headers = {"Cookie": "session=1", "Upload-Metadata": "filename eA==", "Authorization": "Bearer t"}
    reply = subject.create(4, headers, b"abcd", environ={"QUERY_STRING": "job=7"})
    assert reply.status == 201
    assert reply.get("X-Why") is None
    ((intent, about, environ),) = subject.questions
    assert intent == "create"
    assert type(intent) is str
    assert (about.id, about.length, about.filename) == ("", 4, "x")
    assert environ["SCRIPT_NAME"] + environ["PATH_INFO"] == PATH
    assert environ["QUERY_STRING"] == "job=7"
    assert (environ["HTTP_COOKIE"], environ["HTTP_AUTHORIZATION"]) == ("session=1", "Bearer t")
    assert environ["HTTP_UPLOAD_METADATA"] == "filename eA=="
    assert environ["CONTENT_LENGTH"] == "0"
    assert "CONTENT_TYPE" not in environ
    assert [data for _, data in subject.landed] == [b"abcd"]


def test_any_answer_but_2xx_is_the_clients(tmp_path):
    subject = asked(tmp_path, ["create"])
    for answer in ("302 Found", "401 Unauthorized", "403 Forbidden", "500 Oh"):
        subject.answer = answer
        reply = subject.create(4, {}, b"abcd")
        assert f"{reply.status} {reply.reason}" == answer
        assert (reply["X-Why"], reply.body) == ("because", b"<p>the application's words</p>")
        assert reply["Tus-Resumable"] == "1.0.0"
    assert subject.landed == []
    assert list(tmp_path.glob("*")) == []


def test_only_the_intents_that_are_named_are_asked(tmp_path):
    subject = asked(tmp_path, "append, head terminate")
    url = subject.url(4)
    assert subject.questions == []
    subject.patch(url, 0, b"ab")
    subject.head(url)
    subject.send("DELETE", url)
    assert [intent for intent, _, _ in subject.questions] == ["append", "head", "terminate"]
    assert {about.id for _, about, _ in subject.questions} == {url.rpartition("/")[2]}


def test_a_refused_head_has_no_body(tmp_path):
    subject = asked(tmp_path, "head")
    url = subject.url(4)
    subject.answer = "403 Forbidden"
    reply = call(subject.app, "HEAD", url, TUS, validate=False)
    assert (reply.status, reply.body) == (403, b"")


def test_the_application_names_the_principal(tmp_path):
    subject = asked(tmp_path, "create append head")
    subject.principal = "ann"
    reply = subject.create(4)
    assert reply.get("Tus-Principal") is None
    url = reply["Location"]
    assert subject.patch(url, 0, b"ab").status == 204
    subject.principal = "bob"
    assert subject.patch(url, 2, b"cd").status == 404
    subject.principal = None
    assert subject.head(url).status == 404


@pytest.mark.parametrize("intents", ["create", "all", "create append head terminate"])
def test_where_an_answer_has_named_a_principal_the_application_is_asked_for_all_intents(tmp_path, intents):
    subject = asked(tmp_path, intents)
    subject.principal = "ann"
    url = subject.create(4)["Location"]
    assert subject.head(url).status == 200
    assert subject.patch(url, 0, b"ab").status == 204
    subject.principal = "bob"
    for reply in (subject.head(url), subject.patch(url, 2, b"cd"), subject.send("DELETE", url)):
        assert reply.status == 404
    subject.principal = "ann"
    assert subject.patch(url, 2, b"cd").status == 204
    assert [data for _, data in subject.landed] == [b"abcd"]


def test_beside_a_gate_that_names_nobody_the_application_identifies_the_principal(tmp_path):
    subject = Asked(tmp_file_dir=str(tmp_path), ask_app="create", authorize=lambda request, intent, upload: None)
    subject.principal = "ann"
    url = subject.create(4)["Location"]
    assert subject.patch(url, 0, b"ab").status == 204
    subject.principal = None
    assert subject.patch(url, 2, b"cd").status == 404


@pytest.mark.parametrize("intents", ["create", "all", "create head terminate"])
def test_a_gate_keeps_the_principal_that_the_application_does_not_name(tmp_path, gate, intents):
    subject = Asked(tmp_file_dir=str(tmp_path), ask_app=intents, authorize=gate)
    url = subject.create(4, ANN)["Location"]
    assert subject.record(url).principal == "ann"
    for stranger in (BOB, {}):
        assert subject.head(url, stranger).status == 404
        assert subject.send("DELETE", url, stranger).status == 404
    assert subject.patch(url, 0, b"abcd", ANN).status == 204


def test_a_gate_and_the_application_must_name_the_same_principal(tmp_path, gate, caplog):
    subject = Asked(tmp_file_dir=str(tmp_path), ask_app="all", authorize=gate)
    subject.principal = "ann"
    assert subject.create(4, BOB).status == 403
    assert list(subject.stored().list()) == []
    assert "different principals" in caplog.text
    url = subject.create(4, ANN)["Location"]
    assert subject.patch(url, 0, b"ab", BOB).status == 403
    assert subject.record(url).offset == 0
    assert subject.patch(url, 0, b"abcd", ANN).status == 204


def test_an_application_that_names_two_principals_is_not_believed(tmp_path):
    class Doubtful(Asked):
        names = ("ann", "bob")

        def make(self):
            def application(environ, start_response):
                start_response("200 OK", [("Content-Type", "text/plain"), *(("Tus-Principal", n) for n in self.names)])
                return [b"yes"]

            return Filter(application, **{"upload_path": PATH} | self.options)

    subject = Doubtful(tmp_file_dir=str(tmp_path), ask_app="all")
    assert subject.create(4).status == 403
    Doubtful.names = ("ann", "ann")
    assert subject.record(subject.create(4)["Location"]).principal == "ann"


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_of_a_principal_is_an_error_of_the_site(tmp_path, name, caplog):
    subject = asked(tmp_path, "create")
    subject.principal = name
    reply = subject.create(4)
    assert (reply.status, reply["Tus-Resumable"]) == (500, "1.0.0")
    assert list(subject.stored().list()) == []
    assert "the application has named no principal" in caplog.text


def test_the_name_in_a_refusal_is_not_for_the_client(tmp_path):
    subject = asked(tmp_path, "create")
    subject.principal, subject.answer = "ann", "403 Forbidden"
    reply = subject.create(4)
    assert (reply.status, reply.get("Tus-Principal")) == (403, None)


def test_all_asks_for_every_intent():
    assert Options.build(tmp_file_dir="x", upload_path="/f", ask_app="all").ask_app == frozenset(Intent)
    with pytest.raises(OptionError, match="or all"):
        Options.build(tmp_file_dir="x", upload_path="/f", ask_app="all create")


def test_the_question_reaches_the_upload_path_below_a_mount(tmp_path):
    subject = Asked(tmp_file_dir=str(tmp_path), ask_app="append", upload_path="/mnt/ü")
    url = subject.send("POST", "/mnt/%C3%BC/", {"Upload-Length": "4"}, environ={"SCRIPT_NAME": "/mnt"})["Location"]
    subject.patch(url, 0, b"ab", environ={"SCRIPT_NAME": "/mnt"})
    ((_, _, environ),) = subject.questions
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/mnt", "/ü".encode().decode("latin-1"))


def test_a_view_has_nobody_to_ask(tmp_path):
    with pytest.raises(OptionError, match="ask_app"):
        Tus(None, tmp_file_dir=str(tmp_path), ask_app="create")


def test_the_gate_can_be_named_in_an_ini_file(tmp_path):
    options = Options.build(tmp_file_dir=str(tmp_path), authorize="tests.unit.test_authorize:Gate")
    assert options.authorize is Gate
    with pytest.raises(OptionError, match="no_such_module"):
        Options.build(tmp_file_dir=str(tmp_path), authorize="no_such_module:gate")


@pytest.mark.parametrize("method", ["HEAD", "GET", "PATCH", "DELETE"])
def test_a_404_by_which_the_application_refuses_is_not_stored(tmp_path, method):
    """The user may log in later, and the client of a stored 404 would start again."""
    allowed = True

    def application(environ, start_response):
        status = "204 No Content" if allowed else "404 Not Found"
        start_response(status, [("Content-Type", "text/plain"), ("Cache-Control", "public, max-age=60")][allowed:])
        return [b""]

    options = {"upload_path": PATH, "tmp_file_dir": str(tmp_path), "ask_app": "head append terminate"}
    app = Filter(application, **options)
    url = call(app, "POST", PATH, TUS | {"Upload-Length": "4"})["Location"]
    allowed = False
    reply = call(app, method, url, TUS | OCTETS | {"Upload-Offset": "0"})
    assert (reply.status, reply["Cache-Control"]) == (404, "no-store")
