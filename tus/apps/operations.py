"""``egg:tus#operations``: what those who run a site ask of it, a health answer and metrics, in front of a pipeline."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from tus.adapters.wsgi import Environ, StartResponse, WsgiApp, full_path
from tus.converters import as_url_path
from tus.errors import OptionError, RequestError, TusException
from tus.options import Options
from tus.stores import open_store
from tus.stores.interface import Checks, Store

log = logging.getLogger(__name__)

_TEXT = "text/plain; charset=utf-8"


class Operations:
    """Answers GET and HEAD of two paths, and lets everything else pass.

    Args:
        app: the pipeline.
        store: where the uploads are: a store or its URL, such as the ``tmp_file_dir`` of the uploads.
        health_path: where a load balancer asks whether uploads can be stored: 200 if so, 503 if not. None for nowhere.
        metrics_path: where Prometheus asks, which whoever reaches it may. None for nowhere.

    Raises:
        TusException: there are to be metrics, and the library for them is not installed.
    """

    def __init__(
        self, app: WsgiApp, store: Store | str, health_path: str | None = "/health", metrics_path: str | None = None
    ) -> None:
        self._app = app
        self._store = open_store(store) if isinstance(store, str) else store
        self._health_path = health_path
        self._metrics_path = metrics_path
        if metrics_path is not None:
            try:
                from tus.monitoring import metrics
            except ImportError:
                raise TusException("Metrics need another package; install it by: pip install 'tus[metrics]'") from None
            self._metrics = metrics

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            path = full_path(environ)
            if path == self._health_path:
                return self._answer_health(environ, start_response)
            if path == self._metrics_path:
                body = self._metrics.expose(self._store)
                return _respond(environ, start_response, "200 OK", body, self._metrics.CONTENT_TYPE)
        return self._app(environ, start_response)

    def _answer_health(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        status, text = "200 OK", "ok"
        if isinstance(self._store, Checks):
            try:
                self._store.check()
            except (RequestError, OSError) as error:
                log.warning("uploads cannot be stored: %s", error)
                status, text = "503 Service Unavailable", "uploads cannot be stored"
        return _respond(environ, start_response, status, f"{text}\n".encode(), _TEXT)


def _respond(
    environ: Environ, start_response: StartResponse, status: str, body: bytes, content_type: str
) -> Iterable[bytes]:
    start_response(
        status, [("Content-Type", content_type), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
    )
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]


def filter_app_factory(app: WsgiApp, global_conf: dict[str, str], **options: str) -> Operations:
    """``egg:tus#operations``, for paste.deploy (a ``paste.filter_app_factory``).

    Options: ``tmp_file_dir`` or ``store`` as the uploads have it, and ``health_path`` and ``metrics_path``.

    Raises:
        OptionError: another option is given, or one has a bad value.
    """
    paths = {name: options.pop(name) for name in ("health_path", "metrics_path") if name in options}
    for name in options:
        if name not in ("tmp_file_dir", "store"):
            raise OptionError(name, "is unknown; known are tmp_file_dir, store, health_path, metrics_path")
    for name, path in paths.items():
        try:
            paths[name] = as_url_path(path)
        except ValueError as error:
            raise OptionError(name, f"{error}; it is {path!r}") from None
    built = Options.build(**options)
    store = open_store(built.store or built.tmp_file_dir, built)
    return Operations(app, store, paths.get("health_path"), paths.get("metrics_path"))
