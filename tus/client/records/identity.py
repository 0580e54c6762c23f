"""Which file an upload is of, without reading it.

A file that was replaced, touched or moved is another file. So is one of the same size and the same beginning.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """A state of a file. Two are equal if the file was only moved or removed, and is still open.

    Attributes:
        path: the real path; empty if the file has none any more.
        device: the number of its file system.
        inode: its number there; 0 on file systems of Windows that have none.
        size: in bytes.
        mtime_ns: when its content changed last, in nanoseconds since the epoch.
    """

    path: str = field(compare=False)
    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, file: str | os.PathLike[str] | IO[bytes]) -> FileIdentity:
        """Return the identity of a file, by its path or, surely of the same file, open.

        Raises:
            OSError: there is no such file; or the open file has no descriptor (:class:`io.UnsupportedOperation`).
        """
        if isinstance(file, (str, os.PathLike)):
            path = os.path.realpath(file)
            return cls._from(path, os.stat(path))
        status = os.fstat(file.fileno())
        return cls._from(_path_of(file, status), status)

    @classmethod
    def _from(cls, path: str, status: os.stat_result) -> FileIdentity:
        return cls(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _path_of(file: IO[Any], status: os.stat_result) -> str:
    """Return the real path of an open file. Its name can be a descriptor, as ``<stdin>``, or by now another file's."""
    name = getattr(file, "name", None)
    if not isinstance(name, (str, bytes)):
        return ""
    try:
        path = os.path.realpath(os.fsdecode(name))
        return path if os.path.samestat(os.stat(path), status) else ""
    except (OSError, ValueError):
        return ""


def key_of(
    identity: FileIdentity, endpoint: str, metadata: Mapping[str, str | bytes | None] | None = None, account: str = ""
) -> str:
    """Return the key of the record of an upload: the SHA-256, in hexadecimal, of what makes it another upload.

    The number of the device counts only for a file without a path. Btrfs, ZFS and network file systems get another
    one when they are mounted, so no upload would go on after a reboot.

    Args:
        identity: of the file.
        endpoint: where the upload is created.
        metadata: of the upload. None is a key without a value.
        account: tells apart the users of the endpoint; any text.
    """
    device = 0 if identity.path else identity.device
    parts: list[str | bytes | None] = [
        *(identity.path, f"{device} {identity.inode} {identity.size} {identity.mtime_ns}", endpoint, account)
    ]
    for name, value in sorted((metadata or {}).items(), key=lambda item: item[0]):
        parts += (name, value)
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode(errors="surrogateescape") if isinstance(part, str) else part
        digest.update(b"-" if data is None else b"%d:" % len(data) + data)
    return digest.hexdigest()
