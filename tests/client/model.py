"""A server in memory that fails as it is told, and a driver that plays a flow against it. No socket, no clock."""

from __future__ import annotations

import hashlib
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tus.client.commands import Call, Fill, Progress, Report, Send, Together, Wait
from tus.client.dialects.ietf import VERSION_FIELD
from tus.client.errors import ConnectionFailed
from tus.client.flow.context import Context, Settings
from tus.client.messages import Body, Headers, Request, Response
from tus.client.records import MemoryRecords
from tus.client.retry import Retry

ENDPOINT = "https://files.example/up/"
EXTENSIONS = "creation,creation-with-upload,creation-defer-length,checksum,concatenation,termination,expiration"


@dataclass
class Stored:
    """An upload at the server."""

    length: int | None
    data: bytearray = field(default_factory=bytearray)
    metadata: str = ""
    is_partial: bool = False
    is_complete: bool = False


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    Attributes:
        status: the server answers with it; 0 for a cut connection.
        taken: the number of bytes of the body that the server keeps before; None for all.
        headers: of the answer.
        when: which requests have it.
    """

    status: int = 0
    taken: int | None = 0
    headers: tuple[tuple[str, str], ...] = ()
    when: Callable[[Request], bool] = lambda request: True


class Server:
    """tus 1.0.0, and the IETF's protocol, as far as a client can see them."""

    def __init__(self, speaks: str = "tus", extensions: str = EXTENSIONS, versions: tuple[int, ...] = (10,)) -> None:
        self.speaks, self.extensions, self.versions = speaks, extensions, versions
        self.uploads: dict[str, Stored] = {}
        self.keys: dict[str, str] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.credentials: list[bool] = []
        self.largest: int | None = None
        self.answers: list[Response] = []

    @property
    def files(self) -> list[bytes]:
        """The complete files that an application would get."""
        return [bytes(upload.data) for upload in self.uploads.values() if upload.is_complete and not upload.is_partial]

    def respond(self, send: Send) -> Response:
        request = send.request
        self.requests.append(request)
        self.credentials.append(send.has_credentials)
        body = request.body
        data = b"".join(body.source.blocks(body.offset, body.length)) if isinstance(body, Body) else body
        headers = Headers(request.headers.items())
        fault = next((fault for fault in self.faults if fault.when(request)), None)
        if fault is not None:
            self.faults.remove(fault)
            if fault.taken is None or data:
                is_cut = fault.taken is not None and fault.taken < len(data)
                answer = self._take(request, headers, data[: fault.taken] if is_cut else data, is_cut)
                if fault.status == 104:
                    fields = Headers([*answer.headers.items(), (VERSION_FIELD, headers[VERSION_FIELD])])
                    if (function := send.on_interim(104, fields)) is not None:
                        function()
            if fault.status in (0, 104):
                raise ConnectionFailed("The connection ended early.", url=request.url)
            return Response(fault.status, Headers(fault.headers), b"no", request.url)
        if self.largest is not None and len(data) > self.largest:
            return Response(413, Headers(), b"too large", request.url)
        answer = self._take(request, headers, data)
        self.answers.append(answer)
        return answer

    def _take(self, request: Request, headers: Headers, data: bytes, is_cut: bool = False) -> Response:
        method = request.method
        if method == "POST" and "X-HTTP-Method-Override" in headers:
            method = headers["X-HTTP-Method-Override"]
        return (self._tus if self.speaks == "tus" else self._ietf)(method, request.url, headers, data, is_cut)

    def _created(self, headers: Headers, length: int | None) -> tuple[str, Stored, bool]:
        """Return the upload of a creation, and whether it is new; the body of a repeated creation is ignored."""
        key = headers["Idempotency-Key"]
        is_new = key not in self.keys
        if is_new:
            url = self.keys[key] = f"/up/{len(self.uploads) + 1}"
            self.uploads[url] = Stored(length, metadata=headers.get("Upload-Metadata", ""))
        return self.keys[key], self.uploads[self.keys[key]], is_new

    def _tus(self, method: str, url: str, headers: Headers, data: bytes, is_cut: bool) -> Response:
        path = "/" + url.split("/", 3)[3]
        if method == "OPTIONS":
            fields = [
                ("Tus-Version", "1.0.0"),
                ("Tus-Extension", self.extensions),
                ("Tus-Checksum-Algorithm", "sha1,sha256"),
            ]
            return Response(204, Headers(fields))
        assert headers["Tus-Resumable"] == "1.0.0"
        if method == "POST":
            concat = headers.get("Upload-Concat", "")
            length = headers.get("Upload-Length")
            path, upload, is_new = self._created(headers, None if length is None else int(length))
            upload.is_partial = concat == "partial"
            if concat.startswith("final;"):
                assert length is None
                parts = [self.uploads["/" + part.split("/", 3)[3]] for part in concat[6:].split(" ")]
                upload.data = bytearray(b"".join(part.data for part in parts))
                upload.length = len(upload.data)
            fields = [("Location", path)]
            if data and is_new:
                upload.data += data
                fields.append(("Upload-Offset", str(len(upload.data))))
            upload.is_complete = not is_cut and len(upload.data) == upload.length
            return Response(201, Headers(fields), url=url)
        upload = self.uploads.get(path)
        if upload is None:
            return Response(404, Headers(), url=url)
        if method == "HEAD":
            fields = [("Upload-Offset", str(len(upload.data)))]
            fields.append(
                ("Upload-Length", str(upload.length)) if upload.length is not None else ("Upload-Defer-Length", "1")
            )
            return Response(200, Headers(fields), url=url)
        assert method == "PATCH"
        assert headers["Content-Type"] == "application/offset+octet-stream"
        if "Upload-Length" in headers:
            upload.length = int(headers["Upload-Length"])
        if int(headers["Upload-Offset"]) != len(upload.data):
            return Response(409, Headers([("Upload-Offset", str(len(upload.data)))]), url=url)
        if checksum := headers.get("Upload-Checksum"):
            algorithm, _, value = checksum.partition(" ")
            if is_cut:
                data = b""
            elif hashlib.new(algorithm, data).digest() != b64decode(value):
                return Response(460, Headers(), url=url)
        upload.data += data
        assert upload.length is None or len(upload.data) <= upload.length
        upload.is_complete = len(upload.data) == upload.length
        return Response(204, Headers([("Upload-Offset", str(len(upload.data)))]), url=url)

    def _ietf(self, method: str, url: str, headers: Headers, data: bytes, is_cut: bool) -> Response:
        path = "/" + url.split("/", 3)[3]
        if method == "OPTIONS":
            return Response(204, Headers([("Upload-Limit", "min-size=0")] if self.versions else []))
        version = int(headers[VERSION_FIELD])
        if not self.versions:  # a plain server: one request, one file
            self.uploads[f"/{len(self.uploads)}"] = Stored(len(data), bytearray(data), is_complete=not is_cut)
            return Response(200, Headers(), b"thank you", url)
        if version not in self.versions:  # as tusd does it
            head = Headers([("Tus-Resumable", "1.0.0"), ("Upload-Offset", "0")])
            return Response(200 if method == "HEAD" else 400, head, url=url)
        name = "Upload-Incomplete" if version == 3 else "Upload-Complete"
        completes = (headers.get(name) == "?1") != (version == 3) and not is_cut
        if method == "POST":
            length = headers.get("Upload-Length")
            path, upload, is_new = self._created(headers, None if length is None else int(length))
            if is_new:
                upload.data += data
                upload.is_complete = completes
            state = "?1" if upload.is_complete != (version == 3) else "?0"
            return Response(201, Headers([("Location", path), (name, state)]), url=url)
        upload = self.uploads.get(path)
        if upload is None:
            return Response(404, Headers(), url=url)
        if method == "HEAD":
            state = "?1" if upload.is_complete != (version == 3) else "?0"
            return Response(204, Headers([("Upload-Offset", str(len(upload.data))), (name, state)]), url=url)
        if method == "DELETE":
            del self.uploads[path]
            return Response(204, Headers(), url=url)
        assert method == "PATCH"
        assert (headers.get("Content-Type") == "application/partial-upload") == (version >= 6)
        if int(headers["Upload-Offset"]) != len(upload.data):
            return Response(409, Headers([("Upload-Offset", str(len(upload.data)))]), url=url)
        upload.data += data
        upload.is_complete = completes
        state = "?1" if upload.is_complete != (version == 3) else "?0"
        return Response(204, Headers([(name, state)]), url=url)


class Player:
    """Runs flows against a server, and remembers what they report and how long they wait."""

    def __init__(self, server: Server, **settings: Any) -> None:
        self.server = server
        self.now = time.time()  # records compare with the clock
        self.waits: list[float] = []
        self.reports: list[Progress] = []
        self.records = settings.pop("records", None) or MemoryRecords()
        keys = self._keys()
        settings.setdefault("retry", Retry(jitter=False))
        self.context = Context(
            Settings(ENDPOINT, **settings),
            self.records,
            now=lambda: self.now,
            chance=lambda: 0.5,
            new_key=lambda: next(keys),
        )

    def _keys(self) -> Iterator[str]:
        number = 0
        while True:
            number += 1
            yield f"key-{id(self)}-{number}"

    def run(self, flow: Any) -> Any:
        try:
            command = next(flow)
            while True:
                try:
                    result = self._perform(command)
                except Exception as error:
                    command = flow.throw(error)
                else:
                    command = flow.send(result)
        except StopIteration as end:
            return end.value

    def _perform(self, command: Any) -> Any:
        match command:
            case Send():
                return self.server.respond(command)
            case Wait(seconds):
                self.waits.append(seconds)
                self.now += seconds
            case Fill(source, offset, size):
                return source.fill(offset, size)
            case Call(function):
                return function()
            case Report(progress):
                self.reports.append(progress)
            case Together(flows):
                return [self.run(flow) for flow in flows]
        return None
