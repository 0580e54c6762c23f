"""The announced body of a request, and the rules for receiving it. Values, the same for each protocol."""

from __future__ import annotations

from typing import NamedTuple

from tus.errors import LengthRequired, TooLarge
from tus.http import headers
from tus.models import Request
from tus.options import Options


class Body(NamedTuple):
    """The body that a request announces.

    Attributes:
        length: its number of bytes, or None if only reading it shows the number.
        checksums: algorithms, by the names of :mod:`tus.checksums`, and the digests that the body must have.
    """

    length: int | None
    checksums: tuple[tuple[str, bytes], ...] = ()


class Intake(NamedTuple):
    """The rules for receiving a body.

    Attributes:
        offset: the offset of its first byte in the upload.
        length: the upload's length if this request sets it, else None.
        limit: the maximum number of bytes of the body, or None.
        body: the body as the request announced it.
        completes: whether the upload is complete once its length is reached.
        ends: whether the end of the body is the end of the upload, even if the length is unknown.
    """

    offset: int
    length: int | None
    limit: int | None
    body: Body
    completes: bool = True
    ends: bool = False


def body_length(request: Request) -> int | None:
    """Return the announced number of bytes of the body (RFC 9112 section 6.3); None if only reading shows it.

    Raises:
        LengthRequired: the body is chunked, and this server does not mark the end of its input.
    """
    chunked = bool(request.fields.get("Transfer-Encoding"))
    length = request.fields.get("Content-Length")
    if length and not chunked:
        return headers.parse_integer("Content-Length", length)
    if request.input_terminated:
        return None
    if chunked:
        raise LengthRequired()
    return 0


def check_size(length: int | None, options: Options) -> None:
    """Check that an upload is not larger than ``max_size``, nor than any file can be, if its length is known.

    Raises:
        TooLarge: it is larger.
    """
    if length is not None and length > (largest := options.max_size or headers.MAX_INTEGER):
        raise TooLarge(f"An upload may have at most {largest} bytes.")


def overrun_message(limit: int) -> str:
    """Return the error text for a body that is longer than its limit."""
    return f"The body is too long; it may have at most {limit} bytes."
