"""Every error of this package, in one tree.

Law of this room: an error that can reach a client carries its status and the headers that belong to it,
and its text is written for that client: what was wrong, what was expected, never a path or a traceback.
"""

from __future__ import annotations

from http import HTTPStatus

Headers = list[tuple[str, str]]


class TusException(Exception):
    """The root of the tree."""


class OptionError(TusException, ValueError):
    """An option is unknown, has a bad value, or conflicts with another one.

    Attributes:
        option: the name of the option, as a caller writes it.
        problem: what is wrong with it.
    """

    def __init__(self, option: str, problem: str) -> None:
        self.option = option
        self.problem = problem
        super().__init__(f"option {option!r}: {problem}")


class RequestError(TusException):
    """A request is refused; the reply has this status, these headers, and the error's text as its body.

    Attributes:
        status: the HTTP status code.
        reason: the reason phrase, which WSGI wants written out.
        headers: response headers that belong to this refusal.
    """

    status = 400
    reason = "Bad Request"

    def __init__(self, message: str, headers: Headers | None = None) -> None:
        super().__init__(message)
        self.headers: Headers = headers or []


class BadRequest(RequestError):
    """A header is missing, malformed or contradicts another one (400)."""


class Unauthorized(RequestError):
    """Nobody knows who is asking; ``WWW-Authenticate`` among the headers says how to tell (401)."""

    status, reason = 401, "Unauthorized"


class Forbidden(RequestError):
    """The request is understood and never allowed, such as PATCH on a final upload (403)."""

    status, reason = 403, "Forbidden"


class UploadNotFound(RequestError):
    """There is no such upload (404)."""

    status, reason = 404, "Not Found"

    def __init__(self, message: str = "There is no such upload; create a new one.") -> None:
        super().__init__(message)


class MethodNotAllowed(RequestError):
    """The method does not apply to this URL (405)."""

    status, reason = 405, "Method Not Allowed"

    def __init__(self, allowed: str) -> None:
        super().__init__(f"This method is not possible here; possible are {allowed}.", [("Allow", allowed)])


class OffsetMismatch(RequestError):
    """The bytes offered do not continue the upload (409).

    Attributes:
        offset: where the upload really stands, in bytes; the reply says it in ``Upload-Offset``.
        provided: where the request took it to stand, if that is known.
    """

    status, reason = 409, "Conflict"

    def __init__(self, offset: int, provided: int | None = None) -> None:
        self.offset = offset
        self.provided = provided
        super().__init__(
            f"The upload stands at offset {offset}; send the bytes from there on.",
            [("Upload-Offset", str(offset))],
        )


class InconsistentLength(BadRequest):
    """What a request says of the upload's length contradicts itself, or what was said before (400).

    Attributes:
        overruns: whether there would be more bytes than the upload has.
    """

    def __init__(self, message: str, overruns: bool = False) -> None:
        super().__init__(message)
        self.overruns = overruns


class TooSmall(BadRequest):
    """A body has fewer bytes than one request must have (400)."""


class UploadCompleted(BadRequest):
    """The upload is complete, so nothing can be appended to it (400)."""

    def __init__(self) -> None:
        super().__init__("This upload is complete; nothing can be appended to it.")


class UploadReplaced(RequestError):
    """A newer request took the upload over, so this one may not write any more (409)."""

    status, reason = 409, "Conflict"

    def __init__(self) -> None:
        super().__init__("A newer request has taken over this upload; ask for the offset with HEAD.")


class UploadGone(RequestError):
    """The upload existed, and has expired, been terminated or been damaged (410)."""

    status, reason = 410, "Gone"

    def __init__(self, message: str = "This upload has expired or was terminated; create a new one.") -> None:
        super().__init__(message)


class LengthRequired(RequestError):
    """The body's end cannot be known: no Content-Length, and the server does not mark the end of input (411)."""

    status, reason = 411, "Length Required"

    def __init__(self) -> None:
        super().__init__("This server does not take chunked request bodies; send a Content-Length.")


class VersionUnsupported(RequestError):
    """``Tus-Resumable`` is missing or names another version (412)."""

    status, reason = 412, "Precondition Failed"


class TooLarge(RequestError):
    """The upload, or this body, is larger than is allowed or was announced (413)."""

    status, reason = 413, "Content Too Large"


class UnsupportedMediaType(RequestError):
    """A PATCH has another Content-Type than the protocol's (415)."""

    status, reason = 415, "Unsupported Media Type"


class UploadLocked(RequestError):
    """Somebody else is at work on this upload just now; the same request may succeed later (423).

    Clients that are told anything but 423 on HEAD give the upload up and begin again from zero.
    """

    status, reason = 423, "Locked"

    def __init__(self, message: str = "This upload is busy; try again.", retry_after: int = 1) -> None:
        super().__init__(message, [("Retry-After", str(retry_after))])


class TooManyUploads(RequestError):
    """As many uploads are unfinished as may be at a time (429)."""

    status, reason = 429, "Too Many Requests"

    def __init__(self) -> None:
        super().__init__(
            "Too many uploads are unfinished; finish or delete some, or try again later.", [("Retry-After", "60")]
        )


class HeaderTooLarge(RequestError):
    """A header field is longer than the limit set for it (431)."""

    status, reason = 431, "Request Header Fields Too Large"


class Rejected(RequestError):
    """The application does not want this upload, and is not to be asked again.

    Raised by whoever takes finished uploads; the client hears the text.

    Args:
        message: what is wrong with it.
        status: a 4xx; not 409 or 423, after which clients try again.
    """

    status, reason = 422, "Unprocessable Content"

    def __init__(self, message: str = "The application does not take this upload.", status: int = 422) -> None:
        super().__init__(message)
        if not 400 <= status < 500 or status in (409, 423):
            raise ValueError(f"status must be a 4xx other than 409 and 423; it is {status}")
        if status != self.status:
            self.status, self.reason = status, HTTPStatus(status).phrase


class NotTaken(RequestError):
    """The application has not taken this upload; it is kept, and the same request asks again (503)."""

    status, reason = 503, "Service Unavailable"

    def __init__(self) -> None:
        super().__init__(
            "Every byte is stored, but the application could not take the file yet; try again.", [("Retry-After", "5")]
        )


class ChecksumMismatch(RequestError):
    """The body does not have the checksum that was announced; none of it was kept (460)."""

    status, reason = 460, "Checksum Mismatch"

    def __init__(self) -> None:
        super().__init__(
            "The body does not have the checksum that was announced; nothing of it was kept, send it again."
        )


class StorageUnavailable(RequestError):
    """The store failed for a reason that may pass (503)."""

    status, reason = 503, "Service Unavailable"

    def __init__(self) -> None:
        super().__init__("The upload cannot be read or written just now; try again.", [("Retry-After", "5")])


class StorageFull(RequestError):
    """No room is left; what was written before is kept and counted (507)."""

    status, reason = 507, "Insufficient Storage"

    def __init__(self) -> None:
        super().__init__(
            "No space is left for this upload; what arrived is kept, resume later.", [("Retry-After", "60")]
        )


class QuotaExceeded(RequestError):
    """Unfinished uploads have as many bytes together as they may (507, as RFC 4331 section 6 has it)."""

    status, reason = 507, "Insufficient Storage"

    def __init__(self) -> None:
        super().__init__(
            "Unfinished uploads take up all the space that they may; finish or delete some, or try again later.",
            [("Retry-After", "60")],
        )
