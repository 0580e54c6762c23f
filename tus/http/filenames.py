"""File names that a client sent, made safe to use as one segment of a path."""

from __future__ import annotations

import re
import unicodedata

MAX_BYTES = 200  # leaves room for a suffix below the usual limit of 255

_SEPARATORS = re.compile(r"[/\\]")
_FORBIDDEN = re.compile(r'[<>:"|?*]')
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def safe_filename(name: str, default: str) -> str:
    """Return the last segment of ``name`` without anything that has a meaning to a file system.

    The separators of every system split the name. These characters are dropped: control, format and unassigned
    characters, line separators, characters that Windows rejects, dots and blanks at either end, and dashes and tildes
    in front. So the result is never hidden, never ``..``, and never an option of a command. It must still be quoted in
    a shell.

    Args:
        name: as the client sent it.
        default: the name to use if nothing is left.

    Returns:
        A name of 1 to 200 bytes in UTF-8, in Unicode's normal form C.
    """
    name = _SEPARATORS.split(unicodedata.normalize("NFC", name).rstrip("/\\"))[-1]
    if not (name.isascii() and name.isprintable()):  # as most names are
        name = "".join(c for c in name if unicodedata.category(c)[0] != "C" and c not in "\u2028\u2029")
    name = _FORBIDDEN.sub("", name).strip(". \t\u00a0").lstrip("-~. ")
    if _DEVICES.fullmatch(name):
        name = "_" + name
    return add_suffix(name, "", MAX_BYTES) or default


def add_suffix(name: str, suffix: str, size: int) -> str:
    """Return a name with a suffix before its extension, cut in its stem to a number of bytes.

    Args:
        name: a safe name, such as ``film.mp4``.
        suffix: such as ``-3f2a9c``.
        size: the largest number of bytes in UTF-8; at least 20 more than the suffix has.
    """
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension.encode()) > 20:
        stem, dot, extension = name, "", ""
    end = suffix + dot + extension
    return _truncate(stem, size - len(end.encode())) + end


def _truncate(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore").rstrip(". ")
