"""The digests of a whole file, computed while it is written, and what is kept of that in its side-car.

Laws of this room:

1. What is kept is true of the bytes before its offset, which are counted. Nobody writes there again, unless the data
   was cut, and whoever goes on from such a place drops what is kept before he writes.
2. After the machine was down it is not trusted, unless each block was forced to the disk: data that was counted may be
   lost, although the file has its size.
3. A byte is read back once at most: to catch up with the little that had come since something was kept, or when the
   upload is complete.
4. Nothing else depends on it; where it cannot be kept the file is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Final

from tus.checksums import Hashed
from tus.errors import UploadGone
from tus.filesystem.io import open_reading
from tus.models import Block, State, Upload
from tus.stores.directory import record_format as sidecar
from tus.stores.directory.record import SideCar, read_all
from tus.stores.hashing import Hashing

KEEP_EVERY: Final = 8 << 20  # bytes
READ_AT_ONCE: Final = 256 << 20  # bytes; who dies over a large file, of a server's time-out, has not done it in vain
CATCH_UP: Final = 2 * KEEP_EVERY  # bytes; what a process that died, or was replaced, had not kept is less


class Digesting:
    """The hashes that run along while an upload grows.

    Args:
        car: its side-car, whose lock the caller holds.
        upload: as it was loaded.
        offset: where it stands, and where the next bytes go.
        gap: the most bytes that :meth:`catch_up` may read.
    """

    def __init__(self, car: SideCar, upload: Upload, offset: int, gap: int = 0) -> None:
        self._car = car
        self._hashes = upload.hashes
        content = read_all(car.fd)
        self._position = sidecar.room_start(content)
        kept = _trusted(sidecar.unpack_hashed(content), car)
        if kept is not None and kept.offset > offset:
            self._write(None)
            kept = None
        self._kept_at = 0 if kept is None else kept.offset
        self._hashing: Hashing | None = None
        if offset == 0:
            self._hashing = Hashing(self._hashes)
        elif offset - self._kept_at <= gap or offset == self._kept_at:
            kept = kept or Hashed(0, False, Hashing.beginning(self._hashes))
            if Hashing.can_go_on(self._hashes, kept):
                self._hashing = Hashing(self._hashes, kept)

    def is_behind(self, offset: int) -> bool:
        """Whether :meth:`catch_up` has something to do."""
        return self._hashing is not None and self._hashing.offset < offset

    def catch_up(self, offset: int) -> None:
        """Read what has come since something was kept. The caller need not hold the lock."""
        assert self._hashing is not None, "it is behind"
        with suppress(OSError), open_reading(self._car.path) as file:
            self._hashing.read(file, offset)
        if self._hashing.offset < offset:
            self._hashing = None

    def update(self, blocks: Iterable[Block], size: int) -> None:
        """Take the next bytes, the first ones of some blocks. The caller need not hold the lock."""
        for block in blocks:
            if self._hashing is not None and size > 0:
                self._hashing.update(block if size >= len(block) else memoryview(block)[:size])
            size -= len(block)

    def keep_now_and_then(self) -> None:
        """Keep what is known, if that is due. The caller holds the lock, and has seen that the upload is his."""
        if self._hashing is not None and self._hashing.offset - self._kept_at >= KEEP_EVERY:
            self._keep(self._hashing.state())

    def keep(self) -> tuple[tuple[str, bytes], ...]:
        """Keep what is known at the end, and return the digests if the upload is complete; see above."""
        slot, hashing = self._car.slot, self._hashing
        if hashing is None or hashing.offset != slot.offset:
            return ()  # not all of it was counted
        if slot.state == State.RECEIVING:
            if hashing.offset != self._kept_at:
                self._keep(hashing.state())
            return ()
        result = hashing.result()
        self._keep(result)
        return result.digests(self._hashes)

    def _keep(self, hashed: Hashed | None) -> None:
        if hashed is not None:
            with suppress(OSError):
                self._write(hashed)
            self._kept_at = hashed.offset

    def _write(self, hashed: Hashed | None) -> None:
        os.pwrite(self._car.fd, _packed(hashed), self._position)


@cache
def _boot() -> bytes:
    """The run of the machine, or where that cannot be told, of this process."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return bytes.fromhex(file.read().replace("-", ""))
    except (OSError, ValueError):
        return os.urandom(16)


def _trusted(kept: Hashed | None, car: SideCar) -> Hashed | None:
    return kept if kept is not None and (car.is_synced or kept.boot == _boot()) else None


def _packed(hashed: Hashed | None) -> bytes:
    return sidecar.pack_hashed(None if hashed is None else replace(hashed, boot=_boot()))


def finished(car: SideCar, upload: Upload) -> Upload:
    """A complete upload with its digests, which are read from the file as far as they are not known, and kept.

    Args:
        car: its side-car; the caller has claimed the upload, and does not hold the lock.
        upload: as it stands.

    Raises:
        UploadGone: its data is not whole.
    """
    content = read_all(car.fd)
    kept = _trusted(sidecar.unpack_hashed(content), car)
    if kept is None or not kept.is_whole or kept.offset != upload.offset:
        goes_on = kept is not None and kept.offset <= upload.offset and Hashing.can_go_on(upload.hashes, kept)
        hashing = Hashing(upload.hashes, kept if goes_on else None)
        position = sidecar.room_start(content)
        with open_reading(car.path) as file:
            while hashing.offset < upload.offset:
                end = min(hashing.offset + READ_AT_ONCE, upload.offset)
                hashing.read(file, end)
                if hashing.offset < end:
                    raise UploadGone("Data of this upload was lost; create a new one.")
                if (state := hashing.state()) is not None:
                    _keep(car, state, position)
        kept = hashing.result()
        _keep(car, kept, position)
    return replace(upload, digests=kept.digests(upload.hashes))


def _keep(car: SideCar, hashed: Hashed, position: int) -> None:
    car.lock()
    try:
        with suppress(OSError):
            os.pwrite(car.fd, _packed(hashed), position)
    finally:
        car.unlock()
