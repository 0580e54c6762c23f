"""Converters of options: one function for each kind of value, from strings of an ini file or from Python objects.

An unacceptable value raises ValueError, whose text says what is accepted.
"""

from __future__ import annotations

import base64
import inspect
import ipaddress
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from enum import StrEnum
from functools import partial
from typing import Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

from tus.http.digests import NAMES
from tus.http.origins import parse as parse_origin
from tus.models import Fsync, HookType, Intent

Handover = Literal["request", "background"]
Interim = Literal["direct", "always", "never"]
#: Origins and patterns as :func:`tus.http.origins.parse` returns them, or a function that decides about an origin.
Origins = tuple[str, ...] | Callable[[str], object]
_Member = TypeVar("_Member", bound=StrEnum)

_TRUE = frozenset({"true", "yes", "on", "y", "t", "1"})
_FALSE = frozenset({"false", "no", "off", "n", "f", "0"})
_SIZE = re.compile(r"([0-9]+)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]+)\s*([smhd]?)", re.IGNORECASE)
_SIZE_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_DURATION_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_BASE_URL = re.compile(r"https?://[^\s/?#@\\]+(/[^\s?#\\]*)?", re.IGNORECASE)
_WEBHOOK = re.compile(r"https?://[^\s/?#@\\]+(/[^\s#]*)?", re.IGNORECASE)
_NAMED_SEGMENT = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}")


def suggestion(word: object, known: Iterable[str]) -> str:
    """Return the end of an error text that names the nearest of the known words; empty if none is near."""
    near = get_close_matches(word.lower(), known, 1) if isinstance(word, str) else []
    return f"; did you mean {near[0]}" if near else ""


def _suggestion_for(words: tuple[str, ...] | None, known: Iterable[str]) -> str:
    """Return the suggestion for the first unknown word."""
    known = list(known)
    return next((suggestion(word, known) for word in words or () if word not in known), "")


def as_bool(value: object) -> bool:
    """Convert a bool, or one of the words that ini files use for true and false."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(f"must be true or false{suggestion(word, sorted(_TRUE | _FALSE))}")


def as_size(value: object) -> int:
    """Convert to bytes: an int, or text such as ``500``, ``10M`` or ``2 GiB`` (powers of 1024)."""
    return _quantity(value, _SIZE, _SIZE_UNITS, "must be a number of bytes, such as 1048576, 10M or 2 GiB")


def as_duration(value: object) -> int:
    """Convert to seconds: an int, or text such as ``3600``, ``90m``, ``12h`` or ``7d``."""
    return _quantity(value, _DURATION, _DURATION_UNITS, "must be a number of seconds, such as 3600, 90m, 12h or 7d")


def _quantity(value: object, pattern: re.Pattern[str], units: Mapping[str, int], problem: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = pattern.fullmatch(value.strip()) if isinstance(value, str) else None
    if not match:
        raise ValueError(problem)
    return int(match[1]) * units[match[2].lower()]


def as_path(value: object) -> str:
    """Convert a path of the file system."""
    text = value if isinstance(value, str) else getattr(value, "__fspath__", str)()
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise ValueError("must be the path of a directory")
    return text


def as_url_path(value: object) -> str:
    """Convert the decoded path of a URL; a slash at its end is dropped. A segment may be a name in braces."""
    text = str(value).strip()
    if not text.startswith("/") or "?" in text or "#" in text or "//" in text or not text.strip("/"):
        raise ValueError("must be the path of a URL, such as /files")
    text = text.rstrip("/")
    named = [segment for segment in text.split("/") if "{" in segment or "}" in segment]
    if not all(map(_NAMED_SEGMENT.fullmatch, named)) or len(set(named)) < len(named):
        raise ValueError("must have different names in braces as whole segments, such as /users/{user}/photos")
    return text


def as_fsync(value: object) -> Fsync:
    """Convert the name of a policy of syncing."""
    if value not in ("none", "finish", "always"):
        raise ValueError(f"must be none, finish or always{suggestion(value, ('none', 'finish', 'always'))}")
    return value


def as_digests(value: object) -> tuple[str, ...]:
    """Convert a list of algorithms to the names of :mod:`tus.checksums`.

    A list is a sequence, or text separated by blanks or commas; also in the other functions here.
    """
    words = _words(value)
    known = {**NAMES, **{algorithm: algorithm for algorithm in NAMES.values()}}
    if words is None or not all(word.lower() in known for word in words):
        near = _suggestion_for(None if words is None else tuple(word.lower() for word in words), known)
        raise ValueError(f"must be some of {', '.join(NAMES)}{near}")
    return tuple(dict.fromkeys(known[word.lower()] for word in words))


def as_handover(value: object) -> Handover:
    """Convert the name of the time when a client gets a success response."""
    if value not in ("request", "background"):
        raise ValueError(f"must be request or background{suggestion(value, ('request', 'background'))}")
    return value


def as_interim(value: object) -> Interim:
    """Convert the name of a group of clients that get interim responses."""
    if value not in ("direct", "always", "never"):
        raise ValueError(f"must be direct, always or never{suggestion(value, ('direct', 'always', 'never'))}")
    return value


def as_protocols(value: object) -> frozenset[str]:
    """Convert a list of protocols; at least one."""
    words = _words(value)
    if not words or not set(words) <= {"tus", "ietf"}:
        raise ValueError(f"must be tus, ietf or both{_suggestion_for(words, ('tus', 'ietf'))}")
    return frozenset(words)


def as_statuses(value: object) -> frozenset[int]:
    """Convert a list of status codes by which an application rejects a file."""
    words = _words(value)
    if words is None or not all(re.fullmatch("4[0-9][0-9]", word) and word not in ("409", "423") for word in words):
        raise ValueError("must be status codes from 400 to 499, except 409 and 423, after which clients retry")
    return frozenset(map(int, words))


def as_hooks(value: object) -> object:
    """Convert an object with methods of hooks, or its name; an empty text gives None."""
    if isinstance(value, str):
        value = _resolve(value, "must be an object with the methods of hooks, or its name, such as mypackage.hooks")
    methods = [hook.method for hook in HookType]
    if value is not None and not any(callable(getattr(value, method, None)) for method in methods):
        has = [name for name in dir(value) if not name.startswith("_")]
        near = next((f"; did you mean {near[0]}" for name in has if (near := get_close_matches(name, methods, 1))), "")
        raise ValueError(f"must have some of the methods {', '.join(methods)}{near}")
    hooks: object = value() if isinstance(value, type) else value
    _check_hashable(hooks)
    return hooks


def as_hook_types(value: object) -> frozenset[HookType]:
    """Convert a list of hooks."""
    return _members(HookType, value)


def as_names(value: object) -> tuple[str, ...]:
    """Convert a list of names of header fields."""
    words = _words(value)
    if words is None or not all(re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", word) for word in words):
        raise ValueError("must be names of header fields, such as Cookie")
    return words


def as_text(value: object) -> str:
    """Convert text of one line; blanks around it are dropped."""
    if not isinstance(value, str):
        raise ValueError("must be text")
    text = value.strip()
    if any(not character.isprintable() for character in text):
        raise ValueError("must be text of one line")
    return text


def as_optional_path(value: object) -> str:
    """Convert a path of the file system, or an empty value."""
    return as_path(value) if value not in ("", None) else ""


def as_group(value: object) -> int | None:
    """Convert the name or the number of a group of this system to its number; an empty value to None."""
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    name = str(value).strip()
    if name.isascii() and name.isdecimal():
        return int(name)
    import grp  # which Windows lacks

    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        raise ValueError("must be the name or the number of a group of this system") from None


def as_origins(value: object) -> Origins:
    """Convert a list of origins and patterns, ``*`` alone, or a function that decides about an origin."""
    if callable(value):
        _check_hashable(value)
        if is_async(value):
            raise ValueError("must be an ordinary function, and cannot be async")
        return value
    return as_listed_origins(value)


def as_listed_origins(value: object) -> tuple[str, ...]:
    """Convert a list of origins and patterns, or ``*`` alone."""
    words = _words(value)
    origins = tuple(origin for word in words or () if (origin := parse_origin(word)) is not None)
    if words is None or len(origins) != len(words) or ("*" in origins and len(origins) > 1):
        raise ValueError(
            "must be * alone, or origins such as https://example.org and https://*.example.org, with * as a whole "
            "label of the host that is not the last"
        )
    return origins


def as_count(value: object) -> int:
    """Convert a number that is not negative."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and re.fullmatch(r"[0-9]+", value.strip()):
        return int(value)
    raise ValueError("must be a number, such as 100")


def as_callable(value: object) -> Callable[..., Any] | None:
    """Convert a callable, or its name as ``package.module:function``; an empty text gives None.

    Resolving a name imports its module, so options are built at start-up.
    """
    problem = "must be callable, or its name, such as mypackage.uploads:authorize"
    if isinstance(value, str):
        value = _resolve(value, problem)
        if value is None:
            return None
    if not callable(value):
        raise ValueError(problem)
    _check_hashable(value)
    return value


def is_async(function: object) -> bool:
    """Return whether the result of a callable must be awaited."""
    while isinstance(function, partial):
        function = function.func
    called = getattr(function, "__call__", None)  # noqa: B004 - an object's __call__ may be async
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def _check_hashable(value: object) -> None:
    try:
        hash(value)
    except TypeError:
        raise ValueError("must be hashable; a dataclass is hashable with frozen=True or eq=False") from None


def _resolve(name: str, problem: str) -> object:
    if not name.strip():
        return None
    try:
        return pkgutil.resolve_name(name.strip())
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{problem} ({error})") from None


def as_intents(value: object) -> frozenset[Intent]:
    """Convert a list of intents, or the word ``all``."""
    if _words(value) == ("all",):
        return frozenset(Intent)
    try:
        return _members(Intent, value)
    except ValueError as error:
        raise ValueError(f"{error}, or all") from None


def as_peers(value: object) -> tuple[str, ...]:
    """Convert a list of addresses and networks, and the word ``unix``."""
    problem = "must be addresses or networks, such as 127.0.0.1 10.0.0.0/8, or unix"
    words = _words(value)
    if words is None:
        raise ValueError(problem)
    try:
        return tuple("unix" if word == "unix" else str(ipaddress.ip_network(word)) for word in words)
    except ValueError:
        raise ValueError(problem) from None


def as_hosts(value: object) -> tuple[str, ...]:
    """Convert a list of names and addresses of hosts, without ports, or ``*`` alone."""
    words = _words(value)
    if words is None or not all(word == "*" or _is_host(word) for word in words):
        raise ValueError("must be * or names of hosts without ports, such as uploads.example.org")
    return words


def _is_host(word: str) -> bool:
    try:
        ipaddress.ip_address(word)
    except ValueError:
        return re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?\.?", word) is not None
    return True


def as_base_url(value: object) -> str:
    """Convert the start of absolute URLs: scheme, host, optional port and path; a slash at its end is dropped."""
    text = str(value).strip().rstrip("/")
    if text and not _BASE_URL.fullmatch(text):
        raise ValueError("must be the start of a URL, such as https://example.org or https://example.org/prefix")
    return text


def as_webhook(value: object) -> str:
    """Convert the URL that hooks are posted to, or an empty value."""
    text = str(value or "").strip()
    if text and not (_WEBHOOK.fullmatch(text) and _has_port_in_range(text)):
        raise ValueError("must be a URL, such as https://example.org/hooks")
    return text


def is_exposed(url: str) -> bool:
    """Return whether an http URL names another host, so that others on the way can read and change what is sent."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme == "http" and not is_loopback(host)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine itself: a loopback address, or a name that stands for one (RFC 6761)."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".").rpartition(".")[2] == "localhost"


def as_secret(value: object) -> str:
    """Convert the secret of a webhook, or an empty value."""
    secret = as_text(value)
    if secret:
        key_of(secret)
    return secret


SHORTEST_KEY: Final = 24  # bytes, from the specification of Standard Webhooks


def key_of(secret: str) -> bytes:
    """Return the bytes of a secret: the Base64 after ``whsec_``, decoded, or the text itself.

    Raises:
        ValueError: the text after ``whsec_`` is not Base64, or there are too few bytes.
    """
    try:
        is_encoded = secret.startswith("whsec_")
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True) if is_encoded else secret.encode()
    except ValueError:
        raise ValueError("must have Base64 after whsec_") from None
    if len(key) < SHORTEST_KEY:
        raise ValueError(
            f"must have at least {SHORTEST_KEY} random bytes, and has {len(key)}; this command makes one: "
            "echo whsec_$(openssl rand -base64 32)"
        )
    return key


def _has_port_in_range(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def _members(kind: type[_Member], value: object) -> frozenset[_Member]:
    known = {str(member): member for member in kind}
    words = _words(value)
    if words is None or not set(words) <= known.keys():
        raise ValueError(f"must be some of {', '.join(known)}{_suggestion_for(words, known)}")
    return frozenset(known[word] for word in words)


def _words(value: object) -> tuple[str, ...] | None:
    """Return the items of a list, or of text separated by blanks or commas; None for another value."""
    words = re.split(r"[\s,]+", value.strip()) if isinstance(value, str) else value
    return tuple(str(word) for word in words if word) if isinstance(words, list | tuple | set | frozenset) else None
