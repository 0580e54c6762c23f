"""Applications with views under gunicorn, and a client that may cut its connection."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.serving import ROOT, free_port, wait_for_port
from tests.support.waiting import GUARD
from tests.support.wsgi import OCTETS, TUS


class Served:
    """An application that is served.

    Attributes:
        port: on 127.0.0.1.
        log: what the server has printed.
    """

    def __init__(self, port: int, log: Path) -> None:
        self.port, self.log = port, log

    def send(self, method, url, headers=(), body=b"", protocol=TUS):
        """Send a request over a connection of its own; return the status and the header fields."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=GUARD)) as connection:
            connection.request(method, urlsplit(url).path, body, dict(protocol) | dict(headers))
            reply = connection.getresponse()
            reply.read()
            return reply.status, reply.headers

    def create(self, path, length, headers=()):
        status, headers = self.send("POST", path, {"Upload-Length": str(length)} | dict(headers))
        assert status == 201
        return headers["Location"]

    def patch(self, url, offset, body):
        return self.send("PATCH", url, OCTETS | {"Upload-Offset": str(offset)}, body)[0]

    def offset(self, url):
        """Return the offset for the client, or None while the upload is in use."""
        status, headers = self.send("HEAD", url)
        return int(headers["Upload-Offset"]) if status == 200 else None

    def cut(self, url, offset, length, body):
        """Send a part of the body that was announced, and end the connection."""
        fields = TUS | OCTETS | {"Upload-Offset": str(offset), "Content-Length": str(length), "Host": "localhost"}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        with socket.create_connection(("127.0.0.1", self.port), timeout=GUARD) as connection:
            connection.sendall(f"PATCH {urlsplit(url).path} HTTP/1.1\r\n{head}\r\n".encode() + body)


@contextlib.contextmanager
def gunicorn(application: str, directory: Path, cwd: Path = ROOT, **environment: str):
    """Serve an application with threads; the process is gone afterwards."""
    port, log = free_port(), directory / "gunicorn.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--threads", "4", "-b", f"127.0.0.1:{port}", application],
            cwd=cwd,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"} | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for_port(port, process, log)
        yield Served(port, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
