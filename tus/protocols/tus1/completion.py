"""Once every byte of an upload is there: the hand-over, and what a tus client is told of it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from tus.errors import NotTaken
from tus.models import Outcome, Response, Upload
from tus.protocols import cors, digests
from tus.protocols.conversation import Conversation
from tus.protocols.effects import Effect, Steps
from tus.protocols.handover import Handed, hand_over, promise
from tus.protocols.tus1 import replies


class Completion(Conversation):
    """A request that may complete uploads."""

    def complete(
        self,
        upload: Upload,
        response: Response,
        unfinished: Response | None = None,
        last_bytes: bytes = b"",
        is_begun: bool = False,
    ) -> Steps:
        """Hand a complete upload over, and return the reply.

        Args:
            upload: a complete one, known if a client's request names it.
            response: the reply once the application has it.
            unfinished: the reply if the application must be asked again; by default the application's own answer.
            last_bytes: bytes that the client has sent once more, which must be the last that are stored.
            is_begun: whether the attempt has begun already.
        """
        handed = yield from self.hand_over(upload, unfinished, last_bytes, is_begun)
        if handed is None:
            return digests.described(response, upload.digests)
        if handed.outcome == Outcome.POSTPONED and unfinished is not None:
            return unfinished
        return reply_to(response, handed)

    def hand_over(
        self, upload: Upload, unfinished: Response | None = None, last_bytes: bytes = b"", is_begun: bool = False
    ) -> Generator[Effect, Any, Handed | None]:
        """Hand over now, or return None where that happens in the background."""
        if self.options.handover == "background" and (yield from promise(upload)):
            return None
        pending = unfinished or replies.refused(NotTaken(), is_head=False)
        cors.apply(self.request, pending, self.options)
        return (yield from hand_over(upload, self.options, pending, last_bytes, is_begun))


def reply_to(response: Response, handed: Handed) -> Response:
    """Return the reply to a hand-over, given the one to send where the application has the upload."""
    if handed.outcome == Outcome.ACCEPTED:
        return digests.described(replies.answered(response, handed.answer), handed.digests)
    return replies.relayed(handed.answer, "POST" if response.status == 201 else "PATCH")
