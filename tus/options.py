"""Typed options: the table of their types, converters, defaults and descriptions.

Only this module turns the strings of an ini file into types. An unknown option, a bad value or a conflict raises
:class:`~tus.errors.OptionError` when the options are built, which is at start-up. Code after this module never parses a
string of the operator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, overload

from tus.converters import (
    Handover,
    Interim,
    Origins,
    as_base_url,
    as_bool,
    as_callable,
    as_count,
    as_digests,
    as_duration,
    as_fsync,
    as_group,
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
    as_secret,
    as_size,
    as_statuses,
    as_text,
    as_url_path,
    as_webhook,
    is_async,
    is_exposed,
    suggestion,
)
from tus.errors import OptionError
from tus.models import Fsync, HookType, Intent, Request, Upload

if TYPE_CHECKING:
    from tus.handover.finished import FinishedUpload

#: Decides whether a request may do what it intends, and names its principal: ``authorize(request, intent, upload)``.
#: False refuses, None names no principal, and a text or an int names one; see :func:`tus.models.principal_of`.
Authorize = Callable[[Request, Intent, Upload], object]

#: Gets a finished upload. Its return value is ignored. It rejects the upload by raising :class:`~tus.errors.Rejected`;
#: after any other exception it is called again later.
OnFinished = Callable[["FinishedUpload"], object]

_T = TypeVar("_T")


@overload
def _option(convert: Callable[[object], _T], default: str, *, group: str) -> _T: ...
@overload
def _option(convert: Callable[[object], _T], default: None, *, group: str) -> _T | None: ...
def _option(convert: Callable[[object], Any], default: str | None, *, group: str) -> Any:
    """Return the field of an option.

    Args:
        convert: the function of :mod:`tus.converters` for its values.
        default: the default as text, as in an ini file, or None for a default of None.
        group: the heading in docs/options.rst; the options of a group stand together.
    """
    value = None if default is None else convert(default)
    return field(default=value, metadata={"convert": convert, "default": default, "group": group})


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a service. Build them once by :meth:`build`, and share them.

    This class is the only place that declares an option: its type, converter, default and description. Run
    ``python -m tests.options_document`` after a change; it makes docs/options.rst from the descriptions.
    """

    tmp_file_dir: str = _option(as_optional_path, "", group="Storage")
    """The directory of the uploads. It is required unless ``store`` is set. Its last level is created if missing,
    with mode 0700. No other user may be able to write to it, see ``trusted_group``; a directory of its own is best,
    such as ``/var/lib/uploads``. Several processes of one machine may share it, but not over NFS. Several applications
    may share it if each has its own ``name``.
    """

    store: str = _option(as_text, "", group="Storage")
    """The URL of another store, in place of the directory ``tmp_file_dir``, such as ``memory:``. A package can
    register further schemes.
    """

    name: str = _option(as_text, "", group="Storage")
    """The name that uploads record, so that their files go to no other receiver. Two services over one directory must
    have different names. Without it, uploads record ``upload_path``.
    """

    trusted_group: int | None = _option(as_group, None, group="Storage")
    """The name or number of a group whose members share the uploads with the server's user: they can read, change and
    remove every upload, and what they write is believed. So servers and spool workers can run as several users. New
    directories have mode 2770 and new files 0660, and belong to the group. The server's user must be a member. Without
    it, new directories have mode 0700 and new files 0600, and only files of the server's user count.
    """

    fsync: Fsync = _option(as_fsync, "finish", group="Storage")
    """When to force data to the disk: ``none``, ``finish`` or ``always``. With ``finish`` a file is on the disk before
    the application gets it. With ``always`` each block is on the disk before it is counted. After a restart of the
    machine uploads go on from the bytes that were forced to it: with ``finish`` in steps of 32 MiB, and with ``none``
    from the first byte. Files in the spool, files of ``save_to()`` and events of a webhook are on the disk with each
    value. A removal by a client lasts with ``finish`` and ``always``.
    """

    upload_path: str | None = _option(as_url_path, None, group="URLs and proxies")
    """The URL path that creates uploads, counted from the root of the site (including ``SCRIPT_NAME``). Leave unset in
    a view; the framework has already routed the request. A segment may be a name in braces, as in
    ``/users/{user}/photos``, which matches any one segment. ``authorize`` finds the values in
    ``request.path_values``, and the application in ``environ["tus.path_values"]`` and ``upload.origin.path_values``.
    """

    trusted_proxies: tuple[str, ...] = _option(as_peers, "", group="URLs and proxies")
    """Addresses and networks of trusted proxies, such as ``127.0.0.1 10.0.0.0/8``, or ``unix`` for a server that
    listens at a Unix socket. Their ``X-Forwarded-Host``, ``X-Forwarded-Proto`` and ``X-Forwarded-Prefix`` (the path
    that the proxy has stripped), or ``Forwarded``, determine the URLs that clients get. In a list of values, only those
    count which trusted proxies have added. A proxy should set these headers, and drop the ones that it does not set.
    """

    base_url: str = _option(as_base_url, "", group="URLs and proxies")
    """The beginning of upload URLs, before the path that the application sees, such as
    ``https://example.org/prefix``. It overrides everything else. Without it, the beginning is taken from the request.
    """

    cors_allow_origin: Origins = _option(as_origins, "", group="CORS")
    """The origins whose pages may upload, or ``*`` for any, see cors.rst. Without it, only pages of the same origin may
    upload.

    An origin is a scheme, a host and, unless it is the default, a port, such as ``https://example.org`` or
    ``http://localhost:3000``. One label of the host may be ``*``. As the first label it stands for one or more labels:
    ``https://*.example.org`` is ``https://a.example.org`` and ``https://a.b.example.org``. It is neither
    ``https://example.org`` nor ``https://evilexample.org``. Elsewhere it stands for one label, as in
    ``https://app.*.example.org``. It cannot be the last label or a part of one. The scheme and the port must be equal.

    From Python, it can be a function that gets an origin as text and returns True or False. If it fails or returns
    another value, the origin is refused. It may be called in any thread, and cannot be async.
    """

    cors_allow_credentials: bool = _option(as_bool, "false", group="CORS")
    """Whether pages of these origins may send cookies. This needs a list of origins instead of ``*``, without the
    origin ``null``, which pages of any site can have.
    """

    cors_allow_headers: tuple[str, ...] = _option(as_names, "", group="CORS")
    """Names of header fields that pages may send in addition to those of the protocols, such as ``X-CSRFToken``."""

    cors_expose_headers: tuple[str, ...] = _option(as_names, "", group="CORS")
    """Names of header fields that pages may read in addition to those of the protocols. Names that the application
    exposes by ``Access-Control-Expose-Headers`` are kept.
    """

    cors_max_age: int = _option(as_duration, "86400", group="CORS")
    """The time for which a browser may keep a permission, so that it does not ask before each request."""

    upload_valid_duration: int = _option(as_duration, "24h", group="Lifetimes and cleanup")
    """The time to keep an unfinished upload after its last byte; 0 means for ever."""

    completed_keep: int = _option(as_duration, "24h", group="Lifetimes and cleanup")
    """The time to keep the record of an accepted upload, for a client that lost the last response."""

    keep_finished: bool = _option(as_bool, "false", group="Lifetimes and cleanup")
    """Whether to keep the data of an accepted upload as long as its record. Otherwise the data is removed, because the
    application has it.
    """

    rejected_keep: int = _option(as_duration, "24h", group="Lifetimes and cleanup")
    """The time to keep a rejected file. Until it is removed, its bytes count for ``max_total_size``. Use 0 if untrusted
    users could fill that limit with rejected files.
    """

    threads: bool = _option(as_bool, "true", group="Lifetimes and cleanup")
    """Whether background threads remove expired uploads, hand over without a client, and deliver events. If false, run
    ``tus clean`` and ``tus handover`` instead.
    """

    max_size: int = _option(as_size, "0", group="Limits and timeouts")
    """The largest upload; 0 means no limit. Clients get this limit, or ``max_total_size`` if that is smaller."""

    max_metadata_size: int = _option(as_size, "4096", group="Limits and timeouts")
    """The longest ``Upload-Metadata`` field; 0 means no limit."""

    max_uploads: int = _option(as_count, "0", group="Limits and timeouts")
    """The most uploads that may be unfinished at a time; more are refused with 429. An upload that the application has
    not accepted yet is unfinished. 0 means no limit.
    """

    max_uploads_per_principal: int = _option(as_count, "0", group="Limits and timeouts")
    """The same limit as ``max_uploads`` for each principal."""

    max_total_size: int = _option(as_size, "0", group="Limits and timeouts")
    """The most bytes that uploads may have together, by their announced lengths; more are refused with 507. An upload
    without a length counts with its bytes while they arrive, ahead of them by at most 4 MiB or 1/64 of the limit. At
    the limit, the bytes that fit are kept, and the client can resume once there is room. The final upload of a
    concatenation counts in addition to its parts. A rejected or finished file counts as long as it is kept. 0 means no
    limit.
    """

    max_total_size_per_principal: int = _option(as_size, "0", group="Limits and timeouts")
    """The same limit as ``max_total_size`` for each principal."""

    keep_free: int = _option(as_size, "0", group="Limits and timeouts")
    """The disk space that uploads must leave free. The space for an upload is then reserved when it is created, so a
    full disk refuses it with 507 before its first byte. After a minute without a byte the space is given back. It is
    reserved again before the next byte, or the request is refused with 507. Without a length, the free space is checked
    as the bytes arrive, every 4 MiB. Reservations need Linux and a file system with ``fallocate``; elsewhere the free
    space is only checked. 0 means neither.
    """

    stall_timeout: int = _option(as_duration, "60", group="Limits and timeouts")
    """Seconds without a byte after which a connection counts as disconnected; the received bytes are kept. 0 means
    never. Under ASGI it works with every server. Under WSGI it works only with gunicorn, whose socket is accessible;
    other servers have their own timeouts, see deploying.rst.
    """

    min_rate: int = _option(as_size, "500", group="Limits and timeouts")
    """Bytes per second, over any ``stall_timeout``, below which a connection counts as disconnected; the received
    bytes are kept, and the client resumes. The default is half of the slowest mobile networks' rate. Under WSGI servers
    other than gunicorn the rate is checked after each block of 64 KiB. It holds for clients that read a download, too:
    under gunicorn, and under ASGI over ten times ``stall_timeout``. 0 means no limit.
    """

    protocols: frozenset[str] = _option(as_protocols, "tus, ietf", group="Protocols")
    """The supported protocols: ``tus`` for tus 1.0.0, ``ietf`` for Resumable Uploads for HTTP. Each request's protocol
    is detected, and both work on the same uploads; see conformance.rst.
    """

    interim: Interim = _option(as_interim, "direct", group="Protocols")
    """When to send interim responses (104), which report early to clients of the IETF protocol where to resume:
    ``direct``, ``always`` or ``never``. ``direct`` means that no header field such as ``Via`` or ``X-Forwarded-For``
    shows a proxy. Many proxies take a 104 for the final response, as nginx 1.22 does. Use ``always`` once you have
    verified that your proxy forwards it.
    """

    min_size: int = _option(as_size, "0", group="Protocols")
    """The smallest upload that is worth resuming, as reported to clients of the IETF protocol."""

    max_append_size: int = _option(as_size, "0", group="Protocols")
    """The most bytes of one request in the IETF protocol, such as the limit of a proxy; 0 means no limit."""

    min_append_size: int = _option(as_size, "0", group="Protocols")
    """The fewest bytes of one request in the IETF protocol, unless it completes the upload."""

    authorize: Authorize | None = _option(as_callable, "", group="Authorization")
    """A callable, or in an ini file its name as ``package.module:function``. It is called on every request except
    OPTIONS, before any byte of the body is read. Its arguments are the head of the request, the intent and the upload.
    The intent is ``create``, ``append``, ``head``, ``terminate``, ``concatenate`` or ``download``. An upload that does
    not exist yet has no ``id``. One that does not exist, or not any more, has the state ``TERMINATED``: it is asked
    about like any other, so that no refusal shows which uploads exist. To refuse, raise ``Unauthorized`` (401) or
    ``Forbidden`` (403), with headers of your choice, or return False (403). To allow, return the principal, or None if
    no principal is known.

    .. code-block:: python

        from tus.errors import Forbidden, Unauthorized

        def authorize(request, intent, upload):
            user = request.native.get("REMOTE_USER")
            if user is None:
                raise Unauthorized("Log in to upload.", [("WWW-Authenticate", 'Basic realm="uploads"')])
            if intent == "create" and upload.filename.endswith(".exe"):
                raise Forbidden("Programs are not taken here.")
            return user

    ``request.native`` is the framework's own request: an environ under WSGI, Zope's request in Zope.
    ``request.headers``, ``request.method``, ``request.url`` and ``request.peer`` are the same in every framework.
    ``request.peer`` is the address at the other end of the connection.
    """

    ask_app: frozenset[Intent] = _option(as_intents, "", group="Authorization")
    r"""Intents for which the filter asks the wrapped application before acting; ``all`` for every intent. If the
    application has named the principal of an upload, it is asked for the other intents too, because an upload exists
    only for its principal. So it is about an upload that does not exist, because that may have had a principal.

    With ``ask_app = create``, each creation first sends a POST without a body to the application. It goes to the
    upload path, with the client's headers and cookies. ``environ["tus.intent"]`` is the intent,
    ``environ["tus.about"]`` the upload. A 2xx response allows the request. It may name the principal in a
    ``Tus-Principal`` header, which is not forwarded to the client. Any other response is sent to the client.
    For frameworks see django.rst, flask.rst, pyramid.rst, fastapi.rst and starlette.rst.

    .. code-block:: python

        def application(environ, start_response):
            if "tus.intent" in environ:
                user = user_of(environ)
                if user is None:
                    start_response("403 Forbidden", [("Content-Type", "text/plain")])
                    return [b"Log in to upload.\n"]
                start_response("204 No Content", [("Tus-Principal", user)])
                return []
            ...
    """

    send_file: bool = _option(as_bool, "false", group="Hand-over")
    """Whether the request body that the application gets is the file itself, or only its path. The application can
    use ``upload.open()`` and ``upload.save_to()`` with both, see saving.rst.
    """

    handover: Handover = _option(as_handover, "request", group="Hand-over")
    """When the client gets a success response: ``request``, once the application has accepted the file; or
    ``background``, once the file is on the disk. With ``background`` the application gets the file afterwards. With
    ``fsync = none`` the file may not be on the disk yet, and a failing disk can lose it after the success.
    """

    handover_attempts: int = _option(as_count, "20", group="Hand-over")
    """The number of attempts to hand a file over before it is set aside, for an operator to look at. A client that
    returns can still offer the file again. With 0, a file is never offered without a client.
    """

    reject_statuses: frozenset[int] = _option(as_statuses, "", group="Hand-over")
    """The 4xx by which your application rejects a file for good, such as ``422``. By default there are none, because
    frameworks send 400, 403, 413, 415 and 422 on their own. 409 and 423 are not possible, because clients retry after
    these. An application can always reject a file by ``tus.Rejected`` or the response header ``Tus-Outcome: rejected``.
    """

    on_finished: OnFinished | None = _option(as_callable, "", group="Hand-over")
    """A callable that takes finished uploads in place of the application, or in an ini file its name as
    ``package.module:function``. Its argument is the upload, and its return value is ignored. It rejects the upload by
    raising ``tus.Rejected``; after any other exception it is called again later.
    """

    spool: str = _option(as_optional_path, "", group="Hand-over")
    """A directory from which worker processes take finished uploads, see spool.rst. It must be on the file system of
    ``tmp_file_dir``.
    """

    hooks: object = _option(as_hooks, "", group="Hooks and webhooks")
    """An object, a class or its name. It has any of the methods ``pre_create``, ``post_create``, ``post_receive``,
    ``pre_finish``, ``post_finish``, ``pre_terminate`` and ``post_terminate``. A class is instantiated.
    """

    webhook: str = _option(as_webhook, "", group="Hooks and webhooks")
    """The https URL to which hook events are posted, as tusd does, see webhooks.rst. It can be http on this machine,
    such as ``http://127.0.0.1:8081/``.
    """

    webhook_allow_http: bool = _option(as_bool, "false", group="Hooks and webhooks")
    """Whether the webhook may be an http URL of another host. Everybody on the way can then read the posts, and answer
    them in place of the endpoint.
    """

    webhook_secret: str = _option(as_secret, "", group="Hooks and webhooks")
    """The secret that signs the posts: ``whsec_`` and Base64, or any text; at least 24 bytes. Without it, posts have no
    signature.
    """

    webhook_timeout: int = _option(as_duration, "15", group="Hooks and webhooks")
    """The time for which a request waits for the webhook, with all tries, name look-ups and pauses. Then the client
    gets 503. It is also the time for each delivery of an event that no request waits for.
    """

    webhook_threads: int = _option(as_count, "8", group="Hooks and webhooks")
    """The most requests of one process that wait for the webhook at the same time. As many others wait for up to one
    second; further ones get 503 at once. So an endpoint that does not respond leaves the other threads to other
    requests.
    """

    webhook_events: frozenset[HookType] = _option(
        as_hook_types, "pre-create, post-create, post-receive, post-finish, post-terminate", group="Hooks and webhooks"
    )
    """The events to post. ``pre-finish`` and ``pre-terminate`` are possible too."""

    webhook_forward_headers: tuple[str, ...] = _option(as_names, "", group="Hooks and webhooks")
    """Header fields of the client to forward even though they may hold a secret, such as ``Cookie``."""

    digest: tuple[str, ...] = _option(as_digests, "", group="File digests")
    """The digests to compute of every whole file: ``sha-256``, ``sha-512`` or both.

    With ``digest = sha-256`` the application can call ``environ["tus.upload"].digest("sha256")``, which returns 32
    bytes. A view uses ``tus.upload``, and a spool worker ``upload.digests["sha256"]``. Responses to HEAD and GET, and
    the response after acceptance, carry ``Repr-Digest`` (RFC 9530). Digests are kept as long as the record. A part of a
    concatenation has no digest; the final upload has its own.

    Whether the option is set or not, a client can announce the digest of the whole file. It sends ``Repr-Digest`` on
    the POST that creates the upload. A file with another digest is rejected before the application gets it: 422, now
    and on every later request. With ``handover = background`` the client may already have got success by then, if the
    file had to be read to compute the digest.

    If one request sends the whole file, the digests are computed while it is written. If a client resumes, or sends
    the file in several requests, the file is read once when it is complete, however often it is offered. sha-256 takes
    about half a second of a processor for each GiB.
    """

    download: bool = _option(as_bool, "false", group="Downloads")
    """Whether to serve finished uploads that are kept at their URL, on GET.

    With ``download = true``, GET and HEAD of a finished upload serve its file. For accepted uploads this also needs
    ``keep_finished = true``. Downloads support one or several ranges, ``ETag``, ``If-Range`` and ``Last-Modified``.
    They carry the type and name from the upload's metadata (``filetype`` and ``filename``).

    Browsers may display images, sound, films and plain text; everything else is an attachment. The response has
    ``nosniff`` and a sandboxing policy, so that a browser does not run an uploaded file as active content. Anyone who
    knows the URL can download the file, unless ``authorize`` or ``ask_app`` refuses the intent ``download``. If the
    server provides ``wsgi.file_wrapper``, it sends the file.
    """

    @cached_property
    def service_name(self) -> str:
        """The name of the service that has these options."""
        return self.name or self.upload_path or ""

    @cached_property
    def largest_upload(self) -> int:
        """The bytes that one upload can have, if it is the only one; 0 means any number."""
        return min(filter(None, (self.max_size, self.max_total_size)), default=0)

    @cached_property
    def has_hooks(self) -> bool:
        """Whether there are hooks for the steps of an upload's life."""
        return bool(self.webhook) or self.hooks is not None

    @cached_property
    def needs_authorization(self) -> bool:
        """Whether requests need permission from ``authorize`` or from the application."""
        return self.authorize is not None or bool(self.ask_app)

    @classmethod
    def build(cls, **values: object) -> Options:
        """Build options from typed values or from the strings of an ini file.

        Raises:
            OptionError: an option is unknown or missing, has a bad value, or conflicts with another.
        """
        options = cls.build_async(**values)
        for name in ("authorize", "on_finished"):
            if is_async(getattr(options, name)):
                raise OptionError(name, "must be an ordinary function; async functions work only under ASGI")
        return options

    @classmethod
    def build_async(cls, **values: object) -> Options:
        """Build options for ASGI, where ``authorize``, ``on_finished`` and hooks may be ``async``."""
        if any(name in values for name in _CALLED) or callable(values.get("cors_allow_origin")):
            # The cache must not keep a closure of a request alive.
            return _build.__wrapped__(tuple((name, object, values[name]) for name in values))
        # With the type, because True equals 1 but is another value.
        items = tuple((name, type(values[name]), _hashable(values[name])) for name in sorted(values))
        try:
            return _build(items)
        except TypeError:  # a value that cannot be hashed is invalid; its converter raises the right error
            return _build.__wrapped__(items)


_CALLED = ("authorize", "on_finished", "hooks")


def _hashable(value: object) -> object:
    return tuple(value) if isinstance(value, list | set | frozenset) else value


_CONVERTERS: dict[str, Callable[[object], object]] = {each.name: each.metadata["convert"] for each in fields(Options)}


_SECRETS = ("webhook_secret",)  # errors end up in logs


# A ``Tus`` is made for each request, usually from the same keywords, so the result is cached.
@lru_cache(maxsize=64)
def _build(items: tuple[tuple[str, type, object], ...]) -> Options:
    converted: dict[str, Any] = {}
    for name, _, value in items:
        converter = _CONVERTERS.get(name)
        if converter is None:
            raise OptionError(name, f"is unknown{suggestion(name, _CONVERTERS)}; known are {', '.join(_CONVERTERS)}")
        try:
            converted[name] = converter(value)
        except ValueError as error:
            shown = "" if name in _SECRETS else f"; it is {value!r}"
            raise OptionError(name, f"{error}{shown}") from None
    options = Options(**converted)
    if not options.tmp_file_dir and not options.store:
        raise OptionError("tmp_file_dir", "is required")
    if options.keep_finished and not options.completed_keep:
        raise OptionError("keep_finished", "cannot be true while completed_keep is 0; set completed_keep")
    if options.on_finished is not None and options.spool:
        raise OptionError("on_finished", "cannot be combined with spool; only one of them can get the files")
    _check_webhook(options)
    if options.min_append_size > options.max_append_size > 0:
        raise OptionError("min_append_size", "cannot be more than max_append_size")
    if options.min_rate and not options.stall_timeout:
        if "min_rate" in converted:
            raise OptionError("min_rate", "is measured over stall_timeout; set stall_timeout to more than 0")
        options = replace(options, min_rate=0)
    if options.cors_allow_credentials:
        _check_credentials(options)
    return options


def _check_webhook(options: Options) -> None:
    if options.webhook_secret and not options.webhook:
        raise OptionError("webhook_secret", "needs webhook")
    if is_exposed(options.webhook) and not options.webhook_allow_http:
        raise OptionError(
            "webhook",
            "must be https for another host, because others on the way could read the posts and answer them; or set "
            "webhook_allow_http = true",
        )
    for name in ("webhook_timeout", "webhook_threads"):
        if not getattr(options, name):
            raise OptionError(name, "must be at least 1")


def _check_credentials(options: Options) -> None:
    """Refuse what browsers ignore, and what would be unsafe, if pages may send cookies."""
    origins = options.cors_allow_origin
    if isinstance(origins, tuple):
        if "*" in origins:
            raise OptionError("cors_allow_credentials", "cannot be true while cors_allow_origin is *; list the origins")
        if "null" in origins:
            raise OptionError(
                "cors_allow_credentials",
                "cannot be true while cors_allow_origin has null, because pages of any site can have that origin",
            )
    for name in ("cors_allow_headers", "cors_expose_headers"):
        if "*" in getattr(options, name):
            raise OptionError(name, "cannot have * while cors_allow_credentials is true; list the names")
