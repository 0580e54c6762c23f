"""Arguments that several commands share: directories and options of uploads."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence

from tus.errors import OptionError

DEFAULT = "./uploads"
_HELP = f"a tmp_file_dir, the --dir of tus serve, or the URL of a store (default: {DEFAULT})"
_URL = re.compile(r"[a-z][a-z0-9+.-]*:")


class KeepsLines(argparse.HelpFormatter):
    """A formatter that leaves the lines of a table as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


def add_directory(parser: argparse.ArgumentParser) -> None:
    """Add the directory as the only argument."""
    parser.add_argument("dir", metavar="DIR", nargs="?", default=DEFAULT, help=_HELP)
    add_trusted_group(parser)


def add_directory_option(parser: argparse.ArgumentParser) -> None:
    """Add the directory as an option, for commands whose arguments are ids."""
    parser.add_argument("--dir", metavar="DIR", default=DEFAULT, help=_HELP)
    add_trusted_group(parser)


def add_trusted_group(parser: argparse.ArgumentParser) -> None:
    """Add the trusted group as an option, for :func:`tus.cli.stored.ownership_of`."""
    parser.add_argument(
        "--trusted-group", metavar="GROUP", default="", help="the server's option trusted_group, if it has one"
    )


def is_store_url(directory: str) -> bool:
    """Return whether the argument is the URL of a store, and not a directory."""
    return _URL.match(directory) is not None and not os.path.isdir(directory)


_HAVE_ARGUMENTS = ("upload_path", "tmp_file_dir", "cors_allow_origin")


def add_named_options(parser: argparse.ArgumentParser) -> None:
    """Add ``-o``, which may be repeated."""
    parser.add_argument(
        "-o",
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of docs/options.rst, such as max_size=10G or download=true; may be repeated",
    )


def read_named_options(options: Sequence[str]) -> dict[str, str]:
    """Parse the values of ``-o``, and return them by name; the last value of a name wins.

    Raises:
        OptionError: a value is not NAME=VALUE, or the option has its own argument.
    """
    values = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise OptionError("--option", f"must be NAME=VALUE; it is {option!r}")
        if name in _HAVE_ARGUMENTS:
            raise OptionError("--option", f"cannot be {name}; use the command's own option for it")
        values[name] = value
    return values
