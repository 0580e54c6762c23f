"""A disk that fills up."""

import errno
import os


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
