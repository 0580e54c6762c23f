"""The life of an upload's record, as pure transitions: a slot and an event give the next slot, or an error.

There is no I/O here and no clock; times are arguments. A store reads a slot, calls a transition and swaps the result
in, provided that the slot has not changed meanwhile. What concerns only a medium, such as locks, or data that is
shorter than its record, stays with the store.

Laws of this room, which ``tests/unit/test_ledger.py`` proves:

1. Each change raises the sequence by one. The generation never decreases, and an older one counts nothing.
2. The offset never decreases, and never goes past the length. A length that is settled never changes.
3. An upload that was accepted, rejected or terminated takes no more bytes and no other decision.
4. An upload that a client knows does not expire while it waits for the application. Attempts only grow.

A transition that changes nothing returns the slot that it was given. Arguments that recur: ``now``, in seconds since
1970; ``offset``, where the caller takes the upload to stand; ``length``, if the event settles it; ``is_known``, whether
the event shows that a client knows of the upload; ``completes``, whether the upload is complete where its length is
reached; ``generation``, that of the session, or of the upload when it was claimed. What was terminated is
:class:`~tus.errors.UploadGone` for every transition but :func:`terminate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tus.errors import BadRequest, InconsistentLength, OffsetMismatch, TooLarge, UploadGone, UploadReplaced
from tus.models import State
from tus.stores.slots import Lifetimes, Slot

MAX_WATCHERS: Final = 16  # final uploads that may wait for one part
TOO_MANY_WATCHERS: Final = f"More than {MAX_WATCHERS} final uploads wait for one of these parts."

_PENDING = (State.COMPLETE, State.HANDING_OVER)


# -- Receiving --


def create(
    *,
    length: int | None,
    now: float,
    lifetimes: Lifetimes,
    is_known: bool = True,
    is_final: bool = False,
    expires_at: float | None = None,
) -> Slot:
    """Return the first slot of an upload; one of length 0 is complete at once, unless it is to be joined from parts.

    It expires at ``expires_at``, or else after its lifetime; from the first byte on, the lifetime counts.
    """
    is_whole = length == 0 and not is_final
    return Slot(
        length=length,
        state=State.COMPLETE if is_whole else State.RECEIVING,
        expires_at=lifetimes.expiry(now) if expires_at is None else expires_at,
        is_known=is_known,
        since=now if is_whole else 0.0,
    )


def open(  # noqa: A001, the verb of the interface
    slot: Slot,
    *,
    offset: int,
    now: float,
    lifetimes: Lifetimes,
    length: int | None = None,
    is_known: bool = False,
    staged: bool = False,
    completes: bool = True,
) -> Slot:
    """Begin an append session, which ends the one before it.

    A ``staged`` session counts its bytes, and settles the length, only at its end.

    Raises:
        OffsetMismatch: the upload stands elsewhere, or takes no more bytes.
        InconsistentLength: another length is settled already.
    """
    check_offset(slot, offset)
    length = _settled(slot, None if staged else length)
    return _counted(slot, slot.generation + 1, offset, length, now, lifetimes, is_known, completes, True)


def count(
    slot: Slot,
    *,
    generation: int,
    offset: int,
    now: float,
    lifetimes: Lifetimes,
    length: int | None = None,
    completes: bool = True,
    writing: bool = False,
) -> Slot:
    """Count the bytes that a session has stored, which end at ``offset``; the last byte and "complete" are one change.

    The session goes on if it is ``writing``.

    Raises:
        UploadReplaced: a newer session or a fence has ended this one.
        TooLarge: the bytes go past the upload's length.
    """
    check_generation(slot, generation)
    if slot.state != State.RECEIVING and offset == slot.offset:
        return slot
    settled = _settled(slot, length)
    if settled is not None and offset > settled:
        raise TooLarge("These bytes go past the length of the upload.")
    if slot.state != State.RECEIVING or offset < slot.offset:
        raise OffsetMismatch(slot.offset)
    return _counted(slot, generation, offset, settled, now, lifetimes, False, completes, writing)


def append(
    slot: Slot,
    *,
    offset: int,
    end: int,
    now: float,
    lifetimes: Lifetimes,
    length: int | None = None,
    is_known: bool = False,
    completes: bool = True,
) -> Slot:
    """Open a session, count bytes up to ``end`` and close it, in one change. The errors are those of both."""
    check_offset(slot, offset)
    settled = _settled(slot, length)
    if settled is not None and end > settled:
        raise TooLarge("These bytes go past the length of the upload.")
    return _counted(slot, slot.generation + 1, end, settled, now, lifetimes, is_known, completes, False)


def complete(
    slot: Slot,
    *,
    offset: int,
    end: int,
    now: float,
    lifetimes: Lifetimes,
    length: int | None = None,
    is_known: bool = False,
    is_last: bool = False,
) -> Slot:
    """Append the last bytes, which end at ``end``, claim the upload and begin an attempt, in one change.

    For ``is_last`` see :func:`begin`.

    Raises:
        RequestError: as :func:`append`.
        InconsistentLength: the bytes do not reach the length.
    """
    if slot.state != State.RECEIVING or slot.offset != offset:
        check_offset(slot, offset)
    if end != slot.length or (length is not None and length != end):
        settled = _settled(slot, length)
        if settled is None or end < settled:
            raise InconsistentLength("These bytes do not reach the length of the upload.")
        if end > settled:
            raise TooLarge("These bytes go past the length of the upload.")
    return Slot(  # written out, because every small upload comes this way
        sequence=slot.sequence + 1,
        generation=slot.generation + 1,
        offset=end,
        length=end,
        state=State.HANDING_OVER,
        expires_at=now + lifetimes.lifetime if lifetimes.lifetime else None,
        is_known=is_known or slot.is_known,
        attempts=slot.attempts + 1,
        since=now,
        is_aside=is_last,
    )


def fence(slot: Slot) -> Slot:
    """End the session that may be open; an upload that is complete has none."""
    _check_there(slot)
    if slot.state != State.RECEIVING:
        return slot
    return _next(slot)


def leave(slot: Slot, *, generation: int) -> Slot:
    """End a session that has counted everything it wants to count.

    Raises:
        UploadReplaced: a newer session or a fence has ended this one.
    """
    check_generation(slot, generation)
    return slot._replace(sequence=slot.sequence + 1, writing=False) if slot.writing else slot


def check_offset(slot: Slot, offset: int) -> None:
    """Check that an append may begin at an offset.

    Raises:
        OffsetMismatch: the upload stands elsewhere, or takes no more bytes.
    """
    _check_there(slot)
    if slot.state != State.RECEIVING or slot.offset != offset:
        raise OffsetMismatch(slot.offset)


def check_generation(slot: Slot, generation: int) -> None:
    """Check that a session or a claim was not replaced.

    Raises:
        UploadReplaced: it was.
    """
    _check_there(slot)
    if slot.generation != generation:
        raise UploadReplaced()


def _check_there(slot: Slot) -> None:
    if slot.state == State.TERMINATED:
        raise UploadGone()


def _next(slot: Slot, **changes: Any) -> Slot:
    """Return the next slot, which ends the session or the claim before it."""
    return slot._replace(sequence=slot.sequence + 1, generation=slot.generation + 1, writing=False, **changes)


def _settled(slot: Slot, length: int | None) -> int | None:
    """Return the length of the upload, given the one that an event may settle."""
    if slot.length is None:
        if length is not None and length < slot.offset:
            raise InconsistentLength("The upload has more bytes than that already.")
        return length
    if length is not None and length != slot.length:
        raise InconsistentLength("The upload has another length.")
    return slot.length


def _counted(
    slot: Slot,
    generation: int,
    offset: int,
    length: int | None,
    now: float,
    lifetimes: Lifetimes,
    is_known: bool,
    completes: bool,
    writing: bool,
) -> Slot:
    is_whole = completes and offset == length
    return Slot(
        sequence=slot.sequence + 1,
        generation=generation,
        offset=offset,
        length=length,
        state=State.COMPLETE if is_whole else State.RECEIVING,
        expires_at=lifetimes.expiry(now),
        writing=writing and not is_whole,
        is_known=is_known or slot.is_known,
        attempts=slot.attempts,
        since=now if is_whole else 0.0,
    )


# -- Hand-over --


def claim(slot: Slot) -> Slot:
    """Take the right to hand an upload over, in a store whose claims are leases; the claim before it ends."""
    _check_there(slot)
    if slot.state not in _PENDING:
        return slot
    return _next(slot)


def begin(slot: Slot, *, generation: int, now: float, is_known: bool = False, is_last: bool = False) -> Slot:
    """Record one more attempt before it is made.

    If it ``is_last``, the upload is set aside unless this attempt has a result, even if the process crashes.

    Raises:
        UploadReplaced: the upload is not the caller's any more.
    """
    check_claim(slot, generation)
    is_known = is_known or slot.is_known
    attempts = slot.attempts + 1
    return _next(slot, state=State.HANDING_OVER, is_known=is_known, attempts=attempts, since=now, is_aside=is_last)


def accept(slot: Slot, *, generation: int, now: float, lifetimes: Lifetimes) -> Slot:
    """Record that the application has the upload. The errors are those of :func:`begin`."""
    return _decided(slot, generation, State.ACCEPTED, now, now + lifetimes.completed_keep)


def reject(slot: Slot, *, generation: int, now: float, lifetimes: Lifetimes) -> Slot:
    """Record that the application does not want the upload. The errors are those of :func:`begin`."""
    return _decided(slot, generation, State.REJECTED, now, now + lifetimes.rejected_keep)


def _decided(slot: Slot, generation: int, state: State, now: float, expires_at: float) -> Slot:
    if slot.generation != generation or slot.state not in _PENDING:
        check_claim(slot, generation)
    return Slot(
        sequence=slot.sequence + 1,
        generation=generation + 1,
        offset=slot.offset,
        length=slot.length,
        state=state,
        expires_at=expires_at,
        is_known=slot.is_known,
        attempts=slot.attempts,
        since=now,
    )


def release(slot: Slot, *, generation: int, now: float) -> Slot:
    """Give a claim back; an attempt that had begun has no result. The errors are those of :func:`begin`."""
    check_claim(slot, generation)
    if slot.state != State.HANDING_OVER:
        return slot
    return _next(slot, state=State.COMPLETE, since=now)


def check_claim(slot: Slot, generation: int) -> None:
    """Check that a claim still holds.

    Raises:
        UploadReplaced: another caller has claimed the upload, or it is decided, or its data was lost.
    """
    check_generation(slot, generation)
    if slot.state not in _PENDING:
        raise UploadReplaced()


def promise(slot: Slot) -> Slot:
    """Record that a client knows of the upload."""
    _check_there(slot)
    return slot if slot.is_known else slot._replace(sequence=slot.sequence + 1, is_known=True)


# -- Concatenation --


def watch(watchers: Sequence[str], final_id: str) -> tuple[str, ...]:
    """Return the final uploads that wait for a part, with one more.

    Raises:
        BadRequest: :data:`MAX_WATCHERS` wait for it already.
    """
    if final_id in watchers:
        return tuple(watchers)
    if len(watchers) >= MAX_WATCHERS:
        raise BadRequest(TOO_MANY_WATCHERS)
    return (*watchers, final_id)


def prolong(slot: Slot, *, now: float, lifetimes: Lifetimes) -> Slot:
    """Let an upload live as long as one that gets a byte now, unless its hand-over has begun."""
    _check_there(slot)
    if slot.state not in (State.RECEIVING, State.COMPLETE):
        return slot
    return slot._replace(sequence=slot.sequence + 1, expires_at=lifetimes.expiry(now))


def join(slot: Slot, *, size: int, now: float, lifetimes: Lifetimes) -> Slot:
    """Complete a final upload, which was filled with its parts. The errors are those of :func:`append`."""
    return append(slot, offset=slot.offset, end=size, length=size, now=now, lifetimes=lifetimes)


# -- The end --


def has_expired(slot: Slot, *, now: float, is_partial: bool) -> bool:
    """Return whether an upload may be removed; ``is_partial`` is :attr:`~tus.models.Upload.is_partial`."""
    is_due = slot.expires_at is not None and now >= slot.expires_at
    is_kept = slot.is_known and not is_partial and slot.state in _PENDING
    return is_due and not is_kept


def expire(slot: Slot, *, now: float, is_partial: bool) -> Slot:
    """Terminate an upload that has expired; one that has not stays as it is."""
    return terminate(slot) if has_expired(slot, now=now, is_partial=is_partial) else slot


def terminate(slot: Slot) -> Slot:
    """End the upload; a session that has it open sees that by the slot."""
    if slot.state == State.TERMINATED:
        return slot
    return _next(slot, state=State.TERMINATED, expires_at=None)


# -- Where the medium has lost data --


def shorten(slot: Slot, size: int) -> Slot:
    """Return where an upload goes on whose data is shorter than its record says; the next change writes that down."""
    return slot._replace(offset=size, state=State.RECEIVING, since=0.0) if size < slot.offset else slot
