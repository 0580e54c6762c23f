"""The runner of one exchange: it performs the effects that wait only for the disk.

Law of this room: it decides nothing, and nothing here waits for a client. A derived class, or the caller, performs the
other effects::

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
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeGuard

from tus.adapters.interface import Face, Informs
from tus.errors import InternalError, RequestError, StorageFull, StorageUnavailable, UploadLocked, UploadNotFound
from tus.events import Answered, Begun, Created, Ended, Finished, emit, is_wanted, listeners
from tus.handover.attempt import Attempt, Receiver
from tus.models import Block, HookReply, HookType, Intent, Request, Response, State, Upload
from tus.protocols.admission import agree, named_principal
from tus.protocols.effects import (
    Authorize,
    Concatenate,
    Create,
    CreateOnce,
    CreateWhole,
    Effect,
    End,
    Fence,
    FinalsOf,
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
    Steps,
    Touch,
    Watch,
)
from tus.protocols.exchange import exchange, is_ours, refuse
from tus.protocols.routing import path_of, path_values
from tus.server.downloads import download
from tus.server.reception import OffsetListener, Reception, Sink, append_whole
from tus.server.reception import Peek as PeekSink
from tus.stores.interface import SMALL, Concatenates, Names, Reads

if TYPE_CHECKING:
    from tus.server.service import Service

log = logging.getLogger(__name__)

#: Asks the application for permission. Returns the principal or None, or the response that refuses the request.
#: ``AsyncTus`` awaits the result.
Asker = Callable[[Intent, Upload], Any]


class RequestBody(Protocol):
    """A body that is being read, or was.

    Attributes:
        received: the number of bytes that were read so far.
        cut: whether the connection ended before the body did.
    """

    received: int
    cut: bool


class Runner(Attempt):
    """One request.

    Args:
        adapter: the request.
        service: the options, the store and the hooks.
        receiver: gives finished uploads to the application; None if the caller does that.
        asker: asks the application for permission for the intents of ``ask_app``.
        principal: the principal that sends the request, if the caller knows it; the exchange checks the value.

    Attributes:
        left: the types of the effects that the caller performs; the caller may add others.
        body: the request's body; None before it is read.
        kept: the number of its bytes that are counted.
        response: the response; None before the end.
        patience: the limits for slow clients.
        may_begin: whether the hand-over may begin with the last bytes.
        is_in_application: whether code of the application runs, whose exceptions are not of the store.
    """

    #: The types of the effects that this class leaves to its caller.
    LEFT: ClassVar[tuple[type[Effect], ...]] = (Receive, Peek, CreateWhole)

    def __init__(
        self,
        adapter: Face,
        service: Service,
        receiver: Receiver | None = None,
        asker: Asker | None = None,
        principal: object = None,
    ) -> None:
        super().__init__(service.store, receiver, service.hooks, adapter.request)
        self.left = self.LEFT
        self.body: RequestBody | None = None
        self.kept = 0
        self.is_in_application = False
        self.may_begin = True
        self.patience = service.patience
        self._adapter = adapter
        self._request: Request = adapter.request
        self._service = service
        self._options = service.options
        if service.has_path_values:
            self._request.path_values = path_values(path_of(self._request.url), service.options.upload_path or "")
        self._small = SMALL if service.small is None else service.small
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
        return self.go_on(None, None)

    def go_on(self, perform: Callable[[Any], Any] | None, effect: Effect | None) -> Effect | None:
        """Perform an effect, and return the next one that the caller performs; None at the end.

        Args:
            perform: performs the effect, and returns its result or raises; None at the start.
            effect: the effect that was returned last.
        """
        steps, left, methods = self._steps, self.left, self._PERFORM
        try:
            while True:
                try:
                    result = None if perform is None else perform(effect)
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
                perform = partial(methods[type(effect)], self)
        except StopIteration as stop:
            self.response = stop.value
            return None

    def conclude(self, is_claim_kept: bool = False) -> None:
        """Give the adapter the response.

        Args:
            is_claim_kept: whether the outcome of a hand-over is recorded later.
        """
        response = self.response
        assert response is not None, "there is no effect left"
        if self.claim is not None and not is_claim_kept:
            self.leave()
        if self._answer is not None:
            self.drop_answer(response)
        self._adapter.respond(response)
        if is_wanted(Answered):
            self._emit_answered(response.status, response.reason)

    def break_off(self, error: str = "the request was broken off") -> None:
        """Release the claim of a request that has failed, and close its file.

        Args:
            error: the error text for the operator.
        """
        if self._served is not None:
            getattr(self._served.body, "close", lambda: None)()
        self.leave(error)
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
        if self._upload is None:
            self._upload = upload
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
        self._upload = upload
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
        self._upload = ended = self._store.append(upload, upload.offset, b"", upload.length)
        emit(Finished(ended))
        return ended

    def _fence(self, effect: Fence) -> Upload:
        return self._store.fence(effect.upload)

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

    def schedule(self, upload: Upload) -> None:
        self._service.schedule(upload)

    # -- The body, which the caller reads --

    def sink(self, effect: Receive | Peek) -> Sink:
        """Return the sink into which the caller writes the body."""
        if isinstance(effect, Peek):
            return PeekSink(effect.intake.limit or 0)
        listener = self._offset_listener(effect.upload, effect.progress)
        return Reception(
            self._store, effect.upload, effect.intake, listener, partial(self.append_whole, effect), self._small
        )

    def takes_whole(self, effect: Receive | Peek) -> TypeGuard[Receive]:
        """Return whether a body that has arrived as a whole is appended in one step of the store."""
        length, checksums = effect.intake.body
        return length is not None and length <= self._small and not checksums and isinstance(effect, Receive)

    def append_whole(self, effect: Receive, block: Block) -> Received:
        """Append a whole body in one step of the store. If the body completes the upload, the hand-over begins."""
        upload, intake, begin, completes = effect.upload, effect.intake, effect.begin, self._service.completes
        length = upload.length if intake.length is None else intake.length
        end = intake.offset + len(block)
        is_last = end == length or (length is None and intake.ends)
        may_begin = is_last and self.may_begin
        if begin is None or completes is None or not may_begin or not completes.can_complete(upload):
            return append_whole(self._store, upload, intake, block)
        new_length = end if upload.length is None else None
        try:
            claim = completes.complete(upload, intake.offset, block, new_length, begin.is_last)
        except StorageFull as error:
            return Received(self._store.load(upload.id), failure=error)
        except UploadLocked:
            current = self._store.load(upload.id)
            if not current.is_complete:
                raise
            return Received(current)  # another request hands it over
        self.adopt_claim(claim)
        return Received(claim.upload, is_begun=True)

    def can_create_whole(self, effect: CreateWhole) -> bool:
        """Return whether the store can do it, and the body fits into one block."""
        length, completes = effect.draft.length, self._service.completes
        is_small = length is not None and length <= self._small
        return is_small and completes is not None and completes.can_complete(effect.draft)

    def create_whole(self, effect: CreateWhole, block: Block) -> Received:
        """Create an upload with its whole data, and begin its hand-over."""
        completes = self._service.completes
        assert completes is not None, "the caller has checked it"
        claim = completes.create_whole(effect.draft, block, effect.begin.is_last)
        self.adopt_claim(claim)
        self.kept = len(block)
        self._note_creation(claim.upload)
        return Received(claim.upload, is_begun=True)

    def record_body(self, effect: Receive | Peek, result: Received | Peeked) -> Received | Peeked:
        """Record the result of a body for events, and return it as the effect's result."""
        if isinstance(result, Received):
            self._upload = result.upload
            self.kept = result.upload.offset - effect.intake.offset
            if listeners[Finished] and result.upload.is_complete:
                emit(Finished(result.upload))
        return result

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

    _PERFORM: ClassVar[dict[type, Callable[[Any, Any], Any]]] = {
        **Attempt._PERFORM,
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
        Watch: _concatenate,
        Concatenate: _concatenate,
        FinalsOf: _concatenate,
        Touch: _concatenate,
    }
