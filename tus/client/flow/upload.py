"""One upload, from its creation or its resumption to the server's last word.

Law of this room: success is what the server says about the whole file. An error in reply to the request that carried
the last byte is never made a success by a later look, unless the server says that it took the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Literal

from tus.client.capabilities import Capabilities
from tus.client.commands import Call, Fill, Flow, Progress, Report
from tus.client.dialects.ietf import VERSIONS, Ietf, version_in
from tus.client.dialects.interface import Append, Creation, Dialect, Seen
from tus.client.dialects.tus1 import Tus1
from tus.client.errors import (
    ChecksumMismatch,
    ClientError,
    ConnectionFailed,
    FileChanged,
    FinishUncertain,
    GaveUp,
    NotSupported,
    ProtocolViolation,
    Refused,
    UploadGone,
)
from tus.client.flow.asking import Attempts, ask, describe, refusal, resolve
from tus.client.flow.context import Context
from tus.client.flow.discovery import choose_checksum, choose_dialect, older_dialect
from tus.client.messages import Body, Request, Response
from tus.client.records.interface import ResumeRecord
from tus.client.results import UploadResult
from tus.client.retry import Verdict, judge
from tus.client.sources import Filled, Source
from tus.http.digests import NAMES, format_digest, parse_digest
from tus.http.headers import format_metadata

#: A file of at most so many bytes goes with the request that creates its upload.
SMALL: Final = 256 << 10
#: The most bytes under one checksum: a server counts none of them before it has all.
CHECKED: Final = 16 << 20
#: A server that refuses this many bytes as too many refuses the upload.
_LEAST: Final = 16 << 10
_LIFETIME: Final = 30 * 24 * 3600.0


class Upload:
    """The flow of one upload.

    Args:
        context: of the client.
        source: the bytes.
        metadata: describes the file to the server.
        key: under which the upload is remembered; empty if it cannot go on after this process.
        url: an upload to go on with; empty to find it by the key, or to create it.
        is_partial: whether it becomes a part of another one.
        keeps_record: whether the record stays after the upload has become complete.
    """

    def __init__(
        self,
        context: Context,
        source: Source,
        metadata: Mapping[str, str | bytes],
        key: str = "",
        url: str = "",
        is_partial: bool = False,
        keeps_record: bool = False,
    ) -> None:
        self._context = context
        self._source = source
        self._metadata = metadata
        self._key = key
        self._can_create = not url
        self._is_partial = is_partial
        self._keeps_record = keeps_record
        self._dialect: Dialect = Tus1(context.settings.overrides_method)
        self._attempts = Attempts(context)
        self._record: ResumeRecord | None = None
        self._checksum: str | None = None
        self._url = url
        self._offset = 0
        self._resumed_from = 0
        self._most: int | None = None
        self._expires_at: float | None = None
        self._must_look = bool(url)
        self._is_size_known = True
        self._is_complete = False
        self._has_restarted = False
        self._refused_end: Response | None = None
        self._digest: tuple[str, bytes] | None = None
        self._response: Response | None = None

    def run(self) -> Flow[UploadResult]:
        """Upload the source.

        Raises:
            ClientError: the upload has not become complete, or that is not known.
        """
        try:
            yield from self._prepare()
            yield self._report("started")
            if self._must_look:
                yield from self._continue()
            if not self._url and not self._is_complete:
                yield from self._create()
            while not self._is_complete:
                yield from self._advance()
        except FileChanged as error:
            yield from self._forget()
            raise self._failed(error) from None
        if not self._keeps_record:
            yield from self._forget()
        self._check_digest()
        yield self._report("finished")
        assert self._response is not None
        return UploadResult(
            url=self._url,
            size=self._offset,
            offset=self._offset,
            resumed_from=self._resumed_from,
            attempts=self._attempts.number,
            protocol=self._dialect.name,
            response=self._response,
        )

    # -- Before the first byte ------------------------------------------------------------------------------------

    def _prepare(self) -> Flow[None]:
        settings = self._context.settings
        if self._key and not self._url:
            self._record = yield Call(lambda: self._context.records.find(self._key))
        if self._record is not None and self._record.url:
            self._url, self._must_look = self._record.url, True
            self._dialect = self._made(self._record.protocol, self._record.version)
        else:
            self._dialect = yield from choose_dialect(self._context)
        capabilities = self._context.capabilities or Capabilities()
        size = self._source.size
        if size is not None and capabilities.max_size is not None and size > capabilities.max_size:
            raise Refused(
                f"The file has {size} bytes; the server takes at most {capabilities.max_size}.", url=settings.endpoint
            )
        self._is_size_known = size is not None
        can_wait = "creation-defer-length" in capabilities.extensions or not capabilities.protocols
        if self._dialect.name == "tus" and not self._is_size_known and not can_wait:
            raise NotSupported(
                "The server must know the size of an upload before it begins; say it with size=.",
                url=settings.endpoint,
            )
        self._checksum = yield from choose_checksum(self._context, self._dialect)
        self._most = yield Call(lambda: self._context.records.chunk_limit(settings.endpoint))
        if settings.digest is not None:
            yield from self._take_digest(settings.digest)

    def _made(self, name: str, version: int) -> Dialect:
        overrides = self._context.settings.overrides_method
        return Ietf(version, overrides) if name == "ietf" and version in VERSIONS else Tus1(overrides)

    def _take_digest(self, algorithm: str) -> Flow[None]:
        source, size = self._source, self._source.size
        if size is None or source.spool:
            raise NotSupported("A digest needs a file that can be read twice; this source is a stream.")
        name = NAMES.get(algorithm, algorithm)
        value = yield Call(lambda: source.digest(0, size, name))
        self._digest = name, value

    def _creation(self, body: Body | None, is_whole: bool) -> Creation:
        assert self._record is not None
        return Creation(
            endpoint=self._context.settings.endpoint,
            size=self._source.size if self._is_size_known else None,
            metadata=self._metadata,
            key=self._record.idempotency_key,
            body=body,
            is_whole=is_whole,
            is_partial=self._is_partial,
            digests=format_digest([self._digest]) if self._digest else "",
        )

    def _create(self) -> Flow[None]:
        """Create the upload, with its first bytes where that saves a request."""
        has_old_key = self._record is not None and not self._record.url
        self._must_look = has_old_key  # the server may have the upload, and bytes of it
        if not has_old_key:
            yield from self._take_new_key()
        sends_body = self._sends_body()
        while not self._url and not self._is_complete:
            body, is_whole = None, False
            if sends_body:
                filled: Filled = yield Fill(self._source, 0, self._chunk_size())
                body, is_whole = Body(self._source, 0, filled.length), filled.is_end
            elif self._source.size == 0 and self._is_size_known:
                is_whole = self._dialect.name == "ietf"
            creation = self._creation(body, is_whole)
            request = self._dialect.create(creation)
            try:
                response = yield from ask(self._context, request, self._take_interim)
            except ClientError as error:
                if self._url:  # an interim response has named it
                    yield from self._remember(url=self._url)
                if not isinstance(error, ConnectionFailed):
                    raise
                self._must_look = True
                yield from self._attempts.wait(error, self._progress("waiting"))
                continue
            verdict = judge(response.status)
            if verdict is Verdict.SUCCESS:
                self._read_creation(creation, request, response)
            elif verdict in (Verdict.RETRY, Verdict.LOOK, Verdict.CORRUPT):
                if is_whole and response.status >= 500:
                    self._refused_end = response
                self._must_look = True
                yield from self._attempts.wait(response, self._progress("waiting"))
            elif self._tries_older(response):
                continue
            elif verdict is Verdict.SMALLER and body is not None:
                sends_body = False
            elif has_old_key:  # it may belong to another request, of another protocol for example
                has_old_key = self._must_look = False
                yield from self._take_new_key()
            else:
                raise self._failed(refusal(response, request.url, 0))
        if self._url and not self._is_complete:
            yield from self._remember(url=self._url)

    def _take_new_key(self) -> Flow[None]:
        yield from self._remember(idempotency_key=self._context.new_key(), url="", parts=(), unfinished_status=0)

    def _sends_body(self) -> bool:
        """Return whether the first bytes go with the creation. A server that may be a plain one gets them all."""
        capabilities, size = self._context.capabilities or Capabilities(), self._source.size
        if self._dialect.name == "ietf" and "ietf" not in capabilities.protocols and self._context.version is None:
            return True
        if self._checksum is not None:
            return False
        if self._dialect.name == "tus":
            return "creation-with-upload" in capabilities.extensions and size is not None and 0 < size <= SMALL
        return size is None or size <= SMALL

    def _tries_older(self, response: Response) -> bool:
        """Choose an older interop version, if the server may have refused this one. Returns whether there is one."""
        older = older_dialect(self._context, self._dialect, response)
        self._dialect = older or self._dialect
        return older is not None

    def _take_interim(self, status: int, headers: Any) -> Callable[[], None] | None:
        """Take an interim response: the URL of the upload may be known, and remembered, before its creation ends."""
        if status == 104 and isinstance(self._dialect, Ietf):
            seen = self._dialect.read_interim(headers, self._context.now())
            if seen is not None and seen.url and not self._url:
                self._url = resolve(self._context, self._context.settings.endpoint, seen.url)
                self._must_look = True
                record = self._changed_record(url=self._url)
                return (lambda: self._context.records.save(record)) if self._key else None
        return None

    def _read_creation(self, creation: Creation, request: Request, response: Response) -> None:
        seen = self._dialect.read_creation(response, self._context.now())
        self._expires_at = seen.expires_at
        if self._dialect.name == "ietf":
            named = version_in(response.headers)
            if named is not None and named != self._dialect.version:
                self._dialect = self._made("ietf", named)
                seen = self._dialect.read_creation(response, self._context.now())
            self._context.version = self._dialect.version
            self._most = _least(self._most, seen.most)
            if creation.is_whole and seen.is_complete is not False:
                self._url = self._url or (resolve(self._context, request.url, seen.url) if seen.url else "")
                self._complete(response, self._source.size or 0)
                return
        if not seen.url and not self._url:
            raise ProtocolViolation(
                f"The server answered {response.status} to the creation without a Location.",
                url=request.url,
                response=response,
            )
        self._url = self._url or resolve(self._context, request.url, seen.url)
        self._refused_end = None
        sent = 0 if creation.body is None else creation.body.length
        if not self._must_look:
            says_nothing = seen.offset is None and self._dialect.name == "tus"
            self._offset = sent if seen.offset is None else seen.offset
            if self._offset > sent or (says_nothing and sent):
                self._must_look, self._offset = True, 0
        is_empty = self._is_size_known and self._source.size == 0
        if self._dialect.name == "tus" and (is_empty or (creation.is_whole and seen.offset == sent)):
            self._must_look = False
            self._complete(response, sent)
        self._source.release(self._offset)

    # -- An upload that exists already ----------------------------------------------------------------------------

    def _continue(self) -> Flow[None]:
        """Go on with an upload, or forget it if the server has it no more or has another one."""
        try:
            yield from self._look()
        except UploadGone:
            if not self._can_create:
                raise
            yield from self._start_anew()
            return
        self._resumed_from = self._offset
        if self._offset and not self._is_complete:
            yield self._report("resumed")

    def _start_anew(self) -> Flow[None]:
        yield from self._forget()
        self._record = None
        self._url, self._offset, self._must_look, self._is_complete = "", 0, False, False
        self._refused_end = None
        if self._context.capabilities is None:
            self._dialect = yield from choose_dialect(self._context)

    def _look(self) -> Flow[None]:
        """Ask the server how much it has.

        Raises:
            UploadGone: it has no such upload, or another file.
        """
        while True:
            request = self._dialect.look(self._url)
            try:
                response = yield from ask(self._context, request)
            except ConnectionFailed as error:
                yield from self._attempts.wait(error, self._progress("waiting"))
                continue
            if self._tries_older(response):
                continue
            verdict = judge(response.status)
            seen = self._dialect.read_look(response, self._context.now())
            if verdict is Verdict.GONE:
                raise UploadGone("The server does not have this upload any more.", url=self._url, response=response)
            if verdict is Verdict.SUCCESS and seen.offset is not None:
                break
            if verdict in (Verdict.AUTHORIZE, Verdict.REFUSED, Verdict.SMALLER):
                raise self._failed(refusal(response, self._url, self._offset))
            yield from self._attempts.wait(response, self._progress("waiting"))
        self._must_look = False
        if self._dialect.name == "ietf":
            self._context.version = self._dialect.version
        self._take(seen, response)
        if self._refused_end is None and self._had_refused_end() and not self._is_complete:
            yield from self._remember(unfinished_status=0)

    def _take(self, seen: Seen, response: Response) -> None:
        """Take the state that the server has reported."""
        size = self._source.size
        offset = seen.offset or 0
        if seen.length is not None and size is not None and seen.length != size:
            raise UploadGone(
                f"This upload is for {seen.length} bytes, but the file has {size}.", url=self._url, response=response
            )
        if size is not None and offset > size:
            raise ProtocolViolation(
                f"The server says that it has {offset} of {size} bytes.", url=self._url, response=response
            )
        if offset > self._offset:
            self._attempts.progress()
        self._offset = offset
        self._expires_at = seen.expires_at or self._expires_at
        self._most = _least(self._most, seen.most)
        if seen.length is not None:
            self._is_size_known = True
        if not seen.is_complete:
            self._refused_end = None
            self._source.release(offset)
            return
        refused = self._refused_end
        if self._dialect.name == "tus" and (refused is not None or self._had_refused_end()):
            status = f"with {refused.status}" if refused is not None else "with an error"
            raise FinishUncertain(
                f"The server has every byte, but it answered {status} to the request that completed the upload. "
                "Ask there whether the file was accepted before you send it again.",
                url=self._url,
                offset=offset,
                response=refused or response,
            )
        self._complete(response, offset)

    def _had_refused_end(self) -> bool:
        return self._record is not None and self._record.unfinished_status != 0

    # -- The bytes ------------------------------------------------------------------------------------------------

    def _advance(self) -> Flow[None]:
        """Send the next bytes, or find out where to go on."""
        if self._must_look:
            try:
                yield from self._look()
            except UploadGone:
                yield from self._recreate()
            return
        filled: Filled = yield Fill(self._source, self._offset, self._chunk_size())
        body = Body(self._source, self._offset, filled.length)
        append = Append(self._url, body, self._source.size, filled.is_end, not self._is_size_known)
        request: Request
        if self._checksum is not None and filled.length:
            append = yield from self._checked(append, self._checksum)
        request = self._dialect.append(append)
        before = self._offset
        try:
            response = yield from ask(self._context, request)
        except ConnectionFailed as error:
            self._must_look = True
            yield from self._attempts.wait(error, self._progress("waiting"))
            return
        problem = yield from self._read(append, response)
        if problem is None and not self._is_complete and not self._must_look and self._offset <= before:
            problem = response
        if problem is not None:
            self._must_look = True
            try:
                yield from self._attempts.wait(problem, self._progress("waiting"))
            except GaveUp as error:
                if problem.status == 460:
                    message = "The bytes did not arrive as they were sent, again and again."
                    raise ChecksumMismatch(
                        message, url=self._url, offset=self._offset, resumable=True, response=problem
                    ) from error
                raise

    def _chunk_size(self) -> int:
        """Return the most bytes of the next request; 0 for no limit."""
        capabilities = self._context.capabilities or Capabilities()
        limits = (
            self._context.settings.chunk_size,
            self._context.most,
            self._most,
            capabilities.max_request,
            None if self._checksum is None else CHECKED,
        )
        most = _least(*limits) or 0
        return max(most, capabilities.min_request) if most else 0

    def _checked(self, append: Append, algorithm: str) -> Flow[Append]:
        """Return an append with its checksum, or with a body that a checksum follows."""
        body = append.body
        capabilities = self._context.capabilities or Capabilities()
        if (
            self._dialect.name == "tus"
            and self._context.settings.sends_trailers
            and "checksum-trailer" in capabilities.extensions
        ):
            return replace(append, body=replace(body, trailer=algorithm))
        digest = yield Call(lambda: body.source.digest(body.offset, body.length, algorithm))
        return replace(append, checksum=(algorithm, digest))

    def _read(self, append: Append, response: Response) -> Flow[Response | None]:
        """Take the reply to an append. Returns it if it is a reason to wait."""
        seen = self._dialect.read_append(response, append, self._context.now())
        self._expires_at = seen.expires_at or self._expires_at
        verdict = judge(response.status)
        end = append.body.offset + append.body.length
        if seen.is_complete and self._dialect.name == "ietf" and verdict is not Verdict.SUCCESS:
            yield from self._forget()  # the reply is the application's, and it is final
            message = f"The application did not take the file: {describe(response)}"
            raise Refused(message, url=self._url, offset=end, response=response)
        match verdict:
            case Verdict.SUCCESS if seen.offset is None and self._dialect.name == "tus":
                return response  # the server must say it, so a look is needed
            case Verdict.SUCCESS:
                yield from self._accept(append, seen, response, end)
                return None
            case Verdict.SMALLER:
                yield from self._shrink(append, response)
                return None
            case Verdict.GONE:
                self._must_look = True  # a look shows whether the upload is gone, or something behind it
                return response
            case Verdict.AUTHORIZE:
                raise self._failed(refusal(response, self._url, self._offset))
            case Verdict.REFUSED if response.status not in (501, 505):
                if append.is_last:
                    yield from self._forget()
                raise self._failed(refusal(response, self._url, self._offset))
        if append.is_last and response.status >= 500:
            self._refused_end = response
            yield from self._remember(unfinished_status=response.status)
        if verdict is Verdict.REFUSED:
            raise self._failed(refusal(response, self._url, self._offset))
        return response

    def _accept(self, append: Append, seen: Seen, response: Response, end: int) -> Flow[None]:
        offset = end if seen.offset is None else seen.offset  # a success implies that the whole body was taken
        if offset > end:
            raise ProtocolViolation(
                f"The server says that it has {offset} bytes, but it got {end}.", url=self._url, response=response
            )
        if offset > self._offset:
            self._attempts.progress()
        self._offset = offset
        if append.is_last and append.announces_size:
            self._is_size_known = True
        self._source.release(offset)
        if seen.is_complete:
            self._complete(response, offset)
        yield self._report("accepted")

    def _shrink(self, append: Append, response: Response) -> Flow[None]:
        """Send less from now on, because the server, or a proxy before it, takes no more in one request."""
        length = append.body.length
        if length <= _LEAST:
            raise self._failed(refusal(response, self._url, self._offset))
        most = self._context.most = max(length // 2, _LEAST)
        endpoint = self._context.settings.endpoint
        yield Call(lambda: self._context.records.limit_chunks(endpoint, most))
        self._must_look = True

    def _recreate(self) -> Flow[None]:
        """Begin again from the start, once, because the server has lost the upload.

        Raises:
            UploadGone: that is not possible.
        """
        if self._has_restarted or not self._can_create or self._source.start:
            yield from self._forget()
            raise UploadGone(
                "The server does not have this upload any more, and it cannot be sent again from its start.",
                url=self._url,
                offset=self._offset,
            )
        self._has_restarted = True
        self._resumed_from = 0
        yield from self._start_anew()
        yield from self._create()

    # -- The end --------------------------------------------------------------------------------------------------

    def _complete(self, response: Response, offset: int) -> None:
        self._is_complete = True
        self._response = response
        self._offset = offset

    def _check_digest(self) -> None:
        if self._digest is None or self._response is None:
            return
        algorithm, value = self._digest
        for name, theirs in parse_digest(self._response.headers.get("Repr-Digest")):
            if name == algorithm and theirs != value:
                raise ChecksumMismatch(
                    f"The server has another file: its {algorithm} digest differs.",
                    url=self._url,
                    offset=self._offset,
                    response=self._response,
                )

    def _failed(self, error: ClientError) -> ClientError:
        error.url = error.url or self._url
        return error

    def _progress(self, kind: Literal["started", "resumed", "accepted", "waiting", "finished"]) -> Progress:
        return Progress(
            kind=kind,
            url=self._url,
            sent=self._offset,
            accepted=self._offset,
            total=self._source.size,
            resumed_from=self._resumed_from,
            attempt=self._attempts.number,
        )

    def _report(self, kind: Literal["started", "resumed", "accepted", "waiting", "finished"]) -> Report:
        return Report(self._progress(kind))

    # -- What outlives the process --------------------------------------------------------------------------------

    def _remember(self, **changes: Any) -> Flow[None]:
        """Keep what another process needs to go on."""
        record = self._changed_record(**changes)
        if self._key:
            yield Call(lambda: self._context.records.save(record))

    def _changed_record(self, **changes: Any) -> ResumeRecord:
        now, dialect = self._context.now(), self._dialect
        record = self._record
        if record is None:
            identity = self._source.identity
            record = ResumeRecord(
                key=self._key,
                url="",
                endpoint=self._context.settings.endpoint,
                path="" if identity is None else identity.path,
                size=self._source.size or 0,
                protocol=dialect.name,
                version=dialect.version,
                idempotency_key="",
                parts=(),
                unfinished_status=0,
                metadata=format_metadata(self._metadata),
                created_at=now,
                expires_at=now + _LIFETIME,
            )
        record = replace(record, protocol=dialect.name, version=dialect.version, **changes)
        if self._expires_at is not None:
            record = replace(record, expires_at=self._expires_at)
        self._record = record
        return record

    def _forget(self) -> Flow[None]:
        if self._key:
            yield Call(lambda: self._context.records.forget(self._key))


def _least(*numbers: int | None) -> int | None:
    return min((number for number in numbers if number), default=None)
