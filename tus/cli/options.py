"""``tus options``: what a server offers."""

from __future__ import annotations

import argparse
import json

from tus.cli import client_arguments, text
from tus.cli.arguments import KeepsLines

_EPILOG = """\
Examples:
  tus options https://example.org/files/

The exit status is 0, 4 if the server refuses, and 1 after another failure.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``tus options``."""
    parser.description = "Print what a server offers: its protocols, extensions, checksums and limits."
    parser.epilog = _EPILOG
    parser.formatter_class = KeepsLines
    parser.add_argument("url", metavar="URL", help="where the server creates uploads")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    client_arguments.add_connection(parser)
    parser.set_defaults(run=_options)


def _options(options: argparse.Namespace) -> int:
    with client_arguments.open_client(options, options.url) as client:
        from tus.client import ClientError

        try:
            offers = client.options()
        except ClientError as error:
            return client_arguments.print_error(error)
    names = ("protocols", "extensions", "checksums")
    lists = {name: list(getattr(offers, name)) for name in names}
    lists["extensions"].sort()
    if options.json:
        limits = {"max_size": offers.max_size, "max_request": offers.max_request, "min_request": offers.min_request}
        print(json.dumps({**lists, "version": offers.version, **limits}))
        return 0
    for name in names:
        print(f"{name + ':':<12} {text.printable(', '.join(lists[name])) or 'none'}")
    for name, limit in (("max size", offers.max_size), ("max request", offers.max_request)):
        print(f"{name + ':':<12} {'no limit' if limit is None else text.exact_size_text(limit)}")
    return 0
