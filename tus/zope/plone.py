"""plone.app.content's ``@@fileUpload``, so that the URL of an upload leads to it. See plone.zcml."""

from __future__ import annotations

from typing import Any

from plone.app.content.browser import file
from zExceptions import NotFound
from zope.interface import implementer
from zope.publisher.interfaces import IPublishTraverse

from tus.models import is_upload_id


@implementer(IPublishTraverse)
class FileUploadView(file.FileUploadView):  # type: ignore[misc]
    """The view as it is; only that a view must say itself how it is traversed was not yet so when it was written."""

    def publishTraverse(self, request: Any, name: str) -> Any:  # noqa: N802 - Zope's name
        """Take the id of an upload from the URL.

        Raises:
            NotFound: there is something else in the URL.
        """
        if not is_upload_id(name) or self.tus_uid is not None:
            raise NotFound(name)
        return self[name]
