"""plone.app.content's ``@@fileUpload``, made reachable by the URL of an upload. See plone.zcml."""

from __future__ import annotations

from typing import Any

from plone.app.content.browser import file
from zExceptions import NotFound
from zope.interface import implementer
from zope.publisher.interfaces import IPublishTraverse

from tus.models import is_upload_id


@implementer(IPublishTraverse)
class FileUploadView(file.FileUploadView):  # type: ignore[misc]
    """The view of plone.app.content, declared as traversable, which later versions of Zope require."""

    def publishTraverse(self, request: Any, name: str) -> Any:  # noqa: N802 - Zope's name
        """Take the id of an upload from the URL.

        Raises:
            NotFound: the name is not an id, or a second one.
        """
        if not is_upload_id(name) or self.tus_uid is not None:
            raise NotFound(name)
        return self[name]
