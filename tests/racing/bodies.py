"""Bytes that say which upload and which request they belong to, and where; and the account of a file made of them."""

from __future__ import annotations

import itertools
import struct
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

#: Tag of the upload, number of the request, offset of the block, the tag once more. The last bytes do not depend on the
#: request, because a tus client sends the last byte of a file again.
BLOCK = struct.Struct(">8sQQ8s")


@dataclass(eq=False, slots=True)
class Sent:
    """The body of one request.

    Attributes:
        tag: of the upload, 8 bytes.
        number: of the request.
        start: the offset that the request names.
        size: bytes of the body.
        may_count: whether any byte of it may be counted; not under a checksum that cannot match.
        counted: the end of its bytes that the client was told are counted.
        about: the request and its reply, for people.
    """

    tag: bytes
    number: int
    start: int
    size: int
    may_count: bool = True
    counted: int = 0
    about: str = ""

    @property
    def end(self) -> int:
        return self.start + self.size

    def data(self, end: int | None = None) -> bytes:
        """Its bytes, up to an offset of the upload."""
        end = self.end if end is None else min(end, self.end)
        first, last = self.start // BLOCK.size, -(-end // BLOCK.size)
        blocks = [BLOCK.pack(self.tag, self.number, BLOCK.size * index, self.tag) for index in range(first, last)]
        skipped = self.start - first * BLOCK.size
        return b"".join(blocks)[skipped : skipped + end - self.start]

    def matching(self, data: bytes) -> int:
        """The offset up to which a file has its bytes."""
        theirs = data[self.start : self.end]
        ours = self.data(self.start + len(theirs))
        if ours == theirs:
            return self.start + len(ours)
        return self.start + next(
            index for index, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other
        )


def find_fault(data: bytes, requests: Sequence[Sent]) -> str | None:
    """Return why a file cannot be what these requests have sent one after the other; None if it can.

    Each request that counts begins where the one before ends. And each byte that was told as counted is there.
    """
    starts: dict[int, list[Sent]] = defaultdict(list)
    for sent in requests:
        starts[sent.start].append(sent)
        counted = min(sent.counted, len(data))
        if sent.counted > len(data):
            return f"{sent.counted} bytes were told as counted, and {len(data)} are there"
        if counted > sent.start and sent.matching(data[:counted]) < counted:
            return f"the bytes of request {sent.number} at {sent.start} were told as counted, and are not there"
    seams = sorted({*starts, len(data)})
    reached, open_ends, farthest = {0}, [0], 0
    while open_ends:
        position = open_ends.pop()
        for sent in starts.get(position, ()):
            end = sent.matching(data) if sent.may_count else position
            farthest = max(farthest, end)
            new = {seam for seam in seams if position < seam <= end} - reached
            reached |= new
            open_ends.extend(new)
    if len(data) in reached:
        return None
    near = "\n  ".join(f"{sent.may_count} {sent.about}" for sent in requests if sent.start <= farthest <= sent.end)
    return f"no row of requests has sent the bytes from {farthest} of {len(data)} on; near it are\n  {near}"


_numbers = itertools.count(1)


def next_number() -> int:
    return next(_numbers)
