"""What the tests with other people's clients share: a sample file, and a look at what landed."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.serving import Serving

#: A name that is not ASCII, in three alphabets, and one character outside the Basic Multilingual Plane.
UNUSUAL_NAME = "naïve ½ файл ☃ 𝄞.bin"


def sample(path: Path, size: int, seed: int = 0) -> Path:
    """A file of that many bytes, in which no block is like another."""
    path.write_bytes(random.Random(seed).randbytes(size))
    return path


class Landing:
    """What the application took since this was made."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._before = len(self._taken())

    def _taken(self) -> list[str]:
        handovers = self._serving.handovers
        return handovers.read_text().split() if handovers.exists() else []

    @property
    def ids(self) -> list[str]:
        """The uploads in the order in which they were taken; one that was taken twice is there twice."""
        return self._taken()[self._before :]

    def assert_one(self, file: Path, metadata: dict[str, str] | None = None) -> str:
        """Exactly one upload was taken, once; it has these bytes and this metadata. Returns its id."""
        ids = self.ids
        assert len(ids) == 1, f"taken: {ids}"
        landed = self._serving.landed / ids[0]
        assert landed.stat().st_size == file.stat().st_size
        assert _sha256(landed) == _sha256(file)
        assert json.loads((self._serving.landed / f"{ids[0]}.json").read_text()) == (metadata or {})
        return ids[0]

    def assert_none(self) -> None:
        """Nothing was taken."""
        assert self.ids == []


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def head(url: str) -> tuple[int, dict[str, str]]:
    """The status and the header fields, by their names in lower case, that a HEAD is answered with."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    try:
        connection.request("HEAD", parts.path, headers={"Tus-Resumable": "1.0.0"})
        reply = connection.getresponse()
        reply.read()
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}
    finally:
        connection.close()


def offset_of(url: str) -> int:
    """How far the upload has come."""
    status, headers = head(url)
    assert status == 200
    return int(headers["upload-offset"])


def settled_offset(url: str, quiet: float = 0.2) -> int:
    """How far the upload has come, once what was on its way is in: nothing has changed for so many seconds."""
    before, offset = -1, offset_of(url)
    while offset != before:
        time.sleep(quiet)
        before, offset = offset, offset_of(url)
    return offset


def wait_for_offset(url: str, least: int, seconds: float = 10) -> int:
    """Wait until the upload has come so far; returns how far that is."""
    deadline = time.monotonic() + seconds
    while (offset := offset_of(url)) < least:
        assert time.monotonic() < deadline, f"the offset is {offset}, and should come to {least}"
        time.sleep(0.02)
    return offset
