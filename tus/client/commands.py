"""The effects that a flow asks for, and the progress that it reports. A driver performs them; a test plays them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from tus.client.messages import Request
from tus.client.sources import Source

_T = TypeVar("_T")

#: Takes the status and the fields of an interim response; returns what to do then, which may block, or None.
OnInterim: TypeAlias = Callable[[int, Any], Callable[[], Any] | None]


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request. The result is a :class:`~tus.client.messages.Response`.

    A :class:`~tus.client.errors.ConnectionFailed` is thrown into the flow if there is no response.

    Attributes:
        request: what to send.
        has_credentials: whether the caller's own header fields belong to this URL.
        sink: where the body of a successful response goes, block by block; None to keep it in the response.
        on_interim: called with each interim response, such as 104. What it returns is done before much more is sent.
    """

    request: Request
    has_credentials: bool = True
    sink: Callable[[Any, bytes], None] | None = None
    on_interim: OnInterim | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Let time pass, unless the caller cancels."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Fill:
    """Have the next bytes of a source ready. The result is a :class:`~tus.client.sources.Filled`."""

    source: Source
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Call:
    """Call a function that may block. The result is what it returns."""

    function: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Together:
    """Run flows at the same time. The result is the list of their results; the first error ends the others."""

    flows: Sequence[Flow[Any]]


@dataclass(frozen=True, slots=True)
class Progress:
    """What happens to an upload or a download.

    Attributes:
        kind: ``started``, ``resumed`` (at an offset that is not 0), ``sent`` (bytes have left this process),
            ``accepted`` (the server has said that it has them), ``waiting`` (for ``wait`` seconds, because of
            ``reason``), or ``finished``.
        url: the upload; empty until it is created.
        sent: the offset up to which bytes have left this process.
        accepted: the offset that the server has reported.
        total: the number of bytes; None if it is not known yet.
        resumed_from: the offset at which this call began.
        attempt: 1, and one more for each time that the upload was interrupted.
        rate: bytes a second, over the last few seconds.
        reason: a sentence for people.
        wait: seconds.
    """

    kind: Literal["started", "resumed", "sent", "accepted", "waiting", "finished"]
    url: str = ""
    sent: int = 0
    accepted: int = 0
    total: int | None = None
    resumed_from: int = 0
    attempt: int = 1
    rate: float = 0.0
    reason: str = ""
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the caller about progress."""

    progress: Progress


Command: TypeAlias = Send | Wait | Fill | Call | Together | Report
#: A generator that yields commands, takes their results, and returns its own.
Flow: TypeAlias = Generator[Command, Any, _T]
