"""Files and directories that are ours: no byte of another file counts, and no other file is changed.

Laws of this room:

1. A file is ours if it is a regular file of our user, has one name, and no other user can write to it. The operator can
   name one group that is trusted as much as our user.
2. A file is opened without following a link and without waiting, and is looked at by its descriptor.
3. A file that is not ours does not exist: :class:`NotOurs` is a FileNotFoundError.
4. A directory is used only if no other user can replace names in it, and none can replace the directory itself. This is
   checked when a service starts.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO, Final

from tus.errors import OptionError
from tus.filesystem import acl
from tus.filesystem.descriptors import close

#: For every open call. Opening a pipe of that name must not block.
FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

_CREATE: Final = os.O_CREAT | os.O_EXCL | FLAGS
_UNTRACED: Final = getattr(os, "O_NOATIME", 0)
_KIND: Final = 0o170000  # the bits of a mode that say whether it is a regular file
_OTHERS: Final = _KIND | 0o022  # and its permissions for the group and for every user to write
_STRANGERS: Final = _KIND | 0o002
_REGULAR: Final = stat.S_IFREG
_NEW: Final = _REGULAR | 0o600  # the mode of a new file without a trusted group
#: What open(2) says about a link, a directory, a socket or a pipe.
_NO_FILE: Final = frozenset({errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENXIO})

#: What fsync(2) says where a directory cannot be synced.
_NO_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP})


class NotOurs(FileNotFoundError):
    """A file that is not ours, or that other users can change. It is as if it did not exist."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """Whose files are believed: those of one user and, if the operator says so, of the members of one group.

    Attributes:
        group: the id of the trusted group; None if there is none.
        uid: the id of our user.
    """

    group: int | None = None
    uid: int = field(default_factory=os.geteuid)

    @property
    def file_mode(self) -> int:
        """The mode of a new file."""
        return 0o600 if self.group is None else 0o660

    # -- Files --

    def believes(self, status: os.stat_result, names: int = 1, is_offered: bool = False) -> bool:
        """Return whether a file is ours: a regular file with one name, which no other user can write.

        Args:
            status: of the file.
            names: the most names that the file can have; ``tus import`` gives a file its second one before it removes
                the first one.
            is_offered: whether it is data that an application was offered, which can link it and give it another mode.
        """
        if is_offered:
            return status.st_mode & _KIND == _REGULAR and self.is_by_us(status)
        if status.st_nlink > names:
            return False
        if status.st_uid == self.uid and status.st_mode & _OTHERS == _REGULAR:
            return True
        return status.st_gid == self.group and status.st_mode & _STRANGERS == _REGULAR

    def is_by_us(self, status: os.stat_result) -> bool:
        """Return whether a file belongs to our user or to the trusted group."""
        return status.st_uid == self.uid or status.st_gid == self.group

    def open(self, path: str, flags: int, names: int = 1, dir_fd: int | None = None) -> int:
        """Open a file that is ours.

        Args:
            path: the path of the file.
            flags: of the open call.
            names: see :meth:`believes`.
            dir_fd: an open directory to which the path is relative.

        Raises:
            NotOurs: the file is not ours.
            FileNotFoundError: there is no such file.
        """
        return self.open_with_status(path, flags, names, dir_fd=dir_fd)[0]

    def open_data(self, path: str, flags: int, dir_fd: int | None = None) -> int:
        """Open data that an application may have been offered; otherwise like :meth:`open`."""
        return self.open_with_status(path, flags, is_offered=True, dir_fd=dir_fd)[0]

    def open_with_status(
        self, path: str, flags: int, names: int = 1, is_offered: bool = False, dir_fd: int | None = None
    ) -> tuple[int, os.stat_result]:
        """Open a file that is ours, and return its descriptor and its status.

        Args:
            path: the path of the file.
            flags: of the open call.
            names: see :meth:`believes`, like ``is_offered``.
            is_offered: whether it is data that an application was offered.
            dir_fd: an open directory to which the path is relative.

        Raises:
            NotOurs: the file is not ours.
            FileNotFoundError: there is no such file.
        """
        try:
            fd = os.open(path, flags | FLAGS, dir_fd=dir_fd)
        except OSError as error:
            raise self._explain(error, path, dir_fd) from None
        try:
            status = os.fstat(fd)
            is_as_created = status.st_mode == _NEW and status.st_uid == self.uid and status.st_nlink == 1
            if is_as_created or self.believes(status, names, is_offered):  # nearly every file is, and saves a call
                return fd, status
            raise not_ours(path)
        except OSError:
            close(fd)
            raise

    def check_file(self, path: str, option: str) -> None:
        """Check that a file that every process needs is ours, unless it is missing.

        Raises:
            OptionError: another user has made it, or can change it.
        """
        try:
            close(self.open(path, os.O_RDONLY))
        except NotOurs:
            problem = f"has {path!r}, which is not ours, or which other users can change; remove it"
            raise OptionError(option, problem) from None
        except FileNotFoundError:
            return
        except OSError as error:
            raise OptionError(option, f"has {path!r}, which cannot be opened: {error.strerror}") from None

    def open_reading(self, path: str) -> BinaryIO:
        """Open the data of a finished upload, as a file with its path as ``name``, which plone.namedfile needs."""
        return open(path, "rb", opener=self._open_untraced)

    def _open_untraced(self, path: str, flags: int) -> int:
        """Open without renewing the access time, which is to show reads by the application, not those of tus."""
        try:
            return self.open_data(path, flags | _UNTRACED)
        except PermissionError:  # only the owner may do so
            return self.open_data(path, flags)

    def _explain(self, error: OSError, path: str, dir_fd: int | None) -> OSError:
        """Return the error of an open call; NotOurs if the reason is that the file is not ours."""
        if error.errno in _NO_FILE:
            return not_ours(path)
        if isinstance(error, PermissionError):
            try:
                if not self.is_by_us(os.stat(path, dir_fd=dir_fd, follow_symlinks=False)):
                    return not_ours(path)
            except OSError as other:
                return other
        return error

    def create(self, path: str, flags: int = os.O_RDWR) -> int:
        """Create a file that no other user can open.

        Raises:
            FileExistsError: the name is taken.
        """
        fd = os.open(path, flags | _CREATE, 0o600)
        if self.group is not None:
            try:
                self._share(fd, self.file_mode)
            except BaseException:
                close(fd)
                os.unlink(path)
                raise
        return fd

    def open_or_create(self, path: str) -> int:
        """Open a file that is ours for reading and writing, and create it if there is none.

        Raises:
            NotOurs: another user has made a file of this name.
        """
        while True:
            try:
                return self.open(path, os.O_RDWR)
            except NotOurs:
                raise
            except FileNotFoundError:
                pass
            try:
                return self.create(path)
            except FileExistsError:
                continue

    def _share(self, fd: int, mode: int) -> None:
        """Give a new file or directory the trusted group, and a mode in spite of the umask."""
        assert self.group is not None
        if os.fstat(fd).st_gid != self.group:
            os.fchown(fd, -1, self.group)
        os.fchmod(fd, mode)

    # -- Directories --

    def make_directory(self, path: str) -> None:
        """Create a directory that no other user can open.

        Raises:
            FileExistsError: the name is taken.
            OptionError: our user is not a member of the trusted group.
        """
        os.mkdir(path, 0o700)
        if self.group is not None:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | FLAGS)
            try:
                self._share(fd, 0o2770)  # so that new files get the group
            except PermissionError:
                os.rmdir(path)
                problem = f"must be a group of the user {_user_name(self.uid)}; it is {_group_name(self.group)}"
                raise OptionError("trusted_group", problem) from None
            finally:
                close(fd)

    def prepare_directory(self, path: str, option: str) -> str:
        """Create the last level of a directory if it is missing, and check that no other user can replace its files.

        Args:
            path: the path of the directory.
            option: the name of the option that has the path, for the error.

        Returns:
            The absolute path of the directory.

        Raises:
            OptionError: the directory cannot be created or used.
        """
        path = os.path.abspath(path)
        try:
            self.make_directory(path)
            _force_name(path)
        except FileExistsError:
            pass
        except OSError as error:
            raise OptionError(option, f"{path!r} cannot be created: {error.strerror}") from None
        self.check_directory(path, option)
        return path

    def check_directory(self, path: str, option: str) -> None:
        """Check that no other user can replace files of a directory, or the directory.

        Raises:
            OptionError: another user can, or the directory cannot be opened.
        """
        try:
            status = os.stat(path)
            seen = (self, path, status.st_dev, status.st_ino, status.st_uid, status.st_gid, status.st_mode)
            if seen in _checked:
                return
            problem = self.problem_of(path)
        except NotADirectoryError:
            raise OptionError(option, f"{path!r} is not a directory") from None
        except OSError as error:
            raise OptionError(option, f"{path!r} cannot be used: {error.strerror}") from None
        if problem is not None:
            raise OptionError(option, problem)
        if len(_checked) >= _MOST_CHECKED:
            _checked.clear()
        _checked.add(seen)

    def check_target(self, path: str, option: str) -> None:
        """Check that not every user of the machine can replace files in a directory of the application.

        The application decides who else may write there.

        Raises:
            OptionError: every user can.
        """
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except PermissionError:
            return  # it may be written and not read
        except OSError as error:
            raise OptionError(option, f"{path!r} cannot be used: {error.strerror}") from None
        try:
            status = os.fstat(fd)
        finally:
            close(fd)
        problem = None
        if status.st_mode & 0o002 and not status.st_mode & stat.S_ISVTX:
            problem = self._problem_with(status, path)
        problem = problem or self._problem_on_the_way(path)
        if problem is not None:
            raise OptionError(option, problem)

    def _problem_on_the_way(self, path: str) -> str | None:
        return next(filter(None, map(partial(self._problem_above, path), _ways_to(path))), None)

    def problem_of(self, path: str) -> str | None:
        """Return how another user could replace files of a directory, with the remedy; None if none can."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            problem = self._problem_with(os.fstat(fd), path) or self._problem_in_list(fd, path)
        finally:
            close(fd)
        return problem or self._problem_on_the_way(path)

    def _problem_in_list(self, fd: int, path: str) -> str | None:
        """Return whom an access control list lets write, besides our user, root and the trusted group.

        The default list counts only with a trusted group: otherwise new files and directories are closed to others.
        """
        for name in (acl.ACCESS,) if self.group is None else (acl.ACCESS, acl.DEFAULT):
            for is_group, holder in acl.writers(fd, name):
                if holder == self.group if is_group else holder in (self.uid, 0):
                    continue
                kind, named = ("group", _group_name(holder)) if is_group else ("user", _user_name(holder))
                option = "-d " if name == acl.DEFAULT else ""
                return (
                    f"{path!r} has an access control list that lets the {kind} {named} replace its files; take that "
                    f"away: setfacl {option}-x {kind}:{named} {path}"
                )
        return None

    def _problem_with(self, status: os.stat_result, path: str) -> str | None:
        seen = f"{path!r} belongs to {describe(status)}"
        if status.st_mode & 0o002:
            return (
                f"{seen}, so every user of this machine can replace its files; use a directory of its own, such as "
                f"/var/lib/uploads, or take the right to write away: chmod go-w {path}"
            )
        if status.st_mode & 0o020 and status.st_gid != self.group and not _is_private(status):
            return (
                f"{seen}, so the members of that group can replace its files; take the right to write away: "
                f"chmod g-w {path}, or set trusted_group = {_group_name(status.st_gid)} if they may share the uploads"
            )
        if not self._trusts_owner(status):
            return (
                f"{seen}, and this process runs as user {_user_name(self.uid)}; run it as the owner of the directory, "
                f"or make the directory its own: chown {_user_name(self.uid)} {path}"
            )
        return None

    def _trusts_owner(self, status: os.stat_result) -> bool:
        """Return whether the owner of a directory is our user, root, or a member of the trusted group.

        Only a member can give a directory that group.
        """
        return status.st_uid in (self.uid, 0) or status.st_gid == self.group

    def _problem_above(self, path: str, way: tuple[str, str]) -> str | None:
        """Return how another user could replace a directory above the files, by a directory that every user can write.

        The owners of the directories above, and the groups that those let write there, are trusted: a site in a home
        directory, or in one that a group shares, is in their hands anyway.
        """
        parent, entry = way
        status = os.stat(parent)
        if not status.st_mode & 0o002:
            return None
        if not status.st_mode & stat.S_ISVTX:
            return (
                f"{path!r} is in {parent!r}, which belongs to {describe(status)}, so every user of this machine can "
                f"replace it; use another place, such as /var/lib/uploads, or take the right away: chmod o-w {parent}"
            )
        status = os.lstat(entry)
        if not self._trusts_owner(status):
            return (
                f"{entry!r} belongs to {describe(status)}, who can replace the files below it; use another place, "
                "such as /var/lib/uploads"
            )
        return None


def _force_name(path: str) -> None:
    """Force the name of a new directory to the disk, or a power failure could take it with all that is synced in it.

    Raises:
        OSError: that failed; the directory is removed.
    """
    try:
        fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # the directory above may be written and not read
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            os.rmdir(path)
            raise
    finally:
        close(fd)


def _is_private(status: os.stat_result) -> bool:
    """Return whether the group of a file is that of its owner alone, as on systems whose umask is 002."""
    try:
        owner, group = pwd.getpwuid(status.st_uid), grp.getgrgid(status.st_gid)
    except KeyError:
        return False
    return owner.pw_gid == group.gr_gid and owner.pw_name == group.gr_name and set(group.gr_mem) <= {owner.pw_name}


#: The directories that were found to be safe: a view may open a store in each request.
_checked: set[tuple[object, ...]] = set()
_MOST_CHECKED: Final = 4096


def forget_checks() -> None:
    """Check every directory again when it is used next, because one was replaced. The new one may have its inode."""
    _checked.clear()


def not_ours(path: str) -> NotOurs:
    """Return the error for a file that is not ours."""
    return NotOurs(errno.ENOENT, "the file is not ours, or other users can change it", path)


def _ways_to(path: str) -> Iterator[tuple[str, str]]:
    """Yield each directory above a path, as given and without symbolic links, with the entry in it that leads on."""
    for entry in {os.path.abspath(path), os.path.realpath(path)}:
        while (parent := os.path.dirname(entry)) != entry:
            yield parent, entry
            entry = parent


def describe(status: os.stat_result) -> str:
    """Return the owner, the group and the mode of a file, for the operator."""
    mode = stat.S_IMODE(status.st_mode)
    return f"user {_user_name(status.st_uid)} and group {_group_name(status.st_gid)} with mode {mode:04o}"


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
