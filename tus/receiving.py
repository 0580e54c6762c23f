"""From a request's body into an upload: the synchronous half of :class:`tus.exchange.Receive`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from tus.body import SMALLEST, Body
from tus.checksums import ALGORITHMS, Hasher
from tus.errors import ChecksumMismatch, RequestError, StorageFull
from tus.exchange.effects import Peeked, Received
from tus.hooks.events import HookReply
from tus.models import Upload
from tus.protocol.tus1 import Intake
from tus.stores.interface import AppendSession, Block, Store

#: Is told how far an upload has come, and may have something to say about it.
Watcher = Callable[[int], HookReply | None]

_TELL_EVERY = 1.0  # seconds


class _Stopped(Exception):
    """Whoever watches wants no more."""

    def __init__(self, reply: HookReply) -> None:
        super().__init__()
        self.reply = reply


def receive(store: Store, body: Body, upload: Upload, intake: Intake, watcher: Watcher | None = None) -> Received:
    """Move a body into an upload, as far as it comes.

    Args:
        store: where the upload is.
        body: unread.
        upload: as it was loaded.
        intake: how the body is to be taken in.
        watcher: told about once a second.

    Raises:
        ChecksumMismatch: nothing of it was kept.
        RequestError: what the store raises.
    """
    blocks = body.blocks()
    if intake.body.length is not None and intake.body.length <= SMALLEST:
        first = next(blocks, b"")
        if body.received == intake.body.length or body.cut:
            return _receive_at_once(store, upload, intake, first, body.cut)
        blocks = chain((first,), blocks)
    elif intake.limit == 0:  # nothing may come; that is seen before anything is settled
        if any(blocks):
            return Received(upload, overran=True)
        return _receive_at_once(store, upload, intake, b"", body.cut)
    checksum = intake.body.checksum
    with store.open(upload, intake.offset, intake.length, staged=checksum is not None) as session:
        body.is_wanted = session.is_current
        try:
            overran = _fill(session, intake, body, _watched(blocks, session, watcher))
        except _Stopped as stop:
            return Received(session.upload, stopped=stop.reply)
        except StorageFull as error:
            if checksum is None:
                return Received(session.commit(), failure=error)
            raise
        if checksum is not None and (overran or body.cut):
            return Received(session.upload, overran, body.cut)
        return Received(session.commit(), overran, body.cut)


def _watched(blocks: Iterable[Block], session: AppendSession, watcher: Watcher | None) -> Iterable[Block]:
    """The blocks, and now and then a word on how far they have come."""
    if watcher is None:
        return blocks
    return _telling(blocks, session.upload.offset, watcher)


def _telling(blocks: Iterable[Block], offset: int, watcher: Watcher) -> Iterator[Block]:
    told_at = time.monotonic()
    for block in blocks:
        yield block
        offset += len(block)
        if time.monotonic() - told_at >= _TELL_EVERY:
            try:
                reply = watcher(offset)
            except RequestError:
                reply = None  # it is logged, and an upload does not suffer from it
            told_at = time.monotonic()
            if reply is not None and reply.stop:
                raise _Stopped(reply)


def _fill(session: AppendSession, intake: Intake, body: Body, blocks: Iterable[Block]) -> bool:
    """Move the body into a session, and verify it; returns whether it overran."""
    hasher = _hasher(intake)
    held = None
    for block in blocks:
        if intake.limit is not None and body.received > intake.limit:
            return True
        if hasher is not None:
            hasher.update(block)
        if body.received == intake.limit and intake.body.length is None:
            held = bytes(block[-1:])  # it would complete the upload, and more may follow
            block = block[:-1]
        if block:
            session.write(block)
    if held is not None:
        session.write(held)
    if hasher is not None and not body.cut:
        _verify(hasher, intake)
    return False


def _receive_at_once(store: Store, upload: Upload, intake: Intake, block: Block, cut: bool) -> Received:
    """A short body that is there already: one step in the store instead of three."""
    hasher = _hasher(intake)
    if hasher is not None:
        if cut:
            return Received(upload, cut=True)
        hasher.update(block)
        _verify(hasher, intake)
    if not block and intake.length is None:
        return Received(upload, cut=cut)
    try:
        return Received(store.append(upload, intake.offset, block, intake.length), cut=cut)
    except StorageFull as error:
        return Received(store.load(upload.id), failure=error)


def _hasher(intake: Intake) -> Hasher | None:
    return None if intake.body.checksum is None else ALGORITHMS[intake.body.checksum[0]]()


def _verify(hasher: Hasher, intake: Intake) -> None:
    if intake.body.checksum is not None and hasher.digest() != intake.body.checksum[1]:
        raise ChecksumMismatch()


def peek(body: Body, limit: int) -> Peeked:
    """A body that is not to be longer than a few bytes."""
    data = b""
    for block in body.blocks():
        data += bytes(block[: limit + 1 - len(data)])
        if len(data) > limit:
            break
    return Peeked(data, body.cut)
