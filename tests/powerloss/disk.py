"""A disk that may lose everything that was not forced to it, in any order, torn between two sectors.

It watches the system calls of this process on files of some directories, which are carried out as well. So it knows at
each moment what a real disk is sure to have, and what it may have.
"""

import errno
import os
import sys
from contextlib import contextmanager
from unittest import mock

from tus.filesystem import io as files

SECTOR = 512


class PowerLoss(BaseException):
    """The machine is off."""


class File:
    """The content of a file: as programs see it, and as the disk has it."""

    def __init__(self, content=b""):
        self.cache = bytearray(content)
        self.disk = bytes(content)
        self.dirty = {}  # by sector, what it contained since it was forced to the disk
        self.sizes = []  # likewise

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

    def sync(self):
        self.disk = self._compose(lambda old, versions: versions[-1], len(self.cache))
        self.dirty, self.sizes = {}, []

    def fail(self, choose):
        """Report that a sync failed: some of it is on the disk, and none of it will be tried again."""
        self.disk = self.after_loss(choose)
        self.dirty, self.sizes = {}, []

    def after_loss(self, choose):
        """Return what a disk may have."""
        mood = choose.random()

        def pick(old, versions):
            if mood < 0.2:
                return old
            return versions[-1] if mood < 0.4 else choose.choice([old, *versions])

        return self._compose(pick, choose.choice([len(self.disk), *self.sizes, len(self.cache)]))

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
    """The names in a directory."""

    def __init__(self):
        self.cache, self.disk, self.changes = {}, {}, []

    def change(self, **names):
        """Give names other files, in one step; None removes a name."""
        self._apply(self.cache, names)
        self.changes.append(names)

    def sync(self):
        self.disk, self.changes = dict(self.cache), []

    def fail(self, choose):
        self.disk, self.changes = self.after_loss(choose), []

    def after_loss(self, choose):
        kept, names = choose.choice([0.0, 0.5, 1.0, 0.5]), dict(self.disk)
        for change in self.changes:
            if choose.random() < kept:
                self._apply(names, change)
        return names

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
        folders: the paths of the directories.
        choose: the source of randomness.
        links: whether a file can have names in two folders.
        cut_after: the number of changes and syncs before the power is lost; None for never.
        ignored: returns whether the sync of a place in the code is left out, see :func:`_place`.
    """

    def __init__(self, folders, choose, links=True, cut_after=None, ignored=lambda place: False):
        self.folders = {path: Folder() for path in folders}
        self.links = links
        self.choose, self.left, self.ignored = choose, cut_after, ignored
        self.fails_next = False
        self.failed = []  # the files and folders of which a sync failed
        self.places = set()
        self._files = {}  # by inode
        self.is_off = False

    # -- What the calls do --

    def _step(self, change):
        """Carry out a change, unless the power is lost at this moment: then perhaps."""
        if self.is_off:
            return
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                if change is not None and self.choose.random() < 0.5:
                    change()
                self.is_off = True
                raise PowerLoss
        if change is not None:
            change()

    def file_of(self, fd):
        status = os.fstat(fd)
        return self._files.get((status.st_dev, status.st_ino))

    def _split(self, path):
        folder, name = os.path.split(os.fspath(path))
        return self.folders.get(folder), name

    def add(self, path, content):
        """Put a file that is on the disk already."""
        folder, name = self._split(path)
        with open(path, "wb") as stream:
            stream.write(content)
            status = os.fstat(stream.fileno())
        file = self._files[status.st_dev, status.st_ino] = File(content)
        folder.cache[name] = folder.disk[name] = file

    def add_link(self, path, target):
        """Put a further name of a file that is on the disk already."""
        folder, name = self._split(path)
        os.link(target, path)
        status = os.stat(path)
        folder.cache[name] = folder.disk[name] = self._files[status.st_dev, status.st_ino]

    def sync(self, fd):
        status = os.fstat(fd)
        target = self._files.get((status.st_dev, status.st_ino))
        if target is None:
            path = os.readlink(f"/proc/self/fd/{fd}")
            target = self.folders.get(path)
        if target is None or self.is_off:
            return
        place = _place(target)
        self.places.add(place)
        if self.fails_next:
            self.fails_next = False
            self.failed.append(target)
            self._step(None)
            target.fail(self.choose)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if not self.ignored(place):
            self._step(target.sync)

    def after_loss(self):
        """Return what may be on the disk: the names in each folder, each with its file, and the files' contents."""
        names = {path: folder.after_loss(self.choose) for path, folder in self.folders.items()}
        contents = {}
        for folder in names.values():
            for file in folder.values():
                if id(file) not in contents:
                    contents[id(file)] = file.after_loss(self.choose)
        return names, contents

    @contextmanager
    def watched(self):
        """Watch the calls of this process."""
        real = {name: getattr(os, name) for name in ("open", "pwrite", "pwritev", "ftruncate", "unlink", "link")}
        real |= {name: getattr(os, name) for name in ("rename", "replace", "copy_file_range")}

        def open_(path, flags, mode=0o777, **options):
            folder, name = self._split(path) if isinstance(path, str) else (None, "")
            is_new = folder is not None and flags & os.O_CREAT and not os.path.lexists(path)
            if is_new:
                file = File()
                self._step(lambda: folder.change(**{name: file}))
            fd = real["open"](path, flags, mode, **options)
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

        def unlink(path, **options):
            folder, name = self._split(path)
            if folder is not None and name in folder.cache:
                self._step(lambda: folder.change(**{name: None}))
            real["unlink"](path, **options)

        def link(source, target, **options):
            (old, old_name), (folder, name) = self._split(source), self._split(target)
            if old is not folder and not self.links:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
            if old is not None and folder is not None and not os.path.lexists(target):
                self._step(lambda: folder.change(**{name: old.cache[old_name]}))
            real["link"](source, target, **options)

        def rename(source, target):
            (old, old_name), (folder, name) = self._split(source), self._split(target)
            assert old is folder, "a move to another directory is not modelled"
            if folder is not None:
                self._step(lambda: folder.change(**{name: folder.cache[old_name], old_name: None}))
            real["rename"](source, target)

        calls = {
            "open": open_,
            "pwrite": pwrite,
            "pwritev": pwritev,
            "copy_file_range": copy_file_range,
            "ftruncate": ftruncate,
            "unlink": unlink,
            "link": link,
            "rename": rename,
            "replace": rename,
            "fsync": self.sync,
            "fdatasync": self.sync,
        }
        with mock.patch.multiple(os, **calls), mock.patch.object(files, "_fdatasync", self.sync):
            yield self


def _place(target):
    """Return the place in the code that forces something to the disk, as a text that changes little."""
    frame = sys._getframe(2)
    while frame.f_code.co_filename.endswith(("filesystem/io.py", "powerloss/disk.py")):
        frame = frame.f_back
    below = frame.f_back
    kind = "names" if isinstance(target, Folder) else "file"
    module = os.path.basename(frame.f_code.co_filename)
    return f"{module}:{frame.f_code.co_qualname} of {kind} for {below.f_code.co_qualname}"
