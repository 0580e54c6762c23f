"""Cross-origin resource sharing, for browsers (the Fetch standard, section 3.3). Pure.

It is the outermost layer of every reply, errors included: a page cannot read a reply without these header fields.
"""

from __future__ import annotations

from tus.models import Request, Response
from tus.options import Options

METHODS = "POST, PUT, HEAD, PATCH, OPTIONS, GET, DELETE"
REQUEST_HEADERS = ", ".join(
    (
        "Authorization", "Origin", "X-Requested-With", "X-Request-ID", "X-HTTP-Method-Override", "Content-Type",
        "Upload-Length", "Upload-Offset", "Tus-Resumable", "Upload-Metadata", "Upload-Defer-Length", "Upload-Concat",
        "Upload-Checksum", "Upload-Incomplete", "Upload-Complete", "Upload-Draft-Interop-Version",
        "Content-Disposition", "Content-Digest", "Repr-Digest", "Want-Repr-Digest", "Idempotency-Key",
    )
)  # fmt: skip
EXPOSED_HEADERS = ", ".join(
    (
        "Upload-Offset", "Location", "Upload-Length", "Tus-Version", "Tus-Resumable", "Tus-Max-Size", "Tus-Extension",
        "Tus-Checksum-Algorithm", "Upload-Metadata", "Upload-Defer-Length", "Upload-Concat", "Upload-Expires",
        "Upload-Limit", "Upload-Incomplete", "Upload-Complete", "Upload-Draft-Interop-Version", "Repr-Digest",
        "Retry-After",
    )
)  # fmt: skip
MAX_AGE = "86400"


def is_preflight(request: Request) -> bool:
    """Return whether a browser asks for permission to send another request for a page."""
    return request.method == "OPTIONS" and request.headers.get("Access-Control-Request-Method") is not None


def apply(request: Request, response: Response, options: Options) -> None:
    """Add the header fields for the origin of the request to the response.

    An error response of an application keeps the fields that it has. A success is a response of this package, so the
    application's fields are replaced.
    """
    if not options.cors_allow_origin:
        return
    if 200 <= response.status < 300:
        response.headers[:] = [pair for pair in response.headers if not pair[0].lower().startswith("access-control-")]
    elif any(name.lower() == "access-control-allow-origin" for name, _ in response.headers):
        return
    any_origin = "*" in options.cors_allow_origin
    if not any_origin:
        response.headers.append(("Vary", "Origin"))  # for refused origins too, so that caches separate the responses
    origin = request.headers.get("Origin")
    if origin is None or not (any_origin or origin.lower() in map(str.lower, options.cors_allow_origin)):
        return
    response.headers.append(("Access-Control-Allow-Origin", "*" if any_origin else origin))
    if options.cors_allow_credentials:
        response.headers.append(("Access-Control-Allow-Credentials", "true"))
    if is_preflight(request):
        response.headers.append(("Access-Control-Allow-Methods", METHODS))
        response.headers.append(("Access-Control-Allow-Headers", REQUEST_HEADERS))
        response.headers.append(("Access-Control-Max-Age", MAX_AGE))
    else:
        response.headers.append(("Access-Control-Expose-Headers", EXPOSED_HEADERS))
