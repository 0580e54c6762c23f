"""The life of an upload's record, as pure transitions: a slot and an event give the next slot, or an error.

There is no I/O here and no clock; times are arguments. A store reads a slot, calls a transition and writes the result,
unless the slot has changed meanwhile. Facts of one medium stay with its store, such as locks, and data that is shorter
than its record.

Laws of this room, which ``tests/unit/test_ledger.py`` proves:

1. Each change raises the sequence by one. The generation never decreases, and an older generation counts nothing.
2. The offset never decreases, and never exceeds the length. A length that is set never changes.
3. An upload that was accepted, rejected or terminated takes no more bytes and no other decision.
4. An upload that a client knows does not expire while it waits for the application. Attempts only grow.
5. After the machine was restarted, or bytes could not be forced to the disk, only the synced bytes count.

A transition that changes nothing returns the given slot. For a terminated upload every transition but
:func:`terminate` raises :class:`~tus.errors.UploadGone`. These arguments recur:

- ``now``: in seconds since 1970;
- ``offset``: the expected offset;
- ``length``: the length, if the event sets it;
- ``is_known``: whether the event shows that a client knows the upload;
- ``completes``: whether the upload is complete when its length is reached;
- ``generation``: the generation of the session, or of the upload when it was claimed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tus.errors import BadRequest, InconsistentLength, OffsetMismatch, TooLarge, UploadGone, UploadReplaced
from tus.models import State, Upload
from tus.stores.slots import NO_BOOT, Lifetimes, Slot

MAX_WATCHERS: Final = 16  # final uploads that may wait for one part
_TOO_MANY_BYTES: Final = "These bytes exceed the length of the upload."
TOO_MANY_WATCHERS: Final = f"More than {MAX_WATCHERS} final uploads wait for one of these parts."

_PENDING = (State.COMPLETE, State.HANDING_OVER)
_DECIDED = (State.ACCEPTED, State.REJECTED, State.TERMINATED)


# -- Receiving --


def create(
    *,
    length: int | None,
    now: float,
    lifetimes: Lifetimes,
    is_known: bool = True,
    is_final: bool = False,
    expires_at: float | None = None,
    boot: bytes = NO_BOOT,
    ends_with_boot: bool = False,
) -> Slot:
    """Return the first slot of an upload. An upload of length 0 is complete at once, unless it is a final upload.

    It expires at ``expires_at``, or else after its lifetime. After the first byte only the lifetime counts.
    """
    is_whole = length == 0 and not is_final
    if expires_at is None and lifetimes.lifetime:
        expires_at = now + lifetimes.lifetime
    return Slot(
        length=length,
        state=State.COMPLETE if is_whole else State.RECEIVING,
        expires_at=expires_at,
        is_known=is_known,
        since=now if is_whole else 0.0,
        boot=boot,
        ends_with_boot=ends_with_boot,
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
    """Begin an append session, which ends the previous session.

    A ``staged`` session counts its bytes, and sets the length, only at its end.

    Raises:
        OffsetMismatch: the upload has another offset, or takes no more bytes.
        InconsistentLength: another length is set already.
    """
    check_offset(slot, offset)
    length = _length_after(slot, None if staged else length)
    return _count_to(slot, slot.generation + 1, offset, length, now, lifetimes, is_known, completes, True)


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
    """Count the stored bytes of a session, which end at ``offset``; the last byte and "complete" are one change.

    The session goes on if it is ``writing``.

    Raises:
        UploadReplaced: a newer session or a fence has ended this session.
        TooLarge: the bytes exceed the upload's length.
    """
    check_generation(slot, generation)
    if slot.state != State.RECEIVING and offset == slot.offset:
        return slot
    new_length = _length_after(slot, length)
    if new_length is not None and offset > new_length:
        raise TooLarge(_TOO_MANY_BYTES)
    if slot.state != State.RECEIVING or offset < slot.offset:
        raise OffsetMismatch(slot.offset)
    return _count_to(slot, generation, offset, new_length, now, lifetimes, False, completes, writing)


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
    """Open a session, count bytes up to ``end`` and close it, in one change.

    Raises:
        RequestError: the same as :func:`open` and :func:`count`.
    """
    check_offset(slot, offset)
    new_length = _length_after(slot, length)
    if new_length is not None and end > new_length:
        raise TooLarge(_TOO_MANY_BYTES)
    return _count_to(slot, slot.generation + 1, end, new_length, now, lifetimes, is_known, completes, False)


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
    is_synced: bool = False,
) -> Slot:
    """Append the last bytes, which end at ``end``, claim the upload and begin an attempt, in one change.

    For ``is_last`` see :func:`begin`. ``is_synced`` tells that the whole data was forced to the disk.

    Raises:
        RequestError: the same as :func:`append`.
        InconsistentLength: the bytes do not reach the length.
    """
    if slot.state != State.RECEIVING or slot.offset != offset:
        check_offset(slot, offset)
    if end != slot.length or (length is not None and length != end):
        new_length = _length_after(slot, length)
        if new_length is None or end < new_length:
            raise InconsistentLength("These bytes do not reach the length of the upload.")
        if end > new_length:
            raise TooLarge(_TOO_MANY_BYTES)
    return Slot(  # written out for speed, because every small upload needs it
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
        synced=end if is_synced else slot.synced,
        boot=slot.boot,
        ends_with_boot=slot.ends_with_boot,
        losses=slot.losses,
    )


def fence(slot: Slot) -> Slot:
    """End the session, if one is open; a complete upload has none."""
    _check_there(slot)
    if slot.state != State.RECEIVING:
        return slot
    return _next(slot)


def leave(slot: Slot, *, generation: int) -> Slot:
    """Record the end of a session that has counted its bytes.

    Raises:
        UploadReplaced: a newer session or a fence has ended this session.
    """
    check_generation(slot, generation)
    return slot._replace(sequence=slot.sequence + 1, writing=False) if slot.writing else slot


def check_offset(slot: Slot, offset: int) -> None:
    """Check that an append may begin at an offset.

    Raises:
        OffsetMismatch: the upload has another offset, or takes no more bytes.
    """
    _check_there(slot)
    if slot.state != State.RECEIVING or slot.offset != offset:
        raise OffsetMismatch(slot.offset)


def check_generation(slot: Slot, generation: int) -> None:
    """Check that a session or a claim was not replaced.

    Raises:
        UploadReplaced: a newer session, claim or fence has replaced it.
    """
    _check_there(slot)
    if slot.generation != generation:
        raise UploadReplaced()


def _check_there(slot: Slot) -> None:
    if slot.state == State.TERMINATED:
        raise UploadGone()


def _next(slot: Slot, **changes: Any) -> Slot:
    """Return the next slot, which ends the previous session or claim."""
    return slot._replace(sequence=slot.sequence + 1, generation=slot.generation + 1, writing=False, **changes)


def _length_after(slot: Slot, length: int | None) -> int | None:
    """Return the length of the upload after an event that may set it."""
    if slot.length is None:
        if length is not None and length < slot.offset:
            raise InconsistentLength("The upload already has more bytes than this length.")
        return length
    if length is not None and length != slot.length:
        raise InconsistentLength("The upload has another length.")
    return slot.length


def _count_to(
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
        synced=slot.synced,
        boot=slot.boot,
        ends_with_boot=slot.ends_with_boot,
        losses=slot.losses,
    )


# -- Hand-over --


def claim(slot: Slot) -> Slot:
    """Claim an upload for its hand-over, in a store whose claims are leases; this ends the previous claim."""
    _check_there(slot)
    if slot.state not in _PENDING:
        return slot
    return _next(slot)


def begin(
    slot: Slot,
    *,
    generation: int,
    now: float,
    is_known: bool = False,
    is_last: bool = False,
    is_durable: bool = False,
) -> Slot:
    """Record one more attempt before it is made.

    If it ``is_last``, the upload is set aside unless this attempt has a result, even if the process crashes. For
    ``is_durable`` see :class:`~tus.stores.slots.Slot`.

    Raises:
        UploadReplaced: the claim no longer holds.
    """
    check_claim(slot, generation)
    is_known = is_known or slot.is_known
    attempts = slot.attempts + 1
    is_durable = is_durable or slot.is_durable
    return _next(
        slot,
        state=State.HANDING_OVER,
        is_known=is_known,
        attempts=attempts,
        since=now,
        is_aside=is_last,
        is_durable=is_durable,
    )


UNTAKEN_KEEP: Final = 86400.0  # seconds that data is kept which the application has accepted and not taken


def accept(slot: Slot, *, generation: int, now: float, lifetimes: Lifetimes, keeps: bool = False) -> Slot:
    """Record that the application has accepted the upload; ``keeps`` is for data that it has not taken.

    Raises:
        UploadReplaced: the claim no longer holds.
    """
    kept = lifetimes.completed_keep or (UNTAKEN_KEEP if keeps else 0)
    return _decide(slot, generation, State.ACCEPTED, now, now + kept)


def reject(slot: Slot, *, generation: int, now: float, lifetimes: Lifetimes) -> Slot:
    """Record that the application has rejected the upload.

    Raises:
        UploadReplaced: the claim no longer holds.
    """
    return _decide(slot, generation, State.REJECTED, now, now + lifetimes.rejected_keep)


def _decide(slot: Slot, generation: int, state: State, now: float, expires_at: float) -> Slot:
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
        synced=slot.synced,
        boot=slot.boot,
        ends_with_boot=slot.ends_with_boot,
        losses=slot.losses,
    )


def release(slot: Slot, *, generation: int, now: float, is_durable: bool = False) -> Slot:
    """Release a claim; an attempt that had begun has no result.

    For ``is_durable`` see :class:`~tus.stores.slots.Slot`.

    Raises:
        UploadReplaced: the claim no longer holds.
    """
    check_claim(slot, generation)
    if slot.state != State.HANDING_OVER:
        return slot
    return _next(slot, state=State.COMPLETE, since=now, is_durable=is_durable or slot.is_durable)


def check_claim(slot: Slot, generation: int) -> None:
    """Check that a claim still holds.

    Raises:
        UploadReplaced: another caller has claimed the upload, the upload is decided, or its data was lost.
    """
    check_generation(slot, generation)
    if slot.state not in _PENDING:
        raise UploadReplaced()


def promise(slot: Slot) -> Slot:
    """Record that a client knows the upload."""
    _check_there(slot)
    return slot if slot.is_known else slot._replace(sequence=slot.sequence + 1, is_known=True)


def withdraw(slot: Slot) -> Slot:
    """Record that no client learned of the upload, because the promise could not be forced to the disk."""
    return slot._replace(sequence=slot.sequence + 1, is_known=False)


# -- Concatenation --


def watch(watchers: Sequence[str], final_id: str) -> tuple[str, ...]:
    """Return the final uploads that wait for a part, with one added.

    Raises:
        BadRequest: :data:`MAX_WATCHERS` final uploads wait for the part already.
    """
    if final_id in watchers:
        return tuple(watchers)
    if len(watchers) >= MAX_WATCHERS:
        raise BadRequest(TOO_MANY_WATCHERS)
    return (*watchers, final_id)


PROLONG_EVERY: Final = 60.0  # seconds


def prolong(slot: Slot, *, now: float, lifetimes: Lifetimes) -> Slot:
    """Extend the life of an upload as if it got a byte now, unless its hand-over has begun.

    Nothing changes if that would add less than a minute, or a tenth of its lifetime.
    """
    _check_there(slot)
    if slot.state not in (State.RECEIVING, State.COMPLETE):
        return slot
    before, expires_at = slot.expires_at, lifetimes.expiry(now)
    if before is None or expires_at is None:
        return slot if before == expires_at else slot._replace(sequence=slot.sequence + 1, expires_at=expires_at)
    if 0 <= expires_at - before < min(PROLONG_EVERY, lifetimes.lifetime / 10):
        return slot
    return slot._replace(sequence=slot.sequence + 1, expires_at=expires_at)


def join(slot: Slot, *, size: int, now: float, lifetimes: Lifetimes) -> Slot:
    """Complete a final upload after it was filled with its parts.

    Raises:
        RequestError: the same as :func:`append`.
    """
    joined = append(slot, offset=slot.offset, end=size, length=size, now=now, lifetimes=lifetimes)
    return joined._replace(ends_with_boot=True)  # no request fills it again


# -- The end --


def has_expired(slot: Slot, *, now: float, is_partial: bool) -> bool:
    """Return whether an upload has expired; ``is_partial`` is :attr:`~tus.models.Upload.is_partial`."""
    is_due = slot.expires_at is not None and now >= slot.expires_at
    is_kept = slot.is_known and not is_partial and slot.state in _PENDING
    return is_due and not is_kept


def expire(slot: Slot, *, now: float, is_partial: bool) -> Slot:
    """Terminate an upload that has expired; return another slot unchanged."""
    return terminate(slot) if has_expired(slot, now=now, is_partial=is_partial) else slot


def is_too_far(upload: Upload, *, now: float, lifetimes: Lifetimes) -> bool:
    """Return whether an upload expires later than it could if it got its last byte, or its decision, now.

    Then the clock was wrong. An upload without bytes may have a longer life of its own, from its creation on.
    """
    longest = _longest_life(upload.state, lifetimes)
    if upload.expires_at is None or not longest:
        return False
    if not upload.offset:
        longest = max(longest, upload.expires_at - upload.created_at)
    return upload.expires_at > now + longest


def is_at_rest(slot: Slot, *, now: float, lifetimes: Lifetimes) -> bool:
    """Return whether a sweep must only count an upload, whatever the record of its creation says."""
    if slot.state in _PENDING or slot.state == State.TERMINATED:
        return False
    return slot.expires_at is None or now < slot.expires_at <= now + _longest_life(slot.state, lifetimes)


def _longest_life(state: State, lifetimes: Lifetimes) -> float:
    if state == State.ACCEPTED:
        return max(lifetimes.completed_keep, UNTAKEN_KEEP)
    return lifetimes.rejected_keep if state == State.REJECTED else lifetimes.lifetime


def renew(slot: Slot, *, now: float, lifetimes: Lifetimes) -> Slot:
    """Let an upload live as if it got its last byte, or its decision, now: a clock that was wrong has set its end."""
    _check_there(slot)
    longest = _longest_life(slot.state, lifetimes)
    return slot._replace(sequence=slot.sequence + 1, expires_at=now + longest if longest else None)


def terminate(slot: Slot) -> Slot:
    """End the upload; an open session learns it from the slot."""
    if slot.state == State.TERMINATED:
        return slot
    return _next(slot, state=State.TERMINATED, expires_at=None)


# -- Lost data --


def shorten(slot: Slot, size: int) -> Slot:
    """Return the slot from which an upload goes on after a loss of data; the next change records it."""
    if size >= slot.offset:
        return slot
    synced, losses = min(slot.synced, size), slot.losses + 1
    return slot._replace(offset=size, state=State.RECEIVING, since=0.0, synced=synced, losses=losses, is_durable=False)


def force(slot: Slot, size: int, losses: int) -> Slot:
    """Record that the first ``size`` bytes were forced to the disk, when there had been so many ``losses``."""
    _check_there(slot)
    if losses != slot.losses or not slot.synced < size <= slot.offset:
        return slot
    return slot._replace(sequence=slot.sequence + 1, synced=size)


def settle(slot: Slot) -> Slot:
    """Record that the complete file, its record and its name were forced to the disk."""
    return slot if slot.is_durable else slot._replace(sequence=slot.sequence + 1, is_durable=True)


def doubt(slot: Slot, synced: int | None = None) -> Slot:
    """Record that bytes could not be forced to the disk; this ends the session or the claim.

    The system reports such an error once. After it, the bytes that are read may differ from those on the disk, and
    forcing them again proves nothing. So the bytes that were not synced before are lost for ever.

    Args:
        slot: the slot.
        synced: the bytes that were synced when it began; by default those of the slot.
    """
    if slot.state in (State.ACCEPTED, State.TERMINATED):
        return slot
    synced = slot.synced if synced is None else min(synced, slot.synced)
    return _next(slot, boot=NO_BOOT, synced=synced, losses=slot.losses + 1)


def trust(slot: Slot, boot: bytes) -> Slot:
    """Return what is certain of a slot in a boot of the machine; the next change records it.

    A slot of this boot is certain. Of another one the machine may have crashed: counted bytes that were not synced may
    be zeros now. Also, later slots may be lost, and with them an offset that a client knows.
    """
    if slot.boot == boot or slot.state in _DECIDED:
        return slot
    is_whole = slot.state in _PENDING and slot.synced >= slot.offset
    if slot.ends_with_boot and not is_whole:
        return slot._replace(state=State.TERMINATED, expires_at=None, writing=False)
    is_durable = is_whole and (slot.is_durable or slot.boot != NO_BOOT)  # what another boot has left was on the disk
    return shorten(slot, slot.synced)._replace(boot=boot, writing=False, is_durable=is_durable)
