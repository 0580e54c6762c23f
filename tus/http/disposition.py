"""The file name in a ``Content-Disposition`` (RFC 6266, RFC 8187). Pure.

Law of this room: a field is read once from its beginning to its end, so that no field costs more than its length. Of
the character sets that exist, only those of the RFC are decoded.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

#: The longest field that is read, in characters. File systems allow names of 255 bytes, and 765 if all are escaped.
LONGEST: Final = 8 << 10

# Possessive quantifiers: no part of the field is tried twice.
_PARAMETER = re.compile(r"""(?:\s*+;)++\s*+([^\s=;"]*+)(?:\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"|([^;]*+)))?+""", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_CHARSETS: Final = {"utf-8": "utf-8", "iso-8859-1": "latin-1"}


def parse_filename(field: str) -> str:
    """Return the name in a field, empty if there is none. Of two names, the one with a character set counts.

    Args:
        field: as received, one character for each byte. Only its first :data:`LONGEST` characters count.
    """
    parameters = _parameters(field[:LONGEST])
    extended = _decode(parameters.get("filename*", ""))
    return _as_utf8(parameters.get("filename", "")) if extended is None else extended


def _parameters(field: str) -> dict[str, str]:
    """Return the first value of each parameter, up to the first one that is malformed."""
    parameters: dict[str, str] = {}
    place = field.find(";")
    while place >= 0 and (match := _PARAMETER.match(field, place)) is not None:
        name, quoted, plain = match.groups()
        value = (plain or "").strip() if quoted is None else _ESCAPED.sub(r"\1", quoted)
        parameters.setdefault(name.lower(), value)
        place = match.end()
    return parameters


def _decode(value: str) -> str | None:
    """Return the text of an extended value, such as ``UTF-8'en'%c3%bc``; None if it has another form."""
    charset, _, rest = value.partition("'")
    _, quote, encoded = rest.partition("'")
    codec = _CHARSETS.get(charset.lower())
    if codec is None or not quote or not encoded.isascii():
        return None
    try:
        return unquote_to_bytes(encoded).decode(codec)
    except UnicodeDecodeError:
        return None


def _as_utf8(name: str) -> str:
    """Return a name of which most clients send the bytes of its UTF-8."""
    try:
        return name.encode("latin-1").decode()
    except UnicodeError:
        return name
