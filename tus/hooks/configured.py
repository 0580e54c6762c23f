"""The hooks that the options name."""

from __future__ import annotations

import os
from functools import partial

from tus.errors import UploadGone, UploadNotFound
from tus.hooks.calling import Hooks
from tus.hooks.webhook import Webhook
from tus.models import HookType, State
from tus.options import Options
from tus.stores.interface import Store

NO_HOOKS = Hooks()


def hooks_of(options: Options, store: Store) -> Hooks:
    """Return the hooks of the options, those in Python first.

    Raises:
        OptionError: the webhook cannot be used.
    """
    if not options.has_hooks:
        return NO_HOOKS
    hooks: list[object] = [options.hooks] if options.hooks is not None else []
    if options.webhook:
        hooks.append(_webhook(options, store))
    return Hooks(hooks)


def _webhook(options: Options, store: Store) -> Webhook:
    return Webhook(
        options.webhook,
        secret=options.webhook_secret,
        events=options.webhook_events,
        forward_headers=options.webhook_forward_headers,
        directory=os.path.join(options.tmp_file_dir, f".tus-outbox-{os.geteuid()}"),
        has_happened=partial(_has_happened, store),
    )


def _has_happened(store: Store, kind: HookType, upload_id: str) -> bool | None:
    """Return whether what was queued beforehand has happened; None while that is open."""
    try:
        upload = store.load(upload_id)
    except (UploadNotFound, UploadGone):  # it was queued under the claim of a complete upload, so it was accepted
        return True
    if kind == HookType.POST_FINISH:
        return None if upload.state == State.HANDING_OVER else upload.state == State.ACCEPTED
    return kind == HookType.POST_CREATE
