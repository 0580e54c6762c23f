"""Which directory an operator means, and which upload."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable, Sequence

from tus.errors import OptionError, TusException
from tus.models import Upload, is_upload_id
from tus.stores import Store, open_store
from tus.stores.interface import Lists

DEFAULT = "./uploads"
_HELP = f"a tmp_file_dir, or the --dir of tus serve (default: {DEFAULT})"
_PREFIX = re.compile(r"[0-9a-f]{1,31}")
_SHOWN = 5  # of the uploads that a prefix could mean


def add_positional(parser: argparse.ArgumentParser) -> None:
    """Take the directory as the only argument."""
    parser.add_argument("dir", metavar="DIR", nargs="?", default=DEFAULT, help=_HELP)


def add_option(parser: argparse.ArgumentParser) -> None:
    """Take the directory as an option, beside ids."""
    parser.add_argument("--dir", metavar="DIR", default=DEFAULT, help=_HELP)


def find(directory: str) -> str:
    """The directory of the uploads.

    Raises:
        OptionError: there is none.
    """
    inner = os.path.join(directory, ".tus")
    if os.path.isdir(inner):
        return inner
    if not os.path.isdir(directory):
        raise OptionError("DIR", f"there is no directory {directory!r}")
    return directory


def open_directory(directory: str) -> Store:
    """The store of a directory that is there.

    Raises:
        OptionError: there is none, or it does not serve.
    """
    return open_store(find(directory))


def uploads_in(store: Store) -> Iterable[Upload]:
    """Every upload that can be read."""
    assert isinstance(store, Lists)
    return store.list()


def whole_id(store: Store, given: str) -> str:
    """The id that an operator means by its beginning.

    Raises:
        TusException: there is none, or there are several.
    """
    given = given.strip().lower()
    if is_upload_id(given):
        return given
    if not _PREFIX.fullmatch(given):
        raise TusException("an id is 32 hexadecimal digits, and may be shortened at its end")
    found = [upload.id for upload in uploads_in(store) if upload.id.startswith(given)]
    if not found:
        raise TusException("there is no upload whose id begins so")
    if len(found) > 1:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise TusException(f"that could be any of {', '.join(sorted(found)[:_SHOWN])}{more}; give more digits")
    return found[0]


_OTHERWISE = ("upload_path", "tmp_file_dir", "cors_allow_origin")


def add_named_options(parser: argparse.ArgumentParser) -> None:
    """Take ``-o``, any number of times."""
    parser.add_argument(
        "-o",
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of docs/options.rst, such as max_size=10G or download=true; several times for several",
    )


def read_named_options(options: Sequence[str]) -> dict[str, str]:
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
