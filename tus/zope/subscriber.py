"""A subscriber before traversal that keeps upload requests away from WebDAV.

Zope takes a request other than GET, POST and HEAD for that of a WebDAV client, which may not reach a view. Its root
object also responds to HEAD itself. So the path of an upload request is changed to name the view explicitly.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tus.adapters.zope import install_stand_in

#: The views of this package and of Plone that receive uploads.
VIEW_NAMES = ("tus", "fileUpload")

_HAS_ID = ("HEAD", "PATCH", "DELETE", "GET")


def prepare_views(*names: str) -> Callable[[Any], None]:
    """Return a subscriber to ``IPubStart`` for the views with these names.

    It prepares each upload request, so that it reaches its view, and can run again after a conflict.
    """
    pattern = re.compile(rf"(.*/)(?:@@)?({'|'.join(map(re.escape, names))})(/[0-9a-f]{{32}})?/?")

    def prepare(event: Any) -> None:
        request = event.request
        match = pattern.fullmatch(request.environ.get("PATH_INFO", ""))
        if match is None:
            return
        method = request.environ["REQUEST_METHOD"]
        if method == "POST" or (method in _HAS_ID and match[3]) or method == "OPTIONS":
            install_stand_in(request)
        if (method in _HAS_ID and match[3]) or method == "OPTIONS":
            request.maybe_webdav_client = 0
            request.environ["PATH_INFO"] = f"{match[1]}@@{match[2]}{match[3] or ''}"

    return prepare


prepare = prepare_views(*VIEW_NAMES)
