"""What a client can hold of uvicorn under ``tus serve`` by sending or reading nothing, on real sockets."""

import asyncio
import contextlib
import logging
import socket
import threading
import time
from functools import partial
from types import SimpleNamespace

import pytest

from tests.support.serving import uvicorn_in_thread
from tests.support.sockets import CALM
from tests.support.waiting import GUARD, wait_until
from tus.server import protocol_uvicorn
from tus.server.protocol_uvicorn import Connection, Door, is_familiar
from tus.server.waiting import HEAD_TIMEOUT, LARGEST_HEAD, SEND_TIMEOUT

LARGE = 16 << 20  # bytes, more than the buffers of a connection hold
HEAD = b"GET /page HTTP/1.1\r\nHost: localhost\r\n"


class Site:
    """An application under uvicorn, and the door in front of it, whose clock only moves when it is told to.

    Attributes:
        time: of the clock.
        begun: the paths of the requests, as the application is called.
        ended: the paths, as the application learns that the client is gone.
        release: lets the requests to ``/hold`` end.
    """

    def __init__(self, most):
        self.time = 0.0
        self.door = Door(most, max_fields, 4096, clock=lambda: self.time)
        self.begun, self.ended = [], []
        self.release = threading.Event()
        self.port = 0

    async def app(self, scope, receive, send):
        path = scope["path"]
        self.begun.append(path)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if path == "/hold":
            while not self.release.is_set():
                await asyncio.sleep(0.01)
        elif path == "/pieces":
            sending = asyncio.create_task(self.send_pieces(send))
            while (await receive())["type"] != "http.disconnect":
                pass
            sending.cancel()
            self.ended.append(path)
            return
        body = bytes(LARGE) if path == "/large" else b"the page"
        await send({"type": "http.response.body", "body": body})

    @staticmethod
    async def send_pieces(send):
        while True:
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
            await asyncio.sleep(0)

    def connect(self, window=0):
        client = socket.socket()
        if window:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        client.settimeout(GUARD)
        client.connect(("127.0.0.1", self.port))
        return client

    def run(self, function):
        """Call a function on the loop of the server, and return its result."""

        async def call():
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(GUARD)

    def look(self, later=0.0):
        """Let time pass, and let the door look."""
        self.time += later
        self.run(self.door.look)

    def admitted(self):
        return len(self.door._all)


max_fields = 8


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request):
    return request.param


@pytest.fixture
def most():
    return 100


@pytest.fixture
def site(loop, most):
    site = Site(most)

    async def lifespan(scope, receive, send):
        if scope["type"] == "http":
            await site.app(scope, receive, send)
            return
        site.loop = asyncio.get_running_loop()
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})

    settings = {"http": partial(Connection, site.door), "loop": loop, "log_config": None}
    with uvicorn_in_thread(lifespan, **settings) as site.port:
        yield site
        site.release.set()


@pytest.fixture(autouse=True)
def _quiet(caplog):
    """No client makes uvicorn log an error, or asyncio a warning."""
    caplog.set_level(logging.WARNING)
    yield
    records = [record for record in caplog.records if record.levelno > logging.WARNING or record.name == "asyncio"]
    assert [record.getMessage() for record in records] == []


def answered(client):
    """The status of the next response, whose body is the page."""
    reply = b""
    while b"the page" not in reply:
        block = client.recv(1000)
        assert block, reply
        reply += block
    return int(reply.split()[1])


def rest(client):
    """What comes until the connection ends, whichever way it ends."""
    read = b""
    with contextlib.suppress(ConnectionResetError):
        while block := client.recv(1 << 20):
            read += block
    return read


# -- Heads --


@pytest.mark.parametrize("before", [0, 1], ids=["the first one", "a later one"])
def test_a_head_that_stays_unfinished_is_refused(site, before):
    with site.connect() as client:
        for _ in range(before):
            client.sendall(HEAD + b"\r\n")
            assert answered(client) == 200
        client.sendall(HEAD)
        wait_until(lambda: any(connection._in_head for connection in list(site.door._all)))
        site.look(HEAD_TIMEOUT - 1)
        client.sendall(b"X-Other: slow\r\n")
        site.look(1)
        reply = rest(client)
    assert reply.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"\r\nTus-Resumable: 1.0.0\r\n" in reply


def test_a_connection_without_a_byte_is_closed_without_a_word(site):
    with site.connect() as client:
        wait_until(lambda: site.admitted() == 1)
        site.look(HEAD_TIMEOUT)
        assert rest(client) == b""


def test_a_request_in_progress_has_no_such_limit(site):
    with site.connect() as client:
        client.sendall(HEAD.replace(b"page", b"hold") + b"\r\n")
        wait_until(lambda: site.begun == ["/hold"])
        site.look(10 * HEAD_TIMEOUT)
        site.release.set()
        assert answered(client) == 200
        client.sendall(HEAD + b"\r\n")
        assert answered(client) == 200


def test_a_body_that_goes_on_after_its_response_ends(site):
    """uvicorn drops it, byte for byte, as long as it comes."""
    with site.connect() as client:
        client.sendall(HEAD + b"Content-Length: 1000000\r\n\r\nthe beginning")
        assert answered(client) == 200
        client.sendall(b"and more")
        wait_until(lambda: site.door._waiting)
        site.look(HEAD_TIMEOUT)
        assert rest(client) == b""


TOO_LARGE = {
    "too many fields": [b"X-Field: a\r\n" * (max_fields + 1)],
    "a large field": [b"X-Field: " + b"a" * 5000 + b"\r\n\r\n"],
    "a large address": [b"GET /" + b"a" * LARGEST_HEAD + b" HTTP/1.1\r\n\r\n"],
    "no end": [b"X-Field: " + b"a" * 100_000, b"a" * 100_000, b"a" * 100_000],
    "no end of names": [b"X" * 200_000, b"X" * 100_000],
}


@pytest.mark.parametrize("kind", TOO_LARGE)
@pytest.mark.parametrize("before", [0, 1])
def test_a_head_that_is_too_large(site, kind, before):
    with site.connect() as client:
        for _ in range(before):
            client.sendall(HEAD + b"\r\n")
            assert answered(client) == 200
        if kind != "a large address":
            client.sendall(HEAD)
        for piece in TOO_LARGE[kind]:
            with contextlib.suppress(OSError):
                client.sendall(piece)
        assert rest(client).startswith(b"HTTP/1.1 431 ")
    assert site.begun == ["/page"] * before


def test_a_large_head_behind_a_body_has_its_own_size(site):
    """They come in one block."""
    with site.connect() as client:
        field = b"X-Field: " + b"a" * 4000 + b"\r\n"
        for _ in range(3):
            client.sendall(HEAD + b"Content-Length: 200000\r\n\r\n" + b"x" * 200_000 + HEAD + field * 4)
            assert answered(client) == 200
            client.sendall(b"\r\n")
            assert answered(client) == 200


def test_what_is_no_head_is_refused(site):
    with site.connect() as client:
        client.sendall(b"what is this\r\n\r\n")
        reply = rest(client)
    assert reply.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nTus-Resumable: 1.0.0\r\n" in reply


# -- The number of connections --


@pytest.mark.parametrize("most", [3])
def test_a_new_client_takes_the_place_of_the_one_that_has_waited_longest(site):
    with contextlib.ExitStack() as stack:
        busy, early, late = (stack.enter_context(site.connect()) for _ in range(3))
        busy.sendall(HEAD.replace(b"page", b"hold") + b"\r\n")
        wait_until(lambda: site.begun == ["/hold"])
        for client in (early, late, late):  # each is idle from then on
            client.sendall(HEAD + b"\r\n")
            assert answered(client) == 200
        for number in range(5):
            client = stack.enter_context(site.connect())
            client.sendall(HEAD + b"\r\n")
            assert answered(client) == 200
            assert rest((early, late)[number]) == b"" if number < 2 else True
        assert site.admitted() == 3
        site.release.set()
        assert answered(busy) == 200


@pytest.mark.parametrize("most", [3])
def test_half_sent_heads_do_not_shut_others_out(site):
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(site.connect()).sendall(HEAD)
        with site.connect() as client:
            client.sendall(HEAD + b"\r\n")
            assert answered(client) == 200
        wait_until(lambda: site.admitted() <= 3)


@pytest.mark.parametrize("most", [2])
def test_where_every_client_has_a_request_another_one_is_refused(site):
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(site.connect()).sendall(HEAD.replace(b"page", b"hold") + b"\r\n")
        wait_until(lambda: site.begun == ["/hold"] * 2)
        with site.connect() as client:
            reply = rest(client)
        assert reply.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"\r\nRetry-After: " in reply
        site.release.set()
        wait_until(lambda: len(site.door._waiting) == 2)
        with site.connect() as client:
            client.sendall(HEAD + b"\r\n")
            assert answered(client) == 200


@pytest.mark.parametrize("most", [1])
def test_a_client_that_still_reads_is_not_idle(site):
    with site.connect(window=2048) as client:
        client.sendall(HEAD.replace(b"page", b"large") + b"\r\n")
        filled(site)
        with site.connect() as other:
            assert rest(other).startswith(b"HTTP/1.1 503 ")
        assert site.admitted() == 1


# -- Requests that wait for each other --


def test_a_few_requests_may_come_at_once(site):
    with site.connect() as client:
        client.sendall((HEAD + b"\r\n") * 10)
        replies = b""
        while replies.count(b"the page") < 10:
            replies += client.recv(10_000)
    assert site.begun == ["/page"] * 10


def test_many_requests_may_not_come_at_once(site):
    """Each of them would be kept until the one before it is over."""
    with site.connect() as client:
        with contextlib.suppress(OSError):
            client.sendall((HEAD.replace(b"page", b"hold") + b"\r\n") * 1000)
        rest(client)
        wait_until(lambda: site.admitted() == 0)
    assert site.begun == ["/hold"]


# -- Responses that nobody reads --


def output_of(site):
    """The bytes of the only connection that wait in the server, and in its socket; None once it has ended."""
    outputs = [(one.transport.get_write_buffer_size(), one._unacknowledged()) for one in site.door._all]
    return outputs[0] if outputs else None


def filled(site):
    """Wait until the response of the only connection fills all buffers, and nothing has moved for a while."""
    before, since = None, time.monotonic()
    while time.monotonic() < since + CALM:
        output = site.run(partial(output_of, site))
        if output is None or output != before or not output[0]:
            before, since = output, time.monotonic()
        time.sleep(0.01)


@pytest.mark.parametrize("path", [b"large", b"pieces"], ids=["complete for the application", "in progress"])
def test_a_client_that_does_not_read_is_disconnected(site, path):
    with site.connect(window=2048) as client:
        client.sendall(HEAD.replace(b"page", path) + b"\r\n")
        filled(site)
        site.look()
        site.look(SEND_TIMEOUT - 1)
        assert site.admitted() == 1
        site.look(1)
        wait_until(lambda: site.admitted() == 0)
        assert len(rest(client)) < LARGE
    if path == b"pieces":
        wait_until(lambda: site.ended == ["/pieces"])


def test_a_client_that_reads_slowly_gets_everything(site):
    with site.connect(window=1 << 17) as client:
        client.sendall(HEAD.replace(b"page", b"large") + b"\r\n")
        filled(site)
        site.look()
        read = 0
        for _ in range(5):
            before = site.run(partial(output_of, site))
            while site.run(partial(output_of, site)) == before:
                read += len(client.recv(40_000))
            site.look(SEND_TIMEOUT - 1)
            assert site.admitted() == 1
        while read < LARGE:
            block = client.recv(1 << 20)
            assert block, read
            read += len(block)


def test_a_server_that_stops_does_not_wait_for_readers(site):
    with site.connect(window=2048) as client:
        client.sendall(HEAD.replace(b"page", b"pieces") + b"\r\n")
        filled(site)
        site.door.hurry()
        site.look()
        site.look(protocol_uvicorn.STOPPING)
        wait_until(lambda: site.admitted() == 0)


# -- Private names --


def test_this_uvicorn_is_familiar(site):
    with site.connect():
        wait_until(lambda: site.admitted() == 1)
        [connection] = site.door._all
        assert is_familiar(connection)


@pytest.mark.parametrize("name", [*protocol_uvicorn.METHODS, *protocol_uvicorn.ATTRIBUTES])
def test_a_uvicorn_without_one_of_the_names_is_not(name):
    methods = dict.fromkeys(protocol_uvicorn.METHODS, lambda: None)
    names = methods | dict.fromkeys(protocol_uvicorn.ATTRIBUTES)
    assert is_familiar(SimpleNamespace(**names))
    del names[name]
    assert not is_familiar(SimpleNamespace(**names))
