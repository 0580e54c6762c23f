"""What travels between the rooms: the head of a request, a response, an upload. Frozen, and free of I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Protocol

from tus.filenames import safe_filename
from tus.headers import parse_metadata

_UPLOAD_ID = re.compile(r"[0-9a-f]{32}")


def is_upload_id(text: str) -> bool:
    """Whether the text has the form of an upload's id: 32 lower-case hexadecimal digits, 128 random bits.

    Nothing else ever becomes part of a path, so whatever fails here names no upload.
    """
    return _UPLOAD_ID.fullmatch(text) is not None


class Intent(StrEnum):
    """What a request is about to do, for whoever decides whether it may."""

    CREATE = "create"
    APPEND = "append"
    HEAD = "head"
    TERMINATE = "terminate"
    CONCATENATE = "concatenate"
    DOWNLOAD = "download"


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request; the body stays unread where the adapter has it.

    Attributes:
        method: as sent.
        url: absolute, percent-encoded, without the query string.
        headers: what ``get("Upload-Offset")`` works on, with names in their usual spelling.
        input_terminated: whether the server ends the body's stream where a body without Content-Length ends.
        peer: the address at the other end of the connection, a proxy's perhaps; empty where it has none.
        native: the framework's own request, for code that knows it: an environ under WSGI, Zope's request.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    input_terminated: bool = False
    peer: str = ""
    native: object = None


@dataclass(frozen=True, slots=True)
class Response:
    """A response.

    Attributes:
        status: the HTTP status code.
        reason: the reason phrase.
        headers: pairs of name and value, one character for each byte.
        body: the blocks of the body; where it has ``close()``, that is called at the end.
    """

    status: int
    reason: str
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: Iterable[bytes] = ()


class State(IntEnum):
    """Where an upload stands. The numbers are part of the side-car's format."""

    RECEIVING = 0
    COMPLETE = 1  # every byte is stored, the application has not accepted it
    ACCEPTED = 2  # the application has it; the record outlives the data for a while
    TERMINATED = 3


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload as it stood when it was read.

    Attributes:
        id: 32 hexadecimal digits.
        offset: bytes stored and counted.
        length: bytes announced, or None while the client has deferred it.
        raw_metadata: the ``Upload-Metadata`` field as received, one character for each byte.
        concat: the ``Upload-Concat`` field as received, or None.
        parts: the ids that a final upload is made of.
        state: see :class:`State`.
        created_at: in seconds since 1970.
        expires_at: in seconds since 1970, or None where it does not expire.
        path: the stored data, where the store keeps it in a file.
        principal: who created it, None where nobody asked. To another principal it does not exist.
    """

    id: str
    offset: int = 0
    length: int | None = None
    raw_metadata: str = ""
    concat: str | None = None
    parts: tuple[str, ...] = ()
    state: State = State.RECEIVING
    created_at: float = 0.0
    expires_at: float | None = None
    path: str | None = None
    principal: str | None = None

    @property
    def is_partial(self) -> bool:
        """Whether this is a part for a later concatenation, which is never handed over by itself."""
        return self.concat is not None and not self.parts

    @property
    def is_final(self) -> bool:
        """Whether this is the concatenation of other uploads, so that nothing can be appended to it."""
        return bool(self.parts)

    @property
    def is_complete(self) -> bool:
        """Whether every byte is stored."""
        return self.state in (State.COMPLETE, State.ACCEPTED)

    @property
    def metadata(self) -> dict[str, bytes]:
        """The metadata, decoded from Base64, by key."""
        return parse_metadata(self.raw_metadata)

    @property
    def text_metadata(self) -> dict[str, str]:
        """The metadata as text; what is not UTF-8 is replaced, so nothing here may fail on a client's bytes."""
        return {key: value.decode(errors="replace") for key, value in self.metadata.items()}

    @property
    def filename(self) -> str:
        """The client's name for the file, safe as one segment of a path; the upload's id where there is none."""
        metadata = self.text_metadata
        return safe_filename(metadata.get("filename") or metadata.get("name") or "", default=self.id)

    def has_expired(self, now: float) -> bool:
        """Whether it may be removed: partial and unfinished uploads expire, finished files never do by themselves."""
        if self.expires_at is None or now < self.expires_at:
            return False
        return self.state != State.COMPLETE or self.is_partial


class Readable(Protocol):
    """A source of bytes: ``read(n)`` gives at most n bytes, and none at the end."""

    def read(self, size: int, /) -> bytes: ...
