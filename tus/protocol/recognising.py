"""Which protocol does a request speak? Pure."""

from __future__ import annotations

from tus.http import headers, structured
from tus.models import IETF, TUS, Request
from tus.options import Options
from tus.protocols.ietf.profiles import PROFILES, UNVERSIONED, Profile

VERSION_FIELD = "Upload-Draft-Interop-Version"
PARTIAL_UPLOAD = "application/partial-upload"
_COMPLETE_FIELDS = ("Upload-Complete", "Upload-Incomplete")

#: What proxies add. Many take an interim response that they do not know for the final one.
_PROXY_FIELDS = ("Via", "Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP")

#: Methods of requests that may carry nothing by which a protocol could be told.
_BARE = ("HEAD", "GET", "DELETE")


def named_profile(request: Request) -> Profile | None:
    """The profile of the interop version that the request names, None where it names none that is known."""
    version = structured.parse_count(request.headers.get(VERSION_FIELD))
    return None if version is None else PROFILES.get(version)


def profile_of(request: Request) -> Profile | None:
    """The profile of a request that is of the IETF protocol by itself, whatever it is about; None for any other."""
    profile = named_profile(request)
    if profile is not None:
        return profile
    if request.headers.get("Tus-Resumable") is not None:
        return None
    if any(request.headers.get(name) is not None for name in _COMPLETE_FIELDS):
        return UNVERSIONED
    is_partial = headers.media_type(request.headers.get("Content-Type") or "") == PARTIAL_UPLOAD
    return UNVERSIONED if request.method == "PATCH" and is_partial else None


def marks_ietf(request: Request) -> bool:
    """Whether the request has a field of the IETF protocol, so that it is no form's."""
    names = (*_COMPLETE_FIELDS, VERSION_FIELD)
    return any(request.headers.get(name) is not None for name in names)


def takes_interim(request: Request, profile: Profile, options: Options) -> bool:
    """Whether the client understands an interim response, and nothing in between is known that would fail over it."""
    if profile.version is None or options.interim == "never":
        return False
    return options.interim == "always" or not any(request.headers.get(name) is not None for name in _PROXY_FIELDS)


def recognise(request: Request, options: Options) -> Profile | str | None:
    """The protocol of a request.

    A version that is known comes first: clients of the drafts that came from tus send fields of both.

    Returns:
        A profile of the IETF protocol, :data:`TUS`, or None where only the upload can tell.
    """
    if IETF not in options.protocols:
        return TUS
    profile = profile_of(request)
    if profile is not None:
        return profile
    if TUS not in options.protocols:
        return None if request.method == "GET" and options.download else UNVERSIONED
    is_bare = request.method in _BARE and request.headers.get("Tus-Resumable") is None
    return None if is_bare else TUS
