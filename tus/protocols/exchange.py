"""One request from its head to its reply: which protocol it speaks, that protocol's flow, and then CORS.

:func:`exchange` is a generator of :mod:`tus.protocols.effects`. It decides and yields what must be done; a driver does
it, synchronously or not, and sends the result back or throws the error in. Law of this room and of those beside it: no
I/O and no clock. A driver, in turn, decides nothing.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from tus.errors import RequestError, UploadNotFound
from tus.http import headers
from tus.models import IETF, TUS, Request, Response, State, Upload
from tus.options import Options
from tus.protocols import cors
from tus.protocols.conversation import Flow, Start
from tus.protocols.effects import Effect, Load, Steps
from tus.protocols.ietf import flow as ietf
from tus.protocols.ietf import replies as ietf_replies
from tus.protocols.ietf.profiles import UNVERSIONED, marks_ietf, named_profile
from tus.protocols.routing import target
from tus.protocols.tus1 import flow as tus1
from tus.protocols.tus1 import replies as tus1_replies
from tus.protocols.tus1.requests import VERSION

#: The protocols, in the order in which they are asked whether a request is theirs. One that is known by a version comes
#: first: clients of the drafts that came from tus send fields of both.
_FLOWS: Final[dict[str, Flow]] = {IETF: ietf, TUS: tus1}


def exchange(
    request: Request, options: Options, extensions: frozenset[str], now: float, principal: str | None = None
) -> Steps:
    """Answer a request.

    Args:
        request: the head.
        options: the operator's choices.
        extensions: the tus extensions that work with this store on this server.
        now: seconds since 1970.
        principal: who sends the request, where the caller knows it.

    Yields:
        Effects; each says what result it wants.

    Returns:
        The response, for refusals too; only an error that is not of this package is raised.
    """
    if request.method == "OPTIONS":
        response = _discover(request, options, extensions)
        cors.apply(request, response, options)
        return response
    start = recognise(request, options)
    is_named = start is not None
    if start is None:
        start = yield from _start_by_upload(request, options)
    response = yield from start(request, options, extensions, now, principal).answer()
    if response.status == 404 and not is_named:  # which must not tell that another principal has one of that protocol
        response = ietf_replies.refused(UploadNotFound(), UNVERSIONED, options, request.method == "HEAD")
        response.headers.append(("Tus-Resumable", VERSION))
    if options.cors_allow_origin:
        cors.apply(request, response, options)
    return response


def recognise(request: Request, options: Options) -> Start | None:
    """Return what starts a conversation in the protocol of a request; None where only the stored upload can tell."""
    spoken = options.protocols
    for name, flow in _FLOWS.items():
        if name in spoken and (start := flow.recognise(request)) is not None:
            return start
    if len(spoken) > 1 or (TUS not in spoken and request.method == "GET" and options.download):
        return None
    return _FLOWS[next(iter(spoken))].start


def _discover(request: Request, options: Options, extensions: frozenset[str]) -> Response:
    """Return the response to OPTIONS, which tells of every protocol, because it may come before any is spoken."""
    response = tus1_replies.discovered(options, extensions if TUS in options.protocols else None)
    if IETF in options.protocols:
        response.headers.extend(ietf_replies.discovered(options, named_profile(request) or UNVERSIONED))
    return response


def _start_by_upload(request: Request, options: Options) -> Generator[Effect, Any, Start]:
    """Return what starts a conversation in the protocol by which the stored upload was created.

    A GET asks for the data if the upload has any for it. A DELETE of an upload that is gone is not told that tus wants
    a version.
    """
    default = tus1.start if TUS in options.protocols else ietf.start
    upload_id = target(request, options).upload_id
    if upload_id is None:
        return default
    try:
        upload: Upload = yield Load(upload_id)
    except RequestError:
        return ietf.start if request.method == "DELETE" else default
    if request.method == "GET" and options.download and upload.is_complete and upload.state != State.REJECTED:
        return tus1.start
    return _FLOWS[upload.protocol].start if upload.protocol in options.protocols else default


_FORM_TYPES = ("multipart/form-data", "application/x-www-form-urlencoded")


_MARKS = ("Tus-Resumable", "Upload-Length", "Upload-Offset", "Upload-Defer-Length", "Upload-Concat", "Upload-Metadata")


def is_ours(request: Request, options: Options) -> bool:
    """Whether the request speaks to the uploads, rather than to a page or a form that lives at the same URL.

    Not ours are GET and HEAD of what is no upload, and a form posted without any header of the protocol.
    """
    method = request.effective_method
    if method in ("GET", "HEAD"):
        upload_id = target(request, options).upload_id
        # Below an upload path all is ours; in a view the framework's routing may lead to pages as well.
        names_upload = upload_id is not None if options.upload_path is not None else bool(upload_id)
        return names_upload or (method == "HEAD" and request.headers.get("Tus-Resumable") is not None)
    if method == "POST" and headers.media_type(request.headers.get("Content-Type") or "") in _FORM_TYPES:
        is_upload = IETF in options.protocols and marks_ietf(request)
        return is_upload or any(request.headers.get(name) is not None for name in _MARKS)
    return True
