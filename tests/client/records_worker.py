"""Processes that write records, for tests of what they do to each other. ``python -m`` runs one of them.

It imports little, because the tests start many.
"""

from __future__ import annotations

import sys
import time
from itertools import count
from pathlib import Path

from tus.client.records import sqlite
from tus.client.records.interface import ResumeRecord
from tus.client.records.sqlite import SqliteRecords


def record(key, path="/home/me/film.mp4"):
    now = time.time()
    url = f"https://host/files/{key}"
    return ResumeRecord(
        key=key,
        url=url,
        endpoint="https://host/files/",
        path=path,
        size=1,
        protocol="tus",
        created_at=now,
        expires_at=now + 86400,
    )


def hammer(path, name):
    """Save and forget. What was saved is in the database, and not only in memory, however slow the disk is."""
    sqlite._PATIENCE = 200.0
    records = SqliteRecords(path)
    for number in range(15):
        key = f"{name}-{number}"
        records.save(record(key))
        assert SqliteRecords(path).find(key) is not None
        if number % 2:
            records.forget(key)
            assert SqliteRecords(path).find(key) is None


def damage(path, name):
    """Save in a world in which a process destroys the database again and again. No error stops it."""
    records = SqliteRecords(path)
    records._is_default = True
    for number in range(20):
        if name == "0" and number % 5 == 4:
            Path(path).write_bytes(b"x" * 5000)
        records.save(record(f"{name}-{number}"))
        records.find(f"{name}-{number}")


def write(path, begin):
    """Print each key that was saved, and its negative when it was forgotten, until something kills the process."""
    records = SqliteRecords(path)
    for number in count(int(begin)):
        records.save(record(str(number), path="/" + "x" * (number % 7 * 500)))
        print(number, flush=True)
        if number % 3 == 0:
            records.forget(str(number))
            print(-number, flush=True)


def disturb(path, begin):
    """Write the same few records for ever, with rests: SQLite's waits between two attempts grow to 0.1 s."""
    records = SqliteRecords(path)
    for number in count(int(begin)):
        records.save(record(f"other-{number % 5}"))
        time.sleep(0.01)


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    {"hammer": hammer, "damage": damage, "write": write, "disturb": disturb}[what](*arguments)
