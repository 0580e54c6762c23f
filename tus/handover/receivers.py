"""Who takes finished uploads in the place of the wrapped application, and which hooks there are, as the options say."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, ref

from tus.errors import UploadGone, UploadNotFound
from tus.handover.attempt import Receiver
from tus.hooks.calling import Hooks
from tus.models import HookType, Response, State, Upload
from tus.options import OnFinished, Options
from tus.stores.interface import Claim, Store

if TYPE_CHECKING:
    from tus.hooks.webhook import Webhook


class _Callable:
    """Calls a function of Python with each finished upload."""

    def __init__(self, function: OnFinished) -> None:
        self._function = function

    def __call__(self, claim: Claim) -> Response:
        returned = self._function(claim.upload)
        if inspect.isawaitable(returned):
            getattr(returned, "close", lambda: None)()
            raise TypeError(
                "on_finished has returned an awaitable, which nobody awaits here; it must do its work itself"
            )
        return Response(204, "No Content")


class _Spooling:
    """Puts each finished upload into a spool."""

    def __init__(self, put: Callable[[Upload, str], None]) -> None:
        self._put = put

    def __call__(self, claim: Claim) -> Response:
        self._put(claim.upload, claim.upload.key)
        return Response(204, "No Content")


def receiver_of(options: Options) -> Receiver | None:
    """Who takes finished uploads, None where that is the application.

    Raises:
        OptionError: the spool does not serve.
    """
    if options.on_finished is not None:
        return _Callable(options.on_finished)
    return _spooling(options.spool, options.tmp_file_dir) if options.spool else None


@lru_cache(maxsize=64)
def _spooling(directory: str, tmp_file_dir: str) -> Receiver:
    from tus.handover.spool import Spool

    spool = Spool(directory)
    spool.check_links_from(tmp_file_dir)
    return _Spooling(spool.put)


_NO_HOOKS = Hooks()
_hooks: WeakKeyDictionary[Store, dict[Options, Hooks]] = WeakKeyDictionary()


def hooks_of(options: Options, store: Store) -> Hooks:
    """The hooks, those in Python first.

    Raises:
        OptionError: the webhook does not serve.
    """
    if not options.has_hooks:
        return _NO_HOOKS
    known = _hooks.setdefault(store, {})
    if options not in known:
        hooks = [options.hooks] if options.hooks is not None else []
        known[options] = Hooks([*hooks, _webhook(options, store)] if options.webhook else hooks)
    return known[options]


def _webhook(options: Options, store: Store) -> Webhook:
    from tus.hooks.webhook import Webhook

    return Webhook(
        options.webhook,
        secret=options.webhook_secret,
        events=options.webhook_events,
        forward_headers=options.webhook_forward_headers,
        directory=os.path.join(options.tmp_file_dir, f".tus-outbox-{os.geteuid()}"),
        has_happened=partial(_has_happened, ref(store)),
    )


def _has_happened(reference: ref[Store], kind: HookType, upload_id: str) -> bool | None:
    """Whether what was queued before it was done is done; None while somebody is at it."""
    store = reference()
    assert store is not None, "it has the outbox"
    try:
        upload = store.load(upload_id)
    except (UploadNotFound, UploadGone):  # it is queued under the claim of a complete upload, so it was accepted
        return True
    if kind == HookType.POST_FINISH:
        return None if upload.state == State.HANDING_OVER else upload.state == State.ACCEPTED
    return kind == HookType.POST_CREATE
