"""``Front``: the requests to which a server responds without an application, in a WSGI pipeline.

``tus.apps.front_asgi`` has the same for ASGI. The parts, such as :class:`tus.apps.page.Page`, decide about a request,
and know neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from tus.adapters.wsgi import EMPTY, Environ, StartResponse, WsgiAdapter, WsgiApp, full_path
from tus.models import Request, Response
from tus.server.leftover import read_behind


@dataclass(slots=True)
class Head:
    """What the parts of a front need of a request.

    Attributes:
        method: as the server sees it.
        path: decoded, from the root of the site.
        place: the part of the path below the mount point.
        host: the field ``Host``; None if it is missing.
        request: returns the whole head.
    """

    method: str
    path: str
    place: str
    host: str | None
    request: Callable[[], Request]


class Part(Protocol):
    """A part of a front."""

    def answer(self, head: Head) -> Callable[[], Response] | None:
        """Return a function that makes the response, and may use the disk; None for a request to the application."""


class Front:
    """A WSGI filter whose parts respond to some requests; the others go to the application.

    Args:
        app: the wrapped pipeline.
        *parts: each is asked in its turn.
    """

    def __init__(self, app: WsgiApp, *parts: Part) -> None:
        self._app = app
        self._parts = parts

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        head = Head(
            method=environ["REQUEST_METHOD"],
            path=full_path(environ),
            place=environ.get("PATH_INFO", ""),
            host=environ.get("HTTP_HOST"),
            request=lambda: WsgiAdapter(environ).request,
        )
        for part in self._parts:
            respond = part.answer(head)
            if respond is not None:
                response = respond()
                if head.method == "HEAD":
                    response.body = EMPTY
                read_behind(response, head.request(), environ["wsgi.input"], 0)
                start_response(f"{response.status} {response.reason}", response.headers)
                return response.body
        return self._app(environ, start_response)
