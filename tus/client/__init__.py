"""A client for resumable uploads: over tus 1.0.0, and over Resumable Uploads for HTTP of the IETF.

>>> from tus.client import upload
>>> result = upload("film.mp4", "https://example.org/files/")  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

from tus.client.capabilities import Capabilities
from tus.client.client import Client, upload
from tus.client.commands import Progress
from tus.client.control import Control
from tus.client.errors import (
    Cancelled,
    ChecksumMismatch,
    ClientError,
    ConnectionFailed,
    FileChanged,
    FinishUncertain,
    ForeignOrigin,
    GaveUp,
    NotAuthorized,
    NotSupported,
    NotTrusted,
    ProtocolViolation,
    Refused,
    Stalled,
    UploadGone,
)
from tus.client.messages import Headers, Request, Response
from tus.client.records import MemoryRecords, NoRecords, Records, ResumeRecord
from tus.client.results import DownloadResult, Outcome, UploadInfo, UploadResult
from tus.client.retry import NO_RETRIES, Retry

if TYPE_CHECKING:
    from tus.client.aio import AsyncClient

__all__ = [
    "AsyncClient",
    "Cancelled",
    "Capabilities",
    "ChecksumMismatch",
    "Client",
    "ClientError",
    "ConnectionFailed",
    "Control",
    "DownloadResult",
    "FileChanged",
    "FinishUncertain",
    "ForeignOrigin",
    "GaveUp",
    "Headers",
    "MemoryRecords",
    "NO_RETRIES",
    "NoRecords",
    "NotAuthorized",
    "NotSupported",
    "NotTrusted",
    "Outcome",
    "Progress",
    "ProtocolViolation",
    "Records",
    "Refused",
    "Request",
    "Response",
    "ResumeRecord",
    "Retry",
    "Stalled",
    "UploadGone",
    "UploadInfo",
    "UploadResult",
    "upload",
]


def __getattr__(name: str) -> Any:
    if name == "AsyncClient":  # it needs AnyIO, which programs with threads need not have
        from tus.client.aio import AsyncClient

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
