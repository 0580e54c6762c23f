"""uvicorn's side of a connection, with bounds on what a client can hold by sending or reading nothing.

uvicorn itself waits for a head without end, takes heads of any size and connections of any number, and keeps a response
until its client reads it. A :class:`Door` counts the connections of one worker and looks at them once a second, so that
a request needs no timer of its own. This relies on private names of uvicorn with httptools, so they are looked for at
the start. Without one of them uvicorn serves alone, and the log says so.
"""

from __future__ import annotations

import fcntl
import logging
import sys
import termios
import time
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import chain
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tus.server.waiting import BAD, HEAD_TIMEOUT, LARGEST_HEAD, LINGER, OVERLOADED, SEND_TIMEOUT, TIMED_OUT, TOO_LARGE

log = logging.getLogger(__name__)

MOST_PIPELINED: Final = 16  # requests on one connection that wait for an earlier one
STOPPING: Final = 1.0  # seconds in which a client must read something of a response once the server stops

#: The field by which a client shows the protocol of the IETF, so that it may get an interim response.
_INFORMED: Final = b"upload-complete"

#: The names that are overridden or called here. The attributes are set by ``__init__``.
METHODS: Final = (
    *("connection_made", "connection_lost", "data_received", "send_400_response"),
    *("on_message_begin", "on_header", "on_headers_complete", "on_response_complete"),
)
ATTRIBUTES: Final = ("transport", "cycle", "pipeline", "loop", "flow", "parser")


class Door:
    """The connections of one worker.

    Args:
        most: the number of connections.
        most_fields: the number of fields in a head.
        largest_field: the bytes in one of them.
        clock: returns seconds that only pass.
    """

    def __init__(
        self, most: int, most_fields: int, largest_field: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.most_fields = most_fields
        self.largest_field = largest_field
        self._most = most
        self._clock = clock
        self._all: set[Connection] = set()
        self._waiting: dict[Connection, float] = {}  # without a request in progress, since when; the longest first
        self._send_timeout: float = SEND_TIMEOUT

    def admit(self, connection: Connection) -> bool:
        """Let a new connection in, in the place of the one that has waited longest if there are too many.

        Returns:
            False if all of them have requests in progress.
        """
        if len(self._all) >= self._most:
            longest = next((one for one in self._waiting if not one.is_sending), None)
            if longest is None:
                return False
            log.debug("a connection without a request was closed for another one")
            self.dismiss(longest)
            longest.end()
        self._all.add(connection)
        self.wait_for(connection)
        return True

    def dismiss(self, connection: Connection) -> None:
        """Forget a connection."""
        self._all.discard(connection)
        self._waiting.pop(connection, None)

    def wait_for(self, connection: Connection) -> None:
        """Note that a connection has no request in progress from now on."""
        if connection in self._all:
            self._waiting[connection] = self._clock()

    def begin(self, connection: Connection) -> None:
        """Note that a connection has a request in progress."""
        self._waiting.pop(connection, None)

    def hurry(self) -> None:
        """Wait no more for clients that do not read, because the server stops."""
        self._send_timeout = STOPPING

    def look(self) -> None:
        """End the connections whose clients have sent no whole head, or have read nothing, for too long."""
        now = self._clock()
        for connection, since in list(self._waiting.items()):
            if now - since < HEAD_TIMEOUT:
                break
            del self._waiting[connection]
            if connection.is_sending:
                self._waiting[connection] = now
            else:
                connection.time_out()
        for connection in list(self._all):
            if connection.is_stuck(now, self._send_timeout):
                log.debug("a connection was closed, because its client does not read")
                connection.end()


class Connection(HttpToolsProtocol):
    """The protocol that uvicorn makes for each connection.

    Args:
        door: lets it in.
        **arguments: those of uvicorn.
    """

    def __init__(self, door: Door, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._door = door
        self._heads = 0  # that have begun
        self._in_head = False
        self._head_size = 0  # bytes of the unfinished head
        self._refusal = BAD
        self._is_refused = False
        self._running: Any = None  # the request in progress; uvicorn knows only the last one
        self._output: tuple[int, int] | None = None
        self._output_since = 0.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if not self._door.admit(self):
            transport.write(OVERLOADED)
            self._is_refused = True
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.dismiss(self)
        super().connection_lost(exc)
        self._disconnect()

    def end(self) -> None:
        """End the connection at once, whatever was not sent."""
        self._disconnect()
        self.transport.abort()

    def _disconnect(self) -> None:
        """Let the request in progress know that there is no client; uvicorn tells only the last of several."""
        cycle = self._running
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()

    # -- The head --

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        heads = self._heads - self._in_head
        if not self._in_head and self.cycle is not None and not self.cycle.response_complete:
            heads += 1  # this block begins with the rest of a body
        super().data_received(data)
        if self._in_head and not self._is_refused:
            self._head_size += len(data) if self._heads - heads == 1 else 0
            if self._head_size > LARGEST_HEAD:
                self._refuse(TOO_LARGE)

    def on_message_begin(self) -> None:
        self._in_head, self._head_size, self._heads = True, 0, self._heads + 1
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= self._door.most_fields or len(name) + len(value) > self._door.largest_field:
            self._refusal = TOO_LARGE
            raise ValueError("the head is too large")  # the parser ends, and uvicorn calls send_400_response()
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        if len(self.url) + sum(map(len, chain.from_iterable(self.headers))) > LARGEST_HEAD:
            self._refusal = TOO_LARGE
            raise ValueError("the head is too large")
        if len(self.pipeline) >= MOST_PIPELINED:
            raise ValueError("too many requests wait")
        super().on_headers_complete()
        if any(name == _INFORMED for name, _ in self.headers):
            self.cycle.scope["extensions"] = {"http.response.informational": {}}
            # Its task looks for the method when it begins.
            self.cycle.send = partial(_send, self.cycle, self.cycle.send)  # type: ignore[method-assign]
        self._door.begin(self)
        if not self.pipeline:
            self._running = self.cycle

    def send_400_response(self, msg: str) -> None:
        """Respond to a head or a body that is none, also where uvicorn finds it."""
        if self.cycle is None or self.cycle.response_complete:
            self._refuse(self._refusal)
            return
        self._is_refused = True
        if self.pipeline or self._running.response_started:
            self.end()  # the client would take it for an earlier one
        elif not self.transport.is_closing():
            self._disconnect()
            self.transport.write(self._refusal)
            self.transport.close()

    def time_out(self) -> None:
        """End the connection, whose client has sent no whole head."""
        if self._in_head and not self._is_refused:
            self._refuse(TIMED_OUT)
        else:
            self.end()

    def _refuse(self, response: bytes) -> None:
        """Respond, and close the connection once the client has: an earlier end could cost it the response."""
        self._is_refused = True
        if self.transport.is_closing():
            return
        self.transport.write(response)
        self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.abort)

    # -- The response --

    def on_response_complete(self) -> None:
        self._running = self.pipeline[-1][0] if self.pipeline else self.cycle
        super().on_response_complete()
        if self.cycle.response_complete:
            self._door.wait_for(self)

    @property
    def is_sending(self) -> bool:
        """Whether there is something to send that the system has not taken yet."""
        return bool(self.transport.get_write_buffer_size())

    def is_stuck(self, now: float, timeout: float) -> bool:
        """Return whether there is something to send of which the client has read nothing for so many seconds.

        A socket is writable only after a third of its buffer is free, which may be a megabyte. So the bytes that the
        client has not acknowledged show whether it reads.
        """
        pending = self.transport.get_write_buffer_size()
        output = (pending, self._unacknowledged()) if pending else None
        if output is None or output != self._output:
            self._output, self._output_since = output, now
            return False
        return now - self._output_since >= timeout

    def _unacknowledged(self) -> int:
        """Return the number of bytes in the socket's own buffer; 0 if the system does not tell."""
        try:
            descriptor = self.transport.get_extra_info("socket").fileno()
            return int.from_bytes(fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        except (OSError, ValueError):
            return 0


async def _send(cycle: Any, send: Callable[[Any], Awaitable[None]], message: Any) -> None:
    """Send a message, or an interim response, which uvicorn does not know."""
    if message["type"] != "http.response.informational":
        await send(message)
    elif not cycle.response_started and not cycle.disconnected and cycle.scope["http_version"] == "1.1":
        fields = b"".join(b"%b: %b\r\n" % field for field in message["headers"])
        cycle.transport.write(b"HTTP/1.1 %d \r\n%b\r\n" % (message["status"], fields))


def is_familiar(protocol: Any) -> bool:
    """Return whether uvicorn has every name that this module uses.

    Args:
        protocol: of a connection that was not made yet.
    """
    return all(callable(getattr(protocol, name, None)) for name in METHODS) and all(
        hasattr(protocol, name) for name in ATTRIBUTES
    )
