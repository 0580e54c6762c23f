"""Files of a directory that belong to no upload, by their names.

Law of this room: ``tmp_file_dir`` may be /tmp, so only what nobody but this package can have made is removed.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator

from tus.errors import UploadGone, UploadLocked
from tus.filesystem.io import unlink
from tus.models import is_upload_id
from tus.stores.directory.data_lock import lock_data, unlock_data
from tus.stores.directory.fsck.diagnosis import GRACE, Finding, Repair, Severity

_PROBE = re.compile(r"\.tus-probe-[a-z0-9_]{8}(\.link)?")
_DRAFT = re.compile(r"\.tus-adopting-[a-z0-9_]{8}")
_HAND_OVER = re.compile(r"\.tus-handover-[0-9a-f]{32}-[0-9a-f]{8}")
_SET_ASIDE = re.compile(r"[0-9a-f]{32}(\.tus)?\.damaged[0-9]*")
#: The files of our own beside the uploads. What begins like one of them and is not here is told as unknown.
_OWN = re.compile(r"\.tus-(sweeper|counts)-[0-9]+")

_OUTBOX = re.compile(r"\.tus-outbox-[0-9]+")


def is_stray(name: str) -> bool:
    """Whether a name is one of ours that no upload has."""
    return name.startswith(".tus-") or _SET_ASIDE.fullmatch(name) is not None


def is_probe(name: str) -> bool:
    """Whether a name is that of a file by which a server tries a directory."""
    return _PROBE.fullmatch(name) is not None


def examine(path: str, name: str, clock: Callable[[], float]) -> Iterator[Finding]:
    """What there is to say about a file that is no upload's, or is the data of one that has no side-car.

    Args:
        path: of the file.
        name: the last segment of that.
        clock: seconds since 1970.
    """
    try:
        # In this order: a server makes the side-car before the data, and removes it after that.
        alone = not os.path.lexists(f"{path}.tus")
        status = os.lstat(path)
        alone = alone and not os.path.lexists(f"{path}.tus")
    except FileNotFoundError:
        return
    regular = stat.S_ISREG(status.st_mode)
    if is_upload_id(name):
        if alone:
            yield Finding(
                name,
                "orphan-data",
                Severity.NOTICE,
                f"It has the name of an upload's data, {status.st_size} bytes, and there is no side-car.",
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
            reason="it is for you to look at, and to remove",
        )
    elif _PROBE.fullmatch(name) and regular:
        if clock() - status.st_mtime >= GRACE:
            yield Finding(
                name,
                "probe-left",
                Severity.NOTICE,
                "A server that was starting tried the locks of the directory by this file, and died over it.",
                Repair("remove it", lambda: _remove_probe(path)),
            )
    elif _DRAFT.fullmatch(name) and regular:
        if clock() - status.st_mtime >= GRACE:
            yield Finding(
                name,
                "draft-left",
                Severity.NOTICE,
                f"tus import was copying {status.st_size} bytes to here, and died; what it copied from is untouched.",
                reason="it may be running still; the next one removes this",
            )
    elif _HAND_OVER.fullmatch(name) and regular:
        yield from _hand_over(path, name)
    elif _OUTBOX.fullmatch(name) and stat.S_ISDIR(status.st_mode):
        return
    elif not _OWN.fullmatch(name) and not _OUTBOX.fullmatch(name):
        yield Finding(
            name,
            "unknown-file",
            Severity.NOTICE,
            "It is called like a file of tus, but this version knows none of that name.",
            reason="another version may use it",
        )
    elif not regular:
        yield Finding(
            name,
            "not-regular",
            Severity.DAMAGE,
            "Servers keep something of their own by this name, which is of another kind; they cannot open it.",
            reason="whoever put it there knows what it is",
        )


def _hand_over(path: str, name: str) -> Iterator[Finding]:
    """A second name of an upload's data, which an application has been given; they share the lock of the hand-over."""
    try:
        fd = lock_data(path)
    except (UploadLocked, UploadGone, PermissionError):
        return  # that is going on
    try:
        status = os.fstat(fd)
    finally:
        unlock_data(fd)
    others = status.st_nlink > 1
    yield Finding(
        name,
        "hand-over-left",
        Severity.NOTICE,
        f"An application was handed {status.st_size} bytes by this name, and the process died over it.",
        Repair("remove it; its data has another name", lambda: _remove_second_name(path)) if others else None,
        reason="" if others else "these bytes have no other name; see whether the application has them",
    )


def _remove_second_name(path: str) -> bool:
    try:
        fd = lock_data(path)
    except UploadGone:
        return False
    try:
        if os.fstat(fd).st_nlink < 2:
            return False
        unlink(path)
    finally:
        unlock_data(fd)
    return True


def _remove_probe(path: str) -> bool:
    unlink(path)
    return True
