"""What all the flows of one client share: its settings, and what it has learned about the server."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from tus.client.capabilities import Capabilities
from tus.client.records.interface import Records
from tus.client.retry import Retry

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Settings:
    """The choices of the caller.

    Attributes:
        endpoint: the URL that creates uploads.
        protocol: ``auto``, ``tus`` or ``ietf``.
        chunk_size: the most bytes of one request; None for no limit.
        checksum: ``auto``, the name of an algorithm, or None.
        digest: the algorithm of a digest of the whole file, or None.
        retry: how long to go on after failures.
        overrides_method: whether PATCH and DELETE go as POST.
        trusted: origins that get the caller's credentials, beside the endpoint's.
        can_renew: whether the caller's header fields may change by being asked for again.
        sends_trailers: whether the HTTP library can send a checksum after the body.
    """

    endpoint: str
    protocol: str = "auto"
    chunk_size: int | None = None
    checksum: str | None = None
    digest: str | None = None
    retry: Retry = field(default_factory=Retry)
    overrides_method: bool = False
    trusted: frozenset[str] = frozenset()
    can_renew: bool = False
    sends_trailers: bool = False


@dataclass(slots=True)
class Context:
    """What the flows of one client share.

    Attributes:
        settings: the choices of the caller.
        records: what is known about unfinished uploads.
        capabilities: what the server offers; None until a flow has asked.
        version: the interop version that the server has accepted; None until then.
        most: the most bytes of one request that went through; None until one was too large.
        now: returns seconds since 1970.
        chance: returns a number from 0 to 1.
        new_key: returns a new ``Idempotency-Key``.
    """

    settings: Settings
    records: Records
    capabilities: Capabilities | None = None
    version: int | None = None
    most: int | None = None
    now: Callable[[], float] = time.time
    chance: Callable[[], float] = random.random
    new_key: Callable[[], str] = lambda: str(uuid.uuid4())

    def trusts(self, url: str) -> bool:
        """Return whether a URL may get the caller's credentials."""
        origin = origin_of(url)
        return origin == origin_of(self.settings.endpoint) or origin in self.settings.trusted


def origin_of(url: str) -> str:
    """Return the origin of a URL, such as ``https://example.org:8443``."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    port = parts.port
    return f"{scheme}://{host}" if port in (None, _DEFAULT_PORTS.get(scheme)) else f"{scheme}://{host}:{port}"
