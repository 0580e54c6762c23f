"""Code that runs as another user of this machine, which only root can start."""

import os
import pickle
import shutil
import tempfile
import traceback

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
#: Users and groups of every system; the server's user, and another who is not its friend.
SERVER, STRANGER = 1, 65534


@pytest.fixture
def public():
    """A directory of root that every user can open, which ``tmp_path`` is not."""
    directory = tempfile.mkdtemp(dir="/tmp")
    os.chmod(directory, 0o755)
    yield directory
    shutil.rmtree(directory)


def own_directory(path, uid, mode=0o700, gid=None):
    """Make a directory of a user."""
    os.mkdir(path)
    os.chown(path, uid, uid if gid is None else gid)
    os.chmod(path, mode)
    return path


def start_as(uid, function, *, groups=(), umask=0o022):
    """Fork a process of a user that calls a function; the result is for :func:`result_of`."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    try:
        os.close(reading)
        os.setgroups(groups)
        os.setgid(uid)
        os.setuid(uid)
        os.umask(umask)
        try:
            result = (function(), None)
        except Exception as error:
            result = (None, f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
        with os.fdopen(writing, "wb") as file:
            pickle.dump(result, file)
    finally:
        os._exit(0)


def result_of(started):
    """Wait for a started process, and return what its function has returned.

    Raises:
        AssertionError: the function has failed; the text begins with the class and the text of the error.
    """
    child, reading = started
    with os.fdopen(reading, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    result, error = pickle.loads(data)
    assert error is None, error
    return result


def as_user(uid, function, **others):
    """Call a function in a process of a user, and return its result."""
    return result_of(start_as(uid, function, **others))
