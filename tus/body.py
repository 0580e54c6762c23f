"""The body of a request: read within its bounds, on the fastest path that the server allows, and cut or not.

Law of this room: what arrived before a cut is given out before the cut is told. Servers show a cut as a short read or
as an exception of any kind (OSError, but ValueError under cheroot), and all of them block in ``read(n)`` until n bytes
or the end have come. So a block is small enough that a reset or a death costs little, and grows only while the bytes
come fast.
"""

from __future__ import annotations

import logging
import select
import ssl
import time
from collections.abc import Iterator
from types import GeneratorType
from typing import Any

from tus.models import Readable
from tus.stores.interface import Block

log = logging.getLogger(__name__)

SMALLEST = 64 * 1024
LARGEST = 1024 * 1024
_WARM_UP = 16  # blocks of the smallest size before the first larger one
_QUICK = 0.005  # seconds; a block that came faster lets the next one be twice as large
_PATIENCE = 0.5  # seconds between two looks at whether the process is to end

_interrupted = False


def interrupt_all() -> None:
    """Let every body of this process end as if its connection had been cut, so that what has come is kept.

    For a server that is told to stop. It reaches bodies whose socket is known; others end with the server.
    """
    global _interrupted
    _interrupted = True


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
        direct = _GunicornInput.of(self._stream, self._length)
        if direct is None:
            return self._read()
        return self._receive(direct)

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

    def _receive(self, direct: _GunicornInput) -> Iterator[Block]:
        for block in direct.blocks():
            self.received += len(block)
            yield block
        self.cut = not direct.ended


class _GunicornInput:
    """What is behind gunicorn's ``wsgi.input``: blocks as they come, where its ``read`` would wait for full ones.

    What has come before a reset or a death is there to be kept, then, and a body of known length is received straight
    into one buffer, which saves two copies of every byte. It rests on names that gunicorn does not promise, so each of
    them is looked for, and anything unfamiliar is read like any other stream.

    Attributes:
        ended: whether the body came to its end.
    """

    def __init__(self, body: Any, chunked: bool) -> None:
        self._body = body
        self._reader = body.reader
        self._chunked = chunked
        self._socket: Any = None if chunked else body.reader.unreader.sock
        self.ended = False

    @classmethod
    def of(cls, stream: Any, length: int | None) -> _GunicornInput | None:
        """The input, if the stream is gunicorn's and nothing of it was read."""
        if type(stream).__module__ != "gunicorn.http.body" or not _is_empty(getattr(stream, "buf", None)):
            return None
        reader: Any = getattr(stream, "reader", None)
        if length is None:
            known = isinstance(getattr(reader, "parser", None), GeneratorType) and _is_empty(reader.buf)
            return cls(stream, chunked=True) if known else None
        unreader = getattr(reader, "unreader", None)
        socket: Any = getattr(unreader, "sock", None)
        known = (
            type(reader).__name__ == "LengthReader"
            and getattr(reader, "length", None) == length
            and hasattr(unreader, "take_buffered")
            and hasattr(unreader, "unread")
            and socket is not None
            and hasattr(socket, "recv_into")
            and not isinstance(socket, ssl.SSLSocket)  # what it holds decrypted, poll() does not see
            and socket.gettimeout() is None
        )
        return cls(stream, chunked=False) if known else None

    def blocks(self) -> Iterator[Block]:
        """The blocks; afterwards ``ended`` tells whether they are all."""
        yield from self._chunks() if self._chunked else self._received()
        if not self.ended:
            self._body.failed = True  # where the next request would begin on this connection is not known

    def _chunks(self) -> Iterator[Block]:
        reader = self._reader
        while True:
            try:
                block = next(reader.parser, None)
            except Exception as error:
                log.debug("a chunked body was cut: %r", error)
                return
            if block is None:
                reader.parser = None
                self.ended = True
                return
            if block:
                yield block

    def _received(self) -> Iterator[Block]:
        reader = self._reader
        buffered = reader.unreader.take_buffered()
        if len(buffered) > reader.length:
            reader.unreader.unread(buffered[reader.length :])
            buffered = buffered[: reader.length]
        if buffered:
            reader.length -= len(buffered)
            yield buffered
        if reader.length:
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            buffer = memoryview(bytearray(min(LARGEST, reader.length)))
            while reader.length and (count := self._fill(poll, buffer[: reader.length])):
                reader.length -= count
                yield buffer[:count]
        self.ended = not reader.length

    def _fill(self, poll: select.poll, buffer: memoryview) -> int:
        """Wait for the first byte, then receive what there is; 0 where the connection ended."""
        try:
            while not _interrupted:
                if poll.poll(_PATIENCE * 1000):
                    return int(self._socket.recv_into(buffer))
        except Exception as error:
            log.debug("the body was cut with %d bytes to come: %r", self._reader.length, error)
        return 0


def _is_empty(buffer: Any) -> bool:
    return buffer is not None and buffer.tell() == 0
