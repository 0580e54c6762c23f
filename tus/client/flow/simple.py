"""The short requests: the state of an upload, its removal, an upload without bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tus.client.commands import Flow
from tus.client.dialects.interface import Creation, Dialect
from tus.client.errors import ProtocolViolation, UploadGone
from tus.client.flow.asking import insist, refusal, resolve
from tus.client.flow.context import Context
from tus.client.flow.discovery import discover, known_dialect, older_dialect
from tus.client.messages import Request, Response
from tus.client.results import UploadInfo
from tus.client.retry import Verdict, judge
from tus.errors import BadRequest
from tus.http.headers import parse_metadata


def create(context: Context, size: int | None, metadata: Mapping[str, str | bytes]) -> Flow[str]:
    """Create an upload without bytes, and return its URL."""
    yield from discover(context)
    endpoint = context.settings.endpoint
    creation = Creation(endpoint, size, metadata, context.new_key())
    dialect, response = yield from _ask(context, lambda dialect: dialect.create(creation))
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
    dialect, response = yield from _ask(context, lambda dialect: dialect.look(url))
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
    _, response = yield from _ask(context, lambda dialect: dialect.terminate(url))
    if judge(response.status) not in (Verdict.SUCCESS, Verdict.GONE):
        raise refusal(response, url)


def _ask(context: Context, make: Callable[[Dialect], Request]) -> Flow[tuple[Dialect, Response]]:
    """Send a request in the version of the protocol that the server takes, and return that with the response."""
    dialect = known_dialect(context)
    while True:
        response = yield from insist(context, make(dialect))
        older = older_dialect(context, dialect, response)
        if older is None:
            break
        dialect = older
    if dialect.name == "ietf" and response.is_success:
        context.version = dialect.version
    return dialect, response


def _check(response: Response, url: str) -> None:
    verdict = judge(response.status)
    if verdict is Verdict.GONE:
        raise UploadGone("The server does not have this upload.", url=url, response=response)
    if verdict is not Verdict.SUCCESS:
        raise refusal(response, url)
