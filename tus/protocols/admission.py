"""Checks of the permission to use an upload. Pure."""

from __future__ import annotations

from tus.errors import UploadGone, UploadNotFound
from tus.models import Response, Upload


class Refused(Exception):
    """A refusal of a request by the application or a hook, with a response of their own.

    Attributes:
        answer: the response.
    """

    def __init__(self, answer: Response) -> None:
        super().__init__(answer.status)
        self.answer = answer


def check_alive(upload: Upload, now: float) -> None:
    """Check that an upload has not expired. An expired upload exists until the next sweep.

    Raises:
        UploadGone: it has expired.
    """
    if upload.expires_at is not None and now >= upload.expires_at and upload.has_expired(now):
        raise UploadGone()


def check_owner(upload: Upload, principal: str | None) -> None:
    """Check that an upload belongs to a principal, or to none.

    Raises:
        UploadNotFound: it belongs to another principal. For all others it does not exist.
    """
    if upload.principal is not None and principal != upload.principal:
        raise UploadNotFound()
