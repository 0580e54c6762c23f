"""Bytes on their way from a socket to a file that stay in the kernel, in a pipe (splice(2), Linux).

Copying them through the memory of a process would cost one more copy, and a buffer for each body.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Any, Final, Self, final

from tus.filesystem.descriptors import close
from tus.filesystem.io import is_full, write_at

SIZE: Final = 1 << 20  # bytes; the most that a pipe can hold without privileges

_splice: Any = getattr(os, "splice", None)
_CANNOT = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})


@final
class Pipe:
    """A pipe that is filled from a socket, and then emptied. Its length is the number of bytes in it.

    Attributes:
        is_spliced: whether bytes go out of it without copies.
    """

    def __init__(self) -> None:
        self._out, self._in = os.pipe()
        self._head = b""
        self._count = 0  # of the bytes in the pipe itself
        self.is_spliced = True

    @classmethod
    def open(cls) -> Self | None:
        """Return a pipe of :data:`SIZE`; None if the system has none, or gives no more to this user."""
        if _splice is None:
            return None
        try:
            pipe = cls()
        except OSError:
            return None
        try:
            fcntl.fcntl(pipe._in, fcntl.F_SETPIPE_SZ, SIZE)
        except OSError:
            pipe.close()
            return None
        return pipe

    def __len__(self) -> int:
        return len(self._head) + self._count

    def fill(self, fd: int, most: int) -> int:
        """Take what has arrived at a socket, into the empty pipe, and return the number of bytes; 0 at the end.

        Raises:
            OSError: the connection has failed, no byte has arrived, or the system cannot splice. Nothing was taken.
        """
        assert not len(self), "the bytes in it were not taken"
        self._count = _splice(fd, self._in, min(most, SIZE), flags=os.SPLICE_F_NONBLOCK)
        return self._count

    def prepend(self, head: bytes) -> None:
        """Let bytes that are in memory go before those in the pipe."""
        self._head = head + self._head

    def pour(self, fd: int, offset: int, size: int) -> int:
        """Move ``size`` bytes to an offset of a file, until the disk is full; return the number of bytes moved.

        If the file system cannot splice, they are copied.
        """
        head, self._head = self._head, b""
        done = write_at(fd, offset, head[:size]) if head else 0
        if done < len(head):
            return done
        try:
            while self.is_spliced and self._count and done < size:  # an empty pipe would be waited for
                count = _splice(self._out, fd, size - done, offset_dst=offset + done)
                if not count:
                    break
                done += count
                self._count -= count
        except OSError as error:
            if is_full(error):
                return done
            if error.errno not in _CANNOT:
                raise
            self.is_spliced = False
        if not self.is_spliced:
            done += write_at(fd, offset + done, bytes(self)[: size - done])
        return done

    def __bytes__(self) -> bytes:
        """Take all bytes into memory."""
        head, self._head = self._head, b""
        block = os.read(self._out, self._count) if self._count else b""
        self._count -= len(block)
        return head + block

    def close(self) -> None:
        """Close the pipe. Bytes in it are lost."""
        close(self._out)
        close(self._in)
