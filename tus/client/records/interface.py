"""Resume records: where an upload that has not finished goes on, after its process has ended too.

Laws of this room:

1. A record is durable before the creation request leaves, so that no upload is lost at the server.
2. A record never stops an upload. If it cannot be kept, the upload runs without it, and the log has one warning.
3. A record is secret, because its URL lets anyone write to the upload. No other user can read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

#: How long the limit of a server that has answered 413 is remembered, in seconds.
LIMIT_LIFETIME: Final = 30 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeRecord:
    """An upload that has begun.

    Attributes:
        key: of the file, its metadata and the endpoint, see :func:`tus.client.records.identity.key_of`. The number of
            parts follows after a dot, if there are several, and after a second one that of the part.
        url: the upload; empty if the creation was sent and its response has not arrived.
        endpoint: where it was created.
        path: the file, for people; empty if it has none.
        size: in bytes.
        protocol: ``tus`` or ``ietf``.
        version: the interop version of the IETF's protocol; 0 for tus.
        idempotency_key: of the creation, so that it can be sent again; empty if there is none.
        parts: the URLs of the parts of a parallel upload.
        unfinished_status: the status of the error that answered the last byte; 0 if there was none.
        metadata: of the upload, as in ``Upload-Metadata``.
        created_at: seconds since the epoch.
        expires_at: from this time on, the record does not exist; seconds since the epoch.
    """

    key: str
    url: str
    endpoint: str
    path: str
    size: int
    protocol: str
    version: int = 0
    idempotency_key: str = ""
    parts: tuple[str, ...] = ()
    unfinished_status: int = 0
    metadata: str = ""
    created_at: float
    expires_at: float

    @property
    def parallel(self) -> int:
        """The number of parts of a parallel upload, else 1."""
        return int(self.key.partition(".")[2].partition(".")[0] or 1)

    @property
    def is_part(self) -> bool:
        """Whether this is a part of a parallel upload, which has a record of its own, too."""
        return self.key.count(".") > 1


@runtime_checkable
class Records(Protocol):
    """A place for records. Many threads can use it at once, and many processes the same place."""

    def find(self, key: str) -> ResumeRecord | None:
        """Return the record of a key, unless it has expired."""

    def save(self, record: ResumeRecord) -> None:
        """Save a record in place of the one with its key. It is durable when this returns."""

    def forget(self, key: str) -> None:
        """Remove the record of a key, if there is one."""

    def all(self) -> list[ResumeRecord]:
        """Return the records that have not expired, the oldest first."""

    def prune(self) -> int:
        """Remove the expired records, and return their number."""

    def chunk_limit(self, endpoint: str) -> int | None:
        """Return the size of the largest request that an endpoint takes, as far as it is known."""

    def limit_chunks(self, endpoint: str, size: int) -> None:
        """Remember the size of the largest request that an endpoint takes, for :data:`LIMIT_LIFETIME`."""
