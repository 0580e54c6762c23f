"""One request from its head to its reply: the choice of the protocol, that protocol's flow, and then CORS.

:func:`exchange` is a generator of :mod:`tus.protocols.effects`. It decides, and yields effects. The runner
performs them (:mod:`tus.server.runner`), and sends the result back or throws the error in. Law of this room and of its
subrooms: no I/O and no clock. The runner, in turn, decides nothing.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from tus.errors import RequestError, StorageUnavailable, UploadNotFound
from tus.http import headers
from tus.models import IETF, MEDIA_TYPE, TUS, Intent, Request, Response, State, Upload
from tus.options import Options
from tus.protocols import cors
from tus.protocols.admission import Refused
from tus.protocols.conversation import Conversation, Flow, Start
from tus.protocols.effects import Effect, Load
from tus.protocols.ietf import flow as ietf
from tus.protocols.ietf import replies as ietf_replies
from tus.protocols.ietf.profiles import (
    PARTIAL_UPLOAD,
    UNVERSIONED,
    VERSION_FIELD,
    marks_ietf,
    named_profile,
    profile_of,
)
from tus.protocols.routing import route
from tus.protocols.tus1 import flow as tus1
from tus.protocols.tus1 import replies as tus1_replies
from tus.protocols.tus1.requests import VERSION

#: The protocols, in the order in which they recognize a request. The IETF protocol comes first, because clients of the
#: drafts that were made from tus clients send fields of both.
_FLOWS: Final[dict[str, Flow]] = {IETF: ietf, TUS: tus1}


def exchange(
    request: Request, options: Options, extensions: frozenset[str], now: float, principal: object = None
) -> Generator[Effect, Any, Response]:
    """Respond to a request.

    Args:
        request: the head.
        options: the operator's choices.
        extensions: the tus extensions that work with this store on this server.
        now: seconds since 1970.
        principal: the principal that sends the request, if the caller knows it; its value is checked here.

    Yields:
        Effects. The docstring of each names the result that it needs.

    Returns:
        The response. A refusal is a response too; only errors from outside this package are raised.
    """
    if request.method == "OPTIONS":
        response = _discover(request, options, extensions)
        cors.apply(request, response, options)
        return response
    start = recognize(request, options)
    is_shown = start is not None
    upload: Upload | None = None
    if start is None:
        start, upload = yield from _start_by_upload(request, options)
    conversation = start(request, options, extensions, now, principal)
    try:
        answer = yield from conversation.answer()
        while not isinstance(answer, Response):
            answer = yield from answer
        response = answer
    except (RequestError, Refused) as refusal:
        response = conversation.refuse(refusal)
        if not is_shown:
            response = yield from _hide(conversation, upload, refusal, response)
    if response.status in (404, 410):
        _forbid_storing(response)
    if options.cors_allow_origin:
        cors.apply(request, response, options)
    return response


def refuse(error: RequestError, request: Request, options: Options) -> Response:
    """Return the response to a request that is refused without an exchange, as after an unexpected exception.

    A page can read it, and a client of either protocol recognizes it, like every other response.
    """
    is_head = request.method == "HEAD"
    profile = profile_of(request) if IETF in options.protocols else None
    if profile is not None:
        response = ietf_replies.refused(error, profile, options, is_head)
    elif options.protocols == {TUS} or "Tus-Resumable" in request.fields:
        response = tus1_replies.refused(error, is_head)
    else:
        response = _refuse_in_both(error, request, options)
    if response.status in (404, 410):
        _forbid_storing(response)
    cors.apply(request, response, options)
    return response


def _hide(
    conversation: Conversation, upload: Upload | None, refusal: RequestError | Refused, response: Response
) -> Generator[Effect, Any, Response]:
    """Return the response to a refused request whose protocol only the stored upload shows.

    Without permission, neither the protocol nor a check of the head must show that there is an upload.

    Args:
        conversation: in the protocol of the upload.
        upload: the upload; None if it cannot be loaded.
        refusal: the reason to refuse the request.
        response: the response in that protocol.
    """
    request = conversation.request
    is_hidden = isinstance(refusal, UploadNotFound) or not conversation.is_admitted
    if not is_hidden or isinstance(refusal, StorageUnavailable):
        return response
    if upload is not None and conversation.is_admitted is None:  # its head alone was reason enough to refuse it
        try:
            yield from conversation.authorize(_INTENTS[request.method], upload)
        except (RequestError, Refused) as error:
            refusal = error
        else:
            return response
    return _refuse_in_both(refusal, request, conversation.options)


#: The intents of the methods of requests that need not show their protocol.
_INTENTS: Final = {"HEAD": Intent.HEAD, "GET": Intent.HEAD, "DELETE": Intent.TERMINATE}


def _refuse_in_both(error: RequestError | Refused, request: Request, options: Options) -> Response:
    """Return the refusal of a request whose protocol is not known."""
    is_head = request.method == "HEAD"
    if isinstance(error, Refused):
        response = ietf_replies.relayed(error.answer, UNVERSIONED, is_head)
    else:
        response = ietf_replies.refused(error, UNVERSIONED, options, is_head)
    response.headers.append(("Tus-Resumable", VERSION))
    return response


def _forbid_storing(response: Response) -> None:
    """Forbid caches to store a response.

    They may store a 404 and a 410 by default, and would give it to a client that may use the upload. Clients start
    again from zero after it.
    """
    response.headers[:] = [pair for pair in response.headers if pair[0].lower() != "cache-control"]
    response.headers.append(("Cache-Control", "no-store"))


def recognize(request: Request, options: Options) -> Start | None:
    """Return the start of a conversation in the protocol of a request; None if only the stored upload shows it."""
    spoken = options.protocols
    if TUS in spoken and "Tus-Resumable" in request.fields and VERSION_FIELD not in request.fields:
        return tus1.start  # as nearly every request of tus, which the loop would find, too
    for name, flow in _FLOWS.items():
        if name in spoken and (start := flow.recognize(request)) is not None:
            return start
    if len(spoken) > 1 or (TUS not in spoken and request.method == "GET" and options.download):
        return None
    return _FLOWS[next(iter(spoken))].start


def _discover(request: Request, options: Options, extensions: frozenset[str]) -> Response:
    """Return the response to OPTIONS. It describes every protocol, because the client may not have chosen one yet."""
    response = tus1_replies.discovered(options, extensions if TUS in options.protocols else None)
    if IETF in options.protocols:
        response.headers.extend(ietf_replies.discovered(options, named_profile(request) or UNVERSIONED))
    return response


def _start_by_upload(request: Request, options: Options) -> Generator[Effect, Any, tuple[Start, Upload | None]]:
    """Return the start of a conversation in the protocol that created the stored upload, and that upload.

    A GET of a finished upload is a download. A DELETE of an upload that is gone gets the 404 of the IETF protocol,
    because tus would only ask for a version.
    """
    default = tus1.start if TUS in options.protocols else ietf.start
    upload_id = route(request.url, request.effective_method, options.upload_path).upload_id
    if upload_id is None:
        return default, None
    try:
        upload: Upload = yield Load(upload_id)
    except RequestError:
        return ietf.start if request.method == "DELETE" else default, None
    if request.method == "GET" and options.download and upload.is_complete and upload.state != State.REJECTED:
        return tus1.start, upload
    return _FLOWS[upload.protocol].start if upload.protocol in options.protocols else default, upload


_MARKS = ("Tus-Resumable", "Upload-Length", "Upload-Offset", "Upload-Defer-Length", "Upload-Concat", "Upload-Metadata")


def is_ours(request: Request, options: Options) -> bool:
    """Return whether the request is about uploads, and not for a page, a form or an API at the same URL.

    A request for an upload is ours, and so is OPTIONS. Any other request is ours only if it shows a protocol by a
    header field or its media type. So an application can take ordinary requests at the URL that creates uploads.
    """
    if request.method == "OPTIONS":
        return True
    fields, method = request.fields, request.effective_method
    if "Tus-Resumable" in fields and (request.method != "GET" or options.upload_path is not None):
        return method != "GET" or route(request.url, method, options.upload_path).upload_id is not None
    if route(request.url, method, options.upload_path).upload_id:
        return True
    if method in ("GET", "HEAD"):
        return False
    if IETF in options.protocols and marks_ietf(request):
        return True
    return any(name in fields for name in _MARKS) or headers.media_type(fields.get("Content-Type") or "") in _TYPES


_TYPES = (MEDIA_TYPE, PARTIAL_UPLOAD)


def is_upload(request: Request) -> bool:
    """Return whether a request brings bytes of an upload, as far as its head shows that without the options."""
    if request.effective_method not in ("POST", "PUT", "PATCH"):
        return False
    return marks_ietf(request) or profile_of(request) is not None or "Tus-Resumable" in request.fields
