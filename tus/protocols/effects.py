"""What an exchange asks of its driver. Law: values only; what is sent back is said with each."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from tus.errors import RequestError
from tus.models import HookReply, HookType, Intent, Outcome, Response, Upload
from tus.protocols.bodies import Intake


@dataclass(frozen=True, slots=True)
class Authorize:
    """Ask whether the request may do this. Sends back the principal, or None where nobody knows one.

    A refusal is thrown in as an error, or sent back as the :class:`Response` that the client is to have instead.

    Attributes:
        intent: what it is about to do.
        upload: to what; a draft without an id where it is yet to be created.
    """

    intent: Intent
    upload: Upload


@dataclass(frozen=True, slots=True)
class Load:
    """Read an upload's record. Sends back the :class:`Upload`."""

    upload_id: str


@dataclass(frozen=True, slots=True)
class Create:
    """Make an upload; its id is new unless the draft has one. Sends back the :class:`Upload`.

    Where the draft has an id that exists already, the upload that exists is sent back.
    """

    draft: Upload


@dataclass(frozen=True, slots=True)
class Receive:
    """Move the request's body into the upload. Sends back what was :class:`Received`.

    Attributes:
        upload: as it was loaded.
        intake: how the body must be taken in.
        progress: the interim response that the client may get while it sends, given how far the upload has come.
        begin: if the body completes the upload, how the hand-over begins in the same step, where the store has one.
    """

    upload: Upload
    intake: Intake
    progress: Callable[[int], Response] | None = None
    begin: Begin | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """What came of a body.

    Attributes:
        upload: as it stands now.
        overran: whether the body had more bytes than the intake's limit; those of its last block are not counted.
        cut: whether the connection ended before the body did.
        failure: an error of the store that ended it early, after the bytes that are counted.
        stopped: what a hook has answered that ended it.
        is_begun: whether the hand-over has begun, as if by a :class:`Claim` and a :class:`Begin`.
    """

    upload: Upload
    overran: bool = False
    cut: bool = False
    failure: RequestError | None = None
    stopped: HookReply | None = None
    is_begun: bool = False


@dataclass(frozen=True, slots=True)
class Inform:
    """Send an interim response, if the server can. Sends back whether that was done."""

    response: Response


@dataclass(frozen=True, slots=True)
class Fence:
    """End the append that may be running on an upload. Sends back the :class:`Upload` as it stands after that."""

    upload: Upload


@dataclass(frozen=True, slots=True)
class End:
    """Complete an upload that has reached its length. Sends back the :class:`Upload`."""

    upload: Upload


@dataclass(frozen=True, slots=True)
class Wait:
    """Let some seconds pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete the upload and its bytes."""

    upload_id: str


@dataclass(frozen=True, slots=True)
class Watch:
    """Have the parts remember the final upload that waits for them. Sends back the parts as they stand after that."""

    final: Upload


@dataclass(frozen=True, slots=True)
class Concatenate:
    """Fill a final upload from its complete parts. Sends back the :class:`Upload`; again if it is filled already."""

    final: Upload
    parts: tuple[Upload, ...]


@dataclass(frozen=True, slots=True)
class FinalsOf:
    """Send back the ids of the final uploads that wait for this part."""

    part: Upload


@dataclass(frozen=True, slots=True)
class Touch:
    """Let a final upload that waits, and its parts, live as long as one that gets a byte now."""

    final_id: str


@dataclass(frozen=True, slots=True)
class Serve:
    """Send a finished upload to the client. Sends back the :class:`Response`."""

    upload: Upload


# -- Hand-over ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Peek:
    """Read a body that is at most a few bytes long. Sends back what was :class:`Peeked`."""

    intake: Intake


@dataclass(frozen=True, slots=True)
class Peeked:
    """A short body.

    Attributes:
        data: what came of it, at most one byte more than the intake's limit.
        cut: whether the connection ended before the body did.
    """

    data: bytes
    cut: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """Take the right to hand a complete upload over, until :class:`Settle` or the end of the exchange.

    Sends back the :class:`Upload`, which somebody else may have handed over meanwhile.
    """

    upload: Upload


@dataclass(frozen=True, slots=True)
class ReadBack:
    """Send back so many bytes at the end of what is claimed."""

    size: int


@dataclass(frozen=True, slots=True)
class Digest:
    """Send back the :class:`Upload` that is claimed with the digests of its whole file."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Take down that the application is asked now. Sends back the :class:`Upload` with this attempt.

    Attributes:
        is_last: whether nobody is to ask it again by himself after this, whatever comes of it.
    """

    is_last: bool


@dataclass(frozen=True, slots=True)
class Offer:
    """Give what is claimed to the application. Sends back what was :class:`Offered`.

    Where the code that called the driver takes it by itself, the exchange rests until that has said what it does.

    Attributes:
        pending: what the client hears if nothing is said.
    """

    pending: Response


@dataclass(frozen=True, slots=True)
class Offered:
    """What the application said.

    Attributes:
        answer: its response. A 2xx has been produced to its end; the body of another is bytes unless it is long.
        error: what went wrong, for the operator; empty where the answer tells it.
        outcome: what it has said expressly, whatever the answer's status is.
    """

    answer: Response
    error: str = ""
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Settle:
    """Take down what came of the attempt, and let go of the upload.

    Attributes:
        outcome: what is meant.
        answer: what is kept for a client that asks again, where it was accepted or rejected.
        error: what went wrong, for the operator.
    """

    outcome: Outcome
    answer: Response | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Promise:
    """Make an upload known to its client, and a complete one durable, to be offered beside the requests.

    Sends back the :class:`Upload`.
    """

    upload: Upload


# -- Hooks --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the hooks. Sends back the :class:`~tus.models.HookReply`.

    A hook that fails is thrown in as an error.
    """

    type: HookType
    upload: Upload


@dataclass(frozen=True, slots=True)
class Queue:
    """Have the hooks that are told from a durable queue told, if what is to come really happens."""

    type: HookType
    upload: Upload


@dataclass(frozen=True, slots=True)
class Unqueue:
    """What was queued will not happen."""

    type: HookType
    upload: Upload


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell the hooks what has happened; what they answer does not matter."""

    type: HookType
    upload: Upload


HandoverEffect = Claim | ReadBack | Digest | Begin | Offer | Settle | Ask | Queue | Unqueue | Tell
Effect = (
    Authorize
    | Load
    | Create
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
Steps = Generator[Effect, Any, Response]
