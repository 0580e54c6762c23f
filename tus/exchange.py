"""One request from its head to its reply, written once for every driver.

:func:`exchange` is a generator of effects. It decides, with the help of :mod:`tus.protocol`, and yields what is to be
done; a driver does it, synchronously or not, and sends the result back or throws the error in. The law of this room:
no I/O and no clock; a driver, in turn, decides nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

from tus import cors
from tus.errors import BadRequest, RequestError, StorageUnavailable, TooLarge, UploadGone, UploadLocked, UploadNotFound
from tus.models import Intent, Request, Response, State, Upload
from tus.options import Options
from tus.protocol import tus1, tus1_replies

# -- Effects ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Authorize:
    """Ask whether the request may do this. Sends back the principal, or None where nobody knows one.

    A refusal is thrown in as an error, or sent back as the :class:`Response` that the client is to have instead.

    Attributes:
        intent: what it is about to do.
        upload: to what; a draft without an id where it is yet to be created.
    """

    intent: Intent
    upload: Upload


@dataclass(frozen=True, slots=True)
class Load:
    """Read an upload's record. Sends back the :class:`Upload`."""

    upload_id: str


@dataclass(frozen=True, slots=True)
class Create:
    """Make an upload; its id is new unless the draft has one. Sends back the :class:`Upload`.

    Where the draft has an id that exists already, the upload that exists is sent back.
    """

    draft: Upload


@dataclass(frozen=True, slots=True)
class Receive:
    """Move the request's body into the upload. Sends back what was :class:`Received`."""

    upload: Upload
    intake: tus1.Intake


@dataclass(frozen=True, slots=True)
class Received:
    """What came of a body.

    Attributes:
        upload: as it stands now.
        overran: whether the body had more bytes than the intake's limit; those of its last block are not counted.
        cut: whether the connection ended before the body did.
        failure: an error of the store that ended it early, after the bytes that are counted.
    """

    upload: Upload
    overran: bool = False
    cut: bool = False
    failure: RequestError | None = None


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete the upload and its bytes."""

    upload_id: str


@dataclass(frozen=True, slots=True)
class Watch:
    """Have the parts remember the final upload that waits for them. Sends back the parts as they stand after that."""

    final: Upload


@dataclass(frozen=True, slots=True)
class Concatenate:
    """Fill a final upload from its complete parts. Sends back the :class:`Upload`; again if it is filled already."""

    final: Upload
    parts: tuple[Upload, ...]


@dataclass(frozen=True, slots=True)
class FinalsOf:
    """Send back the ids of the final uploads that wait for this part."""

    part: Upload


@dataclass(frozen=True, slots=True)
class Touch:
    """Let a final upload that waits, and its parts, live as long as one that gets a byte now."""

    final_id: str


@dataclass(frozen=True, slots=True)
class Serve:
    """Send a finished upload to the client. Sends back the :class:`Response`."""

    upload: Upload


@dataclass(frozen=True, slots=True)
class HandOver:
    """Give a complete upload to the application.

    Sends back the application's :class:`Response`, or None where the code that called the driver goes on with the
    upload itself. A 2xx has been produced to its end and taken down as acceptance before it is sent back.
    """

    upload: Upload


Effect = Authorize | Load | Create | Receive | Remove | Watch | Concatenate | FinalsOf | Touch | Serve | HandOver
Steps = Generator[Effect, Any, Response]


# -- The exchange -------------------------------------------------------------------------------------------------


def exchange(request: Request, options: Options, extensions: frozenset[str], now: float) -> Steps:
    """Answer a request.

    Args:
        request: the head.
        options: the operator's choices.
        extensions: the tus extensions that work with this store on this server.
        now: seconds since 1970.

    Yields:
        Effects; see each for what it sends back.

    Returns:
        The response, for refusals too; only an error that is not of this package leaves by itself.
    """
    try:
        response = yield from _answer(request, options, extensions, now)
    except RequestError as error:
        is_head = tus1.effective_method(request) == "HEAD"
        if is_head and isinstance(error, StorageUnavailable):
            error = UploadLocked()  # after a 5xx to HEAD clients give up the upload and begin at zero
        response = tus1_replies.refused(error, is_head)
    except _Refused as refusal:
        response = tus1_replies.relayed(refusal.answer, tus1.effective_method(request))
    cors.apply(request, response, options)
    return response


def _answer(request: Request, options: Options, extensions: frozenset[str], now: float) -> Steps:
    if cors.is_preflight(request):
        return tus1_replies.discovered(options, extensions)
    command = tus1.parse(request, options, extensions)
    match command:
        case tus1.Append():
            return (yield from _append(command, options, now))
        case tus1.Create(parts=()):
            return (yield from _create(command, request, options))
        case tus1.Create():
            return (yield from _create_final(command, request, options, extensions, now))
        case tus1.Inspect():
            return (yield from _inspect(command, now))
        case tus1.Terminate():
            upload: Upload = yield Load(command.upload_id)
            yield from _authorized(Intent.TERMINATE, upload)
            tus1.check_alive(upload, now)
            yield Remove(command.upload_id)
            return tus1_replies.terminated()
        case tus1.Download():
            upload = yield Load(command.upload_id)
            return (yield from _download(upload, now))
        case tus1.Discover():
            return tus1_replies.discovered(options, extensions)


class _Refused(Exception):
    """Whoever was asked has answered the client itself."""

    def __init__(self, answer: Response) -> None:
        super().__init__(answer.status)
        self.answer = answer


def _authorized(intent: Intent, upload: Upload) -> Generator[Effect, Any, str | None]:
    """Go on only if the request may do this; returns its principal."""
    verdict: str | Response | None = yield Authorize(intent, upload)
    if isinstance(verdict, Response):
        raise _Refused(verdict)
    tus1.check_owner(upload, verdict)
    return verdict


def _inspect(command: tus1.Inspect, now: float) -> Steps:
    upload: Upload = yield Load(command.upload_id)
    if command.may_download and upload.is_complete and not upload.is_partial:
        try:
            return (yield from _download(upload, now))
        except UploadGone:
            pass  # the file is not kept; that it was finished can be told all the same
    yield from _authorized(Intent.HEAD, upload)
    tus1.check_alive(upload, now)
    if upload.is_final and upload.length is None:
        parts = yield from _load_all(upload.parts)
        upload = replace(upload, length=tus1.total_length(parts))
    return tus1_replies.inspected(upload)


def _download(upload: Upload, now: float) -> Steps:
    yield from _authorized(Intent.DOWNLOAD, upload)
    tus1.check_alive(upload, now)
    tus1.check_downloadable(upload)
    response: Response = yield Serve(upload)
    return tus1_replies.downloaded(upload, response)


def _create(command: tus1.Create, request: Request, options: Options) -> Steps:
    draft = Upload("", length=command.length, raw_metadata=command.raw_metadata, concat=command.concat)
    intake = None
    if command.body is not None and command.body.length != 0:
        intake = tus1.decide_first_bytes(command, command.body, options)
    principal = yield from _authorized(Intent.CREATE, draft)
    if principal is not None:
        draft = replace(draft, principal=principal)
    upload: Upload = yield Create(draft)
    if intake is not None:
        try:
            received: Received = yield Receive(upload, intake)
            if received.overran:
                raise TooLarge(tus1.overrun_message(intake.limit or 0))
        except RequestError:
            # The client is told no URL, so nothing may be left that it cannot reach.
            yield Remove(upload.id)
            raise
        # Cut or out of space: the client learns the URL and how far it came, and goes on from there.
        upload = received.upload
    response = tus1_replies.created(upload, tus1.target(request, options).creation_url, command.body is not None)
    return (yield from _completed(upload, response, options))


def _append(command: tus1.Append, options: Options, now: float) -> Steps:
    upload: Upload = yield Load(command.upload_id)
    yield from _authorized(Intent.APPEND, upload)
    tus1.check_alive(upload, now)
    intake = tus1.decide_append(command, upload, options)
    was_complete = upload.is_complete
    if not was_complete or intake.body.length is None:
        received: Received = yield Receive(upload, intake)
        if received.overran:
            raise TooLarge(tus1.overrun_message(intake.limit or 0))
        if received.failure is not None:
            raise received.failure
        upload = received.upload
        if received.cut and intake.body.checksum is not None:
            raise BadRequest("The body ended early, so its checksum could not be verified; nothing of it was kept.")
    return (yield from _completed(upload, tus1_replies.appended(upload), options))


def _completed(upload: Upload, response: Response, options: Options) -> Steps:
    """Hand the upload over if it is complete and nobody has accepted it; else the response stands."""
    if upload.is_partial and upload.state == State.RECEIVING:
        for final_id in (yield FinalsOf(upload)):
            yield Touch(final_id)  # it must not expire while its parts are on their way
    if upload.state != State.COMPLETE:
        return response
    if not upload.is_partial:
        return (yield from _hand_over(upload, response))
    reply = response
    for final_id in (yield FinalsOf(upload)):
        try:
            final: Upload = yield Load(final_id)
            parts = yield from _load_all(final.parts)
            final = yield from _fill(final, parts, options)
        except (UploadNotFound, UploadGone, TooLarge):
            continue  # that final upload cannot be made any more; this part is complete all the same
        if final.state == State.COMPLETE:
            reply = yield from _hand_over(final, response)
            if reply.status >= 300:
                break  # the client hears it and asks again, and then the others have their turn
    return reply


def _hand_over(upload: Upload, response: Response) -> Steps:
    answer: Response | None = yield HandOver(upload)
    return response if answer is None else tus1_replies.answered(response, answer)


def _create_final(
    command: tus1.Create, request: Request, options: Options, extensions: frozenset[str], now: float
) -> Steps:
    parts = yield from _load_all(command.parts)
    draft = Upload(
        "",
        length=tus1.total_length(parts),
        raw_metadata=command.raw_metadata,
        concat=command.concat,
        parts=command.parts,
    )
    principal = yield from _authorized(Intent.CONCATENATE, draft)
    for part in parts:
        tus1.check_owner(part, principal)
        tus1.check_alive(part, now)
    tus1.decide_concatenation(parts, options, extensions)
    final = yield from _find_or_create_final(replace(draft, principal=principal), now)
    final = yield from _fill(final, parts, options)
    response = tus1_replies.created(final, tus1.target(request, options).creation_url, with_offset=False)
    return (yield from _completed(final, response, options))


def _find_or_create_final(draft: Upload, now: float) -> Generator[Effect, Any, Upload]:
    """The final upload that this request means.

    Its id follows from the request, so that the same request, repeated because its reply was lost, finds the upload
    that exists, also after it was accepted. The ids of the parts are secrets, and so is a digest of them. Once that
    upload was removed, or its record has expired, the same request means another one.
    """
    for attempt in range(100):
        try:
            final: Upload = yield Create(replace(draft, id=final_id(draft, attempt)))
        except UploadGone:
            continue
        if not final.has_expired(now):
            return final
    raise UploadLocked("This concatenation was done many times lately; try again later.", retry_after=60)


def final_id(draft: Upload, attempt: int) -> str:
    """The id of the final upload that a request makes, 32 hexadecimal digits."""
    principal = "" if draft.principal is None else "\0" + draft.principal
    seed = "\0".join((*draft.parts, draft.raw_metadata, str(attempt))) + principal
    return hashlib.blake2b(seed.encode("utf-8", "surrogateescape"), digest_size=16, person=b"tus final").hexdigest()


def _load_all(upload_ids: tuple[str, ...]) -> Generator[Effect, Any, list[Upload]]:
    uploads = []
    for upload_id in upload_ids:
        uploads.append((yield Load(upload_id)))  # noqa: PERF401 - a comprehension cannot yield
    return uploads


def _fill(final: Upload, parts: list[Upload], options: Options) -> Generator[Effect, Any, Upload]:
    """Concatenate if every part is there, else have the parts call back."""
    if final.state != State.RECEIVING:
        return final
    if not all(part.is_complete for part in parts):
        parts = yield Watch(final)  # one of them may have been completed while we looked
        if not all(part.is_complete for part in parts):
            return final
    try:
        tus1.check_total(parts, options)
    except TooLarge:
        yield Remove(final.id)
        raise
    filled: Upload = yield Concatenate(final, tuple(parts))
    return filled
