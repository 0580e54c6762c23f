"""The counts of each principal, in one file of slots of equal width that are changed in place.

Finding a principal, adding one and changing its counts read a page or a few, and write a slot, however many principals
there are. The file has regions, each with twice the pages of the one before. A principal has its slot in the page of
the first region to which its digest leads, or, if others have filled that page, in the next region. Slots are freed by
building a new file, which the sweep does. The lock of ``.tus-counts`` protects the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from tus.errors import StorageFull
from tus.filesystem.descriptors import close
from tus.filesystem.io import unlink, write_at
from tus.filesystem.ownership import Ownership

NAME: Final = ".tus-counts-each"
_PAGE: Final = 4096
_SLOT: Final = struct.Struct("<16sQQ")  # the digest of a principal, its uploads and its bytes
_SLOTS: Final = _PAGE // _SLOT.size
_FILLED: Final = _SLOTS // 2  # of the slots of a page, on average, in a new file
_HEAD: Final = struct.Struct("<4sI")  # in a page of its own: the number of pages of the first region
_MAGIC: Final = b"tuse"
_MOST: Final = 2**64 - 1
_MOST_PAGES: Final = 1 << 20

Pair = tuple[int, int]


class Principals:
    """An open file.

    Args:
        fd: the file, which is not closed here.

    Raises:
        ValueError: it is damaged.
    """

    def __init__(self, fd: int) -> None:
        head = os.pread(fd, _HEAD.size, 0)
        magic, self._pages = _HEAD.unpack(head) if len(head) == _HEAD.size else (b"", 0)
        if magic != _MAGIC or not 0 < self._pages <= _MOST_PAGES:
            raise ValueError("the counts of the principals are damaged")
        self._fd = fd

    def get(self, principal: str) -> Pair:
        """Return the numbers of uploads and of bytes of a principal."""
        return self._find(_digest_of(principal))[1]

    def set(self, principal: str, pair: Pair) -> None:
        """Write the numbers of a principal.

        Raises:
            StorageFull: there is no room for them.
        """
        digest = _digest_of(principal)
        position, found = self._find(digest)
        if pair == found:
            return
        packed = _SLOT.pack(digest, *(min(number, _MOST) for number in pair))
        if write_at(self._fd, position, packed) < len(packed):
            raise StorageFull()

    def _find(self, digest: bytes) -> tuple[int, Pair]:
        """Return the position of the slot of a principal, or of the one that it gets, and its numbers."""
        number = int.from_bytes(digest[:8], "little")
        start, width = 1, self._pages
        while True:
            position = (start + number % width) * _PAGE
            page = os.pread(self._fd, _PAGE, position)
            found = page.find(digest)
            while found % _SLOT.size and found > 0:  # numbers that look like a digest
                found = page.find(digest, found + 1)
            if found >= 0:
                _, uploads, size = _SLOT.unpack(page[found : found + _SLOT.size].ljust(_SLOT.size, b"\0"))
                return position + found, (uploads, size)
            used = -(-len(page.rstrip(b"\0")) // _SLOT.size)  # the slots of a page are used in turn
            if used < _SLOTS:
                return position + used * _SLOT.size, (0, 0)
            start, width = start + width, 2 * width


def _digest_of(principal: str) -> bytes:
    return hashlib.blake2b(principal.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@contextmanager
def open_principals(path: str, ownership: Ownership) -> Iterator[Principals]:
    """Open the file.

    Raises:
        FileNotFoundError: there is none that is ours.
        ValueError: it is damaged.
    """
    fd = ownership.open(path, os.O_RDWR)
    try:
        yield Principals(fd)
    finally:
        close(fd)


@contextmanager
def replacing(
    path: str,
    ownership: Ownership,
    each: Mapping[str, Pair],
    in_slices: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Iterator[tuple[Principals, Callable[[], None]]]:
    """Build a new file; yield it, and a function that puts it into its place.

    Args:
        path: the path of the file.
        ownership: whose files are believed.
        each: the numbers of each principal.
        in_slices: iterates over them, with rests.

    Raises:
        StorageFull: there is no room for it.
    """
    draft = f"{path}-{os.urandom(8).hex()}"
    fd = ownership.create(draft)
    try:
        head = _HEAD.pack(_MAGIC, min(len(each) // _FILLED + 1, _MOST_PAGES))
        if write_at(fd, 0, head) < len(head):
            raise StorageFull()
        principals = Principals(fd)
        for principal, pair in in_slices(each.items()):
            principals.set(principal, pair)
        yield principals, lambda: os.rename(draft, path)
    finally:
        close(fd)
        with contextlib.suppress(OSError):
            unlink(draft)
