"""The site: gunicorn with a ``Filter`` around an application that tells the receiver of each file, and can fail."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.client
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.acceptance import receiver
from tests.support.serving import ROOT, free_port, wait_for_port
from tus import Rejected, open_store
from tus.events import HandedOver, listen

PATH = "/files"
STATUSES = ("400", "401", "403", "404", "405", "409", "302", "500", "503")
#: Where something fails: before the receiver is told, within the response, after the receiver has accepted, and after
#: the acceptance was taken down.
FAULTS = (
    *(f"before {what}" for what in ("raise", "kill", *STATUSES)),
    "in raise",
    "in kill",
    *(f"after {what}" for what in ("raise", "kill", "503")),
    "taken down kill",
)
#: Those of :data:`tests.acceptance.frameworks.FRAMEWORKS` that are ASGI applications.
ASGI_FRAMEWORKS = ("fastapi", "starlette")
_DIRECTORY = "TUS_ACCEPTANCE_DIRECTORY"
_RECEIVER = "TUS_ACCEPTANCE_RECEIVER"
_SETTINGS = "TUS_ACCEPTANCE_SETTINGS"


class Site:
    """A server and a receiver in processes of their own, which can be killed and come back.

    Attributes:
        directory: everything is in it.
        port: of the server.
        server: its process, the leader of a group.
        receiver: the receiver's process.
    """

    def __init__(
        self,
        directory: Path,
        first_delay: float = 0.5,
        sabotage: str = "",
        handover: str = "request",
        worker: str = "gthread",
        framework: str = "",
    ) -> None:
        """
        Args:
            directory: for everything.
            first_delay: seconds until a file is offered without its client.
            handover: the option.
            sabotage: what is broken in the server, of :data:`SABOTAGE`, to see whether anybody notices.
            worker: gunicorn's kind of it; ``asgi`` for the middleware in place of the filter.
            framework: one of :data:`tests.acceptance.frameworks.FRAMEWORKS`; none for a plain application.
        """
        self._worker = "asgi" if framework in ASGI_FRAMEWORKS else worker
        self.directory = directory
        settings = {"first_delay": first_delay, "sabotage": sabotage, "handover": handover, "framework": framework}
        self._settings = json.dumps(settings)
        self.port, self._receiver_port = free_port(), free_port()
        self.store = directory / "store"
        self.journal = directory / "journal"
        self._plan = directory / "fault"
        self._log = directory / "server.log"

    @property
    def environment(self):
        return os.environ | {
            _DIRECTORY: str(self.directory),
            _RECEIVER: str(self._receiver_port),
            _SETTINGS: self._settings,
        }

    def __enter__(self):
        self.start_receiver()
        self.start_server()
        return self

    def __exit__(self, *error):
        self.kill_server()
        self.kill_receiver()

    def start_server(self):
        arguments = ["-k", self._worker, "-w", "2", "-b", f"127.0.0.1:{self.port}", "--log-level=error"]
        if self._worker == "gthread":
            arguments += ["--threads", "8"]
        name = "asgi_application" if self._worker == "asgi" else "application"
        with self._log.open("ab") as output:
            self.server = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", *arguments, f"tests.acceptance.site:{name}"],
                cwd=ROOT,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_for_port(self.port, self.server, self._log)

    def kill_server(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.server.pid, signal.SIGKILL)
        self.server.wait()

    def kill_worker(self):
        """Kill one of its processes; gunicorn starts another."""
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            random.choice(psutil.Process(self.server.pid).children()).kill()

    def start_receiver(self):
        command = [sys.executable, "-m", "tests.acceptance.receiver", str(self._receiver_port), str(self.journal)]
        self.receiver = subprocess.Popen(command, cwd=ROOT)
        wait_for_port(self._receiver_port, self.receiver, self._log)

    def kill_receiver(self):
        self.receiver.kill()
        self.receiver.wait()

    def fail(self, fault, probability=None):
        """Have the application fail once so, or from now on with a probability at any place; or not any more."""
        plan = {"fault": fault, "probability": probability}
        draft = self._plan.with_suffix(".draft")
        draft.write_text(json.dumps(plan))
        draft.replace(self._plan)

    def is_fault_due(self):
        return self._plan.exists()

    def calm(self):
        self._plan.unlink(missing_ok=True)

    @property
    def suicides(self):
        """How often a process of the server has killed itself."""
        path = self.directory / "suicides"
        return path.stat().st_size if path.exists() else 0

    def lines(self, what, name=None):
        """What the receiver has written."""
        written = receiver.read(self.journal)
        return [line for line in written if line["what"] == what and name in (None, line["name"])]

    def uploads(self):
        """What the store has."""
        return list(open_store(str(self.store), probes=False).list())

    def pending(self):
        """The ids of the uploads that a client knows, and that were neither accepted nor rejected."""
        return {upload.id for upload in self.uploads() if upload.is_pending and upload.is_known}

    def hand_over_the_rest(self, seconds=20):
        """Have all that is pending handed over, without the clients."""
        deadline = time.monotonic() + seconds
        command = [Path(sys.executable).parent / "tus", "handover", self.store, "--all"]
        command += ["--on-finished", "tests.acceptance.site:take"]
        printed = ""
        while self.pending():
            assert time.monotonic() < deadline, printed
            printed = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True).stdout


# -- In the server's processes ------------------------------------------------------------------------------------


def _directory():
    return Path(os.environ[_DIRECTORY])


@functools.cache
def _options():
    """What the filter, or the middleware, is made with; everything else is prepared."""
    from tus.protocols import handover

    settings = json.loads(os.environ[_SETTINGS])
    assert handover.FIRST_DELAY  # or the setting would change nothing
    handover.FIRST_DELAY = settings["first_delay"]
    if settings["sabotage"]:
        SABOTAGE[settings["sabotage"]]()
    listen(_watch)
    return {
        "upload_path": PATH,
        "tmp_file_dir": str(_directory() / "store"),
        "send_file": True,
        "handover": settings["handover"],
    }


@functools.cache
def _filter():
    from tus import Filter

    framework = json.loads(os.environ[_SETTINGS])["framework"]
    if framework:
        from tests.acceptance.frameworks import FRAMEWORKS

        return FRAMEWORKS[framework](_options())
    return Filter(_application, **_options())


@functools.cache
def _middleware():
    from tus.asgi import TusMiddleware

    framework = json.loads(os.environ[_SETTINGS])["framework"]
    if framework:
        from tests.acceptance.frameworks import FRAMEWORKS

        return FRAMEWORKS[framework](_options())
    return TusMiddleware(_on_loop, **_options())


def _tell_the_whole_offset():
    from tus.protocols.tus1 import withholding

    withholding.is_reported_complete = lambda upload, options: True


def _accept_before_asking():
    from tus.models import Outcome
    from tus.protocols import handover

    handover.outcome_of = lambda offered, upload, options: (Outcome.ACCEPTED, offered.answer)


def _forget_the_key():
    from tus.models import Upload

    Upload.key = property(lambda upload: os.urandom(16).hex())


SABOTAGE = {
    "offset": _tell_the_whole_offset,
    "status": _accept_before_asking,
    "key": _forget_the_key,
}


def application(environ, start_response):
    """What gunicorn runs."""
    return _filter()(environ, start_response)


async def asgi_application(scope, receive, send):
    """What gunicorn's ASGI worker runs."""
    await _middleware()(scope, receive, send)


async def _on_loop(scope, receive, send):
    """The same application, called by threads."""
    from anyio import to_thread

    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    data, more = b"", True
    while more:
        message = await receive()
        data, more = data + message["body"], message["more_body"]
    environ = {"CONTENT_LENGTH": str(len(data)), "wsgi.input": io.BytesIO(data), "tus.upload": scope.get("tus.upload")}
    started = []
    blocks = iter(await to_thread.run_sync(_application, environ, lambda *said: started.extend(said)))
    fields = [(name.lower().encode(), value.encode()) for name, value in started[1]]
    await send({"type": "http.response.start", "status": int(started[0][:3]), "headers": fields})
    while block := await to_thread.run_sync(next, blocks, b""):
        await send({"type": "http.response.body", "body": block, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _application(environ, start_response):
    upload = environ.get("tus.upload")
    if upload is None:
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"nothing"]
    read = functools.partial(environ["wsgi.input"].read, int(environ["CONTENT_LENGTH"]))
    status, fields, blocks = take_in(upload, read)
    start_response(f"{status} Said", fields)
    return blocks


def take_in(upload, read):
    """What every application does with a file: tell the receiver, or fail; returns status, fields and body."""
    fault = _next_fault()
    if fault.startswith("before"):
        return _fail(fault.split()[1])
    status = _tell(upload, hashlib.sha256(read()).hexdigest())
    if fault.startswith("after"):
        return _fail(fault.split()[1])
    if fault.startswith("taken"):
        (_directory() / "kill-when-taken-down").touch()
    outcome = [("Tus-Outcome", "rejected")] if status == 415 else []
    fields = [("Content-Type", "text/plain"), ("X-App", upload.key), *outcome]
    return status, fields, _body(fault) if fault.startswith("in") else [b"said"]


def _body(fault):
    yield b"the beginning of an answer"
    _fail(fault.split()[1])


def _fail(how):
    if how == "raise":
        raise RuntimeError("the application fails here")
    if how == "kill":
        _die()
    fields = [("Content-Type", "text/plain")] + ([("Location", "/login")] if how == "302" else [])
    return int(how), fields, [b"not now"]


def _die():
    with (_directory() / "suicides").open("ab") as file:
        file.write(b".")
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def _watch(event):
    if isinstance(event, HandedOver) and event.outcome == "accepted":
        with contextlib.suppress(FileNotFoundError):
            (_directory() / "kill-when-taken-down").unlink()
            _die()


def _next_fault():
    plan = _directory() / "fault"
    try:
        found = json.loads(plan.read_text())
        if found["fault"] is not None:
            plan.unlink()
            return found["fault"]
    except FileNotFoundError:
        return ""
    return random.choice(FAULTS) if random.random() < found["probability"] else ""


def _tell(upload, digest):
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ[_RECEIVER]), timeout=10)
    try:
        offer = {"key": upload.key, "name": upload.filename, "digest": digest, "id": upload.id}
        connection.request("POST", "/", json.dumps(offer))
        return connection.getresponse().status
    finally:
        connection.close()


def take(upload):
    """The same as a function, for ``tus handover``."""
    digest = hashlib.sha256(Path(upload.path).read_bytes()).hexdigest()
    if _tell(upload, digest) == 415:
        raise Rejected("It is not wanted.", 415)
