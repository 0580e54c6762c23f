"""Bodies that go from a lent socket through a pipe to the file: nothing is different from bodies in memory."""

import contextlib
import errno
import fcntl
import hashlib
import os
import resource
import socket
import struct
import threading
from base64 import b64encode
from unittest import mock

import pytest
from gunicorn.config import Config
from gunicorn.http import RequestParser
from gunicorn.http.wsgi import create as respond

from tests.support.descriptors import opened
from tests.support.disk import full_disk, mounted
from tests.support.serving import uvicorn_in_thread
from tests.support.waiting import GUARD, wait_until
from tests.support.wire import DATA, SIZE, create, offset_of, patch, reply
from tus import Filter, events
from tus.asgi import TusMiddleware
from tus.errors import QuotaExceeded, StorageFull, UploadReplaced
from tus.filesystem import pipes
from tus.filesystem.pipes import Pipe
from tus.models import Upload
from tus.protocols.bodies import Body, Intake
from tus.server import body_gunicorn, piping
from tus.server.reception import Reception
from tus.stores.directory.sessions import DirectorySession
from tus.stores.directory.store import DirectoryStore
from tus.stores.interface import Limits
from tus.stores.memory import MemoryStore

pytestmark = pytest.mark.skipif(not hasattr(os, "splice"), reason="only Linux splices")

HALF = 1_500_000  # bytes


class Site:
    """An application that takes uploads under /files.

    Attributes:
        landed: the finished files.
        poured: the bytes of each call that has moved some from a pipe to a file.
        port: where it is served.
    """

    def __init__(self, directory):
        self.directory = directory
        self.landed = []
        self.poured = []
        self.port = 0

    def options(self):
        return {"upload_path": "/files", "tmp_file_dir": str(self.directory), "on_finished": self.take}

    def take(self, upload):
        with upload.open() as file:
            self.landed.append(file.read())

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=GUARD)


@contextlib.contextmanager
def under_gunicorn(site):
    """gunicorn's own input, parser and response, in one thread for each connection."""
    app, config = Filter(None, **site.options()), Config()

    def serve(connection, address):
        with connection, contextlib.suppress(ConnectionError):  # there may be no client for the response
            connection.settimeout(None)
            for request in RequestParser(config, connection, address):
                response, environ = respond(request, connection, address, ("127.0.0.1", site.port), config)
                chunks = app(environ, response.start_response)
                for chunk in chunks:
                    response.write(chunk)
                response.close()
                getattr(chunks, "close", lambda: None)()
                if request.should_close() or environ["wsgi.input"].failed:
                    return

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threads.append(threading.Thread(target=serve, args=listener.accept(), daemon=True))
                threads[-1].start()

    threads = [threading.Thread(target=accept, daemon=True)]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        site.port = listener.getsockname()[1]
        threads[0].start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(GUARD)
        assert not any(thread.is_alive() for thread in threads)
    app.service.close()


@contextlib.contextmanager
def under_uvicorn(site):
    app = TusMiddleware(None, **site.options())
    with uvicorn_in_thread(app, http="httptools", log_level="error", lifespan="off") as site.port:
        yield
    app.service.close()


@pytest.fixture(params=[under_gunicorn, under_uvicorn])
def serving(request):
    return request.param


@pytest.fixture
def site(tmp_path, monkeypatch):
    site, pour = Site(tmp_path), Pipe.pour

    def noting(pipe, fd, offset, size):
        done = pour(pipe, fd, offset, size)
        site.poured.append(done)
        return done

    monkeypatch.setattr(Pipe, "pour", noting)
    monkeypatch.setattr(piping, "LEAST", 1)  # else a server that is faster than its client pours nothing
    return site


@contextlib.contextmanager
def all_pipes_closed():
    """All that bodies were in; other threads have pipes for other things."""
    made, make = set(), Pipe.__init__

    def noting(pipe):
        make(pipe)
        made.add(os.readlink(f"/proc/self/fd/{pipe._in}"))

    with mock.patch.object(Pipe, "__init__", noting):
        yield
    wait_until(lambda: made.isdisjoint(opened()), "a pipe stays open")


@contextlib.contextmanager
def full_at(size):
    """No file of this process can be longer. The kernel then writes what fits, as on a disk that fills up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# -- Through a server --


def test_nearly_all_bytes_are_poured(site, serving):
    with serving(site), site.connect() as connection, all_pipes_closed():
        for _ in range(2):
            path = create(connection, path="/files")
            connection.sendall(patch(path, 0, SIZE) + DATA)
            assert reply(connection)[0] == 204
    assert site.landed == [DATA, DATA]
    assert sum(site.poured) > 2 * (SIZE - 600_000), "the server itself has read no more than its buffer"


def test_the_bytes_of_a_slow_client_are_gathered_in_memory(site, serving, monkeypatch):
    monkeypatch.setattr(piping, "LEAST", 64 * 1024)
    with serving(site), site.connect() as connection:
        path = create(connection, path="/files")
        connection.sendall(patch(path, 0, SIZE) + DATA[:1000])
        with site.connect() as other:
            for end in (11_000, 21_000):
                connection.sendall(DATA[end - 10_000 : end])
                wait_until(lambda end=end: offset_of(other, path) == end, "bytes are not counted")
    assert site.poured == []


@pytest.mark.parametrize("linger", [None, 0], ids=["FIN", "RST"])
def test_what_came_before_a_cut_is_kept(site, serving, linger):
    with serving(site), site.connect() as other, all_pipes_closed():
        with site.connect() as connection:
            path = create(connection, path="/files")
            connection.sendall(patch(path, 0, SIZE) + DATA[:HALF])
            wait_until(lambda: offset_of(other, path) == HALF, "bytes are not counted")
            if linger is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, linger))
        assert offset_of(other, path) == HALF
        assert site.poured
        other.sendall(patch(path, HALF, SIZE - HALF) + DATA[HALF:])
        assert reply(other)[0] == 204
    assert site.landed == [DATA]


def test_a_disk_that_fills_up_keeps_what_fitted(site, serving):
    with serving(site), all_pipes_closed():
        with full_at(HALF), site.connect() as connection:
            path = create(connection, path="/files")
            connection.sendall(patch(path, 0, SIZE) + DATA)
            assert reply(connection)[0] == 507
        assert site.poured, "the bytes have come another way"
        with site.connect() as connection:
            assert offset_of(connection, path) == HALF
            connection.sendall(patch(path, HALF, SIZE - HALF) + DATA[HALF:])
            assert reply(connection)[0] == 204
    assert site.landed == [DATA]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_real_disk_that_fills_up_keeps_what_fitted(site, serving, kind, tmp_path):
    with mounted(kind, tmp_path, 16) as disk:
        site.directory = disk / "uploads"
        site.directory.mkdir()
        with serving(site), site.connect() as connection, site.connect() as other, all_pipes_closed():
            path = create(connection, 8 * SIZE, path="/files")
            connection.sendall(patch(path, 0, 8 * SIZE))
            for _ in range(8):
                connection.sendall(DATA)
            assert reply(connection)[0] == 507
            offset = offset_of(other, path)
            data = (site.directory / path.rpartition("/")[2]).read_bytes()
            assert SIZE < offset == len(data) < 8 * SIZE
            assert data == (DATA * 8)[:offset]
            assert site.poured


def test_a_newer_request_takes_over(site, serving):
    with serving(site), site.connect() as old, site.connect() as new, all_pipes_closed():
        path = create(new, path="/files")
        old.sendall(patch(path, 0, SIZE) + DATA[:HALF])
        wait_until(lambda: offset_of(new, path) == HALF, "bytes are not counted")
        new.sendall(patch(path, HALF, SIZE - HALF) + DATA[HALF : 2 * HALF - 1])
        with site.connect() as other:
            wait_until(lambda: offset_of(other, path) == 2 * HALF - 1, "bytes are not counted")
        with contextlib.suppress(ConnectionError):  # it ends while the rest is sent
            old.sendall(bytes(SIZE - HALF))
        new.sendall(DATA[2 * HALF - 1 :])
        assert reply(new)[0] == 204
    assert site.landed == [DATA]


def test_a_server_that_stops_keeps_what_has_come(site, monkeypatch):
    monkeypatch.setattr(body_gunicorn, "LOOK", 0.01)
    monkeypatch.setattr(body_gunicorn, "_interrupted", False)
    with under_gunicorn(site), site.connect() as connection, site.connect() as other, all_pipes_closed():
        path = create(other, path="/files")
        connection.sendall(patch(path, 0, SIZE) + DATA[:HALF])
        wait_until(lambda: offset_of(other, path) == HALF, "bytes are not counted")
        body_gunicorn.interrupt_all()
        assert reply(connection)[1]["upload-offset"] == str(HALF)
    assert site.poured


def test_a_checksum_needs_to_see_the_bytes(site, serving):
    digest = b64encode(hashlib.sha1(DATA).digest()).decode()
    with serving(site), site.connect() as connection:
        path = create(connection, path="/files")
        connection.sendall(patch(path, 0, SIZE, f"Upload-Checksum: sha1 {digest}") + DATA)
        assert reply(connection)[0] == 204
    assert (site.landed, site.poured) == ([DATA], [])


def failing_splice(name, number):
    """``splice``, which fails where it gets an argument of a name."""

    def splice(*arguments, **words):
        if name in words:
            raise OSError(number, os.strerror(number))
        return os.splice(*arguments, **words)

    return splice


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS])
def test_a_file_system_that_cannot_splice_gets_copies(site, serving, monkeypatch, number):
    monkeypatch.setattr(pipes, "_splice", failing_splice("offset_dst", number))
    with serving(site), site.connect() as connection, all_pipes_closed():
        path = create(connection, path="/files")
        connection.sendall(patch(path, 0, SIZE) + DATA)
        assert reply(connection)[0] == 204
    assert site.landed == [DATA]
    assert site.poured
    if serving is under_gunicorn:
        assert len(site.poured) == 1, "the rest is received into memory"


def refuse(socket):
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


@pytest.mark.parametrize(
    ("module", "name", "failing"),
    [(pipes, "_splice", failing_splice("flags", errno.EINVAL)), (piping, "waiting", refuse)],
    ids=["it cannot splice", "it cannot be asked"],
)
def test_a_connection_without_such_a_call_loses_no_byte(site, serving, monkeypatch, module, name, failing):
    monkeypatch.setattr(module, name, failing)
    with serving(site), site.connect() as connection, all_pipes_closed():
        path = create(connection, path="/files")
        connection.sendall(patch(path, 0, SIZE) + DATA)
        assert reply(connection)[0] == 204
    assert (site.landed, site.poured) == ([DATA], [])


def test_a_user_who_gets_no_large_pipe_gets_memory(site, serving, monkeypatch):
    def refuse(fd, command, *arguments):
        if command == fcntl.F_SETPIPE_SZ:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return fcntl_fcntl(fd, command, *arguments)

    fcntl_fcntl = fcntl.fcntl
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    with serving(site), site.connect() as connection, all_pipes_closed():
        path = create(connection, path="/files")
        connection.sendall(patch(path, 0, SIZE) + DATA)
        assert reply(connection)[0] == 204
    assert (site.landed, site.poured) == ([DATA], [])


# -- In the store --


@contextlib.contextmanager
def pipe_with(data, head=b""):
    pipe, (sender, receiver) = Pipe.open(), socket.socketpair()
    with sender, receiver, contextlib.closing(pipe):
        sender.sendall(data)
        assert pipe.fill(receiver.fileno(), 1 << 20) == len(data)
        pipe.prepend(head)
        assert len(pipe) == len(head) + len(data)
        yield pipe


@pytest.mark.parametrize("head", [b"", b"old "], ids=["pipe", "head and pipe"])
def test_a_replaced_session_writes_no_byte_of_its_pipe(tmp_path, head):
    store = DirectoryStore(str(tmp_path))
    upload = store.create(Upload(length=20))
    with store.open(upload, 0) as old, pipe_with(b"bytes", head) as pipe, store.open(upload, 0) as new:
        new.write(b"new")
        with pytest.raises(UploadReplaced):
            old.pour(pipe, is_last=False)
        new.write(b" bytes, and more.")
    assert (tmp_path / upload.id).read_bytes() == b"new bytes, and more."


@pytest.mark.parametrize("head", [b"", b"12", b"123456", b"1234567"])
def test_a_limit_in_the_middle_of_a_pipe(tmp_path, head):
    store = DirectoryStore(str(tmp_path), limits=Limits(size=6))
    upload, data = store.create(Upload()), b"123456789"
    poured = pipe_with(data.removeprefix(head), head)
    with store.open(upload, 0) as session, poured as pipe, pytest.raises(QuotaExceeded):
        session.pour(pipe, is_last=False)
    assert store.load(upload.id).offset == 6
    assert (tmp_path / upload.id).read_bytes() == b"123456"


@pytest.mark.parametrize("head", [0, 500, 1000, 1500])
def test_a_disk_that_fills_up_in_the_middle_of_a_pipe(tmp_path, head):
    store, data = DirectoryStore(str(tmp_path)), DATA[:2000]
    upload = store.create(Upload(length=2000))
    poured = pipe_with(data[head:], data[:head])
    with store.open(upload, 0) as session, poured as pipe, full_at(1000), pytest.raises(StorageFull):
        session.pour(pipe, is_last=True)
    assert store.load(upload.id).offset == 1000
    assert store.append(upload, 1000, data[1000:]).is_complete
    assert (tmp_path / upload.id).read_bytes() == data


def test_bytes_behind_a_head_that_did_not_fit_stay_out(tmp_path, monkeypatch):
    """There may be room again a moment later."""
    store = DirectoryStore(str(tmp_path))
    upload = store.create(Upload(length=20))
    with store.open(upload, 0) as session, pipe_with(b"6789", b"12345") as pipe, monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full_disk(3))
        with pytest.raises(StorageFull):
            session.pour(pipe, is_last=False)
    assert (tmp_path / upload.id).read_bytes() == b"123"


@pytest.mark.parametrize("is_last", [False, True])
def test_the_last_bytes_of_a_request_end_its_session(tmp_path, monkeypatch, is_last):
    """No other change of the record says so, and a newer session is not told to have taken over."""
    taken_over = []
    monkeypatch.setitem(events.listeners, events.TakenOver, (taken_over.append,))
    store = DirectoryStore(str(tmp_path))
    upload = store.create(Upload(length=9))
    with store.open(upload, 0) as session, pipe_with(b"1234") as pipe:
        session.pour(pipe, is_last)
        before = (tmp_path / f"{upload.id}.tus").read_bytes()
        assert session.commit().offset == 4
        assert (tmp_path / f"{upload.id}.tus").read_bytes() == before
        with store.open(upload, 4):
            assert len(taken_over) == (not is_last)


def test_only_the_last_bytes_of_a_request_are_called_the_last(site, serving, monkeypatch):
    pour, called = DirectorySession.pour, []

    def noting(session, pipe, is_last):
        called.append(is_last)
        pour(session, pipe, is_last)

    monkeypatch.setattr(DirectorySession, "pour", noting)
    with serving(site), site.connect() as connection:
        path = create(connection, SIZE + 1, path="/files")
        connection.sendall(patch(path, 0, SIZE) + DATA)
        assert reply(connection)[0] == 204
    assert len(called) > 1
    assert [*called[:-1], not called[-1]] == [False] * len(called)


@pytest.mark.parametrize("splices", [True, False])
def test_an_upload_with_digests_is_hashed_and_whole(tmp_path, monkeypatch, splices):
    if not splices:
        monkeypatch.setattr(pipes, "_splice", failing_splice("offset_dst", errno.EINVAL))
    store = DirectoryStore(str(tmp_path))
    upload = store.create(Upload(length=9, hashes=("sha256",)))
    assert not store.can_pour(upload)
    with store.open(upload, 0) as session:
        for data, head in ((b"1234", b""), (b"789", b"56")):
            with pipe_with(data, head) as pipe:
                session.pour(pipe, is_last=bool(head))
        assert session.commit().digests == (("sha256", hashlib.sha256(b"123456789").digest()),)


def can_pour(store, length, small=10, limit=None, checksums=()):
    upload = store.create(Upload(length=100))
    return Reception(store, upload, Intake(0, None, limit, Body(length, checksums)), small=small).can_pour()


def test_only_long_bodies_are_poured_that_no_code_needs_to_see(tmp_path):
    store = DirectoryStore(str(tmp_path))
    assert can_pour(store, 100)
    assert can_pour(store, 100, limit=100)
    assert not can_pour(store, 100, limit=99)
    assert not can_pour(store, 10)
    assert not can_pour(store, None)
    assert not can_pour(store, 100, checksums=(("sha1", bytes(20)),))
    assert not can_pour(MemoryStore(), 100)
