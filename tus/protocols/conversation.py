"""The steps that a request of any protocol needs: permission, hooks, and receiving the body.

The flow of a protocol derives its conversation from :class:`Conversation`. Its generators decide and yield effects.
Like all of :mod:`tus.protocols` they perform nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, NamedTuple, NoReturn, Protocol

from tus.errors import RequestError, StorageFull, StorageUnavailable, TooLarge, UploadGone, UploadLocked, UploadNotFound
from tus.models import HookReply, HookType, Intent, Request, Response, State, Upload
from tus.options import Options
from tus.protocols import hook_replies, idempotency
from tus.protocols.admission import Refused, agree, check_alive, check_owner, named_principal
from tus.protocols.bodies import Intake, overrun_message
from tus.protocols.effects import (
    Ask,
    Authorize,
    Create,
    CreateOnce,
    CreateWhole,
    Effect,
    Fence,
    Load,
    Name,
    Queue,
    Received,
    Remove,
    Steps,
    Tell,
    Unqueue,
)
from tus.protocols.handover import attempt_of

#: The errors of a :class:`Load` that show what is stored.
UNLOADED: Final = (UploadNotFound, UploadGone, UploadLocked)

#: Starts a conversation with the arguments of :class:`Conversation`.
Start = Callable[[Request, Options, frozenset[str], float, object], "Conversation"]


class Flow(Protocol):
    """A protocol, as :mod:`tus.protocols.exchange` uses it: the module ``flow`` of its folder."""

    def recognize(self, request: Request) -> Start | None:
        """Return the start of a conversation if the head alone shows that the request is of this protocol."""

    def start(
        self, request: Request, options: Options, extensions: frozenset[str], now: float, principal: object
    ) -> Conversation:
        """Start a conversation about a request that names no version."""


class Admission(NamedTuple):
    """A creation that is allowed.

    Attributes:
        draft: with the changes of the hooks. It has a fingerprint if its id is made from an ``Idempotency-Key``.
        reply: of the hooks.
        found: the upload that the same request has created before, by its key. No hook was asked then.
    """

    draft: Upload
    reply: HookReply | None = None
    found: Upload | None = None


class Conversation:
    """One request.

    Args:
        request: the head.
        options: the operator's choices.
        extensions: the tus extensions that work with this store on this server.
        now: seconds since 1970.
        principal: the principal that sends the request, if the caller knows it; its value is checked here.

    Attributes:
        is_admitted: whether the request has permission; None if it was not asked for yet. Without it a reply must not
            show whether the upload exists.
    """

    is_admitted: bool | None = None

    def __init__(
        self, request: Request, options: Options, extensions: frozenset[str], now: float, principal: object
    ) -> None:
        self.request = request
        self.options = options
        self.extensions = extensions
        self.now = now
        self.principal = principal

    def answer(self) -> Steps:
        """Return the steps that respond to the request.

        Raises:
            RequestError: by the head alone, the request is refused. The steps may raise it, too, and :class:`Refused`.
        """
        raise NotImplementedError

    def refuse(self, refusal: RequestError | Refused) -> Response:
        """Return the response to a request that is refused."""
        raise NotImplementedError

    def authorize(self, intent: Intent, upload: Upload) -> Generator[Effect, Any, str | None]:
        """Check that the request may do this, and return its principal.

        Args:
            intent: of the request.
            upload: as it was loaded, or a draft before its creation.

        Raises:
            Refused: the application has refused the request.
            Forbidden: code of the site has refused it, or has named two principals.
            InternalError: code of the site has named something that is no principal.
            UploadNotFound: the upload belongs to another principal.
            UploadGone: the upload has expired.
        """
        self.is_admitted = False
        principal = None if self.principal is None else named_principal(self.principal, "principal=")
        if self.options.needs_authorization:
            verdict: str | Response | None = yield Authorize(intent, upload)
            if isinstance(verdict, Response):
                raise Refused(verdict)
            principal = agree(principal, verdict)
        if upload.principal is not None:
            check_owner(upload, principal)
        self.is_admitted = True
        if upload.expires_at is not None and self.now >= upload.expires_at:
            check_alive(upload, self.now)
        return principal

    def refuse_unloaded(self, intent: Intent, upload_id: str, error: RequestError) -> Generator[Effect, Any, NoReturn]:
        """Refuse a request whose upload cannot be loaded.

        It needs the same permission as a request for any other upload, so that a client without it cannot find out
        which uploads exist, or did. The application is asked about an upload that is terminated.

        Raises:
            RequestError: the error, or a refusal.
            Refused: the application has refused the request.
        """
        owner = None if error.upload is None else error.upload.principal
        principal = yield from self.authorize(intent, Upload(id=upload_id, state=State.TERMINATED, principal=owner))
        raise self.error_for(error, principal)

    def error_for(self, error: RequestError, principal: str | None) -> RequestError:
        """Return the error that a client gets about an upload that cannot be loaded."""
        if error.upload is not None:
            is_hidden = error.upload.principal not in (None, principal)
        else:  # a damaged record may have named another principal
            is_hidden = isinstance(error, UploadGone) and self.has_principals
        return UploadNotFound() if is_hidden else error

    @property
    def has_principals(self) -> bool:
        """Whether an upload of unknown owner may belong to another principal."""
        return self.principal is not None or self.options.needs_authorization

    def admit(
        self, intent: Intent, draft: Upload, check: Callable[[str | None], object] | None = None
    ) -> Generator[Effect, Any, Admission]:
        """Check that the upload may be created, unless the same request has created it before.

        Args:
            intent: of the request.
            draft: the upload.
            check: called with the principal before the hooks; raises an error that refuses the request.

        Raises:
            Refused: the application or a hook has refused the request.
            BadRequest: the ``Idempotency-Key`` is malformed.
            KeyReused: the key belongs to another request.
        """
        principal = yield from self.authorize(intent, draft)
        if principal is not None:
            draft = replace(draft, principal=principal)
        key = self.request.fields.get(idempotency.FIELD)
        if key is not None and not draft.is_partial:  # tus-js-client sends one key for all parts of a file
            draft, found = yield from self._find_by_key(draft, key)
            if found is not None:
                return Admission(draft, found=found)
        if check is not None:
            check(principal)
        if not self.options.has_hooks:
            return Admission(draft)
        reply: HookReply | None = yield Ask(HookType.PRE_CREATE, replace(draft, id="") if draft.id else draft)
        if reply is None:
            return Admission(draft)
        if reply.reject:
            raise Refused(hook_replies.refusal(reply, "The server does not accept this upload."))
        return Admission(hook_replies.changed(draft, reply), reply)

    def _find_by_key(self, draft: Upload, value: str) -> Generator[Effect, Any, tuple[Upload, Upload | None]]:
        """Return the draft with the id for its key, and the upload that the same request has created before, if any."""
        key = idempotency.parse_key(value, draft.principal)
        upload_id: str | None = yield Name(idempotency.name_of(key, draft))
        if upload_id is None:
            return draft, None
        draft = replace(draft, id=upload_id, fingerprint=idempotency.fingerprint_of(key, draft, self.request))
        try:
            found: Upload = yield Load(upload_id)
        except (UploadNotFound, UploadGone):
            return draft, None
        return draft, None if found.has_expired(self.now) else idempotency.check_same(found, draft)

    def create(self, admission: Admission) -> Generator[Effect, Any, tuple[Upload, bool]]:
        """Create an upload, and return it and whether this request has created it.

        Raises:
            StorageUnavailable: another upload has the id that a hook has chosen.
            KeyReused: another request has used the key meanwhile.
        """
        draft, reply, found = admission
        if found is not None:
            return found, False
        is_chosen = reply is not None and reply.id is not None
        if not draft.fingerprint:
            if is_chosen:
                yield from self.check_new(draft)
            upload: Upload = yield Create(draft)
            return upload, True
        created: Upload | None = yield CreateOnce(draft)
        if created is not None:
            return created, True
        upload = yield Load(draft.id)
        if is_chosen and (upload.principal, upload.fingerprint) != (draft.principal, draft.fingerprint):
            raise StorageUnavailable()
        return idempotency.check_same(upload, draft), False

    def create_whole(self, admission: Admission, intake: Intake) -> Generator[Effect, Any, Upload | None]:
        """Create an upload with its whole body, and begin its hand-over; return None if it takes several steps."""
        draft, _, found = admission
        if found is not None or draft.fingerprint or self.options.has_hooks:
            return None
        begin = attempt_of(draft, intake, self.options)
        if begin is None or intake.body.checksums or intake.body.length != draft.length:
            return None
        received: Received | None = yield CreateWhole(draft, intake, begin)
        return None if received is None else received.upload

    def check_new(self, draft: Upload) -> Generator[Effect, Any, None]:
        """Check that no upload has the id that a hook has chosen.

        Raises:
            StorageUnavailable: one has, or may have.
        """
        try:
            yield Load(draft.id)
        except UploadNotFound:
            return
        except RequestError:
            pass
        raise StorageUnavailable()

    def find_again(self, upload: Upload, intake: Intake | None) -> Generator[Effect, Any, tuple[Upload, Intake | None]]:
        """Return the upload of a repeated creation, and the rules for its body; None if the body is not needed.

        A body counts only if the upload has no byte yet. Else the client gets the offset, and resumes from there. The
        first request, if it is still running, must not move that offset any more.
        """
        if upload.state == State.RECEIVING and upload.offset and intake is not None:
            upload = yield Fence(upload)
        is_needed = upload.state == State.RECEIVING and not upload.offset
        return replace(upload, is_known=True), intake if is_needed else None

    def announce(self, upload: Upload) -> Generator[Effect, Any, None]:
        """Notify the hooks that an upload was created."""
        yield Queue(HookType.POST_CREATE, upload)
        yield Tell(HookType.POST_CREATE, upload)

    def refuse_received(self, received: Received, intake: Intake) -> Generator[Effect, Any, NoReturn]:
        """Refuse a request whose body overran its limit, or whose upload a hook has stopped.

        Raises:
            Refused: a hook has stopped the upload.
            TooLarge: the body has more bytes than its limit.
        """
        if received.stopped is None:
            raise TooLarge(overrun_message(intake.limit or 0))
        yield from self.remove(received.upload)
        raise Refused(hook_replies.refusal(received.stopped, "The server has stopped this upload."))

    def remove(self, upload: Upload) -> Generator[Effect, Any, None]:
        """Remove an upload, and notify the hooks."""
        if not self.options.has_hooks:
            yield Remove(upload.id)
            return
        is_queued = True
        try:
            yield Queue(HookType.POST_TERMINATE, upload)
        except StorageFull:
            is_queued = False  # the removal makes room for the event, and must not wait for it
        try:
            yield Remove(upload.id)
        except RequestError:
            if is_queued:
                yield Unqueue(HookType.POST_TERMINATE, upload)
            raise
        if not is_queued:
            with suppress(RequestError):  # the outbox has logged it
                yield Queue(HookType.POST_TERMINATE, upload)
        yield Tell(HookType.POST_TERMINATE, upload)

    def terminate(self, upload_id: str) -> Generator[Effect, Any, HookReply | None]:
        """Remove an upload for its client, and return the reply of the hook.

        Raises:
            Refused: the application or a hook has refused the request.
            UploadLocked: the upload is being handed over.
        """
        try:
            upload: Upload = yield Load(upload_id)
        except UNLOADED as error:
            yield from self.refuse_unloaded(Intent.TERMINATE, upload_id, error)
        yield from self.authorize(Intent.TERMINATE, upload)
        if upload.state == State.HANDING_OVER:
            raise UploadLocked("The application is processing this file; try again.")
        reply: HookReply | None = None
        if self.options.has_hooks:
            reply = yield Ask(HookType.PRE_TERMINATE, upload)
            if reply is not None and reply.reject:
                raise Refused(hook_replies.refusal(reply, "The server does not terminate this upload."))
            upload = yield Load(upload_id)  # the hook may have taken long, and the file may be accepted by now
        yield from self.remove(upload)
        return reply
