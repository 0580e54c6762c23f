"""Claims that views hold: each ends with its request, also where the view raised or forgot it.

The documented form, ``with Tus(...)``, needs none of this. A view without it may raise, and its framework may keep the
exception, and with it the claim, for as long as it likes. So a claim that a view holds ends, too:

- when the framework says that the request has finished, where the adapter can hear of it (Pyramid);
- when the thread is no longer in the call of the application that the claim was made in. PEP 3333 has the environ
  passed to that call, so the outermost frame that has it as an argument is looked for on the thread's stack. The check
  runs when another request to the uploads begins in this process.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol, runtime_checkable


class Holder(Protocol):
    """Holds a claim until its caller has said something."""

    def abandon(self) -> None:
        """Release the claim."""


@runtime_checkable
class Finishes(Protocol):
    """An adapter whose framework tells when the request has finished."""

    def at_request_end(self, callback: Callable[[], None]) -> bool:
        """Have a function called then; return whether it will be."""


class _Stay:
    """Where a holder's request is running.

    Args:
        adapter: the request; ``environ`` is looked for on the stack, if it has one.
    """

    def __init__(self, adapter: object) -> None:
        self._thread = threading.current_thread()
        self._greenlet = _current_greenlet()
        self._frame: FrameType | None = None
        environ = getattr(adapter, "environ", None)
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and environ is not None:
            code = frame.f_code
            names = code.co_varnames[: code.co_argcount]
            if any(frame.f_locals.get(name) is environ for name in names):
                self._frame = frame
            frame = frame.f_back

    def has_ended(self) -> bool:
        """Return whether the application has returned from its call, or the thread has ended."""
        if not self._thread.is_alive():
            return True
        if self._frame is None:
            return False
        if self._greenlet is not None and self._greenlet is not _current_greenlet():
            if self._greenlet.dead:
                return True
            stack = self._greenlet.gr_frame
        else:
            stack = sys._current_frames().get(self._thread.ident or 0)
        while stack is not None:
            if stack is self._frame:
                return False
            stack = stack.f_back
        return True


def _current_greenlet() -> Any:
    greenlet = sys.modules.get("greenlet")
    return None if greenlet is None else greenlet.getcurrent()


_stays: dict[int, tuple[Holder, _Stay]] = {}  # by identity of the holder, which is alive while it is here
_lock = threading.Lock()


def hold(holder: Holder, adapter: object) -> None:
    """Release a holder's claim at the end of its request."""
    with _lock:
        _stays[id(holder)] = (holder, _Stay(adapter))
    if isinstance(adapter, Finishes):
        adapter.at_request_end(holder.abandon)


def let_go(holder: Holder) -> None:
    """Forget a holder that has settled its claim."""
    with _lock:
        _stays.pop(id(holder), None)


def end_abandoned() -> None:
    """Release the claims of this process whose request has ended."""
    if not _stays:
        return
    with _lock:
        abandoned = [holder for holder, stay in _stays.values() if stay.has_ended()]
    for holder in abandoned:
        holder.abandon()
