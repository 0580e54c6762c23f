"""Who may do what, and what the hooks have to say: before something happens to an upload, and when it goes."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

from tus.errors import RequestError, StorageUnavailable, TooLarge, UploadGone, UploadLocked, UploadNotFound
from tus.models import HookReply, HookType, Intent, Response, State, Upload
from tus.options import Options
from tus.protocols import hook_replies as hooking
from tus.protocols.bodies import Intake, overrun_message
from tus.protocols.effects import Ask, Authorize, Effect, Load, Queue, Received, Remove, Tell, Unqueue


class Refused(Exception):
    """Whoever was asked has answered the client itself."""

    def __init__(self, answer: Response) -> None:
        super().__init__(answer.status)
        self.answer = answer


def authorized(intent: Intent, upload: Upload) -> Generator[Effect, Any, str | None]:
    """Go on only if the request may do this; returns its principal."""
    verdict: str | Response | None = yield Authorize(intent, upload)
    if isinstance(verdict, Response):
        raise Refused(verdict)
    check_owner(upload, verdict)
    return verdict


def check_new(draft: Upload) -> Generator[Effect, Any, None]:
    """See that nobody has the id that a hook has given."""
    try:
        yield Load(draft.id)
    except UploadNotFound:
        return
    except RequestError:
        pass
    raise StorageUnavailable()


def admitted(
    intent: Intent, draft: Upload, options: Options
) -> Generator[Effect, Any, tuple[Upload, HookReply | None]]:
    """The upload that may be created, as the hooks want it."""
    principal = yield from authorized(intent, draft)
    if principal is not None:
        draft = replace(draft, principal=principal)
    if not options.has_hooks:
        return draft, None
    reply: HookReply | None = yield Ask(HookType.PRE_CREATE, draft)
    if reply is None:
        return draft, None
    if reply.reject:
        raise Refused(hooking.refusal(reply, "This upload is not wanted here."))
    return hooking.changed(draft, reply), reply


def received_upload(received: Received, intake: Intake, options: Options) -> Generator[Effect, Any, Upload]:
    """The upload after its body was taken in, as far as that was allowed."""
    if received.stopped is not None:
        yield from removed(received.upload, options)
        raise Refused(hooking.refusal(received.stopped, "This upload was stopped."))
    if received.overran:
        raise TooLarge(overrun_message(intake.limit or 0))
    return received.upload


def removed(upload: Upload, options: Options) -> Generator[Effect, Any, None]:
    """Remove an upload, and have the hooks know."""
    if not options.has_hooks:
        yield Remove(upload.id)
        return
    yield Queue(HookType.POST_TERMINATE, upload)
    try:
        yield Remove(upload.id)
    except RequestError:
        yield Unqueue(HookType.POST_TERMINATE, upload)
        raise
    yield Tell(HookType.POST_TERMINATE, upload)


def terminated(upload_id: str, options: Options, now: float) -> Generator[Effect, Any, HookReply | None]:
    """Remove an upload because its client wants that; returns what a hook adds to the reply."""
    upload: Upload = yield Load(upload_id)
    yield from authorized(Intent.TERMINATE, upload)
    check_alive(upload, now)
    if upload.state == State.HANDING_OVER:
        raise UploadLocked("The application is taking this file just now; try again.")
    reply: HookReply | None = None
    if options.has_hooks:
        reply = yield Ask(HookType.PRE_TERMINATE, upload)
        if reply is not None and reply.reject:
            raise Refused(hooking.refusal(reply, "This upload is kept."))
    yield from removed(upload, options)
    return reply


def made(upload: Upload, options: Options) -> Generator[Effect, Any, None]:
    """Have the hooks know of an upload that was made."""
    if options.has_hooks:
        yield Queue(HookType.POST_CREATE, upload)
        yield Tell(HookType.POST_CREATE, upload)


def check_alive(upload: Upload, now: float) -> None:
    """Refuse an upload that has expired but was not yet removed (Expiration)."""
    if upload.has_expired(now):
        raise UploadGone()


def check_owner(upload: Upload, principal: str | None) -> None:
    """Refuse an upload that somebody else created, as if there was none."""
    if upload.principal is not None and principal != upload.principal:
        raise UploadNotFound()
