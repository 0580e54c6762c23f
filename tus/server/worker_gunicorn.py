"""A worker class for gunicorn: ``gunicorn --worker-class tus.server.worker_gunicorn.Worker --threads 32``.

It is ``gthread`` with these differences. A thread gets a connection only once the whole head of a request is there, so
that a half-sent head costs a buffer and not a thread. A worker accepts a connection only if a thread is free, so that
no connection waits for a busy worker while another worker is idle. A client that leaves its connection open after the
last response, or does not read a response, holds neither a worker nor a thread. This relies on names of gunicorn that
are not public; tests run it with the newest gunicorn.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from contextlib import suppress
from functools import partial
from selectors import EVENT_READ
from typing import Any, Final

from gunicorn import http
from gunicorn.workers.gthread import ThreadWorker

from tus.server.waiting import HEAD_TIMEOUT, LARGEST_HEAD, LINGER, SEND_TIMEOUT, TIMED_OUT, TOO_LARGE

_MOST_LINGERING: Final = 1000  # connections
_MOST_DRAINED: Final = 64 << 10  # bytes that a client sends after that
_BLOCK: Final = 64 << 10


class Worker(ThreadWorker):  # type: ignore[misc]
    """A process of gunicorn whose threads wait for no head."""

    def __init__(self, *arguments: Any, **others: Any) -> None:
        self._heads: dict[Any, float] = {}  # connections without a whole head, with their deadlines, oldest first
        self._lingering: dict[Any, tuple[float, int]] = {}  # with their deadlines, and the bytes drained; oldest first
        super().__init__(*arguments, **others)

    @property
    def worker_connections(self) -> int:
        """The number of connections with which this worker accepts no other one."""
        if not hasattr(self, "keepalived_conns"):
            return int(self.cfg.worker_connections)
        idle = len(self.keepalived_conns) + len(self.pending_conns) + len(self._heads)
        return min(int(self.cfg.threads) + idle, int(self.cfg.worker_connections))

    @worker_connections.setter
    def worker_connections(self, number: int) -> None:
        """Ignore the number that the class of gunicorn sets."""

    def enqueue_req(self, conn: Any) -> None:
        """Give a connection to a thread, or wait for its head first."""
        if not conn.initialized:
            with suppress(OSError):  # a Unix socket of some systems has no such option
                conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_TIMEOUT, 0))
        if self.cfg.is_ssl or getattr(conn, "is_http2", False):  # a thread must decrypt
            super().enqueue_req(conn)
        elif self._read_head(conn):
            self._hand_on(conn)
        elif not self._is_closed(conn):
            self._heads[conn] = time.monotonic() + HEAD_TIMEOUT
            self.poller.register(conn.sock, EVENT_READ, partial(self._on_readable, conn))

    def _on_readable(self, conn: Any, _: Any) -> None:
        is_whole = self._read_head(conn)
        if is_whole or self._is_closed(conn):
            self._forget(conn)
        if is_whole:
            self._hand_on(conn)

    def _hand_on(self, conn: Any) -> None:
        conn.data_ready = True
        super().enqueue_req(conn)

    def _read_head(self, conn: Any) -> bool:
        """Read what is there, and return whether a thread can go on without waiting for the head."""
        if conn.parser is None:
            conn.parser = http.get_parser(self.cfg, conn.sock, conn.client)
        unreader = conn.parser.unreader
        data = bytearray(unreader.take_buffered())
        conn.sock.setblocking(False)
        has_ended = False
        try:
            while b"\r\n\r\n" not in data and len(data) <= LARGEST_HEAD and not has_ended:
                block = conn.sock.recv(_BLOCK)
                data += block
                has_ended = not block
        except BlockingIOError:
            pass
        except OSError:
            has_ended = True  # a thread finds the same error, and closes the connection
        if len(data) > LARGEST_HEAD and b"\r\n\r\n" not in data[:LARGEST_HEAD]:
            self._refuse(conn)
            return False
        unreader.unread(bytes(data))
        return has_ended or b"\r\n\r\n" in data

    def _refuse(self, conn: Any, response: bytes = TOO_LARGE) -> None:
        with suppress(OSError):  # the client is gone, or does not read
            conn.sock.send(response)
        self._close(conn)

    def _close(self, conn: Any) -> None:
        self._forget(conn)
        self.nr_conns -= 1
        conn.close()

    @staticmethod
    def _is_closed(conn: Any) -> bool:
        return bool(conn.sock.fileno() < 0)

    def _forget(self, conn: Any) -> None:
        if self._heads.pop(conn, None) is not None:
            self.poller.unregister(conn.sock)

    def murder_pending(self) -> None:
        """Close the connections whose heads are overdue, and the oldest one if there are too many connections."""
        super().murder_pending()
        now = time.monotonic()
        for conn, deadline in list(self._heads.items()):
            if self.alive and deadline > now and self.nr_conns < self.cfg.worker_connections:
                break
            self._refuse(conn, TIMED_OUT)
        for conn, (deadline, _) in list(self._lingering.items()):
            if deadline > now and len(self._lingering) <= _MOST_LINGERING:
                break
            self._end_lingering(conn)

    # -- The end of a response, and of a connection --

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Handle a request; a client that does not read its response counts as gone."""
        try:
            return super().handle_request(req, conn)
        except BlockingIOError as error:
            raise ConnectionResetError(errno.ECONNRESET, "the client does not read the response") from error

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Go on with a connection after a request; a closing one waits on the poller for its client."""
        if not self.cfg.is_ssl:
            conn.close = partial(self._end, conn)
        super().finish_request(conn, fs)

    def _end(self, conn: Any, graceful: bool = False) -> None:
        """Close a connection, gracefully once the client has closed it: an earlier end could cost it the response."""
        del conn.close
        if not graceful:
            conn.close()
            return
        try:
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
            self.poller.register(conn.sock, EVENT_READ, partial(self._drain, conn))
        except (OSError, ValueError):
            conn.close()
        else:
            self._lingering[conn] = (time.monotonic() + LINGER, 0)

    def _drain(self, conn: Any, _: Any) -> None:
        deadline, drained = self._lingering[conn]
        try:
            block = conn.sock.recv(_BLOCK)
        except BlockingIOError:
            return
        except OSError:
            block = b""
        self._lingering[conn] = (deadline, drained + len(block))
        if not block or drained + len(block) > _MOST_DRAINED:
            self._end_lingering(conn)

    def _end_lingering(self, conn: Any) -> None:
        del self._lingering[conn]
        self.poller.unregister(conn.sock)
        conn.close()
