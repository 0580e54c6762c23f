"""``AsgiFront``: see :class:`tus.apps.front.Front`; and the application behind the uploads of ``tus serve``."""

from __future__ import annotations

from functools import partial

from tus.adapters.asgi import App, AsgiAdapter, Receive, Scope, Send, full_path
from tus.apps.files import NOTHING_ELSE
from tus.apps.front import Head, Part
from tus.asgi import serve_lifespan
from tus.models import Request, Response
from tus.server.aio import in_thread


class AsgiFront:
    """An ASGI middleware whose parts respond to some requests; the others go to the application.

    Args:
        app: the wrapped application.
        *parts: each is asked in its turn.
    """

    def __init__(self, app: App, *parts: Part) -> None:
        self._app = app
        self._parts = parts

    def behind(self, part: Part) -> AsgiFront:
        """Return a front that asks another part first."""
        return AsgiFront(self._app, part, *self._parts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            head = _head_of(scope, receive, send)
            for part in self._parts:
                respond = part.answer(head)
                if respond is not None:
                    await _send(scope, receive, send, await in_thread(respond))
                    return
        await self._app(scope, receive, send)


async def serve_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond 404 to every request."""
    if scope["type"] == "lifespan":
        await serve_lifespan(receive, send)
    elif scope["type"] == "http":
        await _send(scope, receive, send, Response.of_text(404, NOTHING_ELSE))


def _head_of(scope: Scope, receive: Receive, send: Send) -> Head:
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    path, root = full_path(scope), str(scope.get("root_path") or "").rstrip("/")
    return Head(
        method=scope["method"],
        path=path,
        place=path.removeprefix(root),
        host=b", ".join(hosts).decode("latin-1") if hosts else None,
        request=partial(_request_of, scope, receive, send),
    )


def _request_of(scope: Scope, receive: Receive, send: Send) -> Request:
    return AsgiAdapter(scope, receive, send).request


async def _send(scope: Scope, receive: Receive, send: Send, response: Response) -> None:
    adapter = AsgiAdapter(scope, receive, send)
    adapter.respond(response)
    await adapter.send_response()
