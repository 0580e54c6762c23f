"""One request of tus 1.0.0, from its head to its reply, as a generator of effects."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any, ClassVar, Final

from tus.checksums import verify
from tus.errors import (
    BadRequest,
    OffsetMismatch,
    RequestError,
    StorageUnavailable,
    TooLarge,
    UploadGone,
    UploadLocked,
)
from tus.models import Intent, Outcome, Request, Response, State, Upload
from tus.protocols import digests, hook_replies
from tus.protocols.admission import Refused
from tus.protocols.bodies import Intake, overrun_message
from tus.protocols.conversation import UNLOADED, Start
from tus.protocols.effects import (
    Effect,
    End,
    Fence,
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
from tus.protocols.handover import attempt_of, decided, hand_over, promise
from tus.protocols.origins import origin_of
from tus.protocols.tus1 import replies, requests, withholding
from tus.protocols.tus1.completion import reply_to
from tus.protocols.tus1.concatenation import Concatenation, load_all

#: Methods whose requests may have no field that shows their protocol.
_BARE: Final = ("HEAD", "GET", "DELETE")


class Conversation(Concatenation):
    """One request of a client of tus."""

    def answer(self) -> Steps:
        command = requests.parse(self.request, self.options, self.extensions)
        return self._ANSWERS[type(command)](self, command)

    def refuse(self, refusal: RequestError | Refused) -> Response:
        method = self.request.effective_method
        if isinstance(refusal, Refused):
            return replies.relayed(refusal.answer, method)
        if isinstance(refusal, StorageUnavailable) and self._may_inspect(method):
            refusal = UploadLocked()  # after a 5xx to HEAD clients abandon the upload and start again
        return replies.refused(refusal, method == "HEAD")

    def _may_inspect(self, method: str) -> bool:
        """Return whether the client may have sent HEAD: caches turn it into GET."""
        if method == "GET":
            return not self.options.download or "Tus-Resumable" in self.request.fields
        return method == "HEAD"

    def _discover(self, command: requests.Discover) -> Steps:
        yield from ()
        return replies.discovered(self.options, self.extensions)

    def _terminate(self, command: requests.Terminate) -> Steps:
        reply = yield from self.terminate(command.upload_id)
        return hook_replies.merged(replies.terminated(), reply)

    def _inspect(self, command: requests.Inspect) -> Steps:
        try:
            upload: Upload = yield Load(command.upload_id)
        except UNLOADED as error:
            yield from self.refuse_unloaded(Intent.HEAD, command.upload_id, error)
        if command.may_download and upload.state == State.ACCEPTED:
            try:
                return (yield from self._serve(upload))
            except UploadGone:
                pass  # the file is not kept, but the reply to HEAD still shows that it was finished
        return self._report(upload)

    def _report(self, upload: Upload) -> Steps:
        """Return the reply that reports the offset."""
        yield from self.authorize(Intent.HEAD, upload)
        if upload.is_final and upload.state == State.REJECTED:
            return replies.relayed(replace(decided(upload).answer, body=()), "HEAD")
        withholding.check_not_busy(upload, self.options)
        if upload.is_pending and not upload.is_known:
            upload = yield Promise(upload)  # this request shows that the client knows the URL
        if upload.is_final and upload.length is None:
            parts = yield from load_all(upload.parts)
            upload = replace(upload, length=requests.total_length(parts))
        return replies.inspected(upload, self.options)

    def _download(self, command: requests.Download) -> Steps:
        try:
            upload: Upload = yield Load(command.upload_id)
        except UNLOADED as error:
            yield from self.refuse_unloaded(Intent.DOWNLOAD, command.upload_id, error)
        if not requests.is_downloadable(upload):
            return self._report(upload)
        try:
            return (yield from self._serve(upload))
        except UploadGone:
            if not command.may_inspect:
                raise
        return self._report(upload)

    def _serve(self, upload: Upload) -> Generator[Effect, Any, Response]:
        yield from self.authorize(Intent.DOWNLOAD, upload)
        response: Response = yield Serve(upload)
        return replies.downloaded(upload, response, self.options)

    def _create(self, command: requests.Create) -> Steps:
        if command.parts:
            return self.create_final(command)
        options = self.options
        intake = None
        if command.body is not None and command.body.length != 0:
            intake = requests.decide_first_bytes(command, command.body, options)
        draft = Upload(
            length=command.length,
            raw_metadata=command.raw_metadata,
            concat=command.concat,
            service=options.service_name,
            origin=origin_of(self.request),
            is_known=intake is None and command.length != 0,  # else it may be complete before its client gets the URL
        )
        draft = digests.requested(draft, self.request.fields, options.digest)
        admission = yield from self.admit(Intent.CREATE, draft)
        whole = None if intake is None else (yield from self.create_whole(admission, intake))
        is_begun = whole is not None
        if whole is not None:
            upload, intake = whole, None
        else:
            upload, is_new = yield from self.create(admission)
            if is_new and options.has_hooks:
                try:
                    yield from self.announce(upload)
                except RequestError:
                    yield Remove(upload.id)
                    raise
            if not is_new:
                upload, intake = yield from self.find_again(upload, intake)
        if intake is not None:
            try:
                received: Received = yield Receive(upload, intake, begin=attempt_of(upload, intake, options))
                is_begun = received.is_begun
                upload = received.upload
                if received.overran or received.stopped is not None:
                    yield from self.refuse_received(received, intake)
            except OffsetMismatch:
                # The same request with the same key has sent bytes meanwhile; the client resumes behind them.
                upload = yield Fence(upload)
            except RequestError:
                if not upload.fingerprint:  # else the client finds the upload by its key
                    # The client does not get the URL, so the upload would be of no use.
                    yield from self.remove(upload)
                raise
            # After a disconnect, or on a full disk, the client gets the URL and the offset, and resumes from there.
        response = replies.created(upload, command.creation_url, command.body is not None or upload.offset > 0)
        if admission.reply is not None:
            response = hook_replies.merged(response, admission.reply)
        if upload.is_partial:
            return self.complete_part(upload, response)
        if not upload.is_complete:
            return response
        if not upload.is_pending:
            return reply_to(response, decided(upload))
        if upload.length:
            offset = withholding.reported_offset(upload, options)
            unfinished = replies.created(upload, command.creation_url, True, offset)
            try:
                return (yield from self.complete(upload, response, unfinished, is_begun=is_begun))
            except OffsetMismatch as error:  # bytes are lost, and the client sends them again
                return replies.created(upload, command.creation_url, True, error.offset)
        # An empty upload has no byte to withhold: its offset is its length. So a postponement removes it, and the
        # client creates it again. With a key the client finds it again.
        if options.handover == "background" and (yield from promise(upload)):
            return response
        handed = yield from hand_over(upload, options, self.postpone)
        if handed.outcome == Outcome.POSTPONED and not upload.fingerprint:
            yield from self.remove(upload)
        return reply_to(response, handed)

    def _append(self, command: requests.Append) -> Steps:
        options = self.options
        try:
            upload: Upload = yield Load(command.upload_id)
        except UNLOADED as error:
            yield from self.refuse_unloaded(Intent.APPEND, command.upload_id, error)
        yield from self.authorize(Intent.APPEND, upload)
        if not upload.is_known and not self.request.is_rerun:
            upload = replace(upload, is_known=True)
        if upload.offset == upload.length and withholding.ends_with(command, upload, options):
            upload = yield End(upload)
        is_complete = upload.is_complete
        if is_complete and not upload.is_partial:
            return self._repeat(command, upload)
        intake = requests.decide_append(command, upload, options)
        is_begun = False
        if not is_complete or intake.body.length is None:
            received: Received = yield Receive(upload, intake, begin=attempt_of(upload, intake, options))
            is_begun, upload = received.is_begun, received.upload
            if received.overran or received.stopped is not None:
                yield from self.refuse_received(received, intake)
            if received.failure is not None:
                raise received.failure
            if received.cut and intake.body.checksums:
                raise BadRequest("The body ended early, so its checksum cannot be verified; send all of it again.")
        response = replies.appended(upload)
        if is_begun or upload.is_pending:
            return self.complete(upload, response, is_begun=is_begun)
        return self.complete_part(upload, response) if upload.is_partial else response

    def _repeat(self, command: requests.Append, upload: Upload) -> Steps:
        """Respond to a PATCH of an upload that has all its bytes: it asks for the hand-over or for its result."""
        options = self.options
        if not upload.is_pending:
            if upload.is_final or not withholding.is_last_again(command, upload):
                requests.decide_append(command, upload, options)
                raise OffsetMismatch(withholding.reported_offset(upload, options))
            if command.body.length is None:  # a chunked body may have too many bytes
                yield from _peek(Intake(command.offset, None, upload.offset - command.offset, command.body))
            return reply_to(replies.appended(upload), decided(upload))
        intake = withholding.decide_repeat(command, upload, options)
        peeked = yield from _peek(intake)
        if not peeked.cut:
            verify(peeked.data, intake.body.checksums)
        if len(peeked.data) < (intake.limit or 0):
            return replies.appended(upload, withholding.reported_offset(upload, options))
        return self.complete(upload, replies.appended(upload), last_bytes=peeked.data)

    _ANSWERS: ClassVar[dict[type, Callable[[Conversation, Any], Steps]]] = {
        requests.Append: _append,
        requests.Create: _create,
        requests.Inspect: _inspect,
        requests.Terminate: _terminate,
        requests.Download: _download,
        requests.Discover: _discover,
    }


start = Conversation


def recognize(request: Request) -> Start | None:
    """Return the start of a conversation if the head alone shows that the request is of this protocol."""
    if request.method in _BARE and "Tus-Resumable" not in request.fields:
        return None
    return Conversation


def _peek(intake: Intake) -> Generator[Effect, Any, Peeked]:
    """Read a body that must not be longer than its limit.

    Raises:
        TooLarge: it is longer.
    """
    peeked: Peeked = yield Peek(intake)
    if len(peeked.data) > (intake.limit or 0):
        raise TooLarge(overrun_message(intake.limit or 0))
    return peeked
