"""``tus clean``: the removal of expired uploads."""

from __future__ import annotations

import argparse
import sys

from tus.cli import arguments, stored, text
from tus.errors import OptionError, SweepIncomplete, TusException
from tus.stores.directory.fsck import check as fsck
from tus.stores.directory.fsck.place import Place
from tus.stores.interface import Expires


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``tus clean``."""
    parser.description = _clean.__doc__
    arguments.add_directory(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="print the uploads that would be removed, and remove nothing"
    )
    parser.set_defaults(run=_clean)


def _clean(options: argparse.Namespace) -> int:
    """Remove the expired uploads of a directory, and the records whose time is over."""
    with stored.open_uploads(options) as store:
        if options.dry_run:
            return _list_expired(options)
        if not isinstance(store, Expires):
            raise TusException("the uploads of this store do not expire")
        return _sweep(store)


def _sweep(store: Expires) -> int:
    try:
        removed, failure = store.sweep(), None
    except SweepIncomplete as error:
        removed, failure = error.removed, error
    print(f"{removed} removed")
    if failure is not None:
        print(f"tus: {failure}", file=sys.stderr)
    return 0 if failure is None else 1


def _list_expired(options: argparse.Namespace) -> int:
    if arguments.is_store_url(options.dir):
        raise OptionError("--dry-run", "works only with a directory")
    count = size = 0
    for upload in fsck.expired(Place(stored.find_directory(options.dir), stored.ownership_of(options))):
        name = text.printable(text.name_of(upload))
        print(f"{upload.id}  {text.state_text(upload)}, {text.size_text(upload.offset)}{name and '  ' + name}")
        count += 1
        size += upload.offset if not upload.is_complete or upload.is_partial else 0
    print(f"{count} would be removed, holding {text.size_text(size)}")
    return 0
