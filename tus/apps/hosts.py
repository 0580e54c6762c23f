"""``HostCheck``: the part of a front that serves only requests for the names that a server has."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

from tus.apps.front import Head
from tus.converters import is_loopback
from tus.errors import Misdirected
from tus.models import Request, Response
from tus.options import Options
from tus.protocols.exchange import is_ours, refuse
from tus.protocols.routing import is_under

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+?)\.?)(?::[0-9]*)?")


class HostCheck:
    """A :class:`~tus.apps.front.Part` that refuses requests for the hosts of others (421).

    A page of any site can make its own name lead to a server that only this machine reaches (DNS rebinding). The
    browser takes that server for a part of the site, but sends the site's name in ``Host``.

    Args:
        names: the names and addresses of the server, beside ``localhost`` and the loopback addresses; ``*`` for any.
        uploads: the options of the services in the pipeline, whose fields a refusal has.
    """

    def __init__(self, names: Collection[str], uploads: Sequence[Options] = ()) -> None:
        self._uploads = uploads
        self._names = frozenset(name.lower().rstrip(".") for name in names)

    def answer(self, head: Head) -> Callable[[], Response] | None:
        if head.host is None or "*" in self._names:  # every browser sends it
            return None
        match = _HOST.fullmatch(head.host)
        name = "" if match is None else (match[1] or match[2]).lower()
        if name and (name in self._names or is_loopback(name)):
            return None
        advice = f"; if it does, start tus serve with --allow-host {name}" if name else ""
        error = Misdirected(f"The Host of this request does not name this server{advice}.")
        return lambda: self._refuse(head.request(), head.path, error)

    def _refuse(self, request: Request, path: str, error: Misdirected) -> Response:
        """Return the refusal, with the fields of the service that a request for uploads would have reached."""
        for options in self._uploads:
            is_elsewhere = options.upload_path is not None and not is_under(path, options.upload_path)
            if not is_elsewhere and is_ours(request, options):
                return refuse(error, request, options)
        response = Response.of_error(error)
        response.headers.append(("X-Content-Type-Options", "nosniff"))
        return response
