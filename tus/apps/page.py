"""The page of ``tus serve``: uploads from a browser, without anything to install.

Law of this room: the page asks no other host for anything, and what runs in it is what is in ``page.html``: its
policy names the one script and the one style sheet by their digests, so nothing can be smuggled in beside them.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from importlib.resources import files
from urllib.parse import quote

from tus.adapters.wsgi import Environ, StartResponse, WsgiApp, full_path

_PLACE = "{{uploads}}"


class Page:
    """Answers GET and HEAD of the root of where it is mounted with the page; all else passes untouched.

    It stands in front of the :class:`~tus.filter.Filter` with the same ``upload_path``. Where that is not below the
    place that it is mounted at, no page could reach it, and nothing is answered here.

    Args:
        app: the wrapped application.
        upload_path: the path of the URL that creates uploads, decoded, counted from the root of the site.
    """

    def __init__(self, app: WsgiApp, upload_path: str) -> None:
        self._app = app
        self._upload_path = upload_path
        self._text = files("tus.apps").joinpath("page.html").read_text("utf-8")
        self._policy = _policy(self._text)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        # The browser resolves what is relative against all up to the last slash.
        here = full_path(environ).rpartition("/")[0] + "/"
        is_ours = method in ("GET", "HEAD") and environ.get("PATH_INFO", "") in ("", "/")
        if not is_ours or not self._upload_path.startswith(here):
            return self._app(environ, start_response)
        # Relative, because a proxy may have taken something off the path; "./", lest two slashes make a host of it.
        # quote() leaves nothing that HTML would mind.
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
        start_response("200 OK", headers)
        return [body] if method == "GET" else []


def _policy(text: str) -> str:
    script, style = (_digest(text, element) for element in ("script", "style"))
    return (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    )


def _digest(text: str, element: str) -> str:
    """The source expression for the one inline element of its kind (Content Security Policy 3, 2.3.1)."""
    [content] = re.findall(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
