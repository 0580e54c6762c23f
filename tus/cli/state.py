"""``tus state``: the uploads of this user that have not finished."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tus.cli import text
from tus.cli.arguments import KeepsLines
from tus.cli.client_arguments import add_state
from tus.errors import TusException

if TYPE_CHECKING:
    from tus.client.records import Records, ResumeRecord

_HEADING = ("SIZE", "AGE", "EXPIRES", "SERVER", "FILE")
_EPILOG = """\
Examples:
  tus state
  tus state --json
  tus state --forget film.mp4
  tus state --prune

The URL of an upload lets anyone write to it, so only --json prints URLs.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``tus state``."""
    parser.description = "List the uploads that have not finished and that this machine remembers, the oldest first."
    parser.epilog = _EPILOG
    parser.formatter_class = KeepsLines
    parser.add_argument("--prune", action="store_true", help="forget the uploads that the servers have removed by now")
    parser.add_argument("--forget", nargs="+", default=[], metavar="FILE", help="forget the uploads of these files")
    parser.add_argument("--json", action="store_true", help="print a JSON array with an object for each upload")
    add_state(parser)
    parser.set_defaults(run=_state)


def _state(options: argparse.Namespace) -> None:
    records = open_state(options)
    if options.prune:
        print(f"{text.count_text(records.prune(), 'upload')} forgotten")
        return
    if options.forget:
        found = [record for target in options.forget for record in find_records(records, target)]
        for record in found:
            for number in range(record.parallel):
                records.forget(f"{record.key}.{number}")
            records.forget(record.key)
        print(f"{text.count_text(len(found), 'upload')} forgotten")
        return
    list_records(records, options.json)


def open_state(options: argparse.Namespace) -> Records:
    """Return the records that the arguments name.

    Raises:
        TusException: a package is missing.
    """
    from tus.client.records import open_records

    return open_records(options.state or "default")


def find_records(records: Records, target: str) -> list[ResumeRecord]:
    """Return the records of a file or of the URL of an upload.

    Raises:
        TusException: there is none.
    """
    path = os.path.realpath(target)
    found = [record for record in unfinished(records) if target == record.url or path == record.path]
    if not found:
        raise TusException(f"{text.printable(target)}: no unfinished upload of it is remembered; see tus state")
    return found


def unfinished(records: Records) -> list[ResumeRecord]:
    """Return the records of files, without those of their parts and of complete ones."""
    from tus.cli.finished import PREFIX

    found = (record for record in records.all() if record.path and not record.is_part)
    return [record for record in found if not record.key.startswith(PREFIX)]


def list_records(records: Records, as_json: bool = False) -> None:
    """Print the uploads that have not finished."""
    found = unfinished(records)
    if as_json:
        for line in text.json_array(json_of(record) for record in found):
            print(line)
        return
    if not found:
        print("no unfinished uploads")
        return
    now = time.time()
    rows = [_HEADING, *(_row(record, now) for record in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADING) - 1)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip())


def json_of(record: ResumeRecord) -> dict[str, object]:
    """Return a record as JSON values. New names may be added, but names never change."""
    return {
        "file": record.path or None,
        "size": record.size,
        "url": record.url or None,
        "parts": list(record.parts),
        "endpoint": record.endpoint,
        "protocol": record.protocol,
        "created_at": text.iso_text(record.created_at),
        "expires_at": text.iso_text(record.expires_at),
    }


def _row(record: ResumeRecord, now: float) -> Sequence[str]:
    return (
        text.size_text(record.size),
        text.duration_text(now - record.created_at),
        text.duration_text(record.expires_at - now),
        text.printable(record.endpoint),
        text.printable(record.path),
    )
