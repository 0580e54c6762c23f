"""The permission to upload into a folder."""

from __future__ import annotations

from typing import Any

from AccessControl import getSecurityManager

from tus.errors import Forbidden, Unauthorized
from tus.models import Intent, Request, Upload

PERMISSION = "tus: Upload files"

#: The key of the view's folder on the request.
CONTEXT_KEY = "tus.context"


def authorize(request: Request, intent: Intent, upload: Upload) -> str | None:
    """Check the user's permission in the folder, and return the user's id as the principal.

    Raises:
        Unauthorized: there is no permission, and no user is logged in.
        Forbidden: the user does not have the permission.
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
