"""Structured header fields (RFC 9651), as far as the protocols need them. Pure: strings in, values out.

A value of an unexpected type counts as absent, as the protocols require. So does a field that is too long.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import http_sf

#: The longest field that is parsed, in characters. The parser takes about half a second for a million.
LONGEST: Final = 8 << 10


def _parse(value: str | None, kind: str) -> Any:
    if value is None or len(value) > LONGEST:
        return None
    try:
        return http_sf.parse(value.encode("latin-1"), tltype=kind)
    except Exception:  # the parser gets a stranger's bytes, and what it may raise is not known
        return None


def parse_boolean(value: str | None) -> bool | None:
    """Parse an Item whose value is a Boolean; its parameters are ignored."""
    item = _parse(value, "item")
    return item[0] if item is not None and isinstance(item[0], bool) else None


def parse_count(value: str | None) -> int | None:
    """Parse an Item whose value is an Integer that is not negative; its parameters are ignored."""
    item = _parse(value, "item")
    return item[0] if item is not None and _is_count(item[0]) else None


def parse_string(value: str | None) -> str | None:
    """Parse an Item whose value is a String; its parameters are ignored."""
    item = _parse(value, "item")
    return item[0] if item is not None and type(item[0]) is str else None


def parse_bytes(value: str | None) -> dict[str, bytes]:
    """Parse a Dictionary, and return the members whose value is a Byte Sequence."""
    members = _parse(value, "dictionary") or {}
    return {key: member[0] for key, member in members.items() if isinstance(member[0], bytes)}


def parse_counts(value: str | None) -> dict[str, int]:
    """Parse a Dictionary, and return the members whose value is an Integer that is not negative."""
    members = _parse(value, "dictionary") or {}
    return {key: member[0] for key, member in members.items() if _is_count(member[0])}


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def format_boolean(value: bool) -> str:
    """Return a Boolean as an Item."""
    return "?1" if value else "?0"


def format_dictionary(members: Mapping[str, int | bytes]) -> str:
    """Return a Dictionary, or an empty text if it has no members."""
    return http_sf.ser(dict(members)) if members else ""
