"""Real servers on real sockets, each with the middleware in front of an application that files what it gets.

``python -m tests.support.serving SERVER PORT`` is what runs in the other process.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.waiting import GUARD, wait_until

ROOT = Path(__file__).parents[2]
WSGI_SERVERS = ("gunicorn-sync", "gunicorn-gthread", "waitress", "cheroot", "gevent", "wsgiref")
ASGI_SERVERS = ("uvicorn-httptools", "uvicorn-h11", "hypercorn", "hypercorn-trio", "granian", "gunicorn-asgi")
SERVERS = WSGI_SERVERS + ASGI_SERVERS
UPLOAD_PATH = "/files"
_CONFIG = "TUS_TEST_CONFIG"


@dataclass
class Serving:
    """A server that runs.

    Attributes:
        port: on 127.0.0.1.
        url: where uploads are created.
        store: the ``tmp_file_dir``.
        landed: where the application puts each finished file, under its upload's id, beside ``<id>.json``.
        handovers: the ids that the application was called with, a line for each call.
        process: of the server, the leader of its own process group.
        log: what the server has printed.
    """

    port: int
    url: str
    store: Path
    landed: Path
    handovers: Path
    process: subprocess.Popen[bytes]
    log: Path

    def worker_of(self, client: socket.socket) -> int:
        """The id of the gunicorn worker at the other end of a connection."""
        ours = client.getsockname()
        for worker in psutil.Process(self.process.pid).children():
            if any(connection.raddr == ours for connection in worker.net_connections("tcp4")):
                return worker.pid
        raise LookupError(f"no worker holds the connection from port {ours[1]}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(server: str, directory: Path, **options: object) -> Iterator[Serving]:
    """Run one of :data:`SERVERS` with the given options of ``Filter``; the process is gone afterwards."""
    store, landed, log = directory / "store", directory / "landed", directory / f"{server}.log"
    landed.mkdir(exist_ok=True)
    port = free_port()
    options = {"upload_path": UPLOAD_PATH, "tmp_file_dir": str(store), "send_file": True} | options
    config = json.dumps({"landed": str(landed), "options": options})
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.serving", server, str(port)],
            cwd=ROOT,
            env=os.environ | {_CONFIG: config, "PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for_port(port, process, log)
        url = f"http://127.0.0.1:{port}{UPLOAD_PATH}"
        yield Serving(port, url, store, landed, _handovers(landed), process, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _handovers(landed: Path) -> Path:
    return landed.parent / "handovers"


@contextlib.contextmanager
def command(
    arguments: Sequence[str | os.PathLike[str]], directory: Path, **how: object
) -> Iterator[subprocess.Popen[bytes]]:
    """Run an installed command in a directory; whatever it has started is gone afterwards.

    What it prints is in ``stdout`` and ``stderr`` there. It does not see the sources in front of what is installed.
    """
    script = Path(sysconfig.get_path("scripts")) / arguments[0]
    environment = os.environ | {"HOME": str(directory), "PYTHONUNBUFFERED": "1"}
    with (directory / "stdout").open("wb") as stdout, (directory / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [script, *arguments[1:]],
            **{"cwd": directory, "env": environment, "start_new_session": True} | how,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
    try:
        yield process
    finally:
        if process.poll() is None:  # else its number may be another's by now
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + GUARD
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"the server did not start:\n{log.read_text()}")


# -- In the server's process --------------------------------------------------------------------------------------


@functools.cache
def the_filter():
    """``Filter`` around :func:`file_away`; built on first use, after a server has forked."""
    from tus import Filter

    return Filter(file_away, **json.loads(os.environ[_CONFIG])["options"])


def file_away(environ, start_response):
    """Put the finished file where the test looks for it."""
    upload = environ.get("tus.upload")
    if upload is None:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
        return [b"home"]
    landed = Path(json.loads(os.environ[_CONFIG])["landed"])
    with _handovers(landed).open("a") as handovers:
        handovers.write(f"{upload.id}\n")
    time.sleep(float(upload.text_metadata.get("seconds", 0)))
    with (landed / upload.id).open("wb") as file:
        shutil.copyfileobj(environ["wsgi.input"], file)
    (landed / f"{upload.id}.json").write_text(json.dumps(upload.text_metadata))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5"), ("X-App", "has it")])
    return [b"taken"]


def call_application(environ, start_response):
    return the_filter()(environ, start_response)


@functools.cache
def the_middleware():
    """``TusMiddleware`` around :func:`file_away`."""
    from tus.asgi import TusMiddleware

    return TusMiddleware(as_asgi(file_away), **json.loads(os.environ[_CONFIG])["options"])


def as_asgi(application):
    """Return an ASGI application that calls one of WSGI with the whole file, in a thread."""

    async def called(scope, receive, send):
        import anyio

        if scope["type"] == "lifespan":
            while (await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        file, more = io.BytesIO(), "tus.upload" in scope
        while more:
            message = await receive()
            file.write(message["body"])
            more = message["more_body"]
        file.seek(0)
        head = []
        environ = scope | {"wsgi.input": file}
        blocks = await anyio.to_thread.run_sync(application, environ, lambda *arguments: head.extend(arguments))
        headers = [(name.lower().encode(), value.encode()) for name, value in head[1]]
        await send({"type": "http.response.start", "status": int(head[0][:3]), "headers": headers})
        await send({"type": "http.response.body", "body": b"".join(blocks)})

    return called


async def call_async_application(scope, receive, send):
    await the_middleware()(scope, receive, send)


def serve_asgi(server: str, port: int) -> None:
    """Become the server."""
    name, _, how = server.partition("-")
    application = "tests.support.serving:call_async_application"
    commands = {
        "uvicorn": ["uvicorn", "--port", str(port), "--http", how, application],
        "hypercorn": ["hypercorn", "-b", f"127.0.0.1:{port}", "-k", how or "asyncio", application],
        "granian": ["granian", "--port", str(port), "--interface", "asgi", application],
        "gunicorn": ["gunicorn", "-k", "asgi", "-b", f"127.0.0.1:{port}", application],
    }
    os.execv(sys.executable, [sys.executable, "-m", *commands[name]])


@contextlib.contextmanager
def uvicorn_in_thread(app, **settings) -> Iterator[int]:
    """Serve an application by uvicorn in a thread of this process, and yield the port."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=0, **settings))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, "uvicorn does not start")
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(GUARD)
    assert not thread.is_alive()


def main(server: str, port: int) -> None:
    if server in ASGI_SERVERS:
        serve_asgi(server, port)
    elif server.startswith("gunicorn"):
        worker = server.partition("-")[2]
        threads = ["--threads", "8"] if worker == "gthread" else []
        arguments = [
            "-k",
            worker,
            "-w",
            "1" if threads else "4",
            *threads,
            "-b",
            f"127.0.0.1:{port}",
            "--log-level=info",
        ]
        os.execv(
            sys.executable, [sys.executable, "-m", "gunicorn", *arguments, "tests.support.serving:call_application"]
        )
    elif server == "waitress":
        import waitress

        settings = json.loads(os.environ.get("TUS_TEST_WAITRESS", "{}"))
        waitress.serve(call_application, host="127.0.0.1", port=port, threads=8, **settings)
    elif server == "cheroot":
        from cheroot.wsgi import Server

        Server(("127.0.0.1", port), call_application, numthreads=8).start()
    elif server == "gevent":
        from gevent.pywsgi import WSGIServer

        WSGIServer(("127.0.0.1", port), call_application).serve_forever()
    elif server == "wsgiref":
        from socketserver import ThreadingMixIn
        from wsgiref.simple_server import WSGIServer as Simple
        from wsgiref.simple_server import make_server

        class Threading(ThreadingMixIn, Simple):
            daemon_threads = True

        make_server("127.0.0.1", port, call_application, server_class=Threading).serve_forever()
    else:
        raise SystemExit(f"unknown server {server!r}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
