"""The responses of Resumable Uploads for HTTP. Pure.

Law of this room: every reply reports completeness, because the client decides by it whether to go on. A reply has
``?1`` only if the response of the application is final.
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
from tus.protocols.ietf.requests import is_reported_complete

Fields = list[tuple[str, str]]

_EMPTY = (("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "0"))  # servers and validators need both
_OURS = frozenset(
    {"upload-complete", "upload-incomplete", "upload-offset", VERSION_FIELD.lower(), "repr-digest", "tus-resumable"}
)
_INTERIM = "Upload Resumption Supported"
_LARGEST: Final = 10**15 - 1  # the largest integer of a structured field
_TYPES: Final = "https://iana.org/assignments/http-problem-types#"


def limits(options: Options, profile: Profile, upload: Upload | None, now: float) -> Fields:
    """Return ``Upload-Limit`` (section "Limits").

    Args:
        options: the operator's choices.
        profile: the profile of the client's version.
        upload: the upload whose lifetime is reported, or None.
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
        "max-size": options.largest_upload or None,
        "min-size": options.min_size or None,
        "max-append-size": options.max_append_size or None,
        "min-append-size": options.min_append_size or None,
        profile.lifetime_key: lifetime,
    }
    reported: dict[str, int | bytes] = {
        key: value for key, value in limits.items() if value is not None and value <= _LARGEST
    }
    return [("Upload-Limit", structured.format_dictionary(reported or {"min-size": 0}))]


def _state(profile: Profile, complete: bool) -> Fields:
    value = structured.format_boolean(complete != profile.is_inverted)
    return [*_version(profile), (profile.complete_field, value)]


def _version(profile: Profile) -> Fields:
    return [] if profile.version is None else [(VERSION_FIELD, str(profile.version))]


def discovered(options: Options, profile: Profile) -> Fields:
    """Return the fields of this protocol for the response to OPTIONS (section "Limits")."""
    return [*_limits(options, profile, options.upload_valid_duration or None), ("Accept-Patch", PARTIAL_UPLOAD)]


def announced(upload: Upload, location: str, profile: Profile, options: Options, now: float) -> Response:
    """Return the interim response to a creation (section "Status Code 104")."""
    headers = [*_version(profile), ("Location", location), *limits(options, profile, upload, now)]
    return Response(104, _INTERIM, headers)


def progressed(offset: int, profile: Profile) -> Response:
    """Return the interim response that reports an offset."""
    return Response(104, _INTERIM, [*_version(profile), ("Upload-Offset", str(offset))])


def created(upload: Upload, location: str, profile: Profile, options: Options, now: float) -> Response:
    """Return the reply to a creation that has not completed the upload: 201."""
    headers = [("Location", location), *_state(profile, False), ("Upload-Offset", str(upload.offset))]
    return Response(201, "Created", [*headers, *limits(options, profile, upload, now), *_EMPTY])


def appended(upload: Upload, profile: Profile, options: Options, now: float) -> Response:
    """Return the reply to an append that has not completed the upload.

    It reports the offset in each version, because clients that were made from tus clients need it.
    """
    headers = [*_state(profile, False), ("Upload-Offset", str(upload.offset)), *limits(options, profile, upload, now)]
    if profile.appended_status == 204:
        return Response(204, "No Content", headers)
    return Response(201, "Created", [*headers, *_EMPTY])


def inspected(upload: Upload, profile: Profile, options: Options, now: float) -> Response:
    """Return the reply to an offset retrieval: 204."""
    headers = [*_state(profile, is_reported_complete(upload, options)), ("Upload-Offset", str(upload.offset))]
    if upload.length is not None and (profile.reports_length or not _is_taken_for_success(upload, options)):
        headers.append(("Upload-Length", str(upload.length)))
    headers += [*limits(options, profile, upload, now), ("Cache-Control", "no-store")]
    return described(Response(204, "No Content", headers), upload.digests)


def _is_taken_for_success(upload: Upload, options: Options) -> bool:
    is_success = is_reported_complete(upload, options) and upload.state != State.REJECTED
    return upload.offset == upload.length and not is_success


def completed(answer: Response, upload: Upload, location: str | None, profile: Profile, is_final: bool) -> Response:
    """Return the reply to the request that completes an upload: the application's response.

    Args:
        answer: the application's response.
        upload: as it is now.
        location: the URL of the upload if the request has created it, else None.
        profile: the profile of the client's version.
        is_final: whether the application has accepted or rejected the file; else the file can be offered again.
    """
    ours = [*_state(profile, is_final), ("Upload-Offset", str(upload.offset))]
    theirs = _without_ours(answer)
    if location is not None:
        if profile.keeps_location or not is_final:
            theirs = [(name, value) for name, value in theirs if name.lower() != "location"]
        if not any(name.lower() == "location" for name, _ in theirs):
            ours.append(("Location", location))
    return Response(answer.status, answer.reason, [*ours, *theirs], answer.body)


def promised(location: str | None) -> Response:
    """Return the response for a file that the application will get in the background."""
    return Response(204, "No Content") if location is None else Response(201, "Created", [*_EMPTY])


def not_taken() -> Response:
    """Return the response that replaces a redirection of the application; the client must retry."""
    error = NotTaken()
    return Response.of_text(error.status, str(error), error.reason, error.headers)


def _without_ours(answer: Response) -> Fields:
    """Return the header fields of an application's or hook's response, except the fields that the protocols set."""
    return [(name, value) for name, value in answer.headers if name.lower() not in _OURS]


def cancelled(profile: Profile) -> Response:
    """Return the reply to a cancellation: 204."""
    return Response(204, "No Content", _version(profile))


def relayed(answer: Response, profile: Profile, is_head: bool) -> Response:
    """Return the reply to a request that the application or a hook has refused."""
    theirs = _without_ours(answer)
    return Response(answer.status, answer.reason, [*_state(profile, False), *theirs], () if is_head else answer.body)


def refused(error: RequestError, profile: Profile, options: Options, is_head: bool) -> Response:
    """Return the reply to a request that is refused with an error."""
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
        case UploadLocked():  # after a 4xx clients do not retry
            return 503, "Service Unavailable"
        case ChecksumMismatch():  # the status 460 exists only in tus
            return 400, "Bad Request"
    return error.status, error.reason


def _problem(error: RequestError, status: int, reason: str) -> dict[str, object]:
    """Return problem details (RFC 9457), of a registered type if there is one for the error."""
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
