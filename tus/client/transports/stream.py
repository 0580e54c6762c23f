"""Network streams that listen to the server while a request is sent.

An HTTP library sends a whole request, then reads the response, and drops what comes before it. An upload needs more:
interim responses, which tell how much the server has stored; a refusal as soon as it is there, not after 10 GB; a
trailer behind the body; an end from another thread; and a time-out that means that nothing moves. So these streams are
what httpcore2 gets from its network backend. They use nothing of it but its public interface of such backends.

Law of this room: no call of a socket blocks. What must wait yields a :class:`Wait`, and is written once; the sync and
the async stream differ only in how they wait.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
import time
from collections.abc import Generator, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import anyio
import anyio.lowlevel
import httpcore2

from tus.client.transports.exchange import Exchange, current

T = TypeVar("T")
_BLOCK = 64 * 1024
_RECORDS = 128 * 1024  # plaintext that is encrypted at once
# Bytes that the kernel keeps beyond what is on its way, so that "sent" means sent. With less than a block of a source,
# each block is sent in two steps, with a wait between them.
_UNSENT = 1024 * 1024
_END_OF_CHUNKS = b"0\r\n\r\n"
_IN_PROGRESS = {errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN, getattr(errno, "WSAEWOULDBLOCK", errno.EAGAIN)}
_REPEATABLE = ("HEAD", "GET", "OPTIONS")
_GLANCE = 0.25  # seconds between two looks for a response while an event loop waits for room


class Wait(NamedTuple):
    """Something to wait for; the answer is False if it has not come in time."""

    socket: socket.socket
    read: bool
    write: bool
    seconds: float


Steps: TypeAlias = Generator[Wait, bool, T]

# -- Bytes, without waiting -------------------------------------------------------------------------------------------


class _Plain:
    """A socket. Law of both classes: ``pull`` returns None, and ``push`` takes less, where others would wait."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket: socket.socket = connected
        self.moved = 0  # bytes in both directions
        self.is_full = False  # the kernel took less than it was given
        self.has_pending = False

    def pull(self) -> bytes | None:
        try:
            data = self.socket.recv(_BLOCK)
        except (BlockingIOError, InterruptedError):
            return None
        self.moved += len(data)
        return data

    def push(self, data: memoryview) -> int:
        try:
            taken = self.socket.send(data)
        except (BlockingIOError, InterruptedError):
            taken = 0
        self.moved += taken
        self.is_full = taken < len(data)
        return taken


class _Tls:
    """TLS over a socket, or over TLS to a proxy."""

    def __init__(self, below: _Plain | _Tls, context: ssl.SSLContext, hostname: str | None) -> None:
        self._below = below
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)
        self._unsent = memoryview(b"")
        self.socket: socket.socket = below.socket

    @property
    def moved(self) -> int:
        return self._below.moved

    @property
    def is_full(self) -> bool:
        return self._below.is_full

    @property
    def has_pending(self) -> bool:
        """Whether bytes that ``push`` took are not sent yet."""
        return bool(self._unsent) or self._outgoing.pending > 0 or self._below.has_pending

    def pull(self) -> bytes | None:
        while True:
            try:
                return self.object.read(_BLOCK)
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            except ssl.SSLWantReadError:
                if not self._refill():
                    return None

    def push(self, data: memoryview) -> int:
        self._flush()
        if self.has_pending or not data:
            return 0
        try:
            taken = self.object.write(data[:_RECORDS])
        finally:
            self._flush()
        return taken

    def shake_hands(self, seconds: float) -> Steps[None]:
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.object.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                if self._refill():
                    continue
            else:
                self._flush()
                if not self.has_pending:
                    return
            left = deadline - time.monotonic()
            if left <= 0 or not (yield Wait(self.socket, not self.has_pending, self.has_pending, left)):
                raise httpcore2.ConnectTimeout(f"no TLS after {seconds:g} s")

    def _refill(self) -> bool:
        """Take in what there is; returns whether there was anything."""
        data = self._below.pull()
        if data is None:
            return False
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        return True

    def _flush(self) -> None:
        if not self._unsent:
            self._unsent = memoryview(self._outgoing.read())
        if self._unsent or self._below.has_pending:
            self._unsent = self._unsent[self._below.push(self._unsent) :]


# -- What httpcore2 asks of a stream, with waiting --------------------------------------------------------------------


class Wire:
    """A connection, and what came on it too early. Its methods are generators of what to wait for."""

    def __init__(self, link: _Plain | _Tls) -> None:
        self._link = link
        self._early = b""  # of a final response
        self._has_ended = False
        self._error: OSError | None = None
        self._requests = 0
        self._exchange: Exchange | None = None
        self._is_reused = False

    def write(self, data: bytes, timeout: float | None) -> Steps[None]:
        """Send bytes, unless the final response is there already."""
        if not data:
            return
        exchange = current.get()
        if exchange is not None and exchange.begins_with(data):
            yield from self._begin(exchange, data)
            return
        if exchange is not None and exchange.has_begun:
            self._listen(exchange)
            if exchange.request.trailer is not None and data == _END_OF_CHUNKS:
                name, value = exchange.request.trailer()
                data = f"0\r\n{name}: {value}\r\n\r\n".encode("latin-1")
        yield from self._send(data, exchange, timeout)

    def read(self, limit: int, timeout: float | None) -> Steps[bytes]:
        """Return bytes of the final response; none at its end."""
        exchange = self._exchange
        while not self._early:
            if self._has_ended or self._error is not None:
                self._early = exchange.rest() if exchange is not None else b""
                if self._early:
                    break
                self._try_elsewhere(exchange)
                if self._error is not None:
                    failure = httpcore2.ReadError(_words(self._error))
                    failure.__context__ = self._error  # the pool drops the cause
                    raise failure
                return b""
            if not self._pull(exchange):
                seconds = timeout
                if exchange is not None:
                    request = exchange.request
                    seconds = request.stall_timeout if exchange.is_answered else request.answer_timeout
                if not (yield self._wait(True, False, seconds)):
                    raise httpcore2.ReadTimeout(f"nothing came for {seconds:g} s")
        data, self._early = self._early[:limit], self._early[limit:]
        return data

    def start_tls(self, context: ssl.SSLContext, hostname: str | None, timeout: float | None) -> Steps[Wire]:
        """Return a connection over this one."""
        link = _Tls(self._link, context, hostname)
        seconds = 3600.0 if timeout is None else timeout
        try:
            yield from link.shake_hands(seconds)
        except OSError as error:
            self.close()
            raise httpcore2.ConnectError(_words(error)) from error
        except BaseException:
            self.close()
            raise
        return Wire(link)

    def close(self) -> None:
        self._link.socket.close()

    def get_extra_info(self, info: str) -> Any:
        """Return what httpcore2 asks for; None for all else."""
        link = self._link
        if info == "ssl_object":
            return link.object if isinstance(link, _Tls) else None
        if info == "socket":
            return link.socket
        if info == "client_addr":
            return link.socket.getsockname()
        if info == "server_addr":
            return link.socket.getpeername()
        return self._is_useless() if info == "is_readable" else None

    # -- Parts --

    def _is_useless(self) -> bool:
        """Whether an idle connection has ended, or the server has sent what is no response to a request."""
        self._pull(None)
        return bool(self._early) or self._has_ended or self._error is not None

    def _begin(self, exchange: Exchange, head: bytes) -> Steps[None]:
        self._exchange, self._is_reused = exchange, self._requests > 0
        self._requests += 1
        exchange.use(self._link.socket)
        exchange.has_begun = True
        if self._is_reused and self._is_useless():
            self._try_elsewhere(exchange, always=True)
        try:
            yield from self._send(head, exchange, None)
        except httpcore2.WriteError:
            self._try_elsewhere(exchange, always=True)
            raise

    def _try_elsewhere(self, exchange: Exchange | None, *, always: bool = False) -> None:
        """Have the pool use another connection, if a kept one was closed before the server can have acted."""
        if exchange is None or exchange.is_aborted or not self._is_reused or exchange.has_received:
            return
        if always or exchange.request.method in _REPEATABLE:
            exchange.has_begun = False
            raise httpcore2.ConnectionNotAvailable

    def _send(self, data: bytes, exchange: Exchange | None, timeout: float | None) -> Steps[None]:
        link, rest, listens = self._link, memoryview(data), exchange is not None and exchange.has_begun
        stall = exchange.request.stall_timeout if exchange is not None else timeout
        moved, since = link.moved, time.monotonic()
        try:
            while rest or link.has_pending:
                rest = rest[link.push(rest) :]
                if link.moved != moved:
                    moved, since = link.moved, time.monotonic()
                elif stall is not None and time.monotonic() - since >= stall:
                    raise httpcore2.WriteTimeout(f"nothing could be sent for {stall:g} s")
                if link.is_full:
                    left = None if stall is None else max(0.0, since + stall - time.monotonic())
                    yield self._wait(listens, True, left)
                    if listens and exchange is not None:
                        self._listen(exchange)
        except OSError as error:
            if exchange is not None:
                self._pull(exchange)  # what the server said before it closed
            raise httpcore2.WriteError(_words(error)) from error

    def _listen(self, exchange: Exchange) -> None:
        """Take what the server has said; raises what ends the sending if that is final."""
        while self._pull(exchange) and not exchange.is_answered:
            pass
        if exchange.is_answered or self._has_ended or self._error is not None:
            raise httpcore2.WriteError("the server has answered, or closed the connection")

    def _pull(self, exchange: Exchange | None) -> bool:
        """Take in what is there; returns whether there was anything, also if that was the end."""
        if self._has_ended or self._error is not None:
            return False
        try:
            data = self._link.pull()
        except OSError as error:
            self._error = error
            return True
        if data is None:
            return False
        self._has_ended = not data
        self._early += data if exchange is None else exchange.take(data)
        return True

    def _wait(self, read: bool, write: bool, seconds: float | None) -> Wait:
        return Wait(self._link.socket, read, write, 3600.0 if seconds is None else seconds)


def _words(error: OSError) -> str:
    """Return what happened, without numbers and names of source files."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or str(error)).replace('_', ' ').lower()}"
    return (error.strerror or str(error)).lower()


def connect(addresses: Sequence[tuple[Any, ...]], options: Iterable[Any], seconds: float | None) -> Steps[Wire]:
    """Connect to the first of the addresses, as getaddrinfo returns them, that lets us."""
    exchange = current.get()
    deadline = time.monotonic() + (3600.0 if seconds is None else seconds)
    failure: Exception = OSError("no address")
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        candidate = socket.socket(family, kind, protocol)
        try:
            candidate.setblocking(False)
            candidate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for option in options:
                candidate.setsockopt(*option)
            if exchange is not None:
                exchange.use(candidate)
            code = candidate.connect_ex(address)
            if code in _IN_PROGRESS:
                share = (deadline - time.monotonic()) / (len(addresses) - number)
                if not (yield Wait(candidate, False, True, max(0.0, share))):
                    raise httpcore2.ConnectTimeout(f"no connection after {seconds:g} s")
                code = candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if exchange is not None:
                exchange.use(candidate)
            if code:
                raise OSError(
                    code, getattr(socket, "errorTab", {}).get(code) or os.strerror(code)
                )  # Windows has its own
            if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                candidate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
        except (OSError, httpcore2.ConnectTimeout) as error:
            candidate.close()
            failure = error
        except BaseException:
            candidate.close()
            raise
        else:
            return Wire(_Plain(candidate))
    if isinstance(failure, OSError):
        raise httpcore2.ConnectError(_words(failure)) from failure
    raise failure


# -- Waiting, in a thread and on an event loop ------------------------------------------------------------------------


def _wait(wanted: Wait) -> bool:
    if not hasattr(select, "poll"):  # Windows, and under gevent
        reads, writes = [wanted.socket] * wanted.read, [wanted.socket] * wanted.write
        return any(select.select(reads, writes, writes, wanted.seconds))
    poll = select.poll()
    poll.register(wanted.socket, select.POLLIN * wanted.read | select.POLLOUT * wanted.write)
    return bool(poll.poll(wanted.seconds * 1000))


def _run(steps: Steps[T]) -> T:
    try:
        wanted = next(steps)
        while True:
            wanted = steps.send(_wait(wanted))
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        steps.close()


async def _wait_on_loop(wanted: Wait) -> bool:
    both = wanted.read and wanted.write  # an event loop waits for one of them, and then for both again
    with anyio.move_on_after(min(wanted.seconds, _GLANCE) if both else wanted.seconds):
        await (anyio.wait_writable if wanted.write else anyio.wait_readable)(wanted.socket)
        return True
    return False


async def _run_on_loop(steps: Steps[T]) -> T:
    try:
        wanted = next(steps)
        while True:
            wanted = steps.send(await _wait_on_loop(wanted))
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        steps.close()


class Stream(httpcore2.NetworkStream):
    """A connection for threads."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.get_extra_info = wire.get_extra_info  # type: ignore[method-assign]
        self.close = wire.close  # type: ignore[method-assign]

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return _run(self._wire.read(max_bytes, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        _run(self._wire.write(buffer, timeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return Stream(_run(self._wire.start_tls(ssl_context, server_hostname, timeout)))


class AsyncStream(httpcore2.AsyncNetworkStream):
    """A connection for an event loop."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.get_extra_info = wire.get_extra_info  # type: ignore[method-assign]

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await _run_on_loop(self._wire.read(max_bytes, timeout))

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await anyio.lowlevel.checkpoint()  # a fast server would never let others run
        await _run_on_loop(self._wire.write(buffer, timeout))

    async def aclose(self) -> None:
        self._wire.close()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        return AsyncStream(await _run_on_loop(self._wire.start_tls(ssl_context, server_hostname, timeout)))


class Backend(httpcore2.NetworkBackend):
    """Connects, in a thread."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore2.ConnectError(_words(error)) from error
        return Stream(_run(connect(addresses, socket_options or (), timeout)))


class AsyncBackend(httpcore2.AsyncNetworkBackend):
    """Connects, on an event loop."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            addresses = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore2.ConnectError(_words(error)) from error
        return AsyncStream(await _run_on_loop(connect(addresses, socket_options or (), timeout)))
