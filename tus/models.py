"""What travels between the rooms: the head of a request, a response, an upload. Frozen, and free of I/O."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from http import HTTPStatus
from typing import Final, Literal, NamedTuple, Protocol

from tus.errors import RequestError
from tus.http.filenames import safe_filename
from tus.http.headers import format_metadata, parse_metadata

#: The protocols, as the option ``protocols`` and the records of uploads name them: tus 1.0.0, and Resumable Uploads for
#: HTTP.
TUS: Final = "tus"
IETF: Final = "ietf"


class Traits(NamedTuple):
    """What rooms that know no protocol must know of the one that created an upload.

    Attributes:
        offset_is_final: whether the offset must never decrease.
        keeps_answer: whether its clients get the application's own answer to the finished file, with the body.
    """

    offset_is_final: bool
    keeps_answer: bool


PROTOCOLS: Final = {
    TUS: Traits(offset_is_final=False, keeps_answer=False),
    IETF: Traits(offset_is_final=True, keeps_answer=True),
}

#: When a store forces data to the disk, see :mod:`tus.stores.directory.store`.
Fsync = Literal["none", "finish", "always"]

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


@dataclass(slots=True)
class Request:
    """The head of a request; the body stays unread where the adapter has it.

    Attributes:
        method: as sent.
        url: absolute, percent-encoded, without the query string.
        headers: what ``get("Upload-Offset")`` works on, with names in their usual spelling.
        input_terminated: whether the server ends the body's stream where a body without Content-Length ends.
        peer: the address at the other end of the connection, which may be a proxy; empty where it has none.
        native: the framework's own request, for code that knows it: an environ under WSGI, Zope's request.
        is_rerun: whether the framework runs it again by itself, so that no client has sent it.
        effective_method: the method, or what ``X-HTTP-Method-Override`` puts in its place (tus, "Headers"). Only a POST
            can be overridden: a GET that deletes would be an invitation to cross-site requests.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    input_terminated: bool = False
    peer: str = ""
    native: object = None
    is_rerun: bool = False
    effective_method: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        self.effective_method = self.method
        if self.method == "POST":
            self.effective_method = self.headers.get("X-HTTP-Method-Override", "").strip() or "POST"


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

    @classmethod
    def of_text(cls, status: int, text: str, reason: str = "", headers: Iterable[tuple[str, str]] = ()) -> Response:
        """A short response in words, whose reason is the status's own by default."""
        body = f"{text}\n".encode()
        described = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
        return cls(status, reason or HTTPStatus(status).phrase, [*described, *headers], (body,))

    @classmethod
    def of_error(cls, error: RequestError) -> Response:
        """Return the response to a refused request, without the fields of a protocol."""
        return cls.of_text(error.status, str(error), error.reason, error.headers)


class State(IntEnum):
    """Where an upload stands. The numbers are part of the side-car's format."""

    RECEIVING = 0
    COMPLETE = 1  # every byte is stored; the application has not been asked, or has not said yes or no
    ACCEPTED = 2  # the application has it; the record outlives the data for a while
    TERMINATED = 3
    HANDING_OVER = 4  # the application has been asked, and somebody waits for what it says
    REJECTED = 5  # the application does not want it, and is not asked again


@dataclass(slots=True, kw_only=True)
class Upload:
    """An upload as it stood when it was read.

    It is a value: nothing reads back what is changed in it. It is not frozen, as other values here are, because that
    would triple the cost of making one.

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
        location: the URL of the stored data, such as ``s3://bucket/key``, where the store keeps it elsewhere; without
            credentials.
        principal: who created it, None where nobody asked. To another principal it does not exist.
        is_known: whether a client was told of it. One that was made and completed by the same request is not, until a
            request names it; nobody hands it over without one, because its client has begun again.
        attempts: how often the application was asked to take it.
        since: when it came into its state, in seconds since 1970; 0 while it is being received.
        is_aside: whether nobody asks the application again by himself, because that was in vain too often.
        error: what went wrong at the last attempt, for the operator.
        answer: what the application said when it accepted or rejected it.
        service: the name of the service that created it, see the option ``name``; None where that is not known.
        protocol: the one that it was created by, ``tus`` or ``ietf``.
        hashes: the algorithms, by the names of :mod:`tus.checksums`, that are to be computed over the whole file.
        announced: digests of the whole file that its client has announced, by algorithm.
        digests: those that were computed, by algorithm; empty before the upload is complete.
    """

    id: str = ""
    offset: int = 0
    length: int | None = None
    raw_metadata: str = ""
    concat: str | None = None
    parts: tuple[str, ...] = ()
    state: State = State.RECEIVING
    created_at: float = 0.0
    expires_at: float | None = None
    path: str | None = None
    location: str | None = None
    principal: str | None = None
    is_known: bool = True
    attempts: int = 0
    since: float = 0.0
    is_aside: bool = False
    error: str | None = None
    answer: Response | None = None
    service: str | None = None
    protocol: str = TUS
    hashes: tuple[str, ...] = ()
    announced: tuple[tuple[str, bytes], ...] = ()
    digests: tuple[tuple[str, bytes], ...] = ()

    @property
    def key(self) -> str:
        """What stays the same over all attempts to hand it over, 32 hexadecimal digits.

        It is no secret, as the id is; another upload has another one, also one that has got the same id later.
        """
        seed = f"{self.id} {self.created_at!r}".encode()
        return hashlib.blake2b(seed, digest_size=16, person=b"tus hand-over").hexdigest()

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
        """Whether every byte is stored, or was."""
        return self.state not in (State.RECEIVING, State.TERMINATED)

    @property
    def is_pending(self) -> bool:
        """Whether the application is still to take it."""
        return self.state in (State.COMPLETE, State.HANDING_OVER) and not self.is_partial

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

    def digest(self, algorithm: str) -> bytes | None:
        """The digest of the whole file, None where it was not computed, or not yet.

        Args:
            algorithm: ``sha256`` or ``sha512``, see the option ``digest``.
        """
        return dict(self.digests).get(algorithm)

    def has_expired(self, now: float) -> bool:
        """Whether it may be removed. A file that the application is still to take never is, if a client knows of it."""
        return self.can_expire and self.expires_at is not None and now >= self.expires_at

    @property
    def can_expire(self) -> bool:
        """Whether it is removed some day."""
        return not self.is_pending or not self.is_known

    @property
    def offset_is_final(self) -> bool:
        """Whether its protocol forbids that the offset decreases, even after the machine has lost data."""
        return PROTOCOLS[self.protocol].offset_is_final

    @property
    def keeps_answer(self) -> bool:
        """Whether its client gets the application's own answer to the finished file, with the body."""
        return PROTOCOLS[self.protocol].keeps_answer


class Readable(Protocol):
    """A source of bytes: ``read(n)`` gives at most n bytes, and none at the end."""

    def read(self, size: int, /) -> bytes: ...


Block = bytes | bytearray | memoryview


class Outcome(StrEnum):
    """What came of an attempt."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    POSTPONED = "postponed"


MEDIA_TYPE: Final = "application/offset+octet-stream"


class HookType(StrEnum):
    """The hooks, in the order in which an upload comes to them."""

    PRE_CREATE = "pre-create"
    POST_CREATE = "post-create"
    POST_RECEIVE = "post-receive"
    PRE_FINISH = "pre-finish"
    POST_FINISH = "post-finish"
    PRE_TERMINATE = "pre-terminate"
    POST_TERMINATE = "post-terminate"

    @property
    def method(self) -> str:
        """The name of the method that is called, such as ``pre_create``."""
        return self.value.replace("-", "_")


@dataclass(frozen=True, slots=True)
class HookEvent:
    """One step of an upload's life.

    Attributes:
        type: which step.
        id: stays the same when the event is told again, so that whoever hears it can tell.
        upload: as it stands; a draft without an id before it is created.
        request: the head of the request that caused it; None where there is none.
    """

    type: HookType
    id: str
    upload: Upload
    request: Request | None = None


@dataclass(frozen=True, slots=True)
class HookReply:
    """What a hook can answer. What does not belong to its step is ignored.

    Attributes:
        reject: pre-create: the upload is not made. pre-finish: it is rejected. pre-terminate: it is kept.
        stop: post-receive: the request ends, and the upload is terminated.
        response: what the client hears where one of them is set; else its header fields are added to the reply.
        metadata: pre-create: takes the place of the client's metadata as a whole.
        id: pre-create: the upload's id, 32 lower-case hexadecimal digits that nobody can guess.
        name: pre-create: the file's name.

    Raises:
        ValueError: the id is none, or the metadata or the name cannot be ``Upload-Metadata``.
    """

    reject: bool = False
    stop: bool = False
    response: Response | None = None
    metadata: Mapping[str, str | bytes] | None = None
    id: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.id is not None and not is_upload_id(self.id):
            raise ValueError("the id of an upload must be 32 lower-case hexadecimal digits")
        named = {} if self.name is None else {"filename": self.name}
        format_metadata({**(self.metadata or {}), **named})
