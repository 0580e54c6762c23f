"""A part of an open file as the body of a response."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

BLOCK = 256 * 1024


class FileBody:
    """Bytes of a file from ``start`` up to ``stop``, in blocks.

    Args:
        file: open for reading; :meth:`close` closes it.
        start: the first byte.
        stop: the byte after the last one.
        reaches_end: whether the file ends there, so that the server may send the rest of the file on its own.
    """

    def __init__(self, file: BinaryIO, start: int, stop: int, reaches_end: bool) -> None:
        self.file = file
        self.start = start
        self.stop = stop
        self.reaches_end = reaches_end

    def __iter__(self) -> Iterator[bytes]:
        self.file.seek(self.start)
        left = self.stop - self.start
        while left and (block := self.file.read(min(BLOCK, left))):
            left -= len(block)
            yield block

    def close(self) -> None:
        """Close the file."""
        self.file.close()
