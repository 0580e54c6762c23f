"""``TusMiddleware``, a replacement for tuswsgi's: the same arguments and files, implemented by a ``Filter``.

Finished data stays at ``tmp_dir/<last segment of the upload's URL>``, for an application that fetches or moves it
later. Afterwards this package does not depend on the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote

from tus.adapters.interface import UPLOAD_KEY
from tus.adapters.wsgi import Environ, StartResponse, WsgiApp
from tus.errors import OptionError
from tus.filter import Filter
from tus.models import Upload
from tus.protocols.routing import is_under

_DEFAULT_EXPIRE = 30 * 86400  # seconds
_FOR_EVER = 100 * 365 * 86400  # seconds; a record must expire at some time


class TusMiddleware:
    """A WSGI middleware with the arguments of ``tuswsgi.TusMiddleware`` 0.5.5.

    When an upload is complete, the wrapped application gets a PATCH of its URL, with the path of the data as the body.
    A response other than a 2xx goes to the client.

    Clients and applications can notice these differences from tuswsgi:

    - An ``Upload-Offset`` that does not continue the upload is refused (409) before anything is stored, and so is a
      body longer than the upload (413). The bytes that arrived before a disconnect are kept. A wrong ``Content-Type``
      is refused (415).
    - Every 2xx response of the application becomes 204 without its body. In tuswsgi only 200 does, and keeps its body.
    - Paths that only begin with the same letters, and GET of ``upload_path`` itself, go to the application.
    - Uploads can be concatenated, also unfinished ones; the application gets the final upload, and no single part. It
      also gets empty files, which are complete when they are created.
    - Without ``do_cleanup`` nothing expires, and responses have no ``Upload-Expires``. With it, an upload expires
      ``expire`` seconds after its last byte, and a finished one as long after the application accepted it. No other
      file in ``tmp_dir`` is touched, and no request waits for the removal.
    - ``tmp_dir`` has no default, and no other user may be able to write to it.
    - ``<id>.tus`` replaces ``<id>.info``; ``tus import`` converts the records. Both files of an upload have mode 0600.

    Args:
        app: the wrapped application.
        upload_path: the path of the URL that creates uploads, counted from the root of the site.
        api_base: what comes before ``upload_path`` in the URL of an upload: the start of an absolute URL, or a path.
        tmp_dir: the directory of the uploads, created if missing. It is required.
        expire: in seconds.
        send_file: whether the body of the application's request is the data itself, not its path.
        max_size: the largest upload, in bytes.
        do_cleanup: whether anything expires.

    Raises:
        OptionError: an argument has a bad value, or the directory cannot be used.
    """

    def __init__(
        self,
        app: WsgiApp,
        upload_path: str,
        api_base: str = "",
        tmp_dir: str = "",
        expire: int = _DEFAULT_EXPIRE,
        send_file: bool = False,
        max_size: int = 2**30,
        do_cleanup: bool = False,
    ) -> None:
        for name, value in (("max_size", max_size), ("expire", expire)):
            if not value:  # Filter takes 0 as no limit, tuswsgi as a limit of 0
                raise OptionError(name, "must be more than 0")
        if not tmp_dir:
            raise OptionError("tmp_dir", "is required; it must be a directory that no other user can write to")
        try:
            os.makedirs(os.path.dirname(os.path.abspath(tmp_dir)), exist_ok=True)
        except OSError as error:
            raise OptionError("tmp_dir", f"{tmp_dir!r} cannot be created: {error.strerror}") from None
        self._creation_path = "/" + upload_path.strip("/")
        self._prefix = api_base.rstrip("/") if api_base.startswith("/") else ""
        self._app = app
        self._filter = Filter(
            self._call_app,
            upload_path=upload_path,
            tmp_file_dir=tmp_dir,
            send_file=send_file,
            max_size=max_size,
            max_metadata_size=0,
            upload_valid_duration=expire if do_cleanup else 0,
            completed_keep=expire if do_cleanup else _FOR_EVER,
            keep_finished=True,
            base_url="" if self._prefix else api_base,
        )

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
            if status.startswith("201"):
                headers = [
                    (name, self._add_prefix(value) if name.lower() == "location" else value) for name, value in headers
                ]
            return start_response(status, headers, *exc_info)

        return self._filter(environ, start if self._prefix else start_response)

    def _add_prefix(self, location: str) -> str:
        """Return the URL of an upload with the path prefix that a proxy removes; any other URL unchanged."""
        scheme, _, rest = location.partition("://")
        host, _, path = rest.partition("/")
        ours = is_under(unquote("/" + path), self._creation_path)
        return f"{scheme}://{host}{self._prefix}/{path}" if ours else location

    def _call_app(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        upload: Upload | None = environ.get(UPLOAD_KEY)
        if upload is not None:
            # A creation can complete an upload, its own or another one, but applications have one route, for PATCH.
            environ["REQUEST_METHOD"] = "PATCH"
            path = f"{self._creation_path}/{upload.id}".encode().decode("latin-1")
            environ["PATH_INFO"] = path.removeprefix(str(environ.get("SCRIPT_NAME", "")))
        return self._app(environ, start_response)
