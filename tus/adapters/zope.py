"""The adapter for Zope: its request and response, its transactions, and its retries of requests.

This room imports Zope's packages only when they are needed, and gets everything else from the request.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, BinaryIO, cast

from tus.adapters.replay import Replayable
from tus.adapters.wsgi import EnvironHeaders
from tus.models import Readable, Request, Response, Upload


def install_stand_in(request: Any) -> Replayable:
    """Return the stand-in for the input of a Zope request; install it first if it is missing."""
    if not isinstance(request.stdin, Replayable):
        stand_in = Replayable(request.stdin)
        if request._file is request.stdin:
            request._file = stand_in
        request.stdin = stand_in
    return cast(Replayable, request.stdin)


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
        self._input = install_stand_in(request)
        self._is_finished = False
        self._is_answered = False
        self._file: BinaryIO | None = None  # open until the transaction has ended
        self._link: str | None = None
        environ = request.environ
        self._seen = Request(
            method=request.environ["REQUEST_METHOD"],
            url=request["URL"],
            headers=EnvironHeaders(environ),
            input_terminated=bool(environ.get("wsgi.input_terminated")),
            peer=environ.get("REMOTE_ADDR", ""),
            native=request,
        )
        self._input.begin_run()
        self.request = self._input.replay(self._seen)

    @property
    def stream(self) -> Readable:
        if self._input.answer is not None:
            return cast(Readable, self._input)
        self._input.is_read = True
        return cast(Readable, self._input.stream)

    def respond(self, response: Response) -> None:
        pending = self._input.answer
        response = self._input.reply(response)
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

    def replace_body(self, file: BinaryIO, size: int, upload: Upload) -> None:
        request = self._request
        self._is_finished = True
        self._input.finished = upload
        request._file = self._file = self._link_file(file, upload.path)
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
        self._link = link
        file.close()
        return open(link, "rb")

    def _drop_file(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._link is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._link)
            self._link = None

    def at_request_end(self, callback: Callable[[], None]) -> bool:
        """Register a function that is called at the end of the transaction, which is that of this run."""
        self._at_end(lambda committed: callback())
        return True

    def at_transaction_end(self, callback: Callable[[bool], None]) -> bool:
        self._at_end(callback)
        return True

    def _at_end(self, callback: Callable[[bool], None]) -> None:
        import transaction

        is_called = False

        def call(committed: bool) -> None:
            nonlocal is_called
            if not is_called:  # a commit that fails calls both hooks
                is_called = True
                self._drop_file()
                callback(committed)

        current = transaction.get()
        current.addAfterCommitHook(call)
        current.addAfterAbortHook(call, (False,))


def _stream_iterator(blocks: Iterable[bytes]) -> object:
    """Mark a body so that Zope passes it to the server block by block."""
    from zope.interface import alsoProvides
    from ZPublisher.Iterators import IUnboundStreamIterator

    alsoProvides(blocks, IUnboundStreamIterator)
    return blocks
