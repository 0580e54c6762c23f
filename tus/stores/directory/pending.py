"""The index of the uploads that wait for the application, so that no process reads all uploads again and again.

Law of this room: an entry proves nothing, and only the record shows whether an upload waits. The next sweep reads every
upload anyway, and adds what is missing. So nothing here is forced to the disk, and requests never write it. The index
of another boot is void, and so is one that is old because nothing sweeps.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from typing import Final

from tus.errors import StorageFull
from tus.filesystem.boot import ID_SIZE
from tus.filesystem.descriptors import close
from tus.filesystem.io import unlink, write_at
from tus.filesystem.ownership import Ownership

NAME: Final = ".tus-pending"
_SIZE: Final = 16  # bytes of an entry, which is an upload's id
_LARGEST: Final = 64 << 20  # bytes
_OLDEST: Final = 3600.0  # seconds


def read_index(directory: str, ownership: Ownership, boot: bytes) -> list[str] | None:
    """Return the ids of uploads that may wait; None without a valid index."""
    try:
        fd = ownership.open(os.path.join(directory, NAME), os.O_RDONLY)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        data = os.pread(fd, min(status.st_size, _LARGEST), 0)
    finally:
        close(fd)
    if data[:ID_SIZE] != boot or abs(time.time() - status.st_mtime) > _OLDEST:
        return None
    return [data[start : start + _SIZE].hex() for start in range(ID_SIZE, len(data) - _SIZE + 1, _SIZE)]


def write_index(directory: str, ownership: Ownership, boot: bytes, ids: Iterable[str]) -> None:
    """Replace the index after every upload was looked at.

    Raises:
        StorageFull: there is no room.
        OSError: it cannot be written.
    """
    path = os.path.join(directory, NAME)
    draft = f"{path}-{os.urandom(8).hex()}"
    data = boot + b"".join(map(bytes.fromhex, ids))
    fd = ownership.create(draft)
    try:
        if write_at(fd, 0, data) < len(data):
            raise StorageFull()
        os.rename(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            unlink(draft)
        raise
    finally:
        close(fd)
