"""The process that runs. A forked child shares the locks of its parent, and must not end what the parent holds."""

from __future__ import annotations

import os
import threading

from tus.filesystem.descriptors import close


class Process:
    """A process. To compare two of them costs no system call, unlike ``os.getpid()``."""

    def __init__(self) -> None:
        self._status_fd = -1
        self._lock = threading.Lock()

    def read_umask(self) -> int | None:
        """Return the umask, or None if the system does not say it.

        Only Linux does. The call of POSIX returns the umask by changing it, also for other threads.
        """
        try:
            if self._status_fd < 0:
                self._open_status()
            head = os.pread(self._status_fd, 128, 0)
            return int(head.partition(b"\nUmask:")[2][:6], 8)
        except (OSError, ValueError):
            return None

    def _open_status(self) -> None:
        with self._lock:
            if self._status_fd < 0:
                self._status_fd = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)

    def forget(self) -> None:
        """Close what is open, in a forked child: it is about the parent."""
        fd, self._status_fd = self._status_fd, -1
        close(fd)


#: The process that runs this code; a child gets another one. A fork by code in C must tell Python, as uWSGI does.
current = Process()


def _begin() -> None:
    global current
    current.forget()
    current = Process()


os.register_at_fork(after_in_child=_begin)
