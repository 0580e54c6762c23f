"""The server, and an application that keeps each file.

It is gunicorn with ``Filter``, uvicorn with ``TusMiddleware``, or the latter in the worker class of ``tus serve``.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from tests import fencing
from tests.acceptance.site import SABOTAGE
from tests.support.serving import ROOT, as_asgi, command, free_port, wait_for_port

PATH = "/files"
SERVERS = ("gunicorn", "uvicorn", "serve")
THREADS = 8
_SETTINGS = "TUS_RACING"


def without_verification() -> None:
    from tus.server import reception

    reception.Reception._verify = lambda self: None


#: What is broken in the server, so that the race can be seen to find it.
MUTANTS: dict[str, Callable[[], None]] = {
    "no-generation-check": fencing.without_generation_check,
    "no-verification": without_verification,
    "early-offset": SABOTAGE["offset"],
    "early-success": SABOTAGE["status"],
}


class Site:
    """A server whose workers can be killed.

    Attributes:
        store: the directory of the uploads.
        landed: a directory for each tag, with a file for each id and key that the application was given.
        log: what the server has printed.
        deaths: workers that were killed.
        pauses: workers that were stopped for a moment.
    """

    def __init__(self, directory: Path, server: str, workers: int, mutant: str = "") -> None:
        self.store, self.landed, self.log = directory / "store", directory / "landed", directory / "stderr"
        self.landed.mkdir()
        self.port = free_port()
        self.deaths = self.pauses = 0
        self._directory, self._server, self._workers = directory, server, workers
        self._settings = json.dumps({"landed": str(self.landed), "store": str(self.store), "mutant": mutant})

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        bind = ["--threads", str(THREADS), "-b", f"127.0.0.1:{self.port}"]
        site = "tests.racing.site:application"
        line = {
            "gunicorn": ["gunicorn", "-k", "gthread", *bind, site],
            "uvicorn": ["uvicorn", "--port", str(self.port), "--log-level", "warning", f"{site}_async"],
            "serve": ["gunicorn", "-k", "tus.server.worker_uvicorn.Worker", *bind, f"{site}_async"],
        }[self._server]
        line += ["--workers", str(self._workers)]
        environment = os.environ | {_SETTINGS: self._settings, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        with command(line, self._directory, cwd=ROOT, env=environment) as process:
            self._process = process
            wait_for_port(self.port, process, self.log)
            yield

    def workers(self) -> list[psutil.Process]:
        """The workers, the eldest first."""
        found = []
        for child in psutil.Process(self._process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.status() != psutil.STATUS_ZOMBIE and "resource_tracker" not in " ".join(child.cmdline()):
                    found.append(child)
        return sorted(found, key=lambda worker: worker.create_time())

    def disturb(self) -> None:
        """Kill a worker, or stop it for a moment. The eldest one is never killed, to see what it gathers."""
        workers = self.workers()
        with contextlib.suppress(psutil.NoSuchProcess):
            if random.random() < 0.3 or len(workers) < 2:
                victim = random.choice(workers)
                victim.suspend()
                time.sleep(random.random() * 0.3)
                victim.resume()
                self.pauses += 1
            else:
                random.choice(workers[1:]).send_signal(signal.SIGKILL)
                self.deaths += 1

    def leaks(self) -> list[str]:
        """What workers hold though no client is connected: data, side-cars and connections."""
        found = []
        for worker in self.workers():
            with contextlib.suppress(psutil.NoSuchProcess):
                for file in worker.open_files():
                    path = Path(file.path)
                    if path.parent == self.store and not path.name.startswith(".tus-"):
                        found.append(f"{path.name} is open in a worker")
                    if self.landed in path.parents:
                        found.append(f"{path.name} is open in the application")
                connections = [at for at in worker.net_connections("tcp4") if at.status != psutil.CONN_LISTEN]
                found.extend(f"a connection is open in a worker, {at.status}" for at in connections)
        return found

    def descriptors(self) -> list[int]:
        """How many descriptors each worker has, the eldest first."""
        return [worker.num_fds() for worker in self.workers()]


# -- In the workers -----------------------------------------------------------------------------------------------


@functools.cache
def _settings() -> dict[str, str]:
    return json.loads(os.environ[_SETTINGS])


@functools.cache
def _options() -> dict[str, object]:
    if _settings()["mutant"]:
        MUTANTS[_settings()["mutant"]]()
    return {"upload_path": PATH, "tmp_file_dir": _settings()["store"], "send_file": True, "fsync": "finish"}


@functools.cache
def _filter():
    from tus import Filter

    return Filter(_keep, **_options())


@functools.cache
def _middleware():
    from tus.asgi import TusMiddleware

    return TusMiddleware(as_asgi(_keep), **_options())


def _keep(environ, start_response):
    """Keep a file under its upload's tag, id and key; sometimes want it later."""
    upload = environ.get("tus.upload")
    if upload is None:
        start_response("404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", "0")])
        return [b""]
    time.sleep(random.random() * 0.005)
    if random.random() < 0.04:
        start_response("503 Service Unavailable", [("Content-Type", "text/plain"), ("Content-Length", "7")])
        return [b"not now"]
    directory = Path(_settings()["landed"], upload.filename)
    directory.mkdir(exist_ok=True)
    draft = directory / f".{os.getpid()}-{threading.get_native_id()}"
    draft.write_bytes(environ["wsgi.input"].read())
    kept = directory / f"{upload.id}.{upload.key}"
    if kept.exists() and kept.read_bytes() != draft.read_bytes():
        draft.rename(f"{kept}.other")
    else:
        draft.rename(kept)  # another attempt may have done so, with the same bytes
    start_response("204 No Content", [("X-App", "has it")])
    return []


def application(environ, start_response):
    """What gunicorn runs."""
    return _filter()(environ, start_response)


async def application_async(scope, receive, send):
    """What uvicorn runs."""
    await _middleware()(scope, receive, send)
