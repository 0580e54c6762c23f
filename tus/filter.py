"""``Filter``: a WSGI filter in front of any application, and its paste.deploy factory."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, BinaryIO
from weakref import WeakSet

from tus.adapters.filebody import FileBody
from tus.adapters.wsgi import SURROUNDINGS, Environ, WsgiAdapter, environ_without_client, full_path
from tus.errors import OptionError
from tus.handover.attempt import ABOUT_KEY, HANDOVER_KEY, INTENT_KEY, LONGEST_ANSWER, UPLOAD_KEY, offer, verdict_of
from tus.handover.backlog import Backlog
from tus.handover.receivers import hooks_of, receiver_of
from tus.models import IETF, Intent, Response, Upload
from tus.options import Options
from tus.protocols.routing import is_under
from tus.protocols.tus1.withholding import offered_method
from tus.server.sync import Tus
from tus.stores import open_store
from tus.stores.interface import Claim

ExcInfo = tuple[type[BaseException], BaseException, TracebackType]
StartResponse = Callable[..., Callable[[bytes], object]]
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]


class Filter:
    """Receives uploads under one path, and lets the wrapped application have each finished file.

    Requests elsewhere pass untouched. On the request that completes an upload the application is called with
    ``environ["tus.upload"]`` set, and the file, or its path, as the request's body. If it answers 2xx it has accepted
    the file: the client hears 204 (201 on a POST) with the application's headers, and the data is removed. By one of
    ``reject_statuses``, or :class:`~tus.errors.Rejected`, it rejects the file. After anything else, exceptions too, the
    file is kept, the client is told to try again, and the application is asked once more: by a request of that client,
    or without one, with an environ as :func:`tus.adapters.wsgi.environ_without_client` makes it.

    Args:
        app: the wrapped application.
        global_conf: what paste.deploy passes; not used.
        options: all of them at once, built by :meth:`tus.options.Options.build`; then none of the others is given.
        **others: see :class:`tus.options.Options`; ``upload_path`` and ``tmp_file_dir`` are required.

    Raises:
        OptionError: an option is unknown, missing or has a bad value, or the directory does not serve.
    """

    def __init__(
        self,
        app: WsgiApp,
        global_conf: dict[str, str] | None = None,
        *,
        options: Options | None = None,
        **others: object,
    ) -> None:
        if options is None:
            options = Options.build(**others)
        elif others:
            raise OptionError(next(iter(others)), "cannot be given beside options=")
        self._app = app
        self._options = options
        if self._options.upload_path is None:
            raise OptionError("upload_path", "is required")
        self._upload_path = self._options.upload_path
        self._store = open_store(self._options)
        self._surroundings: Environ = {}
        receiver = receiver_of(options) or _LoneReceiver(self._app, options, self._surroundings)
        self.backlog = Backlog(self._store, options, receiver, hooks_of(options, self._store))
        _filters.add(self)

    @property
    def tmp_file_dir(self) -> str:
        """The directory of the uploads."""
        return self._options.tmp_file_dir

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("wsgi.multithread") or self._options.handover == "background":
            self.backlog.start()  # whatever the request is for: uploads may be waiting here since the last restart
        if not is_under(full_path(environ), self._upload_path):
            return self._app(environ, start_response)
        adapter = WsgiAdapter(environ)
        receiver = receiver_of(self._options) or _Receiver(self._app, adapter, self._options)
        asker = _Asker(self._app, adapter, self._upload_path) if self._options.ask_app else None
        self._surroundings.update((key, environ[key]) for key in SURROUNDINGS if key in environ)
        tus = Tus(
            adapter, options=self._options, store=self._store, receiver=receiver, backlog=self.backlog, asker=asker
        )
        if not tus.valid:
            return self._app(environ, start_response)
        tus.handle()
        response = adapter.response
        assert response is not None, "handle() has answered"
        start_response(f"{response.status} {response.reason}", response.headers)
        return response.body


_filters: WeakSet[Filter] = WeakSet()


def filters_over(directory: str | None) -> list[Filter]:
    """The filters of this process, or those of them whose uploads are in a directory."""
    if directory is None:
        return list(_filters)
    return [found for found in _filters if os.path.realpath(found.tmp_file_dir) == os.path.realpath(directory)]


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
        body = answer.settle(keep=claim.upload.protocol == IETF)  # which may change the rest
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


class _Answer:
    """An application's response: its head at once, its body as it is iterated."""

    def __init__(self, app: WsgiApp, environ: Environ, file: BinaryIO) -> None:
        self.status = 0
        self.reason = ""
        self.headers: list[tuple[str, str]] = []
        self._file = file
        self._blocks: list[bytes] = []  # produced, and not yet passed on
        self._is_sent = False
        self._is_closed = False
        self._iterable = app(environ, self._start_response)
        self._iterator = iter(self._iterable)
        try:
            # An application may start its response as late as with its first block.
            while not self.status and self._produce():
                pass
            if not self.status:
                raise AssertionError("the application ended without calling start_response()")
        except BaseException:
            self.close()
            raise

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], Any]:
        if exc_info is not None and self._is_sent:
            raise exc_info[1].with_traceback(exc_info[2])
        if exc_info is None and self.status:
            raise AssertionError("the application called start_response() twice")
        code, _, self.reason = status.partition(" ")
        self.status, self.headers = int(code), list(headers)
        self._blocks.clear()
        return self._blocks.append

    def _produce(self) -> bool:
        """Have the application produce its next block; False at the end."""
        try:
            self._blocks.append(next(self._iterator))
        except StopIteration:
            return False
        return True

    def settle(self, keep: bool = False) -> Iterable[bytes]:
        """Have it produced as far as it must be known, and return the body.

        A success is one at its end only. Any other answer, if it is longer than what may have to be kept, is produced
        as it is read; else it is bytes.

        Args:
            keep: whether the body of a success is wanted.
        """
        try:
            while sum(map(len, self._blocks)) <= LONGEST_ANSWER or self._is_success:
                if self._is_success and not keep:
                    self._blocks.clear()
                elif sum(map(len, self._blocks)) > LONGEST_ANSWER:
                    return self._set_aside()
                if not self._produce():
                    blocks = tuple(self._blocks) if keep or not self._is_success else ()
                    self.close()
                    return blocks
        except BaseException:
            self.close()
            raise
        return self

    def _set_aside(self) -> FileBody:
        """A success to its end, which has more bytes than are kept in memory."""
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the response closes it
        try:
            while self._blocks or self._produce():
                file.write(self._blocks.pop(0))
            self.close()
            return FileBody(file, 0, file.tell(), reaches_end=True)
        except BaseException:
            file.close()
            raise

    @property
    def _is_success(self) -> bool:
        return 200 <= self.status < 300

    def __iter__(self) -> Iterator[bytes]:
        self._is_sent = True
        while True:
            while self._blocks:
                yield self._blocks.pop(0)
            if not self._produce():
                yield from self._blocks
                return

    def close(self) -> None:
        """Let go, once, of the application's response and of the file that it was reading."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            close = getattr(self._iterable, "close", None)
            if close is not None:
                close()
        finally:
            self._file.close()


def filter_app_factory(app: WsgiApp, global_conf: dict[str, str], **options: str) -> Filter:
    """``egg:tus#main``, for paste.deploy (a ``paste.filter_app_factory``)."""
    return Filter(app, global_conf, options=Options.build(**options))
