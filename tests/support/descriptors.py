"""The descriptors that a process has open. A test looks for its own, because threads of other tests have some too."""

import contextlib
import os

import pytest

DIRECTORY = "/proc/{}/fd"
needs_proc = pytest.mark.skipif(
    not os.path.isdir(DIRECTORY.format("self")), reason="this system does not show the files of a process"
)


def opened(process="self"):
    """Yield the path, or the name of a pipe or socket, of each descriptor."""
    directory = DIRECTORY.format(process)
    for fd in os.listdir(directory):
        with contextlib.suppress(OSError):  # another thread has closed it; or it was that of the listing
            yield os.readlink(os.path.join(directory, fd))


def opened_below(directory):
    """Return the names of the files and directories in a directory, at any depth, that this process has open."""
    start = os.path.realpath(directory) + "/"
    return sorted(path.removeprefix(start) for path in opened() if path.startswith(start))
