"""The socket that uvicorn lends, from which threads read a body: no byte is lost, or read as the next request."""

import asyncio
import contextlib
import logging
import select
import socket
import ssl
import subprocess
import sys
import time
from itertools import chain
from types import SimpleNamespace

import pytest

from tests.support.serving import uvicorn_in_thread
from tests.support.waiting import GUARD, wait_until
from tests.support.wire import DATA, SIZE, create, head_of, offset_of, patch, reply
from tus.asgi import TusApp
from tus.server import body_uvicorn
from tus.server.body_uvicorn import UvicornBody


class Site:
    """A TusApp under uvicorn.

    Attributes:
        landed: the finished files.
        lent: for each body that is long enough, whether its socket was lent.
    """

    def __init__(self, directory):
        self.landed = []
        self.lent = []
        self.app = TusApp(tmp_file_dir=str(directory), on_finished=self.take)
        self.port = 0

    def take(self, upload):
        with upload.open() as file:
            self.landed.append(file.read())

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=GUARD)


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request):
    return request.param


@pytest.fixture
def site(tmp_path, monkeypatch):
    site, of = Site(tmp_path), UvicornBody.of

    def noting(receive, length):
        lent = of(receive, length)
        site.lent.append(lent is not None)
        return lent

    monkeypatch.setattr(UvicornBody, "of", noting)
    return site


@contextlib.contextmanager
def serving(site, loop, app=None, **settings):
    settings = {"http": "httptools", "loop": loop, "log_level": "error"} | settings
    with uvicorn_in_thread(app or site.app, **settings) as site.port:
        yield


@pytest.mark.parametrize("first", [0, 10, 100_000])
def test_a_connection_goes_on_after_a_lent_body(site, loop, first):
    """The next request is sent in one piece with the end of the body."""
    with serving(site, loop), site.connect() as connection:
        path, other = create(connection), create(connection, 5)
        connection.sendall(patch(path, 0, SIZE) + DATA[:first])
        time.sleep(0.1)
        connection.sendall(DATA[first:] + head_of("HEAD", other) + patch(other, 0, 5) + b"hello")
        assert reply(connection)[0] == 204
        assert reply(connection)[1]["upload-offset"] == "0"
        assert reply(connection)[0] == 204
    assert site.landed == [DATA, b"hello"]
    assert site.lent == [True]


def test_many_bodies_on_one_connection(site, loop):
    piece = 300_000
    with serving(site, loop), site.connect() as connection:
        path = create(connection)
        for offset in range(0, SIZE, piece):
            connection.sendall(patch(path, offset, piece) + DATA[offset : offset + piece])
            assert reply(connection)[0] == 204
    assert site.landed == [DATA]
    assert len(site.lent) == 10  # True, unless most of a body was there when its request began


def test_another_reader_of_the_connection_takes_no_byte(site, loop):
    """An application around ours waits for the end of the connection, as frameworks do."""

    async def around(scope, receive, send):
        async def listen():
            while not site.lent:
                await asyncio.sleep(0.001)
            await receive()

        listener = asyncio.create_task(listen())
        await site.app(scope, receive, send)
        listener.cancel()

    with serving(site, loop, around), site.connect() as connection:
        path = create(connection)
        connection.sendall(patch(path, 0, SIZE))
        for start in range(0, SIZE, 100_000):
            connection.sendall(DATA[start : start + 100_000])
            time.sleep(0.01)
        assert reply(connection)[0] == 204
    assert site.landed == [DATA]
    assert site.lent == [True]


def test_a_client_that_waits_for_permission_gets_it(site, loop):
    with serving(site, loop), site.connect() as connection:
        path = create(connection)
        connection.sendall(patch(path, 0, SIZE, "Expect: 100-continue"))
        assert reply(connection)[0] == 100
        connection.sendall(DATA)
        assert reply(connection)[0] == 204
    assert site.landed == [DATA]


def test_a_slow_client_holds_no_thread(site, loop, monkeypatch):
    """More clients than there are threads to write stop in the middle of a body."""
    monkeypatch.setattr("tus.server.aio.THREADS", 4)
    with serving(site, loop), contextlib.ExitStack() as stack:
        connections = [stack.enter_context(site.connect()) for _ in range(12)]
        paths = [create(connection) for connection in connections]
        for connection, path in zip(connections, paths, strict=True):
            connection.sendall(patch(path, 0, SIZE) + DATA[:1_000_000])
        with site.connect() as other:
            for path in paths:
                wait_until(lambda path=path: offset_of(other, path) == 1_000_000, "bytes are not counted")
            whole = create(other)
            other.sendall(patch(whole, 0, SIZE) + DATA)
            assert reply(other)[0] == 204
        for connection in connections:
            connection.sendall(DATA[1_000_000:])
            assert reply(connection)[0] == 204
    assert site.landed == [DATA] * 13


@pytest.mark.parametrize("more", [0, 1_500_000])
def test_a_newer_request_takes_over_from_a_silent_one(site, loop, more):
    """What the older one still sends is read, so that it can see its response."""
    with serving(site, loop), site.connect() as silent, site.connect() as connection:
        path = create(connection)
        silent.sendall(patch(path, 0, SIZE) + DATA[:1_000_000])
        wait_until(lambda: offset_of(connection, path) == 1_000_000, "bytes are not counted")
        connection.sendall(patch(path, 1_000_000, SIZE - 1_000_000) + DATA[1_000_000:])
        assert reply(connection)[0] == 204
        silent.sendall(DATA[1_000_000 : 1_000_000 + more])
        assert reply(silent)[1]["connection"] == "close"
        assert silent.recv(1) == b""
    assert site.landed == [DATA]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems size their buffers in other ways")
def test_the_kernel_holds_more_of_a_body_that_is_copied_and_delays_no_byte():
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        server = listener.accept()[0]
        with server:
            before = server.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
            body_uvicorn._make_room(server, max(body_uvicorn.ROOM, 2 * before))
            assert server.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > before
            client.sendall(b"x")
            assert select.select([server], [], [], GUARD)[0]
    body_uvicorn._make_room(server, 1)  # a closed socket is for the next read to find


def test_an_encrypted_connection_is_not_lent(site, loop, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    served = serving(site, loop, ssl_keyfile=str(key), ssl_certfile=str(certificate))
    with served, context.wrap_socket(site.connect()) as connection:
        connection.sendall(head_of("POST", "/", f"Upload-Length: {SIZE}", "Content-Length: 0"))
        path = reply(connection)[1]["location"].removeprefix("https://localhost")
        connection.sendall(patch(path, 0, SIZE) + DATA)
        assert reply(connection)[0] == 204
    assert (site.landed, site.lent) == ([DATA], [False])


FAMILIAR = {
    "cycle": ("body", "more_body", "disconnected", "waiting_for_100_continue"),
    "transport": ("pause_reading", "resume_reading", "get_extra_info"),
    "flow": ("read_paused",),
}


def names_of(without=""):
    """The objects of a connection with the names that are used, but for one."""
    parts = {part: SimpleNamespace(**dict.fromkeys(set(names) - {without})) for part, names in FAMILIAR.items()}
    if without != "body":
        parts["cycle"].body = bytearray()
    protocol = type("Protocol", (), {"__module__": body_uvicorn._MODULE})()
    parser = type("Other" if without == "parser" else "HttpRequestParser", (), {})()
    vars(protocol).update(parts, parser=parser)
    return parts["cycle"], protocol


def test_a_connection_with_every_name_is_familiar():
    assert body_uvicorn._is_familiar(*names_of())


@pytest.mark.parametrize("name", [*chain(*FAMILIAR.values()), "parser"])
def test_a_connection_without_one_of_the_names_is_not(name):
    assert not body_uvicorn._is_familiar(*names_of(without=name))


def test_an_unfamiliar_uvicorn_reads_bodies_itself(site, loop, monkeypatch, caplog):
    caplog.set_level(logging.WARNING, "tus")
    monkeypatch.setattr(body_uvicorn, "_has_warned", False)
    monkeypatch.setattr(body_uvicorn, "_is_familiar", lambda cycle, protocol: False)
    with serving(site, loop), site.connect() as connection:
        for _ in range(2):
            path = create(connection)
            connection.sendall(patch(path, 0, SIZE) + DATA)
            assert reply(connection)[0] == 204
    assert (site.landed, site.lent) == ([DATA, DATA], [False, False])
    assert [record.getMessage() for record in caplog.records].count(
        "this version of uvicorn is not known, so bodies are read by its own, slower way"
    ) == 1
