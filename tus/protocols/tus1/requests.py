"""tus 1.0.0 and its extensions (https://tus.io/protocols/resumable-upload, 2016-03-25) as pure decisions.

A request's head becomes a command by :func:`parse`; a command and the stored upload become an :class:`Intake` by
:func:`decide_append`. What was then done becomes a response in :mod:`tus.protocols.tus1.replies`.
"""

from __future__ import annotations

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
from tus.protocols.routing import Target, target, upload_id_of

VERSION: Final = "1.0.0"
MAX_PARTS: Final = 1000
CREATION_METHODS: Final = "POST, OPTIONS"


@dataclass(frozen=True, slots=True)
class Discover:
    """OPTIONS: what can this server do?"""


@dataclass(frozen=True, slots=True)
class Inspect:
    """HEAD: where does the upload stand?

    Attributes:
        upload_id: the upload.
        may_download: whether it could as well be the HEAD of a download, because it does not name the protocol.
    """

    upload_id: str
    may_download: bool


@dataclass(frozen=True, slots=True)
class Download:
    """GET: the data of a finished upload."""

    upload_id: str


@dataclass(frozen=True, slots=True)
class Create:
    """POST: a new upload, with its first bytes in the body where there is one.

    Attributes:
        length: bytes announced, None where deferred or, for a final upload, given by its parts.
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


@dataclass(frozen=True, slots=True)
class Append:
    """PATCH: bytes for an upload, and perhaps the length that its creation deferred."""

    upload_id: str
    offset: int
    length: int | None
    body: Body


@dataclass(frozen=True, slots=True)
class Terminate:
    """DELETE: forget the upload."""

    upload_id: str


Command = Discover | Inspect | Download | Create | Append | Terminate


# -- From the request's head to a command -------------------------------------------------------------------------


def parse(request: Request, options: Options, extensions: frozenset[str]) -> Command:
    """What a request asks for.

    Args:
        request: the head.
        options: the operator's choices.
        extensions: those that work with this store on this server.

    Raises:
        RequestError: the request contradicts the protocol or itself.
    """
    method = request.effective_method
    where = target(request, options)
    if method == "OPTIONS":
        return Discover()
    # A missing version on HEAD is let through: it changes nothing, and cannot be misread.
    version = request.headers.get("Tus-Resumable")
    if version != VERSION and (version is not None or method not in ("HEAD", "GET")):
        raise VersionUnsupported(f"Tus-Resumable must be {VERSION}.", [("Tus-Version", VERSION)])
    if where.upload_id is None:
        if method != "POST":
            raise MethodNotAllowed(CREATION_METHODS)
        return _parse_create(request, options, extensions, where)
    if not where.upload_id or (method == "GET" and not options.download):
        raise UploadNotFound()
    if method == "GET":
        return Download(where.upload_id)
    if method == "HEAD":
        return Inspect(where.upload_id, may_download=options.download and version is None)
    if method == "PATCH":
        return _parse_append(request, where.upload_id)
    if method == "DELETE" and "termination" in extensions:
        return Terminate(where.upload_id)
    allowed = ["HEAD", "PATCH", "OPTIONS"]
    if "termination" in extensions:
        allowed.insert(2, "DELETE")
    if options.download:
        allowed.insert(0, "GET")
    raise MethodNotAllowed(", ".join(allowed))


def _parse_create(request: Request, options: Options, extensions: frozenset[str], where: Target) -> Create:
    raw_metadata = request.headers.get("Upload-Metadata") or ""
    if len(raw_metadata) > options.max_metadata_size > 0:
        raise HeaderTooLarge(f"Upload-Metadata may have at most {options.max_metadata_size} bytes.")
    headers.parse_metadata(raw_metadata)
    length = _parse_length(request)
    deferred = _parse_deferred(request)
    concat = request.headers.get("Upload-Concat")
    parts: tuple[str, ...] = ()
    if concat is not None:
        if "concatenation" not in extensions:
            raise BadRequest("This server cannot concatenate uploads.")
        urls = headers.parse_concat(concat)
        if urls is not None:
            parts = _parse_parts(urls, where)
    body = None
    if headers.media_type(request.headers.get("Content-Type") or "") == MEDIA_TYPE:
        body = _parse_body(request)
    if parts:
        if length is not None or deferred:
            raise BadRequest("A final upload takes its length from its parts; send neither length header.")
        if body is not None and body.length != 0:
            raise Forbidden("A final upload is made of its parts; send no body.")
        return Create(None, raw_metadata, concat, parts, None, where.creation_url)
    if (length is None) != deferred:
        raise BadRequest("Send exactly one of Upload-Length and 'Upload-Defer-Length: 1'.")
    check_size(length, options)
    if body is not None and length is not None and (body.length or 0) > length:
        raise TooLarge(f"The body is longer than the {length} bytes of Upload-Length.")
    return Create(length, raw_metadata, concat, parts, body, where.creation_url)


def _parse_parts(urls: tuple[str, ...], where: Target) -> tuple[str, ...]:
    if len(urls) > MAX_PARTS:
        raise BadRequest(f"Upload-Concat may list at most {MAX_PARTS} uploads.")
    ids = tuple(upload_id_of(url, where.creation_url) for url in urls)
    if None in ids:
        raise UploadNotFound("Upload-Concat names a URL that is not an upload of this server.")
    return tuple(filter(None, ids))


def _parse_append(request: Request, upload_id: str) -> Append:
    if headers.media_type(request.headers.get("Content-Type") or "") != MEDIA_TYPE:
        raise UnsupportedMediaType(f"Content-Type must be {MEDIA_TYPE}.")
    offset = request.headers.get("Upload-Offset")
    if offset is None:
        raise BadRequest("Upload-Offset is missing.")
    _parse_deferred(request)
    return Append(
        upload_id, headers.parse_integer("Upload-Offset", offset), _parse_length(request), _parse_body(request)
    )


def _parse_length(request: Request) -> int | None:
    length = request.headers.get("Upload-Length")
    return None if length is None else headers.parse_integer("Upload-Length", length)


def _parse_deferred(request: Request) -> bool:
    deferred = request.headers.get("Upload-Defer-Length")
    if deferred not in (None, "1"):
        raise BadRequest("Upload-Defer-Length can only be 1.")
    return deferred is not None


def _parse_body(request: Request) -> Body:
    checksum = request.headers.get("Upload-Checksum")
    return Body(
        body_length(request),
        () if checksum is None else (headers.parse_checksum(checksum, DIGEST_SIZES),),
    )


# -- From a command and the stored upload to a decision -----------------------------------------------------------


def check_downloadable(upload: Upload) -> None:
    """Refuse to send an upload that is unfinished, or only a part of one."""
    if not upload.is_complete or upload.is_partial or upload.state == State.REJECTED:
        raise UploadNotFound("This upload is not finished, so there is nothing to download yet.")


def decide_append(command: Append, upload: Upload, options: Options) -> Intake:
    """Whether, and how far, the body of a PATCH may be taken in.

    Raises:
        Forbidden: the upload is a final one.
        OffsetMismatch: the bytes do not continue the upload.
        BadRequest: the length contradicts what is known.
        TooLarge: the body is known to overrun the upload.
    """
    if upload.is_final:
        raise Forbidden("A final upload is made of its parts; nothing can be appended to it.")
    if command.offset != upload.offset:
        raise OffsetMismatch(upload.offset)
    settles = None
    length = upload.length
    if command.length is not None:
        if length is not None and command.length != length:
            raise BadRequest(f"The upload's length is {length} already; it cannot change.")
        if command.length < upload.offset:
            raise BadRequest(f"The upload has {upload.offset} bytes already; its length cannot be less.")
        check_size(command.length, options)
        settles = command.length if length is None else None
        length = command.length
    return _intake(upload.offset, settles, length, command.body, options)


def decide_first_bytes(command: Create, body: Body, options: Options) -> Intake:
    """How the body of a POST is taken in (Creation With Upload)."""
    return _intake(0, None, command.length, body, options)


def _intake(offset: int, settles: int | None, length: int | None, body: Body, options: Options) -> Intake:
    limit = None
    if length is not None:
        limit = length - offset
    elif options.max_size:
        limit = options.max_size - offset
    if limit is not None and body.length is not None and body.length > limit:
        raise TooLarge(overrun_message(limit))
    return Intake(offset, settles, limit, body)


def decide_concatenation(parts: list[Upload], options: Options, extensions: frozenset[str]) -> None:
    """Whether these uploads may be joined.

    Raises:
        BadRequest: an upload is listed that was not made to be a part, or is unfinished and that is not offered.
        TooLarge: the sum is more than is allowed.
    """
    if not all(part.is_partial for part in parts):
        raise BadRequest("Upload-Concat lists an upload that was not created with 'Upload-Concat: partial'.")
    if "concatenation-unfinished" not in extensions and not all(part.is_complete for part in parts):
        raise BadRequest("Upload-Concat lists an upload that is not finished.")
    check_total(parts, options)


def check_total(parts: list[Upload], options: Options) -> None:
    """Refuse a concatenation that is larger than is allowed, as far as the lengths are known (413)."""
    total = sum(part.offset if part.length is None else part.length for part in parts)
    if total > headers.MAX_INTEGER:
        raise TooLarge("The parts are larger together than any upload can be.")
    check_size(total, options)


def total_length(parts: list[Upload]) -> int | None:
    """The sum of the parts' lengths, None while one is not known."""
    lengths = [part.length for part in parts]
    return None if None in lengths else sum(filter(None, lengths))
