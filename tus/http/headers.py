"""Parsers and formatters of header fields. Pure: strings in, values out, :class:`~tus.errors.BadRequest` otherwise."""

from __future__ import annotations

import re
from base64 import b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache

from tus.errors import BadRequest

MAX_INTEGER = 2**63 - 1
_LAST_DATE = 253402300799  # the last second of the year 9999

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DIGITS = re.compile(r"[0-9]{1,19}")
_ALGORITHM = re.compile(r"[a-z0-9][a-z0-9_-]*")


def parse_integer(name: str, value: str) -> int:
    """Parse a non-negative decimal integer: digits only, at most 2**63 - 1.

    Servers join a repeated field with a comma, so contradictory values fail here as well.

    Raises:
        BadRequest: the value is anything else.
    """
    if not _DIGITS.fullmatch(value) or (number := int(value)) > MAX_INTEGER:
        raise BadRequest(f"{name} must be one whole number of digits only, at most {MAX_INTEGER}.")
    return number


def number_in(value: str | None) -> int | None:
    """Return a number as :func:`parse_integer` accepts it; None for any other text, or none."""
    if value is None or not _DIGITS.fullmatch(value) or (number := int(value)) > MAX_INTEGER:
        return None
    return number


def parse_base64(text: str) -> bytes | None:
    """Return the bytes of a text in Base64 (RFC 4648 section 4), or None if the text is not their only encoding."""
    try:
        encoded = text.encode("ascii")
        decoded = a2b_base64(encoded, strict_mode=True)
    except (Base64Error, UnicodeEncodeError):
        return None
    # The decoder accepts padding after complete groups (YWJj=), and bits that the padding makes meaningless (YR==).
    return decoded if b2a_base64(decoded, newline=False) == encoded else None


def parse_metadata(value: str) -> dict[str, bytes]:
    """Parse ``Upload-Metadata`` (tus 1.0.0, Creation): ``key base64, key base64``; the field may be empty.

    Args:
        value: the field as received, one character for each byte.

    Returns:
        The decoded values by key, in the order received.

    Raises:
        BadRequest: the field has another form.
    """
    metadata: dict[str, bytes] = {}
    if _CONTROL.search(value):
        raise BadRequest("Upload-Metadata must not contain control characters.")
    if not value.strip(" \t"):
        return metadata
    for pair in value.split(","):
        key, _, encoded = pair.strip(" \t").partition(" ")
        if not key:
            raise BadRequest("Upload-Metadata must have a key in each pair.")
        if key in metadata:
            raise BadRequest("Upload-Metadata must not repeat a key.")
        decoded = parse_base64(encoded)
        if decoded is None:
            raise BadRequest("Upload-Metadata must have values in Base64 with the right padding.")
        metadata[key] = decoded
    return metadata


def parse_checksum(value: str, sizes: Mapping[str, int]) -> tuple[str, bytes]:
    """Parse ``Upload-Checksum`` (tus 1.0.0, Checksum): an algorithm, a space, the Base64 of the raw digest.

    Args:
        value: the field as received.
        sizes: the supported algorithms, with the length of their digests in bytes.

    Returns:
        The algorithm and the digest.

    Raises:
        BadRequest: the field has another form, or the algorithm is unknown.
    """
    algorithm, _, encoded = value.partition(" ")
    if not _ALGORITHM.fullmatch(algorithm):
        raise BadRequest("Upload-Checksum must be an algorithm in lower case, a space, and the digest in Base64.")
    if algorithm not in sizes:
        raise BadRequest(f"Upload-Checksum must use a known algorithm: {', '.join(sizes)}.")
    digest = parse_base64(encoded)
    if digest is None or len(digest) != sizes[algorithm]:
        raise BadRequest(f"Upload-Checksum must have the {sizes[algorithm]} bytes of a {algorithm} digest in Base64.")
    return algorithm, digest


def format_metadata(metadata: Mapping[str, str | bytes]) -> str:
    """Return an ``Upload-Metadata`` field, from values as text or bytes.

    Raises:
        ValueError: a key is empty, or contains a character that the field does not allow.
    """
    pairs = []
    for key, value in metadata.items():
        if not key or not key.isascii() or not key.isprintable() or " " in key or "," in key:
            raise ValueError(
                f"a key of Upload-Metadata must be printable ASCII without spaces and commas; it is {key!r}"
            )
        encoded = b64encode(value.encode() if isinstance(value, str) else value).decode()
        pairs.append(f"{key} {encoded}" if encoded else key)
    return ",".join(pairs)


def parse_concat(value: str) -> tuple[str, ...] | None:
    """Parse ``Upload-Concat`` (tus 1.0.0, Concatenation): ``partial``, or ``final;`` and URLs separated by spaces.

    Returns:
        None for a partial upload, the URLs of the parts for a final one.

    Raises:
        BadRequest: the field has another form.
    """
    if _CONTROL.search(value):
        raise BadRequest("Upload-Concat must not contain control characters.")
    if value == "partial":
        return None
    keyword, semicolon, rest = value.partition(";")
    urls = tuple(url for url in rest.split(" ") if url)
    if keyword != "final" or not semicolon or not urls:
        raise BadRequest("Upload-Concat must be 'partial', or 'final;' and the URLs of the parts separated by spaces.")
    return urls


def media_type(value: str) -> str:
    """Return a Content-Type in lower case, without its parameters."""
    return value.partition(";")[0].strip().lower()


def http_date(timestamp: float) -> str:
    """Return a time, given in seconds since 1970, as an IMF-fixdate (RFC 9110 section 5.6.7).

    Its year has four digits, so a later time is reported as the end of the year 9999.
    """
    return _format_date(int(timestamp) if timestamp < _LAST_DATE else _LAST_DATE)


@lru_cache(maxsize=64)
def _format_date(timestamp: int) -> str:
    return formatdate(timestamp, usegmt=True)
