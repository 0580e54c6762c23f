"""The body of a request: read within its bounds, on the fastest path that the server allows, and cut or not.

Law of this room: what arrived before a cut is given out before the cut is told. Servers show a cut as a short read or
as an exception of any kind (OSError, but ValueError under cheroot), and all of them block in ``read(n)`` until n bytes
or the end have come. So a block is small enough that a reset or a death costs little, and grows only while the bytes
come fast.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

from tus.models import Readable
from tus.stores.interface import Block

log = logging.getLogger(__name__)

SMALLEST = 64 * 1024
LARGEST = 1024 * 1024
_WARM_UP = 16  # blocks of the smallest size before the first larger one
_QUICK = 0.005  # seconds; a block that came faster lets the next one be twice as large


class Body:
    """A body that is read once, block by block.

    Args:
        stream: where the bytes come from; ``read`` may block.
        length: the bytes announced, or None where the stream ends by itself.

    Attributes:
        received: bytes given out so far.
        cut: whether the connection ended early. Meaningful once :meth:`blocks` is exhausted.
    """

    def __init__(self, stream: Readable, length: int | None) -> None:
        self._stream = stream
        self._length = length
        self.received = 0
        self.cut = False

    def blocks(self) -> Iterator[Block]:
        """The blocks of the body, none of them empty. A block is good until the next one is asked for."""
        direct = _GunicornSocket.of(self._stream, self._length)
        if direct is not None:
            yield from self._receive(direct)
        else:
            yield from self._read()

    def whole(self) -> bytes:
        """The body in one block, for one that is known to be short."""
        return b"".join(bytes(block) for block in self.blocks())

    def _read(self) -> Iterator[Block]:
        size, count = SMALLEST, 0
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

    def _receive(self, direct: _GunicornSocket) -> Iterator[Block]:
        for block in direct.blocks():
            self.received += len(block)
            yield block
        self.cut = self.received < (self._length or 0)


class _GunicornSocket:
    """The socket behind gunicorn's ``wsgi.input``, received from straight into one buffer.

    That saves two copies of every byte, and what has come before a reset or a death is there to be kept, because
    ``recv`` gives what there is. It rests on names that gunicorn does not promise, so each of them is looked for, and
    anything unfamiliar is read like any other stream.
    """

    def __init__(self, body: Any, reader: Any, socket: Any) -> None:
        self._body = body
        self._reader = reader
        self._socket = socket

    @classmethod
    def of(cls, stream: object, length: int | None) -> _GunicornSocket | None:
        """The socket, where the stream is gunicorn's, its length is known, and nothing of it was read."""
        if length is None or type(stream).__module__ != "gunicorn.http.body":
            return None
        reader = getattr(stream, "reader", None)
        unreader = getattr(reader, "unreader", None)
        socket = getattr(unreader, "sock", None)
        known = (
            type(reader).__name__ == "LengthReader"
            and getattr(reader, "length", None) == length
            and hasattr(unreader, "take_buffered")
            and hasattr(unreader, "unread")
            and socket is not None
            and hasattr(socket, "recv_into")
            and socket.gettimeout() is None
        )
        return cls(stream, reader, socket) if known else None

    def blocks(self) -> Iterator[Block]:
        """The blocks; fewer bytes than announced mean a cut."""
        reader = self._reader
        buffered = reader.unreader.take_buffered()
        if len(buffered) > reader.length:
            reader.unreader.unread(buffered[reader.length :])
            buffered = buffered[: reader.length]
        if buffered:
            reader.length -= len(buffered)
            yield buffered
        if not reader.length:
            return
        with memoryview(bytearray(min(LARGEST, reader.length))) as buffer:
            while reader.length:
                try:
                    count = self._fill(buffer[: min(len(buffer), reader.length)])
                except Exception as error:
                    log.debug("the body was cut with %d bytes to come: %r", reader.length, error)
                    count = 0
                if not count:
                    self._body.failed = True  # what follows on this connection is not a request
                    return
                reader.length -= count
                yield buffer[:count]

    def _fill(self, buffer: memoryview) -> int:
        """Receive what there is, and wait only for the first byte."""
        return int(self._socket.recv_into(buffer))
