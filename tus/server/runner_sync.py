"""The runner of a request that has a thread: it reads the body there, as far as the upload needs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from itertools import chain
from typing import Any, ClassVar

from tus.adapters.interface import Adapter
from tus.filesystem.pipes import Pipe
from tus.handover.attempt import Receiver
from tus.models import Block, Response
from tus.protocols.effects import CreateWhole, Peek, Peeked, Receive, Received, Wait
from tus.server.body import Body
from tus.server.leftover import read_behind
from tus.server.runner import Asker, Runner
from tus.server.sending_gunicorn import Sending
from tus.server.service import Service
from tus.server.view_claims import end_abandoned


class SyncRunner(Runner):
    """One request, in its own thread. See :class:`~tus.server.runner.Runner`."""

    LEFT = ()
    _is_body_read = False  # whether the body was read to its end, or to a cut
    _ahead = b""  # bytes of the body that were read, and belong to the upload

    def __init__(
        self,
        adapter: Adapter,
        service: Service,
        receiver: Receiver | None,
        asker: Asker | None = None,
        principal: object = None,
    ) -> None:
        super().__init__(adapter, service, receiver, asker, principal)
        self._source = adapter

    def handle(self) -> None:
        """Handle the request, and give the adapter the response; a refusal is a response too, and so is a failure."""
        end_abandoned()
        try:
            self.begin()
            self.conclude()
        except BaseException as error:
            self.break_off()
            if not isinstance(error, Exception):
                raise
            self.answer_failure()

    def conclude(self, is_claim_kept: bool = False) -> None:
        response = self.response
        assert response is not None, "there is no effect left"
        if response.body.__class__ is not tuple:  # nearly every response is a tuple
            self._watch_reader(response)
        if not self._is_body_read and self._request.has_body:
            self._leave_body(response)
        super().conclude(is_claim_kept)

    def _watch_reader(self, response: Response) -> None:
        """Let a long response end whose client does not read, where the server lends its socket."""
        self.drop_answer(response)  # before its body gets another one around it
        environ = getattr(self._source, "environ", {})
        response.body = Sending.of(response.body, environ, self.patience) or response.body

    def _leave_body(self, response: Response) -> None:
        """Let the rest of the body be read behind the response, so that the client sees the response."""
        received = 0 if self.body is None else self.body.received
        self.drop_answer(response)  # before its body gets another one around it
        read_behind(response, self._request, self._source.stream, received)

    def _receive(self, effect: Receive | Peek) -> Received | Peeked:
        if self.body is not None:
            return self._receive_ahead(effect, self.body.cut)
        length = effect.intake.body.length
        self.body = body = Body(self._source.stream, length, self.patience)
        blocks = body.blocks()
        if not self.takes_whole(effect):
            return self._move(effect, body, blocks)
        first = next(blocks, None)
        if first is None or isinstance(first, Pipe) or len(first) != length:
            return self._move(effect, body, blocks, () if first is None else (first,))
        self._is_body_read = True
        return self.record_body(effect, self.append_whole(effect, first))

    def _move(
        self,
        effect: Receive | Peek,
        body: Body,
        blocks: Generator[Block | Pipe],
        first: tuple[Block | Pipe, ...] = (),
    ) -> Received | Peeked:
        """Move a body block by block."""
        with self.sink(effect) as sink, closing(blocks):
            body.is_wanted, body.can_pour = sink.is_wanted, sink.can_pour
            for block in chain(first, blocks):
                if not (sink.pour(block) if isinstance(block, Pipe) else sink.write(block)):
                    break
            else:
                self._is_body_read = True
            return self.record_body(effect, sink.end(body.cut))

    def _receive_ahead(self, effect: Receive | Peek, cut: bool) -> Received | Peeked:
        """Move bytes that were read ahead."""
        with self.sink(effect) as sink:
            if self._ahead:
                sink.write(self._ahead)
            return self.record_body(effect, sink.end(cut))

    def _create_whole(self, effect: CreateWhole) -> Received | None:
        if not self.can_create_whole(effect):
            return None
        self.body = body = Body(self._source.stream, effect.intake.body.length, self.patience)
        data = b"".join(map(bytes, body.blocks()))
        self._is_body_read = True
        if body.cut:
            self._ahead = data
            return None
        return self.create_whole(effect, data)

    def _wait(self, effect: Wait) -> None:
        time.sleep(effect.seconds)

    _PERFORM: ClassVar[dict[type, Callable[[Any, Any], Any]]] = {
        **Runner._PERFORM,
        Receive: _receive,
        Peek: _receive,
        CreateWhole: _create_whole,
        Wait: _wait,
    }
