"""The drafts of "Resumable Uploads for HTTP" (draft-ietf-httpbis-resumable-upload): a profile for each interop version.

This table holds every difference between the versions. The code that parses requests and makes replies asks it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType

from tus.http import headers, structured
from tus.models import Request
from tus.options import Options


class Missing(Enum):
    """The meaning of an append that does not say whether it completes the upload."""

    COMPLETES = "completes"
    COMPLETES_AT_LENGTH = "completes if it reaches the length"
    REFUSED = "is refused"


@dataclass(frozen=True, slots=True)
class Profile:
    """The rules of one interop version.

    Attributes:
        version: the number in ``Upload-Draft-Interop-Version`` of requests and replies. None if the client has named no
            known version; such a client must not get interim responses.
        drafts: the numbers of the drafts, for people.
        is_inverted: whether ``Upload-Incomplete`` reports completeness instead of ``Upload-Complete``.
        missing: the meaning of an append without that field.
        needs_media_type: whether an append must be of the type ``application/partial-upload``.
        completes_at_length: whether an upload is complete once its length is reached, whatever that field says.
        appended_status: the status of the reply to an append that does not complete the upload.
        reports_progress: whether interim responses report the offset.
        forbids_state: whether HEAD and DELETE must not have the fields of an upload's state.
        hides_gone: whether a request for a removed upload gets 404 instead of 410.
        refuses_completed: whether an append to a completed upload is refused, instead of getting the same reply again.
        overrun_invalidates: whether a body that is longer than the upload ends the upload.
        lifetime_key: the key in ``Upload-Limit`` for the seconds that are left; empty if there is no such field.
        reports_length: whether the reply to HEAD has ``Upload-Length`` when the upload has all its bytes, but the
            application has not accepted it. A widely used client of version 6 takes offset == length for success.
        has_problems: whether the body of a refusal is ``application/problem+json``.
        keeps_location: whether ``Location`` is the upload's URL even in the reply to the completing request.
    """

    version: int | None
    drafts: str
    is_inverted: bool
    missing: Missing
    needs_media_type: bool
    completes_at_length: bool
    appended_status: int
    reports_progress: bool
    forbids_state: bool
    hides_gone: bool
    refuses_completed: bool
    overrun_invalidates: bool
    lifetime_key: str
    reports_length: bool
    has_problems: bool
    keeps_location: bool

    @property
    def complete_field(self) -> str:
        """The name of the field that reports completeness."""
        return "Upload-Incomplete" if self.is_inverted else "Upload-Complete"


_V3 = Profile(
    version=3,
    drafts="-01",
    is_inverted=True,
    missing=Missing.COMPLETES,
    needs_media_type=False,
    completes_at_length=True,
    appended_status=201,
    reports_progress=False,
    forbids_state=True,
    hides_gone=True,
    refuses_completed=False,
    overrun_invalidates=False,
    lifetime_key="",
    reports_length=False,
    has_problems=False,
    keeps_location=True,
)
_V4 = replace(_V3, version=4, drafts="-02", is_inverted=False, missing=Missing.COMPLETES_AT_LENGTH)
_V5 = replace(_V4, version=5, drafts="-03", reports_progress=True)
_V6 = replace(
    _V5,
    version=6,
    drafts="-04 and -05",
    needs_media_type=True,
    refuses_completed=True,
    lifetime_key="expires",
    has_problems=True,
)
_V7 = replace(
    _V6,
    version=7,
    drafts="-06 to -08",
    missing=Missing.REFUSED,
    completes_at_length=False,
    appended_status=204,
    forbids_state=False,
    hides_gone=False,
    overrun_invalidates=True,
    lifetime_key="max-age",
    reports_length=True,
    keeps_location=False,
)
_V8 = replace(_V7, version=8, drafts="-09 to -11")
_V9 = replace(_V8, version=9, drafts="-12", refuses_completed=False)
# The text of this draft was not read. Of the changes after -12 that are known, one concerns the wire: replies to offset
# retrieval need not have Upload-Complete and Upload-Length. They keep both, because clients may rely on them.
_V10 = replace(_V9, version=10, drafts="-13")

#: By interop version.
PROFILES = MappingProxyType(
    {int(profile.version or 0): profile for profile in (_V3, _V4, _V5, _V6, _V7, _V8, _V9, _V10)}
)

#: For a client that names no known version.
UNVERSIONED = replace(_V10, version=None)


VERSION_FIELD = "Upload-Draft-Interop-Version"


PARTIAL_UPLOAD = "application/partial-upload"


_COMPLETE_FIELDS = ("Upload-Complete", "Upload-Incomplete")


#: Fields that proxies add. Many proxies mistake an unknown interim response for the final one.
_PROXY_FIELDS = ("Via", "Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP")


def named_profile(request: Request) -> Profile | None:
    """Return the profile of the interop version that the request names; None if it names no known version."""
    version = structured.parse_count(request.fields.get(VERSION_FIELD))
    return None if version is None else PROFILES.get(version)


def profile_of(request: Request) -> Profile | None:
    """Return the profile of a request whose head shows that it is of the IETF protocol; None for any other request."""
    profile = named_profile(request)
    if profile is not None:
        return profile
    if "Tus-Resumable" in request.fields:
        return None
    if any(name in request.fields for name in _COMPLETE_FIELDS):
        return UNVERSIONED
    is_partial = headers.media_type(request.fields.get("Content-Type") or "") == PARTIAL_UPLOAD
    return UNVERSIONED if request.method == "PATCH" and is_partial else None


def marks_ietf(request: Request) -> bool:
    """Return whether the request has a field of the IETF protocol, so that it cannot come from a form."""
    return any(name in request.fields for name in (*_COMPLETE_FIELDS, VERSION_FIELD))


def takes_interim(request: Request, profile: Profile, options: Options) -> bool:
    """Return whether the client understands interim responses, and no proxy that may fail on them was detected."""
    if profile.version is None or options.interim == "never":
        return False
    return options.interim == "always" or not any(request.headers.get(name) is not None for name in _PROXY_FIELDS)
