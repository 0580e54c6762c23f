"""The responses of tus 1.0.0. Pure.

Law of this room: every reply to a client is built here, refusals included, so every reply has ``Tus-Resumable``. Only
the given extensions are advertised.
"""

from __future__ import annotations

from typing import Final

from tus.checksums import DIGEST_SIZES
from tus.errors import RequestError
from tus.http.headers import http_date
from tus.models import Response, State, Upload
from tus.options import Options
from tus.protocols.digests import described
from tus.protocols.handover import lent_headers
from tus.protocols.routing import upload_url
from tus.protocols.tus1.requests import VERSION
from tus.protocols.tus1.withholding import is_length_withheld, is_reported_complete, reported_offset

#: Every extension, in the order in which it is advertised.
EXTENSIONS: Final = (
    "creation",
    "creation-with-upload",
    "creation-defer-length",
    "expiration",
    "checksum",
    "termination",
    "concatenation",
    "concatenation-unfinished",
)

# The validator of WSGI requires a Content-Type on every reply but a 204. Replies to HEAD need a Content-Length too:
# without it waitress sends a chunked body, and cheroot closes the connection.
_TYPE = ("Content-Type", "text/plain; charset=utf-8")
_EMPTY = (_TYPE, ("Content-Length", "0"))


def discovered(options: Options, extensions: frozenset[str] | None) -> Response:
    """Return the reply to OPTIONS (Core, OPTIONS): 200, because some browsers fail on a 204 for a preflight.

    Args:
        options: the operator's choices.
        extensions: the extensions that work; None if the site does not speak tus.
    """
    if extensions is None:
        return Response(200, "OK", [*_EMPTY])
    response = Response(200, "OK", [("Tus-Resumable", VERSION), ("Tus-Version", VERSION)])
    if extensions:
        response.headers.append(("Tus-Extension", ",".join(name for name in EXTENSIONS if name in extensions)))
    if options.largest_upload:
        response.headers.append(("Tus-Max-Size", str(options.largest_upload)))
    if "checksum" in extensions:
        response.headers.append(("Tus-Checksum-Algorithm", ",".join(DIGEST_SIZES)))
    response.headers.extend(_EMPTY)
    return response


def inspected(upload: Upload, options: Options) -> Response:
    """Return the reply to HEAD (Core, HEAD; Concatenation for final uploads)."""
    response = Response(200, "OK", [("Tus-Resumable", VERSION), ("Cache-Control", "no-store"), *_EMPTY])
    if not upload.is_final or (upload.is_complete and is_reported_complete(upload, options)):
        response.headers.append(("Upload-Offset", str(reported_offset(upload, options))))
    if upload.length is not None and not is_length_withheld(upload, options):
        response.headers.append(("Upload-Length", str(upload.length)))
    elif not upload.is_final:
        response.headers.append(("Upload-Defer-Length", "1"))
    if upload.raw_metadata:
        response.headers.append(("Upload-Metadata", upload.raw_metadata))
    if upload.concat is not None:
        response.headers.append(("Upload-Concat", upload.concat))
    response.headers.extend(_expiry(upload))
    return described(response, upload.digests)


def downloaded(upload: Upload, response: Response, options: Options) -> Response:
    """Return the reply to GET, with the fields that clients expect in the reply to HEAD."""
    fields = ("Upload-Offset", str(reported_offset(upload, options))), ("Upload-Length", str(upload.offset))
    headers = [("Tus-Resumable", VERSION), *response.headers, *fields]
    reply = Response(response.status, response.reason, headers, response.body)
    return described(reply, upload.digests) if response.status < 300 else reply  # an error has no bytes of the file


def created(upload: Upload, creation_url: str, with_offset: bool, offset: int | None = None) -> Response:
    """Return the reply to a POST: 201 and the URL of the upload (Creation).

    Args:
        upload: as it is now.
        creation_url: the URL that creates uploads.
        with_offset: whether the request had bytes.
        offset: the offset to report instead of the upload's.
    """
    response = Response(201, "Created", [("Tus-Resumable", VERSION), ("Location", upload_url(creation_url, upload.id))])
    if with_offset or upload.is_complete:
        response.headers.append(("Upload-Offset", str(upload.offset if offset is None else offset)))
    response.headers.extend(_expiry(upload))
    response.headers.extend(_EMPTY)
    return response


def appended(upload: Upload, offset: int | None = None) -> Response:
    """Return the reply to a PATCH: 204 with the upload's offset, or with the given one (Core, PATCH; Expiration)."""
    reported = upload.offset if offset is None else offset
    return Response(204, "No Content", [("Tus-Resumable", VERSION), ("Upload-Offset", str(reported)), *_expiry(upload)])


def terminated() -> Response:
    """Return the reply to a DELETE (Termination)."""
    return Response(204, "No Content", [("Tus-Resumable", VERSION)])


def _expiry(upload: Upload) -> list[tuple[str, str]]:
    if upload.expires_at is not None and (upload.state == State.RECEIVING or upload.is_partial):
        return [("Upload-Expires", http_date(upload.expires_at))]
    return []


def answered(ours: Response, theirs: Response) -> Response:
    """Return the reply after the application has responded to the finished file.

    Args:
        ours: the reply of the protocol: a 204, or a 201 for a POST.
        theirs: the application's response. The header fields of a 2xx are added to our reply, except Location on a
            POST, which is the upload's. Any other response goes to the client unchanged.
    """
    if not 200 <= theirs.status < 300:
        return relayed(theirs, "POST" if ours.status == 201 else "PATCH")
    if not theirs.headers:
        return ours
    kept = [pair for pair in lent_headers(theirs) if ours.status != 201 or pair[0].lower() != "location"]
    return Response(ours.status, ours.reason, ours.headers + kept)


def relayed(answer: Response, method: str) -> Response:
    """Return the reply with a response of an application or a hook that is not a success."""
    left_out = {"upload-offset", "tus-resumable"}
    if method == "POST" and answer.status >= 400:
        left_out.add("location")  # tuspy takes any response with a Location for success
    kept = [(name, value) for name, value in answer.headers if name.lower() not in left_out]
    return Response(answer.status, answer.reason, [("Tus-Resumable", VERSION), *kept], answer.body)


def refused(error: RequestError, is_head: bool) -> Response:
    """Return the reply to a request that is refused with an error."""
    headers = [("Tus-Resumable", VERSION), *error.headers, _TYPE]
    if is_head:
        return Response(error.status, error.reason, [*headers, ("Content-Length", "0"), ("Cache-Control", "no-store")])
    text = f"{error}\n".encode()
    headers += [("X-Content-Type-Options", "nosniff"), ("Content-Length", str(len(text)))]
    return Response(error.status, error.reason, headers, (text,))
