"""The secret of a directory, from which the ids for texts are made, in one small file.

The processes that use the directory must agree on it. So a process writes it under the lock of its file, and only if no
valid one is there. It contains a digest of itself. After a crash of the machine a file may consist of zeros, and ids
from a known secret could be guessed.
"""

from __future__ import annotations

import hashlib
import os

from tus.errors import StorageFull, StorageUnavailable
from tus.filesystem.descriptors import close
from tus.filesystem.io import read_at, sync, sync_directory, write_at
from tus.filesystem.locks import lock, unlock
from tus.filesystem.ownership import NotOurs, Ownership
from tus.stores.naming import SECRET_SIZE

NAME = ".tus-secret"


def read_secret(directory: str, ownership: Ownership) -> bytes:
    """Return the secret of a directory; the first call creates it.

    Raises:
        StorageUnavailable: other users can read or replace the file of the secret.
        StorageFull: there is no room for it.
    """
    try:
        fd = ownership.open_or_create(os.path.join(directory, NAME))
    except NotOurs:
        raise StorageUnavailable() from None
    try:
        if os.fstat(fd).st_mode & (0o007 if ownership.group is not None else 0o077):
            raise StorageUnavailable()
        lock(fd)
        try:
            secret = _unpack(read_at(fd, 0, 2 * SECRET_SIZE))  # a part would be taken for none, and be replaced
            if secret is None:
                secret = os.urandom(SECRET_SIZE)
                packed = secret + _digest(secret)
                if write_at(fd, 0, packed) < len(packed):
                    raise StorageFull()
                try:
                    sync(fd)  # before the first id is made from it
                    sync_directory(directory)
                except OSError:
                    os.ftruncate(fd, 0)  # another sync would prove nothing, so make another secret
                    raise
            return secret
        finally:
            unlock(fd)
    finally:
        close(fd)


def _digest(secret: bytes) -> bytes:
    return hashlib.blake2b(secret, digest_size=SECRET_SIZE, person=b"tus secret").digest()


def _unpack(packed: bytes) -> bytes | None:
    secret = packed[:SECRET_SIZE]
    return secret if packed == secret + _digest(secret) else None
