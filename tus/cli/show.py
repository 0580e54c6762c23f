"""``tus show``: everything about one upload."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator

from tus.cli import arguments, stored, text
from tus.errors import TusException, UploadGone, UploadLocked, UploadNotFound
from tus.models import TUS, State, Upload
from tus.stores import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``tus show``."""
    parser.description = _show.__doc__
    parser.add_argument("id", metavar="ID", help="the upload's id, or its beginning")
    arguments.add_directory_option(parser)
    parser.add_argument("--json", action="store_true", help="print the same JSON object as tus ls --json")
    parser.set_defaults(run=_show)


def _show(options: argparse.Namespace) -> None:
    """Print everything about one upload."""
    with stored.open_uploads(options) as store:
        _print(options, _load(options, store))


def _load(options: argparse.Namespace, store: Store) -> Upload:
    try:
        return store.load(stored.complete_id(store, options.id))
    except UploadNotFound:
        raise TusException(f"{text.printable(options.id)}: there is no upload with this id") from None
    except UploadLocked:
        raise TusException(
            f"{text.printable(options.id)}: an application is receiving it at the moment; try again"
        ) from None
    except UploadGone as error:
        problem = f"it cannot be continued, and clients get this error: {error} Run tus fsck for details"
        raise TusException(f"{text.printable(options.id)}: {problem}") from None
    except TusException as error:
        raise TusException(f"{text.printable(options.id)}: {error}") from None


def _print(options: argparse.Namespace, upload: Upload) -> None:
    now = time.time()
    if options.json:
        print(json.dumps(text.as_json(upload, now), indent=2))
        return
    for name, value in _describe(upload, now):
        print(f"{name + ':' if name else '':11} {value}")


def _describe(upload: Upload, now: float) -> Iterator[tuple[str, str]]:
    yield "id", upload.id
    yield "state", text.state_text(upload)
    if name := text.name_of(upload):
        yield "name", text.printable(name)
    yield "offset", text.exact_size_text(upload.offset)
    yield "length", "not known yet" if upload.length is None else text.exact_size_text(upload.length)
    yield "received", text.percent_text(upload)
    yield "created", f"{text.iso_text(upload.created_at)}, {text.duration_text(now - upload.created_at)} ago"
    expiry = text.expiry_text(upload, now)
    if expiry in ("never", "expired"):
        yield "expires", "has expired; the next sweep removes it" if expiry == "expired" else "never"
    else:
        yield "expires", f"{text.iso_text(upload.expires_at)}, in {expiry}"
    if upload.is_complete and not upload.is_partial:
        yield from _describe_hand_over(upload, now)
    if upload.protocol != TUS:
        yield "protocol", upload.protocol
    if upload.principal is not None:
        yield "principal", text.printable(upload.principal)
    for number, (key, value) in enumerate(text.metadata_of(upload).items()):
        yield "" if number else "metadata", f"{text.printable(key)} = {text.printable(value)}"
    for name, digest in upload.digests:
        yield name, digest.hex()
    for number, part in enumerate(upload.parts):
        yield "" if number else "parts", part
    if upload.path is not None:
        kept = os.path.lexists(upload.path)
        gone = "the application has it" if upload.state == State.ACCEPTED else "missing"
        yield "data", text.printable(upload.path) if kept else gone


def _describe_hand_over(upload: Upload, now: float) -> Iterator[tuple[str, str]]:
    if upload.since:
        yield "since", f"{text.iso_text(upload.since)}, {text.duration_text(now - upload.since)} ago"
    if upload.service is not None:
        yield "service", text.printable(upload.service) or "without a name"
    attempts = str(upload.attempts or "none")
    yield "attempts", attempts + ("" if not upload.is_pending or upload.is_known else "; no client knows its URL")
    if upload.error:
        yield "error", text.printable(upload.error)
    if upload.answer is not None:
        yield "answer", f"{upload.answer.status} {text.printable(upload.answer.reason)}"
    yield "key", upload.key
