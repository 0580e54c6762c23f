"""A finished upload as a response to GET (RFC 9110): conditions, ranges, and headers that are safe for browsers.

WebOb's response implements conditions and single ranges. It does not support several ranges, and parses some forms of
one range differently from RFC 9110. So ranges are parsed here, and WebOb gets a canonical one.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import BinaryIO
from urllib.parse import quote

from webob import Request as WebobRequest
from webob import Response as WebobResponse

from tus.adapters.filebody import FileBody
from tus.models import Request, Response, Upload

#: Types that a browser may show inline; none of them can contain code.
HARMLESS = frozenset(
    {"text/plain", "application/ogg"}
    | {f"image/{name}" for name in ("png", "jpeg", "gif", "bmp", "webp", "avif")}
    | {f"audio/{name}" for name in ("wave", "wav", "x-wav", "webm", "ogg", "mpeg", "mp4", "flac", "aac")}
    | {f"video/{name}" for name in ("webm", "ogg", "mp4")}
)
MAX_RANGES = 32  # of one request; a request for more gets the whole, as RFC 9110 section 14.2 allows

_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+")
_RANGE = re.compile(r"([0-9]*)\s*-\s*([0-9]*)")
_CONDITIONS = ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range")
_METADATA_KEYS = ("filetype", "type", "content-type", "mimetype")

Range = tuple[int, int]


def download(request: Request, upload: Upload, file: BinaryIO, modified_at: float) -> Response:
    """Return the response to a GET or HEAD.

    Args:
        request: the head of the request.
        upload: a complete one.
        file: its data, which the response's body closes.
        modified_at: the time of its last change, in seconds since 1970.
    """
    size = upload.length or 0
    whole = _Whole(file, size)
    answer = WebobResponse(
        headerlist=[("Content-Type", content_type(upload))],
        app_iter=whole,
        content_length=size,
        etag=upload.id,
        last_modified=datetime.fromtimestamp(int(modified_at), UTC),
        accept_ranges="bytes",
        conditional_response=True,
    )
    answer.headers["Content-Disposition"] = content_disposition(upload)
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers["Content-Security-Policy"] = "sandbox; default-src 'none'"
    answer.headers["Cache-Control"] = "private, no-cache"
    environ = {"REQUEST_METHOD": request.method}
    for name in _CONDITIONS:
        if (value := request.headers.get(name)) is not None:
            environ["HTTP_" + name.upper().replace("-", "_")] = value
    if environ.get("HTTP_IF_NONE_MATCH", "").strip() == "*":
        environ["HTTP_IF_NONE_MATCH"] = f'"{upload.id}"'  # WebOb does not evaluate the condition "*"
    asked = WebobRequest(environ)
    if _precondition_failed(asked, answer):
        whole.close()
        return Response(412, "Precondition Failed", [("Content-Type", "text/plain"), ("Content-Length", "0")])
    ranges = None if request.method == "HEAD" else parse_ranges(request.headers.get("Range"), size)
    if ranges is not None and len(ranges) > 1:
        if answer in asked.if_range:
            _set_parts(answer, whole, ranges)
    elif ranges is not None:
        first, stop = ranges[0] if ranges else (size, size + 1)  # not satisfiable, so WebOb responds with 416
        environ["HTTP_RANGE"] = f"bytes={first}-{stop - 1}"
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], _: object = None, /) -> Callable[[bytes], object]:
        started.append((status, headers))
        return lambda block: None  # WebOb does not use it

    body = answer(environ, start_response)
    status, headers = started[0]
    code, _, reason = status.partition(" ")
    return Response(int(code), reason, list(headers), body)


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


def parse_ranges(field: str | None, size: int) -> list[Range] | None:
    """Parse the satisfiable ranges of a ``Range`` field (RFC 9110 section 14.2).

    Returns:
        Pairs of the first byte and the byte after the last. None if the field must be ignored: it is missing,
        malformed, of another unit, or asks for too much.
    """
    unit, equals, text = (field or "").partition("=")
    if unit.strip().lower() != "bytes" or not equals:
        return None
    ranges = []
    specs = [spec.strip() for spec in text.split(",") if spec.strip()]
    for spec in specs:
        match = _RANGE.fullmatch(spec)
        if match is None or not (match[1] or match[2]):
            return None
        if match[1]:
            first, last = int(match[1]), int(match[2]) if match[2] else size - 1
            if match[2] and last < first:
                return None
        else:
            first, last = max(size - int(match[2]), 0), size - 1
        if first <= min(last, size - 1):
            ranges.append((first, min(last, size - 1) + 1))
    if not specs or len(specs) > MAX_RANGES or sum(stop - first for first, stop in ranges) > size > 0:
        return None
    return ranges


def _precondition_failed(asked: WebobRequest, answer: WebobResponse) -> bool:
    if "HTTP_IF_MATCH" in asked.environ:
        return answer.etag not in asked.if_match
    since = asked.if_unmodified_since
    return since is not None and answer.last_modified is not None and answer.last_modified > since


class _Whole(FileBody):
    """A whole file, of which WebOb can get one range."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__(file, 0, size, reaches_end=True)

    def app_iter_range(self, start: int, stop: int) -> FileBody:
        return FileBody(self.file, start, stop, reaches_end=stop == self.stop)


def _set_parts(answer: WebobResponse, whole: _Whole, ranges: list[Range]) -> None:
    """Make several ranges the body of a response, as ``multipart/byteranges`` (RFC 9110 section 14.6)."""
    boundary = secrets.token_hex(16)
    parts = [
        (
            f"\r\n--{boundary}\r\nContent-Type: {answer.headers['Content-Type']}\r\n"
            f"Content-Range: bytes {first}-{stop - 1}/{whole.stop}\r\n\r\n".encode(),
            whole.app_iter_range(first, stop),
        )
        for first, stop in ranges
    ]
    end = f"\r\n--{boundary}--\r\n".encode()
    answer.status = "206 Partial Content"
    answer.app_iter = _Parts(whole, parts, end)
    answer.content_length = sum(len(head) + body.stop - body.start for head, body in parts) + len(end)
    answer.headers["Content-Type"] = f"multipart/byteranges; boundary={boundary}"


class _Parts:
    """The body of a ``multipart/byteranges`` response."""

    def __init__(self, whole: _Whole, parts: list[tuple[bytes, FileBody]], end: bytes) -> None:
        self._parts = parts
        self._end = end
        self.close = whole.close

    def __iter__(self) -> Iterator[bytes]:
        for head, body in self._parts:
            yield head
            yield from body
        yield self._end
