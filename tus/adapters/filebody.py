"""A part of an open file as the body of a response."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

log = logging.getLogger(__name__)

_OF_BYTES = frozenset({"content-length", "content-encoding", "content-range", "content-digest", "repr-digest", "etag"})

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
        if not left:
            yield b""  # see tus.adapters.wsgi.EMPTY
        while left and (block := self.file.read(min(BLOCK, left))):
            left -= len(block)
            yield block

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class LongBody:
    """A temporary file for the long body of an application's success.

    The application has accepted the file by then. So an error of the disk costs the body, and not the success.
    """

    def __init__(self) -> None:
        self._file: BinaryIO | None = None
        self._size = 0
        self._has_failed = False

    def write(self, *blocks: bytes) -> None:
        """Append blocks, unless an earlier block could not be written."""
        if self._has_failed:
            return
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - the response closes it
            self._file.writelines(blocks)
            self._file.flush()
        except OSError as error:
            log.warning("the body of the application's response is dropped, because it cannot be kept: %s", error)
            self._has_failed = True
            self.close()
        else:
            self._size += sum(map(len, blocks))

    def body(self) -> FileBody | None:
        """Return the body; None if it could not be written."""
        if self._file is None or self._has_failed:
            return None
        return FileBody(self._file, 0, self._size, reaches_end=True)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()


def drop_representation(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the header fields of a response whose body is dropped; its type says nothing about the bytes."""
    return [(name, value) for name, value in headers if name.lower() not in _OF_BYTES]
