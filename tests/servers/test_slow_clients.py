"""Clients that send nothing, or too slowly."""

import contextlib
import http.client
import io
import socket
import threading
import time
from urllib.parse import urlsplit

import anyio
import pytest

from tests.support.serving import serving
from tests.support.subjects import FilterSubject
from tests.support.waiting import GUARD
from tus.adapters.asgi import AsgiAdapter
from tus.adapters.filebody import FileBody
from tus.models import Response
from tus.server.pace import Patience
from tus.stores.directory.store import DirectoryStore

PROMPT = 30  # seconds: half of what the default stall_timeout is


def send_slowly(site, size, pieces, pause):
    """Send a PATCH of ``size`` bytes in pieces; returns the seconds until the server answered or hung up."""
    host = urlsplit(site.url).netloc.split(":")
    with socket.create_connection((host[0], int(host[1])), 10) as client:
        tus = "Tus-Resumable: 1.0.0\r\nHost: x\r\n"
        client.sendall(f"POST /files HTTP/1.1\r\n{tus}Upload-Length: {size}\r\nContent-Length: 0\r\n\r\n".encode())
        location = client.recv(65536).decode().partition("Location: ")[2].partition("\r\n")[0]
        path = urlsplit(location).path
        client.sendall(
            f"PATCH {path} HTTP/1.1\r\n{tus}Upload-Offset: 0\r\nContent-Length: {size}\r\n"
            "Content-Type: application/offset+octet-stream\r\n\r\n".encode()
        )
        done = threading.Event()

        def pour():
            for piece in pieces:
                if done.is_set():
                    return
                try:
                    client.sendall(piece)
                except OSError:
                    return
                time.sleep(pause)

        sender = threading.Thread(target=pour)
        began = time.monotonic()
        sender.start()
        client.settimeout(GUARD)
        reply = client.recv(65536)
        took = time.monotonic() - began
        done.set()
        sender.join()
    return path.rpartition("/")[2], reply, took


def test_a_silent_client_is_cut_and_its_bytes_are_kept(tmp_path):
    with serving("gunicorn-gthread", tmp_path, stall_timeout=2) as site:
        upload_id, reply, took = send_slowly(site, 1_000_000, [b"x" * 100_000], 0)
        assert b" 204 " in reply.splitlines()[0]
        assert b"Upload-Offset: 100000" in reply
        assert 1.5 < took < PROMPT
        assert DirectoryStore(str(site.store)).load(upload_id).offset == 100_000


def test_a_client_below_the_rate_is_cut_and_its_bytes_are_kept(tmp_path):
    with serving("gunicorn-gthread", tmp_path, stall_timeout=2, min_rate="10k") as site:
        upload_id, reply, took = send_slowly(site, 1_000_000, [b"x" * 100] * 200, 0.1)
        assert b" 204 " in reply.splitlines()[0]
        assert 1.5 < took < PROMPT
        kept = DirectoryStore(str(site.store)).load(upload_id).offset
        assert 0 < kept == int(reply.partition(b"Upload-Offset: ")[2].split(b"\r\n")[0])


def test_a_client_above_the_rate_goes_on(tmp_path):
    with serving("gunicorn-gthread", tmp_path, stall_timeout=2, min_rate=500) as site:
        _, reply, took = send_slowly(site, 4000, [b"x" * 100] * 40, 0.08)
        assert b"Upload-Offset: 4000" in reply
        assert took > 2.5


def test_a_slow_sender_is_cut_under_any_server(tmp_path):
    """Where only ``read`` tells what has come, a block that was slow ends the body."""
    subject = FilterSubject(tmp_file_dir=str(tmp_path), stall_timeout=1, min_rate="100k")
    url = subject.url(200_000)

    class Slow:
        sent = 0

        def read(self, size):
            time.sleep(0.6)
            self.sent += 20_000
            return b"x" * 20_000

    slow = Slow()
    reply = subject.patch(url, 0, b"", length=200_000, environ={"wsgi.input": slow}, validate=False)
    assert reply.status == 204
    assert 0 < int(reply["Upload-Offset"]) == slow.sent < 100_000, "it was cut within three seconds"


# -- Readers of downloads --


def deaf_reader(site, path):
    """A client that asks for a file, and reads nothing."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.connect(("127.0.0.1", site.port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    client.settimeout(GUARD)
    return client


def stored(site, size):
    """The path of a finished file."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=GUARD)
    fields = {"Tus-Resumable": "1.0.0", "Upload-Length": str(size), "Content-Type": "application/offset+octet-stream"}
    connection.request("POST", "/files", bytes(size), fields)
    location = connection.getresponse().getheader("Location")
    connection.close()
    return urlsplit(location).path


def read_all(reader):
    """The number of bytes that come until the server ends the connection, or nothing comes for a while."""
    read = 0
    with contextlib.suppress(OSError):
        reader.settimeout(1)
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        while block := reader.recv(1 << 20):
            read += len(block)
    return read


KEPT = {"download": True, "keep_finished": True}


def test_readers_that_do_not_read_give_their_threads_back(tmp_path):
    """The server has eight threads, and all of them would wait for ever."""
    size = 30_000_000  # more than the buffers of a connection hold
    with serving("gunicorn-gthread", tmp_path, stall_timeout=2, **KEPT) as site:
        path = stored(site, size)
        readers = [deaf_reader(site, path) for _ in range(8)]
        with contextlib.ExitStack() as stack:
            for reader in readers:
                stack.enter_context(reader)
            connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=GUARD)
            connection.request("HEAD", path, headers={"Tus-Resumable": "1.0.0"})
            assert connection.getresponse().status == 200
            connection.close()
            assert any(read_all(reader) < size for reader in readers)
        assert "Traceback" not in site.log.read_text()


@pytest.mark.long
def test_a_reader_that_reads_slowly_gets_everything(tmp_path):
    """A socket is writable again only once a third of its buffer is free, which takes longer than the timeout here."""
    size = 6_000_000
    with serving("gunicorn-gthread", tmp_path, stall_timeout=1, **KEPT) as site:
        path = stored(site, size)
        with deaf_reader(site, path) as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)
            read = 0
            while read < size:
                block = reader.recv(40_000)
                assert block, f"it ended after {read} bytes"
                read += len(block)
                time.sleep(0.1)


@pytest.mark.parametrize("name", ["sendfile", "several ranges"])
def test_every_form_of_a_download_has_its_bytes(tmp_path, name):
    size = 3_000_000
    fields = {"Range": "bytes=0-999999,1000000-1999999"} if name == "several ranges" else {}
    with serving("gunicorn-gthread", tmp_path, **KEPT) as site:
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=GUARD)
        path = stored(site, size)
        for _ in range(2):  # on one connection
            connection.request("GET", path, headers=fields)
            reply = connection.getresponse()
            body = reply.read()
            assert len(body) == int(reply.getheader("Content-Length"))
            assert body.count(0) == (2_000_000 if fields else size)
        connection.close()


def test_under_asgi_a_response_that_is_not_read_ends():
    file, sent = io.BytesIO(bytes(200_000)), []

    async def send(message):
        sent.append(message["type"])
        if len(sent) > 2:
            await anyio.sleep_forever()

    async def respond():
        scope = {"type": "http", "method": "GET", "http_version": "1.1", "headers": [], "path": "/", "scheme": "http"}
        adapter = AsgiAdapter(scope, anyio.sleep_forever, send)
        adapter.respond(Response(200, "OK", [], FileBody(file, 0, 200_000, reaches_end=True)))
        with anyio.fail_after(GUARD):
            await adapter.send_response(Patience(silence=0.05))

    anyio.run(respond)
    assert sent == ["http.response.start", "http.response.body", "http.response.body"]
    assert file.closed


def test_under_asgi_a_download_ends_with_its_connection():
    """A server drops what is sent after that, so nothing else would end the reading of the file."""
    file, sent = io.BytesIO(bytes(10_000_000)), []

    async def receive():
        while len(sent) < 3:
            await anyio.sleep(0.001)
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message["type"])
        await anyio.sleep(0.001)

    async def respond():
        scope = {"type": "http", "method": "GET", "http_version": "1.1", "headers": [], "path": "/", "scheme": "http"}
        adapter = AsgiAdapter(scope, receive, send)
        adapter.respond(Response(200, "OK", [], FileBody(file, 0, 10_000_000, reaches_end=True)))
        await adapter.send_response()

    anyio.run(respond)
    assert len(sent) < 20
    assert file.closed
