"""Calls the hooks of a server: those of an object in Python, and those that are posted somewhere."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from tus.errors import RequestError, StorageUnavailable
from tus.models import HookEvent, HookReply, HookType, Request, Response, Upload

log = logging.getLogger(__name__)


@runtime_checkable
class Durable(Protocol):
    """Hooks that are told from a queue that survives the process."""

    def queue(self, event: HookEvent) -> None:
        """Take an event down, before what it tells has happened."""

    def unqueue(self, event: HookEvent) -> None:
        """Forget an event that was queued, because it does not happen."""

    def told(self, event: HookEvent) -> None:
        """An event that was queued has happened: deliver it."""

    def start(self) -> None:
        """Deliver beside the requests from now on, first of all what an earlier process has left."""

    def flush(self, retry_aside: bool = False) -> int:
        """Deliver now what is due; returns how many events are left."""


class Hooks:
    """All hooks of a server, asked and told one after the other.

    Args:
        objects: each has methods named ``pre_create`` and so on, those that it cares for. They get a
            :class:`~tus.models.HookEvent` and return a :class:`~tus.models.HookReply` or None.
    """

    def __init__(self, objects: Sequence[object] = ()) -> None:
        self._objects = tuple(objects)

    def __bool__(self) -> bool:
        return bool(self._objects)

    def ask(self, kind: HookType, upload: Upload, request: Request | None) -> HookReply | None:
        """What the hooks say together; the first that refuses has the last word.

        Raises:
            RequestError: what a hook has raised; of any other exception the client hears that it may try again.
        """
        event = _event(kind, upload, request)
        said: HookReply | None = None
        for hooks in self._objects:
            method = getattr(hooks, kind.method, None)
            if method is None:
                continue
            try:
                reply: HookReply | None = method(event)
            except RequestError:
                raise
            except Exception:
                log.exception("the hook %s failed", kind)
                raise StorageUnavailable() from None
            if reply is None:
                continue
            said = reply if said is None else _both(said, reply)
            if reply.reject or reply.stop:
                return reply
        return said

    def queue(self, kind: HookType, upload: Upload, request: Request | None) -> None:
        """Have the durable hooks know what is about to happen."""
        for hooks in self._objects:
            if isinstance(hooks, Durable):
                hooks.queue(_event(kind, upload, request))

    def unqueue(self, kind: HookType, upload: Upload, request: Request | None) -> None:
        """Have the durable hooks know that it does not happen."""
        for hooks in self._objects:
            if isinstance(hooks, Durable):
                hooks.unqueue(_event(kind, upload, request))

    def start(self) -> None:
        """Have the durable hooks deliver beside the requests of this process. Cheap where they do."""
        for hooks in self._objects:
            if isinstance(hooks, Durable):
                hooks.start()

    def flush(self, retry_aside: bool = False) -> int:
        """Have the durable hooks deliver now what is due; returns how many events are left.

        Args:
            retry_aside: whether to try again what was put aside.
        """
        return sum(hooks.flush(retry_aside) for hooks in self._objects if isinstance(hooks, Durable))

    def tell(self, kind: HookType, upload: Upload, request: Request | None) -> None:
        """Tell what has happened. What a hook raises is logged, and changes nothing."""
        event = _event(kind, upload, request)
        for hooks in self._objects:
            try:
                if isinstance(hooks, Durable):
                    hooks.told(event)
                else:
                    getattr(hooks, kind.method, _ignore)(event)
            except Exception:
                log.exception("the hook %s failed", kind)


def _ignore(event: HookEvent) -> None:
    """What a hook does that nobody has written."""


def _event(kind: HookType, upload: Upload, request: Request | None) -> HookEvent:
    if not upload.id:
        event_id = secrets.token_hex(16)
    elif kind == HookType.POST_RECEIVE:
        event_id = f"{upload.key}-{kind}-{upload.offset}"
    else:
        event_id = f"{upload.key}-{kind}"
    return HookEvent(kind, event_id, upload, request)


def _both(first: HookReply, second: HookReply) -> HookReply:
    """What two hooks want, the second one's where they differ."""
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
