"""The JSON that tusd 2 posts to an HTTP hook, and the JSON that it accepts in the response. Pure.

See "HTTP hooks" in tusd's documentation. An endpoint that was written for tusd works without changes.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Any

from tus.models import HookEvent, HookReply, HookType, Request, Response, Upload

#: Header fields that a client sends for the application alone; forwarded only if an operator configures it.
SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})

#: Header fields that the server writes itself, or that PEP 3333 forbids an application.
_SERVERS_OWN = frozenset(
    {
        "connection", "content-length", "keep-alive", "proxy-authenticate", "proxy-authorization", "status", "te",
        "trailer", "trailers", "transfer-encoding", "upgrade",
    }
)  # fmt: skip

_STATUSES = frozenset(HTTPStatus)

Json = dict[str, Any]


def encode(event: HookEvent, forward_headers: Collection[str] = ()) -> Json:
    """Return an event as JSON values.

    Beside tusd's ``Type`` and ``Event`` there is ``ID``, which stays the same when the event is posted again.

    Args:
        event: the event to post.
        forward_headers: names of the :data:`SECRET_HEADERS` that are forwarded.
    """
    return {
        "Type": str(event.type),
        "ID": event.id,
        "Event": {"Upload": _upload(event.upload), "HTTPRequest": _request(event.request, forward_headers)},
    }


def _upload(upload: Upload) -> Json:
    storage = None
    if upload.id and upload.path is not None:
        storage = {"Type": "filestore", "Path": upload.path, "InfoPath": upload.path + ".tus"}
        if not upload.path.endswith(upload.id):  # the application has saved the file there
            del storage["InfoPath"]
    return {
        "ID": upload.id,
        "Size": upload.length or 0,
        "SizeIsDeferred": upload.length is None,
        "Offset": upload.offset,
        "MetaData": upload.text_metadata,
        "IsPartial": upload.is_partial,
        "IsFinal": upload.is_final,
        "PartialUploads": list(upload.parts) or None,
        "Storage": storage,
    }


def _request(request: Request | None, forward_headers: Collection[str]) -> Json:
    if request is None:
        return {"Method": "", "URI": "", "RemoteAddr": "", "Header": {}}
    hidden = SECRET_HEADERS - {name.lower() for name in forward_headers}
    headers = {name.title(): [value] for name, value in request.headers.items() if name.lower() not in hidden}
    return {
        "Method": request.method,
        "URI": "/" + request.url.partition("://")[2].partition("/")[2],  # urlsplit() fails on a malformed Host
        "RemoteAddr": request.peer,
        "Header": headers,
    }


def decode(body: bytes, kind: HookType) -> HookReply:
    """Return the reply in an endpoint's response. An empty body and absent members mean success.

    Raises:
        ValueError: tusd would not accept the response; the text says what was expected.
    """
    if not body.strip():
        return HookReply()
    try:
        reply = _Object(json.loads(body), "the response")
    except RecursionError:
        raise ValueError("the response must be a JSON object") from None
    changes = _Object({}, "") if kind != HookType.PRE_CREATE else reply.object("ChangeFileInfo")
    metadata, upload_id, name = changes.mapping("MetaData"), changes.text("ID"), changes.object("Storage").text("Path")
    return HookReply(
        reject=reply.flag("RejectTermination" if kind == HookType.PRE_TERMINATE else "RejectUpload"),
        stop=reply.flag("StopUpload"),
        response=_response(reply.object("HTTPResponse")),
        metadata=metadata,
        id=upload_id or None,
        name=name or None,
    )


def _response(reply: _Object) -> Response | None:
    status, body = reply.number("StatusCode"), reply.text("Body").encode()
    headers = list((reply.mapping("Header") or {}).items())
    if not status and not body and not headers:
        return None
    status = status or 200
    if not 200 <= status <= 599:
        raise ValueError(f"StatusCode must be from 200 to 599; it is {status}")
    reason = HTTPStatus(status).phrase if status in _STATUSES else "Unknown"
    for name, value in headers:
        if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise ValueError("Header must have names of header fields")
        if not value.isprintable() or not _is_latin(value):
            raise ValueError(f"Header must have printable values; that of {name} is not")
    kept = {name.lower(): (name, value) for name, value in headers if name.lower() not in _SERVERS_OWN}
    return Response(status, reason, list(kept.values()), (body,) if body else ())


def _is_latin(text: str) -> bool:
    return all(ord(character) < 256 for character in text)


class _Object:
    """A JSON object whose members may be absent, null, or of the expected type.

    As in Go, the case of their names does not matter.
    """

    def __init__(self, value: object, name: str) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{name} must be a JSON object")
        self._value: Mapping[str, object] = {key.lower(): member for key, member in value.items()}

    def _get(self, name: str, kind: type, expected: str, default: Any) -> Any:
        value = self._value.get(name.lower())
        if value is None:
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ValueError(f"{name} must be {expected}")
        return value

    def object(self, name: str) -> _Object:
        return _Object(self._get(name, dict, "a JSON object", {}), name)

    def flag(self, name: str) -> bool:
        return bool(self._get(name, bool, "true or false", False))

    def number(self, name: str) -> int:
        return int(self._get(name, int, "a whole number", 0))

    def text(self, name: str) -> str:
        return str(self._get(name, str, "text", ""))

    def mapping(self, name: str) -> dict[str, str] | None:
        found = self._get(name, dict, "a JSON object of texts", None)
        if found is not None and not all(isinstance(value, str) for value in found.values()):
            raise ValueError(f"{name} must be a JSON object of texts")
        return found  # type: ignore[no-any-return]
