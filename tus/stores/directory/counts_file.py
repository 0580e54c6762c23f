"""The file of the counts, and its lock.

Every request that creates or ends an upload changes the counts. So the threads of a process queue for a lock of their
own, where they would try the one of the file again and again. The file does not stay open: it would keep an operator
from making the disk read-only.
"""

from __future__ import annotations

import threading

from tus.errors import UploadLocked
from tus.filesystem import processes
from tus.filesystem.descriptors import close
from tus.filesystem.locks import LIMIT, lock, unlock_and_close
from tus.filesystem.ownership import Ownership


class CountsFile:
    """A file that one thread of one process holds at a time.

    Args:
        path: the path of the file. It is created if there is none.
        ownership: whose files are believed.
    """

    def __init__(self, path: str, ownership: Ownership) -> None:
        self._path = path
        self._ownership = ownership
        self._process = processes.current
        self._mutex = threading.Lock()
        self._fd = -1  # of the thread that holds the lock

    def __enter__(self) -> int:
        """Wait until no other thread or process holds the file, and return its descriptor.

        Raises:
            UploadLocked: another one has held it for too long.
            NotOurs: another user has made the file.
        """
        if self._process is not processes.current:  # a thread of the parent may have held the lock at the fork
            self._process, self._mutex = processes.current, threading.Lock()
        if not self._mutex.acquire(timeout=LIMIT):
            raise UploadLocked()
        try:
            self._fd = fd = self._ownership.open_or_create(self._path)
            try:
                lock(fd)
            except BaseException:
                close(fd)
                raise
        except BaseException:
            self._mutex.release()
            raise
        return fd

    def __exit__(self, *error: object) -> None:
        unlock_and_close(self._fd)
        self._mutex.release()
