"""What clients know about an upload, and what a reply must therefore not say."""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections import Counter
from pathlib import Path

from tests.racing.bodies import BLOCK, Sent, find_fault, next_number
from tests.racing.site import Site


class Findings:
    """What must not happen, as text; the first of each kind are kept."""

    KEPT = 5

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.texts: list[str] = []

    def add(self, kind: str, about: str) -> None:
        self.counts[kind] += 1
        if self.counts[kind] <= self.KEPT:
            self.texts.append(f"{kind}: {about}")


class Upload:
    """An upload, or the final one of a concatenation.

    Attributes:
        tag: of its bytes; in hexadecimal digits it is its file's name.
        length: the length that clients want it to have, a multiple of a block.
        id: None until a client is told where it is.
        is_declared: whether the server was told the length.
        ends: every length that a request may have given it.
        parts: of a concatenation.
        is_partial: whether it is a part.
        sent: the body of each request to it.
        floor: the highest offset that a client was told.
        is_done: whether a client was told that it is complete, or gone.
        is_gone: whether a client was told that its request has removed it.
        removals: requests that may have removed it.
        farthest: where a body ended of a version of the IETF's protocol in which an overrun ends the upload.
        visits: requests to it.
    """

    def __init__(self, blocks: int, parts: tuple[Upload, ...] = (), is_partial: bool = False) -> None:
        self.tag = os.urandom(8)
        self.length = sum(part.length for part in parts) if parts else BLOCK.size * blocks
        self.parts = parts
        self.is_partial = is_partial
        self.id: str | None = None
        self.is_declared = False
        self.ends = {self.length}
        self.sent: list[Sent] = []
        self.floor = 0
        self.is_done = self.is_gone = False
        self.removals = self.farthest = self.visits = 0
        self.lock = threading.Lock()

    @property
    def name(self) -> str:
        return self.tag.hex()

    @property
    def may_be_gone(self) -> bool:
        """Whether a request may have removed it, or the bytes that it is made of."""
        return self.removals > 0 or self.farthest > min(self.ends) or any(part.may_be_gone for part in self.parts)

    def body(self, start: int, size: int) -> Sent:
        sent = Sent(self.tag, next_number(), start, size)
        self.sent.append(sent)
        return sent

    def fault_in(self, data: bytes) -> str | None:
        """Why the upload cannot have these bytes; None if it can."""
        if not self.parts:
            return find_fault(data, list(self.sent))
        if len(data) != self.length:
            return f"{len(data)} bytes are there, and the parts have {self.length}"
        for part in self.parts:
            if (fault := part.fault_in(data[: part.length])) is not None:
                return fault
            data = data[part.length :]
        return None


class Watch:
    """Compares each reply with what clients knew when they sent the request."""

    def __init__(self, site: Site, findings: Findings) -> None:
        self._site = site
        self._findings = findings

    def see_offset(self, upload: Upload, offset: int, floor: int, is_tus: bool, about: str) -> None:
        """See an offset that a reply tells, whose request was sent when ``floor`` had been told."""
        if not upload.parts:
            is_withheld = is_tus and floor in upload.ends and offset == floor - 1
            if offset < floor and not is_withheld:
                self._findings.add("an offset decreased", f"{about}: from {floor} to {offset}")
            with upload.lock:
                upload.floor = max(upload.floor, offset)
        if upload.id is not None:
            with contextlib.suppress(FileNotFoundError):  # the application has it
                stored = os.stat(self._site.store / upload.id).st_size
                if stored < offset:
                    self._findings.add("an offset is ahead", f"{about}: {offset} of {stored} stored bytes")

    def see_success(self, upload: Upload, about: str) -> None:
        """See that a client was told that the upload is complete."""
        is_new, upload.is_done = not upload.is_done, True
        files = files_of(self._site, upload)
        if not files:
            self._findings.add("complete without the application", about)
        for path in files if is_new else ():
            self.see_data(upload, path.read_bytes(), path.name, is_whole=True)

    def see_data(self, upload: Upload, data: bytes, name: str, is_whole: bool) -> None:
        """See the counted bytes of an upload, or the file that the application was given."""
        if is_whole and len(data) not in upload.ends:
            self._findings.add("a wrong length", f"{name} has {len(data)} bytes, and clients wanted {upload.ends}")
        fault = upload.fault_in(data)
        if fault is not None:
            self._findings.add("wrong bytes", f"{name}: {fault}")

    def see_absence(self, upload: Upload, about: str) -> None:
        """See that there is no such upload."""
        if not upload.may_be_gone:
            self._findings.add("an upload is lost", about)
        upload.is_done = True

    def see_life(self, upload: Upload, about: str) -> None:
        """See that a request succeeded that was sent after a client was told that the upload is removed."""
        self._findings.add("a removed upload is back", about)


def files_of(site: Site, upload: Upload) -> list[Path]:
    """What the application has got of an upload."""
    with contextlib.suppress(FileNotFoundError):
        return [path for path in (site.landed / upload.name).iterdir() if not path.name.startswith(".")]
    return []


def some_blocks() -> int:
    """How many blocks an upload has: mostly some KiB, sometimes few, sometimes more than buffers hold."""
    return random.randrange(1, random.choice((8, 1500, 1500, 1500, 1500, 10_000)))
