"""The request's body on an event loop: read as it arrives, and held in a small buffer until the writer takes it.

Law of this room: the bytes before a cut are returned before the cut is reported, also if the reading was cancelled.
While a long write is running, reading continues. Once :data:`BATCH` is held, or less if many bodies are read, it
waits, so that the server stops reading from the connection, and the client stops sending.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import ClassVar, Protocol

import anyio

from tus.filesystem.pipes import Pipe
from tus.models import Block

log = logging.getLogger(__name__)

BATCH = 4 * 1024 * 1024  # bytes, plus one message; each batch costs a switch to a thread and back
SHARED = 64 * 1024 * 1024  # bytes that all bodies of a process share; then each one has a smaller batch
LEAST = 64 * 1024
QUICK = 0.02  # seconds that reading waits for a write; with fast disks, two threads only disturb each other
LINGER = 0.05  # seconds that less than a batch may be held, to wait for more


def reuse_memory() -> None:
    """Have glibc reuse the memory of a server's messages instead of mapping new pages for each.

    It maps pages for each block that is larger than any block freed so far (mallopt(3), M_MMAP_THRESHOLD). The block
    here is larger than any message. docs/design.rst says what this saves.
    """
    bytes(2 * BATCH)


Blocks = tuple[Block, ...]
#: Bytes for one write.
Batch = Blocks | Pipe


class Source(Protocol):
    """A body between the client and a thread that writes it.

    Attributes:
        received: bytes received so far.
        cut: whether the client disconnected before the end. Valid once ``is_over``.
    """

    received: int
    cut: bool

    @property
    def is_over(self) -> bool:
        """Whether all bytes were taken."""

    async def take(self, seconds: float) -> Sequence[Iterable[Batch]]:
        """Wait for bytes, and return them; nothing if the body is over, or if none arrives within so many seconds.

        A thread iterates over the result, and uses each batch before it asks for the next one.
        """

    def take_now(self) -> Sequence[Iterable[Batch]]:
        """Return the bytes that have arrived, without waiting."""

    def give_up(self) -> None:
        """End the body here, as a cut."""


class LentSource(Source, Protocol):
    """A source whose bytes can lie in a pipe.

    Attributes:
        can_pour: returns whether a batch can be a pipe.
    """

    can_pour: Callable[[], bool]


class AsyncBody:
    """A :class:`Source` that is read as messages of the server.

    Args:
        receive: returns the next bytes, possibly none; None after the last. An exception is a cut.
        length: the bytes announced, or None if the length is not known.

    Attributes:
        received: bytes received so far.
        cut: whether the client disconnected before the end. Valid once ``is_over``.
        is_over: whether all bytes were taken.
    """

    _reading: ClassVar[int] = 0  # bodies of the process that are being read

    def __init__(self, receive: Callable[[], Awaitable[bytes | None]], length: int | None) -> None:
        self._receive = receive
        self._length = length
        self._blocks: list[bytes] = []
        self._size = 0
        self._is_held = False  # whether the last bytes taken are still being written
        self._is_read = length == 0
        self._taken: anyio.Event | None = None  # set when the writer takes bytes, while reading waits
        self._came: anyio.Event | None = None  # set when ``_wanted`` bytes are there, while the writer waits
        self._wanted = 0
        self.received = 0
        self.cut = False

    @classmethod
    def _batch(cls) -> int:
        return max(LEAST, min(BATCH, SHARED // max(cls._reading, 1)))

    @property
    def is_over(self) -> bool:
        return self._is_read and not self._size

    @property
    def is_read(self) -> bool:
        """Whether no byte is to come."""
        return self._is_read

    async def read_ahead(self) -> None:
        """Read a body that fits into memory, unless its bytes do not come at once; then :meth:`read` goes on."""
        with anyio.move_on_after(LINGER):
            await self.read()

    async def read(self) -> None:
        """Read to the end. Runs concurrently with :meth:`take`."""
        AsyncBody._reading += 1
        try:
            await self._read()
        finally:
            AsyncBody._reading -= 1

    async def _read(self) -> None:
        try:
            while not self._is_read:
                while self._is_held or self._size >= self._batch():
                    await self._wait_for_writer()
                block = await self._receive()
                if block is None:
                    break
                if not block:
                    continue  # a body without a length ends with an empty message
                self._blocks.append(block)
                self._size += len(block)
                self.received += len(block)
                self._is_read = self.received == self._length
                if self._came is not None and (self._size >= self._wanted or self._is_read):
                    self._came.set()
        except Exception as error:
            log.debug("the body was cut after %d bytes: %r", self.received, error)
            self.cut = True
        self._is_read = True
        if self._length is not None and self.received < self._length:
            self.cut = True
        if self._came is not None:
            self._came.set()

    async def take(self, seconds: float) -> list[list[Blocks]]:
        self._hold(False)
        if not self._size:
            await self._wait_for_bytes(1, seconds)
        if self._size and self._size < (batch := self._batch()):
            await self._wait_for_bytes(batch, LINGER)
        return self.take_now()

    def take_now(self) -> list[list[Blocks]]:
        blocks, self._blocks, self._size = self._blocks, [], 0
        self._hold(True)
        return [[tuple(blocks)]] if blocks else []

    def _hold(self, is_held: bool) -> None:
        self._is_held = is_held
        if self._taken is not None:
            self._taken.set()

    def give_up(self) -> None:
        log.debug("the body was abandoned after %d bytes", self.received)
        self._is_read = True
        self.cut = True

    async def _wait_for_writer(self) -> None:
        """Wait until the writer takes bytes; while it is writing, wait at most :data:`QUICK` seconds."""
        self._taken = anyio.Event()
        with anyio.move_on_after(QUICK if self._is_held else math.inf) as scope:
            await self._taken.wait()
        self._taken = None
        if scope.cancelled_caught:
            self._is_held = False

    async def _wait_for_bytes(self, size: int, seconds: float) -> None:
        if self._is_read:
            return
        self._wanted = size
        self._came = anyio.Event()
        with anyio.move_on_after(seconds):
            await self._came.wait()
        self._came = None
