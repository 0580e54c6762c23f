"""The hand-over of a finished upload to the application: its steps and its rules, for both protocols.

The steps are generators of effects, like :func:`tus.protocols.exchange.exchange`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from tus.errors import (
    BadRequest,
    NotTaken,
    OffsetMismatch,
    RequestError,
    StorageUnavailable,
    UploadGone,
    UploadLocked,
    UploadReplaced,
)
from tus.http.digests import Digests
from tus.models import HookReply, HookType, Outcome, Request, Response, State, Upload, is_upload_id
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


@dataclass(slots=True)
class Handed:
    """The result of a hand-over.

    Attributes:
        outcome: of this attempt, or of an earlier one.
        answer: the application's response, with the header fields that pre-finish adds to a success.
        digests: the known digests of the file.
    """

    outcome: Outcome
    answer: Response
    digests: Digests = ()


_NEXT, _LAST = Begin(is_last=False), Begin(is_last=True)


def attempt_of(upload: Upload, intake: Intake, options: Options) -> Begin | None:
    """Return how the hand-over begins in the same step as the last bytes; None if other steps come between."""
    if options.handover != "request" or options.has_hooks or upload.hashes or upload.concat is not None:
        return None
    if not intake.completes:
        return None
    return _LAST if goes_aside(upload.attempts + 1, options) else _NEXT


def hand_over(
    upload: Upload,
    options: Options,
    pending: Callable[[], Response],
    last_bytes: bytes = b"",
    is_begun: bool = False,
) -> Generator[HandoverEffect, Any, Handed]:
    """Offer an upload to the application.

    Args:
        upload: a complete upload, known if a client's request names it.
        options: the operator's choices.
        pending: returns the reply for a view that names no outcome.
        last_bytes: bytes that the client has sent again; they must equal the last stored bytes.
        is_begun: whether the upload is claimed, and the attempt has begun.

    Raises:
        BadRequest: ``last_bytes`` differ from the stored bytes.
        UploadLocked: another request or process has claimed the upload.
        OffsetMismatch: bytes could not be forced to the disk meanwhile; the client must send them again.
        UploadGone: it must send all of them again.
    """
    if not is_begun:
        upload = yield Claim(upload)
        if not upload.is_pending:
            return decided(upload)  # another request has settled it since this one has loaded it
        if last_bytes and (yield ReadBack(len(last_bytes))) != last_bytes:
            raise BadRequest("The last byte differs from the stored one, so this is another file; create a new upload.")
        if upload.hashes:
            upload = yield Digest()
            if digests.differs(upload):
                answer = digests.rejection()
                yield Settle(Outcome.REJECTED, answer, None)
                return Handed(Outcome.REJECTED, answer, upload.digests)
        upload = yield Begin(goes_aside(upload.attempts + 1, options))
    added: HookReply | None = None
    if options.has_hooks:
        # Before the offer: the application's acceptance must not be lost because the outbox fails.
        yield Queue(HookType.POST_FINISH, upload)
        offered, added = yield from _ask_and_offer(upload, pending)
    else:
        offered = yield Offer(pending)
    outcome, answer = outcome_of(offered, upload, options)
    if options.has_hooks and outcome != Outcome.ACCEPTED:
        with suppress(RequestError):  # the event is dropped later, because its change has not happened
            yield Unqueue(HookType.POST_FINISH, upload)
    if outcome == Outcome.POSTPONED:
        check_whole((yield Settle(outcome, None, offered.error or f"the response was {answer.status} {answer.reason}")))
        return Handed(outcome, answer, upload.digests)
    if outcome == Outcome.ACCEPTED and added is not None:
        answer = hook_replies.merged(answer, added)
    if options.has_hooks and outcome == Outcome.ACCEPTED and offered.answer.saved_as:
        upload = replace(upload, path=offered.answer.saved_as)
        with suppress(RequestError):  # the event is there already; it names the path of the data
            yield Queue(HookType.POST_FINISH, upload)
    try:
        yield Settle(outcome, _kept(answer, outcome, upload), None)
    except UploadReplaced:
        return (yield from _settled_by_another(upload))
    except UploadLocked:  # no other hand-over holds the lock, so the client must not wait for one
        raise StorageUnavailable() from None
    if options.has_hooks and outcome == Outcome.ACCEPTED:
        yield Tell(HookType.POST_FINISH, upload)
    return Handed(outcome, answer, upload.digests)


def _settled_by_another(upload: Upload) -> Generator[HandoverEffect, Any, Handed]:
    """Return the outcome that another holder has recorded: a lease was lost while the application had the file.

    Raises:
        UploadLocked: the other holder has recorded none yet.
    """
    upload = yield Claim(upload)
    if upload.is_pending:
        raise UploadLocked()
    return decided(upload)


def _ask_and_offer(
    upload: Upload, pending: Callable[[], Response]
) -> Generator[HandoverEffect, Any, tuple[Offered, HookReply | None]]:
    try:
        reply: HookReply | None = yield Ask(HookType.PRE_FINISH, upload)
    except RequestError as error:
        return Offered(Response.of_error(error), f"a hook failed: {error}"), None
    if reply is not None and reply.reject:
        return Offered(hook_replies.rejection(reply), outcome=Outcome.REJECTED), None
    if reply is not None and (objection := hook_replies.objection(reply)) is not None:
        return Offered(objection), None
    offered: Offered = yield Offer(pending)
    return offered, reply


#: Header fields for one client, which must not be kept for another client that asks later.
_PERSONAL = frozenset({"set-cookie", "set-cookie2", "www-authenticate", "proxy-authenticate", "authentication-info"})


def _kept(answer: Response, outcome: Outcome, upload: Upload) -> Response:
    """Return the part of a response that the record keeps for later requests.

    A rejection is kept whole, and so is a success for an upload of the IETF protocol. Of another success only the
    header fields are kept.
    """
    if not (answer.headers or answer.body):
        return answer
    lends = outcome == Outcome.ACCEPTED and not upload.keeps_answer
    headers = lent_headers(answer) if lends else answer.headers
    headers = [(name, value) for name, value in headers if name.lower() not in _PERSONAL]
    if lends:
        return Response(answer.status, answer.reason, headers)
    if isinstance(answer.body, tuple):
        return Response(answer.status, answer.reason, headers, answer.body)
    kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
    return Response(answer.status, answer.reason, kept)  # a body that is not a tuple is too long to keep


def decided(upload: Upload) -> Handed:
    """Return the result of the hand-over of an upload that was accepted or rejected.

    Raises:
        OffsetMismatch: it is neither, because bytes of it were lost since it was complete.
    """
    check_whole(upload)
    if upload.state == State.REJECTED:
        return Handed(Outcome.REJECTED, upload.answer or hook_replies.rejection(HookReply()), upload.digests)
    return Handed(Outcome.ACCEPTED, upload.answer or Response(204, "No Content"), upload.digests)


def check_whole(upload: Upload) -> None:
    """Check that an upload which was complete is still complete: bytes that no disk could take are lost.

    Raises:
        OffsetMismatch: the client must send bytes again.
        UploadGone: it must begin again.
    """
    if upload.state == State.TERMINATED:
        raise UploadGone()
    if not upload.is_complete:
        raise OffsetMismatch(upload.offset)


def hand_over_alone(upload: Upload, options: Options) -> Generator[HandoverEffect, Any, Handed]:
    """Offer an upload to the application without a client.

    Raises:
        UploadLocked: another request or process has claimed the upload.
    """
    return (yield from hand_over(upload, options, lambda: Response.of_error(NotTaken())))


def promise(upload: Upload) -> Generator[Effect, Any, bool]:
    """Leave the hand-over to the background, and return whether it was left to it."""
    if upload.digests and digests.differs(upload):
        return False  # it will be rejected, and the client can get the rejection at once
    check_whole((yield Promise(upload)))
    return True


FIRST_DELAY: Final = 10.0  # seconds; a client that retries does so sooner


LONGEST_DELAY: Final = 3600.0


#: The field of a response that names the outcome explicitly; the client does not get it.
OUTCOME_FIELD: Final = "tus-outcome"


def outcome_of(offered: Offered, upload: Upload, options: Options) -> tuple[Outcome, Response]:
    """Return the outcome of an offer, and the response for the client.

    Only an explicit statement rejects: ``tus.Rejected``, the response header ``Tus-Outcome: rejected``, or a status
    that the site has listed. Frameworks send every 4xx on their own, for a Host or a cookie that they do not expect.
    """
    answer = offered.answer
    if offered.outcome is not None:
        return offered.outcome, answer
    status = answer.status
    for name, value in answer.headers:
        if name.lower() == OUTCOME_FIELD and value.strip().lower() == Outcome.REJECTED:
            return Outcome.REJECTED, _rejection(answer)
    if 200 <= status < 300:
        return Outcome.ACCEPTED, answer
    if status == 303 and upload.original is not None and answer.is_file_taken:  # else it may lead to a login
        return Outcome.ACCEPTED, answer
    return (Outcome.REJECTED if status in options.reject_statuses else Outcome.POSTPONED), answer


def _rejection(answer: Response) -> Response:
    """Return the response of an application that names a rejection in a field; it must be a 4xx that ends retries."""
    if not 400 <= answer.status < 500 or answer.status in (409, 423):  # clients retry after these
        return hook_replies.rejection(HookReply())
    headers = [(name, value) for name, value in answer.headers if name.lower() != OUTCOME_FIELD]
    return Response(answer.status, answer.reason, headers, answer.body)


def offered_method(request: Request) -> str:
    """Return the method that the application gets for the request that completes an upload.

    It is POST if the request has created the upload, by any method, and else PATCH, even if the client sent a POST or
    PUT with ``X-HTTP-Method-Override``.
    """
    return "PATCH" if is_upload_id(request.url.rstrip("/").rpartition("/")[2]) else "POST"


def due_at(upload: Upload, options: Options, now: float) -> float | None:
    """Return the time of the next attempt without a client, in seconds since 1970; None if there is none.

    It is now if the wait seems to begin in the future: then the clock was wrong.
    """
    if not upload.is_pending or not upload.is_known or upload.is_aside or not options.handover_attempts:
        return None
    if upload.since > now:
        return now
    if not upload.attempts:
        return upload.since + (0.0 if options.handover == "background" else FIRST_DELAY)
    return upload.since + delay(upload.attempts)


def delay(attempts: int) -> float:
    """Return the seconds until the next attempt. They double with each attempt."""
    return min(FIRST_DELAY * (1 << min(attempts - 1, 30)), LONGEST_DELAY)


def goes_aside(attempts: int, options: Options) -> bool:
    """Return whether an upload is set aside after so many failed attempts."""
    return 0 < options.handover_attempts <= attempts


# Fields that describe the application's body, which is dropped, and fields that the protocols set.
_NOT_KEPT = frozenset(
    {"content-type", "content-length", "content-encoding", "content-range", "transfer-encoding"}
    | {"content-digest", "repr-digest", "upload-offset", "upload-expires", "tus-resumable"}
)


def lent_headers(theirs: Response) -> list[tuple[str, str]]:
    """Return the header fields of an application's success that the client gets."""
    return [(name, value) for name, value in theirs.headers if name.lower() not in _NOT_KEPT]
