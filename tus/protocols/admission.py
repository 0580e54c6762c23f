"""Checks of the permission to use an upload. Pure."""

from __future__ import annotations

import logging

from tus.errors import Forbidden, InternalError, UploadGone, UploadNotFound
from tus.models import Response, Upload, principal_of

log = logging.getLogger(__name__)


class Refused(Exception):
    """A refusal of a request by the application or a hook, with a response of their own.

    Attributes:
        answer: the response.
    """

    def __init__(self, answer: Response) -> None:
        super().__init__(answer.status)
        self.answer = answer


def named_principal(value: object, source: str) -> str | None:
    """Return the principal that code of the site has named.

    Args:
        value: its value. False refuses the request, as many people would write it.
        source: the name of the code in the log, such as ``authorize``.

    Raises:
        Forbidden: the value is False.
        InternalError: the value is no principal. It must not be taken for permission.
    """
    if value is False:
        raise Forbidden("This request is not allowed.")
    try:
        return principal_of(value)
    except ValueError as error:
        log.error("%s has named no principal, so the request was refused: %s", source, error)  # noqa: TRY400
        raise InternalError() from None


def agree(first: str | None, second: str | None) -> str | None:
    """Return the principal that two sources have named. A source that names none leaves the other's.

    Raises:
        Forbidden: they name different ones. Neither of them may get the rights of the other.
    """
    if first is None or second is None:
        return second if first is None else first
    if first != second:
        log.warning("a request was refused, because two sources have named different principals for it")
        raise Forbidden("This request names two different users; log out, and log in as one of them.")
    return first


def check_alive(upload: Upload, now: float) -> None:
    """Check that an upload has not expired. An expired upload exists until the next sweep.

    Raises:
        UploadGone: it has expired.
    """
    if upload.has_expired(now):
        raise UploadGone()


def check_owner(upload: Upload, principal: str | None) -> None:
    """Check that an upload belongs to a principal, or to none.

    Raises:
        UploadNotFound: it belongs to another principal. For all others it does not exist.
    """
    if upload.principal is not None and principal != upload.principal:
        raise UploadNotFound()
