"""Handing a finished upload over, as pure decisions: what an answer means, what a client hears, when to ask again."""

from __future__ import annotations

from tus.errors import BadRequest, Forbidden, OffsetMismatch, TooLarge, UploadLocked
from tus.models import State, Upload
from tus.options import Options
from tus.protocols.bodies import Intake, overrun_message
from tus.protocols.tus1.requests import Append

# -- What the client is told --------------------------------------------------------------------------------------


def is_told_complete(upload: Upload, options: Options) -> bool:
    """Whether its client may believe that all is done, which it does when the offset equals the length."""
    if upload.is_pending:
        return options.handover == "background"
    return upload.state != State.REJECTED and not is_open(upload)


def is_open(upload: Upload) -> bool:
    """Whether every byte that was announced is there, and the IETF protocol waits for a word that this is all."""
    return upload.state == State.RECEIVING and upload.offset == upload.length and not upload.is_final


def told_offset(upload: Upload, options: Options) -> int:
    """The offset that a client hears.

    Clients take an offset that equals the length for success, whatever they heard before. So one byte less is told
    until the application has the file; the byte that comes then is compared, and asks the application again. An upload
    without a byte has none to spare, see :func:`is_length_withheld`.
    """
    if is_told_complete(upload, options):
        return upload.offset
    return max(upload.offset - 1, 0)


def is_length_withheld(upload: Upload, options: Options) -> bool:
    """Whether the client is to tell the length of an empty upload once more, which asks the application again."""
    return upload.length == 0 and not is_told_complete(upload, options)


def check_not_busy(upload: Upload, options: Options) -> None:
    """Refuse to say how an upload stands while the application has it (423): any other answer would be a guess."""
    if upload.state == State.HANDING_OVER and options.handover == "request":
        raise UploadLocked("The application is taking this file just now; try again.")


# -- A PATCH to an upload of which every byte is there ------------------------------------------------------------


def is_last_again(command: Append, upload: Upload) -> bool:
    """Whether this is the request that completed the upload, or would do it again."""
    length = upload.offset
    if command.body.length is None:  # it is chunked, so nobody knows yet
        return length - 1 <= command.offset <= length
    return command.offset + command.body.length == length


def decide_repeat(command: Append, upload: Upload, options: Options) -> Intake:
    """How the body of a PATCH is read whose upload has every byte: the last one again, or nothing.

    Raises:
        Forbidden: the upload is a final one.
        UploadLocked: the application has it just now.
        OffsetMismatch: the bytes are others.
        BadRequest: it names another length.
        TooLarge: there are more of them.
    """
    if upload.is_final:
        raise Forbidden("A final upload is made of its parts; nothing can be appended to it.")
    check_not_busy(upload, options)
    if command.offset not in (told_offset(upload, options), upload.offset):
        raise OffsetMismatch(told_offset(upload, options))
    if command.length is not None and command.length != upload.length:
        raise BadRequest(f"The upload's length is {upload.length} already; it cannot change.")
    limit = upload.offset - command.offset
    if command.body.length is not None and command.body.length > limit:
        raise TooLarge(overrun_message(limit))
    return Intake(command.offset, None, limit, command.body)


# -- Without a client ---------------------------------------------------------------------------------------------
