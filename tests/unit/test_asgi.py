"""What is asynchronous alone: a loop that never waits for the disk, cancelled tasks, and applications of ASGI."""

import asyncio
import functools
import random
import threading
import time

import anyio
import anyio.lowlevel
import pytest

from tests.support.asgi import Exchange, portal, scope_of
from tests.support.subjects import PATH, REJECTS, AsgiSubject, OnLoop, TrioSubject
from tests.support.waiting import GUARD, wait_until
from tests.support.wsgi import OCTETS, TUS, call
from tus import HookReply, Options, Rejected
from tus.adapters.asgi import LONGEST_HELD, AsgiAdapter, full_path
from tus.apps.files import Files
from tus.asgi import TusApp, TusMiddleware
from tus.errors import Forbidden, OptionError
from tus.filesystem.io import write_at
from tus.handover.finished import offer
from tus.models import Response, State
from tus.server.aio import THREADS
from tus.server.body_async import BATCH, LEAST, SHARED, AsyncBody
from tus.server.threads import _AsyncioThreads
from tus.stores import open_store
from tus.stores.directory.claims import DirectoryClaim
from tus.stores.interface import SMALL

DATA = b"hello world"
LENGTH = len(DATA)
BACKENDS = ("asyncio", "trio")


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture
def subject(backend, tmp_path):
    return {"asyncio": AsgiSubject, "trio": TrioSubject}[backend](tmp_file_dir=str(tmp_path))


def record(options, url):
    """How the upload stands, from the disk."""
    return open_store(str(options["tmp_file_dir"]), Options.build_async(**options)).load(url.rpartition("/")[2])


def a_scope(method, url, headers=(), length=0):
    """The scope of a request."""
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": url.removeprefix("http://localhost"),
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "HTTP_HOST": "localhost",
        "wsgi.url_scheme": "http",
        "CONTENT_LENGTH": str(length),
    }
    fields = TUS | (OCTETS if method == "PATCH" else {}) | dict(headers)
    return scope_of(environ | {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in fields.items()}) | {
        "headers": [(name.lower().encode(), value.encode()) for name, value in fields.items()]
        + [(b"host", b"localhost"), (b"content-length", str(length).encode())]
    }


class Slow(Exchange):
    """A client that sends what it has, and then is silent.

    Attributes:
        silent: set once everything that it has to send was taken.
    """

    def __init__(self, scope, body):
        super().__init__(scope, body)
        self.silent = anyio.Event()

    async def receive(self):
        if not self.messages:
            self.silent.set()
            await anyio.sleep_forever()
        return (await super().receive()) | {"more_body": True}


def appending(app, url, offset, body, length):
    """A PATCH whose client becomes silent after the body."""
    return Slow(a_scope("PATCH", url, {"Upload-Offset": str(offset)}, length), body)


# -- A task that is cancelled -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5, 70_000, 3_000_000])
def test_a_cancelled_request_keeps_what_it_has_received(subject, size):
    url = subject.url(size + 10)
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)

    async def run():
        request = appending(subject.app, url, 0, data, size + 10)
        async with anyio.create_task_group() as group:
            group.start_soon(request.run, subject.app)
            await request.silent.wait()
            group.cancel_scope.cancel()

    portal(subject.backend).call(run)
    assert subject.offset(url) == size
    assert subject.patch(url, size, b"0123456789").status == 204
    assert subject.landed[0][1] == data + b"0123456789"


@pytest.mark.parametrize("seconds", [0.0, 0.2])
def test_a_task_that_asyncio_cancels_keeps_it_too(tmp_path, monkeypatch, seconds):
    """No shield of anyio's stops ``Task.cancel()``, and a thread may be writing just then."""
    monkeypatch.setattr("tus.stores.directory.sessions.write_at", slowly(seconds))
    subject = AsgiSubject(tmp_file_dir=str(tmp_path))
    size = 3_000_000
    data = random.Random(1).randbytes(size)
    url = subject.url(size + 10)

    async def run():
        request = appending(subject.app, url, 0, data, size + 10)
        task = asyncio.ensure_future(request.run(subject.app))
        await request.silent.wait()
        await asyncio.sleep(seconds / 4)  # into the next write
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    portal().call(run)
    assert subject.offset(url) == size
    assert subject.patch(url, size, b"0123456789").status == 204
    assert subject.landed[0][1] == data + b"0123456789"


def test_a_task_that_asyncio_cancels_twice_keeps_it_too(tmp_path):
    """As at the end of a server whose time to end gracefully was over; the second comes before anything was kept."""
    subject = AsgiSubject(tmp_file_dir=str(tmp_path))
    data = random.Random(1).randbytes(500_000)
    url = subject.url(len(data) + 10)

    async def run():
        request = appending(subject.app, url, 0, data, len(data) + 10)
        task = asyncio.ensure_future(request.run(subject.app))
        await request.silent.wait()
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)

    portal().call(run)
    wait_until(lambda: record(subject.options, url).offset == len(data), "what was received is lost")
    assert subject.patch(url, len(data), b"0123456789").status == 204
    assert subject.landed[0][1] == data + b"0123456789"


def test_a_cancelled_hand_over_is_done_again(subject):
    url = subject.url(LENGTH)
    asked = None

    async def never_answers(scope, receive, send):
        asked.set()
        await anyio.sleep_forever()

    app = TusMiddleware(never_answers, upload_path=PATH, **subject.options)

    async def run():
        nonlocal asked
        asked = anyio.Event()
        request = Exchange(a_scope("PATCH", url, {"Upload-Offset": "0"}, LENGTH), DATA)
        async with anyio.create_task_group() as group:
            group.start_soon(request.run, app)
            await asked.wait()
            group.cancel_scope.cancel()

    portal(subject.backend).call(run)
    kept = record(subject.options, url)
    assert (kept.state, kept.attempts, kept.error) == (State.COMPLETE, 1, "the request was broken off")
    assert subject.patch(url, LENGTH - 1, DATA[-1:]).status == 204
    assert [data for _, data in subject.landed] == [DATA]


def test_a_file_is_closed_that_was_opened_for_a_cancelled_request(backend, tmp_path, monkeypatch):
    begun, go_on, opened = threading.Event(), threading.Event(), []

    def open_slowly(*arguments):
        begun.set()
        go_on.wait(GUARD)
        opened.append(offer(*arguments))
        return opened[0]

    monkeypatch.setattr("tus.asgi.offer", open_slowly)
    subject = {"asyncio": AsgiSubject, "trio": TrioSubject}[backend](tmp_file_dir=str(tmp_path), send_file=True)
    url = subject.url(LENGTH)

    async def run():
        request = Exchange(a_scope("PATCH", url, {"Upload-Offset": "0"}, LENGTH), DATA)
        async with anyio.create_task_group() as group:
            group.start_soon(request.run, subject.app)
            await anyio.to_thread.run_sync(begun.wait)
            group.cancel_scope.cancel()
            go_on.set()

    portal(subject.backend).call(run)
    assert opened[0].closed
    monkeypatch.undo()
    assert subject.patch(url, LENGTH - 1, DATA[-1:]).status == 204
    assert [data for _, data in subject.landed] == [DATA]


def test_a_request_that_is_cancelled_with_its_last_byte_counts_no_attempt(backend, tmp_path):
    """The application was not asked, so the only attempt is still there."""
    subject = {"asyncio": AsgiSubject, "trio": TrioSubject}[backend](tmp_file_dir=str(tmp_path), handover_attempts=1)
    url = subject.url(LENGTH)

    class Cancelled(Exchange):
        async def receive(self):
            message = await super().receive()
            scope.cancel()
            return message

    async def run():
        nonlocal scope
        scope = anyio.CancelScope()
        with scope:
            await Cancelled(a_scope("PATCH", url, {"Upload-Offset": "0"}, LENGTH), DATA).run(subject.app)
        assert scope.cancelled_caught

    scope = None
    portal(backend).call(run)
    kept = record(subject.options, url)
    assert (kept.state, kept.offset, kept.attempts, kept.is_aside) == (State.COMPLETE, LENGTH, 0, False)
    assert subject.landed == []
    assert subject.patch(url, LENGTH - 1, DATA[-1:]).status == 204
    assert [(upload.attempts, data) for upload, data in subject.landed] == [(1, DATA)]


@pytest.mark.parametrize("hook", ["pre_create", "pre_finish"])
def test_an_async_hook_that_returns_something_else(backend, tmp_path, caplog, hook):
    async def refuse(event):
        return {"reject": True}

    hooks = type("Hooks", (), {hook: staticmethod(refuse)})()
    subject = {"asyncio": AsgiSubject, "trio": TrioSubject}[backend](tmp_file_dir=str(tmp_path), hooks=hooks)
    assert subject.create(LENGTH, body=DATA).status == (503 if hook == "pre_create" else 201)
    assert subject.landed == []
    assert "must return a HookReply or None, not dict" in caplog.text


# -- A client that is silent --------------------------------------------------------------------------------------


def test_a_newer_request_takes_over_from_a_silent_one(subject, monkeypatch):
    monkeypatch.setattr("tus.server.aio.LOOK", 0.02)
    url = subject.url(LENGTH)
    reply = []

    async def run():
        old = appending(subject.app, url, 0, DATA[:5], LENGTH)
        async with anyio.create_task_group() as group:

            async def answer():
                reply.append(await old.run(subject.app))

            group.start_soon(answer)
            await old.silent.wait()
            while await anyio.to_thread.run_sync(subject.offset, url) < 5:
                await anyio.sleep(0.01)
            new = Exchange(a_scope("PATCH", url, {"Upload-Offset": "5"}, LENGTH - 5), DATA[5:])
            assert (await new.run(subject.app))[0] == 204

    monkeypatch.setattr("tus.asgi.DRAINING", 0.1)
    portal(subject.backend).call(run)
    assert [data for _, data in subject.landed] == [DATA]
    assert reply[0][0] in (204, 409)


@pytest.mark.parametrize("sent", [0, 5])
def test_patience_has_an_end(backend, tmp_path, monkeypatch, sent):
    monkeypatch.setattr("tus.asgi.DRAINING", 0.1)
    subject = {"asyncio": AsgiSubject, "trio": TrioSubject}[backend](tmp_file_dir=str(tmp_path), stall_timeout=1)
    url = subject.url(LENGTH)
    began = time.monotonic()
    reply = portal(backend).call(appending(subject.app, url, 0, DATA[:sent], LENGTH).run, subject.app)
    assert (reply[0], dict(reply[1])["upload-offset"]) == (204, str(sent))
    assert 0.9 < time.monotonic() - began < 30, "the default is a minute"


# -- A slow disk --------------------------------------------------------------------------------------------------


def slowly(seconds, written=None):
    def write(fd, offset, *blocks):
        time.sleep(seconds)
        count = write_at(fd, offset, *blocks)
        if written is not None:
            written.append(count)
        return count

    return write


@pytest.mark.parametrize("backend", BACKENDS)
def test_nobody_waits_for_the_disk_of_another(backend, tmp_path, monkeypatch):
    """Sixteen uploads to a disk on which no write ends before somebody has heard how far another one is, many times."""
    subject = {"asyncio": AsgiSubject, "trio": TrioSubject}[backend](tmp_file_dir=str(tmp_path))
    body = bytes(3_000_000)
    urls = [subject.url(len(body)) for _ in range(16)]
    other = subject.url(5)
    writing, answered = [], threading.Event()

    def write(*arguments):
        writing.append(arguments)
        assert answered.wait(GUARD), "a HEAD waited for a write"
        return write_at(*arguments)

    monkeypatch.setattr("tus.stores.directory.sessions.write_at", write)

    async def upload(url):
        reply = await Exchange(a_scope("PATCH", url, {"Upload-Offset": "0"}, len(body)), body).run(subject.app)
        assert reply[0] == 204

    async def run():
        async with anyio.create_task_group() as uploads:
            for url in urls:
                uploads.start_soon(upload, url)
            while len(writing) < len(urls):
                await anyio.sleep(0.005)
            for _ in range(20):
                reply = await Exchange(a_scope("HEAD", other), b"").run(subject.app)
                assert reply[0] == 200
            answered.set()

    portal(backend).call(run)
    assert len(subject.landed) == 16


@pytest.mark.parametrize("way", ["on_finished", "hooks"])
def test_nobody_waits_for_what_another_calls(backend, tmp_path, way):
    """More of them at once than there are threads; each is done once another request was answered."""
    answered, begun = threading.Event(), threading.Event()

    def waits(*_):
        begun.set()
        assert answered.wait(GUARD), "another request waited for this one"

    class Waits:
        pre_finish = staticmethod(waits)

    subject = made(tmp_path, backend, **{way: {"on_finished": waits, "hooks": Waits()}[way]})
    url = subject.url(LENGTH)
    slow = {"Upload-Length": str(LENGTH)} | OCTETS

    async def run():
        async with anyio.create_task_group() as group:
            for _ in range(THREADS + 1):
                group.start_soon(Exchange(a_scope("POST", PATH, slow, LENGTH), DATA).run, subject.app)
            while not begun.is_set():
                await anyio.sleep(0.005)
            await anyio.sleep(0.2)  # for the others to begin as well
            reply = await Exchange(a_scope("HEAD", url), b"").run(subject.app)
            assert not answered.is_set()
            answered.set()
        return reply[0]

    assert portal(backend).call(run) == 200


def test_memory_is_bounded_where_the_disk_is_slower_than_the_network(backend, tmp_path, monkeypatch):
    subject = {"asyncio": AsgiSubject, "trio": TrioSubject}[backend](tmp_file_dir=str(tmp_path))
    body = bytes(8 * BATCH)
    url = subject.url(len(body))
    written = []
    monkeypatch.setattr("tus.stores.directory.sessions.write_at", slowly(0.05, written))
    request = None
    held = []

    class Watched(Exchange):
        async def receive(self):
            message = await super().receive()
            held.append(self.taken - sum(written))
            return message

    async def run():
        nonlocal request
        request = Watched(a_scope("PATCH", url, {"Upload-Offset": "0"}, len(body)), body)
        assert (await request.run(subject.app))[0] == 204

    portal(backend).call(run)
    assert max(held) <= 2 * BATCH + (256 << 10), "one batch is written, and the next is read"
    assert max(held) > BATCH, "one is read while the other is written"


# -- Functions that are async -------------------------------------------------------------------------------------


def made(tmp_path, backend, app=None, **options):
    """Somebody to upload to."""

    class Made(AsgiSubject):
        def make(self):
            if app is not None:
                return OnLoop(TusMiddleware(app, upload_path=PATH, **self.options), backend)
            return super().make()

    Made.backend = backend
    return Made(tmp_file_dir=str(tmp_path), **options)


def test_an_async_function_takes_the_file(tmp_path, backend):
    taken = []

    async def on_finished(upload):
        await anyio.lowlevel.checkpoint()
        if not taken:
            taken.append(None)
            raise RuntimeError("the database is away")
        taken.append(upload)

    subject = made(tmp_path, backend, on_finished=on_finished)
    url = subject.url(LENGTH)
    assert subject.patch(url, 0, DATA).status == 500
    assert subject.offset(url) == LENGTH - 1
    assert subject.patch(url, LENGTH - 1, DATA[-1:]).status == 204
    assert (taken[1].id, taken[1].attempts) == (url[-32:], 2)

    async def no(upload):
        raise Rejected("This is no picture.", 415)

    subject.app.service.close()  # another one takes the files of this directory
    subject = made(tmp_path, backend, on_finished=no)
    assert subject.patch(subject.url(LENGTH), 0, DATA).status == 415


def test_an_ordinary_function_takes_it_in_a_thread(tmp_path, backend):
    taken = []

    def on_finished(upload):
        with pytest.raises((RuntimeError, anyio.NoEventLoopError)):
            anyio.lowlevel.current_token()
        taken.append(upload.id)

    subject = made(tmp_path, backend, on_finished=on_finished)
    url = subject.url(LENGTH)
    assert subject.patch(url, 0, DATA).status == 204
    assert taken == [url[-32:]]


def test_authorize_may_be_async(tmp_path, backend, caplog):
    async def authorize(request, intent, upload):
        await anyio.lowlevel.checkpoint()
        if request.headers.get("X-User") is None:
            raise Forbidden("Say who you are.")
        return request.headers["X-User"]

    async def breaks(request, intent, upload):
        raise OSError("the database is away")

    class Nobody:
        async def __call__(self, request, intent, upload):
            return None

    subject = made(tmp_path, backend, authorize=authorize)
    assert subject.create(LENGTH).status == 403
    url = subject.url(LENGTH, {"X-User": "ann"})
    assert subject.head(url, {"X-User": "bob"}).status == 404
    assert subject.head(url, {"X-User": "ann"}).status == 200
    assert made(tmp_path, backend, authorize=breaks).create(LENGTH).status == 500
    assert "the database is away" in caplog.text
    assert made(tmp_path, backend, authorize=Nobody()).create(LENGTH).status == 201


def test_what_an_ordinary_function_returns_is_not_awaited(tmp_path, backend):
    async def allow(request, intent, upload):
        return None

    assert made(tmp_path, backend, authorize=lambda *asked: allow(*asked)).create(LENGTH).status == 500


def test_the_application_is_asked(tmp_path, backend):
    asked = []

    async def application(scope, receive, send):
        intent = scope.get("tus.intent")
        status, headers = 200, []
        if intent is not None:
            message = await receive()
            user = dict(scope["headers"]).get(b"x-user")
            asked.append((intent, scope["method"], scope["path"], scope["tus.about"].length, message["body"]))
            status = 200 if user else 401
            headers = [(b"tus-principal", user)] if user else [(b"www-authenticate", b"Basic")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"who are you?"})

    subject = made(tmp_path, backend, application, ask_app="create head")
    refused = subject.create(LENGTH)
    assert (refused.status, refused["WWW-Authenticate"], refused.body) == (401, "Basic", b"who are you?")
    url = subject.url(LENGTH, {"X-User": "ann"})
    assert subject.head(url, {"X-User": "ann"}).get("Tus-Principal") is None
    assert subject.head(url, {"X-User": "bob"}).status == 404
    assert subject.head(url).body == b""
    assert asked[0] == ("create", "POST", PATH, LENGTH, b"")


def test_hooks_may_be_async(tmp_path, backend):
    heard = []

    class Hooks:
        async def pre_create(self, event):
            await anyio.lowlevel.checkpoint()
            heard.append(event.type)
            return HookReply(reject=event.upload.length == 1, response=Response(418, "", [], (b"short",)))

        async def post_finish(self, event):
            heard.append(event.type)

        def post_create(self, event):
            heard.append(event.type)

    subject = made(tmp_path, backend, hooks=Hooks())
    assert subject.create(1).status == 418
    url = subject.url(LENGTH)
    subject.patch(url, 0, DATA)
    assert [str(kind) for kind in heard] == ["pre-create", "pre-create", "post-create", "post-finish"]


@pytest.mark.parametrize("taker", ["application", "function"])
def test_in_the_background_it_is_called_on_the_loop(tmp_path, backend, taker):
    taken = []

    async def on_finished(upload):
        await anyio.sleep(0.01)  # which needs the loop
        taken.append(upload.id)

    async def application(scope, receive, send):
        await anyio.sleep(0.01)
        taken.append(scope["tus.upload"].id)
        assert scope["tus.handover"] == "background"
        assert scope["path"] == f"{PATH}/{scope['tus.upload'].id}"
        assert (await receive())["body"].endswith(scope["tus.upload"].id.encode())
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    how = {"on_finished": on_finished} if taker == "function" else {"app": application}
    subject = made(tmp_path, backend, threads=True, handover="background", **how)
    url = subject.url(LENGTH)
    assert subject.patch(url, 0, DATA).status == 204
    wait_until(lambda: taken)
    assert taken == [url[-32:]]


# -- Applications that behave otherwise ---------------------------------------------------------------------------


async def says_nothing(scope, receive, send):
    pass


async def never_ends(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x", "more_body": True})


async def starts_twice(scope, receive, send):
    for _ in range(2):
        await send({"type": "http.response.start", "status": 200, "headers": []})


async def fails_at_the_end(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x"})
    raise RuntimeError("the transaction could not be committed")


@pytest.mark.parametrize(
    "app", [says_nothing, never_ends, starts_twice, fails_at_the_end], ids=lambda app: app.__name__
)
def test_no_success_without_an_end(tmp_path, app):
    subject = made(tmp_path, "asyncio", app)
    url = subject.url(LENGTH)
    assert subject.patch(url, 0, DATA).status == 500
    assert subject.offset(url) == LENGTH - 1


@pytest.mark.parametrize("size", [100, 100_000, LONGEST_HELD + 100_024])
def test_a_long_refusal(tmp_path, size):
    async def application(scope, receive, send):
        headers = [(b"content-length", b"%d" % size), (b"content-type", b"text/plain")]
        headers.append((b"tus-outcome", b"rejected"))
        await send({"type": "http.response.start", "status": 422, "headers": headers})
        for _ in range(0, size, 100):
            await send({"type": "http.response.body", "body": b"x" * 100, "more_body": True})
        await send({"type": "http.response.body"})

    subject = made(tmp_path, "asyncio", application)
    url = subject.url(LENGTH)
    reply = subject.patch(url, 0, DATA)
    assert (reply.status, len(reply.body)) == (422, size)
    again = subject.patch(url, LENGTH)
    assert (again.status, len(again.body)) == (422, size if size <= 65536 else 0)


def test_a_listener_hears_of_no_disconnect_before_the_end(tmp_path, backend):
    """As Django listens, and Starlette while it streams."""
    heard = []

    async def application(scope, receive, send):
        while (await receive())["more_body"]:
            pass
        async with anyio.create_task_group() as group:

            async def listen():
                heard.append((await receive())["type"])

            group.start_soon(listen)
            await anyio.sleep(0.02)
            assert heard == []
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body"})

    subject = made(tmp_path, backend, application)
    assert subject.patch(subject.url(LENGTH), 0, DATA).status == 204
    assert heard == ["http.disconnect"]


def test_what_is_no_request_passes(tmp_path):
    seen = []

    async def application(scope, receive, send):
        seen.append((scope, receive, send))

    app = TusMiddleware(application, upload_path=PATH, tmp_file_dir=str(tmp_path))

    async def run():
        for kind in ("lifespan", "websocket", "http"):
            scope = {"type": kind, "path": "/filesystem", "headers": []}
            await app(scope, 1, 2)
            assert seen.pop() == (scope, 1, 2)

    portal().call(run)


def test_async_functions_are_refused_where_nobody_awaits_them(tmp_path):
    async def later(*arguments):
        raise AssertionError("nobody awaits it")

    for name in ("authorize", "on_finished"):
        with pytest.raises(OptionError, match="async"):
            Options.build(tmp_file_dir=str(tmp_path), **{name: functools.partial(later, 1)})
    for wrong in ({}, {"on_finished": later, "upload_path": "/x"}, {"on_finished": later, "ask_app": "create"}):
        with pytest.raises(OptionError):
            TusApp(tmp_file_dir=str(tmp_path), **wrong)
    with pytest.raises(OptionError, match="upload_path"):
        TusMiddleware(later, tmp_file_dir=str(tmp_path))


# -- The server -----------------------------------------------------------------------------------------------------


def test_paths_with_and_without_their_root():
    assert full_path({"path": "/a/files", "root_path": "/a"}) == "/a/files"
    assert full_path({"path": "/files", "root_path": "/a"}) == "/a/files"
    assert full_path({"path": "/ab/files", "root_path": "/a/"}) == "/a/ab/files"
    assert full_path({"path": "/a", "root_path": "/a"}) == "/a"
    assert full_path({"path": "/files"}) == "/files"


@pytest.mark.parametrize(
    ("extensions", "version", "informs", "expected"),
    [
        ({"http.response.informational": {}}, "1.1", None, 1),
        ({"http.response.informational": {}}, "1.0", None, 0),
        ({"http.response.informational": {}}, "1.1", False, 0),
        ({}, "1.1", None, 0),
        ({}, "2", None, 0),
        (None, "1.1", True, 1),
        (None, "1.0", True, 0),
    ],
)
def test_interim_responses_where_the_server_takes_them(backend, extensions, version, informs, expected):
    sent = []

    async def send(message):
        sent.append(message)

    scope = a_scope("PATCH", PATH) | {"http_version": version, "extensions": extensions}
    adapter = AsgiAdapter(scope, None, send, informs)
    response = Response(104, "Upload Resumption Supported", [("Location", "/files/1")])

    async def run():
        await anyio.to_thread.run_sync(adapter.inform, response)

    portal(backend).call(run)
    message = {"type": "http.response.informational", "status": 104, "headers": [(b"location", b"/files/1")]}
    assert sent == [message] * expected


def test_a_client_that_is_gone_is_not_informed(backend):
    """As the specification has it, ``send`` raises then; it is nothing that has gone wrong with the upload."""

    async def send(message):
        raise ConnectionResetError

    adapter = AsgiAdapter(a_scope("PATCH", PATH), None, send, True)

    async def run():
        return await anyio.to_thread.run_sync(adapter.inform, Response(104, "Upload Resumption Supported"))

    assert portal(backend).call(run) is False


def test_an_override_does_not_change_how_a_response_ends(tmp_path):
    """For the server it is the response to a POST, whose body is as long as it says."""
    subject = AsgiSubject(tmp_file_dir=str(tmp_path), download=True, keep_finished=True)
    url = subject.url(LENGTH, body=DATA)
    override = {"X-HTTP-Method-Override": "HEAD"}
    assert call(subject.app, "POST", url, override).body == DATA
    assert call(subject.app, "POST", url, override | {"Upload-Draft-Interop-Version": "8"}).status == 405


def test_what_an_answer_says_of_its_connection_stays_there(tmp_path):
    subject = AsgiSubject(tmp_file_dir=str(tmp_path))
    subject.fields += [("Transfer-Encoding", "chunked"), ("Connection", "close"), REJECTS]
    subject.fail = "422 Unprocessable Content"
    reply = subject.create(LENGTH, body=DATA)
    assert (reply.status, reply["X-App"]) == (422, "was here")
    assert reply["Content-Length"] == str(len(reply.body))
    assert {"transfer-encoding", "connection"}.isdisjoint(reply.headers)


def test_a_field_that_is_there_twice_is_one():
    scope = a_scope("GET", PATH)
    scope["headers"] += [(b"X-A", b"1"), (b"x-a", b"2"), (b"cookie", b"a=1"), (b"cookie", b"b=2")]
    headers = AsgiAdapter(scope, None, None).request.headers
    assert (headers["X-A"], headers.get("Cookie"), headers.get("X-B")) == ("1, 2", "a=1; b=2", None)
    assert dict(headers)["X-A"] == "1, 2"
    assert len(headers) == len(list(headers))


def test_an_application_by_itself(tmp_path, backend):
    taken = []
    app = OnLoop(TusApp(tmp_file_dir=str(tmp_path), on_finished=lambda upload: taken.append(upload.id)), backend)
    mounted = {"environ": {"SCRIPT_NAME": "/here"}}
    reply = call(app, "POST", "http://localhost/here/", TUS | {"Upload-Length": str(LENGTH)}, **mounted)
    assert reply["Location"].startswith("http://localhost/here/")
    headers = TUS | OCTETS | {"Upload-Offset": "0"}
    assert call(app, "PATCH", reply["Location"], headers, DATA, **mounted).status == 204
    assert taken == [reply["Location"][-32:]]
    assert call(app, "GET", "/here", **mounted).status == 404


# -- Interim responses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("informs", [True, False])
def test_whose_url_was_told_early_is_handed_over_without_its_client(tmp_path, backend, informs):
    """An upload that one request creates and completes counts as known only if its client has heard of it before."""

    async def application(scope, receive, send):
        while (await receive())["more_body"]:
            pass
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body"})

    store = tmp_path / "store"
    app = TusMiddleware(application, upload_path=PATH, tmp_file_dir=str(store))
    fields = {"Upload-Draft-Interop-Version": "9", "Upload-Complete": "?1"}

    async def server(scope, receive, send):
        scope["extensions"] |= {"http.response.informational": {}} if informs else {}
        await app(scope, receive, send)

    reply = call(OnLoop(server, backend), "POST", PATH, fields, DATA)
    assert (reply.status, reply["Upload-Complete"]) == (401, "?0")
    upload = open_store(str(store)).load(reply["Location"].rpartition("/")[2])
    assert (upload.state, upload.is_known, upload.can_expire) == (State.COMPLETE, informs, not informs)


# -- The calls of threads -----------------------------------------------------------------------------------------


def hops_of(monkeypatch, backend, app, *requests):
    """The number of calls of a thread for each request; a request may be a function of the one before."""
    counts, count = [], 0

    def counted(call):
        def counting(*arguments, **others):
            nonlocal count
            count += 1
            return call(*arguments, **others)

        return counting

    monkeypatch.setattr(anyio.to_thread, "run_sync", counted(anyio.to_thread.run_sync))
    monkeypatch.setattr(_AsyncioThreads, "call", counted(_AsyncioThreads.call))

    async def run():
        nonlocal count
        request = None
        for make in requests:
            request, before = make(request), count
            await request.run(app)
            assert request.started["status"] < 300
            counts.append(count - before)

    portal(backend).call(run)
    return counts[1:]  # the first one starts the service


def names_of_threads(monkeypatch, cls, method):
    """Note the names of the threads that call a method."""
    names, real = [], getattr(cls, method)

    def noting(*arguments, **others):
        names.append(threading.current_thread().name)
        return real(*arguments, **others)

    monkeypatch.setattr(cls, method, noting)
    return names


@pytest.mark.parametrize("size", [LENGTH, 3 * SMALL])
@pytest.mark.parametrize("option", ["on_finished", "authorize", "cors_allow_origin", "hooks"])
def test_functions_of_the_application_may_call_back_into_the_loop(tmp_path, backend, option, size):
    called = []

    def call_back(*_):
        anyio.from_thread.run(anyio.sleep, 0)
        called.append(option)

    class Hooks:
        pre_finish = staticmethod(call_back)

    def check_origin(origin):
        call_back()
        return True

    functions = {"hooks": Hooks(), "cors_allow_origin": check_origin}
    options = {"on_finished": lambda upload: upload.open().close()} | {option: functions.get(option, call_back)}
    app = OnLoop(TusMiddleware(None, upload_path=PATH, tmp_file_dir=str(tmp_path), **options), backend)
    fields = TUS | OCTETS | {"Upload-Length": str(size), "Origin": "https://example.org"}
    assert call(app, "POST", PATH, fields, bytes(size)).status == 201
    assert called


@pytest.mark.parametrize("kind", ["files", "spool"])
def test_receivers_of_the_package_need_no_further_threads(tmp_path, monkeypatch, kind):
    """What ``tus serve`` and the spool do with a small upload is done by the threads that received it."""
    names = names_of_threads(monkeypatch, DirectoryClaim, "sync")
    (tmp_path / "landed").mkdir()
    options = {"spool": str(tmp_path / "spool")}
    if kind == "files":
        options = {"on_finished": Files(str(tmp_path / "landed")).take}
    app = OnLoop(TusMiddleware(None, upload_path=PATH, tmp_file_dir=str(tmp_path / "store"), **options), "asyncio")
    reply = call(app, "POST", PATH, TUS | OCTETS | {"Upload-Length": str(LENGTH)}, DATA)
    assert (reply.status, names) == (201, ["tus-hand"])


def location_of(request):
    return dict(request.started["headers"])[b"location"].decode()


def creating(_):
    return Exchange(a_scope("POST", PATH, {"Upload-Length": str(LENGTH)}), b"")


def completing(created):
    return Exchange(a_scope("PATCH", location_of(created), {"Upload-Offset": "0"}, LENGTH), DATA)


def creating_whole(_):
    return Exchange(a_scope("POST", PATH, {"Upload-Length": str(LENGTH)} | OCTETS, LENGTH), DATA)


def test_a_small_upload_is_one_call_of_a_thread(tmp_path, backend, monkeypatch):
    app = TusApp(tmp_file_dir=str(tmp_path), on_finished=lambda upload: upload.open().close())
    assert hops_of(monkeypatch, backend, app, creating, creating, completing, creating_whole) == [1, 1, 1]


def test_it_is_two_around_an_application(tmp_path, backend, monkeypatch):
    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    app = TusMiddleware(application, upload_path=PATH, tmp_file_dir=str(tmp_path))
    assert hops_of(monkeypatch, backend, app, creating, creating, completing, creating_whole) == [1, 2, 2]


def test_receivers_that_wait_for_this_server_do_not_stop_it(tmp_path, backend):
    """Each of more receivers than there are threads waits until a request to this server is answered."""
    answered = threading.Event()

    def take(upload):
        assert answered.wait(GUARD)
        upload.open().close()

    app = TusApp(tmp_file_dir=str(tmp_path), on_finished=take)

    async def run():
        created = creating(None)
        await created.run(app)
        async with anyio.create_task_group() as group:
            waiting = [creating_whole(None) for _ in range(THREADS + 3)]
            for request in waiting:
                group.start_soon(request.run, app)
            await anyio.sleep(0.2)
            with anyio.fail_after(GUARD):
                await Exchange(a_scope("HEAD", location_of(created)), b"").run(app)
                stored = Exchange(a_scope("PATCH", location_of(created), {"Upload-Offset": "0"}, 5), DATA[:5])
                await stored.run(app)
            answered.set()
        assert stored.started["status"] == 204
        assert {request.started["status"] for request in waiting} == {201}

    portal(backend).call(run)


@pytest.mark.parametrize("pause", [0.0, 0.03, 0.08])
def test_a_small_body_that_comes_in_pieces_is_kept_whole(tmp_path, backend, pause):
    """The first pieces come before the exchange begins, and the others after it."""
    landed = []

    class Pieces(Exchange):
        async def receive(self):
            await anyio.sleep(pause)
            return await super().receive()

    def take(upload):
        with upload.open() as file:
            landed.append(file.read())

    app = TusApp(tmp_file_dir=str(tmp_path), on_finished=take)

    async def run():
        created = creating(None)
        await created.run(app)
        request = Pieces(a_scope("PATCH", location_of(created), {"Upload-Offset": "0"}, LENGTH), b"")
        request.messages = [DATA[place : place + 1] for place in range(LENGTH)]
        await request.run(app)
        assert request.started["status"] == 204

    portal(backend).call(run)
    assert landed == [DATA]


def test_a_client_that_asks_before_it_sends_is_answered_first(tmp_path, backend):
    """A refused upload must not cost its client the body, not even a small one."""
    app = TusApp(tmp_file_dir=str(tmp_path), on_finished=print)

    async def run():
        fields = {"Upload-Offset": "0", "Expect": "100-continue"}
        request = Exchange(a_scope("PATCH", f"{PATH}/{'0' * 32}", fields, LENGTH), DATA)
        await request.run(app)
        assert (request.started["status"], request.taken) == (404, 0)

    portal(backend).call(run)


@pytest.mark.parametrize("number", [1, 200])
def test_the_bodies_of_a_process_share_their_memory(number):
    """None of them is written meanwhile, because the disk is slow."""
    received = []

    async def receive():
        await anyio.lowlevel.checkpoint()
        received.append(LEAST)
        return bytes(LEAST)

    async def run():
        bodies = [AsyncBody(receive, None) for _ in range(number)]
        async with anyio.create_task_group() as group:
            for body in bodies:
                group.start_soon(body.read)
            before = -1
            while before != len(received):
                before = len(received)
                for _ in range(100):
                    await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()

    anyio.run(run)
    assert sum(received) <= min(number * BATCH, SHARED + number * LEAST) + number * LEAST
    assert sum(received) >= min(number * BATCH, SHARED) // 2
    assert AsyncBody._reading == 0
