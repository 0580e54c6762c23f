"""What the limits of a store count, as pure values: the charge of an upload, and the counts of all.

Laws of this room:

1. Bytes are charged before they are stored, and given back after they were removed. So a crash between the two charges
   too much, never too little, until the store counts again.
2. An upload is charged its length. While that is unknown, it is charged its bytes, in steps ahead of them.
3. An upload that the application has not decided counts as one. Of a decided upload only the bytes count that are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tus.errors import QuotaExceeded, TooLarge, TooManyUploads
from tus.models import State, Upload
from tus.stores.interface import Limits

#: The most bytes that are charged ahead of the bytes of an upload without a length.
STEP: Final = 4 << 20
#: A step is at most this part of a limit, so that what is charged ahead keeps few others out.
_STEPS: Final = 64


class Charge(NamedTuple):
    """A number of uploads and of bytes."""

    uploads: int = 0
    size: int = 0


def charge_of(upload: Upload, is_kept: bool = True) -> Charge:
    """Return what an upload is charged.

    Args:
        upload: the upload.
        is_kept: whether the data of a decided upload is still there.
    """
    if upload.state in (State.ACCEPTED, State.REJECTED, State.TERMINATED):
        return Charge(0, upload.offset if is_kept else 0)
    return Charge(1, max(upload.length or 0, upload.offset))


@dataclass(slots=True)
class Counts:
    """The numbers of uploads and of bytes, in total and by principal."""

    uploads: int = 0
    size: int = 0
    each: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, principal: str | None, uploads: int, size: int) -> None:
        """Add to the counts; negative numbers subtract, down to zero."""
        self.uploads = max(self.uploads + uploads, 0)
        self.size = max(self.size + size, 0)
        if principal is not None:
            number, bytes_ = self.each.pop(principal, (0, 0))
            number, bytes_ = max(number + uploads, 0), max(bytes_ + size, 0)
            if number or bytes_:
                self.each[principal] = (number, bytes_)

    def admit(self, limits: Limits, principal: str | None, uploads: int, size: int) -> None:
        """Add a new upload, or the rest of a length.

        Raises:
            TooManyUploads: the limit of uploads is reached; nothing was added.
            QuotaExceeded: the limit of bytes is reached; nothing was added.
        """
        number = self.each.get(principal, (0, 0))[0] if principal is not None else 0
        if uploads and (
            (limits.uploads and self.uploads + uploads > limits.uploads)
            or (principal is not None and limits.uploads_each and number + uploads > limits.uploads_each)
        ):
            raise TooManyUploads()
        room = self._room(limits, principal)
        if room is not None and size > room:
            raise QuotaExceeded()
        self.add(principal, uploads, size)

    def grant(self, limits: Limits, principal: str | None, wanted: int, step: int = 0) -> int:
        """Add the next bytes of an upload, and return how many: fewer than wanted if no more fit.

        Args:
            limits: the limits.
            principal: the owner of the upload.
            wanted: the number of bytes.
            step: the bytes to charge in addition, if they fit.
        """
        room = self._room(limits, principal)
        granted = wanted + step if room is None else min(wanted + step, room)
        self.add(principal, 0, granted)
        return granted

    def _room(self, limits: Limits, principal: str | None) -> int | None:
        """Return how many bytes more the limits allow; None for any number."""
        room = limits.size - self.size if limits.size else None
        if principal is not None and limits.size_each:
            left = limits.size_each - self.each.get(principal, (0, 0))[1]
            room = left if room is None else min(left, room)
        return None if room is None else max(room, 0)


def _least_of(limits: Limits, principal: str | None) -> int:
    """Return the smallest limit on the bytes of a principal; 0 without one."""
    sizes = (limits.size, limits.size_each if principal is not None else 0)
    return min((size for size in sizes if size), default=0)


def step_of(limits: Limits, principal: str | None) -> int:
    """Return how many bytes to charge ahead."""
    least = _least_of(limits, principal)
    return min(STEP, least // _STEPS) if least else STEP


def check_alone(limits: Limits, principal: str | None, size: int) -> None:
    """Check that an upload fits if it is the only one.

    Raises:
        TooLarge: it exceeds a limit.
    """
    least = _least_of(limits, principal)
    if least and size > least:
        raise TooLarge(f"This upload is larger than the limit of {least} bytes for all unfinished uploads together.")
