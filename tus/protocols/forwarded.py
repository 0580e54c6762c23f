"""The URL that clients know, behind proxies. Pure.

A forwarding field is as trustworthy as its writer. It counts only if the connection comes from a trusted proxy, and
of a list only the values from trusted proxies count. ``X-Forwarded-*`` fields come first, then ``Forwarded``
(RFC 7239). A proxy should drop the fields that it does not write itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import ip_address, ip_network
from urllib.parse import quote

from tus.models import Request
from tus.options import Options

_HOST = re.compile(r"(?:[a-z0-9._~-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.IGNORECASE)
_PREFIX = re.compile(r"(?:/[^\s/?#\\]+)+")
_PAIR = re.compile(r"\s*([a-z]+)\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s\";,]*))\s*", re.IGNORECASE)
_LONGEST = 2048  # characters of a Forwarded field; reading one full of broken quotes takes the square of its length
_FIELD = re.compile(r"(?:[^,\"]|\"(?:[^\"\\]|\\.)*\")+")


@dataclass(frozen=True, slots=True)
class Forwarded:
    """The request as a trusted proxy has received it; None for each value that is missing or malformed."""

    scheme: str | None = None
    host: str | None = None
    prefix: str | None = None


def public_url(url: str, request: Request, options: Options) -> str:
    """Return a URL of this site as the client knows it.

    Args:
        url: absolute, as the server sees it.
        request: the head.
        options: ``base_url`` overrides everything; ``trusted_proxies`` names the proxies whose fields count.
    """
    if not options.base_url and not options.trusted_proxies:
        return url
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    if options.base_url:
        return f"{options.base_url}{slash}{path}"
    seen = forwarded(request, options.trusted_proxies)
    prefix = quote(seen.prefix or "", safe="/%~:@!$&'()*+,;=")
    return f"{seen.scheme or scheme}://{seen.host or host}{prefix}{slash}{path}"


def forwarded(request: Request, trusted: tuple[str, ...]) -> Forwarded:
    """Return the values of the forwarding fields that trusted proxies have written."""
    if not is_trusted(request.peer, trusted):
        return Forwarded()
    get = request.headers.get
    host, scheme, prefix = (get(f"X-Forwarded-{name}") for name in ("Host", "Proto", "Prefix"))
    if host is None and scheme is None and prefix is None:
        return _standard(get("Forwarded") or "", trusted)
    hops = _split(get("X-Forwarded-For") or "")
    seen = Forwarded(_nearest(scheme, hops, trusted), _nearest(host, hops, trusted), _nearest(prefix, hops, trusted))
    return _usable(seen)


def _nearest(field: str | None, hops: list[str], trusted: tuple[str, ...]) -> str | None:
    """Return the value that the outermost trusted proxy has written.

    The proxy that is connected to the server has written the last value. A value before it counts if its writer is
    trusted; the next proxy has put the writer's address into ``X-Forwarded-For``.
    """
    values = _split(field or "")
    if not values:
        return None
    place = 1
    while place < len(values) and len(values) == len(hops) and is_trusted(hops[-place], trusted):
        place += 1
    return values[-place]


def _standard(field: str, trusted: tuple[str, ...]) -> Forwarded:
    if len(field) > _LONGEST:
        return Forwarded()
    elements = [_pairs(element) for element in _FIELD.findall(field)]
    chosen: dict[str, str] = {}
    for element in reversed(elements):
        chosen = element
        if not is_trusted(_node(element.get("for", "")), trusted):
            break
    return _usable(Forwarded(chosen.get("proto"), chosen.get("host")))


def _pairs(element: str) -> dict[str, str]:
    pairs = {}
    for part in re.findall(r"(?:[^;\"]|\"(?:[^\"\\]|\\.)*\")+", element):
        if match := _PAIR.fullmatch(part):
            quoted, plain = match[2], match[3]
            pairs[match[1].lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    return pairs


def _node(text: str) -> str:
    """Return the address of a node without its port."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def _split(field: str) -> list[str]:
    return [value.strip() for value in field.split(",") if value.strip()]


def _usable(seen: Forwarded) -> Forwarded:
    """Remove malformed values, because the rest becomes part of a URL."""
    scheme = (seen.scheme or "").lower()
    prefix = (seen.prefix or "").rstrip("/")
    return replace(
        seen,
        scheme=scheme if scheme in ("http", "https") else None,
        host=seen.host if seen.host and _HOST.fullmatch(seen.host) else None,
        prefix=prefix if _PREFIX.fullmatch(prefix) and "/.." not in prefix else None,
    )


@lru_cache(maxsize=1024)
def is_trusted(peer: str, trusted: tuple[str, ...]) -> bool:
    """Return whether an address is one of the trusted ones.

    Args:
        peer: an address, perhaps with a zone; empty for a Unix socket.
        trusted: networks, or ``unix``.
    """
    if not peer:
        return "unix" in trusted
    try:
        address = ip_address(_node(peer).partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:10.0.0.1 is how a dual-stack socket sees 10.0.0.1
    return any((mapped or address) in ip_network(network) for network in trusted if network != "unix")
