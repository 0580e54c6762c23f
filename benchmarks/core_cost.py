"""What the core costs in process: Python calls, system calls and CPU of a creation, a last PATCH, a HEAD.

usage: python benchmarks/core_cost.py [--rounds N] [--directory DIR] [--json] [--asgi]

No server and no socket: an environ goes into ``tus.Filter`` around an application that renames the file. Beside it
stands the floor: the same system calls, straight from Python. CPU is the best of N rounds. Calls are exact: of Python's
functions, of all functions, and of the functions of ``os`` and ``fcntl`` that are system calls. Beside those stands
what strace counts. The row "whole" is a creation with its whole body. With ``--asgi`` it is ``tus.asgi.TusMiddleware``
on asyncio, and the calls are those of the loop and of the worker threads together. With ``--serve`` the receiver of
``tus serve`` saves each file, in place of the application.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import fcntl
import gc
import io
import itertools
import json
import os
import resource
import selectors
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from typing import NamedTuple

SIZE = 4096
BODY = os.urandom(SIZE)
TUS = {"HTTP_TUS_RESUMABLE": "1.0.0"}
COMMON = {
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_HOST": "localhost",
    "SCRIPT_NAME": "",
    "QUERY_STRING": "",
    "REMOTE_ADDR": "127.0.0.1",
    "wsgi.url_scheme": "http",
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": False,
    "wsgi.multiprocess": False,
    "wsgi.run_once": False,
}


class Site:
    """A filter in a directory of its own, and requests to it."""

    def __init__(self, directory):
        from tus import Filter

        self.arrived = os.path.join(directory, "arrived")
        os.mkdir(self.arrived)
        self.number = 0
        self.app = Filter(self.take, upload_path="/files", tmp_file_dir=os.path.join(directory, "store"))

    def take(self, environ, start_response):
        self.number += 1
        os.rename(environ["tus.upload"].path, os.path.join(self.arrived, str(self.number & 1023)))
        start_response("204 No Content", [])
        return []

    def send(self, method, path, fields, body=b""):
        environ = {**COMMON, **TUS, "REQUEST_METHOD": method, "PATH_INFO": path, **fields}
        environ["wsgi.input"] = io.BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body))
        return environ

    def call(self, environ):
        answer = []
        body = self.app(environ, lambda status, headers, exc_info=None: answer.append((status, headers)))
        for _ in body:
            pass
        return answer[0]

    def create(self):
        return self.send(
            "POST", "/files", {"HTTP_UPLOAD_LENGTH": str(SIZE), "HTTP_UPLOAD_METADATA": "filename aGVsbG8="}
        )

    def patch(self, path):
        fields = {"CONTENT_TYPE": "application/offset+octet-stream", "HTTP_UPLOAD_OFFSET": "0"}
        return self.send("PATCH", path, fields, BODY)

    def head(self, path):
        return self.send("HEAD", path, {})

    def create_whole(self):
        fields = {"CONTENT_TYPE": "application/offset+octet-stream", "HTTP_UPLOAD_LENGTH": str(SIZE)}
        return self.send("POST", "/files", fields | {"HTTP_UPLOAD_METADATA": "filename aGVsbG8="}, BODY)


class ServingSite(Site):
    """The same with the receiver of ``tus serve``, which saves each file under a name of its own."""

    def __init__(self, directory):
        from tus import Filter
        from tus.apps.files import Files

        self.number = 0
        files = Files(os.path.join(directory, "arrived"))
        store = os.path.join(directory, "store")
        self.app = Filter(None, upload_path="/files", tmp_file_dir=store, on_finished=files.take)

    def send(self, method, path, fields, body=b""):
        if method == "POST":
            self.number += 1
            name = base64.b64encode(b"hello %d.txt" % self.number).decode()
            fields = fields | {"HTTP_UPLOAD_METADATA": f"filename {name}"}
        return super().send(method, path, fields, body)


class RequestResponseCycle:
    """What uvicorn's class of this name is to an application, once the whole request has arrived."""

    __module__ = "uvicorn.protocols.http.httptools_impl"

    def __init__(self, body):
        self.body = body
        self.status, self.headers = 0, []

    async def receive(self):
        return {"type": "http.request", "body": self.body, "more_body": False}

    async def send(self, message):
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], message["headers"]


class AsgiSite(Site):
    """The same with the middleware. Its loop runs only during a request."""

    def __init__(self, directory):
        from tus.asgi import TusMiddleware

        self.arrived = os.path.join(directory, "arrived")
        os.mkdir(self.arrived)
        self.number = 0
        self.loop = asyncio.new_event_loop()
        self.app = TusMiddleware(self.take, upload_path="/files", tmp_file_dir=os.path.join(directory, "store"))

    async def take(self, scope, receive, send):
        self.number += 1
        os.rename(scope["tus.upload"].path, os.path.join(self.arrived, str(self.number & 1023)))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def send(self, method, path, fields, body=b""):
        fields = {"HTTP_HOST": "localhost", **TUS, "CONTENT_LENGTH": str(len(body)), **fields}
        names = {key: key.removeprefix("HTTP_").replace("_", "-").lower().encode() for key in fields}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(names[key], value.encode()) for key, value in fields.items()],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 80),
        }
        return scope, RequestResponseCycle(body)

    def call(self, request):
        scope, cycle = request
        self.loop.run_until_complete(self.app(scope, cycle.receive, cycle.send))
        return f"{cycle.status}", [(name.decode().title(), value.decode()) for name, value in cycle.headers]

    def close(self):
        self.loop.close()


class Floor:
    """The system calls that the promises need, and nothing else: two files, locks, bytes, slots, syncs, a rename."""

    def __init__(self, directory, arrived=None):
        self.directory = os.path.join(directory, "floor")
        os.mkdir(self.directory)
        self.arrived = arrived or self.directory
        self.fd = os.open(self.directory, os.O_RDONLY)
        self.numbers = itertools.count()

    def create(self):
        path = f"{self.directory}/{next(self.numbers):032x}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(path + ".tus", flags, 0o600)
        os.pwrite(fd, bytes(400), 0)
        os.close(os.open(path, flags, 0o600))
        os.close(fd)
        return path

    def patch(self, path, body=BODY):
        fd = os.open(path + ".tus", os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.pread(fd, 4096, 0)
        data = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        os.fstat(data)
        fcntl.flock(data, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.pwrite(data, body, 0)
        os.pwrite(fd, bytes(64), 64)
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.fdatasync(data)
        os.fdatasync(fd)
        os.fsync(self.fd)
        os.rename(path, f"{self.arrived}/{path[-32:]}.arrived")
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.pwrite(fd, bytes(64), 0)
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.fdatasync(fd)
        fcntl.flock(data, fcntl.LOCK_UN)
        os.close(data)
        os.close(fd)

    def head(self, path):
        fd = os.open(path + ".tus", os.O_RDONLY | os.O_CLOEXEC)
        os.pread(fd, 4096, 0)
        os.close(fd)
        os.stat(path)


def path_of(answer):
    return dict(answer[1])["Location"].removeprefix("http://localhost")


class Call(NamedTuple):
    """A call of a function; of Python's functions and those in C, some of the latter are system calls."""

    name: str
    is_python: bool
    is_system: bool


#: What an application does not choose: the event loop, and the standard library beneath it.
HOST = (os.path.dirname(asyncio.__file__), selectors.__file__, threading.__file__)

recording = []  # the functions that hear of each call in threads that were started under watch_threads()


@contextlib.contextmanager
def watch_threads():
    """Let the calls of threads that start now be recorded, too, except those of background threads."""

    def record(*event):
        if threading.current_thread().name not in ("tus-sweeper", "tus-backlog"):
            for profile in recording:
                profile(*event)

    threading.setprofile(record)
    try:
        yield
    finally:
        threading.setprofile(None)


def calls_of(function, *arguments):
    """Return the calls of functions, and what the function returns."""
    calls = []

    def profile(frame, event, argument):
        if frame.f_code.co_filename.startswith(HOST):
            return
        if event == "call":
            calls.append(Call(frame.f_code.co_qualname, True, False))
        elif event == "c_call":
            is_system = argument.__module__ in ("posix", "fcntl") and argument.__name__ != "fspath"
            calls.append(Call(argument.__qualname__, False, is_system))

    gc.disable()  # the callbacks of weak references to what others have left are no work of this function
    recording.append(profile)  # for other threads
    sys.setprofile(profile)
    try:
        result = function(*arguments)
    finally:
        sys.setprofile(None)
        recording.clear()
        gc.enable()
    return calls[1:-1], result  # without the call of the function and sys.setprofile()


def count_calls(calls):
    """Return the numbers of calls: of Python's functions, of all functions, and of the system."""
    functions = sum(call.is_python for call in calls)
    return {"functions": functions, "calls": len(calls), "system": sum(call.is_system for call in calls)}


def cpu_now():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def best(run, prepare, rounds, batch=20):
    """Return the CPU of one call in microseconds: of N batches the one that took least."""
    found = float("inf")
    for _ in range(rounds):
        prepared = [prepare() for _ in range(batch)]
        began = time.process_time_ns()
        for one in prepared:
            run(one)
        found = min(found, (time.process_time_ns() - began) / batch / 1000)
    return found


def list_calls(site, rounds=5):
    """Return the calls of functions that each kind of request makes, once the process is warm.

    The fewest of a few rounds: a request that meets a thread of the background waits for its lock, by further calls.
    """
    with watch_threads():
        for _ in range(50):
            site.call(site.patch(path_of(site.call(site.create()))))
    found = {}
    for _ in range(rounds):
        created, answer = calls_of(site.call, site.create())
        assert answer[0].startswith("201"), answer
        inspected, head = calls_of(site.call, site.head(path_of(answer)))
        assert head[0].startswith("200"), head
        patched, last = calls_of(site.call, site.patch(path_of(answer)))
        assert last[0].startswith("204"), last
        whole, answer = calls_of(site.call, site.create_whole())
        assert answer[0].startswith("201"), answer
        kinds = {"create": created, "HEAD": inspected, "last PATCH": patched, "whole": whole}
        for kind, calls in kinds.items():
            found[kind] = min(calls, found.get(kind, calls), key=len)
    return found


def measure(kind, directory, rounds):
    site, floor = kind(directory), Floor(directory)
    costs = {kind: count_calls(calls) for kind, calls in list_calls(site).items()}
    costs["create"]["us"] = best(site.call, site.create, rounds)
    costs["create"]["floor us"] = best(lambda _: floor.create(), lambda: None, rounds)
    costs["last PATCH"]["us"] = best(site.call, lambda: site.patch(path_of(site.call(site.create()))), rounds)
    costs["last PATCH"]["floor us"] = best(floor.patch, floor.create, rounds)
    one = path_of(site.call(site.create()))
    costs["whole"]["us"] = best(site.call, site.create_whole, rounds)
    costs["whole"]["floor us"] = costs["create"]["floor us"] + costs["last PATCH"]["floor us"]
    costs["HEAD"]["us"] = best(site.call, lambda: site.head(one), rounds)
    other = floor.create()
    costs["HEAD"]["floor us"] = best(floor.head, lambda: other, rounds)
    return costs


def system_calls(directory, *options):
    """Return the system calls of each kind of request by strace, or nothing where that is not installed."""
    if shutil.which("strace") is None:
        return {}
    counts = {}
    for kind in ("create", "HEAD", "last PATCH", "whole"):
        numbers = []
        for repeat in (10, 110):
            with tempfile.TemporaryDirectory(dir=directory) as inner:
                out = os.path.join(inner, "strace")
                command = ["strace", "-f", "-c", "-o", out, sys.executable, __file__, "--repeat", f"{kind}:{repeat}"]
                subprocess.run([*command, "--directory", inner, *options], check=True)
                with open(out) as file:
                    total = next(line for line in file if line.rstrip().endswith("total"))
                numbers.append(int(total.split()[3]))
        counts[kind] = (numbers[1] - numbers[0]) / 100
    return counts


def repeat(site, kind, number):
    paths = [path_of(site.call(site.create())) for _ in range(110)]
    requests = {"create": lambda path: site.create(), "HEAD": site.head, "last PATCH": site.patch}
    request = (requests | {"whole": lambda path: site.create_whole()})[kind]
    for path in paths[:number]:
        site.call(request(path))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--directory", default="/dev/shm" if os.path.isdir("/dev/shm") else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--asgi", action="store_true", help="the middleware in place of the filter, without strace")
    parser.add_argument("--serve", action="store_true", help="the receiver of tus serve in place of the application")
    parser.add_argument("--repeat", help=argparse.SUPPRESS)
    options = parser.parse_args()
    site = AsgiSite if options.asgi else ServingSite if options.serve else Site
    if options.repeat:
        kind, _, number = options.repeat.partition(":")
        repeat(site(options.directory), kind, int(number))
        return
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        costs = measure(site, directory, options.rounds)
        traced = {} if options.asgi else system_calls(directory, *(["--serve"] if options.serve else []))
        for kind, number in traced.items():
            costs[kind]["by strace"] = number
    if options.json:
        print(json.dumps(costs))
        return
    for kind, cost in costs.items():
        print(f"{kind:<11}", "  ".join(f"{name} {value:.0f}" for name, value in cost.items()))


if __name__ == "__main__":
    main()
