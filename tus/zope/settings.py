"""Where a Zope site says how uploads are received: in zope.conf, or in the environment as Plone has it."""

from __future__ import annotations

import os
from functools import lru_cache

from App.config import getConfiguration

from tus.errors import OptionError
from tus.options import Options
from tus.server.service import Service
from tus.zope.permission import authorize

#: The options that can come from the environment, in capitals and with ``TUS_`` in front.
FROM_ENVIRONMENT = ("tmp_file_dir", "upload_valid_duration")


@lru_cache(maxsize=1)
def service() -> Service:
    """Return the service of this site, with its options.

    They are in ``<product-config tus>`` of zope.conf; what is not there is taken from the environment.

    Raises:
        OptionError: one is missing, unknown, or has a bad value.
    """
    configured = getattr(getConfiguration(), "product_config", None) or {}
    values: dict[str, object] = {
        name: os.environ["TUS_" + name.upper()] for name in FROM_ENVIRONMENT if os.environ.get("TUS_" + name.upper())
    }
    values |= configured.get("tus", {})
    for name in ("upload_path", "ask_app", "send_file"):
        if name in values:
            raise OptionError(name, "cannot be set in Zope, where the view decides it")
    return Service(options=Options.build(**{"authorize": authorize, "send_file": True} | values))
