"""Resumable Uploads for HTTP (draft-ietf-httpbis-resumable-upload) from the client's side.

A table holds the differences between the interop versions that matter to a client.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

from tus.client.dialects.interface import Append, Creation, Seen
from tus.client.messages import Headers, Request, Response
from tus.http import structured
from tus.http.digests import format_digest

VERSION_FIELD: Final = "Upload-Draft-Interop-Version"
_PARTIAL_UPLOAD: Final = "application/partial-upload"
_TYPE_KEYS: Final = ("filetype", "type", "contentType")
_NAME_KEYS: Final = ("filename", "name")


@dataclass(frozen=True, slots=True)
class _Profile:
    """The rules of one interop version.

    Attributes:
        complete: the field that says whether a request completes the upload.
        is_inverted: whether that field says the opposite.
        needs_media_type: whether an append is of the type ``application/partial-upload``.
        has_length: whether ``Upload-Length`` announces the size.
        lifetime_key: the key in ``Upload-Limit`` for the seconds that are left.
    """

    complete: str = "Upload-Complete"
    is_inverted: bool = False
    needs_media_type: bool = True
    has_length: bool = True
    lifetime_key: str = "max-age"


_V7 = _Profile()
_V6 = replace(_V7, lifetime_key="expires")
_V5 = replace(_V6, needs_media_type=False, has_length=False)
_V3 = replace(_V5, complete="Upload-Incomplete", is_inverted=True)

#: The rules by interop version, the newest first.
_PROFILES: Final = MappingProxyType({10: _V7, 9: _V7, 8: _V7, 7: _V7, 6: _V6, 5: _V5, 4: _V5, 3: _V3})

#: The interop versions, in the order in which a client tries them.
VERSIONS: Final = tuple(_PROFILES)


class Ietf:
    """The dialect of one interop version.

    Args:
        version: one of :data:`VERSIONS`.
        overrides_method: whether PATCH and DELETE go as POST with ``X-HTTP-Method-Override``.
    """

    name = "ietf"

    def __init__(self, version: int = VERSIONS[0], overrides_method: bool = False) -> None:
        self.version = version
        self._profile = _PROFILES[version]
        self._overrides_method = overrides_method

    def create(self, creation: Creation) -> Request:
        headers = self._fields()
        headers["Idempotency-Key"] = f'"{creation.key}"'
        headers |= self._completion(creation.is_whole) | _description(creation.metadata)
        if self._profile.has_length and creation.size is not None:
            headers["Upload-Length"] = str(creation.size)
        if creation.digests:
            headers["Repr-Digest"] = creation.digests
        return Request("POST", creation.endpoint, headers, creation.body or b"")

    def append(self, append: Append) -> Request:
        headers = self._fields() | self._completion(append.is_last)
        headers["Upload-Offset"] = str(append.body.offset)
        if self._profile.needs_media_type:
            headers["Content-Type"] = _PARTIAL_UPLOAD
        if self._profile.has_length and append.announces_size and append.size is not None:
            headers["Upload-Length"] = str(append.size)
        if append.checksum is not None:
            headers["Content-Digest"] = format_digest([append.checksum])
        return self._request("PATCH", append.url, headers, append)

    def look(self, url: str) -> Request:
        return Request("HEAD", url, self._fields())

    def terminate(self, url: str) -> Request:
        return self._request("DELETE", url, self._fields(), None)

    def _request(self, method: str, url: str, headers: dict[str, str], append: Append | None) -> Request:
        if self._overrides_method:
            headers["X-HTTP-Method-Override"] = method
            method = "POST"
        return Request(method, url, headers, b"" if append is None else append.body)

    def _fields(self) -> dict[str, str]:
        return {VERSION_FIELD: str(self.version)}

    def _completion(self, is_complete: bool) -> dict[str, str]:
        return {self._profile.complete: structured.format_boolean(is_complete != self._profile.is_inverted)}

    def _reported(self, headers: Headers) -> bool | None:
        value = structured.parse_boolean(headers.get(self._profile.complete))
        return None if value is None else value != self._profile.is_inverted

    def read_creation(self, response: Response, now: float) -> Seen:
        is_complete = self._reported(response.headers)
        return self._seen(response, is_complete, now, response.headers.get("Location", ""))

    def read_append(self, response: Response, append: Append, now: float) -> Seen:
        """Read the reply to an append. It may be the application's reply to the whole upload, of any status."""
        is_complete = self._reported(response.headers)
        if is_complete is None and response.is_success:
            is_complete = append.is_last  # versions 3 to 6 need not say it
        return self._seen(response, is_complete, now)

    def read_look(self, response: Response, now: float) -> Seen:
        return self._seen(response, self._reported(response.headers), now)

    def read_interim(self, headers: Headers, now: float) -> Seen | None:
        """Read an interim response; None if it is not of this version (section "Status Code 104")."""
        if structured.parse_count(headers.get(VERSION_FIELD)) != self.version:
            return None
        return self._seen(Response(104, headers), None, now, headers.get("Location", ""))

    def _seen(self, response: Response, is_complete: bool | None, now: float, url: str = "") -> Seen:
        limits = structured.parse_counts(response.headers.get("Upload-Limit"))
        lifetime = limits.get(self._profile.lifetime_key)
        return Seen(
            url=url,
            offset=structured.parse_count(response.headers.get("Upload-Offset")),
            length=structured.parse_count(response.headers.get("Upload-Length")),
            is_complete=is_complete,
            expires_at=None if lifetime is None else now + lifetime,
            most=limits.get("max-append-size"),
        )


def version_in(headers: Headers) -> int | None:
    """Return the interop version that a response names, if this client knows it."""
    version = structured.parse_count(headers.get(VERSION_FIELD))
    return version if version in _PROFILES else None


def _description(metadata: Mapping[str, str | bytes]) -> dict[str, str]:
    """Return the fields that describe the file: its type, and its name by RFC 6266 and RFC 8187."""
    fields = {}
    for key in _TYPE_KEYS:
        if (value := _text(metadata.get(key))) and value.isascii():
            fields["Content-Type"] = value
            break
    for key in _NAME_KEYS:
        if value := _text(metadata.get(key)):
            plain = value if value.isascii() and not set(value) & set('"\\%') else ""
            fields["Content-Disposition"] = (
                f'attachment; filename="{plain}"' if plain else f"attachment; filename*=UTF-8''{quote(value, safe='')}"
            )
            break
    return fields


def _text(value: str | bytes | None) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else value or ""
    return text if text.isprintable() else ""
