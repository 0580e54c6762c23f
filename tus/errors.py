"""Every error of this package, in one tree.

Law of this room: an error that can reach a client has its status and the header fields that belong to it.
Its text is for that client: what was wrong, what was expected, never a path or a traceback.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from tus.models import Upload

Headers = list[tuple[str, str]]


class TusException(Exception):
    """The root of the tree."""


class OptionError(TusException, ValueError):
    """An option that is unknown, has a bad value, or conflicts with another one.

    Attributes:
        option: the name of the option, as a caller writes it.
        problem: what is wrong with it.
    """

    def __init__(self, option: str, problem: str) -> None:
        self.option = option
        self.problem = problem
        super().__init__(f"option {option!r}: {problem}")


class SweepIncomplete(TusException):
    """A sweep that could not remove every expired upload; it has tried each one.

    Attributes:
        removed: the number of uploads that it has removed.
        failed: the number of uploads that it could not remove or read.
        cause: the first error.
    """

    def __init__(self, removed: int, failed: int, cause: object) -> None:
        self.removed = removed
        self.failed = failed
        self.cause = cause
        super().__init__(f"{failed} of the expired uploads could not be removed or read, the first because of: {cause}")


class RequestError(TusException):
    """A refused request; the response has this status, these headers, and the error's text as its body.

    Attributes:
        status: the HTTP status code.
        reason: the reason phrase, which WSGI requires.
        headers: response headers that belong to this error.
        upload: the upload that could not be loaded, as far as its record is known. The client must not learn of it
            before it is known to have permission.
    """

    status = 400
    reason = "Bad Request"
    upload: Upload | None = None

    def __init__(self, message: str, headers: Headers | None = None) -> None:
        super().__init__(message)
        self.headers: Headers = headers or []


class BadRequest(RequestError):
    """A header that is missing, malformed or contradicts another one (400)."""


class Unauthorized(RequestError):
    """A request without valid credentials (401); the header ``WWW-Authenticate`` names the scheme."""

    status, reason = 401, "Unauthorized"


class Forbidden(RequestError):
    """A request that is understood and never allowed, such as PATCH on a final upload (403)."""

    status, reason = 403, "Forbidden"


class UploadNotFound(RequestError):
    """An upload that does not exist, or not for this principal (404)."""

    status, reason = 404, "Not Found"

    def __init__(self, message: str = "There is no such upload; create a new one.") -> None:
        super().__init__(message)


class MethodNotAllowed(RequestError):
    """A method that does not apply to the URL (405)."""

    status, reason = 405, "Method Not Allowed"

    def __init__(self, allowed: str) -> None:
        super().__init__(f"Method not allowed. Allowed methods: {allowed}.", [("Allow", allowed)])


class OffsetMismatch(RequestError):
    """A request whose offset is not that of the upload (409).

    Attributes:
        offset: the upload's offset in bytes; the response has it in ``Upload-Offset``.
        provided: the offset in the request, if it is known.
    """

    status, reason = 409, "Conflict"

    def __init__(self, offset: int, provided: int | None = None) -> None:
        self.offset = offset
        self.provided = provided
        super().__init__(
            f"The offset of this upload is {offset}; send the bytes from there on.",
            [("Upload-Offset", str(offset))],
        )


class InconsistentLength(BadRequest):
    """A length that contradicts another header field of the request, or an earlier request (400).

    Attributes:
        overruns: whether the request has more bytes than the upload's length allows.
    """

    def __init__(self, message: str, overruns: bool = False) -> None:
        super().__init__(message)
        self.overruns = overruns


class TooSmall(BadRequest):
    """A body that has fewer bytes than one request must have (400)."""


class UploadCompleted(BadRequest):
    """An append to an upload that is complete (400)."""

    def __init__(self) -> None:
        super().__init__("This upload is complete; nothing can be appended to it.")


class UploadReplaced(RequestError):
    """A request that was fenced: a newer one has taken the upload over (409)."""

    status, reason = 409, "Conflict"

    def __init__(self) -> None:
        super().__init__("A newer request has taken over this upload; ask for the offset with HEAD.")


class UploadGone(RequestError):
    """An upload that has expired, was terminated or is damaged (410)."""

    status, reason = 410, "Gone"

    def __init__(self, message: str = "This upload has expired or was terminated; create a new one.") -> None:
        super().__init__(message)


class LengthRequired(RequestError):
    """A body of unknown length: it has no Content-Length, and the server does not mark the end of input (411)."""

    status, reason = 411, "Length Required"

    def __init__(self) -> None:
        super().__init__("This server does not accept chunked request bodies; send a Content-Length.")


class VersionUnsupported(RequestError):
    """A request whose ``Tus-Resumable`` is missing or names another version (412)."""

    status, reason = 412, "Precondition Failed"


class TooLarge(RequestError):
    """An upload or a body that is larger than is allowed or was announced (413)."""

    status, reason = 413, "Content Too Large"


class UnsupportedMediaType(RequestError):
    """A PATCH whose Content-Type is not the protocol's (415)."""

    status, reason = 415, "Unsupported Media Type"


class UploadLocked(RequestError):
    """An upload that another request or process holds; the same request may succeed later (423).

    After any other error status on HEAD, clients give the upload up and start again from zero.
    """

    status, reason = 423, "Locked"

    def __init__(self, message: str = "This upload is busy; try again.", retry_after: int = 1) -> None:
        super().__init__(message, [("Retry-After", str(retry_after))])


class Misdirected(RequestError):
    """A request whose ``Host`` names another server (421)."""

    status, reason = 421, "Misdirected Request"


class TooManyUploads(RequestError):
    """A creation while the highest allowed number of uploads is unfinished (429)."""

    status, reason = 429, "Too Many Requests"

    def __init__(self) -> None:
        super().__init__(
            "Too many uploads are unfinished; finish or delete some, or try again later.", [("Retry-After", "60")]
        )


class HeaderTooLarge(RequestError):
    """A header field that is longer than its limit (431)."""

    status, reason = 431, "Request Header Fields Too Large"


class Rejected(RequestError):
    """An upload that the application will never accept (422, or another 4xx).

    Receivers of finished uploads raise it; the client gets the text.

    Args:
        message: the reason, for the client.
        status: a 4xx; not 409 or 423, after which clients retry.

    Raises:
        ValueError: the status is another one.
    """

    status, reason = 422, "Unprocessable Content"

    def __init__(self, message: str = "The application does not accept this upload.", status: int = 422) -> None:
        super().__init__(message)
        if not 400 <= status < 500 or status in (409, 423):
            raise ValueError(f"status must be a 4xx other than 409 and 423; it is {status}")
        if status != self.status:
            self.status, self.reason = status, HTTPStatus(status).phrase


class KeyReused(RequestError):
    """A creation whose ``Idempotency-Key`` belongs to another creation (422)."""

    status, reason = 422, "Unprocessable Content"

    def __init__(self) -> None:
        super().__init__("Another request has used this Idempotency-Key; send a new key for a new upload.")


class InternalError(RequestError):
    """A failure of this package or of the site's own code (500); the log has the reason."""

    status, reason = 500, "Internal Server Error"

    def __init__(self) -> None:
        super().__init__("The server failed to handle this request; try again later, or report it to the operator.")


class NotTaken(RequestError):
    """An upload that the application has not accepted yet (503); it is kept, and the same request offers it again."""

    status, reason = 503, "Service Unavailable"

    def __init__(self) -> None:
        super().__init__(
            "Every byte is stored, but the application has not accepted the file yet; try again.",
            [("Retry-After", "5")],
        )


class ChecksumMismatch(RequestError):
    """A body that does not match its announced checksum; none of it was kept (460)."""

    status, reason = 460, "Checksum Mismatch"

    def __init__(self) -> None:
        super().__init__("The body does not match its announced checksum; none of it was kept, send it again.")


class StorageUnavailable(RequestError):
    """A failure of the store that may pass (503)."""

    status, reason = 503, "Service Unavailable"

    def __init__(self) -> None:
        super().__init__("The upload cannot be read or written at the moment; try again.", [("Retry-After", "5")])


class HookUnavailable(RequestError):
    """A request that a hook must allow, and that no hook has decided about (503)."""

    status, reason = 503, "Service Unavailable"

    def __init__(self) -> None:
        super().__init__("This upload cannot be checked at the moment; try again.", [("Retry-After", "5")])


class StorageFull(RequestError):
    """A store without free space; the bytes written before are kept and counted (507)."""

    status, reason = 507, "Insufficient Storage"
    detail: ClassVar[str] = "No space is left for this upload; the bytes received are kept, resume later."

    def __init__(self) -> None:
        super().__init__(self.detail, [("Retry-After", "60")])


class QuotaExceeded(StorageFull):
    """A limit on the bytes of all uploads that is reached (507, according to RFC 4331 section 6)."""

    detail = "Uploads use all the space that they may use; finish or delete some, or resume later."
