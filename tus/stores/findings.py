"""What an examination of a directory says: a finding, what it means, and what can be done about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

#: Seconds after which files that are not whole are no longer taken for ones that somebody is making.
GRACE = 60.0


class Severity(StrEnum):
    """How much a finding means."""

    DAMAGE = "damage"
    NOTICE = "notice"  # harms no upload, but somebody may want to know
    NORMAL = "normal"  # a step that a server was at, or a trace of one


@dataclass(frozen=True, slots=True)
class Repair:
    """What can be done about a finding.

    Attributes:
        words: what that is, for an operator.
        perform: does it; returns whether it was still necessary. Raises UploadLocked while somebody is at work on the
            upload, and OSError where the system refuses.
    """

    words: str
    perform: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes:
        id: the upload's; the file's name where that is none.
        kind: a stable name.
        severity: see :class:`Severity`.
        explanation: what it is and what follows from it, for an operator.
        repair: what can be done, None where that is not safe.
        reason: why nothing is done, where that is not plain.
    """

    id: str
    kind: str
    severity: Severity
    explanation: str
    repair: Repair | None = None
    reason: str = ""
