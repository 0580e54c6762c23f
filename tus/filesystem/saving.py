"""Saving a finished file into a directory of the application.

Laws of this room:

1. A name appears in one step, for a whole file, and replaces nothing: by ``link(2)``. If the file system has no hard
   links, the name is one that no other file can have, because it contains the upload's key.
2. A file that an earlier attempt has saved is found again. A link has the inode of the upload's data. A copy has the
   key in an extended attribute, before its name appears. If that is impossible, it has the key in its name.
3. At most four names are tried, however many files have the wanted name. No directory is read.
4. There is one hidden name for each upload, ``.tus-<key>``. It is gone when a call ends. What a crash has left under
   it, the next attempt replaces or removes.
5. A partial copy from a crash is written again from its first byte. The bytes of an upload never change, so two
   processes that copy into the same file write the same bytes.
6. In the first attempt, data with one name is linked without a search, because it has no link yet. A copy is found by
   a search: power may have been lost, and with it the record of an attempt.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Final

from tus.errors import StorageFull, StorageUnavailable, UploadGone
from tus.filesystem import acl
from tus.filesystem.descriptors import close
from tus.filesystem.io import (
    Directory,
    OpenDirectory,
    copy_data,
    sync,
    sync_file,
    sync_name,
    translate_error,
    unlink,
    write_at,
)
from tus.filesystem.ownership import FLAGS
from tus.filesystem.permissions import Permissions, attribute, permissions_in
from tus.http.filenames import add_suffix
from tus.models import Upload

#: The extended attribute that holds the key of the upload in a copy.
MARK: Final = "user.tus.key"

GONE: Final = "The data of this upload is gone: the upload was accepted, or the application has moved the data away."

_BUFFER: Final = 1 << 20
_ROOMS: Final = (255, 143, 100, 64)  # bytes; the longest names of usual file systems, encrypting ones too
_SUFFIXES: Final = (0, 6, 12, 32)  # digits of the key behind the name

#: A hard link is impossible: another file system, a limit, a policy of the system, or no hard links at all.
_NO_LINK: Final = frozenset(
    {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
)


#: The files, by device and inode, that could not be forced to the disk, where no record of a store can say so.
_doubtful: set[tuple[int, int]] = set()


@dataclass(slots=True)
class Source:
    """The data of an upload.

    Attributes:
        upload: the complete upload.
        open: opens the data for reading.
        sync: forces the data to the disk, and remembers if that fails; None if the file must be synced here.
        is_first: whether this is the first call for the upload, as far as its record says.
    """

    upload: Upload
    open: Callable[[], BinaryIO]
    sync: Callable[[], None] | None
    is_first: bool = False


class Target:
    """A directory in which files are saved again and again. A descriptor of it stays open.

    Args:
        path: of the directory.
        look: checks the directory, and returns its status.
    """

    def __init__(self, path: str, look: Callable[[], os.stat_result]) -> None:
        self._path = path
        self._look = look
        self._names = Directory(path)

    def __fspath__(self) -> str:
        return self._path

    def open(self) -> tuple[os.stat_result, OpenDirectory | None]:
        """Return the status of the directory, and the open directory; None if it may be written and not read."""
        status = self._look()
        try:
            return status, self._names.open(status)
        except PermissionError:
            return status, None


def save(source: Source, directory: str | Target, name: str, mode: int | None = None) -> str:
    """Save a file under a free name, durably, and return its path.

    A repeated call returns the same path and makes no second file, also after a crash at any step.

    Args:
        source: the data.
        directory: an existing directory.
        name: one safe segment of a path.
        mode: the permissions; by default those of any file that is created there.

    Raises:
        FileNotFoundError: there is no such directory.
        UploadGone: the data is not there any more.
        StorageFull: there is no room for a copy.
        StorageUnavailable: the file system is read-only.
        OSError: another error of the file system.
    """
    try:
        if isinstance(directory, Target):
            return _Saving(source, os.fspath(directory), *directory.open(), name, mode).run()
        return _Saving(source, directory, _look(directory), None, name, mode).run()
    except OSError as error:
        raise _translate(error) from error


def probe(directory: str) -> None:
    """Save a small file in a directory in the same ways as :func:`save`, and remove it.

    Raises:
        StorageFull: there is no room.
        StorageUnavailable: the file system is read-only.
        OSError: files cannot be saved there.
    """
    data = b"probe"
    upload = Upload(id=os.urandom(16).hex(), length=len(data))
    source = Source(upload, lambda: io.BytesIO(data), None)
    unlink(save(source, directory, f".tus-probe-{upload.id[:8]}"))


def _look(directory: str) -> os.stat_result:
    try:
        return os.stat(os.path.join(directory, ""))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise type(error)(error.errno, "save_to() needs an existing directory", directory) from None


def _translate(error: OSError) -> BaseException:
    return StorageUnavailable() if error.errno == errno.EROFS else translate_error(error)


class _Saving:
    """One call of :func:`save`."""

    def __init__(
        self,
        source: Source,
        directory: str,
        status: os.stat_result,
        names: OpenDirectory | None,
        name: str,
        mode: int | None,
    ) -> None:
        self._source = source
        self._origin = source.upload.path
        self._size = source.upload.length or 0
        self._directory = directory
        self._status = status
        self._names = names
        self._start = os.path.join(directory, "")  # of each path in it
        self._name = name
        self._mode = mode
        self._is_new = False  # whether this call has made the visible name
        self._data: os.stat_result | None = None  # of the source, if it is a file

    def run(self) -> str:
        is_repeated = True  # as far as this call can know
        if self._origin is not None:
            try:
                self._data = os.lstat(self._origin)
            except FileNotFoundError:
                raise UploadGone(GONE) from None
            is_repeated = not self._source.is_first or self._data.st_nlink > 1
        self._has_hidden = is_repeated  # a crash may have left it
        try:
            if is_repeated:
                path = self._find() or self._link() or self._copy()
            else:
                path = self._link() or self._find() or self._copy()
        except BaseException:
            with suppress(OSError):
                unlink(self._hidden)
            raise
        if self._has_hidden:
            unlink(self._hidden)
        self._sync_name(path)
        return path

    @property
    def _key(self) -> str:
        return self._source.upload.key  # computed only if it is needed

    @property
    def _hidden(self) -> str:
        return f"{self._start}.tus-{self._key}"

    def _sync_name(self, path: str) -> None:
        """Force the name of the saved file to the disk; the application may know one that is not new."""
        try:
            sync_name(self._directory, partial(unlink, path) if self._is_new else lambda: None, self._names)
        except PermissionError:  # a directory that may be written and not read; journaling file systems sync the name
            fd = os.open(path, os.O_RDONLY | FLAGS)
            try:
                sync_file(fd)
            finally:
                close(fd)

    # -- Names --

    def _find(self) -> str | None:
        """Return the path under which an earlier attempt has saved the file, or None."""
        return self._first(self._is_ours)

    def _publish(self, make: Callable[[str], None], suffixes: Sequence[int] = _SUFFIXES) -> str:
        """Give the file the first free name, and return its path.

        Args:
            make: makes a path appear; raises FileExistsError if it exists.
            suffixes: see :meth:`_first`.

        Raises:
            FileExistsError: each of the names is taken.
        """

        def is_made(path: str, is_keyed: bool) -> bool:
            try:
                make(path)
            except FileExistsError:
                # Another process may have the same upload, if its claim has lapsed.
                return self._is_ours(path, is_keyed)
            self._is_new = True
            return True

        path = self._first(is_made, suffixes)
        if path is None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.path.join(self._directory, self._name))
        return path

    def _first(self, accepts: Callable[[str, bool], bool], suffixes: Sequence[int] = _SUFFIXES) -> str | None:
        """Return the first path that is accepted; the names are shortened if the file system needs that.

        Args:
            accepts: is called with a path, and whether the whole key is its suffix.
            suffixes: the digits of the key behind each name.
        """
        for room in self._rooms():
            try:
                for digits in suffixes:
                    path = self._start + add_suffix(self._name, f"-{self._key[:digits]}" if digits else "", room)
                    if accepts(path, digits == _SUFFIXES[-1]):
                        return path
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG or room == _ROOMS[-1]:
                    raise
            else:
                return None
        raise AssertionError("the last room returns or raises")

    def _rooms(self) -> Iterator[int]:
        """Yield the most bytes that a name may have: what the file system says, and then less, until a name fits."""
        yield _ROOMS[0]
        said = _ROOMS[0]
        with suppress(OSError, ValueError):
            said = os.pathconf(self._directory, "PC_NAME_MAX")
        if _ROOMS[-1] < said < _ROOMS[0]:
            yield said
        yield from (room for room in _ROOMS[1:] if room < max(said, _ROOMS[-1] + 1))

    def _is_ours(self, path: str, is_keyed: bool) -> bool:
        """Return whether a file is this upload's, saved by an earlier attempt."""
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(status.st_mode):
            return False
        if self._data is not None and os.path.samestat(status, self._data):
            return True
        return is_keyed or attribute(path, MARK) == self._key.encode()

    # -- A link --

    def _link(self) -> str | None:
        """Link the data into the directory, and return the path; None if it must be copied."""
        origin, data = self._origin, self._data
        if origin is None or data is None or data.st_dev != self._status.st_dev:
            return None
        fd = self._open_data(origin, data)
        try:
            if not os.path.samestat(os.fstat(fd), data):
                raise UploadGone(GONE)
            if not self._adapt(fd, data):
                return None
            self._sync_source(fd, data)
        finally:
            close(fd)
        try:
            return self._publish(lambda path: os.link(origin, path, follow_symlinks=False))
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            return None

    def _open_data(self, path: str, status: os.stat_result) -> int:
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
            return os.open(path, os.O_RDONLY | FLAGS)
        with self._source.open() as file:  # only the store knows whether it is ours, as a file of a trusted group
            return os.dup(file.fileno())

    def _sync_source(self, fd: int, status: os.stat_result) -> None:
        """Force the data to the disk. After a failure it is never linked, because a second try would prove nothing."""
        if self._source.sync is not None:
            self._source.sync()
            return
        identity = (status.st_dev, status.st_ino)
        if identity in _doubtful:
            raise OSError(errno.EIO, "the data could not be forced to the disk before")
        try:
            sync(fd)
        except OSError:
            _doubtful.add(identity)
            raise

    def _adapt(self, fd: int, has: os.stat_result) -> bool:
        """Give the data the group, ACL and mode of a file that is created in the directory; return False if it cannot.

        Args:
            fd: the data.
            has: its status.
        """
        directory = self._start if self._names is None else self._names.fd
        wanted = permissions_in(directory, self._status, self._create)
        mode = wanted.mode if self._mode is None else self._mode
        if not mode & stat.S_IRUSR:
            return False  # the data must stay readable until the upload is accepted
        has_acl = attribute(fd, acl.ACCESS)
        try:
            if has.st_gid != wanted.group:
                os.fchown(fd, -1, wanted.group)
            if wanted.acl is not None and wanted.acl != has_acl:
                os.setxattr(fd, acl.ACCESS, wanted.acl)
            elif wanted.acl is None and has_acl is not None:
                os.removexattr(fd, acl.ACCESS)
            if (stat.S_IMODE(has.st_mode), has.st_gid, has_acl) != (mode, wanted.group, wanted.acl):
                os.fchmod(fd, mode)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            return False
        return True

    def _create(self) -> Permissions:
        """Create a file in the directory for a moment, and return what it got."""
        fd = self._open_hidden(reuses=False)
        try:
            return Permissions.of(fd)
        finally:
            close(fd)
            unlink(self._hidden)
            self._has_hidden = False

    # -- A copy --

    def _copy(self) -> str:
        """Copy the data to the hidden name, make the copy durable, and then visible; return its path."""
        hidden = self._hidden
        fd = self._open_hidden(reuses=True)
        try:
            self._fill(fd)
            os.ftruncate(fd, self._size)
            is_marked = _mark(fd, self._key)
            if self._mode is not None:
                os.fchmod(fd, self._mode)
            sync_file(fd)
        finally:
            close(fd)
        if is_marked:
            try:
                return self._publish(lambda path: os.link(hidden, path, follow_symlinks=False))
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
        return self._publish(lambda path: os.rename(hidden, path), _SUFFIXES[-1:])

    def _fill(self, fd: int) -> None:
        source, size = self._source, self._size
        if self._origin is not None:
            with source.open() as file:
                copy_data(file.fileno(), fd, 0, size)
            return
        done = 0
        with source.open() as file:
            while block := file.read(min(_BUFFER, size - done)):
                if write_at(fd, done, block) < len(block):
                    raise StorageFull()
                done += len(block)
        if done < size:
            raise OSError(errno.EIO, f"the data of the upload ended after {done} of {size} bytes")

    def _open_hidden(self, reuses: bool) -> int:
        """Open the hidden name for writing, as a file of its own.

        Args:
            reuses: whether a file from an earlier attempt is opened again; else it is replaced.
        """
        self._has_hidden = True
        while True:
            try:
                return os.open(self._hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | FLAGS, 0o666)
            except FileExistsError:
                fd = self._reopen_hidden() if reuses else None
                if fd is not None:
                    return fd
                unlink(self._hidden)

    def _reopen_hidden(self) -> int | None:
        """Open what an earlier attempt has left; None if it is another's, or has a visible name."""
        try:
            fd = os.open(self._hidden, os.O_RDWR | FLAGS)
        except OSError:
            return None
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1:
            return fd
        close(fd)
        return None


def _mark(fd: int, key: str) -> bool:
    """Mark a copy with the key of its upload; return whether the file system keeps the mark."""
    if not hasattr(os, "setxattr"):
        return False
    try:
        os.setxattr(fd, MARK, key.encode())
    except OSError:
        return False
    return True
