"""``egg:tus#files``: an application that puts each finished upload into a directory, under its own name.

It stands behind :class:`tus.filter.Filter`, in ``tus serve`` as in any pipeline. A file appears whole, because a hard
link makes it appear, and never in the place of another. Accepting is that one step, so it happens exactly once: when
it is repeated after a crash, the file is recognised by its inode.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterable

from tus.adapters.interface import UPLOAD_KEY
from tus.adapters.wsgi import Environ, StartResponse
from tus.errors import OptionError
from tus.models import Upload


class Files:
    """The application.

    Args:
        directory: where the files go; its last level is created where missing. It must be on the file system of the
            uploads, and that must have hard links.

    Raises:
        OptionError: the directory cannot be made or written, or has no hard links.
    """

    def __init__(self, directory: str) -> None:
        self.directory = os.path.abspath(directory)
        try:
            os.mkdir(self.directory)
        except FileExistsError:
            pass
        except OSError as error:
            raise OptionError("directory", f"{directory!r} cannot be created: {error.strerror}") from None
        self._mode = 0o666 & ~_umask()
        _check_links_work(self.directory)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        upload: Upload | None = environ.get(UPLOAD_KEY)
        if upload is None:
            status, text = "404 Not Found", b"There is nothing to see here; this server receives uploads.\n"
        else:
            self.land(upload)
            status, text = "200 OK", b""
        start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text)))])
        return [text]

    def land(self, upload: Upload) -> str:
        """Give the finished file its place; returns the name that it got there."""
        source = str(upload.path)
        os.chmod(source, self._mode)
        name = self._own_name(source) or self._link(source, upload.filename)
        fd = os.open(self.directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        return name

    def _own_name(self, source: str) -> str | None:
        """The name under which an earlier attempt has linked it already."""
        status = os.stat(source)
        if status.st_nlink == 1:
            return None
        with os.scandir(self.directory) as entries:
            for entry in entries:
                if entry.inode() == status.st_ino and os.path.samestat(entry.stat(follow_symlinks=False), status):
                    return entry.name
        return None

    def _link(self, source: str, name: str) -> str:
        stem, extension = os.path.splitext(name)
        for number in itertools.count(1):
            candidate = name if number == 1 else f"{stem} ({number}){extension}"
            try:
                os.link(source, os.path.join(self.directory, candidate))
            except FileExistsError:
                continue
            return candidate
        raise AssertionError("there is always another number")


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _check_links_work(directory: str) -> None:
    try:
        with tempfile.NamedTemporaryFile(prefix=".tus-probe-", dir=directory) as probe:
            os.link(probe.name, probe.name + ".link")
            os.unlink(probe.name + ".link")
    except OSError as error:
        raise OptionError(
            "directory", f"{directory!r} must be writable and have hard links: {error.strerror}"
        ) from None


def app_factory(global_conf: dict[str, str], **options: str) -> Files:
    """``egg:tus#files``, for paste.deploy (a ``paste.app_factory``).

    Raises:
        OptionError: an option but ``directory`` is given, or that is missing or does not serve.
    """
    for name in options:
        if name != "directory":
            raise OptionError(name, "is unknown; known is directory")
    if "directory" not in options:
        raise OptionError("directory", "is required")
    return Files(options["directory"])
