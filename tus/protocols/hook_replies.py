"""What hooks answer, as it changes uploads and responses. Pure."""

from __future__ import annotations

from dataclasses import replace

from tus.errors import Rejected
from tus.http.headers import format_metadata
from tus.models import HookReply, Response, Upload


def changed(draft: Upload, reply: HookReply) -> Upload:
    """The draft of an upload as pre-create wants it."""
    raw_metadata = draft.raw_metadata
    if reply.metadata is not None:
        raw_metadata = format_metadata(reply.metadata)
    if reply.name is not None:
        metadata = replace(draft, raw_metadata=raw_metadata).metadata
        raw_metadata = format_metadata({**metadata, "filename": reply.name})
    return replace(draft, raw_metadata=raw_metadata, id=reply.id or draft.id)


def refusal(reply: HookReply, message: str) -> Response:
    """What the client hears where a hook refuses: 400, or what the hook has said instead, if that is no success."""
    said = reply.response
    if said is None:
        return Response.of_text(400, message)
    if said.status < 400:
        return _whole(Response(400, "Bad Request", said.headers, said.body or (f"{message}\n".encode(),)))
    return _whole(said)


def rejection(reply: HookReply) -> Response:
    """What the client hears where pre-finish rejects: a 4xx after which it does not try again."""
    said = reply.response
    default = Rejected()
    if said is None:
        return Response.of_text(default.status, str(default))
    if not 400 <= said.status < 500 or said.status in (409, 423):
        body = said.body or (f"{default}\n".encode(),)
        return _whole(Response(default.status, default.reason, said.headers, body))
    return _whole(said)


def objection(reply: HookReply) -> Response | None:
    """The error, if any, that pre-finish answers in the place of the application; its status says what it means."""
    said = reply.response
    return _whole(said) if said is not None and said.status >= 400 else None


def merged(response: Response, reply: HookReply | None) -> Response:
    """A success with the header fields that a hook adds to it."""
    if reply is None or reply.response is None:
        return response
    ours = {name.lower() for name, _ in response.headers} | {"content-length", "content-type"}
    added = [(name, value) for name, value in reply.response.headers if name.lower() not in ours]
    return replace(response, headers=response.headers + added)


def _whole(said: Response) -> Response:
    """A response of a hook with the header fields without which no server sends it well."""
    body = b"".join(said.body)
    headers = [(name, value) for name, value in said.headers if name.lower() != "content-length"]
    if not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", "text/plain; charset=utf-8"))
    headers.append(("Content-Length", str(len(body))))
    return Response(said.status, said.reason or "Refused", headers, (body,) if body else ())
