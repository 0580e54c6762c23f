"""The output of values as text and as JSON.

Law of this room: text from a client never reaches a terminal with control characters in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from os.path import lexists

from tus.errors import BadRequest
from tus.models import State, Upload


def printable(text: str) -> str:
    """Return the text with escapes for characters that are not printable: control, format and unassigned ones."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def size_text(size: int) -> str:
    """Return a number of bytes in a suitable unit, a power of 1024."""
    if size < 1024:
        return f"{size} B"
    value = float(size)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1023.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} PiB"


def exact_size_text(size: int) -> str:
    """Return a number of bytes, and also in a suitable unit if it is large."""
    return f"{size} bytes" if size < 1024 else f"{size} bytes ({size_text(size)})"


def duration_text(seconds: float) -> str:
    """Return a time span, rounded down to one unit."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(int(seconds), 0)}s"


def iso_text(timestamp: float | None) -> str | None:
    """Return a time, given in seconds since 1970, in ISO 8601 and UTC; None if it is None or out of range."""
    try:
        return None if timestamp is None else datetime.fromtimestamp(timestamp, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return None


def percent_text(upload: Upload) -> str:
    """Return the received percentage, rounded down, so that 100% means all bytes."""
    if upload.length is None:
        return "?"
    return f"{100 * upload.offset // upload.length if upload.length else 100}%"


def state_text(upload: Upload) -> str:
    """Return the state of an upload, with "part" or "final" for its kind."""
    kind = " part" if upload.is_partial else " final" if upload.is_final else ""
    return ("set aside" if upload.is_aside else State(upload.state).name.lower().replace("_", " ")) + kind


def expiry_text(upload: Upload, now: float) -> str:
    """Return the time until an upload expires, "expired" or "never"."""
    if upload.has_expired(now):
        return "expired"
    if upload.expires_at is None or not upload.can_expire:
        return "never"
    return duration_text(upload.expires_at - now)


def name_of(upload: Upload) -> str:
    """Return the client's name for the file, or an empty text."""
    try:
        return upload.filename if upload.filename != upload.id else ""
    except BadRequest:
        return ""


def service_text(name: str) -> str:
    """Return the name of the service that takes an upload, for a sentence."""
    return f"the service {printable(name)!r}" if name else "a service without a name"


def metadata_of(upload: Upload) -> dict[str, str]:
    """Return the metadata as text, or an empty dict if the stored metadata is malformed."""
    try:
        return upload.text_metadata
    except BadRequest:
        return {}


def as_json(upload: Upload, now: float) -> dict[str, object]:
    """Return an upload as JSON values. New names may be added, but names never change."""
    return {
        "id": upload.id,
        "state": State(upload.state).name.lower(),
        "offset": upload.offset,
        "length": upload.length,
        "created_at": iso_text(upload.created_at),
        "expires_at": iso_text(upload.expires_at),
        "expired": upload.has_expired(now),
        "metadata": metadata_of(upload),
        "filename": name_of(upload) or None,
        "is_partial": upload.is_partial,
        "is_final": upload.is_final,
        "parts": list(upload.parts),
        "principal": upload.principal,
        "protocol": upload.protocol,
        "service": upload.service,
        "digests": {name: digest.hex() for name, digest in upload.digests},
        "key": upload.key,
        "attempts": upload.attempts,
        "since": iso_text(upload.since or None),
        "is_aside": upload.is_aside,
        "is_known": upload.is_known,
        "error": upload.error,
        "answer": None if upload.answer is None else upload.answer.status,
        "path": upload.path if upload.path and lexists(upload.path) else None,
    }


def json_array(items: Iterable[object]) -> Iterator[str]:
    """Yield the lines of a JSON array, one for each item, so that a long one does not fill the memory."""
    yield "["
    before = ""
    for item in items:
        if before:
            yield before + ","
        before = json.dumps(item)
    if before:
        yield before
    yield "]"


def count_text(number: int, noun: str) -> str:
    """Return a number with its noun in singular or plural."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
