"""A service over a directory of its own, what its application has got, and what must hold of each of its responses."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from gunicorn.http.body import Body, LengthReader
from gunicorn.http.unreader import SocketUnreader
from webob import Request

from tests.support.clocks import later
from tests.support.descriptors import opened_below
from tests.support.subjects import PATH, OnLoop
from tests.support.wsgi import Reply, call
from tus import Filter, Service, Tus, WebobAdapter
from tus.adapters.interface import LONGEST_ANSWER
from tus.apps.files import Files
from tus.asgi import TusMiddleware
from tus.cli.main import main
from tus.errors import Rejected, TusException
from tus.filesystem.saving import _Saving
from tus.handover.spool import SpoolEmpty, spool
from tus.handover.spool_entries import LONGEST_DELAY
from tus.hooks.outbox import PATIENCE
from tus.hooks.webhook import Webhook, WebhookError

OPTIONS = {"threads": False, "upload_path": PATH, "send_file": True}
LONGER = 10 * 86400  # seconds, after which everything of an upload has expired
_TEXT = ("Content-Type", "text/plain")
#: What the application responds in place of 200, for a manner.
_RESPONSES = {
    "rejects": (422, [_TEXT, ("Tus-Outcome", "rejected")], b"no"),
    "hesitates": (503, [_TEXT], b"not now"),
    "responds at length": (200, [_TEXT], b"thanks " * (LONGEST_ANSWER // 7 + 9)),
}


class Violation(AssertionError):
    """Something that must never happen."""


def require(holds: object, what: str) -> None:
    """Raise a Violation if a condition does not hold."""
    if not holds:
        raise Violation(what)


class World:
    """A service, and its application.

    Args:
        root: an empty directory.
        face: ``wsgi`` or ``asgi``.
        options: of the service.
        manner: what the application does with a file: ``saves`` it, ``copies`` it as to another disk, ``reads`` it,
            ``rejects`` it, ``hesitates`` before the first one, ``responds at length``, ``views`` its path, or
            ``serves`` it as ``tus serve`` does.

    Attributes:
        arrived: the directory of the files that the application has saved.
        accepted: the ids of the uploads that the application has accepted, again for each time.
        asked: how often it was called.
        posts: what the webhook has got.
        busy: whether the webhook fails with each event the first time.
        may_lose_promised: whether a file may be lost after the client's success, because the operator wants no sync.
    """

    def __init__(self, root: Path, face: str, options: dict[str, object], manner: str = "saves") -> None:
        self.root, self.unfinished, self.arrived = root, root / "unfinished", root / "arrived"
        self.arrived.mkdir()
        self.manner, self.busy = manner, False
        self.may_lose_promised = lambda: False
        self.asked = 0
        self.accepted: list[str] = []
        self.read: dict[str, bytes] = {}
        self.replies: list[tuple[str, Reply]] = []
        self.posts: list[SimpleNamespace] = []
        self.refused: set[str] = set()
        self.created, self.terminated = set[str](), set[str]()
        values = OPTIONS | {"tmp_file_dir": str(self.unfinished)} | options
        values = {name: str(root / "spool") if name == "spool" else value for name, value in values.items()}
        self.spool = spool(str(values["spool"])) if "spool" in values else None
        if manner == "serves":
            values["on_finished"] = self._serve
            self.server = Files(str(self.arrived))
        if values.get("handover") == "background":
            values["on_finished"] = self._take_alone
        face_of = self._view if manner == "views" else {"wsgi": self._wsgi, "asgi": self._asgi}[face]
        self.app = face_of(values)
        self.service: Service = self.app.service
        self.webhook = self._webhook() if "webhook" in values else None

    # -- The application --

    def _wsgi(self, values):
        def application(environ, start_response):
            status, headers, body = self._response()
            if status == 200:
                self._take(environ["tus.upload"])
            start_response(f"{status} {status}", list(headers))
            return [body[start : start + 30000] for start in range(0, len(body), 30000)]

        return Filter(application, **values)

    def _asgi(self, values):
        async def application(scope, receive, send):
            status, headers, body = self._response()
            if status == 200 and self.manner == "saves":
                await scope["tus.upload"].save_to_async(self.arrived)
                self.accepted.append(scope["tus.upload"].id)
            elif status == 200:
                self._take(scope["tus.upload"])
            headers = [(name.lower().encode(), value.encode()) for name, value in headers]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})

        return OnLoop(TusMiddleware(application, **values), "asyncio")

    def _view(self, values):
        service = Service(**{name: value for name, value in values.items() if name not in ("upload_path", "send_file")})

        def view(environ, start_response):
            adapter = WebobAdapter(Request(environ))
            tus = Tus(adapter, service=service)
            tus.handle()
            if tus.upload_finished:
                self.asked += 1
                shutil.copyfile(tus.get_filepath(), self.arrived / "draft")
                os.replace(self.arrived / "draft", self.arrived / "a.bin")
                self.accepted.append(tus.upload.id)
                tus.cleanup_file()
            return adapter.resp(environ, start_response)

        view.service = service
        return view

    def _response(self):
        self.asked += 1
        if self.manner == "hesitates" and self.asked > 1:
            return 200, [_TEXT], b""
        return _RESPONSES.get(self.manner, (200, [_TEXT], b""))

    def _take(self, upload) -> None:
        if self.manner == "reads":
            with upload.open() as file:
                self.read[upload.key] = file.read()
        elif self.manner == "copies":
            with mock.patch.object(_Saving, "_link", lambda saving: None):
                upload.save_to(self.arrived)
        else:
            upload.save_to(self.arrived)
        self.accepted.append(upload.id)

    def _serve(self, upload) -> None:
        self.asked += 1
        self.server.take(upload)
        self.accepted.append(upload.id)

    _serve.calls_out = False

    def _take_alone(self, upload) -> None:
        status, _, body = self._response()
        if status == 422:
            raise Rejected(body.decode())
        if status != 200:
            raise RuntimeError(body.decode())
        self._take(upload)

    # -- The webhook --

    def _webhook(self) -> Webhook:
        """Return the webhook of the service; its events come here, and only when this thread delivers them."""
        webhook = next(hooks for hooks in self.service.hooks._objects if isinstance(hooks, Webhook))
        webhook.post = self._get_post  # without the thread that bounds the time of a post
        webhook.outbox.start = lambda: None
        webhook.outbox._clock = lambda: time.time()
        return webhook

    def _get_post(self, payload: bytes, event_id: str) -> bytes:
        event = json.loads(payload)
        if self.busy and event["Type"].startswith("post-") and event_id not in self.refused:
            self.refused.add(event_id)
            raise WebhookError("it is busy")
        self.posts.append(SimpleNamespace(type=event["Type"], id=event_id, upload=event["Event"]["Upload"]["ID"]))
        return b""

    def deliver(self) -> int:
        """Deliver the events that are due, and return the number of those that are left."""
        with contextlib.suppress(OSError, TusException):
            return self.service.hooks.flush()
        return -1

    def check_posts(self) -> None:
        """Check that the events of all changes have arrived, in their order, and no others."""
        for seconds in (0, PATIENCE + 1, LONGER, LONGER + LONGEST_DELAY, LONGER + 2 * LONGEST_DELAY):
            with later(seconds):
                left = self.deliver()
        require(left == 0, f"{left} events are left")
        left = {path.name for path in (self.unfinished / ".tus-outbox").glob("*")} - {"tmp"}
        require(not left, f"files are left in the outbox: {left}")
        with later(LONGER):
            self.webhook.outbox._remove_drafts()
        drafts = [*(self.unfinished / ".tus-outbox/tmp").glob("*")]
        require(not drafts, f"drafts are left in the outbox: {drafts}")
        got = {kind: {post.upload for post in self.posts if post.type == f"post-{kind}"} for kind in _KINDS}
        for kind, wanted in (("create", self.created), ("finish", {*self.accepted}), ("terminate", self.terminated)):
            require(wanted <= got[kind], f"an event post-{kind} is missing")
        if self.spool is None:  # else no application is asked
            require(got["finish"] <= {*self.accepted}, "there is an event post-finish of a file that was not accepted")
        for key in {post.id.partition("-")[0] for post in self.posts}:  # a final upload that is made again has its id
            kinds = [*dict.fromkeys(post.id.rpartition("-")[2] for post in self.posts if post.id.startswith(key))]
            require(kinds == [kind for kind in _KINDS if kind in kinds], f"the events are in another order: {kinds}")

    # -- Requests --

    def send(
        self, method: str, url: str, headers: dict[str, str], body: bytes = b"", socket: socket.socket | None = None
    ) -> Reply:
        """Send a request, and check what holds of every response.

        Args:
            method: of the request, like the next three.
            url: to send it to.
            headers: its fields.
            body: its body.
            socket: on which the body arrives at gunicorn, if it does.
        """
        accepted, asked = len(self.accepted), self.asked
        environ = {} if socket is None else {"wsgi.input": Body(LengthReader(SocketUnreader(socket), len(body)))}
        try:
            reply = call(self.app, method, url, headers, body, environ=environ, validate=socket is None)
        except OSError:  # the server cuts the connection off
            require(method == "GET" or self.manner == "responds at length", f"{method} raises an error")
            reply = Reply(499, "", [], b"")
        self.replies.append((method, reply))
        text = repr((reply.header_list, reply.body))
        require(str(self.root) not in text, f"{method} tells a path: {text}")
        require("Traceback" not in text and "Errno" not in text, f"{method} tells about the code: {text}")
        if len(self.accepted) > accepted:
            require(reply.status < 500, f"{method} is answered {reply.status} after the application has accepted")
        if self.asked == asked:
            require(reply.status != 500, f"{method} is answered 500, and not because of the application")
        if method == "POST" and reply.status < 300 and "location" in reply.headers:
            self.created.add(_id_of(reply["Location"]))
        if method == "DELETE" and reply.status < 300:
            self.terminated.add(_id_of(url))
        if self.webhook is not None:
            self.deliver()
        return reply

    def check_offset(self, url: str, offset: int, sent: bytes) -> None:
        """Check that the bytes below an offset are those that the client has sent."""
        require(offset <= len(sent), f"the offset {offset} is more than the {len(sent)} bytes that were sent")
        path = self.unfinished / _id_of(url)
        if path.exists():
            require(path.read_bytes()[:offset] == sent[:offset], f"bytes below the offset {offset} are not those sent")

    # -- What has arrived --

    def files(self) -> dict[str, bytes]:
        """Return the files that the application or the workers have got, by name or key."""
        if self.read:
            return self.read
        if self.spool is None:
            return {path.name: path.read_bytes() for path in self.arrived.iterdir() if not path.name.startswith(".")}
        for attempt in range(5):  # workers go on: an entry that cannot be looked at now is left for the next time
            with (
                later(attempt * LONGEST_DELAY),
                contextlib.suppress(TusException, OSError, SpoolEmpty),
                self.spool.claim(0) as upload,
            ):
                Path(upload.path).read_bytes()
        return {entry.name: (entry / "data").read_bytes() for entry in (self.root / "spool/done").iterdir()}

    def hand_over(self) -> None:
        """Offer the finished files that are due, until none is left; those of a view wait for its client."""
        for _ in range(20 if self.service.backlog is not None else 0):
            with contextlib.suppress(OSError, TusException):
                for _ in self.service.backlog.run(everything=True):
                    pass
                if not any(upload.is_pending for upload in self.service.list()):
                    return

    def check_arrived(self, data: bytes, uploads: int = 1) -> None:
        """Check that one copy has arrived, and that it is right.

        Args:
            data: what was sent.
            uploads: how many uploads the client has begun. If the response to a creation with data is an error, the
                client has no URL and begins again, and the application may have saved the file of the first upload.
        """
        self.hand_over()
        files = self.files()
        least = 0 if self.may_lose_promised() else 1
        require(least <= len(files) <= uploads, f"{len(files)} copies have arrived: {sorted(files)}")
        require({*files.values()} <= {data}, "a file that has arrived is not the one that was sent")

    # -- The end --

    def sweep(self) -> None:
        with contextlib.suppress(OSError, TusException):
            self.service.store.sweep()

    def clean(self) -> int:
        """Run ``tus clean``, and return its exit status."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(["clean", str(self.unfinished)])
        require("Traceback" not in err.getvalue(), f"tus clean tells about the code: {err.getvalue()}")
        require(bool(status) == bool(err.getvalue()), f"tus clean returns {status}, and says {err.getvalue()!r}")
        return status

    def check_clean(self) -> None:
        """Check that nothing is left of expired uploads, and no descriptor is open."""
        if self.webhook is not None:
            with later(PATIENCE + 1):
                self.deliver()  # while the store knows what has happened
        if self.manner == "views":
            self._settle_again()
        with later(LONGER):
            self.service.store.sweep()
        if self.webhook is not None:
            self.check_posts()
        left = [path.name for path in self.unfinished.iterdir() if re.match("[0-9a-f]{32}", path.name)]
        require(not left, f"files are left after the sweep: {left}")
        hidden = [path.name for path in self.arrived.iterdir() if path.name.startswith(".")]
        require(not hidden, f"files are left beside the arrived file: {hidden}")
        self.service.close()
        opened = self.opened()
        require(not opened, f"descriptors are still open: {opened}")

    def _settle_again(self) -> None:
        """Accept what a view has accepted, if that could not be recorded, as an operator does; nobody else asks."""
        for upload in self.service.list():
            if upload.is_pending and upload.id in self.accepted:
                claim = self.service.store.claim(upload)
                claim.begin()
                claim.accept()

    def opened(self) -> list[str]:
        """Return the files of this world that are open; directories may stay open."""
        return [path for path in opened_below(self.root) if not os.path.isdir(os.path.join(self.root, path))]


_KINDS = ("create", "finish", "terminate")


def _id_of(url: str) -> str:
    return url.rpartition("/")[2]
