"""docs/cors.rst: each recipe, run as it is printed, lets a page of another origin upload, and no other page.

The page follows the Fetch standard, see tests/support/fetch.py.
"""

import http.client
import os
import signal
import subprocess
import sys
from base64 import b64encode

import pytest

import tus
from tests.support.documents import blocks
from tests.support.fetch import NetworkError, Page
from tests.support.serving import free_port, wait_for_port
from tests.support.subjects import OnLoop
from tests.support.wsgi import OCTETS, TUS, call

RECIPES = {"options": 0, "function": 1, "Starlette": 2, "FastAPI": 3, "Flask": 4}
OURS = {"options": "https://pr-7.preview.example.org", "function": "https://uploads.customer.example"}
DATA = b"hello from elsewhere"


@pytest.fixture(params=[*RECIPES, "Django"])
def recipe(request, tmp_path, monkeypatch):
    """The name of a recipe, and what sends requests to its application, in a fresh directory."""
    monkeypatch.chdir(tmp_path)
    if request.param == "Django":
        with DjangoSite(tmp_path) as send:
            yield request.param, send
        return
    namespace = {"__name__": "recipe"}
    exec(blocks("python", "docs/cors.rst")[RECIPES[request.param]], namespace)
    app = namespace.get("app") or namespace["application"]
    app = OnLoop(app, "asyncio") if request.param in ("Starlette", "FastAPI") else app

    def send(method, url, headers, body):
        # Flask adds a Content-Type to a 204, which the validator does not allow.
        reply = call(app, method, url, headers, body, validate=request.param != "Flask")
        return reply.status, reply.header_list, reply.body

    yield request.param, send


class DjangoSite:
    """The settings and the URLs of the page as a project, under gunicorn."""

    def __init__(self, directory):
        settings, urls = blocks("python", "docs/cors.rst")[5:7]
        site = 'SECRET_KEY = "for this test alone"\nALLOWED_HOSTS = ["127.0.0.1"]\nROOT_URLCONF = "urls"\n'
        (directory / "settings.py").write_text(site + settings)
        (directory / "urls.py").write_text(urls)
        (directory / "wsgi.py").write_text(
            "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n"
        )
        self._directory = directory

    def __enter__(self):
        port, log = free_port(), self._directory / "log"
        command = [sys.executable, "-m", "gunicorn", "--threads", "4", "-b", f"127.0.0.1:{port}", "wsgi"]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=self._directory,
                env=os.environ | {"DJANGO_SETTINGS_MODULE": "settings"},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_for_port(port, self._process, log)

        def send(method, url, headers, body):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request(method, url, body or None, headers)
            with connection.getresponse() as response:
                content = response.read()
            connection.close()
            return response.status, response.getheaders(), content

        return send

    def __exit__(self, *error):
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def landed():
    """The data of the files that have arrived in the spool."""
    files = []
    while True:
        try:
            with tus.spool("arrived").claim(timeout=0) as upload, open(upload.path, "rb") as file:
                files.append((upload.filename, file.read()))
        except tus.SpoolEmpty:
            return files


def test_a_page_of_the_origin_uploads(recipe):
    name, send = recipe
    page = Page(send, OURS.get(name, "https://app.example.org"), credentials=name != "function")
    described = {"Upload-Metadata": f"filename {b64encode(b'a.txt').decode()}"}
    created = page.fetch("POST", "/files", TUS | described | {"Upload-Length": str(len(DATA))})
    assert created.status == 201
    url = created["Location"]
    path = "/" + url.partition("://")[2].partition("/")[2]
    appended = page.fetch("PATCH", path, TUS | OCTETS | {"Upload-Offset": "0"}, DATA[:5])
    assert (appended.status, appended["Upload-Offset"]) == (204, "5")
    wrong = page.fetch("PATCH", path, TUS | OCTETS | {"Upload-Offset": "7"}, DATA[7:])
    assert (wrong.status, wrong["Upload-Offset"]) == (409, "5")
    asked = page.fetch("HEAD", path, TUS)
    assert (asked.status, asked["Upload-Offset"], asked["Upload-Length"]) == (200, "5", str(len(DATA)))
    assert asked["Upload-Expires"]
    last = page.fetch("PATCH", path, TUS | OCTETS | {"Upload-Offset": "5"}, DATA[5:])
    assert (last.status, last["Upload-Offset"], last["Tus-Resumable"]) == (204, str(len(DATA)), "1.0.0")
    assert landed() == [("a.txt", DATA)]
    removed = page.fetch("POST", "/files", TUS | {"Upload-Length": "1"})["Location"]
    removed = "/" + removed.partition("://")[2].partition("/")[2]
    assert page.fetch("DELETE", removed, TUS).status == 204
    assert page.fetch("HEAD", removed, TUS).status in (404, 410)
    assert {method for method, _ in page.preflights} >= {"POST", "PATCH", "HEAD", "DELETE"}


def test_a_page_uploads_by_the_ietf_protocol(recipe):
    name, send = recipe
    page = Page(send, OURS.get(name, "https://app.example.org"), credentials=name != "function")
    draft = {"Upload-Draft-Interop-Version": "10"}
    fields = draft | {"Upload-Complete": "?0", "Content-Type": "text/plain", "Content-Disposition": 'a; filename="b"'}
    created = page.fetch("POST", "/files", fields)  # without bytes, so that there is no interim response to skip
    assert (created.status, created["Upload-Complete"], created["Upload-Offset"]) == (201, "?0", "0")
    assert created["Upload-Limit"]
    path = "/" + created["Location"].partition("://")[2].partition("/")[2]
    asked = page.fetch("HEAD", path, draft)
    assert (asked.status, asked["Upload-Offset"]) == (204, "0")
    fields = draft | {"Upload-Complete": "?1", "Upload-Offset": "0", "Content-Type": "application/partial-upload"}
    last = page.fetch("PATCH", path, fields, DATA)
    assert (last.status, last["Upload-Complete"]) == (204, "?1")
    assert landed() == [("b", DATA)]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://app.example.org", "https://evilexample.org", "null"]
)
def test_a_page_of_another_origin_does_not(recipe, origin):
    _, send = recipe
    for credentials in (False, True):
        page = Page(send, origin, credentials)
        with pytest.raises(NetworkError):
            page.fetch("POST", "/files", TUS | {"Upload-Length": "5"})
    assert landed() == []


def test_names_of_the_site(tmp_path, monkeypatch):
    """The first recipe: a field that the page sends, and the lifetime of the permission."""
    monkeypatch.chdir(tmp_path)
    namespace = {}
    exec(blocks("python", "docs/cors.rst")[0], namespace)

    def send(method, url, headers, body):
        reply = call(namespace["application"], method, url, headers, body)
        return reply.status, reply.header_list, reply.body

    page = Page(send, "https://app.example.org", credentials=True)
    done = page.fetch("POST", "/files", TUS | OCTETS | {"Upload-Length": "2", "X-CSRFToken": "t"}, b"hi")
    assert done.status == 201
    ((_, preflight),) = page.preflights
    assert preflight["access-control-max-age"] == "600"
    with pytest.raises(NetworkError, match="x-other"):
        page.fetch("POST", "/files", TUS | {"Upload-Length": "2", "X-Other": "t"})
    assert [data for _, data in landed()] == [b"hi"]


def test_without_the_exposed_names_a_client_finds_no_location():
    """What the page warns of, so that the checker is known to see it."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.cors import CORSMiddleware

    from tus.asgi import TusMiddleware

    app = Starlette(
        middleware=[
            Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"]),
            Middleware(TusMiddleware, upload_path="/files", store="memory:", send_file=True),
        ]
    )

    def send(method, url, headers, body):
        reply = call(OnLoop(app, "asyncio"), method, url, headers, body)
        return reply.status, reply.header_list, reply.body

    created = Page(send, "https://app.example.org").fetch("POST", "/files", TUS | {"Upload-Length": "1"})
    assert created.status == 201
    with pytest.raises(NetworkError, match="cannot read Location"):
        created["Location"]
