"""Frameworks as sites run them: they check the Host, the scheme, a token or the size of each request by themselves."""

import pytest

from tests.support.django_site import django_application
from tests.support.subjects import OnLoop
from tests.support.wsgi import OCTETS, TUS, call
from tus import Filter
from tus.asgi import TusMiddleware
from tus.models import Outcome, State

URL = "https://example.org/files"
PROXIED = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"}
DATA = b"x" * 3_000_000  # more than Django reads into memory by default


class Site:
    """An application that is down as long as ``is_down``, and what has arrived."""

    def __init__(self, tmp_path, make, **options):
        self.is_down, self.arrived = True, []
        self.options = {"upload_path": "/files", "tmp_file_dir": str(tmp_path), "threads": False} | options
        self.wrapped = make(self)
        self.app = OnLoop(self.wrapped, "asyncio") if isinstance(self.wrapped, TusMiddleware) else self.wrapped

    def take(self, upload):
        """Return the status of the view's response."""
        if self.is_down:
            return 503
        with open(upload.path, "rb") as file:
            self.arrived.append(file.read())
        return 204

    def upload(self, **headers):
        """Upload a file, and return its record and the reply to the last request."""
        fields = TUS | PROXIED | headers
        url = call(self.app, "POST", URL, fields | {"Upload-Length": str(len(DATA))})["Location"]
        reply = call(self.app, "PATCH", url, fields | OCTETS | {"Upload-Offset": "0"}, DATA, validate=False)
        return self.wrapped.service.store.load(url.rpartition("/")[2]), reply

    def offer_without_a_client(self):
        return [outcome for _, outcome in self.wrapped.backlog.run(everything=True)]


def django_site(site):
    from django.http import HttpResponse
    from django.views.decorators.csrf import csrf_exempt

    @csrf_exempt
    def view(request):
        return HttpResponse(status=site.take(request.environ["tus.upload"]))

    return Filter(django_application(view), **site.options)


@pytest.fixture
def django_in_production():
    from django.test import override_settings

    django_application(None)  # configures Django
    settings = override_settings(
        ALLOWED_HOSTS=["example.org"],
        SECURE_SSL_REDIRECT=True,
        SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.middleware.clickjacking.XFrameOptionsMiddleware",
        ],
    )
    with settings:
        yield


def flask_site(site):
    from flask import Flask, request

    app = Flask(__name__)
    app.config["TRUSTED_HOSTS"] = ["example.org"]

    @app.post("/files")
    @app.patch("/files/<upload_id>")
    def finished(upload_id=None):
        return "", site.take(request.environ["tus.upload"])

    return Filter(app, **site.options)


def pyramid_site(site):
    from pyramid.config import Configurator
    from pyramid.response import Response

    with Configurator() as config:
        config.set_default_csrf_options(require_csrf=True)
        config.add_route("files", "/files*id")
        config.add_view(
            lambda request: Response(status=site.take(request.environ["tus.upload"])),
            route_name="files",
            require_csrf=False,
        )
        return Filter(config.make_wsgi_app(), **site.options)


def starlette_site(site):
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import Response
    from starlette.routing import Route

    def finished(request):
        return Response(status_code=site.take(request.scope["tus.upload"]))

    routes = [Route("/files", finished, methods=["POST"]), Route("/files/{id}", finished, methods=["PATCH"])]
    middleware = [Middleware(TrustedHostMiddleware, allowed_hosts=["example.org"]), Middleware(HTTPSRedirectMiddleware)]
    return TusMiddleware(Starlette(routes=routes, middleware=middleware), **site.options)


def fastapi_site(site):
    from fastapi import FastAPI, Request, Response
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = FastAPI()
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["example.org"])

    @app.post("/files")
    @app.patch("/files/{upload_id}")
    def finished(request: Request):
        return Response(status_code=site.take(request.scope["tus.upload"]))

    return TusMiddleware(app, **site.options)


@pytest.fixture(params=[django_site, flask_site, pyramid_site, starlette_site, fastapi_site])
def make(request):
    if request.param is django_site:
        request.getfixturevalue("django_in_production")
    return request.param


@pytest.mark.parametrize("handover", ["request", "background"])
def test_a_file_arrives_without_its_client(make, tmp_path, handover):
    """After a failure, or in the background; the checks of the site see what they saw of the client."""
    site = Site(tmp_path, make, handover=handover)
    record, reply = site.upload()
    assert reply.status == (503 if handover == "request" else 204)
    site.is_down = False
    assert site.offer_without_a_client() == [Outcome.ACCEPTED]
    assert site.arrived == [DATA]
    assert site.wrapped.service.store.load(record.id).state == State.ACCEPTED


def test_a_file_is_accepted_at_once(make, tmp_path):
    site = Site(tmp_path, make)
    site.is_down = False
    record, reply = site.upload()
    assert (reply.status, site.arrived) == (204, [DATA])
    assert record.state == State.ACCEPTED


@pytest.mark.parametrize("wrap", [Filter, TusMiddleware])
def test_a_redirection_of_a_guard_accepts_nothing(tmp_path, wrap):
    """Starlette's ``requires`` sends a 303 to the page for logging in, before the view sees the file."""

    def application(environ, start_response):
        start_response("303 See Other", [("Content-Type", "text/plain"), ("Location", "/login")])
        return [b""]

    async def on_loop(scope, receive, send):
        await send({"type": "http.response.start", "status": 303, "headers": [(b"location", b"/login")]})
        await send({"type": "http.response.body"})

    app = wrap(
        application if wrap is Filter else on_loop, upload_path="/files", tmp_file_dir=str(tmp_path), threads=False
    )
    fields = {"Upload-Draft-Interop-Version": "9", "Upload-Complete": "?1", "Content-Type": "image/png"}
    reply = call(app if wrap is Filter else OnLoop(app, "asyncio"), "POST", "/files", fields, b"data", validate=False)
    assert (reply.status, reply["Upload-Complete"]) == (503, "?0")
    (kept,) = app.service.list()
    assert (kept.state, kept.attempts) == (State.COMPLETE, 1)
    with open(kept.path, "rb") as file:
        assert file.read() == b"data"
    app.service.close()


@pytest.mark.parametrize("answer", ["a guard without its cookie", "a csrf check", "a body that is too large"])
def test_what_django_refuses_by_itself_is_kept(django_in_production, tmp_path, answer):
    from django.http import HttpResponse
    from django.views.decorators.csrf import csrf_exempt

    @csrf_exempt
    def view(request):
        if answer == "a guard without its cookie":
            return HttpResponse("Log in.", status=403)
        request.body  # noqa: B018 - over DATA_UPLOAD_MAX_MEMORY_SIZE
        return HttpResponse(status=204)

    view.csrf_exempt = answer != "a csrf check"
    site = Site(tmp_path, lambda site: Filter(django_application(view), **site.options), send_file=True)
    record, reply = site.upload()
    assert reply.status == (400 if answer == "a body that is too large" else 403)
    assert (record.state, record.attempts) == (State.COMPLETE, 1)
    with open(record.path, "rb") as file:
        assert file.read() == DATA
