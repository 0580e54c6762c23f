"""``tus rm``: the removal of uploads."""

from __future__ import annotations

import argparse
import sys

from tus.cli import arguments, stored, text
from tus.errors import TusException, UploadGone, UploadLocked, UploadNotFound
from tus.stores import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``tus rm``."""
    parser.description = _remove.__doc__
    parser.add_argument("ids", metavar="ID", nargs="+", help="an upload's id, or its beginning")
    arguments.add_directory_option(parser)
    parser.set_defaults(run=_remove)


def _remove(options: argparse.Namespace) -> int:
    """Remove uploads and all their data, finished ones too. Their clients must start again."""
    failed = 0
    with stored.open_uploads(options) as store:
        for given in options.ids:
            problem = _remove_one(store, given)
            if problem:
                failed = 1
                print(f"tus: {text.printable(given)}: {problem}", file=sys.stderr)
    return failed


def _remove_one(store: Store, given: str) -> str:
    """Remove an upload; return the problem if it fails, and otherwise an empty text."""
    try:
        upload_id = stored.complete_id(store, given)
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
