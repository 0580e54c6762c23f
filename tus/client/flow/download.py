"""The download of a file, which goes on where an earlier attempt, or an earlier process, stopped."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Final

from tus.client.commands import Call, Flow, Progress, Report
from tus.client.errors import ChecksumMismatch, ConnectionFailed, NotSupported, ProtocolViolation
from tus.client.flow.asking import Attempts, ask, refusal
from tus.client.flow.context import Context
from tus.client.messages import Headers, Request, Response
from tus.client.results import DownloadResult
from tus.client.retry import Verdict, judge
from tus.http.digests import parse_digest
from tus.http.headers import number_in

_CONTENT_RANGE: Final = re.compile(r"bytes (?:([0-9]{1,18})-[0-9]{1,18}|\*)/([0-9]{1,18})")
_BLOCK: Final = 1 << 20


@dataclass(slots=True)
class _PartFile:
    """The bytes that have arrived, in a file of their own, with the validator of the version that they belong to.

    Attributes:
        path: of the finished file.
        size: the number of bytes that have arrived.
        validator: the strong ``ETag`` of the file at the server; empty if there is none.
    """

    path: str
    size: int = 0
    validator: str = ""
    _file: IO[bytes] | None = field(default=None, repr=False)

    @property
    def part(self) -> str:
        return self.path + ".part"

    def load(self) -> None:
        """Find what an earlier process has left."""
        with suppress(OSError), open(self.part + ".etag", encoding="latin-1") as file:
            self.validator = file.read()
        if self.validator:
            with suppress(OSError):
                self.size = os.path.getsize(self.part)

    def restart(self, validator: str) -> None:
        """Begin again from the first byte, with another version of the file."""
        self.close()
        self.size, self.validator = 0, validator
        open(self.part, "wb").close()
        with open(self.part + ".etag", "w", encoding="latin-1") as file:
            file.write(validator)

    def write(self, block: bytes) -> None:
        if self._file is None:
            self._file = open(self.part, "r+b", buffering=0)  # noqa: SIM115 - closed by close()
            self._file.seek(self.size)
        rest = memoryview(block)
        while rest:
            rest = rest[self._file.write(rest) :]
        self.size += len(block)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def digest(self, algorithm: str) -> bytes:
        hasher = hashlib.new(algorithm, usedforsecurity=False)
        with open(self.part, "rb") as file:
            while block := file.read(_BLOCK):
                hasher.update(block)
        return hasher.digest()

    def finish(self, overwrites: bool) -> None:
        """Give the file its name, once its bytes are on the disk."""
        self.close()
        with open(self.part, "rb") as file:
            os.fsync(file.fileno())
        if not overwrites:
            _check_absent(self.path)
        os.replace(self.part, self.path)
        self._remove_validator()

    def discard(self) -> None:
        self.close()
        with suppress(OSError):
            os.unlink(self.part)
        self._remove_validator()

    def _remove_validator(self) -> None:
        with suppress(OSError):
            os.unlink(self.part + ".etag")


def download(context: Context, url: str, path: str, verifies: bool, overwrites: bool) -> Flow[DownloadResult]:
    """Download a file.

    Args:
        context: of the client.
        url: the file.
        path: where it goes. Until it is whole, its bytes are in ``path`` with ``.part`` behind it.
        verifies: whether the file is compared with the digest that the server sends, if it sends one.
        overwrites: whether a file at ``path`` is replaced.

    Raises:
        FileExistsError: there is a file already.
        ChecksumMismatch: the digest differs; nothing is kept.
        ClientError: the server did not send the whole file.
    """
    file = _PartFile(path)
    try:
        if not overwrites:
            yield Call(lambda: _check_absent(path))
        yield Call(file.load)
        return (yield from _Download(context, url, file, verifies, overwrites).run())
    finally:
        file.close()


class _Download:
    def __init__(self, context: Context, url: str, file: _PartFile, verifies: bool, overwrites: bool) -> None:
        self._context, self._url, self._file = context, url, file
        self._verifies, self._overwrites = verifies, overwrites
        self._attempts = Attempts(context)
        self._total: int | None = None
        self._resumed_from = file.size

    def run(self) -> Flow[DownloadResult]:
        file = self._file
        yield Report(self._progress("resumed" if file.size else "started"))
        while True:
            before = file.size
            request = Request("GET", self._url)
            if self._verifies:
                request.headers["Want-Repr-Digest"] = "sha-256=10, sha-512=5"
            if file.size:
                request.headers["Range"] = f"bytes={file.size}-"
                if file.validator:
                    request.headers["If-Range"] = file.validator
            problem: ConnectionFailed | Response
            try:
                response = yield from ask(self._context, request, sink=self._take)
            except ConnectionFailed as error:
                problem = error
            else:
                verdict = judge(response.status)
                if response.status == 416 and file.size:
                    self._total = _total(response.headers)
                    if self._total == file.size:
                        return (yield from self._finish(response))
                    yield Call(file.discard)
                    file.size = 0
                elif verdict is Verdict.SUCCESS:
                    if not file.size:  # no block has come, so that no file was begun
                        yield Call(partial(self._begin, response))
                    if self._total is None or file.size == self._total:
                        return (yield from self._finish(response))
                elif verdict not in (Verdict.RETRY, Verdict.LOOK):
                    raise refusal(response, self._url, file.size)
                problem = response
            finally:
                file.close()
            if file.size > before:
                self._attempts.progress()
            yield from self._attempts.wait(problem, self._progress("waiting"))

    def _take(self, response: Response, block: bytes) -> None:
        """Write a block of a response."""
        self._begin(response)
        self._file.write(block)

    def _begin(self, response: Response) -> None:
        if self._seen is response:
            return
        self._seen = response
        headers = response.headers
        if response.status == 206:
            match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
            is_next = match is not None and match[1] is not None and int(match[1]) == self._file.size
            if match is None or not is_next or self._total not in (None, int(match[2])):
                raise ProtocolViolation(
                    "The server sent another part of the file than this client asked for.",
                    url=self._url,
                    response=response,
                )
            self._total = int(match[2])
            return
        self._total = number_in(headers.get("Content-Length"))
        if "Upload-Offset" in headers and number_in(headers.get("Upload-Length")) != self._total:
            raise NotSupported(  # the reply is what HEAD gets
                "The server described this upload instead of sending its file: it has no downloads, or not this one.",
                url=self._url,
                response=response,
            )
        etag = headers.get("ETag", "")
        self._resumed_from = 0
        self._file.restart(etag if etag.startswith('"') else "")

    _seen: Response | None = None

    def _finish(self, response: Response) -> Flow[DownloadResult]:
        file = self._file
        verified = ""
        if self._verifies:
            for algorithm, theirs in parse_digest(response.headers.get("Repr-Digest")):
                mine = yield Call(partial(file.digest, algorithm))
                if mine != theirs:
                    yield Call(file.discard)
                    raise ChecksumMismatch(
                        f"The file does not have the {algorithm} digest that the server sent.",
                        url=self._url,
                        offset=file.size,
                        response=response,
                    )
                verified = algorithm
                break
        yield Call(lambda: file.finish(self._overwrites))
        yield Report(self._progress("finished"))
        return DownloadResult(file.path, file.size, self._resumed_from, verified, response)

    def _progress(self, kind: str) -> Progress:
        return Progress(
            kind=kind,  # type: ignore[arg-type]
            url=self._url,
            sent=self._file.size,
            accepted=self._file.size,
            total=self._total,
            resumed_from=self._resumed_from,
            attempt=self._attempts.number,
        )


def _check_absent(path: str) -> None:
    if os.path.lexists(path):
        raise FileExistsError(f"{path} exists already")


def _total(headers: Headers) -> int | None:
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    return None if match is None else int(match[2])
