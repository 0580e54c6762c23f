"""Which files ``tus upload`` sends, and what it says about them.

Law of this room: no symbolic link inside a directory is followed, because it may lead to a file that the user did not
mean to send.
"""

from __future__ import annotations

import argparse
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from tus.errors import OptionError

_STDIN = 0
_BLOCK = 1 << 20


@dataclass(eq=False)
class Chosen:
    """A file to send.

    Attributes:
        source: its path, or the blocks of stdin.
        name: for people.
        size: the number of bytes; None if it is not known.
        metadata: for the server, beside the name and the type.
        given: the argument that chose it.
    """

    source: Any
    name: str
    size: int | None
    metadata: dict[str, str] = field(default_factory=dict)
    given: str = ""

    @property
    def is_file(self) -> bool:
        """Whether it can be read again."""
        return isinstance(self.source, str)


def choose(options: argparse.Namespace) -> list[Chosen]:
    """Return the files of a command line, each once: two uploads of a file at a time would have the same record.

    Raises:
        OptionError: an argument is no file, or is a directory without ``--recursive``.
        OSError: a directory cannot be read.
    """
    metadata = _metadata(options.metadata)
    found = [file for given in options.files for file in _chosen(given, metadata, options)]
    chosen = list({_identity(file): file for file in reversed(found)}.values())[::-1]
    if sum(not file.is_file for file in chosen) > 1:
        raise OptionError("FILE", "can be - only once")
    if options.name is not None and len(chosen) != 1:
        raise OptionError("--name", f"needs one file; there are {len(chosen)}")
    if not chosen:
        raise OptionError("FILE", "no file matches")
    return chosen


def _identity(file: Chosen) -> object:
    """Return the same value for the same file with the same metadata."""
    return (os.path.realpath(file.source), *file.metadata.items()) if file.is_file else file


def _chosen(given: str, metadata: dict[str, str], options: argparse.Namespace) -> Iterator[Chosen]:
    if given == "-":
        yield Chosen(_blocks_of_stdin(), as_text(options.name or "stdin"), options.size, metadata, given)
        return
    try:
        status = os.stat(given)
    except OSError as error:
        raise OptionError("FILE", f"{given!r} cannot be read: {error.strerror}") from None
    if stat.S_ISREG(status.st_mode):
        yield Chosen(given, as_text(os.path.basename(given)), status.st_size, metadata, given)
    elif not stat.S_ISDIR(status.st_mode):  # a pipe, such as the shell's <(command)
        yield Chosen(_blocks_of(given), as_text(os.path.basename(given)), options.size, metadata, given)
    elif not options.recursive:
        raise OptionError("FILE", f"{given!r} is a directory; give --recursive to send what is in it")
    else:
        root = os.path.basename(os.path.abspath(given))
        for path, relative, inner in _walk(given, "", options):
            more = {"relativePath": as_text("/".join(part for part in (root, relative) if part))}
            yield Chosen(path, as_text(relative), inner.st_size, {**more, **metadata}, given)


def _walk(directory: str, below: str, options: argparse.Namespace) -> Iterator[tuple[str, str, os.stat_result]]:
    with os.scandir(directory) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        relative = f"{below}/{entry.name}" if below else entry.name
        if any(_matches(entry.name, relative, pattern) for pattern in options.exclude):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, relative, options)
        elif entry.is_file(follow_symlinks=False) and (
            not options.include or any(_matches(entry.name, relative, pattern) for pattern in options.include)
        ):
            yield entry.path, relative, entry.stat(follow_symlinks=False)


def _matches(name: str, relative: str, pattern: str) -> bool:
    """Return whether a pattern is of a name, or with a slash of a path below the directory."""
    return fnmatchcase(relative if "/" in pattern else name, pattern)


def _metadata(pairs: list[str]) -> dict[str, str]:
    metadata = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key or not key.isascii() or not key.isprintable() or any(c in key for c in " ,"):
            raise OptionError("--metadata", f"must be KEY=VALUE, with no space or comma in KEY; it is {pair!r}")
        metadata[key] = as_text(value)
    return metadata


def as_text(name: str) -> str:
    """Return an argument or a file name as Unicode, which some are not."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def _blocks_of_stdin() -> Iterator[bytes]:
    """Return the blocks of stdin. A thread that waits for one must not hold the lock of ``sys.stdin`` at the exit."""
    return iter(lambda: os.read(_STDIN, _BLOCK), b"")


def _blocks_of(path: str) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            yield block
