"""The offset that a tus client gets before its file is accepted, as pure decisions.

Clients take an offset that equals the length for success, whatever the status of an earlier response was. So one byte
less is reported until the application has accepted the file. The client then sends the last byte again, which is
compared with the stored one, and the file is offered again.
"""

from __future__ import annotations

from tus.errors import BadRequest, Forbidden, OffsetMismatch, TooLarge, UploadLocked
from tus.models import State, Upload
from tus.options import Options
from tus.protocols.bodies import Intake, overrun_message
from tus.protocols.tus1.requests import Append

# -- The reported state -------------------------------------------------------------------------------------------


def is_reported_complete(upload: Upload, options: Options) -> bool:
    """Return whether the reply may report an offset that equals the length, which clients take for success."""
    if upload.is_pending:
        return options.handover == "background"
    return upload.state != State.REJECTED and not is_open(upload)


def is_open(upload: Upload) -> bool:
    """Return whether an upload of the IETF protocol has all announced bytes, but was not ended by its client."""
    return upload.state == State.RECEIVING and upload.offset == upload.length and not upload.is_final


def reported_offset(upload: Upload, options: Options) -> int:
    """Return the offset to report: the upload's, or one byte less before acceptance.

    An empty upload has no byte to withhold; see :func:`is_length_withheld`.
    """
    if is_reported_complete(upload, options):
        return upload.offset
    return max(upload.offset - 1, 0)


def is_length_withheld(upload: Upload, options: Options) -> bool:
    """Return whether the length of an empty upload is withheld. The client sends it again, and so asks again."""
    return upload.length == 0 and not is_reported_complete(upload, options)


def check_not_busy(upload: Upload, options: Options) -> None:
    """Check that the application is not processing the upload, because its outcome is still unknown.

    Raises:
        UploadLocked: it is (423).
    """
    if upload.state == State.HANDING_OVER and options.handover == "request":
        raise UploadLocked("The application is processing this file; try again.")


# -- A PATCH to an upload that has all its bytes ------------------------------------------------------------------


def ends_with(command: Append, upload: Upload, options: Options) -> bool:
    """Return whether this ends an upload that :func:`is_open`: its offset is the stored or the reported one."""
    return is_open(upload) and command.offset in (reported_offset(upload, options), upload.offset)


def is_last_again(command: Append, upload: Upload) -> bool:
    """Return whether this repeats the request that completed the upload.

    An accepted upload has one offset, the length, so another offset is wrong even if the bytes would end there. The
    exception is the withheld byte after a failed attempt: HEAD may have reported its offset before acceptance.
    """
    length = upload.offset
    if upload.state == State.ACCEPTED:
        least = length - 1 if upload.attempts > 1 else length
        if command.offset < least:
            return False
    if command.body.length is None:  # the length of a chunked body is unknown before it is read
        return length - 1 <= command.offset <= length
    return command.offset + command.body.length == length


def decide_repeat(command: Append, upload: Upload, options: Options) -> Intake:
    """Return the rules for reading the body of a PATCH to a complete upload: the last byte again, or nothing.

    Raises:
        Forbidden: the upload is a final one.
        UploadLocked: the application is processing it.
        OffsetMismatch: the offset is not near the end.
        BadRequest: the request names another length.
        TooLarge: the body has more bytes.
    """
    if upload.is_final:
        raise Forbidden("A final upload gets its bytes from its parts; append to a part.")
    check_not_busy(upload, options)
    if command.offset not in (reported_offset(upload, options), upload.offset):
        raise OffsetMismatch(reported_offset(upload, options))
    if command.length is not None and command.length != upload.length:
        raise BadRequest(f"The upload's length is {upload.length}; it cannot change.")
    limit = upload.offset - command.offset
    if command.body.length is not None and command.body.length > limit:
        raise TooLarge(overrun_message(limit))
    return Intake(command.offset, None, limit, command.body)
