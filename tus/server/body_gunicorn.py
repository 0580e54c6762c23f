"""The socket behind gunicorn's ``wsgi.input``: blocks as they arrive, while its ``read`` waits for full blocks.

So the bytes before a reset or a crash are kept. A body of known length is received directly into one buffer, or into a
pipe of the kernel, which saves two or three copies of every byte. A silent client does not occupy its thread for ever.
This relies on private names of gunicorn, so each of them is checked, and an unfamiliar stream is read like any other.
"""

from __future__ import annotations

import io
import logging
import select
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from types import GeneratorType
from typing import Any

from tus.filesystem.pipes import Pipe
from tus.models import Block
from tus.server.pace import Patience
from tus.server.piping import Piping

log = logging.getLogger(__name__)

GATHERED = 16 * 1024  # bytes; so many are written at once, unless they come too slowly
GATHERING = 0.25  # seconds that bytes wait for others
LOOK = 0.5  # seconds without a byte between two checks whether to continue waiting
Wanted = Callable[[], bool]

_interrupted = False


def interrupt_all() -> None:
    """End every body of this process as a cut, so that the bytes received are kept. For a server that stops."""
    global _interrupted
    _interrupted = True


def is_interrupted() -> bool:
    """Return whether the server stops, so that bodies must end."""
    return _interrupted


class GunicornInput:
    """A body behind gunicorn.

    Attributes:
        ended: whether the body was received to its end.
    """

    def __init__(self, body: Any, unreader: Any, chunked: bool) -> None:
        self._body = body
        self._reader = body.reader
        self._unreader = unreader
        self._chunked = chunked
        self._memory = memoryview(b"")
        self.ended = False

    @classmethod
    def of(cls, stream: Any, length: int | None) -> GunicornInput | None:
        """Return the input if the stream is gunicorn's and its known rest is as long as expected, otherwise None."""
        if type(stream).__module__ != "gunicorn.http.body" or not _is_empty(getattr(stream, "buf", None)):
            return None
        reader: Any = getattr(stream, "reader", None)
        if length is None:
            unreader = getattr(getattr(reader, "req", None), "unreader", None)
            known = isinstance(getattr(reader, "parser", None), GeneratorType) and _is_empty(reader.buf)
            known = known and hasattr(unreader, "chunk")
        else:
            unreader = getattr(reader, "unreader", None)
            known = getattr(reader, "length", None) == length and type(reader).__name__ == "LengthReader"
            known = known and isinstance(getattr(unreader, "buf", None), io.BytesIO) and hasattr(unreader, "unread")
        return cls(stream, unreader, length is None) if known and _can_wait(unreader) else None

    def blocks(
        self, is_wanted: Wanted, patience: Patience, can_pour: Callable[[], bool] = lambda: False
    ) -> Iterator[Block | Pipe]:
        """Yield the blocks; afterwards ``ended`` is whether the body is whole.

        Args:
            is_wanted: called while no byte arrives; False ends the body.
            patience: how long the client may be silent, or slow.
            can_pour: returns whether a block can be a pipe.
        """
        wait = _Wait(self._unreader.sock, is_wanted, patience)
        for block in self._receive_chunks(wait) if self._chunked else self._receive_length(wait, can_pour):
            wait.received += len(block)
            yield block
        if not self.ended:
            self.abandon()  # the start of the next request on this connection is not known

    def abandon(self) -> None:
        """Leave the rest unread, so that gunicorn ends the connection."""
        self._body.failed = True

    def _receive_chunks(self, wait: _Wait) -> Iterator[Block]:
        reader, unreader = self._reader, self._unreader
        receive = unreader.chunk
        unreader.chunk = lambda *hint, **hints: receive(*hint, **hints) if wait() else b""
        try:
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
        finally:
            unreader.chunk = receive

    def _receive_length(self, wait: _Wait, can_pour: Callable[[], bool]) -> Iterator[Block | Pipe]:
        reader, unreader = self._reader, self._unreader
        buffered, unreader.buf = unreader.buf.getvalue(), io.BytesIO()
        if len(buffered) > reader.length:
            unreader.unread(buffered[reader.length :])
            buffered = buffered[: reader.length]
        reader.length -= len(buffered)
        with closing(Piping(unreader.sock, can_pour)) as piping:
            if buffered:
                pipe = piping.receive(reader.length, buffered)
                reader.length -= 0 if pipe is None else len(pipe) - len(buffered)
                yield buffered if pipe is None else pipe
            while reader.length and len(block := self._receive(wait, piping)):
                reader.length -= len(block)
                yield block
        self.ended = not reader.length

    def _receive(self, wait: _Wait, piping: Piping) -> Block | Pipe:
        """Wait for the first byte, then receive the bytes that are there; return no byte if the connection ended.

        A client that sends a few bytes at a time would cost a write for each of them, so these are gathered.
        """
        receive, left, count = self._unreader.sock.recv_into, self._reader.length, 0
        try:
            if not wait():
                return b""
            pipe = piping.receive(left)
            if pipe is not None:
                return pipe
            if len(self._memory) < (size := min(piping.buffer_size, left)):
                self._memory = memoryview(bytearray(size))
            buffer = self._memory[:left]
            count = int(receive(buffer))
            if 0 < count < min(GATHERED, len(buffer)):
                end = time.monotonic() + GATHERING
                while count < min(GATHERED, len(buffer)) and wait.until(end) and (more := receive(buffer[count:])):
                    count += int(more)
        except Exception as error:
            log.debug("the body was cut with %d bytes to come: %r", left - count, error)
        return self._memory[:count]


class _Wait:
    """A wait for bytes on a socket; a call returns False if the body must end.

    Attributes:
        received: bytes received so far.
    """

    def __init__(self, socket: Any, is_wanted: Wanted, patience: Patience) -> None:
        self._poll = select.poll()
        self._poll.register(socket, select.POLLIN)
        self._is_wanted = is_wanted
        self._silence = patience.silence
        self._pace = patience.pace()
        self.received = 0

    def __call__(self) -> bool:
        silent = 0.0
        while not _interrupted and self._pace.keeps_up(self.received):
            if self._poll.poll(LOOK * 1000):
                return True
            silent += LOOK
            if silent >= self._silence > 0 or not self._is_wanted():
                log.debug("a body was abandoned after %.1f seconds without a byte", silent)
                break
        return False

    def until(self, end: float) -> bool:
        """Return whether bytes are there before a time."""
        return not _interrupted and bool(self._poll.poll(max(end - time.monotonic(), 0) * 1000))


def _can_wait(unreader: Any) -> bool:
    socket: Any = getattr(unreader, "sock", None)
    return (
        hasattr(socket, "recv_into")
        and not isinstance(socket, ssl.SSLSocket)  # poll() does not see the bytes that it has decrypted
        and socket.gettimeout() is None
    )


def _is_empty(buffer: Any) -> bool:
    return buffer is not None and buffer.tell() == 0
