"""``python -m tests.slow_clients``: who is served while 500 clients are slow or silent, under each server.

uWSGI, Apache with mod_wsgi, and nginx in front of gunicorn run as docs/deploying.rst says, if they are installed.

Three kinds of clients come one after the other: 500 that send half a head, 500 that send a byte of a body every five
seconds, and 500 that ask for a file and read nothing. Meanwhile a HEAD asks for the offset of an upload, five times.
docs/deploying.rst has the table that this prints.

``--honest 50`` prints another one. So many clients each ask for an offset five times a second, first alone, and then
beside the slow ones; it has the time in which 99 of 100 responses come, and the number of refused requests.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import math
import random
import resource
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.support import deploying
from tests.support.serving import SERVERS, command, free_port, serving, wait_for_port

PROBES = 5
ANSWERED = 5.0  # seconds in which a probe must be answered
SIZE = 4 << 20  # bytes of the file, more than the buffers of a connection hold
SERVE = "tus serve"
NGINX = "nginx"
PROGRAMS = {"uWSGI": deploying.uwsgi, "mod_wsgi": deploying.mod_wsgi}
TUS = {"Tus-Resumable": "1.0.0"}
OCTETS = {"Content-Type": "application/offset+octet-stream"}


def send(port: int, method: str, path: str, fields: dict[str, str], body: bytes = b"", seconds: float = 60) -> str:
    """Send a request, and return the path of its Location."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    with contextlib.closing(connection):
        connection.request(method, path, body or None, TUS | fields)
        reply = connection.getresponse()
        reply.read()
        if reply.status >= 300:
            raise OSError(f"the status is {reply.status}")
        return urlsplit(reply.getheader("Location") or "").path


def opened(port: int, data: bytes, window: int = 0) -> socket.socket:
    """A connection that has sent something."""
    client = socket.socket()
    if window:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    client.settimeout(10)
    client.connect(("127.0.0.1", port))
    client.sendall(data)
    return client


def half_heads(port: int, count: int) -> Iterator[socket.socket]:
    for _ in range(count):
        yield opened(port, b"POST /files HTTP/1.1\r\nHost: 127.0.0.1\r\nX-")


def drips(port: int, count: int) -> Iterator[socket.socket]:
    paths = [send(port, "POST", "/files", {"Upload-Length": "1000"}) for _ in range(count)]
    for path in paths:
        head = f"PATCH {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
        yield opened(port, f"{head}Content-Type: {OCTETS['Content-Type']}\r\nContent-Length: 1000\r\n\r\nx".encode())


def readers(port: int, count: int) -> Iterator[socket.socket]:
    path = send(port, "POST", "/files", {"Upload-Length": str(SIZE)} | OCTETS, bytes(SIZE))
    for _ in range(count):
        yield opened(port, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode(), window=2048)


KINDS: dict[str, Callable[[int, int], Iterator[socket.socket]]] = {
    "half-sent heads": half_heads,
    "drips": drips,
    "silent readers": readers,
}


@dataclass
class Served:
    """How the probes fared."""

    answered: int
    slowest: float
    recovered: float | None

    def __str__(self) -> str:
        if self.answered == PROBES:
            return f"yes, {1000 * self.slowest:.0f} ms"
        return "no" if self.recovered is None else f"after {self.recovered:.0f} s"


@contextlib.contextmanager
def running(server: str, directory: Path) -> Iterator[int]:
    """Run a server, and yield its port."""
    options = {"download": True, "keep_finished": True}
    if server in PROGRAMS:
        with PROGRAMS[server](directory, **options) as port:
            yield port
        return
    if server == NGINX:
        directory.chmod(0o755)  # its worker may be another user
        port = free_port()
        with (
            serving("gunicorn-gthread", directory, trusted_proxies="127.0.0.1", **options) as site,
            deploying.nginx(directory, port, f"127.0.0.1:{site.port}", connections=4096),
        ):
            yield port
        return
    if server != SERVE:
        with serving(server, directory, **options) as site:
            yield site.port
        return
    port = free_port()
    settings = [argument for name in options for argument in ("-o", f"{name}=true")]
    limits = ["-o", "max_uploads=0"]
    with command(["tus", "serve", "--port", str(port), *settings, *limits], directory) as process:
        wait_for_port(port, process, directory / "stderr")
        time.sleep(1)
        yield port


def measure(port: int, kind: str, count: int, patience: float, settling: float = 10) -> Served:
    """Let the clients come, and probe once they have filled their buffers."""
    path = send(port, "POST", "/files", {"Upload-Length": "10"})
    clients: list[socket.socket] = []
    done = threading.Event()

    def drip() -> None:
        while not done.wait(5):
            for client in clients:
                with contextlib.suppress(OSError):
                    client.send(b"x")

    try:
        with contextlib.suppress(OSError):  # a server that accepts no more
            clients.extend(KINDS[kind](port, count))
        if kind == "drips":
            threading.Thread(target=drip, daemon=True).start()
        time.sleep(settling)
        began, answered, slowest = time.monotonic(), 0, 0.0
        for _ in range(PROBES):
            answered, slowest = _probe(port, path, answered, slowest)
        recovered = None
        while answered < PROBES and recovered is None and time.monotonic() - began < patience:
            recovered = time.monotonic() - began if _probe(port, path, 0, 0)[0] else None
        return Served(answered, slowest, recovered)
    finally:
        done.set()
        for client in clients:
            client.close()


@dataclass
class Compared:
    """How honest clients fared alone, and beside slow ones.

    Attributes:
        alone: seconds in which 99 of 100 responses came.
        beside: the same beside the slow clients.
        refused: requests without a response.
    """

    alone: float
    beside: float
    refused: int

    def __str__(self) -> str:
        return f"{1000 * self.alone:.0f} -> {1000 * self.beside:.0f} ms, {self.refused} refused"


def compare(port: int, kind: str, count: int, honest: int, seconds: float = 10) -> Compared:
    """Measure honest clients, let the slow ones come, and measure again."""
    path = send(port, "POST", "/files", {"Upload-Length": "10"})
    alone, refused = _ask(port, path, honest, seconds)
    clients: list[socket.socket] = []
    done = threading.Event()

    def drip() -> None:
        while not done.wait(20 / count):  # each client sends a byte in 20 seconds
            client = clients.pop(0)
            clients.append(client)
            with contextlib.suppress(OSError):
                client.send(b"x")

    try:
        clients.extend(KINDS[kind](port, count))
        time.sleep(2)
        if kind == "drips":
            threading.Thread(target=drip, daemon=True).start()
        beside, more = _ask(port, path, honest, seconds)
        return Compared(alone, beside, refused + more)
    finally:
        done.set()
        for client in clients[:]:
            client.close()


def _ask(port: int, path: str, honest: int, seconds: float) -> tuple[float, int]:
    """Let clients ask for an offset, and return the time for 99 of 100 responses, and the number without one."""
    times: list[float] = []
    failures: list[Exception] = []
    end = time.monotonic() + seconds

    def ask() -> None:
        while (began := time.monotonic()) < end:
            try:
                send(port, "HEAD", path, {}, seconds=ANSWERED)
            except (OSError, http.client.HTTPException) as error:
                failures.append(error)
            else:
                times.append(time.monotonic() - began)
            time.sleep(random.uniform(0.1, 0.3))

    threads = [threading.Thread(target=ask) for _ in range(honest)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(times)[len(times) * 99 // 100] if times else math.inf, len(failures)


def _probe(port: int, path: str, answered: int, slowest: float) -> tuple[int, float]:
    began = time.monotonic()
    try:
        send(port, "HEAD", path, {}, seconds=ANSWERED)
    except (OSError, http.client.HTTPException):
        return answered, slowest
    return answered + 1, max(slowest, time.monotonic() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=500, help="of each kind (default: %(default)s)")
    parser.add_argument("--patience", type=float, default=90, help="seconds to wait for an answer")
    parser.add_argument("--honest", type=int, default=0, help="clients to compare, instead of the table")
    parser.add_argument("servers", nargs="*", default=[SERVE, *SERVERS, *PROGRAMS, NGINX], help="default: all")
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4096), most))
    width = 26 if arguments.honest else 18
    print(f"{'':18}" + "".join(f"{kind:{width}}" for kind in KINDS), flush=True)
    for server in arguments.servers:
        row = f"{server:18}"
        for kind in KINDS:
            with tempfile.TemporaryDirectory(prefix="tus-slow-") as directory:
                try:
                    with running(server, Path(directory)) as port:
                        if arguments.honest:
                            found: object = compare(port, kind, arguments.clients, arguments.honest)
                        else:
                            found = measure(port, kind, arguments.clients, arguments.patience)
                        row += f"{found!s:{width}}"
                except Exception as error:
                    print(f"{server}: {error!r}", file=sys.stderr)
                    row += f"{'failed':{width}}"
        print(row, flush=True)


if __name__ == "__main__":
    main()
