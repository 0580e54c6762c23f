"""Django, which is configured once in a process."""

import atexit
import os
import tempfile

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.urls import re_path

_views = {}


class _View:
    """The view of the test that runs."""

    def __call__(self, request):
        return _views["view"](request)

    @property
    def csrf_exempt(self):
        return getattr(_views["view"], "csrf_exempt", False)


urlpatterns = [re_path("", _View())]


def django_application(view):
    configure()
    _views["view"] = view
    return WSGIHandler()


def configure():
    """Configure Django, with a database in a temporary file for tests that need one."""
    if settings.configured:
        return
    handle, path = tempfile.mkstemp(suffix=".sqlite3")
    os.close(handle)
    atexit.register(os.unlink, path)
    settings.configure(
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["localhost"],
        LOGGING_CONFIG=None,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": path}},
    )
    django.setup()
