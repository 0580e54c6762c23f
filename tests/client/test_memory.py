"""The memory of a client does not grow with the file."""

from __future__ import annotations

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support.serving import ROOT

MIB = 1 << 20
SMALL, LARGE = 64 * MIB, 1024 * MIB
#: Uploads two files, and prints its largest size after each, in KiB.
PROGRAM = """
import sys
from benchmarks.uploading import PROGRAMS
for path in sys.argv[3:]:
    PROGRAMS[sys.argv[1]]()(sys.argv[2], path)
    print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""


class Discarding(BaseHTTPRequestHandler):
    """Speaks tus as far as an upload without interruptions needs it, and keeps nothing."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        left, buffer = int(self.headers.get("Content-Length", 0)), memoryview(bytearray(MIB))
        while left and (size := self.rfile.readinto(buffer[:left])):
            left -= size
        end = int(self.headers.get("Upload-Offset", 0)) + int(self.headers.get("Content-Length", 0))
        self.send_response({"POST": 201, "PATCH": 204}.get(self.command, 200))
        for name, value in {
            "Tus-Version": "1.0.0",
            "Tus-Extension": "creation,concatenation",
            "Location": "/files/1",
            "Upload-Offset": end,
            "Content-Length": 0,
        }.items():
            self.send_header(name, str(value))
        self.end_headers()

    do_OPTIONS = do_POST = do_PATCH = answer  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.fixture
def url():
    with ThreadingHTTPServer(("127.0.0.1", 0), Discarding) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/files/"
        server.shutdown()
        thread.join()


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("client", ["ours", "ours-async", "ours-parallel"])
def test_memory_does_not_grow_with_the_file(url, client, tmp_path):
    paths = []
    for size in (SMALL, LARGE):
        paths.append(tmp_path / f"{size}")
        with paths[-1].open("wb") as file:
            file.truncate(size)
    environment = {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM, client, url, *paths]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    small, large = map(int, done.stdout.split())
    assert large - small < 20 * 1024
