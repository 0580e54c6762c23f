"""The body of a request: read within its length, on the fastest path that the server allows, whole or cut.

Law of this room: the bytes before a cut are yielded before the cut is reported. Servers show a cut as a short read or
as an exception of any kind (OSError, but ValueError under cheroot). All of them block in ``read(n)`` until n bytes or
the end have arrived. So a block is small enough that a reset or a crash costs little, and grows only while the bytes
arrive fast.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator

from tus.filesystem.pipes import Pipe
from tus.models import Block, Readable
from tus.server.body_gunicorn import GunicornInput
from tus.server.pace import Patience
from tus.server.piping import LARGEST

log = logging.getLogger(__name__)

SMALLEST = 64 * 1024
_WARM_UP = 16  # blocks of the smallest size before the first larger one
_QUICK = 0.005  # seconds; after a faster block the next one is twice as large


class Body:
    """A body that is read once, block by block.

    Args:
        stream: the source of the bytes; ``read`` may block.
        length: the bytes announced, or None if the stream has an end of its own.
        patience: how long a client may be silent, or slow.

    Attributes:
        is_wanted: called repeatedly while no byte arrives, if the socket is known; False ends the body as a cut.
        can_pour: returns whether a block can be a pipe with the bytes in it, if the socket is known.
        received: bytes yielded so far.
        cut: whether the client disconnected before the end. Valid once :meth:`blocks` is exhausted.
    """

    def __init__(self, stream: Readable, length: int | None, patience: Patience | None = None) -> None:
        self._stream = stream
        self._length = length
        self._patience = Patience() if patience is None else patience
        self.is_wanted: Callable[[], bool] = lambda: True
        self.can_pour: Callable[[], bool] = lambda: False
        self.received = 0
        self.cut = False

    def blocks(self) -> Generator[Block | Pipe]:
        """Return the blocks of the body, none of them empty. A block is valid until the next one is requested.

        A pipe must be emptied until then.
        """
        direct = GunicornInput.of(self._stream, self._length)
        if direct is None:
            return self._read()
        return self._receive(direct)

    def _read(self) -> Generator[Block]:
        size, count = SMALLEST, 0
        since, pace = self._patience.clock(), None
        while self._length is None or self.received < self._length:
            wanted = size if self._length is None else min(size, self._length - self.received)
            began = time.monotonic()
            try:
                block = self._stream.read(wanted)
            except Exception as error:
                log.debug("the body was cut after %d bytes: %r", self.received, error)
                self.cut = True
                return
            if not block:
                self.cut = self._length is not None
                return
            count += 1
            quick = time.monotonic() - began < _QUICK
            if count >= _WARM_UP and size < LARGEST and quick:
                size *= 2
            elif not quick:
                size = SMALLEST
            self.received += len(block)
            yield block
            if self.received == self._length:
                return
            pace = pace or self._patience.pace(since)
            if not pace.keeps_up(self.received):
                log.debug("the body was too slow, and was abandoned after %d bytes", self.received)
                self.cut = True
                return

    def _receive(self, direct: GunicornInput) -> Generator[Block | Pipe]:
        for block in direct.blocks(lambda: self.is_wanted(), self._patience, self.can_pour):
            self.received += len(block)
            yield block
        self.cut = not direct.ended
