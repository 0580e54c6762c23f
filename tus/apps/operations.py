"""``egg:tus#operations``: a WSGI filter with a health check and Prometheus metrics."""

from __future__ import annotations

import logging
from collections.abc import Callable

from tus.adapters.wsgi import WsgiApp
from tus.apps.front import Front, Head
from tus.converters import as_url_path, suggestion
from tus.errors import OptionError, RequestError, TusException
from tus.events import listen
from tus.models import Response
from tus.options import Options
from tus.stores import open_store
from tus.stores.interface import Checks, Store

log = logging.getLogger(__name__)

_NOT_STORED = [("Cache-Control", "no-store")]


class Operations:
    """A :class:`~tus.apps.front.Part` that responds to GET and HEAD of two paths.

    Args:
        store: the store of the uploads or its URL, such as their ``tmp_file_dir``.
        health_path: the path of the health check: 200 while uploads can be stored, otherwise 503. None for no check.
        metrics_path: the path of the metrics, without authentication. None for no metrics.

    Raises:
        OptionError: the store cannot be opened.
        TusException: the library for metrics is not installed.
    """

    def __init__(
        self, store: Store | str, health_path: str | None = "/health", metrics_path: str | None = None
    ) -> None:
        self._store = open_store(store) if isinstance(store, str) else store
        self._health_path = health_path
        self._metrics_path = metrics_path
        if metrics_path is not None:
            try:
                from tus.monitoring import metrics
            except ImportError:
                raise TusException(
                    "metrics need prometheus-client; install it with: pip install prometheus-client"
                ) from None
            self._metrics = metrics
            listen(metrics.count)

    def answer(self, head: Head) -> Callable[[], Response] | None:
        if head.method in ("GET", "HEAD"):
            if head.path == self._health_path:
                return self._check_health
            if head.path == self._metrics_path:
                return self._expose_metrics
        return None

    def _check_health(self) -> Response:
        if isinstance(self._store, Checks):
            try:
                self._store.check()
            except (RequestError, OSError) as error:
                log.warning("uploads cannot be stored: %s", error)
                return Response.of_text(503, "uploads cannot be stored", headers=_NOT_STORED)
        return Response.of_text(200, "ok", headers=_NOT_STORED)

    def _expose_metrics(self) -> Response:
        body = self._metrics.expose(self._store)
        described = [("Content-Type", self._metrics.CONTENT_TYPE), ("Content-Length", str(len(body)))]
        return Response(200, "OK", [*described, *_NOT_STORED], (body,))


def filter_app_factory(app: WsgiApp, global_conf: dict[str, str], **options: str) -> Front:
    """Make the filter ``egg:tus#operations`` for paste.deploy (a ``paste.filter_app_factory``).

    Options: ``tmp_file_dir`` and ``trusted_group``, or ``store``, of the uploads, ``health_path`` and ``metrics_path``.

    Raises:
        OptionError: another option is given, or one has a bad value.
    """
    paths = {name: options.pop(name) for name in ("health_path", "metrics_path") if name in options}
    known = ("tmp_file_dir", "trusted_group", "store", "health_path", "metrics_path")
    for name in options:
        if name not in known:
            raise OptionError(name, f"is unknown{suggestion(name, known)}; known are {', '.join(known)}")
    for name, path in paths.items():
        try:
            paths[name] = as_url_path(path)
        except ValueError as error:
            raise OptionError(name, f"{error}; it is {path!r}") from None
    built = Options.build(**options)
    store = open_store(built.store or built.tmp_file_dir, built)
    return Front(app, Operations(store, paths.get("health_path"), paths.get("metrics_path")))
