"""``@@tus``: the view that receives uploads."""

from __future__ import annotations

import logging
from typing import Any

from Products.Five.browser import BrowserView
from zExceptions import NotFound
from zope.component import queryMultiAdapter
from zope.interface import implementer
from zope.publisher.interfaces import IPublishTraverse

from tus.adapters.zope import Zope2RequestAdapter
from tus.errors import OptionError, StorageUnavailable
from tus.models import is_upload_id
from tus.options import Options
from tus.protocols.exchange import refuse
from tus.server.sync import Tus
from tus.zope import settings
from tus.zope.interfaces import IUploadReceiver
from tus.zope.permission import CONTEXT_KEY

log = logging.getLogger(__name__)


@implementer(IPublishTraverse)
class Uploads(BrowserView):  # type: ignore[misc]
    """The view that receives uploads into a folder for the site's :class:`~tus.zope.interfaces.IUploadReceiver`."""

    _upload_id: str | None = None

    def publishTraverse(self, request: Any, name: str) -> Uploads:  # noqa: N802 - Zope's name
        """Take the id of an upload from the URL.

        Raises:
            NotFound: the name is not an id, or a second one.
        """
        if self._upload_id is not None or not is_upload_id(name):
            raise NotFound(name)
        self._upload_id = name
        return self

    def __call__(self) -> str:
        """Handle the request, and pass a completed upload to the site's receiver."""
        adapter = Zope2RequestAdapter(self.request)
        receiver = queryMultiAdapter((self.context, self.request), IUploadReceiver)
        options = Options()
        try:
            service = settings.service()
            options = service.options
            if receiver is None:
                raise OptionError(
                    "IUploadReceiver",
                    f"has no adapter for {type(self.context).__name__} and the request; register one",
                )
        except OptionError:
            log.exception("uploads are not configured")
            adapter.respond(refuse(StorageUnavailable(), adapter.request, options))
            return ""
        self.request[CONTEXT_KEY] = self.context
        tus = Tus(adapter, service=service)
        if not tus.valid:
            raise NotFound(self.__name__)
        tus.handle()
        if tus.upload_finished and tus.upload is not None:
            location = receiver.receive(tus.upload, self.request._file)
            tus.cleanup_file()
            response = self.request.response
            if location is not None and response.status != 201 and not response.getHeader("Location"):
                response.setHeader("Location", location)  # the Location of a creation is the upload's URL
        return ""
