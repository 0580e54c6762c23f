"""The adapter for Zope: its request and response, its transactions, and its retries of requests.

This room imports Zope's packages only when they are needed, and gets everything else from the request.
"""

from __future__ import annotations

import os
import secrets
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, BinaryIO, cast

from tus.adapters.wsgi import EnvironHeaders
from tus.models import MEDIA_TYPE, Readable, Request, Response, Upload
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
    """A stand-in for the request's input, which Zope rewinds when it runs a request again after a conflict.

    A server's input cannot be rewound, and the bytes read from it are stored already. So the stand-in remembers the
    response of the first run. The second run becomes a request whose response is the same.

    Attributes:
        stream: the server's input.
        answer: the response of the last run, or None.
        finished: the upload that the last run handed over to the view, or None.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.answer: Response | None = None
        self.finished: Upload | None = None
        self._is_read = False

    @classmethod
    def install(cls, request: Any) -> Replayable:
        """Return the stand-in of a Zope request; install it first if it is missing."""
        if not isinstance(request.stdin, cls):
            stand_in = cls(request.stdin)
            if request._file is request.stdin:
                request._file = stand_in
            request.stdin = stand_in
        return cast(Replayable, request.stdin)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Rewind the input; do nothing if it was not read, or if the last run has a response.

        Raises:
            OSError: the input was read, and cannot be rewound.
        """
        if hasattr(self.stream, "seek"):
            return int(self.stream.seek(offset, whence))
        if self._is_read and self.answer is None:
            raise OSError("the body of this request was read, and cannot be read again")
        return 0

    def read(self, *size: int) -> bytes:
        """Read from the server's input."""
        self._is_read = True
        return cast(bytes, self.stream.read(*size))

    def readline(self, *size: int) -> bytes:
        """Read a line of the server's input."""
        self._is_read = True
        return cast(bytes, self.stream.readline(*size))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class Zope2RequestAdapter:
    """One request of Zope 5.14 or later, and its response.

    A finished file becomes ``request._file``. After ``cleanup_file()`` the file is removed once the transaction has
    been committed; if it is aborted the file is kept. A view leaves the response to this adapter, and returns an empty
    text. Only on the request that completes an upload may it return a body of its own.

    Args:
        request: of ``ZPublisher``, after traversal.
    """

    def __init__(self, request: Any) -> None:
        self._request = request
        self._input = Replayable.install(request)
        self._is_finished = False
        self._is_answered = False
        self._link: BinaryIO | None = None
        environ = request.environ
        self._seen = Request(
            method=request.environ["REQUEST_METHOD"],
            url=request["URL"],
            headers=EnvironHeaders(environ),
            input_terminated=bool(environ.get("wsgi.input_terminated")),
            peer=environ.get("REMOTE_ADDR", ""),
            native=request,
        )
        self._earlier = self._input.answer
        self.request = self._seen
        if self._earlier is not None:
            self.request = _rerun_of(self._seen, self._earlier, self._input.finished)

    @property
    def stream(self) -> Readable:
        return cast(Readable, self._input if self._input.answer is not None else self._input.stream)

    def respond(self, response: Response) -> None:
        if self._earlier is not None and (response.status < 300 or self.request.method == "OPTIONS"):
            response = self._replay(self._earlier, response)
        pending, self._input.answer = self._input.answer, response
        theirs = self._request.response
        if self._is_answered and pending is not None and pending.status == theirs.status:
            for name, _ in pending.headers:
                theirs.headers.pop(name.lower(), None)
            theirs.status, theirs.errmsg, theirs.body = 200, "OK", b""
        self._is_answered = True
        succeeds = self._is_finished and 200 <= response.status < 300
        for name, value in response.headers:
            if not (succeeds and name.lower() in ("content-type", "content-length")):
                theirs.setHeader(name, value)
        if succeeds and response.status == 204:
            return  # the view may return a body; otherwise Zope turns the 200 into a 204
        # Not by setStatus(), which turns an unknown status such as 460 into a 500.
        theirs.status, theirs.errmsg = response.status, response.reason
        if isinstance(response.body, tuple | list):
            body = b"".join(response.body)
            if body:
                theirs.setBody(body, lock=not self._is_finished)
        elif self._seen.method == "HEAD":
            getattr(response.body, "close", lambda: None)()
        else:
            theirs.setBody(_stream_iterator(response.body), lock=True)

    def _replay(self, first: Response, response: Response) -> Response:
        """Return the response of the first run, or the one that it would have made if the view had not failed."""
        finished = self._input.finished
        if finished is None or self.request.method == "OPTIONS" or first.status == response.status != 201:
            return first
        if self._seen.effective_method not in ("POST", "PUT") or self.request is self._seen:
            return response
        if profile_of(self._seen) is not None:
            headers = [pair for pair in response.headers if pair[0] != "Location"]
            location = upload_url(self._seen.url.rstrip("/"), finished.id)
            return replace(response, headers=[*headers, ("Location", location)])
        created = tus1_replies.created(finished, self._seen.url.rstrip("/"), with_offset=True)
        ours = {name.lower() for name, _ in created.headers}
        created.headers.extend((name, value) for name, value in response.headers if name.lower() not in ours)
        return created

    def replace_body(self, file: BinaryIO, size: int, upload: Upload) -> None:
        request = self._request
        self._is_finished = True
        self._input.finished = upload
        request._file = self._link_file(file, upload.path)
        request.other.pop("BODYFILE", None)
        request.environ["CONTENT_LENGTH"] = str(size)
        request.environ.setdefault("HTTP_FILENAME", upload.filename)  # read by plone.app.content

    def _link_file(self, file: BinaryIO, path: str | None) -> BinaryIO:
        """Return the file opened under a second name, because plone.namedfile moves it into a blob.

        An aborted transaction removes the blob, and would remove the upload's file with it.
        """
        if path is None or getattr(file, "name", None) != path:
            return file
        directory, name = os.path.split(path)
        link = os.path.join(directory, f".tus-handover-{name}-{secrets.token_hex(4)}")
        try:
            os.link(path, link, follow_symlinks=False)
        except OSError:
            return file  # a file system without hard links
        self._link = open(link, "rb")  # noqa: SIM115 - open until the transaction has ended
        return self._link

    def _drop_link(self) -> None:
        if self._link is not None:
            self._link.close()
            with suppress(FileNotFoundError):
                os.unlink(self._link.name)
            self._link = None

    def at_transaction_end(self, callback: Callable[[bool], None]) -> None:
        import transaction

        is_called = False

        def call(committed: bool) -> None:
            nonlocal is_called
            if not is_called:  # a commit that fails calls both hooks
                is_called = True
                self._drop_link()
                callback(committed)

        current = transaction.get()
        current.addAfterCommitHook(call)
        current.addAfterAbortHook(call, (False,))


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


def _stream_iterator(blocks: Iterable[bytes]) -> object:
    """Mark a body so that Zope passes it to the server block by block."""
    from zope.interface import alsoProvides
    from ZPublisher.Iterators import IUnboundStreamIterator

    alsoProvides(blocks, IUnboundStreamIterator)
    return blocks
