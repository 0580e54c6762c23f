"""What a server offers, asked once, and what a client makes of it."""

from __future__ import annotations

import hashlib
from typing import Final

from tus.client.capabilities import Capabilities, read_capabilities
from tus.client.commands import Flow
from tus.client.dialects.ietf import VERSION_FIELD, VERSIONS, Ietf, version_in
from tus.client.dialects.interface import Dialect
from tus.client.dialects.tus1 import VERSION, Tus1
from tus.client.errors import NotSupported
from tus.client.flow.asking import insist, refusal
from tus.client.flow.context import Context
from tus.client.messages import Request, Response
from tus.client.retry import Verdict, judge

#: The algorithms of ``Upload-Checksum`` by the server's names, the best first.
_PREFERRED: Final = ("sha256", "sha512", "sha384", "sha1", "md5")
#: What servers answer to an interop version that they do not know.
_REFUSES_VERSION: Final = (400, 412, 501)


def discover(context: Context) -> Flow[Capabilities]:
    """Return what the server offers. It is asked once.

    Raises:
        NotAuthorized: the server does not answer without other credentials.
        GaveUp: the server does not answer.
    """
    if context.capabilities is None:
        request = Request("OPTIONS", context.settings.endpoint, {"Tus-Resumable": VERSION})
        if context.settings.protocol == "ietf":
            request.headers = {VERSION_FIELD: str(VERSIONS[0])}
        response = yield from insist(context, request)
        if judge(response.status) is Verdict.AUTHORIZE:
            raise refusal(response, request.url)
        context.capabilities = read_capabilities(response)
    return context.capabilities


def choose_dialect(context: Context) -> Flow[Dialect]:
    """Return the protocol to speak: the one that the caller names, or else the one that the server offers."""
    yield from discover(context)
    return known_dialect(context)


def known_dialect(context: Context) -> Dialect:
    """Return the protocol to speak, as far as it is known without a request."""
    settings, capabilities = context.settings, context.capabilities or Capabilities(("tus",))
    if settings.protocol == "tus" or (settings.protocol == "auto" and "tus" in capabilities.protocols):
        return Tus1(settings.overrides_method)
    return Ietf(context.version or capabilities.version or VERSIONS[0], settings.overrides_method)


def older_dialect(context: Context, dialect: Dialect, response: Response) -> Dialect | None:
    """Return the next interop version to try, if the server does not seem to know this one; None if there is none.

    A server of tus that does not know the version answers in tus, and to a HEAD with success.
    """
    if dialect.name != "ietf" or context.version is not None:
        return None
    if response.status not in _REFUSES_VERSION and "Tus-Resumable" not in response.headers:
        return None
    older = [version for version in VERSIONS if version < dialect.version]
    named = version_in(response.headers)
    if not older:
        return None
    return Ietf(named if named in older else older[0], context.settings.overrides_method)


def choose_checksum(context: Context, dialect: Dialect) -> Flow[str | None]:
    """Return the algorithm of the checksum of each request, or None.

    Raises:
        NotSupported: the caller names an algorithm that the server, or this Python, does not have.
    """
    wanted = context.settings.checksum
    if wanted is None:
        return None
    capabilities = yield from discover(context)
    if dialect.name == "ietf":  # servers do not list algorithms; RFC 9530 names two that are not insecure
        offered: tuple[str, ...] = ("sha256", "sha512")
    else:
        offered = capabilities.checksums if "checksum" in capabilities.extensions else ()
    known = [name for name in _PREFERRED if name in offered and name in hashlib.algorithms_available]
    if wanted == "auto":
        return known[0] if known else None
    if wanted not in known:
        listed = ", ".join(known) or "none"
        raise NotSupported(
            f"The server does not verify checksums by {wanted}; it offers {listed}.", url=context.settings.endpoint
        )
    return wanted
