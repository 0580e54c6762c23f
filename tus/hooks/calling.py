"""The caller of a server's hooks: methods of Python objects, and events that are posted to an endpoint."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from tus.errors import HookUnavailable, RequestError
from tus.models import HookEvent, HookReply, HookType, Request, Response, Upload

log = logging.getLogger(__name__)


@runtime_checkable
class Durable(Protocol):
    """Hooks that get their events from a queue that survives the process."""

    def queue(self, event: HookEvent) -> None:
        """Record an event before its change happens."""

    def unqueue(self, event: HookEvent) -> None:
        """Forget a queued event, because its change does not happen."""

    def deliver(self, event: HookEvent) -> None:
        """Deliver a queued event, because its change has happened."""

    def start(self) -> None:
        """Deliver in background threads from now on, first the events that an earlier process left."""

    def stop(self) -> None:
        """End the background threads; the events stay."""

    def flush(self, retry_aside: bool = False) -> int:
        """Deliver the events that are due now, and return the number of events that are left."""


class Hooks:
    """All hooks of a server, called one after the other.

    Args:
        objects: each has some of the methods ``pre_create`` and so on. They get a
            :class:`~tus.models.HookEvent` and return a :class:`~tus.models.HookReply` or None.
    """

    def __init__(self, objects: Sequence[object] = ()) -> None:
        self._objects = tuple(objects)

    def __bool__(self) -> bool:
        return bool(self._objects)

    def ask(self, kind: HookType, upload: Upload, request: Request | None) -> HookReply | None:
        """Ask the hooks, and return their merged reply; after a reply that rejects or stops, no other hook is asked.

        Raises:
            RequestError: a hook raised it.
            HookUnavailable: a hook raised another exception; the client may retry.
        """
        event = _make_event(kind, upload, request)
        merged: HookReply | None = None
        for hooks in self._objects:
            method = getattr(hooks, kind.method, None)
            if method is None:
                continue
            try:
                reply: HookReply | None = method(event)
                if reply is not None and not isinstance(reply, HookReply):
                    raise TypeError(f"a hook must return a HookReply or None, not {type(reply).__name__}")
            except RequestError:
                raise
            except Exception:
                log.exception("the hook %s failed", kind)
                raise HookUnavailable() from None
            if reply is None:
                continue
            merged = reply if merged is None else _merge(merged, reply)
            if reply.reject or reply.stop:
                return reply
        return merged

    def queue(self, kind: HookType, upload: Upload, request: Request | None) -> None:
        """Record an event in the durable hooks before its change happens."""
        for hooks in self._objects:
            if isinstance(hooks, Durable):
                hooks.queue(_make_event(kind, upload, request))

    def unqueue(self, kind: HookType, upload: Upload, request: Request | None) -> None:
        """Remove a recorded event from the durable hooks, because its change does not happen."""
        for hooks in self._objects:
            if isinstance(hooks, Durable):
                hooks.unqueue(_make_event(kind, upload, request))

    def start(self) -> None:
        """Start the background delivery of the durable hooks in this process. Cheap once it runs."""
        for hooks in self._objects:
            if isinstance(hooks, Durable):
                hooks.start()

    def stop(self) -> None:
        """End the background delivery of the durable hooks in this process."""
        for hooks in self._objects:
            if isinstance(hooks, Durable):
                hooks.stop()

    def flush(self, retry_aside: bool = False) -> int:
        """Deliver the events that are due in the durable hooks, and return the number of events that are left.

        Args:
            retry_aside: whether to retry the events that were set aside.
        """
        return sum(hooks.flush(retry_aside) for hooks in self._objects if isinstance(hooks, Durable))

    def notify(self, kind: HookType, upload: Upload, request: Request | None) -> None:
        """Notify the hooks of a change that has happened. An exception of a hook is logged, and changes nothing."""
        event = _make_event(kind, upload, request)
        for hooks in self._objects:
            try:
                if isinstance(hooks, Durable):
                    hooks.deliver(event)
                else:
                    getattr(hooks, kind.method, _ignore)(event)
            except Exception:
                log.exception("the hook %s failed", kind)


def _ignore(event: HookEvent) -> None:
    """Do nothing, in the place of a method that an object of hooks does not have."""


def _make_event(kind: HookType, upload: Upload, request: Request | None) -> HookEvent:
    if not upload.id:
        event_id = secrets.token_hex(16)
    elif kind == HookType.POST_RECEIVE:
        event_id = f"{upload.key}-{kind}-{upload.offset}"
    else:
        event_id = f"{upload.key}-{kind}"
    return HookEvent(kind, event_id, upload, request)


def _merge(first: HookReply, second: HookReply) -> HookReply:
    """Merge the replies of two hooks; where they differ the second one wins."""
    response = second.response or first.response
    if first.response is not None and second.response is not None:
        headers = first.response.headers + second.response.headers
        response = Response(second.response.status, second.response.reason, headers, second.response.body)
    return replace(
        second,
        response=response,
        metadata=first.metadata if second.metadata is None else second.metadata,
        id=second.id or first.id,
        name=second.name or first.name,
    )
