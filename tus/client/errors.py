"""Every error of the client, in one tree.

Law of this room: an error says which upload it is about, how far that upload came, and whether it can go on.
"""

from __future__ import annotations

from tus.client.messages import Response
from tus.errors import TusException


class ClientError(TusException):
    """The root of the client's errors.

    Attributes:
        url: the upload, or the URL of the request if there is no upload yet; empty if there was no request.
        status: the status of the response that is the cause; None if there was no response.
        offset: the number of bytes that the server has, as far as it is known.
        resumable: whether a later call can go on where this one stopped.
        response: the response that is the cause, with its body.
    """

    resumable = False

    def __init__(
        self,
        message: str,
        *,
        url: str = "",
        offset: int | None = None,
        resumable: bool | None = None,
        response: Response | None = None,
    ) -> None:
        super().__init__(message)
        self.url = url
        self.offset = offset
        self.response = response
        if resumable is not None:
            self.resumable = resumable

    @property
    def status(self) -> int | None:
        return None if self.response is None else self.response.status


class ConnectionFailed(ClientError):
    """A request that got no complete response: no connection, or one that ended early."""

    resumable = True


class Stalled(ConnectionFailed):
    """A connection on which nothing moved for as long as the stall timeout allows."""


class NotTrusted(ConnectionFailed):
    """A connection that failed over a certificate, the server's or the client's own. Another try does not change it."""

    resumable = False


class GaveUp(ClientError):
    """An upload that was tried as often as the retry policy allows without progress; the cause is the last failure."""

    resumable = True


class Cancelled(ClientError):
    """An upload that its caller cancelled."""

    resumable = True


class Refused(ClientError):
    """A request that the server refused with a 4xx status that another try does not change."""


class NotAuthorized(Refused):
    """A request whose credentials the server did not accept (401, 403, 407); the upload can go on with others."""

    resumable = True


class UploadGone(Refused):
    """An upload that the server does not have any more (404, 410), whose source cannot be sent again from its start."""


class FinishUncertain(ClientError):
    """An upload whose bytes the server has, but whose completion it answered with an error.

    Whether the application got the file is not known. The response has the server's own words.
    """


class FileChanged(ClientError):
    """A file that changed while it was uploaded, or before the upload went on."""


class ChecksumMismatch(ClientError):
    """Bytes that did not arrive as they were sent, again and again; or a file whose digest at the server is another."""


class NotSupported(ClientError):
    """Something that this server, or this HTTP library, does not offer."""


class ProtocolViolation(ClientError):
    """A response that contradicts the protocol, or the responses before it."""


class ForeignOrigin(ClientError):
    """A redirect or a Location to another origin that credentials would follow, and that the caller has not allowed."""
