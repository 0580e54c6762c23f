"""Requests and responses as plain values. Pure: no I/O, no HTTP library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tus.client.sources import Source


class Headers(Mapping[str, str]):
    """Header fields by name, whatever its case. The values of a repeated field are joined with a comma."""

    __slots__ = ("_values",)

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        values: dict[str, str] = {}
        for name, value in pairs:
            key = name.lower()
            values[key] = f"{values[key]}, {value}" if key in values else value
        self._values = values

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Headers({list(self._values.items())!r})"


@dataclass(frozen=True, slots=True)
class Body:
    """A part of a source, as the body of a request.

    Attributes:
        source: where the bytes come from.
        offset: the first byte.
        length: the number of bytes.
        trailer: the algorithm of an ``Upload-Checksum`` that follows the body as a trailer; empty for none. Such a body
            is sent in chunks (RFC 9112 section 7.1).
    """

    source: Source
    offset: int
    length: int
    trailer: str = ""


@dataclass(slots=True)
class Request:
    """One request. Content-Length and the caller's own fields are added when it is sent.

    Attributes:
        method: such as ``PATCH``.
        url: absolute.
        headers: fields by name. Hooks may change them.
        body: bytes of a source, or a small body that is there already.
    """

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    body: Body | bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """A final response.

    Attributes:
        status: such as 204.
        headers: the fields.
        body: the content, cut after 1 MiB; empty if it went to a file.
        url: of the request.
    """

    status: int
    headers: Headers
    body: bytes = b""
    url: str = ""

    @property
    def text(self) -> str:
        """The body as text; bytes that are not UTF-8 are replaced."""
        return self.body.decode(errors="replace")

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300
