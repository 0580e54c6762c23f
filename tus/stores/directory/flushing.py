"""Forcing the bytes of a running append to the disk, in the background.

Under the policy ``finish`` only a complete file is forced to the disk. A large file would lose all its bytes in a crash
of the machine, and its last request would wait for all of them. So a thread of its own forces the counted bytes to the
disk whenever many are not, and then records it. No request waits for it, but the one that completes the upload: the
system reports an error to one caller only.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from tus.errors import RequestError
from tus.filesystem.descriptors import close
from tus.filesystem.io import sync

log = logging.getLogger(__name__)

#: Bytes that may be counted and not forced to the disk, before a thread begins with it.
FLUSH_EVERY = 32 << 20
_MOST = 32  # flushes at a time, because a stalled disk ends none


@dataclass(frozen=True, slots=True)
class Flush:
    """The bytes of one upload that are being forced to the disk.

    Attributes:
        data_fd: the data, a descriptor of its own.
        synced: is called after success.
        failed: is called after a failure.
        process: the id of the process.
        has_ended: is set at the end.
    """

    data_fd: int
    synced: Callable[[], None]
    failed: Callable[[], None]
    process: int = field(default_factory=os.getpid)
    has_ended: threading.Event = field(default_factory=threading.Event)

    def run(self, path: str) -> None:
        """Force the bytes to the disk, and record the result."""
        try:
            with suppress(RequestError):  # the upload is gone, or another session has replaced this one
                self._run(path)
        except OSError:
            log.exception("the result for upload %s could not be recorded", os.path.basename(path))
        finally:
            close(self.data_fd)
            flushes.pop(path, None)
            self.has_ended.set()

    def _run(self, path: str) -> None:
        try:
            sync(self.data_fd)
        except OSError:
            log.exception("bytes of upload %s could not be forced to the disk", os.path.basename(path))
            self.failed()
        else:
            self.synced()


#: The running flushes of this process, by the path of the data.
flushes: dict[str, Flush] = {}


def start(flush: Flush, path: str) -> None:
    """Run a flush in a thread of its own, unless there are too many threads: then a later block tries again."""
    if len(flushes) >= _MOST:
        close(flush.data_fd)
        return
    thread = threading.Thread(target=flush.run, args=(path,), name="tus-flush", daemon=True)
    flushes[path] = flush
    try:
        thread.start()
    except RuntimeError:
        del flushes[path]
        close(flush.data_fd)


def is_running(path: str) -> bool:
    """Return whether a flush of an upload runs in this process."""
    flush = flushes.get(path)
    return flush is not None and flush.process == os.getpid()


def wait(path: str) -> None:
    """Wait for the flush of an upload, if one is running. The caller does not hold the lock of the side-car."""
    flush = flushes.get(path)
    if flush is not None and flush.process == os.getpid():
        flush.has_ended.wait()
