"""Records of uploads that have begun, so that they can go on."""

from __future__ import annotations

import os
from typing import Literal

from tus.client.records.interface import Records, ResumeRecord
from tus.client.records.memory import MemoryRecords, NoRecords

__all__ = ["MemoryRecords", "NoRecords", "Records", "ResumeRecord", "open_records"]


def open_records(records: Records | Literal["default"] | str | os.PathLike[str] | None) -> Records:
    """Return the records that a caller asks for.

    Args:
        records: ``"default"`` for the database of the user; the path of another database; None for no records; or
            the caller's own records.

    Raises:
        ClientError: the database is a symbolic link, or belongs to another user; or a package is missing.
    """
    if records is None:
        return NoRecords()
    if isinstance(records, (str, os.PathLike)):
        from tus.client.records.sqlite import SqliteRecords

        return SqliteRecords(None if records == "default" else records)
    return records
