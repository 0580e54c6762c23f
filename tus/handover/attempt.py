"""One attempt to hand a finished upload over: the effects of :func:`tus.protocols.handover.hand_over`."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Generator
from typing import Any, ClassVar, TypeVar

from tus.errors import NotTaken, Rejected, RequestError, StorageUnavailable, UploadReplaced
from tus.events import Ended, HandedOver, emit, is_wanted, listeners
from tus.hooks.calling import Hooks
from tus.models import Outcome, Request, Response, Upload
from tus.protocols import effects
from tus.protocols.effects import (
    Ask,
    Begin,
    Digest,
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

_LONGEST_ERROR = 500  # characters of an error text that the record keeps

#: Gives a complete upload to the application and returns its response. An exception postpones the hand-over.
Receiver = Callable[[Claim], Response]

_Result = TypeVar("_Result")


class Attempt:
    """The claim on an upload, and the application's response to it.

    Args:
        store: the store of the upload.
        receiver: gives the upload to the application; None if the caller performs :class:`Offer` itself.
        hooks: the hooks to call.
        request: the head of the client's request; None without a client.

    Attributes:
        claim: the held claim; None before and after.
    """

    def __init__(self, store: Store, receiver: Receiver | None, hooks: Hooks, request: Request | None) -> None:
        self._store = store
        self._receiver = receiver
        self._hooks = hooks
        self._request = request
        self._attempted_at = 0.0
        self._answer: Response | None = None
        self._upload: Upload | None = None
        self._settled: Claim | None = None
        self.claim: Claim | None = None

    @property
    def upload(self) -> Upload | None:
        """The upload, as it is now; None if there is none."""
        if self._settled is not None:  # few need the upload after that
            self._upload, self._settled = self._settled.upload, None
        return self._upload

    def schedule(self, upload: Upload) -> None:
        """Schedule another attempt, after one has failed. By default the caller does that."""

    def perform(self, effect: Any) -> Any:
        """Perform an effect, and return its result."""
        return self._PERFORM[type(effect)](self, effect)

    def adopt_claim(self, claim: Claim) -> None:
        """Go on with a claim whose attempt has begun."""
        self.claim, self._attempted_at = claim, time.monotonic()

    def _take(self, effect: effects.Claim) -> Upload:
        self.leave()
        self.claim = self._store.claim(effect.upload)
        return self._note(self.claim.upload)

    def _note(self, upload: Upload) -> Upload:
        self._upload, self._settled = upload, None
        return upload

    def _read_back(self, effect: ReadBack) -> bytes:
        with self._claimed().open() as file:
            file.seek(-effect.size, os.SEEK_END)
            return file.read(effect.size)

    def _digest(self, effect: Digest) -> Upload:
        self._attempted_at = time.monotonic()
        return self._note(self._claimed().digest())

    def _begin(self, effect: Begin) -> Upload:
        self._attempted_at = time.monotonic()
        return self._note(self._claimed().begin(effect.is_last))

    def _offer(self, effect: Offer) -> Offered:
        assert self.claim is not None and self._receiver is not None, "else the caller performs it"
        try:
            self._answer = answer = self._receiver(self.claim)
            return Offered(answer)
        except BaseException as error:
            return self.take_exception(error)

    def take_answer(self, answer: Response) -> Offered:
        """Keep the response to an offer that the caller has performed, and return it as the result."""
        self._answer = answer
        return Offered(answer)

    def take_exception(self, error: BaseException) -> Offered:
        """Map an exception of the application to an outcome; raise again what must stop the process."""
        if isinstance(error, Rejected):
            return Offered(Response.of_error(error), outcome=Outcome.REJECTED)
        if isinstance(error, RequestError):
            return Offered(Response.of_error(error), _error_text(error), Outcome.POSTPONED)
        if isinstance(error, KeyboardInterrupt) or (self._request is not None and not isinstance(error, Exception)):
            raise error
        # Without a request no caller could handle the exception.
        log.error("the application failed to take a finished upload; the upload is kept", exc_info=error)
        return Offered(_failure(), _error_text(error), Outcome.POSTPONED)

    def _settle(self, effect: Settle) -> Upload | None:
        claim, outcome = self.claim, effect.outcome
        assert claim is not None, "a Claim comes first"
        is_pending = outcome is Outcome.POSTPONED
        try:
            if outcome is Outcome.ACCEPTED:
                claim.accept(effect.answer)
            elif outcome is Outcome.REJECTED:
                claim.reject(effect.answer)
            else:
                claim.release(effect.error)
        except UploadReplaced:
            self.leave()  # the upload is another holder's by now, but the files are still open
            raise
        except Exception:
            if outcome is not Outcome.ACCEPTED:
                raise
            is_pending = True
            # The application has the file, whatever the disk says. The client must not send it again.
            log.exception("upload %s is accepted, but that could not be recorded", claim.upload.id)
            self._release(claim, "it was accepted, but that could not be recorded")
        self.claim, self._settled = None, claim
        if is_pending:
            self._schedule_again(claim.upload, outcome)
        if listeners[HandedOver]:
            emit(HandedOver(claim.upload, str(outcome), time.monotonic() - self._attempted_at))
        if outcome is not Outcome.POSTPONED and is_wanted(Ended):
            emit(Ended(claim.upload, str(outcome)))
        return self.upload if outcome is Outcome.POSTPONED else None

    def _schedule_again(self, upload: Upload, outcome: Outcome) -> None:
        """Schedule another attempt for an upload, unless bytes of it are lost."""
        if upload.is_pending and outcome is Outcome.ACCEPTED:
            upload = self._promise_again(upload)
        self._note(upload)
        if upload.is_pending:
            self.schedule(upload)

    def _claimed(self) -> Claim:
        assert self.claim is not None, "a Claim comes first"
        return self.claim

    def drop_answer(self, response: Response) -> None:
        """Close the application's response if the client gets another one."""
        answer, self._answer = self._answer, None
        if answer is not None and answer.body is not response.body:
            try:
                getattr(answer.body, "close", lambda: None)()
            except Exception:
                log.exception("the application's response could not be closed")

    def leave(self, error: str | None = None) -> None:
        """Release the claim, if it was not settled.

        Args:
            error: the error text for the operator.
        """
        if self.claim is not None:
            claim, self.claim = self.claim, None
            self._release(claim, error)
            if claim.upload.attempts and error is not None:
                emit(HandedOver(claim.upload, str(Outcome.POSTPONED), time.monotonic() - self._attempted_at))

    def _release(self, claim: Claim, error: str | None) -> None:
        """Release a claim; log a failure, because the claim ends anyway, and the response is decided."""
        try:
            claim.release(error)
        except UploadReplaced:
            pass
        except Exception:
            log.exception("the claim on upload %s could not be released", claim.upload.id)

    def _promise_again(self, upload: Upload) -> Upload:
        """Let the background offer an upload again whose client has its success, and return it."""
        try:
            return self._store.promise(upload)
        except Exception:
            log.exception("upload %s may expire before it is offered again", upload.id)
            return upload

    #: The methods by the kind of effect.
    _PERFORM: ClassVar[dict[type, Callable[[Any, Any], Any]]] = {
        effects.Claim: _take,
        ReadBack: _read_back,
        Digest: _digest,
        Begin: _begin,
        Offer: _offer,
        Settle: _settle,
        Ask: lambda self, effect: self._hooks.ask(effect.type, effect.upload, self._request),
        Queue: lambda self, effect: self._hooks.queue(effect.type, effect.upload, self._request),
        Unqueue: lambda self, effect: self._hooks.unqueue(effect.type, effect.upload, self._request),
        Tell: lambda self, effect: self._hooks.notify(effect.type, effect.upload, self._request),
    }


def run(steps: Generator[Any, Any, _Result], perform: Callable[[Any], Any]) -> _Result:
    """Run a generator of effects to its end, and return its result.

    Args:
        steps: the generator.
        perform: performs an effect. A :class:`~tus.errors.RequestError` is thrown into the generator, and
            StorageUnavailable in the place of another exception.
    """
    try:
        effect = next(steps)
        while True:
            try:
                result = perform(effect)
            except RequestError as error:
                effect = steps.throw(error)
            except Exception as error:
                log.exception("the store failed")
                effect = steps.throw(StorageUnavailable().with_traceback(error.__traceback__))
            else:
                effect = steps.send(result)
    except StopIteration as stop:
        returned: _Result = stop.value
        return returned


def _failure() -> Response:
    return Response.of_text(
        500, "The application failed to process this file. The file is kept; try again.", headers=NotTaken().headers
    )


def _error_text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:_LONGEST_ERROR]
