"""tus 1.0.0 and its extensions (https://tus.io/protocols/resumable-upload, 2016-03-25) as pure decisions.

:func:`parse` makes a command of a request's head. :func:`decide_append` makes an :class:`Intake` of a command and the
stored upload. :mod:`tus.protocols.tus1.replies` makes the response.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tus.checksums import DIGEST_SIZES
from tus.errors import (
    BadRequest,
    Forbidden,
    HeaderTooLarge,
    MethodNotAllowed,
    OffsetMismatch,
    TooLarge,
    UnsupportedMediaType,
    UploadNotFound,
    VersionUnsupported,
)
from tus.http import headers
from tus.models import MEDIA_TYPE, Request, State, Upload
from tus.options import Options
from tus.protocols.bodies import Body, Intake, body_length, check_size, overrun_message
from tus.protocols.forwarded import public_url
from tus.protocols.routing import MALFORMED_HOST, route, upload_id_of

VERSION: Final = "1.0.0"
MAX_PARTS: Final = 1000
CREATION_METHODS: Final = "POST, OPTIONS"


@dataclass(slots=True)
class Discover:
    """OPTIONS: the request for the server's extensions and limits."""


@dataclass(slots=True)
class Inspect:
    """HEAD: the request for the upload's offset; a cache may have turned it into GET.

    Attributes:
        upload_id: the upload.
        may_download: whether it could also be the HEAD of a download, because it does not name the protocol.
    """

    upload_id: str
    may_download: bool


@dataclass(slots=True)
class Download:
    """GET: the request for the data of a finished upload, or for the offset of any other one.

    Attributes:
        upload_id: the upload.
        may_inspect: whether it could also be a HEAD that a cache has turned into GET, because it names the protocol.
    """

    upload_id: str
    may_inspect: bool


@dataclass(slots=True)
class Create:
    """POST: a new upload, with its first bytes if there is a body.

    Attributes:
        length: the announced number of bytes; None if it is deferred, or given by the parts of a final upload.
        raw_metadata: the field as received.
        concat: the field as received.
        parts: ids of the parts of a final upload.
        body: None unless the request carries bytes of the upload.
        creation_url: the URL that creates uploads, as the client knows it.
    """

    length: int | None
    raw_metadata: str
    concat: str | None
    parts: tuple[str, ...]
    body: Body | None
    creation_url: str = ""


@dataclass(slots=True)
class Append:
    """PATCH: bytes for an upload, and perhaps the length that its creation deferred."""

    upload_id: str
    offset: int
    length: int | None
    body: Body


@dataclass(slots=True)
class Terminate:
    """DELETE: the removal of an upload."""

    upload_id: str


Command = Discover | Inspect | Download | Create | Append | Terminate


# -- From the request's head to a command -------------------------------------------------------------------------


def parse(request: Request, options: Options, extensions: frozenset[str]) -> Command:
    """Return the command of a request.

    Args:
        request: the head.
        options: the operator's choices.
        extensions: the extensions that work with this store on this server.

    Raises:
        RequestError: the request contradicts the protocol or itself.
    """
    method = request.effective_method
    where = route(request.url, method, options.upload_path)
    if method == "OPTIONS":
        return Discover()
    # HEAD and GET without a version are accepted: they change nothing, and have one meaning.
    version = request.fields.get("Tus-Resumable")
    if version != VERSION and (version is not None or method not in ("HEAD", "GET")):
        raise VersionUnsupported(f"Tus-Resumable must be {VERSION}.", [("Tus-Version", VERSION)])
    if where.upload_id is None:
        if method != "POST":
            raise MethodNotAllowed(CREATION_METHODS)
        return _parse_create(request, options, extensions, public_url(where.creation_url, request, options))
    if not where.upload_id:
        raise UploadNotFound()
    if method == "GET" and options.download:
        return Download(where.upload_id, may_inspect=version is not None)
    if method in ("HEAD", "GET"):
        return Inspect(where.upload_id, may_download=options.download and version is None)
    if method == "PATCH":
        return _parse_append(request, where.upload_id)
    if method == "DELETE" and "termination" in extensions:
        return Terminate(where.upload_id)
    allowed = ["GET", "HEAD", "PATCH", "OPTIONS"]
    if "termination" in extensions:
        allowed.insert(3, "DELETE")
    raise MethodNotAllowed(", ".join(allowed))


def _parse_create(request: Request, options: Options, extensions: frozenset[str], creation_url: str) -> Create:
    if not creation_url.isprintable():
        raise BadRequest(MALFORMED_HOST)
    raw_metadata = request.fields.get("Upload-Metadata") or ""
    if len(raw_metadata) > options.max_metadata_size > 0:
        raise HeaderTooLarge(f"Upload-Metadata may have at most {options.max_metadata_size} bytes.")
    headers.parse_metadata(raw_metadata)
    fields = request.fields
    length = headers.parse_integer("Upload-Length", fields["Upload-Length"]) if "Upload-Length" in fields else None
    deferred = "Upload-Defer-Length" in fields
    if deferred:
        _check_deferred(fields)
    concat = request.fields.get("Upload-Concat")
    parts: tuple[str, ...] = ()
    if concat is not None:
        if "concatenation" not in extensions:
            raise BadRequest("This server cannot concatenate uploads; send Upload-Length instead of Upload-Concat.")
        urls = headers.parse_concat(concat)
        if urls is not None:
            parts = _parse_parts(urls, creation_url)
    body = None
    content_type = request.fields.get("Content-Type")
    if content_type and headers.media_type(content_type) == MEDIA_TYPE:
        body = _parse_body(request)
    if parts:
        if length is not None or deferred:
            raise BadRequest(
                "A final upload gets its length from its parts; omit Upload-Length and Upload-Defer-Length."
            )
        if body is not None and body.length != 0:
            raise Forbidden("A final upload gets its bytes from its parts; send no body.")
        return Create(None, raw_metadata, concat, parts, None, creation_url)
    if (length is None) != deferred:
        raise BadRequest("Exactly one of Upload-Length and 'Upload-Defer-Length: 1' is required.")
    check_size(length, options)
    if body is not None and length is not None and (body.length or 0) > length:
        raise TooLarge(f"The body has {body.length} bytes, but Upload-Length is {length}; send at most that many.")
    return Create(length, raw_metadata, concat, parts, body, creation_url)


def _parse_parts(urls: tuple[str, ...], creation_url: str) -> tuple[str, ...]:
    if len(urls) > MAX_PARTS:
        raise BadRequest(f"Upload-Concat may list at most {MAX_PARTS} uploads.")
    ids = tuple(upload_id_of(url, creation_url) for url in urls)
    if None in ids:
        raise UploadNotFound("Upload-Concat must list the URLs of uploads of this server.")
    return tuple(filter(None, ids))


def _parse_append(request: Request, upload_id: str) -> Append:
    fields = request.fields
    media_type = fields.get("Content-Type") or ""
    if media_type != MEDIA_TYPE and headers.media_type(media_type) != MEDIA_TYPE:
        raise UnsupportedMediaType(f"Content-Type must be {MEDIA_TYPE}.")
    if "Upload-Offset" not in fields:
        raise BadRequest("Upload-Offset is missing; send the offset of the first byte of the body.")
    offset = headers.parse_integer("Upload-Offset", fields["Upload-Offset"])
    if "Upload-Defer-Length" in fields:
        _check_deferred(fields)
    length = headers.parse_integer("Upload-Length", fields["Upload-Length"]) if "Upload-Length" in fields else None
    return Append(upload_id, offset, length, _parse_body(request))


def _check_deferred(fields: Mapping[str, str]) -> None:
    if fields["Upload-Defer-Length"] != "1":
        raise BadRequest("Upload-Defer-Length must be 1.")


def _parse_body(request: Request) -> Body:
    checksum = request.fields.get("Upload-Checksum")
    return Body(
        body_length(request),
        () if checksum is None else (headers.parse_checksum(checksum, DIGEST_SIZES),),
    )


# -- From a command and the stored upload to a decision -----------------------------------------------------------


def is_downloadable(upload: Upload) -> bool:
    """Return whether an upload is a finished file: complete, no part, and not rejected."""
    return upload.is_complete and not upload.is_partial and upload.state != State.REJECTED


def decide_append(command: Append, upload: Upload, options: Options) -> Intake:
    """Return the rules for receiving the body of a PATCH.

    Raises:
        Forbidden: the upload is a final one.
        OffsetMismatch: the bytes do not continue the upload.
        BadRequest: the length contradicts the upload's.
        TooLarge: the announced body is longer than the rest of the upload.
    """
    if upload.parts:
        raise Forbidden("A final upload gets its bytes from its parts; append to a part.")
    if command.offset != upload.offset:
        raise OffsetMismatch(upload.offset)
    new_length = None
    length = upload.length
    if command.length is not None:
        if length is not None and command.length != length:
            raise BadRequest(f"The upload's length is {length}; it cannot change.")
        if command.length < upload.offset:
            raise BadRequest(f"The upload has {upload.offset} bytes already; its length cannot be less.")
        check_size(command.length, options)
        new_length = command.length if length is None else None
        length = command.length
    return _intake(upload.offset, new_length, length, command.body, options)


def decide_first_bytes(command: Create, body: Body, options: Options) -> Intake:
    """Return the rules for receiving the body of a POST (Creation With Upload)."""
    return _intake(0, None, command.length, body, options)


def _intake(offset: int, new_length: int | None, length: int | None, body: Body, options: Options) -> Intake:
    limit = None
    if length is not None:
        limit = length - offset
    else:
        check_size(offset + (body.length or 0), options)
        limit = options.max_size - offset if options.max_size else None
    if limit is not None and body.length is not None and body.length > limit:
        raise TooLarge(overrun_message(limit))
    return Intake(offset, new_length, limit, body)


def decide_concatenation(parts: list[Upload], options: Options, extensions: frozenset[str]) -> None:
    """Check that these uploads may be concatenated.

    Raises:
        BadRequest: an upload is not a part, or is unfinished without ``concatenation-unfinished``.
        TooLarge: the sum of the lengths is larger than its limit.
    """
    if not all(part.is_partial for part in parts):
        raise BadRequest("Upload-Concat must list only uploads that were created with 'Upload-Concat: partial'.")
    if "concatenation-unfinished" not in extensions and not all(part.is_complete for part in parts):
        raise BadRequest("Upload-Concat must list only complete uploads; complete the parts first.")
    check_total(parts, options)


def check_total(parts: list[Upload], options: Options) -> None:
    """Check the sum of the lengths of the parts, or of the offsets if lengths are unknown.

    Raises:
        TooLarge: the sum is larger than its limit (413).
    """
    total = sum(part.offset if part.length is None else part.length for part in parts)
    if total > headers.MAX_INTEGER:
        raise TooLarge(f"The parts together may have at most {headers.MAX_INTEGER} bytes.")
    check_size(total, options)


def total_length(parts: list[Upload]) -> int | None:
    """Return the sum of the parts' lengths; None while one of them is unknown."""
    lengths = [part.length for part in parts]
    return None if None in lengths else sum(filter(None, lengths))
