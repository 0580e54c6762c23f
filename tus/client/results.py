"""What the client returns."""

from __future__ import annotations

from dataclasses import dataclass

from tus.client.errors import ClientError
from tus.client.messages import Response


@dataclass(frozen=True, slots=True)
class UploadResult:
    """A complete upload.

    Attributes:
        url: the upload; empty if the server took the file in one plain request, and named no upload.
        size: the number of bytes.
        offset: the number of bytes that the server has reported: the size.
        resumed_from: the offset at which this call began.
        attempts: 1, and one more for each interruption.
        protocol: ``tus`` or ``ietf``.
        response: the reply to the request that completed the upload, with its body. If that reply was lost, the reply
            that showed later that the upload is complete.
    """

    url: str
    size: int
    offset: int
    resumed_from: int
    attempts: int
    protocol: str
    response: Response


@dataclass(frozen=True, slots=True)
class UploadInfo:
    """An upload as the server describes it.

    Attributes:
        url: the upload.
        offset: the number of bytes that the server has.
        length: the number of bytes that it expects; None if it does not know.
        metadata: what the client said about the file.
        expires_at: when the server removes the upload, in seconds since 1970; None if it does not say.
        is_complete: whether the server says that the upload is complete.
        concat: ``partial``, ``final``, or empty.
        response: the response itself.
    """

    url: str
    offset: int
    length: int | None
    metadata: dict[str, bytes]
    expires_at: float | None
    is_complete: bool
    concat: str
    response: Response


@dataclass(frozen=True, slots=True)
class DownloadResult:
    """A downloaded file.

    Attributes:
        path: where it is.
        size: the number of bytes.
        resumed_from: the number of bytes that were there already.
        digest: the algorithm of the digest that the server sent and that matches; empty if it sent none.
        response: the last response.
    """

    path: str
    size: int
    resumed_from: int
    digest: str
    response: Response


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one of many uploads: a result or an error.

    Attributes:
        source: as the caller passed it.
        result: of a complete upload.
        error: of any other one.
    """

    source: object
    result: UploadResult | None = None
    error: ClientError | OSError | None = None
