"""What a request says of its body, and how that is to be taken in. Values, the same for each protocol."""

from __future__ import annotations

from typing import NamedTuple

from tus.errors import LengthRequired, TooLarge
from tus.http import headers
from tus.models import Request
from tus.options import Options


class Body(NamedTuple):
    """The body that a request announces.

    Attributes:
        length: its bytes, or None where only reading tells.
        checksums: algorithms, by the names of :mod:`tus.checksums`, and the digests that it must have.
    """

    length: int | None
    checksums: tuple[tuple[str, bytes], ...] = ()


class Intake(NamedTuple):
    """How a body is to be taken in.

    Attributes:
        offset: where its first byte belongs.
        length: the upload's length if this request settles it, else None.
        limit: the most bytes that the body may have, or None.
        body: what the request announced.
        completes: whether the upload is complete once its length is reached.
        ends: whether the end of the body is the end of the upload, also where no length is known.
    """

    offset: int
    length: int | None
    limit: int | None
    body: Body
    completes: bool = True
    ends: bool = False


def body_length(request: Request) -> int | None:
    """The bytes of the body as the head announces them (RFC 9112 section 6.3), None where only reading tells.

    Raises:
        LengthRequired: it is chunked, and this server does not mark the end of its input.
    """
    chunked = bool(request.headers.get("Transfer-Encoding"))
    length = request.headers.get("Content-Length")
    if length and not chunked:
        return headers.parse_integer("Content-Length", length)
    if request.input_terminated:
        return None
    if chunked:
        raise LengthRequired()
    return 0


def check_size(length: int | None, options: Options) -> None:
    """Refuse an upload that is larger than is allowed, as far as its length is known.

    Raises:
        TooLarge: it is.
    """
    if options.max_size and length is not None and length > options.max_size:
        raise TooLarge(f"An upload may have at most {options.max_size} bytes.")


def overrun_message(limit: int) -> str:
    """What a client is told whose body is longer than the upload has room for."""
    return f"The body is longer than the {limit} bytes that the upload still takes."
