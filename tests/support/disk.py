"""Disks that fill up, fail, or cannot do what others can."""

import contextlib
import errno
import os
from functools import partial
from unittest import mock

from tus.filesystem import io, saving


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
        with mock.patch.object(saving, "os", self), mock.patch.object(io, "os", self):
            yield self


def another_disk(directory):
    """A system on which the uploads of a directory are on another disk than everything else."""

    def crosses(source, target, **words):
        return errno.EXDEV if str(source).startswith(str(directory)) else 0

    return System(link=crosses)


def simple_disk():
    """A system whose disk has neither hard links nor extended attributes."""
    return System(link=errno.EPERM, setxattr=errno.ENOTSUP, getxattr=errno.ENOTSUP)
