"""The digests of a whole file, and their copy in the side-car.

Laws of this room:

1. If one session or one block writes the whole file, the hashes are computed meanwhile. Any other file is read once,
   when it is claimed. The side-car keeps the digests, so no later attempt reads the file again.
2. The side-car only keeps digests of the whole file. A new session drops them, because it means that data was lost.
3. After a restart of the machine they are not trusted, unless each block was forced to the disk. Counted data may be
   lost although the file has its size.
4. Nothing else depends on them. If they cannot be kept, the file is read.

Older versions also kept the states of unfinished hashes. They are ignored.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from tus.checksums import Hashed
from tus.errors import StorageFull, UploadGone
from tus.filesystem.io import write_at
from tus.filesystem.locks import unlock
from tus.filesystem.ownership import Ownership
from tus.models import Block, State, Upload
from tus.stores.directory import record_format as sidecar
from tus.stores.directory.record import SideCar, read_all
from tus.stores.hashing import Hashing


class Digesting:
    """The hashes that are computed while an upload is written.

    Args:
        car: the side-car of the upload; the caller holds its lock.
        upload: the loaded upload.
        offset: the upload's offset, where the next bytes go.
    """

    def __init__(self, car: SideCar, upload: Upload, offset: int) -> None:
        self._car = car
        self._hashes = upload.hashes
        self._hashing = Hashing(upload.hashes) if offset == 0 else None
        content = read_all(car.fd)
        self._position = sidecar.room_start(content)
        if sidecar.unpack_hashed(content) is not None:
            nothing = sidecar.pack_hashed(None)
            if write_at(car.fd, self._position, nothing) < len(nothing):
                raise StorageFull()

    def update(self, blocks: Iterable[Block], size: int) -> None:
        """Hash the first ``size`` bytes of the blocks. The caller need not hold the lock."""
        if self._hashing is None:
            return
        for block in blocks:
            if size > 0:
                self._hashing.update(block if size >= len(block) else memoryview(block)[:size])
            size -= len(block)

    def is_whole(self) -> bool:
        """Return whether the hashes cover the whole upload, so that :meth:`keep` has digests to keep."""
        slot, hashing = self._car.slot, self._hashing
        return hashing is not None and slot.state != State.RECEIVING and hashing.offset == slot.offset

    def keep(self) -> tuple[tuple[str, bytes], ...]:
        """Write the digests of a complete upload to its side-car, and return them. The caller holds the lock."""
        if self._hashing is None or not self.is_whole():
            return ()
        result = self._hashing.result()
        with suppress(OSError):
            os.pwrite(self._car.fd, _pack(result, self._car.boot), self._position)
        return result.digests(self._hashes)


def _pack(hashed: Hashed, boot: bytes) -> bytes:
    return sidecar.pack_hashed(replace(hashed, boot=boot))


def with_digests(car: SideCar, upload: Upload, ownership: Ownership) -> Upload:
    """Return a complete upload with its digests; if they are not known, read the file and keep them.

    Args:
        car: the side-car of the upload. The caller has claimed the upload, and does not hold the lock.
        upload: the current upload.
        ownership: whose data is read.

    Raises:
        UploadGone: data of the upload was lost.
    """
    content = read_all(car.fd)
    kept = sidecar.unpack_hashed(content)
    is_trusted = kept is not None and (car.is_synced or kept.boot == car.boot)
    if kept is None or not is_trusted or not kept.is_whole or kept.offset != upload.offset:
        hashing = Hashing(upload.hashes)
        with ownership.open_reading(car.path) as file:
            hashing.read(file, upload.offset)
        if hashing.offset < upload.offset:
            raise UploadGone("Data of this upload was lost; create a new one.")
        kept = hashing.result()
        car.lock()
        try:
            with suppress(OSError):
                os.pwrite(car.fd, _pack(kept, car.boot), sidecar.room_start(content))
        finally:
            unlock(car.fd)
    return replace(upload, digests=kept.digests(upload.hashes))
