"""``tus ls``: the uploads of a directory."""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Iterator

from tus.cli import arguments, stored, text
from tus.errors import UploadGone, UploadLocked, UploadNotFound
from tus.models import Upload
from tus.stores import Store

_HEADING = ("ID", "STATE", "OFFSET", "LENGTH", "%", "AGE", "EXPIRES", "NAME")
_RIGHT = (2, 3, 4, 5, 6)  # columns of numbers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``tus ls``."""
    parser.description = _ls.__doc__
    arguments.add_directory(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--unfinished", action="store_true", help="only uploads that wait for bytes")
    which.add_argument("--finished", action="store_true", help="only uploads whose every byte has arrived")
    which.add_argument("--pending", action="store_true", help="only uploads that the application has not accepted yet")
    parser.add_argument("--bytes", action="store_true", help="print exact sizes, in bytes")
    parser.add_argument("--json", action="store_true", help="print a JSON array with an object for each upload")
    parser.set_defaults(run=_ls)


def _ls(options: argparse.Namespace) -> None:
    """List the uploads of a directory, the oldest first."""
    with stored.open_uploads(options) as store:
        _list(options, store)


def _list(options: argparse.Namespace, store: Store) -> None:
    now = time.time()
    order: list[tuple[float, bytes]] = []  # not the uploads themselves, whose metadata can be long
    widths = [len(heading) for heading in _HEADING]
    finished = held = 0
    waiting: Counter[str] = Counter()
    for upload in stored.uploads_in(store):
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
