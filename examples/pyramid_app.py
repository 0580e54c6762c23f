"""Uploads in a Pyramid view: ``python examples/pyramid_app.py [PORT]``, then upload to http://127.0.0.1:PORT/files."""

import os
import sys
from pathlib import Path

from pyramid.config import Configurator
from pyramid.response import Response
from waitress import serve

from tus import Service, Tus, WebobAdapter

ARRIVED = Path(os.environ.get("ARRIVED", "arrived"))
service = Service(tmp_file_dir=ARRIVED.parent / "unfinished")


def index(request):
    lines = [f"{file.name}, {file.stat().st_size} bytes" for file in sorted(ARRIVED.iterdir())]
    return Response("\n".join(["Arrived:", *lines]), content_type="text/plain")


def upload(request):
    adapter = WebobAdapter(request)
    # The logged-in user owns the upload; for other users it does not exist.
    with Tus(adapter, service=service, principal=request.authenticated_userid) as tus:
        if not tus.valid:
            return Response("Use a tus client.", status=404)
        tus.handle()
        if tus.upload_finished:
            tus.upload.save_to(ARRIVED)  # under a free name, once, however often the file is offered
            tus.cleanup_file()  # accepts the file; without this it is kept and offered again
    return adapter.resp


def main():
    ARRIVED.mkdir(exist_ok=True)
    with Configurator() as config:
        config.add_route("index", "/")
        config.add_view(index, route_name="index")
        config.add_route("upload", "/files*upload_id")
        config.add_view(upload, route_name="upload")
        return config.make_wsgi_app()


if __name__ == "__main__":
    # waitress buffers a whole request before the view runs, so clients should send chunks of some MiB.
    serve(main(), listen=f"127.0.0.1:{sys.argv[1] if len(sys.argv) > 1 else 6543}")
