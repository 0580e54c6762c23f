"""Digest fields (RFC 9530): parse and format ``Content-Digest`` and ``Repr-Digest``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tus.http import structured

#: RFC 9530's names of the algorithms of :mod:`tus.checksums`, without the algorithms that it calls insecure.
NAMES: Final = {"sha-256": "sha256", "sha-512": "sha512"}


REPR_DIGEST: Final = "Repr-Digest"


_NAMES_OF: Final = {algorithm: name for name, algorithm in NAMES.items()}


Digests = tuple[tuple[str, bytes], ...]


def parse_digest(field: str | None) -> Digests:
    """Return the digests in a ``Repr-Digest`` or ``Content-Digest`` field whose algorithms are known here.

    A malformed field has none (RFC 9530 section 2). A value of the wrong length is kept, and matches no file.
    """
    members = structured.parse_bytes(field)
    return tuple((NAMES[name], digest) for name, digest in members.items() if name in NAMES)


def format_digest(digests: Iterable[tuple[str, bytes]]) -> str:
    """Return the field for digests by algorithm."""
    return structured.format_dictionary({_NAMES_OF[algorithm]: digest for algorithm, digest in digests})
