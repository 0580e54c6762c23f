"""A finished upload as a response to GET (RFC 9110): conditions, ranges, and headers that are safe for browsers."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from typing import BinaryIO
from urllib.parse import quote

from tus.adapters.filebody import FileBody
from tus.http import conditions
from tus.http.conditions import Range
from tus.http.headers import http_date
from tus.models import Request, Response, Upload

#: Types that a browser may show inline; none of them can contain code.
HARMLESS = frozenset(
    {"text/plain", "application/ogg"}
    | {f"image/{name}" for name in ("png", "jpeg", "gif", "bmp", "webp", "avif")}
    | {f"audio/{name}" for name in ("wave", "wav", "x-wav", "webm", "ogg", "mpeg", "mp4", "flac", "aac")}
    | {f"video/{name}" for name in ("webm", "ogg", "mp4")}
)

_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+")
_METADATA_KEYS = ("filetype", "type", "content-type", "mimetype")


def download(request: Request, upload: Upload, file: BinaryIO, modified_at: float) -> Response:
    """Return the response to a GET or HEAD.

    Args:
        request: the head of the request.
        upload: a complete one.
        file: its data, which the response's body closes.
        modified_at: the time of its last change, in seconds since 1970.
    """
    try:
        response = _respond(request, upload, file, int(modified_at))
        if request.method == "HEAD":
            response.body = ()
    except BaseException:
        file.close()
        raise
    if isinstance(response.body, tuple):
        file.close()
    return response


def _respond(request: Request, upload: Upload, file: BinaryIO, modified_at: int) -> Response:
    size, etag, fields = upload.length or 0, f'"{upload.id}"', request.headers
    validators = [("ETag", etag), ("Last-Modified", http_date(modified_at)), ("Cache-Control", "private, no-cache")]
    status = conditions.evaluate(fields, etag, modified_at)
    if status == 412:
        return Response(412, "Precondition Failed", [("Content-Type", "text/plain"), ("Content-Length", "0")])
    if status == 304:
        return Response(304, "Not Modified", validators)
    ranges = None
    if request.method != "HEAD" and conditions.holds_for_range(fields.get("If-Range"), etag, modified_at):
        ranges = conditions.parse_ranges(fields.get("Range"), size)
    if ranges == []:
        headers = [("Content-Range", f"bytes */{size}"), ("Accept-Ranges", "bytes")]
        return Response.of_text(416, f"The file has {size} bytes; ask for a range within them.", headers=headers)
    described = [
        *validators,
        ("Accept-Ranges", "bytes"),
        ("Content-Disposition", content_disposition(upload)),
        ("X-Content-Type-Options", "nosniff"),
        ("Content-Security-Policy", "sandbox; default-src 'none'"),
    ]
    kind = content_type(upload)
    if ranges is None:
        whole = FileBody(file, 0, size, reaches_end=True)
        return Response(200, "OK", [*described, ("Content-Type", kind), ("Content-Length", str(size))], whole)
    if len(ranges) > 1:
        return _several(file, size, ranges, kind, described)
    first, stop = ranges[0]
    headers = [
        *described,
        ("Content-Type", kind),
        ("Content-Range", f"bytes {first}-{stop - 1}/{size}"),
        ("Content-Length", str(stop - first)),
    ]
    return Response(206, "Partial Content", headers, FileBody(file, first, stop, reaches_end=stop == size))


def content_type(upload: Upload) -> str:
    """Return the media type in the client's metadata, if it has the form of one."""
    metadata = upload.text_metadata
    claimed = next((metadata[key] for key in _METADATA_KEYS if metadata.get(key)), "").strip().lower()
    return claimed if _TYPE.fullmatch(claimed) else "application/octet-stream"


def content_disposition(upload: Upload) -> str:
    """Return the field that names the file, and says whether a browser may show it (RFC 6266, RFC 8187)."""
    kind = "inline" if content_type(upload) in HARMLESS else "attachment"
    name = upload.filename
    plain = re.sub(r"[^ -~]|[\"\\%]", "_", name)
    field = f'{kind}; filename="{plain}"'
    return field if plain == name else f"{field}; filename*=UTF-8''{quote(name, safe='')}"


def _several(file: BinaryIO, size: int, ranges: list[Range], kind: str, described: list[tuple[str, str]]) -> Response:
    """Return several ranges as ``multipart/byteranges`` (RFC 9110 section 14.6)."""
    boundary = secrets.token_hex(16)
    parts = [
        (
            f"\r\n--{boundary}\r\nContent-Type: {kind}\r\n"
            f"Content-Range: bytes {first}-{stop - 1}/{size}\r\n\r\n".encode(),
            FileBody(file, first, stop, reaches_end=stop == size),
        )
        for first, stop in ranges
    ]
    end = f"\r\n--{boundary}--\r\n".encode()
    length = sum(len(head) + body.stop - body.start for head, body in parts) + len(end)
    headers = [
        *described,
        ("Content-Type", f"multipart/byteranges; boundary={boundary}"),
        ("Content-Length", str(length)),
    ]
    return Response(206, "Partial Content", headers, RangesBody(file, parts, end))


class RangesBody:
    """The body of a ``multipart/byteranges`` response."""

    def __init__(self, file: BinaryIO, parts: list[tuple[bytes, FileBody]], end: bytes) -> None:
        self._parts = parts
        self._end = end
        self.close = file.close

    def __iter__(self) -> Iterator[bytes]:
        for head, body in self._parts:
            yield head
            yield from body
        yield self._end
