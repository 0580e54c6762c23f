"""The spool: a directory from which worker processes take finished uploads, on one file system.

An upload is an entry, a directory named by its key, that is renamed from one state to the next::

    tmp/      being put         claimed/  a worker has it     failed/  too many attempts failed
    new/      for the workers   done/     a worker is done with it

Laws of this room:

- To rename an entry out of ``new``, ``claimed`` or ``failed``, a process must hold the lock of the file ``lock`` in it.
  The lock stays with the renamed entry, and ends with the process. So a free lock in ``claimed`` is a crashed worker's.
- A key appears in ``new`` once. The marker ``put/<key>`` is the put. It is made once the draft in ``tmp`` is whole and
  on the disk, and then it is forced to the disk itself. So a draft without a marker is worth nothing. A draft with a
  marker is moved to ``new`` by any process that finds it, as after a power failure that has lost the first rename. A
  marker without a draft means that the put was completed before.
- When a call returns, the change of the entry is on the disk.
- Only :meth:`Spool.purge` removes entries.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from tus.converters import as_group
from tus.errors import OptionError, StorageUnavailable, UploadLocked
from tus.filesystem.descriptors import close
from tus.filesystem.home import home_of, is_away
from tus.filesystem.io import sync_directory, takes_no_bytes
from tus.filesystem.locks import lock, unlock
from tus.filesystem.ownership import NotOurs, Ownership, forget_checks
from tus.handover.spool_entries import (
    LONGEST_DELAY,
    REMOVED,
    STATES,
    Entry,
    SpooledUpload,
    State,
    new_record,
    read_upload,
    write_record,
)
from tus.models import Upload

log = logging.getLogger(__name__)

_DIRECTORIES = ("tmp", "put", *STATES)
_LONGEST_PAUSE = 0.5  # seconds between two looks for work
_MARKERS_KEEP = 7 * 86400.0  # seconds; later no server repeats a hand-over that a crash interrupted


class SpoolEmpty(TimeoutError):
    """A timeout of :meth:`Spool.claim`, because no upload arrived in time."""


def spool(directory: str, attempts: int = 5, delay: float = 1.0, trusted_group: str | int | None = None) -> Spool:
    """Return the spool in a directory.

    Args:
        directory: of the spool; its last level is created if missing.
        attempts: how often workers may fail with an upload before it moves to ``failed``; 0 means no limit.
        delay: seconds before the second attempt, doubling up to 5 minutes.
        trusted_group: the option of the server, if the workers run as other users than the server.

    Raises:
        OptionError: the directory cannot be created, or other users can change what is in it.
    """
    try:
        group = as_group(trusted_group)
    except ValueError as error:
        raise OptionError("trusted_group", f"{error}; it is {trusted_group!r}") from None
    return Spool(directory, attempts, delay, Ownership(group))


class Spool:
    """A spool, see :func:`spool`. Any number of processes and threads may use the same directory."""

    def __init__(
        self, directory: str, attempts: int = 5, delay: float = 1.0, ownership: Ownership | None = None
    ) -> None:
        self._ownership = ownership = ownership or Ownership()
        self.directory = os.path.abspath(directory)
        self._attempts = attempts
        self._delay = delay
        self._not_before: dict[str, float] = {}  # by key, so that entries that are not due are not read each time
        prepare = partial(_prepare, self.directory, ownership)
        if not is_away(self.directory):  # else nothing may be written there
            prepare()
        self._home = home_of(self.directory, prepare)

    # -- The server's side --

    def check_links_from(self, directory: str) -> None:
        """Check that files of a directory can be linked into the spool.

        Raises:
            OptionError: the directory is on another file system, or that does not support hard links.
        """
        name = f".tus-probe-{os.urandom(4).hex()}"
        source, target = os.path.join(directory, name), self._path("tmp", name)
        try:
            close(os.open(source, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            os.link(source, target)
        except OSError as error:
            if takes_no_bytes(error):
                log.warning("the disk of %s or %s is full or read-only, so links cannot be checked", directory, target)
                return
            raise OptionError(
                "spool",
                f"must be writable, on the file system of tmp_file_dir, and support hard links: {error.strerror}",
            ) from None
        finally:
            for path in (source, target):
                with suppress(OSError):
                    os.unlink(path)

    def put(self, upload: Upload, key: str) -> None:
        """Put a finished upload into the spool, durably when this returns.

        A repeated put does nothing, for example after a crash, or if the caller could not record the first one. Only
        one caller at a time may put an upload.

        Args:
            upload: with its ``path``; the file stays there and is shared with the spool by a hard link.
            key: the name of the entry.

        Raises:
            StorageUnavailable: the volume of the spool is away.
        """
        self._ensure()
        if not os.path.lexists(self._path("put", key)):
            self._draft(upload, key)
        self._publish(key)

    def _draft(self, upload: Upload, key: str) -> None:
        """Make the draft of an entry, which is whole and on the disk when this returns."""
        draft = self._path("tmp", key)
        shutil.rmtree(draft, ignore_errors=True)  # of a process that crashed, and may not have forced it to the disk
        self._ownership.make_directory(draft)
        try:
            close(self._ownership.create(os.path.join(draft, "lock")))
            os.link(str(upload.path), os.path.join(draft, "data"), follow_symlinks=False)
            write_record(draft, new_record(upload, key, time.time()), self._ownership)
            sync_directory(self._path("tmp"))
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise

    def _publish(self, key: str) -> None:
        """Give a draft to the workers, unless that was done before.

        The marker is always a new one. It takes the place of one that an earlier call could not force to the disk.
        """
        marker = self._path("put", key)
        new = f"{marker}.{os.urandom(4).hex()}"
        close(self._ownership.create(new))
        os.rename(new, marker)
        sync_directory(self._path("put"))
        with suppress(FileNotFoundError):  # another process has moved it
            os.rename(self._path("tmp", key), self._path("new", key))

    # -- The workers' side --

    @contextmanager
    def claim(self, timeout: float | None = None) -> Iterator[SpooledUpload]:
        """Wait for an upload, the oldest first, and hold it for the ``with`` block.

        At the end of the block the upload moves to ``done``. After an exception, or if this process crashes, it is
        retried after an increasing delay, and finally moves to ``failed``. An exception that ends the process, such as
        KeyboardInterrupt, puts it back unchanged.

        Args:
            timeout: seconds to wait; None for no limit.

        Raises:
            SpoolEmpty: no upload arrived in time.
        """
        entry = self._wait(None if timeout is None else time.monotonic() + timeout)
        try:
            try:
                yield entry.upload
            finally:
                self._ensure()  # the worker may have taken days
        except Exception as error:
            entry.fail(f"{type(error).__name__}: {error}")
            raise
        except BaseException:
            entry.move("new")
            raise
        else:
            entry.finish()
        finally:
            entry.unlock()

    def _wait(self, deadline: float | None) -> Entry:
        pause = 0.01
        while True:
            with suppress(StorageUnavailable):  # while the volume is away, a worker waits as if nothing had arrived
                self._ensure()
                self._recover()
                entry = self._claim_oldest()
                if entry is not None:
                    return entry
            left = pause if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise SpoolEmpty("no upload arrived in time")
            time.sleep(min(pause, left))
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _claim_oldest(self) -> Entry | None:
        now = time.time()
        keys = self._keys("new")
        self._not_before = {key: due for key, due in self._not_before.items() if key in keys}
        for key in sorted(keys, key=keys.__getitem__):
            if now < self._not_before.get(key, 0) <= now + LONGEST_DELAY:
                continue
            entry = self._lock_entry("new", key)
            if entry is None:
                continue
            if now < entry.not_before <= now + LONGEST_DELAY:  # a time further away was set by a wrong clock
                self._not_before[key] = entry.not_before
                entry.unlock()
                continue
            try:
                entry.move("claimed")
            except BaseException:
                entry.unlock()
                raise
            return entry
        return None

    def _recover(self) -> None:
        """Put back the entries of crashed workers, and go on with puts that a crash has interrupted."""
        for key in os.listdir(self._path("tmp")):
            if os.path.lexists(self._path("put", key)):
                try:
                    self._publish(key)
                except OSError as error:
                    log.warning("%s could not be given to the workers: %s", key, error)
        for key in self._keys("claimed"):
            entry = self._lock_entry("claimed", key)
            if entry is None:
                continue
            try:
                entry.fail("the worker crashed")
            except OSError as error:  # it must not keep the others
                log.warning("%s could not be put back: %s", key, error)
            finally:
                entry.unlock()

    def _lock_entry(self, state: State, key: str) -> Entry | None:
        """Lock an entry; return None if it is not in that state, or another process has its lock."""
        path = os.path.join(self._path(state, key), "lock")
        try:
            fd = self._ownership.open(path, os.O_RDWR)
        except FileNotFoundError as error:
            if isinstance(error, NotOurs):
                log.warning(
                    "entry %s is left unchanged, because its lock is not ours, or other users can change it", key
                )
            return None
        except OSError as error:
            log.warning("entry %s is left unchanged, because it cannot be opened: %s", key, error)
            return None
        entry = None
        try:
            lock(fd, limit=0)
            # Another process may have moved the entry before this one got the lock.
            if os.path.samestat(os.fstat(fd), os.lstat(path)):
                entry = Entry(self.directory, state, key, fd, self._attempts, self._delay, self._ownership)
        except (UploadLocked, FileNotFoundError):
            pass
        except (ValueError, TypeError, OSError) as error:
            log.warning("the record of %s cannot be read, so the entry is left unchanged: %s", key, error)
        finally:
            if entry is None:
                unlock(fd)
                close(fd)
        return entry

    # -- The operator's side --

    def counts(self) -> dict[str, int]:
        """Return the number of uploads in each state."""
        return {state: len(self._keys(state)) for state in STATES}

    def uploads(self, state: State) -> list[SpooledUpload]:
        """Return the uploads in a state, the oldest first."""
        found = []
        keys = self._keys(state)
        for key in sorted(keys, key=keys.__getitem__):
            try:
                found.append(read_upload(self._path(state, key), self._ownership))
            except FileNotFoundError:
                pass
            except (ValueError, TypeError, OSError) as error:
                log.warning("the record of %s cannot be read: %s", key, error)
        return found

    def retry(self, key: str) -> bool:
        """Give a failed upload back to the workers; return whether there was such an upload."""
        self._ensure()
        entry = self._lock_entry("failed", key)
        if entry is None:
            return False
        entry.change(attempts=0, not_before=0)
        entry.move("new")
        entry.unlock()
        return True

    def purge(self, older_than: float) -> int:
        """Remove uploads that were done some time ago.

        Args:
            older_than: seconds since they were done.

        Returns:
            The number of uploads removed.
        """
        self._ensure()
        removed = 0
        now = time.time()
        for name in os.listdir(self._path("tmp")):
            if name.startswith(REMOVED):  # an earlier purge crashed here
                shutil.rmtree(self._path("tmp", name), ignore_errors=True)
        for key in os.listdir(self._path("done")):
            # A power failure may undo the rename of an earlier purge, and not all that was removed after it.
            if not all(os.path.lexists(self._path("done", key, name)) for name in ("lock", "upload.json")):
                shutil.rmtree(self._path("done", key), ignore_errors=True)
        for key in self._keys("done"):
            entry = self._lock_entry("done", key)
            if entry is None:
                continue
            try:
                if not 0 <= now - entry.done_at < older_than:
                    entry.remove()
                    removed += 1
            except OSError as error:  # it must not keep the others
                log.warning("%s could not be purged: %s", key, error)
            finally:
                entry.unlock()
        present = {key for state in STATES for key in self._keys(state)}
        with os.scandir(self._path("put")) as markers:
            for marker in markers:
                with suppress(FileNotFoundError):
                    if marker.name not in present and now - marker.stat().st_mtime >= _MARKERS_KEEP:
                        os.unlink(marker.path)
        return removed

    def _ensure(self) -> None:
        """Create the directories again that a cleaner of old files has removed.

        Raises:
            StorageUnavailable: the volume of the spool is away, or a directory cannot be created.
        """
        self._home.ensure()
        if all(os.path.isdir(self._path(name)) for name in _DIRECTORIES):
            return
        forget_checks()
        try:
            _prepare(self.directory, self._ownership)
        except OptionError as error:
            raise StorageUnavailable() from error

    def _keys(self, state: State) -> dict[str, int]:
        """Return the keys in a state, each with the time of its put, in nanoseconds since 1970."""
        keys = {}
        with suppress(FileNotFoundError), os.scandir(self._path(state)) as entries:
            for entry in entries:
                with suppress(FileNotFoundError, NotADirectoryError):
                    keys[entry.name] = os.lstat(os.path.join(entry.path, "lock")).st_mtime_ns
        return keys

    def _path(self, *names: str) -> str:
        return os.path.join(self.directory, *names)


def _prepare(directory: str, ownership: Ownership) -> None:
    """Create the directories of a spool that are missing, and check that no other user can change what is in them.

    Raises:
        OptionError: one cannot be created, or other users can.
    """
    for path in (directory, *(os.path.join(directory, name) for name in _DIRECTORIES)):
        ownership.prepare_directory(path, "spool")
