"""ASGI requests without a server: what an environ says, as a scope; a body that may be cut; and the reply.

The applications run on one event loop in a thread of its own, so that the tests need not be asynchronous.
"""

from __future__ import annotations

import atexit
import functools

import anyio
import anyio.from_thread

from tests.support.waiting import GUARD

PIECE = 64 * 1024  # bytes of a message, as servers have it
PATIENCE = 2 * GUARD  # seconds for a reply


@functools.cache
def portal(backend="asyncio"):
    """A loop that runs until the process ends."""
    manager = anyio.from_thread.start_blocking_portal(backend)
    started = manager.__enter__()
    atexit.register(manager.__exit__, None, None, None)
    return started


def scope_of(environ):
    """The scope that a server would make of what an environ tells."""
    headers = [
        (key.removeprefix("HTTP_").replace("_", "-").lower().encode("latin-1"), value.encode("latin-1", "replace"))
        for key, value in environ.items()
        if key.startswith("HTTP_") or key in ("CONTENT_TYPE", "CONTENT_LENGTH")
    ]
    path = (environ["SCRIPT_NAME"] + environ["PATH_INFO"]).encode("latin-1")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": environ["REQUEST_METHOD"],
        "scheme": environ["wsgi.url_scheme"],
        "path": path.decode("utf-8", "replace"),
        "raw_path": path,
        "root_path": environ["SCRIPT_NAME"].encode("latin-1").decode("utf-8", "replace"),
        "query_string": environ["QUERY_STRING"].encode(),
        "headers": headers,
        "server": (environ["SERVER_NAME"], int(environ["SERVER_PORT"])),
        "client": (environ["REMOTE_ADDR"], 1234) if environ.get("REMOTE_ADDR") else None,
        "extensions": {},
    }


class Exchange:
    """One request as a server has it; it minds what an application must not do.

    Args:
        cut: whether the client is gone after the body.
        error: raised after the body instead, where the process dies over it.
    """

    def __init__(self, scope, body, cut=False, error=None):
        self.scope = scope
        self.messages = [body[start : start + PIECE] for start in range(0, len(body), PIECE)] or [b""]
        self.cut = cut
        self.error = error
        self.gone = cut and not body
        self.taken = 0
        self.started = None
        self.interim = []
        self.blocks = []
        self.complete = False
        self.end = anyio.Event()

    async def receive(self):
        if self.gone and self.error is not None:
            raise self.error
        if self.complete or self.gone:
            return {"type": "http.disconnect"}
        if not self.messages:
            await self.end.wait()
            return {"type": "http.disconnect"}
        await anyio.lowlevel.checkpoint()
        block = self.messages.pop(0)
        self.taken += len(block)
        last = not self.messages
        self.gone = last and self.cut
        return {"type": "http.request", "body": block, "more_body": not last or self.cut}

    async def send(self, message):
        kind = message["type"]
        if kind == "http.response.informational":
            assert kind in self.scope["extensions"]
            assert self.started is None
            self.interim.append(message)
        elif kind == "http.response.start":
            assert self.started is None, "two responses"
            self.started = message
            names = {name for name, value in message["headers"] if type(name) is type(value) is bytes}
            assert len(names) == len(message["headers"])
            assert b"Tus-Resumable" not in names, (
                "names are in lower case, which an application may get wrong, but not we"
            )
        else:
            assert kind == "http.response.body"
            assert self.started is not None
            assert not self.complete, "something comes after the end"
            assert type(message.get("body", b"")) is bytes
            self.blocks.append(message.get("body", b""))
            if not message.get("more_body"):
                self.complete = True
                self.end.set()

    async def run(self, app):
        with anyio.fail_after(PATIENCE):
            assert await app(self.scope, self.receive, self.send) is None
        is_left = self.gone and self.scope["method"] == "GET"  # a download ends with its client
        assert self.complete or is_left, "the application sent no whole response"
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.started["headers"]]
        if not self.complete:
            headers = [(name, value) for name, value in headers if name != "content-length"]
        body = b"".join(self.blocks)
        lengths = [int(value) for name, value in headers if name == "content-length"]
        assert self.scope["method"] == "HEAD" or lengths in ([], [len(body)])
        return self.started["status"], headers, body


def call_asgi(app, environ, body, cut, error=None, backend="asyncio"):
    """Send one request; its status, headers and body."""

    async def run():
        try:
            return await Exchange(scope_of(environ), body, cut, error).run(app)
        except Exception:
            raise
        except BaseException as fatal:  # which would end the loop
            return fatal

    answer = portal(backend).call(run)
    while isinstance(answer, BaseExceptionGroup):
        (answer,) = answer.exceptions
    if isinstance(answer, BaseException):
        raise answer
    return answer
