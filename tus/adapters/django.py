"""The adapter for Django views under WSGI.

Only a project that uses Django imports this module.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from django.core.signals import got_request_exception, request_finished, request_started
from django.db import transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

from tus.adapters.transactions import TransactionEnd
from tus.adapters.wsgi import WsgiAdapter
from tus.models import Response


class DjangoAdapter(WsgiAdapter):
    """One request of Django, and its response.

    ``cleanup_file()`` within an atomic block, also that of ``ATOMIC_REQUESTS``, accepts the file once the block's
    transaction has been committed. If that is rolled back, the file is kept and offered again, and :attr:`resp` says
    so. Outside of an atomic block the file is accepted at once.

    Args:
        request: under WSGI. Its body must not have been read.
        using: the alias of the database whose transaction counts.

    Attributes:
        resp: the response that the view returns.
    """

    def __init__(self, request: HttpRequest, using: str | None = None) -> None:
        environ = getattr(request, "environ", None)
        if environ is None:
            raise TypeError("DjangoAdapter needs a request under WSGI; under ASGI use tus.asgi.TusMiddleware")
        super().__init__(environ)
        self._using = using
        self._end: TransactionEnd | None = None
        self._answer: Response | None = None
        kind = _StreamedAnswer if self.request.method == "GET" else _Answer  # a download is streamed
        self.resp: HttpResponse | StreamingHttpResponse = kind(self)

    def at_request_end(self, callback: Callable[[], None]) -> bool:
        """Register a function that is called when Django has finished the request."""
        _requests.open[-1].callbacks.append(callback)
        return True

    def at_transaction_end(self, callback: Callable[[bool], None]) -> bool:
        connection = transaction.get_connection(self._using)
        if not connection.in_atomic_block:
            return False
        pending = self._answer
        assert pending is not None, "the view was offered a file"
        self._end = TransactionEnd(callback, partial(self.respond, pending))
        transaction.on_commit(partial(self._end, True), self._using)
        self.at_request_end(partial(self._end, False))
        _requests.open[-1].waiting.append(self)
        return True

    def end_raised(self) -> None:
        """Report a transaction that an exception has rolled back, before the client gets the response."""
        if self._end is not None and not transaction.get_connection(self._using).in_atomic_block:
            self._end(False)

    def end_rolled_back(self) -> None:
        """Report a transaction that has ended without a commit.

        Django has no hook for that. It discards those for the commit. The refusal of a file needs no commit.
        """
        if self._end is None or transaction.get_connection(self._using).in_atomic_block:
            return
        end, self._end = self._end, None
        assert self._answer is not None
        end(self._answer.status >= 400)

    def respond(self, response: Response) -> None:
        super().respond(response)
        assert self.response is not None
        resp = self.resp
        for name, _ in self._answer.headers if self._answer is not None else ():
            del resp[name]
        self._answer = response
        resp.status_code, resp.reason_phrase = response.status, response.reason
        for name, value in response.headers:
            resp[name] = value
        if isinstance(resp, StreamingHttpResponse):
            resp.streaming_content = self.response.body
        else:
            resp.content = b"".join(self.response.body)
            close = getattr(self.response.body, "close", None)
            if close is not None:  # Django calls it after the response was sent
                resp._resource_closers.append(close)


class _Settled:
    """A response whose status is looked up after the view.

    Django and its middleware do that after the transaction of the view, which may have been rolled back without an
    exception, as by ``set_rollback(True)``.
    """

    _adapter: DjangoAdapter
    _status = 204

    @property
    def status_code(self) -> int:
        self._adapter.end_rolled_back()
        return self._status

    @status_code.setter
    def status_code(self, status: int) -> None:
        self._status = status


class _Answer(_Settled, HttpResponse):  # type: ignore[misc]
    def __init__(self, adapter: DjangoAdapter) -> None:
        self._adapter = adapter
        super().__init__(status=204)
        del self["Content-Type"]


class _StreamedAnswer(_Settled, StreamingHttpResponse):  # type: ignore[misc]
    def __init__(self, adapter: DjangoAdapter) -> None:
        self._adapter = adapter
        super().__init__(status=204)
        del self["Content-Type"]


class _OpenRequest:
    """A request that Django has not finished.

    Attributes:
        callbacks: what to call at its end.
        waiting: its adapters that wait for a transaction.
    """

    def __init__(self) -> None:
        self.callbacks: list[Callable[[], None]] = []
        self.waiting: list[DjangoAdapter] = []


class _Requests(threading.local):
    """The requests of a thread.

    Attributes:
        open: the innermost is last, because a view may call its own site. The first is one that began before this
            module was imported.
    """

    def __init__(self) -> None:
        self.open = [_OpenRequest()]


_requests = _Requests()


def _begin_request(**_: object) -> None:
    _requests.open.append(_OpenRequest())


def _fail_request(**_: object) -> None:
    for adapter in _requests.open[-1].waiting:
        adapter.end_raised()


def _finish_request(**_: object) -> None:
    finished = _requests.open.pop()
    if not _requests.open:
        _requests.open.append(_OpenRequest())
    for callback in finished.callbacks:
        callback()


request_started.connect(_begin_request)
got_request_exception.connect(_fail_request)
request_finished.connect(_finish_request)
