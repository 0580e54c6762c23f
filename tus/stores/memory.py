"""Uploads in memory: the executable specification of a store, for tests and for reading.

Everything happens under one lock, so what it does is what :mod:`tus.stores.interface` says, in the fewest words.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from threading import RLock
from types import TracebackType
from typing import Any, BinaryIO, Self

from tus.errors import BadRequest, OffsetMismatch, UploadGone, UploadLocked, UploadNotFound, UploadReplaced
from tus.models import Block, Response, State, Upload
from tus.stores.interface import MAX_WATCHERS, TOO_MANY_WATCHERS


@dataclass
class _Entry:
    upload: Upload
    data: bytearray = field(default_factory=bytearray)
    generation: int = 0
    claimed: bool = False
    watchers: list[str] = field(default_factory=list)


class MemoryStore:
    """A :class:`~tus.stores.interface.Store` that forgets everything with the process.

    Args:
        lifetime: seconds after its last byte that an unfinished upload is kept; 0 means for ever.
        completed_keep: seconds that the record of an accepted upload is kept.
        keep_finished: whether its data is kept as long.
        rejected_keep: seconds that a rejected upload is kept.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        *,
        lifetime: float = 86400,
        completed_keep: float = 86400,
        keep_finished: bool = False,
        rejected_keep: float = 86400,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._lifetime = lifetime
        self._completed_keep = completed_keep
        self._keep_finished = keep_finished
        self._rejected_keep = rejected_keep
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._lock = RLock()

    def _entry(self, upload_id: str) -> _Entry:
        try:
            return self._entries[upload_id]
        except KeyError:
            raise UploadNotFound() from None

    def _expiry(self) -> float | None:
        return self._clock() + self._lifetime if self._lifetime else None

    def create(self, draft: Upload) -> Upload:
        with self._lock:
            upload_id = draft.id or secrets.token_hex(16)
            if upload_id not in self._entries:
                done = draft.length == 0 and not draft.is_final
                upload = replace(
                    draft,
                    id=upload_id,
                    created_at=self._clock(),
                    expires_at=self._expiry(),
                    state=State.COMPLETE if done else State.RECEIVING,
                    since=self._clock() if done else 0.0,
                )
                self._entries[upload_id] = _Entry(upload)
            return self._entries[upload_id].upload

    def load(self, upload_id: str) -> Upload:
        return self._entry(upload_id).upload

    def read(self, upload: Upload) -> tuple[BinaryIO, float]:
        entry = self._entry(upload.id)
        if entry.upload.state == State.ACCEPTED and not self._keep_finished:
            raise UploadGone()
        return io.BytesIO(entry.data), entry.upload.created_at

    def list(self) -> Iterator[Upload]:
        return iter([entry.upload for entry in self._entries.values()])

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
            if entry.upload.offset != offset or entry.upload.state != State.RECEIVING:
                raise OffsetMismatch(entry.upload.offset)
            entry.generation += 1
            session = _Session(self, entry, length, staged, completes)
            if upload.is_known:
                entry.upload = replace(entry.upload, is_known=True)
            if not staged:
                self._count(entry, offset, length, completes)
            return session

    def append(
        self, upload: Upload, offset: int, block: Block, length: int | None = None, completes: bool = True
    ) -> Upload:
        with self._lock, self.open(upload, offset, length, completes=completes) as session:
            session.write(block)
            return session.commit()

    def fence(self, upload: Upload) -> Upload:
        with self._lock:
            entry = self._entry(upload.id)
            entry.generation += 1
            return entry.upload

    def _count(self, entry: _Entry, offset: int, length: int | None, completes: bool = True) -> None:
        length = entry.upload.length if length is None else length
        done = completes and offset == length
        state, since = (State.COMPLETE, self._clock()) if done else (State.RECEIVING, 0.0)
        entry.upload = replace(
            entry.upload, offset=offset, length=length, state=state, since=since, expires_at=self._expiry()
        )

    def claim(self, upload: Upload) -> _Claim:
        with self._lock:
            entry = self._entry(upload.id)
            if entry.upload.is_pending:
                if entry.claimed:
                    raise UploadLocked()
                entry.claimed = True
            return _Claim(self, entry, upload.is_known)

    def promise(self, upload: Upload) -> Upload:
        with self._lock:
            entry = self._entry(upload.id)
            if entry.claimed and not entry.upload.is_known:
                raise UploadLocked()
            entry.upload = replace(entry.upload, is_known=True)
            return entry.upload

    def remove(self, upload_id: str) -> None:
        with self._lock:
            entry = self._entry(upload_id)
            if entry.claimed:
                raise UploadLocked()
            entry.generation += 1
            del self._entries[upload_id]

    def sweep(self, at_most_every: float = 0) -> int:
        with self._lock:
            due = [key for key, entry in self._entries.items() if entry.upload.has_expired(self._clock())]
            for upload_id in due:
                self.remove(upload_id)
            return len(due)

    def watch(self, part_id: str, final_id: str) -> Upload:
        with self._lock:
            part = self._entry(part_id)
            if final_id not in part.watchers:
                if len(part.watchers) >= MAX_WATCHERS:
                    raise BadRequest(TOO_MANY_WATCHERS)
                part.watchers.append(final_id)
            return part.upload

    def finals_of(self, part_id: str) -> Sequence[str]:
        return tuple(self._entry(part_id).watchers)

    def touch(self, final_id: str) -> None:
        with self._lock:
            final = self._entry(final_id)
            for upload_id in (final_id, *final.upload.parts):
                entry = self._entries.get(upload_id)
                if entry is not None and entry.upload.state in (State.RECEIVING, State.COMPLETE):
                    entry.upload = replace(entry.upload, expires_at=self._expiry())

    def concatenate(self, final_id: str, parts: Sequence[Upload]) -> Upload:
        with self._lock:
            final = self._entry(final_id)
            if final.upload.state == State.RECEIVING:
                try:
                    final.data[:] = b"".join(self._entries[part.id].data for part in parts)
                except KeyError:
                    raise UploadGone("A part of this upload is gone; create the parts again.") from None
                self._count(final, len(final.data), len(final.data))
            return final.upload


class _Session:
    def __init__(self, store: MemoryStore, entry: _Entry, length: int | None, staged: bool, completes: bool) -> None:
        self._completes = completes
        self._store = store
        self._entry = entry
        self._length = length
        self._generation = entry.generation
        self._staged: bytearray | None = bytearray() if staged else None

    @property
    def upload(self) -> Upload:
        return self._entry.upload

    def write(self, *blocks: Block) -> None:
        with self._store._lock:
            self._check()
            if self._staged is not None:
                self._staged += b"".join(blocks)
                return
            self._entry.data += b"".join(blocks)
            self._count()

    def _count(self) -> None:
        self._store._count(self._entry, len(self._entry.data), self._length, self._completes)

    def _check(self) -> None:
        if self._entry.upload.id not in self._store._entries:
            raise UploadGone()
        if self._entry.generation != self._generation:
            raise UploadReplaced()

    def is_current(self) -> bool:
        return self._entry.generation == self._generation and self._entry.upload.id in self._store._entries

    def commit(self, ends: bool = False) -> Upload:
        with self._store._lock:
            ends = ends and self._entry.upload.length is None
            if self._staged is not None or ends:
                self._check()
                self._entry.data += self._staged or b""
                self._length = len(self._entry.data) if ends else self._length
                self._count()
            return self._entry.upload

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class _Claim:
    def __init__(self, store: MemoryStore, entry: _Entry, is_known: bool) -> None:
        self._store = store
        self._entry = entry
        self._is_known = is_known
        self._is_held = entry.claimed
        self.upload = entry.upload

    def _change(self, state: State, expires_at: float | None, **others: Any) -> None:
        self.upload = replace(
            self._entry.upload, state=state, expires_at=expires_at, since=self._store._clock(), **others
        )
        self._entry.upload = self.upload

    def open(self) -> BinaryIO:
        return io.BytesIO(self._entry.data)

    def digest(self) -> Upload:
        with self._store._lock:
            digests = tuple((name, hashlib.new(name, self._entry.data).digest()) for name in self.upload.hashes)
            self.upload = self._entry.upload = replace(self._entry.upload, digests=digests)
            return self.upload

    def begin(self, is_last: bool = False) -> Upload:
        with self._store._lock:
            now = self._entry.upload
            self._change(
                State.HANDING_OVER,
                now.expires_at,
                attempts=now.attempts + 1,
                is_known=now.is_known or self._is_known,
                is_aside=is_last,
            )
            return self.upload

    def accept(self, answer: Response | None = None) -> None:
        if not self._is_held:
            return
        with self._store._lock:
            expires_at = self._store._clock() + self._store._completed_keep
            self._change(State.ACCEPTED, expires_at, answer=answer, error=None, is_aside=False)
            if not self._store._keep_finished:
                self._entry.data.clear()
            self.release()
            if not self._store._completed_keep:
                with contextlib.suppress(UploadNotFound):
                    self._store.remove(self.upload.id)

    def reject(self, answer: Response | None = None) -> None:
        if not self._is_held:
            return
        with self._store._lock:
            expires_at = self._store._clock() + self._store._rejected_keep
            self._change(State.REJECTED, expires_at, answer=answer, error=None, is_aside=False)
            self.release()

    def release(self, error: str | None = None) -> None:
        if not self._is_held:
            return
        with self._store._lock:
            if self._entry.upload.state == State.HANDING_OVER:
                self._change(State.COMPLETE, self._entry.upload.expires_at, error=error)
            self._is_held = self._entry.claimed = False
