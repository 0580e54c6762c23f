"""The algorithms of checksums, of a request's body (tus 1.0.0, Checksum) and of a whole file. Pure."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from tus.errors import ChecksumMismatch


class Hasher(Protocol):
    """What :mod:`hashlib` gives: ``update`` with bytes, then ``digest``."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...

    def digest(self) -> bytes: ...


class Crc32:
    """CRC-32 as in gzip and PNG; the digest is its 4 bytes, most significant first."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


#: Name to constructor, in the order in which they are advertised. sha1 must be there.
ALGORITHMS: dict[str, Callable[[], Hasher]] = {
    "sha1": partial(hashlib.sha1, usedforsecurity=False),
    "sha256": hashlib.sha256,
    "sha512": hashlib.sha512,
    "md5": partial(hashlib.md5, usedforsecurity=False),
    "crc32": Crc32,
}


def verify(data: bytes, checksums: Iterable[tuple[str, bytes]]) -> None:
    """See that data has the digests that were announced for it, given by algorithm.

    Raises:
        ChecksumMismatch: it has not.
    """
    for algorithm, digest in checksums:
        hasher = ALGORITHMS[algorithm]()
        hasher.update(data)
        if hasher.digest() != digest:
            raise ChecksumMismatch()


#: Name to length of the digest, in bytes.
DIGEST_SIZES = {name: len(new().digest()) for name, new in ALGORITHMS.items()}

#: The algorithms that may run over a whole file.
RUNNING = frozenset({"sha256", "sha512"})


@dataclass(frozen=True, slots=True)
class Hashed:
    """What is known of a file's digests.

    Attributes:
        offset: the bytes that went in.
        is_whole: whether these are the digests of the whole file; older versions also kept states of hashes.
        values: one after the other, in the order of the upload's ``hashes``.
        boot: what tells the run of the machine in which it was kept from any other, 16 bytes.
    """

    offset: int
    is_whole: bool
    values: bytes
    boot: bytes = bytes(16)

    def digests(self, algorithms: Iterable[str]) -> tuple[tuple[str, bytes], ...]:
        """The digests by algorithm, where this is the whole."""
        found, start = [], 0
        for algorithm in algorithms:
            found.append((algorithm, self.values[start : start + DIGEST_SIZES[algorithm]]))
            start += DIGEST_SIZES[algorithm]
        return tuple(found)
