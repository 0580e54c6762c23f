"""The page of ``tus serve``: uploads from a browser, without any installation.

Law of this room: the page requests nothing from another host, and runs only the code in ``page.html``. Its policy
names the one script and the one style sheet by their digests, so no other code can be injected.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from urllib.parse import quote

from tus.apps.front import Head
from tus.models import Response

_PLACE = "{{uploads}}"


class Page:
    """A :class:`~tus.apps.front.Part` that serves the page to GET and HEAD of its mount point.

    It stands in front of the uploads with the same ``upload_path``. If that path is not below the mount point, the page
    could not reach it, and is not served.

    Args:
        upload_path: the decoded path of the URL that creates uploads, from the root of the site.
    """

    def __init__(self, upload_path: str) -> None:
        self._upload_path = upload_path
        self._text = files("tus.apps").joinpath("page.html").read_text("utf-8")
        self._policy = _policy(self._text)

    def answer(self, head: Head) -> Callable[[], Response] | None:
        # A browser resolves relative URLs against the path up to its last slash.
        here = head.path.rpartition("/")[0] + "/"
        is_ours = head.method in ("GET", "HEAD") and head.place in ("", "/")
        return partial(self._show, here) if is_ours and self._upload_path.startswith(here) else None

    def _show(self, here: str) -> Response:
        # Relative, because a proxy may have removed a prefix of the path; with "./", because two leading slashes would
        # make it a host. The output of quote() needs no escaping in HTML.
        uploads = "./" + quote(self._upload_path.removeprefix(here))
        body = self._text.replace(_PLACE, uploads).encode()
        headers = [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Content-Security-Policy", self._policy),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "same-origin"),
            ("Cache-Control", "no-cache"),
        ]
        return Response(200, "OK", headers, (body,))


def _policy(text: str) -> str:
    script, style = (_digest(text, element) for element in ("script", "style"))
    return (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    )


def _digest(text: str, element: str) -> str:
    """Return the source expression for the only inline element of its kind (Content Security Policy 3, 2.3.1)."""
    [content] = re.findall(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
