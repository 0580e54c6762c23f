"""Resumable Uploads for HTTP: from what was done to a response. Pure.

Law of this room: whether a reply says "complete" decides whether its client goes on, so every reply says it; ``?1`` is
only said where the application has spoken its last word.
"""

from __future__ import annotations

import json
from typing import Final

from tus.errors import (
    ChecksumMismatch,
    InconsistentLength,
    NotTaken,
    OffsetMismatch,
    RequestError,
    TooSmall,
    UploadCompleted,
    UploadGone,
    UploadLocked,
)
from tus.http import structured
from tus.models import Response, State, Upload
from tus.options import Options
from tus.protocols.digests import described
from tus.protocols.ietf.profiles import PARTIAL_UPLOAD, VERSION_FIELD, Profile
from tus.protocols.ietf.requests import is_told_complete

Fields = list[tuple[str, str]]

_EMPTY = (("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "0"))  # what servers and validators want
_OURS = frozenset(
    {"upload-complete", "upload-incomplete", "upload-offset", VERSION_FIELD.lower(), "repr-digest", "tus-resumable"}
)
_INTERIM = "Upload Resumption Supported"
_LARGEST: Final = 10**15 - 1  # that a structured field can hold
_TYPES: Final = "https://iana.org/assignments/http-problem-types#"


def limits(options: Options, profile: Profile, upload: Upload | None, now: float) -> Fields:
    """``Upload-Limit`` (section "Limits").

    Args:
        options: the operator's choices.
        profile: the version that the client speaks.
        upload: the one that the lifetime is told of, if any.
        now: seconds since 1970.
    """
    lifetime = None
    if upload is not None and upload.expires_at is not None and upload.can_expire:
        lifetime = max(int(upload.expires_at - now), 0)
    return _limits(options, profile, lifetime)


def _limits(options: Options, profile: Profile, lifetime: int | None) -> Fields:
    if not profile.lifetime_key:
        return []
    limits = {
        "max-size": options.max_size or None,
        "min-size": options.min_size or None,
        "max-append-size": options.max_append_size or None,
        "min-append-size": options.min_append_size or None,
        profile.lifetime_key: lifetime,
    }
    told: dict[str, int | bytes] = {
        key: value for key, value in limits.items() if value is not None and value <= _LARGEST
    }
    return [("Upload-Limit", structured.format_dictionary(told or {"min-size": 0}))]


def _state(profile: Profile, complete: bool) -> Fields:
    told = structured.format_boolean(complete != profile.is_inverted)
    return [*_version(profile), (profile.complete_field, told)]


def _version(profile: Profile) -> Fields:
    return [] if profile.version is None else [(VERSION_FIELD, str(profile.version))]


def discovered(options: Options, profile: Profile) -> Fields:
    """What OPTIONS tells of this protocol (section "Limits")."""
    return [*_limits(options, profile, options.upload_valid_duration or None), ("Accept-Patch", PARTIAL_UPLOAD)]


def announced(upload: Upload, location: str, profile: Profile, options: Options, now: float) -> Response:
    """The interim response to a creation (section "Status Code 104")."""
    headers = [*_version(profile), ("Location", location), *limits(options, profile, upload, now)]
    return Response(104, _INTERIM, headers)


def progressed(offset: int, profile: Profile) -> Response:
    """The interim response that tells how far an upload has come."""
    return Response(104, _INTERIM, [*_version(profile), ("Upload-Offset", str(offset))])


def created(upload: Upload, location: str, profile: Profile, options: Options, now: float) -> Response:
    """The reply to a creation that has not completed the upload: 201."""
    headers = [("Location", location), *_state(profile, False), ("Upload-Offset", str(upload.offset))]
    return Response(201, "Created", [*headers, *limits(options, profile, upload, now), *_EMPTY])


def appended(upload: Upload, profile: Profile, options: Options, now: float) -> Response:
    """The reply to an append that has not completed the upload.

    The offset is told in each version: clients that came from tus need it.
    """
    headers = [*_state(profile, False), ("Upload-Offset", str(upload.offset)), *limits(options, profile, upload, now)]
    if profile.appended_status == 204:
        return Response(204, "No Content", headers)
    return Response(201, "Created", [*headers, *_EMPTY])


def inspected(upload: Upload, profile: Profile, options: Options, now: float) -> Response:
    """The reply to an offset retrieval: 204."""
    headers = [*_state(profile, is_told_complete(upload, options)), ("Upload-Offset", str(upload.offset))]
    if upload.length is not None and (profile.tells_length or not _is_taken_for_success(upload, options)):
        headers.append(("Upload-Length", str(upload.length)))
    headers += [*limits(options, profile, upload, now), ("Cache-Control", "no-store")]
    return described(Response(204, "No Content", headers), upload.digests)


def _is_taken_for_success(upload: Upload, options: Options) -> bool:
    is_success = is_told_complete(upload, options) and upload.state != State.REJECTED
    return upload.offset == upload.length and not is_success


def completed(answer: Response, upload: Upload, location: str | None, profile: Profile, is_last_word: bool) -> Response:
    """The reply to the request that completes an upload: what the application has answered.

    Args:
        answer: the application's.
        upload: as it stands.
        location: the upload's, where the request has created it.
        profile: the version that the client speaks.
        is_last_word: whether the application has accepted or rejected the file; else it can be asked again.
    """
    ours = [*_state(profile, is_last_word), ("Upload-Offset", str(upload.offset))]
    theirs = _without_ours(answer)
    if location is not None:
        if profile.keeps_location or not is_last_word:
            theirs = [(name, value) for name, value in theirs if name.lower() != "location"]
        if not any(name.lower() == "location" for name, _ in theirs):
            ours.append(("Location", location))
    return Response(answer.status, answer.reason, [*ours, *theirs], answer.body)


def promised(location: str | None) -> Response:
    """What a client hears of a file that the application is yet to get."""
    return Response(204, "No Content") if location is None else Response(201, "Created", [*_EMPTY])


def not_taken() -> Response:
    """What a client hears in place of an answer that says nothing: that it is to ask again."""
    error = NotTaken()
    return Response.of_text(error.status, str(error), error.reason, error.headers)


def _without_ours(answer: Response) -> Fields:
    """The fields of somebody else's answer, without those that the protocols say themselves."""
    return [(name, value) for name, value in answer.headers if name.lower() not in _OURS]


def cancelled(profile: Profile) -> Response:
    """The reply to a cancellation: 204."""
    return Response(204, "No Content", _version(profile))


def relayed(answer: Response, profile: Profile, is_head: bool) -> Response:
    """The answer of whoever was asked whether a request is allowed, and said no."""
    theirs = _without_ours(answer)
    return Response(answer.status, answer.reason, [*_state(profile, False), *theirs], () if is_head else answer.body)


def refused(error: RequestError, profile: Profile, options: Options, is_head: bool) -> Response:
    """The reply to a request that cannot be carried out."""
    status, reason = _status(error, profile)
    headers = [*_state(profile, False), *error.headers]
    if status == 413 or isinstance(error, TooSmall):
        headers += limits(options, profile, None, 0.0)
    if is_head:
        return Response(status, reason, [*headers, *_EMPTY, ("Cache-Control", "no-store")])
    if not profile.has_problems:
        return Response.of_text(status, str(error), reason, headers)
    body = json.dumps(_problem(error, status, reason)).encode()
    described = [("Content-Type", "application/problem+json"), ("Content-Length", str(len(body)))]
    return Response(status, reason, [*headers, *described], (body,))


def _status(error: RequestError, profile: Profile) -> tuple[int, str]:
    match error:
        case UploadGone() if profile.hides_gone:
            return 404, "Not Found"
        case UploadLocked():  # after a 4xx clients do not come again
            return 503, "Service Unavailable"
        case ChecksumMismatch():  # 460 is of tus
            return 400, "Bad Request"
    return error.status, error.reason


def _problem(error: RequestError, status: int, reason: str) -> dict[str, object]:
    """Problem details (RFC 9457) of a registered type, or of none."""
    problem: dict[str, object] = {"title": reason, "status": status, "detail": str(error)}
    match error:
        case OffsetMismatch():
            problem |= {"type": _TYPES + "mismatching-upload-offset", "expected-offset": error.offset}
            if error.provided is not None:
                problem["provided-offset"] = error.provided
        case InconsistentLength():
            problem["type"] = _TYPES + "inconsistent-upload-length"
        case UploadCompleted():
            problem["type"] = _TYPES + "completed-upload"
    return problem
