"""The request that created an upload, as later hand-overs need it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from tus.errors import HeaderTooLarge
from tus.models import Origin, Request, Upload
from tus.protocols.routing import path_of

#: The fields by which a proxy passes on the scheme and host of the client's request. Frameworks believe them.
FORWARDING: Final = ("X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Prefix")

#: The fields that describe the body of a request (RFC 9110, section 8; RFC 6266).
REPRESENTATION: Final = (
    "Content-Type",
    "Content-Disposition",
    "Content-Encoding",
    "Content-Language",
    "Content-Location",
)

#: The fields of the protocols, and those of the transfer, which an original request does not have.
PROTOCOL_FIELDS: Final = (
    "Upload-Offset",
    "Upload-Length",
    "Upload-Complete",
    "Upload-Incomplete",
    "Upload-Draft-Interop-Version",
    "Upload-Metadata",
    "Content-Digest",
    "X-HTTP-Method-Override",
    "Expect",
)

_LARGEST: Final = 16 << 10  # characters of the URL and the fields together; servers allow about as much for a head


def origin_of(request: Request, is_original: bool = False) -> Origin:
    """Return the origin of an upload that a request creates.

    Args:
        request: the head.
        is_original: whether the application will get this request again, with the whole file as its body.

    Raises:
        HeaderTooLarge: the URL and the fields are too long to be kept.
    """
    fields = request.fields
    headers = [] if fields.keys().isdisjoint(FORWARDING) else _pick(fields, FORWARDING)
    url = request.url
    if is_original:
        headers += _pick(fields, REPRESENTATION)
        url = f"{url}?{request.query}" if request.query else url
        if len(url) + sum(len(name) + len(value) for name, value in headers) > _LARGEST:
            raise HeaderTooLarge(f"The URL and the header fields may have at most {_LARGEST} bytes together.")
    elif headers and sum(len(value) for _, value in headers) > _LARGEST:
        headers = []
    method = request.method if is_original else "POST"
    return Origin(url, method, request.mount, tuple(headers), request.path_values)


def _pick(fields: Mapping[str, str], names: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(name, fields[name]) for name in names if name in fields]


class Place(NamedTuple):
    """The place of the application in a site, for a request without a client.

    Attributes:
        scheme: empty if it is not known.
        host: with its port if it has one; empty if it is not known.
        path: the decoded path that creates uploads, from the root of the site.
        mount: the decoded path where the application is mounted; None if it is not known.
        forwarding: the fields of :data:`FORWARDING` of the request that created the upload.
    """

    scheme: str
    host: str
    path: str
    mount: str | None
    forwarding: tuple[tuple[str, str], ...] = ()


def place_of(upload: Upload, upload_path: str, base_url: str) -> Place:
    """Return the place from the request that created an upload, or else from ``base_url``.

    Args:
        upload: the upload.
        upload_path: the option of that name.
        base_url: the option of that name; may be empty.
    """
    origin, path = upload.origin, upload_path
    if origin is not None:
        scheme, host, path, _ = split_url(origin.url)
        if host:
            forwarding = tuple((name, value) for name, value in origin.headers if name in FORWARDING)
            return Place(scheme, host, path, origin.mount, forwarding)
    if not base_url:
        return Place("", "", path, None)
    scheme, host, _, _ = split_url(base_url)
    return Place(scheme, host, path, None)


def split_url(url: str) -> tuple[str, str, str, str]:
    """Return the scheme, host, decoded path and query of an absolute URL, whose host may be malformed or empty."""
    rest, _, query = url.partition("?")
    scheme, _, host = rest.partition("://")
    return scheme, host.partition("/")[0], path_of(rest), query
