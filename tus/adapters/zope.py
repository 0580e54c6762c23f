"""Zope: its request and response, its transaction, and its habit of running a request again.

This room imports what belongs to Zope only when it is needed, and asks the request for everything else.
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

#: What an empty PATCH says in place of the request that is run again.
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

#: The same for a request of the IETF protocol; each version reads the field that it knows.
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
    """Stands in for the request's input, which Zope rewinds when it runs a request again after a conflict.

    A server's input cannot be rewound, and what was taken out of it is stored already. So it remembers what was
    answered, and the request that is run again becomes one that says so.

    Attributes:
        stream: the server's input.
        answer: what the last run has answered, once it has.
        finished: the upload that it had the view take, if it had.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.answer: Response | None = None
        self.finished: Upload | None = None
        self._is_read = False

    @classmethod
    def put(cls, request: Any) -> Replayable:
        """The stand-in of a Zope request, put in place if it is not."""
        if not isinstance(request.stdin, cls):
            stand_in = cls(request.stdin)
            if request._file is request.stdin:
                request._file = stand_in
            request.stdin = stand_in
        return cast(Replayable, request.stdin)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Rewind, as far as that is possible or does not matter."""
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
    """One request of Zope, from 5.14 on, and the response that belongs to it.

    A finished file becomes ``request._file``. What a view has accepted by ``cleanup_file()`` is removed when the
    transaction has been committed; when it is aborted the file is kept. A view leaves the response to this adapter, and
    returns an empty text; only on the request that completes an upload it may answer with a body of its own.

    Args:
        request: of ``ZPublisher``, after traversal.
    """

    def __init__(self, request: Any) -> None:
        self._request = request
        self._input = Replayable.put(request)
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
            self.request = _repeated(self._seen, self._earlier, self._input.finished)

    @property
    def stream(self) -> Readable:
        return cast(Readable, self._input if self._input.answer is not None else self._input.stream)

    def respond(self, response: Response) -> None:
        if self._earlier is not None and (response.status < 300 or self.request.method == "OPTIONS"):
            response = self._as_first(self._earlier, response)
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
            return  # the view may have something to say; if not, Zope makes its 200 a 204
        # Not by setStatus(): it makes a 500 of what it does not know, such as 460.
        theirs.status, theirs.errmsg = response.status, response.reason
        if isinstance(response.body, tuple | list):
            body = b"".join(response.body)
            if body:
                theirs.setBody(body, lock=not self._is_finished)
        elif self._seen.method == "HEAD":
            getattr(response.body, "close", lambda: None)()
        else:
            theirs.setBody(_streamed(response.body), lock=True)

    def _as_first(self, first: Response, response: Response) -> Response:
        """What the first run has answered, or would have if the view had let it come so far."""
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
        request._file = self._linked(file, upload.path)
        request.other.pop("BODYFILE", None)
        request.environ["CONTENT_LENGTH"] = str(size)
        request.environ.setdefault("HTTP_FILENAME", upload.filename)  # what plone.app.content looks for

    def _linked(self, file: BinaryIO, path: str | None) -> BinaryIO:
        """The file under another name of its own, because plone.namedfile moves what it gets into a blob.

        That blob goes with its transaction, and a file that was moved into it would go too.
        """
        if path is None or getattr(file, "name", None) != path:
            return file
        directory, name = os.path.split(path)
        link = os.path.join(directory, f".tus-handover-{name}-{secrets.token_hex(4)}")
        try:
            os.link(path, link, follow_symlinks=False)
        except OSError:
            return file  # a file system without hard links
        self._link = open(link, "rb")  # noqa: SIM115 - until the transaction has ended
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
            if not is_called:  # a commit that fails is told to both hooks
                is_called = True
                self._drop_link()
                callback(committed)

        current = transaction.get()
        current.addAfterCommitHook(call)
        current.addAfterAbortHook(call, (False,))


def _repeated(request: Request, answer: Response, finished: Upload | None) -> Request:
    """What a request becomes that has been answered, and is run again because its transaction was not committed.

    An append, or a creation, asks for the hand-over again: as an empty PATCH where it has ended. A concatenation finds
    what it has made by itself. Nothing else has left anything undone, and only its answer is needed.
    """
    told: Mapping[str, str] = {name.lower(): value for name, value in answer.headers}
    method = request.effective_method
    if finished is not None and not finished.is_final:
        url = request.url if method == "PATCH" else upload_url(request.url.rstrip("/"), finished.id)
        return _empty_patch(request, url, str(finished.length))
    if profile_of(request) is not None:
        return _only_answered(request)
    if finished is not None and method == "POST":
        return request
    if finished is not None and method == "PATCH":  # of the last part
        end = int(request.headers.get("Upload-Offset") or 0) + int(request.headers.get("Content-Length") or 0)
        return _empty_patch(request, request.url, str(end))
    if answer.status < 300 and method == "PATCH":
        return _empty_patch(request, request.url, told["upload-offset"])
    if answer.status < 300 and method == "POST":
        if (request.headers.get("Upload-Concat") or "").startswith("final"):
            return request
        return _empty_patch(
            request, request.url.rstrip("/") + "/" + told["location"].rpartition("/")[2], told.get("upload-offset", "0")
        )
    return _only_answered(request)


def _only_answered(request: Request) -> Request:
    return Request("OPTIONS", request.url, request.headers, peer=request.peer, native=request.native)


def _empty_patch(request: Request, url: str, offset: str) -> Request:
    said = _EMPTY_PATCH if profile_of(request) is None else _EMPTY_END
    headers: Any = ChainMap(cast(Any, said | {"Upload-Offset": offset}), cast(Any, request.headers))
    return Request("PATCH", url, headers, peer=request.peer, native=request.native, is_rerun=True)


def _streamed(blocks: Iterable[bytes]) -> object:
    """A body that Zope passes to the server block by block."""
    from zope.interface import alsoProvides
    from ZPublisher.Iterators import IUnboundStreamIterator

    alsoProvides(blocks, IUnboundStreamIterator)
    return blocks
