"""The runner of one exchange: it performs the effects that wait only for the disk.

Law of this room: it decides nothing, and nothing here waits for a client. The caller, ``Tus`` or ``AsyncTus``, performs
the other effects::

    effect = runner.begin()
    while effect is not None:
        effect = runner.go_on(perform, effect)  # performs it, and goes on to the next one that the caller performs
    runner.conclude()
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, get_args

from tus.adapters.interface import Face, Informs
from tus.errors import InternalError, RequestError, StorageUnavailable, UploadNotFound
from tus.events import Answered, Begun, Created, Ended, Finished, emit, listeners
from tus.handover.attempt import Attempt, Receiver
from tus.models import Block, HookReply, HookType, Intent, Response, State, Upload
from tus.protocols.admission import agree, named_principal
from tus.protocols.effects import (
    Authorize,
    Begin,
    Claim,
    Concatenate,
    Create,
    CreateOnce,
    CreateWhole,
    Digest,
    Effect,
    End,
    Fence,
    FinalsOf,
    HandoverEffect,
    Inform,
    Load,
    Name,
    Peek,
    Peeked,
    Promise,
    Receive,
    Received,
    Remove,
    Serve,
    Settle,
    Steps,
    Touch,
    Wait,
    Watch,
)
from tus.protocols.exchange import exchange, is_ours, refuse
from tus.protocols.routing import path_of, path_values
from tus.server.downloads import download
from tus.server.pace import Patience
from tus.server.reception import OffsetListener, Reception, Sink
from tus.server.reception import Peek as PeekSink
from tus.stores.interface import SMALL, Concatenates, Names, Reads

if TYPE_CHECKING:
    from tus.server.service import Service

log = logging.getLogger(__name__)

#: Asks the application for permission. Returns the principal or None, or the response that refuses the request.
#: ``AsyncTus`` awaits the result.
Asker = Callable[[Intent, Upload], Any]


def _start(effect: None) -> None:
    """Return None, which starts a generator if it is sent first."""


class RequestBody(Protocol):
    """A body that is being read, or was.

    Attributes:
        received: the number of bytes that were read so far.
        cut: whether the connection ended before the body did.
    """

    received: int
    cut: bool


class Runner:
    """One request.

    Args:
        adapter: the request.
        service: the options, the store and the hooks.
        receiver: gives finished uploads to the application; None if the caller does that.
        asker: asks the application for permission for the intents of ``ask_app``.
        principal: the principal that sends the request, if the caller knows it; the exchange checks the value.

    Attributes:
        left: the types of the effects that the caller performs; the caller may add others.
        attempt: the attempt of the hand-over.
        upload: the upload of the request, as it is now; None if there is none.
        body: the request's body; None before it is read.
        kept: the number of its bytes that are counted.
        response: the response; None before the end.
        is_in_application: whether code of the application runs, whose exceptions are not of the store.
    """

    def __init__(
        self,
        adapter: Face,
        service: Service,
        receiver: Receiver | None = None,
        asker: Asker | None = None,
        principal: object = None,
    ) -> None:
        self.left: tuple[type[Effect], ...] = (Receive, Peek, CreateWhole)
        self.attempt = Attempt(service.store, receiver, service.hooks, adapter.request)
        self.upload: Upload | None = None
        self.body: RequestBody | None = None
        self.kept = 0
        self.is_in_application = False
        self._adapter = adapter
        self._request = request = adapter.request
        self._service = service
        self._options = service.options
        if service.has_path_values:
            request.path_values = path_values(path_of(request.url), service.options.upload_path or "")
        self._store = service.store
        self._asker = asker
        self._principal = principal
        self._steps: Steps
        self._began = 0.0
        self.response: Response | None = None
        self._is_answered = False
        self._served: Response | None = None

    @property
    def is_ours(self) -> bool:
        """Whether the request is about uploads; else it is for a page or a form at the same URL."""
        return is_ours(self._request, self._options)

    # -- From effect to effect --

    def begin(self) -> Effect | None:
        """Start the exchange, and return the first effect that the caller performs; None at the end."""
        self._began = time.monotonic()
        if listeners[Begun]:
            emit(Begun(self._request.effective_method))
        self._steps = exchange(self._request, self._options, self._service.extensions, time.time(), self._principal)
        return self.go_on(_start, None)

    def go_on(self, perform: Callable[[Any], Any], effect: Effect | None) -> Effect | None:
        """Perform an effect, and return the next one that the caller performs; None at the end.

        Args:
            perform: performs the effect, and returns its result or raises.
            effect: the effect that was returned last.
        """
        steps, left = self._steps, self.left
        try:
            while True:
                try:
                    result = perform(effect)
                except RequestError as error:
                    self.is_in_application = False
                    effect = steps.throw(error)
                except Exception as error:
                    if self.is_in_application:
                        raise
                    log.exception("the store failed")
                    effect = steps.throw(StorageUnavailable().with_traceback(error.__traceback__))
                else:
                    effect = steps.send(result)
                if type(effect) in left:
                    return effect
                perform = self.perform
        except StopIteration as stop:
            self.response = stop.value
            return None

    def perform(self, effect: Effect) -> Any:
        """Perform an effect, and return its result."""
        return self._PERFORM[type(effect)](self, effect)

    def conclude(self, is_claim_kept: bool = False) -> None:
        """Give the adapter the response.

        Args:
            is_claim_kept: whether the outcome of a hand-over is recorded later.
        """
        response = self.response
        assert response is not None, "there is no effect left"
        if not is_claim_kept:
            self.attempt.leave()
        self.attempt.drop_answer(response)
        self._adapter.respond(response)
        self._emit_answered(response.status, response.reason)

    def break_off(self, error: str = "the request was broken off") -> None:
        """Release the claim of a request that has failed, and close its file.

        Args:
            error: the error text for the operator.
        """
        if self._served is not None:
            getattr(self._served.body, "close", lambda: None)()
        self.attempt.leave(error)
        self._emit_answered(500, "Internal Server Error")

    def answer_failure(self) -> None:
        """Give the adapter the last response that is left, after an exception and :meth:`break_off`."""
        log.exception("the application failed" if self.is_in_application else "a request could not be handled")
        self._adapter.respond(refuse(InternalError(), self._request, self._options))

    def _emit_answered(self, status: int, reason: str) -> None:
        if self._is_answered:
            return  # a view may settle after its request has ended
        self._is_answered = True
        body = self.body
        cut = body is not None and body.cut
        emit(
            Answered(
                method=self._request.effective_method,
                status=status,
                reason=reason,
                upload=self.upload,
                received=0 if body is None else body.received,
                cut=cut,
                kept_from_cut=self.kept if cut else 0,
                seconds=time.monotonic() - self._began,
            )
        )

    # -- The store --

    def _load(self, effect: Load) -> Upload:
        failure: RequestError | None = None
        try:
            upload = self._store.load(effect.upload_id)
        except RequestError as error:
            if error.upload is None:
                raise
            failure, upload = error, error.upload
        if upload.service is not None and upload.service != self._service.name:
            raise UploadNotFound()  # its file must not go to the receiver of another service
        if upload.origin is not None and upload.origin.path_values != self._request.path_values:
            raise UploadNotFound()  # the permission to use another path says nothing about this one
        if failure is not None:
            raise failure
        if self.upload is None:
            self.upload = upload
        return upload

    def _create(self, effect: Create) -> Upload:
        draft = effect.draft
        began = time.time() if draft.id else 0.0
        upload = self._store.create(draft)
        is_ours = upload.service in (None, draft.service) and upload.principal == draft.principal
        if draft.id and not is_ours:
            raise StorageUnavailable()  # another service or principal has an upload with the id that a hook has given
        self._note_creation(upload, upload.created_at >= began)  # else the upload existed before
        return upload

    def _note_creation(self, upload: Upload, is_new: bool = True) -> None:
        self.upload = upload
        self._service.keep_swept()  # after the creation, so that the first sweep sees this upload
        if is_new and (listeners[Created] or listeners[Finished]):
            emit(Created(upload))
            if upload.is_complete:
                emit(Finished(upload))

    def _name(self, effect: Name) -> str | None:
        return self._store.id_for(effect.text) if isinstance(self._store, Names) else None

    def _create_once(self, effect: CreateOnce) -> Upload | None:
        assert isinstance(self._store, Names), "the id is from the store"
        upload = self._store.create_once(effect.draft)
        if upload is not None:
            self._note_creation(upload)
        return upload

    def _end(self, effect: End) -> Upload:
        upload = effect.upload
        self.upload = self._store.append(upload, upload.offset, b"", upload.length)
        emit(Finished(self.upload))
        return self.upload

    def _fence(self, effect: Fence) -> Upload:
        return self._store.fence(effect.upload)

    def _wait(self, effect: Wait) -> None:
        time.sleep(effect.seconds)

    def _serve(self, effect: Serve) -> Response:
        assert isinstance(self._store, Reads), "the service has checked it"
        self._served = download(self._request, effect.upload, *self._store.read(effect.upload))
        return self._served

    def _promise(self, effect: Promise) -> Upload:
        promised = self._store.promise(effect.upload)
        self._service.schedule(promised)
        return promised

    def _remove(self, effect: Remove) -> None:
        self._store.remove(effect.upload_id)
        if self.upload is not None and self._request.effective_method == "DELETE":
            emit(Ended(self.upload, "terminated"))

    def _concatenate(self, effect: Watch | Concatenate | FinalsOf | Touch) -> Any:
        store = self._store
        assert isinstance(store, Concatenates), "the exchange asks for what the extensions contain"
        match effect:
            case Watch(final):
                parts = {part_id: store.watch(part_id, final.id) for part_id in dict.fromkeys(final.parts)}
                return [parts[part_id] for part_id in final.parts]
            case Concatenate(final, parts):
                joined = store.concatenate(final.id, parts)
                if joined.is_complete:
                    emit(Finished(joined))
                return joined
            case FinalsOf(part):
                return store.finals_of(part.id)
            case Touch(final_ids):
                store.touch(*final_ids)
                return None

    def _hand_over(self, effect: Any) -> Any:
        result = self.attempt.perform(effect)
        kind = type(effect)
        if kind is Claim or kind is Digest or kind is Begin:
            self.upload = result
        elif kind is Settle:
            self.upload = result
            if result.is_pending:
                self._service.schedule(result)
        return result

    # -- The body, which the caller reads --

    def sink(self, effect: Receive | Peek) -> Sink:
        """Return the sink into which the caller writes the body."""
        if isinstance(effect, Peek):
            return PeekSink(effect.intake.limit or 0)
        listener = self._offset_listener(effect.upload, effect.progress)
        return Reception(
            self._store,
            effect.upload,
            effect.intake,
            listener,
            effect.begin,
            self._service.completes,
            self.attempt.adopt_claim,
            self._service.small,
        )

    def can_create_whole(self, effect: CreateWhole) -> bool:
        """Return whether the store can do it, and the body fits into one block."""
        length, completes, small = effect.draft.length, self._service.completes, self._service.small
        is_small = length is not None and length <= (SMALL if small is None else small)
        return is_small and completes is not None and completes.can_complete(effect.draft)

    def create_whole(self, effect: CreateWhole, block: Block) -> Received:
        """Create an upload with its whole data, and begin its hand-over."""
        completes = self._service.completes
        assert completes is not None, "the caller has checked it"
        claim = completes.create_whole(effect.draft, block, effect.begin.is_last)
        self.attempt.adopt_claim(claim)
        self.kept = len(block)
        self._note_creation(claim.upload)
        return Received(claim.upload, is_begun=True)

    def record_body(self, effect: Receive | Peek, result: Received | Peeked) -> Received | Peeked:
        """Record the result of a body for events, and return it as the effect's result."""
        if isinstance(result, Received):
            self.upload = result.upload
            self.kept = result.upload.offset - effect.intake.offset
            if listeners[Finished] and result.upload.is_complete:
                emit(Finished(result.upload))
        return result

    def patience(self) -> Patience:
        """Return the limits for slow clients."""
        return self._service.patience

    def _offset_listener(self, upload: Upload, progress: Callable[[int], Response] | None) -> OffsetListener | None:
        """Return the listener that reports progress and may stop the upload; None if nothing needs one."""
        if progress is None and not self._options.has_hooks:
            return None
        hooks = self._service.hooks

        def report(offset: int) -> HookReply | None:
            if progress is not None:
                self._inform(Inform(progress(offset)))
            return hooks.ask(HookType.POST_RECEIVE, replace(upload, offset=offset), self._request)

        return report

    # -- The application --

    def _authorize(self, effect: Authorize) -> str | Response | None:
        if self._options.authorize is None and self._asker is None:
            return None
        calls = self.authorization_calls(effect)
        answer: object = None
        try:
            while True:
                answer = calls.send(answer)()
                if inspect.iscoroutine(answer):
                    log.error("authorize has returned a coroutine; only an async def under ASGI is awaited")
                    answer.close()  # it is no principal, so the request will be refused
        except StopIteration as stop:
            verdict: str | Response | None = stop.value
            return verdict

    def authorization_calls(self, effect: Authorize) -> Generator[Callable[[], Any], Any, str | Response | None]:
        """Yield the calls for an :class:`Authorize`; after each the result must be sent in.

        Returns:
            The principal, or the response that refuses the request.

        Raises:
            Forbidden: the request is refused, or the two name different principals.
            InternalError: one of them names something that is no principal.
        """
        upload, principal = effect.upload, None
        self.is_in_application = True
        if self._options.authorize is not None:
            named = yield partial(self._options.authorize, self._request, effect.intent, upload)
            principal = named_principal(named, "authorize")
        answer: object = None
        if self._asker is not None and self._is_app_asked(effect, principal):
            answer = yield partial(self._asker, effect.intent, upload)
        self.is_in_application = False
        if isinstance(answer, Response):
            return answer
        return agree(principal, named_principal(answer, "the application"))

    def _is_app_asked(self, effect: Authorize, principal: str | None) -> bool:
        """Return whether the application is asked: for this intent, or who it is for whom the upload exists."""
        is_owned = effect.upload.principal is not None or effect.upload.state == State.TERMINATED  # or may have been
        is_unknown = is_owned and principal is None and self._principal is None
        return is_unknown or effect.intent in self._options.ask_app

    def _inform(self, effect: Inform) -> bool:
        return isinstance(self._adapter, Informs) and self._adapter.inform(effect.response)

    _PERFORM: ClassVar[dict[type, Callable[[Runner, Any], Any]]] = {
        Load: _load,
        Authorize: _authorize,
        Create: _create,
        CreateOnce: _create_once,
        End: _end,
        Fence: _fence,
        Inform: _inform,
        Name: _name,
        Promise: _promise,
        Remove: _remove,
        Serve: _serve,
        Wait: _wait,
        Watch: _concatenate,
        Concatenate: _concatenate,
        FinalsOf: _concatenate,
        Touch: _concatenate,
        **dict.fromkeys(get_args(HandoverEffect), _hand_over),
    }
