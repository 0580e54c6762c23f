"""Views that raise, forget or are late: when the file that a view holds is free again."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import greenlet
import pytest
from django.http import HttpResponse
from flask import Flask, Response
from flask import request as flask_request
from webob import Request

from tests.frameworks.test_wsgi import pyramid_application
from tests.support.django_site import django_application
from tests.support.waiting import GUARD
from tests.support.wsgi import OCTETS, TUS, call
from tus import Service, Tus, WebobAdapter, open_store
from tus.adapters.wsgi import WsgiAdapter
from tus.events import Answered, ignore, listen
from tus.models import State

URL = "/up"
DATA = b"hello"


class Broken(Exception):
    """What a view of these tests raises."""


class View:
    """What the views of all three frameworks do, and what the tests see of it.

    Attributes:
        take: called with the ``Tus`` of the request that has completed an upload.
        kept: the exceptions of views, kept as a framework may keep them, with everything that their frames refer to.
    """

    def __init__(self, directory):
        self.service = Service(tmp_file_dir=str(directory), threads=False)
        self.uses_with = False
        self.take = self.fail
        self.kept = []

    def fail(self, tus):
        raise Broken("the database is down")

    def __call__(self, adapter):
        try:
            tus = Tus(adapter, service=self.service)
            if self.uses_with:
                with tus:
                    self.run(tus)
            else:
                self.run(tus)
        except Exception as error:
            self.kept.append(error)
            raise

    def run(self, tus):
        tus.handle()
        if tus.upload_finished:
            self.take(tus)

    def flask(self):
        app = Flask(__name__)

        @app.route(URL, defaults={"rest": ""}, methods=["HEAD", "POST", "PATCH"])
        @app.route(f"{URL}/<rest>", methods=["HEAD", "POST", "PATCH"])
        def view(rest):
            adapter = WsgiAdapter(flask_request.environ)
            self(adapter)
            answer = adapter.response
            return Response(answer.body, answer.status, answer.headers)

        return app

    def django(self):
        def view(request):
            adapter = WsgiAdapter(request.environ)
            self(adapter)
            answer = adapter.response
            return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))

        return django_application(view)

    def pyramid(self):
        def view(request):
            adapter = WebobAdapter(request)
            self(adapter)
            return adapter.resp

        return pyramid_application(view)


@pytest.fixture
def view(tmp_path):
    return View(tmp_path)


@pytest.fixture(params=["flask", "django", "pyramid"])
def app(request, view):
    return getattr(view, request.param)()


@pytest.fixture(autouse=True)
def _no_garbage_collection():
    gc.disable()
    yield
    gc.enable()


def create(app):
    return call(app, "POST", URL, TUS | {"Upload-Length": str(len(DATA))}, validate=False)["Location"]


def patch(app, url, offset=0, body=DATA):
    """Send a PATCH; None where the view raises and the framework lets that through."""
    headers = TUS | OCTETS | {"Upload-Offset": str(offset)}
    try:
        return call(app, "PATCH", url, headers, body, validate=False)
    except Broken:
        return None


def head(app, url):
    """Return the status and the offset."""
    reply = call(app, "HEAD", url, TUS, validate=False)
    return reply.status, reply.get("Upload-Offset")


FREE = (200, str(len(DATA) - 1))
BUSY = (423, None)
ACCEPTED = (200, str(len(DATA)))


def has_failed(reply):
    return reply is None or reply.status == 500


def test_a_view_that_raises_lets_go_for_the_same_thread(app, view):
    url = create(app)
    assert has_failed(patch(app, url))
    assert len(view.kept) == 1
    assert head(app, url) == FREE
    view.take = Tus.cleanup_file
    assert patch(app, url, len(DATA) - 1, DATA[-1:]).status == 204
    assert head(app, url) == ACCEPTED


def test_a_view_that_raises_lets_go_while_its_thread_is_idle(app, view):
    """The thread waits in the pool of a server, and may never get a request again."""
    url = create(app)
    with ThreadPoolExecutor(1) as pool:
        assert has_failed(pool.submit(patch, app, url).result(GUARD))
        assert len(view.kept) == 1
        assert head(app, url) == FREE


def test_a_view_that_raises_lets_go_after_its_thread_has_ended(app, view):
    url = create(app)
    thread = threading.Thread(target=patch, args=(app, url))
    thread.start()
    thread.join(GUARD)
    assert head(app, url) == FREE


def test_a_view_with_a_block_lets_go_at_its_end(app, view, tmp_path):
    view.uses_with = True
    url = create(app)
    assert has_failed(patch(app, url))
    other = open_store(str(tmp_path))  # as another process, which cannot look into this one
    upload = other.load(url.rpartition("/")[2])
    assert (upload.state, upload.attempts) == (State.COMPLETE, 1)
    other.claim(upload).release()


def test_a_view_that_forgets_the_file_lets_go_by_the_next_request(app, view, tmp_path):
    view.take = lambda tus: None
    url = create(app)
    assert patch(app, url).status == 503
    create(app)
    other = open_store(str(tmp_path))
    other.claim(other.load(url.rpartition("/")[2])).release()
    assert other.load(url.rpartition("/")[2]).error == "the application did not say whether it takes the file"


class Slow:
    """A view that is at work until it may go on, and then does something.

    Attributes:
        began: set once it is at work.
        may_go_on: what it waits for.
    """

    def __init__(self, work, then):
        self.began, self.may_go_on = threading.Event(), threading.Event()
        self._work, self._then = work, then

    def __call__(self, tus):
        self.began.set()
        self._work(self.may_go_on)
        self._then(tus)


def work_in_generators(may_go_on):
    """Be within a generator or just out of one, whenever another thread looks."""

    def steps():
        while not may_go_on.is_set():
            yield

    for _ in steps():
        pass


@pytest.mark.parametrize("work", [lambda event: event.wait(GUARD), work_in_generators], ids=["waits", "generators"])
def test_a_view_at_work_in_another_thread_keeps_the_file(app, view, work):
    url = create(app)
    for take, then in ((view.fail, FREE), (Tus.cleanup_file, ACCEPTED)):
        view.take = slow = Slow(work, take)
        with ThreadPoolExecutor(1) as pool:
            reply = pool.submit(patch, app, url, *(() if take == view.fail else (len(DATA) - 1, DATA[-1:])))
            assert slow.began.wait(GUARD)
            for _ in range(30):
                assert head(app, url) == BUSY
            slow.may_go_on.set()
            reply.result(GUARD)
            assert head(app, url) == then


def test_a_view_at_work_in_another_greenlet_keeps_the_file(app, view):
    main = greenlet.getcurrent()
    url = create(app)

    def take(tus):
        main.switch()
        view.fail(tus)

    view.take = take
    working = greenlet.greenlet(lambda: patch(app, url))
    working.switch()
    assert head(app, url) == BUSY
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(head, app, url).result(GUARD) == BUSY
    working.switch()
    assert working.dead
    assert head(app, url) == FREE


def test_a_greenlet_that_serves_on_has_let_go(app, view):
    """As one that serves a connection, and waits for its next request."""
    main = greenlet.getcurrent()
    url = create(app)

    def serve():
        patch(app, url)
        main.switch()

    serving = greenlet.greenlet(serve)
    serving.switch()
    assert not serving.dead
    assert head(app, url) == FREE
    serving.switch()


# -- A response that is produced after the view ------------------------------------------------------------------


@pytest.fixture
def streaming(view):
    """A Flask application whose response says what it did with the file after its first block."""
    app = Flask(__name__)

    @app.route(f"{URL}/<rest>", methods=["PATCH"])
    def stream(rest):
        adapter = WsgiAdapter(flask_request.environ)
        tus = Tus(adapter, service=view.service)
        tus.handle()

        def produce():
            yield b"storing it\n"
            tus.cleanup_file()
            yield b"stored\n"

        return Response(produce())

    return app


def start(app, url):
    """Send a PATCH, and return the response's blocks after the first one was produced."""
    environ = Request.blank(url, method="PATCH", headers=TUS | OCTETS | {"Upload-Offset": "0"}, body=DATA).environ
    blocks = app(environ, lambda *arguments: None)
    iterator = iter(blocks)
    assert next(iterator) == b"storing it\n"
    return iterator


def test_a_response_that_accepts_the_file_later(view, streaming):
    app = view.flask()
    url = create(app)
    blocks = start(streaming, url)
    assert list(blocks) == [b"stored\n"]
    assert head(app, url) == ACCEPTED


def test_a_response_that_accepts_the_file_after_a_look(view, streaming):
    """The client asks where its upload stands, perhaps over another connection."""
    app = view.flask()
    url = create(app)
    blocks = start(streaming, url)
    assert head(app, url) == FREE
    assert list(blocks) == [b"stored\n"]
    assert head(app, url) == ACCEPTED


def test_a_response_that_is_too_late_changes_nothing(view, streaming):
    app = view.flask()
    url = create(app)
    blocks = start(streaming, url)
    view.take = lambda tus: tus.reject_file("Not this one.")
    assert patch(app, url, len(DATA) - 1, DATA[-1:]).status == 422
    assert list(blocks) == [b"stored\n"]
    assert view.service.find(url).state == State.REJECTED


# -- Applications without a framework ----------------------------------------------------------------------------


class Plain:
    """An adapter with only the four members that every adapter must have."""

    def __init__(self, environ):
        self._adapter = WsgiAdapter(environ)

    @property
    def request(self):
        return self._adapter.request

    @property
    def stream(self):
        return self._adapter.stream

    @property
    def response(self):
        return self._adapter.response

    def respond(self, response):
        self._adapter.respond(response)

    def replace_body(self, *arguments):
        self._adapter.replace_body(*arguments)


def plain(view, adapter=Plain):
    """Return a WSGI application that handles each request with this adapter, and calls ``view.take``."""

    def application(environ, start_response):
        made = adapter(environ)
        view(made)
        answer = made.response
        start_response(f"{answer.status} {answer.reason}", [*answer.headers])
        return answer.body

    return application


def environ_of_patch(url):
    return Request.blank(url, method="PATCH", headers=TUS | OCTETS | {"Upload-Offset": "0"}, body=DATA).environ


def from_another_thread(app, url):
    """Return how the upload stands for another request at the same time."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(head, app, url).result(GUARD)


@pytest.mark.parametrize("adapter", [Plain, WsgiAdapter])
def test_a_view_keeps_the_file_during_a_request_of_its_own(view, adapter):
    """The view asks its own site for something, in the same thread."""
    app = plain(view, adapter)
    url = create(app)
    seen = []

    def take(tus):
        seen.extend([head(app, url), from_another_thread(app, url)])
        tus.cleanup_file()

    view.take = take
    assert patch(app, url).status == 204
    assert seen == [BUSY, BUSY]
    assert head(app, url) == ACCEPTED


@pytest.mark.parametrize("adapter", [Plain, WsgiAdapter])
def test_a_file_is_kept_while_another_thread_works_on_it(view, adapter):
    """As in an async framework: a thread of a pool handles the request, and the event loop does the work."""
    app = plain(view)
    url = create(app)
    tus = Tus(adapter(environ_of_patch(url)), service=view.service)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(tus.handle).result(GUARD)
        assert tus.upload_finished
        assert pool.submit(head, app, url).result(GUARD) == BUSY
        assert head(app, url) == BUSY
        tus.cleanup_file()
    assert head(app, url) == ACCEPTED


@pytest.mark.parametrize("adapter", [Plain, WsgiAdapter])
def test_a_file_is_kept_after_the_thread_that_received_it_has_ended(view, adapter):
    """A pool may end its idle threads while the event loop works on the file."""
    app = plain(view)
    url = create(app)
    tus = Tus(adapter(environ_of_patch(url)), service=view.service)
    thread = threading.Thread(target=tus.handle)
    thread.start()
    thread.join(GUARD)
    assert head(app, url) == BUSY
    tus.cleanup_file()
    assert head(app, url) == ACCEPTED


def test_an_application_may_give_its_environ_another_name(view):
    other = plain(view)
    url = create(other)
    seen = []

    def application(request, start_response):
        with Tus(WsgiAdapter(request), service=view.service) as tus:
            tus.handle()
            seen.extend([head(other, url), from_another_thread(other, url)])
            tus.cleanup_file()
        start_response("204 No Content", [])
        return []

    assert patch(application, url).status == 204
    assert seen == [BUSY, BUSY]
    assert head(other, url) == ACCEPTED


def test_a_generator_keeps_the_file_between_its_blocks(view):
    other = plain(view)
    url = create(other)

    def application(environ, start_response):
        tus = Tus(WsgiAdapter(environ), service=view.service)
        tus.handle()
        start_response("200 OK", [])
        yield b"storing it\n"
        tus.cleanup_file()
        yield b"stored\n"

    blocks = start(application, url)
    assert head(other, url) == BUSY
    assert from_another_thread(other, url) == BUSY
    assert list(blocks) == [b"stored\n"]
    assert head(other, url) == ACCEPTED


def test_a_generator_that_is_dropped_lets_go_by_the_next_request(view):
    other = plain(view)
    url = create(other)

    def application(environ, start_response):
        tus = Tus(WsgiAdapter(environ), service=view.service)
        tus.handle()
        start_response("200 OK", [])
        yield b"storing it\n"
        tus.cleanup_file()

    blocks = start(application, url)
    assert head(other, url) == BUSY
    del blocks
    assert head(other, url) == FREE


def test_a_view_without_an_environ_that_forgets_the_file_lets_go_by_the_next_request(view, tmp_path):
    app = plain(view)
    url = create(app)
    view.take = lambda tus: None
    assert patch(app, url).status == 503
    create(app)
    other = open_store(str(tmp_path))
    other.claim(other.load(url.rpartition("/")[2])).release()
    assert other.load(url.rpartition("/")[2]).error == "the application did not say whether it takes the file"
    view.take = Tus.cleanup_file
    assert patch(app, url, len(DATA) - 1, DATA[-1:]).status == 204


def test_a_view_that_settles_late_reports_one_answer(view, streaming):
    app = view.flask()
    url = create(app)
    reported = []
    listen(reported.append, Answered)
    try:
        blocks = start(streaming, url)
        assert head(app, url) == FREE
        assert list(blocks) == [b"stored\n"]
    finally:
        ignore(reported.append)
    assert [event.method for event in reported] == ["PATCH", "HEAD"]
    assert head(app, url) == ACCEPTED


@pytest.mark.parametrize("created", [False, True])
@pytest.mark.parametrize(
    "given", [{"json_body": {"id": 17}}, {"json": {"id": 17}}, {"body": b"taken"}, {"text": "taken"}]
)
def test_a_view_can_give_a_body_to_the_success(tmp_path, given, created):
    """A 204 with a body would be no valid response, and break the connection."""
    service = Service(tmp_file_dir=str(tmp_path), threads=False)

    def application(environ, start_response):
        adapter = WebobAdapter(Request(environ))
        with Tus(adapter, service=service) as upload:
            upload.handle()
            if upload.upload_finished:
                upload.cleanup_file()
                for name, value in given.items():
                    setattr(adapter.resp, name, value)
        return adapter.resp(environ, start_response)

    octets = OCTETS if created else {}
    reply = call(application, "POST", "/files", TUS | octets | {"Upload-Length": "4"}, DATA[:4] if created else b"")
    if not created:
        reply = call(application, "PATCH", reply["Location"], TUS | OCTETS | {"Upload-Offset": "0"}, DATA[:4])
    is_json = "json" in next(iter(given))
    assert reply.status == (201 if created else 200)
    assert reply["Upload-Offset"] == "4"
    assert reply.body == (b'{"id":17}' if is_json else b"taken")
    assert reply["Content-Length"] == str(len(reply.body))
    assert reply["Content-Type"].partition(";")[0] == ("application/json" if is_json else "text/plain")
