"""Logging by the standard library: one line for each request at DEBUG, one line for each upload that ends at INFO.

The same facts are attributes of the log record (``extra``), for formatters that write JSON. Knowing an upload's id is
enough to continue it, so only its first eight digits are logged. Names and values from clients are not logged.
"""

from __future__ import annotations

import logging
import time
from functools import partial

from tus.events import Answered, Ended, Event, listen
from tus.models import Upload

requests = logging.getLogger("tus.requests")
uploads = logging.getLogger("tus.uploads")


def log_events() -> None:
    """Log the end of each request and of each upload from now on."""
    listen(_log_request, Answered, when=partial(requests.isEnabledFor, logging.DEBUG))
    listen(_log_life, Ended, when=partial(uploads.isEnabledFor, logging.INFO))


def _log_request(event: Event) -> None:
    assert isinstance(event, Answered), "it listens to nothing else"
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


def _log_life(event: Event) -> None:
    assert isinstance(event, Ended), "it listens to nothing else"
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
