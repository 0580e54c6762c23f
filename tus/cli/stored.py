"""The stored uploads that a command is about: its directory, its store, and ids that are cut short."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tus.cli.arguments import is_store_url
from tus.cli.users import acting_as_owner
from tus.converters import as_group
from tus.errors import OptionError, TusException
from tus.filesystem.ownership import Ownership
from tus.models import Upload, is_upload_id
from tus.options import Options
from tus.stores import Store, open_store
from tus.stores.interface import Lists

_PREFIX = re.compile(r"[0-9a-f]{1,31}")
_SHOWN = 5  # ids in the error about an ambiguous prefix


def find_directory(directory: str) -> str:
    """Return the directory of the uploads: the given one, or ``.tus`` in it.

    Raises:
        OptionError: the directory does not exist.
    """
    inner = os.path.join(directory, ".tus")
    if os.path.isdir(inner):
        return inner
    if not os.path.isdir(directory):
        raise OptionError("DIR", f"there is no directory {directory!r}")
    return directory


def ownership_of(options: argparse.Namespace) -> Ownership:
    """Return whose files a command believes.

    Raises:
        OptionError: there is no such group.
    """
    try:
        return Ownership(as_group(options.trusted_group))
    except ValueError as error:
        raise OptionError("--trusted-group", f"{error}; it is {options.trusted_group!r}") from None


@contextmanager
def open_uploads(options: argparse.Namespace) -> Iterator[Store]:
    """Open the store in an existing directory, or the one of a URL; root acts as the owner of the directory meanwhile.

    Raises:
        OptionError: the directory does not exist, or the store cannot be used.
    """
    if is_store_url(options.dir):
        yield open_store(options.dir, probes=False)
        return
    directory = find_directory(options.dir)
    with acting_as_owner(directory):
        group = ownership_of(options).group
        yield open_store(directory, Options.build(tmp_file_dir=directory, trusted_group=group), probes=False)


def uploads_in(store: Store) -> Iterable[Upload]:
    """Return every upload that can be read.

    Raises:
        TusException: the store cannot list its uploads.
    """
    if not isinstance(store, Lists):
        raise TusException("this store cannot list its uploads; give a whole id")
    return store.list()


def complete_id(store: Store, given: str) -> str:
    """Return the id of the upload whose id begins with the given text.

    Raises:
        TusException: there is no such upload, or there are several.
    """
    given = given.strip().lower()
    if is_upload_id(given):
        return given
    if not _PREFIX.fullmatch(given):
        raise TusException("an id must be 32 hexadecimal digits, or the beginning of them")
    found = [upload.id for upload in uploads_in(store) if upload.id.startswith(given)]
    if not found:
        raise TusException("there is no upload whose id begins with this")
    if len(found) > 1:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise TusException(f"it could be any of {', '.join(sorted(found)[:_SHOWN])}{more}; give more digits")
    return found[0]
