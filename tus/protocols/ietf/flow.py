"""One request of the IETF protocol from its head to its reply; like :mod:`tus.protocols.exchange`, a generator."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from tus.errors import (
    BadRequest,
    ChecksumMismatch,
    InconsistentLength,
    RequestError,
    TooLarge,
    UploadCompleted,
    UploadGone,
    UploadLocked,
    UploadNotFound,
    UploadReplaced,
)
from tus.models import IETF, Intent, Outcome, Request, Response, State, Upload
from tus.options import Options
from tus.protocols import cors, digests
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
from tus.protocols.bodies import Intake
from tus.protocols.effects import (
    Create,
    Effect,
    Fence,
    Inform,
    Load,
    Peek,
    Peeked,
    Promise,
    Receive,
    Received,
    Steps,
    Wait,
)
from tus.protocols.handover import Handed, decided, hand_over, lent_headers, promised
from tus.protocols.ietf import replies as ietf_replies
from tus.protocols.ietf import requests as ietf
from tus.protocols.ietf.profiles import Profile, takes_interim
from tus.protocols.routing import target_of, upload_url

LONGEST_JOIN = 10.0  # seconds that a request waits for a hand-over which another one has begun
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


class Conversation:
    """One request of a client that speaks the IETF protocol.

    Args:
        request: the head.
        profile: the version that it speaks.
        options: the operator's choices.
        now: seconds since 1970.
    """

    def __init__(self, request: Request, profile: Profile, options: Options, now: float) -> None:
        self._request = request
        self._profile = profile
        self._options = options
        self._now = now
        self._interim = takes_interim(request, profile, options)

    def steps(self) -> Steps:
        """Answer it; refusals too are responses."""
        is_head = self._request.method == "HEAD"
        try:
            return (yield from self._answer())
        except RequestError as error:
            return ietf_replies.refused(error, self._profile, self._options, is_head)
        except Refused as refusal:
            return ietf_replies.relayed(refusal.answer, self._profile, is_head)

    def _answer(self) -> Steps:
        command = ietf.parse(self._request, self._profile, self._options)
        match command:
            case ietf.Append():
                return (yield from self._append(command))
            case ietf.Create():
                return (yield from self._create(command))
            case ietf.Inspect(upload_id):
                return (yield from self._inspect(upload_id))
            case ietf.Cancel(upload_id):
                reply = yield from terminated(upload_id, self._options, self._now)
                return hooking.merged(ietf_replies.cancelled(self._profile), reply)

    # -- Offset retrieval --

    def _inspect(self, upload_id: str) -> Steps:
        upload: Upload = yield Load(upload_id)
        yield from authorized(Intent.HEAD, upload)
        check_alive(upload, self._now)
        if upload.state == State.RECEIVING and upload.concat is None:
            upload = yield Fence(upload)  # what is told must not be stale when it arrives
        if upload.state == State.COMPLETE and not upload.is_known and upload.is_pending:
            with suppress(UploadLocked):  # then it is being handed over, which is as good
                upload = yield Promise(upload)
        return ietf_replies.inspected(upload, self._profile, self._options, self._now)

    # -- Creation --

    def _create(self, command: ietf.Create) -> Steps:
        options, profile = self._options, self._profile
        intake = ietf.decide_first_bytes(command, profile, options)
        draft = Upload(
            length=ietf.draft_length(command, profile),
            raw_metadata=command.raw_metadata,
            service=options.service_name,
            protocol=IETF,
        )
        draft = digests.requested(draft, self._request.headers, options.digest)
        draft, reply = yield from admitted(Intent.CREATE, draft, options)
        if command.body.length != 0 or draft.length == 0:
            draft = replace(draft, is_known=False)  # it may be completed before its client hears of it
        if reply is not None and reply.id is not None:
            yield from check_new(draft)
        upload: Upload = yield Create(draft)
        location = upload_url(target_of(self._request, self._request.method, options).creation_url, upload.id)
        is_told = False
        try:
            yield from made(upload, options)
            if command.body.length != 0 and self._interim and (command.length or 0) >= options.min_size:
                is_told = yield Inform(ietf_replies.announced(upload, location, profile, options, self._now))
            if intake is not None:
                known = replace(upload, is_known=upload.is_known or is_told)
                upload = yield from self._receive(known, intake, command.complete, is_told)
        except (RequestError, Refused):
            if not is_told:  # so its client cannot reach it
                with suppress(UploadNotFound, UploadGone):  # a hook has ended it, or it was overrun
                    yield from removed(upload, options)
            raise
        if upload.is_pending:
            response = yield from self._complete(upload, location)
        else:
            response = ietf_replies.created(upload, location, profile, options, self._now)
        return hooking.merged(response, reply)

    # -- Append --

    def _append(self, command: ietf.Append) -> Steps:
        options, profile = self._options, self._profile
        upload: Upload = yield Load(command.upload_id)
        yield from authorized(Intent.APPEND, upload)
        check_alive(upload, self._now)
        if not self._request.is_rerun and not upload.is_known:
            upload = replace(upload, is_known=True)
        if upload.is_complete and not upload.is_partial:
            return (yield from self._repeat(command, upload))
        try:
            intake = ietf.decide_append(command, upload, profile, options)
        except InconsistentLength as error:
            if error.overruns and profile.overrun_invalidates:
                yield from removed(upload, options)
            raise
        try:
            upload = yield from self._receive(upload, intake, bool(command.complete), self._interim)
        except ChecksumMismatch as error:
            error.headers.append(("Upload-Offset", str(intake.offset)))
            raise
        if upload.is_pending:
            return (yield from self._complete(upload))
        return ietf_replies.appended(upload, profile, options, self._now)

    def _receive(self, upload: Upload, intake: Intake, complete: bool, informs: bool) -> Generator[Effect, Any, Upload]:
        """Take a body in, as far as it comes."""
        profile = self._profile
        # An offset is a promise, which cannot be given of bytes that a digest may still take back.
        tells = profile.tells_progress and informs and not intake.body.checksums
        progress = (lambda offset: ietf_replies.progressed(offset, profile)) if tells else None
        received: Received = yield Receive(upload, intake, progress)
        try:
            upload = yield from received_upload(received, intake, self._options)
        except TooLarge:
            if not ietf.is_overrun(received.upload, intake):
                raise
            standing: Upload = yield Load(upload.id)
            if (standing.offset, standing.state) != (received.upload.offset, State.RECEIVING):
                raise UploadReplaced() from None  # what a newer request has done since is not this one's to end
            if profile.overrun_invalidates:
                yield from removed(received.upload, self._options)
            raise InconsistentLength("The body has more bytes than the upload's length leaves room for.") from None
        if received.failure is not None:
            raise received.failure
        if received.cut and intake.body.checksums:
            raise BadRequest("The body ended early, so its digest could not be verified; nothing of it was kept.")
        if complete and not received.cut and not upload.is_complete:
            raise InconsistentLength(f"The body ended at byte {upload.offset}, before the length of {upload.length}.")
        return upload

    def _repeat(self, command: ietf.Append, upload: Upload) -> Steps:
        """An append to an upload of which every byte is there: it asks for the hand-over, or for what came of it."""
        asks = ietf.is_asking_again(command, upload)
        if command.body.length is None:
            peeked: Peeked = yield Peek(Intake(upload.offset, None, 0, command.body))
            if peeked.data:
                raise UploadCompleted()
        if not upload.is_pending:
            if not asks or self._profile.refuses_completed:
                raise UploadCompleted()
            return self._reply_to(decided(upload), upload)
        if not asks:
            return ietf_replies.appended(upload, self._profile, self._options, self._now)
        return (yield from self._complete(upload))

    # -- Hand-over --

    def _complete(self, upload: Upload, location: str | None = None) -> Steps:
        """Hand a complete upload over; its location is given where the request has created it."""
        options, profile = self._options, self._profile
        if (yield from promised(upload, options)):
            reply = ietf_replies.completed(ietf_replies.promised(location), upload, location, profile, True)
            return digests.described(reply, upload.digests)
        handed = yield from self._hand_over(upload, location)
        return self._reply_to(handed, upload, location)

    def _reply_to(self, handed: Handed, upload: Upload, location: str | None = None) -> Response:
        answer, is_last_word = handed.answer, handed.outcome != Outcome.POSTPONED
        if handed.outcome == Outcome.ACCEPTED and upload.protocol != IETF:  # whose answers are kept without their body
            answer = Response(204, "No Content", lent_headers(answer))
        if not is_last_word and 300 <= answer.status < 400:  # a client that follows it would take that for success
            answer = ietf_replies.not_taken()
        reply = ietf_replies.completed(answer, upload, location, self._profile, is_last_word)
        return digests.described(reply, handed.digests) if handed.outcome == Outcome.ACCEPTED else reply

    def _hand_over(self, upload: Upload, location: str | None) -> Generator[Effect, Any, Handed]:
        """Hand over now, or join the hand-over that is running: a client that came back waits for the same answer."""
        pending = ietf_replies.completed(ietf_replies.not_taken(), upload, location, self._profile, False)
        cors.apply(self._request, pending, self._options)
        waited, pause = 0.0, _FIRST_PAUSE
        while True:
            try:
                return (yield from hand_over(upload, self._options, pending))
            except UploadLocked:
                if waited >= LONGEST_JOIN:
                    raise
            yield Wait(pause)
            waited += pause
            pause = min(pause * 2, _LONGEST_PAUSE)
