"""``tus ls`` and ``tus show``: the uploads of a directory."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tus.cli import arguments, text
from tus.errors import TusException, UploadGone, UploadLocked, UploadNotFound
from tus.models import TUS, State, Upload
from tus.stores import Store

_HEADING = ("ID", "STATE", "OFFSET", "LENGTH", "%", "AGE", "EXPIRES", "NAME")
_RIGHT = (2, 3, 4, 5, 6)  # columns of numbers


def add_commands(commands: Any) -> None:
    """Add ``ls`` and ``show`` to the subparsers of the command line."""
    ls: argparse.ArgumentParser = commands.add_parser(
        "ls", help="list the uploads of a directory", description=_ls.__doc__
    )
    arguments.add_directory(ls)
    which = ls.add_mutually_exclusive_group()
    which.add_argument("--unfinished", action="store_true", help="only uploads that wait for bytes")
    which.add_argument("--finished", action="store_true", help="only uploads whose every byte has arrived")
    which.add_argument("--pending", action="store_true", help="only uploads that the application has not accepted yet")
    ls.add_argument("--bytes", action="store_true", help="print exact sizes, in bytes")
    ls.add_argument("--json", action="store_true", help="print a JSON array with an object for each upload")
    ls.set_defaults(run=_ls)

    show: argparse.ArgumentParser = commands.add_parser(
        "show", help="print everything about one upload", description=_show.__doc__
    )
    show.add_argument("id", metavar="ID", help="the upload's id, or its beginning")
    arguments.add_directory_option(show)
    show.add_argument("--json", action="store_true", help="print the same JSON object as tus ls --json")
    show.set_defaults(run=_show)


def _ls(options: argparse.Namespace) -> None:
    """List the uploads of a directory, the oldest first."""
    with arguments.open_uploads(options) as store:
        _list(options, store)


def _list(options: argparse.Namespace, store: Store) -> None:
    now = time.time()
    order: list[tuple[float, bytes]] = []  # not the uploads themselves, whose metadata can be long
    widths = [len(heading) for heading in _HEADING]
    finished = held = 0
    waiting: Counter[str] = Counter()
    for upload in arguments.uploads_in(store):
        if not _is_wanted(upload, options):
            continue
        order.append((upload.created_at, bytes.fromhex(upload.id)))
        finished += upload.is_complete
        held += _held_bytes(upload)
        if upload.is_pending and upload.service is not None:
            waiting[upload.service] += 1
        if not options.json:
            widths = list(map(max, widths, map(len, _row(upload, now, options.bytes))))
    uploads = _in_order(store, sorted(order))
    if options.json:
        for line in text.json_array(text.as_json(upload, now) for upload in uploads):
            print(line)
        return
    if not order:
        kinds = [f"{kind} " for kind in ("unfinished", "finished", "pending") if getattr(options, kind)]
        print(f"no {''.join(kinds)}uploads in {text.printable(options.dir)}")
        return
    _print_row(_HEADING, widths)
    for upload in uploads:
        _print_row(_row(upload, now, options.bytes), widths)
    for service, number in sorted(waiting.items()):
        verb = "waits" if number == 1 else "wait"
        print(f"{text.count_text(number, 'upload')} {verb} for {text.service_text(service)}")
    size = f"{held} bytes" if options.bytes else text.size_text(held)
    unfinished = len(order) - finished
    print(f"{text.count_text(len(order), 'upload')}, {unfinished} unfinished and {finished} finished, holding {size}")


def _is_wanted(upload: Upload, options: argparse.Namespace) -> bool:
    if options.pending:
        return upload.is_pending
    return not (upload.is_complete if options.unfinished else options.finished and not upload.is_complete)


def _in_order(store: Store, order: list[tuple[float, bytes]]) -> Iterator[Upload]:
    for _, upload_id in order:
        try:
            yield store.load(upload_id.hex())
        except (UploadNotFound, UploadGone, UploadLocked, OSError):
            continue  # a running server has removed or locked it


def _held_bytes(upload: Upload) -> int:
    try:
        return os.lstat(upload.path).st_size if upload.path else upload.offset
    except OSError:
        return 0


def _row(upload: Upload, now: float, exact: bool) -> tuple[str, ...]:
    size_text = str if exact else text.size_text
    return (
        upload.id,
        text.state_text(upload),
        size_text(upload.offset),
        "?" if upload.length is None else size_text(upload.length),
        text.percent_text(upload),
        text.duration_text(now - upload.created_at),
        text.expiry_text(upload, now),
        text.printable(text.name_of(upload)),
    )


def _print_row(row: tuple[str, ...], widths: list[int]) -> None:
    cells = [
        cell.rjust(width) if column in _RIGHT else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row[:-1], widths, strict=False))
    ]
    print("  ".join([*cells, row[-1]]).rstrip())


def _show(options: argparse.Namespace) -> None:
    """Print everything about one upload."""
    with arguments.open_uploads(options) as store:
        _print(options, _load(options, store))


def _load(options: argparse.Namespace, store: Store) -> Upload:
    try:
        return store.load(arguments.complete_id(store, options.id))
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
    yield "offset", _exactly(upload.offset)
    yield "length", "not known yet" if upload.length is None else _exactly(upload.length)
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


def _exactly(size: int) -> str:
    return f"{size} bytes" if size < 1024 else f"{size} bytes ({text.size_text(size)})"
