"""What a server offers, asked once, and what a client makes of it."""

from __future__ import annotations

import hashlib
from typing import Final

from tus.client.capabilities import Capabilities, read_capabilities
from tus.client.commands import Flow
from tus.client.dialects.ietf import VERSION_FIELD, VERSIONS, Ietf
from tus.client.dialects.interface import Dialect
from tus.client.dialects.tus1 import VERSION, Tus1
from tus.client.errors import NotSupported
from tus.client.flow.asking import insist, refusal
from tus.client.flow.context import Context
from tus.client.messages import Request
from tus.client.retry import Verdict, judge

#: The algorithms of ``Upload-Checksum`` by the server's names, the best first.
_PREFERRED: Final = ("sha256", "sha512", "sha384", "sha1", "md5")


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
    settings = context.settings
    overrides = settings.overrides_method
    protocol = settings.protocol
    capabilities = yield from discover(context)
    if protocol == "auto":
        protocol = "tus" if "tus" in capabilities.protocols else "ietf"
    if protocol == "tus":
        return Tus1(overrides)
    return Ietf(context.version or capabilities.version or VERSIONS[0], overrides)


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
