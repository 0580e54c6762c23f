"""The application in frameworks, with the checks and transactions that sites turn on. Each tells the receiver."""

import os
import random
from pathlib import Path

from tests.acceptance.site import take_in

_HOST = "127.0.0.1"  # as the clients know it


def flask(options):
    from flask import Flask, Response, request

    from tus import Filter

    app = Flask(__name__)
    app.config["TRUSTED_HOSTS"] = [_HOST]

    @app.post("/files")
    @app.patch("/files/<upload_id>")
    def finished(upload_id=None):
        status, fields, blocks = take_in(request.environ["tus.upload"], request.get_data)
        return Response(blocks, status, fields)

    return Filter(app, **options)


def django(options):
    """With the middleware of ``startproject``, redirects to https, and ATOMIC_REQUESTS."""
    import django
    from django.conf import settings

    directory = Path(options["tmp_file_dir"]).parent
    settings.configure(
        ROOT_URLCONF=_Urls,
        ALLOWED_HOSTS=[_HOST],
        SECRET_KEY=os.urandom(20).hex(),
        LOGGING_CONFIG=None,
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": directory / "database",
                "ATOMIC_REQUESTS": True,
                "OPTIONS": {"timeout": 20},
            }
        },
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.middleware.clickjacking.XFrameOptionsMiddleware",
        ],
    )
    django.setup()
    from django.core.handlers.wsgi import WSGIHandler
    from django.db import connection
    from django.http import StreamingHttpResponse
    from django.urls import re_path
    from django.views.decorators.csrf import csrf_exempt

    from tus import Filter

    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS files (key TEXT PRIMARY KEY, name TEXT)")
    connection.close()

    @csrf_exempt
    def finished(request):
        upload = request.environ["tus.upload"]
        with connection.cursor() as cursor:
            cursor.execute("INSERT OR IGNORE INTO files VALUES (%s, %s)", [upload.key, upload.filename])
        status, fields, blocks = take_in(upload, request.read)
        return StreamingHttpResponse(blocks, status=status, headers=dict(fields))

    _Urls.urlpatterns = [re_path("^files", finished)]
    return Filter(WSGIHandler(), **options)


class _Urls:
    urlpatterns = ()


def pyramid(options):
    """A view that receives uploads by itself, under pyramid_tm and pyramid_retry; every third commit conflicts."""
    from pyramid.config import Configurator
    from pyramid.response import Response
    from transaction.interfaces import TransientError

    from tus import Service, Tus, WebobAdapter

    service = Service(tmp_file_dir=options["tmp_file_dir"], name="view")

    class Database:
        def __init__(self, manager):
            self.transaction_manager = manager

        def tpc_vote(self, transaction):
            if random.random() < 1 / 3:
                raise TransientError("another request was faster")

        def tpc_begin(self, transaction):
            pass

        commit = tpc_finish = tpc_abort = abort = tpc_begin

        def sortKey(self):  # noqa: N802 - the name of transaction's interface
            return "database"

    def files(request):
        adapter = WebobAdapter(request)
        with Tus(adapter, service=service) as tus:
            if not tus.valid:
                return Response("nothing", status=404)
            tus.handle()
            if tus.upload_finished:
                status, _, blocks = take_in(tus.upload, lambda: tus.upload.open().read())
                text = b"".join(blocks).decode()
                request.tm.get().join(Database(request.tm))
                if status == 200:
                    tus.cleanup_file()
                elif status == 415:
                    tus.reject_file(text, 415)
                else:
                    tus.postpone_file(text)
        return adapter.resp

    settings = {"retry.attempts": 3, "tm.manager_hook": "pyramid_tm.explicit_manager"}
    with Configurator(settings=settings) as config:
        config.include("pyramid_retry")
        config.include("pyramid_tm")
        config.add_route("files", "/files*id")
        config.add_view(files, route_name="files")
        return config.make_wsgi_app()


def fastapi(options):
    from fastapi import FastAPI, Request
    from fastapi.responses import StreamingResponse
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from tus.asgi import TusMiddleware

    app = FastAPI()
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[_HOST])

    @app.post("/files")
    @app.patch("/files/{upload_id}")
    def finished(request: Request):
        upload = request.scope["tus.upload"]
        status, fields, blocks = take_in(upload, lambda: upload.open().read())
        return StreamingResponse(iter(blocks), status, dict(fields))

    return TusMiddleware(app, **options)


def starlette(options):
    """Behind the middleware that checks the Host, and the one that answers other origins."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.middleware import Middleware
    from starlette.middleware.cors import CORSMiddleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    from tus.asgi import TusMiddleware

    async def finished(request):
        body = await request.body()
        status, fields, blocks = await run_in_threadpool(take_in, request.scope["tus.upload"], lambda: body)
        return StreamingResponse(iter(blocks), status, dict(fields))

    middleware = [
        Middleware(TrustedHostMiddleware, allowed_hosts=[_HOST]),
        Middleware(CORSMiddleware, allow_origins=["https://example.org"], expose_headers=["Location"]),
        Middleware(TusMiddleware, **options),
    ]
    routes = [Route("/files", finished, methods=["POST"]), Route("/files/{id}", finished, methods=["PATCH"])]
    return Starlette(routes=routes, middleware=middleware)


FRAMEWORKS = {"flask": flask, "django": django, "pyramid": pyramid, "fastapi": fastapi, "starlette": starlette}
