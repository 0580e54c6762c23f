"""The values that :mod:`tus.stores.ledger` is about: what changes of an upload, and how long uploads are kept."""

from __future__ import annotations

from typing import NamedTuple

from tus.models import State, Upload


class Slot(NamedTuple):
    """What changes of an upload. Build it by keywords.

    Attributes:
        sequence: grows by one with each change.
        generation: grows by one with each append session and each claim that begins, so that an older one can see that
            it was replaced.
        offset: bytes stored and counted.
        length: bytes announced, or None.
        state: see :class:`~tus.models.State`.
        expires_at: in seconds since 1970, or None.
        writing: whether a session is open, or has died. Nothing depends on it; it lets a takeover be seen as one.
        is_known: see :class:`~tus.models.Upload`, as for the rest.
        attempts: see there.
        since: see there.
        is_aside: see there.
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


class Lifetimes(NamedTuple):
    """How long uploads are kept, in seconds.

    Attributes:
        lifetime: an unfinished upload, after its last byte; 0 means for ever.
        completed_keep: the record of an accepted upload.
        rejected_keep: a rejected upload.
    """

    lifetime: float = 86400
    completed_keep: float = 86400
    rejected_keep: float = 86400

    def expiry(self, now: float) -> float | None:
        """Return when an upload expires that gets a byte now."""
        return now + self.lifetime if self.lifetime else None


def upload_of(record: Upload, slot: Slot, path: str | None = None) -> Upload:
    """Return the upload, given what creation fixed, what changes, and the path of its data."""
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
        protocol=record.protocol,
        hashes=record.hashes,
        announced=record.announced,
        digests=record.digests,
    )
