"""One request from its head to its reply.

:func:`exchange` is a generator of :mod:`tus.protocols.effects`. It decides, with the help of :mod:`tus.protocol`, and
yields what is to be done; a driver does it, synchronously or not, and sends the result back or throws the error in. The
law of this room and of those beside it: no I/O and no clock; a driver, in turn, decides nothing.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from tus.errors import RequestError, UploadNotFound
from tus.models import IETF, TUS, Request, Response, State, Upload
from tus.options import Options
from tus.protocol.recognising import named_profile, recognise
from tus.protocols import cors
from tus.protocols.effects import Effect, Load, Steps
from tus.protocols.ietf import flow as ietf
from tus.protocols.ietf import replies as ietf_replies
from tus.protocols.ietf.profiles import UNVERSIONED, Profile
from tus.protocols.tus1 import flow as tus1
from tus.protocols.tus1 import replies as tus1_replies
from tus.protocols.tus1.requests import VERSION, target


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
