"""Requests that a framework runs again after a conflict: their input, and the request and response of each run.

Zope and pyramid_retry call the view again if its transaction could not be committed. The bytes of the first run are
stored by then, and a server's input cannot be rewound. So the second run handles another request, whose response is
the same, and which asks for the hand-over again.
"""

from __future__ import annotations

import tempfile
import weakref
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from tus.adapters.wsgi import BODY_KEYS, Environ
from tus.http.headers import number_in
from tus.models import MEDIA_TYPE, Request, Response, Upload
from tus.protocols.ietf.profiles import PARTIAL_UPLOAD, profile_of
from tus.protocols.routing import upload_url
from tus.protocols.tus1 import replies as tus1_replies

#: The header fields of an empty PATCH, in the place of a request that is run again.
_EMPTY_PATCH = {
    "Tus-Resumable": "1.0.0",
    "Content-Type": MEDIA_TYPE,
    "Content-Length": "0",
    "Transfer-Encoding": None,
    "Upload-Checksum": None,
    "Upload-Length": None,
    "Upload-Concat": None,
    "X-HTTP-Method-Override": "",
}

#: The same for a request of the IETF protocol; each version reads its own field.
_EMPTY_END = {
    "Content-Type": PARTIAL_UPLOAD,
    "Content-Length": "0",
    "Transfer-Encoding": None,
    "Content-Digest": None,
    "Upload-Length": None,
    "Upload-Complete": "?1",
    "Upload-Incomplete": "?0",
}


class Replayable:
    """A stand-in for the input of a request, which lives as long as all runs of the request.

    A framework may rewind it before each run.

    Args:
        stream: the server's input.

    Attributes:
        stream: the server's input.
        answer: the response of the last run, or None.
        finished: the upload that a run handed over to the view, or None.
        is_read: whether the input was read.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.answer: Response | None = None
        self.finished: Upload | None = None
        self.is_read = False
        self._earlier: Response | None = None
        self._seen: Request | None = None
        self._request: Request | None = None

    # -- The runs --

    def begin_run(self) -> None:
        """Begin a run; the response so far is then that of an earlier run."""
        self._earlier = self.answer

    def replay(self, request: Request) -> Request:
        """Return the request for this run: the one that arrived, or one in its place."""
        self._seen = self._request = request
        if self._earlier is not None:
            self._request = _rerun_of(request, self._earlier, self.finished)
        return self._request

    def reply(self, response: Response) -> Response:
        """Return the response for the client, and remember it for the next run."""
        assert self._request is not None, "replay() comes first"
        if self._earlier is not None and (response.status < 300 or self._request.method == "OPTIONS"):
            response = self._replayed(self._earlier, response, self._request)
        self.answer = response
        return response

    def _replayed(self, first: Response, response: Response, request: Request) -> Response:
        """Return the response of the first run, or the one that it would have made if the view had not failed."""
        seen, finished = cast(Request, self._seen), self.finished
        if finished is None or request.method == "OPTIONS" or first.status == response.status != 201:
            return first
        if seen.effective_method not in ("POST", "PUT") or request is seen:
            return response
        if profile_of(seen) is not None:
            headers = [pair for pair in response.headers if pair[0] != "Location"]
            location = upload_url(seen.url.rstrip("/"), finished.id)
            return replace(response, headers=[*headers, ("Location", location)])
        created = tus1_replies.created(finished, seen.url.rstrip("/"), with_offset=True)
        ours = {name.lower() for name, _ in created.headers}
        created.headers.extend((name, value) for name, value in response.headers if name.lower() not in ours)
        return created

    # -- The input --

    def seek(self, offset: int, whence: int = 0) -> int:
        """Rewind the input; do nothing if it was not read, or if the last run has a response.

        Raises:
            OSError: the input was read, and cannot be rewound.
        """
        if not self.is_read:
            return 0
        if _is_seekable(self.stream):
            return int(self.stream.seek(offset, whence))
        if self.answer is None:
            raise OSError("the body of this request was read, and cannot be read again")
        return 0

    def read(self, *size: int) -> bytes:
        """Read from the server's input."""
        self.is_read = True
        return cast(bytes, self.stream.read(*size))

    def readline(self, *size: int) -> bytes:
        """Read a line of the server's input."""
        self.is_read = True
        return cast(bytes, self.stream.readline(*size))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


_LARGEST_IN_MEMORY = 1 << 20  # bytes of a copied body
_BLOCK = 64 << 10


def _is_seekable(stream: Any) -> bool:
    """Return whether a stream can be rewound; a socket's reader has the method, and cannot."""
    seekable = getattr(stream, "seekable", None)
    return bool(seekable()) if seekable is not None else hasattr(stream, "seek")


class ReplayableEnviron(Replayable):
    """The stand-in for the input in an environ, which pyramid_retry keeps for every attempt at a request.

    Args:
        environ: before the first attempt, or in it before the body is replaced.
    """

    #: Its key in the environ.
    KEY = "tus.replay"

    def __init__(self, environ: Environ) -> None:
        super().__init__(environ["wsgi.input"])
        self._attempt = environ.get("retry.attempt", 0)
        environ[self.KEY] = self
        self._keep(environ)

    def read(self, *size: int) -> bytes:
        """Read for other code than the adapter, such as a view of its own, which may read the body twice."""
        self._copy()
        return super().read(*size)

    def readline(self, *size: int) -> bytes:
        """Read a line for other code than the adapter."""
        self._copy()
        return super().readline(*size)

    def _copy(self) -> None:
        """Copy a body of which nothing was read yet, unless it can be rewound."""
        if self.is_read or _is_seekable(self.stream):
            return
        left = number_in(str(self._body.get("CONTENT_LENGTH") or "")) or 0
        is_terminated = not left and bool(self._body.get("wsgi.input_terminated"))
        copy = tempfile.SpooledTemporaryFile(_LARGEST_IN_MEMORY)  # noqa: SIM115
        weakref.finalize(self, copy.close)  # nothing else knows how long the request lasts
        while (left or is_terminated) and (block := self.stream.read(_BLOCK if is_terminated else min(left, _BLOCK))):
            copy.write(block)
            left -= 0 if is_terminated else len(block)
        copy.seek(0)
        self.stream = copy

    def _keep(self, environ: Environ) -> None:
        self._body = {key: environ[key] for key in BODY_KEYS if key in environ}

    @classmethod
    def install(cls, environ: Environ) -> None:
        """Let WebOb take the input for one that can be rewound, so that it does not copy the body."""
        stand_in = cls(environ)
        environ["wsgi.input"] = stand_in
        environ["webob.is_body_seekable"] = True
        stand_in._keep(environ)

    @classmethod
    def of(cls, environ: Environ) -> ReplayableEnviron | None:
        """Return the stand-in of a request that may run several times, at the start of this run; otherwise None."""
        stand_in: ReplayableEnviron | None = environ.get(cls.KEY)
        if stand_in is None:
            return cls(environ) if environ.get("retry.attempts", 1) > 1 else None
        attempt = environ.get("retry.attempt", 0)
        if attempt != stand_in._attempt:
            stand_in._attempt = attempt
            stand_in._restore(environ)
            stand_in.begin_run()
        return stand_in

    def _restore(self, environ: Environ) -> None:
        """Undo the replacement of the body by an earlier attempt."""
        for key in BODY_KEYS:
            environ.pop(key, None)
        environ.update(self._body)
        self.seek(0)


def _rerun_of(request: Request, answer: Response, finished: Upload | None) -> Request:
    """Return the request for the second run of a request whose transaction was not committed.

    An append or a creation becomes an empty PATCH at the offset where it ended, and asks for the hand-over again. A
    concatenation finds the upload that it made. No other request left work undone; only its response is needed.

    Args:
        request: of the first run.
        answer: the response of the first run.
        finished: the upload that it handed over to the view, or None.
    """
    fields: Mapping[str, str] = {name.lower(): value for name, value in answer.headers}
    method = request.effective_method
    if finished is not None and not finished.is_final:
        url = request.url if method == "PATCH" else upload_url(request.url.rstrip("/"), finished.id)
        return _empty_patch(request, url, str(finished.length))
    if profile_of(request) is not None:
        return _options_request(request)
    if finished is not None and method == "POST":
        return request
    if finished is not None and method == "PATCH":  # of the last part
        end = int(request.headers.get("Upload-Offset") or 0) + int(request.headers.get("Content-Length") or 0)
        return _empty_patch(request, request.url, str(end))
    if answer.status < 300 and method == "PATCH":
        return _empty_patch(request, request.url, fields["upload-offset"])
    if answer.status < 300 and method == "POST":
        if (request.headers.get("Upload-Concat") or "").startswith("final"):
            return request
        return _empty_patch(
            request,
            request.url.rstrip("/") + "/" + fields["location"].rpartition("/")[2],
            fields.get("upload-offset", "0"),
        )
    return _options_request(request)


def _options_request(request: Request) -> Request:
    """Return an OPTIONS request, which changes nothing and needs only a response."""
    return Request("OPTIONS", request.url, request.headers, peer=request.peer, native=request.native)


def _empty_patch(request: Request, url: str, offset: str) -> Request:
    replaced = _EMPTY_PATCH if profile_of(request) is None else _EMPTY_END
    headers: Any = ChainMap(cast(Any, replaced | {"Upload-Offset": offset}), cast(Any, request.headers))
    return Request("PATCH", url, headers, peer=request.peer, native=request.native, is_rerun=True)
