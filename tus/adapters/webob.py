"""The adapter for WebOb, and with it for Pyramid and other frameworks that use WebOb's request."""

from __future__ import annotations

import json as json_module
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO, cast

from webob import Request as WebobRequest
from webob import Response as WebobResponse

from tus.adapters.replay import ReplayableEnviron
from tus.adapters.transactions import TransactionEnd
from tus.adapters.wsgi import WsgiAdapter, close_empty
from tus.models import Readable, Response, Upload

log = logging.getLogger(__name__)

_BODY: Any = WebobResponse.body
_JSON: Any = WebobResponse.json


class ViewResponse(WebobResponse):
    """The response of a view, to which the view can give a body, such as ``resp.json_body = {"id": 17}``.

    A 204 with a body would break the connection: its client takes the body for the next response. So it becomes a 200,
    which clients take for success too. A body gets a type that suits it, unless the view has chosen one.
    """

    def _set_body(self, value: bytes) -> None:
        _BODY.fset(self, value)
        if value and self.status_code == 204:
            self.status = 200
            if self.content_type is None:
                self.headers["Content-Type"] = "text/plain; charset=utf-8"

    def _set_json(self, value: object) -> None:
        if self.content_type in (None, "text/plain"):
            self.headers["Content-Type"] = "application/json"
        self.body = json_module.dumps(value, separators=(",", ":")).encode()

    body: Any = property(_BODY.fget, _set_body, _BODY.fdel)
    json: Any = property(_JSON.fget, _set_json, _JSON.fdel)
    json_body: Any = json


class WebobAdapter(WsgiAdapter):
    """One WebOb request.

    It reads ``wsgi.input`` itself: WebOb's ``body_file`` discards its buffer at a disconnect, and its ``body`` copies
    everything first.

    ``cleanup_file()`` accepts the file once the transaction of pyramid_tm or repoze.tm has been committed. In Pyramid
    without pyramid_tm it accepts the file once all tweens have returned. A request that pyramid_retry runs again is
    offered the file again.

    Attributes:
        resp: the :class:`webob.Response` that the view returns.
    """

    _has_warned = False

    def __init__(self, request: WebobRequest) -> None:
        environ = request.environ
        self._runs = ReplayableEnviron.of(environ)  # before the head is read, because it restores that
        super().__init__(environ)
        if self._runs is not None:
            self.request = self._runs.replay(self.request)
        self._webob_request = request
        self._answer: Response | None = None
        self._has_ended = False
        self.resp = ViewResponse(status=204)

    @property
    def stream(self) -> Readable:
        if self.environ.get("webob.is_body_seekable") and not isinstance(self.environ["wsgi.input"], ReplayableEnviron):
            self._warn_about_copy()
        if self._runs is None:
            return super().stream
        self._runs.is_read = True
        return cast(Readable, self._runs.stream)

    @classmethod
    def _warn_about_copy(cls) -> None:
        """Log once that code before the view copies bodies."""
        if not WebobAdapter._has_warned:
            WebobAdapter._has_warned = True
            log.warning(
                "the body of an upload was copied before the view was called, so interrupted requests lose all of "
                "their bytes; pyramid_retry copies bodies: add config.include('tus.pyramid'); code that reads "
                "request.body, request.POST or request.json before the view copies them too"
            )

    def at_request_end(self, callback: Callable[[], None]) -> bool:
        """Register a function that is called when the request has ended, under Pyramid; return whether it will be."""
        add = getattr(self._webob_request, "add_finished_callback", None)
        if add is None:
            return False

        def end(request: object) -> None:
            self._has_ended = True
            callback()

        add(end)
        return True

    def at_transaction_end(self, callback: Callable[[bool], None]) -> bool:
        current = self._transaction()
        add_response_callback = getattr(self._webob_request, "add_response_callback", None)
        # Pyramid calls nothing any more once the response's body is produced. And what it calls comes before the commit
        # of a middleware around it; only pyramid_tm commits before that.
        if self._has_ended or (current is not None and not self.environ.get("tm.active")):
            add_response_callback = None
        if current is None and add_response_callback is None:
            return False
        pending = self._answer
        assert pending is not None, "the view was offered a file"
        end = TransactionEnd(callback, partial(self._show, pending))
        if current is not None:
            current.addAfterCommitHook(end)
            current.addAfterAbortHook(self._end_aborted, (end, add_response_callback is not None))
        if add_response_callback is not None:
            # Called after every tween, but not if one has raised.
            add_response_callback(lambda request, response: end(self._is_success(response)))
            self.at_request_end(partial(end, False))
        return True

    def _end_aborted(self, end: TransactionEnd, waits_for_response: bool) -> None:
        """End an aborted transaction.

        The refusal of a file needs no commit. A site may even abort every transaction whose response is an error. So a
        refusal counts once it is the response to the client.
        """
        assert self.response is not None
        if not waits_for_response or self.response.status < 400:
            end(False)

    def _is_success(self, response: Any) -> bool:
        """Return whether the client gets the response of this adapter, or another one that is no error."""
        return response is self.resp or bool(response.status_int < 400)

    def _transaction(self) -> Any:
        """Return the transaction in force, or None; nothing is imported if the request shows none."""
        environ = self.environ
        if not environ.get("tm.active") and not environ.get("repoze.tm.active"):
            return None
        import transaction
        from transaction.interfaces import NoTransaction

        manager = environ.get("tm.manager") or getattr(self._webob_request, "tm", None) or transaction.manager
        try:
            return manager.get()
        except NoTransaction:
            return None  # the view has ended it

    def replace_body(self, file: BinaryIO, size: int, upload: Upload) -> None:
        super().replace_body(file, size, upload)
        if self._runs is not None:
            self._runs.finished = upload

    def respond(self, response: Response) -> None:
        if self._runs is not None:
            response = self._runs.reply(response)
        self._show(response)

    def _show(self, response: Response) -> None:
        super().respond(response)
        assert self.response is not None
        self._answer = response
        # Always the same object: a view may have read it before it accepted the file.
        self.resp.status = f"{response.status} {response.reason}"
        body = self.response.body
        self.resp.app_iter = body or close_empty(body)  # this removes Content-Length, so headerlist is set after it
        self.resp.headerlist = list(response.headers)
