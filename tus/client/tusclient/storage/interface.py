"""The interface of a storage of URLs."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Storage(ABC):
    """A storage of URLs by the fingerprints of files."""

    @abstractmethod
    def get_item(self, key: str) -> str | None:
        """Return the URL of a key; None if there is none."""

    @abstractmethod
    def set_item(self, key: str, value: str) -> None:
        """Store the URL of a key, in place of an earlier one."""

    @abstractmethod
    def remove_item(self, key: str) -> None:
        """Remove the URL of a key, if there is one."""
