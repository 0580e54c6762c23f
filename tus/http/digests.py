"""Digest fields (RFC 9530): parse and format ``Content-Digest`` and ``Repr-Digest``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tus.http import structured

#: The names that RFC 9530 has for algorithms of :mod:`tus.checksums`; those that it calls insecure are left out.
NAMES: Final = {"sha-256": "sha256", "sha-512": "sha512"}


_FIELD: Final = "Repr-Digest"


_NAMES_OF: Final = {algorithm: name for name, algorithm in NAMES.items()}


Digests = tuple[tuple[str, bytes], ...]


def parse_digest(field: str | None) -> Digests:
    """The digests of a ``Repr-Digest`` or ``Content-Digest`` field, by the algorithms that are known here.

    Others are left out; a field that is malformed has none (RFC 9530 section 2). What is too short for a digest stays,
    and is that of no file.
    """
    members = structured.parse_bytes(field)
    return tuple((NAMES[name], digest) for name, digest in members.items() if name in NAMES)


def format_digest(digests: Iterable[tuple[str, bytes]]) -> str:
    """The field for digests by algorithm."""
    return structured.format_dictionary({_NAMES_OF[algorithm]: digest for algorithm, digest in digests})
