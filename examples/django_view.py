"""Uploads in a Django view: ``python examples/django_view.py [PORT]``, then upload to http://127.0.0.1:PORT/files."""

import os
import sys
from pathlib import Path

import django
from django.conf import settings
from django.core.files.storage import FileSystemStorage
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import re_path
from django.views.decorators.csrf import csrf_exempt

from tus import Service, Tus
from tus.adapters.django import DjangoAdapter

ARRIVED = Path(os.environ.get("ARRIVED", "arrived"))

if not settings.configured:
    settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"], SECRET_KEY="for this example alone")
    django.setup()
storage = FileSystemStorage(ARRIVED)
service = Service(tmp_file_dir=ARRIVED.parent / "unfinished")


def index(request):
    lines = [f"{name}, {storage.size(name)} bytes" for name in sorted(storage.listdir("")[1])]
    return HttpResponse("\n".join(["Arrived:", *lines]), content_type="text/plain")


@csrf_exempt  # a tus client sends no form; restrict uploads with principal= or authorize=
def upload(request):
    adapter = DjangoAdapter(request)
    with Tus(adapter, service=service) as tus:
        if not tus.valid:
            return HttpResponse("Use a tus client.", status=404)
        tus.handle()
        if tus.upload_finished:
            tus.upload.save_to(storage.location)  # for a storage elsewhere, open the file by tus.upload.open()
            tus.cleanup_file()  # accepts the file, in an atomic block after its commit
    return adapter.resp


urlpatterns = [re_path(r"^$", index), re_path(r"^files(?:/[0-9a-f]{32})?/?$", upload)]

ARRIVED.mkdir(exist_ok=True)
application = get_wsgi_application()

if __name__ == "__main__":
    from gunicorn.app.wsgiapp import run

    port = sys.argv[1] if len(sys.argv) > 1 else "8000"
    sys.argv = ["gunicorn", "--threads", "8", "-b", f"127.0.0.1:{port}", "--pythonpath", "examples", "django_view"]
    run()
