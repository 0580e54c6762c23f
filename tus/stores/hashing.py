"""Hashes of a whole file, computed while it is written from its beginning to its end, or read afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO

from tus.checksums import ALGORITHMS, Hashed, Hasher

_BLOCK = 1 << 20  # bytes read at a time


class Hashing:
    """The running hashes of a file, from its first byte on.

    Args:
        algorithms: names from :data:`~tus.checksums.FILE_ALGORITHMS`.

    Attributes:
        offset: the number of bytes hashed so far.
    """

    def __init__(self, algorithms: Iterable[str]) -> None:
        self.offset = 0
        self._hashers: list[Hasher] = [ALGORITHMS[algorithm]() for algorithm in algorithms]

    def update(self, block: bytes | bytearray | memoryview) -> None:
        """Hash the next bytes of the file."""
        for hasher in self._hashers:
            hasher.update(block)
        self.offset += len(block)

    def read(self, file: BinaryIO, length: int) -> None:
        """Hash the remaining bytes from the file itself, up to a length or to its end."""
        file.seek(self.offset)
        while block := file.read(min(_BLOCK, length - self.offset)):
            self.update(block)

    def result(self) -> Hashed:
        """Return the digests of all bytes hashed so far."""
        return Hashed(self.offset, True, b"".join(hasher.digest() for hasher in self._hashers))
