"""``tus`` beside other servers, in one run.

    python benchmarks/compare.py [--directory /dev/shm] [--rounds 5] [--size 1024] [--peers tus tuswsgi ...]

Each round runs every server on every row, new process, new store, in an order that turns round; so what the machine
does meanwhile hits all of them. The server has one processor and the client another, where there are two. The client
sends from memory over one connection that it keeps, and checks every reply; afterwards the stored bytes are compared by
SHA-256, all large files and a hundred of the small ones.

Rows: one PATCH of SIZE MiB; the same in PATCHes of 8 MiB; creation and PATCH of 4 KiB. Printed are medians, and the
ratio to the first server's: throughput, and the CPU time of the server with its children, which is the steadier figure.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

SERVERS = ("tus", "tuswsgi", "tus-asgi", "tussi", "resumable-upload", "tuspyserver")
UVICORN = SERVERS[2:]
ROWS = ("one PATCH", "8 MiB PATCHes", "4 KiB uploads")
MIB = 1 << 20
THREADS = "32"


# -- The servers --------------------------------------------------------------------------------------------------


def make_app(name: str, directory: Path):
    """The application of a server, with its own defaults, but for limits that would refuse a row."""
    landed = directory / "landed"

    def keep(environ, start_response):
        """Take the file by its path, as an application would."""
        path = Path(os.fsdecode(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))))
        if path.parent == directory / "store":
            path.rename(landed / path.name)
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "0")])
        return [b""]

    if name == "tus":
        from tus import Filter

        fsync = os.environ.get("TUS_BENCHMARK_FSYNC", "finish")
        return Filter(keep, upload_path="/files", tmp_file_dir=str(directory / "store"), fsync=fsync)
    if name == "tus-asgi":
        return make_async_app(directory)
    if name == "resumable-upload":
        from resumable_upload import SQLiteStorage, TusServer
        from resumable_upload.asgi import TusASGIApp

        storage = SQLiteStorage(db_path=str(directory / "uploads.db"), upload_dir=str(directory / "store"))
        return TusASGIApp(TusServer(storage, base_path="/files"))
    if name == "tuspyserver":
        from fastapi import FastAPI
        from tuspyserver import create_tus_router

        app = FastAPI()
        app.include_router(create_tus_router(prefix="files", files_dir=str(directory / "store")))
        return app
    if name == "tuswsgi":
        from tuswsgi import TusMiddleware

        return TusMiddleware(keep, upload_path="/files", tmp_dir=str(directory / "store"), max_size=1 << 40)
    from tussi import TUSApp
    from tussi.storage import FilesystemStorage

    return TUSApp(FilesystemStorage(directory / "store"), completed_dir=landed, max_chunk_size=None)


def make_async_app(directory: Path):
    from tus.asgi import TusMiddleware

    landed = directory / "landed"

    async def keep(scope, receive, send):
        if scope["type"] == "lifespan":
            while (await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        path = Path(os.fsdecode((await receive())["body"]))
        if path.parent == directory / "store":
            path.rename(landed / path.name)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    fsync = os.environ.get("TUS_BENCHMARK_FSYNC", "finish")
    return TusMiddleware(keep, upload_path="/files", tmp_file_dir=str(directory / "store"), fsync=fsync)


def serve(name: str, port: int, directory: Path) -> None:
    """Become the server."""
    os.environ["TUS_BENCHMARK"] = f"{name}\n{directory}"
    os.environ["PYTHONPATH"] = os.pathsep.join(
        (str(Path(__file__).parent), str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", ""))
    )
    if name in UVICORN:
        command = ["uvicorn", "--factory", "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]
        command += ["--no-access-log", "compare:configured_app"]
    else:
        command = ["gunicorn", "-k", "gthread", "--threads", THREADS, "-b", f"127.0.0.1:{port}", "--log-level", "error"]
        command += ["--no-control-socket", "compare:configured_app()"]
    os.execv(sys.executable, [sys.executable, "-m", *command])


def configured_app():
    name, directory = os.environ["TUS_BENCHMARK"].split("\n")
    return make_app(name, Path(directory))


# -- The client ---------------------------------------------------------------------------------------------------


class Client:
    def __init__(self, port: int):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, blocksize=MIB)

    def send(self, method: str, path: str, body, headers: dict[str, str], status: int):
        self.connection.request(method, path, body, {"Tus-Resumable": "1.0.0"} | headers)
        response = self.connection.getresponse()
        text = response.read()
        if response.status != status:
            raise RuntimeError(f"{method} {path}: {response.status} {text[:200]!r}")
        return response

    def create(self, length: int) -> str:
        headers = {"Upload-Length": str(length), "Upload-Metadata": "filename Zm9v", "Content-Length": "0"}
        location = self.send("POST", "/files", b"", headers, 201).headers["Location"]
        return "/" + location.split("://", 1)[-1].partition("/")[2] if "://" in location else location

    def patch(self, path: str, offset: int, body) -> None:
        headers = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        response = self.send("PATCH", path, body, headers, 204)
        if response.headers["Upload-Offset"] != str(offset + len(body)):
            raise RuntimeError(f"PATCH {path}: Upload-Offset {response.headers['Upload-Offset']}")


# -- One measurement ----------------------------------------------------------------------------------------------


@dataclass
class Result:
    seconds: float
    cpu: float
    amount: float  # MiB, or uploads


def cpu_seconds(process: psutil.Process) -> float:
    family = [process, *process.children(recursive=True)]
    return sum(sum(member.cpu_times()[:2]) for member in family)


def measure(name: str, row: str, size: int, count: int, base: Path) -> Result:
    directory = Path(tempfile.mkdtemp(dir=base))
    (directory / "store").mkdir()
    (directory / "landed").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", name, str(port), str(directory)],
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: pin(1),
        start_new_session=True,
    )
    try:
        wait_for(port, server)
        process = psutil.Process(server.pid)
        data = random.Random(size).randbytes(MIB) * size if row != ROWS[2] else random.Random(0).randbytes(4096)
        warm(directory, size)
        client = Client(port)
        client.patch(client.create(5), 0, b"warm!")
        before, began = cpu_seconds(process), time.monotonic()
        paths = run_row(client, row, data, count)
        result = Result(time.monotonic() - began, cpu_seconds(process) - before, count if row == ROWS[2] else size)
        verify(directory, paths, data)
        return result
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        shutil.rmtree(directory)


def run_row(client: Client, row: str, data: bytes, count: int) -> list[str]:
    if row == ROWS[2]:
        paths = []
        for _ in range(count):
            paths.append(client.create(len(data)))
            client.patch(paths[-1], 0, data)
        return paths
    path = client.create(len(data))
    step = len(data) if row == ROWS[0] else 8 * MIB
    view = memoryview(data)
    for offset in range(0, len(data), step):
        client.patch(path, offset, view[offset : offset + step])
    return [path]


def verify(directory: Path, paths: list[str], data: bytes) -> None:
    expected = hashlib.sha256(data).digest()
    for path in random.sample(paths, min(len(paths), 100)):
        name = path.rstrip("/").rpartition("/")[2]
        found = [place / name for place in (directory / "landed", directory / "store") if (place / name).exists()]
        with found[0].open("rb") as file:
            if hashlib.file_digest(file, "sha256").digest() != expected:
                raise RuntimeError(f"{found[0]} does not hold what was sent")


def warm(directory: Path, size: int) -> None:
    """Touch as much memory as a row needs: the first touch of a page is dear in a virtual machine, whoever does it."""
    block = bytes(16 * MIB)
    with (directory / "warm").open("wb") as file:
        for _ in range(0, 2 * size, 16):
            file.write(block)
    (directory / "warm").unlink()


def pin(processor: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        processors = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {processors[processor % len(processors)]})


def wait_for(port: int, server: subprocess.Popen) -> None:
    for _ in range(400):
        if server.poll() is not None:
            raise RuntimeError("the server did not start")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the server did not start in time")


# -- All of them --------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", default="/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=1024, help="MiB of the large rows")
    parser.add_argument("--count", type=int, default=1000, help="uploads of the small row")
    parser.add_argument("--fsync", default="finish", help="the option of tus; its peers have policies of their own")
    parser.add_argument("--peers", nargs="+", default=SERVERS, choices=SERVERS, metavar="PEER", help=", ".join(SERVERS))
    parser.add_argument("--rows", nargs="+", type=int, default=[0, 1, 2], choices=[0, 1, 2])
    parser.add_argument("--serve", nargs=3, metavar=("NAME", "PORT", "DIR"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], int(options.serve[1]), Path(options.serve[2]))
    os.environ["TUS_BENCHMARK_FSYNC"] = options.fsync
    results: dict[tuple[str, str], list[Result]] = {}
    base = Path(tempfile.mkdtemp(dir=options.directory))
    try:
        full = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
        print(f"{len(full)} processors, {options.rounds} rounds, files in {options.directory}")
        for number in range(options.rounds):
            for row in (ROWS[index] for index in options.rows):
                for name in options.peers if number % 2 == 0 else reversed(options.peers):
                    pin(0)
                    result = measure(name, row, options.size, options.count, base)
                    if hasattr(os, "sched_setaffinity"):
                        os.sched_setaffinity(0, full)
                    results.setdefault((row, name), []).append(result)
    finally:
        shutil.rmtree(base)
    report(results, options.peers)


def report(results: dict[tuple[str, str], list[Result]], peers: list[str]) -> None:
    for row in dict.fromkeys(row for row, _ in results):
        small = row == ROWS[2]
        units = ("uploads/s", "CPU us/upload") if small else ("MiB/s", "CPU s/GiB")
        digits, scale = (0, 1e6) if small else (2, 1024)
        print(f"\n{row:16} {units[0]:>10} {'ratio':>6} {units[1]:>14} {'ratio':>6}   CPU of each round")
        first: tuple[float, float] | None = None
        for name in peers:
            runs = results[row, name]
            speed = statistics.median(run.amount / run.seconds for run in runs)
            costs = [run.cpu / run.amount * scale for run in runs]
            cost = statistics.median(costs)
            first = first or (speed, cost or float("nan"))  # a short run may not take a tick of the clock
            each = " ".join(f"{value:.{digits}f}" for value in costs)
            print(
                f"{name:16} {speed:10.0f} {speed / first[0]:6.2f} {cost:14.{digits}f} {cost / first[1]:6.2f}   {each}"
            )


if __name__ == "__main__":
    main()
