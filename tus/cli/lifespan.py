"""An ASGI application in an event loop of this process, without a server."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from tus.errors import TusException

log = logging.getLogger(__name__)

_T = TypeVar("_T")


def run_with_lifespan(app: Any, work: Callable[[], _T]) -> _T:
    """Start an ASGI application, do some work in a thread, and shut the application down.

    Args:
        app: the application; it need not support the lifespan protocol.
        work: what to do once it has started.

    Raises:
        TusException: anyio is not installed, or the application could not start.
    """
    try:
        import anyio

        from tus.server.aio import Loop
    except ImportError:
        raise TusException("an ASGI application needs anyio; install it with: pip install anyio") from None

    async def run() -> _T:
        Loop.remember_for_all()  # an application that is mounted in another one gets no lifespan
        lifespan = _Lifespan(app, anyio.Event(), anyio.Event())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lifespan.run)
            await lifespan.started.wait()
            try:
                if lifespan.failure is not None:
                    raise TusException(f"the application could not start: {lifespan.failure}")
                result = await anyio.to_thread.run_sync(work)
            finally:
                lifespan.stopping.set()
        return result

    try:
        return anyio.run(run)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


class _Lifespan:
    """The server's side of the lifespan protocol of ASGI.

    Args:
        app: the application.
        started: set once the application has started, or does not support the protocol.
        stopping: set by the caller to shut the application down.

    Attributes:
        failure: the application's message if it could not start.
    """

    def __init__(self, app: Any, started: Any, stopping: Any) -> None:
        self.started, self.stopping = started, stopping
        self.failure: str | None = None
        self._app = app
        self._is_announced = False

    async def run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        try:
            await self._app(scope, self._receive, self._send)
        except Exception:
            # The specification lets a server go on without the protocol if the application raises.
            log.debug("the application does not support the lifespan protocol", exc_info=True)
        finally:
            self.started.set()

    async def _receive(self) -> dict[str, str]:
        if not self._is_announced:
            self._is_announced = True
            return {"type": "lifespan.startup"}
        await self.stopping.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "lifespan.startup.failed":
            self.failure = message.get("message") or "it gave no reason"
        if message["type"].startswith("lifespan.startup."):
            self.started.set()
