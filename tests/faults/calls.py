"""The seam: the system calls on files below a directory, of which one may fail.

The calls are those of ``os`` and ``fcntl``, in this process and all of its threads. File objects make theirs in C,
where they could not fail. So ``open`` returns here the file objects of ``_pyio``, which are the same in Python and call
``os``. The listings of ``os.scandir`` are replaced too. Python repeats an interrupted call itself (PEP 475), except
``close`` and calls by ``ctypes``. So only these fail with EINTR.
"""

from __future__ import annotations

import _io
import _pyio
import builtins
import contextlib
import errno
import fcntl
import functools
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from tus.stores.directory import space

SHORT, TORN = "short", "torn"
#: What can happen to a call: an error; a short result; an error after a half of the bytes.
FAULTS = (errno.EIO, errno.ENOSPC, errno.EINTR, errno.EMFILE, errno.EDQUOT, errno.ESTALE, SHORT, TORN)

_BY_PATH = ("access", "chmod", "getxattr", "listdir", "lstat", "mkdir", "open", "pathconf", "readlink", "removexattr")
_BY_PATH += ("rmdir", "scandir", "setxattr", "stat", "statvfs", "unlink", "utime")
_BY_TWO_PATHS = ("link", "rename", "replace")
_BY_FD = ("close", "copy_file_range", "dup", "fchmod", "fchown", "fdatasync", "fstat", "fsync", "ftruncate", "pread")
_BY_FD += ("preadv", "pwrite", "pwritev", "read", "sendfile", "write")
_BY_SECOND_FD = ("splice",)
_OF_FCNTL = ("flock", "ioctl")
#: The functions that can fail.
WATCHED = frozenset({*_BY_PATH, *_BY_TWO_PATHS, *_BY_FD, *_BY_SECOND_FD, *_OF_FCNTL})
_WRITES = frozenset({"pwrite", "pwritev", "splice", "write"})
_SHORTER = _WRITES | {"pread", "read", "copy_file_range", "sendfile"}
_INTERRUPTED = frozenset({"close", "fallocate"})
_PACKAGE = str(Path(space.__file__).parents[2])


@dataclass(frozen=True)
class Call:
    """A system call.

    Attributes:
        name: of the function.
        path: relative to the directory; the ids of uploads are shortened.
        site: the line of the package that makes the call.
    """

    name: str
    path: str
    site: str

    def __str__(self) -> str:
        return f"{self.name}({self.path}) at {self.site}"


def can_happen(call: Call, fault: int | str) -> bool:
    """Return whether a fault is possible for a call."""
    if fault == SHORT:
        return call.name in _SHORTER
    if fault == TORN:
        return call.name in _WRITES
    return fault != errno.EINTR or call.name in _INTERRUPTED


@dataclass
class Calls:
    """The calls on files below a directory, while :meth:`watched` runs.

    Attributes:
        root: the directory.
        made: the calls, if none of them fails.
        at: the index of the call that fails, or None.
        fault: what happens to it, one of :data:`FAULTS`.
        failed: the call that has failed, or None.
    """

    root: str
    at: int | None = None
    fault: int | str = errno.EIO
    made: list[Call] = field(default_factory=list)
    failed: Call | None = None
    _count: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _unsynced: dict[tuple[int, int], list[tuple[int, int]]] = field(default_factory=dict)

    @property
    def has_lost(self) -> bool:
        """Whether the failed call has said that bytes are lost. NFS says so in a close."""
        return self.failed is not None and self.failed.name in ("fsync", "fdatasync", "close")

    @contextlib.contextmanager
    def watched(self) -> Iterator[Calls]:
        """Watch the calls, and let one fail, for the ``with`` block."""
        with contextlib.ExitStack() as patches:
            for name in _BY_PATH + _BY_TWO_PATHS + _BY_FD + _BY_SECOND_FD:
                if hasattr(os, name):
                    self._replace(patches, os, name, getattr(os, name))
            for name in _OF_FCNTL:
                self._replace(patches, fcntl, name, getattr(fcntl, name))
            if space._fallocate is not None:
                patches.enter_context(mock.patch.object(space, "_fallocate", self._fallocate_by(space._fallocate)))
            opened = self._opened_by(builtins.open)
            for module in (builtins, io, _io):
                patches.enter_context(mock.patch.object(module, "open", opened))
            yield self

    def _replace(self, patches: contextlib.ExitStack, module: Any, name: str, real: Callable[..., Any]) -> None:
        """Replace a function in its module, and where a module of the package has kept it."""
        watched = partial(self._watch, name, real)
        for place, kept in ((module, name), *_places(real, len(sys.modules))):
            patches.callback(setattr, place, kept, real)
            setattr(place, kept, watched)

    def _watch(self, name: str, real: Callable[..., Any], *arguments: Any, **words: Any) -> Any:
        if self.failed is not None:
            return real(*arguments, **words)  # only one call fails, and the time of a round is spent here
        path = self._path_of(name, arguments, words)
        is_of_open = name == "fstat" and sys._getframe(1).f_globals is vars(_pyio)  # open() in C ignores its failure
        if path is None or is_of_open:
            return real(*arguments, **words)
        done = self._make(name, path, real, *arguments, **words)
        return _Listing(self, path, done) if name == "scandir" else done

    def _make(self, name: str, path: str, real: Callable[..., Any], *arguments: Any, **words: Any) -> Any:
        site = _site()
        if site is None:
            return real(*arguments, **words)  # the test itself looks at a file
        with self._lock:
            at, self._count = self._count, self._count + 1
        if self.at is None:
            self.made.append(Call(name, _shorten(path), site))
        if at != self.at or not can_happen(call := Call(name, _shorten(path), site), self.fault):
            done = real(*arguments, **words)
            self._note(name, arguments, words, done)
            return done
        self.failed = call
        return self._fail(name, real, arguments, words)

    def _fail(self, name: str, real: Callable[..., Any], arguments: tuple[Any, ...], words: dict[str, Any]) -> Any:
        if name == "close":
            real(*arguments)  # the number is free, whatever close() returns
        if name in ("fsync", "fdatasync"):
            self._lose(arguments[0])
        if self.fault in (SHORT, TORN):
            done = _do_half(name, real, arguments, words)
            self._note(name, arguments, words, done)
            if self.fault == SHORT:
                return done
        number = errno.EIO if self.fault == TORN else int(self.fault)
        raise OSError(number, os.strerror(number), *(name for name in arguments[:1] if isinstance(name, str)))

    # -- What a failed sync loses --

    def _note(self, name: str, arguments: tuple[Any, ...], words: dict[str, Any], done: Any) -> None:
        """Remember what was written to a file, and not synced."""
        if name == "pwrite" or name == "pwritev":
            self._unsynced.setdefault(_identity(arguments[0]), []).append((arguments[2], arguments[2] + done))
        elif name == "write":
            end = os.lseek(arguments[0], 0, os.SEEK_CUR)
            self._unsynced.setdefault(_identity(arguments[0]), []).append((end - done, end))
        elif name == "splice":
            start = words["offset_dst"]
            self._unsynced.setdefault(_identity(arguments[1]), []).append((start, start + done))
        elif name == "copy_file_range":
            start = arguments[4]
            self._unsynced.setdefault(_identity(arguments[1]), []).append((start, start + done))
        elif name in ("fsync", "fdatasync"):
            self._unsynced.pop(_identity(arguments[0]), None)

    def _lose(self, fd: int) -> None:
        """Lose the data that the failed sync of a file was about: the kernel reports the error once, and forgets it."""
        name = os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
        if name.endswith(".tus") or not os.path.isfile(f"/proc/self/fd/{fd}"):
            return
        for start, end in self._unsynced.pop(_identity(fd), ()):
            with open(f"/proc/self/fd/{fd}", "r+b", opener=_open_plainly) as file:
                end = min(end, file.seek(0, 2))
                file.seek(start)
                file.write(bytes(max(end - start, 0)))

    # -- Which file --

    def _path_of(self, name: str, arguments: tuple[Any, ...], words: dict[str, Any]) -> str | None:
        """Return the path of a call's file, or None if it is not below the directory."""
        if name in ("copy_file_range", "splice"):
            return self._relative(arguments[1])
        first = arguments[0] if arguments else words.get("path", words.get("src"))
        found = self._relative(first, words.get("dir_fd", words.get("src_dir_fd")))
        if found is None and name in _BY_TWO_PATHS:
            return self._relative(arguments[1], words.get("dst_dir_fd"))
        return found

    def _relative(self, file: Any, dir_fd: int | None = None) -> str | None:
        try:
            path = _path_of_fd(file) if isinstance(file, int) else os.fsdecode(file)
            if dir_fd is not None:
                path = os.path.join(_path_of_fd(dir_fd), path)
        except (OSError, TypeError):
            return None
        if path != self.root and not path.startswith(self.root + "/"):
            return None
        return path[len(self.root) + 1 :] or "."

    def _fallocate_by(self, real: Callable[..., int]) -> Callable[..., int]:
        def fallocate(fd: int, mode: int, offset: int, size: int) -> int:
            import ctypes

            path = self._relative(fd)
            if path is None:
                return real(fd, mode, offset, size)
            try:
                return int(self._make("fallocate", path, real, fd, mode, offset, size))
            except OSError as error:
                ctypes.set_errno(error.errno or 0)
                return -1

        return fallocate

    def _opened_by(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def opened(file: Any, *arguments: Any, **words: Any) -> Any:
            if self.failed is not None or self._relative(file) is None or _site() is None:
                return real(file, *arguments, **words)
            return _pyio.open(file, *arguments, **words)

        return opened


class _Listing:
    """What ``os.scandir`` returns. The kernel is asked for entries at the beginning, and again at the end."""

    def __init__(self, calls: Calls, path: str, real: Any) -> None:
        self._calls, self._path, self._real = calls, path, real
        self._is_begun = False

    def __iter__(self) -> _Listing:
        return self

    def __next__(self) -> _Entry:
        if not self._is_begun:
            self._is_begun = True
            self._calls._make("getdents", self._path, _nothing)
        entry = next(self._real, None)
        if entry is None:
            self._calls._make("getdents", self._path, _nothing)
            raise StopIteration
        return _Entry(self._calls, f"{self._path}/{entry.name}", entry)

    def __enter__(self) -> _Listing:
        return self

    def __exit__(self, *_: object) -> None:
        self._real.close()

    def close(self) -> None:
        self._real.close()


class _Entry:
    """An entry of a directory. A file system that does not keep the types of files in directories has to look."""

    def __init__(self, calls: Calls, path: str, real: os.DirEntry[str]) -> None:
        self.name, self.path, self._real = real.name, real.path, real
        looks = ("stat", "is_dir", "is_file", "is_symlink")
        self.stat, self.is_dir, self.is_file, self.is_symlink = (
            partial(calls._make, "stat", path, getattr(real, look)) for look in looks
        )

    def __fspath__(self) -> str:
        return self.path


def _nothing() -> None:
    """Do what a call of the kernel does that fails or not."""


@functools.cache
def _places(function: Callable[..., Any], modules: int) -> list[tuple[Any, str]]:
    """Return the modules of the package that have kept a function, and its names there.

    Args:
        function: the function.
        modules: how many modules are loaded, because more may be loaded later.
    """
    ours = [module for name, module in [*sys.modules.items()] if name.startswith("tus.")]
    return [(module, name) for module in ours for name, value in vars(module).items() if value is function]


_readlink, _fstat = os.readlink, os.fstat


def _path_of_fd(fd: int) -> str:
    return _readlink(f"/proc/self/fd/{fd}").removesuffix(" (deleted)")


def _identity(fd: int) -> tuple[int, int]:
    status = _fstat(fd)
    return status.st_dev, status.st_ino


def _open_plainly(path: str, flags: int, real: Callable[..., int] = os.open) -> int:
    return real(path, flags)


def _shorten(path: str) -> str:
    """Return a path in which each long run of hexadecimal digits is ``#``."""
    import re

    return re.sub("[0-9a-f]{6,}", "#", path)


def _site() -> str | None:
    """Return the innermost line of the package on the stack; None if a test makes the call."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_PACKAGE):
            return f"{name[len(_PACKAGE) + 1 :]}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return None


def _do_half(name: str, real: Callable[..., Any], arguments: tuple[Any, ...], words: dict[str, Any]) -> Any:
    """Make a call for a half of the bytes; a read for a half of those that are there."""
    if name == "pread":
        found = real(*arguments)
        return found[: (len(found) + 1) // 2]
    if name == "read":
        found = real(*arguments)
        half = (len(found) + 1) // 2
        os.lseek(arguments[0], half - len(found), os.SEEK_CUR)
        return found[:half]
    if name == "pwritev":
        fd, blocks, offset = arguments
        whole = b"".join(blocks)
        return os.pwrite.args[1](fd, whole[: len(whole) // 2], offset)  # type: ignore[attr-defined]
    if name in ("pwrite", "write"):
        fd, block, *offset = arguments
        return real(fd, memoryview(block)[: len(block) // 2], *offset)
    position = {"copy_file_range": 2, "splice": 2, "sendfile": 3}[name]
    halved = [*arguments]
    halved[position] = max(halved[position] // 2, 1)
    return real(*halved, **words)
