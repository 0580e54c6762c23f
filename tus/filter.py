"""``Filter``: a WSGI filter in front of any application, and its paste.deploy factory."""

from __future__ import annotations

import io
from collections.abc import Iterable
from functools import partial

from tus.adapters.interface import (
    ABOUT_KEY,
    HANDOVER_KEY,
    INTENT_KEY,
    PATH_VALUES_KEY,
    UPLOAD_KEY,
    verdict_of,
)
from tus.adapters.wsgi import (
    EMPTY,
    SURROUNDINGS,
    ApplicationResponse,
    Environ,
    EnvironBody,
    StartResponse,
    WsgiAdapter,
    WsgiApp,
    close_empty,
    environ_without_client,
    full_path,
    restore_original,
    set_path,
)
from tus.errors import OptionError
from tus.handover.finished import FinishedUpload, keep_untaken, offer
from tus.models import PROTOCOLS, Intent, Response, Upload
from tus.options import Options
from tus.protocols.exchange import is_ours
from tus.protocols.handover import offered_method
from tus.protocols.routing import is_under, path_of, route
from tus.server.runner_sync import SyncRunner
from tus.server.service import Service
from tus.stores.interface import Claim, Store


class Filter:
    """A WSGI filter that receives uploads under one path, and gives the wrapped application each finished file.

    Other requests pass through unchanged. On the request that completes an upload, the application is called with
    ``environ["tus.upload"]`` set, and the file, or its path, as the request's body.

    - A 2xx response accepts the file: the client gets 204 (201 on a POST) with the application's headers, and the data
      is removed.
    - :class:`~tus.errors.Rejected`, the response header ``Tus-Outcome: rejected``, or one of ``reject_statuses``
      rejects the file.
    - An upload of the IETF protocol is offered as the request that created it: with its method, URL and type, and the
      whole file as the body. The client gets the application's own response. A 303 accepts the file, too, if the
      application has read or saved it.
    - After any other response or exception the file is kept, and the client is asked to retry. The application is
      offered the file again by a request of that client, or without one, with an environ from
      :func:`tus.adapters.wsgi.environ_without_client`.

    Args:
        app: the wrapped application.
        global_conf: passed by paste.deploy; not used.
        service: the service to use; then give no options.
        options: all options at once, built by :meth:`tus.options.Options.build`; then give none of the others.
        store: a store or its URL, if uploads are not kept in ``tmp_file_dir``.
        **others: see :class:`tus.options.Options`; ``upload_path`` and ``tmp_file_dir`` are required.

    Attributes:
        service: the service.
        backlog: the backlog of the service, which hands over without a client.

    Raises:
        OptionError: an option is unknown, missing or has a bad value, or the store cannot be used.
    """

    def __init__(
        self,
        app: WsgiApp,
        global_conf: dict[str, str] | None = None,
        *,
        service: Service | None = None,
        options: Options | None = None,
        store: Store | str | None = None,
        **others: object,
    ) -> None:
        if service is None:
            service = Service(options=options, store=store, **others)
        elif others or options is not None or store is not None:
            raise OptionError("service", "has its own options; give no other options with it")
        self._app = app
        self._options = service.options
        if self._options.upload_path is None:
            raise OptionError("upload_path", "is required")
        self._upload_path = self._options.upload_path
        self._surroundings: Environ = {}
        self.service = service
        background = _BackgroundReceiver(self._app, self._options, self._surroundings)
        self.backlog = service.hand_over_to(service.receiver or background)

    @property
    def tmp_file_dir(self) -> str:
        """The directory of the uploads."""
        return self._options.tmp_file_dir

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        hands_over = environ.get("wsgi.multithread") or self._options.handover == "background"
        if hands_over or self._options.has_hooks:
            self.service.start(bool(hands_over))  # on any request: uploads may be pending since the last restart
        if not is_under(full_path(environ), self._upload_path):
            return self._app(environ, start_response)
        adapter = WsgiAdapter(environ)
        if not is_ours(adapter.request, self._options):
            return self._app(environ, start_response)
        receiver = self.service.receiver or partial(self._offer, adapter)
        asker = _Asker(self._app, adapter, self._upload_path) if self._options.ask_app else None
        for key in SURROUNDINGS:
            if key in environ:
                self._surroundings[key] = environ[key]
        SyncRunner(adapter, self.service, receiver, asker).handle()
        response = adapter.response
        assert response is not None, "handle() has made a response"
        start_response(f"{response.status} {response.reason}", response.headers)
        body = response.body
        return EMPTY if body == () else body or close_empty(body)

    def _offer(self, adapter: WsgiAdapter, claim: Claim) -> Response:
        """Call the wrapped application with an upload that a request has finished."""
        # A copy, because one request can complete several uploads, and applications change the environ.
        environ = dict(adapter.environ)
        environ["REQUEST_METHOD"] = offered_method(adapter.request)
        environ.pop("HTTP_X_HTTP_METHOD_OVERRIDE", None)
        environ[HANDOVER_KEY] = "request"
        return _call(self._app, environ, claim, self._options.send_file)


class _BackgroundReceiver:
    """A receiver that calls the wrapped application without a client's request."""

    def __init__(self, app: WsgiApp, options: Options, surroundings: Environ) -> None:
        self._app = app
        self._options = options
        self._surroundings = surroundings

    def __call__(self, claim: Claim) -> Response:
        options = self._options
        environ = environ_without_client(claim.upload, options.upload_path or "", options.base_url, self._surroundings)
        environ[HANDOVER_KEY] = "background"
        return _call(self._app, environ, claim, options.send_file)


def _call(app: WsgiApp, environ: Environ, claim: Claim, send_file: bool) -> Response:
    offered = claim.upload
    environ[UPLOAD_KEY] = upload = FinishedUpload(claim)
    traits, origin = PROTOCOLS[offered.protocol], offered.origin
    original = origin if traits.offers_original else None
    if original is not None:
        restore_original(environ, original)
        body, send_file = EnvironBody(environ, media_type=None), True
    else:
        environ["HTTP_UPLOAD_METADATA"] = offered.raw_metadata
        body = EnvironBody(environ)
    if origin is not None and origin.path_values:
        environ[PATH_VALUES_KEY] = dict(origin.path_values)
    file = offer(body, upload, send_file)
    try:
        answer = ApplicationResponse(app, environ, file, watches=original is not None)
        blocks = answer.settle(keep=traits.keeps_answer)  # this may change the status and the headers
        if not (send_file or upload.is_taken) and 200 <= answer.status < 300:
            keep_untaken(upload)
        response = Response(answer.status, answer.reason, answer.headers, blocks, upload.saved_as)
        if original is not None:
            response.is_file_taken = upload.is_taken or not upload.length or answer.is_file_read
        return response
    except BaseException:
        file.close()
        raise


class _Asker:
    """A callable that asks the wrapped application whether to allow a request (``ask_app``)."""

    def __init__(self, app: WsgiApp, adapter: WsgiAdapter, upload_path: str) -> None:
        self._app = app
        self._adapter = adapter
        self._upload_path = upload_path

    def __call__(self, intent: Intent, upload: Upload) -> str | Response | None:
        environ = dict(self._adapter.environ)
        environ["REQUEST_METHOD"] = "POST"
        request = self._adapter.request
        set_path(environ, path_of(route(request.url, request.method, self._upload_path).creation_url))
        EnvironBody(environ, media_type=None).replace_body(io.BytesIO(), 0, upload)
        for key in ("CONTENT_TYPE", "HTTP_EXPECT", "HTTP_X_HTTP_METHOD_OVERRIDE"):
            environ.pop(key, None)
        environ[INTENT_KEY] = str(intent)
        environ[ABOUT_KEY] = upload
        if request.path_values:
            environ[PATH_VALUES_KEY] = dict(request.path_values)
        answer = ApplicationResponse(self._app, environ, io.BytesIO())
        body = answer.settle()
        if self._adapter.method == "HEAD":
            answer.close()
            body = ()
        return verdict_of(Response(answer.status, answer.reason, answer.headers, body))


def filter_app_factory(app: WsgiApp, global_conf: dict[str, str], **options: str) -> Filter:
    """Make the filter ``egg:tus#main`` for paste.deploy (a ``paste.filter_app_factory``)."""
    return Filter(app, global_conf, options=Options.build(**options))
