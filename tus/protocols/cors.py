"""Cross-origin resource sharing, for browsers (the Fetch standard, section 3.3). Pure.

It is the outermost layer of every reply, errors included: a page cannot read a reply without these header fields.
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache

from tus.http import origins
from tus.models import Request, Response
from tus.options import Options

log = logging.getLogger(__name__)

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
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def is_preflight(request: Request) -> bool:
    """Return whether a browser asks for permission to send another request for a page."""
    return request.method == "OPTIONS" and request.headers.get("Access-Control-Request-Method") is not None


def apply(request: Request, response: Response, options: Options) -> None:
    """Add the header fields for the origin of the request to the response.

    An error response of an application keeps the fields that it has. A success is a response of this package, so the
    application's fields are replaced. Only the names that it exposes are kept, beside those of this package.
    """
    if not options.cors_allow_origin:
        return
    fields = response.headers
    theirs = [pair for pair in fields if pair[0].lower().startswith("access-control-")]
    is_success = 200 <= response.status < 300
    if theirs:
        if not is_success and any(name.lower() == "access-control-allow-origin" for name, _ in theirs):
            return
        fields[:] = [pair for pair in fields if pair not in theirs]
    if options.cors_allow_origin != (origins.ANY,):
        _vary(fields)  # for refused origins too, so that caches separate the responses
    origin = request.headers.get("Origin")
    if origin is None or not _is_allowed(origin, options):
        return
    fields.append(("Access-Control-Allow-Origin", "*" if options.cors_allow_origin == (origins.ANY,) else origin))
    if options.cors_allow_credentials:
        fields.append(("Access-Control-Allow-Credentials", "true"))
    if is_preflight(request):
        fields.append(("Access-Control-Allow-Methods", METHODS))
        fields.append(("Access-Control-Allow-Headers", _joined(REQUEST_HEADERS, options.cors_allow_headers)))
        fields.append(("Access-Control-Max-Age", str(options.cors_max_age)))
        return
    exposed = options.cors_expose_headers + _exposed(theirs)
    fields.append(("Access-Control-Expose-Headers", _joined(EXPOSED_HEADERS, exposed)))


def _is_allowed(origin: str, options: Options) -> bool:
    """Return whether pages of an origin may use the responses. In doubt they may not."""
    allowed = options.cors_allow_origin
    if isinstance(allowed, tuple):
        return origins.matches(origin, allowed)
    if not origins.is_origin(origin):
        return False
    try:
        answer = allowed(origin)
    except Exception:  # the request may be done already, so it must not fail
        log.exception("cors_allow_origin failed; the origin %s is refused", origin)
        return False
    if not isinstance(answer, bool):
        log.error("cors_allow_origin must return True or False, but not %r; the origin %s is refused", answer, origin)
        return False
    if answer and origin == origins.NULL and options.cors_allow_credentials:
        # Any site can make documents of this origin, which would act with the cookies of the user.
        log.error("cors_allow_origin allows the origin null, which cannot be combined with cors_allow_credentials")
        return False
    return answer


def _vary(fields: list[tuple[str, str]]) -> None:
    """Add ``Vary: Origin``, unless the response has it."""
    varying = [value for name, value in fields if name.lower() == "vary"]
    if not {"origin", "*"} & {word.strip().lower() for value in varying for word in value.split(",")}:
        fields.append(("Vary", "Origin"))


def _exposed(theirs: list[tuple[str, str]]) -> tuple[str, ...]:
    """Return the names that an application exposes. A browser would ignore a whole list with a malformed name."""
    values = [value for name, value in theirs if name.lower() == "access-control-expose-headers"]
    names = (word.strip() for value in values for word in value.split(","))
    return tuple(name for name in names if _TOKEN.fullmatch(name))


@lru_cache(maxsize=256)
def _joined(ours: str, others: tuple[str, ...]) -> str:
    """Return a list of names of fields, without repetitions."""
    names: dict[str, str] = {}
    for name in (*ours.split(", "), *others):
        names.setdefault(name.lower(), name)
    return ", ".join(names.values())
