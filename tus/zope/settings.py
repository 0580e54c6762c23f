"""The options of a Zope site: from zope.conf, or from the environment as in Plone."""

from __future__ import annotations

import os
from functools import lru_cache

from App.config import getConfiguration

from tus.errors import OptionError
from tus.options import Options
from tus.server.service import Service
from tus.zope.permission import authorize

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
