"""Typed options, and the only place that turns the strings of an ini file into types.

An unknown option, a bad value or a conflict raises :class:`~tus.errors.OptionError` when the options are built,
which is at start-up; nothing after this room looks at a string to learn what an operator meant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, lru_cache
from typing import Any

from tus.converters import (
    Handover,
    Interim,
    as_base_url,
    as_bool,
    as_callable,
    as_count,
    as_digests,
    as_duration,
    as_fsync,
    as_handover,
    as_hook_types,
    as_hooks,
    as_intents,
    as_interim,
    as_names,
    as_optional_path,
    as_origins,
    as_peers,
    as_protocols,
    as_size,
    as_statuses,
    as_text,
    as_url_path,
    as_webhook,
    is_async,
)
from tus.errors import OptionError
from tus.models import Fsync, HookType, Intent, Request, Upload

#: Decides whether a request may do what it intends, and names its principal: ``authorize(request, intent, upload)``.
Authorize = Callable[[Request, Intent, Upload], object]

#: Takes a finished upload. What it returns does not matter; it rejects by raising :class:`~tus.errors.Rejected`, and
#: after any other exception it is asked again.
OnFinished = Callable[[Upload], object]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What an operator can decide. Build it by :meth:`build`, once, and share it.

    Attributes:
        tmp_file_dir: the directory of the uploads. Its last level is created where missing, with mode 0700.
        store: the URL of another store, such as ``memory:``, in place of ``tmp_file_dir``.
        name: what uploads remember of their service, so that their files go to no other receiver; by default
            ``upload_path``. Two services over one directory must have different names.
        threads: whether daemon threads remove what has expired, hand over without a client, and deliver events. Where
            they do not, ``tus clean`` and ``tus handover`` do.
        upload_path: the URL path that creates uploads, counted from the root of the site; None in a view, which is
            found by the framework's own routing.
        send_file: whether the application gets the finished file itself as the request's body, or its path.
        upload_valid_duration: seconds after its last byte that an unfinished upload is kept; 0 means for ever.
        completed_keep: seconds that the record of an accepted upload is kept, for a client that lost the last reply.
        keep_finished: whether the data of an accepted upload is kept as long as its record, instead of being removed.
        download: whether finished uploads that are kept can be downloaded from their URL.
        max_size: the largest upload, in bytes; 0 means no limit.
        max_metadata_size: the longest ``Upload-Metadata`` field, in bytes; 0 means no limit.
        digest: the algorithms of the digests that are computed of each whole file.
        fsync: when data is forced to the disk, see :mod:`tus.stores.directory.store`.
        cors_allow_origin: the origins whose pages may upload; none but the same origin by default, ``*`` for any.
        cors_allow_credentials: whether those pages may send cookies.
        protocols: those that are spoken, ``tus`` for tus 1.0.0 and ``ietf`` for Resumable Uploads for HTTP.
        interim: when interim responses are sent that tell a client of the IETF protocol where to resume: to clients
            that are connected ``direct``, as far as one can see, ``always`` or ``never``. Many proxies fail over one.
        min_size: bytes of the smallest upload that is worth resuming, as a client of the IETF protocol is told.
        max_append_size: the most bytes of one request of the IETF protocol; 0 means no limit.
        min_append_size: the fewest bytes of one request of the IETF protocol that does not end the upload.
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
        handover: when a client hears success: once the application has accepted the file that its ``request`` has
            completed, or once the file is durable, and then the application gets it in the ``background``.
        handover_attempts: how often the application is asked before a file is put aside; 0 means that it is asked
            only together with a client's request.
        reject_statuses: the statuses by which an application says that it does not want a file.
        rejected_keep: seconds that a rejected file is kept.
        on_finished: takes finished uploads in the place of the application: ``on_finished(upload)``.
        spool: the directory of a spool that takes them instead, see :mod:`tus.spool`.
        hooks: an object with methods named ``pre_create`` and so on, see :mod:`tus.hooks.events`.
        webhook: the URL that hooks are posted to, see :mod:`tus.hooks.webhook`.
        webhook_secret: what its requests are signed with.
        webhook_events: the hooks that are posted.
        webhook_forward_headers: the credentials of clients, such as ``Cookie``, that are passed on to it.
    """

    tmp_file_dir: str = ""
    store: str = ""
    name: str = ""
    threads: bool = True
    upload_path: str | None = None
    send_file: bool = False
    upload_valid_duration: int = 86400
    completed_keep: int = 86400
    keep_finished: bool = False
    download: bool = False
    max_size: int = 0
    max_metadata_size: int = 4096
    digest: tuple[str, ...] = ()
    fsync: Fsync = "finish"
    cors_allow_origin: tuple[str, ...] = ()
    cors_allow_credentials: bool = False
    protocols: frozenset[str] = frozenset({"tus", "ietf"})
    interim: Interim = "direct"
    min_size: int = 0
    max_append_size: int = 0
    min_append_size: int = 0
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
    handover: Handover = "request"
    handover_attempts: int = 20
    reject_statuses: frozenset[int] = frozenset({400, 403, 410, 413, 415, 422})
    rejected_keep: int = 86400
    on_finished: OnFinished | None = None
    spool: str = ""
    hooks: object = None
    webhook: str = ""
    webhook_secret: str = ""
    webhook_events: frozenset[HookType] = frozenset(HookType) - {HookType.PRE_FINISH, HookType.PRE_TERMINATE}
    webhook_forward_headers: tuple[str, ...] = ()

    @cached_property
    def service_name(self) -> str:
        """The name of the service that has these options."""
        return self.name or self.upload_path or ""

    @cached_property
    def has_hooks(self) -> bool:
        """Whether there are hooks for the steps of an upload's life."""
        return bool(self.webhook) or self.hooks is not None

    @cached_property
    def asks(self) -> bool:
        """Whether it must be asked what a request may do."""
        return self.authorize is not None or bool(self.ask_app)

    @classmethod
    def build(cls, **values: object) -> Options:
        """Options from typed values or from the strings of an ini file.

        Raises:
            OptionError: an option is unknown or missing, has a bad value, or conflicts with another.
        """
        options = cls.build_async(**values)
        for name in ("authorize", "on_finished"):
            if is_async(getattr(options, name)):
                raise OptionError(name, "must be an ordinary function; nobody would await an async one")
        return options

    @classmethod
    def build_async(cls, **values: object) -> Options:
        """The same for an ASGI application, where ``authorize``, ``on_finished`` and hooks may be ``async``."""
        if any(name in values for name in _CALLED):  # a closure of a request must not outlive it in a cache
            return _build.__wrapped__(tuple((name, object, values[name]) for name in values))
        # With the type, because True is equal to 1 and yet another value.
        items = tuple((name, type(values[name]), _hashable(values[name])) for name in sorted(values))
        try:
            return _build(items)
        except TypeError:  # a value that cannot be hashed is a bad one: let its converter say so
            return _build.__wrapped__(items)


_CALLED = ("authorize", "on_finished", "hooks")


def _hashable(value: object) -> object:
    return tuple(value) if isinstance(value, list | set | frozenset) else value


_CONVERTERS: dict[str, Callable[[object], object]] = {
    "tmp_file_dir": as_optional_path,
    "store": as_text,
    "name": as_text,
    "threads": as_bool,
    "upload_path": as_url_path,
    "send_file": as_bool,
    "upload_valid_duration": as_duration,
    "completed_keep": as_duration,
    "keep_finished": as_bool,
    "download": as_bool,
    "max_size": as_size,
    "max_metadata_size": as_size,
    "digest": as_digests,
    "fsync": as_fsync,
    "cors_allow_origin": as_origins,
    "cors_allow_credentials": as_bool,
    "protocols": as_protocols,
    "interim": as_interim,
    "min_size": as_size,
    "max_append_size": as_size,
    "min_append_size": as_size,
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
    "handover": as_handover,
    "handover_attempts": as_count,
    "reject_statuses": as_statuses,
    "rejected_keep": as_duration,
    "on_finished": as_callable,
    "spool": as_optional_path,
    "hooks": as_hooks,
    "webhook": as_webhook,
    "webhook_secret": as_text,
    "webhook_events": as_hook_types,
    "webhook_forward_headers": as_names,
}


# A ``Tus`` is made for each request, usually from the same few keywords: they are looked at once.
@lru_cache(maxsize=64)
def _build(items: tuple[tuple[str, type, object], ...]) -> Options:
    converted: dict[str, Any] = {}
    for name, _, value in items:
        converter = _CONVERTERS.get(name)
        if converter is None:
            nearest = "".join(f"; did you mean {near}" for near in get_close_matches(name, _CONVERTERS, 1))
            raise OptionError(name, f"is unknown{nearest}; known are {', '.join(_CONVERTERS)}")
        try:
            converted[name] = converter(value)
        except ValueError as error:
            raise OptionError(name, f"{error}; it is {value!r}") from None
    options = Options(**converted)
    if not options.tmp_file_dir and not options.store:
        raise OptionError("tmp_file_dir", "is required")
    if options.keep_finished and not options.completed_keep:
        raise OptionError("keep_finished", "cannot be true while completed_keep is 0; say how long to keep it there")
    if options.on_finished is not None and options.spool:
        raise OptionError("on_finished", "cannot be given beside spool; one of them takes the files")
    if options.webhook_secret and not options.webhook:
        raise OptionError("webhook_secret", "needs webhook")
    if options.min_append_size > options.max_append_size > 0:
        raise OptionError("min_append_size", "cannot be more than max_append_size")
    if options.min_rate and not options.stall_timeout:
        raise OptionError("min_rate", "is measured over stall_timeout, which cannot be 0 then")
    if options.cors_allow_credentials and "*" in options.cors_allow_origin:
        raise OptionError("cors_allow_credentials", "cannot be true while cors_allow_origin is *; list the origins")
    return options
