"""Pools of connections whose streams listen, as transports of httpx2; and which proxy they go through."""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.util import find_spec
from typing import Any, Generic, TypeVar

import httpcore2
import httpx2

from tus.client.errors import NotSupported
from tus.client.transports import stream

Pool = TypeVar("Pool")


class Pools(Generic[Pool]):
    """The pools of connections, one for each proxy and one without.

    Args:
        proxy: a URL with the scheme http, https or socks5; None for what the environment says (``HTTP_PROXY``,
            ``HTTPS_PROXY``, ``ALL_PROXY``, ``NO_PROXY``).
        context: for TLS.
        direct, http, socks: make a pool.
        backend: the network backend of all.

    Raises:
        ValueError: ``proxy`` is no such URL.
    """

    def __init__(
        self,
        proxy: str | None,
        context: ssl.SSLContext,
        backend: Any,
        direct: Callable[..., Pool],
        http: Callable[..., Pool],
        socks: Callable[..., Pool],
    ) -> None:
        self._proxy = proxy
        self._environment = {} if proxy else urllib.request.getproxies()
        self._context = context
        self._settings = {
            "ssl_context": context,
            "network_backend": backend,
            "max_connections": None,
            "max_keepalive_connections": 20,
            "keepalive_expiry": 5.0,
        }
        self._direct, self._http, self._socks = direct, http, socks
        first = proxy or ""
        self._pools = {first: self._make(first)}

    def of(self, url: httpx2.URL) -> Pool:
        """Return the pool for a URL."""
        proxy = self._proxy or self._from_environment(url)
        pool = self._pools.get(proxy)
        if pool is None:
            try:
                pool = self._pools.setdefault(proxy, self._make(proxy))  # two threads may make one each
            except ValueError as error:
                raise NotSupported(f"In the environment, {error}", url=str(url)) from None
        return pool

    def all(self) -> list[Pool]:
        """Return them all."""
        return list(self._pools.values())

    def _from_environment(self, url: httpx2.URL) -> str:
        proxy = self._environment.get(url.scheme) or self._environment.get("all") or ""
        if not proxy or urllib.request.proxy_bypass(f"{url.host}:{url.port}" if url.port else url.host):
            return ""
        return proxy if "://" in proxy else f"http://{proxy}"

    def _make(self, proxy: str) -> Pool:
        if not proxy:
            return self._direct(**self._settings)
        try:
            parsed = httpx2.Proxy(proxy)
        except (ValueError, httpx2.InvalidURL):
            raise ValueError(_PROXIES.format(_masked(proxy))) from None
        url = httpcore2.URL(
            scheme=parsed.url.raw_scheme, host=parsed.url.raw_host, port=parsed.url.port, target=parsed.url.raw_path
        )
        settings = self._settings | {"proxy_url": url, "proxy_auth": parsed.raw_auth}
        if parsed.url.scheme in ("http", "https"):
            if parsed.url.scheme == "https":
                settings["proxy_ssl_context"] = self._context
            return self._http(**settings)
        if find_spec("socksio") is None:
            raise NotSupported("A SOCKS proxy needs the package socksio: pip install socksio")
        return self._socks(**settings)


_PROXIES = "proxy must be a URL with the scheme http, https or socks5; it is {}"


def _masked(proxy: str) -> str:
    """Return the URL of a proxy without user and password."""
    scheme, mark, rest = proxy.partition("://")
    return repr(f"{scheme}{mark}{rest.rpartition('@')[2]}" if mark else proxy.rpartition("@")[2])


class ListeningTransport(httpx2.BaseTransport):
    """Sends the requests of a client of httpx2 over streams that listen."""

    def __init__(self, context: ssl.SSLContext, proxy: str | None) -> None:
        makers = httpcore2.ConnectionPool, httpcore2.HTTPProxy, httpcore2.SOCKSProxy
        self._pools: Pools[httpcore2.ConnectionPool] = Pools(proxy, context, stream.Backend(), *makers)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = self._pools.of(request.url).handle_request(_core_request(request))
        body: Any = response.stream
        return httpx2.Response(
            response.status, headers=response.headers, stream=_Body(body), extensions=response.extensions
        )

    def close(self) -> None:
        for pool in self._pools.all():
            pool.close()


class AsyncListeningTransport(httpx2.AsyncBaseTransport):
    """The same on an event loop."""

    def __init__(self, context: ssl.SSLContext, proxy: str | None) -> None:
        makers = httpcore2.AsyncConnectionPool, httpcore2.AsyncHTTPProxy, httpcore2.AsyncSOCKSProxy
        self._pools: Pools[httpcore2.AsyncConnectionPool] = Pools(proxy, context, stream.AsyncBackend(), *makers)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._pools.of(request.url).handle_async_request(_core_request(request))
        body: Any = response.stream
        return httpx2.Response(
            response.status, headers=response.headers, stream=_AsyncBody(body), extensions=response.extensions
        )

    async def aclose(self) -> None:
        for pool in self._pools.all():
            await pool.aclose()


class _Body(httpx2.SyncByteStream):
    def __init__(self, body: Any) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        self._body.close()


class _AsyncBody(httpx2.AsyncByteStream):
    def __init__(self, body: Any) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for block in self._body:
            yield block

    async def aclose(self) -> None:
        await self._body.aclose()


def _core_request(request: httpx2.Request) -> httpcore2.Request:
    url = request.url
    return httpcore2.Request(
        method=request.method,
        url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=request.headers.raw,
        content=request.stream,
        extensions=request.extensions,
    )
