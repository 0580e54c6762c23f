"""Uploads in memory: the executable specification of a store, for tests and for reading.

The life of an upload is in :mod:`tus.stores.ledger`. This module is only a medium: a dictionary, under one lock. It can
behave as a store on another host does, which counts late and whose claims are leases.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from threading import RLock
from types import TracebackType
from typing import BinaryIO, Literal, Self

from tus.errors import (
    InconsistentLength,
    QuotaExceeded,
    RequestError,
    UploadGone,
    UploadLocked,
    UploadNotFound,
    UploadReplaced,
)
from tus.models import Block, Response, State, Upload
from tus.stores import ledger
from tus.stores.charges import Charge, Counts, charge_of, check_alone
from tus.stores.interface import Limits, is_waiting
from tus.stores.naming import SECRET_SIZE, id_from
from tus.stores.slots import Lifetimes, Slot, upload_of

_NO_CHARGE = Charge()


@dataclass
class _Entry:
    record: Upload  # the values that creation fixed, and the outcome of the hand-over
    slot: Slot
    data: bytearray = field(default_factory=bytearray)
    holder: _Claim | None = None
    watchers: tuple[str, ...] = ()
    is_kept: bool = True  # its data, after the decision
    charge: Charge = _NO_CHARGE
    charged_to: dict[_Session, int] = field(default_factory=dict)  # the end of the bytes that each session may store

    @property
    def upload(self) -> Upload:
        upload = upload_of(self.record, self.slot)
        if upload.state == State.HANDING_OVER and not self.is_claimed():
            return replace(upload, state=State.COMPLETE, error="the process crashed during the hand-over")
        return upload

    def is_claimed(self) -> bool:
        return self.holder is not None and not self.holder.has_lapsed()


class MemoryStore:
    """A :class:`~tus.stores.interface.Store` whose uploads end with the process.

    Args:
        lifetime: seconds after its last byte that an unfinished upload is kept; 0 means for ever.
        completed_keep: seconds that the record of an accepted upload is kept.
        keep_finished: whether the data of an accepted upload is kept as long as its record.
        rejected_keep: seconds that a rejected upload is kept.
        limits: the limits on the number and size of uploads.
        clock: returns the time in seconds since 1970.
        counts: when the bytes of a session are counted: "now", or as "late" as the interface allows.
        lease: seconds from the last renewal of a claim to its end; None if claims end with the process.
    """

    def __init__(
        self,
        *,
        lifetime: float = 86400,
        completed_keep: float = 86400,
        keep_finished: bool = False,
        rejected_keep: float = 86400,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.time,
        counts: Literal["now", "late"] = "now",
        lease: float | None = None,
    ) -> None:
        self._lifetimes = Lifetimes(lifetime=lifetime, completed_keep=completed_keep, rejected_keep=rejected_keep)
        self._keep_finished = keep_finished
        self.limits = limits or Limits()
        self._counts = Counts()
        self._clock = clock
        self._counts_now = counts == "now"
        self._lease = lease
        self._secret = secrets.token_bytes(SECRET_SIZE)
        self._entries: dict[str, _Entry] = {}
        self._lock = RLock()

    def _entry(self, upload_id: str) -> _Entry:
        try:
            return self._entries[upload_id]
        except KeyError:
            raise UploadNotFound() from None

    def create(self, draft: Upload) -> Upload:
        with self._lock:
            upload_id = draft.id or secrets.token_hex(16)
            if upload_id not in self._entries:
                charge = charge_of(draft)
                check_alone(self.limits, draft.principal, charge.size)
                self._counts.admit(self.limits, draft.principal, *charge)
                now = self._clock()
                slot = ledger.create(
                    length=draft.length,
                    now=now,
                    lifetimes=self._lifetimes,
                    is_known=draft.is_known,
                    is_final=draft.is_final,
                    expires_at=draft.expires_at,
                )
                self._entries[upload_id] = _Entry(replace(draft, id=upload_id, created_at=now), slot, charge=charge)
            return self._entries[upload_id].upload

    # -- Limits --

    def _charge_length(self, entry: _Entry, length: int | None) -> None:
        """Charge a length before it is set."""
        if length is not None and entry.slot.length is None:
            check_alone(self.limits, entry.record.principal, length)
            size = max(length - entry.charge.size, 0)
            self._counts.admit(self.limits, entry.record.principal, 0, size)
            entry.charge = Charge(1, entry.charge.size + size)

    def _charge_to(self, entry: _Entry, end: int, session: _Session | None = None) -> int:
        """Charge bytes up to an end, and return the end up to which they may be stored."""
        missing = end - entry.charge.size
        if missing <= 0 or entry.slot.length is not None:
            return end
        granted = self._counts.grant(self.limits, entry.record.principal, missing)
        entry.charge = Charge(1, entry.charge.size + granted)
        if session is not None:
            entry.charged_to[session] = entry.charge.size
        return entry.charge.size

    def _settle(self, entry: _Entry) -> None:
        """Charge an entry for what it is now, and for what its sessions may still store."""
        uploads, size = charge_of(entry.upload, entry.is_kept)
        if uploads:
            size = max(size, *entry.charged_to.values(), 0)
        before, entry.charge = entry.charge, Charge(uploads, size)
        self._counts.add(entry.record.principal, uploads - before.uploads, size - before.size)

    def id_for(self, text: str) -> str:
        return id_from(self._secret, text)

    def create_once(self, draft: Upload) -> Upload | None:
        with self._lock:
            if (entry := self._entries.get(draft.id)) is not None:
                self._expire(entry)
            return None if draft.id in self._entries else self.create(draft)

    def load(self, upload_id: str) -> Upload:
        return self._entry(upload_id).upload

    def read(self, upload: Upload) -> tuple[BinaryIO, float]:
        entry = self._entry(upload.id)
        if entry.slot.state == State.ACCEPTED and not entry.is_kept:
            raise UploadGone()
        return io.BytesIO(entry.data), entry.record.created_at

    def list(self) -> Iterator[Upload]:
        return iter([entry.upload for entry in list(self._entries.values())])

    # -- Appending --

    def open(
        self,
        upload: Upload,
        offset: int,
        length: int | None = None,
        staged: bool = False,
        completes: bool = True,
    ) -> _Session:
        with self._lock:
            entry = self._entry(upload.id)
            try:
                self._charge_length(entry, length)
                charged = entry.charge.size
                entry.slot = ledger.open(
                    entry.slot,
                    offset=offset,
                    length=length,
                    now=self._clock(),
                    lifetimes=self._lifetimes,
                    is_known=upload.is_known,
                    staged=staged,
                    completes=completes,
                )
                session = _Session(self, entry, length, staged, completes)
                if entry.slot.length is None:
                    entry.charged_to[session] = charged
                return session
            finally:
                self._settle(entry)

    def append(
        self, upload: Upload, offset: int, block: Block, length: int | None = None, completes: bool = True
    ) -> Upload:
        with self._lock:
            entry = self._entry(upload.id)
            try:
                self._charge_length(entry, length)
                end = offset + len(block) if length is not None else self._charge_to(entry, offset + len(block))
                entry.slot = ledger.append(
                    entry.slot,
                    offset=offset,
                    end=end,
                    length=length,
                    now=self._clock(),
                    lifetimes=self._lifetimes,
                    is_known=upload.is_known,
                    completes=completes,
                )
                entry.data += block[: end - offset]
            finally:
                self._settle(entry)
            if end < offset + len(block):
                raise QuotaExceeded()
            return entry.upload

    def fence(self, upload: Upload) -> Upload:
        with self._lock:
            entry = self._entry(upload.id)
            entry.slot = ledger.fence(entry.slot)
            return entry.upload

    # -- Hand-over --

    def claim(self, upload: Upload) -> _Claim:
        with self._lock:
            entry = self._entry(upload.id)
            if not entry.upload.is_pending:
                return _Claim(self, entry, upload.is_known)
            if entry.is_claimed():
                raise UploadLocked()
            if self._lease is not None:
                entry.slot = ledger.claim(entry.slot)
            claim = _Claim(self, entry, upload.is_known)
            claim.take()
            return claim

    def pending(
        self, due_before: float, limit: int, is_wanted: Callable[[Upload], bool] = lambda upload: True
    ) -> Sequence[Upload]:
        with self._lock:
            waiting = [entry.upload for entry in self._entries.values() if not entry.is_claimed()]
        waiting = [upload for upload in waiting if is_waiting(upload, due_before) and is_wanted(upload)]
        return sorted(waiting, key=lambda upload: upload.since)[:limit]

    def can_complete(self, upload: Upload) -> bool:
        return not (upload.hashes or upload.concat or upload.parts)

    def complete(
        self, upload: Upload, offset: int, block: Block, length: int | None = None, is_last: bool = False
    ) -> _Claim:
        with self._lock:
            entry = self._entry(upload.id)
            try:
                self._charge_length(entry, length)
                entry.slot = ledger.complete(
                    entry.slot,
                    offset=offset,
                    end=offset + len(block),
                    length=length,
                    now=self._clock(),
                    lifetimes=self._lifetimes,
                    is_known=upload.is_known,
                    is_last=is_last,
                )
                entry.data += block
            finally:
                self._settle(entry)
            claim = _Claim(self, entry, upload.is_known)
            claim.take()
            return claim

    def create_whole(self, draft: Upload, block: Block, is_last: bool = False) -> _Claim:
        if draft.length != len(block):
            raise InconsistentLength("The number of bytes differs from the length of the upload.")
        with self._lock:
            upload = self.create(draft)
            if block:
                return self.complete(upload, 0, block, is_last=is_last)
            claim = self.claim(upload)
            claim.begin(is_last)
            return claim

    def promise(self, upload: Upload) -> Upload:
        with self._lock:
            entry = self._entry(upload.id)
            if entry.is_claimed() and not entry.slot.is_known:
                raise UploadLocked()
            entry.slot = ledger.promise(entry.slot)
            return entry.upload

    # -- Removing --

    def remove(self, upload_id: str) -> None:
        with self._lock:
            entry = self._entry(upload_id)
            if entry.is_claimed():
                raise UploadLocked()
            self._remove(entry, ledger.terminate(entry.slot))

    def _remove(self, entry: _Entry, slot: Slot) -> None:
        entry.slot, entry.is_kept = slot, False
        self._settle(entry)
        del self._entries[entry.record.id]

    def sweep(self, at_most_every: float = 0) -> int:
        removed = 0
        with self._lock:
            for entry in list(self._entries.values()):
                removed += self._expire(entry)
        return removed

    def _expire(self, entry: _Entry) -> bool:
        """Remove an upload if it has expired; return whether it has."""
        slot = ledger.expire(entry.slot, now=self._clock(), is_partial=entry.record.is_partial)
        if slot is entry.slot or entry.is_claimed():
            return False
        self._remove(entry, slot)
        return True

    # -- Concatenation --

    def watch(self, part_id: str, final_id: str) -> Upload:
        with self._lock:
            part = self._entry(part_id)
            part.watchers = ledger.watch(part.watchers, final_id)
            self._prolong(part_id)
            return part.upload

    def finals_of(self, part_id: str) -> Sequence[str]:
        return self._entry(part_id).watchers

    def touch(self, *final_ids: str) -> None:
        with self._lock:
            finals = [final_id for final_id in final_ids if final_id in self._entries and self._prolong(final_id)]
            for part_id in {part_id for final_id in finals for part_id in self._entries[final_id].record.parts}:
                if part_id in self._entries:
                    self._prolong(part_id)

    def _prolong(self, upload_id: str) -> bool:
        entry = self._entry(upload_id)
        before = entry.slot
        entry.slot = ledger.prolong(before, now=self._clock(), lifetimes=self._lifetimes)
        return entry.slot is not before

    def concatenate(self, final_id: str, parts: Sequence[Upload]) -> Upload:
        with self._lock:
            final = self._entry(final_id)
            if final.slot.state == State.RECEIVING:
                try:
                    data = b"".join(self._entries[part.id].data for part in parts)
                except KeyError:
                    raise UploadGone("A part of this upload is gone; create the parts again.") from None
                try:
                    self._charge_length(final, len(data))
                    final.slot = ledger.join(final.slot, size=len(data), now=self._clock(), lifetimes=self._lifetimes)
                    final.data[:] = data
                finally:
                    self._settle(final)
            return final.upload


class _Session:
    def __init__(self, store: MemoryStore, entry: _Entry, length: int | None, staged: bool, completes: bool) -> None:
        self._store = store
        self._entry = entry
        self._length = length
        self._staged = staged
        self._completes = completes
        self._generation = entry.slot.generation
        self._held = bytearray()  # written, but not counted

    @property
    def upload(self) -> Upload:
        return self._entry.upload

    def write(self, *blocks: Block) -> None:
        data = b"".join(blocks)
        with self._store._lock:
            if self._store._counts_now:
                ledger.check_generation(self._entry.slot, self._generation)
            start = len(self._entry.data) + len(self._held)
            end = self._store._charge_to(self._entry, start + len(data), self)
            self._held += data[: end - start]
            if self._store._counts_now:
                self.keep()
        if end < start + len(data):
            raise QuotaExceeded()

    def keep(self) -> Upload:
        with self._store._lock:
            if not self._staged and self._held:
                self._count(writing=True)
            return self.upload

    def _count(self, writing: bool) -> None:
        entry = self._entry
        entry.slot = ledger.count(
            entry.slot,
            generation=self._generation,
            offset=len(entry.data) + len(self._held),
            length=self._length,
            now=self._store._clock(),
            lifetimes=self._store._lifetimes,
            completes=self._completes,
            writing=writing,
        )
        entry.data += self._held
        self._held.clear()
        self._store._settle(entry)

    def is_current(self) -> bool:
        slot = self._entry.slot
        return slot.generation == self._generation and slot.state != State.TERMINATED

    def commit(self, ends: bool = False) -> Upload:
        with self._store._lock:
            if ends and self._entry.slot.length is None:
                self._length = len(self._entry.data) + len(self._held)
            elif not self._staged:
                return self.keep()
            self._staged = False
            self._count(writing=False)
            return self.upload

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._store._lock, contextlib.suppress(RequestError):
            try:
                self.keep()
                self._entry.slot = ledger.leave(self._entry.slot, generation=self._generation)
            finally:
                self._entry.charged_to.pop(self, None)
                self._store._settle(self._entry)


class _Claim:
    def __init__(self, store: MemoryStore, entry: _Entry, is_known: bool) -> None:
        self._store = store
        self._entry = entry
        self._is_known = is_known
        self._generation = entry.slot.generation
        self._is_held = False
        self._is_paused = False
        self._keeps = store._keep_finished
        self._beat = 0.0
        self.upload = entry.upload

    def take(self) -> None:
        self._is_held = True
        self._entry.holder = self
        self.upload = self._entry.upload

    def pause(self) -> None:
        """Stop renewing the lease, like a process that is stopped or has lost its connection."""
        self._beat, self._is_paused = self._store._clock(), True

    def has_lapsed(self) -> bool:
        lease = self._store._lease
        return self._is_paused and lease is not None and self._store._clock() - self._beat >= lease

    def _check(self) -> None:
        if self._entry.holder is not self:
            raise UploadReplaced()

    def _change(self, slot: Slot, **words: object) -> None:
        self._entry.slot = slot
        self._entry.record = replace(self._entry.record, **words)  # type: ignore[arg-type]
        self._generation = slot.generation
        self.upload = self._entry.upload

    def sync(self) -> None:
        pass

    def open(self) -> BinaryIO:
        return self._store.read(self.upload)[0]

    def digest(self) -> Upload:
        with self._store._lock:
            digests = tuple((name, hashlib.new(name, self._entry.data).digest()) for name in self.upload.hashes)
            self._change(self._entry.slot, digests=digests)
            return self.upload

    def begin(self, is_last: bool = False) -> Upload:
        with self._store._lock:
            self._check()
            self._change(
                ledger.begin(
                    self._entry.slot,
                    generation=self._generation,
                    now=self._store._clock(),
                    is_known=self._is_known,
                    is_last=is_last,
                )
            )
            return self.upload

    def keep(self) -> bool:
        changes, self._keeps = not self._keeps, True
        return changes

    def accept(self, answer: Response | None = None) -> None:
        with self._store._lock:
            if not self._is_held:
                return
            self._decide(partial(ledger.accept, keeps=self._keeps), answer, self._keeps)
            if not self._keeps:
                self._entry.data.clear()
            if not (self._keeps or self._store._lifetimes.completed_keep):
                with contextlib.suppress(UploadNotFound):
                    self._store.remove(self.upload.id)

    def reject(self, answer: Response | None = None) -> None:
        with self._store._lock:
            if self._is_held:
                self._decide(ledger.reject, answer)

    def _decide(self, decide: Callable[..., Slot], answer: Response | None, is_kept: bool = True) -> None:
        self._check()
        lifetimes = self._store._lifetimes
        slot = decide(self._entry.slot, generation=self._generation, now=self._store._clock(), lifetimes=lifetimes)
        self._entry.holder, self._is_held, self._entry.is_kept = None, False, is_kept
        self._change(slot, answer=answer, error=None)
        self._store._settle(self._entry)

    def release(self, error: str | None = None) -> None:
        with self._store._lock:
            if not self._is_held:
                return
            self._check()
            self._entry.holder, self._is_held = None, False
            before = self._entry.slot
            slot = ledger.release(before, generation=self._generation, now=self._store._clock())
            if slot is not before:
                self._change(slot, error=error)
