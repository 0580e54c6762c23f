"""The options of a Zope site: from zope.conf, or from the environment as in Plone."""

from __future__ import annotations

import logging
import os
from functools import lru_cache

from App.config import getConfiguration
from zope.component import getGlobalSiteManager

from tus.errors import OptionError
from tus.options import Options
from tus.server.service import Service
from tus.zope.interfaces import IUploadReceiver
from tus.zope.permission import authorize

log = logging.getLogger(__name__)

#: The options that can come from the environment, in upper case with the prefix ``TUS_``.
FROM_ENVIRONMENT = ("tmp_file_dir", "upload_valid_duration")


@lru_cache(maxsize=1)
def service() -> Service:
    """Return the service of this site.

    Its options are in ``<product-config tus>`` of zope.conf; options that are missing there come from the environment.

    Raises:
        OptionError: an option is missing, unknown, or has a bad value.
    """
    configured = getattr(getConfiguration(), "product_config", None) or {}
    values: dict[str, object] = {
        name: os.environ["TUS_" + name.upper()] for name in FROM_ENVIRONMENT if os.environ.get("TUS_" + name.upper())
    }
    values |= configured.get("tus", {})
    for name in ("upload_path", "ask_app", "send_file"):
        if name in values:
            raise OptionError(name, "cannot be set in Zope, because the view sets it; remove it")
    return Service(options=Options.build(**{"authorize": authorize, "send_file": True} | values))


def check(event: object) -> None:
    """Subscribe to the start of Zope, so that wrong options stop it, and not the first client.

    Raises:
        OptionError: as :func:`service`.
    """
    service()
    registered = getGlobalSiteManager().registeredAdapters()
    if not any(adapter.provided.isOrExtends(IUploadReceiver) for adapter in registered):
        log.warning(
            "no adapter provides tus.zope.interfaces.IUploadReceiver in ZCML; unless a local site has one, @@tus "
            "responds with 503 to every upload"
        )
