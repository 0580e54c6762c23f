"""What a site provides."""

from __future__ import annotations

from typing import BinaryIO

from zope.interface import Interface

from tus.models import Upload


class IUploadReceiver(Interface):  # type: ignore[misc]
    """Takes finished uploads: an adapter of the folder and the request.

    It runs within the request's transaction, and may run again after a conflict.
    """

    def receive(upload: Upload, file: BinaryIO) -> str | None:  # noqa: N805 - an interface
        """Make something of a finished upload.

        Args:
            upload: its name, its metadata, its length and who created it.
            file: its data, at its beginning. It is closed afterwards.

        Returns:
            The URL of what was made, for the client to hear, or None.

        Raises:
            Exception: it is not accepted. The transaction is aborted, the file kept, and the client hears the error.
        """
