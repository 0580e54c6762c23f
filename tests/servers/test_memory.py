"""The peak of the server's memory does not grow with the body: shown on two sizes, for each way that a body takes."""

import http.client
import random

import psutil
import pytest

from tests.support.serving import serving
from tests.support.wsgi import OCTETS, TUS

MIB = 1 << 20
SMALL, LARGE = 16, 256  # MiB
ROOM = 8 * MIB  # what an allocator may do on its own


def upload(port, size, chunked, summed):
    """One PATCH, sent a piece at a time."""
    piece = random.Random(0).randbytes(MIB)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", "/files", headers=TUS | {"Upload-Length": str(size * MIB), "Content-Length": "0"})
    reply = connection.getresponse()
    reply.read()
    headers = TUS | OCTETS | {"Upload-Offset": "0"}
    if summed:
        import hashlib
        from base64 import b64encode

        digest = hashlib.sha1(piece * size).digest()
        headers["Upload-Checksum"] = "sha1 " + b64encode(digest).decode()
    if not chunked:
        headers["Content-Length"] = str(size * MIB)
    connection.request(
        "PATCH", reply.headers["Location"], (piece for _ in range(size)), headers, encode_chunked=chunked
    )
    reply = connection.getresponse()
    reply.read()
    assert (reply.status, reply.headers["Upload-Offset"]) == (204, str(size * MIB))
    connection.close()


def peak(process):
    """VmHWM of the worker, in bytes."""
    worker = psutil.Process(process.pid).children()[0]
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
