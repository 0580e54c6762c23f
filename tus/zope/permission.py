"""Who may upload into a folder."""

from __future__ import annotations

from typing import Any

from AccessControl import getSecurityManager

from tus.errors import Forbidden, Unauthorized
from tus.models import Intent, Request, Upload

PERMISSION = "tus: Upload files"

#: Where the view leaves its folder on the request.
CONTEXT_KEY = "tus.context"


def authorize(request: Request, intent: Intent, upload: Upload) -> str | None:
    """Let those upload who have the permission in the folder; uploads belong to their users.

    Raises:
        Unauthorized: nobody is logged in.
        Forbidden: whoever is does not have the permission.
    """
    native: Any = request.native
    manager = getSecurityManager()
    user = manager.getUser()
    user_id: str | None = user.getId()
    if not manager.checkPermission(PERMISSION, native[CONTEXT_KEY]):
        if user_id is None:
            raise Unauthorized("Log in to upload here.", [("WWW-Authenticate", 'Basic realm="Zope"')])
        raise Forbidden("You may not upload here.")
    return user_id
