"""How long the workers of ``tus serve`` wait for clients, how much they take before a request, and what they say then.

gunicorn's own limits are those of threads, and uvicorn has none. ``worker_gunicorn`` and ``protocol_uvicorn`` add them.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

HEAD_TIMEOUT: Final = 60.0  # seconds from the first look at a connection to the end of the head
SEND_TIMEOUT: Final = 60  # seconds in which a client must read something of a response
LINGER: Final = 2.0  # seconds for a client to close its connection after the last response
LARGEST_HEAD: Final = 256 << 10  # bytes; a head with Upload-Concat for 1 000 parts has 128 KiB


def refusal(status: int, more: str = "") -> bytes:
    """Return the response to a client whose request is not known."""
    phrase = HTTPStatus(status).phrase
    fields = "Tus-Resumable: 1.0.0\r\nContent-Length: 0\r\nConnection: close\r\n"
    return f"HTTP/1.1 {status} {phrase}\r\n{fields}{more}\r\n".encode()


BAD: Final = refusal(400)
TIMED_OUT: Final = refusal(408)
TOO_LARGE: Final = refusal(431)
OVERLOADED: Final = refusal(503, "Retry-After: 5\r\n")
