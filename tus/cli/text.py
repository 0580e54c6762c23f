"""Values as a person reads them, and as a program does.

Law of this room: text that a client has sent never reaches a terminal with anything in it that a terminal obeys.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from os.path import lexists

from tus.errors import BadRequest
from tus.models import State, Upload


def printable(text: str) -> str:
    """The text with everything escaped that is not to be seen: control, format and unassigned characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def size_text(size: int) -> str:
    """A number of bytes in the unit that fits, of powers of 1024."""
    if size < 1024:
        return f"{size} B"
    value = float(size)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1023.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} PiB"


def duration_text(seconds: float) -> str:
    """A time span, rounded down to one unit."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(int(seconds), 0)}s"


def iso_text(timestamp: float | None) -> str | None:
    """A point in time, in seconds since 1970, in ISO 8601 and UTC; None where there is none that could be meant."""
    try:
        return None if timestamp is None else datetime.fromtimestamp(timestamp, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return None


def percent_text(upload: Upload) -> str:
    """How much has come, rounded down, so that 100% is all of it."""
    if upload.length is None:
        return "?"
    return f"{100 * upload.offset // upload.length if upload.length else 100}%"


def state_text(upload: Upload) -> str:
    """The state, and what kind of upload it is."""
    kind = " part" if upload.is_partial else " final" if upload.is_final else ""
    return ("put aside" if upload.is_aside else State(upload.state).name.lower().replace("_", " ")) + kind


def expiry_text(upload: Upload, now: float) -> str:
    """When an upload goes by itself."""
    if upload.has_expired(now):
        return "expired"
    if upload.expires_at is None or not upload.can_expire:
        return "never"
    return duration_text(upload.expires_at - now)


def name_of(upload: Upload) -> str:
    """The client's name for the file; empty where it has given none."""
    try:
        return upload.filename if upload.filename != upload.id else ""
    except BadRequest:
        return ""


def service_text(name: str) -> str:
    """Return the name of the service that takes an upload, for a sentence."""
    return f"the service {printable(name)!r}" if name else "a service without a name"


def metadata_of(upload: Upload) -> dict[str, str]:
    """The metadata as text; empty where what is stored is none."""
    try:
        return upload.text_metadata
    except BadRequest:
        return {}


def as_json(upload: Upload, now: float) -> dict[str, object]:
    """An upload for a program. Names are added here, but never change."""
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
    """The lines of a JSON array, one for each item, so that a long one need not be held."""
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
    """A number of things."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
