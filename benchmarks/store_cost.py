"""What operations of the directory store cost: Python calls, system calls and CPU, beside the bare system calls.

``python benchmarks/store_cost.py [--directory /dev/shm] [--fsync finish] [--json]``. CPU is the best of many rounds, in
microseconds an operation; calls are those of Python functions and, after the plus sign, of C functions. System calls
are counted by ``strace``, where it is installed.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from tus.models import Upload
from tus.stores.directory.store import DirectoryStore

SIZE = 4096
BLOCK = bytes(SIZE)
DRAFT = {"length": SIZE, "raw_metadata": "filename d29ybGQ=,filetype dGV4dC9wbGFpbg==", "service": "/files"}
ROUNDS, EACH = 40, 50
#: System calls that are the store's, not the interpreter's.
COUNTED = frozenset(
    (
        *("open", "openat", "close", "flock", "fcntl", "pread64", "pwrite64", "pwritev", "read", "write", "lseek"),
        *("fstat", "newfstatat", "stat", "lstat", "statx", "unlink", "fdatasync", "fsync", "ftruncate", "fallocate"),
    )
)


class Operations:
    """The operations; each has a method that prepares what it works on."""

    def __init__(self, directory: str, fsync: Any) -> None:
        self.directory = directory
        self.fsync = fsync
        self.store = DirectoryStore(directory, fsync=fsync)
        self.is_short = hasattr(self.store, "complete")

    def fresh(self) -> Upload:
        return self.store.create(Upload(**DRAFT))

    def create(self, _: Upload) -> None:
        self.store.create(Upload(**DRAFT))

    def load(self, upload: Upload) -> None:
        self.store.load(upload.id)

    def append(self, upload: Upload) -> None:
        self.store.append(upload, 0, BLOCK[:-1])

    def long(self, upload: Upload) -> None:
        claim = self.store.claim(self.store.append(upload, 0, BLOCK))
        claim.begin()
        claim.accept()

    def complete(self, upload: Upload) -> None:
        self.store.complete(upload, 0, BLOCK).accept()

    def create_whole(self, _: Upload) -> None:
        self.store.create_whole(Upload(**DRAFT), BLOCK).accept()

    def bare_create(self, _: Upload) -> None:
        path = os.path.join(self.directory, secrets.token_hex(16))
        fd = os.open(path + ".tus", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.pwrite(fd, BLOCK[:400], 0)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.close(fd)

    def bare_load(self, upload: Upload) -> None:
        fd = os.open(upload.path + ".tus", os.O_RDONLY | os.O_CLOEXEC)
        os.pread(fd, 4096, 0)
        os.close(fd)
        os.stat(upload.path)

    def bare_complete(self, upload: Upload) -> None:
        """The system calls of :meth:`complete`, and no more."""
        fd = os.open(upload.path + ".tus", os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        slots = os.pread(fd, 128, 0)
        data = os.open(upload.path, os.O_WRONLY | os.O_CLOEXEC)
        os.fstat(data)
        fcntl.flock(data, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.pwrite(data, BLOCK, 0)
        os.pwrite(fd, slots[:64], 64)
        fcntl.flock(fd, fcntl.LOCK_UN)
        if self.fsync != "none":
            os.fdatasync(data)
            os.fdatasync(fd)
            directory = os.open(self.directory, os.O_RDONLY | os.O_CLOEXEC)
            os.fsync(directory)
            os.close(directory)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.pread(fd, 128, 0)
        os.pwrite(fd, slots[:64], 0)
        fcntl.flock(fd, fcntl.LOCK_UN)
        if self.fsync != "none":
            os.fdatasync(fd)
        os.unlink(upload.path)
        fcntl.flock(data, fcntl.LOCK_UN)
        os.close(data)
        os.close(fd)


SHORT = ("complete", "create_whole")
NAMES = ("create", "bare_create", "load", "bare_load", "append", "long", *SHORT, "bare_complete")


def clean(directory: str) -> None:
    """Remove what the last round has made; a large directory would cost more."""
    for entry in os.scandir(directory):
        if not entry.name.startswith(".tus"):
            os.unlink(entry.path)


def cpu(operations: Operations, name: str) -> float:
    """Microseconds of CPU, the best of all rounds."""
    perform = getattr(operations, name)
    best = float("inf")
    for _ in range(ROUNDS):
        uploads = [operations.fresh() for _ in range(EACH)]
        began = time.thread_time_ns()
        for upload in uploads:
            perform(upload)
        best = min(best, time.thread_time_ns() - began)
        clean(operations.directory)
    return best / EACH / 1000


def calls(operations: Operations, name: str) -> tuple[int, int]:
    """Calls of Python functions and of C functions."""
    perform: Callable[[Upload], None] = getattr(operations, name)
    for _ in range(3):
        perform(operations.fresh())
    upload = operations.fresh()
    counted = {"call": 0, "c_call": 0}

    def count(frame: object, event: str, argument: object) -> None:
        if event in counted:
            counted[event] += 1

    sys.setprofile(count)
    try:
        perform(upload)
    finally:
        sys.setprofile(None)
    return counted["call"] - 1, counted["c_call"] - 1


def system_calls(name: str, fsync: str, directory: str) -> float | None:
    """System calls an operation, by strace: with the operations and without them."""
    if shutil.which("strace") is None:
        return None
    found = []
    for performs in (True, False):
        with tempfile.NamedTemporaryFile("r", prefix="strace-") as table:
            command = [sys.executable, __file__, "--perform", name, "--directory", directory, "--fsync", fsync]
            subprocess.run(
                ["strace", "-f", "-c", "-o", table.name, *command, *(() if performs else ("--idle",))], check=True
            )
            rows = [line.split() for line in table if line.strip()]
        found.append(sum(int(row[3]) for row in rows if row[-1] in COUNTED))
    return (found[0] - found[1]) / EACH


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", default="/dev/shm", help="where to make a temporary directory")
    parser.add_argument("--fsync", default="finish")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--perform", help="perform one operation some times, for strace")
    parser.add_argument("--idle", action="store_true", help="prepare it only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        operations = Operations(directory, options.fsync)
        if options.perform:
            uploads = [operations.fresh() for _ in range(EACH)]
            for upload in () if options.idle else uploads:
                getattr(operations, options.perform)(upload)
            return
        names = [name for name in NAMES if operations.is_short or name not in SHORT]
        table = {}
        for name in names:
            python, native = calls(operations, name)
            row = {"python": python, "c": native, "cpu_us": round(cpu(operations, name), 1)}
            table[name] = row | {"system": system_calls(name, options.fsync, options.directory)}
    if options.json:
        print(json.dumps(table))
        return
    print(f"{'operation':14} {'Python + C calls':>17} {'system calls':>13} {'CPU us':>8}")
    for name, row in table.items():
        print(f"{name:14} {row['python']:>10} + {row['c']:<4} {row['system']!s:>13} {row['cpu_us']:>8}")


if __name__ == "__main__":
    main()
