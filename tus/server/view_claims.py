"""Claims that views hold: each ends with its request, even if the view raised or never settled it.

The documented form, ``with Tus(...)``, needs none of this. A view without it may raise. Its framework may then keep the
exception alive, and the claim with it. So a claim that a view holds also ends:

- when nothing else refers to its holder, because the view has returned;
- when the framework reports the end of the request, if the adapter can be notified (Pyramid);
- when the thread has left the call of the application in which the claim was made. PEP 3333 passes the environ to that
  call, so the environ gets a mark, and the check searches the thread's stack for a call with a marked argument. The
  check does not work for a generator, which leaves the stack between its blocks, or an adapter without an environ.

The check runs when a request begins, never in the garbage collector. Without evidence of the end, the claim stays: the
file must not be offered again while the application works on it.

An application may accept or reject the file after that, from a response that is produced later. That still counts if no
other request has claimed the file.
"""

from __future__ import annotations

import inspect
import logging
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import CodeType, FrameType
from typing import Any, Protocol, runtime_checkable

log = logging.getLogger(__name__)


class Holder(Protocol):
    """The holder of a claim, until the application has accepted or rejected the file."""

    def abandon(self) -> None:
        """Release the claim."""


@runtime_checkable
class Finishes(Protocol):
    """An adapter whose framework reports the end of the request."""

    def at_request_end(self, callback: Callable[[], None]) -> bool:
        """Register a function to call at the end of the request; return whether it will be called."""


_SUSPENDABLE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_KEY = "tus.call_site"


class _CallSite:
    """The place where a holder's request runs: its thread, greenlet and call.

    It has no reference to a frame, because a frame keeps its variables alive, and the holder may be one of them.

    Args:
        adapter: the request. If it has an ``environ``, that is searched for on the stack.
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
                # Only usual names, because in Python 3.12 reading a variable keeps it alive as long as the frame.
                if name.startswith("env") and frame.f_locals.get(name) is environ:
                    self._call = None if code.co_flags & _SUSPENDABLE else (code, name)
            frame = frame.f_back

    def has_ended(self) -> bool:
        """Return whether the application has returned from its call, as far as that is known."""
        if self._call is None:
            return False  # even after the thread has ended: another thread may work on the file
        if not self._thread.is_alive() or (self._greenlet is not None and self._greenlet.dead):
            return True
        return not any(map(self._may_be_on, self._stacks()))

    def _stacks(self) -> Sequence[FrameType | None]:
        """Return the innermost frames that the request may have now; an item may be None."""
        if self._greenlet is None or self._greenlet is _current_greenlet():
            return (sys._current_frames().get(self._ident),)
        # A greenlet that runs in another thread has no gr_frame, and may be suspended between these reads.
        return (self._greenlet.gr_frame, sys._current_frames().get(self._ident), self._greenlet.gr_frame)

    def _may_be_on(self, stack: FrameType | None) -> bool:
        """Return whether the application's call is, or may be, on a stack."""
        assert self._call is not None
        code, name = self._call
        outermost = stack
        while stack is not None:
            if stack.f_code is code and self._is_marked(stack.f_locals.get(name)):
                return True
            outermost, stack = stack, stack.f_back
        # The other thread keeps running: a generator that has yielded meanwhile no longer leads to its caller.
        return outermost is not None and bool(outermost.f_code.co_flags & _SUSPENDABLE)

    def _is_marked(self, environ: object) -> bool:
        return isinstance(environ, dict) and environ.get(_KEY) is self._mark


def _thread_of_caller() -> int:
    """Return the key of this thread in ``sys._current_frames()``; gevent replaces ``threading.get_ident()``."""
    return next((ident for ident, frame in sys._current_frames().items() if frame is sys._getframe(1)), 0)


def _current_greenlet() -> Any:
    greenlet = sys.modules.get("greenlet")
    return None if greenlet is None else greenlet.getcurrent()


#: By ``id(holder)``, which is unique because the dictionary keeps the holder.
_held: dict[int, tuple[Holder, _CallSite]] = {}
_lock = threading.Lock()


def _references(held: Mapping[int, tuple[object, object]], key: int) -> int:
    """Return the number of references to a holder, as this interpreter counts them in this function."""
    holder = held[key][0]
    return sys.getrefcount(holder)


#: References to a holder that nothing else refers to. Measured, because not every Python counts those of the function.
_OURS = _references({0: (object(), None)}, 0)


def hold(holder: Holder, adapter: object) -> None:
    """Remember a holder, to release its claim at the end of its request."""
    with _lock:
        _held[id(holder)] = (holder, _CallSite(adapter))
    if isinstance(adapter, Finishes):
        adapter.at_request_end(partial(give_up, holder))


def let_go(holder: Holder) -> bool:
    """Forget a holder that settles its claim; return False if another thread has released the claim before."""
    with _lock:
        return _held.pop(id(holder), None) is not None


def end_abandoned() -> None:
    """Release the claims in this process whose requests have ended."""
    if not _held:
        return
    with _lock:
        ended = [key for key in _held if _references(_held, key) <= _OURS or _held[key][1].has_ended()]
        # Under the lock, because several requests may do this at the same time.
        holders = [_held.pop(key)[0] for key in ended]
    for holder in holders:
        give_up(holder)


def give_up(holder: Holder) -> None:
    """Release a holder's claim; log an exception, because no caller could handle it."""
    try:
        holder.abandon()
    except Exception:
        log.exception("the claim of a request that has ended could not be released")
