"""Claims that views hold: each ends with its request, also where the view raised or forgot it.

The documented form, ``with Tus(...)``, needs none of this. A view without it may raise, and its framework may keep the
exception, and with it the claim, for as long as it likes. So a claim that a view holds ends, too:

- when the framework says that the request has finished, where the adapter can hear of it (Pyramid);
- when the thread is no longer in the call of the application that the claim was made in. PEP 3333 has the environ
  passed to that call, so the environ gets a mark, and a call with such an argument is looked for on the thread's stack.
  Without an environ, it ends when the thread begins another request. The check runs when a request begins.

An application may say what it did with the file after that, from a response that is produced later. That still counts
if no other request has claimed the file.
"""

from __future__ import annotations

import inspect
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from types import CodeType, FrameType
from typing import Any, Protocol, runtime_checkable

log = logging.getLogger(__name__)


class Holder(Protocol):
    """Holds a claim until its caller has said something."""

    def abandon(self) -> None:
        """Release the claim."""


@runtime_checkable
class Finishes(Protocol):
    """An adapter whose framework tells when the request has finished."""

    def at_request_end(self, callback: Callable[[], None]) -> bool:
        """Have a function called then; return whether it will be."""


_SUSPENDABLE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_KEY = "tus.stay"


class _Stay:
    """Where a holder's request is running.

    It refers to no frame, because a frame keeps its variables alive, and the holder may be one of them.

    Args:
        adapter: the request; its ``environ`` is looked for on the stack, if it has one.
    """

    def __init__(self, adapter: object) -> None:
        self._ident = _thread_of_caller()
        self._thread = threading.current_thread()
        self._greenlet = _current_greenlet()
        self._mark = object()
        self._call: tuple[CodeType, str] | None = None  # the application's function, and its argument
        environ = getattr(adapter, "environ", None)
        if not isinstance(environ, dict):
            return
        environ[_KEY] = self._mark
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            code = frame.f_code
            for name in code.co_varnames[: code.co_argcount]:
                # Only by its usual names: to look at a variable keeps it alive as long as the frame, in Python 3.12.
                if name.startswith("env") and frame.f_locals.get(name) is environ:
                    self._call = (code, name)
            frame = frame.f_back

    def has_ended(self) -> bool:
        """Return whether the application has returned from its call, or the thread or greenlet has ended."""
        if not self._thread.is_alive() or (self._greenlet is not None and self._greenlet.dead):
            return True
        if self._call is None:
            return self._ident == threading.get_ident() and self._greenlet is _current_greenlet()
        return not any(map(self._may_be_on, self._stacks()))

    def _stacks(self) -> Sequence[FrameType | None]:
        """Return the innermost frames that the request can have now, None for none."""
        if self._greenlet is None or self._greenlet is _current_greenlet():
            return (sys._current_frames().get(self._ident),)
        # A greenlet that runs in another thread has no gr_frame; it may be suspended between these looks.
        return (self._greenlet.gr_frame, sys._current_frames().get(self._ident), self._greenlet.gr_frame)

    def _may_be_on(self, stack: FrameType | None) -> bool:
        """Return whether the application's call is on a stack, or may be."""
        assert self._call is not None
        code, name = self._call
        outermost = stack
        while stack is not None:
            if stack.f_code is code and self._is_marked(stack.f_locals.get(name)):
                return True
            outermost, stack = stack, stack.f_back
        # The other thread runs on: a generator that has yielded meanwhile does not lead to its caller any more.
        return outermost is not None and bool(outermost.f_code.co_flags & _SUSPENDABLE)

    def _is_marked(self, environ: object) -> bool:
        return isinstance(environ, dict) and environ.get(_KEY) is self._mark


def _thread_of_caller() -> int:
    """Return the key of this thread in ``sys._current_frames()``; gevent replaces ``threading.get_ident()``."""
    return next((ident for ident, frame in sys._current_frames().items() if frame is sys._getframe(1)), 0)


def _current_greenlet() -> Any:
    greenlet = sys.modules.get("greenlet")
    return None if greenlet is None else greenlet.getcurrent()


_stays: dict[int, tuple[Holder, _Stay]] = {}  # by the identity of the holder, which lives as long as it is here
_lock = threading.Lock()


def hold(holder: Holder, adapter: object) -> None:
    """Release a holder's claim at the end of its request."""
    with _lock:
        _stays[id(holder)] = (holder, _Stay(adapter))
    if isinstance(adapter, Finishes):
        adapter.at_request_end(partial(give_up, holder))


def let_go(holder: Holder) -> None:
    """Forget a holder that has settled its claim."""
    with _lock:
        _stays.pop(id(holder), None)


def end_abandoned() -> None:
    """Release the claims of this process whose request has ended."""
    if not _stays:
        return
    with _lock:
        ended = [holder for holder, stay in _stays.values() if stay.has_ended()]
        for holder in ended:
            del _stays[id(holder)]  # several requests may come here at the same time
    for holder in ended:
        give_up(holder)


def give_up(holder: Holder) -> None:
    """Release a holder's claim, and log what goes wrong: no caller is there to see it."""
    try:
        holder.abandon()
    except Exception:
        log.exception("the claim of a request that has ended could not be released")
