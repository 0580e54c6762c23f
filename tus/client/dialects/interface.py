"""What a protocol must say. Pure: values in, requests out; responses in, values out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tus.client.messages import Body, Request, Response


@dataclass(frozen=True, slots=True)
class Creation:
    """A new upload.

    Attributes:
        endpoint: the URL that creates uploads.
        size: the number of bytes; None if it is not known yet.
        metadata: describes the file to the server.
        key: the ``Idempotency-Key``; a repeated request with the same key creates no second upload.
        body: the first bytes, if they go with the request.
        is_whole: whether the body is all there is.
        is_partial: whether the upload becomes a part of another one.
        digests: the ``Repr-Digest`` of the whole file; empty for none.
    """

    endpoint: str
    size: int | None
    metadata: Mapping[str, str | bytes]
    key: str
    body: Body | None = None
    is_whole: bool = False
    is_partial: bool = False
    digests: str = ""


@dataclass(frozen=True, slots=True)
class Append:
    """The next bytes of an upload.

    Attributes:
        url: the upload.
        body: the bytes and their offset.
        size: the number of bytes of the whole upload, if it is known by now.
        is_last: whether the upload is complete after these bytes.
        announces_size: whether the server does not know the size yet.
        checksum: algorithm and digest of the body; None for none, or if a trailer has them.
    """

    url: str
    body: Body
    size: int | None
    is_last: bool
    announces_size: bool = False
    checksum: tuple[str, bytes] | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What a response says about an upload.

    Attributes:
        url: the upload, if the response names it.
        offset: the number of bytes that the server has; None if the response does not say.
        length: the number of bytes that it expects; None if it does not say.
        is_complete: whether the upload is complete, and the server says so; None if the response leaves it open.
        expires_at: seconds since 1970, or None.
        most: the most bytes that one request may carry; None for no limit.
    """

    url: str = ""
    offset: int | None = None
    length: int | None = None
    is_complete: bool | None = None
    expires_at: float | None = None
    most: int | None = None


class Dialect(Protocol):
    """A protocol, as the client speaks it.

    Attributes:
        name: ``tus`` or ``ietf``.
        version: the interop version; 0 for tus.
    """

    name: str
    version: int

    def create(self, creation: Creation) -> Request: ...

    def append(self, append: Append) -> Request: ...

    def look(self, url: str) -> Request: ...

    def terminate(self, url: str) -> Request: ...

    def read_creation(self, response: Response, now: float) -> Seen: ...

    def read_append(self, response: Response, append: Append, now: float) -> Seen: ...

    def read_look(self, response: Response, now: float) -> Seen: ...
