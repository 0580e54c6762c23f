"""The finished file's way into the application: the synchronous half of :mod:`tus.protocols.handover`."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Any

from tus.errors import NotTaken, Rejected, RequestError
from tus.events import Ended, HandedOver, emit
from tus.hooks.calling import Hooks
from tus.models import Outcome, Request, Response, Upload
from tus.protocols import effects
from tus.protocols.effects import (
    Ask,
    Begin,
    Digest,
    HandingEffect,
    Offer,
    Offered,
    Queue,
    ReadBack,
    Settle,
    Tell,
    Unqueue,
)
from tus.stores.interface import Claim, Store

log = logging.getLogger(__name__)


_LONGEST_ERROR = 500  # characters that are kept for the operator

#: Gives a complete upload to the application, and answers with what that said. What it raises is "not now".
Receiver = Callable[[Claim], Response]


class Handing:
    """One hand-over.

    Args:
        store: where the upload is.
        receiver: gives it to the application; None where the driver deals with :class:`Offer` itself.
        hooks: who else is asked and told.
        request: the head of the client's request, if there is one.

    Attributes:
        claim: what is being handed over; None before and after.
    """

    def __init__(self, store: Store, receiver: Receiver | None, hooks: Hooks, request: Request | None) -> None:
        self._store = store
        self._receiver = receiver
        self._hooks = hooks
        self._request = request
        self._began = 0.0
        self._answer: Response | None = None
        self.claim: Claim | None = None

    def perform(self, effect: HandingEffect) -> Any:
        """Do what is asked for, and return what is to be sent back."""
        match effect:
            case effects.Claim(upload):
                self.leave()
                self.claim = self._store.claim(upload)
                return self.claim.upload
            case Ask(kind, upload):
                return self._hooks.ask(kind, upload, self._request)
            case Queue(kind, upload):
                return self._hooks.queue(kind, upload, self._request)
            case Unqueue(kind, upload):
                return self._hooks.unqueue(kind, upload, self._request)
            case Tell(kind, upload):
                return self._hooks.tell(kind, upload, self._request)
        assert self.claim is not None, "what follows a Claim"
        match effect:
            case ReadBack(size):
                with self.claim.open() as file:
                    file.seek(-size, os.SEEK_END)
                    return file.read(size)
            case Digest():
                self._began = time.monotonic()
                return self.claim.digest()
            case Begin(is_last):
                self._began = time.monotonic()
                return self.claim.begin(is_last)
            case Offer():
                return self._offer(self.claim)
            case Settle():
                return self._settle(self.claim, effect)

    def _offer(self, claim: Claim) -> Offered:
        assert self._receiver is not None, "the driver deals with it itself"
        try:
            return self.took(self._receiver(claim))
        except BaseException as error:
            return self.failed(error)

    def took(self, answer: Response) -> Offered:
        """What the application said."""
        self._answer = answer
        return Offered(answer)

    def failed(self, error: BaseException) -> Offered:
        """What the application meant by an exception, which is raised again where that is not its to say."""
        if isinstance(error, Rejected):
            return Offered(_as_answer(error), outcome=Outcome.REJECTED)
        if isinstance(error, RequestError):
            return Offered(_as_answer(error), _error_text(error), Outcome.POSTPONED)
        if isinstance(error, KeyboardInterrupt) or (self._request is not None and not isinstance(error, Exception)):
            raise error
        # Without a request there is nobody above whose business it is that code of the application ends like this.
        log.error("the application failed to take a finished upload; it is kept", exc_info=error)
        return Offered(_failed(), _error_text(error), Outcome.POSTPONED)

    def _settle(self, claim: Claim, settled: Settle) -> Upload:
        match settled.outcome:
            case Outcome.ACCEPTED:
                claim.accept(settled.answer)
            case Outcome.REJECTED:
                claim.reject(settled.answer)
            case Outcome.POSTPONED:
                claim.release(settled.error)
        self.claim = None
        emit(HandedOver(claim.upload, str(settled.outcome), time.monotonic() - self._began))
        if settled.outcome != Outcome.POSTPONED:
            emit(Ended(claim.upload, str(settled.outcome)))
        return claim.upload

    def drop_answer(self, response: Response) -> None:
        """Let go of the application's answer where the client is told something else."""
        if self._answer is not None and self._answer.body is not response.body:
            getattr(self._answer.body, "close", lambda: None)()

    def leave(self, error: str | None = None) -> None:
        """Let go of what is claimed, if nothing came of it."""
        if self.claim is not None:
            claim, self.claim = self.claim, None
            claim.release(error)
            if claim.upload.attempts and error is not None:
                emit(HandedOver(claim.upload, str(Outcome.POSTPONED), time.monotonic() - self._began))


def _as_answer(error: RequestError) -> Response:
    return Response.of_text(error.status, str(error), error.reason, error.headers)


def _failed() -> Response:
    return Response.of_text(
        500, "The application failed to take this file, which is kept; try again.", headers=NotTaken().headers
    )


def _error_text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:_LONGEST_ERROR]
