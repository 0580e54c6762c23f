"""One request of tus 1.0.0 from its head to its reply; like :mod:`tus.protocols.exchange`, a generator."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

from tus.checksums import verify
from tus.errors import BadRequest, OffsetMismatch, RequestError, StorageUnavailable, TooLarge, UploadGone, UploadLocked
from tus.models import Intent, Outcome, Request, Response, State, Upload, effective_method
from tus.options import Options
from tus.protocols import digests
from tus.protocols import hook_replies as hooking
from tus.protocols.admission import (
    Refused,
    admitted,
    authorized,
    check_alive,
    check_new,
    made,
    received_upload,
    removed,
    terminated,
)
from tus.protocols.bodies import Intake, overrun_message
from tus.protocols.effects import (
    Create,
    Effect,
    End,
    Load,
    Peek,
    Peeked,
    Promise,
    Receive,
    Received,
    Remove,
    Serve,
    Steps,
)
from tus.protocols.handover import decided
from tus.protocols.routing import target
from tus.protocols.tus1 import replies as tus1_replies
from tus.protocols.tus1 import requests as tus1
from tus.protocols.tus1 import withholding as handing
from tus.protocols.tus1.completion import completed, handed_over, reply_to
from tus.protocols.tus1.concatenation import create_final, load_all, part_completed


def steps(request: Request, options: Options, extensions: frozenset[str], now: float) -> Steps:
    """Answer a request that speaks tus; for the arguments see :func:`tus.protocols.exchange.exchange`."""
    try:
        return (yield from _answer(request, options, extensions, now))
    except RequestError as error:
        is_head = effective_method(request) == "HEAD"
        if is_head and isinstance(error, StorageUnavailable):
            error = UploadLocked()  # after a 5xx to HEAD clients give up the upload and begin at zero
        return tus1_replies.refused(error, is_head)
    except Refused as refusal:
        return tus1_replies.relayed(refusal.answer, effective_method(request))


def _answer(request: Request, options: Options, extensions: frozenset[str], now: float) -> Steps:
    command = tus1.parse(request, options, extensions)
    match command:
        case tus1.Append():
            return (yield from _append(command, request, options, now))
        case tus1.Create(parts=()):
            return (yield from _create(command, request, options))
        case tus1.Create():
            return (yield from create_final(command, request, options, extensions, now))
        case tus1.Inspect():
            return (yield from _inspect(command, options, now))
        case tus1.Terminate(upload_id):
            reply = yield from terminated(upload_id, options, now)
            return hooking.merged(tus1_replies.terminated(), reply)
        case tus1.Download():
            upload: Upload = yield Load(command.upload_id)
            return (yield from _download(upload, options, now))
        case tus1.Discover():
            return tus1_replies.discovered(options, extensions)


def _inspect(command: tus1.Inspect, options: Options, now: float) -> Steps:
    upload: Upload = yield Load(command.upload_id)
    if command.may_download and upload.state == State.ACCEPTED:
        try:
            return (yield from _download(upload, options, now))
        except UploadGone:
            pass  # the file is not kept; that it was finished can be told all the same
    yield from authorized(Intent.HEAD, upload)
    check_alive(upload, now)
    if upload.is_final and upload.state == State.REJECTED:
        return tus1_replies.relayed(replace(decided(upload).answer, body=()), "HEAD")
    handing.check_not_busy(upload, options)
    if upload.is_pending and not upload.is_known:
        upload = yield Promise(upload)  # its client has heard of it
    if upload.is_final and upload.length is None:
        parts = yield from load_all(upload.parts)
        upload = replace(upload, length=tus1.total_length(parts))
    return tus1_replies.inspected(upload, options)


def _download(upload: Upload, options: Options, now: float) -> Steps:
    yield from authorized(Intent.DOWNLOAD, upload)
    check_alive(upload, now)
    tus1.check_downloadable(upload)
    response: Response = yield Serve(upload)
    return tus1_replies.downloaded(upload, response, options)


def _create(command: tus1.Create, request: Request, options: Options) -> Steps:
    draft = Upload(
        length=command.length,
        raw_metadata=command.raw_metadata,
        concat=command.concat,
        service=options.service_name,
    )
    draft = digests.requested(draft, request.headers, options.digest)
    intake = None
    if command.body is not None and command.body.length != 0:
        intake = tus1.decide_first_bytes(command, command.body, options)
    draft, reply = yield from admitted(Intent.CREATE, draft, options)
    if intake is not None or command.length == 0:
        draft = replace(draft, is_known=False)  # it may be completed before its client hears of it
    if reply is not None and reply.id is not None:
        yield from check_new(draft)
    upload: Upload = yield Create(draft)
    try:
        yield from made(upload, options)
    except RequestError:
        yield Remove(upload.id)
        raise
    if intake is not None:
        try:
            received: Received = yield Receive(upload, intake)
            upload = yield from received_upload(received, intake, options)
        except RequestError:
            # The client is told no URL, so nothing may be left that it cannot reach.
            yield from removed(upload, options)
            raise
        # Cut or out of space: the client learns the URL and how far it came, and goes on from there.
    creation_url = target(request, options).creation_url
    response = hooking.merged(tus1_replies.created(upload, creation_url, command.body is not None), reply)
    if not upload.is_pending:
        return (yield from part_completed(upload, response, request, options))
    if upload.length:
        unfinished = tus1_replies.created(upload, creation_url, True, handing.told_offset(upload, options))
        return (yield from completed(upload, response, request, options, unfinished))
    # Nothing but the error can be told of an empty one, whose offset is its length. So its client begins again.
    handed = yield from handed_over(upload, request, options)
    if handed is not None and handed.outcome == Outcome.POSTPONED:
        yield from removed(upload, options)
    return response if handed is None else reply_to(response, handed)


def _append(command: tus1.Append, request: Request, options: Options, now: float) -> Steps:
    upload: Upload = yield Load(command.upload_id)
    yield from authorized(Intent.APPEND, upload)
    check_alive(upload, now)
    if not request.is_rerun and not upload.is_known:
        upload = replace(upload, is_known=True)
    if handing.is_open(upload) and command.offset in (handing.told_offset(upload, options), upload.offset):
        upload = yield End(upload)
    if upload.is_complete and not upload.is_partial:
        return (yield from _repeat(command, upload, request, options))
    intake = tus1.decide_append(command, upload, options)
    if not upload.is_complete or intake.body.length is None:
        received: Received = yield Receive(upload, intake)
        upload = yield from received_upload(received, intake, options)
        if received.failure is not None:
            raise received.failure
        if received.cut and intake.body.checksums:
            raise BadRequest("The body ended early, so its checksum could not be verified; nothing of it was kept.")
    response = tus1_replies.appended(upload)
    if upload.is_pending:
        return (yield from completed(upload, response, request, options))
    return (yield from part_completed(upload, response, request, options))


def _repeat(command: tus1.Append, upload: Upload, request: Request, options: Options) -> Steps:
    """A PATCH to an upload of which every byte is there: it asks for the hand-over, or for what came of it."""
    if not upload.is_pending:
        if upload.is_final or not handing.is_last_again(command, upload):
            tus1.decide_append(command, upload, options)
            raise OffsetMismatch(handing.told_offset(upload, options))
        if command.body.length is None:  # perhaps there are more bytes than it seems
            yield from _peeked(Intake(command.offset, None, upload.offset - command.offset, command.body))
        return reply_to(tus1_replies.appended(upload), decided(upload))
    intake = handing.decide_repeat(command, upload, options)
    peeked = yield from _peeked(intake)
    if not peeked.cut:
        verify(peeked.data, intake.body.checksums)
    if len(peeked.data) < (intake.limit or 0):
        return tus1_replies.appended(upload, handing.told_offset(upload, options))
    return (yield from completed(upload, tus1_replies.appended(upload), request, options, last_bytes=peeked.data))


def _peeked(intake: Intake) -> Generator[Effect, Any, Peeked]:
    peeked: Peeked = yield Peek(intake)
    if len(peeked.data) > (intake.limit or 0):
        raise TooLarge(overrun_message(intake.limit or 0))
    return peeked
