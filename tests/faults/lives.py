"""The lives of uploads: what a client does, and goes on doing after an error, until it succeeds."""

from __future__ import annotations

import socket
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha1
from typing import ClassVar

from tests.faults.world import LONGER, World, require
from tests.support.clocks import later
from tests.support.subjects import PATH
from tests.support.wsgi import OCTETS, TUS, Reply
from tus.errors import TusException

DATA = bytes(range(256)) * 9 + b"the end"
LONG = DATA * 120
_NAME = {"Upload-Metadata": "filename " + b64encode(b"a.bin").decode()}
_ATTEMPTS = 12


@dataclass(frozen=True)
class Life:
    """The life of an upload.

    Attributes:
        name: of the life.
        live: the client's procedure.
        options: of the service.
        manner: of the application, see :class:`World`.
        is_wsgi: whether it can be lived under WSGI alone.
        faces: in which it can be lived.
    """

    name: str
    live: Callable[[World], None] = field(repr=False)
    options: dict[str, object] = field(default_factory=dict)
    manner: str = "saves"
    is_wsgi: bool = False

    @property
    def faces(self) -> tuple[str, ...]:
        return FACES[:1] if self.is_wsgi else FACES


class Client:
    """A client that does not give up.

    Attributes:
        restarts: how often an upload was gone, so that the client had to begin again.
        creations: how many uploads the client has begun.
        is_refused: whether the application has rejected the file.
    """

    def __init__(self, world: World, data: bytes = DATA) -> None:
        self.world, self.data = world, data
        self.url: str | None = None
        self.sent = 0  # the bytes that the server may have
        self.restarts = self.creations = 0
        self.is_refused = False

    def upload(self) -> str:
        """Send the whole file, and return its URL; an empty text if the application has rejected it."""
        for _ in range(_ATTEMPTS):
            if self.is_refused:
                return ""
            offset = self._create() if self.url is None else None
            if offset != len(self.data):  # else nothing is left to ask
                offset = self.ask()
            while offset is not None and self.url is not None and offset < len(self.data):
                offset = self._append(offset)
            if self.url is not None and offset == len(self.data):
                return self.url
        raise AssertionError(f"no success after {_ATTEMPTS} attempts: {self.world.replies[-6:]}")

    def begin(self) -> None:
        """Send the first block of the file."""
        for _ in range(_ATTEMPTS):
            if self.url is None:
                self._create()
            elif self.ask():
                return
            if self.url is not None and self._append(0) is not None:
                return
        raise AssertionError(f"no first block after {_ATTEMPTS} attempts: {self.world.replies[-6:]}")

    def note(self, reply: Reply) -> int | None:
        """Return the offset that a response tells; None if the client has to ask again."""
        self.is_refused = self.is_refused or reply.status == 422
        if reply.status in (404, 410):
            self.url, self.sent = None, 0
            self.restarts += 1
        if reply.status >= 300 or "upload-offset" not in reply.headers:
            return None
        offset = int(reply["Upload-Offset"])
        assert self.url is not None
        self.world.check_offset(self.url, offset, self.data[: self.sent])
        return offset

    def _append(self, offset: int) -> int | None:
        end = next(border for border in self.borders if border > offset)
        self.sent = max(self.sent, end)
        return self.note(self.append(offset, self.data[offset:end]))

    def _create(self) -> int | None:
        self.creations += 1
        reply = self.create()
        if reply.status == 201:
            self.url = reply["Location"]
        return self.note(reply)

    def create(self) -> Reply:
        raise NotImplementedError

    def append(self, offset: int, block: bytes) -> Reply:
        raise NotImplementedError

    def ask(self) -> int | None:
        """Ask for the offset; None if the upload is gone or cannot be read now."""
        if self.url is None:
            return None
        return self.note(self.world.send("HEAD", self.url, self.protocol))

    protocol: ClassVar[dict[str, str]] = TUS
    borders: ClassVar[tuple[int, ...]] = (0, 700, 1500, len(DATA))


class TusClient(Client):
    """A client of tus 1.0.0.

    Args:
        headers: of the creation.
        has_digests: whether each block has a checksum.
        with_data: whether the creation has the whole file.
    """

    def __init__(self, world, data=DATA, headers=(), has_digests=False, with_data=False):
        super().__init__(world, data)
        self.headers = {"Upload-Length": str(len(data))} | _NAME | dict(headers)
        self.headers = {name: value for name, value in self.headers.items() if value}
        self.has_digests, self.with_data = has_digests, with_data

    def create(self):
        if not self.with_data:
            return self.world.send("POST", PATH, TUS | self.headers)
        self.sent = len(self.data)
        return self.world.send("POST", PATH, TUS | OCTETS | self.headers, self.data)

    def append(self, offset, block):
        headers = TUS | OCTETS | {"Upload-Offset": str(offset)}
        if self.has_digests:
            headers["Upload-Checksum"] = "sha1 " + b64encode(sha1(block).digest()).decode()
        if "Upload-Length" not in self.headers and offset + len(block) == len(self.data):
            headers["Upload-Length"] = str(len(self.data))
        return self.world.send("PATCH", self.url, headers, block)


class LentClient(TusClient):
    """A client whose blocks are so large that they go through a pipe from the server's socket to the file."""

    borders = (0, 100_000, 200_000, len(LONG))

    def __init__(self, world):
        super().__init__(world, LONG)

    def append(self, offset, block):
        headers = TUS | OCTETS | {"Upload-Offset": str(offset)}
        here, there = socket.socketpair()
        with here, there:
            there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * len(block))
            there.sendall(block)
            return self.world.send("PATCH", self.url, headers, block, here)


class IetfClient(Client):
    """A client of Resumable Uploads for HTTP."""

    protocol: ClassVar[dict[str, str]] = {"Upload-Draft-Interop-Version": "6"}

    def __init__(self, world, data=DATA, with_data=False):
        super().__init__(world, data)
        self.first = len(data) if with_data else self.borders[1]

    def create(self):
        self.sent = max(self.sent, self.first)
        headers = {"Upload-Complete": "?1" if self.first == len(self.data) else "?0"}
        disposition = {"Content-Disposition": 'attachment; filename="a.bin"'}
        return self.world.send("POST", PATH, self.protocol | headers | disposition, self.data[: self.first])

    def _create(self):
        self.creations += 1
        reply = self.create()
        if reply.status < 300 and "location" in reply.headers:
            self.url = reply["Location"]
        return self.note(reply)

    def ask(self):
        """Ask for the offset, and offer a whole file that is not complete again."""
        offset = super().ask()
        if self.url is None or offset != len(self.data) or self.world.replies[-1][1]["Upload-Complete"] == "?1":
            return offset
        return self.note(self.append(offset, b""))

    def append(self, offset, block):
        is_last = offset + len(block) == len(self.data)
        headers = {"Upload-Offset": str(offset), "Upload-Complete": "?1" if is_last else "?0"}
        typed = {"Content-Type": "application/partial-upload"}
        return self.world.send("PATCH", self.url, self.protocol | headers | typed, block)


def uploading(kind: Callable[..., Client], **how: object) -> Callable[[World], None]:
    """Return the procedure of a client that sends a file."""

    def live(world: World) -> None:
        client = kind(world, **how)
        client.upload()
        world.check_arrived(client.data, client.creations)
        world.restarts = client.restarts

    return live


def concatenating(world: World) -> None:
    """Send two parts, and concatenate them."""
    half = len(DATA) // 2
    partial = {"Upload-Concat": "partial"}
    clients = [TusClient(world, block, partial) for block in (DATA[:half], DATA[half:])]
    urls = [client.upload() for client in clients]
    headers = TUS | {"Upload-Concat": "final;" + " ".join(urls)} | _NAME
    for _ in range(_ATTEMPTS):
        reply = world.send("POST", PATH, headers)
        if reply.status == 201:
            break
    require(reply.status == 201, f"the concatenation is answered {reply.status}")
    world.check_arrived(DATA)
    world.restarts = sum(client.restarts for client in clients)


def terminating(world: World) -> None:
    """Send a part of a file, and terminate the upload."""
    client = TusClient(world)
    client.begin()
    for _ in range(_ATTEMPTS):
        reply = world.send("DELETE", client.url or PATH, TUS)
        if reply.status in (204, 404, 410):
            break
    require(reply.status in (204, 404, 410), f"DELETE is answered {reply.status}")
    require(client.ask() is None, "the upload is there after its termination")
    world.restarts = 0


def expiring(world: World) -> None:
    """Leave two uploads unfinished, until they are swept."""
    for _ in range(2):
        TusClient(world).begin()
    with later(LONGER):
        for _ in range(2):
            world.sweep()
    world.restarts = 0


def rejected(kind: Callable[..., Client], **how: object) -> Callable[[World], None]:
    """Return the procedure of a client whose file the application rejects."""

    def live(world: World) -> None:
        client = kind(world, **how)
        client.upload()
        require(client.is_refused and world.asked, "the client has success with a file that was rejected")
        require(not world.accepted and not world.files(), "a file that was rejected has arrived")
        world.restarts = client.restarts

    return live


def downloading(world: World) -> None:
    """Send a file, and fetch it again."""
    client = TusClient(world)
    url, got = client.upload(), b""
    for _ in range(_ATTEMPTS):
        reply = world.send("GET", url, {"Range": f"bytes={len(got)}-"} if got else {})
        if reply.status in (200, 206):
            require(got + reply.body == DATA[: len(got + reply.body)], "other bytes come than were sent")
            got += reply.body
            if got == DATA:
                break
            got = got or DATA[:1000]  # the client has kept a part of a response that was cut off
    require(got == DATA, f"{len(got)} bytes were fetched")
    world.check_arrived(DATA, client.creations)
    world.restarts = client.restarts


def cleaning(world: World) -> None:
    """Leave uploads, finished ones too, until the operator cleans up."""
    TusClient(world).begin()
    client = TusClient(world)
    client.upload()
    world.check_arrived(DATA, client.creations)
    with later(LONGER):
        statuses = [world.clean() for _ in range(3)]
        require(len([*filter(None, statuses)]) <= 1, f"tus clean goes on failing: {statuses}")
        for _ in range(3):
            with suppress(OSError, TusException):
                world.spool.purge(0)
    left = [path.name for path in (world.root / "spool/done").iterdir()]
    left += [path.name for path in (world.root / "spool/tmp").iterdir()]
    require(not left, f"entries are left in the spool: {left}")
    world.restarts = 0


def failing_at_first(live: Callable[[World], None]) -> Callable[[World], None]:
    """Return a life with a webhook that gets each event only the second time."""

    def busy(world: World) -> None:
        world.busy = True
        live(world)

    return busy


WEBHOOK = {"webhook": "http://127.0.0.1/", "webhook_events": "post-create, post-finish, post-terminate"}
_BACKGROUND = {"handover": "background"}
_SPOOL = {"spool": "spool"}
_LIMITS = {"max_uploads": 9, "max_total_size": "1M", "keep_free": "1"}
_DIGEST = {"digest": "sha-256"}

LIVES = (
    Life("tus in blocks", uploading(TusClient)),
    Life("tus at once", uploading(TusClient, with_data=True)),
    Life("tus with checksums", uploading(TusClient, has_digests=True)),
    Life("tus of deferred length", uploading(TusClient, headers={"Upload-Length": "", "Upload-Defer-Length": "1"})),
    Life("tus with limits", uploading(TusClient), _LIMITS),
    Life("tus with a digest", uploading(TusClient), _DIGEST),
    Life("tus in the background", uploading(TusClient), _BACKGROUND),
    Life("tus kept", uploading(TusClient), {"keep_finished": True}),
    Life("tus spooled", uploading(TusClient), _SPOOL),
    Life("tus downloaded", downloading, {"keep_finished": True, "download": True}),
    Life("tus copied", uploading(TusClient), manner="copies"),
    Life("tus served", uploading(TusClient, with_data=True), manner="serves"),
    Life("tus read", uploading(TusClient), manner="reads"),
    Life("tus rejected", rejected(TusClient), manner="rejects"),
    Life("tus postponed", uploading(TusClient, with_data=True), manner="hesitates"),
    Life("tus in a view", uploading(TusClient), manner="views", is_wsgi=True),
    Life("tus from a lent socket", uploading(LentClient), is_wsgi=True),
    Life("ietf in blocks", uploading(IetfClient)),
    Life("ietf at once", uploading(IetfClient, with_data=True)),
    Life("ietf in the background", uploading(IetfClient), _BACKGROUND),
    Life("ietf spooled", uploading(IetfClient, with_data=True), _SPOOL),
    Life("ietf with a long response", uploading(IetfClient, with_data=True), manner="responds at length"),
    Life("ietf rejected", rejected(IetfClient, with_data=True), manner="rejects"),
    Life("ietf postponed", uploading(IetfClient), manner="hesitates"),
    Life("concatenation", concatenating),
    Life("concatenation with a digest", concatenating, _DIGEST),
    Life("termination", terminating),
    Life("expiry", expiring),
    Life("expiry with limits", expiring, _LIMITS),
    Life("clean", cleaning, _SPOOL),
    Life("webhook, tus in blocks", uploading(TusClient), WEBHOOK),
    Life("webhook, tus at once", uploading(TusClient, with_data=True), WEBHOOK),
    Life("webhook, tus in the background", uploading(TusClient, with_data=True), WEBHOOK | _BACKGROUND),
    Life("webhook, tus spooled", uploading(TusClient, with_data=True), WEBHOOK | _SPOOL),
    Life("webhook, tus postponed", uploading(TusClient, with_data=True), WEBHOOK, "hesitates"),
    Life("webhook, tus rejected", rejected(TusClient), WEBHOOK, "rejects"),
    Life("webhook, ietf at once", uploading(IetfClient, with_data=True), WEBHOOK),
    Life("webhook, concatenation", concatenating, WEBHOOK),
    Life("webhook, termination", terminating, WEBHOOK),
    Life("webhook that fails, tus in blocks", failing_at_first(uploading(TusClient)), WEBHOOK),
    Life("webhook that fails, termination", failing_at_first(terminating), WEBHOOK),
)
FACES = ("wsgi", "asgi")
POLICIES = ("none", "finish", "always")
