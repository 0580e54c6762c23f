"""``-o NAME=VALUE``: options of the uploads on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tus.errors import OptionError

_OTHERWISE = ("upload_path", "tmp_file_dir", "cors_allow_origin")


def add_to(parser: argparse.ArgumentParser) -> None:
    """Take ``-o``, any number of times."""
    parser.add_argument(
        "-o",
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the uploads, such as max_size=10G or download=true; several times for several",
    )


def read(options: Sequence[str]) -> dict[str, str]:
    """The options by name, the last one where a name is given twice.

    Raises:
        OptionError: one is no NAME=VALUE, or cannot be given so.
    """
    values = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise OptionError("--option", f"must be NAME=VALUE; it is {option!r}")
        if name in _OTHERWISE:
            raise OptionError("--option", f"cannot be {name}, which has an option of its own")
        values[name] = value
    return values
