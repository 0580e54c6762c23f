"""Records in an SQLite database, which many processes share.

The database has a rollback journal: write-ahead logging needs memory that the hosts of a network file system do not
share. The journal is truncated, not removed, because a directory that was not synced could bring it back. Each
operation has its own connection, so a database that another process has set aside is left at once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeVar

from tus.client.errors import ClientError
from tus.client.records.interface import LIMIT_LIFETIME, ResumeRecord
from tus.client.records.memory import MemoryRecords

log = logging.getLogger("tus.client")

_Result = TypeVar("_Result")

#: How long an operation waits for another process that writes, in seconds.
_PATIENCE: Final = 5.0
#: How long SQLite waits each time. Its sleeps grow to 0.1 s, so that writers that come back at once would pass it by.
_TURN: Final = 0.04

#: In the header of the file: ``tusr``. It tells a damaged database of ours from a file of another program.
_APPLICATION: Final = 0x74757372
_SCHEMA: Final = 1
_TABLES: Final = f"""
    BEGIN EXCLUSIVE;
    CREATE TABLE IF NOT EXISTS uploads (
        key TEXT PRIMARY KEY, expires_at REAL NOT NULL, record TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS uploads_by_expiry ON uploads (expires_at);
    CREATE TABLE IF NOT EXISTS chunk_limits (
        endpoint TEXT PRIMARY KEY, size INTEGER NOT NULL, learned_at REAL NOT NULL
    ) WITHOUT ROWID;
    PRAGMA application_id = {_APPLICATION};
    PRAGMA user_version = {_SCHEMA};
    COMMIT;
"""

#: The codes of errors that are in the content of a database, and not of its disk or its locks.
_OF_CONTENT: Final = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

#: One operation runs at a time, and none during a fork. SQLite shares its locks among the connections of a process. A
#: child would believe that it has those of its parent, and to close the descriptor of a new file would release them.
_lock: Final = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


class _Damaged(Exception):
    """A database of ours whose content makes no sense."""


class _NotOurs(Exception):
    """A database of another program, or of a later version of this one."""


@dataclass(slots=True)
class _Change:
    """A change of the database, and its result: before it is done, that of a failure."""

    action: Callable[..., Any]
    arguments: tuple[Any, ...]
    result: Any
    is_writing: bool
    is_done: bool = False


class SqliteRecords:
    """Records in a database.

    If the database cannot be used, records are kept in memory, and the log has one warning. A damaged database is set
    aside: ``.damaged`` is added to its name.

    Args:
        path: the database; by default ``uploads.sqlite`` in the user's directory for the state of ``tus``. It is made
            when the first record is saved.
        clock: returns the time in seconds since the epoch.

    Raises:
        ClientError: the database is a symbolic link, or belongs to another user; or a package is missing.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._is_default = path is None
        self.path: Final = _default_path() if path is None else os.path.abspath(path)
        self._clock = clock
        self._memory: Final = MemoryRecords(clock=clock)  # what could not be written to the database
        self._changes: deque[_Change] = deque()
        self._has_warned = False
        with contextlib.suppress(OSError):
            _identify(self.path)

    # -- Records --

    def find(self, key: str) -> ResumeRecord | None:
        stored: list[ResumeRecord] = self._look(_select, "key = ? AND expires_at > ?", key, self._clock(), otherwise=[])
        return self._memory.find(key) or next(iter(stored), None)

    def save(self, record: ResumeRecord) -> None:
        if self._change(_save, record, self._clock(), otherwise=False, is_writing=True):
            self._memory.forget(record.key)
        else:
            self._memory.save(record)

    def forget(self, key: str) -> None:
        self._memory.forget(key)
        self._change(_remove, "key = ?", key, otherwise=0)

    def all(self) -> list[ResumeRecord]:
        stored: list[ResumeRecord] = self._look(_select, "expires_at > ?", self._clock(), otherwise=[])
        records = {record.key: record for record in (*stored, *self._memory.all())}
        return sorted(records.values(), key=lambda record: (record.created_at, record.key))

    def prune(self) -> int:
        return self._memory.prune() + self._change(_remove, "expires_at <= ?", self._clock(), otherwise=0)

    def chunk_limit(self, endpoint: str) -> int | None:
        stored = self._look(_chunk_limit, endpoint, self._clock() - LIMIT_LIFETIME, otherwise=None)
        return self._memory.chunk_limit(endpoint) or stored

    def limit_chunks(self, endpoint: str, size: int) -> None:
        if not self._change(_limit_chunks, endpoint, size, self._clock(), otherwise=False, is_writing=True):
            self._memory.limit_chunks(endpoint, size)

    # -- The database --

    def _look(self, action: Callable[..., _Result], *arguments: Any, otherwise: _Result) -> _Result:
        with _lock:
            return self._try(action, *arguments, otherwise=otherwise)

    def _change(
        self, action: Callable[..., _Result], *arguments: Any, otherwise: _Result, is_writing: bool = False
    ) -> _Result:
        """Return the result of a change. The changes of threads that have to wait become one transaction."""
        change = _Change(action, arguments, otherwise, is_writing)
        self._changes.append(change)
        with _lock:
            if not change.is_done:
                changes = [self._changes.popleft() for _ in range(len(self._changes))]
                results = self._try(
                    _perform_all, changes, otherwise=None, is_writing=any(c.is_writing for c in changes)
                )
                for each, result in zip(changes, results or [c.result for c in changes], strict=True):
                    each.result, each.is_done = result, True
        final: _Result = change.result
        return final

    def _try(
        self, action: Callable[..., _Result], *arguments: Any, otherwise: _Result, is_writing: bool = False
    ) -> _Result:
        """Return the result of an action on the database, or another one if no database can be used."""
        try:
            identity = self._find(is_writing)
            if identity is None:
                return otherwise
            try:
                return self._perform(action, *arguments)
            except (_Damaged, UnicodeDecodeError, sqlite3.Error) as error:
                if not _is_of_content(error):
                    raise
                self._set_aside(identity, error)
            return otherwise if self._find(is_writing) is None else self._perform(action, *arguments)
        except (_Damaged, _NotOurs, ClientError, OSError, OverflowError, UnicodeError, sqlite3.Error) as error:
            if not self._has_warned:
                self._has_warned = True
                log.warning("Resume records are kept in memory only, because of %s: %s", self.path, error)
            return otherwise

    def _find(self, is_writing: bool) -> tuple[int, int] | None:
        """Return the identity of the database, which is created before something is written."""
        with contextlib.suppress(FileNotFoundError):
            return _identify(self.path)
        if not is_writing:
            return None
        _create(self.path)
        return _identify(self.path)

    def _perform(self, action: Callable[..., _Result], *arguments: Any) -> _Result:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return self._perform_once(action, *arguments)
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise

    def _perform_once(self, action: Callable[..., _Result], *arguments: Any) -> _Result:
        with contextlib.closing(sqlite3.connect(self.path, timeout=_TURN, isolation_level=None)) as connection:
            _check(connection, self._is_default)
            connection.execute("PRAGMA journal_mode = TRUNCATE")
            connection.execute("PRAGMA synchronous = FULL")
            connection.text_factory = bytes  # an error about text that is not UTF-8 would have the URL in its message
            connection.execute("PRAGMA secure_delete = ON")  # the URL of a finished upload is still a secret
            return action(connection, *arguments)

    def _set_aside(self, identity: tuple[int, int], reason: Exception) -> None:
        """Rename a damaged database, unless another process has done so."""
        if self._find(is_writing=False) != identity:
            return
        for suffix in ("-journal", ""):  # in this order: a new database must not find the journal of the old one
            with contextlib.suppress(FileNotFoundError):
                os.replace(self.path + suffix, f"{self.path}.damaged{suffix}")
        log.warning("Resume records were damaged (%s), and are set aside as %s.damaged", reason, self.path)


# -- The file --


def _default_path() -> str:
    try:
        import platformdirs
    except ImportError:
        raise ClientError("resume records need platformdirs; install it with: pip install platformdirs") from None
    return str(platformdirs.user_state_path("tus", appauthor=False) / "uploads.sqlite")


def _identify(path: str) -> tuple[int, int]:
    """Return the device and the inode of the database, if it is a file of our user."""
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        raise ClientError(f"The resume records {path} are a symbolic link. Name the file itself.")
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        raise ClientError(f"The resume records {path} belong to another user.")
    return status.st_dev, status.st_ino


def _create(path: str) -> None:
    """Create an empty file before SQLite does, whose file others could read. Another process may be faster."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


# -- The content --


def _is_of_content(error: Exception) -> bool:
    """Return whether an error means that the database is damaged, as one without a code does."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _OF_CONTENT


def _check(connection: sqlite3.Connection, is_default: bool) -> None:
    """Make the tables of a new database, and refuse one that is not ours. One in the default place is, but damaged."""
    try:
        header = [
            next(connection.execute(query))[0]
            for query in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
        ]
    except (UnicodeDecodeError, sqlite3.Error) as error:  # an error's own message can be undecodable
        if is_default or not _is_of_content(error):
            raise
        raise _NotOurs("it is not a database of resume records") from error
    if header == [0, 0, 0]:
        connection.executescript(_TABLES)
    elif header[0] != _APPLICATION:
        raise (_Damaged if is_default else _NotOurs)("it is not a database of resume records")
    elif header[1] > _SCHEMA:
        raise _NotOurs("a later version of tus has written it")


def _select(connection: sqlite3.Connection, condition: str, *arguments: Any) -> list[ResumeRecord]:
    try:
        rows = connection.execute(f"SELECT record FROM uploads WHERE {condition}", arguments)
        return [_record_of(**json.loads(text)) for (text,) in rows]
    except (TypeError, ValueError) as error:
        raise _Damaged("a record makes no sense") from error


def _record_of(parts: list[str], **others: Any) -> ResumeRecord:
    return ResumeRecord(parts=tuple(parts), **others)


def _perform_all(connection: sqlite3.Connection, changes: list[_Change]) -> list[Any]:
    connection.execute("BEGIN IMMEDIATE")
    results = [change.action(connection, *change.arguments) for change in changes]
    connection.execute("COMMIT")
    return results


def _save(connection: sqlite3.Connection, record: ResumeRecord, now: float) -> bool:
    connection.execute("DELETE FROM uploads WHERE expires_at <= ?", (now,))
    row = (record.key, record.expires_at, json.dumps(asdict(record)))
    connection.execute("INSERT OR REPLACE INTO uploads VALUES (?, ?, ?)", row)
    return True


def _remove(connection: sqlite3.Connection, condition: str, *arguments: Any) -> int:
    return connection.execute(f"DELETE FROM uploads WHERE {condition}", arguments).rowcount


def _chunk_limit(connection: sqlite3.Connection, endpoint: str, since: float) -> int | None:
    query = "SELECT size FROM chunk_limits WHERE endpoint = ? AND learned_at > ?"
    [size] = connection.execute(query, (endpoint, since)).fetchone() or [None]
    return size if isinstance(size, int) else None


def _limit_chunks(connection: sqlite3.Connection, endpoint: str, size: int, now: float) -> bool:
    connection.execute("INSERT OR REPLACE INTO chunk_limits VALUES (?, ?, ?)", (endpoint, size, now))
    return True
