"""The request's body on an event loop: read as it comes, and held until somebody takes it; never more than a little.

Law of this room: what arrived before a cut is given out before the cut is told, also where the reading was cancelled.
Where it takes long to write what was taken, reading goes on meanwhile. Once :data:`BATCH` is held it waits, so that the
server stops to read from the connection, and the client to send.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable

import anyio

log = logging.getLogger(__name__)

BATCH = 4 * 1024 * 1024  # bytes; a message may come on top of them. Each costs a way to a thread and back
QUICK = 0.02  # seconds that reading waits for a write; where disks are fast, two threads only get into each other's way
LINGER = 0.05  # seconds that less than a batch may be held, for more to come

# glibc has the system map new pages for each block that is larger than any which was freed so far (mallopt(3),
# M_MMAP_THRESHOLD), and for a server's messages that costs more than to write them. This block is larger than they are.
bytes(2 * BATCH)


class AsyncBody:
    """A body that is read once.

    Args:
        receive: the next bytes, perhaps none; None after the last. What it raises is a cut.
        length: the bytes announced, or None where only reading tells.

    Attributes:
        received: bytes that have come so far.
        cut: whether the connection ended early. Meaningful once it is over.
        is_over: whether all that comes was taken.
    """

    def __init__(self, receive: Callable[[], Awaitable[bytes | None]], length: int | None) -> None:
        self._receive = receive
        self._length = length
        self._blocks: list[bytes] = []
        self._size = 0
        self._is_held = False  # whether what was taken is not yet dealt with
        self._is_read = length == 0
        self._taken: anyio.Event | None = None  # where reading waits until somebody has taken something
        self._came: anyio.Event | None = None  # where somebody waits for ``_wanted`` bytes
        self._wanted = 0
        self.received = 0
        self.cut = False

    @property
    def is_over(self) -> bool:
        return self._is_read and not self._size

    async def read(self) -> None:
        """Read to the end. Runs beside :meth:`take`."""
        try:
            while not self._is_read:
                while self._is_held or self._size >= BATCH:
                    await self._changed()
                block = await self._receive()
                if block is None:
                    break
                if not block:
                    continue  # the end of a body that was announced without a length comes like this
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

    async def take(self, seconds: float) -> list[bytes]:
        """What has come; nothing where it is over, or where nothing has come for so many seconds."""
        self._hold(False)
        if not self._size:
            await self._until(1, seconds)
        if self._size and self._size < BATCH:
            await self._until(BATCH, LINGER)
        return self.rest()

    def rest(self) -> list[bytes]:
        """What has come, without waiting."""
        blocks, self._blocks, self._size = self._blocks, [], 0
        self._hold(True)
        return blocks

    def _hold(self, is_held: bool) -> None:
        self._is_held = is_held
        if self._taken is not None:
            self._taken.set()

    def give_up(self) -> None:
        """Let it end here, as a cut."""
        log.debug("the body was given up after %d bytes", self.received)
        self._is_read = True
        self.cut = True

    async def _changed(self) -> None:
        """Wait until somebody takes something, or comes back for more; for the latter not long."""
        self._taken = anyio.Event()
        with anyio.move_on_after(QUICK if self._is_held else math.inf) as scope:
            await self._taken.wait()
        self._taken = None
        if scope.cancelled_caught:
            self._is_held = False

    async def _until(self, size: int, seconds: float) -> None:
        if self._is_read:
            return
        self._wanted = size
        self._came = anyio.Event()
        with anyio.move_on_after(seconds):
            await self._came.wait()
        self._came = None
