"""The values that the rooms exchange: the head of a request, a response, an upload. Free of I/O."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from http import HTTPStatus
from typing import Final, Literal, NamedTuple, Protocol

from tus.errors import RequestError
from tus.http.filenames import safe_filename
from tus.http.headers import format_metadata, parse_metadata

#: The names of the protocols in the option ``protocols`` and in records: tus 1.0.0, and Resumable Uploads for HTTP.
TUS: Final = "tus"
IETF: Final = "ietf"


class Traits(NamedTuple):
    """The properties of a protocol that neutral rooms need.

    Attributes:
        offset_is_final: whether the offset must never decrease.
        keeps_answer: whether its clients get the application's own response to the finished file, with the body.
        offers_original: whether the application gets the request that created the upload, with the file as its body.
    """

    offset_is_final: bool
    keeps_answer: bool
    offers_original: bool


PROTOCOLS: Final = {
    TUS: Traits(offset_is_final=False, keeps_answer=False, offers_original=False),
    IETF: Traits(offset_is_final=True, keeps_answer=True, offers_original=True),
}

#: When a store forces data to the disk, see :mod:`tus.stores.directory.store`.
Fsync = Literal["none", "finish", "always"]

#: Returns a true value if a text has the form of an upload's id: 32 lower-case hexadecimal digits, 128 random bits. No
#: other text ever becomes part of a path, so a text of another form names no upload. Every request asks several times.
is_upload_id: Final[Callable[[str], object]] = re.compile(r"[0-9a-f]{32}").fullmatch


def principal_of(value: object) -> str | None:
    """Return a principal as records hold it: None, or text. An int becomes its decimal digits.

    Raises:
        ValueError: the value is neither None nor a text that is not empty nor an int. A bool is no int here, because
            everybody would share the principals "True" and "False".
    """
    if value is None:
        return None
    if isinstance(value, str) and value:
        return str.__str__(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__repr__(value)
    shown = repr(value) if isinstance(value, bool | str) else f"of the type {type(value).__name__}"
    raise ValueError(f"a principal must be None, a text that is not empty, or an int; it is {shown}")


class Intent(StrEnum):
    """The action of a request, for the code that authorizes it."""

    CREATE = "create"
    APPEND = "append"
    HEAD = "head"
    TERMINATE = "terminate"
    CONCATENATE = "concatenate"
    DOWNLOAD = "download"


#: The header fields in :attr:`Request.fields`.
FIELDS: Final = (
    *("Tus-Resumable", "Upload-Offset", "Upload-Length", "Upload-Metadata", "Upload-Defer-Length", "Upload-Concat"),
    *("Upload-Checksum", "Upload-Complete", "Upload-Incomplete", "Upload-Draft-Interop-Version", "Content-Digest"),
    *("Repr-Digest", "Want-Repr-Digest", "Idempotency-Key", "X-HTTP-Method-Override"),
    *("Content-Type", "Content-Length", "Transfer-Encoding", "Expect", "Content-Disposition"),
    *("Content-Encoding", "Content-Language", "Content-Location"),
    *("X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Prefix"),
)


@dataclass(slots=True)
class Request:
    """The head of a request; the adapter keeps the body unread.

    Attributes:
        method: as sent.
        url: absolute, percent-encoded, without the query string.
        headers: a mapping for ``get("Upload-Offset")``, with names in their usual spelling.
        input_terminated: whether the server's stream ends at the end of a body without Content-Length.
        has_body: whether bytes may follow the head; False if the head shows that there are none.
        peer: the address at the other end of the connection, possibly a proxy; empty if there is none.
        native: the framework's own request, for code that knows it: an environ under WSGI, Zope's request.
        query: the query string, percent-encoded, without the question mark.
        mount: the decoded path where the application is mounted: ``SCRIPT_NAME`` under WSGI, ``root_path`` under ASGI.
        path_values: the values of the names in ``upload_path``, such as ``{"user": "7"}`` for ``/users/{user}/photos``.
        is_rerun: whether the framework runs the request again, so that no client has sent it.
        fields: those of :data:`FIELDS` that the request has, by name. The protocols ask for them again and again, and
            a mapping of a framework may take long for each.
        effective_method: the method, or the one in ``X-HTTP-Method-Override`` (tus 1.0.0, Core, Headers). Only a POST
            and a PUT can be overridden: a GET that deletes would invite cross-site requests.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    input_terminated: bool = False
    has_body: bool = True
    peer: str = ""
    native: object = None
    is_rerun: bool = False
    query: str = ""
    mount: str = ""
    path_values: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(init=False, compare=False, repr=False)
    effective_method: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        pick: Callable[[], Mapping[str, str]] | None = getattr(self.headers, "pick_fields", None)
        if pick is not None:  # a mapping that does it in one call
            self.fields = pick()
        else:
            self.fields = {name: value for name in FIELDS if (value := self.headers.get(name)) is not None}
        self.effective_method = self.method
        if self.method in ("POST", "PUT") and "X-HTTP-Method-Override" in self.fields:
            self.effective_method = self.fields["X-HTTP-Method-Override"].strip() or self.method


@dataclass(slots=True)
class Response:
    """A response.

    Attributes:
        status: the HTTP status code.
        reason: the reason phrase.
        headers: pairs of name and value, one character for each byte.
        body: the blocks of the body; if it has ``close()``, that is called at the end.
        saved_as: where the application has saved the file that it responds about, for hooks; it is not sent.
        is_file_taken: whether the application has read, opened or saved that file, as far as is known.
    """

    status: int
    reason: str
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: Iterable[bytes] = ()
    saved_as: str = ""
    is_file_taken: bool = True

    @classmethod
    def of_text(cls, status: int, text: str, reason: str = "", headers: Iterable[tuple[str, str]] = ()) -> Response:
        """Return a short response as plain text; the reason is that of the status by default."""
        body = f"{text}\n".encode()
        described = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
        return cls(status, reason or HTTPStatus(status).phrase, [*described, *headers], (body,))

    @classmethod
    def of_error(cls, error: RequestError) -> Response:
        """Return the response to a refused request, without the fields of a protocol."""
        return cls.of_text(error.status, str(error), error.reason, error.headers)


class State(IntEnum):
    """The state of an upload. The numbers are part of the side-car's format."""

    RECEIVING = 0
    COMPLETE = 1  # every byte is stored; the application was not offered the file, or postponed it
    ACCEPTED = 2  # the application has the file; the record outlives the data for a while
    TERMINATED = 3
    HANDING_OVER = 4  # an attempt has begun, and its outcome is not known yet
    REJECTED = 5  # the application never accepts the file, and is not asked again


class Origin(NamedTuple):
    """The request that created an upload, as the application would have seen it.

    A hand-over without a client uses it, because applications check the host and scheme of each request.

    Attributes:
        url: absolute, percent-encoded. It has the query only where the application gets the original request.
        method: such as ``POST``.
        mount: see :class:`Request`.
        headers: pairs of name and value: the fields that proxies have set, and for an original request the fields that
            describe its body.
        path_values: see :class:`Request`.
    """

    url: str
    method: str = "POST"
    mount: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    path_values: Mapping[str, str] = {}


@dataclass(slots=True, kw_only=True)
class Upload:
    """An upload as it was when it was read.

    It is a value: changing an attribute changes nothing in the store. It is not frozen, because that would triple the
    cost of making one.

    Attributes:
        id: 32 hexadecimal digits.
        offset: bytes stored and counted.
        length: bytes announced, or None while the length is deferred.
        raw_metadata: the ``Upload-Metadata`` field as received, one character for each byte.
        concat: the ``Upload-Concat`` field as received, or None.
        parts: the ids of the parts of a final upload.
        state: see :class:`State`.
        created_at: in seconds since 1970.
        expires_at: in seconds since 1970, or None if it does not expire.
        path: the path of the data, if the store keeps it in a file.
        location: the URL of the data, such as ``s3://bucket/key``, if it lies elsewhere; without credentials.
        principal: the principal that created it, or None without authorization. For others it does not exist.
        is_known: whether a client knows its URL. Created and completed by one request, it is unknown until another
            request names it. An unknown upload is not handed over without a client, because its client starts again.
        attempts: how often it was offered to the application.
        since: when it came into its state, in seconds since 1970; 0 while it is being received.
        is_aside: whether it is set aside, without further automatic attempts, because too many have failed.
        error: the problem of the last attempt, for the operator.
        answer: the response by which the application accepted or rejected it.
        service: the name of the service that created it, see the option ``name``; None if it is not known.
        origin: the request that created it; None if it is not known, or code of the site created it.
        protocol: of its creation, ``tus`` or ``ietf``.
        hashes: the algorithms, by the names of :mod:`tus.checksums`, to compute over the whole file.
        announced: digests of the whole file that the client has announced, by algorithm.
        digests: the computed digests by algorithm; empty before the upload is complete.
        fingerprint: of the request that created it, if that had an ``Idempotency-Key``; else empty.
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
    origin: Origin | None = None
    protocol: str = TUS
    hashes: tuple[str, ...] = ()
    announced: tuple[tuple[str, bytes], ...] = ()
    digests: tuple[tuple[str, bytes], ...] = ()
    fingerprint: str = ""

    @property
    def key(self) -> str:
        """The key of the upload in every hand-over attempt, 32 hexadecimal digits.

        It is not a secret, unlike the id. It is unique, even if a later upload gets the same id.
        """
        seed = f"{self.id} {self.created_at!r}".encode()
        return hashlib.blake2b(seed, digest_size=16, person=b"tus hand-over").hexdigest()

    @property
    def is_partial(self) -> bool:
        """Whether this is a part for a later concatenation, which is never handed over on its own."""
        return self.concat is not None and not self.parts

    @property
    def is_final(self) -> bool:
        """Whether this is the concatenation of other uploads, so that nothing can be appended to it."""
        return bool(self.parts)

    @property
    def is_complete(self) -> bool:
        """Whether every byte is stored, or was before the data was removed."""
        return self.state not in (State.RECEIVING, State.TERMINATED)

    @property
    def is_pending(self) -> bool:
        """Whether the application has neither accepted nor rejected it although it is complete."""
        is_waiting = self.state in (State.COMPLETE, State.HANDING_OVER)
        return is_waiting and (self.concat is None or bool(self.parts))  # it is not partial

    @property
    def metadata(self) -> dict[str, bytes]:
        """The metadata by key, decoded from Base64."""
        return parse_metadata(self.raw_metadata)

    @property
    def text_metadata(self) -> dict[str, str]:
        """The metadata as text; bytes that are not UTF-8 are replaced, so a client's bytes cause no error."""
        return {key: value.decode(errors="replace") for key, value in self.metadata.items()}

    @property
    def filename(self) -> str:
        """The client's name for the file, safe as one segment of a path; the upload's id if there is none."""
        metadata = self.metadata
        name = metadata.get("filename") or metadata.get("name") or b""
        return safe_filename(name.decode(errors="replace"), default=self.id)

    def digest(self, algorithm: str) -> bytes | None:
        """Return the digest of the whole file, or None if it was not computed, or not yet.

        Args:
            algorithm: ``sha256`` or ``sha512``, see the option ``digest``.
        """
        return dict(self.digests).get(algorithm)

    def has_expired(self, now: float) -> bool:
        """Return whether it may be removed. Never true for a pending upload, if a client knows its URL.

        Args:
            now: in seconds since 1970.
        """
        return self.can_expire and self.expires_at is not None and now >= self.expires_at

    @property
    def can_expire(self) -> bool:
        """Whether it is removed at some time: not while it is pending, if a client knows its URL."""
        return not self.is_pending or not self.is_known

    @property
    def offset_is_final(self) -> bool:
        """Whether its protocol forbids that the offset decreases, even after a crash of the machine has lost data."""
        return PROTOCOLS[self.protocol].offset_is_final

    @property
    def original(self) -> Origin | None:
        """The request that the application gets with the file as its body; None if it gets a PATCH or POST of tus."""
        return self.origin if PROTOCOLS[self.protocol].offers_original else None

    @property
    def keeps_answer(self) -> bool:
        """Whether its client gets the application's own response to the finished file, with the body."""
        return PROTOCOLS[self.protocol].keeps_answer


class Readable(Protocol):
    """A source of bytes: ``read(n)`` gives at most n bytes, and none at the end."""

    def read(self, size: int, /) -> bytes: ...


Block = bytes | bytearray | memoryview


class Outcome(StrEnum):
    """The outcome of an attempt to hand an upload over."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    POSTPONED = "postponed"


MEDIA_TYPE: Final = "application/offset+octet-stream"


class HookType(StrEnum):
    """The hooks, in the order of an upload's life."""

    PRE_CREATE = "pre-create"
    POST_CREATE = "post-create"
    POST_RECEIVE = "post-receive"
    PRE_FINISH = "pre-finish"
    POST_FINISH = "post-finish"
    PRE_TERMINATE = "pre-terminate"
    POST_TERMINATE = "post-terminate"

    @property
    def method(self) -> str:
        """The name of the method to call, such as ``pre_create``."""
        return self.value.replace("-", "_")


@dataclass(frozen=True, slots=True)
class HookEvent:
    """One step of an upload's life.

    Attributes:
        type: the step.
        id: the same for every delivery of the event, so that a receiver can recognize repeats.
        upload: as it is at this step; a draft without an id before its creation.
        request: the head of the request that caused the event, or None.
    """

    type: HookType
    id: str
    upload: Upload
    request: Request | None = None


@dataclass(frozen=True, slots=True)
class HookReply:
    """The reply of a hook. Attributes that do not belong to its step are ignored.

    Attributes:
        reject: pre-create: the upload is not created. pre-finish: it is rejected. pre-terminate: it is kept.
        stop: post-receive: the request ends, and the upload is terminated.
        response: the client's response if ``reject`` or ``stop`` is set; else its header fields are added to the
            response.
        metadata: pre-create: replaces all of the client's metadata.
        id: pre-create: the upload's id, 32 lower-case hexadecimal digits that cannot be guessed.
        name: pre-create: the file's name.

    Raises:
        ValueError: the id has another form, or the metadata or the name cannot be ``Upload-Metadata``.
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
