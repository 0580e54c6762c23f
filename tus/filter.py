"""``Filter``: a WSGI filter in front of any application, and its paste.deploy factory."""

from __future__ import annotations

import io
from collections.abc import Iterable

from tus.adapters.interface import ABOUT_KEY, HANDOVER_KEY, INTENT_KEY, UPLOAD_KEY, offer, verdict_of
from tus.adapters.wsgi import (
    SURROUNDINGS,
    Environ,
    StartResponse,
    WsgiAdapter,
    WsgiApp,
    _Answer,
    environ_without_client,
    full_path,
)
from tus.errors import OptionError
from tus.models import Intent, Response, Upload
from tus.options import Options
from tus.protocols.handover import offered_method
from tus.protocols.routing import is_under
from tus.server.service import Service
from tus.server.sync import Tus
from tus.stores.interface import Claim, Store


class Filter:
    """Receives uploads under one path, and gives the wrapped application each finished file.

    Requests elsewhere pass through unchanged. On the request that completes an upload the application is called with
    ``environ["tus.upload"]`` set, and the file, or its path, as the request's body. A 2xx response accepts the file:
    the client gets 204 (201 on a POST) with the application's headers, and the data is removed. One of
    ``reject_statuses``, or :class:`~tus.errors.Rejected`, rejects the file. After anything else, exceptions too, the
    file is kept, the client is told to try again, and the application is asked once more: by a request of that client,
    or without one, with an environ as :func:`tus.adapters.wsgi.environ_without_client` makes it.

    Args:
        app: the wrapped application.
        global_conf: what paste.deploy passes; not used.
        service: where uploads are kept; then give no options.
        options: all options at once, built by :meth:`tus.options.Options.build`; then give none of the others.
        store: where uploads are kept, if not in ``tmp_file_dir``: a store or its URL.
        **others: see :class:`tus.options.Options`; ``upload_path`` and ``tmp_file_dir`` are required.

    Attributes:
        service: where uploads are kept.
        backlog: hands over without a client.

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
            raise OptionError("service", "has its options already; give no other with it")
        self._app = app
        self._options = service.options
        if self._options.upload_path is None:
            raise OptionError("upload_path", "is required")
        self._upload_path = self._options.upload_path
        self._surroundings: Environ = {}
        self.service = service
        alone = _LoneReceiver(self._app, self._options, self._surroundings)
        self.backlog = service.hand_over_to(service.receiver or alone)

    @property
    def tmp_file_dir(self) -> str:
        """The directory of the uploads."""
        return self._options.tmp_file_dir

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("wsgi.multithread") or self._options.handover == "background":
            self.service.start()  # whatever the request is for: uploads may be waiting here since the last restart
        if not is_under(full_path(environ), self._upload_path):
            return self._app(environ, start_response)
        adapter = WsgiAdapter(environ)
        receiver = self.service.receiver or _Receiver(self._app, adapter, self._options)
        asker = _Asker(self._app, adapter, self._upload_path) if self._options.ask_app else None
        self._surroundings.update((key, environ[key]) for key in SURROUNDINGS if key in environ)
        tus = Tus(adapter, service=self.service, receiver=receiver, asker=asker)
        if not tus.valid:
            return self._app(environ, start_response)
        tus.handle()
        response = adapter.response
        assert response is not None, "handle() has answered"
        start_response(f"{response.status} {response.reason}", response.headers)
        return response.body


class _Receiver:
    """Calls the wrapped application with a finished upload."""

    def __init__(self, app: WsgiApp, adapter: WsgiAdapter, options: Options) -> None:
        self._app = app
        self._adapter = adapter
        self._options = options

    def __call__(self, claim: Claim) -> Response:
        # Of its own, because one request can complete several uploads, and applications change what they are given.
        environ = dict(self._adapter.environ)
        environ["REQUEST_METHOD"] = offered_method(self._adapter.request, self._options)
        environ.pop("HTTP_X_HTTP_METHOD_OVERRIDE", None)
        environ["HTTP_UPLOAD_METADATA"] = claim.upload.raw_metadata
        environ[HANDOVER_KEY] = "request"
        return _call(self._app, environ, claim, self._options.send_file)


class _LoneReceiver:
    """Calls the wrapped application with a finished upload of which no client asks."""

    def __init__(self, app: WsgiApp, options: Options, surroundings: Environ) -> None:
        self._app = app
        self._options = options
        self._surroundings = surroundings

    def __call__(self, claim: Claim) -> Response:
        path = f"{self._options.upload_path}/{claim.upload.id}"
        environ = environ_without_client(path, self._options.base_url, self._surroundings)
        environ["HTTP_UPLOAD_METADATA"] = claim.upload.raw_metadata
        environ[HANDOVER_KEY] = "background"
        return _call(self._app, environ, claim, self._options.send_file)


def _call(app: WsgiApp, environ: Environ, claim: Claim, send_file: bool) -> Response:
    environ[UPLOAD_KEY] = claim.upload
    file = offer(WsgiAdapter(environ), claim, send_file)
    try:
        answer = _Answer(app, environ, file)
        body = answer.settle(keep=claim.upload.keeps_answer)  # which may change the rest
        return Response(answer.status, answer.reason, answer.headers, body)
    except BaseException:
        file.close()
        raise


class _Asker:
    """Asks the wrapped application whether a request may do what it intends."""

    def __init__(self, app: WsgiApp, adapter: WsgiAdapter, upload_path: str) -> None:
        self._app = app
        self._adapter = adapter
        self._upload_path = upload_path

    def __call__(self, intent: Intent, upload: Upload) -> str | Response | None:
        environ = dict(self._adapter.environ)
        environ["REQUEST_METHOD"] = "POST"
        mount = str(environ.get("SCRIPT_NAME", ""))
        environ["PATH_INFO"] = self._upload_path.encode().decode("latin-1").removeprefix(mount)
        WsgiAdapter(environ).remove_body()
        for key in ("CONTENT_TYPE", "HTTP_EXPECT", "HTTP_X_HTTP_METHOD_OVERRIDE"):
            environ.pop(key, None)
        environ[INTENT_KEY] = str(intent)
        environ[ABOUT_KEY] = upload
        answer = _Answer(self._app, environ, io.BytesIO())
        body = answer.settle()
        if self._adapter.method == "HEAD":
            answer.close()
            body = ()
        return verdict_of(Response(answer.status, answer.reason, answer.headers, body))


def filter_app_factory(app: WsgiApp, global_conf: dict[str, str], **options: str) -> Filter:
    """``egg:tus#main``, for paste.deploy (a ``paste.filter_app_factory``)."""
    return Filter(app, global_conf, options=Options.build(**options))
