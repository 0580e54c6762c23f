"""tus 1.0.0 and its extensions (https://tus.io/protocols/resumable-upload) from the client's side."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from email.utils import parsedate_to_datetime

from tus.client.dialects.interface import Append, Creation, Seen
from tus.client.messages import Headers, Request, Response
from tus.http.headers import format_metadata, number_in

VERSION = "1.0.0"
_MEDIA_TYPE = "application/offset+octet-stream"


class Tus1:
    """The dialect of tus 1.0.0.

    Args:
        overrides_method: whether PATCH and DELETE go as POST with ``X-HTTP-Method-Override``.
    """

    name = "tus"
    version = 0

    def __init__(self, overrides_method: bool = False) -> None:
        self._overrides_method = overrides_method

    def create(self, creation: Creation) -> Request:
        headers = {"Tus-Resumable": VERSION, "Idempotency-Key": f'"{creation.key}"'}
        if creation.size is None:
            headers["Upload-Defer-Length"] = "1"
        else:
            headers["Upload-Length"] = str(creation.size)
        if creation.metadata:
            headers["Upload-Metadata"] = format_metadata(creation.metadata)
        if creation.is_partial:
            headers["Upload-Concat"] = "partial"
        if creation.digests:
            headers["Repr-Digest"] = creation.digests
        if creation.body is None:
            return Request("POST", creation.endpoint, headers)
        headers["Content-Type"] = _MEDIA_TYPE
        return Request("POST", creation.endpoint, headers, creation.body)

    def concatenate(self, creation: Creation, parts: Sequence[str]) -> Request:
        """Return the request that makes one upload of its parts, in this order."""
        request = self.create(creation)
        request.headers.pop("Upload-Defer-Length")
        request.headers["Upload-Concat"] = "final;" + " ".join(parts)
        return request

    def append(self, append: Append) -> Request:
        headers = {
            "Tus-Resumable": VERSION,
            "Upload-Offset": str(append.body.offset),
            "Content-Type": _MEDIA_TYPE,
        }
        if append.announces_size and append.size is not None:
            headers["Upload-Length"] = str(append.size)
        if append.checksum is not None:
            algorithm, digest = append.checksum
            headers["Upload-Checksum"] = format_checksum(algorithm, digest)
        return self._request("PATCH", append.url, headers, append)

    def look(self, url: str) -> Request:
        return Request("HEAD", url, {"Tus-Resumable": VERSION})

    def terminate(self, url: str) -> Request:
        return self._request("DELETE", url, {"Tus-Resumable": VERSION}, None)

    def _request(self, method: str, url: str, headers: dict[str, str], append: Append | None) -> Request:
        if self._overrides_method:
            headers["X-HTTP-Method-Override"] = method
            method = "POST"
        return Request(method, url, headers, b"" if append is None else append.body)

    def read_creation(self, response: Response, now: float) -> Seen:
        return Seen(
            url=response.headers.get("Location", ""),
            offset=number_in(response.headers.get("Upload-Offset")),
            expires_at=_expiry(response.headers),
        )

    def read_append(self, response: Response, append: Append, now: float) -> Seen:
        offset = number_in(response.headers.get("Upload-Offset"))
        is_complete = None
        if response.is_success and offset is not None:
            is_complete = append.is_last and offset == append.body.offset + append.body.length
        return Seen(offset=offset, is_complete=is_complete, expires_at=_expiry(response.headers))

    def read_look(self, response: Response, now: float) -> Seen:
        offset = number_in(response.headers.get("Upload-Offset"))
        length = number_in(response.headers.get("Upload-Length"))
        return Seen(
            offset=offset,
            length=length,
            is_complete=None if offset is None else offset == length,
            expires_at=_expiry(response.headers),
        )


def format_checksum(algorithm: str, digest: bytes) -> str:
    """Return the field ``Upload-Checksum``."""
    return f"{algorithm} {b64encode(digest).decode()}"


def _expiry(headers: Headers) -> float | None:
    try:
        return parsedate_to_datetime(headers.get("Upload-Expires", "")).timestamp()
    except (ValueError, OverflowError):
        return None
