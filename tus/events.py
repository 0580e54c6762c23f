"""What happens to uploads, for whoever wants to know: logging and metrics listen here.

Rooms that do something emit an event; they know no listener. Events are not frozen, as other values here are, because
that would triple the cost of making one, and there are several a request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from tus.models import Upload

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Begun:
    """A request has come in."""

    method: str


@dataclass(slots=True)
class Answered:
    """A request was answered, or has failed.

    Attributes:
        method: the one that was meant.
        status: the HTTP status code; 500 where an exception went to the server.
        reason: the reason phrase.
        upload: the one that it was about, as it stands after it, if there is one.
        received: bytes of its body that were taken in.
        cut: whether the connection ended early.
        kept_from_cut: the bytes of its body that were kept then.
        seconds: how long it took.
    """

    method: str
    status: int
    reason: str
    upload: Upload | None
    received: int
    cut: bool
    kept_from_cut: int
    seconds: float


@dataclass(slots=True)
class Created:
    """An upload was created."""

    upload: Upload


@dataclass(slots=True)
class Finished:
    """The last byte of an upload is stored."""

    upload: Upload


@dataclass(slots=True)
class HandedOver:
    """The application was offered an upload.

    Attributes:
        upload: a complete one.
        outcome: ``accepted``, ``rejected``, or ``postponed`` where it said neither, and is asked again.
        seconds: how long the application took.
    """

    upload: Upload
    outcome: str
    seconds: float


@dataclass(slots=True)
class Ended:
    """An upload's life is over.

    Attributes:
        upload: as it stood.
        how: ``accepted``, ``rejected``, ``terminated`` or ``expired``.
    """

    upload: Upload
    how: str


@dataclass(slots=True)
class TakenOver:
    """A request has begun to append while an earlier one had not ended."""

    upload: Upload


@dataclass(slots=True)
class Fenced:
    """A request has learnt that a newer one took its upload over, and has written nothing more."""

    upload: Upload


@dataclass(slots=True)
class Synced:
    """Data was forced to the disk."""

    seconds: float


Event = Begun | Answered | Created | Finished | HandedOver | Ended | TakenOver | Fenced | Synced
Listener = Callable[[Event], None]

#: The functions that are called with each kind of event. Where an event is frequent it is made only if there are any.
listeners: dict[type, tuple[Listener, ...]] = dict.fromkeys(get_args(Event), ())


def listen(listener: Listener, *kinds: type) -> None:
    """Call a function with the events of this process, in the thread where they happen; once, however often.

    Args:
        listener: what it raises is logged, and changes nothing.
        kinds: the events that it gets; all if none is given.
    """
    for kind in kinds or get_args(Event):
        if listener not in listeners[kind]:
            listeners[kind] += (listener,)


def ignore(listener: Listener) -> None:
    """Stop calling a function."""
    for kind, heard in listeners.items():
        listeners[kind] = tuple(other for other in heard if other is not listener)


def emit(event: Event) -> None:
    """Call the listeners."""
    for listener in listeners[type(event)]:
        try:
            listener(event)
        except Exception:
            log.exception("a listener failed")
