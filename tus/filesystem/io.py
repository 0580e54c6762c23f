"""Writing to an open file at an offset, as far as there is room."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from tus.errors import StorageFull
from tus.stores.interface import Block

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_LONGEST_VECTOR = 1024  # blocks, what POSIX systems take in one call


def write_at(fd: int, offset: int, *blocks: Block) -> int:
    """Write blocks to an offset, as much as there is room for; returns how many bytes that were."""
    size = sum(map(len, blocks))
    written = 0
    try:
        written = os.pwrite(fd, blocks[0], offset) if len(blocks) == 1 else _write_vector(fd, blocks, offset)
        while written < size:
            written += os.pwrite(fd, memoryview(b"".join(blocks))[written:], offset + written)
    except OSError as error:
        if error.errno not in _FULL:
            raise
    return written


def _write_vector(fd: int, blocks: Sequence[Block], offset: int) -> int:
    """Blocks in one system call, without copying them into one, where that is possible."""
    if len(blocks) > _LONGEST_VECTOR or not hasattr(os, "pwritev"):
        return os.pwrite(fd, b"".join(blocks), offset)
    return os.pwritev(fd, blocks, offset)


def translated(error: BaseException) -> BaseException:
    """The error in this package's terms, where it has one for it."""
    return StorageFull() if isinstance(error, OSError) and error.errno in _FULL else error
