"""The finished file reaches real ASGI applications, and what they answer reaches the client; in one process."""

import hashlib
import random
import subprocess
import sys

import pytest
from django.conf import settings
from fastapi import FastAPI
from fastapi import Request as FastRequest
from litestar import Litestar, asgi
from litestar import Request as LitestarRequest
from litestar import Response as LitestarResponse
from litestar import route as litestar_route
from litestar.types import Receive, Scope, Send
from quart import Quart
from quart import request as quart_request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response as StarletteResponse
from starlette.responses import StreamingResponse
from starlette.routing import Mount, Route

from tests.support.django_site import django_application
from tests.support.subjects import PATH, OnLoop, Subject
from tests.support.wsgi import call
from tus.asgi import TusApp, TusMiddleware

CONTENT = random.Random(3).randbytes(3_000_000)
METHODS = ["GET", "POST", "PATCH"]


class Framework(Subject):
    """An application of a framework, which reads the body by the framework's own means."""

    def make(self):
        self.seen = []
        self.status = 200
        options = {"upload_path": PATH, "send_file": True, "reject_statuses": "422"} | self.options
        return OnLoop(getattr(self, self.kind)(options), "asyncio")

    async def take(self, scope, method, blocks):
        upload = scope.get("tus.upload")
        if upload is None:
            return "home"
        hasher, size = hashlib.sha256(), 0
        async for block in blocks:
            size += len(block)
            hasher.update(block)
        self.seen.append((upload.filename, method, scope["path"], size, hasher.hexdigest()))
        return "taken"

    def starlette(self, options):
        async def view(request: StarletteRequest):
            text = await self.take(request.scope, request.method, request.stream())
            return StarletteResponse(text, self.status, {"X-App": "was here"})

        routes = [Route("/", view), Route("/{path:path}", view, methods=METHODS)]
        return Starlette(routes=routes, middleware=[Middleware(TusMiddleware, **options)])

    def starlette_streaming(self, options):
        async def view(request: StarletteRequest):
            text = await self.take(request.scope, request.method, request.stream())

            async def blocks():
                for letter in text:
                    yield letter

            return StreamingResponse(blocks(), self.status, {"X-App": "was here"})

        return TusMiddleware(Starlette(routes=[Route("/{path:path}", view, methods=METHODS)]), **options)

    def starlette_behind_a_function(self, options):
        """Its middleware made of a function puts its own ``receive`` in between."""
        app = self.starlette(options)

        async def other(request, call_next):
            return await call_next(request)

        app.add_middleware(BaseHTTPMiddleware, dispatch=other)
        return app

    def fastapi(self, options):
        app = FastAPI()

        @app.api_route("/{path:path}", methods=METHODS)
        async def view(request: FastRequest):
            text = await self.take(request.scope, request.method, request.stream())
            return StarletteResponse(text, self.status, {"X-App": "was here"})

        app.add_middleware(TusMiddleware, **options)
        return app

    def litestar(self, options):
        @litestar_route("/{path:path}", http_method=METHODS)
        async def view(request: LitestarRequest) -> LitestarResponse[str]:
            text = await self.take(request.scope, request.method, request.stream())
            return LitestarResponse(
                text, status_code=self.status, headers={"X-App": "was here"}, media_type="text/plain"
            )

        return TusMiddleware(Litestar([view], request_max_body_size=None), **options)

    def quart(self, options):
        app = Quart(__name__)

        @app.route("/", defaults={"path": ""}, methods=METHODS)
        @app.route("/<path:path>", methods=METHODS)
        async def view(path):
            text = await self.take(quart_request.scope, quart_request.method, quart_request.body)
            return text, self.status, {"X-App": "was here"}

        app.asgi_app = TusMiddleware(app.asgi_app, **options)
        return app

    def django(self, options):
        from django.core.handlers.asgi import ASGIHandler
        from django.http import HttpResponse
        from django.urls import re_path

        async def view(request):
            async def blocks():
                while block := request.read(65536):
                    yield block

            text = await self.take(request.scope, request.method, blocks())
            return HttpResponse(text, status=self.status, headers={"X-App": "was here"})

        urls = type(sys)("urls")
        urls.urlpatterns = [re_path("", view)]
        self.monkeypatch.setattr(settings, "ROOT_URLCONF", urls)
        return TusMiddleware(ASGIHandler(), **options)


KINDS = ("starlette", "starlette_streaming", "starlette_behind_a_function", "fastapi", "litestar", "quart", "django")


@pytest.fixture(params=KINDS)
def framework(request, tmp_path, monkeypatch):
    django_application(None)  # so that Django is configured
    kind = type(request.param, (Framework,), {"kind": request.param, "monkeypatch": monkeypatch})
    return kind(tmp_file_dir=str(tmp_path))


def test_the_file_reaches_the_application(framework):
    url = framework.url(len(CONTENT), {"Upload-Metadata": "filename YS50eHQ="})
    assert framework.patch(url, 0, CONTENT[:1_000_000]).status == 204
    reply = framework.patch(url, 1_000_000, CONTENT[1_000_000:])
    assert (reply.status, reply["X-App"], reply["Upload-Offset"]) == (204, "was here", str(len(CONTENT)))
    digest = hashlib.sha256(CONTENT).hexdigest()
    path = url.removeprefix("http://localhost")
    assert framework.seen == [("a.txt", "PATCH", path, len(CONTENT), digest)]
    assert framework.create(5, body=b"hello").status == 201
    assert framework.seen[1][1:4] == ("POST", PATH, 5)


def test_an_empty_file_too(framework):
    assert framework.create(0).status == 201
    assert framework.seen[0][1:4] == ("POST", PATH, 0)


def test_a_body_that_is_cut(framework):
    url = framework.url(len(CONTENT))
    assert framework.patch(url, 0, CONTENT[:500_000], length=len(CONTENT))["Upload-Offset"] == "500000"
    assert framework.patch(url, 500_000, CONTENT[500_000:]).status == 204
    assert framework.seen[0][4] == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize("status", [422, 503])
def test_what_it_answers_is_the_clients(framework, status):
    framework.status = status
    url = framework.url(5)
    reply = framework.patch(url, 0, b"hello")
    assert (reply.status, reply["X-App"], reply.body) == (status, "was here", b"taken")
    framework.status = 200
    assert framework.patch(url, 5).status == (422 if status == 422 else 204)


def test_elsewhere_it_is_alone(framework):
    reply = call(framework.app, "GET", "/elsewhere", {})
    assert (reply.status, reply.body, reply.get("Tus-Resumable")) == (200, b"home", None)


# -- TusApp, mounted ------------------------------------------------------------------------------------------------


def starlette_mount(app):
    return Starlette(routes=[Mount("/files", app)])


def fastapi_mount(app):
    outer = FastAPI()
    outer.mount("/files", app)
    return outer


def litestar_mount(app):
    @asgi("/files", is_mount=True, copy_scope=True)
    async def files(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "root_path": "/files"}, receive, send)

    return Litestar([files])


def quart_mount(app):
    from hypercorn.middleware import DispatcherMiddleware

    return DispatcherMiddleware({"/files": app})


@pytest.mark.parametrize("mount", [starlette_mount, fastapi_mount, litestar_mount, quart_mount])
def test_it_can_be_mounted(tmp_path, mount):
    taken = []

    async def on_finished(upload):
        with open(upload.path, "rb") as file:
            taken.append(file.read())

    class Mounted(Subject):
        def make(self):
            return OnLoop(mount(TusApp(on_finished=on_finished, **self.options)), "asyncio")

        def send(self, method, url=PATH, *arguments, **how):
            return super().send(method, url + "/" if url.endswith(PATH) else url, *arguments, **how)

    subject = Mounted(tmp_file_dir=str(tmp_path))
    url = subject.url(len(CONTENT))
    assert url.startswith("http://localhost/files/")
    assert subject.patch(url, 0, CONTENT[:10]).status == 204
    assert subject.offset(url) == 10
    assert subject.patch(url, 10, CONTENT[10:]).status == 204
    assert taken == [CONTENT]


def test_it_says_what_is_missing():
    code = "import sys; sys.modules['anyio'] = None; import tus; import tus.asgi"
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert "pip install anyio" in result.stderr
