"""The adapter for plain WSGI (PEP 3333), and the call of a wrapped application."""

from __future__ import annotations

import io
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from types import TracebackType
from typing import Any, BinaryIO, cast
from urllib.parse import quote, urlsplit

from tus.adapters.filebody import BLOCK, FileBody
from tus.adapters.interface import LONGEST_ANSWER
from tus.models import MEDIA_TYPE, Readable, Request, Response, Upload

Environ = dict[str, Any]

_SAFE = "/~:@!$&'()*+,;="
_PLAIN = re.compile(r"[A-Za-z0-9/._-]*")  # unchanged by quote(), as nearly every path is


@lru_cache(maxsize=256)
def _environ_key(name: str) -> str:
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key


class EnvironHeaders(Mapping[str, str]):
    """The header fields in an environ by their usual names, such as ``Upload-Offset``."""

    def __init__(self, environ: Environ) -> None:
        self._environ = environ

    def __getitem__(self, name: str) -> str:
        return cast(str, self._environ[_environ_key(name)])

    def get(self, name: str, default: Any = None) -> Any:
        return self._environ.get(_environ_key(name), default)

    def __iter__(self) -> Iterator[str]:
        for key in self._environ:
            if key.startswith("HTTP_"):
                yield key[5:].replace("_", "-").title()
            elif key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                yield key.replace("_", "-").title()

    def __len__(self) -> int:
        return sum(1 for _ in self)


def full_path(environ: Environ) -> str:
    """Return the decoded path from the root of the site: SCRIPT_NAME and PATH_INFO."""
    path = str(environ.get("SCRIPT_NAME", "")) + str(environ.get("PATH_INFO", ""))
    return path if path.isascii() else path.encode("latin-1").decode("utf-8", "replace")


def request_url(environ: Environ) -> str:
    """Return the URL as the client knows it, without its query (PEP 3333, URL Reconstruction)."""
    scheme = environ.get("wsgi.url_scheme", "http")
    host = environ.get("HTTP_HOST")
    if not host:
        host = environ["SERVER_NAME"]
        if str(environ["SERVER_PORT"]) != ("443" if scheme == "https" else "80"):
            host = f"{host}:{environ['SERVER_PORT']}"
    path = str(environ.get("SCRIPT_NAME", "")) + str(environ.get("PATH_INFO", ""))
    if _PLAIN.fullmatch(path) is None:
        path = quote(path.encode("latin-1"), safe=_SAFE)
    return f"{scheme}://{host}{path}"


#: The keys whose values are the same for every request to an application at one mount point.
SURROUNDINGS = ("SCRIPT_NAME", "SERVER_NAME", "SERVER_PORT", "wsgi.url_scheme")


def environ_without_client(path: str, base_url: str, surroundings: Environ) -> Environ:
    """Return the environ of a PATCH for a hand-over without a client.

    It has no cookies, no credentials and no address of a client. The upload knows its principal.

    Args:
        path: of the URL, from the root of the site, decoded.
        base_url: the option of that name; may be empty.
        surroundings: the values of :data:`SURROUNDINGS` in an earlier request, as far as they are known.
    """
    url = urlsplit(base_url or "http://localhost")
    environ: Environ = {
        "REQUEST_METHOD": "PATCH",
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "SERVER_NAME": url.hostname or "localhost",
        "SERVER_PORT": str(url.port or (443 if url.scheme == "https" else 80)),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": url.scheme,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        **surroundings,
    }
    environ["PATH_INFO"] = path.encode().decode("latin-1").removeprefix(environ["SCRIPT_NAME"])
    environ["HTTP_HOST"] = url.netloc if base_url else f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
    return environ


#: The keys that describe the body, and change when it is replaced.
BODY_KEYS = (
    "wsgi.input",
    "wsgi.input_terminated",
    "CONTENT_LENGTH",
    "CONTENT_TYPE",
    "HTTP_TRANSFER_ENCODING",
    "webob.is_body_seekable",
    "webob._body_file",
    "webob._parsed_post_vars",
)


class EnvironBody:
    """The body in an environ, which can be replaced.

    Args:
        environ: changed in place.
    """

    def __init__(self, environ: Environ) -> None:
        self.environ = environ

    def remove_body(self) -> None:
        """Remove the body of the request, for an application that is only asked to authorize it."""
        self._set_input(io.BytesIO(), 0)

    def replace_body(self, file: BinaryIO, size: int, upload: Upload) -> None:
        """Replace the body so that Flask, Django and WebOb read it; without a length two of them see an empty body."""
        self._set_input(file, size)
        self.environ["CONTENT_TYPE"] = MEDIA_TYPE  # a framework would try to parse the type of a form

    def _set_input(self, file: BinaryIO, size: int) -> None:
        environ = self.environ
        environ["wsgi.input"] = file
        environ["wsgi.input_terminated"] = True
        environ["CONTENT_LENGTH"] = str(size)
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        for key in ("webob._body_file", "webob._parsed_post_vars", "webob.is_body_seekable"):
            environ.pop(key, None)


ExcInfo = tuple[type[BaseException], BaseException, TracebackType]


StartResponse = Callable[..., Callable[[bytes], object]]


WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]


class WsgiAdapter(EnvironBody):
    """An :class:`~tus.adapters.interface.Adapter` over an environ.

    Attributes:
        environ: the environ of the request.
        request: the head of the request.
        response: the response that was made, or None.
    """

    def __init__(self, environ: Environ) -> None:
        super().__init__(environ)
        self.response: Response | None = None
        self.request = Request(
            method=environ["REQUEST_METHOD"],
            url=request_url(environ),
            headers=EnvironHeaders(environ),
            input_terminated=bool(environ.get("wsgi.input_terminated")),
            peer=environ.get("REMOTE_ADDR", ""),
            native=environ,
        )

    @property
    def method(self) -> str:
        """The method of the request, or the one in ``X-HTTP-Method-Override`` of a POST."""
        return self.request.effective_method

    @property
    def stream(self) -> Readable:
        stream: Readable = self.environ["wsgi.input"]
        return stream

    def inform(self, response: Response) -> bool:
        """Send an interim response under gunicorn, which exposes its socket; WSGI itself has no interim responses.

        The message fits into the socket's buffer, and gunicorn writes nothing to it before the final response.
        """
        connection = self.environ.get("gunicorn.socket")
        if connection is None or self.environ.get("SERVER_PROTOCOL") != "HTTP/1.1":
            return False
        fields = "".join(f"{name}: {value}\r\n" for name, value in response.headers)
        head = f"HTTP/1.1 {response.status} {response.reason}\r\n{fields}\r\n"
        try:
            connection.sendall(head.encode("latin-1"))
        except OSError:
            return False
        return True

    def respond(self, response: Response) -> None:
        self.response = response
        if isinstance(response.body, FileBody):
            self.response = replace(response, body=self._wrap_file(response.body))

    def _wrap_file(self, body: FileBody) -> Iterable[bytes]:
        """Return a file in the server's own wrapper, if the wrapper cannot send too much of it."""
        wrapper = self.environ.get("wsgi.file_wrapper")
        if wrapper is None or not body.reaches_end or body.start == body.stop:
            return body
        body.file.seek(body.start)
        return cast(Iterable[bytes], wrapper(body.file, BLOCK))


class ApplicationResponse:
    """The response of an application that is called here: its head at once, its body as it is iterated.

    Args:
        app: the application.
        environ: the environ to call it with.
        file: the body of the request, which :meth:`close` closes.

    Attributes:
        status: the HTTP status code.
        reason: the reason phrase.
        headers: pairs of name and value.
    """

    def __init__(self, app: WsgiApp, environ: Environ, file: BinaryIO) -> None:
        self.status = 0
        self.reason = ""
        self.headers: list[tuple[str, str]] = []
        self._file = file
        self._blocks: list[bytes] = []  # produced, and not yet yielded
        self._is_sent = False
        self._is_closed = False
        self._iterable = app(environ, self._start_response)
        self._iterator = iter(self._iterable)
        try:
            # An application may call start_response() as late as with its first block.
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
        """Get the next block from the application; return False at the end."""
        try:
            self._blocks.append(next(self._iterator))
        except StopIteration:
            return False
        return True

    def settle(self, keep: bool = False) -> Iterable[bytes]:
        """Iterate the response as far as its outcome must be known, and return its body.

        A 2xx is iterated to its end, because a 2xx that raises before its end is not a success. Another response of
        more than :data:`~tus.adapters.interface.LONGEST_ANSWER` bytes is produced as it is read; a shorter one is a
        tuple.

        Args:
            keep: whether the body of a 2xx is kept.
        """
        try:
            while sum(map(len, self._blocks)) <= LONGEST_ANSWER or self._is_success:
                if self._is_success and not keep:
                    self._blocks.clear()
                elif sum(map(len, self._blocks)) > LONGEST_ANSWER:
                    return self._spool_to_file()
                if not self._produce():
                    blocks = tuple(self._blocks) if keep or not self._is_success else ()
                    self.close()
                    return blocks
        except BaseException:
            self.close()
            raise
        return self

    def _spool_to_file(self) -> FileBody:
        """Write the whole body of a success to a temporary file, because it is too long for memory."""
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
        """Close the application's response and the body of its request. A second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            close = getattr(self._iterable, "close", None)
            if close is not None:
                close()
        finally:
            self._file.close()
