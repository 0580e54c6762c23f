"""The arguments of both clients, checked, and what they make of them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeAlias, TypeVar
from urllib.parse import urlsplit, urlunsplit

from tus.client.commands import Progress, Send
from tus.client.driving import Pacer, body_length, wire_headers
from tus.client.errors import ClientError, ForeignOrigin
from tus.client.flow.context import Settings, origin_of
from tus.client.messages import Request, Response
from tus.client.records.identity import key_of
from tus.client.retry import Retry
from tus.client.sources import Source, guess_type
from tus.client.transports.interface import WireRequest

_TransportT = TypeVar("_TransportT")

Metadata: TypeAlias = Mapping[str, str | bytes]
HeaderSource: TypeAlias = Mapping[str, str] | Callable[[], Any] | None
OnProgress: TypeAlias = Callable[[Progress], Any]

_PROTOCOLS: Final = ("auto", "tus", "ietf")
_DIGESTS: Final = ("sha-256", "sha-512")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """The arguments of both clients, checked.

    Attributes:
        settings: the choices that flows know.
        headers: the caller's own fields, or a callable that returns them.
        credentials: the field of a user and a password, if there are any.
    """

    settings: Settings
    headers: HeaderSource
    credentials: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Means(Generic[_TransportT]):
    """What a driver performs commands with.

    Attributes:
        transport: sends requests.
        arguments: of the client.
        pacer: the limit on the rate of all uploads.
        on_request: as in :class:`~tus.client.Client`, like ``on_response``.
        has_own_session: whether the caller's session adds credentials that cannot be left out.
    """

    transport: _TransportT
    arguments: Arguments
    pacer: Pacer
    on_request: Callable[[Request], Any] | None
    on_response: Callable[[Request, Response], Any] | None
    has_own_session: bool

    def headers(self, command: Send) -> Any:
        """Return the caller's own fields for a request, or an awaitable of them; None where they do not belong.

        Raises:
            ForeignOrigin: they do not belong there, and the caller's session would send its own.
        """
        headers = self.arguments.headers
        if command.has_credentials:
            return headers() if callable(headers) else headers
        if self.has_own_session:
            url = command.request.url
            raise ForeignOrigin(
                f"The server names a URL at {origin_of(url)}, and the session of the caller could send its credentials "
                "there; allow it with trusted_origins=.",
                url=url,
            )
        return None

    def wire(self, command: Send, headers: Mapping[str, str] | None) -> WireRequest:
        """Return a request without its body, with the fields that :meth:`headers` has returned."""
        request, retry = command.request, self.arguments.settings.retry
        credentials = self.arguments.credentials if command.has_credentials else {}
        return WireRequest(
            method=request.method,
            url=request.url,
            headers=wire_headers(request, {**credentials, **(headers or {})}),
            length=body_length(request),
            stall_timeout=retry.stall_timeout,
            answer_timeout=retry.answer_timeout,
            connect_timeout=retry.connect_timeout,
        )


def read_arguments(
    endpoint: str,
    *,
    headers: HeaderSource,
    auth: tuple[str, str] | None,
    protocol: str,
    chunk_size: int | None,
    checksum: str | None,
    digest: str | None,
    retry: Retry,
    override_patch: bool,
    trusted_origins: Iterable[str],
    sends_trailers: bool,
) -> Arguments:
    """Check the arguments of a client.

    Raises:
        ValueError: one has a bad value.
    """
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"the URL of the server must begin with http:// or https://; it is {endpoint!r}")
    if parts.username is not None:  # credentials in a URL would go into logs, and into records of unfinished uploads
        if auth is None:
            auth = parts.username, parts.password or ""
        endpoint = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    if protocol not in _PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(_PROTOCOLS)}; it is {protocol!r}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, or None for no limit; it is {chunk_size}")
    if digest is not None and digest not in _DIGESTS:
        raise ValueError(f"digest must be one of {', '.join(_DIGESTS)}; it is {digest!r}")
    if checksum not in (None, "auto") and checksum not in hashlib.algorithms_available:
        raise ValueError(f"checksum must be 'auto' or an algorithm of hashlib; it is {checksum!r}")
    credentials = {}
    if auth is not None:
        credentials["Authorization"] = "Basic " + base64.b64encode(":".join(auth).encode()).decode()
    settings = Settings(
        endpoint=endpoint,
        protocol=protocol,
        chunk_size=chunk_size,
        checksum=checksum,
        digest=digest,
        retry=retry,
        overrides_method=override_patch,
        trusted=frozenset(origin_of(origin) for origin in trusted_origins),
        can_renew=callable(headers),
        sends_trailers=sends_trailers,
    )
    return Arguments(settings=settings, headers=headers, credentials=credentials)


@contextmanager
def needing_httpx() -> Iterator[None]:
    """Say which package is missing, if an import within fails."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ClientError(f"the client needs {error.name}; install it with: pip install {error.name}") from None


def describe_file(source: Source, metadata: Metadata | None, filename: str | None, filetype: str | None) -> Metadata:
    """Return the metadata of an upload: the caller's, and the file's name and type."""
    described: dict[str, str | bytes] = {}
    name = source.name if filename is None else filename
    if name:
        described["filename"] = name
        filetype = guess_type(name) if filetype is None else filetype
    if filetype:
        described["filetype"] = filetype
    return described | dict(metadata or {})


def record_key(source: Source, endpoint: str, metadata: Metadata) -> str:
    """Return the key under which an upload is remembered; empty for a source that another process cannot have."""
    return "" if source.identity is None else key_of(source.identity, endpoint, metadata)
