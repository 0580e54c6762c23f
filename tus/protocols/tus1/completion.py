"""The hand-over of a complete upload, and the reply to its tus client."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import Any

from tus.errors import NotTaken
from tus.models import Outcome, Response, Upload
from tus.protocols import cors, digests
from tus.protocols.conversation import Conversation
from tus.protocols.effects import Effect
from tus.protocols.handover import Handed, hand_over, promise
from tus.protocols.tus1 import replies


class Completion(Conversation):
    """One request that may complete uploads."""

    def complete(
        self,
        upload: Upload,
        response: Response,
        unfinished: Response | None = None,
        last_bytes: bytes = b"",
        is_begun: bool = False,
    ) -> Generator[Effect, Any, Response]:
        """Hand a complete upload over, and return the reply.

        Args:
            upload: a complete upload, known if a client's request names it.
            response: the reply after acceptance.
            unfinished: the reply after a postponement; by default the application's own response.
            last_bytes: bytes that the client has sent again; they must equal the last stored bytes.
            is_begun: whether the attempt has begun already.
        """
        options = self.options
        if options.handover == "background" and (yield from promise(upload)):
            return digests.described(response, upload.digests)
        pending = partial(self.postpone, unfinished)
        handed = yield from hand_over(upload, options, pending, last_bytes, is_begun)
        if handed.outcome == Outcome.POSTPONED and unfinished is not None:
            return unfinished
        return reply_to(response, handed)

    def postpone(self, unfinished: Response | None = None) -> Response:
        """Return the reply for a view that names no outcome."""
        response = unfinished or replies.refused(NotTaken(), is_head=False)
        cors.apply(self.request, response, self.options)
        return response


def reply_to(response: Response, handed: Handed) -> Response:
    """Return the reply after a hand-over; ``response`` is the reply after acceptance."""
    if handed.outcome == Outcome.ACCEPTED:
        reply = replies.answered(response, handed.answer)
        return digests.described(reply, handed.digests) if handed.digests else reply
    return replies.relayed(handed.answer, "POST" if response.status == 201 else "PATCH")
