"""Conditions and ranges of requests (RFC 9110, sections 13 and 14). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

MAX_RANGES: Final = 32  # of one request; a request for more gets the whole, as RFC 9110 section 14.2 allows

_LONGEST_DATE = 64  # characters
_TAG = re.compile(r'(?:W/)?"[^"]*"')
_RANGE = re.compile(r"([0-9]*)\s*-\s*([0-9]*)")

Range = tuple[int, int]


def parse_date(value: str | None) -> int | None:
    """Return an HTTP date in seconds since 1970; None for a text that is none, or that no clock can show."""
    if value is None or len(value) > _LONGEST_DATE:
        return None
    try:
        moment = parsedate_to_datetime(value)
        return int((moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp())
    except Exception:  # the parser has its own opinion of what may be raised
        return None


def evaluate(fields: Mapping[str, str], etag: str, modified_at: int) -> int | None:
    """Return the status with which the conditions of a GET or HEAD end it: 412 or 304; None if it goes on.

    Args:
        fields: the header fields of the request.
        etag: the strong validator of the file, with its quotes.
        modified_at: the time of its last change, in seconds since 1970.
    """
    get = fields.get
    if (tags := get("If-Match")) is not None:
        if not _lists(tags, etag):
            return 412
    elif (since := parse_date(get("If-Unmodified-Since"))) is not None and modified_at > since:
        return 412
    if (tags := get("If-None-Match")) is not None:
        return 304 if _lists(tags, etag, is_weak=True) else None
    since = parse_date(get("If-Modified-Since"))
    return 304 if since is not None and modified_at <= since else None


def holds_for_range(condition: str | None, etag: str, modified_at: int) -> bool:
    """Return whether a ``Range`` counts, as far as ``If-Range`` says (RFC 9110 section 13.1.5)."""
    if condition is None:
        return True
    condition = condition.strip()
    return condition == etag if '"' in condition else parse_date(condition) == modified_at


def _lists(tags: str, etag: str, is_weak: bool = False) -> bool:
    """Return whether a list of entity tags has this one, or is ``*``."""
    if tags.strip() == "*":
        return True
    found = _TAG.findall(tags)
    return etag in found or (is_weak and f"W/{etag}" in found)


def parse_ranges(field: str | None, size: int) -> list[Range] | None:
    """Parse the satisfiable ranges of a ``Range`` field (RFC 9110 section 14.2).

    Returns:
        Pairs of the first byte and the byte after the last. None if the field must be ignored: it is missing,
        malformed, of another unit, or asks for too much.
    """
    unit, equals, text = (field or "").partition("=")
    if unit.strip().lower() != "bytes" or not equals:
        return None
    specs = [spec.strip() for spec in text.split(",") if spec.strip()]
    if not 0 < len(specs) <= MAX_RANGES:
        return None
    ranges = []
    for spec in specs:
        match = _RANGE.fullmatch(spec)
        if match is None or not (match[1] or match[2]):
            return None
        if match[1]:
            first, last = _number(match[1]), _number(match[2]) if match[2] else size - 1
            if match[2] and last < first:
                return None
        else:
            first, last = max(size - _number(match[2]), 0), size - 1
        if first <= min(last, size - 1):
            ranges.append((first, min(last, size - 1) + 1))
    return None if sum(stop - first for first, stop in ranges) > size > 0 else ranges


def _number(digits: str) -> int:
    """Return a number that is exact as far as a file can reach; int() refuses a number of 4 301 digits."""
    return int(digits.lstrip("0")[:20] or "0")
