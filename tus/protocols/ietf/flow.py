"""One request of the IETF protocol, from its head to its reply, as a generator of effects."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

from tus.errors import (
    BadRequest,
    ChecksumMismatch,
    InconsistentLength,
    OffsetMismatch,
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
from tus.protocols import conversation, cors, digests, hook_replies
from tus.protocols.admission import Refused
from tus.protocols.bodies import Intake
from tus.protocols.conversation import UNLOADED, Start
from tus.protocols.effects import (
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
from tus.protocols.handover import Handed, attempt_of, decided, hand_over, lent_headers, promise
from tus.protocols.ietf import replies, requests
from tus.protocols.ietf.profiles import UNVERSIONED, Profile, profile_of, takes_interim
from tus.protocols.origins import origin_of
from tus.protocols.routing import upload_url

LONGEST_JOIN: Final = 10.0  # seconds that a request waits for a hand-over that another request has begun
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


def recognize(request: Request) -> Start | None:
    """Return the start of a conversation if the head alone shows that the request is of this protocol."""
    profile = profile_of(request)
    return None if profile is None else partial(Conversation, profile=profile)


def start(
    request: Request, options: Options, extensions: frozenset[str], now: float, principal: object
) -> Conversation:
    """Start a conversation with a client that names no version."""
    return Conversation(request, options, extensions, now, principal, UNVERSIONED)


class Conversation(conversation.Conversation):
    """One request of a client of the IETF protocol.

    Args:
        request: the head.
        options: the operator's choices.
        extensions: the tus extensions that work with this store on this server.
        now: seconds since 1970.
        principal: the principal that sends the request, if the caller knows it; its value is checked here.
        profile: the profile of the client's version.
    """

    def __init__(
        self,
        request: Request,
        options: Options,
        extensions: frozenset[str],
        now: float,
        principal: object,
        profile: Profile,
    ) -> None:
        super().__init__(request, options, extensions, now, principal)
        self._profile = profile
        self._is_begun = False  # whether the hand-over has begun with the last bytes
        self._interim = takes_interim(request, profile, options)

    def answer(self) -> Steps:
        command = requests.parse(self.request, self._profile, self.options)
        match command:
            case requests.Append():
                return self._append(command)
            case requests.Create():
                return self._create(command)
            case requests.Inspect(upload_id):
                return self._inspect(upload_id)
            case requests.Cancel(upload_id):
                return self._cancel(upload_id)

    def refuse(self, refusal: RequestError | Refused) -> Response:
        is_head = self.request.method == "HEAD"
        if isinstance(refusal, Refused):
            return replies.relayed(refusal.answer, self._profile, is_head)
        return replies.refused(refusal, self._profile, self.options, is_head)

    def _cancel(self, upload_id: str) -> Steps:
        reply = yield from self.terminate(upload_id)
        return hook_replies.merged(replies.cancelled(self._profile), reply)

    # -- Offset retrieval --

    def _inspect(self, upload_id: str) -> Steps:
        try:
            upload: Upload = yield Load(upload_id)
        except UNLOADED as error:
            yield from self.refuse_unloaded(Intent.HEAD, upload_id, error)
        yield from self.authorize(Intent.HEAD, upload)
        if upload.state == State.RECEIVING and upload.concat is None:
            upload = yield Fence(upload)  # else a running append could make the reported offset stale
        if upload.state == State.COMPLETE and not upload.is_known and upload.is_pending:
            with suppress(UploadLocked):  # another request is handing it over, so no promise is needed
                upload = yield Promise(upload)
        return replies.inspected(upload, self._profile, self.options, self.now)

    # -- Creation --

    def _create(self, command: requests.Create) -> Steps:
        options, profile = self.options, self._profile
        intake = requests.decide_first_bytes(command, profile, options)
        draft = Upload(
            length=requests.draft_length(command, profile),
            raw_metadata=command.raw_metadata,
            service=options.service_name,
            origin=origin_of(self.request, is_original=True),
            protocol=IETF,
        )
        if command.body.length != 0 or draft.length == 0:
            draft.is_known = False  # it may be complete before its client gets the URL
        draft = digests.requested(draft, self.request.fields, options.digest)
        admission = yield from self.admit(Intent.CREATE, draft)
        whole = None
        if intake is not None and not self._interim:
            whole = yield from self.create_whole(admission, intake)
        self._is_begun = whole is not None
        if whole is not None:
            upload, is_new, intake = whole, True, None
        else:
            upload, is_new = yield from self.create(admission)
        location = upload_url(command.creation_url, upload.id)
        is_announced, is_found = False, not is_new
        try:
            if is_new and options.has_hooks:
                yield from self.announce(upload)
            if not is_new:
                upload, intake = yield from self.find_again(upload, intake)
            is_found = bool(upload.fingerprint)  # from now on its client finds it by the key
            if command.body.length != 0 and self._interim and (command.length or 0) >= options.min_size:
                is_announced = yield Inform(replies.announced(upload, location, profile, options, self.now))
            if intake is not None:
                known = replace(upload, is_known=upload.is_known or is_announced)
                upload = yield from self._receive_first(known, intake, command.complete, is_announced)
        except (RequestError, Refused):
            if not is_announced and not is_found:  # so its client cannot reach it
                with suppress(UploadNotFound, UploadGone):  # a hook or an overrun has removed it already
                    yield from self.remove(upload)
            raise
        if self._is_begun or upload.is_pending:
            response = yield from self._complete(upload, location)
        elif upload.is_complete:
            response = self._reply_to(decided(upload), upload, location)
        else:
            response = replies.created(upload, location, profile, options, self.now)
        return hook_replies.merged(response, admission.reply)

    def _receive_first(
        self, upload: Upload, intake: Intake, complete: bool, informs: bool
    ) -> Generator[Effect, Any, Upload]:
        """Receive the body of a creation, unless the same request with the same key has sent bytes meanwhile."""
        try:
            return (yield from self._receive(upload, intake, complete, informs))
        except OffsetMismatch:
            fenced: Upload = yield Fence(upload)
            return fenced

    # -- Append --

    def _append(self, command: requests.Append) -> Steps:
        options, profile = self.options, self._profile
        try:
            upload: Upload = yield Load(command.upload_id)
        except UNLOADED as error:
            yield from self.refuse_unloaded(Intent.APPEND, command.upload_id, error)
        yield from self.authorize(Intent.APPEND, upload)
        if not self.request.is_rerun and not upload.is_known:
            upload = replace(upload, is_known=True)
        if upload.is_complete and not upload.is_partial:
            return self._repeat(command, upload)
        try:
            intake = requests.decide_append(command, upload, profile, options)
        except InconsistentLength as error:
            if error.overruns and profile.overrun_invalidates:
                yield from self.remove(upload)
            raise
        try:
            upload = yield from self._receive(upload, intake, bool(command.complete), self._interim)
        except ChecksumMismatch as error:
            error.headers.append(("Upload-Offset", str(intake.offset)))
            raise
        if self._is_begun or upload.is_pending:
            return self._complete(upload)
        return replies.appended(upload, profile, options, self.now)

    def _receive(self, upload: Upload, intake: Intake, complete: bool, informs: bool) -> Generator[Effect, Any, Upload]:
        """Receive a body, and return the upload after it."""
        profile = self._profile
        # A reported offset is a promise, but bytes under a digest do not count before it matches.
        reports = profile.reports_progress and informs and not intake.body.checksums
        progress = (lambda offset: replies.progressed(offset, profile)) if reports else None
        received: Received = yield Receive(upload, intake, progress, attempt_of(upload, intake, self.options))
        self._is_begun, upload = received.is_begun, received.upload
        try:
            if received.overran or received.stopped is not None:
                yield from self.refuse_received(received, intake)
        except TooLarge:
            if not requests.is_overrun(received.upload, intake):
                raise
            current: Upload = yield Load(upload.id)
            if (current.offset, current.state) != (received.upload.offset, State.RECEIVING):
                raise UploadReplaced() from None  # this request must not end the work of a newer one
            if profile.overrun_invalidates:
                yield from self.remove(received.upload)
            raise InconsistentLength(
                "The body has more bytes than the rest of the upload's length; send only the rest."
            ) from None
        if received.failure is not None:
            raise received.failure
        if received.cut and intake.body.checksums:
            raise BadRequest("The body ended early, so its digest cannot be verified; send all of it again.")
        if complete and not received.cut and not upload.is_complete:
            raise InconsistentLength(f"The upload has {upload.offset} of {upload.length} bytes; send the rest.")
        return upload

    def _repeat(self, command: requests.Append, upload: Upload) -> Steps:
        """Respond to an append to an upload that has all its bytes: it asks for the hand-over or for its result."""
        asks = requests.is_asking_again(command, upload)
        if command.body.length is None:
            peeked: Peeked = yield Peek(Intake(upload.offset, None, 0, command.body))
            if peeked.data:
                raise UploadCompleted()
        if not upload.is_pending:
            if not asks or self._profile.refuses_completed:
                raise UploadCompleted()
            return self._reply_to(decided(upload), upload)
        if not asks:
            return replies.appended(upload, self._profile, self.options, self.now)
        return self._complete(upload)

    # -- Hand-over --

    def _complete(self, upload: Upload, location: str | None = None) -> Generator[Effect, Any, Response]:
        """Hand a complete upload over, and return the reply; ``location`` is None unless the request has created it."""
        options, profile = self.options, self._profile
        if options.handover == "background" and (yield from promise(upload)):
            reply = replies.completed(replies.promised(location), upload, location, profile, True)
            return digests.described(reply, upload.digests)
        handed = yield from self._hand_over(upload, location)
        return self._reply_to(handed, upload, location)

    def _reply_to(self, handed: Handed, upload: Upload, location: str | None = None) -> Response:
        answer, is_final = handed.answer, handed.outcome != Outcome.POSTPONED
        if handed.outcome == Outcome.ACCEPTED and not upload.keeps_answer:  # the record keeps only the header fields
            answer = Response(204, "No Content", lent_headers(answer))
        if not is_final and 300 <= answer.status < 400:  # a client that follows a redirection mistakes it for success
            answer = replies.not_taken()
        reply = replies.completed(answer, upload, location, self._profile, is_final)
        return digests.described(reply, handed.digests) if handed.outcome == Outcome.ACCEPTED else reply

    def _hand_over(self, upload: Upload, location: str | None) -> Generator[Effect, Any, Handed]:
        """Hand over now, or wait for the hand-over that is running, so that a retry gets the same response."""

        def pending() -> Response:
            response = replies.completed(replies.not_taken(), upload, location, self._profile, False)
            cors.apply(self.request, response, self.options)
            return response

        waited, pause = 0.0, _FIRST_PAUSE
        while True:
            try:
                is_begun, self._is_begun = self._is_begun, False
                return (yield from hand_over(upload, self.options, pending, is_begun=is_begun))
            except UploadLocked:
                if waited >= LONGEST_JOIN:
                    raise
            yield Wait(pause)
            waited += pause
            pause = min(pause * 2, _LONGEST_PAUSE)
