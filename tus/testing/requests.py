"""The heads of requests of clients of both protocols."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from tus.models import MEDIA_TYPE, Request

#: The URL that creates uploads.
URL: Final = "http://example.org/files"

HeaderFields = Mapping[str, object]
NO_FIELDS: Final[HeaderFields] = MappingProxyType({})


def _request(method: str, url: str, body: int | None, headers: HeaderFields) -> Request:
    """Return a request with these header fields; a field whose value is None is left out."""
    framing = ("Transfer-Encoding", "chunked") if body is None else ("Content-Length", body)
    framed = {} if method in ("HEAD", "GET", "DELETE") or framing[0] in headers else dict([framing])
    kept = {name: str(value) for name, value in {**headers, **framed}.items() if value is not None}
    return Request(method, url, kept, input_terminated=body is None)


@dataclass(frozen=True)
class Tus1:
    """The requests of a client of tus 1.0.0.

    In each method ``body`` is the number of bytes of the body, or None for a chunked body. ``headers`` adds or replaces
    header fields; a field whose value is None is left out.

    Attributes:
        url: the URL that creates uploads.
    """

    url: str = URL

    def post(self, length: int | None, body: int | None = 0, headers: HeaderFields = NO_FIELDS) -> Request:
        """Return a creation; its length is deferred if ``length`` is None."""
        named: dict[str, object] = {"Upload-Defer-Length": 1} if length is None else {"Upload-Length": length}
        if body != 0:
            named["Content-Type"] = MEDIA_TYPE
        return self.request("POST", None, body, {**named, **headers})

    def concatenate(self, *part_ids: str, headers: HeaderFields = NO_FIELDS) -> Request:
        """Return the creation of a final upload from these parts."""
        parts = " ".join(f"{self.url}/{part_id}" for part_id in part_ids)
        return self.request("POST", headers={"Upload-Concat": f"final;{parts}", **headers})

    def patch(self, upload_id: str, offset: int, body: int | None, headers: HeaderFields = NO_FIELDS) -> Request:
        """Return an append."""
        named = {"Content-Type": MEDIA_TYPE, "Upload-Offset": offset}
        return self.request("PATCH", upload_id, body, {**named, **headers})

    def head(self, upload_id: str, headers: HeaderFields = NO_FIELDS) -> Request:
        """Return a request for the offset."""
        return self.request("HEAD", upload_id, headers=headers)

    def delete(self, upload_id: str, headers: HeaderFields = NO_FIELDS) -> Request:
        """Return a termination."""
        return self.request("DELETE", upload_id, headers=headers)

    def request(
        self, method: str, upload_id: str | None = None, body: int | None = 0, headers: HeaderFields = NO_FIELDS
    ) -> Request:
        """Return a request of any method; without an id it goes to the creation URL."""
        url = self.url if upload_id is None else f"{self.url}/{upload_id}"
        return _request(method, url, body, {"Tus-Resumable": "1.0.0", **headers})


#: Requests to :data:`URL`.
tus1: Final = Tus1()


@dataclass(frozen=True)
class Ietf:
    """The requests of a client of Resumable Uploads for HTTP. ``body`` and ``headers`` are as in :class:`Tus1`.

    Attributes:
        version: the interop version that the client names, or None.
        url: the URL that creates uploads.
    """

    version: int | None = 9
    url: str = URL

    def post(
        self,
        body: int | None,
        complete: bool | None = True,
        length: int | None = None,
        headers: HeaderFields = NO_FIELDS,
    ) -> Request:
        """Return a creation; ``complete`` is whether the body is the whole file."""
        named = {"Content-Type": "image/png", **self._complete(complete), "Upload-Length": length}
        return self.request("POST", None, body, {**named, **headers})

    def patch(
        self,
        upload_id: str,
        offset: int,
        body: int | None,
        complete: bool | None = True,
        length: int | None = None,
        headers: HeaderFields = NO_FIELDS,
    ) -> Request:
        """Return an append; ``complete`` is whether the body is the rest of the file."""
        has_type = self.version is None or self.version >= 6
        media_type = {"Content-Type": "application/partial-upload"} if has_type else {}
        named = {**media_type, **self._complete(complete), "Upload-Offset": offset, "Upload-Length": length}
        return self.request("PATCH", upload_id, body, {**named, **headers})

    def head(self, upload_id: str, headers: HeaderFields = NO_FIELDS) -> Request:
        """Return an offset retrieval."""
        return self.request("HEAD", upload_id, headers=headers)

    def delete(self, upload_id: str, headers: HeaderFields = NO_FIELDS) -> Request:
        """Return a cancellation."""
        return self.request("DELETE", upload_id, headers=headers)

    def request(
        self, method: str, upload_id: str | None = None, body: int | None = 0, headers: HeaderFields = NO_FIELDS
    ) -> Request:
        """Return a request of any method; without an id it goes to the creation URL."""
        url = self.url if upload_id is None else f"{self.url}/{upload_id}"
        return _request(method, url, body, {"Upload-Draft-Interop-Version": self.version, **headers})

    def _complete(self, complete: bool | None) -> HeaderFields:
        if complete is None:
            return {}
        if self.version == 3:
            return {"Upload-Incomplete": "?0" if complete else "?1"}
        return {"Upload-Complete": "?1" if complete else "?0"}
