"""Requests without a server: an environ, a body that may be cut, and the reply."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import unquote, urlsplit
from wsgiref.validate import validator

from tests.support.asgi import call_asgi

TUS = {"Tus-Resumable": "1.0.0"}
OCTETS = {"Content-Type": "application/offset+octet-stream"}


@dataclass
class Reply:
    status: int
    reason: str
    header_list: list[tuple[str, str]]
    body: bytes
    headers: dict[str, str] = field(init=False)

    def __post_init__(self):
        self.headers = {name.lower(): value for name, value in self.header_list}
        assert len(self.headers) == len(self.header_list), f"a header is there twice: {self.header_list}"

    def __getitem__(self, name):
        return self.headers[name.lower()]

    def get(self, name):
        return self.headers.get(name.lower())


class Stream(io.RawIOBase):
    """A ``wsgi.input`` as servers have it: no seeking, no length, no end but that of the connection.

    Reading past what the server may give fails, as it would block for ever on a connection that is kept open.
    """

    def __init__(self, data: bytes, ends: bool, error: BaseException | None = None):
        self._data = io.BytesIO(data)
        self._ends = ends
        self._error = error
        self.taken = 0

    def readinto(self, buffer):
        block = self.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def read(self, size=-1):
        assert size >= 0, "a body without a bound would be read into memory"
        block = self._data.read(size)
        self.taken += len(block)
        if len(block) < size and self._error is not None:
            raise self._error
        if not block and size and not self._ends:
            raise AssertionError("the application read past the end of the body")
        return block


def call(
    app,
    method,
    url,
    headers=(),
    body=b"",
    *,
    chunked=False,
    length=None,
    error=None,
    environ=(),
    validate=True,
):
    """Send one request, to an ASGI application if it has a ``backend``.

    Args:
        length: the Content-Length where it is not the body's: the connection is cut after the body.
        chunked: no Content-Length; the server decodes chunks and ends the input itself.
        error: raised by the server's input at the end of the body, instead of an end.
    """
    parts = urlsplit(url)
    full = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(parts.path, "latin-1"),
        "QUERY_STRING": parts.query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": parts.netloc or "localhost",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": parts.scheme or "http",
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    cut = length is not None and length > len(body)
    full["wsgi.input"] = Stream(body, ends=chunked or cut, error=error)
    if chunked:
        full |= {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
    elif body or length is not None or method in ("POST", "PATCH", "PUT"):
        full["CONTENT_LENGTH"] = str(len(body) if length is None else length)
    for name, value in dict(headers).items():
        key = name.upper().replace("-", "_")
        full[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
    script = dict(environ).get("SCRIPT_NAME")
    if script and full["PATH_INFO"].startswith(script):
        full["PATH_INFO"] = full["PATH_INFO"][len(script) :]
    full |= dict(environ)
    if hasattr(app, "backend"):
        status, header_list, content = call_asgi(
            app, full, body, cut or error is not None, None if isinstance(error, Exception) else error, app.backend
        )
        return Reply(status, HTTPStatus(status).phrase if status in set(HTTPStatus) else "", header_list, content)
    started = []

    def start_response(status, header_list, exc_info=None):
        started[:] = [status, header_list]
        return lambda data: None

    blocks = (validator(app) if validate else app)(full, start_response)
    try:
        content = b"".join(blocks)
    finally:
        if hasattr(blocks, "close"):
            blocks.close()
    status, reason = started[0].split(" ", 1)
    return Reply(int(status), reason, started[1], content)
