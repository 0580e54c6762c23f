"""The finished file reaches real applications, and what they answer reaches the client; in one process, no server."""

import base64
import hashlib
import os
import random
import tracemalloc
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit
from wsgiref.validate import validator

import pytest
from django.http import HttpResponse, StreamingHttpResponse
from flask import Flask
from flask import request as flask_request
from pyramid.config import Configurator
from pyramid.response import Response as PyramidResponse
from webob import Request as WebobRequest

from tests.support.django_site import django_application
from tests.support.wsgi import OCTETS, TUS, call
from tus import Filter, Tus, Upload, WebobAdapter
from tus.models import Request as RequestHead
from tus.models import State

URL = "/files"
CONTENT = random.Random(3).randbytes(100_000)
NAME = "naïve file.bin"
METADATA = {"Upload-Metadata": f"filename {base64.b64encode(NAME.encode()).decode()},is_confidential"}
APP_HEADERS = [
    ("Content-Type", "application/json"),
    ("X-App", "was here"),
    ("Location", "http://localhost/documents/1"),
]


@dataclass
class Seen:
    """What an application found in the request that completed an upload."""

    upload: Upload
    method: str
    size: int
    digest: str
    start: bytes
    environ: dict = field(repr=False)


class Applications:
    """Each framework's own application, that reads the body by the framework's own means, block by block."""

    def __init__(self):
        self.seen = []
        self.status = 200

    def take(self, environ, method, read):
        upload = environ.get("tus.upload")
        if upload is None:
            return b"home"
        hasher, size, start = hashlib.sha256(), 0, b""
        while block := read(65536):
            start = start or bytes(block[:1000])
            size += len(block)
            hasher.update(block)
        self.seen.append(Seen(upload, method, size, hasher.hexdigest(), start, dict(environ)))
        return b'{"id": 1}'

    def flask(self):
        app = Flask(__name__)

        @app.route("/", defaults={"path": ""}, methods=["GET", "POST", "PATCH", "PUT"])
        @app.route("/<path:path>", methods=["GET", "POST", "PATCH", "PUT"])
        def view(path):
            text = self.take(flask_request.environ, flask_request.method, flask_request.stream.read)
            return text, self.status, APP_HEADERS

        return app

    def django(self):
        def view(request):
            response = HttpResponse(self.take(request.environ, request.method, request.read), status=self.status)
            for name, value in APP_HEADERS:
                response[name] = value
            return response

        return django_application(view)

    def pyramid(self):
        def view(request):
            text = self.take(request.environ, request.method, request.body_file.read)
            return PyramidResponse(text, status=self.status, headerlist=list(APP_HEADERS))

        return pyramid_application(view)


FRAMEWORKS = ("flask", "django", "pyramid")


def pyramid_application(view):
    with Configurator() as config:
        config.add_route("any", "/*path")
        config.add_view(view, route_name="any")
        return config.make_wsgi_app()


@pytest.fixture
def applications():
    return Applications()


@pytest.fixture(params=FRAMEWORKS)
def framework(request):
    return request.param


@pytest.fixture
def filtered(framework, applications, tmp_path):
    """Make the framework's application and put the filter in front of it; WSGI is checked on both sides."""

    def filtered(**options):
        app = validator(getattr(applications, framework)())
        return Filter(app, tmp_file_dir=tmp_path, upload_path=URL, **options)

    return filtered


def create(app, size, headers=(), body=b"", **how):
    typed = OCTETS if body else {}
    return call(app, "POST", URL, TUS | METADATA | typed | {"Upload-Length": str(size)} | dict(headers), body, **how)


def patch(app, url, offset, body=b"", headers=(), method="PATCH", **how):
    return call(app, method, url, TUS | OCTETS | {"Upload-Offset": str(offset)} | dict(headers), body, **how)


# -- The ways in which an upload becomes complete -----------------------------------------------------------------


def by_patch(app, content):
    url = create(app, len(content))["Location"]
    half = len(content) // 2
    assert patch(app, url, 0, content[:half]).status == 204
    return patch(app, url, half, content[half:])


def by_override(app, content):
    url = create(app, len(content))["Location"]
    return patch(app, url, 0, content, {"X-HTTP-Method-Override": "PATCH"}, method="POST")


def by_chunks(app, content):
    url = create(app, len(content))["Location"]
    half = len(content) // 2
    assert patch(app, url, 0, content[:half]).status == 204
    return patch(app, url, half, content[half:], chunked=True)


def by_creation(app, content):
    return create(app, len(content), body=content)


def by_chunked_creation(app, content):
    return create(app, len(content), OCTETS, body=content, chunked=True)


WAYS = {
    "patch": (by_patch, "PATCH", 204),
    "override": (by_override, "PATCH", 204),
    "chunks": (by_chunks, "PATCH", 204),
    "creation": (by_creation, "POST", 201),
    "chunked creation": (by_chunked_creation, "POST", 201),
}


@pytest.mark.parametrize("send_file", [True, False], ids=["file", "path"])
@pytest.mark.parametrize("way", WAYS)
def test_the_file_reaches_the_application(way, send_file, filtered, applications, tmp_path):
    complete, method, status = WAYS[way]
    app = filtered(send_file=send_file)
    reply = complete(app, CONTENT)
    assert reply.status == status
    (seen,) = applications.seen
    assert seen.method == method
    assert seen.upload.filename == NAME
    assert seen.upload.text_metadata == {"filename": NAME, "is_confidential": ""}
    assert (seen.upload.length, seen.upload.offset, seen.upload.state) == (100_000, 100_000, State.HANDING_OVER)
    if send_file:
        assert (seen.size, seen.digest) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    else:
        assert seen.start == os.fsencode(tmp_path / seen.upload.id)
    assert_answered(reply, status)
    assert_environ_is_as_of_a_plain_request(seen, str(seen.size))


@pytest.mark.parametrize("send_file", [True, False], ids=["file", "path"])
def test_an_empty_file_reaches_the_application(send_file, filtered, applications, tmp_path):
    reply = create(filtered(send_file=send_file), 0)
    assert_answered(reply, 201)
    (seen,) = applications.seen
    assert seen.method == "POST"
    assert seen.upload.length == 0
    assert seen.start == (b"" if send_file else os.fsencode(tmp_path / seen.upload.id))
    assert_environ_is_as_of_a_plain_request(seen, "0" if send_file else str(seen.size))


def assert_environ_is_as_of_a_plain_request(seen, length):
    environ = seen.environ
    assert environ["CONTENT_LENGTH"] == length
    assert environ["CONTENT_TYPE"] == "application/offset+octet-stream"
    assert environ["HTTP_UPLOAD_METADATA"] == METADATA["Upload-Metadata"]
    assert environ["PATH_INFO"] == (URL if seen.method == "POST" else f"{URL}/{seen.upload.id}")
    for gone in ("HTTP_TRANSFER_ENCODING", "HTTP_X_HTTP_METHOD_OVERRIDE"):
        assert gone not in environ


def assert_answered(reply, status):
    """The application's 2xx became the protocol's, with the application's headers but without its body."""
    assert reply.status == status
    assert reply.body == b""
    assert reply["Tus-Resumable"] == "1.0.0"
    assert reply["X-App"] == "was here"
    if status == 204:
        assert reply["Location"] == "http://localhost/documents/1"
        assert reply.get("Content-Type") is None
        assert reply.get("Content-Length") is None
    else:
        assert reply["Location"].startswith("http://localhost/files/")
        assert reply["Content-Length"] == "0"
        assert reply["Content-Type"] != "application/json"


@pytest.mark.parametrize("way", WAYS)
def test_a_large_file_is_a_stream(way, filtered, applications):
    """Nobody holds it in memory; Django would refuse to, and its own limit does not get in the way."""
    content = random.Random(5).randbytes(5_000_000)
    assert len(content) > 2_621_440, "Django's limit for what is read into memory"
    app = filtered(send_file=True)
    create(app, 1, body=b"x")  # what is loaded on first use is no part of it
    applications.seen.clear()
    tracemalloc.start()
    try:
        reply = WAYS[way][0](app, content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reply.status == WAYS[way][2]
    (seen,) = applications.seen
    assert (seen.size, seen.digest) == (len(content), hashlib.sha256(content).hexdigest())
    sent_from_memory = len(content) // 2 + 1000 if way in ("patch", "chunks") else 0  # slices that the test makes
    assert peak - 2 * sent_from_memory < 4_000_000


@pytest.mark.parametrize("status", [302, 404, 409, 500, 503])
def test_any_other_answer_is_the_clients(status, framework, filtered, applications, tmp_path):
    app = filtered(send_file=True)
    url = create(app, len(CONTENT))["Location"]
    applications.status = status
    for reply in (patch(app, url, 0, CONTENT), patch(app, url, len(CONTENT)), patch(app, url, len(CONTENT))):
        assert (reply.status, reply.body) == (status, b'{"id": 1}')
        assert reply["Content-Type"] == "application/json"
        assert reply["X-App"] == "was here"
        assert reply["Location"] == "http://localhost/documents/1"
        assert reply["Tus-Resumable"] == "1.0.0"
        assert reply.get("Upload-Offset") is None
    assert [seen.size for seen in applications.seen] == [len(CONTENT)] * 3, "the whole file each time"
    assert (tmp_path / url.rpartition("/")[2]).read_bytes() == CONTENT
    applications.status = 201
    assert_answered(patch(app, url, len(CONTENT)), 204)
    assert len({seen.upload.id for seen in applications.seen}) == 1
    assert patch(app, url, len(CONTENT)).status == 204, "a last reply that was lost is told again"
    assert len(applications.seen) == 4
    assert not (tmp_path / url.rpartition("/")[2]).exists()


@pytest.mark.parametrize("status", [403, 422])
def test_a_rejection_is_the_clients_for_good(status, framework, filtered, applications, tmp_path):
    app = filtered(send_file=True, reject_statuses="403 422")
    url = create(app, len(CONTENT))["Location"]
    applications.status = status
    first = patch(app, url, 0, CONTENT)
    applications.status = 201
    for reply in (first, patch(app, url, len(CONTENT)), patch(app, url, len(CONTENT) - 1, CONTENT[-1:])):
        assert (reply.status, reply.body) == (status, b'{"id": 1}')
        assert reply["Content-Type"] == "application/json"
        assert reply["X-App"] == "was here"
        assert reply["Tus-Resumable"] == "1.0.0"
        assert reply.get("Upload-Offset") is None
    assert [seen.size for seen in applications.seen] == [len(CONTENT)], "nobody is asked again"
    assert (tmp_path / url.rpartition("/")[2]).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [307, 413, 500])
def test_any_other_answer_to_a_creation_is_the_clients(status, filtered, applications):
    app = filtered(send_file=True)
    applications.status = status
    reply = create(app, 0)
    assert (reply.status, reply.body) == (status, b'{"id": 1}')
    # Some clients take any reply to a POST that has a Location for success.
    assert reply.get("Location") == ("http://localhost/documents/1" if status < 400 else None)
    reply = create(app, 5, body=b"hello")
    assert (reply.status, reply["Upload-Offset"]) == (201, "4")
    assert reply["Location"].startswith("http://localhost/files/")
    assert patch(app, reply["Location"], 4, b"o").status == status
    applications.status = 200
    assert_answered(patch(app, reply["Location"], 4, b"o"), 204)


def test_what_is_elsewhere_is_the_applications_own(filtered, applications):
    app = filtered(send_file=True)
    reply = call(app, "GET", "/", {})
    assert (reply.status, reply.body, reply["X-App"]) == (200, b"home", "was here")
    assert call(app, "PUT", "/files-public", {"Content-Type": "text/plain"}, b"data").body == b"home"
    assert applications.seen == []


def test_flask_limits_what_it_takes_and_the_file_is_kept(applications, tmp_path):
    flask = applications.flask()
    flask.config["MAX_CONTENT_LENGTH"] = 100
    app = Filter(flask, tmp_file_dir=tmp_path, upload_path=URL, send_file=True, threads=False)
    assert create(app, 99, body=b"x" * 99).status == 201
    reply = create(app, 101, body=b"x" * 101)
    assert (reply.status, reply["Upload-Offset"]) == (201, "100")
    assert patch(app, reply["Location"], 101).status == 413
    assert [path.stat().st_size for path in tmp_path.iterdir() if not path.suffix] == [101]


def test_django_streams_its_answer(tmp_path):
    """A response that is produced only as the client reads it, from the file."""
    application = django_application(
        lambda request: StreamingHttpResponse(iter(lambda: request.read(1000), b""), status=422)
    )
    app = Filter(application, tmp_file_dir=tmp_path, upload_path=URL, send_file=True, reject_statuses="422")
    reply = create(app, len(CONTENT), body=CONTENT)
    assert (reply.status, reply.body) == (422, CONTENT)


def test_cookies_stay_one_by_one(tmp_path):
    flask = Flask(__name__)

    @flask.route("/<path:path>", methods=["PATCH", "POST"])
    def view(path):
        return "", [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Server-Timing", "x")]

    app = Filter(flask, tmp_file_dir=tmp_path, upload_path=URL)
    headers = TUS | {"Upload-Length": "0", "Host": "localhost"}
    request = WebobRequest.blank(URL, method="POST", headers=headers)
    reply = request.get_response(app)
    assert reply.status_code == 201
    assert reply.headers.getall("Set-Cookie") == ["a=1", "b=2"]
    assert reply.headers.getall("Location") == [f"http://localhost/files/{reply.location.rpartition('/')[2]}"]


# -- Applications of every shape ----------------------------------------------------------------------------------


class Answer:
    """An iterable response that counts its closings, and may raise somewhere."""

    def __init__(self, blocks, raises_at=None, raises_in_close=False):
        self.blocks = iter(blocks)
        self.given = 0
        self.raises_at = raises_at
        self.raises_in_close = raises_in_close
        self.closed = 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.given == self.raises_at:
            raise AppError
        self.given += 1
        return next(self.blocks)

    def close(self):
        self.closed += 1
        if self.raises_in_close:
            raise AppError


class AppError(Exception):
    pass


BODY = [b"first ", b"", b"second ", b"third"]
LONG = [bytes([number]) * 10_000 for number in range(20)]
TYPE = [("Content-Type", "text/plain"), ("X-App", "was here")]


class Shape:
    """An application of a certain shape; each keeps the body's file and the iterables that it has returned."""

    def __init__(self, kind, status="200 OK"):
        self.kind = kind
        self.status = status
        self.files = []
        self.answers = []
        self.inner = validator(self.answer)

    def __call__(self, environ, start_response):
        self.files.append(environ["wsgi.input"])
        return self.inner(environ, start_response)

    def answer(self, environ, start_response):
        answer = getattr(self, self.kind)(environ, start_response)
        self.answers.append(answer)
        return answer

    def list(self, environ, start_response):
        start_response(self.status, list(TYPE))
        return BODY

    def iterable(self, environ, start_response):
        start_response(self.status, list(TYPE))
        return Answer(BODY)

    def long(self, environ, start_response):
        start_response(self.status, list(TYPE))
        return Answer(LONG)

    def empty(self, environ, start_response):
        start_response(self.status, list(TYPE))
        return Answer([])

    def write(self, environ, start_response):
        write = start_response(self.status, list(TYPE))
        write(BODY[0])
        write(BODY[2])
        return Answer([BODY[3]])

    def write_alone(self, environ, start_response):
        write = start_response(self.status, list(TYPE))
        for block in BODY:
            write(block)
        return Answer([])

    def late(self, environ, start_response):
        def blocks():
            start_response(self.status, list(TYPE))
            yield from BODY

        return Answer(blocks())

    def late_and_empty(self, environ, start_response):
        def blocks():
            start_response(self.status, list(TYPE))
            yield from ()

        return Answer(blocks())

    def late_write(self, environ, start_response):
        def blocks():
            write = start_response(self.status, list(TYPE))
            write(BODY[0])
            yield BODY[2]
            yield BODY[3]

        return Answer(blocks())

    def replaced(self, environ, start_response):
        """It has begun with a success, and then, before a byte was sent, thought better of it."""
        start_response("200 OK", [("Content-Type", "text/html")])
        try:
            raise AppError
        except AppError as error:
            start_response(self.status, list(TYPE), (AppError, error, error.__traceback__))
        return Answer(BODY)


SHAPES = {
    "list": b"first second third",
    "iterable": b"first second third",
    "empty": b"",
    "write": b"first second third",
    "write_alone": b"first second third",
    "late": b"first second third",
    "late_and_empty": b"",
    "late_write": b"first second third",
    "replaced": b"first second third",
}


def around(app, tmp_path, **options):
    return Filter(app, tmp_file_dir=tmp_path, upload_path=URL, send_file=True, **options)


def assert_let_go(shape):
    """Each iterable was closed exactly once, and so was each file."""
    answers = [answer for answer in shape.answers if isinstance(answer, Answer)]
    assert [answer.closed for answer in answers] == [1] * len(answers)
    assert shape.files
    assert all(file.closed for file in shape.files)


@pytest.mark.parametrize("kind", SHAPES)
def test_shapes_that_accept(kind, tmp_path):
    shape = Shape(kind)
    app = around(shape, tmp_path)
    url = create(app, 5)["Location"]
    reply = patch(app, url, 0, b"hello")
    assert (reply.status, reply.body, reply["X-App"]) == (204, b"", "was here")
    assert reply.get("Content-Type") is None
    assert len(shape.answers) == 1
    assert_let_go(shape)
    assert not (tmp_path / url.rpartition("/")[2]).exists()
    assert create(app, 0)["X-App"] == "was here"
    assert_let_go(shape)


@pytest.mark.parametrize("kind", SHAPES)
def test_shapes_that_refuse(kind, tmp_path):
    shape = Shape(kind, "418 I'm a teapot")
    app = around(shape, tmp_path)
    url = create(app, 5)["Location"]
    reply = patch(app, url, 0, b"hello")
    assert (reply.status, reply.reason, reply.body) == (418, "I'm a teapot", SHAPES[kind])
    assert (reply["X-App"], reply["Content-Type"]) == ("was here", "text/plain")
    assert_let_go(shape)
    shape.status = "200 OK"
    assert patch(app, url, 5).status == 204
    assert len(shape.answers) == 2
    assert_let_go(shape)


def test_a_long_refusal_is_not_read_before_the_client_reads_it(tmp_path):
    """What is longer than may have to be kept passes block by block, and the file is open for as long."""
    shape = Shape("long", "500 Internal Server Error")
    shape.inner = shape.answer  # the validator would be where the blocks are counted
    app = around(shape, tmp_path)
    url = create(app, 5)["Location"]
    headers = TUS | OCTETS | {"Upload-Offset": "0"}
    request = WebobRequest.blank(url, method="PATCH", headers=headers, body=b"hello")
    started = []
    blocks = app(request.environ, lambda *arguments: started.append(arguments))
    (answer,) = shape.answers
    assert started[0][0] == "500 Internal Server Error"
    iterator = iter(blocks)
    assert next(iterator) == LONG[0]
    assert answer.given < len(LONG)
    assert (answer.closed, shape.files[0].closed) == (0, False)
    blocks.close()  # the client went away
    assert (answer.closed, shape.files[0].closed) == (1, True)


# -- Applications that fail ---------------------------------------------------------------------------------------


class Failing(Shape):
    """Fails while ``failing``, in one of several places; then it accepts."""

    failing = True

    def answer(self, environ, start_response):
        if self.failing:
            return super().answer(environ, start_response)
        start_response("200 OK", list(TYPE))
        return [b""]

    def in_the_call(self, environ, start_response):
        raise AppError

    def after_start(self, environ, start_response):
        start_response(self.status, list(TYPE))
        raise AppError

    def at_the_first_block(self, environ, start_response):
        start_response(self.status, list(TYPE))
        return Answer(BODY, raises_at=0)

    def in_the_middle(self, environ, start_response):
        start_response(self.status, list(TYPE))
        return Answer(BODY, raises_at=2)

    def at_the_end(self, environ, start_response):
        start_response(self.status, list(TYPE))
        return Answer(BODY, raises_at=4)

    def in_close(self, environ, start_response):
        start_response(self.status, list(TYPE))
        return Answer(BODY, raises_in_close=True)

    def before_it_starts(self, environ, start_response):
        def blocks():
            raise AppError
            yield b""

        return Answer(blocks())

    def after_a_late_start(self, environ, start_response):
        def blocks():
            start_response(self.status, list(TYPE))
            yield b"some"
            raise AppError

        return Answer(blocks())


FAILURES = [name for name in vars(Failing) if not name.startswith("_") and name not in ("failing", "answer")]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("status", ["200 OK", "500 Internal Server Error"])
@pytest.mark.parametrize("kind", FAILURES)
def test_a_failure_keeps_the_file(kind, status, tmp_path):
    shape = Failing(kind, status)
    app = around(shape, tmp_path)
    url = create(app, 5)["Location"]
    for offset, body in ((0, b"hello"), (5, b""), (4, b"o")):
        reply = patch(app, url, offset, body)
        assert reply.status == 500
        assert b"AppError" not in reply.body
    assert len(shape.files) == 3
    assert_let_go(shape)
    assert (tmp_path / url.rpartition("/")[2]).read_bytes() == b"hello"
    assert call(app, "HEAD", url, TUS)["Upload-Offset"] == "4"
    shape.failing = False
    assert patch(app, url, 5)["X-App"] == "was here"
    assert len(shape.files) == 4
    assert_let_go(shape)


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failure_at_creation_closes_everything(kind, tmp_path):
    shape = Failing(kind)
    app = around(shape, tmp_path)
    reply = create(app, 5, body=b"hello")
    assert (reply.status, reply["Upload-Offset"]) == (201, "4")
    assert_let_go(shape)
    reply = create(app, 0)
    assert (reply.status, reply.get("Location")) == (500, None)
    assert_let_go(shape)


def test_an_error_after_the_first_block_is_no_acceptance(tmp_path):
    """What every error-catching middleware does: nothing has been sent, so the response begins again."""
    failing = [True]
    files, closed = [], []

    @validator
    def application(environ, start_response):
        try:
            start_response("200 OK", list(TYPE))
            yield b"some"
            if failing:
                raise AppError
        except AppError as error:
            start_response(
                "500 Internal Server Error",
                [("Content-Type", "text/html"), ("X-Error", "1")],
                (AppError, error, error.__traceback__),
            )
            yield b"sorry"
        finally:
            closed.append(True)

    def outer(environ, start_response):
        files.append(environ["wsgi.input"])
        return application(environ, start_response)

    app = around(outer, tmp_path)
    url = create(app, 5)["Location"]
    reply = patch(app, url, 0, b"hello")
    assert (reply.status, reply.get("X-Error"), reply.get("X-App")) == (500, "1", None)
    assert reply.body.endswith(b"sorry")
    assert (tmp_path / url.rpartition("/")[2]).read_bytes() == b"hello"
    failing.clear()
    assert patch(app, url, 5).status == 204
    assert len(closed) == 2
    assert all(file.closed for file in files)


def test_an_error_in_the_middle_of_a_refusal_takes_its_place(tmp_path):
    """Nothing of an answer is sent before it is whole, so that start_response can take it back."""

    def application(environ, start_response):
        start_response("404 Not Found", list(TYPE))
        yield b"some"
        yield b"more"
        try:
            raise AppError
        except AppError as error:
            start_response("500 Internal Server Error", list(TYPE), (AppError, error, error.__traceback__))
        yield b"an error"

    app = around(validator(application), tmp_path)
    url = create(app, 5)["Location"]
    reply = patch(app, url, 0, b"hello", validate=False)
    assert (reply.status, reply.body) == (500, b"an error")


def test_an_application_that_never_starts_its_response(tmp_path):
    files = []

    def application(environ, start_response):
        files.append(environ["wsgi.input"])
        return []

    app = around(application, tmp_path)
    url = create(app, 5)["Location"]
    for offset, body in ((0, b"hello"), (5, b"")):
        reply = patch(app, url, offset, body)
        assert (reply.status, reply["Tus-Resumable"]) == (500, "1.0.0")
        assert b"start_response" not in reply.body
    assert len(files) == 2
    assert all(file.closed for file in files)


def test_an_application_that_starts_its_response_twice(tmp_path):
    def application(environ, start_response):
        start_response("200 OK", list(TYPE))
        start_response("200 OK", list(TYPE))
        return []

    app = around(application, tmp_path)
    url = create(app, 5)["Location"]
    for offset, body in ((0, b"hello"), (5, b"")):
        assert patch(app, url, offset, body).status == 500


@pytest.mark.parametrize("refuses", [0, 1])
def test_one_request_may_complete_two_uploads(refuses, tmp_path):
    """A part may be what two final uploads have waited for; what the client hears is the rejection, as it is."""
    answers, files, accepted = [], [], []

    def application(environ, start_response):
        files.append(environ["wsgi.input"])
        accepts = len(answers) != refuses
        answers.append(Answer(BODY))
        start_response(
            "200 OK" if accepts else "422 Unprocessable Content",
            [("Content-Type", "text/plain"), ("Content-Length", "18"), (f"X-{len(answers)}", "1")]
            + ([] if accepts else [("Tus-Outcome", "rejected")]),
        )
        if accepts:
            accepted.append(environ["tus.upload"].filename)
        return answers[-1]

    app = around(application, tmp_path)
    part = create(app, 5, {"Upload-Concat": "partial"})["Location"]
    for name in ("one", "two"):
        metadata = {"Upload-Metadata": f"filename {base64.b64encode(name.encode()).decode()}"}
        assert call(app, "POST", URL, TUS | metadata | {"Upload-Concat": f"final;{part}"}).status == 201
    reply = patch(app, part, 0, b"hello")
    assert (reply.status, reply["Content-Length"], reply[f"X-{refuses + 1}"]) == (422, "18", "1")
    assert reply.body == b"first second third"
    assert patch(app, part, 5).status == 204, "whoever hears of one asks again, and then it was heard"
    assert len(accepted) == 1
    assert [answer.closed for answer in answers] == [1, 1]
    assert all(file.closed for file in files)


# -- A view -------------------------------------------------------------------------------------------------------


class View:
    """A Pyramid view that receives uploads by itself."""

    def __init__(self, directory, **options):
        self.options = {"tmp_file_dir": str(directory)} | options
        self.landed = []
        self.accepts = True
        self.files = []

    def __call__(self, request):
        adapter = WebobAdapter(request)
        tus = Tus(adapter, **self.options)
        if not tus.valid:
            return PyramidResponse(b"form: " + request.POST.get("greeting", "").encode())
        tus.handle()
        if not tus.upload_finished:
            return adapter.resp
        body = request.body_file
        if tus.send_file:
            self.files.append(request.environ["wsgi.input"])
            data = b"".join(iter(lambda: body.read(65536), b""))
        else:
            path = body.read()
            assert os.fsdecode(path) == tus.get_filepath()
            with open(path, "rb") as file:
                data = file.read()
        if not self.accepts:
            return PyramidResponse(b"no", status=422)
        self.landed.append((tus.upload.filename, data))
        tus.cleanup_file()
        return adapter.resp


@pytest.mark.parametrize("send_file", [True, False, "true", "false"])
@pytest.mark.parametrize("way", WAYS)
def test_a_pyramid_view(way, send_file, tmp_path):
    view = View(tmp_path, send_file=send_file, threads=False)
    app = pyramid_application(view)
    complete, _, status = WAYS[way]
    reply = complete(app, CONTENT)
    assert (reply.status, reply.body) == (status, b"")
    assert reply["Upload-Offset"] == str(len(CONTENT))
    assert view.landed == [(NAME, CONTENT)]
    assert [path.suffix for path in tmp_path.iterdir()] == [".tus"]
    assert len(view.files) == (send_file in (True, "true"))


@pytest.mark.parametrize("send_file", [True, False])
def test_a_pyramid_view_takes_an_empty_file(send_file, tmp_path):
    view = View(tmp_path, send_file=send_file)
    assert create(pyramid_application(view), 0).status == 201
    assert view.landed == [(NAME, b"")]


def test_a_pyramid_view_streams_a_large_file(tmp_path):
    content = random.Random(7).randbytes(5_000_000)
    view = View(tmp_path, send_file=True)
    assert by_patch(pyramid_application(view), content).status == 204
    assert view.landed == [(NAME, content)]


def test_a_pyramid_view_closes_the_file_that_it_was_given(tmp_path):
    view = View(tmp_path, send_file=True)
    create(pyramid_application(view), 5, body=b"hello")
    assert [file.closed for file in view.files] == [True], "acknowledged means: the file is not needed any more"


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("send_file", [True, False])
def test_a_pyramid_view_that_refuses_leaks_nothing(send_file, tmp_path):
    """It does not acknowledge; the file is offered again, and not one descriptor is left open."""
    view = View(tmp_path, send_file=send_file)
    view.accepts = False
    app = pyramid_application(view)
    url = create(app, 5)["Location"]
    assert patch(app, url, 0, b"hello").status == 422
    before = len(os.listdir("/dev/fd"))
    for _ in range(20):
        assert patch(app, url, 5).status == 422
    view.files.clear()
    assert len(os.listdir("/dev/fd")) <= before
    view.accepts = True
    assert patch(app, url, 5).status == 204
    assert view.landed == [(NAME, b"hello")]


def test_a_pyramid_view_with_a_form_at_the_same_url(tmp_path):
    app = pyramid_application(View(tmp_path))
    reply = call(app, "POST", URL, {"Content-Type": "application/x-www-form-urlencoded"}, b"greeting=hello")
    assert reply.body == b"form: hello"
    assert call(app, "GET", URL).body == b"form: "


# -- An adapter for another framework -----------------------------------------------------------------------------


class DjangoAdapter:
    """What :class:`tus.adapters.interface.Adapter` asks for, for a Django view."""

    def __init__(self, request):
        self.http_request = request
        self.http_response = None
        self.request = RequestHead(
            method=request.method,
            url=request.build_absolute_uri(quote(request.path)),
            headers=request.headers,
            input_terminated=bool(request.META.get("wsgi.input_terminated")),
        )

    @property
    def stream(self):
        return self.http_request.environ["wsgi.input"]

    def respond(self, response):
        self.http_response = HttpResponse(b"".join(response.body), status=response.status, reason=response.reason)
        del self.http_response["Content-Type"]
        for name, value in response.headers:
            self.http_response[name] = value

    def replace_body(self, file, size, upload):
        self.http_request._stream = file
        self.http_request.META["CONTENT_LENGTH"] = str(size)


@pytest.mark.parametrize("send_file", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_an_adapter_of_forty_lines_is_enough(way, send_file, tmp_path):
    landed = []

    def view(request):
        adapter = DjangoAdapter(request)
        tus = Tus(adapter, tmp_file_dir=str(tmp_path), send_file=send_file)
        tus.handle()
        if tus.upload_finished:
            data = request.read()
            if not send_file:
                assert os.fsdecode(data) == tus.get_filepath()
                with open(data, "rb") as file:
                    data = file.read()
            landed.append((tus.upload.filename, data))
            tus.cleanup_file()
        return adapter.http_response

    app = django_application(view)
    complete, _, status = WAYS[way]
    reply = complete(app, CONTENT)
    assert (reply.status, reply["Upload-Offset"]) == (status, str(len(CONTENT)))
    assert landed == [(NAME, CONTENT)]
    # Refusals and HEAD too, and a cut, through the same few lines.
    url = create(app, 10)["Location"]
    assert urlsplit(url).path.startswith(URL + "/")
    assert patch(app, url, 0, b"12345", length=10)["Upload-Offset"] == "5"
    assert patch(app, url, 3, b"45").status == 409
    assert call(app, "HEAD", url, TUS)["Upload-Offset"] == "5"
    assert call(app, "DELETE", url, TUS).status == 204
    assert call(app, "HEAD", url, TUS).status == 404
    assert len(landed) == 1


def test_the_adapter_is_that_short():
    import inspect

    assert len(inspect.getsource(DjangoAdapter).splitlines()) <= 40
