"""An endpoint that becomes resumable: the same view gets an ordinary request and a resumable one, and cannot tell."""

import gc
import hashlib
import json

import pytest

from tests.support.django_site import django_application
from tests.support.ietf import PARTIAL
from tests.support.subjects import OnLoop
from tests.support.wsgi import call
from tus import Filter
from tus.asgi import TusMiddleware

# The frameworks never close the files of the forms that they parse.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

URL = "/users/7/photos?album=summer"
UPLOAD_PATH = "/users/{user}/photos"
FILE = bytes(range(256)) * 40
LIMIT = "----limit"
FORM = (
    f'--{LIMIT}\r\nContent-Disposition: form-data; name="title"\r\n\r\nAt the séa\r\n'
    f'--{LIMIT}\r\nContent-Disposition: form-data; name="photo"; filename="sea.jpg"\r\n'
    "Content-Type: image/jpeg\r\n\r\n"
).encode() + FILE + f"\r\n--{LIMIT}--\r\n".encode()  # fmt: skip
KINDS = {
    "form": (f"multipart/form-data; boundary={LIMIT}", FORM),
    "urlencoded": ("application/x-www-form-urlencoded", b"title=At+the+sea&tag=a&tag=b"),
    "json": ("application/json", json.dumps({"title": "At the séa", "tags": [1, 2]}).encode()),
    "image": ("image/jpeg", FILE),
}


def summary(method, user, album, kind, fields, files, body):
    """What a view has parsed, as JSON that can be compared."""
    files = {name: [file[0], file[1], hashlib.sha256(file[2]).hexdigest()] for name, file in files.items()}
    whole = hashlib.sha256(body).hexdigest() if body is not None else None
    return json.dumps([method, user, album, kind, fields, files, whole])


# -- The views, which know nothing of uploads ---------------------------------------------------------------------


def flask_app():
    from flask import Flask, request

    app = Flask(__name__)

    @app.post("/users/<user>/photos")
    def photos(user):
        files = {name: (file.filename, file.mimetype, file.read()) for name, file in request.files.items()}
        fields = request.get_json() if request.is_json else request.form.to_dict(flat=False)
        body = None if files or fields else request.get_data()
        text = summary(request.method, user, request.args["album"], request.content_type, fields, files, body)
        return text, 201, {"Location": "/photos/1"}

    return app


def pyramid_app():
    from pyramid.config import Configurator
    from pyramid.response import Response

    def photos(request):
        is_form = request.content_type in ("multipart/form-data", "application/x-www-form-urlencoded")
        fields, files = {}, {}
        if is_form:
            for name, value in request.POST.items():
                if hasattr(value, "filename"):
                    files[name] = (value.filename, value.type, value.file.read())
                else:
                    fields.setdefault(name, []).append(value)
        elif request.content_type == "application/json":
            fields = request.json_body
        body = None if files or fields else request.body_file.read()
        kind = request.headers["Content-Type"]
        text = summary(request.method, request.matchdict["user"], request.GET["album"], kind, fields, files, body)
        return Response(text.encode(), status=201, headers={"Location": "/photos/1"})

    with Configurator() as config:
        config.add_route("photos", "/users/{user}/photos")
        config.add_view(photos, route_name="photos", request_method="POST")
        return config.make_wsgi_app()


def django_view(request):
    from django.http import HttpResponse

    files = {name: (file.name, file.content_type, file.read()) for name, file in request.FILES.items()}
    fields = {name: request.POST.getlist(name) for name in request.POST}
    if request.content_type == "application/json":
        fields = json.loads(request.body)
    body = None if files or fields else request.read()
    user, kind = request.path.split("/")[2], request.headers["Content-Type"]
    text = summary(request.method, user, request.GET["album"], kind, fields, files, body)
    return HttpResponse(text, status=201, headers={"Location": "/photos/1"})


def django_app():
    return django_application(django_view)


async def starlette_view(request):
    from starlette.responses import Response

    kind = request.headers["content-type"]
    fields, files, body = {}, {}, None
    if kind.startswith(("multipart", "application/x-www")):
        async with request.form() as form:
            for name, value in form.multi_items():
                if hasattr(value, "filename"):
                    files[name] = (value.filename, value.content_type, await value.read())
                else:
                    fields.setdefault(name, []).append(value)
    elif kind == "application/json":
        fields = await request.json()
    else:
        body = await request.body()
    text = summary(
        request.method, request.path_params["user"], request.query_params["album"], kind, fields, files, body
    )
    return Response(text, status_code=201, headers={"Location": "/photos/1"})


def starlette_app():
    from starlette.applications import Starlette
    from starlette.routing import Route

    return Starlette(routes=[Route("/users/{user}/photos", starlette_view, methods=["POST"])])


def fastapi_app():
    from fastapi import FastAPI, Request

    app = FastAPI()

    @app.post("/users/{user}/photos")
    async def photos(request: Request, user: str, album: str):
        return await starlette_view(request)

    return app


WSGI = {"flask": flask_app, "pyramid": pyramid_app, "django": django_app}
ASGI = {"starlette": starlette_app, "fastapi": fastapi_app}


@pytest.fixture(params=[*WSGI, *ASGI])
def apps(request, tmp_path):
    """The application alone, and the same one behind the middleware, whose default is ``send_file = false``."""
    options = {"upload_path": UPLOAD_PATH, "tmp_file_dir": str(tmp_path), "threads": False}
    if request.param in WSGI:
        app = WSGI[request.param]()
        wrapped = Filter(app, **options)
        yield app, wrapped
        wrapped.service.close()
        gc.collect()  # the files of the forms now, and not in a test that minds
    else:
        app = ASGI[request.param]()
        wrapped = TusMiddleware(app, **options)
        yield OnLoop(app, "asyncio"), OnLoop(wrapped, "asyncio")
        wrapped.service.close()
        gc.collect()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_view_parses_the_same_values(apps, kind):
    app, wrapped = apps
    media_type, body = KINDS[kind]
    described = {"Content-Type": media_type}
    plain = call(app, "POST", URL, described, body, validate=False)
    assert plain.status == 201
    assert json.loads(plain.body)[:3] == ["POST", "7", "summer"]
    behind = call(wrapped, "POST", URL, described, body, validate=False)
    assert (behind.status, behind.body, behind["Location"]) == (201, plain.body, plain["Location"]), "untouched"
    # The same request with one more field, in one piece ...
    ietf = {"Upload-Draft-Interop-Version": "9"}
    whole = call(wrapped, "POST", URL, described | ietf | {"Upload-Complete": "?1"}, body, validate=False)
    assert (whole.status, whole.body, whole["Location"]) == (201, plain.body, plain["Location"])
    # ... and in two, as after a cut.
    half = len(body) // 2
    begun = {"Upload-Complete": "?0", "Upload-Length": str(len(body))}
    url = call(wrapped, "POST", URL, described | ietf | begun, body[:half], validate=False)["Location"]
    rest = {"Content-Type": PARTIAL, "Upload-Offset": str(half), "Upload-Complete": "?1"}
    resumed = call(wrapped, "PATCH", url, ietf | rest, body[half:], validate=False)
    assert (resumed.status, resumed.body, resumed["Location"]) == (201, plain.body, plain["Location"])
    assert resumed["Upload-Complete"] == "?1"
