"""Descriptors of files, which are closed once."""

from __future__ import annotations

import logging
import os

log = logging.getLogger(__name__)


def close(fd: int) -> bool:
    """Close a descriptor, and return whether the system reports no error. An error is logged.

    The descriptor is free all the same, and must not be closed again. Callers that keep the number forget it first,
    because another thread may get it at once. After a write, NFS may report only here that bytes are lost.
    """
    try:
        os.close(fd)
    except OSError as error:
        log.warning("a file was closed with an error: %s", error)
        return False
    return True
