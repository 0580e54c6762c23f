"""The interface of stores. Law: a capability is a type, and the extensions that a server advertises follow from types.

A store raises :class:`~tus.errors.UploadNotFound`, :class:`~tus.errors.UploadGone`,
:class:`~tus.errors.OffsetMismatch`, :class:`~tus.errors.UploadReplaced`, :class:`~tus.errors.UploadLocked` and
:class:`~tus.errors.StorageFull` if they apply. It does not catch any other error of its medium. ``tus.testing`` has the
suite that every store must pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import BinaryIO, Final, Protocol, Self, runtime_checkable

from tus.filesystem.pipes import Pipe
from tus.models import Block, Response, State, Upload

#: The largest body, in bytes, that is stored in one step instead of an append session, if all of it has arrived. A
#: store can define another size in its attribute ``small``.
SMALL: Final = 64 * 1024


class AppendSession(Protocol):
    """The only writer of an upload, until a newer session is opened.

    At the end of the ``with`` block, all blocks are counted. Without :meth:`commit`, staged blocks are dropped instead.
    """

    @property
    def upload(self) -> Upload:
        """The upload with the counted bytes; a response may contain its offset."""

    def write(self, *blocks: Block) -> None:
        """Store the next blocks. The caller may change their memory afterwards.

        Unless the session is staged, the blocks are counted at the latest by :meth:`keep`, :meth:`commit` or the end of
        the ``with`` block. Each of these may raise the errors of this method instead.

        Raises:
            UploadReplaced: a newer session was opened, or the upload was removed; nothing more is counted.
            StorageFull: there is no room; the bytes that fitted are stored and, unless staged, counted.
        """

    def keep(self) -> Upload:
        """Count all written bytes, unless the session is staged, and return the upload. The session goes on."""

    def is_current(self) -> bool:
        """Return whether no newer request has taken over or removed the upload. This takes no lock."""

    def commit(self, ends: bool = False) -> Upload:
        """Count all written bytes, and end the session. If the length is reached, the upload is complete.

        Args:
            ends: whether the upload ends here, which sets its length if it is deferred.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Claim(Protocol):
    """The right to hand a complete upload over; one process has it at a time.

    A claim ends with the process that holds it: at once, or by a lease if that process may be on another host. After
    that another caller may get the claim, and each method that changes something raises ``UploadReplaced``.
    """

    @property
    def upload(self) -> Upload:
        """The current upload."""

    def sync(self) -> None:
        """Force the data to the disk, where that has not been done and the store keeps files.

        Raises:
            OSError: it could not be written. Then the upload is no longer complete, because a second try would prove
                nothing.
        """

    def open(self) -> BinaryIO:
        """Open the data for reading."""

    def digest(self) -> Upload:
        """Return the upload with the digests of its ``hashes``. If they are not known, read the data once.

        They are kept as long as the record. Call this before :meth:`begin`.
        """

    def begin(self, is_last: bool = False) -> Upload:
        """Record one more attempt before the file is offered, and return the upload.

        The upload is now ``HANDING_OVER``. It is known if the claimed upload was.

        Args:
            is_last: whether to set the upload aside if the attempt has no result, even if the process crashes.

        Raises:
            UploadReplaced: another caller has claimed the upload.
        """

    def keep(self) -> bool:
        """Let :meth:`accept` keep the data as long as the record; return whether it would have removed the data.

        The record is then kept for a day if the store would not keep it at all. This writes nothing.
        """

    def accept(self, answer: Response | None = None) -> None:
        """Record that the application has accepted the upload, with its response, and release the claim.

        The data is removed, unless the store must keep it as long as the record, or :meth:`keep` was called. Once the
        decision is recorded, nothing is raised; a failure to clean up is logged.

        Raises:
            UploadReplaced: another caller has claimed the upload.
        """

    def reject(self, answer: Response | None = None) -> None:
        """Record that the application has rejected the upload, with its response, and release the claim.

        Raises:
            UploadReplaced: another caller has claimed the upload.
        """

    def release(self, error: str | None = None) -> None:
        """Release the claim, so that the upload is complete and can be claimed again.

        After :meth:`accept` or :meth:`reject` this does nothing.

        Args:
            error: the error text of the attempt, after :meth:`begin`.

        Raises:
            UploadReplaced: another caller has claimed the upload.
        """


class Store(Protocol):
    """A place where uploads are kept."""

    def create(self, draft: Upload) -> Upload:
        """Create an upload with the draft's length, metadata, concatenation and parts.

        A draft without an id gets a new id. If an upload with the draft's id exists, it is returned unchanged. An
        upload of length 0 is complete at once.
        """

    def load(self, upload_id: str) -> Upload:
        """Return an upload, without waiting for a lock.

        It is ``HANDING_OVER`` only while a caller holds the claim. After that process has crashed it is ``COMPLETE``.
        """

    def open(
        self,
        upload: Upload,
        offset: int,
        length: int | None = None,
        staged: bool = False,
        completes: bool = True,
    ) -> AppendSession:
        """Open a session that appends. This ends a session that is open.

        Args:
            upload: the loaded upload; only the values fixed by its creation are used.
            offset: the expected offset; on a mismatch the running session is not interrupted.
            length: the upload's length, if the request sets it.
            staged: whether blocks count only once the session is committed, because they must be verified first.
            completes: whether the upload is complete when this session reaches its length; else another session must
                complete it.

        Raises:
            OffsetMismatch: the upload has another offset.
        """

    def append(
        self, upload: Upload, offset: int, block: Block, length: int | None = None, completes: bool = True
    ) -> Upload:
        """Do :meth:`open`, one ``write`` and ``commit`` in one step."""

    def fence(self, upload: Upload) -> Upload:
        """End the session of an upload, if one is open, and return the upload.

        Nothing else changes: it needs no disk space, and the upload expires at the same time as before.
        """

    def claim(self, upload: Upload) -> Claim:
        """Claim a complete upload for its hand-over. The upload of the claim may be accepted or rejected already.

        When this returns, the upload is as durable as the store's policy requires.

        Raises:
            UploadLocked: another caller has claimed the upload.
        """

    def promise(self, upload: Upload) -> Upload:
        """Make an upload known, and durable if it is complete, before its client learns its URL.

        A known upload that is being handed over is durable already.

        Raises:
            UploadLocked: another caller has claimed the upload, and the upload is unknown.
        """

    def remove(self, upload_id: str) -> None:
        """Remove an upload, its data and its record, and end its session.

        Raises:
            UploadLocked: the upload is being handed over or concatenated.
        """


@runtime_checkable
class Completes(Protocol):
    """A store that can store the last block of an upload and begin its hand-over in one step."""

    def can_complete(self, upload: Upload) -> bool:
        """Return whether one step is possible for an upload or a draft. This only checks its values.

        False means that several steps cost no more, for example because the data must be read for a digest.
        """

    def complete(
        self, upload: Upload, offset: int, block: Block, length: int | None = None, is_last: bool = False
    ) -> Claim:
        """Do :meth:`Store.append`, :meth:`Store.claim` and :meth:`Claim.begin` in one step.

        The upload of the claim is ``HANDING_OVER``, and as durable as the store's policy requires.

        Args:
            upload: the loaded upload.
            offset: the expected offset.
            block: the rest of the data.
            length: the upload's length, if the request sets it.
            is_last: see :meth:`Claim.begin`.

        Raises:
            OffsetMismatch: the upload has another offset.
            InconsistentLength: the block does not reach the upload's length; nothing was stored.
            StorageFull: there is no room for the whole block; the bytes that fitted are counted.
            UploadLocked: another caller has claimed the upload; the block is counted.
        """

    def create_whole(self, draft: Upload, block: Block, is_last: bool = False) -> Claim:
        """Do :meth:`Store.create` and :meth:`complete` in one step.

        Args:
            draft: a draft with the length of the block.
            block: the whole data.
            is_last: see :meth:`Claim.begin`.

        Raises:
            InconsistentLength: the draft has another length; nothing was created.
            StorageFull: there is no room; nothing was created.
        """


class PouringSession(AppendSession, Protocol):
    """A session that can take bytes out of a pipe."""

    def pour(self, pipe: Pipe, is_last: bool) -> None:
        """Store the bytes in a pipe, as :meth:`write` does with blocks, and with the same errors.

        Args:
            pipe: the bytes.
            is_last: whether the session gets no more bytes. It is still open, and must be committed.
        """


@runtime_checkable
class Pours(Protocol):
    """A store whose sessions, each a :class:`PouringSession`, can move bytes from a pipe to a file in the kernel."""

    def can_pour(self, upload: Upload) -> bool:
        """Return whether that is of use for an upload. False if the bytes must be read for a digest."""


@runtime_checkable
class Names(Protocol):
    """A store that can find an upload by a text that its client has chosen, such as an ``Idempotency-Key``."""

    def id_for(self, text: str) -> str:
        """Return the id for a text: always the same, and without the store's secret it cannot be guessed.

        All processes that use the store get the same id.
        """

    def create_once(self, draft: Upload) -> Upload | None:
        """Create an upload with the draft's id; return None if there is one that has not expired.

        Of several calls with one id, in any process, one creates the upload. After None, :meth:`Store.load` returns
        that upload, unless it ends meanwhile. An expired upload is removed first.

        Raises:
            UploadGone: the files of an upload with this id are damaged.
        """


@runtime_checkable
class Concatenates(Protocol):
    """A store that can concatenate uploads."""

    def watch(self, part_id: str, final_id: str) -> Upload:
        """Record in a part that a final upload waits for it, extend its life as :meth:`touch` does, and return it.

        Raises:
            BadRequest: :data:`~tus.stores.ledger.MAX_WATCHERS` final uploads wait for the part already.
        """

    def finals_of(self, part_id: str) -> Sequence[str]:
        """Return the ids of the final uploads that wait, or waited, for a part."""

    def touch(self, *final_ids: str) -> None:
        """Extend the life of final uploads and their parts, as if each got a byte now.

        A final upload that was touched less than a minute ago is skipped with its parts. Uploads that do not exist are
        skipped too. No upload is read or written more than once, however often it is named.
        """

    def concatenate(self, final_id: str, parts: Sequence[Upload]) -> Upload:
        """Fill a final upload with the data of its parts, in their order. A filled upload does not change.

        Raises:
            UploadLocked: another caller is filling the upload.
        """


@runtime_checkable
class Expires(Protocol):
    """A store whose uploads can expire."""

    def sweep(self, at_most_every: float = 0) -> int:
        """Remove expired uploads, unless another process is doing so.

        Args:
            at_most_every: do nothing if the last sweep was less than this many seconds ago.

        Returns:
            The number of removed uploads.

        Raises:
            SweepIncomplete: some uploads could not be removed. One of them never stops the sweep of the others.
        """


class Candidate(Protocol):
    """A process that is ready for work which one process must do."""

    def win(self) -> bool:
        """Return whether this process must do the work. Another process wins once this one has ended."""


@runtime_checkable
class Elects(Protocol):
    """A store over which several processes can elect one, for work that one process must do."""

    def candidate(self, work: str) -> Candidate:
        """Return a candidate.

        Args:
            work: the name of the work.
        """


@runtime_checkable
class Tends(Protocol):
    """A store with small work to do about every minute, beside its sweeps."""

    def tend(self) -> None:
        """Do that work; it takes as long as what this process has done in the last minutes."""


@dataclass(slots=True)
class Statistics:
    """The results of the last sweep.

    Attributes:
        swept_at: the time of the sweep, in seconds since 1970.
        unfinished: uploads that wait for bytes, and parts that wait for their concatenation.
        unfinished_bytes: the bytes received for unfinished uploads.
        reserved_bytes: the disk space reserved for the rest of unfinished uploads.
        pending: complete uploads that the application has not accepted.
        pending_since: when the last byte of the oldest pending upload arrived, in seconds since 1970; None without one.
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
    """A store that has statistics without reading every upload."""

    def statistics(self) -> Statistics | None:
        """Return the results of the last sweep; None before the first one."""


@runtime_checkable
class Checks(Protocol):
    """A store that can check whether it could store an upload now."""

    def check(self) -> None:
        """Check that an upload could be stored.

        Raises:
            RequestError: no upload can be stored now.
        """


@runtime_checkable
class Reads(Protocol):
    """A store whose finished uploads can be read at any time."""

    def read(self, upload: Upload) -> tuple[BinaryIO, float]:
        """Return the data, opened for reading, and the time when it was stored, in seconds since 1970.

        Raises:
            UploadGone: the data was removed.
        """


@runtime_checkable
class Lists(Protocol):
    """A store that can list its uploads."""

    def list(self) -> Iterable[Upload]:
        """Return every upload that can be read, in no order."""


@runtime_checkable
class HasFiles(Protocol):
    """A store that keeps the data of each upload in a file of this host."""

    def path_of(self, upload: Upload) -> str:
        """Return the path of an upload's data."""


@runtime_checkable
class Links(Protocol):
    """A store that can make a URL from which clients download the data directly."""

    def link(self, upload: Upload, seconds: float, disposition: str, media_type: str) -> str:
        """Return a URL of an upload's data.

        Args:
            upload: a complete upload.
            seconds: how long the URL is valid.
            disposition: the ``Content-Disposition`` of the response.
            media_type: the ``Content-Type`` of the response.
        """


@runtime_checkable
class Pending(Protocol):
    """A store that can list the uploads that wait for the application, if possible without reading all uploads."""

    def pending(
        self, due_before: float, limit: int, is_wanted: Callable[[Upload], bool] = lambda upload: True
    ) -> Iterable[Upload]:
        """Return uploads that are complete, known to a client, not set aside and not claimed.

        Args:
            due_before: only uploads whose wait began before this time, in seconds since 1970.
            limit: the largest number of uploads; the uploads that have waited longest come first.
            is_wanted: selects uploads before the limit counts them.
        """


def is_waiting(upload: Upload, due_before: float) -> bool:
    """Return whether :meth:`Pending.pending` must return an upload, unless a caller has claimed it."""
    if upload.state != State.COMPLETE or upload.is_partial or upload.is_aside or not upload.is_known:
        return False
    return upload.since < due_before


@runtime_checkable
class Leaves(Protocol):
    """A store that can leave accepted data in its place, where it belongs to the application.

    Attributes:
        leave_finished: whether the store does so.
    """

    leave_finished: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a store; 0 means no limit.

    Attributes:
        uploads: the number of uploads.
        size: the bytes of all uploads.
        uploads_each: the number of uploads of one principal. An upload without a principal counts only for ``uploads``.
        size_each: the bytes of the uploads of one principal.
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
        limits: the limits.
    """

    limits: Limits


def extensions_of(store: Store) -> frozenset[str]:
    """Return the tus extensions that work with a store."""
    return _extensions_of_type(type(store))


@cache  # checking whether a type has a protocol's methods is slow, and the result never changes
def _extensions_of_type(store: type) -> frozenset[str]:
    extensions = {"creation", "creation-with-upload", "creation-defer-length", "checksum", "termination"}
    if issubclass(store, Expires):
        extensions.add("expiration")
    if issubclass(store, Concatenates):
        extensions |= {"concatenation", "concatenation-unfinished"}
    return frozenset(extensions)
