"""What a store is. Law: a capability is a type; what a server advertises is computed from the types.

A store raises :class:`~tus.errors.UploadNotFound`, :class:`~tus.errors.UploadGone`,
:class:`~tus.errors.OffsetMismatch`, :class:`~tus.errors.UploadReplaced`, :class:`~tus.errors.UploadLocked` and
:class:`~tus.errors.StorageFull` where they apply, and lets any other error of its medium through. ``tus.testing`` has
the suite that every store must pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import BinaryIO, Final, Protocol, Self, runtime_checkable

from tus.models import Block, Response, State, Upload

#: Bytes; a body of at most so many that is there already is one step in the store, instead of an append session. A
#: store for which another size is better has it as its attribute ``small``.
SMALL: Final = 64 * 1024


class AppendSession(Protocol):
    """The only writer of an upload, until a newer session is opened.

    Leaving the ``with`` block without :meth:`commit` forgets staged blocks; others are counted by then.
    """

    @property
    def upload(self) -> Upload:
        """The upload as far as it is counted; its offset is what a client may be given."""

    def write(self, *blocks: Block) -> None:
        """Take the next blocks, which may be changed after that.

        Unless the session is staged they are counted at the latest by :meth:`keep`, by :meth:`commit` or by the end of
        the ``with`` block. What this raises may as well be raised by one of these.

        Raises:
            UploadReplaced: a newer session was opened, or the upload was removed; nothing more is counted.
            StorageFull: there is no room; what fitted is stored and, unless staged, counted.
        """

    def keep(self) -> Upload:
        """Count everything that was written, unless the session is staged, and go on. Returns the upload."""

    def is_current(self) -> bool:
        """Return whether no newer request has taken the upload over or removed it. Takes no lock."""

    def commit(self, ends: bool = False) -> Upload:
        """Count everything written, and end the session. Where the length is reached the upload is complete.

        Args:
            ends: whether what is written is the whole upload, so that this settles a length that is not known.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Claim(Protocol):
    """The right to hand a complete upload over; one at a time.

    It ends with the process that holds it: at once, or where that process may be on another host, by a lease. Then
    another caller may have it, and every method here that changes something raises ``UploadReplaced``.
    """

    @property
    def upload(self) -> Upload:
        """The upload as it stands."""

    def open(self) -> BinaryIO:
        """Open the data for reading."""

    def digest(self) -> Upload:
        """Return the upload with the digests of its ``hashes``; where they are not known, read the data once.

        They are kept as long as the record. Call this before :meth:`begin`.
        """

    def begin(self, is_last: bool = False) -> Upload:
        """Record one more attempt, before the application is asked. Returns the upload with it.

        From here on it is ``HANDING_OVER``, and known if the upload that was claimed was.

        Args:
            is_last: whether it is set aside if the attempt has no result, even if the process crashes.

        Raises:
            UploadReplaced: another caller has the upload by now.
        """

    def accept(self, answer: Response | None = None) -> None:
        """Record that the application has the upload, with its answer, and release the claim.

        The data is removed, unless the store must keep it as long as the record. Once the decision is recorded nothing
        is raised any more; a failure to clean up is logged.

        Raises:
            UploadReplaced: another caller has the upload by now.
        """

    def reject(self, answer: Response | None = None) -> None:
        """Record that the application does not want the upload, with its answer, and release the claim.

        Raises:
            UploadReplaced: another caller has the upload by now.
        """

    def release(self, error: str | None = None) -> None:
        """Give the claim back; the upload is complete again and can be claimed. Harmless after the other two.

        Args:
            error: what went wrong, after :meth:`begin`.

        Raises:
            UploadReplaced: another caller has the upload by now.
        """


class Store(Protocol):
    """Keeps uploads."""

    def create(self, draft: Upload) -> Upload:
        """Make an upload of the draft's length, metadata, concatenation and parts.

        A draft without an id gets a new one. Where one with the draft's id exists, that is returned as it stands.
        An upload of length 0 is complete at once.
        """

    def load(self, upload_id: str) -> Upload:
        """Read an upload's record, without waiting for a lock.

        It is ``HANDING_OVER`` only while a caller holds the claim; after that process has crashed it is ``COMPLETE``.
        """

    def open(
        self,
        upload: Upload,
        offset: int,
        length: int | None = None,
        staged: bool = False,
        completes: bool = True,
    ) -> AppendSession:
        """Begin to append, which ends the session that may be open.

        Args:
            upload: as it was loaded; only what creation fixed is taken from it.
            offset: where the caller takes it to stand; on a mismatch the running session is not interrupted.
            length: the upload's length, if this settles it.
            staged: whether blocks count only once the session is committed, because they must be verified first.
            completes: whether the upload is complete where this session reaches its length; else another session
                must complete it.

        Raises:
            OffsetMismatch: the upload stands elsewhere.
        """

    def append(
        self, upload: Upload, offset: int, block: Block, length: int | None = None, completes: bool = True
    ) -> Upload:
        """Do what :meth:`open`, one ``write`` and ``commit`` do, in one step."""

    def fence(self, upload: Upload) -> Upload:
        """End the session that may be open on an upload; returns the upload as it stands after that.

        Nothing else changes: it needs no room, and the upload lives no longer for it.
        """

    def claim(self, upload: Upload) -> Claim:
        """Take the right to hand a complete upload over. It may turn out to be accepted or rejected already.

        When this returns, the upload is as durable as the store's policy has it.

        Raises:
            UploadLocked: another caller has it.
        """

    def promise(self, upload: Upload) -> Upload:
        """Make an upload known, and durable where it is complete, because its client is about to learn of it.

        One that is known and being handed over is both already.

        Raises:
            UploadLocked: another caller has it, and no client knows of it.
        """

    def remove(self, upload_id: str) -> None:
        """Forget the upload, its data and its record; sessions that are open on it end.

        Raises:
            UploadLocked: it is being handed over or concatenated.
        """


@runtime_checkable
class Completes(Protocol):
    """A store that can take the last block of an upload and begin its hand-over in one step."""

    def can_complete(self, upload: Upload) -> bool:
        """Return whether one step will do for this upload, or for this draft. Looks at nothing but the values.

        False means that the longer way costs no more, for example because the data must be read for a digest.
        """

    def complete(
        self, upload: Upload, offset: int, block: Block, length: int | None = None, is_last: bool = False
    ) -> Claim:
        """Do what :meth:`Store.append`, :meth:`Store.claim` and :meth:`Claim.begin` do, in one step.

        The upload of the claim is ``HANDING_OVER``, and as durable as the store's policy has it.

        Args:
            upload: as it was loaded.
            offset: where the caller takes it to stand.
            block: the rest of its data.
            length: the upload's length, if this settles it.
            is_last: see :meth:`Claim.begin`.

        Raises:
            OffsetMismatch: the upload stands elsewhere.
            InconsistentLength: the block does not reach the upload's length; nothing was stored.
            StorageFull: there is no room for the whole block; what fitted is counted.
            UploadLocked: another caller has the right to hand it over; the block is counted.
        """

    def create_whole(self, draft: Upload, block: Block, is_last: bool = False) -> Claim:
        """Do what :meth:`Store.create` and :meth:`complete` do, in one step.

        Args:
            draft: of as many bytes as the block has.
            block: the whole data.
            is_last: see :meth:`Claim.begin`.

        Raises:
            InconsistentLength: the draft has another length; nothing was created.
            StorageFull: there is no room; nothing was created.
        """


@runtime_checkable
class Concatenates(Protocol):
    """A store that can join uploads."""

    def watch(self, part_id: str, final_id: str) -> Upload:
        """Have a part remember a final upload that waits for it; returns the part as it stands after that.

        Raises:
            BadRequest: :data:`~tus.stores.ledger.MAX_WATCHERS` wait for it already.
        """

    def finals_of(self, part_id: str) -> Sequence[str]:
        """Return the ids of the final uploads that wait, or waited, for this part."""

    def touch(self, final_id: str) -> None:
        """Let a final upload that waits, and its parts, live as long as one that gets a byte now."""

    def concatenate(self, final_id: str, parts: Sequence[Upload]) -> Upload:
        """Fill a final upload with the data of the parts, in their order; does nothing to one that is filled.

        Raises:
            UploadLocked: another caller is filling it.
        """


@runtime_checkable
class Expires(Protocol):
    """A store whose uploads can expire."""

    def sweep(self, at_most_every: float = 0) -> int:
        """Remove expired uploads, unless another process is doing so.

        Args:
            at_most_every: do nothing if this was done in the last so many seconds.

        Returns:
            How many uploads were removed.
        """


@dataclass(slots=True)
class Statistics:
    """What the last sweep has found.

    Attributes:
        swept_at: when that was, in seconds since 1970.
        unfinished: uploads that wait for bytes, and parts that wait for their concatenation.
        unfinished_bytes: what has come of them.
        reserved_bytes: room that is held for the rest of them.
        pending: complete uploads that the application has not accepted.
        pending_since: when the last byte of the oldest of them came, in seconds since 1970; None where there is none.
        accepted: records of accepted uploads.
        rejected: rejected uploads that are still kept.
        aside: pending uploads that are not offered again automatically.
    """

    swept_at: float
    unfinished: int = 0
    unfinished_bytes: int = 0
    reserved_bytes: int = 0
    pending: int = 0
    pending_since: float | None = None
    accepted: int = 0
    rejected: int = 0
    aside: int = 0


@runtime_checkable
class Counts(Protocol):
    """A store that knows what it holds without looking at every upload."""

    def statistics(self) -> Statistics | None:
        """Return what the last sweep has found, None where there was none yet."""


@runtime_checkable
class Checks(Protocol):
    """A store that can tell whether it could take an upload now."""

    def check(self) -> None:
        """Check that an upload could be stored.

        Raises:
            RequestError: it could not.
        """


@runtime_checkable
class Reads(Protocol):
    """A store whose finished uploads can be read at any time."""

    def read(self, upload: Upload) -> tuple[BinaryIO, float]:
        """Return the data, opened for reading, and when it was stored, in seconds since 1970.

        Raises:
            UploadGone: it is not kept any more.
        """


@runtime_checkable
class Lists(Protocol):
    """A store that can enumerate its uploads."""

    def list(self) -> Iterable[Upload]:
        """Return every upload that can be read, in no order."""


@runtime_checkable
class HasFiles(Protocol):
    """A store that keeps the data of each upload in a file of this host."""

    def path_of(self, upload: Upload) -> str:
        """Return the path of an upload's data."""


@runtime_checkable
class Links(Protocol):
    """A store that can give clients a URL from which they read the data themselves."""

    def link(self, upload: Upload, seconds: float, disposition: str, media_type: str) -> str:
        """Return a URL of an upload's data.

        Args:
            upload: a finished one.
            seconds: how long the URL is good for.
            disposition: the ``Content-Disposition`` of the response.
            media_type: its ``Content-Type``.
        """


@runtime_checkable
class Pending(Protocol):
    """A store that knows which uploads wait for the application, as far as it can without looking at all of them."""

    def pending(self, due_before: float, limit: int) -> Iterable[Upload]:
        """Return uploads that are complete, known to a client, not set aside, and that no caller has claimed.

        Args:
            due_before: only uploads whose wait began before this time, in seconds since 1970.
            limit: at most so many, those first that have waited longest.
        """


def is_waiting(upload: Upload, due_before: float) -> bool:
    """Return whether :meth:`Pending.pending` means this upload."""
    if upload.state != State.COMPLETE or upload.is_partial or upload.is_aside or not upload.is_known:
        return False
    return upload.since < due_before


@runtime_checkable
class Leaves(Protocol):
    """A store that can leave accepted data where it is, as the application's own.

    Attributes:
        leave_finished: whether it does.
    """

    leave_finished: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """What is allowed at a time; 0 means that there is no limit.

    Attributes:
        uploads: the number of uploads.
        size: their bytes.
        uploads_each: the number of one principal's; those without a principal are only counted above.
        size_each: the bytes of one principal's.
    """

    uploads: int = 0
    size: int = 0
    uploads_each: int = 0
    size_each: int = 0

    def __bool__(self) -> bool:
        return bool(self.uploads or self.size or self.uploads_each or self.size_each)


@runtime_checkable
class Limited(Protocol):
    """A store that enforces limits.

    Attributes:
        limits: which.
    """

    limits: Limits


def extensions_of(store: Store) -> frozenset[str]:
    """Return the tus extensions that work with a store."""
    return _extensions_of_type(type(store))


@cache  # looking whether a type has a protocol's methods is slow, and the answer stays
def _extensions_of_type(store: type) -> frozenset[str]:
    extensions = {"creation", "creation-with-upload", "creation-defer-length", "checksum", "termination"}
    if issubclass(store, Expires):
        extensions.add("expiration")
    if issubclass(store, Concatenates):
        extensions |= {"concatenation", "concatenation-unfinished"}
    return frozenset(extensions)
