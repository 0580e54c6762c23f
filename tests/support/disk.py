"""Disks that fill up, fail, or cannot do what others can."""

import contextlib
import errno
import os
import subprocess
from functools import partial
from unittest import mock

import pytest

from tus.filesystem import io, permissions, processes, saving


class FullDisk:
    """``os.pwrite``, or ``os.pwritev``, on a disk with so many bytes left."""

    def __init__(self, room, data_fd_of):
        self.room = room
        self._is_data = data_fd_of
        self._pwrite = os.pwrite

    def __call__(self, fd, block, offset):
        if not self._is_data(fd):
            return self._pwrite(fd, block, offset)
        if isinstance(block, tuple):
            block = b"".join(block)
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        block = memoryview(block)[: self.room]
        self.room -= len(block)
        return self._pwrite(fd, block, offset)


def full_disk(room):
    return FullDisk(room, lambda fd: not os.readlink(f"/proc/self/fd/{fd}").endswith(".tus"))


class System:
    """``os``, for the modules that save a file: it counts the calls, refuses some, and fails at one of them.

    Args:
        refused: the number of the error that a call of a name fails with, or a function of its arguments that says it.

    Attributes:
        calls: the names of the system calls that were made.
        fails_at: the index of the call that fails.
        fail: called with the call and its arguments instead of the call that fails.
    """

    CALLS = frozenset(
        {"close", "copy_file_range", "fchmod", "fchown", "fstat", "fsync", "ftruncate", "getxattr", "link", "lstat"}
        | {"open", "pread", "pwrite", "removexattr", "rename", "setxattr", "stat", "unlink"}
    )

    def __init__(self, **refused):
        self.refused = refused
        self.calls = []
        self.fails_at = None
        self.fail = None

    def __getattr__(self, name):
        real = getattr(os, name)
        return partial(self._call, name, real) if name in self.CALLS else real

    def _call(self, name, real, *arguments, **words):
        self.calls.append(name)
        if len(self.calls) - 1 == self.fails_at:
            return self.fail(partial(self._do, name, real, *arguments, **words))
        return self._do(name, real, *arguments, **words)

    def _do(self, name, real, *arguments, **words):
        number = self.refused.get(name)
        if callable(number):
            number = number(*arguments)
        if number:
            raise OSError(number, os.strerror(number))
        return real(*arguments, **words)

    @contextlib.contextmanager
    def installed(self):
        """Stand for ``os`` in these modules."""
        with contextlib.ExitStack() as patches:
            for module in (saving, io, permissions, processes):
                patches.enter_context(mock.patch.object(module, "os", self))
            yield self


def another_disk(directory):
    """A system on which the uploads of a directory are on another disk than everything else."""

    def crosses(source, target, **words):
        return errno.EXDEV if str(source).startswith(str(directory)) else 0

    return System(link=crosses)


def simple_disk():
    """A system whose disk has neither hard links nor extended attributes."""
    return System(link=errno.EPERM, setxattr=errno.ENOTSUP, getxattr=errno.ENOTSUP)


@contextlib.contextmanager
def mounted(kind, directory, size):
    """A file system of so many MiB, for root; the test is skipped where none can be made or mounted.

    Args:
        kind: tmpfs, ext4 or btrfs.
        directory: where its image and its mount point are made.
        size: in MiB.
    """
    disk = directory / f"{kind}-disk"
    disk.mkdir(exist_ok=True)
    try:
        mount(kind, directory, disk, size)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no {kind} can be mounted here: {error}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False, capture_output=True)


def mount(kind, directory, disk, size=0):
    """Mount a file system, which is made by the first call."""
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(disk)]
        subprocess.run(command, check=True, capture_output=True)
        return
    image = directory / f"{kind}.img"
    if not image.exists():
        with image.open("wb") as file:
            file.truncate(size << 20)
        quiet = ["-q", "-f"] if kind == "btrfs" else ["-q", "-m", "0"]
        subprocess.run([f"mkfs.{kind}", *quiet, str(image)], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(disk)], check=True, capture_output=True)
