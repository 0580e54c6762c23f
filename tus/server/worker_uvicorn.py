"""The worker class of ``tus serve``: a process of gunicorn in which uvicorn serves an ASGI application.

gunicorn starts, watches, reloads and ends the processes. uvicorn waits for all clients in one event loop, so that a
slow client occupies no thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, Final

import uvicorn
from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker as GunicornWorker
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from tus.server import aio
from tus.server.protocol_uvicorn import Connection, Door, is_familiar

log = logging.getLogger(__name__)

_SPARED: Final = 2.0  # seconds before gunicorn kills the worker, in which requests that take too long are cancelled
OPEN_FILES: Final = 5  # of a running upload: its connection twice, two files of the store, and one of the receiver
_OWN_FILES: Final = 64  # of the process


class Worker(GunicornWorker):  # type: ignore[misc]
    """A process of gunicorn that serves an ASGI application with uvicorn."""

    _server: _Server | None = None

    def init_signals(self) -> None:
        """Install the handlers: the arbiter ends its workers by SIGTERM or SIGQUIT, which stop both gracefully.

        A terminal sends Ctrl-C to all processes at once. The arbiter would replace a worker that ends before the
        arbiter handles its own signal. So only the arbiter handles SIGINT.
        """
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self.handle_exit)
        signal.signal(signal.SIGQUIT, self.handle_exit)
        signal.signal(signal.SIGUSR1, self.handle_usr1)
        signal.signal(signal.SIGABRT, self.handle_abort)
        signal.siginterrupt(signal.SIGUSR1, False)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Stop after the requests in progress; the loop looks at this ten times a second."""
        self.alive = False
        if self._server is not None:
            self._server.should_exit = True

    def run(self) -> None:
        """Serve until a signal ends the process."""
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # its warnings are about what clients send
        aio.THREADS = self.cfg.threads
        door = Door(self._most_connections(), self.cfg.limit_request_fields, self.cfg.limit_request_field_size)
        config = uvicorn.Config(
            self.wsgi,
            http=partial(Connection, door),  # type: ignore[arg-type]
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # else uvicorn puts an address of the client's choice into the place of its peer's
            server_header=False,
            backlog=self.cfg.backlog,
            timeout_keep_alive=self.cfg.keepalive,
            timeout_graceful_shutdown=max(1, int(self.cfg.graceful_timeout - _SPARED)),
        )
        config.load()
        with closing(asyncio.new_event_loop()) as loop:
            knows_uvicorn = is_familiar(HttpToolsProtocol(config, ServerState(), {}, loop))
        if not knows_uvicorn:
            log.warning(
                "uvicorn %s is not known, so slow clients can hold its connections; put a proxy in front of tus serve",
                uvicorn.__version__,
            )
            config.http_protocol_class = HttpToolsProtocol
        self._server = _Server(config, self, door)
        self._server.should_exit = not self.alive
        self._server.run([listener.sock for listener in self.sockets])
        if not self._server.started:
            raise SystemExit(Arbiter.WORKER_BOOT_ERROR)

    def _most_connections(self) -> int:
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most: int = self.cfg.worker_connections
        return max(1, min(most, (files - _OWN_FILES) // OPEN_FILES))


class _Server(uvicorn.Server):
    """uvicorn in a process of gunicorn."""

    def __init__(self, config: uvicorn.Config, worker: Worker, door: Door) -> None:
        super().__init__(config)
        self._worker = worker
        self._door = door
        self._watching: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the worker."""
        yield

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self._watching = asyncio.create_task(self._watch())

    async def shutdown(self, sockets: Any = None) -> None:
        """Stop; the bodies in progress end here, so that their bytes are counted before the process ends."""
        aio.interrupt_bodies()
        self._door.hurry()
        await super().shutdown(sockets)
        if self._watching is not None:
            self._watching.cancel()

    async def _watch(self) -> None:
        """Show the arbiter that the worker lives, end with the arbiter, and look at the connections."""
        while True:
            self._worker.notify()
            if os.getppid() != self._worker.ppid:
                self.should_exit = True
            self._door.look()
            await asyncio.sleep(1)
