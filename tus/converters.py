"""From the strings of an ini file, or from what a caller gives, to types: one function for each kind of value.

What does not fit raises ValueError, whose text says what is accepted.
"""

from __future__ import annotations

import inspect
import ipaddress
import pkgutil
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from tus.http.digests import NAMES
from tus.models import Fsync, HookType, Intent

Handover = Literal["request", "background"]
Interim = Literal["direct", "always", "never"]
_Member = TypeVar("_Member", bound=StrEnum)

_TRUE = frozenset({"true", "yes", "on", "y", "t", "1"})
_FALSE = frozenset({"false", "no", "off", "n", "f", "0"})
_SIZE = re.compile(r"([0-9]+)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]+)\s*([smhd]?)", re.IGNORECASE)
_SIZE_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_DURATION_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_BASE_URL = re.compile(r"https?://[^\s/?#@\\]+(/[^\s?#\\]*)?", re.IGNORECASE)
_WEBHOOK = re.compile(r"https?://[^\s/?#@\\]+(/[^\s#]*)?", re.IGNORECASE)
_ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^/\s,*]+", re.IGNORECASE)


def as_bool(value: object) -> bool:
    """True or False, from a bool or from one of the words that ini files use for them."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("must be true or false")


def as_size(value: object) -> int:
    """A number of bytes, from an int or from text such as ``500``, ``10M`` or ``2 GiB`` (powers of 1024)."""
    return _quantity(value, _SIZE, _SIZE_UNITS, "must be a number of bytes, such as 1048576, 10M or 2 GiB")


def as_duration(value: object) -> int:
    """A number of seconds, from an int or from text such as ``3600``, ``90m``, ``12h`` or ``7d``."""
    return _quantity(value, _DURATION, _DURATION_UNITS, "must be a number of seconds, such as 3600, 90m, 12h or 7d")


def _quantity(value: object, pattern: re.Pattern[str], units: Mapping[str, int], problem: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = pattern.fullmatch(value.strip()) if isinstance(value, str) else None
    if not match:
        raise ValueError(problem)
    return int(match[1]) * units[match[2].lower()]


def as_path(value: object) -> str:
    """A path of the file system."""
    text = value if isinstance(value, str) else getattr(value, "__fspath__", str)()
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise ValueError("must be the path of a directory")
    return text


def as_url_path(value: object) -> str:
    """The path of a URL, decoded; a slash at its end is dropped."""
    text = str(value).strip()
    if not text.startswith("/") or "?" in text or "#" in text or "//" in text or not text.strip("/"):
        raise ValueError("must be the path of a URL, such as /files")
    return text.rstrip("/")


def as_fsync(value: object) -> Fsync:
    """One of the three policies."""
    if value not in ("none", "finish", "always"):
        raise ValueError("must be none, finish or always")
    return value


def as_digests(value: object) -> tuple[str, ...]:
    """Algorithms, from a sequence or from text separated by blanks or commas, to the names of :mod:`tus.checksums`."""
    words = _words(value)
    known = {**NAMES, **{algorithm: algorithm for algorithm in NAMES.values()}}
    if words is None or not all(word.lower() in known for word in words):
        raise ValueError(f"must be some of {', '.join(NAMES)}")
    return tuple(dict.fromkeys(known[word.lower()] for word in words))


def as_handover(value: object) -> Handover:
    """When a client hears success."""
    if value not in ("request", "background"):
        raise ValueError("must be request or background")
    return value


def as_interim(value: object) -> Interim:
    """To which clients interim responses are sent."""
    if value not in ("direct", "always", "never"):
        raise ValueError("must be direct, always or never")
    return value


def as_protocols(value: object) -> frozenset[str]:
    """Protocols by their names, from a sequence or from text separated by blanks or commas; at least one."""
    words = _words(value)
    if not words or not set(words) <= {"tus", "ietf"}:
        raise ValueError("must be tus, ietf or both")
    return frozenset(words)


def as_statuses(value: object) -> frozenset[int]:
    """Status codes by which an application rejects, from a sequence or from text separated by blanks or commas."""
    words = _words(value)
    if words is None or not all(re.fullmatch("4[0-9][0-9]", word) and word not in ("409", "423") for word in words):
        raise ValueError("must be status codes from 400 to 499, without 409 and 423, after which clients try again")
    return frozenset(map(int, words))


def as_hooks(value: object) -> object:
    """An object with methods named as the hooks are, or its name; None from an empty text."""
    if isinstance(value, str):
        value = _resolved(value, "must be an object with the methods of hooks, or its name, such as mypackage.hooks")
    methods = [hook.method for hook in HookType]
    if value is not None and not any(callable(getattr(value, method, None)) for method in methods):
        raise ValueError(f"must have some of the methods {', '.join(methods)}")
    hooks: object = value() if isinstance(value, type) else value
    _check_hashable(hooks)
    return hooks


def as_hook_types(value: object) -> frozenset[HookType]:
    """Hooks by their names, from a sequence or from text separated by blanks or commas."""
    return _members(HookType, value)


def as_names(value: object) -> tuple[str, ...]:
    """Names of header fields, from a sequence or from text separated by blanks or commas."""
    words = _words(value)
    if words is None or not all(re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", word) for word in words):
        raise ValueError("must be names of header fields, such as Cookie")
    return words


def as_text(value: object) -> str:
    """Text; blanks around it are dropped."""
    if not isinstance(value, str):
        raise ValueError("must be text")
    text = value.strip()
    if any(not character.isprintable() for character in text):
        raise ValueError("must be text of one line")
    return text


def as_optional_path(value: object) -> str:
    """A path of the file system, or nothing."""
    return as_path(value) if value not in ("", None) else ""


def as_origins(value: object) -> tuple[str, ...]:
    """Origins as browsers write them, from a sequence or from text separated by blanks or commas; or ``*``."""
    words = _words(value)
    origins = tuple(word.rstrip("/") for word in words or ())
    if (
        words is None
        or not all(_ORIGIN.fullmatch(origin) for origin in origins)
        or ("*" in origins and len(origins) > 1)
    ):
        raise ValueError("must be * alone, or origins such as https://example.org")
    return origins


def as_count(value: object) -> int:
    """A number of things."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and re.fullmatch(r"[0-9]+", value.strip()):
        return int(value)
    raise ValueError("must be a number, such as 100")


def as_callable(value: object) -> Callable[..., Any] | None:
    """Something to call, or its name as ``package.module:function``; None from an empty text.

    Resolving a name imports its module, which is why options are built at start-up.
    """
    problem = "must be callable, or its name, such as mypackage.uploads:authorize"
    if isinstance(value, str):
        value = _resolved(value, problem)
        if value is None:
            return None
    if not callable(value):
        raise ValueError(problem)
    _check_hashable(value)
    return value


def is_async(function: object) -> bool:
    """Whether what it returns is to be awaited."""
    while isinstance(function, partial):
        function = function.func
    called = getattr(function, "__call__", None)  # noqa: B004 - that of an object may be async
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def _check_hashable(value: object) -> None:
    try:
        hash(value)
    except TypeError:
        raise ValueError("must be hashable; a dataclass is with frozen=True or eq=False") from None


def _resolved(name: str, problem: str) -> object:
    if not name.strip():
        return None
    try:
        return pkgutil.resolve_name(name.strip())
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{problem} ({error})") from None


def as_intents(value: object) -> frozenset[Intent]:
    """Intents, from a sequence or from text separated by blanks or commas."""
    return _members(Intent, value)


def as_peers(value: object) -> tuple[str, ...]:
    """Addresses and networks, from a sequence or from text separated by blanks or commas, and the word ``unix``."""
    problem = "must be addresses or networks, such as 127.0.0.1 10.0.0.0/8, or unix"
    words = _words(value)
    if words is None:
        raise ValueError(problem)
    try:
        return tuple("unix" if word == "unix" else str(ipaddress.ip_network(word)) for word in words)
    except ValueError:
        raise ValueError(problem) from None


def as_base_url(value: object) -> str:
    """The start of absolute URLs: scheme, host, perhaps a port and a path; a slash at its end is dropped."""
    text = str(value).strip().rstrip("/")
    if text and not _BASE_URL.fullmatch(text):
        raise ValueError("must be the start of a URL, such as https://example.org or https://example.org/prefix")
    return text


def as_webhook(value: object) -> str:
    """The URL that hooks are posted to, or nothing."""
    text = str(value or "").strip()
    if text and not (_WEBHOOK.fullmatch(text) and _has_port_in_range(text)):
        raise ValueError("must be a URL, such as https://example.org/hooks")
    return text


def _has_port_in_range(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def _members(kind: type[_Member], value: object) -> frozenset[_Member]:
    known = {str(member): member for member in kind}
    words = _words(value)
    if words is None or not set(words) <= known.keys():
        raise ValueError(f"must be some of {', '.join(known)}")
    return frozenset(known[word] for word in words)


def _words(value: object) -> tuple[str, ...] | None:
    """What a list is made of, where a text is one too; None where it is no list."""
    words = re.split(r"[\s,]+", value.strip()) if isinstance(value, str) else value
    return tuple(str(word) for word in words if word) if isinstance(words, list | tuple | set | frozenset) else None
