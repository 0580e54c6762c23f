"""``tus rm``: the removal of uploads, from a directory of this machine or from a server."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tus.cli import arguments, client_arguments, text
from tus.errors import TusException, UploadGone, UploadLocked, UploadNotFound

if TYPE_CHECKING:
    from tus.stores import Store

_EPILOG = """\
Examples:
  tus rm 5cc9 e81f --dir /srv/uploads
  tus rm https://example.org/files/4f0c --bearer-env TOKEN

The exit status is 0 on success, 4 if a server refuses, and 1 after another failure.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``tus rm``."""
    parser.description = "Remove uploads and all their data, finished ones too. Their clients must start again."
    parser.epilog = _EPILOG
    parser.formatter_class = arguments.KeepsLines
    parser.add_argument(
        "uploads",
        metavar="UPLOAD",
        nargs="+",
        help="an upload's id or its beginning, in the directory; or the URL of an upload, at its server",
    )
    arguments.add_directory_option(parser)
    client_arguments.add_connection(parser)
    parser.set_defaults(run=_remove)


def _remove(options: argparse.Namespace) -> int:
    urls = [given for given in options.uploads if given.startswith(("http://", "https://"))]
    ids = [given for given in options.uploads if given not in urls]
    statuses = {_delete(options, url) for url in urls}
    if ids:
        statuses.add(_remove_stored(options, ids))
    statuses.discard(0)
    return 1 if len(statuses) > 1 else max(statuses, default=0)


def _delete(options: argparse.Namespace, url: str) -> int:
    """Remove an upload at its server, and return the exit status."""
    with client_arguments.open_client(options, url) as client:
        from tus.client import ClientError

        try:
            client.delete(url)
        except ClientError as error:
            print(f"tus: {text.printable(url)}: {client_arguments.message_of(error)}", file=sys.stderr)
            return client_arguments.status_of(error)
    print(f"{text.printable(url)} removed")
    return 0


def _remove_stored(options: argparse.Namespace, ids: Sequence[str]) -> int:
    """Remove uploads in a directory, and return the exit status."""
    from tus.cli import stored  # which needs a POSIX system

    failed = 0
    with stored.open_uploads(options) as store:
        for given in ids:
            problem = _remove_one(store, given)
            if problem:
                failed = 1
                print(f"tus: {text.printable(given)}: {problem}", file=sys.stderr)
    return failed


def _remove_one(store: Store, given: str) -> str:
    """Remove an upload; return the problem if it fails, and otherwise an empty text."""
    from tus.cli import stored

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
