"""The spool: how finished uploads reach worker processes, on one file system.

An upload is an entry, a directory named by its key, that is renamed from one state to the next::

    tmp/      being put         claimed/  a worker has it       failed/  given up, for somebody to look at
    new/      for the workers   done/     a worker was through with it

Laws of this room. Whoever renames an entry out of ``new``, ``claimed`` or ``failed`` holds the lock of the file
``lock`` in it, which goes along with it and ends with the process; so a lock in ``claimed`` that can be had is a dead
worker's. A key appears in ``new`` once: ``put/<key>`` is there, durably, before the entry is renamed out of ``tmp``, so
a put that is repeated after a crash and finds the one and not the other knows that it was through. Nothing is removed
but by :meth:`Spool.purge`.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tus.errors import OptionError, UploadLocked
from tus.filesystem.io import sync_directory
from tus.filesystem.locks import lock, unlock
from tus.handover.spool_entries import (
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

_LONGEST_PAUSE = 0.5  # seconds between two looks for work
_MARKERS_KEEP = 7 * 86400.0  # seconds; by then no server repeats a hand-over that a crash has broken off


class SpoolEmpty(TimeoutError):
    """No upload has come in time."""


def spool(directory: str, attempts: int = 5, delay: float = 1.0) -> Spool:
    """The spool of a directory.

    Args:
        directory: where it is; its last level is created where missing.
        attempts: how often workers may fail with an upload before it goes to ``failed``; 0 means for ever.
        delay: seconds before the second attempt, doubling up to 5 minutes.

    Raises:
        OptionError: the directory does not serve.
    """
    return Spool(directory, attempts, delay)


class Spool:
    """See :func:`spool`. Any number of processes and threads may have one of the same directory."""

    def __init__(self, directory: str, attempts: int = 5, delay: float = 1.0) -> None:
        self.directory = os.path.abspath(directory)
        self._attempts = attempts
        self._delay = delay
        self._not_before: dict[str, float] = {}  # what was read of entries that are not due yet
        for path in (self.directory, *(os.path.join(self.directory, name) for name in ("tmp", "put", *STATES))):
            try:
                os.mkdir(path)
            except FileExistsError:
                if os.path.isdir(path):
                    continue
                raise OptionError("spool", f"{path!r} is not a directory") from None
            except OSError as error:
                raise OptionError("spool", f"{path!r} cannot be created: {error.strerror}") from None

    # -- The server's side --

    def check_links_from(self, directory: str) -> None:
        """Prove that files of a directory can be linked into the spool.

        Raises:
            OptionError: it is on another file system, or that has no hard links.
        """
        name = f".tus-probe-{os.urandom(4).hex()}"
        source, target = os.path.join(directory, name), self._path("tmp", name)
        try:
            os.close(os.open(source, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            os.link(source, target)
        except OSError as error:
            raise OptionError(
                "spool", f"must be writable, on the file system of tmp_file_dir, with hard links: {error.strerror}"
            ) from None
        finally:
            for path in (source, target):
                with suppress(OSError):
                    os.unlink(path)

    def put(self, upload: Upload, key: str) -> None:
        """Take a finished upload; it is on the disk when this returns.

        To do it again, because the process died or the caller could not take down that it was done, does nothing. At
        any time only one caller may put an upload.

        Args:
            upload: with its ``path``, which stays where it is and is shared with the spool.
            key: what it is called here.
        """
        draft, marker = self._path("tmp", key), self._path("put", key)
        if not os.path.isdir(draft):
            if os.path.exists(marker):
                return
            os.mkdir(draft)
            sync_directory(self._path("tmp"))
        os.close(os.open(marker, os.O_CREAT | os.O_CLOEXEC, 0o666))
        sync_directory(self._path("put"))
        source, data = str(upload.path), os.path.join(draft, "data")
        fd = os.open(os.path.join(draft, "lock"), os.O_CREAT | os.O_CLOEXEC, 0o666)
        os.chmod(source, os.fstat(fd).st_mode & 0o777)  # what the umask leaves, which cannot be read without setting it
        os.close(fd)
        with suppress(FileExistsError):
            os.link(source, data)
        write_record(draft, new_record(upload, key, time.time()))
        os.rename(draft, self._path("new", key))
        sync_directory(self._path("new"))
        sync_directory(self._path("tmp"))

    # -- The workers' side --

    @contextmanager
    def claim(self, timeout: float | None = None) -> Iterator[SpooledUpload]:
        """Wait for an upload, the oldest first, and have it for the time of the ``with`` block.

        At its end the upload moves on to ``done``. After an exception, or if this process dies, it goes back for
        somebody to try again, a little later each time, and in the end to ``failed``; an exception that means the end
        of the process, such as KeyboardInterrupt, puts it back as it was.

        Args:
            timeout: seconds to wait; None for ever.

        Raises:
            SpoolEmpty: nothing has come in time.
        """
        entry = self._wait(None if timeout is None else time.monotonic() + timeout)
        try:
            yield entry.upload
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
            self._recover()
            entry = self._claim_oldest()
            if entry is not None:
                return entry
            left = pause if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise SpoolEmpty("no upload has come in time")
            time.sleep(min(pause, left))
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _claim_oldest(self) -> Entry | None:
        now = time.time()
        keys = self._keys("new")
        self._not_before = {key: due for key, due in self._not_before.items() if key in keys}
        for key in sorted(keys, key=keys.__getitem__):
            if self._not_before.get(key, 0) > now:
                continue
            entry = self._locked("new", key)
            if entry is None:
                continue
            if entry.not_before > now:
                self._not_before[key] = entry.not_before
                entry.unlock()
                continue
            entry.move("claimed")
            return entry
        return None

    def _recover(self) -> None:
        """Put back what dead workers have had."""
        for key in self._keys("claimed"):
            entry = self._locked("claimed", key)
            if entry is not None:
                entry.fail("the worker has died")
                entry.unlock()

    def _locked(self, state: State, key: str) -> Entry | None:
        """An entry, if it is in that state and nobody else has it."""
        path = os.path.join(self._path(state, key), "lock")
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        entry = None
        try:
            lock(fd, limit=0)
            if os.path.samestat(os.fstat(fd), os.stat(path)):  # it may have moved on before the lock was ours
                entry = Entry(self.directory, state, key, fd, self._attempts, self._delay)
        except (UploadLocked, FileNotFoundError):
            pass
        except (ValueError, KeyError):
            log.exception("the record of %s cannot be read; the entry is left alone", key)
        finally:
            if entry is None:
                unlock(fd)
                os.close(fd)
        return entry

    # -- The operator's side --

    def counts(self) -> dict[str, int]:
        """How many uploads are in each state."""
        return {state: len(self._keys(state)) for state in STATES}

    def uploads(self, state: State) -> list[SpooledUpload]:
        """The uploads in a state, the oldest first."""
        found = []
        keys = self._keys(state)
        for key in sorted(keys, key=keys.__getitem__):
            with suppress(FileNotFoundError):
                found.append(read_upload(self._path(state, key)))
        return found

    def retry(self, key: str) -> bool:
        """Have the workers try again what has failed; returns whether there was such an upload."""
        entry = self._locked("failed", key)
        if entry is None:
            return False
        entry.change(attempts=0, not_before=0)
        entry.move("new")
        entry.unlock()
        return True

    def purge(self, older_than: float) -> int:
        """Remove what workers were through with.

        Args:
            older_than: seconds since then.

        Returns:
            How many uploads that were.
        """
        removed = 0
        now = time.time()
        for name in os.listdir(self._path("tmp")):
            if name.startswith(REMOVED):  # the last one died over it
                shutil.rmtree(self._path("tmp", name), ignore_errors=True)
        for key in self._keys("done"):
            entry = self._locked("done", key)
            if entry is None:
                continue
            if now - entry.done_at >= older_than:
                entry.remove()
                removed += 1
            entry.unlock()
        present = {key for state in STATES for key in self._keys(state)}
        with os.scandir(self._path("put")) as markers:
            for marker in markers:
                with suppress(FileNotFoundError):
                    if marker.name not in present and now - marker.stat().st_mtime >= _MARKERS_KEEP:
                        os.unlink(marker.path)
        return removed

    def _keys(self, state: State) -> dict[str, int]:
        """The keys in a state, with when they came, in nanoseconds."""
        keys = {}
        with os.scandir(self._path(state)) as entries:
            for entry in entries:
                with suppress(FileNotFoundError, NotADirectoryError):
                    keys[entry.name] = os.stat(os.path.join(entry.path, "lock")).st_mtime_ns
        return keys

    def _path(self, *names: str) -> str:
        return os.path.join(self.directory, *names)
