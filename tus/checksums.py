"""The algorithms for checksums of a request's body (tus 1.0.0, Checksum) and digests of a whole file. Pure."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from tus.errors import ChecksumMismatch


class Hasher(Protocol):
    """A hash object as in :mod:`hashlib`: ``update`` with bytes, then ``digest``."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...

    def digest(self) -> bytes: ...


class Crc32:
    """CRC-32 as in gzip and PNG; the digest is its 4 bytes in big-endian order."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


#: Name to constructor, in the order in which they are advertised. The tus protocol requires sha1.
ALGORITHMS: dict[str, Callable[[], Hasher]] = {
    "sha1": partial(hashlib.sha1, usedforsecurity=False),
    "sha256": hashlib.sha256,
    "sha512": hashlib.sha512,
    "md5": partial(hashlib.md5, usedforsecurity=False),
    "crc32": Crc32,
}


def verify(data: bytes, checksums: Iterable[tuple[str, bytes]]) -> None:
    """Check data against the checksums that were announced for it.

    Args:
        data: the body.
        checksums: pairs of an algorithm and a digest.

    Raises:
        ChecksumMismatch: one of them differs.
    """
    for algorithm, digest in checksums:
        hasher = ALGORITHMS[algorithm]()
        hasher.update(data)
        if hasher.digest() != digest:
            raise ChecksumMismatch()


#: Name to length of the digest, in bytes.
DIGEST_SIZES = {name: len(new().digest()) for name, new in ALGORITHMS.items()}

#: The algorithms for digests of a whole file.
FILE_ALGORITHMS = frozenset({"sha256", "sha512"})


@dataclass(frozen=True, slots=True)
class Hashed:
    """The digests of a file, or the states of hashes that will continue.

    Attributes:
        offset: the bytes that were hashed.
        is_whole: whether these are the digests of the whole file; older versions also kept states of hashes.
        values: concatenated in the order of the upload's ``hashes``.
        boot: identifies the boot of the machine in which they were stored, 16 bytes.
    """

    offset: int
    is_whole: bool
    values: bytes
    boot: bytes = bytes(16)

    def digests(self, algorithms: Iterable[str]) -> tuple[tuple[str, bytes], ...]:
        """Return the digests by algorithm; valid only if ``is_whole``."""
        found, start = [], 0
        for algorithm in algorithms:
            found.append((algorithm, self.values[start : start + DIGEST_SIZES[algorithm]]))
            start += DIGEST_SIZES[algorithm]
        return tuple(found)
