"""Clients that send nothing, or too slowly."""

import socket
import threading
import time
from urllib.parse import urlsplit

from tests.support.serving import serving
from tests.support.subjects import FilterSubject
from tus.stores.directory.store import DirectoryStore


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
        client.settimeout(20)
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
        assert 1.5 < took < 8
        assert DirectoryStore(str(site.store)).load(upload_id).offset == 100_000


def test_a_client_below_the_rate_is_cut_and_its_bytes_are_kept(tmp_path):
    with serving("gunicorn-gthread", tmp_path, stall_timeout=2, min_rate="10k") as site:
        upload_id, reply, took = send_slowly(site, 1_000_000, [b"x" * 100] * 200, 0.1)
        assert b" 204 " in reply.splitlines()[0]
        assert 1.5 < took < 8
        kept = DirectoryStore(str(site.store)).load(upload_id).offset
        assert 0 < kept == int(reply.partition(b"Upload-Offset: ")[2].split(b"\r\n")[0])


def test_a_client_above_the_rate_goes_on(tmp_path):
    with serving("gunicorn-gthread", tmp_path, stall_timeout=1, min_rate=500) as site:
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
    began = time.monotonic()
    reply = subject.patch(url, 0, b"", length=200_000, environ={"wsgi.input": slow}, validate=False)
    assert reply.status == 204
    assert time.monotonic() - began < 3
    assert 0 < int(reply["Upload-Offset"]) == slow.sent < 200_000
