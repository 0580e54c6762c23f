"""The number and size of the uploads that the application has not accepted, and the limits on them.

The counts are in one small file, ``.tus-counts``, which every process changes under its lock. They are separate
from the uploads, so a process that crashes between the two writes leaves them wrong. The sweeper reads every upload
anyway, and corrects them. An upload counts with its length, or with its received bytes while the length is deferred. A
final upload counts with no bytes, because its parts count.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tus.errors import QuotaExceeded, RequestError, StorageFull, TooLarge, TooManyUploads
from tus.filesystem.descriptors import close
from tus.filesystem.io import write_at
from tus.filesystem.locks import lock, unlock
from tus.filesystem.ownership import Ownership
from tus.models import Upload
from tus.stores.interface import Limits as Limits

log = logging.getLogger(__name__)

NAME = ".tus-counts"


@dataclass(slots=True)
class Counts:
    """The numbers of uploads and of bytes, in total and by principal."""

    uploads: int = 0
    size: int = 0
    each: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, principal: str | None, uploads: int, size: int) -> None:
        """Add to the counts; negative numbers subtract, down to zero."""
        self.uploads = max(self.uploads + uploads, 0)
        self.size = max(self.size + size, 0)
        if principal is not None:
            number, bytes_ = self.each.pop(principal, (0, 0))
            number, bytes_ = max(number + uploads, 0), max(bytes_ + size, 0)
            if number or bytes_:
                self.each[principal] = (number, bytes_)


def counted_size(upload: Upload) -> int:
    """Return the number of bytes with which an upload counts."""
    return 0 if upload.is_final else max(upload.length or 0, upload.offset)


class Quota:
    """The counts of a directory.

    Args:
        path: the path of the file.
        limits: the numbers that must not be exceeded.
        recount: returns every upload that counts; called if the file is missing or damaged.
        ownership: whose files are believed.
    """

    def __init__(
        self, path: str, limits: Limits, recount: Callable[[], Iterable[Upload]], ownership: Ownership
    ) -> None:
        self._ownership = ownership
        self._path = path
        self._limits = limits
        self._recount = recount

    def add(self, principal: str | None, uploads: int, size: int, whole: int | None = None) -> None:
        """Count an upload before it is created or its length is set.

        Args:
            principal: the owner of the upload.
            uploads: the number of new uploads.
            size: the number of bytes to add to the counts.
            whole: the size of the whole upload, if it differs from ``size``.

        Raises:
            TooLarge: the upload alone exceeds a limit.
            TooManyUploads: the limit of uploads is reached.
            QuotaExceeded: the limit of bytes is reached.
            StorageFull: there is no room for the counts.
        """
        limits = self._limits
        most = min(
            (limit for limit in (limits.size, limits.size_each if principal is not None else 0) if limit), default=0
        )
        if most and (size if whole is None else whole) > most:
            raise TooLarge(f"This upload is larger than the limit of {most} bytes for all unfinished uploads together.")
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
        """Count a change that has happened, without limits; if that fails, the sweeper corrects the counts."""
        try:
            with self._counts() as counts:
                counts.add(principal, uploads, size)
        except (OSError, RequestError) as error:
            log.warning("the counts of unfinished uploads are wrong until the next sweep: %s", error)

    def release(self, upload: Upload) -> None:
        """Remove an upload from the counts."""
        self.count(upload.principal, -1, -counted_size(upload))

    @contextmanager
    def count_creation(self, draft: Upload) -> Iterator[None]:
        """Count an upload that the ``with`` block creates, unless it fails.

        Raises:
            RequestError: a limit is reached, see :meth:`add`.
        """
        size = counted_size(draft)
        self.add(draft.principal, 1, size)
        try:
            yield
        except BaseException:
            self.count(draft.principal, -1, -size)
            raise

    @contextmanager
    def count_length(self, upload: Upload, length: int | None) -> Iterator[None]:
        """Count a deferred length that the ``with`` block sets, unless it fails.

        Raises:
            RequestError: a limit is reached, see :meth:`add`; without a length, too, if no more bytes are allowed.
        """
        size = 0 if length is None else max(length - counted_size(upload), 0)
        self.add(upload.principal, 0, size, length)
        try:
            yield
        except BaseException:
            self.count(upload.principal, 0, -size)
            raise

    def read(self) -> Counts:
        """Return the current counts."""
        with self._counts() as counts:
            return counts

    def correct(self, before: Counts, found: Counts) -> None:
        """Correct the counts after a sweep.

        Args:
            before: the counts when the sweep began.
            found: the numbers that the sweep found, of uploads created before it began.
        """
        with self._counts() as counts:  # changes since the sweep began must stay counted
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
        fd = self._ownership.open_or_create(self._path)
        try:
            lock(fd)
            try:
                data = os.pread(fd, os.fstat(fd).st_size, 0)
                counts = self._unpack(data)
                yield counts
                packed = _pack(counts)
                if packed != data:
                    # In one write, and padded, because a file that was cut short in between would be damaged.
                    packed = packed.ljust(len(data))
                    if write_at(fd, 0, packed) < len(packed):
                        raise StorageFull()
            finally:
                unlock(fd)
        finally:
            close(fd)

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
