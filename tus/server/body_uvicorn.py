"""The socket behind uvicorn's ``receive``: threads read the body from it, and the loop only waits for bytes.

So no byte is copied into messages, and a client that is silent or slow occupies no thread. This relies on private names
of uvicorn with httptools, so each of them is checked, and a connection that is unfamiliar, or encrypted, is read by
``receive``.

While the socket is lent, the transport reads nothing, and its flow control counts as not paused: else an application
around this package that calls ``receive`` would resume the transport, which would then take bytes of the body.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import anyio

from tus.server.body_async import LINGER, Batch
from tus.server.body_gunicorn import GATHERED
from tus.server.piping import LARGEST, Piping, waiting

log = logging.getLogger(__name__)

PAUSE = 0.005  # seconds without a byte, after which a thread leaves the waiting to the loop
TURN = 0.25  # seconds after which a thread takes a turn for another upload
ROOM = 256 * 1024  # bytes that the kernel is to hold at least, where they are copied

_MODULE = "uvicorn.protocols.http.httptools_impl"
_has_warned = False


class UvicornBody:
    """A :class:`~tus.server.body_async.LentSource` of known length: the socket of the connection."""

    def __init__(self, cycle: Any, protocol: Any, length: int) -> None:
        self._cycle = cycle
        self._transport = protocol.transport
        self._begun = bytes(cycle.body)
        self.can_pour: Callable[[], bool] = lambda: False
        self.received = len(self._begun)
        self.cut = False
        self._left = length - self.received
        self._is_gone = False
        self._piping: Piping | None = None
        self._socket = socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno()))
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        cycle.body = type(cycle.body)()
        flow = protocol.flow
        if flow.read_paused:
            flow.read_paused = False
        else:
            self._transport.pause_reading()
        # The old parser waits for the body. The next bytes that it gets are those of the next request.
        protocol.parser = type(protocol.parser)(protocol)
        if hasattr(protocol.parser, "set_dangerous_leniencies"):
            protocol.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does it
        if cycle.waiting_for_100_continue:
            cycle.waiting_for_100_continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    @classmethod
    def of(cls, receive: Any, length: int | None) -> UvicornBody | None:
        """Return the body if ``receive`` is uvicorn's, and the socket can be read by threads; otherwise None."""
        cycle: Any = getattr(receive, "__self__", None)
        if length is None or type(cycle).__module__ != _MODULE:
            return None
        protocol: Any = getattr(getattr(cycle, "on_response", None), "__self__", None)
        if not _is_familiar(cycle, protocol):
            _warn()
            return None
        is_plain = protocol.transport.get_extra_info("sslcontext") is None
        is_usable = is_plain and not cycle.disconnected and not protocol.transport.is_closing()
        is_rest_long = cycle.more_body and length - len(cycle.body) > len(cycle.body)
        return cls(cycle, protocol, length) if is_usable and is_rest_long else None

    @property
    def is_over(self) -> bool:
        """Whether all bytes were taken."""
        return not self._left or self.cut

    async def take(self, seconds: float) -> list[Iterator[Batch]]:
        if not self._begun:
            with anyio.move_on_after(seconds) as scope:
                await anyio.wait_readable(self._socket)
            if scope.cancelled_caught:
                return []
            if 0 < waiting(self._socket) < min(GATHERED, self._left):
                await anyio.sleep(LINGER)
        return [self._read()]

    def take_now(self) -> list[Iterator[Batch]]:
        return [] if self.is_over else [self._read()]

    def give_up(self) -> None:
        if self._left and not self.cut:
            log.debug("the body was abandoned after %d bytes", self.received)
            self.cut = True

    def _read(self) -> Iterator[Batch]:
        """Yield the bytes, until the client pauses. Each block is valid until the next one is requested."""
        buffer = memoryview(b"")  # of this turn, and so is the pipe: a client that pauses occupies none
        self._piping = piping = Piping(self._socket, self.can_pour)
        end = time.monotonic() + TURN
        if self._begun:
            begun, self._begun = self._begun, b""
            pipe = piping.receive(self._left, begun)
            self._count(0 if pipe is None else len(pipe) - len(begun))
            yield (begun,) if pipe is None else pipe
        while not self.is_over and self._poll.poll(PAUSE * 1000):
            pipe = piping.receive(self._left)
            if pipe is not None:
                self._count(len(pipe))
                yield pipe
            else:
                if len(buffer) < (size := min(piping.buffer_size, self._left)):
                    buffer = memoryview(bytearray(size))
                    _make_room(self._socket, min(size, ROOM))
                count = self._fill(buffer[: self._left])
                if not count:
                    break
                self._count(count)
                yield (buffer[:count],)
            if time.monotonic() >= end:
                break
        piping.close()

    def _count(self, size: int) -> None:
        self._left -= size
        self.received += size

    def _fill(self, buffer: memoryview) -> int:
        """Receive what is there, and return its number of bytes; 0 if the client pauses, or has disconnected."""
        count = 0
        try:
            while count < min(GATHERED, len(buffer)):
                try:
                    more = self._socket.recv_into(buffer[count:])
                except BlockingIOError:
                    if self._poll.poll(PAUSE * 1000):
                        continue
                    break
                if not more:
                    self.cut = self._is_gone = True
                    break
                count += more
        except OSError as error:
            log.debug("the body was cut after %d bytes: %r", self.received + count, error)
            self.cut = self._is_gone = True
        return count

    async def receive(self) -> bytes | None:
        """Return some of the bytes that were not taken; None after the last."""
        if not self.is_left:
            return None
        await anyio.wait_readable(self._socket)
        try:
            block = self._socket.recv(min(LARGEST, self._left))
            self._is_gone = not block
        except BlockingIOError:
            return b""
        except OSError:
            self._is_gone = True
            return None
        self._count(len(block))
        return block

    @property
    def is_left(self) -> bool:
        """Whether the client may send further bytes of the body."""
        return self._left > 0 and not self._is_gone

    def release(self) -> None:
        """Give the socket back to uvicorn."""
        if self._piping is not None:
            self._piping.close()  # of a turn that was broken off
        self._socket.close()
        self._cycle.more_body = False
        if not self._transport.is_closing():
            self._transport.resume_reading()


def _make_room(connection: socket.socket, size: int) -> None:
    """Let the kernel hold so many bytes of a socket, or more if the client is fast.

    The kernel's buffer is small at first, and fills up while the loop calls a thread. On some connections it then never
    grows, and the blocks have less than 100 KiB: their locks and records cost a tenth of receiving and hashing them.
    This option makes it grow. Bytes would then also be waited for, so the option is taken back.
    """
    with suppress(OSError):  # a failed connection; a read shows that, too
        for limit in (size, 1):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, limit)


def _is_familiar(cycle: Any, protocol: Any) -> bool:
    """Return whether uvicorn has every name that this module uses."""
    names = ("body", "more_body", "disconnected", "waiting_for_100_continue")
    if not all(hasattr(cycle, name) for name in names) or not isinstance(cycle.body, bytes | bytearray):
        return False
    is_protocol = any(base.__module__ == _MODULE for base in type(protocol).__mro__)  # that of a server may derive
    if not is_protocol or getattr(protocol, "cycle", None) is not cycle:
        return False
    transport, flow, parser = protocol.transport, protocol.flow, protocol.parser
    is_transport = all(hasattr(transport, name) for name in ("pause_reading", "resume_reading", "get_extra_info"))
    return is_transport and hasattr(flow, "read_paused") and type(parser).__name__ == "HttpRequestParser"


def _warn() -> None:
    global _has_warned
    if not _has_warned:
        _has_warned = True
        log.warning("this version of uvicorn is not known, so bodies are read by its own, slower way")
