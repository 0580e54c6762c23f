"""``tus rm`` and ``tus clean``: the removal of uploads."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from tus.cli import arguments, text
from tus.errors import OptionError, SweepIncomplete, TusException, UploadGone, UploadLocked, UploadNotFound
from tus.stores import Store
from tus.stores.directory.fsck import check as fsck
from tus.stores.directory.fsck.place import Place
from tus.stores.interface import Expires


def add_commands(commands: Any) -> None:
    """Add ``rm`` and ``clean`` to the subparsers of the command line."""
    remove: argparse.ArgumentParser = commands.add_parser("rm", help="remove uploads", description=_remove.__doc__)
    remove.add_argument("ids", metavar="ID", nargs="+", help="an upload's id, or its beginning")
    arguments.add_directory_option(remove)
    remove.set_defaults(run=_remove)

    clean: argparse.ArgumentParser = commands.add_parser(
        "clean", help="remove expired uploads", description=_clean.__doc__
    )
    arguments.add_directory(clean)
    clean.add_argument(
        "--dry-run", action="store_true", help="print the uploads that would be removed, and remove nothing"
    )
    clean.set_defaults(run=_clean)


def _remove(options: argparse.Namespace) -> int:
    """Remove uploads and all their data, finished ones too. Their clients must start again."""
    failed = 0
    with arguments.open_uploads(options) as store:
        for given in options.ids:
            problem = _remove_one(store, given)
            if problem:
                failed = 1
                print(f"tus: {text.printable(given)}: {problem}", file=sys.stderr)
    return failed


def _remove_one(store: Store, given: str) -> str:
    """Remove an upload; return the problem if it fails, and otherwise an empty text."""
    try:
        upload_id = arguments.complete_id(store, given)
        store.remove(upload_id)
    except UploadNotFound:
        return "there is no upload with this id"
    except UploadLocked:
        return "it is being handed over to the application or concatenated at the moment; try again later"
    except UploadGone as error:
        return f"{error} Run tus fsck for details"
    except TusException as error:
        return str(error)
    except OSError as error:
        return f"the system refused: {error.strerror}"
    print(f"{upload_id} removed")
    return ""


def _clean(options: argparse.Namespace) -> int:
    """Remove the expired uploads of a directory, and the records whose time is over."""
    with arguments.open_uploads(options) as store:
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
    for upload in fsck.expired(Place(arguments.find_directory(options.dir), arguments.ownership_of(options))):
        name = text.printable(text.name_of(upload))
        print(f"{upload.id}  {text.state_text(upload)}, {text.size_text(upload.offset)}{name and '  ' + name}")
        count += 1
        size += upload.offset if not upload.is_complete or upload.is_partial else 0
    print(f"{count} would be removed, holding {text.size_text(size)}")
    return 0
