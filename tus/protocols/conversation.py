"""The steps that a request of any protocol needs: permission, hooks, and receiving the body.

The flow of a protocol derives its conversation from :class:`Conversation`. Its generators decide and yield effects.
Like all of :mod:`tus.protocols` they perform nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any, Protocol

from tus.errors import RequestError, StorageUnavailable, TooLarge, UploadLocked, UploadNotFound
from tus.models import HookReply, HookType, Intent, Request, Response, State, Upload
from tus.options import Options
from tus.protocols import hook_replies
from tus.protocols.admission import Refused, check_alive, check_owner
from tus.protocols.bodies import Intake, overrun_message
from tus.protocols.effects import Ask, Authorize, Effect, Load, Queue, Received, Remove, Steps, Tell, Unqueue

#: Starts a conversation with the arguments of :class:`Conversation`.
Start = Callable[[Request, Options, frozenset[str], float, "str | None"], "Conversation"]


class Flow(Protocol):
    """A protocol, as :mod:`tus.protocols.exchange` uses it: the module ``flow`` of its folder."""

    def recognize(self, request: Request) -> Start | None:
        """Return the start of a conversation if the head alone shows that the request is of this protocol."""

    def start(
        self, request: Request, options: Options, extensions: frozenset[str], now: float, principal: str | None
    ) -> Conversation:
        """Start a conversation about a request that names no version."""


class Conversation:
    """One request.

    Args:
        request: the head.
        options: the operator's choices.
        extensions: the tus extensions that work with this store on this server.
        now: seconds since 1970.
        principal: the principal that sends the request, if the caller knows it.
    """

    def __init__(
        self, request: Request, options: Options, extensions: frozenset[str], now: float, principal: str | None
    ) -> None:
        self.request = request
        self.options = options
        self.extensions = extensions
        self.now = now
        self.principal = principal

    def answer(self) -> Steps:
        """Return the response to the request; a refusal is a response too."""
        raise NotImplementedError

    def authorize(self, intent: Intent, upload: Upload) -> Generator[Effect, Any, str | None]:
        """Check that the request may do this, and return its principal.

        Raises:
            Refused: the application has refused the request.
            UploadNotFound: the upload belongs to another principal.
        """
        principal = self.principal
        if self.options.needs_authorization:
            verdict: str | Response | None = yield Authorize(intent, upload)
            if isinstance(verdict, Response):
                raise Refused(verdict)
            principal = verdict
        if upload.principal is not None:
            check_owner(upload, principal)
        return principal

    def admit(self, intent: Intent, draft: Upload) -> Generator[Effect, Any, tuple[Upload, HookReply | None]]:
        """Return the draft with the changes of the hooks, and their reply, if the upload may be created.

        Raises:
            Refused: the application or a hook has refused the request.
        """
        principal = yield from self.authorize(intent, draft)
        if principal is not None:
            draft = replace(draft, principal=principal)
        if not self.options.has_hooks:
            return draft, None
        reply: HookReply | None = yield Ask(HookType.PRE_CREATE, draft)
        if reply is None:
            return draft, None
        if reply.reject:
            raise Refused(hook_replies.refusal(reply, "The server does not accept this upload."))
        return hook_replies.changed(draft, reply), reply

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

    def announce(self, upload: Upload) -> Generator[Effect, Any, None]:
        """Notify the hooks that an upload was created."""
        yield Queue(HookType.POST_CREATE, upload)
        yield Tell(HookType.POST_CREATE, upload)

    def check_received(self, received: Received, intake: Intake) -> Generator[Effect, Any, Upload]:
        """Return the upload after its body was received.

        Raises:
            Refused: a hook has stopped the upload.
            TooLarge: the body has more bytes than its limit.
        """
        if received.stopped is not None:
            yield from self.remove(received.upload)
            raise Refused(hook_replies.refusal(received.stopped, "The server has stopped this upload."))
        if received.overran:
            raise TooLarge(overrun_message(intake.limit or 0))
        return received.upload

    def remove(self, upload: Upload) -> Generator[Effect, Any, None]:
        """Remove an upload, and notify the hooks."""
        if not self.options.has_hooks:
            yield Remove(upload.id)
            return
        yield Queue(HookType.POST_TERMINATE, upload)
        try:
            yield Remove(upload.id)
        except RequestError:
            yield Unqueue(HookType.POST_TERMINATE, upload)
            raise
        yield Tell(HookType.POST_TERMINATE, upload)

    def terminate(self, upload_id: str) -> Generator[Effect, Any, HookReply | None]:
        """Remove an upload for its client, and return the reply of the hook.

        Raises:
            Refused: the application or a hook has refused the request.
            UploadLocked: the upload is being handed over.
        """
        upload: Upload = yield Load(upload_id)
        yield from self.authorize(Intent.TERMINATE, upload)
        check_alive(upload, self.now)
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
