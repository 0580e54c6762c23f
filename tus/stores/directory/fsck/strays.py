"""Files of a directory that belong to no upload, by their names.

Law of this room: other programs may use the directory, so a repair only removes files that this package must have
created.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator

from tus.errors import UploadGone, UploadLocked
from tus.filesystem.locks import unlock_and_close
from tus.filesystem.ownership import describe
from tus.models import is_upload_id
from tus.stores.directory.data_lock import lock_data
from tus.stores.directory.fsck.diagnosis import GRACE, Finding, Repair, Severity
from tus.stores.directory.fsck.place import Place

_PROBE = re.compile(r"\.tus-probe-[a-z0-9_]{8}(\.link|-[0-9a-f]{6,32})?")
_COPY = re.compile(r"\.tus-[0-9a-f]{32}")
_DRAFT = re.compile(r"\.tus-adopting-[a-z0-9_]{8}")
_HAND_OVER = re.compile(r"\.tus-handover-[0-9a-f]{32}-[0-9a-f]{8}")
_SET_ASIDE = re.compile(r"[0-9a-f]{32}(\.tus)?\.damaged[0-9]*")
#: The other files of this package. A name that begins with ``.tus-`` but matches no pattern here is unknown.
_OWN = re.compile(
    r"\.tus-(sweeper|counts|counts-moves|secret|(counts-each|pending)(-[0-9a-f]{16})?|elected-[0-9a-f]{16})"
)

_OUTBOX = re.compile(r"\.tus-outbox")


def is_stray(name: str) -> bool:
    """Return whether a name is one of this package's, but not of an upload."""
    return name.startswith(".tus-") or _SET_ASIDE.fullmatch(name) is not None


def is_transient(name: str) -> bool:
    """Return whether a name is that of a probe file or a copy, which a server makes in a directory of the site."""
    return _PROBE.fullmatch(name) is not None or _COPY.fullmatch(name) is not None


def examine(place: Place, name: str, clock: Callable[[], float]) -> Iterator[Finding]:
    """Yield the findings about a file that belongs to no upload, or about data without a side-car.

    Args:
        place: the directory of the file.
        name: the name of the file.
        clock: returns the time in seconds since 1970.
    """
    try:
        # Checked before and after, because a server creates the side-car before the data, and removes it after.
        alone = not place.has(f"{name}.tus")
        status = place.status_of(name)
        alone = alone and not place.has(f"{name}.tus")
    except FileNotFoundError:
        return
    regular = stat.S_ISREG(status.st_mode)
    if is_upload_id(name):
        if alone:
            yield Finding(
                name,
                "orphan-data",
                Severity.NOTICE,
                f"It has the name of an upload's data and {status.st_size} bytes, but no side-car.",
                reason="it may belong to another program",
            )
    elif _SET_ASIDE.fullmatch(name):
        yield Finding(
            name,
            "set-aside",
            Severity.NOTICE,
            "An earlier repair has set this side-car aside."
            if ".tus." in name
            else f"An earlier repair has set this data aside, {status.st_size} bytes.",
            reason="remove it once you have checked it",
        )
    elif _PROBE.fullmatch(name) and regular:
        if clock() - status.st_mtime >= GRACE:
            yield Finding(
                name,
                "probe-left",
                Severity.NOTICE,
                "A starting server crashed while it checked the locks of the directory with this file.",
                Repair("remove it", "it was removed", lambda: _remove(place, name)),
            )
    elif _COPY.fullmatch(name) and regular:
        if clock() - status.st_mtime >= GRACE:
            yield Finding(
                name,
                "copy-left",
                Severity.NOTICE,
                f"A process crashed while it saved a finished upload here, after {status.st_size} bytes. The upload is "
                "kept, and its next attempt replaces this file.",
                Repair("remove it", "it was removed", lambda: _remove(place, name)),
            )
    elif _DRAFT.fullmatch(name) and regular:
        if clock() - status.st_mtime >= GRACE:
            yield Finding(
                name,
                "draft-left",
                Severity.NOTICE,
                f"tus import crashed while it copied {status.st_size} bytes to this file. The original is unchanged.",
                reason="tus import may still be running; the next tus import removes this file",
            )
    elif _HAND_OVER.fullmatch(name) and regular:
        yield from _examine_hand_over(place, name)
    elif _OUTBOX.fullmatch(name) and stat.S_ISDIR(status.st_mode):
        return
    elif not _OWN.fullmatch(name) and not _OUTBOX.fullmatch(name):
        yield Finding(
            name,
            "unknown-file",
            Severity.NOTICE,
            "It has a name like a file of tus, but this version does not know the name.",
            reason="another version may use it",
        )
    elif _OUTBOX.fullmatch(name):
        return
    elif not regular:
        yield Finding(
            name,
            "not-regular",
            Severity.DAMAGE,
            "Servers need a file of this name, but it is not a regular file, so they cannot open it.",
            reason="tus did not create it; remove it",
        )
    elif not place.ownership.believes(status):
        yield Finding(
            name,
            "not-ours",
            Severity.DAMAGE,
            f"Servers need a file of this name, but it belongs to {describe(status)}, so they refuse the directory.",
            reason="tus did not create it so; remove it",
        )


def _examine_hand_over(place: Place, name: str) -> Iterator[Finding]:
    """Yield the findings about the second name of an upload's data, which shares the lock of the hand-over."""
    try:
        fd = lock_data(name, place.ownership, dir_fd=place.fd)
    except (UploadLocked, UploadGone, PermissionError):
        return  # the hand-over is in progress
    try:
        status = os.fstat(fd)
    finally:
        unlock_and_close(fd)
    others = status.st_nlink > 1
    repair = Repair(
        "remove this name; the data has another name",
        "this name was removed; the data has another name",
        lambda: _remove_second_name(place, name),
    )
    yield Finding(
        name,
        "hand-over-left",
        Severity.NOTICE,
        f"An application got {status.st_size} bytes by this name, and the process crashed during the hand-over.",
        repair if others else None,
        reason="" if others else "the data has no other name; check whether the application has it, then remove it",
    )


def _remove_second_name(place: Place, name: str) -> bool:
    try:
        fd = lock_data(name, place.ownership, dir_fd=place.fd)
    except UploadGone:
        return False
    try:
        if os.fstat(fd).st_nlink < 2:
            return False
        place.remove(name)
    finally:
        unlock_and_close(fd)
    return True


def _remove(place: Place, name: str) -> bool:
    place.remove(name)
    return True
