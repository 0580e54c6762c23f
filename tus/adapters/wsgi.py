"""The adapter for plain WSGI (PEP 3333), and the call of a wrapped application."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, BinaryIO, cast
from urllib.parse import quote

from tus.adapters.filebody import BLOCK, FileBody, LongBody, drop_representation
from tus.adapters.interface import LONGEST_ANSWER
from tus.http.paths import PLAIN, SAFE
from tus.models import FIELDS, MEDIA_TYPE, Origin, Readable, Request, Response, Upload
from tus.protocols.origins import PROTOCOL_FIELDS, REPRESENTATION, place_of, split_url

log = logging.getLogger(__name__)

Environ = dict[str, Any]


class _EnvironKeys(dict[str, str]):
    """The keys of header fields in an environ, by name. A subscript calls no function once a name is known."""

    def __missing__(self, name: str) -> str:
        key = name.upper().replace("-", "_")
        key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key
        if len(self) < _MOST_KEYS:
            self[name] = key
        return key


_MOST_KEYS = 256
_KEYS = _EnvironKeys()
_NAMES = {_KEYS[name]: name for name in FIELDS}
_PICKED = frozenset(_NAMES)  # three times as fast as the view of the dictionary


class EnvironHeaders(Mapping[str, str]):
    """The header fields in an environ by their usual names, such as ``Upload-Offset``."""

    def __init__(self, environ: Environ) -> None:
        self._environ = environ

    def __getitem__(self, name: str) -> str:
        return cast(str, self._environ[_KEYS[name]])

    def get(self, name: str, default: Any = None) -> Any:
        return self._environ.get(_KEYS[name], default)

    def pick_fields(self) -> dict[str, str]:
        """Return the values of :attr:`tus.models.Request.fields`."""
        environ, fields = self._environ, {}
        for key in _PICKED.intersection(environ):
            fields[_NAMES[key]] = environ[key]
        return fields

    def __iter__(self) -> Iterator[str]:
        for key in self._environ:
            if key.startswith("HTTP_"):
                yield key[5:].replace("_", "-").title()
            elif key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                yield key.replace("_", "-").title()

    def __len__(self) -> int:
        return sum(1 for _ in self)


# Subscripts instead of get(): every request comes through here, and a call costs more than a look at the key.
def full_path(environ: Environ) -> str:
    """Return the decoded path from the root of the site: SCRIPT_NAME and PATH_INFO."""
    path: str = environ["PATH_INFO"] if "PATH_INFO" in environ else ""
    if "SCRIPT_NAME" in environ:
        path = environ["SCRIPT_NAME"] + path
    return path if path.isascii() else path.encode("latin-1").decode("utf-8", "replace")


def request_url(environ: Environ) -> str:
    """Return the URL as the client knows it, without its query (PEP 3333, URL Reconstruction)."""
    scheme = environ["wsgi.url_scheme"] if "wsgi.url_scheme" in environ else "http"
    host = environ["HTTP_HOST"] if "HTTP_HOST" in environ else ""
    if not host:
        host = environ["SERVER_NAME"]
        if str(environ["SERVER_PORT"]) != ("443" if scheme == "https" else "80"):
            host = f"{host}:{environ['SERVER_PORT']}"
    path: str = environ["PATH_INFO"] if "PATH_INFO" in environ else ""
    if "SCRIPT_NAME" in environ:
        path = environ["SCRIPT_NAME"] + path
    if PLAIN.fullmatch(path) is None:
        path = quote(path.encode("latin-1"), safe=SAFE)
    return f"{scheme}://{host}{path}"


#: An empty body. hypercorn sends the head of a response with the first block, and no head without one.
EMPTY = (b"",)


def close_empty(body: Iterable[bytes]) -> Iterable[bytes]:
    """Close a body that has no blocks, such as WebOb's for HEAD, and return one that has an empty block."""
    close = getattr(body, "close", None)
    if close is not None:
        close()
    return EMPTY


#: The keys whose values are the same for nearly every request to an application at one mount point.
SURROUNDINGS = ("SCRIPT_NAME", "SERVER_NAME", "SERVER_PORT", "HTTP_HOST", "wsgi.url_scheme")


def environ_without_client(upload: Upload, upload_path: str, base_url: str, surroundings: Environ) -> Environ:
    """Return the environ for a hand-over without a client, without a body.

    It has the scheme, host and mount point of the request that created the upload. If that is not known, they come from
    the option ``base_url``, or else from an earlier request. The request is a PATCH of the upload, or the original one.
    It has no cookies, no credentials and no address of a client. The upload knows its principal.

    Args:
        upload: the finished upload.
        upload_path: the option of that name.
        base_url: the option of that name; may be empty.
        surroundings: the values of :data:`SURROUNDINGS` in an earlier request, as far as they are known.
    """
    place = place_of(upload, upload_path, base_url)
    environ: Environ = {
        "REQUEST_METHOD": "PATCH",
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        **surroundings,
    }
    if place.host:
        environ["wsgi.url_scheme"], environ["HTTP_HOST"] = place.scheme, place.host
    if place.mount is not None:
        environ["SCRIPT_NAME"] = place.mount.encode().decode("latin-1")
    environ.update((_KEYS[name], value) for name, value in place.forwarding)
    name, colon, port = environ["HTTP_HOST"].rpartition(":")
    is_port = bool(colon) and port.isdecimal()
    environ.setdefault("SERVER_NAME", name if is_port else environ["HTTP_HOST"])
    environ.setdefault("SERVER_PORT", port if is_port else str(443 if environ["wsgi.url_scheme"] == "https" else 80))
    set_path(environ, f"{place.path.rstrip('/')}/{upload.id}")
    return environ


def set_path(environ: Environ, path: str) -> None:
    """Set the decoded path from the root of the site."""
    environ["PATH_INFO"] = path.encode().decode("latin-1").removeprefix(environ.get("SCRIPT_NAME", ""))


def restore_original(environ: Environ, origin: Origin) -> None:
    """Change an environ to that of the request that created an upload, as if no protocol of uploads existed."""
    _, _, path, query = split_url(origin.url)
    environ["REQUEST_METHOD"] = origin.method
    environ["QUERY_STRING"] = query
    set_path(environ, path)
    for key in _TARGETS:
        if key in environ:
            environ[key] = quote(path, safe=SAFE) + (f"?{query}" if query else "")
    for name in (*PROTOCOL_FIELDS, *REPRESENTATION):
        environ.pop(_KEYS[name], None)
    environ.update((_KEYS[name], value) for name, value in origin.headers if name in REPRESENTATION)


_TARGETS = ("RAW_URI", "REQUEST_URI")  # the undecoded target of the request, which some servers add


#: Keys that describe the body, and become wrong when it is replaced.
_OF_THE_BODY = ("HTTP_TRANSFER_ENCODING", "webob.is_body_seekable", "webob._body_file", "webob._parsed_post_vars")
#: All keys that change when the body is replaced.
BODY_KEYS = ("wsgi.input", "wsgi.input_terminated", "CONTENT_LENGTH", "CONTENT_TYPE", *_OF_THE_BODY)


class EnvironBody:
    """The body in an environ, which can be replaced.

    Args:
        environ: changed in place.
        media_type: the type of a new body; None keeps that of the request. A framework would try to parse a form.
    """

    _media_type: str | None = MEDIA_TYPE

    def __init__(self, environ: Environ, media_type: str | None = MEDIA_TYPE) -> None:
        self.environ = environ
        self._media_type = media_type

    def replace_body(self, file: BinaryIO, size: int, upload: Upload) -> None:
        """Replace the body so that Flask, Django and WebOb read it; without a length two of them see an empty body."""
        environ = self.environ
        if self._media_type is not None:
            environ["CONTENT_TYPE"] = self._media_type
        environ["wsgi.input"] = file
        environ["wsgi.input_terminated"] = True
        environ["CONTENT_LENGTH"] = str(size)
        for key in _OF_THE_BODY:
            if key in environ:
                del environ[key]


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
        self.environ = environ
        self.response: Response | None = None
        mount: str = environ["SCRIPT_NAME"] if "SCRIPT_NAME" in environ else ""
        if mount and not mount.isascii():
            mount = mount.encode("latin-1").decode("utf-8", "replace")
        self.request = Request(
            method=environ["REQUEST_METHOD"],
            url=request_url(environ),
            headers=EnvironHeaders(environ),
            input_terminated=environ["wsgi.input_terminated"] if "wsgi.input_terminated" in environ else False,
            has_body="HTTP_TRANSFER_ENCODING" in environ
            or ("CONTENT_LENGTH" in environ and environ["CONTENT_LENGTH"] not in ("", "0")),
            peer=environ["REMOTE_ADDR"] if "REMOTE_ADDR" in environ else "",
            native=environ,
            query=environ["QUERY_STRING"] if "QUERY_STRING" in environ else "",
            mount=mount,
        )

    @property
    def method(self) -> str:
        """The method of the request, or the one in ``X-HTTP-Method-Override`` of a POST or PUT."""
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
        watches: whether to find out if the application reads the file.

    Attributes:
        is_file_read: whether the application has read from the file, or closed it, once this is closed.
        status: the HTTP status code.
        reason: the reason phrase.
        headers: pairs of name and value.
    """

    def __init__(self, app: WsgiApp, environ: Environ, file: BinaryIO, watches: bool = False) -> None:
        self._watches = watches
        self.is_file_read = not watches
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
            while True:
                is_success = 200 <= self.status < 300
                if is_success and not keep:
                    self._blocks.clear()
                elif sum(map(len, self._blocks)) > LONGEST_ANSWER:
                    return self._spool_to_file() if is_success else self
                if not self._produce():
                    is_dropped = not keep and 200 <= self.status < 300  # the last step may have changed it
                    blocks = () if is_dropped else tuple(self._blocks)
                    self.close()
                    return blocks
        except BaseException:
            self.close()
            raise

    def _spool_to_file(self) -> Iterable[bytes]:
        """Write the whole body of a success to a temporary file, because it is too long for memory.

        If the file cannot be written, the body is dropped. It is still a success.
        """
        long = LongBody()
        try:
            while self._blocks or self._produce():
                long.write(self._blocks.pop(0))
            self.close()
        except BaseException:
            long.close()
            raise
        body = long.body()
        if body is None:
            self.headers = drop_representation(self.headers)
        return body or ()

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
            if self._watches:
                self.is_file_read = self._file.closed or self._file.tell() > 0
            try:
                self._file.close()
            except OSError:  # the application has decided
                log.warning("the body of a hand-over was closed with an error", exc_info=True)
