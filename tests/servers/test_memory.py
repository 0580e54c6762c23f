"""The peak of the server's memory does not grow with the body: shown on two sizes, for each way that a body takes."""

import hashlib
import http.client
import random
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psutil
import pytest

from tests.support.serving import serving
from tests.support.wsgi import OCTETS, TUS

MIB = 1 << 20
SMALL, LARGE = 16, 256  # MiB
ROOM = 8 * MIB  # what an allocator may do on its own


def upload(port, size, chunked, summed, more=0):
    """One PATCH, sent a piece at a time, of an upload that has some more bytes."""
    piece = random.Random(0).randbytes(MIB)
    url = send(port, "POST", "/files", TUS | {"Upload-Length": str(size * MIB + more), "Content-Length": "0"})[
        "Location"
    ]
    headers = TUS | OCTETS | {"Upload-Offset": "0"}
    if summed:
        hasher = hashlib.sha1()
        for _ in range(size):
            hasher.update(piece)
        headers["Upload-Checksum"] = "sha1 " + b64encode(hasher.digest()).decode()
    if not chunked:
        headers["Content-Length"] = str(size * MIB)
    assert send(port, "PATCH", url, headers, (piece for _ in range(size)), chunked)["Upload-Offset"] == str(size * MIB)


def send(port, method, url, headers, body=None, chunked=False):
    """Send a request on a connection of its own: a server ends one that is idle for longer than it likes."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
        connection.request(method, url, body, headers, encode_chunked=chunked)
        reply = connection.getresponse()
        assert (reply.status, reply.read()) == ({"POST": 201, "PATCH": 204}[method], b"")
        return reply.headers


def peak(process):
    """VmHWM of the worker, in bytes."""
    worker = next(iter(psutil.Process(process.pid).children()), process)
    with open(f"/proc/{worker.pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


@pytest.mark.parametrize("way", ["length", "chunked", "checksum"])
def test_memory_does_not_grow_with_the_body(tmp_path, way):
    with serving("gunicorn-gthread", tmp_path, fsync="none") as server:
        upload(server.port, SMALL, way == "chunked", way == "checksum")
        small = peak(server.process)
        upload(server.port, LARGE, way == "chunked", way == "checksum")
        large = peak(server.process)
    assert large - small < ROOM, f"{small / MIB:.1f} MiB for {SMALL} MiB, {large / MIB:.1f} MiB for {LARGE} MiB"


@pytest.mark.parametrize("name", ["gunicorn-gthread", "uvicorn-httptools"])
@pytest.mark.parametrize(("summed", "most"), [(False, ROOM), (True, ROOM + 16 * MIB)], ids=["length", "checksum"])
def test_16_bodies_at_once_need_little(tmp_path, name, summed, most):
    """Bodies in pipes need nothing, and those that must be hashed a buffer of 1 MiB each."""
    more = 1  # what the application does with a whole file does not count
    with serving(name, tmp_path, fsync="none") as server, ThreadPoolExecutor(16) as clients:
        upload(server.port, SMALL, False, False, more)
        alone = peak(server.process)
        for done in [clients.submit(upload, server.port, SMALL, False, summed, more) for _ in range(16)]:
            done.result()
        used = peak(server.process)
    assert used - alone < most, f"{alone / MIB:.1f} MiB for one, {used / MIB:.1f} MiB for 16"
