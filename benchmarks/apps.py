"""The applications of the Python servers; each takes a finished file as an application would, by renaming it.

These functions run in the servers' processes. The directory comes from the environment.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from benchmarks.core_cost import Floor

DIRECTORY = Path(os.environ.get("TUS_BENCHMARK_DIRECTORY", "."))
STORE, LANDED = DIRECTORY / "store", DIRECTORY / "landed"
MIB = 1 << 20


def tus_filter():
    from tus import Filter

    def take(environ, start_response):
        upload = environ["tus.upload"]
        os.rename(upload.path, LANDED / upload.id)
        start_response("204 No Content", [])
        return []

    return Filter(take, upload_path="/files", tmp_file_dir=str(STORE))


def tus_middleware():
    from tus.asgi import TusMiddleware

    async def take(scope, receive, send):
        if scope["type"] == "lifespan":
            return await live(receive, send)
        upload = scope["tus.upload"]
        os.rename(upload.path, LANDED / upload.id)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        return await send({"type": "http.response.body", "body": b""})

    return TusMiddleware(take, upload_path="/files", tmp_file_dir=str(STORE))


async def live(receive, send):
    while (await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})


def trivial():
    """Return an application that writes bodies to files and does nothing else: the limit of its host."""
    ends = {}

    def receive(environ, start_response):
        fields = [("Tus-Resumable", "1.0.0"), ("Content-Length", "0")]
        if environ["REQUEST_METHOD"] == "POST":
            number = str(len(ends))
            ends[number] = 0
            start_response("201 Created", [*fields, ("Location", f"/files/{number}")])
            return []
        number = environ["PATH_INFO"].rpartition("/")[2]
        fd = os.open(STORE / number, os.O_WRONLY | os.O_CREAT, 0o600)
        rest = int(environ["CONTENT_LENGTH"])
        while rest and (block := environ["wsgi.input"].read(min(rest, MIB))):
            ends[number] += os.pwrite(fd, block, ends[number])
            rest -= len(block)
        os.close(fd)
        start_response("204 No Content", [("Tus-Resumable", "1.0.0"), ("Upload-Offset", str(ends[number]))])
        return []

    return receive


class Promises:
    """What small uploads need on the disk, and nothing else: no protocol, no checks, no options.

    It is the limit of a host for this package's promises; see ``core_cost.Floor``.
    """

    def __init__(self):
        self._floor = Floor(str(DIRECTORY), str(LANDED))

    def answer(self, method, path, body):
        """Return the status and the fields of the response."""
        place = f"{self._floor.directory}/{path.rpartition('/')[2]}"
        fields = [("Tus-Resumable", "1.0.0"), ("Upload-Offset", str(len(body)))]
        if method == "HEAD":
            self._floor.head(place)
            return 200, [*fields, ("Upload-Length", "4096")]
        if method == "POST":
            place = self._floor.create()
            fields += [("Location", f"/files/{place[-32:]}"), ("Content-Length", "0")]
        if body:
            self._floor.patch(place, body)
        return 201 if method == "POST" else 204, fields


def promises_wsgi():
    promises = Promises()

    def respond(environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        status, fields = promises.answer(environ["REQUEST_METHOD"], environ["PATH_INFO"], body)
        start_response(f"{status} OK", fields)
        return []

    return respond


def promises_asgi():
    """Return the same with one call of a thread for each request, because the loop must not wait for the disk."""
    from tus.server.threads import Threads

    promises, threads = Promises(), Threads("promises", lambda: 32)

    async def respond(scope, receive, send):
        if scope["type"] == "lifespan":
            return await live(receive, send)
        body, more = b"", scope["method"] != "HEAD"
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        status, fields = await threads.run(partial(promises.answer, scope["method"], scope["path"], body))
        raw = [(name.lower().encode(), value.encode()) for name, value in fields]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        return await send({"type": "http.response.body", "body": b""})

    return respond


def tuswsgi():
    from tuswsgi import TusMiddleware

    def take(environ, start_response):
        path = Path(os.fsdecode(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))))
        if path.parent == STORE:
            path.rename(LANDED / path.name)
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "0")])
        return [b""]

    return TusMiddleware(take, upload_path="/files", tmp_dir=str(STORE), max_size=1 << 40)


def tussi():
    from tussi import TUSApp
    from tussi.storage import FilesystemStorage

    return TUSApp(FilesystemStorage(STORE), completed_dir=LANDED, max_chunk_size=None)


def tuspyserver():
    from fastapi import FastAPI
    from tuspyserver import create_tus_router

    app = FastAPI()
    app.include_router(create_tus_router(prefix="files", files_dir=str(STORE)))
    return app


def litestar_tus():
    from litestar import Litestar
    from litestar_tus import TUSConfig, TUSPlugin

    return Litestar(plugins=[TUSPlugin(TUSConfig(path_prefix="/files", upload_dir=STORE))], request_max_body_size=None)


def resumable_upload():
    from resumable_upload import SQLiteStorage, TusServer
    from resumable_upload.asgi import TusASGIApp

    storage = SQLiteStorage(db_path=str(DIRECTORY / "uploads.db"), upload_dir=str(STORE))
    return TusASGIApp(TusServer(storage, base_path="/files"))
