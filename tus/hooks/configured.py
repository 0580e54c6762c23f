"""The hooks that are configured by options."""

from __future__ import annotations

import os
from functools import partial

from tus.errors import UploadGone, UploadNotFound
from tus.filesystem.ownership import Ownership
from tus.hooks.calling import Hooks
from tus.hooks.webhook import Webhook
from tus.models import HookType, State
from tus.options import Options
from tus.stores.interface import Store

NO_HOOKS = Hooks()


def hooks_of(options: Options, store: Store) -> Hooks:
    """Return the hooks of the options, Python hooks before the webhook.

    Raises:
        OptionError: the secret of the webhook is invalid.
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
        directory=os.path.join(options.tmp_file_dir, ".tus-outbox"),
        has_happened=partial(_has_happened, store),
        timeout=options.webhook_timeout,
        threads=options.webhook_threads,
        ownership=Ownership(options.trusted_group),
    )


def _has_happened(store: Store, kind: HookType, upload_id: str, key: str) -> bool | None:
    """Return whether the change of a queued event has happened; None while that is undecided."""
    try:
        upload = store.load(upload_id)
    except (UploadNotFound, UploadGone):  # queued under the claim of a complete upload, which was therefore accepted
        return True
    if upload.key != key:  # a later upload has the id, so this one is gone
        return True
    if kind == HookType.POST_FINISH:
        return None if upload.state == State.HANDING_OVER else upload.state == State.ACCEPTED
    return kind == HookType.POST_CREATE
