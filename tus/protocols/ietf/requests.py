"""Resumable Uploads for HTTP (draft-ietf-httpbis-resumable-upload) as pure decisions.

:func:`parse` makes a command of a request's head. :func:`decide_append` makes an
:class:`~tus.protocols.bodies.Intake` of a command and the stored upload. :mod:`tus.protocols.ietf.replies` makes the
response. The differences between the drafts are in :mod:`tus.protocols.ietf.profiles`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tus.errors import (
    BadRequest,
    Forbidden,
    HeaderTooLarge,
    InconsistentLength,
    MethodNotAllowed,
    OffsetMismatch,
    TooLarge,
    TooSmall,
    UnsupportedMediaType,
    UploadCompleted,
    UploadNotFound,
)
from tus.http import headers, structured
from tus.http.digests import parse_digest
from tus.http.disposition import LONGEST, parse_filename
from tus.models import Request, State, Upload
from tus.options import Options
from tus.protocols.bodies import Body, Intake, body_length, check_size, overrun_message
from tus.protocols.forwarded import public_url
from tus.protocols.ietf.profiles import PARTIAL_UPLOAD, Missing, Profile
from tus.protocols.routing import MALFORMED_HOST, route

CREATION_METHODS: Final = ("POST", "PUT", "PATCH")

_NO_TYPES = frozenset({"", PARTIAL_UPLOAD, "application/offset+octet-stream"})  # not the type of the file
_STATE_FIELDS = ("Upload-Offset", "Upload-Complete", "Upload-Incomplete", "Upload-Length")


@dataclass(slots=True)
class Create:
    """A new upload, with its first bytes or all of them in the body (section "Upload Creation").

    Attributes:
        complete: whether the body is the whole representation.
        length: its number of bytes, or None if it is unknown.
        raw_metadata: the description of the file in the request, as an ``Upload-Metadata`` field.
        body: the announced body.
        creation_url: the URL that creates uploads, as the client knows it.
    """

    complete: bool
    length: int | None
    raw_metadata: str
    body: Body
    creation_url: str = ""


@dataclass(slots=True)
class Append:
    """Bytes for an upload, perhaps the last ones (section "Upload Append").

    Attributes:
        upload_id: the upload.
        offset: the offset of the body in the upload.
        complete: whether the body ends the upload; None if that depends on the length, as in some versions.
        length: the number of bytes of the whole upload, or None if the request does not have it.
        body: the announced body.
    """

    upload_id: str
    offset: int
    complete: bool | None
    length: int | None
    body: Body


@dataclass(slots=True)
class Inspect:
    """A request for the offset of an upload (section "Offset Retrieval")."""

    upload_id: str


@dataclass(slots=True)
class Cancel:
    """The removal of an upload (section "Upload Cancellation")."""

    upload_id: str


Command = Create | Append | Inspect | Cancel


# -- From the request's head to a command -------------------------------------------------------------------------


def parse(request: Request, profile: Profile, options: Options) -> Command:
    """Return the command of a request.

    Args:
        request: the head, of any method but OPTIONS.
        profile: the profile of the client's version.
        options: the operator's choices.

    Raises:
        RequestError: the request contradicts the protocol or itself.
    """
    where = route(request.url, request.method, options.upload_path)
    if where.upload_id is None:
        if request.method not in CREATION_METHODS:
            raise MethodNotAllowed(", ".join((*CREATION_METHODS, "OPTIONS")))
        return _parse_create(request, profile, options, public_url(where.creation_url, request, options))
    if not where.upload_id:
        raise UploadNotFound()
    match request.method:
        case "PATCH":
            return _parse_append(request, profile, where.upload_id)
        case "HEAD" | "GET":
            _check_stateless(request, profile)
            return Inspect(where.upload_id)
        case "DELETE":
            _check_stateless(request, profile)
            return Cancel(where.upload_id)
    raise MethodNotAllowed("HEAD, GET, PATCH, DELETE, OPTIONS")


def _check_stateless(request: Request, profile: Profile) -> None:
    if profile.forbids_state:
        for name in _STATE_FIELDS:
            if name in request.fields:
                raise BadRequest(f"{request.method} must not have {name} in this version of the protocol; omit it.")


def _parse_complete(request: Request, profile: Profile) -> bool | None:
    value = structured.parse_boolean(request.fields.get(profile.complete_field))
    return value if value is None or not profile.is_inverted else not value


def _parse_create(request: Request, profile: Profile, options: Options, creation_url: str) -> Create:
    if not creation_url.isprintable():
        raise BadRequest(MALFORMED_HOST)
    complete = _parse_complete(request, profile)
    if complete is None:
        raise BadRequest(f"{profile.complete_field} must be ?1 or ?0.")
    length = structured.parse_count(request.fields.get("Upload-Length"))
    check_size(length, options)
    body = _parse_body(request)
    if body.length is not None:
        if length is not None and (body.length > length or (complete and body.length < length)):
            raise InconsistentLength(f"Upload-Length is {length}, but the body has {body.length} bytes.")
        length = body.length if complete else length
    return Create(complete, length, _parse_metadata(request, options), body, creation_url)


def _parse_append(request: Request, profile: Profile, upload_id: str) -> Append:
    media_type = headers.media_type(request.fields.get("Content-Type") or "")
    if profile.needs_media_type and media_type != PARTIAL_UPLOAD:
        accepted = [("Accept-Patch", PARTIAL_UPLOAD)]
        raise UnsupportedMediaType(f"Content-Type must be {PARTIAL_UPLOAD}.", accepted)
    offset = structured.parse_count(request.fields.get("Upload-Offset"))
    if offset is None:
        raise BadRequest("Upload-Offset must be a whole number.")
    complete = _parse_complete(request, profile)
    if complete is None:
        if profile.missing == Missing.REFUSED:
            raise BadRequest(f"{profile.complete_field} must be ?1 or ?0.")
        complete = True if profile.missing == Missing.COMPLETES else None
    length = structured.parse_count(request.fields.get("Upload-Length"))
    return Append(upload_id, offset, complete, length, _parse_body(request))


def _parse_body(request: Request) -> Body:
    return Body(body_length(request), parse_digest(request.fields.get("Content-Digest")))


def _parse_metadata(request: Request, options: Options) -> str:
    """Return the file's name and type as an ``Upload-Metadata`` field, which both protocols keep.

    Clients that were made from tus clients send that field too; its values come first.
    """
    raw_metadata = request.fields.get("Upload-Metadata") or ""
    if len(raw_metadata) > options.max_metadata_size > 0:
        raise HeaderTooLarge(f"Upload-Metadata may have at most {options.max_metadata_size} bytes.")
    metadata = headers.parse_metadata(raw_metadata)
    content_type = (request.fields.get("Content-Type") or "").strip()
    added = {}
    if "filetype" not in metadata and headers.media_type(content_type) not in _NO_TYPES:
        added["filetype"] = content_type
    disposition = request.fields.get("Content-Disposition")
    if disposition and len(disposition) > LONGEST:
        raise HeaderTooLarge(f"Content-Disposition may have at most {LONGEST} bytes.")
    filename = parse_filename(disposition) if disposition else ""
    if filename and "filename" not in metadata:
        added["filename"] = filename
    if not added:
        return raw_metadata
    # The client's own field stays unchanged: it may have keys that the formatter does not accept.
    formatted = ",".join(filter(None, (raw_metadata.strip(" \t"), headers.format_metadata(added))))
    if len(formatted) > options.max_metadata_size > 0:
        raise HeaderTooLarge(
            f"Content-Type and Content-Disposition are too long; as metadata they may have at most "
            f"{options.max_metadata_size} bytes."
        )
    return formatted


# -- From a command and the stored upload to a decision -----------------------------------------------------------


def decide_first_bytes(command: Create, profile: Profile, options: Options) -> Intake | None:
    """Return the rules for receiving the body of a creation; None if there is no body.

    Raises:
        TooLarge: the body or the upload is larger than its limit.
        TooSmall: the body is smaller than ``min_append_size``.
    """
    check_size(command.length, options)
    completes = command.complete or profile.completes_at_length
    if command.body.length == 0 and (completes or command.length != 0):
        return None
    _check_append_size(command.body, command.complete, options)
    new_length = 0 if command.length == 0 else None  # an empty upload that is not complete yet
    limit = _limit(0, command.length, command.body, options)
    return Intake(0, new_length, limit, command.body, completes, command.complete)


def draft_length(command: Create, profile: Profile) -> int | None:
    """Return the length with which the upload is created.

    An upload with the length 0 is complete at once. If it must stay open, its length is set later.
    """
    stays_open = not command.complete and not profile.completes_at_length
    return None if command.length == 0 and stays_open else command.length


def decide_append(command: Append, upload: Upload, profile: Profile, options: Options) -> Intake:
    """Return the rules for receiving the body of an append.

    Raises:
        Forbidden: the upload belongs to a concatenation.
        OffsetMismatch: the bytes do not continue the upload.
        InconsistentLength: the lengths contradict each other.
        TooLarge: there are too many bytes.
    """
    if upload.concat is not None:
        raise Forbidden("This upload belongs to a concatenation; use tus 1.0.0 for it.")
    if command.offset != upload.offset:
        raise OffsetMismatch(upload.offset, command.offset)
    _check_append_size(command.body, bool(command.complete), options)  # first, because the client can correct it
    length = _decide_length(command, upload)
    check_size(length, options)
    completes = command.complete is not False or profile.completes_at_length
    new_length = length if upload.length is None or (completes and length == upload.offset) else None
    limit = _limit(upload.offset, length, command.body, options)
    return Intake(upload.offset, new_length, limit, command.body, completes, bool(command.complete))


def _decide_length(command: Append, upload: Upload) -> int | None:
    """Return the upload's length, or None if it is still unknown (section "Length")."""
    length = upload.length if command.length is None else command.length
    if upload.length is not None and length != upload.length:
        raise InconsistentLength(f"The upload's length is {upload.length}; it cannot change.")
    if length is not None and length < upload.offset:
        raise InconsistentLength(f"The upload has {upload.offset} bytes already; its length cannot be less.")
    if command.body.length is None:
        return length
    end = upload.offset + command.body.length
    if length is not None and (end > length or (command.complete and end < length)):
        raise InconsistentLength(f"The upload would have {end} bytes, but its length is {length}.", end > length)
    return end if command.complete else length


def is_asking_again(command: Append, upload: Upload) -> bool:
    """Return whether an append to an upload that has all its bytes asks for the result of the hand-over.

    Raises:
        OffsetMismatch: the append has another offset.
        UploadCompleted: the append has more bytes.
        InconsistentLength: the append names another length.
    """
    if command.offset != upload.offset:
        raise OffsetMismatch(upload.offset, command.offset)
    if command.length is not None and command.length != upload.offset:
        raise InconsistentLength(f"The upload's length is {upload.offset}; it cannot change.")
    if command.body.length:
        raise UploadCompleted()
    return command.complete is not False


def _limit(offset: int, length: int | None, body: Body, options: Options) -> int | None:
    """Return the maximum number of bytes of a body, or None.

    Raises:
        TooLarge: the announced body is longer.
    """
    limits = [options.max_append_size] if options.max_append_size else []
    if length is not None:
        limits.append(length - offset)
    else:
        check_size(offset + (body.length or 0), options)
        if options.max_size:
            limits.append(options.max_size - offset)
    if limits and body.length is not None and body.length > min(limits):
        raise TooLarge(overrun_message(min(limits)))
    return min(limits, default=None)


def is_overrun(upload: Upload, intake: Intake) -> bool:
    """Return whether a body over its limit was longer than the upload, and not only than ``max_append_size``."""
    length = upload.length if intake.length is None else intake.length
    return length is not None and intake.limit == length - intake.offset


def _check_append_size(body: Body, complete: bool, options: Options) -> None:
    if body.length is None:
        return
    if options.max_append_size and body.length > options.max_append_size:
        raise TooLarge(f"One request may have at most {options.max_append_size} bytes; send several requests.")
    if body.length < options.min_append_size and not complete:
        raise TooSmall(f"One request must have at least {options.min_append_size} bytes, except for the last.")


# -- The state that replies report --------------------------------------------------------------------------------


def is_reported_complete(upload: Upload, options: Options) -> bool:
    """Return whether the client has a final response, so that it needs no further request."""
    if upload.is_pending:
        return options.handover == "background"
    return upload.state in (State.ACCEPTED, State.REJECTED)
