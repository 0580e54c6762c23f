"""A directory that can go and come while servers run: the uploads are in it, or finished files are saved there.

A cleaner of old files removes it: it is created again, with the checks of the start. Or its volume is unmounted for a
moment: its files exist all the same, so no client may learn that they do not, and nothing may be written below the
mount point. Laws of this room:

1. Another directory under the same path is the right one if it is in the same mount, because then a process or the
   operator has created it, or if it has the same inode, because then its volume was mounted again.
2. A missing directory is created again only if no mount is missing with it, and each directory above it is the same as
   at the start.
3. Only the first request after a change pays for this. Before, a creation pays for one stat(2), and nothing else pays.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from tus.errors import OptionError, StorageUnavailable
from tus.filesystem.descriptors import close
from tus.filesystem.ownership import forget_checks

log = logging.getLogger(__name__)

_PATH_ONLY = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC


class _Level(NamedTuple):
    """A directory as it was at the start.

    Attributes:
        path: its path.
        identity: its device, inode and owner: another user's directory may get the inode of a removed one.
        mount: the id of its mount; where the system does not tell it, the device.
        mode: its permissions.
    """

    path: str
    identity: tuple[int, int, int]
    mount: int
    mode: int

    @classmethod
    def of(cls, path: str) -> _Level:
        """Look at a directory."""
        fd = os.open(path, _PATH_ONLY)
        try:
            status = os.fstat(fd)
            mount = _mount_of(fd)
        finally:
            close(fd)
        identity = (status.st_dev, status.st_ino, status.st_uid)
        return cls(path, identity, status.st_dev if mount is None else mount, status.st_mode)


class Home:
    """A directory that can go and come.

    Args:
        path: the absolute path of the directory.
        prepare: creates its last level and checks it, as at the start.
    """

    def __init__(self, path: str, prepare: Callable[[], object]) -> None:
        self._path = path
        self._prepare = prepare
        self._remember()

    def _remember(self) -> None:
        levels = []
        for path in _ways_up(self._path):
            try:
                levels.append(_Level.of(path))
            except OSError:  # a directory above it that our user cannot look at
                break
        self._levels = levels
        self._identity = levels[0].identity if levels else None  # None means that it must be checked

    def check(self) -> os.stat_result | None:
        """Return the status of the directory; None if it was removed with its files.

        Raises:
            StorageUnavailable: its volume is away.
        """
        try:
            status = os.stat(self._path)
            if (status.st_dev, status.st_ino, status.st_uid) != self._identity:
                self._recognize()
        except FileNotFoundError:
            if self._missing() is None:
                raise StorageUnavailable() from None
            return None
        except OSError as error:
            raise StorageUnavailable() from error
        return status

    def ensure(self) -> os.stat_result:
        """Return the status of the directory, which is created again if it was removed.

        Raises:
            StorageUnavailable: its volume is away, or it cannot be created.
        """
        if (status := self.check()) is not None:
            return status
        try:
            for level in reversed((self._missing() or [])[1:]):
                with suppress(FileExistsError):  # another process creates it, too
                    os.mkdir(level.path, stat.S_IMODE(level.mode))
        except OSError as error:
            raise StorageUnavailable() from error
        self._prepare_again()
        log.warning("%s was removed while the server ran, and is created again", self._path)
        if (status := self.check()) is None:
            raise StorageUnavailable()
        return status

    def _missing(self) -> list[_Level] | None:
        """Return the levels that were removed, the innermost first; None if a mount is missing, or another's level."""
        missing: list[_Level] = []
        for level in self._levels:
            try:
                now = _Level.of(level.path)
            except FileNotFoundError:
                missing.append(level)
                continue
            except OSError:
                return None
            was_mounted = any(lost.mount != now.mount for lost in missing)
            is_other = now.identity != level.identity or any(lost.identity[2] != os.geteuid() for lost in missing[1:])
            return None if was_mounted or is_other else missing
        return None

    def _recognize(self) -> None:
        """Go on with another directory under the same path, if it is the right one.

        Raises:
            StorageUnavailable: it is what lies below the mount point.
            OSError: it cannot be looked at.
        """
        if not self._levels:  # it did not exist at the start
            self._remember()
            return
        now, before = _Level.of(self._path), self._levels[0]
        if self._identity is not None and now.identity[1:] == before.identity[1:]:
            self._remember()
        elif now.mount == before.mount:
            self._prepare_again()
        else:
            raise StorageUnavailable()

    def _prepare_again(self) -> None:
        self._identity = None
        forget_checks()
        try:
            self._prepare()
        except OptionError as error:
            raise StorageUnavailable() from error
        self._remember()


def _ways_up(path: str) -> Iterator[str]:
    """Yield a path, and each directory above it."""
    yield path
    while (parent := os.path.dirname(path)) != path:
        yield parent
        path = parent


def _mount_of(fd: int) -> int | None:
    """Return the id of the mount that a directory is in; None if the system does not tell it."""
    try:
        with open(f"/proc/self/fdinfo/{fd}") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("mnt_id:")), None)
    except OSError:
        return None


#: The homes of this process by path: a view may open a store in each request, also while the volume is away.
_homes: dict[str, Home] = {}
_MOST_HOMES = 4096


def home_of(path: str, prepare: Callable[[], object]) -> Home:
    """Return the home at a path, as it was when a store was opened there first."""
    home = _homes.get(path)
    if home is None:
        if len(_homes) >= _MOST_HOMES:
            _homes.clear()
        home = _homes[path] = Home(path, prepare)
    return home


def is_away(path: str) -> bool:
    """Return whether a store was opened at a path before, and its volume is away now."""
    home = _homes.get(path)
    if home is None:
        return False
    try:
        home.check()
    except StorageUnavailable:
        return True
    return False
