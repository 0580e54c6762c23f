"""``HostCheck``: a WSGI filter that serves only requests for the names that a server has."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from tus.adapters.wsgi import Environ, StartResponse, WsgiAdapter, WsgiApp, full_path
from tus.converters import is_loopback
from tus.errors import Misdirected
from tus.models import Request, Response
from tus.options import Options
from tus.protocols.exchange import is_ours, refuse
from tus.protocols.routing import is_under
from tus.server.leftover import read_behind

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+?)\.?)(?::[0-9]*)?")


class HostCheck:
    """A WSGI filter that refuses requests for the hosts of others (421).

    A page of any site can make its own name lead to a server that only this machine reaches (DNS rebinding). The
    browser takes that server for a part of the site, but sends the site's name in ``Host``.

    Args:
        app: the wrapped pipeline.
        names: the names and addresses of the server, beside ``localhost`` and the loopback addresses; ``*`` for any.
        uploads: the options of the services in the pipeline, whose fields a refusal has.
    """

    def __init__(self, app: WsgiApp, names: Collection[str], uploads: Sequence[Options] = ()) -> None:
        self._app = app
        self._uploads = uploads
        self._names = frozenset(name.lower().rstrip(".") for name in names)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST")
        if host is None or "*" in self._names:  # every browser sends it
            return self._app(environ, start_response)
        match = _HOST.fullmatch(host)
        name = "" if match is None else (match[1] or match[2]).lower()
        if name and (name in self._names or is_loopback(name)):
            return self._app(environ, start_response)
        advice = f"; if it does, start tus serve with --allow-host {name}" if name else ""
        error = Misdirected(f"The Host of this request does not name this server{advice}.")
        request = WsgiAdapter(environ).request
        response = self._refuse(request, full_path(environ), error)
        read_behind(response, request, environ["wsgi.input"], 0)
        start_response(f"{response.status} {response.reason}", response.headers)
        return response.body

    def _refuse(self, request: Request, path: str, error: Misdirected) -> Response:
        """Return the refusal, with the fields of the service that a request for uploads would have reached."""
        for options in self._uploads:
            is_elsewhere = options.upload_path is not None and not is_under(path, options.upload_path)
            if not is_elsewhere and is_ours(request, options):
                return refuse(error, request, options)
        response = Response.of_error(error)
        response.headers.append(("X-Content-Type-Options", "nosniff"))
        if request.method == "HEAD":
            response.body = ()
        return response
