"""Where the bytes of an upload come from: a path, an open file, bytes, or a stream that can be read only once.

Law of this room: a source gives the same byte at the same offset each time, or raises. A stream keeps what the server
has not acknowledged, and no more than its spool.
"""

from __future__ import annotations

import hashlib
import io
import mimetypes
import os
import threading
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Final

from tus.client.errors import FileChanged
from tus.client.records.identity import FileIdentity

BLOCK: Final = 1 << 20
#: The number of bytes of a stream that are kept until the server has acknowledged them.
SPOOL: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Filled:
    """The bytes that can be sent next.

    Attributes:
        length: how many there are.
        is_end: whether the source ends after them.
    """

    length: int
    is_end: bool


class Source:
    """The bytes of an upload.

    Attributes:
        size: the number of bytes; None if it is not known yet.
        name: the name of the file; empty if it has none.
        identity: what identifies the file after the process has ended; None for bytes and streams.
        spool: the most bytes that one request may carry; 0 for no limit.
    """

    size: int | None = None
    name: str = ""
    identity: FileIdentity | None = None
    spool: int = 0

    @property
    def start(self) -> int:
        """The lowest offset that can still be read."""
        return 0

    def fill(self, offset: int, size: int) -> Filled:
        """Make up to ``size`` bytes from an offset on ready; ``size`` 0 stands for all the rest. May block."""
        assert self.size is not None
        rest = self.size - offset
        length = min(size, rest) if size else rest
        return Filled(length, length == rest)

    def blocks(self, offset: int, length: int, block: int = BLOCK) -> Iterator[bytes]:
        """Return the bytes from an offset on, in blocks of at most ``block`` bytes. May block.

        Raises:
            FileChanged: the source does not have these bytes any more. It is raised before the last byte.
        """
        raise NotImplementedError

    def release(self, offset: int) -> None:
        """Forget the bytes before an offset: the server has them."""

    def digest(self, offset: int, length: int, algorithm: str) -> bytes:
        """Return a digest of a part. Reads all of it."""
        hasher = hashlib.new(algorithm, usedforsecurity=False)
        for block in self.blocks(offset, length):
            hasher.update(block)
        return hasher.digest()

    def close(self) -> None:
        """Close what this source has opened."""


class BytesSource(Source):
    """Bytes in memory."""

    def __init__(self, data: bytes | bytearray | memoryview, name: str = "") -> None:
        self._data = memoryview(data).cast("B")
        self.size = len(self._data)
        self.name = name

    def blocks(self, offset: int, length: int, block: int = BLOCK) -> Iterator[bytes]:
        end = offset + length
        for start in range(offset, end, block):
            yield bytes(self._data[start : min(start + block, end)])


class PathSource(Source):
    """A file by its path. Each reader opens it anew, so that several can read at a time."""

    def __init__(self, path: str | os.PathLike[str], name: str = "") -> None:
        self._path = os.fspath(path)
        with open(self._path, "rb") as file:
            self.identity = FileIdentity.of(file)
        self.size = self.identity.size
        self.name = name or _name_of(self._path)

    def blocks(self, offset: int, length: int, block: int = BLOCK) -> Iterator[bytes]:
        with open(self._path, "rb", buffering=0) as file:
            yield from _read(file, offset, length, block, lambda: self._check(file))

    def _check(self, file: IO[bytes]) -> None:
        if FileIdentity.of(file) != self.identity:
            raise _changed(self._path)


class FileSource(Source):
    """An open file that can seek, from its present position on. It is not closed.

    Several readers share its position, so they take turns.
    """

    def __init__(self, file: IO[bytes], name: str = "") -> None:
        self._file = file
        self._base = file.tell()
        self._lock = threading.Lock()
        self.size = file.seek(0, os.SEEK_END) - self._base
        file.seek(self._base)
        path = getattr(file, "name", "")
        self.name = name or (_name_of(path) if isinstance(path, str) else "")
        self._path = path if isinstance(path, str) else ""
        if self._base == 0:
            with suppress(OSError, AttributeError):  # it may have no descriptor
                self.identity = FileIdentity.of(file)

    def blocks(self, offset: int, length: int, block: int = BLOCK) -> Iterator[bytes]:
        position, end = offset, offset + length
        while position < end:
            with self._lock:
                self._file.seek(self._base + position)
                data = self._file.read(min(block, end - position))
            if not data:
                raise _changed(self._path)
            position += len(data)
            if position == self.size and self.identity is not None:
                self._check()
            yield data

    def _check(self) -> None:
        if FileIdentity.of(self._file) != self.identity:
            raise _changed(self._path)


class Part(Source):
    """A part of another source, as a source of its own."""

    def __init__(self, whole: Source, start: int, size: int) -> None:
        self._whole, self._start = whole, start
        self.size = size

    def blocks(self, offset: int, length: int, block: int = BLOCK) -> Iterator[bytes]:
        return self._whole.blocks(self._start + offset, length, block)


class _Spool:
    """The bytes of a stream that the server has not acknowledged.

    Attributes:
        start: the offset of the first one.
        end: the offset after the last one.
    """

    def __init__(self) -> None:
        self.start = self.end = 0
        self._blocks: list[tuple[int, bytes]] = []

    def add(self, block: bytes) -> None:
        self._blocks.append((self.end, block))
        self.end += len(block)

    def release(self, offset: int) -> None:
        self.start = max(self.start, min(offset, self.end))
        self._blocks = [(at, block) for at, block in self._blocks if at + len(block) > self.start]

    def blocks(self, offset: int, length: int, size: int) -> Iterator[bytes]:
        end = offset + length
        for at, block in list(self._blocks):
            low, high = max(offset - at, 0), min(end - at, len(block))
            for start in range(low, high, size):
                stop = min(start + size, high)
                yield block if stop - start == len(block) else block[start:stop]


class StreamSource(Source):
    """A stream that can be read only once: a pipe, an iterable of bytes. It is not closed.

    Args:
        stream: a file that cannot seek, or an iterable of bytes.
        size: the number of bytes, if it is known.
        name: the name of the file.
        spool: the most bytes that are kept for another attempt, and that one request carries.
    """

    def __init__(
        self, stream: IO[bytes] | Iterable[bytes], size: int | None = None, name: str = "", spool: int = SPOOL
    ) -> None:
        self.size = size
        self.name = name
        self.spool = spool
        self._spool = _Spool()
        self._has_ended = False
        self._next = _reader(stream)

    @property
    def start(self) -> int:
        return self._spool.start

    def fill(self, offset: int, size: int) -> Filled:
        self._check_offset(offset)
        goal = offset + (min(size, self.spool) if size else self.spool)
        while not self._has_ended and self._spool.end <= goal:  # one byte more shows whether the stream ends there
            self._take(self._next())
        return self._filled(offset, goal)

    def _check_offset(self, offset: int) -> None:
        if not self._spool.start <= offset <= self._spool.end:
            raise FileChanged(
                f"The server continues this upload at byte {offset}, but of the stream only bytes "
                f"{self._spool.start} to {self._spool.end} are kept."
            )

    def _take(self, block: bytes | None) -> None:
        if block is None:
            self._has_ended = True
            if self.size is not None and self._spool.end != self.size:
                raise FileChanged(f"The stream has {self._spool.end} bytes, but {self.size} were announced.")
            self.size = self._spool.end
        elif block:
            self._spool.add(bytes(block))

    def _filled(self, offset: int, goal: int) -> Filled:
        is_end = self._has_ended and self._spool.end <= goal
        return Filled(min(self._spool.end, goal) - offset, is_end)

    def blocks(self, offset: int, length: int, block: int = BLOCK) -> Iterator[bytes]:
        return self._spool.blocks(offset, length, block)

    def release(self, offset: int) -> None:
        self._spool.release(offset)


class AsyncStreamSource(StreamSource):
    """An async iterable of bytes, for :class:`~tus.client.AsyncClient`."""

    def __init__(
        self, stream: AsyncIterable[bytes], size: int | None = None, name: str = "", spool: int = SPOOL
    ) -> None:
        super().__init__((), size, name, spool)
        self._iterator: AsyncIterator[bytes] = aiter(stream)

    async def fill_async(self, offset: int, size: int) -> Filled:
        """Do what :meth:`fill` does, without blocking."""
        self._check_offset(offset)
        goal = offset + (min(size, self.spool) if size else self.spool)
        while not self._has_ended and self._spool.end <= goal:
            self._take(await anext(self._iterator, None))
        return self._filled(offset, goal)


def source_of(source: object, *, size: int | None = None, filename: str | None = None, spool: int = SPOOL) -> Source:
    """Return the source for whatever a caller may pass as one.

    Args:
        source: a path, bytes, an open binary file, an iterable or async iterable of bytes, or a source.
        size: the number of bytes of a stream, if it is known.
        filename: the name of the file, where the source has none or another one.
        spool: the most bytes of a stream that are kept.

    Raises:
        TypeError: the source is nothing of this kind.
        OSError: the file cannot be opened.
    """
    name = filename or ""
    if isinstance(source, Source):
        return source
    if isinstance(source, (str, os.PathLike)):
        return PathSource(source, name)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return BytesSource(source, name)
    if isinstance(source, io.TextIOBase):
        raise TypeError("a file must be opened in binary mode, with open(path, 'rb')")
    if hasattr(source, "read"):
        file: Any = source
        try:
            can_seek = file.seekable()
        except AttributeError:
            can_seek = hasattr(file, "seek") and hasattr(file, "tell")
        return FileSource(file, name) if can_seek else StreamSource(file, size, name, spool)
    if isinstance(source, AsyncIterable):
        return AsyncStreamSource(source, size, name, spool)
    if isinstance(source, Iterable):
        return StreamSource(source, size, name, spool)
    raise TypeError(
        "a source must be a path, bytes, a file opened in binary mode, or an iterable of bytes; "
        f"it is of type {type(source).__name__}"
    )


def _name_of(path: str) -> str:
    """Return the name of a file as Unicode, which some names on a disk are not."""
    return os.fsencode(os.path.basename(path)).decode(errors="replace")


def guess_type(name: str) -> str | None:
    """Return the media type that a name suggests, such as ``video/mp4``."""
    return mimetypes.guess_type(name, strict=False)[0]


def _reader(stream: IO[bytes] | Iterable[bytes]) -> Any:
    """Return a callable that returns the next block, and None at the end."""
    if isinstance(stream, (io.RawIOBase, io.BufferedIOBase)) or hasattr(stream, "read"):
        file: Any = stream
        read = getattr(file, "read1", file.read)  # what there is, instead of waiting for a whole block
        return lambda: read(BLOCK) or None
    iterator = iter(stream)
    return lambda: next(iterator, None)


def _read(file: IO[bytes], offset: int, length: int, block: int, check: Any) -> Iterator[bytes]:
    file.seek(offset)
    left = length
    while left:
        data = file.read(min(block, left))
        left -= len(data)
        if not data or not left:  # a file that has changed must not be completed
            check()
        if not data:
            raise _changed("")
        yield data


def _changed(path: str) -> FileChanged:
    name = f"{os.path.basename(path)!r}" if path else "The file"
    return FileChanged(f"{name} has changed since its upload began; start again when nothing writes to it any more.")
