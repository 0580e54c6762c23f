"""The default transport, over httpx2. The module ``httpx_async`` is the same for an event loop."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import httpx2

from tus.client.errors import NotSupported
from tus.client.messages import Headers
from tus.client.transports.certificates import Cert, Verify, ssl_context
from tus.client.transports.exchange import Aborted, Exchange, sending
from tus.client.transports.failures import in_plain_words
from tus.client.transports.interface import WireRequest, WireResponse
from tus.version import __version__

SessionT = TypeVar("SessionT", httpx2.Client, httpx2.AsyncClient)

_log = logging.getLogger("tus.client")


class Session(Generic[SessionT]):
    """What both transports have in common: a client of httpx2, the caller's or our own, and the requests on it.

    Args:
        make: the class of the client.
        listening: the name of the transport in ``pools`` for our own.
        client: the caller's, which has its own settings and is never closed here.
    """

    def __init__(
        self,
        make: type[SessionT],
        listening: str,
        client: SessionT | None,
        *,
        verify: Verify,
        cert: Cert | None,
        proxy: str | None,
    ) -> None:
        self.is_own = client is None
        self.sends_trailers = False
        self._client: SessionT
        if client is not None:
            self._client = client
            return
        context = ssl_context(verify, cert)
        try:
            from tus.client.transports import pools

            settings: dict[str, Any] = {"transport": getattr(pools, listening)(context, proxy), "trust_env": False}
            self.sends_trailers = True
        except (ImportError, AttributeError, TypeError) as error:  # another httpcore2 than the one that is known
            _log.warning("This httpcore2 is not known: no interim responses, early refusals and trailers (%s).", error)
            settings = {"verify": context, "proxy": proxy}
        self._client = make(headers={"User-Agent": f"tus/{__version__}"}, **settings)

    def _exchange(self, request: WireRequest) -> Exchange:
        if request.trailer is not None and not self.sends_trailers:
            raise NotSupported("This HTTP client sends no trailers.", url=request.url)
        exchange = Exchange(request)
        if request.on_start is not None:
            request.on_start(exchange.abort)
        return exchange

    def _built(self, request: WireRequest, body: Any) -> httpx2.Request:
        headers = list(request.headers)
        names = {name.lower() for name, _ in headers}
        if "accept-encoding" not in names:
            headers.append(("Accept-Encoding", "identity"))
        if request.trailer is not None:
            headers.append(("Trailer", "Upload-Checksum"))
        elif body is not None and request.length is not None and "content-length" not in names:
            headers.append(("Content-Length", str(request.length)))
        timeout = httpx2.Timeout(
            connect=request.connect_timeout,
            read=max(request.stall_timeout, request.answer_timeout),
            write=request.stall_timeout,
            pool=None,
        )
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]  # as http.client does
        client: httpx2.Client | httpx2.AsyncClient = self._client
        return client.build_request(request.method, request.url, headers=encoded, content=body, timeout=timeout)


class HttpxTransport(Session[httpx2.Client]):
    """Sends requests by httpx2, for threads.

    Args:
        client: the caller's own, with its headers, cookies and authentication; without trailers and interim responses.
        verify: how servers are verified, see :func:`~tus.client.transports.certificates.ssl_context`; like ``cert``.
        cert: the client's own certificate.
        proxy: a URL; None for what the environment says.
    """

    def __init__(
        self,
        client: httpx2.Client | None = None,
        *,
        verify: Verify = True,
        cert: Cert | None = None,
        proxy: str | None = None,
    ) -> None:
        super().__init__(httpx2.Client, "ListeningTransport", client, verify=verify, cert=cert, proxy=proxy)

    @contextlib.contextmanager
    def send(self, request: WireRequest) -> Iterator[WireResponse]:
        """Send a request, see :meth:`~tus.client.transports.interface.Transport.send`."""
        exchange = self._exchange(request)
        with in_plain_words(exchange), sending(exchange):
            body = request.body if self.is_own else _stoppable(request.body, exchange)
            response = self._client.send(self._built(request, body), stream=True, follow_redirects=False)
        try:
            yield WireResponse(
                response.status_code,
                Headers(response.headers.multi_items()),
                lambda: _blocks(response, exchange),
            )
        finally:
            response.close()

    def close(self) -> None:
        """Close all connections, unless the client is the caller's."""
        if self.is_own:
            self._client.close()


def _blocks(response: httpx2.Response, exchange: Exchange) -> Iterator[bytes]:
    blocks = response.iter_bytes()
    while True:
        with in_plain_words(exchange):
            block = next(blocks, None)
            stop_if_aborted(exchange)
        if block is None:
            return
        yield block


def _stoppable(body: Any, exchange: Exchange) -> Any:
    return None if body is None else _stopping(body, exchange)


def _stopping(body: Any, exchange: Exchange) -> Iterator[bytes]:
    for block in body:
        stop_if_aborted(exchange)
        yield block


def stop_if_aborted(exchange: Exchange) -> None:
    """End a request whose connection another thread cannot end."""
    if exchange.is_aborted:
        raise Aborted
