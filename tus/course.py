"""One request on its way through its exchange, from the first effect to the response: what every driver needs.

Law of this room: nothing here waits for a client. A driver does what waits, and the rest happens in between::

    effect = course.begin()
    while effect is not None:
        effect = course.go_on(...)  # with what performs the effect
    course.conclude()
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from tus.adapters.interface import Face
from tus.errors import OptionError, RequestError, StorageUnavailable
from tus.events import Answered, Begun, emit, listen
from tus.handover.attempt import Handing, Receiver
from tus.handover.backlog import Backlog
from tus.handover.receivers import hooks_of
from tus.models import Response, Upload, effective_method
from tus.monitoring.logs import log_events
from tus.options import Options
from tus.protocols.effects import Effect, Peek, Receive, Steps
from tus.protocols.exchange import exchange, is_ours
from tus.server.runner import Asker, Driver
from tus.stores.interface import Reads, Store, extensions_of

log = logging.getLogger(__name__)
listen(log_events)


class Course:
    """One request.

    Args:
        adapter: the request.
        options: the operator's choices.
        store: where uploads are.
        receiver: gives finished uploads to the application; None where the driver deals with that itself.
        backlog: whoever hands over without a client, if anybody does.
        asker: asks for the intents of ``ask_app``.
        principal: who sends the request, where the caller knows it.

    Attributes:
        left: the effects that are left to the driver; it may add others.
        driver: performs the rest.
        handing: the hand-over.

    Raises:
        OptionError: the options do not go with the store.
    """

    def __init__(
        self,
        adapter: Face,
        options: Options,
        store: Store,
        receiver: Receiver | None,
        backlog: Backlog | None,
        asker: Asker | None,
        principal: str | None,
    ) -> None:
        if options.download and not isinstance(store, Reads):
            raise OptionError("download", "cannot be true with this store, whose uploads cannot be read")
        self.left: tuple[type[Effect], ...] = (Receive, Peek)
        hooks = hooks_of(options, store)
        hooks.start()
        self.handing = Handing(store, receiver, hooks, adapter.request)
        self.driver = Driver(adapter, options, store, self.handing, hooks, backlog, asker, principal)
        self._adapter = adapter
        self._options = options
        self._store = store
        self._steps: Steps
        self._began = 0.0
        self._response: Response | None = None

    @property
    def is_ours(self) -> bool:
        """Whether the request speaks to the uploads; else it is for a page or a form at the same URL."""
        return is_ours(self._adapter.request, self._options)

    @property
    def upload(self) -> Upload | None:
        """The upload that this request is about, as it stands; None where there is none."""
        return self.driver.upload

    def begin(self) -> Effect | None:
        """Go as far as the first effect that is left to the driver, or to the end: None."""
        self._began = time.monotonic()
        emit(Begun(effective_method(self._adapter.request)))
        self._steps = exchange(self._adapter.request, self._options, self._extensions(), time.time())
        return self.go_on(lambda: None)

    def go_on(self, perform: Callable[[], Any]) -> Effect | None:
        """Go on to the next effect that is left to the driver, or to the end: None.

        Args:
            perform: does what the last one asks for, and returns what is to be sent back, or raises.
        """
        steps = self._steps
        try:
            while True:
                try:
                    result = perform()
                except RequestError as error:
                    effect = steps.throw(error)
                except OSError as error:
                    if self.driver.is_in_application:
                        raise
                    log.exception("the store failed")
                    effect = steps.throw(StorageUnavailable().with_traceback(error.__traceback__))
                else:
                    effect = steps.send(result)
                if isinstance(effect, self.left):
                    return effect
                perform = partial(self.driver.perform, effect)
        except StopIteration as stop:
            self._response = stop.value
            return None

    def conclude(self, is_claim_kept: bool = False) -> None:
        """Give the adapter the response.

        Args:
            is_claim_kept: whether what came of a hand-over is yet to be taken down.
        """
        response = self._response
        assert response is not None, "there is no effect left"
        if not is_claim_kept:
            self.handing.leave()
        self.handing.drop_answer(response)
        self._adapter.respond(response)
        self._answered(response.status, response.reason)

    def break_off(self, error: str = "the request was broken off") -> None:
        """Let go where there will be no response of ours."""
        self.handing.leave(error)
        self._answered(500, "Internal Server Error")

    def _answered(self, status: int, reason: str) -> None:
        body = self.driver.body
        cut = body is not None and body.cut
        emit(
            Answered(
                method=effective_method(self._adapter.request),
                status=status,
                reason=reason,
                upload=self.driver.upload,
                received=0 if body is None else body.received,
                cut=cut,
                kept_from_cut=self.driver.kept if cut else 0,
                seconds=time.monotonic() - self._began,
            )
        )

    def _extensions(self) -> frozenset[str]:
        extensions = extensions_of(self._store)
        return extensions if self._options.upload_valid_duration else extensions - {"expiration"}
