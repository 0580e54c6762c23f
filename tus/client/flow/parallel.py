"""One file in several parts at once, which the server concatenates (tus 1.0.0, Concatenation)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from tus.client.commands import Call, Flow, Progress, Report, Together
from tus.client.dialects.interface import Creation
from tus.client.dialects.tus1 import Tus1
from tus.client.errors import ConnectionFailed, FinishUncertain, ProtocolViolation, UploadGone
from tus.client.flow.asking import Attempts, ask, describe, refusal, resolve
from tus.client.flow.context import Context
from tus.client.flow.discovery import discover
from tus.client.flow.upload import Upload
from tus.client.messages import Response
from tus.client.records.interface import ResumeRecord
from tus.client.results import UploadResult
from tus.client.retry import Verdict, judge
from tus.client.sources import Part, Source
from tus.http.headers import format_metadata

#: A part is at least so large.
SMALLEST_PART: Final = 1 << 20


def upload(
    context: Context,
    source: Source,
    metadata: Mapping[str, str | bytes],
    key: str,
    parts: int,
) -> Flow[UploadResult]:
    """Upload a source in parts where the server and the source allow it, else in one stream."""
    size = source.size
    if parts > 1 and size is not None and not source.spool and size >= 2 * SMALLEST_PART:
        capabilities = yield from discover(context)
        if context.settings.protocol != "ietf" and {"concatenation", "creation"} <= capabilities.extensions:
            number = min(parts, size // SMALLEST_PART)
            return (yield from _Parallel(context, source, size, metadata, key, number).run())
    return (yield from Upload(context, source, metadata, key).run())


class _Parallel:
    def __init__(
        self, context: Context, source: Source, size: int, metadata: Mapping[str, str | bytes], key: str, number: int
    ) -> None:
        self._context, self._source, self._size = context, source, size
        self._metadata, self._number = metadata, number
        self._key = f"{key}.{number}" if key else ""  # one stream of the same file has a record of its own
        self._attempts = Attempts(context)
        self._dialect = Tus1(context.settings.overrides_method)

    def run(self) -> Flow[UploadResult]:
        context, key = self._context, self._key
        record = (yield Call(lambda: context.records.find(key))) if key else None
        if record is None or len(record.parts) not in (0, self._number):
            made = record = self._new_record()
            if key:
                yield Call(lambda: context.records.save(made))
        yield Report(self._progress("started"))
        results: list[UploadResult] = yield Together([self._part(number) for number in range(self._number)])
        urls = tuple(result.url for result in results)
        if urls != record.parts:
            record = replace(record, parts=urls)
            if key:
                yield Call(lambda: context.records.save(record))
        try:
            response = yield from self._concatenate(record)
        except UploadGone:
            yield from self._forget()
            raise
        yield from self._forget()
        url = resolve(context, context.settings.endpoint, response.headers.get("Location", ""))
        yield Report(replace(self._progress("finished"), url=url, accepted=self._size, sent=self._size))
        return UploadResult(
            url=url,
            size=self._size,
            offset=self._size,
            resumed_from=sum(result.resumed_from for result in results),
            attempts=self._attempts.number + sum(result.attempts - 1 for result in results),
            protocol="tus",
            response=response,
        )

    def _part(self, number: int) -> Flow[UploadResult]:
        start = self._size * number // self._number
        end = self._size * (number + 1) // self._number
        part = Part(self._source, start, end - start)
        key = f"{self._key}.{number}" if self._key else ""
        return Upload(self._context, part, {}, key, is_partial=True, keeps_record=True).run()

    def _new_record(self) -> ResumeRecord:
        now, identity = self._context.now(), self._source.identity
        return ResumeRecord(
            key=self._key,
            url="",
            endpoint=self._context.settings.endpoint,
            path="" if identity is None else identity.path,
            size=self._size,
            protocol="tus",
            version=0,
            idempotency_key=self._context.new_key(),
            parts=(),
            unfinished_status=0,
            metadata=format_metadata(self._metadata),
            created_at=now,
            expires_at=now + 30 * 24 * 3600.0,
        )

    def _concatenate(self, record: ResumeRecord) -> Flow[Response]:
        """Ask for the final upload. A repetition has the same ``Idempotency-Key``, so that it makes no second one."""
        context = self._context
        endpoint = context.settings.endpoint
        creation = Creation(endpoint, None, self._metadata, record.idempotency_key)
        request = self._dialect.concatenate(creation, record.parts)
        while True:
            try:
                response = yield from ask(context, request)
            except ConnectionFailed as error:
                yield from self._attempts.wait(error, self._progress("waiting"))
                continue
            verdict = judge(response.status)
            if verdict is Verdict.SUCCESS:
                if not response.headers.get("Location"):
                    raise ProtocolViolation(
                        "The server joined the parts, but did not say where the upload is.",
                        url=endpoint,
                        response=response,
                    )
                return response
            if verdict is Verdict.GONE:
                raise UploadGone(
                    "The server does not have all the parts any more.", url=endpoint, resumable=True, response=response
                )
            if response.status in (429, 503) or verdict is Verdict.LOOK or response.status in (408, 425):
                yield from self._attempts.wait(response, self._progress("waiting"))
                continue
            if response.status >= 500:
                raise FinishUncertain(
                    f"The server has every part, but {describe(response)} Ask there whether the file was accepted "
                    "before you send it again.",
                    url=endpoint,
                    offset=self._size,
                    response=response,
                )
            raise refusal(response, endpoint, self._size)

    def _progress(self, kind: str) -> Progress:
        return Progress(kind=kind, total=self._size, attempt=self._attempts.number)  # type: ignore[arg-type]

    def _forget(self) -> Flow[None]:
        if self._key:
            keys = [self._key, *(f"{self._key}.{number}" for number in range(self._number))]
            for key in keys:
                yield Call(partial(self._context.records.forget, key))
