"""In place of the package ``responses``, as far as tuspy's tests use it: responses without a network, on our transport.

A request that no response was added for fails as one to a server that is not there.
"""

import contextlib
import functools
import ssl
from types import SimpleNamespace
from unittest import mock

from tus.client.errors import ConnectionFailed
from tus.client.messages import Headers
from tus.client.transports.httpx import HttpxTransport
from tus.client.transports.interface import WireResponse

HEAD, POST, PATCH = "HEAD", "POST", "PATCH"


class RequestsMock:
    def __init__(self):
        self._callbacks = {}
        self._patches = contextlib.ExitStack()

    def add(self, method, url, adding_headers=None, status=200, body=b""):
        def answer(request):
            if isinstance(body, Exception):
                raise body
            return status, adding_headers or {}, body

        self.add_callback(method, url, answer)

    def add_callback(self, method, url, callback):
        self._callbacks[method, url] = callback

    def __enter__(self):
        real = HttpxTransport.__init__

        def make(transport, *arguments, verify=True, **others):
            real(transport, *arguments, verify=verify, **others)
            transport.verifies = verify.verify_mode != ssl.CERT_NONE

        @contextlib.contextmanager
        def send(transport, request):
            content = b"".join(request.body or ())
            callback = self._callbacks.get((request.method, request.url))
            if callback is None:
                raise ConnectionFailed(f"no response for {request.method} {request.url}")
            described = SimpleNamespace(
                headers=Headers(request.headers), body=content, req_kwargs={"verify": transport.verifies}
            )
            status, headers, body = callback(described)
            yield WireResponse(status, Headers(headers.items()), lambda: iter([body or b""]))

        self._patches.enter_context(mock.patch.object(HttpxTransport, "__init__", make))
        self._patches.enter_context(mock.patch.object(HttpxTransport, "send", send))
        return self

    def __exit__(self, *error):
        self._patches.close()
        self._callbacks.clear()


_default = RequestsMock()
add, add_callback = _default.add, _default.add_callback


def activate(function):
    @functools.wraps(function)
    def activated(*arguments, **others):
        with _default:
            return function(*arguments, **others)

    return activated
