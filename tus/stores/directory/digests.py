"""The digests of a whole file, and what is kept of them in its side-car.

Laws of this room:

1. Hashes run along where one session, or one block, writes the file from its beginning to its end. Any other file is
   read once, when it is claimed. What was found is kept, so no later attempt reads the file again.
2. Digests that are kept are those of the whole file. A session that begins drops them, because data was lost then.
3. After the machine was down they are not trusted, unless each block was forced to the disk: data that was counted may
   be lost, although the file has its size.
4. Nothing else depends on them; where they cannot be kept the file is read.

Older versions also kept the states of hashes that had not come to the end. They are ignored.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import cache

from tus.checksums import Hashed
from tus.errors import UploadGone
from tus.filesystem.io import open_reading
from tus.models import Block, State, Upload
from tus.stores.directory import record_format as sidecar
from tus.stores.directory.record import SideCar, read_all
from tus.stores.hashing import Hashing


class Digesting:
    """The hashes that run along while an upload is written.

    Args:
        car: its side-car, whose lock the caller holds.
        upload: as it was loaded.
        offset: where it stands, and where the next bytes go.
    """

    def __init__(self, car: SideCar, upload: Upload, offset: int) -> None:
        self._car = car
        self._hashes = upload.hashes
        self._hashing = Hashing(upload.hashes) if offset == 0 else None
        content = read_all(car.fd)
        self._position = sidecar.room_start(content)
        if sidecar.unpack_hashed(content) is not None:
            os.pwrite(car.fd, sidecar.pack_hashed(None), self._position)

    def update(self, blocks: Iterable[Block], size: int) -> None:
        """Take in the next bytes, the first ones of some blocks. The caller need not hold the lock."""
        if self._hashing is None:
            return
        for block in blocks:
            if size > 0:
                self._hashing.update(block if size >= len(block) else memoryview(block)[:size])
            size -= len(block)

    def is_whole(self) -> bool:
        """Return whether the hashes have come to the end of the upload, so that :meth:`keep` keeps something."""
        slot, hashing = self._car.slot, self._hashing
        return hashing is not None and slot.state != State.RECEIVING and hashing.offset == slot.offset

    def keep(self) -> tuple[tuple[str, bytes], ...]:
        """Keep the digests of an upload that is complete, and return them. The caller holds the lock."""
        if self._hashing is None or not self.is_whole():
            return ()
        result = self._hashing.result()
        with suppress(OSError):
            os.pwrite(self._car.fd, _packed(result), self._position)
        return result.digests(self._hashes)


@cache
def _boot() -> bytes:
    """Return what tells this run of the machine from others; where that is not known, this process."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return bytes.fromhex(file.read().replace("-", ""))
    except (OSError, ValueError):
        return os.urandom(16)


def _packed(hashed: Hashed) -> bytes:
    return sidecar.pack_hashed(replace(hashed, boot=_boot()))


def finished(car: SideCar, upload: Upload) -> Upload:
    """Return a complete upload with its digests, which are read from the file where they are not known, and kept.

    Args:
        car: its side-car; the caller has claimed the upload, and does not hold the lock.
        upload: as it stands.

    Raises:
        UploadGone: its data is not whole.
    """
    content = read_all(car.fd)
    kept = sidecar.unpack_hashed(content)
    is_trusted = kept is not None and (car.is_synced or kept.boot == _boot())
    if kept is None or not is_trusted or not kept.is_whole or kept.offset != upload.offset:
        hashing = Hashing(upload.hashes)
        with open_reading(car.path) as file:
            hashing.read(file, upload.offset)
        if hashing.offset < upload.offset:
            raise UploadGone("Data of this upload was lost; create a new one.")
        kept = hashing.result()
        car.lock()
        try:
            with suppress(OSError):
                os.pwrite(car.fd, _packed(kept), sidecar.room_start(content))
        finally:
            car.unlock()
    return replace(upload, digests=kept.digests(upload.hashes))
