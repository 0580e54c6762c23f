"""``tus download``: a finished upload from a server."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

from tus.cli import client_arguments
from tus.cli.arguments import KeepsLines
from tus.cli.choosing import Chosen
from tus.cli.display import make_display
from tus.http.filenames import safe_filename

_EPILOG = f"""\
Examples:
  tus download https://example.org/files/4f0c
  tus download https://example.org/files/4f0c film.mp4 --overwrite

Until the file is whole, its bytes are in PATH.part. A download that stopped goes on when the same command runs again.

{client_arguments.STATUSES}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``tus download``."""
    parser.description = (
        "Download a file, and compare it with the digest that the server sends. The path of the file goes to stdout."
    )
    parser.epilog = _EPILOG
    parser.formatter_class = KeepsLines
    parser.add_argument("url", metavar="URL", help="the file")
    parser.add_argument(
        "path", metavar="PATH", nargs="?", default=".", help="where it goes; in a directory, it has the server's name"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    client_arguments.add_connection(parser)
    client_arguments.add_display(parser)
    parser.set_defaults(run=_download)


def _download(options: argparse.Namespace) -> int:
    with client_arguments.open_client(options, options.url) as client:
        from tus.cli.transfers import Transfer, Transfers

        path = options.path
        if os.path.isdir(path):
            path = os.path.join(path, _name(client, options.url))

        def receive(transfer: Transfer, on_progress: Callable[[Any], None], control: Any) -> Any:
            return client.download(
                options.url, path, overwrite=options.overwrite, on_progress=on_progress, control=control
            )

        file = Chosen(path, os.path.basename(path), None)
        transfers = Transfers([file], receive, 1, make_display(options), lambda result: str(result.path))
        return transfers.run(options.given)


def _name(client: Any, url: str) -> str:
    """Return a safe name: the one in the upload's metadata, or else the last segment of the URL."""
    from tus.client import ClientError

    try:
        name = client.head(url).metadata.get("filename", b"").decode(errors="replace")
    except ClientError:  # a server may answer GET alone
        name = ""
    return safe_filename(name or unquote(urlsplit(url).path.rstrip("/")), "download")
