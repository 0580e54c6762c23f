"""The effect of the replies of hooks on uploads and responses. Pure."""

from __future__ import annotations

from dataclasses import replace

from tus.errors import Rejected
from tus.http.headers import format_metadata
from tus.models import HookReply, Response, Upload


def changed(draft: Upload, reply: HookReply) -> Upload:
    """Return the draft with the changes of pre-create."""
    raw_metadata = draft.raw_metadata
    if reply.metadata is not None:
        named = {} if reply.name is None else {"filename": reply.name}
        raw_metadata = format_metadata({**reply.metadata, **named})
    elif reply.name is not None:
        # The client's own pairs stay unchanged: they may have keys that the formatter does not accept.
        kept = [
            pair for pair in map(str.strip, raw_metadata.split(",")) if pair.partition(" ")[0] not in ("", "filename")
        ]
        raw_metadata = ",".join([*kept, format_metadata({"filename": reply.name})])
    return replace(draft, raw_metadata=raw_metadata, id=reply.id or draft.id)


def refusal(reply: HookReply, message: str) -> Response:
    """Return the response if a hook refuses: the hook's own if it is an error, else 400."""
    response = reply.response
    if response is None:
        return Response.of_text(400, message)
    if response.status < 400:
        return _whole(Response(400, "Bad Request", response.headers, response.body or (f"{message}\n".encode(),)))
    return _whole(response)


def rejection(reply: HookReply) -> Response:
    """Return the response if pre-finish rejects: a 4xx after which clients do not retry."""
    response = reply.response
    default = Rejected()
    if response is None:
        return Response.of_text(default.status, str(default))
    if not 400 <= response.status < 500 or response.status in (409, 423):
        body = response.body or (f"{default}\n".encode(),)
        return _whole(Response(default.status, default.reason, response.headers, body))
    return _whole(response)


def objection(reply: HookReply) -> Response | None:
    """Return the error response of pre-finish, if any. It replaces the application's, and decides the outcome."""
    response = reply.response
    return _whole(response) if response is not None and response.status >= 400 else None


def merged(response: Response, reply: HookReply | None) -> Response:
    """Return a success with the header fields of a hook's reply."""
    if reply is None or reply.response is None:
        return response
    ours = {name.lower() for name, _ in response.headers} | {"content-length", "content-type"}
    added = [(name, value) for name, value in reply.response.headers if name.lower() not in ours]
    return replace(response, headers=response.headers + added)


def _whole(response: Response) -> Response:
    """Return the response of a hook with the header fields that servers need."""
    body = b"".join(response.body)
    headers = [(name, value) for name, value in response.headers if name.lower() != "content-length"]
    if not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", "text/plain; charset=utf-8"))
    headers.append(("Content-Length", str(len(body))))
    return Response(response.status, response.reason or "Refused", headers, (body,) if body else ())
