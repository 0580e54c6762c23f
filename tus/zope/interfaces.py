"""The interface that a site implements to handle finished uploads."""

from __future__ import annotations

from typing import BinaryIO

from zope.interface import Interface

from tus.handover.finished import FinishedUpload


class IUploadReceiver(Interface):  # type: ignore[misc]
    """The receiver of finished uploads: an adapter for the folder and the request.

    It runs within the request's transaction, and may run again after a conflict.
    """

    def receive(upload: FinishedUpload, file: BinaryIO) -> str | None:  # noqa: N805 - an interface
        """Handle a finished upload, for example by creating content from it.

        Args:
            upload: with its name, metadata, length and principal. It can also be opened and saved.
            file: its data, at position 0. It is closed afterwards.

        Returns:
            The URL of the new content, for the client, or None.

        Raises:
            Exception: the upload is not accepted. The transaction is aborted, the file is kept, and the client gets
                the error.
        """
