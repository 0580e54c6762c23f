"""The short requests: the state of an upload, its removal, an upload without bytes."""

from __future__ import annotations

from collections.abc import Mapping

from tus.client.commands import Flow
from tus.client.dialects.ietf import Ietf
from tus.client.dialects.interface import Creation, Dialect
from tus.client.dialects.tus1 import Tus1
from tus.client.errors import ProtocolViolation, UploadGone
from tus.client.flow.asking import insist, refusal, resolve
from tus.client.flow.context import Context
from tus.client.flow.discovery import choose_dialect
from tus.client.messages import Response
from tus.client.results import UploadInfo
from tus.client.retry import Verdict, judge
from tus.errors import BadRequest
from tus.http.headers import parse_metadata


def create(context: Context, size: int | None, metadata: Mapping[str, str | bytes]) -> Flow[str]:
    """Create an upload without bytes, and return its URL."""
    dialect = yield from choose_dialect(context)
    endpoint = context.settings.endpoint
    request = dialect.create(Creation(endpoint, size, metadata, context.new_key()))
    response = yield from insist(context, request)
    if judge(response.status) is not Verdict.SUCCESS:
        raise refusal(response, endpoint)
    seen = dialect.read_creation(response, context.now())
    if not seen.url:
        raise ProtocolViolation(
            f"The server answered {response.status} to the creation without a Location.",
            url=endpoint,
            response=response,
        )
    return resolve(context, endpoint, seen.url)


def head(context: Context, url: str) -> Flow[UploadInfo]:
    """Return what the server says about an upload.

    Raises:
        UploadGone: it has no such upload.
    """
    dialect = _dialect(context)
    response = yield from insist(context, dialect.look(url))
    _check(response, url)
    seen = dialect.read_look(response, context.now())
    if seen.offset is None:
        raise ProtocolViolation("The server did not say how much it has.", url=url, response=response)
    try:
        metadata = parse_metadata(response.headers.get("Upload-Metadata", ""))
    except BadRequest:
        metadata = {}
    return UploadInfo(
        url=url,
        offset=seen.offset,
        length=seen.length,
        metadata=metadata,
        expires_at=seen.expires_at,
        is_complete=bool(seen.is_complete),
        concat=response.headers.get("Upload-Concat", "").partition(";")[0],
        response=response,
    )


def delete(context: Context, url: str) -> Flow[None]:
    """Remove an upload. One that the server does not have is removed already.

    Raises:
        Refused: the server does not remove uploads, or not this one.
    """
    response = yield from insist(context, _dialect(context).terminate(url))
    if judge(response.status) not in (Verdict.SUCCESS, Verdict.GONE):
        raise refusal(response, url)


def _dialect(context: Context) -> Dialect:
    overrides = context.settings.overrides_method
    return Ietf(overrides_method=overrides) if context.settings.protocol == "ietf" else Tus1(overrides)


def _check(response: Response, url: str) -> None:
    verdict = judge(response.status)
    if verdict is Verdict.GONE:
        raise UploadGone("The server does not have this upload.", url=url, response=response)
    if verdict is not Verdict.SUCCESS:
        raise refusal(response, url)
