"""``egg:tus#files``: an application that puts each finished upload into a directory, under its own name.

It is wrapped by :class:`tus.filter.Filter`, in ``tus serve`` and in other pipelines. A hard link makes a file appear,
so it is always whole, and never replaces another file. Accepting is this one step, and happens exactly once: after a
crash, the next attempt recognizes the file by its inode.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterable

from tus.adapters.interface import UPLOAD_KEY
from tus.adapters.wsgi import Environ, StartResponse
from tus.converters import suggestion
from tus.errors import OptionError
from tus.models import Upload


class Files:
    """The application.

    Args:
        directory: the target of the files; its last level is created if missing. It must be on the file system of the
            uploads, which must support hard links.

    Raises:
        OptionError: the directory cannot be created or written, or does not support hard links.
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
            status, text = "404 Not Found", b"Not found. This server only receives uploads.\n"
        else:
            self.store(upload)
            status, text = "200 OK", b""
        start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text)))])
        return [text]

    def store(self, upload: Upload) -> str:
        """Link a finished file into the directory, and return its name there."""
        source = str(upload.path)
        os.chmod(source, self._mode)
        name = self._find_link(source) or self._link(source, upload.filename)
        fd = os.open(self.directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        return name

    def _find_link(self, source: str) -> str | None:
        """Return the name under which an earlier attempt has linked the file, or None."""
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
            "directory", f"{directory!r} must be writable and support hard links: {error.strerror}"
        ) from None


def app_factory(global_conf: dict[str, str], **options: str) -> Files:
    """Make the application ``egg:tus#files`` for paste.deploy (a ``paste.app_factory``).

    Raises:
        OptionError: ``directory`` is missing or cannot be used, or another option is given.
    """
    for name in options:
        if name != "directory":
            raise OptionError(name, f"is unknown{suggestion(name, ('directory',))}; the only option is directory")
    if "directory" not in options:
        raise OptionError("directory", "is required")
    return Files(options["directory"])
