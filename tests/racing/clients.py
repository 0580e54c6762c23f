"""A client that sends random requests of both protocols to uploads that it shares with others."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import random
import time
from base64 import b64encode
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tests.racing.bodies import BLOCK, Sent
from tests.racing.site import PATH
from tests.racing.uploads import Upload
from tests.support import ietf
from tests.support.sockets import Connection, Reply, chunk
from tests.support.waiting import GUARD

if TYPE_CHECKING:
    from tests.racing.race import Race

VERSIONS = (*ietf.VERSIONS, None)
TUS = {"Tus-Resumable": "1.0.0"}
OCTETS = {"Content-Type": "application/offset+octet-stream"}
CHECKSUMS = ("sha1", "md5", "sha256")
PATIENCE = 5  # times that a creation is tried again


@dataclass
class Request:
    """A request, and how it is sent.

    Attributes:
        sent: what its body is; None without a body.
        how: "whole", "slow" in pieces with pauses, "cut" in the middle, or "deaf": the client waits for no reply.
        declares: whether it tells the upload's length.
    """

    method: str
    path: str
    fields: dict[str, str]
    sent: Sent | None = None
    how: str = "whole"
    is_chunked: bool = False
    is_tus: bool = True
    declares: bool = False
    is_creation: bool = False
    version: int | None = None
    interims: list[Reply] = field(default_factory=list)

    def __str__(self) -> str:
        body = "" if self.sent is None else f" with {self.sent.size} bytes of request {self.sent.number}"
        spoken = "tus" if self.is_tus else f"version {self.version} of the IETF's"
        how = f"{self.how}, chunked" if self.is_chunked else self.how
        return f"{self.method} {self.path}{body}, {how}, {spoken}, {self.fields}"

    @property
    def is_cut(self) -> bool:
        return self.how == "cut"

    def says_complete(self, reply: Reply) -> bool:
        """Whether a reply of the IETF's protocol says that the upload is complete."""
        inverted = self.version == 3
        value = reply.headers.get("upload-incomplete" if inverted else "upload-complete")
        return 200 <= reply.status < 300 and value == ("?0" if inverted else "?1")


class Known(NamedTuple):
    """What clients knew of an upload when a request was sent."""

    floor: int
    is_declared: bool
    is_gone: bool


class Client:
    """One of those who race."""

    def __init__(self, race: Race) -> None:
        self._race = race
        self._watch = race.watch
        self._connection: Connection | None = None
        self.statuses: Counter[str] = Counter()

    # -- What it does --

    def race_on(self) -> None:
        """Send requests until there were enough."""
        race = self._race
        with contextlib.closing(self):
            while not race.is_over():
                slot = random.choice(race.slots)
                upload = slot.upload
                if upload is None or upload.visits > race.VISITS or (upload.is_done and random.random() < 0.3):
                    if slot.lock.acquire(blocking=False):
                        try:
                            slot.upload = self.create_something()
                        finally:
                            slot.lock.release()
                    continue
                upload.visits += 1
                if upload.parts:
                    self.disturb_concatenation(upload)
                else:
                    self.disturb(upload)

    def create_something(self) -> Upload | None:
        if random.random() < 0.12:
            parts = [self.create(is_partial=True) for _ in range(random.randrange(1, 4))]
            if None in parts:
                return None
            return self._race.new_upload(parts=tuple(part for part in parts if part is not None))
        return self.create()

    def disturb(self, upload: Upload) -> None:
        action = random.random()
        if action < 0.40:
            self.ask(upload, self.patch(upload))
        elif action < 0.42 and upload.is_partial:
            self.ask(upload, self.append(upload))  # only tus may
        elif action < 0.75 and not upload.is_partial:
            self.ask(upload, self.append(upload))
        elif action < 0.86:
            self.ask(upload, Request("HEAD", self.path_of(upload), TUS))
        elif action < 0.99:
            self.ask(upload, self.ietf("HEAD", upload, {}))
        else:
            self.remove(upload)

    def disturb_concatenation(self, final: Upload) -> None:
        action = random.random()
        if action < 0.6:
            self.disturb(random.choice(final.parts))
        elif action < 0.8 or final.id is None:
            self.concatenate(final)
        elif action < 0.94:
            self.ask(final, Request("HEAD", self.path_of(final), TUS))
        elif action < 0.97:
            self.ask(final, Request("PATCH", self.path_of(final), TUS | OCTETS | {"Upload-Offset": "0"}))
        else:
            self.remove(final)
        final.is_done = final.is_done or any(part.may_be_gone for part in final.parts)

    def remove(self, upload: Upload) -> None:
        upload.removals += 1
        path = self.path_of(upload)
        is_tus = random.random() < 0.5
        reply = self.ask(upload, Request("DELETE", path, TUS) if is_tus else self.ietf("DELETE", upload, {}))
        if reply is not None and reply.status == 204 and not upload.parts:
            upload.is_gone = upload.is_done = True

    def concatenate(self, final: Upload) -> Reply | None:
        urls = " ".join(self.path_of(part) for part in final.parts)
        fields = TUS | {"Upload-Concat": f"final;{urls}"} | _metadata(final)
        return self.ask(final, Request("POST", PATH, fields, is_creation=True, declares=True))

    def finish(self, upload: Upload) -> bool:
        """Upload the rest as a client does that has patience; return whether that is possible."""
        for part in upload.parts:
            if not self.finish(part):
                return False
        for _ in range(100):
            if upload.parts:
                reply = self.concatenate(upload)
                if reply is not None and reply.status in (400, 404, 410):
                    return any(part.may_be_gone for part in upload.parts)  # the watch has seen the rest
                if upload.is_done and reply is not None and reply.headers.get("upload-offset"):
                    return True
                time.sleep(0.1)
                continue
            head = self.ask(upload, Request("HEAD", self.path_of(upload), TUS))
            if head is None or head.status not in (200, 404, 410):
                time.sleep(0.1)
                continue
            if head.status != 200 or head.headers["upload-offset"] == head.headers.get("upload-length"):
                return True
            offset, length = int(head.headers["upload-offset"]), int(head.headers.get("upload-length", upload.length))
            fields = TUS | OCTETS | {"Upload-Offset": str(offset), "Upload-Length": str(length)}
            sent = upload.body(offset, length - offset)
            self.ask(upload, Request("PATCH", self.path_of(upload), fields, sent, declares=True))
        return False

    # -- The requests --

    def create(self, is_partial: bool = False) -> Upload | None:
        """Create an upload; None if no client was told where it is."""
        upload = self._race.new_upload(is_partial)
        is_tus = is_partial or random.random() < 0.5
        request = self._creation_of_tus(upload) if is_tus else self._creation_of_ietf(upload)
        has_key = not is_partial and random.random() < 0.3
        if has_key:
            request.fields["Idempotency-Key"] = f'"{upload.name}"'
        for _ in range(PATIENCE if has_key else 1):
            self.ask(upload, request)
            if upload.id is not None:
                return upload
        return None

    def _creation_of_tus(self, upload: Upload) -> Request:
        fields = TUS | _metadata(upload)
        if upload.is_partial:
            fields["Upload-Concat"] = "partial"
        declares = random.random() < 0.7
        fields |= {"Upload-Length": str(upload.length)} if declares else {"Upload-Defer-Length": "1"}
        request = Request("POST", PATH, fields, declares=declares, is_creation=True)
        if random.random() < 0.5:
            fields |= OCTETS
            self._fill(request, upload, 0, self._some_size(upload, 0))
        return request

    def _creation_of_ietf(self, upload: Upload) -> Request:
        request = self.ietf("POST", upload, {}, creates=True)
        completes = random.random() < 0.15
        request.fields |= _metadata(upload) | _mark(request.version, completes)
        if random.random() < 0.6:
            request.fields["Upload-Length"] = str(upload.length)
            request.declares = True
        if completes or random.random() < 0.5:
            self._fill(request, upload, 0, upload.length if completes else self._some_size(upload, 0))
            request.declares = request.declares or (completes and not request.is_chunked)
        return request

    def patch(self, upload: Upload) -> Request:
        offset = self._some_offset(upload)
        if offset == upload.length and random.random() < 0.6:
            offset -= 1  # the byte that is withheld until the file is accepted
        size = self._some_size(upload, offset)
        fields = TUS | OCTETS | {"Upload-Offset": str(offset)}
        request = Request("PATCH", self.path_of(upload), fields)
        if not upload.is_declared and (offset + size == upload.length or random.random() < 0.3):
            fields["Upload-Length"] = str(upload.length)
            request.declares = True
        self._fill(request, upload, offset, size)
        return request

    def append(self, upload: Upload) -> Request:
        offset = self._some_offset(upload)
        size = self._some_size(upload, offset)
        completes = offset + size == upload.length and random.random() < 0.9
        early = -(offset + size) % BLOCK.size
        if not upload.is_declared and offset + size + early < upload.length and random.random() < 0.02:
            size, completes = size + early, True
            upload.ends.add(offset + size)
        request = self.ietf("PATCH", upload, {"Content-Type": ietf.PARTIAL, "Upload-Offset": str(offset)})
        request.fields |= _mark(request.version, completes)
        if offset + size == upload.length and random.random() < 0.3:
            request.fields["Upload-Length"] = str(upload.length)
            request.declares = True
        if request.version is None or request.version >= 7:
            upload.farthest = max(upload.farthest, offset + size)
        self._fill(request, upload, offset, size)
        return request

    def ietf(self, method: str, upload: Upload, fields: dict[str, str], creates: bool = False) -> Request:
        version = random.choice(VERSIONS)
        if version is None and not creates and method != "PATCH":
            version = ietf.NEWEST  # else it may be a request of tus
        spoken = {} if version is None else {"Upload-Draft-Interop-Version": str(version)}
        path = PATH if creates else self.path_of(upload)
        return Request(method, path, spoken | fields, is_tus=False, version=version, is_creation=creates)

    def _some_offset(self, upload: Upload) -> int:
        choice = random.random()
        if choice < 0.8:
            return upload.floor
        if choice < 0.88:
            return max(0, min(upload.floor + random.randrange(-40, 40), upload.length))
        return random.randrange(upload.length + 1) if choice < 0.95 else 0

    def _some_size(self, upload: Upload, offset: int) -> int:
        rest = max(upload.length - offset, 0)
        choice = random.random()
        if choice < 0.02 and upload.is_declared:
            return rest + random.randrange(1, 100)
        if choice < 0.2:
            return rest
        return random.randrange((rest if choice < 0.5 else min(rest, 6000)) + 1)

    def _fill(self, request: Request, upload: Upload, offset: int, size: int) -> None:
        """Give a request a body, perhaps with a checksum, and choose how it is sent."""
        sent = request.sent = upload.body(offset, size)
        request.is_chunked = random.random() < 0.15
        if size:
            request.how = random.choices(("whole", "slow", "cut", "deaf"), (76, 12, 8, 4))[0]
        choice = random.random()
        if size and choice < 0.3:
            is_right = choice < 0.18
            data = sent.data() if is_right else sent.data() + b"?"
            if request.is_tus:
                algorithm = random.choice(CHECKSUMS)
                value = b64encode(hashlib.new(algorithm, data).digest()).decode()
                request.fields["Upload-Checksum"] = f"{algorithm} {value}"
            else:
                request.fields["Content-Digest"] = ietf.digest(data)
            sent.may_count = is_right and not request.is_cut

    @staticmethod
    def path_of(upload: Upload) -> str:
        return f"{PATH}/{upload.id}"

    # -- Sending them --

    def ask(self, upload: Upload, request: Request) -> Reply | None:
        """Send a request, and see that its reply does not lie; None without a reply."""
        known = Known(upload.floor, upload.is_declared, upload.is_gone)
        try:
            reply = self._exchange(request)
        except TimeoutError:
            self._race.findings.add(f"no reply within {GUARD} s", str(request))
            reply = None
        if reply is None or request.is_cut:
            self.close()
        self._race.count()
        is_expected = request.how in ("cut", "deaf")
        if request.sent is not None:
            request.sent.about += f"{'none' if reply is None else reply.status} after {request}"
        missing = "cut by the client" if is_expected else "no reply"
        self.statuses[missing if reply is None else str(reply.status)] += 1
        for said in request.interims if reply is None else (*request.interims, reply):
            self._see(upload, request, said, known)
        return reply

    def _see(self, upload: Upload, request: Request, reply: Reply, known: Known) -> None:
        fields = {name: value for name, value in reply.headers.items() if name.startswith("upload-")}
        about = f"{reply.status} {fields} after {request}"
        is_success = 200 <= reply.status < 300
        if reply.status >= 500 and reply.status != 503:
            self._race.findings.add(f"the status {reply.status}", about)
        if reply.status in (404, 410):
            self._watch.see_absence(upload, about)
        if request.is_creation and "location" in reply.headers:
            upload.id = reply.headers["location"].rpartition("/")[2]
        if is_success and known.is_gone:
            self._watch.see_life(upload, about)
        if "upload-offset" in fields:
            offset = int(fields["upload-offset"])
            self._watch.see_offset(upload, offset, known.floor, request.is_tus, about)
            if is_success and request.sent is not None:
                self._see_counted(upload, request.sent, offset, about)
            if request.is_tus and is_success and not upload.is_partial:
                is_declared = known.is_declared or request.declares
                length = fields.get("upload-length", upload.length if is_declared else None)
                if length is not None and offset == int(length):
                    self._watch.see_success(upload, about)
        if not request.is_tus and request.says_complete(reply):
            self._watch.see_success(upload, about)
        if is_success and request.declares and (request.is_creation or not request.is_cut):
            upload.is_declared = True

    def _see_counted(self, upload: Upload, sent: Sent, offset: int, about: str) -> None:
        is_last_again = offset in upload.ends and sent.start >= offset - 1  # which asks for the outcome
        if offset > sent.end and not is_last_again:
            self._race.findings.add("more is counted than was sent", about)
        elif offset > sent.start:
            sent.counted = max(sent.counted, min(offset, sent.end))

    def _exchange(self, request: Request) -> Reply | None:
        request.interims.clear()
        if self._connection is None:
            try:
                self._connection = Connection(self._race.site)
            except OSError:  # no worker listens for a moment
                time.sleep(0.05)
                return None
        connection = self._connection
        data = b"" if request.sent is None else request.sent.data()
        framing = "Transfer-Encoding: chunked" if request.is_chunked else f"Content-Length: {len(data)}"
        if request.sent is None and request.method in ("HEAD", "DELETE"):
            framing = "X-Empty: yes"
        lines = [f"{request.method} {request.path} HTTP/1.1", "Host: 127.0.0.1", framing]
        lines += [f"{name}: {value}" for name, value in request.fields.items()]
        head = "\r\n".join([*lines, "", ""]).encode()
        if request.how == "whole":
            connection.push(head + (_chunked(data) if request.is_chunked else data))
        else:
            self._misbehave(connection, request, head, data)
            if self._connection is None:
                return None
        while (reply := connection.reply_if_any(request.method)) is not None and reply.status < 200:
            request.interims.append(reply)
        if reply is None or reply.headers.get("connection", "").lower() == "close":
            self.close()
        return reply

    def _misbehave(self, connection: Connection, request: Request, head: bytes, data: bytes) -> None:
        """Send a body slowly, or a part of it, or listen to no reply."""
        end = random.randrange(len(data)) if request.is_cut else len(data)
        places = sorted({0, end, *(random.randrange(end + 1) for _ in range(random.randrange(3)))})
        pieces = [data[start:stop] for start, stop in itertools.pairwise(places)]
        connection.push(head)
        for piece in pieces:
            connection.push(chunk(piece) if request.is_chunked else piece)
            if request.how != "deaf":
                time.sleep(random.random() * 0.15)
        if request.how == "slow" or request.how == "deaf":
            connection.push(b"0\r\n\r\n" if request.is_chunked else b"")
        choice = random.random()
        if request.how == "deaf" or (request.is_cut and choice < 0.3):
            self.close()
        elif request.is_cut and choice < 0.5:
            connection.abort()
            self._connection = None
        elif request.is_cut:
            with contextlib.suppress(OSError):
                connection.half_close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _chunked(data: bytes) -> bytes:
    middle = len(data) // 2
    return b"".join(chunk(piece) for piece in (data[:middle], data[middle:]) if piece) + b"0\r\n\r\n"


def _metadata(upload: Upload) -> dict[str, str]:
    return {"Upload-Metadata": f"filename {b64encode(upload.name.encode()).decode()}"}


def _mark(version: int | None, complete: bool) -> dict[str, str]:
    """How an upload is said to be complete, or not."""
    if version == 3:
        return {"Upload-Incomplete": "?0" if complete else "?1"}
    return {"Upload-Complete": "?1" if complete else "?0"}
