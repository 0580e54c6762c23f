"""The group, the mode and the ACL of a file that is created in a directory.

Laws of this room:

1. Only creating a file shows them. They depend on the umask, on the directory's default ACL, on its set-group-ID bit,
   and on the file system.
2. What one file has shown counts for the next ones for a second, and only if the umask and the directory are the same,
   and the mode follows from them. So the umask is read each time. Where the system does not say it, each file is
   created.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from tus.filesystem import acl, processes

_LASTS: Final = 1.0  # seconds; a file system may also decide by what is not looked at, such as an NFSv4 ACL
_MOST_SHOWN: Final = 256


class Permissions(NamedTuple):
    """What a new file gets.

    Attributes:
        group: the id of its group.
        mode: its permissions.
        acl: its access control list, or None.
    """

    group: int
    mode: int
    acl: bytes | None

    @classmethod
    def of(cls, fd: int) -> Permissions:
        """Look at an open file."""
        status = os.fstat(fd)
        return cls(status.st_gid, stat.S_IMODE(status.st_mode), attribute(fd, acl.ACCESS))


#: What files have shown, and when, by what it depends on.
_shown: dict[tuple[object, ...], tuple[float, Permissions]] = {}


def permissions_in(directory: int | str, status: os.stat_result, create: Callable[[], Permissions]) -> Permissions:
    """Return what a file gets that is created in a directory with the mode 0666.

    Args:
        directory: the path of the directory with a slash behind it, because a link is not followed; or a descriptor.
        status: of the directory.
        create: creates such a file, removes it, and returns what it got.
    """
    umask = processes.current.read_umask()
    if umask is None:
        return create()
    default = attribute(directory, acl.DEFAULT)
    cause = (status.st_dev, status.st_ino, status.st_mode, status.st_gid, os.getegid(), umask, default)
    now = time.monotonic()
    seen, shown = _shown.get(cause, (-_LASTS, None))
    if shown is None or now - seen >= _LASTS:
        shown = create()
        if default is not None or shown.mode == 0o666 & ~umask:  # else another thread may have changed the umask
            if len(_shown) >= _MOST_SHOWN:
                _shown.clear()
            _shown[cause] = now, shown
    return shown


def attribute(file: int | str, name: str) -> bytes | None:
    """Return an extended attribute; None if there is none, or the system has none."""
    if not hasattr(os, "getxattr"):
        return None
    try:
        return os.getxattr(file, name) if isinstance(file, int) else os.getxattr(file, name, follow_symlinks=False)
    except OSError:
        return None
