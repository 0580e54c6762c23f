"""Before traversal: uploads are no WebDAV.

Zope takes requests other than GET, POST and HEAD for a WebDAV client's, which may not reach a view; and its root has an
answer of its own to HEAD. So their path is made to name the view as one.
"""

from __future__ import annotations

import re
from typing import Any

from tus.adapters.zope import Replayable

#: The views that receive uploads.
VIEW_NAMES = ("tus", "fileUpload")

_PATH = re.compile(rf"(.*/)(?:@@)?({'|'.join(VIEW_NAMES)})(/[0-9a-f]{{32}})?/?")
_HAS_ID = ("HEAD", "PATCH", "DELETE", "GET")


def prepare(event: Any) -> None:
    """Let a request reach the view that it is for, and be run again if it must be."""
    request = event.request
    match = _PATH.fullmatch(request.environ.get("PATH_INFO", ""))
    if match is None:
        return
    method = request.environ["REQUEST_METHOD"]
    if method == "POST" or (method in _HAS_ID and match[3]) or method == "OPTIONS":
        Replayable.install(request)
    if (method in _HAS_ID and match[3]) or method == "OPTIONS":
        request.maybe_webdav_client = 0
        request.environ["PATH_INFO"] = f"{match[1]}@@{match[2]}{match[3] or ''}"
