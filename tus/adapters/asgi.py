"""The adapter for plain ASGI 3, and the call of a wrapped application."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, MutableMapping
from functools import lru_cache, partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol
from urllib.parse import quote

try:
    from anyio import CancelScope, Event, create_task_group, from_thread, move_on_after, to_thread
    from anyio.lowlevel import EventLoopToken
except ImportError as missing:
    raise ImportError("ASGI needs anyio; install it with: pip install anyio") from missing

from tus.adapters.filebody import BLOCK, LongBody, drop_representation
from tus.http.headers import number_in
from tus.http.paths import PLAIN, SAFE
from tus.models import FIELDS, MEDIA_TYPE, Origin, Request, Response, Upload
from tus.protocols.origins import PROTOCOL_FIELDS, REPRESENTATION, place_of, split_url

if TYPE_CHECKING:
    from tus.server.pace import Patience

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
RawHeaders = list[tuple[bytes, bytes]]

LONGEST_HELD = 1 << 20  # bytes of an application's response that are held in memory

_PIECE = 64 << 10  # bytes of a file that a client must read within its time

DRAINED = 64 << 20  # bytes of an unused body that are read, so that the client can read the response
DRAINING = 5.0  # seconds for reading them

#: Header fields of an application's response that describe its connection, which is not the client's.
_OF_CONNECTION = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"content-type", b"expect", b"x-http-method-override"})


_NAMES = {name.lower(): name for name in FIELDS}
_PICKED = frozenset(_NAMES)


@lru_cache(maxsize=256)
def _lowered(name: str) -> str:
    return name.lower()


class ScopeHeaders(Mapping[str, str]):
    """The header fields of a scope by their usual names; repeated fields are joined to one list."""

    def __init__(self, raw: RawHeaders) -> None:
        self._fields: dict[str, str] = {}
        for key, value in raw:
            name, text = key.decode("latin-1").lower(), value.decode("latin-1")
            earlier = self._fields.get(name)
            separator = "; " if name == "cookie" else ", "
            self._fields[name] = text if earlier is None else f"{earlier}{separator}{text}"

    def __getitem__(self, name: str) -> str:
        return self._fields[_lowered(name)]

    def get(self, name: str, default: Any = None) -> Any:
        return self._fields.get(_lowered(name), default)

    def pick_fields(self) -> dict[str, str]:
        """Return the values of :attr:`tus.models.Request.fields`."""
        return {_NAMES[name]: self._fields[name] for name in _PICKED.intersection(self._fields)}

    def __iter__(self) -> Iterator[str]:
        return (name.title() for name in self._fields)

    def __len__(self) -> int:
        return len(self._fields)


def full_path(scope: Scope) -> str:
    """Return the decoded path from the root of the site.

    Some servers and frameworks put ``root_path`` in front of ``path``, as the specification requires; others do not.
    """
    path: str = scope["path"]
    root: str = (scope.get("root_path") or "").rstrip("/")
    return path if not root or path == root or path.startswith(root + "/") else root + path


def request_url(scope: Scope, headers: Mapping[str, str]) -> str:
    """Return the URL as the client knows it, without its query."""
    scheme = scope.get("scheme") or "http"
    host = headers.get("Host")
    if not host:
        name, port = scope.get("server") or ("localhost", None)
        host = name if port in (None, 443 if scheme == "https" else 80) else f"{name}:{port}"
    path = full_path(scope)
    if PLAIN.fullmatch(path) is None:
        path = quote(path, safe=SAFE, errors="surrogateescape")
    return f"{scheme}://{host}{path}"


def is_peer_replaced(scope: Scope, headers: Mapping[str, str]) -> bool:
    """Return whether the server has put an address from ``X-Forwarded-For`` into the place of its peer's, as uvicorn.

    The port is 0 then, which no connection has.
    """
    host, port = scope.get("client") or ("", None)
    return port == 0 and host in map(str.strip, headers.get("X-Forwarded-For", "").split(","))


class LentSocket(Protocol):
    """The connection of a request, from which threads have read the body."""

    @property
    def is_left(self) -> bool:
        """Whether the client may send further bytes of the body."""

    async def receive(self) -> bytes | None:
        """Return some of the bytes that were not taken; None after the last."""

    def release(self) -> None:
        """Give the socket back to the server."""


class AsgiAdapter:
    """An :class:`~tus.adapters.interface.AsyncAdapter` over the arguments of an ASGI application.

    Args:
        scope: of type ``http``.
        receive: the server's.
        send: the server's.
        informs: whether the server accepts interim responses; None to detect it.
        loop: that of the request, for threads which anyio has not made.

    Attributes:
        scope: of the request.
        request: the head of the request.
        response: the response that was made, or None.
        lent: the socket, if the server has lent it for the body.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        informs: bool | None = None,
        loop: EventLoopToken | None = None,
    ) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self._informs = informs
        self._loop = loop
        self._received = 0
        self._is_read = self._is_cut = False
        self.response: Response | None = None
        self.lent: LentSocket | None = None
        headers = ScopeHeaders(scope["headers"])
        self.request = Request(
            method=scope["method"],
            url=request_url(scope, headers),
            headers=headers,
            # In HTTP/1 a body without a length must be chunked; later versions mark the end of every body.
            input_terminated=not scope["http_version"].startswith("1") or headers.get("Transfer-Encoding") is not None,
            peer=(scope.get("client") or ("",))[0] or "",
            native=scope,
            query=scope.get("query_string", b"").decode("latin-1"),
            mount=str(scope.get("root_path") or ""),
        )

    @property
    def method(self) -> str:
        """The method of the request, or the one in ``X-HTTP-Method-Override`` of a POST or PUT."""
        return self.request.effective_method

    def has_received(self, length: int) -> bool:
        # This relies on a private name of uvicorn. Without it nothing is known.
        cycle = getattr(self._receive, "__self__", None)
        return type(cycle).__module__.startswith("uvicorn.") and len(getattr(cycle, "body", b"")) == length

    async def receive(self) -> bytes | None:
        if self.lent is not None:
            return await self.lent.receive()
        if self._is_cut:
            raise ConnectionResetError("the client disconnected")
        if self._is_read:
            return None
        message = await self._receive()
        if message["type"] != "http.request":
            self._is_cut = self._is_read = True
            return _undelivered_bytes(self._receive)
        self._is_read = not message.get("more_body", False)
        body: bytes = message.get("body", b"")
        self._received += len(body)
        return body

    def respond(self, response: Response) -> None:
        self.response = response

    def inform(self, response: Response) -> bool:
        if not self._takes_interim_responses():
            return False
        headers = _raw(response.headers)
        message = {"type": "http.response.informational", "status": response.status, "headers": headers}
        try:
            from_thread.run(self._send_message, message, token=self._loop)
        except OSError:  # the client disconnected, but the bytes that it sent still count
            return False
        return True

    async def _send_message(self, message: Message) -> None:
        await self._send(message)

    def _takes_interim_responses(self) -> bool:
        if self.scope["http_version"] == "1.0":  # its clients mistake an interim response for the final one
            return False
        if self._informs is not None:
            return self._informs
        if "http.response.informational" in (self.scope.get("extensions") or {}):
            return True
        # gunicorn, from 25 on, accepts the message without declaring the extension. Other servers, such as uvicorn,
        # fail on an unknown message.
        return (getattr(self._send, "__module__", None) or "").startswith("gunicorn.asgi.")

    def _is_body_left(self) -> bool:
        """Return whether a client of HTTP/1 is sending bytes that were not read."""
        if self.lent is not None:
            return self.lent.is_left
        fields = self.request.fields
        if self._is_read or not self.scope["http_version"].startswith("1") or "Expect" in fields:
            return False
        if "Transfer-Encoding" in fields:
            return True
        return "Content-Length" in fields and (number_in(fields["Content-Length"]) or 0) > self._received

    async def _drain(self, seconds: float) -> None:
        """Read the rest of the body after the client can see the response, and before the response ends.

        After the end, servers stop reading the body, or close the connection because of it.
        """
        left = DRAINED
        with move_on_after(seconds):
            while left > 0 and self._is_body_left():
                block = await self.receive()
                left -= len(block or b"")

    async def send_response(
        self, patience: Patience | None = None, draining: Callable[[], float] = lambda: DRAINING
    ) -> None:
        """Send the response that was made.

        Args:
            patience: how slowly a client may read a file, else the response ends; None for any slowness.
            draining: returns the seconds in which the rest of an unused body is read.
        """
        response = self.response
        assert response is not None, "the request was handled"
        headers = _raw(response.headers)
        body = response.body
        if self.lent is not None and self.lent.is_left:
            headers.append((b"connection", b"close"))  # the next request would begin in the middle of the body
        is_head = self.scope["method"] == "HEAD"  # as the server sees it, without X-HTTP-Method-Override
        try:
            if isinstance(body, tuple | list):
                whole = b"" if is_head else b"".join(body)
                may_lack = not is_head and response.status not in (204, 304)
                if may_lack and not any(name == b"content-length" for name, _ in headers):
                    headers.append((b"content-length", b"%d" % len(whole)))
                await self._start(response.status, headers)
                if self._is_body_left():
                    # granian stops reading once all announced bytes of the response are there.
                    await self._send({"type": "http.response.body", "body": whole[:-1], "more_body": True})
                    await self._drain(draining())
                    whole = whole[-1:]
                await self._send({"type": "http.response.body", "body": whole})
                return
            await self._start(response.status, headers)
            await self._while_connected(self._send_blocks(() if is_head else body, patience))
        finally:
            close = getattr(body, "close", None)
            if close is not None:
                close()

    async def _while_connected(self, sending: Coroutine[Any, Any, None]) -> None:
        """Send something that may be long, until the client disconnects.

        Before version 2.4 of the specification a server drops what is sent after that, without an error.
        """
        if self.scope.get("asgi", {}).get("spec_version", "2.0") >= "2.4":
            await sending
            return
        try:
            async with create_task_group() as group:
                group.start_soon(self._wait_for_disconnect, group.cancel_scope)
                await sending
                group.cancel_scope.cancel()
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _wait_for_disconnect(self, scope: CancelScope) -> None:
        while (await self._receive())["type"] == "http.request":
            pass
        scope.cancel()

    async def _send_blocks(self, body: Iterable[bytes], patience: Patience | None) -> None:
        silence = patience.silence if patience is not None else 0
        pace, sent = patience.pace() if patience is not None else None, 0
        blocks = iter(body)
        while block := await to_thread.run_sync(next, blocks, None):
            for start in range(0, len(block), _PIECE):
                with move_on_after(silence or math.inf) as scope:
                    piece = block[start : start + _PIECE]
                    await self._send({"type": "http.response.body", "body": piece, "more_body": True})
                    sent += len(piece)
                if scope.cancelled_caught or (pace is not None and not pace.keeps_up(sent)):
                    log.debug("a download was abandoned after %d bytes, because the client did not read", sent)
                    return
        await self._send({"type": "http.response.body", "body": b""})

    def close(self) -> None:
        """Give a lent socket back to the server."""
        if self.lent is not None:
            self.lent.release()

    async def _start(self, status: int, headers: RawHeaders) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": headers})


def _undelivered_bytes(receive: Receive) -> bytes:
    """Return the bytes of a body that a server received, but does not deliver after the client has disconnected.

    This relies on private names of uvicorn and gunicorn; without these names the bytes are lost.
    """
    server: Any = getattr(receive, "__self__", None)
    module = type(server).__module__
    if module.startswith("uvicorn.") and isinstance(body := getattr(server, "body", None), bytes | bytearray):
        return bytes(body)
    if module.startswith("gunicorn.") and (chunks := getattr(server, "_chunks", None)) is not None:
        return b"".join(chunks)
    return b""


def _fields_of(scope: Scope, name: bytes) -> RawHeaders:
    return [field for field in scope["headers"] if field[0].lower() == name]


def _raw(headers: list[tuple[str, str]]) -> RawHeaders:
    return [(_lowered(name).encode("latin-1"), value.encode("latin-1")) for name, value in headers]


# -- Applications -------------------------------------------------------------------------------------------------

#: The keys whose values are the same for every request to an application at one mount point.
SURROUNDINGS = ("root_path", "server", "scheme", "state", "app")


def scope_without_client(upload: Upload, upload_path: str, base_url: str, surroundings: Scope) -> Scope:
    """Return the scope for a hand-over without a client; see :func:`tus.adapters.wsgi.environ_without_client`.

    Args:
        upload: the finished upload.
        upload_path: the option of that name.
        base_url: the option of that name; may be empty.
        surroundings: the values of :data:`SURROUNDINGS` in an earlier request, as far as they are known.
    """
    place = place_of(upload, upload_path, base_url)
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "PATCH",
        "scheme": "http",
        "root_path": "",
        "query_string": b"",
        "server": ("localhost", None),
        "client": None,
        **surroundings,
    }
    host = place.host
    if host:
        scope["scheme"] = place.scheme
    else:
        name, port = scope["server"] or ("localhost", None)
        host = name if port in (None, 443 if scope["scheme"] == "https" else 80) else f"{name}:{port}"
    if place.mount is not None:
        scope["root_path"] = place.mount
    scope["headers"] = [(b"host", host.encode("latin-1")), *_raw(list(place.forwarding))]
    return _set_path(scope, f"{place.path.rstrip('/')}/{upload.id}")


def restore_original(scope: Scope, origin: Origin) -> Scope:
    """Return the scope of the request that created an upload, as if no protocol of uploads existed."""
    _, _, path, query = split_url(origin.url)
    dropped = {name.lower().encode() for name in (*PROTOCOL_FIELDS, *REPRESENTATION)}
    headers = [field for field in scope["headers"] if field[0].lower() not in dropped]
    headers += _raw([field for field in origin.headers if field[0] in REPRESENTATION])
    restored = {**scope, "method": origin.method, "query_string": query.encode("latin-1"), "headers": headers}
    return _set_path(restored, path)


def _set_path(scope: Scope, path: str) -> Scope:
    """Set the path of a scope, and return the scope."""
    scope["path"] = path
    scope["raw_path"] = quote(path, safe=SAFE).encode()
    return scope


class Call:
    """One call of an application, in the role of the server: its request, and its whole response.

    Args:
        scope: of the request; it is copied, because applications change it.
        more: keys to add.
        method: the method of the request; frameworks do not know about ``X-HTTP-Method-Override``.
        path: of the request; by default that of the scope.
        media_type: the type of a new body; None keeps that of the request. A framework would try to parse a form.
    """

    def __init__(
        self, scope: Scope, more: Scope, method: str, path: str | None = None, media_type: str | None = MEDIA_TYPE
    ) -> None:
        self.scope: Scope = {**scope, **more, "method": method, "extensions": {}}
        if "state" in scope:
            self.scope["state"] = dict(scope["state"])
        if path is not None:
            _set_path(self.scope, path)
        self._type: RawHeaders = [] if media_type is not None else _fields_of(scope, b"content-type")
        if media_type is not None:
            self._type = [(b"content-type", media_type.encode())]
        self.scope["headers"] = [field for field in scope["headers"] if field[0].lower() not in _FRAMING]
        self.scope["headers"].append((b"content-length", b"0"))
        self._file: BinaryIO = io.BytesIO()
        self._left = 0
        self._is_read = False
        self._end: Event | None = None  # for an application that reads behind the body
        self._status = 0
        self._headers: list[tuple[str, str]] = []
        self._body: list[bytes] = []
        self._rest: LongBody | None = None  # the body, once it is too long for memory
        self._size = 0
        self._is_complete = False
        self._keeps = False

    def replace_body(self, file: BinaryIO, size: int, upload: Upload) -> None:
        """Make a file the body that the application reads."""
        self._file, self._left = file, size
        self._keeps = upload.keeps_answer
        headers: RawHeaders = [
            field for field in self.scope["headers"] if field[0].lower() not in (b"content-length", b"upload-metadata")
        ]
        headers += [(b"content-length", b"%d" % size), *self._type]
        if upload.original is None:
            headers.append((b"upload-metadata", upload.raw_metadata.encode("latin-1")))
        self.scope["headers"] = headers

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    async def run(self, app: App, longest_kept: int) -> Response:
        """Call the application, and return its response after it has returned.

        An exception after the start of a 2xx response is not a success. The body of a 2xx is dropped, unless the
        upload's protocol is that of the IETF.

        Args:
            app: the application.
            longest_kept: bytes; the body of the response is a tuple only up to this size.
        """
        try:
            await app(self.scope, self._receive, self._send)
            if not self._is_complete:
                raise AssertionError("the application returned without sending a whole response")
        except BaseException:
            if self._rest is not None:
                self._rest.close()
            raise
        try:
            reason = HTTPStatus(self._status).phrase
        except ValueError:
            reason = ""
        body: Iterable[bytes] = tuple(self._body)
        if self._rest is not None:
            body = self._rest.body() or ()
            if body == ():
                self._headers = drop_representation(self._headers)
        elif self._size > longest_kept:
            body = list(body)
        return Response(self._status, reason, self._headers, body)

    async def _receive(self) -> Message:
        if self._is_read:
            if not self._is_complete:
                self._end = self._end or Event()
                await self._end.wait()  # the application may wait for a disconnect, which does not happen here
            return {"type": "http.disconnect"}
        if isinstance(self._file, io.BytesIO):
            block = self._file.read()
        else:
            block = await to_thread.run_sync(partial(self._file.read, BLOCK))
        self._left -= len(block)
        self._is_read = self._left <= 0 or not block
        return {"type": "http.request", "body": block, "more_body": not self._is_read}

    async def _keep(self, block: bytes) -> None:
        self._body.append(block)
        self._size += len(block)
        if self._rest is not None or self._size > LONGEST_HELD:
            await to_thread.run_sync(self._spool_to_file)

    def _spool_to_file(self) -> None:
        if self._rest is None:
            self._rest = LongBody()
        self._rest.write(*self._body)
        self._body.clear()

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if self._status:
                raise AssertionError("the application started its response twice")
            self._status = message["status"]
            pairs = [pair for pair in message.get("headers", ()) if pair[0].lower() not in _OF_CONNECTION]
            self._headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs]
        elif message["type"] == "http.response.body":
            if not self._status or self._is_complete:
                raise AssertionError("the application sent a body before the start or after the end of its response")
            body = message.get("body", b"")
            if body and (self._keeps or not 200 <= self._status < 300):
                await self._keep(bytes(body))
            if not message.get("more_body", False):
                self._is_complete = True
                if self._end is not None:
                    self._end.set()
