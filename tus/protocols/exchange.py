"""One request from its head to its reply.

:func:`exchange` is a generator of :mod:`tus.protocols.effects`. It decides, with the help of :mod:`tus.protocols`, and
yields what is to be done; a driver does it, synchronously or not, and sends the result back or throws the error in. The
law of this room and of those beside it: no I/O and no clock; a driver, in turn, decides nothing.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from tus.errors import RequestError, UploadNotFound
from tus.http import headers
from tus.models import IETF, TUS, Request, Response, State, Upload, effective_method
from tus.options import Options
from tus.protocols import cors
from tus.protocols.effects import Effect, Load, Steps
from tus.protocols.ietf import flow as ietf
from tus.protocols.ietf import replies as ietf_replies
from tus.protocols.ietf.profiles import UNVERSIONED, Profile, marks_ietf, named_profile, profile_of
from tus.protocols.routing import target
from tus.protocols.tus1 import flow as tus1
from tus.protocols.tus1 import replies as tus1_replies
from tus.protocols.tus1.requests import VERSION


def exchange(request: Request, options: Options, extensions: frozenset[str], now: float) -> Steps:
    """Answer a request.

    Args:
        request: the head.
        options: the operator's choices.
        extensions: the tus extensions that work with this store on this server.
        now: seconds since 1970.

    Yields:
        Effects; see each for what it sends back.

    Returns:
        The response, for refusals too; only an error that is not of this package leaves by itself.
    """
    if request.method == "OPTIONS":
        response = _discovered(request, options, extensions)
    else:
        named = recognise(request, options)
        spoken = (yield from _spoken_to(request, options)) if named is None else named
        if isinstance(spoken, Profile):
            response = yield from ietf.Conversation(request, spoken, options, now).steps()
        else:
            response = yield from tus1.steps(request, options, extensions, now)
        if named is None and response.status == 404:  # which must not tell that there is one, of somebody else's
            response = ietf_replies.refused(UploadNotFound(), UNVERSIONED, options, request.method == "HEAD")
            response.headers.append(("Tus-Resumable", VERSION))
    cors.apply(request, response, options)
    return response


def _discovered(request: Request, options: Options, extensions: frozenset[str]) -> Response:
    """OPTIONS, which tells of both protocols, because it may be asked before any is spoken."""
    response = tus1_replies.discovered(options, extensions if TUS in options.protocols else None)
    if IETF in options.protocols:
        response.headers.extend(ietf_replies.discovered(options, named_profile(request) or UNVERSIONED))
    return response


def _spoken_to(request: Request, options: Options) -> Generator[Effect, Any, Profile | str]:
    """The protocol of a request that could be of either: that by which its upload was created.

    A GET is for the data where there is any for it. A DELETE of what is gone is not told that tus wants a version.
    """
    default = TUS if TUS in options.protocols else UNVERSIONED
    upload_id = target(request, options).upload_id
    if upload_id is None:
        return default
    try:
        upload: Upload = yield Load(upload_id)
    except RequestError:
        return UNVERSIONED if request.method == "DELETE" else default
    if request.method == "GET" and options.download and upload.is_complete and upload.state != State.REJECTED:
        return TUS
    return UNVERSIONED if upload.protocol == IETF else default


_FORM_TYPES = ("multipart/form-data", "application/x-www-form-urlencoded")


_MARKS = ("Tus-Resumable", "Upload-Length", "Upload-Offset", "Upload-Defer-Length", "Upload-Concat", "Upload-Metadata")


def is_ours(request: Request, options: Options) -> bool:
    """Whether the request speaks to the uploads, rather than to a page or a form that lives at the same URL.

    Not ours are GET and HEAD of what is no upload, and a form posted without any header of the protocol.
    """
    method = effective_method(request)
    if method in ("GET", "HEAD"):
        upload_id = target(request, options).upload_id
        # Below an upload path all is ours; in a view the framework's routing may lead to pages as well.
        names_upload = upload_id is not None if options.upload_path is not None else bool(upload_id)
        return names_upload or (method == "HEAD" and request.headers.get("Tus-Resumable") is not None)
    if method == "POST" and headers.media_type(request.headers.get("Content-Type") or "") in _FORM_TYPES:
        is_upload = IETF in options.protocols and marks_ietf(request)
        return is_upload or any(request.headers.get(name) is not None for name in _MARKS)
    return True


#: Methods of requests that may carry nothing by which a protocol could be told.
_BARE = ("HEAD", "GET", "DELETE")


def recognise(request: Request, options: Options) -> Profile | str | None:
    """The protocol of a request.

    A version that is known comes first: clients of the drafts that came from tus send fields of both.

    Returns:
        A profile of the IETF protocol, :data:`TUS`, or None where only the upload can tell.
    """
    if IETF not in options.protocols:
        return TUS
    profile = profile_of(request)
    if profile is not None:
        return profile
    if TUS not in options.protocols:
        return None if request.method == "GET" and options.download else UNVERSIONED
    is_bare = request.method in _BARE and request.headers.get("Tus-Resumable") is None
    return None if is_bare else TUS
