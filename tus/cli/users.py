"""The user of a command: root acts as the owner of the directory, so that it leaves no files of root there."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager

from tus.errors import TusException


@contextmanager
def acting_as_owner(directory: str) -> Iterator[None]:
    """Act as the owner of a directory in the ``with`` block, if this process runs as root.

    Files that the owner has planted then have no more effect than if the owner had run the command.

    Raises:
        TusException: root may not become that user.
    """
    status = os.stat(directory)
    if os.geteuid() != 0 or status.st_uid == 0:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    try:
        os.setgroups(_groups_of(status))
        os.setegid(status.st_gid)
        os.seteuid(status.st_uid)
    except OSError as error:
        problem = f"cannot act as user {status.st_uid}, who owns {directory!r}: {error.strerror}; run it as that user"
        raise TusException(problem) from None
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def _groups_of(status: os.stat_result) -> list[int]:
    try:
        user = pwd.getpwuid(status.st_uid)
    except KeyError:
        return [status.st_gid]
    return os.getgrouplist(user.pw_name, user.pw_gid)
