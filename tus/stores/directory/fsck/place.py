"""The directory that is checked: every file in it is reached from one open descriptor, by its name."""

from __future__ import annotations

import contextlib
import os
import sys

from tus.filesystem.descriptors import close
from tus.filesystem.ownership import FLAGS, NotOurs, Ownership

_WITHOUT_READING = getattr(os, "O_PATH", 0) if sys.platform.startswith("linux") else 0


class Place:
    """A directory of uploads, and whose files in it are believed.

    Args:
        path: the path of the directory.
        ownership: whose files are believed; by default those of this process's user.

    Attributes:
        path: the path of the directory.
        fd: an open descriptor of it.
        ownership: whose files are believed.
    """

    def __init__(self, path: str, ownership: Ownership | None = None) -> None:
        self.path = path
        self.ownership = ownership or Ownership()
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self.fd)

    def names(self) -> list[str]:
        """Return the names in the directory."""
        return os.listdir(self.fd)

    def status_of(self, name: str) -> os.stat_result:
        """Return the status of a file; a link is not followed."""
        return os.stat(name, dir_fd=self.fd, follow_symlinks=False)

    def has(self, name: str) -> bool:
        """Return whether there is a file, or a link, of this name."""
        try:
            self.status_of(name)
        except FileNotFoundError:
            return False
        return True

    def open(self, name: str, flags: int) -> int:
        """Open a file of our user, whatever its names and its mode are."""
        return self.ownership.open_data(name, flags, self.fd)

    def remove(self, name: str) -> None:
        """Remove a file that may be gone already."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.fd)

    def rename(self, name: str, target: str) -> None:
        """Rename a file."""
        os.rename(name, target, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def protect(self, name: str, kept: int) -> None:
        """Give a file of our user the mode that new files have, and let it keep some of its permissions.

        Args:
            name: of the file.
            kept: the bits that it keeps if it has them.
        """
        with contextlib.suppress(FileNotFoundError):
            try:
                fd = self.open(name, os.O_RDONLY)
            except NotOurs:
                return
            except PermissionError:  # its mode does not even let its owner read it
                self._protect_closed(name, kept)
                return
            try:
                os.fchmod(fd, os.fstat(fd).st_mode & kept | self.ownership.file_mode)
            finally:
                close(fd)

    def _protect_closed(self, name: str, kept: int) -> None:
        if not _WITHOUT_READING:
            raise PermissionError(1, "Operation not permitted", name)
        fd = os.open(name, _WITHOUT_READING | FLAGS, dir_fd=self.fd)
        try:
            status = os.fstat(fd)
            if self.ownership.believes(status, is_offered=True):
                os.chmod(f"/proc/self/fd/{fd}", status.st_mode & kept | self.ownership.file_mode)
        finally:
            close(fd)
