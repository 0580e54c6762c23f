"""The sinks that receive a request's body block by block, for ``Tus`` and ``AsyncTus``.

Both do ``with sink: while ...: if not sink.write(block): break`` and then ``sink.end(cut)``. Where no code needs to see
the bytes, the blocks can be in a pipe instead of memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Protocol, Self, cast

from tus.checksums import ALGORITHMS
from tus.errors import ChecksumMismatch, RequestError, StorageFull, UploadGone, UploadReplaced
from tus.filesystem.pipes import Pipe
from tus.models import Block, HookReply, Upload
from tus.protocols.bodies import Intake
from tus.protocols.effects import Peeked, Received
from tus.stores.interface import SMALL, AppendSession, PouringSession, Pours, Store

#: Gets the offset of an upload. Its reply may stop the upload.
OffsetListener = Callable[[int], HookReply | None]

_TELL_EVERY = 1.0  # seconds
_KEEP_AFTER = 5.0  # seconds of silence after which a store counts the written blocks


class Sink(Protocol):
    """The destination of a body."""

    def write(self, *blocks: Block) -> bool:
        """Take the next blocks, and return whether more are wanted. The caller may reuse the blocks after that."""

    def can_pour(self) -> bool:
        """Return whether :meth:`pour` costs less than :meth:`write`."""

    def pour(self, pipe: Pipe) -> bool:
        """Take the next bytes out of a pipe, and return whether more are wanted."""

    def is_wanted(self) -> bool:
        """Return whether more blocks are wanted."""

    def end(self, cut: bool) -> Received | Peeked:
        """Return the result of the body.

        Args:
            cut: whether the connection ended before the body did.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


def append_whole(store: Store, upload: Upload, intake: Intake, block: Block) -> Received:
    """Append a whole body in one step of the store."""
    length = intake.length
    if not block and length is None and not intake.ends:
        return Received(upload)
    if intake.ends and length is None and upload.length is None:
        length = intake.offset + len(block)
    try:
        return Received(store.append(upload, intake.offset, block, length, intake.completes))
    except StorageFull as error:
        return Received(store.load(upload.id), failure=error)


class Reception:
    """The sink that moves a body into an upload.

    Args:
        store: the store of the upload.
        upload: as it was loaded.
        intake: the rules for receiving the body.
        listener: called about once a second.
        append: appends a small whole body; by default in one step of the store.
        small: the largest size of such a body, in bytes.

    Raises:
        ChecksumMismatch: by the last called method; no byte of the body was counted.
        RequestError: the store has raised it.
    """

    def __init__(
        self,
        store: Store,
        upload: Upload,
        intake: Intake,
        listener: OffsetListener | None = None,
        append: Callable[[Block], Received] | None = None,
        small: int = SMALL,
    ) -> None:
        self._small = small
        self._append = append or partial(append_whole, store, upload, intake)
        self._store = store
        self._upload = upload
        self._intake = intake
        self._listener = listener
        self._reported_at = time.monotonic() if listener is not None else 0.0
        self._wrote_at = 0.0  # the time when blocks were last given to the session
        checksums = intake.body.checksums
        self._hashers = [(ALGORITHMS[algorithm](), digest) for algorithm, digest in checksums] if checksums else []
        self._session: AppendSession | None = None
        self._received = 0
        self._held = b""
        self._result: Received | None = None  # the result, if it is known before the end

    def write(self, *blocks: Block) -> bool:
        fitting = self._fitting_blocks(blocks)
        if fitting and not self._take(fitting):
            return False
        if len(fitting) < len(blocks):
            self._result = Received(self._commit_unless_staged(), overran=True)
            return False
        return True

    def _fitting_blocks(self, blocks: tuple[Block, ...]) -> tuple[Block, ...]:
        """Return the blocks before the one that exceeds the limit."""
        limit = self._intake.limit
        if self._result is not None:
            return ()
        if limit is None:
            return blocks
        end = self._received
        for count, block in enumerate(blocks):
            end += len(block)
            if end > limit:
                return blocks[:count]
        return blocks

    def _take(self, blocks: tuple[Block, ...]) -> bool:
        size = sum(map(len, blocks))
        self._received += size
        for hasher, _ in self._hashers:
            for block in blocks:
                hasher.update(block)
        if self._session is None and self._intake.body.length == size <= self._small:
            self._verify()
            self._result = self._append(blocks[0] if len(blocks) == 1 else b"".join(blocks))
            return True
        return self._write(blocks)

    def can_pour(self) -> bool:
        intake = self._intake
        length, limit = intake.body.length, intake.limit
        is_plain = not self._hashers and length is not None and length > self._small
        can_fit = length is None or limit is None or length <= limit
        return is_plain and can_fit and isinstance(self._store, Pours) and self._store.can_pour(self._upload)

    def pour(self, pipe: Pipe) -> bool:
        self._received += len(pipe)
        session = cast("PouringSession", self._open())
        return self._store_by(partial(session.pour, pipe, self._received == self._intake.body.length), session)

    def _write(self, blocks: tuple[Block, ...]) -> bool:
        session = self._open()
        if self._received == self._intake.limit and self._intake.body.length is None:
            self._held = bytes(blocks[-1][-1:])  # it would complete the upload, but too many bytes may follow
            blocks = (*blocks[:-1], blocks[-1][:-1])
        return self._store_by(partial(session.write, *blocks), session) if any(map(len, blocks)) else self._report()

    def _store_by(self, write: Callable[[], None], session: AppendSession) -> bool:
        """Store bytes by a call, and return whether more are wanted."""
        try:
            write()
        except StorageFull as error:
            if self._hashers:
                raise
            self._result = Received(session.commit(), failure=error)
            return False
        self._wrote_at = time.monotonic()
        return self._report()

    def _open(self) -> AppendSession:
        if self._session is None:
            intake = self._intake
            session = self._store.open(
                self._upload, intake.offset, intake.length, staged=bool(self._hashers), completes=intake.completes
            )
            self._session = session.__enter__()
        return self._session

    def _commit_unless_staged(self) -> Upload:
        if self._session is None:
            return self._upload
        return self._session.upload if self._hashers else self._session.commit()

    def _report(self) -> bool:
        """Call the listener if a second has passed, and return whether more blocks are wanted."""
        if self._listener is None or time.monotonic() - self._reported_at < _TELL_EVERY:
            return True
        try:
            reply = self._listener(self._offset())
        except RequestError:
            reply = None  # it is logged; a failing hook does not stop an upload
        self._reported_at = time.monotonic()
        if reply is None or not reply.stop:
            return True
        self._result = Received(self._commit_unless_staged(), stopped=reply)
        return False

    def _offset(self) -> int:
        """Return the counted offset. Only counted bytes may be reported."""
        return (self._upload if self._session is None else self._session.upload).offset

    def _verify(self) -> None:
        if any(hasher.digest() != digest for hasher, digest in self._hashers):
            raise ChecksumMismatch()

    def is_wanted(self) -> bool:
        session = self._session
        if session is None:
            return True
        # The client is silent. A store that counts late must not wait for the next byte, which may never arrive.
        if not self._hashers and time.monotonic() - self._wrote_at >= _KEEP_AFTER:
            try:
                session.keep()
            except (UploadReplaced, UploadGone):
                return False
            except (RequestError, OSError):
                pass  # the next block or the end gets the same error
            self._wrote_at = time.monotonic()
        return session.is_current()

    def end(self, cut: bool) -> Received:
        if self._result is not None:
            return self._result
        if cut and self._hashers:
            return Received(self._commit_unless_staged(), cut=True)
        if self._session is None:  # the body is empty
            if cut:
                return Received(self._upload, cut=True)
            self._verify()
            return self._append(b"")
        if self._held:
            self._session.write(self._held)
        if not cut:
            self._verify()
        return Received(self._session.commit(ends=self._intake.ends and not cut), cut=cut)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            self._session.__exit__(kind, error, trace)


class Peek:
    """The sink for a body that must not be longer than a few bytes.

    Args:
        limit: the maximum number of bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = b""

    def write(self, *blocks: Block) -> bool:
        for block in blocks:
            self._data += bytes(block[: self._limit + 1 - len(self._data)])
        return len(self._data) <= self._limit

    def can_pour(self) -> bool:
        return False

    def pour(self, pipe: Pipe) -> bool:
        return self.write(bytes(pipe))

    def is_wanted(self) -> bool:
        return True

    def end(self, cut: bool) -> Peeked:
        return Peeked(self._data, cut)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass
