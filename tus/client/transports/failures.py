"""What goes wrong on the way, in plain words."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator

import httpx2

from tus.client.errors import ClientError, ConnectionFailed, NotAuthorized, NotSupported, NotTrusted, Stalled
from tus.client.messages import Headers, Response
from tus.client.transports.exchange import Aborted, Exchange

try:
    import httpcore2
except ImportError:  # pragma: no cover
    _LIBRARIES = [httpx2]
else:
    _LIBRARIES = [httpx2, httpcore2]


def _named(*names: str) -> tuple[type[Exception], ...]:
    """Return the exceptions of these names, which the two libraries have in common."""
    return tuple(getattr(library, name) for library in _LIBRARIES for name in names if hasattr(library, name))


_TIMEOUTS = _named("TimeoutException")
_CONNECTING = _named("ConnectTimeout", "ConnectError")
_SENDING = _named("WriteTimeout", "WriteError")
_PROXY = _named("ProxyError")
_WRONG = _named("UnsupportedProtocol", "LocalProtocolError", "InvalidURL")
_ENDED = _named("RemoteProtocolError")
_TWICE = _named("StreamError")
_ALL: tuple[type[Exception], ...] = (
    *_named("TransportError", "NetworkError", "ProtocolError", "DecodingError"),
    ssl.SSLError,
    Aborted,
)
_ALL += _TIMEOUTS + _PROXY + _WRONG + _TWICE


@contextlib.contextmanager
def in_plain_words(exchange: Exchange) -> Iterator[None]:
    """Raise an exception of the HTTP library as one of the client's."""
    try:
        yield
    except _ALL as error:
        url = exchange.request.url
        if exchange.is_aborted:
            raise ConnectionFailed(f"The request to {_place(url)} was aborted.", url=url) from error
        raise explain(error, url) from error


def explain(error: Exception, url: str) -> ClientError:
    """Return the client's error for one of the HTTP library."""
    where, what = _place(url), (str(error) or type(error).__name__).rstrip(".")
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError) and "CERT" in (cause.reason or "") + str(cause).upper():
            return NotTrusted(f"{where}: {_certificate(cause)}.", url=url)
    if isinstance(error, _PROXY):
        if what.startswith("407"):
            response = Response(407, Headers(), url=url)
            return NotAuthorized(f"The proxy asks for a user and a password ({what}).", url=url, response=response)
        return ConnectionFailed(f"The proxy does not connect to {where}: {what}.", url=url)
    if isinstance(error, _WRONG):
        return NotSupported(f"The request to {where} cannot be sent: {what}.", url=url)
    if isinstance(error, _TWICE):
        return NotSupported(
            f"The HTTP client must send the body to {where} twice, for example to log in, and cannot.", url=url
        )
    if isinstance(error, _CONNECTING):
        kind = Stalled if isinstance(error, _TIMEOUTS) else ConnectionFailed
        return kind(f"No connection to {where}: {what}.", url=url)
    if isinstance(error, _TIMEOUTS):
        doing = "sending to" if isinstance(error, _SENDING) else "waiting for"
        return Stalled(f"Nothing moved while {doing} {where}: {what}.", url=url)
    if isinstance(error, _ENDED):
        return ConnectionFailed(f"{where} closed the connection, or did not answer in HTTP: {what}.", url=url)
    return ConnectionFailed(f"The connection to {where} broke: {what}.", url=url)


def _certificate(cause: ssl.SSLError) -> str:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {cause.verify_message}"
    return f"TLS failed over a certificate: {(cause.reason or str(cause)).replace('_', ' ').lower()}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _place(url: str) -> str:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        return url
    return f"{parsed.host}:{parsed.port or {'http': 80, 'https': 443}.get(parsed.scheme, 0)}"
