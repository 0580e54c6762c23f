"""``egg:tus#files``: an application that puts each finished upload into a directory, under its own name.

It is wrapped by :class:`tus.filter.Filter`, in ``tus serve`` and in other pipelines. A file appears once it is whole,
never replaces another file, and appears once, also after a crash. See
:meth:`tus.handover.finished.FinishedUpload.save_to`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from functools import partial

from tus.adapters.interface import UPLOAD_KEY
from tus.adapters.wsgi import Environ, StartResponse
from tus.converters import suggestion
from tus.errors import OptionError, StorageFull, StorageUnavailable
from tus.filesystem.home import Home
from tus.filesystem.ownership import Ownership
from tus.filesystem.saving import Target, probe
from tus.handover.finished import FinishedUpload

log = logging.getLogger(__name__)

NOTHING_ELSE = "Not found. This server only receives uploads."


class Files:
    """The application.

    Args:
        directory: the target of the files; its last level is created if missing. If it is on another file system than
            the uploads, files are copied.

    Raises:
        OptionError: the directory cannot be created or written, or every user of the machine can replace its files.
    """

    def __init__(self, directory: str) -> None:
        self.directory = os.path.abspath(directory)
        _prepare(self.directory)
        home = Home(self.directory, partial(_prepare, self.directory))
        self._target = Target(self.directory, home.ensure)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        upload: FinishedUpload | None = environ.get(UPLOAD_KEY)
        if upload is None:
            status, text = "404 Not Found", f"{NOTHING_ELSE}\n".encode()
        else:
            self.take(upload)
            status, text = "200 OK", b""
        start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text)))])
        return [text]

    def take(self, upload: FinishedUpload) -> None:
        """Put a finished upload into the directory; as ``on_finished`` this needs no application."""
        upload.save_to(self._target)

    take.calls_out = False  # type: ignore[attr-defined]  # it only touches the disk


def _prepare(directory: str) -> None:
    """Create the last level of a directory if it is missing, and check that files can be saved in it.

    Raises:
        OptionError: it cannot be created, or takes no files.
    """
    try:
        os.mkdir(directory, 0o775)
    except FileExistsError:
        pass
    except OSError as error:
        raise OptionError("directory", f"{directory!r} cannot be created: {error.strerror}") from None
    Ownership().check_target(directory, "directory")
    try:
        probe(directory)
    except (StorageFull, StorageUnavailable):
        log.warning("the disk of %s is full or read-only; finished files wait until it takes them", directory)
    except OSError as error:
        raise OptionError("directory", f"{directory!r} must be a writable directory: {error.strerror}") from None


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
