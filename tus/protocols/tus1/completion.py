"""TODO."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from tus.errors import NotTaken
from tus.models import Outcome, Request, Response, Upload
from tus.options import Options
from tus.protocols import cors, digests
from tus.protocols.effects import Effect, Steps
from tus.protocols.handover import Handed, hand_over, promised
from tus.protocols.tus1 import replies as tus1_replies


def completed(
    upload: Upload,
    response: Response,
    request: Request,
    options: Options,
    unfinished: Response | None = None,
    last_bytes: bytes = b"",
) -> Steps:
    """Hand a complete upload over.

    Args:
        upload: see :func:`hand_over`.
        response: what the client hears once the application has it.
        request: the head.
        options: the operator's choices.
        unfinished: what it hears if the application is to be asked again; that one's own answer by default.
        last_bytes: see there.
    """
    handed = yield from handed_over(upload, request, options, unfinished, last_bytes)
    if handed is None:
        return digests.described(response, upload.digests)
    if handed.outcome == Outcome.POSTPONED and unfinished is not None:
        return unfinished
    return reply_to(response, handed)


def handed_over(
    upload: Upload, request: Request, options: Options, unfinished: Response | None = None, last_bytes: bytes = b""
) -> Generator[Effect, Any, Handed | None]:
    """Hand over now, or None where that happens in the background."""
    if (yield from promised(upload, options)):
        return None
    pending = unfinished or tus1_replies.refused(NotTaken(), is_head=False)
    cors.apply(request, pending, options)
    return (yield from hand_over(upload, options, pending, last_bytes))


def reply_to(response: Response, handed: Handed) -> Response:
    """What the client hears of a hand-over; the response is what it hears where the application has the upload."""
    if handed.outcome == Outcome.ACCEPTED:
        return digests.described(tus1_replies.answered(response, handed.answer), handed.digests)
    return tus1_replies.relayed(handed.answer, "POST" if response.status == 201 else "PATCH")
