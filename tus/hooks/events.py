"""What a hook is given, and what it can answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tus.http.headers import format_metadata
from tus.models import Request, Response, Upload, is_upload_id


class HookType(StrEnum):
    """The hooks, in the order in which an upload comes to them."""

    PRE_CREATE = "pre-create"
    POST_CREATE = "post-create"
    POST_RECEIVE = "post-receive"
    PRE_FINISH = "pre-finish"
    POST_FINISH = "post-finish"
    PRE_TERMINATE = "pre-terminate"
    POST_TERMINATE = "post-terminate"

    @property
    def method(self) -> str:
        """The name of the method that is called, such as ``pre_create``."""
        return self.value.replace("-", "_")


@dataclass(frozen=True, slots=True)
class HookEvent:
    """One step of an upload's life.

    Attributes:
        type: which step.
        id: stays the same when the event is told again, so that whoever hears it can tell.
        upload: as it stands; a draft without an id before it is created.
        request: the head of the request that caused it; None where there is none.
    """

    type: HookType
    id: str
    upload: Upload
    request: Request | None = None


@dataclass(frozen=True, slots=True)
class HookReply:
    """What a hook can answer. What does not belong to its step is ignored.

    Attributes:
        reject: pre-create: the upload is not made. pre-finish: it is rejected. pre-terminate: it is kept.
        stop: post-receive: the request ends, and the upload is terminated.
        response: what the client hears where one of them is set; else its header fields are added to the reply.
        metadata: pre-create: takes the place of the client's metadata as a whole.
        id: pre-create: the upload's id, 32 lower-case hexadecimal digits that nobody can guess.
        name: pre-create: the file's name.

    Raises:
        ValueError: the id is none, or the metadata or the name cannot be ``Upload-Metadata``.
    """

    reject: bool = False
    stop: bool = False
    response: Response | None = None
    metadata: Mapping[str, str | bytes] | None = None
    id: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.id is not None and not is_upload_id(self.id):
            raise ValueError("the id of an upload must be 32 lower-case hexadecimal digits")
        named = {} if self.name is None else {"filename": self.name}
        format_metadata({**(self.metadata or {}), **named})
