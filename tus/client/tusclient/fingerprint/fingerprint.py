"""The fingerprint that is used by default."""

from __future__ import annotations

import hashlib
import os
from typing import IO, Any

from tus.client.tusclient.fingerprint import interface


class Fingerprint(interface.Fingerprint):
    """A fingerprint of the whole content.

    For files of up to ``BLOCK_SIZE`` bytes it is tuspy's. That of a longer file has its size and the MD5 of its
    beginning only. With it, one of two files that begin alike would go on in the upload of the other.
    """

    BLOCK_SIZE = 65536

    def get_fingerprint(self, fs: IO[Any]) -> str:
        head = _encode(fs.read(self.BLOCK_SIZE))
        whole = hashlib.sha256(head)
        size = len(head)
        while block := _encode(fs.read(1 << 20)):
            whole.update(block)
            size += len(block)
        if size == len(head):
            fs.seek(0, os.SEEK_END)
            return f"size:{fs.tell()}--md5:{hashlib.md5(head, usedforsecurity=False).hexdigest()}"
        return f"size:{size}--sha256:{whole.hexdigest()}"


def _encode(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data
