"""Bytes of a lent socket that go to the store through a pipe of the kernel, because no code needs to see them.

Law of this room: bytes in the pipe are received bytes. The sink counts or refuses them as it would a block in memory.
"""

from __future__ import annotations

import fcntl
import logging
import struct
import termios
from collections.abc import Callable
from typing import Any, Final

from tus.filesystem.pipes import Pipe

log = logging.getLogger(__name__)

LEAST: Final = 64 * 1024  # bytes that must have arrived; fewer are gathered in memory
LARGEST: Final = 1024 * 1024  # bytes; the largest block


class Piping:
    """The pipe of one body. It is made when it is first of use.

    Args:
        socket: the socket that the server has lent.
        can_pour: returns whether the sink takes the bytes out of a pipe.
    """

    def __init__(self, socket: Any, can_pour: Callable[[], bool]) -> None:
        self._socket = socket
        self._pipe: Pipe | None = None
        self._is_of_use = can_pour()

    @property
    def buffer_size(self) -> int:
        """The number of bytes of memory that is useful beside the pipe."""
        return LEAST if self._is_of_use else LARGEST

    def receive(self, left: int, head: bytes = b"") -> Pipe | None:
        """Return a pipe with the bytes that have arrived; None if they are few, or must be received into memory.

        Args:
            left: the bytes of the body to come.
            head: bytes before those, which are in memory already; one write takes both.
        """
        if not self._is_of_use or left < LEAST:
            return None
        try:
            if waiting(self._socket) < LEAST:
                return None
            if self._pipe is None:
                self._pipe = Pipe.open()
            pipe = self._pipe
            if pipe is not None and pipe.is_spliced and pipe.fill(self._socket.fileno(), left):
                pipe.prepend(head)
                return pipe
        except (OSError, ValueError) as error:  # a closed socket has no descriptor; a read shows that, too
            log.debug("bytes could not be received into a pipe: %r", error)
        self.close()
        return None

    def close(self) -> None:
        """Close the pipe, and receive into memory from now on."""
        self._is_of_use = False
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.close()


def waiting(socket: Any) -> int:
    """Return the number of bytes that can be received at once."""
    count: int = struct.unpack("i", fcntl.ioctl(socket, termios.FIONREAD, bytes(4)))[0]
    return count
