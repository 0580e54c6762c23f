"""Hashes over a whole file, taken in while it is written from its beginning to its end, or read from it afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO

from tus.checksums import ALGORITHMS, Hashed, Hasher

_BLOCK = 1 << 20  # bytes read at a time


class Hashing:
    """Hashes that run over a file from its first byte.

    Args:
        algorithms: names, out of :data:`~tus.checksums.RUNNING`.

    Attributes:
        offset: the bytes that went in.
    """

    def __init__(self, algorithms: Iterable[str]) -> None:
        self.offset = 0
        self._hashers: list[Hasher] = [ALGORITHMS[algorithm]() for algorithm in algorithms]

    def update(self, block: bytes | bytearray | memoryview) -> None:
        """Take in the file's next bytes."""
        for hasher in self._hashers:
            hasher.update(block)
        self.offset += len(block)

    def read(self, file: BinaryIO, length: int) -> None:
        """Take in what is missing from the file itself, up to a length or to its end."""
        file.seek(self.offset)
        while block := file.read(min(_BLOCK, length - self.offset)):
            self.update(block)

    def result(self) -> Hashed:
        """Return the digests, if this was all."""
        return Hashed(self.offset, True, b"".join(hasher.digest() for hasher in self._hashers))
