"""A page in a browser: what the Fetch standard lets it send to another origin, and read of a response.

https://fetch.spec.whatwg.org, sections "CORS protocol", "CORS-preflight fetch" and "CORS check".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_SAFE_METHODS = ("GET", "HEAD", "POST")
_SAFE_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")
_SAFE_RESPONSE_FIELDS = {
    *("cache-control", "content-language", "content-length", "content-type", "expires", "last-modified", "pragma")
}


class NetworkError(Exception):
    """What a page gets instead of a response: nothing but this. The text says what the console would."""


@dataclass
class Seen:
    """What a page sees of a response."""

    status: int
    headers: dict[str, str]
    body: bytes

    def __getitem__(self, name):
        if name.lower() not in self.headers:
            raise NetworkError(f"the page cannot read {name}")
        return self.headers[name.lower()]


class Page:
    """A page of an origin.

    Args:
        send: sends a request, and returns the status, the pairs of header fields and the body of the response. Its
            arguments are the method, the URL, the header fields and the body.
        origin: of the page.
        credentials: whether it sends cookies.
    """

    def __init__(self, send, origin, credentials=False):
        self._send = send
        self.origin = origin
        self.credentials = credentials
        self.preflights = []

    def fetch(self, method, url, headers=(), body=b""):
        """Send a request as ``fetch()`` does, after a preflight where it needs one."""
        headers = dict(headers)
        unsafe = sorted(name.lower() for name, value in headers.items() if not self._is_safe(name, value))
        if method not in _SAFE_METHODS or unsafe:
            self._preflight(method, url, unsafe)
        cookies = {"Cookie": "session=ann"} if self.credentials else {}
        status, fields, content = self._send(method, url, {"Origin": self.origin, **cookies, **headers}, body)
        self._check(fields)
        exposed = _list(fields, "access-control-expose-headers")
        if exposed is None:
            exposed = []
        every = "*" in exposed and not self.credentials
        readable = _SAFE_RESPONSE_FIELDS | {name.lower() for name in exposed}
        seen = {name.lower(): value for name, value in fields if every or name.lower() in readable}
        return Seen(status, {name: value for name, value in seen.items() if name != "set-cookie"}, content)

    @staticmethod
    def _is_safe(name, value):
        name = name.lower()
        if name == "content-type":
            return value.partition(";")[0].strip().lower() in _SAFE_TYPES
        return name in ("accept", "accept-language", "content-language")

    def _preflight(self, method, url, unsafe):
        headers = {"Origin": self.origin, "Access-Control-Request-Method": method, "Accept": "*/*"}
        if unsafe:
            headers["Access-Control-Request-Headers"] = ",".join(unsafe)
        status, fields, _ = self._send("OPTIONS", url, headers, b"")
        self._check(fields)
        if not 200 <= status <= 299:
            raise NetworkError(f"the preflight got {status}")
        methods = _list(fields, "access-control-allow-methods")
        names = _list(fields, "access-control-allow-headers")
        if methods is None or names is None:
            raise NetworkError("a list of the preflight is malformed")
        every = not self.credentials
        if method not in methods and method not in _SAFE_METHODS and not ("*" in methods and every):
            raise NetworkError(f"the method {method} is not allowed")
        allowed = {name.lower() for name in names}
        for name in unsafe:
            if name not in allowed and not ("*" in allowed and every and name != "authorization"):
                raise NetworkError(f"the header field {name} is not allowed")
        self.preflights.append((method, {name.lower(): value for name, value in fields}))

    def _check(self, fields):
        """The CORS check; header fields with the same name are joined by a comma."""
        allowed = [value for name, value in fields if name.lower() == "access-control-allow-origin"]
        if not allowed:
            raise NetworkError("there is no Access-Control-Allow-Origin")
        origin = ", ".join(allowed)
        if origin == "*" and not self.credentials:
            return
        if origin != self.origin:
            raise NetworkError(f"Access-Control-Allow-Origin is {origin}")
        credentials = [value for name, value in fields if name.lower() == "access-control-allow-credentials"]
        if self.credentials and credentials != ["true"]:
            raise NetworkError(f"Access-Control-Allow-Credentials is {credentials}")


def _list(fields, wanted):
    """The items of a list of tokens, joined over all fields of that name; None if one of them is malformed."""
    values = [value for name, value in fields if name.lower() == wanted]
    items = [item.strip(" \t") for value in values for item in value.split(",")]
    items = [item for item in items if item]
    return items if all(_TOKEN.fullmatch(item) for item in items) else None
