"""The code of other servers of the protocol begins uploads, ``tus import`` takes them over, and ours finishes them.

tuswsgi and plone.restapi come from the package index, as wheels that are not installed. tusd, which is a Go program,
has to be on the ``PATH``; its tests are run by ``pytest -m tusd``.
``python -m tests.cli.test_peers NAME PORT DIRECTORY WHEELS`` is what runs in the other process.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import io
import os
import shutil
import socket
import subprocess
import sys
import time
import types
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import MagicMock
from urllib.parse import urljoin, urlsplit
from wsgiref.simple_server import make_server

import pytest
from tusclient.client import TusClient
from tusclient.uploader import Uploader

from tests.support.clients import UNUSUAL_NAME, head, sample
from tests.support.galaxy import listening, upload_as_galaxy_s_users
from tests.support.importing import run_import
from tests.support.serving import ROOT, command, free_port, wait_for_port
from tus.compat import TusMiddleware
from tus.filter import Filter

# tuspy never closes the files that it opens.
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")]

SIZE = 100_003
HALF = 50_001
WHEELS = {"tuswsgi": "tuswsgi==0.5.5", "plone": "plone.restapi==10.0.4"}
PATHS = {"tuswsgi": "/files", "plone": "/site/@tus-upload", "tusd": "/files"}


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    directory = tmp_path_factory.mktemp("wheels")
    for requirement in WHEELS.values():
        arguments = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", requirement]
        subprocess.run([*arguments, "-d", directory], check=True)
    for wheel in directory.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(directory)
    return directory


@pytest.fixture(autouse=True)
def _direct(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    gc.collect()  # what tuspy has left open goes while this module's filter of warnings holds


@contextlib.contextmanager
def peer(name: str, uploads: Path, wheels: Path) -> Iterator[str]:
    """Another program, which runs; gives the URL that creates uploads. It is killed at the end."""
    port = free_port()
    log = uploads.parent / f"{name}.log"
    if name == "tusd":
        program = shutil.which("tusd")
        assert program, "tusd has to be on the PATH"
        arguments = [program, "-host", "127.0.0.1", "-port", str(port), "-upload-dir", str(uploads)]
    else:
        arguments = [sys.executable, "-m", "tests.cli.test_peers", name, str(port), str(uploads), str(wheels)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            arguments, cwd=uploads.parent, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        wait_for_port(port, process, log)
        yield f"http://127.0.0.1:{port}{PATHS[name]}"
    finally:
        process.kill()
        process.wait()


def send(method: str, url: str, body: bytes = b"", **headers: str):
    """One request; gives the status and the header fields of the reply."""
    fields = {"Tus-Resumable": "1.0.0"} | {name.replace("_", "-"): value for name, value in headers.items()}
    if method == "PATCH":
        fields["Content-Type"] = "application/offset+octet-stream"
    request = urllib.request.Request(url, data=body, headers=fields, method=method)
    try:
        with urllib.request.urlopen(request) as reply:
            return reply.status, reply.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers


def begin(url: str, file: Path, length: int = SIZE, stop: int = HALF, **headers: str) -> str:
    """Make an upload and send the bytes before ``stop``; gives its URL."""
    fields = {"Upload_Length": str(length)} if length >= 0 else {"Upload_Defer_Length": "1"}
    status, reply = send("POST", url, **(fields | headers))
    assert status == 201
    location = urljoin(url, reply["Location"])
    if stop:
        status, reply = send("PATCH", location, file.read_bytes()[:stop], Upload_Offset="0")
        assert (status, reply["Upload-Offset"]) == (204, str(stop))
    return location


def at(root: str, url: str) -> str:
    """The same upload at another server."""
    return root.rstrip("/") + urlsplit(url).path


def goes_on(url: str, file: Path, offset: int) -> None:
    """tuspy finds the upload where it was, and finishes it."""
    uploader = Uploader(str(file), url=url, chunk_size=10_000)
    assert uploader.offset == offset
    uploader.upload()
    assert head(url)[1]["upload-offset"] == str(file.stat().st_size)


class Taking:
    """An application that keeps what it is given."""

    def __init__(self):
        self.taken = {}

    def __call__(self, environ, start_response):
        upload = environ["tus.upload"]
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        self.taken[upload.id] = (Path(os.fsdecode(body)).read_bytes(), upload.text_metadata)
        start_response("200 OK", [])
        return []


# -- The tests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "/galaxy"], ids=["root", "mounted"])
def test_tuswsgi_itself_does_what_the_small_galaxy_wants(tmp_path, wheels, prefix, monkeypatch):
    monkeypatch.syspath_prepend(wheels)
    import tuswsgi

    upload_as_galaxy_s_users(tuswsgi.TusMiddleware, tmp_path, prefix)


def test_tuswsgi_to_its_drop_in(tmp_path, wheels):
    file, uploads = sample(tmp_path / "file", SIZE), tmp_path / "uploads"
    uploads.mkdir()
    metadata = {"filename": UNUSUAL_NAME, "type": "bin"}
    with peer("tuswsgi", uploads, wheels) as url:
        half = TusClient(url).uploader(str(file), chunk_size=10_000, metadata=metadata)
        half.upload(stop_at=HALF)
        told = head(half.url)[1]
        new = begin(url, file, stop=0)
        deferred = begin(url, file, length=-1)
        done = begin(url, file, stop=SIZE)
    assert run_import(uploads, "--from", "tuswsgi")[0] == 0

    with listening(TusMiddleware(app := Taking(), PATHS["tuswsgi"], tmp_dir=str(uploads))) as root:
        for field in ("upload-offset", "upload-length", "upload-metadata"):
            assert head(at(root, half.url))[1][field] == told[field]
        goes_on(at(root, half.url), file, half.offset)
        goes_on(at(root, new), file, 0)
        settles(at(root, deferred), file)
        assert head(at(root, done))[0] == 404
    assert app.taken == {
        upload_id(half.url): (file.read_bytes(), metadata),
        upload_id(new): (file.read_bytes(), {}),
        upload_id(deferred): (file.read_bytes(), {}),
    }
    assert (uploads / upload_id(done)).read_bytes() == file.read_bytes()


def test_plone_restapi_to_a_filter(tmp_path, wheels):
    file, uploads, store = sample(tmp_path / "file", SIZE), tmp_path / "uploads", tmp_path / "store"
    uploads.mkdir()
    metadata = {"filename": UNUSUAL_NAME, "content-type": "text/plain", "@type": "File"}
    with peer("plone", uploads, wheels) as url:
        half = TusClient(url).uploader(str(file), chunk_size=10_000, metadata=metadata)
        half.upload(stop_at=HALF)
        new = begin(url, file, stop=0)
    assert run_import(uploads, "--from", "plone", "--into", store)[0] == 0

    app = Taking()
    with listening(Filter(app, upload_path=PATHS["plone"], tmp_file_dir=str(store))) as root:
        goes_on(at(root, half.url), file, half.offset)
        goes_on(at(root, new), file, 0)
    assert app.taken == {
        upload_id(half.url): (file.read_bytes(), metadata | {"mode": "create"}),
        upload_id(new): (file.read_bytes(), {"mode": "create"}),
    }


@pytest.mark.tusd
def test_tusd_to_tus_serve(tmp_path, wheels):
    file, uploads, served = sample(tmp_path / "file", SIZE), tmp_path / "uploads", tmp_path / "served"
    uploads.mkdir()
    with peer("tusd", uploads, wheels) as url:
        half = TusClient(url).uploader(str(file), chunk_size=10_000, metadata={"filename": "half.bin"})
        half.upload(stop_at=HALF)
        deferred = begin(url, file, length=-1, Upload_Metadata="filename ZGVmZXJyZWQuYmlu")
        done = begin(url, file, stop=SIZE)
        first = begin(url, file, length=HALF, stop=HALF, Upload_Concat="partial")
        second = begin(url, file, length=SIZE, stop=HALF, Upload_Concat="partial")
        refused, _ = send("POST", url, Upload_Concat=f"final;{first} {second}")
        assert refused == 400, "tusd concatenates nothing that is unfinished"
    (served / ".tus").mkdir(parents=True)
    assert run_import(uploads, "--from", "tusd", "--into", served)[0] == 0

    port = free_port()
    arguments = ["tus", "serve", "--port", str(port), "--dir", served, "--path", PATHS["tusd"], "--workers", "1"]
    with command(arguments, tmp_path) as process:
        wait_for_port(port, process, tmp_path / "stderr")
        root = f"http://127.0.0.1:{port}"
        goes_on(at(root, half.url), file, half.offset)
        settles(at(root, deferred), file)
        assert head(at(root, done))[0] == 404
        parts = [at(root, first), at(root, second)]
        assert [head(part)[1]["upload-concat"] for part in parts] == ["partial"] * 2
        metadata = {"Upload_Metadata": "filename Ym90aC5iaW4="}
        assert send("POST", root + PATHS["tusd"], Upload_Concat=f"final;{' '.join(parts)}", **metadata)[0] == 201
        assert not (served / "both.bin").exists()
        goes_on(parts[1], file, HALF)
    for name in ("half.bin", "deferred.bin"):
        assert (served / name).read_bytes() == file.read_bytes()
    assert (served / "both.bin").read_bytes() == file.read_bytes()[:HALF] + file.read_bytes()
    assert (uploads / upload_id(done)).read_bytes() == file.read_bytes()


@pytest.mark.tusd
def test_tusd_that_runs_is_noticed(tmp_path, wheels):
    file, uploads = sample(tmp_path / "file", SIZE), tmp_path / "uploads"
    uploads.mkdir()
    with peer("tusd", uploads, wheels) as url:
        location = begin(url, file, stop=0)
        parts = urlsplit(location)
        with socket.create_connection((parts.hostname, parts.port)) as client:
            client.sendall(
                f"PATCH {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
                f"Content-Type: application/offset+octet-stream\r\nContent-Length: {SIZE}\r\n\r\n".encode()
                + b"x" * 10
            )
            wait_until(lambda: (uploads / upload_id(location)).stat().st_size == 10)
            status, _, error = run_import(uploads, "--from", "tusd")
    assert status == 1
    assert "stop it first" in error
    assert not list(uploads.glob("*.tus"))
    status, output, _ = run_import(uploads, "--from", "tusd", "--force")
    assert status == 0
    assert f"imported: {upload_id(location)}: 10 of {SIZE} bytes" in output


def upload_id(url: str) -> str:
    return url.rpartition("/")[2]


def settles(url: str, file: Path) -> None:
    """The length that was deferred becomes known with the rest of the bytes."""
    fields = head(url)[1]
    assert (fields["upload-offset"], fields["upload-defer-length"]) == (str(HALF), "1")
    rest = file.read_bytes()[HALF:]
    assert send("PATCH", url, rest, Upload_Offset=str(HALF), Upload_Length=str(SIZE))[0] == 204


def wait_until(condition, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# -- In the other process -----------------------------------------------------------------------------------------


def plone_application(directory: str, wheels: Path):
    """plone.restapi's services around its ``TUSUpload``, without the rest of Plone: that has no part in the files."""
    os.environ["TUS_TMP_FILE_DIR"] = directory
    source = wheels / "plone" / "restapi" / "services" / "content" / "tus.py"
    for line in source.read_text().splitlines():
        if line.startswith("from ") and line.split()[1].partition(".")[0] in OF_ZOPE:
            name = line.split()[1]
            for end in range(1, name.count(".") + 2):
                sys.modules.setdefault(".".join(name.split(".")[:end]), MagicMock())

    class Service:
        def __init__(self, context, request):
            self.context, self.request = context, request

        def reply(self):
            return ""

        def reply_no_content(self):
            self.request.response.setStatus(204)
            return ""

    sys.modules["plone.restapi.services"] = types.SimpleNamespace(Service=Service)
    sys.modules["zope.interface"] = types.SimpleNamespace(implementer=lambda *_: lambda cls: cls)
    spec = importlib.util.spec_from_file_location("restapi_tus", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def application(environ, start_response):
        request = ZopeRequest(environ)
        kind = {"POST": module.UploadPost, "HEAD": module.UploadHead, "PATCH": module.UploadPatch}
        service = kind[environ["REQUEST_METHOD"]](None, request)
        service.__name__ = "@tus-upload"
        if environ["REQUEST_METHOD"] != "POST":
            service.publishTraverse(request, environ["PATH_INFO"].rpartition("/")[2])
        service.reply()
        start_response(f"{request.status} It", [*request.headers.items(), ("Content-Length", "0")])
        return []

    return application


OF_ZOPE = {"AccessControl", "Acquisition", "Products", "plone", "zExceptions", "zope"}


class ZopeRequest:
    """What the services use of Zope's request and of its response."""

    def __init__(self, environ):
        self._environ = environ
        self._file = io.BytesIO(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        self.response = self
        self.status = 200
        self.headers = {}

    def getHeader(self, name, default=None):  # noqa: N802
        key = name.upper().replace("-", "_")
        return self._environ.get(key, self._environ.get(f"HTTP_{key}", default))

    def getURL(self):  # noqa: N802
        return f"http://{self._environ['HTTP_HOST']}{self._environ['PATH_INFO']}"

    def setHeader(self, name, value):  # noqa: N802
        self.headers[name] = value

    def setStatus(self, status, lock=None):  # noqa: N802
        self.status = status


def main(name: str, port: str, directory: str, wheels: str) -> None:
    if name == "plone":
        application = plone_application(directory, Path(wheels))
    else:
        sys.path.insert(0, wheels)
        import tuswsgi

        application = tuswsgi.TusMiddleware(accept, PATHS[name], tmp_dir=directory)
    with make_server("127.0.0.1", int(port), application) as server:
        server.serve_forever()


def accept(environ, start_response):
    start_response("200 OK", [("Content-Length", "0")])
    return []


if __name__ == "__main__":
    main(*sys.argv[1:])
