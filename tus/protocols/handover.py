"""The hand-over of a finished upload to the application: its steps and its rules, for both protocols.

Generators of effects, as :func:`tus.protocols.exchange.exchange` is one, and the decisions that they rest on.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Final

from tus.errors import BadRequest, RequestError
from tus.http.digests import Digests
from tus.models import HookReply, HookType, Outcome, Request, Response, State, Upload
from tus.options import Options
from tus.protocols import digests, hook_replies
from tus.protocols.bodies import Intake
from tus.protocols.effects import (
    Ask,
    Begin,
    Claim,
    Digest,
    Effect,
    HandoverEffect,
    Offer,
    Offered,
    Promise,
    Queue,
    ReadBack,
    Settle,
    Tell,
    Unqueue,
)
from tus.protocols.routing import target


@dataclass(frozen=True, slots=True)
class Handed:
    """What came of a hand-over.

    Attributes:
        outcome: of the attempt, or of an earlier one.
        answer: the application's, with what pre-finish adds to a success.
        digests: those of the file that are known.
    """

    outcome: Outcome
    answer: Response
    digests: Digests = ()


def attempt_of(upload: Upload, intake: Intake, options: Options) -> Begin | None:
    """Return how the hand-over begins in the same step as the last bytes; None where something must lie between."""
    if options.handover != "request" or options.has_hooks or upload.hashes or upload.concat is not None:
        return None
    return Begin(goes_aside(upload.attempts + 1, options)) if intake.completes else None


def hand_over(
    upload: Upload, options: Options, pending: Response, last_bytes: bytes = b"", is_begun: bool = False
) -> Generator[HandoverEffect, Any, Handed]:
    """Ask the application to take an upload.

    Args:
        upload: a complete one, known if a client's request names it.
        options: the operator's choices.
        pending: the reply where the caller takes the upload by itself, and has not said what it does.
        last_bytes: bytes that a client has sent once more, which must be the last of those that are stored.
        is_begun: whether the upload is claimed, and the attempt has begun.

    Raises:
        BadRequest: they are not.
        UploadLocked: another request or process has claimed it.
    """
    if not is_begun:
        upload = yield Claim(upload)
        if not upload.is_pending:
            return decided(upload)  # by another request, while this one was on its way
        if last_bytes and (yield ReadBack(len(last_bytes))) != last_bytes:
            raise BadRequest(
                "The last byte is not the one that is stored, so this is another file; create a new upload."
            )
        if upload.hashes:
            upload = yield Digest()
            if digests.differs(upload):
                answer = digests.rejection()
                yield Settle(Outcome.REJECTED, answer, None)
                return Handed(Outcome.REJECTED, answer, upload.digests)
        upload = yield Begin(goes_aside(upload.attempts + 1, options))
    if options.has_hooks:
        yield Queue(HookType.POST_FINISH, upload)  # before the application is asked: its yes must not be lost over this
    offered, added = yield from _offer(upload, options, pending)
    outcome = offered.outcome or outcome_of(offered.answer.status, options)
    answer = offered.answer
    if options.has_hooks and outcome != Outcome.ACCEPTED:
        yield Unqueue(HookType.POST_FINISH, upload)
    if outcome == Outcome.POSTPONED:
        yield Settle(outcome, None, offered.error or f"the answer was {answer.status} {answer.reason}")
        return Handed(outcome, answer, upload.digests)
    if outcome == Outcome.ACCEPTED:
        answer = hook_replies.merged(answer, added)
    yield Settle(outcome, _kept(answer, outcome, upload), None)
    if options.has_hooks and outcome == Outcome.ACCEPTED:
        yield Tell(HookType.POST_FINISH, upload)
    return Handed(outcome, answer, upload.digests)


def _offer(
    upload: Upload, options: Options, pending: Response
) -> Generator[HandoverEffect, Any, tuple[Offered, HookReply | None]]:
    reply: HookReply | None = None
    if options.has_hooks:
        try:
            reply = yield Ask(HookType.PRE_FINISH, upload)
        except RequestError as error:
            return Offered(Response.of_error(error), f"a hook failed: {error}"), None
        if reply is not None and reply.reject:
            return Offered(hook_replies.rejection(reply), outcome=Outcome.REJECTED), None
        if reply is not None and (objection := hook_replies.objection(reply)) is not None:
            return Offered(objection), None
    offered: Offered = yield Offer(pending)
    return offered, reply


#: What an application says to one client, and to no other that asks the same later.
_PERSONAL = frozenset({"set-cookie", "set-cookie2", "www-authenticate", "proxy-authenticate", "authentication-info"})


def _kept(answer: Response, outcome: Outcome, upload: Upload) -> Response:
    """What is written down of an answer: what a client gets to hear of it.

    That is all of a rejection, and of a success to a client of the IETF protocol; and the header fields of another.
    """
    lends = outcome == Outcome.ACCEPTED and not upload.keeps_answer
    headers = lent_headers(answer) if lends else answer.headers
    headers = [(name, value) for name, value in headers if name.lower() not in _PERSONAL]
    if lends:
        return Response(answer.status, answer.reason, headers)
    if isinstance(answer.body, tuple):
        return Response(answer.status, answer.reason, headers, answer.body)
    kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
    return Response(answer.status, answer.reason, kept)  # too long


def decided(upload: Upload) -> Handed:
    """What came of the hand-over of an upload that is accepted or rejected."""
    if upload.state == State.REJECTED:
        return Handed(Outcome.REJECTED, upload.answer or hook_replies.rejection(HookReply()), upload.digests)
    return Handed(Outcome.ACCEPTED, upload.answer or Response(204, "No Content"), upload.digests)


def hand_over_alone(upload: Upload, options: Options) -> Generator[HandoverEffect, Any, Handed]:
    """Ask the application to take an upload of which no client asks.

    Raises:
        UploadLocked: somebody else is at it.
    """
    return (yield from hand_over(upload, options, Response(503, "Service Unavailable")))


def promise(upload: Upload) -> Generator[Effect, Any, bool]:
    """Leave the hand-over to the background, and return whether that was done."""
    if upload.digests and digests.differs(upload):
        return False  # it is rejected, which its client can as well learn at once
    yield Promise(upload)
    return True


FIRST_DELAY: Final = 10.0  # seconds; a client that comes back does so sooner


LONGEST_DELAY: Final = 3600.0


def outcome_of(status: int, options: Options) -> Outcome:
    """What an application means by a status. Whatever is no clear yes or no is "not now"."""
    if 200 <= status < 300:
        return Outcome.ACCEPTED
    return Outcome.REJECTED if status in options.reject_statuses else Outcome.POSTPONED


def offered_method(request: Request, options: Options) -> str:
    """The method with which an application sees the request that completes an upload.

    It is POST where that has created the upload, by whatever method, and else PATCH, whatever tunnel it came through.
    """
    return "POST" if target(request, options).upload_id is None else "PATCH"


def due_at(upload: Upload, options: Options) -> float | None:
    """When the application is to be asked without a client, in seconds since 1970; None where it is not."""
    if not upload.is_pending or not upload.is_known or upload.is_aside or not options.handover_attempts:
        return None
    if not upload.attempts:
        return upload.since + (0.0 if options.handover == "background" else FIRST_DELAY)
    return upload.since + delay(upload.attempts)


def delay(attempts: int) -> float:
    """Seconds until the next attempt, doubling with each."""
    return min(FIRST_DELAY * (1 << min(attempts - 1, 30)), LONGEST_DELAY)


def goes_aside(attempts: int, options: Options) -> bool:
    """Whether it was in vain too often."""
    return 0 < options.handover_attempts <= attempts


# What describes the application's body, which is dropped, and what the protocol says itself.
_NOT_KEPT = frozenset(
    {"content-type", "content-length", "content-encoding", "content-range", "transfer-encoding"}
    | {"content-digest", "repr-digest", "upload-offset", "upload-expires", "tus-resumable"}
)


def lent_headers(theirs: Response) -> list[tuple[str, str]]:
    """The header fields of an application's success that the client gets."""
    return [(name, value) for name, value in theirs.headers if name.lower() not in _NOT_KEPT]
