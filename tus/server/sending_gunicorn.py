"""The body of a download under gunicorn: sent as fast as the client reads, and ended if the client does not.

gunicorn writes to a socket without a deadline, so a client that does not read would occupy a thread for ever. Here the
thread waits until the socket takes a block, and gives gunicorn so small a block that its write does not wait.
"""

from __future__ import annotations

import fcntl
import logging
import select
import socket
import sys
import termios
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from tus.server import body_gunicorn
from tus.server.pace import Pace, Patience

log = logging.getLogger(__name__)

_LARGEST: Final = 256 << 10  # bytes; the blocks of a file have no more
_SMALLEST: Final = 1 << 10


class Sending:
    """A body that ends early if the client is silent, or too slow.

    Args:
        body: the blocks.
        connection: the socket that gunicorn writes to.
        patience: how long the client may read nothing, or little.
    """

    def __init__(self, body: Iterable[bytes], connection: socket.socket, patience: Patience) -> None:
        self._body = body
        self._socket = connection
        self._patience = patience
        self._poll = select.poll()
        self._poll.register(connection, select.POLLOUT)

    @classmethod
    def of(cls, body: Iterable[bytes], environ: Mapping[str, Any], patience: Patience) -> Sending | None:
        """Return the body for a request of gunicorn whose socket can be waited for, otherwise None."""
        connection = environ.get("gunicorn.socket")
        if type(connection) is not socket.socket or not str(environ.get("SERVER_PROTOCOL")).startswith("HTTP/1"):
            return None
        return cls(body, connection, patience) if connection.gettimeout() is None else None

    def __iter__(self) -> Iterator[bytes]:
        pace, sent = self._patience.pace(), 0
        for block in self._body:
            start = 0
            while start < len(block):
                if not self._can_send(pace, sent):
                    log.debug("a download was abandoned after %d bytes, because the client did not read", sent)
                    self._shut()
                    return
                piece = block[start : start + self._room()]
                start += len(piece)
                sent += len(piece)
                yield piece

    def _room(self) -> int:
        """Return the number of bytes that the socket takes without waiting once it is writable.

        Then at least a third of its buffer is free, as Linux counts, which adds what each packet needs.
        """
        return max(_SMALLEST, min(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 8, _LARGEST))

    def _can_send(self, pace: Pace, sent: int) -> bool:
        """Wait until the socket takes a block; return False if the response must end.

        A socket is writable only after a third of its buffer is free, which may be a megabyte. So the bytes that wait
        in it show whether the client reads.
        """
        if self._poll.poll(0):
            return True
        silent, queued = 0.0, self._queued()
        while not body_gunicorn.is_interrupted():
            if self._poll.poll(body_gunicorn.LOOK * 1000):
                return True
            before, queued = queued, self._queued()
            silent = 0.0 if queued < before else silent + body_gunicorn.LOOK
            if silent >= self._patience.silence > 0 or not pace.keeps_up(sent - queued):
                break
        return False

    def _queued(self) -> int:
        """Return the number of bytes that the client has not acknowledged; 0 if the system does not tell."""
        try:
            return int.from_bytes(fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        except OSError:
            return 0

    def _shut(self) -> None:
        """Shut the connection, so that gunicorn does not take it for one that is kept alive."""
        with suppress(OSError):  # the client has closed it
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the body."""
        close = getattr(self._body, "close", None)
        if close is not None:
            close()
