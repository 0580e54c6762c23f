"""Descriptors of files, which are closed once."""

from __future__ import annotations

import logging
import os

log = logging.getLogger(__name__)


def close(fd: int) -> None:
    """Close a descriptor. An error is logged: the descriptor is free all the same, and must not be closed again.

    Callers that keep the number forget it first, because another thread may get it at once.
    """
    try:
        os.close(fd)
    except OSError as error:
        log.warning("a file was closed with an error: %s", error)
