"""Origins of web pages (RFC 6454): exact ones, and patterns with one ``*``. Pure.

A pattern never matches another scheme or port, and ``*`` stands for whole labels of the host, so that
``https://*.example.org`` is no other domain that ends with the same letters.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

ANY: Final = "*"
#: The origin of documents that have none of their own, such as a sandboxed frame or a local file.
NULL: Final = "null"

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?")
_PATTERN = re.compile(rf"([a-z][a-z0-9+.-]*)://((?:{_LABEL}\.)*\*(?:\.{_LABEL})+)(?::([0-9]{{1,5}}))?")
_DEFAULT_PORTS: Final = {"http": "80", "https": "443", "ws": "80", "wss": "443"}


def parse(text: str) -> str | None:
    """Return an origin or a pattern in the spelling of browsers: lower case, no default port, no slash at its end.

    Returns:
        None if the text is neither.
    """
    text = text.lower().removesuffix("/")
    if text in (ANY, NULL):
        return text
    match = (_PATTERN if "*" in text else _ORIGIN).fullmatch(text)
    if match is None:
        return None
    scheme, host, port = match.groups()
    return f"{scheme}://{host}" if port in (None, _DEFAULT_PORTS.get(scheme)) else f"{scheme}://{host}:{port}"


def is_origin(text: str) -> bool:
    """Return whether a client's ``Origin`` is one origin in the spelling of browsers."""
    return text == NULL or _ORIGIN.fullmatch(text) is not None


def matches(origin: str, allowed: tuple[str, ...]) -> bool:
    """Return whether one of the allowed origins or patterns is, or matches, an origin.

    Args:
        origin: as the client sent it.
        allowed: results of :func:`parse`.
    """
    if ANY in allowed:
        return True
    origin = origin.lower()
    if "*" in origin:
        return False
    if origin in allowed:
        return True
    return any("*" in pattern and _compiled(pattern).fullmatch(origin) is not None for pattern in allowed)


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    """Return the expression of a pattern: ``*`` is one label, or one and more as the first label."""
    scheme, _, rest = pattern.partition("://")
    before, _, after = rest.partition("*")
    labels = _LABEL if before else rf"{_LABEL}(?:\.{_LABEL})*"
    return re.compile(f"{re.escape(scheme)}://{re.escape(before)}{labels}{re.escape(after)}")
