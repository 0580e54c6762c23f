"""The access control lists of POSIX.1e, as Linux keeps them: the mode of a file does not show whom they name."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from struct import Struct, error
from typing import Final, NamedTuple

ACCESS: Final = "system.posix_acl_access"
#: What new files and directories in a directory get.
DEFAULT: Final = "system.posix_acl_default"

_VERSION = Struct("<I")
_ENTRY = Struct("<HHI")  # tag, permissions, id
_USER, _GROUP, _MASK = 0x02, 0x08, 0x10
_WRITE = 0x02


class Writer(NamedTuple):
    """A user or a group that a list names, and that may write.

    Attributes:
        is_group: whether it is a group.
        id: the id of the user or group.
    """

    is_group: bool
    id: int


def writers(fd: int, name: str) -> list[Writer]:
    """Return the users and groups that a list of an open file names, and lets write.

    Args:
        fd: of the file.
        name: :data:`ACCESS` or :data:`DEFAULT`.

    Returns:
        An empty list without such a list, or where the file system or the system has none.
    """
    if not sys.platform.startswith("linux"):
        return []
    try:
        packed = os.getxattr(fd, name)
        entries = list(_ENTRY.iter_unpack(packed[_VERSION.size :]))
    except (OSError, error):
        return []
    mask = next((permissions for tag, permissions, _ in entries if tag == _MASK), _WRITE)
    return list(_writers(entries, mask))


def _writers(entries: list[tuple[int, int, int]], mask: int) -> Iterator[Writer]:
    for tag, permissions, holder in entries:
        if tag in (_USER, _GROUP) and permissions & mask & _WRITE:
            yield Writer(tag == _GROUP, holder)
