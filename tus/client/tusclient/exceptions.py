"""The errors of tuspy."""

from __future__ import annotations

from typing import Self

from tus.client.errors import ClientError


class TusCommunicationError(Exception):
    """A request without the response that it needs.

    Attributes:
        status_code: of the response; None if there was none.
        response_content: the body of the response; None if there was none.
    """

    def __init__(
        self, message: object, status_code: int | None = None, response_content: bytes | str | None = None
    ) -> None:
        self.message = str(message or "") or f"The server answered {status_code}."
        super().__init__(self.message)
        self.status_code = status_code
        self.response_content = response_content

    @classmethod
    def of(cls, error: ClientError) -> Self:
        """Return the counterpart of an error of this client."""
        return cls(error, error.status, None if error.response is None else error.response.body)


class TusUploadFailed(TusCommunicationError):
    """A chunk that the server did not take."""
