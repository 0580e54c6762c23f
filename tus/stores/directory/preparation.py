"""The preparation of a directory for the store: it is created, and checked once in a process."""

from __future__ import annotations

import logging
import os

from tus.errors import StorageUnavailable
from tus.filesystem import home
from tus.filesystem.locks import check_locks_work
from tus.filesystem.ownership import Ownership
from tus.stores.directory import expiry, pending, principals, quota, secret

log = logging.getLogger(__name__)

#: The directories whose locks were proven to work, by device and inode: a view may open a store in each request.
_proven: set[tuple[int, int]] = set()
_MOST_PROVEN = 4096


def prepare_directory(path: str, ownership: Ownership | None = None, probes: bool = True) -> str:
    """Create the last level of a directory if it is missing, with mode 0700, and check that it can be used.

    A full or a read-only disk is no reason to refuse: uploads that are there can be continued, finished and removed.

    Args:
        path: the path of the directory.
        ownership: whose files are believed.
        probes: whether to create the directory and to check its locks, for which a file is created.

    Returns:
        The absolute path of the directory.

    Raises:
        OptionError: the parent is missing, other users can replace files of the directory, it cannot be written, its
            locks protect nothing, or a file that servers need was made by another user.
    """
    ownership = ownership or Ownership()
    if not probes:
        path = os.path.abspath(path)
        ownership.check_directory(path, "tmp_file_dir")
        return path
    path = os.path.abspath(path)
    if home.is_away(path):
        return path  # nothing may be written there; the store refuses its requests
    return _prepare(path, ownership)


def _prepare(path: str, ownership: Ownership) -> str:
    path = ownership.prepare_directory(path, "tmp_file_dir")
    status = os.stat(path)
    identity = (status.st_dev, status.st_ino)
    if identity not in _proven:
        for name in (quota.NAME, quota.MOVES, principals.NAME, expiry.NAME, pending.NAME, secret.NAME):
            ownership.check_file(os.path.join(path, name), "tmp_file_dir")
        try:
            check_locks_work(path)
        except StorageUnavailable:
            log.warning("the disk of %s is full or read-only; its uploads can only be continued or removed", path)
            return path
        if len(_proven) >= _MOST_PROVEN:
            _proven.clear()
        _proven.add(identity)
    return path


def prepare_again(path: str, ownership: Ownership) -> None:
    """Prepare another directory under the path of one that is gone, whose inode it may have."""
    _proven.clear()
    _prepare(path, ownership)
