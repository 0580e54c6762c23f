"""Side-cars that cannot be read, as a crash of the machine leaves them in the middle of a creation.

Law of this room: bytes are never removed. Files go only if no byte is, or can have been, in them; all others are left
to ``tus fsck``.
"""

from __future__ import annotations

import logging
import os
from typing import Final

from tus.filesystem.io import unlink
from tus.filesystem.locks import lock, unlock_and_close
from tus.models import State
from tus.stores import ledger
from tus.stores.directory import record_format as sidecar
from tus.stores.directory.record import NAMES, Policy, open_sidecar, read_all
from tus.stores.directory.record_format import MAGICS, Damaged
from tus.stores.slots import Slot

log = logging.getLogger(__name__)

#: Seconds beside the lifetime of an upload that its files are kept after the last change, for an operator.
MARGIN: Final = 86400.0


def remove_damaged(path: str, policy: Policy, may_expire: bool) -> bool:
    """Remove the files of a damaged side-car if they are old and nothing is in them; return whether they were removed.

    Args:
        path: the path of the data.
        policy: the policy of the directory.
        may_expire: whether the clock can be trusted. If not, the files live on as if they had changed now.

    Raises:
        UploadNotFound: there is no side-car that is ours.
        UploadLocked: another process holds it.
    """
    lifetime = policy.lifetimes.lifetime
    fd = open_sidecar(path, os.O_RDWR, policy.ownership)
    try:
        status, now = os.fstat(fd), policy.clock()
        age = now - status.st_mtime
        if not lifetime or 0 <= age <= lifetime + MARGIN:
            return False  # a process that creates an upload is not disturbed
        lock(fd)
        is_whole = status.st_nlink > 1 or not _is_empty(read_all(fd), now)
        if is_whole or _has_bytes(path, policy) or not os.path.samestat(status, os.lstat(path + ".tus")):
            return False
        if age < 0 or not may_expire:
            os.utime(fd, (now, now))
            return False
        os.ftruncate(fd, 0)  # a session that is still open finds its upload damaged, and writes nothing more
        unlink(path)
        unlink(path + ".tus")
    finally:
        unlock_and_close(fd)
    log.warning("upload %s is removed: its record is damaged, and it has no bytes", os.path.basename(path))
    return True


def _is_empty(content: bytes, now: float) -> bool:
    """Return whether the bytes are a damaged side-car that counts no byte."""
    if content.strip(b"\0") and not any(magic in content for magic in MAGICS):
        return False  # it may belong to another program; only zeros are what a file system may leave
    slot: Slot | None = None
    try:
        slot = sidecar.unpack_slots(content)
        sidecar.unpack_record(content)
    except Damaged:
        is_over = slot is None or not slot.offset or slot.state in (State.ACCEPTED, State.TERMINATED)
        return is_over and (slot is None or ledger.has_expired(slot, now=now, is_partial=False))
    return False


def _has_bytes(path: str, policy: Policy) -> bool:
    """Return whether there is data that has bytes, or that is not ours."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    return status.st_size > 0 or not policy.ownership.believes(status, NAMES)
