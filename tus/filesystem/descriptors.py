"""Descriptors of files, which are closed once."""

from __future__ import annotations

import logging
import os

log = logging.getLogger(__name__)


def close(*fds: int) -> bool:
    """Close descriptors, and return whether the system reports no error. An error is logged.

    A descriptor is free all the same, and must not be closed again. Callers that keep the number forget it first,
    because another thread may get it at once. After a write, NFS may report only here that bytes are lost.

    Args:
        fds: the descriptors; -1 stands for none.
    """
    is_closed = True
    for fd in fds:
        try:
            if fd >= 0:
                os.close(fd)
        except OSError as error:
            log.warning("a file was closed with an error: %s", error)
            is_closed = False
    return is_closed
