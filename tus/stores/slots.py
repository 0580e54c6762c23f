"""The values of :mod:`tus.stores.ledger`: the changing part of an upload's record, and the lifetimes of uploads."""

from __future__ import annotations

from typing import Final, NamedTuple

from tus.models import State, Upload

#: The id of no boot.
NO_BOOT: Final = bytes(16)


class Slot(NamedTuple):
    """The state of an upload, which changes. Build it with keywords.

    Attributes:
        sequence: grows by one with each change.
        generation: grows with each append session and each claim, so that an older one can detect that it was replaced.
        offset: the number of bytes that are stored and counted.
        length: the length of the upload; None while it is deferred.
        state: see :class:`~tus.models.State`.
        expires_at: in seconds since 1970, or None.
        writing: whether a session is open, or its process has crashed. It is only used to report takeovers.
        is_known: see :class:`~tus.models.Upload`.
        attempts: see :class:`~tus.models.Upload`.
        since: see :class:`~tus.models.Upload`.
        is_aside: see :class:`~tus.models.Upload`.
        synced: the number of bytes, from the first on, that were forced to the disk.
        boot: the id of the boot of the machine in which the counted bytes were written; :data:`NO_BOOT` after bytes
            could not be forced to the disk. In another boot only the synced bytes are there for sure.
        ends_with_boot: whether the upload cannot go on from fewer bytes than were counted, because its protocol forbids
            it, or no client can send them again. So in another boot it is gone, unless it is complete and synced.
        losses: how often counted bytes were lost, so that what was known of the earlier bytes is not believed.
        is_durable: whether the complete file, its record and its name were forced to the disk.
    """

    sequence: int = 0
    generation: int = 0
    offset: int = 0
    length: int | None = None
    state: State = State.RECEIVING
    expires_at: float | None = None
    writing: bool = False
    is_known: bool = True
    attempts: int = 0
    since: float = 0.0
    is_aside: bool = False
    synced: int = 0
    boot: bytes = NO_BOOT
    ends_with_boot: bool = False
    losses: int = 0
    is_durable: bool = False


class Lifetimes(NamedTuple):
    """The times for which uploads are kept, in seconds.

    Attributes:
        lifetime: for an unfinished upload, after its last byte; 0 means for ever.
        completed_keep: for the record of an accepted upload.
        rejected_keep: for a rejected upload.
    """

    lifetime: float = 86400
    completed_keep: float = 86400
    rejected_keep: float = 86400

    def expiry(self, now: float) -> float | None:
        """Return the time when an upload expires after a byte that arrives now; None for never."""
        return now + self.lifetime if self.lifetime else None


def upload_of(record: Upload, slot: Slot, path: str | None = None) -> Upload:
    """Return an upload from the record of its creation, its slot, and the path of its data."""
    return Upload(  # written out: dataclasses.replace() takes four times as long
        id=record.id,
        offset=slot.offset,
        length=slot.length,
        raw_metadata=record.raw_metadata,
        concat=record.concat,
        parts=record.parts,
        state=slot.state,
        created_at=record.created_at,
        expires_at=slot.expires_at,
        path=path,
        location=record.location,
        principal=record.principal,
        is_known=slot.is_known,
        attempts=slot.attempts,
        since=slot.since,
        is_aside=slot.is_aside,
        error=record.error,
        answer=record.answer,
        service=record.service,
        origin=record.origin,
        protocol=record.protocol,
        hashes=record.hashes,
        announced=record.announced,
        digests=record.digests,
        fingerprint=record.fingerprint,
    )
