"""``tus info``: an upload as its server describes it."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tus.cli import client_arguments, text
from tus.cli.arguments import KeepsLines

if TYPE_CHECKING:
    from tus.client import UploadInfo

_EPILOG = """\
Examples:
  tus info https://example.org/files/4f0c
  tus info https://example.org/files/4f0c --json

The exit status is 0, 4 if the server refuses or has no such upload, and 1 after another failure.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``tus info``."""
    parser.description = "Print what a server says about an upload."
    parser.epilog = _EPILOG
    parser.formatter_class = KeepsLines
    parser.add_argument("url", metavar="URL", help="the upload")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    client_arguments.add_connection(parser)
    parser.set_defaults(run=_info)


def _info(options: argparse.Namespace) -> int:
    with client_arguments.open_client(options, options.url) as client:
        from tus.client import ClientError

        try:
            info = client.head(options.url)
        except ClientError as error:
            return client_arguments.print_error(error)
    if options.json:
        print(json.dumps(_as_json(info)))
    else:
        for name, value in _describe(info):
            print(f"{name + ':' if name else '':<11} {value}")
    return 0


def _as_json(info: UploadInfo) -> dict[str, object]:
    return {
        "url": info.url,
        "offset": info.offset,
        "length": info.length,
        "is_complete": info.is_complete,
        "concat": info.concat or None,
        "expires_at": text.iso_text(info.expires_at),
        "metadata": {key: value.decode(errors="replace") for key, value in info.metadata.items()},
    }


def _describe(info: UploadInfo) -> Iterator[tuple[str, str]]:
    yield "url", text.printable(info.url)
    yield "state", ("complete" if info.is_complete else "unfinished") + (f", {info.concat}" if info.concat else "")
    yield "offset", text.exact_size_text(info.offset)
    yield "length", "not known yet" if info.length is None else text.exact_size_text(info.length)
    if info.length:
        yield "received", f"{100 * info.offset // info.length}%"
    if info.expires_at is not None:
        left = info.expires_at - time.time()
        yield "expires", f"{text.iso_text(info.expires_at)}, in {text.duration_text(left)}"
    for number, (key, value) in enumerate(info.metadata.items()):
        shown = text.printable(value.decode(errors="replace"))
        yield "" if number else "metadata", f"{text.printable(key)} = {shown}"
