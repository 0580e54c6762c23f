"""The limits of a directory: the counts of its uploads in one small file, ``.tus-counts``.

Every process changes the file under its lock. The counts are separate from the uploads, so a process that crashes
between the two writes leaves the counts too high. The sweeper reads every upload anyway, and counts again. Uploads
change meanwhile, so while it does, every process appends its changes to a second file, ``.tus-counts-moves``.

The counts of each principal are in a third file, see :mod:`tus.stores.directory.principals`, if a limit needs them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from sys import float_info
from typing import Any, NamedTuple

from tus.errors import RequestError, StorageFull
from tus.filesystem.descriptors import close
from tus.filesystem.io import unlink, write_at
from tus.filesystem.ownership import Ownership
from tus.models import Upload
from tus.stores.charges import Charge, Counts, charge_of, check_alone, step_of
from tus.stores.directory.counts_file import CountsFile
from tus.stores.directory.principals import Principals, open_principals, replacing
from tus.stores.interface import Limits as Limits

log = logging.getLogger(__name__)

NAME = ".tus-counts"
MOVES = ".tus-counts-moves"
#: Seconds after which a recount is void, so that the moves of a sweeper that crashed do not grow for ever.
_LONGEST_RECOUNT = 3600.0
_LARGEST = 512  # bytes; the file has about a hundred
_NOTHING = (b"\0", 0, 0, 0.0, 0.0, False)  # no file begins so


@dataclass(slots=True)
class Recount:
    """The uploads that a sweep has counted.

    Attributes:
        until: the time after which it is void, in seconds since 1970.
        counts: their counts.
        charges: what each is charged, with its owner.
    """

    until: float
    counts: Counts = field(default_factory=Counts)
    charges: dict[str, tuple[str | None, Charge]] = field(default_factory=dict)

    def add(self, upload_id: str, principal: str | None, charge: Charge) -> None:
        """Count an upload, in place of what was counted for it before."""
        before = self.charges.pop(upload_id, None)
        if before is not None:
            self.counts.add(before[0], -before[1].uploads, -before[1].size)
        self.counts.add(principal, *charge)
        self.charges[upload_id] = (principal, charge)

    def move(self, upload_id: str, principal: str | None, charge: Charge, is_end: bool) -> None:
        """Take account of a change that a process has made meanwhile; one that adds may be counted already."""
        if not is_end and upload_id in self.charges:
            charge = Charge(*map(max, charge, self.charges[upload_id][1]))
        self.add(upload_id, principal, charge)


def stored_charge(upload: Upload, path: str) -> Charge:
    """Return what an upload is charged by its files; bytes that a crashed process has not counted count too."""
    try:
        size = os.lstat(path).st_size
    except FileNotFoundError:
        return charge_of(upload, is_kept=False)
    charge = charge_of(upload)
    return charge._replace(size=max(charge.size, size)) if charge.uploads else charge


class Grant(NamedTuple):
    """Bytes that an upload was charged.

    Attributes:
        size: their number.
        recounted_at: the time of the last recount before that. A later one does not know the bytes that are not stored.
    """

    size: int = 0
    recounted_at: float = 0.0


class Quota:
    """The counts of a directory.

    Args:
        path: the path of the file.
        limits: the numbers that must not be exceeded.
        recount: returns every upload with its charge; called if the file is missing or damaged.
        ownership: whose files are believed.
    """

    def __init__(
        self,
        path: str,
        limits: Limits,
        recount: Callable[[], Iterable[tuple[Upload, Charge]]],
        ownership: Ownership,
    ) -> None:
        self._ownership = ownership
        self._file = CountsFile(path, ownership)
        self._known: tuple[bytes, int, int, float, float, bool] = _NOTHING
        self._moves = f"{path}-moves"
        self._each = f"{path}-each"
        self._limits = limits
        self._needs_each = bool(limits.uploads_each or limits.size_each)
        self._has_each = self._needs_each  # as read with the counts: another service may need those of each principal
        self._list_charges = recount
        self._until = 0.0  # of the recount that is going on, as read with the counts
        self._recounted_at = 0.0

    # -- Before bytes are stored --

    @contextmanager
    def charge_creation(self, draft: Upload, upload_id: str) -> Iterator[None]:
        """Charge an upload that the ``with`` block creates, unless it fails.

        Raises:
            TooLarge: the upload alone exceeds a limit.
            TooManyUploads: the limit of uploads is reached.
            QuotaExceeded: the limit of bytes is reached.
            StorageFull: there is no room for the counts.
        """
        principal, charge = draft.principal, charge_of(draft)
        check_alone(self._limits, principal, charge.size)
        with self._counts(principal) as counts:
            counts.admit(self._limits, principal, *charge)
            self._note(upload_id, principal, charge)
        try:
            yield
        except BaseException:
            self._give_back(principal, charge)
            raise

    def charge_length(self, upload: Upload, length: int, charged: int) -> Grant:
        """Charge the rest of a length before it is set.

        Args:
            upload: the upload.
            length: its length.
            charged: the bytes that it is charged already.

        Raises:
            TooLarge: the upload alone exceeds a limit.
            QuotaExceeded: the limit of bytes is reached.
        """
        check_alone(self._limits, upload.principal, length)
        size = max(length - charged, 0)
        if not size:
            return Grant()
        with self._counts(upload.principal) as counts:
            counts.admit(self._limits, upload.principal, 0, size)
            self._note(upload.id, upload.principal, Charge(1, length))
            return Grant(size, self._recounted_at)

    def charge_bytes(self, upload: Upload, end: int, wanted: int, ahead: bool = True) -> Grant:
        """Charge the next bytes of an upload before they are stored; fewer than wanted if no more fit.

        Args:
            upload: the upload.
            end: the number of bytes that the upload is charged by now.
            wanted: the number of bytes to store.
            ahead: whether to charge a step more, if the limits allow it.
        """
        step = step_of(self._limits, upload.principal) if ahead else 0
        with self._counts(upload.principal) as counts:
            granted = counts.grant(self._limits, upload.principal, wanted, step)
            self._note(upload.id, upload.principal, Charge(1, end + granted))
            return Grant(granted, self._recounted_at)

    # -- After bytes were removed --

    def give_back(self, upload: Upload, grant: Grant) -> None:
        """Subtract bytes that were charged and not stored, unless the uploads were counted again meanwhile."""
        if grant.size:
            self._give_back(upload.principal, Charge(0, grant.size), since=grant.recounted_at)

    def end(self, upload: Upload, before: Charge, after: Charge) -> None:
        """Count an upload that was decided or removed.

        Args:
            upload: the upload.
            before: what it was charged.
            after: what is charged for the data that is kept.
        """
        removed = Charge(before.uploads - after.uploads, before.size - after.size)
        self._give_back(upload.principal, removed, (upload.id, after))

    def _give_back(
        self,
        principal: str | None,
        charge: Charge,
        ended: tuple[str, Charge] | None = None,
        since: float | None = None,
    ) -> None:
        """Subtract from the counts; if that fails, they are too high until the next sweep."""
        try:
            with self._counts(principal) as counts:
                if since not in (None, self._recounted_at):
                    return
                counts.add(principal, -charge.uploads, -charge.size)
                if ended is not None:
                    self._note(ended[0], principal, ended[1], is_end=True)
        except (OSError, RequestError) as error:
            log.warning("the counts of uploads are too high until the next sweep: %s", error)

    # -- Counting again --

    def read(self, *principals: str) -> Counts:
        """Return the current counts, and those of these principals."""
        with self._counts(*principals) as counts:
            return counts

    def begin_recount(self) -> Recount:
        """Begin to count again; from now on every process notes its changes."""
        recount = Recount(time.time() + _LONGEST_RECOUNT)
        with self._counts():
            unlink(self._moves)
            self._until = recount.until
        return recount

    def finish_recount(self, recount: Recount, in_slices: Callable[[Iterable[Any]], Iterable[Any]] = iter) -> None:
        """Replace the counts by those of a recount and of the changes since it began.

        Args:
            recount: the recount.
            in_slices: iterates over the principals, with rests.
        """
        found, each = recount.counts, None
        with ExitStack() as held:
            if self._has_each:  # most of it is written before the lock is taken, for which requests wait
                each, replace = held.enter_context(replacing(self._each, self._ownership, found.each, in_slices))
            counts = held.enter_context(self._counts())
            if self._until == recount.until and time.time() < recount.until:
                moved = set()
                for upload_id, principal, charge, is_end in self._read_moves():
                    recount.move(upload_id, principal, charge, is_end)
                    if principal is not None:
                        moved.add(principal)
                if each is not None:
                    for principal in moved:
                        each.set(principal, found.each.get(principal, (0, 0)))
                    replace()
                counts.uploads, counts.size = found.uploads, found.size
                self._recounted_at = time.time()
            self._until = 0.0
            unlink(self._moves)

    def _note(self, upload_id: str, principal: str | None, charge: Charge, is_end: bool = False) -> None:
        """Note a change for the recount, if one is going on. The caller holds the lock."""
        if not time.time() < self._until:
            return
        fd = self._ownership.open_or_create(self._moves)
        try:
            line = json.dumps([upload_id, principal, *charge, is_end]).encode() + b"\n"
            if write_at(fd, os.fstat(fd).st_size, line) < len(line):
                raise StorageFull()
        finally:
            close(fd)

    def _read_moves(self) -> Iterator[tuple[str, str | None, Charge, bool]]:
        with contextlib.suppress(FileNotFoundError):
            fd = self._ownership.open(self._moves, os.O_RDONLY)
            with open(fd, "rb") as file:
                for line in file:
                    with contextlib.suppress(ValueError, TypeError):  # torn, because its process crashed
                        upload_id, principal, uploads, size, is_end = json.loads(line)
                        yield str(upload_id), principal, Charge(int(uploads), int(size)), is_end

    # -- The file --

    @contextmanager
    def _counts(self, *principals: str | None) -> Iterator[Counts]:
        """Give the counts, with those of some principals, to a ``with`` block that may change them."""
        with self._file as fd:
            data = os.pread(fd, _LARGEST, 0)
            counts = self._read(data)
            if not self._has_each:
                yield counts
            else:
                with ExitStack() as held:
                    each, counts = self._open_each(counts, held)
                    before = {principal: each.get(principal) for principal in principals if principal is not None}
                    counts.each = dict(before)
                    yield counts
                    # First, because counts of a crash must be too high, and none too low.
                    for principal, pair in before.items():
                        if (now := counts.each.get(principal, (0, 0))) != pair:
                            each.set(principal, now)
            self._write(fd, data, counts)

    def _read(self, data: bytes) -> Counts:
        """Return the counts of the file. If it is damaged, count again."""
        if data == self._known[0]:
            _, uploads, size, self._until, self._recounted_at, self._has_each = self._known
            return Counts(uploads, size)
        try:
            counts, self._until, self._recounted_at, self._has_each = _unpack(data)
            if self._needs_each and not self._has_each:
                raise ValueError("no limit has needed the counts of each principal before")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return self._count_again()
        self._know(data, counts)
        return counts

    def _open_each(self, counts: Counts, held: ExitStack) -> tuple[Principals, Counts]:
        """Open the counts of each principal. If they are gone or damaged, count again."""
        try:
            return held.enter_context(open_principals(self._each, self._ownership)), counts
        except (ValueError, FileNotFoundError):
            counts = self._count_again()
            return held.enter_context(open_principals(self._each, self._ownership)), counts

    def _write(self, fd: int, data: bytes, counts: Counts) -> None:
        # In one write, and padded, because a file that was cut short in between would be damaged.
        packed = self._pack(counts).ljust(len(data))
        if packed != data:
            self._known = _NOTHING
            if write_at(fd, 0, packed) < len(packed):
                raise StorageFull()
            self._know(packed, counts)

    def _know(self, data: bytes, counts: Counts) -> None:
        """Remember what the file says, so that it is parsed only if another process has changed it."""
        self._known = (data, counts.uploads, counts.size, self._until, self._recounted_at, self._has_each)

    def _count_again(self) -> Counts:
        """Count every upload, and the uploads of each principal if a limit needs that."""
        self._until, self._recounted_at, self._has_each = 0.0, time.time(), self._needs_each
        counts = Counts()
        for upload, charge in self._list_charges():
            counts.add(upload.principal, *charge)
        if self._has_each:
            with replacing(self._each, self._ownership, counts.each) as (_, replace):
                replace()
        return counts

    def _pack(self, counts: Counts) -> bytes:
        """Return JSON. A library for it takes three times as long, and this is part of every small upload."""
        has_each = "true" if self._has_each else "false"
        until = f', "recount_until": {self._until!r}' if self._until else ""
        recounted = f', "recounted_at": {self._recounted_at!r}' if self._recounted_at else ""
        return b'{"uploads": %d, "size": %d, "each": %b%b%b}\n' % (
            counts.uploads,
            counts.size,
            has_each.encode(),
            until.encode(),
            recounted.encode(),
        )


def _unpack(data: bytes) -> tuple[Counts, float, float, bool]:
    """Return the counts of the file, until when a recount goes on, when the last one ended, and what else is kept.

    Raises:
        Exception: they are damaged.
    """
    fields = json.loads(data)
    counts = Counts(fields["uploads"], fields["size"])
    times = fields.get("recount_until", 0.0), fields.get("recounted_at", 0.0)
    for number in (counts.uploads, counts.size):
        if type(number) is not int or number < 0:
            raise ValueError("a count is a number that is not negative")
    for number in times:
        if type(number) not in (int, float) or not 0 <= number <= float_info.max:
            raise ValueError("a time is a number that is not negative")
    if type(fields["each"]) is not bool:
        raise ValueError("whether the counts of each principal are kept is true or false")
    return counts, *times, fields["each"]


class Tab:
    """What an append session is charged, for an upload whose length is unknown when the session opens.

    Args:
        quota: the counts.
        upload: the upload as it was loaded.
        offset: the first byte of the session.
        length: the length that the session sets; None if it sets none.

    Raises:
        RequestError: the length exceeds a limit.
    """

    def __init__(self, quota: Quota, upload: Upload, offset: int, length: int | None) -> None:
        self._quota = quota
        self._upload = upload
        self._end = offset  # of the bytes that are charged
        self._grant = Grant()
        if length is not None:
            self._add(quota.charge_length(upload, length, offset))

    def _add(self, grant: Grant) -> None:
        """Take over a grant; earlier ones are void if the uploads were counted again meanwhile."""
        self._end += grant.size
        if grant.recounted_at == self._grant.recounted_at:
            grant = grant._replace(size=grant.size + self._grant.size)
        self._grant = grant

    def take(self, offset: int, size: int, ahead: bool = True) -> int:
        """Charge the next bytes, and return how many of them may be stored.

        Args:
            offset: the first of them.
            size: their number.
            ahead: whether more bytes may follow.
        """
        missing = offset + size - self._end
        if missing > 0:
            self._add(self._quota.charge_bytes(self._upload, self._end, missing, ahead))
        return min(size, self._end - offset)

    def settle(self, end: int) -> None:
        """Give back what was charged beyond the end of the stored bytes, or beyond the length."""
        unused = min(self._end - end, self._grant.size)
        self._end = end
        self._quota.give_back(self._upload, self._grant._replace(size=unused))
