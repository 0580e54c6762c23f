"""A small Galaxy, with the routes of the real one that have to do with uploads, and its users."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from socketserver import ThreadingMixIn
from urllib.parse import parse_qs, urljoin
from urllib.request import Request, urlopen
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
from tusclient.client import TusClient
from tusclient.exceptions import TusUploadFailed

from tests.support.clients import head, sample

SIZE = 5 * 1024 + 7

API_KEY = {"X-Api-Key": "the user's"}


class Galaxy:
    """The routes that have to do with uploads: two that only say who may, and two that come for the data later."""

    def __init__(self, stores: dict[str, Path], datasets: Path):
        self.stores = stores
        self.datasets = datasets
        self.bodies: list[bytes] = []
        self.methods: list[str] = []

    def __call__(self, environ, start_response):
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if re.fullmatch(r"/api/(upload|job_files)/resumable_upload/[\w-]+", path) and method == "PATCH":
            self.bodies.append(body)
            allowed = path.startswith("/api/job_files/") or environ.get("HTTP_X_API_KEY") == API_KEY["X-Api-Key"]
            status, answer = ("200 OK", None) if allowed else ("403 Forbidden", {"err_msg": "no such key"})
        elif path == "/api/tools/fetch":
            status, answer = self._take(self.stores["upload"], json.loads(body)["session_id"])
        elif re.fullmatch(r"/api/jobs/\w+/files", path):
            allowed = parse_qs(environ["QUERY_STRING"]).get("job_key") == ["the job's"]
            status, answer = self._take(self.stores["job_files"], json.loads(body)["session_id"] if allowed else "/")
        else:
            self.methods.append(f"{method} {path}")
            status, answer = "404 Not Found", {"err_msg": "no such route"}
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps(answer).encode()]

    def _take(self, store: Path, session_id: str):
        if not re.match(r"^[\w-]+$", session_id):
            return "400 Bad Request", {"err_msg": "no such session"}
        shutil.move(store / session_id, self.datasets / session_id)
        return "200 OK", {"id": session_id}


def wrap_if_allowed(app, stack, cls, kwargs):
    stack.append(cls.__name__)
    return cls(app, **kwargs)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def listening(app) -> Iterator[str]:
    """A server in a thread of its own; gives the URL of its root."""
    with make_server("127.0.0.1", 0, app, server_class=_Server, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def mounted(app, prefix):
    """As FastAPI has it: the application below a prefix, which is in SCRIPT_NAME then."""

    def call_app(environ, start_response):
        assert environ["PATH_INFO"].startswith(prefix)
        environ["SCRIPT_NAME"] += prefix
        environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix(prefix)
        return app(environ, start_response)

    return call_app


@contextlib.contextmanager
def galaxy(cls, directory: Path, prefix: str = "", max_size: int = 10_000):
    """Galaxy with two middlewares of this class; gives it and its URL, which ends in a slash."""
    stores = {name: directory / name for name in ("upload", "job_files")}
    datasets = directory / "datasets"
    datasets.mkdir()
    (directory / "upload").mkdir()
    (directory / "upload" / "of_somebody_else.info").write_text("not ours")
    app = inner = Galaxy(stores, datasets)
    stack = []
    for name, store in stores.items():
        kwargs = {
            "upload_path": urljoin(f"{prefix}/", f"api/{name}/resumable_upload"),
            "tmp_dir": str(store),
            "max_size": max_size,
        }
        app = wrap_if_allowed(app, stack, cls, kwargs)
    assert stack == ["TusMiddleware"] * 2
    with listening(mounted(app, prefix) if prefix else app) as root:
        yield inner, f"{root}{prefix}/"


def post(url: str, document: object):
    request = Request(url, data=json.dumps(document).encode(), headers={"Content-Type": "application/json"})
    with urlopen(request) as reply:
        return json.load(reply)


def upload_as_galaxy_s_users(cls, directory: Path, prefix: str) -> None:
    """What holds with tuswsgi's middleware, and has to with ours."""
    file = sample(directory / "file", SIZE)
    with galaxy(cls, directory, prefix) as (app, url):
        for creation, name, fetch in (
            ("api/upload/resumable_upload", "upload", "api/tools/fetch"),
            ("api/upload/resumable_upload/", "upload", "api/tools/fetch"),
            ("api/job_files/resumable_upload?job_key=the+job%27s", "job_files", "api/jobs/1/files?job_key=the+job%27s"),
        ):
            client = TusClient(url + creation, headers=API_KEY)
            uploader = client.uploader(str(file), chunk_size=1024, metadata={"filename": "data.bin"})
            uploader.upload()
            session_id = uploader.url.rsplit("/", 1)[1]
            assert uploader.url == f"{url}api/{name}/resumable_upload/{session_id}"
            data = app.stores[name] / session_id
            assert app.bodies.pop() == str(data).encode()
            assert app.bodies == []
            assert data.read_bytes() == file.read_bytes()
            assert head(uploader.url)[1]["upload-offset"] == str(SIZE)

            assert post(url + fetch, {"session_id": session_id, "name": "data.bin"}) == {"id": session_id}
            assert (app.datasets / session_id).read_bytes() == file.read_bytes()
            assert not data.exists()

        refused = TusClient(url + "api/upload/resumable_upload", headers={"X-Api-Key": "wrong"})
        uploader = refused.uploader(str(file), chunk_size=1024)
        with pytest.raises(TusUploadFailed) as error:
            uploader.upload()
        assert error.value.status_code == 403
        assert json.loads(error.value.response_content) == {"err_msg": "no such key"}

        larger = sample(directory / "larger", 10_001)
        with pytest.raises(Exception, match="413"):
            TusClient(url + "api/upload/resumable_upload").uploader(str(larger)).upload()
        assert (app.stores["upload"] / "of_somebody_else.info").read_text() == "not ours"
