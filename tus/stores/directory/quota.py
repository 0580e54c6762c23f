"""How many uploads there are that the application has not accepted yet, and how large they are; and limits on that.

The counts are in one small file, ``.tus-counts-<user>``, which every process changes under its lock. They are kept
beside the uploads, not with them, so a process that dies between the two leaves them wrong; the sweeper, which looks at
every upload anyway, corrects them. An upload counts with its length, or with what has come of it while that is not
known; a final upload counts with nothing, because its parts do.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tus.errors import QuotaExceeded, TooLarge, TooManyUploads, UploadLocked
from tus.filesystem.locks import lock, unlock
from tus.models import Upload
from tus.stores.interface import Limits as Limits

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Counts:
    """Numbers of uploads and of bytes, of all and by principal."""

    uploads: int = 0
    size: int = 0
    each: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, principal: str | None, uploads: int, size: int) -> None:
        """Count; negative numbers take away, down to zero."""
        self.uploads = max(self.uploads + uploads, 0)
        self.size = max(self.size + size, 0)
        if principal is not None:
            number, bytes_ = self.each.pop(principal, (0, 0))
            number, bytes_ = max(number + uploads, 0), max(bytes_ + size, 0)
            if number or bytes_:
                self.each[principal] = (number, bytes_)


def counted_size(upload: Upload) -> int:
    """Return the bytes with which an upload counts."""
    return 0 if upload.is_final else max(upload.length or 0, upload.offset)


class Quota:
    """The counts of a directory.

    Args:
        path: of the file.
        limits: the numbers that must not be exceeded.
        recount: gives every upload that counts, for when the file is missing or damaged.
    """

    def __init__(self, path: str, limits: Limits, recount: Callable[[], Iterable[Upload]]) -> None:
        self._path = path
        self._limits = limits
        self._recount = recount

    def add(self, principal: str | None, uploads: int, size: int, whole: int | None = None) -> None:
        """Count an upload that is about to be made.

        Args:
            principal: whose it is.
            uploads: how many.
            size: by how many bytes it counts more than until now.
            whole: the bytes of the whole upload, if that is more.

        Raises:
            TooLarge: it could never be made.
            TooManyUploads: there are as many as may be.
            QuotaExceeded: there are as many bytes as may be.
        """
        limits = self._limits
        most = min(
            (limit for limit in (limits.size, limits.size_each if principal is not None else 0) if limit), default=0
        )
        if most and (size if whole is None else whole) > most:
            raise TooLarge(f"Unfinished uploads may have at most {most} bytes together, and this one has more.")
        with self._counts() as counts:
            number, bytes_ = counts.each.get(principal, (0, 0)) if principal is not None else (0, 0)
            if uploads and (
                (limits.uploads and counts.uploads + uploads > limits.uploads)
                or (principal is not None and limits.uploads_each and number + uploads > limits.uploads_each)
            ):
                raise TooManyUploads()
            if (limits.size and counts.size + size > limits.size) or (
                principal is not None and limits.size_each and bytes_ + size > limits.size_each
            ):
                raise QuotaExceeded()
            counts.add(principal, uploads, size)

    def count(self, principal: str | None, uploads: int, size: int) -> None:
        """Count what has happened, whatever the limits say; what cannot be counted now is left to the sweeper."""
        try:
            with self._counts() as counts:
                counts.add(principal, uploads, size)
        except (OSError, UploadLocked) as error:
            log.warning("the counts of unfinished uploads are wrong until the next sweep: %s", error)

    def release(self, upload: Upload) -> None:
        """Count an upload no more."""
        self.count(upload.principal, -1, -counted_size(upload))

    @contextmanager
    def creating(self, draft: Upload) -> Iterator[None]:
        """Count an upload that is about to be made, unless it cannot be made after all.

        Raises:
            RequestError: it is more than is allowed, see :meth:`add`.
        """
        size = counted_size(draft)
        self.add(draft.principal, 1, size)
        try:
            yield
        except BaseException:
            self.count(draft.principal, -1, -size)
            raise

    @contextmanager
    def settling(self, upload: Upload, length: int | None) -> Iterator[None]:
        """Count the length of an upload that has deferred it, unless it cannot be settled after all.

        Raises:
            RequestError: it is more than is allowed, see :meth:`add`; or nothing more is, while there is no length.
        """
        size = 0 if length is None else max(length - counted_size(upload), 0)
        self.add(upload.principal, 0, size, length)
        try:
            yield
        except BaseException:
            self.count(upload.principal, 0, -size)
            raise

    def read(self) -> Counts:
        """Return the counts as they are now."""
        with self._counts() as counts:
            return counts

    def correct(self, before: Counts, found: Counts) -> None:
        """Put right what a sweep has found to be wrong.

        Args:
            before: what was counted when the sweep began.
            found: what it found, of the uploads that were there then.
        """
        with self._counts() as counts:  # what has changed meanwhile stands
            counts.uploads = max(counts.uploads + found.uploads - before.uploads, 0)
            counts.size = max(counts.size + found.size - before.size, 0)
            for principal in before.each.keys() | found.each.keys():
                number, bytes_ = found.each.get(principal, (0, 0))
                old_number, old_bytes = before.each.get(principal, (0, 0))
                now_number, now_bytes = counts.each.pop(principal, (0, 0))
                number, bytes_ = now_number + number - old_number, now_bytes + bytes_ - old_bytes
                if number > 0:
                    counts.each[principal] = (number, max(bytes_, 0))

    @contextmanager
    def _counts(self) -> Iterator[Counts]:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            lock(fd)
            try:
                data = os.pread(fd, os.fstat(fd).st_size, 0)
                counts = self._unpack(data)
                yield counts
                packed = _pack(counts)
                if packed != data:
                    # In one write, and padded, because a file that was cut short in between would be damaged.
                    os.pwrite(fd, packed.ljust(len(data)), 0)
            finally:
                unlock(fd)
        finally:
            os.close(fd)

    def _unpack(self, data: bytes) -> Counts:
        try:
            fields = json.loads(data)
            each = {str(key): (int(number), int(size)) for key, (number, size) in fields["each"].items()}
            return Counts(int(fields["uploads"]), int(fields["size"]), each)
        except (ValueError, KeyError, TypeError, AttributeError):
            counts = Counts()
            for upload in self._recount():
                counts.add(upload.principal, 1, counted_size(upload))
            return counts


def _pack(counts: Counts) -> bytes:
    return json.dumps({"uploads": counts.uploads, "size": counts.size, "each": counts.each}).encode() + b"\n"
