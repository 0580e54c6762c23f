"""Typed options, and the only place that turns the strings of an ini file into types.

An unknown option, a bad value or a conflict raises :class:`~tus.errors.OptionError` when the options are built,
which is at start-up; nothing after this room looks at a string to learn what an operator meant.
"""

from __future__ import annotations

import ipaddress
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import lru_cache
from typing import Any, Literal

from tus.errors import OptionError
from tus.models import Intent, Request, Upload

Fsync = Literal["none", "finish", "always"]

#: Decides whether a request may do what it intends, and names its principal: ``authorize(request, intent, upload)``.
Authorize = Callable[[Request, Intent, Upload], object]

_TRUE = frozenset({"true", "yes", "on", "y", "t", "1"})
_FALSE = frozenset({"false", "no", "off", "n", "f", "0"})
_SIZE = re.compile(r"([0-9]+)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]+)\s*([smhd]?)", re.IGNORECASE)
_SIZE_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_DURATION_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_BASE_URL = re.compile(r"https?://[^\s/?#@\\]+(/[^\s?#\\]*)?", re.IGNORECASE)
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
        if not value.strip():
            return None
        try:
            value = pkgutil.resolve_name(value.strip())
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"{problem} ({error})") from None
    if not callable(value):
        raise ValueError(problem)
    return value


def as_intents(value: object) -> frozenset[Intent]:
    """Intents, from a sequence or from text separated by blanks or commas."""
    known = {str(intent): intent for intent in Intent}
    words = _words(value)
    if words is None or not set(words) <= known.keys():
        raise ValueError(f"must be some of {', '.join(known)}")
    return frozenset(known[word] for word in words)


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


def _words(value: object) -> tuple[str, ...] | None:
    """What a list is made of, where a text is one too; None where it is no list."""
    words = re.split(r"[\s,]+", value.strip()) if isinstance(value, str) else value
    return tuple(str(word) for word in words if word) if isinstance(words, list | tuple | set | frozenset) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What an operator can decide. Build it by :meth:`build`, once, and share it.

    Attributes:
        tmp_file_dir: the directory of the uploads. Its last level is created where missing, with mode 0700.
        upload_path: the URL path that creates uploads, counted from the root of the site; None in a view, which is
            found by the framework's own routing.
        send_file: whether the application gets the finished file itself as the request's body, or its path.
        upload_valid_duration: seconds after its last byte that an unfinished upload is kept; 0 means for ever.
        completed_keep: seconds that the record of an accepted upload is kept, for a client that lost the last reply.
        keep_finished: whether the data of an accepted upload is kept as long as its record, instead of being removed.
        download: whether finished uploads that are kept can be downloaded from their URL.
        max_size: the largest upload, in bytes; 0 means no limit.
        max_metadata_size: the longest ``Upload-Metadata`` field, in bytes; 0 means no limit.
        fsync: when data is forced to the disk, see :mod:`tus.stores.directory`.
        cors_allow_origin: the origins whose pages may upload; none but the same origin by default, ``*`` for any.
        cors_allow_credentials: whether those pages may send cookies.
        authorize: decides whether a request may do what it intends, see :data:`Authorize`. It refuses by raising
            :class:`~tus.errors.Unauthorized` or :class:`~tus.errors.Forbidden`, and returns the principal or None.
        ask_app: the intents for which a :class:`~tus.filter.Filter` asks its application first.
        max_uploads: the most uploads that may be unfinished at a time; 0 means no limit, here and in what follows.
        max_total_size: the most bytes that unfinished uploads may have together.
        max_uploads_per_principal: the same for each principal.
        max_total_size_per_principal: the same for each principal.
        keep_free: bytes of the disk that uploads must leave free. With it, space is reserved when an upload is created.
        stall_timeout: seconds without a byte after which a connection counts as cut, where the server lets us see it.
        min_rate: bytes a second, over any ``stall_timeout``, below which a connection counts as cut.
        trusted_proxies: the addresses and networks whose forwarding headers count, ``unix`` for a Unix socket.
        base_url: what the URLs of uploads begin with, before the application's own path; from the request by default.
    """

    tmp_file_dir: str
    upload_path: str | None = None
    send_file: bool = False
    upload_valid_duration: int = 86400
    completed_keep: int = 86400
    keep_finished: bool = False
    download: bool = False
    max_size: int = 0
    max_metadata_size: int = 4096
    fsync: Fsync = "finish"
    cors_allow_origin: tuple[str, ...] = ()
    cors_allow_credentials: bool = False
    authorize: Authorize | None = None
    ask_app: frozenset[Intent] = frozenset()
    max_uploads: int = 0
    max_total_size: int = 0
    max_uploads_per_principal: int = 0
    max_total_size_per_principal: int = 0
    keep_free: int = 0
    stall_timeout: int = 60
    min_rate: int = 0
    trusted_proxies: tuple[str, ...] = ()
    base_url: str = ""

    @classmethod
    def build(cls, **values: object) -> Options:
        """Options from typed values or from the strings of an ini file.

        Raises:
            OptionError: an option is unknown or missing, has a bad value, or conflicts with another.
        """
        # With the type, because True is equal to 1 and yet another value.
        items = tuple((name, type(values[name]), _hashable(values[name])) for name in sorted(values))
        try:
            return _build(items)
        except TypeError:  # a value that cannot be hashed is a bad one: let its converter say so
            return _build.__wrapped__(items)


def _hashable(value: object) -> object:
    return tuple(value) if isinstance(value, list | set | frozenset) else value


_CONVERTERS: dict[str, Callable[[object], object]] = {
    "tmp_file_dir": as_path,
    "upload_path": as_url_path,
    "send_file": as_bool,
    "upload_valid_duration": as_duration,
    "completed_keep": as_duration,
    "keep_finished": as_bool,
    "download": as_bool,
    "max_size": as_size,
    "max_metadata_size": as_size,
    "fsync": as_fsync,
    "cors_allow_origin": as_origins,
    "cors_allow_credentials": as_bool,
    "authorize": as_callable,
    "ask_app": as_intents,
    "max_uploads": as_count,
    "max_total_size": as_size,
    "max_uploads_per_principal": as_count,
    "max_total_size_per_principal": as_size,
    "keep_free": as_size,
    "stall_timeout": as_duration,
    "min_rate": as_size,
    "trusted_proxies": as_peers,
    "base_url": as_base_url,
}


# A ``Tus`` is made for each request, usually from the same few keywords: they are looked at once.
@lru_cache(maxsize=64)
def _build(items: tuple[tuple[str, type, object], ...]) -> Options:
    converted: dict[str, Any] = {}
    for name, _, value in items:
        converter = _CONVERTERS.get(name)
        if converter is None:
            raise OptionError(name, f"is unknown; known are {', '.join(_CONVERTERS)}")
        try:
            converted[name] = converter(value)
        except ValueError as error:
            raise OptionError(name, f"{error}; it is {value!r}") from None
    for option in fields(Options):
        if option.default is MISSING and option.name not in converted:
            raise OptionError(option.name, "is required")
    options = Options(**converted)
    if options.keep_finished and not options.completed_keep:
        raise OptionError("keep_finished", "cannot be true while completed_keep is 0; say how long to keep it there")
    if options.min_rate and not options.stall_timeout:
        raise OptionError("min_rate", "is measured over stall_timeout, which cannot be 0 then")
    if options.cors_allow_credentials and "*" in options.cors_allow_origin:
        raise OptionError("cors_allow_credentials", "cannot be true while cors_allow_origin is *; list the origins")
    return options
