"""Django, which is configured once in a process."""

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.urls import re_path

_views = {}

urlpatterns = [re_path("", lambda request: _views["view"](request))]


def django_application(view):
    if not settings.configured:
        settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["localhost"], LOGGING_CONFIG=None)
        django.setup()
    _views["view"] = view
    return WSGIHandler()
