"""The effects that an exchange yields to its runner. Law: values only. The docstring of each names the result."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from tus.errors import RequestError
from tus.models import HookReply, HookType, Intent, Outcome, Response, Upload
from tus.protocols.bodies import Intake


@dataclass(slots=True)
class Authorize:
    """Ask whether the request may do this. Sends back the principal, or None if it is unknown.

    A refusal is thrown in as an error, or sent back as the :class:`Response` for the client.

    Attributes:
        intent: the intended action.
        upload: its upload; a draft without an id before the creation.
    """

    intent: Intent
    upload: Upload


@dataclass(slots=True)
class Load:
    """Read an upload's record. Sends back the :class:`Upload`."""

    upload_id: str


@dataclass(slots=True)
class Create:
    """Create an upload; its id is new unless the draft has one. Sends back the :class:`Upload`.

    If an upload with the draft's id exists, that upload is sent back.
    """

    draft: Upload


@dataclass(slots=True)
class Name:
    """Make the id of an upload from a text. Sends back the id, or None if the store cannot do that."""

    text: str


@dataclass(slots=True)
class CreateOnce:
    """Create an upload with the draft's id. Sends back the :class:`Upload`, or None if there is one with that id."""

    draft: Upload


@dataclass(slots=True)
class Receive:
    """Move the request's body into the upload. Sends back :class:`Received`.

    Attributes:
        upload: as it was loaded.
        intake: the rules for receiving the body.
        progress: makes the interim response that reports an offset while the client sends; None for none.
        begin: how the hand-over begins in the same step, if the body completes the upload and the store can do that.
    """

    upload: Upload
    intake: Intake
    progress: Callable[[int], Response] | None = None
    begin: Begin | None = None


@dataclass(slots=True)
class Received:
    """The result of receiving a body.

    Attributes:
        upload: as it is now.
        overran: whether the body had more bytes than the intake's limit; the bytes of its last block are not counted.
        cut: whether the connection ended before the body did.
        failure: an error of the store that ended the body early, after the counted bytes.
        stopped: the reply of the hook that stopped the upload.
        is_begun: whether the hand-over has begun, as if by a :class:`Claim` and a :class:`Begin`.
    """

    upload: Upload
    overran: bool = False
    cut: bool = False
    failure: RequestError | None = None
    stopped: HookReply | None = None
    is_begun: bool = False


@dataclass(slots=True)
class CreateWhole:
    """Create an upload with its whole data, and begin its hand-over, in one step.

    Sends back :class:`Received`, or None if the store or this body needs several steps: then nothing was created, and
    no byte of the body is lost.

    Attributes:
        draft: its length is that of the body.
        intake: the rules for receiving the body; it has no checksums.
        begin: how the hand-over begins.
    """

    draft: Upload
    intake: Intake
    begin: Begin


@dataclass(slots=True)
class Inform:
    """Send an interim response, if the server can. Sends back whether it was sent."""

    response: Response


@dataclass(slots=True)
class Fence:
    """End the running append of an upload, if there is one. Sends back the :class:`Upload` as it is after that."""

    upload: Upload


@dataclass(slots=True)
class End:
    """Complete an upload that has reached its length. Sends back the :class:`Upload`."""

    upload: Upload


@dataclass(slots=True)
class Wait:
    """Wait for some seconds."""

    seconds: float


@dataclass(slots=True)
class Remove:
    """Delete the upload and its bytes."""

    upload_id: str


@dataclass(slots=True)
class Watch:
    """Record in the parts that a final upload waits for them. Sends back the parts as they are after that."""

    final: Upload


@dataclass(slots=True)
class Concatenate:
    """Fill a final upload from its complete parts, unless it is filled already. Sends back the :class:`Upload`."""

    final: Upload
    parts: tuple[Upload, ...]


@dataclass(slots=True)
class FinalsOf:
    """Send back the ids of the final uploads that wait for this part."""

    part: Upload


@dataclass(slots=True)
class Touch:
    """Prolong the life of waiting final uploads and their parts, as if each had got a byte now."""

    final_ids: tuple[str, ...]


@dataclass(slots=True)
class Serve:
    """Send a finished upload to the client. Sends back the :class:`Response`."""

    upload: Upload


# -- Hand-over ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Peek:
    """Read a body that is at most a few bytes long. Sends back :class:`Peeked`."""

    intake: Intake


@dataclass(slots=True)
class Peeked:
    """A short body.

    Attributes:
        data: the received bytes, at most one more than the intake's limit.
        cut: whether the connection ended before the body did.
    """

    data: bytes
    cut: bool


@dataclass(slots=True)
class Claim:
    """Take the right to hand a complete upload over, until :class:`Settle` or the end of the exchange.

    Sends back the :class:`Upload`, which another process may have handed over meanwhile.
    """

    upload: Upload


@dataclass(slots=True)
class ReadBack:
    """Read the last bytes of the claimed upload. Sends back these bytes.

    Attributes:
        size: the number of bytes.
    """

    size: int


@dataclass(slots=True)
class Digest:
    """Compute the digests of the claimed upload's file. Sends back the :class:`Upload` with them."""


@dataclass(slots=True)
class Begin:
    """Record that an attempt begins. Sends back the :class:`Upload` with this attempt.

    Attributes:
        is_last: whether the upload is set aside if this attempt does not settle it.
    """

    is_last: bool


@dataclass(slots=True)
class Offer:
    """Offer the claimed upload to the application. Sends back :class:`Offered`.

    In a view the view takes the file, and the exchange pauses until the view has named the outcome.

    Attributes:
        pending: returns the reply for a view that names no outcome.
    """

    pending: Callable[[], Response]


@dataclass(slots=True)
class Offered:
    """The application's response to an offer.

    Attributes:
        answer: the response. The body of a 2xx was read to its end; any other body is bytes unless it is long.
        error: the error text for the operator; empty if the response says enough.
        outcome: the outcome that was named explicitly; None if the status of the response decides.
    """

    answer: Response
    error: str = ""
    outcome: Outcome | None = None


@dataclass(slots=True)
class Settle:
    """Record the outcome of the attempt, and release the claim. Sends back the :class:`Upload` if it is postponed.

    Attributes:
        outcome: the outcome.
        answer: the response that is kept for a client that asks again; None for a postponed upload.
        error: the error text for the operator.
    """

    outcome: Outcome
    answer: Response | None
    error: str | None


@dataclass(slots=True)
class Promise:
    """Record that the client knows the upload, and make a complete one durable for a hand-over in the background.

    Sends back the :class:`Upload`.
    """

    upload: Upload


# -- Hooks --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Ask:
    """Ask the hooks. Sends back the :class:`~tus.models.HookReply`.

    A failure of a hook is thrown in as an error.
    """

    type: HookType
    upload: Upload


@dataclass(slots=True)
class Queue:
    """Put an event into the outbox before the change that it is about."""

    type: HookType
    upload: Upload


@dataclass(slots=True)
class Unqueue:
    """Take an event back from the outbox, because its change has not happened."""

    type: HookType
    upload: Upload


@dataclass(slots=True)
class Tell:
    """Notify the hooks of an event; their reply does not matter."""

    type: HookType
    upload: Upload


HandoverEffect = Claim | ReadBack | Digest | Begin | Offer | Settle | Ask | Queue | Unqueue | Tell
Effect = (
    Authorize
    | Load
    | Create
    | Name
    | CreateOnce
    | CreateWhole
    | Receive
    | Inform
    | Fence
    | End
    | Wait
    | Remove
    | Watch
    | Concatenate
    | FinalsOf
    | Touch
    | Serve
    | Peek
    | Promise
    | HandoverEffect
)
#: The steps of a request. They return the response, or other steps that go on in their place.
Steps = Generator[Effect, Any, "Response | Steps"]
