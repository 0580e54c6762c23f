"""Performs the effects of an exchange for one request, those that wait for nothing but the disk; it decides nothing."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from tus.adapters.interface import Face, Informs
from tus.errors import UploadGone, UploadNotFound
from tus.events import Created, Ended, Finished, emit
from tus.handover.attempt import Handing
from tus.handover.backlog import Backlog
from tus.hooks.calling import Hooks
from tus.models import HookReply, HookType, Intent, Response, Upload, effective_method
from tus.options import Options
from tus.protocols.effects import (
    Authorize,
    Concatenate,
    Create,
    Effect,
    End,
    Fence,
    FinalsOf,
    Inform,
    Load,
    Peek,
    Peeked,
    Promise,
    Receive,
    Received,
    Remove,
    Serve,
    Settle,
    Touch,
    Wait,
    Watch,
)
from tus.server.downloads import download
from tus.server.pace import Patience
from tus.server.reception import Peek as PeekSink
from tus.server.reception import Reception, Sink, Watcher
from tus.stores.interface import Concatenates, Reads, Store
from tus.stores.sweeper import keep_swept

#: Asks the application whether a request may do what it intends: the principal, or what the client hears instead.
#: Where authorizing is left to an asynchronous driver, that is awaited.
Asker = Callable[[Intent, Upload], Any]


class Taken(Protocol):
    """A body that is being read, or was.

    Attributes:
        received: bytes of it that were taken in so far.
        cut: whether the connection ended early.
    """

    received: int
    cut: bool


class Driver:
    """One request, and what is done for it. Bodies are read by whoever uses this, into a :meth:`sink`.

    Args:
        adapter: the request.
        options: the operator's choices.
        store: where uploads are.
        handing: does what belongs to a hand-over.
        hooks: who is asked and told.
        backlog: whoever hands over without a client, if anybody does.
        asker: asks for the intents of ``ask_app``.
        principal: who sends the request, where the caller knows it.

    Attributes:
        upload: what the request is about, as it stands.
        body: the request's, once it is read.
        kept: bytes of it that are counted.
        is_in_application: whether code of the application is running, whose errors are its own.
    """

    def __init__(
        self,
        adapter: Face,
        options: Options,
        store: Store,
        handing: Handing,
        hooks: Hooks,
        backlog: Backlog | None,
        asker: Asker | None,
        principal: str | None,
    ) -> None:
        self._adapter = adapter
        self._options = options
        self._store = store
        self._handing = handing
        self._hooks = hooks
        self._backlog = backlog
        self._asker = asker
        self._principal = principal
        self.upload: Upload | None = None
        self.body: Taken | None = None
        self.kept = 0
        self.is_in_application = False

    def perform(self, effect: Effect) -> Any:
        """Do what is asked for, and return what is to be sent back."""
        store = self._store
        match effect:
            case Authorize():
                return self._authorize(effect)
            case Load(upload_id):
                loaded = store.load(upload_id)
                self.upload = self.upload or loaded
                return loaded
            case Inform(response):
                return self._inform(response)
            case Fence(upload):
                return store.fence(upload)
            case End(upload):
                self.upload = store.append(upload, upload.offset, b"", upload.length)
                emit(Finished(self.upload))
                return self.upload
            case Wait(seconds):
                return time.sleep(seconds)
            case Create(draft):
                began = time.time()
                self.upload = store.create(draft)
                keep_swept(store, self._options.upload_valid_duration)  # now, or its first look could miss this upload
                if not draft.id or self.upload.created_at >= began:  # else the one that exists was found
                    emit(Created(self.upload))
                    if self.upload.is_complete:
                        emit(Finished(self.upload))
                return self.upload
            case Serve(upload):
                assert isinstance(store, Reads), "looked at when this was made"
                return download(self._adapter.request, upload, *store.read(upload))
            case Promise(upload):
                promised = store.promise(upload)
                if self._backlog is not None:
                    self._backlog.add(promised)
                return promised
            case Remove(upload_id):
                store.remove(upload_id)
                if self.upload is not None and effective_method(self._adapter.request) == "DELETE":
                    emit(Ended(self.upload, "terminated"))
                return None
            case Watch() | Concatenate() | FinalsOf() | Touch():
                assert isinstance(store, Concatenates), "the exchange asks for what the extensions contain"
                return _concatenate(store, effect)
            case Receive() | Peek():
                raise AssertionError("whoever uses this reads bodies")
        result = self._handing.perform(effect)
        if self._handing.claim is not None:
            self.upload = self._handing.claim.upload
        if isinstance(effect, Settle):
            self.upload = result
            if self._backlog is not None:
                self._backlog.add(result)
        return result

    def sink(self, effect: Receive | Peek) -> Sink:
        """Where the body is to go."""
        if isinstance(effect, Peek):
            return PeekSink(effect.intake.limit or 0)
        return Reception(self._store, effect.upload, effect.intake, self._watcher(effect.upload, effect.progress))

    def poured(self, effect: Receive | Peek, came: Received | Peeked) -> Received | Peeked:
        """Take note of what came of a body, which is what is to be sent back."""
        if isinstance(came, Received):
            self.upload = came.upload
            self.kept = came.upload.offset - effect.intake.offset
            if came.upload.is_complete:
                emit(Finished(came.upload))
        return came

    def _authorize(self, effect: Authorize) -> str | Response | None:
        calls = self.authorizing(effect)
        answer: object = None
        try:
            while True:
                answer = calls.send(answer)()
                if inspect.isawaitable(answer):
                    getattr(answer, "close", lambda: None)()
                    raise TypeError("authorize has returned an awaitable, which nobody awaits here")
        except StopIteration as stop:
            verdict: str | Response | None = stop.value
            return verdict

    def authorizing(self, effect: Authorize) -> Generator[Callable[[], Any], Any, str | Response | None]:
        """What is to be called for an :class:`Authorize`, one after the other, and then what is to be sent back."""
        principal: str | Response | None = self._principal
        self.is_in_application = True
        if self._options.authorize is not None:
            named = yield partial(self._options.authorize, self._adapter.request, effect.intent, effect.upload)
            principal = None if named is None else str(named)  # many a framework's users are numbers
        if self._asker is not None and effect.intent in self._options.ask_app:
            principal = yield partial(self._asker, effect.intent, effect.upload)
        self.is_in_application = False
        return principal

    def patience(self) -> Patience:
        """How slow the client may be."""
        return Patience(self._options.stall_timeout, self._options.min_rate)

    def _inform(self, response: Response) -> bool:
        return isinstance(self._adapter, Informs) and self._adapter.inform(response)

    def _watcher(self, upload: Upload, progress: Callable[[int], Response] | None) -> Watcher | None:
        """Who is told now and then how far an upload has come, and may stop it."""
        if not self._hooks and progress is None:
            return None

        def watch(offset: int) -> HookReply | None:
            if progress is not None:
                self._inform(progress(offset))
            return self._hooks.ask(HookType.POST_RECEIVE, replace(upload, offset=offset), self._adapter.request)

        return watch


def _concatenate(store: Concatenates, effect: Watch | Concatenate | FinalsOf | Touch) -> Any:
    match effect:
        case Watch(final):
            return [store.watch(part_id, final.id) for part_id in final.parts]
        case Concatenate(final, parts):
            joined = store.concatenate(final.id, parts)
            if joined.is_complete:
                emit(Finished(joined))
            return joined
        case FinalsOf(part):
            return store.finals_of(part.id)
        case Touch(final_id):
            with suppress(UploadNotFound, UploadGone):
                return store.touch(final_id)
            return None
