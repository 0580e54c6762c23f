"""Logging by the standard library: one line for each request at DEBUG, one line for each upload that ends at INFO.

The same facts are attributes of the log record (``extra``), for formatters that write JSON. Knowing an upload's id is
enough to continue it, so only its first eight digits are logged. Names and values from clients are not logged.
"""

from __future__ import annotations

import logging
import time

from tus.events import Answered, Ended, Event
from tus.models import Upload

requests = logging.getLogger("tus.requests")
uploads = logging.getLogger("tus.uploads")


def log_events(event: Event) -> None:
    """Log an event if it is the end of a request or of an upload."""
    match event:
        case Answered() if requests.isEnabledFor(logging.DEBUG):
            _write_request(event)
        case Ended() if uploads.isEnabledFor(logging.INFO):
            _write_life(event)


def _write_request(event: Answered) -> None:
    upload = event.upload
    fields = {
        "method": event.method,
        "status": event.status,
        "upload": _short(upload),
        "offset": None if upload is None else upload.offset,
        "length": None if upload is None else upload.length,
        "received": event.received,
        "kept_from_cut": event.kept_from_cut,
        "seconds": round(event.seconds, 6),
    }
    requests.debug(
        "%(method)s %(status)d upload=%(upload)s offset=%(offset)s length=%(length)s received=%(received)d "
        "kept_from_cut=%(kept_from_cut)d seconds=%(seconds).3f",
        fields,
        extra=fields,
    )


def _write_life(event: Ended) -> None:
    upload = event.upload
    fields = {
        "upload": _short(upload),
        "ended": event.how,
        "offset": upload.offset,
        "length": upload.length,
        "age": round(max(time.time() - upload.created_at, 0.0), 3),
    }
    uploads.info(
        "upload %(upload)s %(ended)s with %(offset)d of %(length)s bytes after %(age).1f s", fields, extra=fields
    )


def _short(upload: Upload | None) -> str | None:
    return upload.id[:8] if upload is not None and upload.id else None
