"""``TusMiddleware`` for any ASGI application, and ``TusApp``, an application to mount. They need anyio.

They have the options of :class:`tus.Filter`; ``authorize``, ``on_finished`` and the methods of hooks may be ``async``
here. Functions that are not async are called in worker threads.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from tus.adapters.asgi import (
    DRAINING,
    SURROUNDINGS,
    App,
    AsgiAdapter,
    Call,
    Receive,
    Scope,
    Send,
    full_path,
    is_peer_replaced,
    restore_original,
    scope_without_client,
)
from tus.adapters.interface import (
    ABOUT_KEY,
    HANDOVER_KEY,
    INTENT_KEY,
    LONGEST_ANSWER,
    PATH_VALUES_KEY,
    UPLOAD_KEY,
    verdict_of,
)
from tus.converters import is_async
from tus.errors import OptionError, UploadNotFound
from tus.handover.attempt import Receiver
from tus.handover.backlog import Backlog
from tus.handover.finished import FinishedUpload, keep_untaken, offer
from tus.models import Intent, Response, Upload
from tus.options import Options
from tus.protocols.exchange import is_ours, refuse
from tus.protocols.handover import offered_method
from tus.protocols.routing import is_under, path_of, route
from tus.server.aio import AsyncTus, Loop, in_thread, is_interrupted
from tus.server.body_async import reuse_memory
from tus.server.body_uvicorn import UvicornBody
from tus.server.service import Service, with_store
from tus.stores.interface import Claim, Store

__all__ = ["TusApp", "TusMiddleware"]

log = logging.getLogger(__name__)

#: The multiple of ``stall_timeout`` in which a client must read 64 KiB of a download, and over which ``min_rate`` is
#: measured. The buffers of the server and of the system hide for a while that a client reads, and a waiting response
#: occupies no thread.
_READING = 10
_HURRY = 0.5  # seconds in which the rest of an unused body is read once the server stops


class _LoopService(Service):
    """A service whose functions and hooks may be async."""

    has_loop = True


class _Uploads:
    """The common part of :class:`TusMiddleware` and :class:`TusApp`: the service, the event loop, and the receiver.

    Args:
        service: the service to use; if None it is made from the options and the store.
        options: all options.
        store: a store or its URL, if uploads are not kept in ``tmp_file_dir``.
        app: the receiver of finished uploads, if the options name none.
        informs: see :class:`TusMiddleware`.
    """

    def __init__(
        self,
        service: Service | None,
        options: Options,
        store: Store | str | None,
        app: App | None,
        informs: bool | None,
    ) -> None:
        reuse_memory()
        self._loop = Loop()
        if service is None:
            options = replace(options, hooks=self._loop.hooks(options.hooks))
            service = _LoopService(options=options, store=store)
        self.service = service
        self.options = options = service.options
        self._reading = replace(service.patience, silence=_READING * service.patience.silence)
        self._app = app
        self._informs = informs
        self._surroundings: Scope = {}
        self._is_awake = self._has_warned = False
        self._receiver: Receiver | None = None
        self._async_receiver: Callable[[AsgiAdapter | None, Claim], Awaitable[Callable[[], Response]]] | None = None
        if is_async(options.on_finished):
            self._async_receiver = self._call_function
        elif service.receiver is not None:
            self._receiver = service.receiver
        else:
            self._async_receiver = self._call_application
        self.backlog = service.hand_over_to(self._receiver or self._receive_in_background)

    async def wake(self, scope: Scope) -> None:
        """Remember the event loop, and on the first call start the background work of the service."""
        self._loop.remember()
        if not self._is_awake:
            self._is_awake = True
            if "state" in scope:  # that of the lifespan, for a hand-over before the first request
                self._surroundings["state"] = scope["state"]
            await in_thread(self.service.start)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Respond to a request; return False if it is not for this package."""
        adapter = AsgiAdapter(scope, receive, send, self._informs, self._loop.token)
        if not is_ours(adapter.request, self.options):
            return False
        if self.options.trusted_proxies and not self._has_warned:
            self._check_peer(adapter)
        for key in SURROUNDINGS:
            if key in scope:
                self._surroundings[key] = scope[key]
        tus = AsyncTus(
            adapter,
            self.service,
            receiver=self._receiver,
            async_receiver=None if self._async_receiver is None else partial(self._async_receiver, adapter),
            asker=partial(self._ask, adapter) if self.options.ask_app else None,
            lend=partial(_lend_socket, receive, adapter),
        )
        try:
            await tus.handle()
            await adapter.send_response(self._reading, lambda: _HURRY if is_interrupted() else DRAINING)
        finally:
            adapter.close()
        return True

    def _check_peer(self, adapter: AsgiAdapter) -> None:
        """Warn if ``trusted_proxies`` cannot work, because the server does not show the address of its peer."""
        if is_peer_replaced(adapter.scope, adapter.request.headers):
            self._has_warned = True
            log.warning(
                "option 'trusted_proxies': the server has replaced the proxy's address by one from X-Forwarded-For, so "
                "X-Forwarded-Host and X-Forwarded-Prefix do not count; start uvicorn with --no-proxy-headers, or set "
                "base_url"
            )

    # -- Receivers of finished uploads --

    def _receive_in_background(self, claim: Claim) -> Response:
        assert self._async_receiver is not None, "the backlog calls a synchronous receiver itself"
        return self._loop.run(self._async_receiver, None, claim)()

    async def _call_function(self, adapter: AsgiAdapter | None, claim: Claim) -> Callable[[], Response]:
        function: Callable[[FinishedUpload], Any] | None = self.options.on_finished
        assert function is not None, "__init__() has checked it"
        upload = FinishedUpload(claim)
        await function(upload)

        def finish() -> Response:
            if not upload.is_taken:
                keep_untaken(upload)
            return Response(204, "No Content", saved_as=upload.saved_as)

        return finish

    async def _call_application(self, adapter: AsgiAdapter | None, claim: Claim) -> Callable[[], Response]:
        assert self._app is not None, "__init__() has found no other receiver"
        offered, options = claim.upload, self.options
        upload, origin = FinishedUpload(claim), offered.origin
        more: Scope = {UPLOAD_KEY: upload, HANDOVER_KEY: "background" if adapter is None else "request"}
        if origin is not None and origin.path_values:
            more[PATH_VALUES_KEY] = dict(origin.path_values)
        if adapter is None:
            path = options.upload_path or ""
            scope, method = scope_without_client(offered, path, options.base_url, self._surroundings), "PATCH"
        else:
            scope, method = adapter.scope, offered_method(adapter.request)
        original = offered.original
        if original is not None:
            call = Call(restore_original(scope, original), more, original.method, media_type=None)
        else:
            call = Call(scope, more, method)
        send_file = options.send_file or original is not None
        place = partial(offer, call, upload, send_file)
        try:
            file = await in_thread(place) if send_file else place()  # a path needs no disk
            answer = await call.run(self._app, LONGEST_ANSWER)
            answer.saved_as = upload.saved_as
            if original is not None:
                answer.is_file_taken = upload.is_taken or not offered.length or file.closed or file.tell() > 0
        finally:
            with suppress(OSError):  # the application has decided
                call.close()

        def finish() -> Response:
            if not (send_file or upload.is_taken) and 200 <= answer.status < 300:
                keep_untaken(upload)
            return answer

        return finish

    async def _ask(self, adapter: AsgiAdapter, intent: Intent, upload: Upload) -> str | Response | None:
        assert self._app is not None, "only TusMiddleware allows ask_app"
        more: Scope = {INTENT_KEY: str(intent), ABOUT_KEY: upload}
        request = adapter.request
        if request.path_values:
            more[PATH_VALUES_KEY] = dict(request.path_values)
        path = path_of(route(request.url, request.method, self.options.upload_path).creation_url)
        answer = await Call(adapter.scope, more, "POST", path).run(self._app, LONGEST_ANSWER)
        return verdict_of(replace(answer, body=()) if adapter.method == "HEAD" else answer)


def _lend_socket(receive: Receive, adapter: AsgiAdapter, length: int | None) -> UvicornBody | None:
    """Let threads read a body from its socket, where the server allows it."""
    lent = UvicornBody.of(receive, length)
    adapter.lent = lent
    return lent


class TusMiddleware:
    """An ASGI middleware that receives uploads under one path, and gives the wrapped application each finished file.

    It is the equivalent of :class:`tus.Filter` under WSGI. Other requests, web sockets and the lifespan pass through
    unchanged. On the request that completes an upload, the application is called with ``scope["tus.upload"]`` set, and
    the file, or its path, as the request's body. It accepts the file if it sends a 2xx response and returns. For other
    responses see :class:`tus.Filter`.

    Args:
        app: the wrapped application.
        service: the service to use; then give no options.
        store: a store or its URL, if uploads are not kept in ``tmp_file_dir``.
        options: all options at once, built by :meth:`tus.Options.build_async`; then give none of the others.
        informs: whether the server accepts interim responses (``http.response.informational``). By default they are
            sent if the server declares the extension, and under gunicorn, which accepts them without declaring it.
        **others: see :class:`tus.options.Options`; ``upload_path`` and ``tmp_file_dir`` are required.

    Raises:
        OptionError: an option is unknown, missing or has a bad value, or the store cannot be used.
    """

    def __init__(
        self,
        app: App,
        *,
        service: Service | None = None,
        store: Store | str | None = None,
        options: Options | None = None,
        informs: bool | None = None,
        **others: object,
    ) -> None:
        options = _options_of(service, options, store, others)
        if options.upload_path is None:
            raise OptionError("upload_path", "is required")
        self._app = app
        self._upload_path = options.upload_path
        self._uploads = _Uploads(service, options, store, app, informs)

    @property
    def service(self) -> Service:
        """The service."""
        return self._uploads.service

    @property
    def backlog(self) -> Backlog:
        """The backlog of the service, which hands over without a client."""
        return self._uploads.backlog

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "lifespan"):
            await self._uploads.wake(scope)
        is_upload = scope["type"] == "http" and is_under(full_path(scope), self._upload_path)
        if not is_upload or not await self._uploads.handle(scope, receive, send):
            await self._app(scope, receive, send)


class TusApp:
    """An ASGI application that receives uploads where it is mounted.

    Each finished upload goes to ``on_finished(upload)``, which may be async, or into the ``spool``.

    Args:
        service: the service to use; then give no options.
        store: a store or its URL, if uploads are not kept in ``tmp_file_dir``.
        options: all options at once, built by :meth:`tus.Options.build_async`; then give none of the others.
        informs: see :class:`TusMiddleware`.
        **others: see :class:`tus.options.Options`; ``tmp_file_dir`` is required, and ``upload_path`` is not allowed.

    Raises:
        OptionError: an option is unknown, missing or has a bad value, or the store cannot be used.
    """

    def __init__(
        self,
        *,
        service: Service | None = None,
        store: Store | str | None = None,
        options: Options | None = None,
        informs: bool | None = None,
        **others: object,
    ) -> None:
        options = _options_of(service, options, store, others)
        if options.upload_path is not None:
            raise OptionError("upload_path", "must not be given; it is where this application is mounted")
        if options.on_finished is None and not options.spool:
            raise OptionError("on_finished", "or spool is required, because TusApp wraps no application")
        if options.ask_app:
            raise OptionError("ask_app", "works only with Filter and TusMiddleware, which wrap an application to ask")
        self._uploads = _Uploads(service, options, store, None, informs)

    @property
    def service(self) -> Service:
        """The service."""
        return self._uploads.service

    @property
    def backlog(self) -> Backlog:
        """The backlog of the service, which hands over without a client."""
        return self._uploads.backlog

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "lifespan"):
            await self._uploads.wake(scope)
        if scope["type"] == "lifespan":
            await serve_lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        elif not await self._uploads.handle(scope, receive, send):
            adapter = AsgiAdapter(scope, receive, send)
            adapter.respond(refuse(UploadNotFound("Use a tus client."), adapter.request, self.service.options))
            await adapter.send_response()


def _options_of(
    service: Service | None, options: Options | None, store: Store | str | None, others: dict[str, object]
) -> Options:
    if service is not None:
        if others or options is not None or store is not None:
            raise OptionError("service", "has its own options; give no other options with it")
        return service.options
    if options is None:
        return Options.build_async(**with_store(others, store))
    if others:
        raise OptionError(next(iter(others)), "cannot be given together with options=")
    return options


async def serve_lifespan(receive: Receive, send: Send) -> None:
    """Respond to the messages of a lifespan."""
    while (await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})
