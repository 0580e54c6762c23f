"""The interface of a fingerprint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import IO, Any


class Fingerprint(ABC):
    """What identifies a file."""

    @abstractmethod
    def get_fingerprint(self, fs: IO[Any]) -> str:
        """Return the fingerprint of a file, which is at its start."""
