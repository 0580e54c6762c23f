"""What a server offers, as its reply to OPTIONS says. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from tus.client.dialects.ietf import version_in
from tus.client.messages import Headers, Response
from tus.http import structured
from tus.http.headers import number_in


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a server offers.

    Attributes:
        protocols: ``tus``, ``ietf``, both, or neither.
        extensions: the extensions of tus, such as ``concatenation``.
        checksums: the algorithms of ``Upload-Checksum``, in the server's order.
        max_size: the most bytes of an upload; None for no limit.
        max_request: the most bytes that one request may carry; None for no limit.
        min_request: the least bytes that a request may carry that does not complete an upload.
        version: the interop version that the server names; None if it names none.
        response: the response itself.
    """

    protocols: tuple[str, ...] = ()
    extensions: frozenset[str] = frozenset()
    checksums: tuple[str, ...] = ()
    max_size: int | None = None
    max_request: int | None = None
    min_request: int = 0
    version: int | None = None
    response: Response = field(default_factory=lambda: Response(0, Headers()))


def read_capabilities(response: Response) -> Capabilities:
    """Return what the reply to OPTIONS says."""
    headers = response.headers
    speaks_tus = "1.0.0" in _listed(headers.get("Tus-Version")) or headers.get("Tus-Resumable") == "1.0.0"
    limits = structured.parse_counts(headers.get("Upload-Limit"))
    speaks_ietf = "Upload-Limit" in headers or "application/partial-upload" in _listed(headers.get("Accept-Patch"))
    return Capabilities(
        protocols=(*(("tus",) if speaks_tus else ()), *(("ietf",) if speaks_ietf else ())),
        extensions=frozenset(_listed(headers.get("Tus-Extension"))),
        checksums=_listed(headers.get("Tus-Checksum-Algorithm")),
        max_size=_least(number_in(headers.get("Tus-Max-Size")) or None, limits.get("max-size")),
        max_request=limits.get("max-append-size"),
        min_request=limits.get("min-append-size", 0),
        version=version_in(headers),
        response=response,
    )


def _listed(value: str | None) -> tuple[str, ...]:
    return tuple(item.strip() for item in (value or "").split(",") if item.strip())


def _least(*numbers: int | None) -> int | None:
    return min((number for number in numbers if number is not None), default=None)
