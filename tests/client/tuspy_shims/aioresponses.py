"""In place of the package ``aioresponses``, as far as tuspy's tests use it."""

import contextlib
import ssl
from dataclasses import dataclass, field
from unittest import mock

from tus.client.errors import ConnectionFailed
from tus.client.messages import Headers
from tus.client.transports.httpx_async import AsyncHttpxTransport
from tus.client.transports.interface import AsyncWireResponse


@dataclass
class CallbackResult:
    status: int = 200
    headers: dict = field(default_factory=dict)


class aioresponses:  # noqa: N801 - its name there
    def __init__(self):
        self._callbacks = {}
        self._patches = contextlib.ExitStack()

    def post(self, url, **response):
        self._add("POST", url, **response)

    def patch(self, url, **response):
        self._add("PATCH", url, **response)

    def _add(self, method, url, status=200, headers=None, callback=None, exception=None):
        def answer(url, **request):
            if exception is not None:
                raise exception
            return callback(url, **request) if callback else CallbackResult(status, headers or {})

        self._callbacks[method, url] = answer

    def __enter__(self):
        real = AsyncHttpxTransport.__init__

        def make(transport, *arguments, verify=True, **others):
            real(transport, *arguments, verify=verify, **others)
            transport.ssl = None if verify.verify_mode != ssl.CERT_NONE else False

        @contextlib.asynccontextmanager
        async def send(transport, request):
            content = b"".join([block async for block in request.body]) if request.body else b""
            callback = self._callbacks.get((request.method, request.url))
            if callback is None:
                raise ConnectionFailed(f"no response for {request.method} {request.url}")
            result = callback(request.url, headers=dict(request.headers), data=content, ssl=transport.ssl)

            async def blocks():
                yield b""

            yield AsyncWireResponse(result.status, Headers(result.headers.items()), blocks)

        self._patches.enter_context(mock.patch.object(AsyncHttpxTransport, "__init__", make))
        self._patches.enter_context(mock.patch.object(AsyncHttpxTransport, "send", send))
        return self

    def __exit__(self, *error):
        self._patches.close()
