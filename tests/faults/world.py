"""A service over a directory of its own, what its application has got, and what must hold of each of its responses."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from tests.support.clocks import later
from tests.support.subjects import PATH, OnLoop
from tests.support.wsgi import Reply, call
from tus import Filter, Service
from tus.asgi import TusMiddleware
from tus.errors import TusException
from tus.handover.spool import SpoolEmpty, spool

OPTIONS = {"threads": False, "upload_path": PATH, "send_file": True}
LONGER = 10 * 86400  # seconds, after which everything of an upload has expired


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

    Attributes:
        arrived: the directory of the files that the application has saved.
        accepted: how often the application has accepted a file.
        asked: how often it was called.
    """

    def __init__(self, root: Path, face: str, options: dict[str, object]) -> None:
        self.root, self.unfinished, self.arrived = root, root / "unfinished", root / "arrived"
        self.arrived.mkdir()
        self.accepted = self.asked = 0
        self.replies: list[tuple[str, Reply]] = []
        values = OPTIONS | {"tmp_file_dir": str(self.unfinished)} | options
        values = {name: str(root / "spool") if name == "spool" else value for name, value in values.items()}
        self.spool = spool(str(values["spool"])) if "spool" in values else None
        if values.get("handover") == "background":
            values["on_finished"] = self._save
        face_of = {"wsgi": self._wsgi, "asgi": self._asgi}[face]
        self.app = face_of(values)
        self.service: Service = self.app.service

    def _save(self, upload) -> None:
        self.asked += 1
        upload.save_to(self.arrived)
        self.accepted += 1

    def _wsgi(self, values):
        def application(environ, start_response):
            self._save(environ["tus.upload"])
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b""]

        return Filter(application, **values)

    def _asgi(self, values):
        async def application(scope, receive, send):
            self.asked += 1
            await scope["tus.upload"].save_to_async(self.arrived)
            self.accepted += 1
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b""})

        return OnLoop(TusMiddleware(application, **values), "asyncio")

    # -- Requests --

    def send(self, method: str, url: str, headers: dict[str, str], body: bytes = b"") -> Reply:
        """Send a request, and check what holds of every response."""
        accepted, asked = self.accepted, self.asked
        reply = call(self.app, method, url, headers, body)
        self.replies.append((method, reply))
        text = repr((reply.header_list, reply.body))
        require(str(self.root) not in text, f"{method} tells a path: {text}")
        require("Traceback" not in text and "Errno" not in text, f"{method} tells about the code: {text}")
        if self.accepted > accepted:
            require(reply.status < 500, f"{method} is answered {reply.status} after the application has accepted")
        if self.asked == asked:
            require(reply.status != 500, f"{method} is answered 500, and not because of the application")
        return reply

    def check_offset(self, url: str, offset: int, sent: bytes) -> None:
        """Check that the bytes below an offset are those that the client has sent."""
        require(offset <= len(sent), f"the offset {offset} is more than the {len(sent)} bytes that were sent")
        path = self.unfinished / url.rpartition("/")[2]
        if path.exists():
            require(path.read_bytes()[:offset] == sent[:offset], f"bytes below the offset {offset} are not those sent")

    # -- What has arrived --

    def files(self) -> dict[str, bytes]:
        """Return the files that the application or the workers have got, by name or key."""
        if self.spool is None:
            return {path.name: path.read_bytes() for path in self.arrived.iterdir() if not path.name.startswith(".")}
        for _ in range(5):  # workers go on: an entry that cannot be looked at now is left for the next time
            with contextlib.suppress(SpoolEmpty, OSError), self.spool.claim(0) as upload:
                Path(upload.path).read_bytes()
        return {entry.name: (entry / "data").read_bytes() for entry in (self.root / "spool/done").iterdir()}

    def hand_over(self) -> None:
        """Offer the finished files that are due, until none is left."""
        for _ in range(20):
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
        require(1 <= len(files) <= uploads, f"{len(files)} copies have arrived: {sorted(files)}")
        require({*files.values()} == {data}, "a file that has arrived is not the one that was sent")

    # -- The end --

    def sweep(self) -> None:
        with contextlib.suppress(OSError, TusException):
            self.service.store.sweep()

    def check_clean(self) -> None:
        """Check that nothing is left of expired uploads, and no descriptor is open."""
        with later(LONGER):
            self.service.store.sweep()
        left = [path.name for path in self.unfinished.iterdir() if re.match("[0-9a-f]{32}", path.name)]
        require(not left, f"files are left after the sweep: {left}")
        hidden = [path.name for path in self.arrived.iterdir() if path.name.startswith(".")]
        require(not hidden, f"files are left beside the arrived file: {hidden}")
        self.service.close()
        opened = self.opened()
        require(not opened, f"descriptors are still open: {opened}")

    def opened(self) -> list[str]:
        """Return the files of this world that are open; directories may stay open."""
        paths = []
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                path = os.readlink(f"/proc/self/fd/{fd}")
                if path.startswith(str(self.root) + "/") and not os.path.isdir(f"/proc/self/fd/{fd}"):
                    paths.append(path[len(str(self.root)) :])
        return paths
