"""The events in this process, to which logging and metrics listen.

Rooms emit events, and know no listener. Events are not frozen, because that would triple the cost of making one, and a
request has several.
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
    """The start of a request."""

    method: str


@dataclass(slots=True)
class Answered:
    """The end of a request, with a response or a failure.

    Attributes:
        method: of the request, after ``X-HTTP-Method-Override``.
        status: the HTTP status code; 500 if an exception went to the server.
        reason: the reason phrase.
        upload: the upload of the request, as it is afterwards, or None.
        received: bytes of the body that were received.
        cut: whether the client disconnected before the end of the body.
        kept_from_cut: the bytes of the body that were kept in that case.
        seconds: the duration of the request.
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
    """The creation of an upload."""

    upload: Upload


@dataclass(slots=True)
class Finished:
    """The storing of an upload's last byte."""

    upload: Upload


@dataclass(slots=True)
class HandedOver:
    """The end of an attempt to hand an upload over.

    Attributes:
        upload: the complete upload.
        outcome: ``accepted``, ``rejected``, or ``postponed`` if the application is asked again.
        seconds: the duration of the attempt.
    """

    upload: Upload
    outcome: str
    seconds: float


@dataclass(slots=True)
class Ended:
    """The end of an upload's life.

    Attributes:
        upload: as it was.
        how: ``accepted``, ``rejected``, ``terminated`` or ``expired``.
    """

    upload: Upload
    how: str


@dataclass(slots=True)
class TakenOver:
    """The start of an append while an earlier one has not ended."""

    upload: Upload


@dataclass(slots=True)
class Fenced:
    """The end of an append by a newer one, after which it writes nothing more."""

    upload: Upload


@dataclass(slots=True)
class Synced:
    """A forced write of data to the disk.

    Attributes:
        seconds: its duration.
    """

    seconds: float


Event = Begun | Answered | Created | Finished | HandedOver | Ended | TakenOver | Fenced | Synced
Listener = Callable[[Event], None]

#: The listeners to each kind of event. Code that emits frequent events makes them only if there are listeners.
listeners: dict[type, tuple[Listener, ...]] = dict.fromkeys(get_args(Event), ())

#: The listeners that need events only at times. No dictionary, because an object that can be called may have no hash.
_conditions: list[tuple[Listener, Callable[[], bool]]] = []


def listen(listener: Listener, *kinds: type, when: Callable[[], bool] | None = None) -> None:
    """Call a function with the events of this process, in the event's thread. A second registration does nothing.

    Args:
        listener: its exceptions are logged, and not raised. Under ASGI it is called in a thread of this package, from
            which :mod:`anyio.from_thread` does not reach the loop.
        kinds: the kinds of events that it gets; all if none is given.
        when: returns whether the function needs events now. It may get events at other times, too.
    """
    if when is not None and all(other is not listener for other, _ in _conditions):
        _conditions.append((listener, when))
    for kind in kinds or get_args(Event):
        if listener not in listeners[kind]:
            listeners[kind] += (listener,)


def ignore(listener: Listener) -> None:
    """Stop calling a function."""
    for kind, registered in listeners.items():
        listeners[kind] = tuple(other for other in registered if other is not listener)
    _conditions[:] = [pair for pair in _conditions if pair[0] is not listener]


def is_wanted(kind: type) -> bool:
    """Return whether a function needs events of this kind now, so that they must be made."""
    for listener in listeners[kind]:
        for other, is_needed in _conditions:
            if other is listener:
                if is_needed():
                    return True
                break
        else:
            return True
    return False


def emit(event: Event) -> None:
    """Call the listeners to an event."""
    for listener in listeners[type(event)]:
        try:
            listener(event)
        except Exception:
            log.exception("an event listener failed")
