"""Cross-origin resource sharing, for browsers (the Fetch standard, section 3.3). Pure.

It is the outermost layer of every reply, errors too: a reply without these headers is one that a page cannot read.
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
        "Content-Disposition", "Content-Digest", "Repr-Digest", "Want-Repr-Digest",
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
    """Whether a browser asks on behalf of a page whether it may send the real request."""
    return request.method == "OPTIONS" and request.headers.get("Access-Control-Request-Method") is not None


def apply(request: Request, response: Response, options: Options) -> None:
    """Add to the response what the request's origin may be told.

    Where an application has answered for itself its headers stay, but not on a success, which it does not word.
    """
    if not options.cors_allow_origin:
        return
    if 200 <= response.status < 300:
        response.headers[:] = [pair for pair in response.headers if not pair[0].lower().startswith("access-control-")]
    elif any(name.lower() == "access-control-allow-origin" for name, _ in response.headers):
        return
    any_origin = "*" in options.cors_allow_origin
    if not any_origin:
        response.headers.append(("Vary", "Origin"))  # also where this origin gets nothing: caches must keep them apart
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
