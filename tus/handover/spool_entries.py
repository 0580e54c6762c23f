"""An entry of the spool: its record, its lock, and its moves from one state to the next."""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tus.filesystem.descriptors import close
from tus.filesystem.io import sync_directory, unlink
from tus.filesystem.locks import unlock
from tus.filesystem.ownership import Ownership
from tus.http.filenames import safe_filename
from tus.http.headers import MAX_INTEGER
from tus.models import Upload

State = Literal["new", "claimed", "done", "failed"]
STATES: tuple[State, ...] = ("new", "claimed", "done", "failed")

REMOVED = "removed-"  #: the prefix of the names, in ``tmp``, of entries that are being removed
LONGEST_DELAY = 300.0  # seconds between two attempts
_LONGEST_ERROR = 500  # characters


@dataclass(frozen=True, slots=True)
class SpooledUpload:
    """A finished upload, for a worker.

    Attributes:
        key: the same for every attempt at this upload; 32 hexadecimal digits, not a secret.
        path: of the data. A worker may move the file away.
        filename: the client's name for the file, made safe; the key if there is none.
        length: in bytes.
        metadata: the client's metadata, as received.
        principal: the principal that created the upload, or None.
        created_at: the time of the creation, in seconds since 1970.
        handed_over_at: the time of the put into the spool, in seconds since 1970.
        attempts: the number of earlier attempts that failed, crashes included.
        error: the error of the last one, or None.
        digests: of the whole file, by algorithm, see the option ``digest``.
    """

    key: str
    path: str
    filename: str
    length: int
    metadata: Mapping[str, bytes] = field(repr=False)
    principal: str | None
    created_at: float
    handed_over_at: float
    attempts: int = 0
    error: str | None = None
    digests: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def text_metadata(self) -> dict[str, str]:
        """The metadata as text; bytes that are not UTF-8 are replaced."""
        return {name: value.decode("utf-8", "replace") for name, value in self.metadata.items()}


class Entry:
    """An entry whose lock this object holds."""

    def __init__(
        self, directory: str, state: State, key: str, fd: int, attempts: int, delay: float, ownership: Ownership
    ) -> None:
        self._directory = directory
        self._state: State = state
        self._key = key
        self._fd = fd
        self._attempts = attempts
        self._delay = delay
        self._process = os.getpid()
        self._ownership = ownership
        self._record = _read(self._path, ownership)
        _check_data(os.path.join(self._path, "data"), ownership)

    @property
    def _path(self) -> str:
        return os.path.join(self._directory, self._state, self._key)

    @property
    def upload(self) -> SpooledUpload:
        return read_upload(self._path, self._ownership)

    @property
    def not_before(self) -> float:
        return float(self._record["not_before"])

    @property
    def done_at(self) -> float:
        return float(self._record["done_at"])

    def change(self, **values: object) -> None:
        self._record |= values
        write_record(self._path, self._record, self._ownership)

    def move(self, state: State) -> None:
        if self._process != os.getpid():
            return  # a forked child that left the block; only the parent may move the entry
        old, self._state = self._path, state
        os.rename(old, self._path)
        sync_directory(os.path.dirname(self._path))
        sync_directory(os.path.dirname(old))

    def finish(self) -> None:
        if self._process == os.getpid():
            self.change(done_at=time.time())
            self.move("done")

    def fail(self, error: str) -> None:
        if self._process != os.getpid():
            return
        failures = int(self._record["attempts"]) + 1
        pause = min(self._delay * 2 ** min(failures - 1, 30), LONGEST_DELAY)
        self.change(attempts=failures, error=error[:_LONGEST_ERROR], not_before=time.time() + pause)
        self.move("failed" if 0 < self._attempts <= failures else "new")

    def remove(self) -> None:
        doomed = os.path.join(self._directory, "tmp", REMOVED + self._key)
        try:
            os.rename(self._path, doomed)
        except OSError:
            unlink(os.path.join(self._path, "data"))  # a full copy-on-write disk has no room for another name
            os.rename(self._path, doomed)
        shutil.rmtree(doomed, ignore_errors=True)  # the next purge removes the rest

    def unlock(self) -> None:
        fd, self._fd = self._fd, -1
        if self._process == os.getpid():
            unlock(fd)
        close(fd)


def _check_data(path: str, ownership: Ownership) -> None:
    """Check that the data of an entry is ours, unless a worker has moved it away.

    Raises:
        ValueError: it is not ours.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not ownership.believes(status, is_offered=True):
        raise ValueError("its data is not ours")


def _read(entry: str, ownership: Ownership) -> dict[str, Any]:
    with open(ownership.open(os.path.join(entry, "upload.json"), os.O_RDONLY), "rb") as file:
        return unpack_record(file.read())


_NUMBERS: Final = ("length", "created_at", "handed_over_at", "attempts", "not_before", "done_at")
_TEXTS: Final = ("key", "filename", "principal", "error")
_ENCODED: Final = ("metadata", "digests")
_OPTIONAL: Final[dict[str, Any]] = {"principal": None, "error": None, "digests": {}, "done_at": 0}


def unpack_record(data: bytes) -> dict[str, Any]:
    """Return the record of an entry.

    Raises:
        ValueError: it is not JSON, lacks a value, or has one that no spool writes.
    """
    try:
        found = json.loads(data)
    except RecursionError:
        raise ValueError("the record is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("the record is not a JSON object")
    record: dict[str, Any] = _OPTIONAL | found
    for name in _NUMBERS:
        number = record.get(name)
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= MAX_INTEGER:
            raise ValueError(f"{name} must be a number that is not negative")
    for name in _TEXTS:
        if not isinstance(record.get(name), str) and not (name in _OPTIONAL and record[name] is None):
            raise ValueError(f"{name} must be text")
    for name in _ENCODED:
        if not isinstance(record.get(name), dict):
            raise ValueError(f"{name} must be an object")
        for value in record[name].values():
            if not isinstance(value, str):
                raise ValueError(f"{name} must have texts in Base64")
            base64.b64decode(value, validate=True)
    if safe_filename(record["filename"], "") != record["filename"]:
        raise ValueError("filename must be safe as a segment of a path")
    return record


def write_record(entry: str, record: Mapping[str, object], ownership: Ownership) -> None:
    """Write an entry's record, durably; it replaces the earlier one."""
    path = os.path.join(entry, "upload.json")
    unlink(path + ".new")  # of a process that crashed
    with open(ownership.create(path + ".new"), "w") as file:
        json.dump(record, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".new", path)
    sync_directory(entry)


def read_upload(entry: str, ownership: Ownership) -> SpooledUpload:
    """Read the upload of the entry at a path.

    Raises:
        ValueError: its record is not one.
    """
    record = _read(entry, ownership)
    return SpooledUpload(
        key=record["key"],
        path=os.path.join(entry, "data"),
        filename=record["filename"],
        length=record["length"],
        metadata={name: base64.b64decode(value) for name, value in record["metadata"].items()},
        principal=record["principal"],
        created_at=record["created_at"],
        handed_over_at=record["handed_over_at"],
        attempts=record["attempts"],
        error=record["error"],
        digests={name: base64.b64decode(value) for name, value in record["digests"].items()},
    )


def new_record(upload: Upload, key: str, now: float) -> dict[str, object]:
    """Return the first record of an entry: everything about an upload except its id, which is a secret."""
    return {
        "key": key,
        "filename": upload.filename if upload.filename != upload.id else key,
        "length": upload.length,
        "metadata": {name: base64.b64encode(value).decode() for name, value in upload.metadata.items()},
        "principal": upload.principal,
        "digests": {name: base64.b64encode(value).decode() for name, value in upload.digests},
        "created_at": upload.created_at,
        "handed_over_at": now,
        "attempts": 0,
        "error": None,
        "not_before": 0,
    }
