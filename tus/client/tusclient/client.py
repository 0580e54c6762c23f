"""The client of tuspy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tus.client.tusclient.uploader import AsyncUploader, Uploader


class TusClient:
    """A server, and what its uploaders have in common.

    Args:
        url: creates uploads.
        headers: of each request.
        client_cert: the path of a certificate and its key in PEM, or both paths.
    """

    def __init__(
        self, url: str, headers: Mapping[str, str] | None = None, client_cert: str | tuple[str, str] | None = None
    ) -> None:
        self.url = url
        self.headers = dict(headers or {})
        self.client_cert = client_cert

    def set_headers(self, headers: Mapping[str, str]) -> None:
        """Add headers to those of each request, also of the uploaders that exist."""
        self.headers.update(headers)

    def uploader(self, *args: Any, **kwargs: Any) -> Uploader:
        """Return an uploader of a file; see there for the arguments."""
        return Uploader(*args, **kwargs | {"client": self})

    def async_uploader(self, *args: Any, **kwargs: Any) -> AsyncUploader:
        """Return the same for an event loop."""
        return AsyncUploader(*args, **kwargs | {"client": self})
