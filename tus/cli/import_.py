"""``tus import``: the import of another program's unfinished uploads, so that their clients can resume them here.

The uploads that the readers of :mod:`tus.cli.import_formats` find are adopted (see
:mod:`tus.stores.directory.adopt`). Then the other program's record is renamed, so that this program can no longer write
to the data. Finished uploads stay in place, because the other program handed them over when their last byte arrived.
Complete parts are imported too, because they wait for a concatenation.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator

from tus.cli.arguments import add_trusted_group
from tus.cli.import_formats import READERS, Found, Left, names
from tus.cli.stored import find_directory, ownership_of
from tus.cli.users import acting_as_owner
from tus.converters import as_duration
from tus.errors import OptionError, TusException, UploadLocked
from tus.filesystem.descriptors import close
from tus.filesystem.locks import lock, unlock
from tus.filesystem.ownership import Ownership
from tus.models import State, Upload, is_upload_id
from tus.stores.directory.adopt import CannotAdopt, How, adopt, check, has_upload, remove_drafts
from tus.stores.directory.preparation import prepare_directory

_IMPORTED = ".imported"  # the suffix of a record whose upload was imported


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``tus import``."""
    parser.description = (
        "Import the unfinished uploads of another program, which must not run any more, so that their clients can "
        "resume them here, under the same last segment of the URL."
    )
    parser.epilog = (
        f"The record of an imported upload is renamed to end in {_IMPORTED}. While no client has sent bytes since, "
        "renaming it back returns the upload to the other program, if its data is in place. Running this twice is "
        "harmless."
    )
    parser.add_argument("dir", metavar="DIR", help="the other program's directory of uploads")
    parser.add_argument("--from", dest="format", required=True, choices=list(READERS), help="the other program")
    parser.add_argument(
        "--into",
        metavar="TMP_FILE_DIR",
        help="a tmp_file_dir, or the --dir of tus serve (default: DIR, where data then need not move)",
    )
    parser.add_argument(
        "--valid",
        metavar="DURATION",
        default="1d",
        help="how long they are kept from now on without a byte; 0 means for ever (default: %(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be imported, and change nothing")
    parser.add_argument("--force", action="store_true", help="import although there are lock files of tusd")
    add_trusted_group(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run ``tus import``.

    Raises:
        OptionError: an argument has a bad value.
        TusException: some uploads could not be imported; or another program, or another import, uses the directory.
    """
    source = os.path.abspath(arguments.dir)
    if not os.path.isdir(source):
        raise OptionError("DIR", f"there is no directory {arguments.dir!r}")
    with acting_as_owner(_owned_directory(source, arguments.into)):
        _run(arguments, source)


def _owned_directory(source: str, into: str | None) -> str:
    """Return the directory whose owner must own all files.

    Raises:
        TusException: this process runs as root, and the two directories have different owners.
    """
    if into is None or not os.path.isdir(into):
        return source
    target = find_directory(into)
    if os.geteuid() == 0 and os.stat(target).st_uid != os.stat(source).st_uid:
        user = os.stat(target).st_uid
        raise TusException(f"{source!r} and {target!r} have different owners; first run: chown -R {user} {source}")
    return target


def _run(arguments: argparse.Namespace, source: str) -> None:
    try:
        valid = as_duration(arguments.valid)
    except ValueError as error:
        raise OptionError("--valid", f"{error}; it is {arguments.valid!r}") from None
    ownership = ownership_of(arguments)
    directory = _target(arguments.into, arguments.dry_run, ownership) if arguments.into else source
    if not arguments.force:
        _check_stopped(source, arguments.format)
    if directory == source and not arguments.dry_run:
        prepare_directory(directory, ownership)
    counts: Counter[str] = Counter()
    size = 0
    imported = "would be imported" if arguments.dry_run else "imported"
    with contextlib.ExitStack() as locks:
        for path in {source, directory} if not arguments.dry_run else {source}:
            locks.enter_context(_lock(path))
        if not arguments.dry_run:
            remove_drafts(directory)
        for found in READERS[arguments.format](source):
            word, text = _import(found, directory, valid, arguments.dry_run, ownership)
            counts[word] += 1
            size += found.offset if word == imported else 0
            print(f"{word}: {_printable(found.id)}: {text}", flush=True)
            for warning in found.warnings:
                print(f"warning: {_printable(found.id)}: {warning}", file=sys.stderr)
    print(f"{counts[imported]} {imported} ({size} bytes), {counts['left']} left, {counts['FAILED']} failed")
    if counts["FAILED"]:
        raise TusException(f"{counts['FAILED']} of the uploads could not be imported")


@contextlib.contextmanager
def _lock(directory: str) -> Iterator[None]:
    """Lock a directory, so that no other process imports uploads from it, or into it, meanwhile.

    Raises:
        TusException: another process has the lock.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            lock(fd, limit=0)
        except UploadLocked:
            raise TusException("another tus import uses this directory at the moment; try again later") from None
        try:
            yield
        finally:
            unlock(fd)
    finally:
        close(fd)


def _target(into: str, is_dry_run: bool, ownership: Ownership) -> str:
    inner = os.path.join(into, ".tus")
    if os.path.isdir(inner):
        into = inner
    if is_dry_run:
        if not os.path.isdir(os.path.dirname(os.path.abspath(into))):
            raise OptionError("--into", f"there is no directory to create {into!r} in")
        return os.path.abspath(into)
    return prepare_directory(into, ownership)


def _check_stopped(directory: str, program: str) -> None:
    locks = [name for name in names(directory, ".lock") if program == "tusd"]
    locked = [name for name in locks if os.path.lexists(os.path.join(directory, name + ".info"))]
    if locked:
        raise TusException(
            f"tusd has {len(locked)} of these uploads locked (the first is {_printable(locked[0])}.lock), so it "
            "seems to run; stop it first, or use --force if a killed tusd has left these locks"
        )


def _import(found: Found, directory: str, valid: int, is_dry_run: bool, ownership: Ownership) -> tuple[str, str]:
    """Import an upload, and return the outcome as one or more words, and the rest of the line."""
    if is_upload_id(found.id) and has_upload(directory, found.id):
        found_again = found.problem is None and not is_dry_run
        return _adopt(found, directory, valid, ownership) if found_again else ("left", "it was imported before")
    if found.problem is not None:
        return ("left" if isinstance(found.problem, Left) else "FAILED"), str(found.problem)
    if not is_dry_run:
        return _adopt(found, directory, valid, ownership)
    try:
        check(directory, _upload(found, valid), found.data, ownership)
    except CannotAdopt as error:
        return "FAILED", str(error)
    return "would be imported", _progress(found)


def _adopt(found: Found, directory: str, valid: int, ownership: Ownership) -> tuple[str, str]:
    try:
        how = adopt(directory, _upload(found, valid), found.data, ownership)
        if not os.path.lexists(found.record + _IMPORTED):
            os.rename(found.record, found.record + _IMPORTED)
    except CannotAdopt as error:
        return "FAILED", str(error)
    except OSError as error:
        return "FAILED", str(error.strerror)
    if how is How.EXISTING:
        return "left", "it was imported before"
    copied = f", copied; {_printable(found.data or '')} can be removed"
    where = {How.MOVED: ", moved", How.COPIED: copied}.get(how, "")
    return "imported", _progress(found) + where


def _upload(found: Found, valid: int) -> Upload:
    now = time.time()
    return Upload(
        id=found.id,
        offset=found.offset,
        length=found.length,
        raw_metadata=found.raw_metadata,
        concat="partial" if found.is_partial else None,
        state=State.COMPLETE if found.offset == found.length else State.RECEIVING,
        created_at=min(found.changed_at, now),
        expires_at=now + valid if valid else None,
    )


def _progress(found: Found) -> str:
    announced = "an unknown number of" if found.length is None else str(found.length)
    return f"{'a part, ' if found.is_partial else ''}{found.offset} of {announced} bytes"


def _printable(name: str) -> str:
    """Return a name without control characters for a terminal."""
    return name if name.isprintable() else repr(name)
