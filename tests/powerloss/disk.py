"""A disk that may lose everything that was not forced to it, in any order, torn between two sectors.

It watches the system calls of this process on files of some directories, which are carried out as well. So it knows at
each moment what a real disk is sure to have, and what it may have.
"""

import errno
import os
import re
import sys
from contextlib import contextmanager, suppress
from functools import partial
from unittest import mock

from tus.filesystem import io as files

SECTOR = 512


class PowerLoss(BaseException):
    """The machine is off."""


class Killed(BaseException):
    """The process is killed; the machine runs on."""


class File:
    """The content of a file: as programs see it, and as the disk has it."""

    def __init__(self, content=b""):
        self.cache = bytearray(content)
        self.disk = bytes(content)
        self.dirty = {}  # by sector, what it contained since it was forced to the disk
        self.sizes = []  # likewise
        self.marks, self.disk_marks = {}, {}  # extended attributes

    def _touch(self, first, end):
        for sector in range(first // SECTOR, -(-end // SECTOR)):
            content = bytes(self.cache[sector * SECTOR : (sector + 1) * SECTOR])
            self.dirty.setdefault(sector, []).append(content)
        self.sizes.append(len(self.cache))

    def write(self, offset, data):
        gap, old = max(offset - len(self.cache), 0), len(self.cache)
        self.cache += bytes(gap)
        self.cache[offset : offset + len(data)] = data
        self._touch(min(offset, old), offset + len(data))

    def truncate(self, size):
        old = len(self.cache)
        self.cache[size:] = bytes(max(size - old, 0))
        self._touch(min(size, old), max(size, old))

    def mark(self, name, value):
        self.marks[name] = value

    def sync(self, has_marks=True):
        self.disk = self._compose(lambda old, versions: versions[-1], len(self.cache))
        self.dirty, self.sizes = {}, []
        if has_marks:
            self.disk_marks = dict(self.marks)

    def fail(self, choose):
        """Report that a sync failed: some of it is on the disk, and none of it will be tried again."""
        self.disk = self.after_loss(choose)
        self.dirty, self.sizes = {}, []

    def forgive(self):
        """Let the next sync write all of it."""
        self._touch(0, len(self.cache))

    def after_loss(self, choose):
        """Return what a disk may have."""
        mood = choose.random()

        def pick(old, versions):
            if mood < 0.2:
                return old
            return versions[-1] if mood < 0.4 else choose.choice([old, *versions])

        return self._compose(pick, choose.choice([len(self.disk), *self.sizes, len(self.cache)]))

    def marks_after_loss(self, choose):
        return self.marks if choose.random() < 0.5 else self.disk_marks

    def _compose(self, pick, size):
        result = bytearray(self.disk.ljust(size, b"\0")[:size])
        for sector, versions in self.dirty.items():
            start = sector * SECTOR
            if start < size:
                old = self.disk[start : start + SECTOR]
                content = pick(old, versions).ljust(SECTOR, b"\0")
                result[start : start + SECTOR] = content[: size - start]
        return bytes(result)


class Folder:
    """The names of files in a directory, and its own place among the directories.

    A directory that is moved is never lost and never in two places: a disk has it in one of the places that it had
    since the last one that is sure. A place is sure once both its directory and the one before it were synced after the
    move.
    """

    def __init__(self, place=None, is_rewritten=False):
        self.cache, self.disk, self.changes = {}, {}, []
        self.place = self.sure = place  # the folder and the name; None if it does not exist
        self.moves = []  # each with the folders that must be synced until it is sure
        self.is_changed = self.has_failed = False
        self.is_rewritten = is_rewritten

    def change(self, **names):
        """Give names other files, in one step; None removes a name."""
        self._apply(self.cache, names)
        self.changes.append(names)
        self.is_changed = True

    def move(self, place):
        """Make, move or remove the directory itself."""
        folders = {place[0] for place in (self.place, place) if place is not None}
        self.moves.append((place, folders))
        self.place = place
        for folder in folders:
            folder.is_changed = True

    def sync(self, folders):
        """Force the names to the disk. After a failure nothing is written again before the next change.

        Args:
            folders: all that there are, of which some may have moved into this one or out of it.
        """
        if self.has_failed and not self.is_changed and not self.is_rewritten:
            return
        self.disk, self.changes = dict(self.cache), []
        for folder in folders:
            if not folder.moves and any(place and place[0] is self for place in (folder.place, folder.sure)):
                folder.sure = folder.place  # if an earlier sync failed, the whole directory is written now
            for _, waited in folder.moves:
                waited.discard(self)
            while any(not waited for _, waited in folder.moves):
                folder.sure, _ = folder.moves.pop(0)
        self.is_changed = self.has_failed = False

    def fail(self, choose, folders):
        self.disk, self.changes = self.after_loss(choose), []
        for folder in folders:
            if any(self in waited for _, waited in folder.moves):
                folder.sure, folder.moves = folder.place_after_loss(choose), []
        self.is_changed, self.has_failed = False, True

    def forgive(self):
        """Let the next sync write all of it."""
        self.is_changed = True

    def after_loss(self, choose):
        kept, names = choose.choice([0.0, 0.5, 1.0, 0.5]), dict(self.disk)
        for change in self.changes:
            if choose.random() < kept:
                self._apply(names, change)
        return names

    def place_after_loss(self, choose):
        return choose.choice([self.sure, *(place for place, _ in self.moves)])

    @staticmethod
    def _apply(names, change):
        for name, file in change.items():
            if file is None:
                names.pop(name, None)
            else:
                names[name] = file


class Disk:
    """Folders below real directories.

    Args:
        folders: the paths of the directories that exist.
        choose: the source of randomness.
        apart: the path of one directory that is on another file system.
        rewritten: the path of one directory that a sync writes again although another one has failed.
        marks: whether files can have extended attributes.
        cut_after: the number of changes and syncs before the power is lost; None for never.
        ignored: returns whether the sync of a place in the code is left out, see :func:`_place`.
    """

    def __init__(
        self, folders, choose, apart=None, cut_after=None, ignored=lambda place: False, marks=True, rewritten=None
    ):
        self.folders = {path: Folder((None, path)) for path in folders}  # by path
        self._roots = tuple(self.folders)
        self._all = list(self.folders.values())  # those that were removed too
        self.apart, self.marks, self.rewritten = apart, marks, rewritten
        self.choose, self.left, self.ignored = choose, cut_after, ignored
        self.ending = PowerLoss
        self.fails_next = False
        self.failed = []  # the files and folders of which a sync failed
        self.places = set()
        self._files = {}  # by inode
        self.is_off = self.is_killed = False

    # -- What the calls do --

    def _step(self, change=None):
        """Carry out a change, unless the power is lost at this moment: then perhaps."""
        if self.is_killed:
            raise Killed
        if self.is_off:
            return
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                if self.ending is Killed:
                    self.is_killed = True
                    raise Killed
                if change is not None and self.choose.random() < 0.5:
                    change()
                self._look_at_all()
                self.is_off = True
                raise PowerLoss
        if change is not None:
            change()

    def wait(self):
        """Let some time pass, in which the power may be lost."""
        for _ in range(10):
            self._step()

    def restart(self, failed=()):
        """Let another process go on after one was killed.

        Args:
            failed: the files and folders of which a sync had just failed. They can be synced again, because the killed
                process alone knew of it, and no other one could do better.
        """
        self.is_killed = False
        for target in failed:
            target.forgive()

    def file_of(self, fd):
        status = os.fstat(fd)
        return self._files.get((status.st_dev, status.st_ino))

    def _split(self, path, dir_fd=None):
        path = os.fspath(path)
        if dir_fd is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
        folder, name = os.path.split(path)
        return self.folders.get(folder), name

    def _is_apart(self, path):
        return self.apart is not None and path.startswith(self.apart + os.sep)

    def add_folder(self, path):
        """Put a directory that is on the disk already."""
        os.mkdir(path, 0o700)
        parent, name = self._split(path)
        self.folders[path] = folder = Folder((parent, name), path == self.rewritten)
        self._all.append(folder)

    def add(self, path, content, marks=()):
        """Put a file that is on the disk already."""
        folder, name = self._split(path)
        with open(path, "wb") as stream:
            stream.write(content)
            status = os.fstat(stream.fileno())
        file = self._files[status.st_dev, status.st_ino] = File(content)
        for mark, value in dict(marks).items():
            os.setxattr(path, mark, value)
            file.marks[mark] = file.disk_marks[mark] = value
        folder.cache[name] = folder.disk[name] = file

    def add_link(self, path, target):
        """Put a further name of a file that is on the disk already."""
        folder, name = self._split(path)
        os.link(target, path)
        status = os.stat(path)
        folder.cache[name] = folder.disk[name] = self._files[status.st_dev, status.st_ino]

    def _look(self, fd):
        """Notice what a file got by calls that are not watched, those of a stream."""
        file = self.file_of(fd)
        if file is not None and not self.is_off:
            with open(f"/proc/self/fd/{fd}", "rb") as stream:
                content = stream.read()
            if content != file.cache:
                file.truncate(len(content))
                file.write(0, content)
        return file

    def sync(self, fd, has_marks=True):
        if self.is_killed:
            raise Killed
        status = os.fstat(fd)
        target = self._files.get((status.st_dev, status.st_ino))
        if target is None:
            path = os.readlink(f"/proc/self/fd/{fd}")
            target = self.folders.get(path)
        if target is None or self.is_off:
            return
        place = _place(f"names of {self._label(path)}" if isinstance(target, Folder) else "file")
        self.places.add(place)
        is_folder = isinstance(target, Folder)
        if not is_folder:
            self._look(fd)
        if self.fails_next:
            self.fails_next = False
            self.failed.append(target)
            self._step()
            target.fail(self.choose, *([self._all] if is_folder else []))
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if not self.ignored(place):
            self._step(partial(target.sync, self._all if is_folder else has_marks))

    def _label(self, path):
        return "root" if path in self._roots else re.sub("[0-9a-f]{32}", "*", os.path.basename(path))

    def after_loss(self):
        """Return what may be on the disk: the names in each directory, with their files, and what is in the files.

        A directory follows the one that it is in.
        """
        self._look_at_all()
        placed = {}
        for folder in self._all:
            placed[folder.place_after_loss(self.choose)] = folder  # of two in a place, the one made later
        placed.pop(None, None)
        names = {}

        def walk(folder, path):
            names[path] = folder.after_loss(self.choose)
            for place, child in placed.items():
                if place[0] is folder:
                    walk(child, os.path.join(path, place[1]))

        for root in self._roots:
            walk(placed[None, root], root)
        contents = {}
        for folder in names.values():
            for file in folder.values():
                if id(file) not in contents:
                    contents[id(file)] = (file.after_loss(self.choose), file.marks_after_loss(self.choose))
        return names, contents

    def _look_at_all(self):
        for path, folder in () if self.is_off else self.folders.items():
            for name in folder.cache:
                with suppress(FileNotFoundError):  # its creation is the change at this moment
                    self._look_at(os.path.join(path, name))

    def _look_at(self, path):
        fd = os.open(path, os.O_RDONLY)
        try:
            self._look(fd)
        finally:
            os.close(fd)

    @contextmanager
    def watched(self):
        """Watch the calls of this process."""
        names = ["open", "pwrite", "pwritev", "ftruncate", "unlink", "link", "rename", "replace", "copy_file_range"]
        real = {name: getattr(os, name) for name in (*names, "mkdir", "rmdir", "setxattr")}

        def open_(path, flags, mode=0o777, *, dir_fd=None):
            folder, name = self._split(path, dir_fd) if isinstance(path, str) else (None, "")
            is_new = folder is not None and flags & os.O_CREAT and not _exists(path, dir_fd)
            if is_new:
                file = File()
                self._step(lambda: folder.change(**{name: file}))
            fd = real["open"](path, flags, mode, dir_fd=dir_fd)
            if is_new:
                status = os.fstat(fd)
                self._files[status.st_dev, status.st_ino] = file
            return fd

        def write(fd, data, offset):
            file = self.file_of(fd)
            if file is not None:
                self._step(lambda: file.write(offset, bytes(data)))

        def pwrite(fd, data, offset):
            write(fd, data, offset)
            return real["pwrite"](fd, data, offset)

        def pwritev(fd, blocks, offset, *flags):
            write(fd, b"".join(blocks), offset)
            return real["pwritev"](fd, blocks, offset, *flags)

        def copy_file_range(source, target, count, offset_src=None, offset_dst=None):
            data = os.pread(source, count, offset_src)
            write(target, data, offset_dst)
            return real["pwrite"](target, data, offset_dst) if data else 0

        def ftruncate(fd, size):
            file = self.file_of(fd)
            if file is not None and os.fstat(fd).st_size != size:
                self._step(lambda: file.truncate(size))
            real["ftruncate"](fd, size)

        def setxattr(fd, mark, value, *rest, **options):
            file = self.file_of(fd)
            if file is not None and not self.marks:
                raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
            if file is not None:
                self._step(lambda: file.mark(mark, value))
            real["setxattr"](fd, mark, value, *rest, **options)

        def unlink(path, *, dir_fd=None):
            folder, name = self._split(path, dir_fd)
            if folder is not None and name in folder.cache and _exists(path, dir_fd):
                self._step(lambda: folder.change(**{name: None}))
            real["unlink"](path, dir_fd=dir_fd)

        def link(source, target, **options):
            (old, old_name), (folder, name) = self._split(source), self._split(target)
            if self._is_apart(source) != self._is_apart(target):
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
            if old is not None and folder is not None and not os.path.lexists(target) and os.path.lexists(source):
                self._look_at(source)
                self._step(lambda: folder.change(**{name: old.cache[old_name]}))
            real["link"](source, target, **options)

        def rename(source, target, **options):
            if source in self.folders:
                move(source, target)
            (old, old_name), (folder, name) = self._split(source), self._split(target)
            is_file = os.path.isfile(source) and os.path.isdir(os.path.dirname(target))
            if folder is not None and is_file:
                self._look_at(source)
                file = old.cache[old_name]
                if old is folder:
                    self._step(lambda: folder.change(**{name: file, old_name: None}))
                else:
                    self._step(lambda: (folder.change(**{name: file}), old.change(**{old_name: None})))
            real["rename"](source, target, **options)

        def move(source, target):
            if os.path.lexists(target):
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
            folder, place = self.folders[source], self._split(target)
            self._step(lambda: folder.move(place))
            for path in [path for path in self.folders if path == source or path.startswith(source + os.sep)]:
                self.folders[target + path[len(source) :]] = self.folders.pop(path)

        def mkdir(path, *mode, **options):
            place = self._split(path)
            if place[0] is not None and not os.path.lexists(path):
                folder = Folder(is_rewritten=path == self.rewritten)
                self._all.append(folder)
                self._step(lambda: folder.move(place))
                self.folders[path] = folder
            real["mkdir"](path, *mode, **options)

        def rmdir(path, *, dir_fd=None):
            parent, name = self._split(path, dir_fd)
            whole = next((whole for whole, folder in self.folders.items() if folder.place == (parent, name)), None)
            if whole is not None and not os.listdir(whole):
                folder = self.folders[whole]
                self._step(lambda: folder.move(None))
                self.folders.pop(whole)
            real["rmdir"](path, dir_fd=dir_fd)

        calls = {
            "open": open_,
            "pwrite": pwrite,
            "pwritev": pwritev,
            "copy_file_range": copy_file_range,
            "ftruncate": ftruncate,
            "setxattr": setxattr,
            "unlink": unlink,
            "link": link,
            "rename": rename,
            "replace": rename,
            "mkdir": mkdir,
            "rmdir": rmdir,
            "fsync": self.sync,
            "fdatasync": partial(self.sync, has_marks=False),
        }
        with mock.patch.multiple(os, **calls), mock.patch.object(files, "_fdatasync", calls["fdatasync"]):
            yield self


def _exists(path, dir_fd):
    try:
        os.lstat(path, dir_fd=dir_fd)
    except OSError:
        return False
    return True


def _place(kind):
    """Return the place in the code that forces something to the disk."""
    frame = sys._getframe(2)
    while frame.f_code.co_filename.endswith(("filesystem/io.py", "powerloss/disk.py")):
        frame = frame.f_back
    caller = frame.f_back.f_code
    module = os.path.basename(frame.f_code.co_filename)
    for_ = "" if "/tests/" in caller.co_filename else f" for {caller.co_qualname}"
    return f"{module}:{frame.f_lineno} {frame.f_code.co_qualname} of {kind}{for_}"
