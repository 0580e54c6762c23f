"""The outbox: events that are not yet delivered, in files, so that no crash loses one.

``<outbox>/<stream>/`` has the events of one upload, ``<number>-<digest of the event's id>``, and is removed with the
last of them. Laws of this room:

- A thread that delivers from a stream holds the ``flock`` of its directory. So events of one stream are delivered one
  at a time and in their order, over all processes, and no stream waits for another's failures.
- An event is removed after its delivery: it is delivered at least once, always with the same id.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final
from weakref import ref

from tus.errors import OptionError, StorageFull, UploadLocked
from tus.filesystem.descriptors import close
from tus.filesystem.io import is_full, sync_directory, sync_name, unlink
from tus.filesystem.locks import lock, unlock
from tus.filesystem.ownership import FLAGS, Ownership

log = logging.getLogger(__name__)

FIRST_DELAY: Final = 1.0  # seconds
LONGEST_DELAY: Final = 3600.0
ATTEMPTS: Final = 30  # with these delays about a day
PATIENCE: Final = 60.0  # seconds that an event may wait for its change to happen
_BUSY = 1.0  # seconds until the next look at a stream that another thread delivers, or whose change is undecided
_LOOK_EVERY = 60.0  # seconds between two looks for events that other processes left
_ASIDE = float("inf")
WORKERS: Final = 4  # threads in a process, because an endpoint that does not respond occupies one for a while
_STATE = ".state"
_STATE_DRAFT = ".state.tmp"
_DRAFTS = "tmp"
_DAMAGED = ".damaged-"
_STREAM = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(r"[0-9]{8,}-[0-9a-f]{16}")
_MOST_ATTEMPTS = 1 << 31
_DRAFT_KEPT = 3600.0  # seconds; putting an event takes far less, so the process that left an older draft has crashed


@dataclass(frozen=True, slots=True)
class Event:
    """An event to deliver.

    Attributes:
        id: the same for every attempt.
        type: such as ``post-finish``.
        upload: the id of the upload.
        payload: the JSON to post.
        voids: the id of an earlier event in the stream that is dropped once the change of this event has happened,
            because it can no longer be known from the upload that the change of the earlier event did not happen.
    """

    id: str
    type: str
    upload: str
    payload: str
    voids: str = ""


@dataclass(slots=True)
class _State:
    """The failures of a stream's first event."""

    attempts: int = 0
    next_at: float = 0.0
    error: str = ""
    is_aside: bool = False


def delay(attempts: int) -> float:
    """Return the seconds until the next attempt, which double with each."""
    return min(FIRST_DELAY * (1 << min(attempts - 1, 30)), LONGEST_DELAY)


class Outbox:
    """Pending events in a directory that any number of processes may share.

    Args:
        directory: created if missing.
        send: delivers one event, or raises.
        has_happened: called before an event is delivered; returns whether its change has happened, or None while that
            is undecided. After False it is called again for :data:`PATIENCE`, because the change may be imminent. Then
            the event is dropped.
        clock: returns seconds since 1970.
        attempts: failures of one event after which its stream is set aside until an operator retries it.
        ownership: whose files are believed.

    Raises:
        OptionError: the directory exists, and other users can change what is in it.
    """

    def __init__(
        self,
        directory: str,
        send: Callable[[Event], object],
        has_happened: Callable[[Event], bool | None] = lambda event: True,
        clock: Callable[[], float] = time.time,
        attempts: int = ATTEMPTS,
        ownership: Ownership | None = None,
    ) -> None:
        self._ownership = ownership = ownership or Ownership()
        self._directory = os.path.abspath(directory)
        if os.path.lexists(self._directory):
            ownership.check_directory(self._directory, "tmp_file_dir")
        self._send = send
        self._has_happened = has_happened
        self._clock = clock
        self._attempts = attempts
        self._not_before: dict[str, float] = {}  # by stream, so that those not due are not read each time
        self._changed = threading.Condition()
        self._process = 0
        self._wakings = 0
        self.is_stopped = False

    # -- Putting --

    def put(self, stream: str, event: Event) -> None:
        """Record an event, durably when this returns. It replaces an event of the same id that is not delivered yet.

        Args:
            stream: 32 hexadecimal digits; events of one stream keep their order.
            event: identified by its id.

        Raises:
            StorageFull: there is no room for the event.
        """
        try:
            self._put(stream, event)
        except OSError as error:
            if is_full(error):
                log.warning("no room for %s of upload %s in the outbox", event.type, event.upload)
                raise StorageFull() from error
            raise

    def _put(self, stream: str, event: Event) -> None:
        draft = os.path.join(self._directory, _DRAFTS, os.urandom(8).hex())
        fd = self._create(draft)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(json.dumps(asdict(event)).encode())
                file.flush()
                os.fsync(fd)
            while not self._link(draft, os.path.join(self._directory, stream), event):
                pass
        finally:
            with suppress(OSError):  # it has replaced an event; another draft is removed later
                os.unlink(draft)

    def _create(self, draft: str) -> int:
        self._check_ours()
        try:
            return self._ownership.create(draft, os.O_WRONLY)
        except FileNotFoundError:
            # So where the second one is, the first one is on the disk, also if a process crashed here.
            with suppress(FileExistsError):
                self._ownership.make_directory(self._directory)
            sync_name(os.path.dirname(self._directory), partial(os.rmdir, self._directory))
            with suppress(FileExistsError):
                self._ownership.make_directory(os.path.dirname(draft))
            self._check_ours()
            return self._ownership.create(draft, os.O_WRONLY)

    def _check_ours(self) -> None:
        """Check that no other user can change what is in the directory, if it exists.

        Raises:
            PermissionError: another user can.
        """
        if not os.path.lexists(self._directory):
            return
        try:
            self._ownership.check_directory(self._directory, "tmp_file_dir")
        except OptionError as error:
            raise PermissionError(errno.EPERM, error.problem, self._directory) from None

    def _link(self, draft: str, path: str, event: Event) -> bool:
        """Append an event to a stream; return False if the stream was removed meanwhile."""
        with suppress(FileExistsError):
            self._ownership.make_directory(path)
        suffix = f"-{_digest(event.id)}"
        try:
            names = _event_names(path)
            if not names:  # else the stream was forced to the disk before its first event was put
                sync_name(self._directory, partial(os.rmdir, path))
            for name in names:
                if name.endswith(suffix):
                    os.replace(draft, os.path.join(path, name))
                    sync_directory(path)
                    return True
            number = int(names[-1].partition("-")[0]) + 1 if names else 1
            name = os.path.join(path, f"{number:08d}{suffix}")
            with suppress(FileExistsError):
                os.link(draft, name)
        except FileNotFoundError:
            return False
        with suppress(FileNotFoundError):  # the event is delivered already, and its stream removed
            sync_name(path, partial(os.unlink, name))
        return True

    def drop(self, stream: str, event_id: str) -> None:
        """Remove an event that is not delivered yet, because its change will not happen."""
        path = os.path.join(self._directory, stream)
        with suppress(FileNotFoundError):
            for name in _event_names(path):
                if name.endswith(f"-{_digest(event_id)}"):
                    os.unlink(os.path.join(path, name))

    # -- Delivering --

    def flush(self) -> float | None:
        """Deliver the events that are due; return the seconds until more are, or None if nothing is left."""
        pauses = []
        streams = self._streams()
        for gone in set(self._not_before).difference(streams):
            self._not_before.pop(gone, None)
        for stream in streams:
            pause = self._not_before.get(stream, 0.0) - self._clock()
            if not 0 < pause <= _LOOK_EVERY:
                self._not_before.pop(stream, None)
                try:
                    found = self._deliver(stream)
                except (UploadLocked, FileNotFoundError):
                    found = _BUSY
                except Exception:  # one stream must not delay another
                    log.exception("cannot deliver the events in %s", os.path.join(self._directory, stream))
                    found = _LOOK_EVERY
                if found is None:
                    continue
                pause = found
                self._not_before[stream] = self._clock() + min(pause, _LOOK_EVERY)  # an operator may retry sooner
            if pause != _ASIDE:
                pauses.append(pause)
        return max(min(pauses), 0.0) if pauses else None

    def _deliver(self, stream: str) -> float | None:
        """Deliver events of one stream until one is not due, or fails.

        Returns:
            Seconds until the next attempt, :data:`_ASIDE`, or None if nothing is left.
        """
        with self._lock(stream) as path:
            state = self._read_state(path)
            if state.is_aside:
                return _ASIDE
            pause = state.next_at - self._clock()
            if 0 < pause <= LONGEST_DELAY:  # a time further away was set by a wrong clock
                return pause
            names = _event_names(path)
            for name in names:
                try:
                    event, age = self._read_event(path, name)
                except FileNotFoundError:  # dropped, or not ours
                    continue
                happened = self._has_happened(event)
                is_void = bool(happened) and self._is_void(event, path)
                if not happened and (happened is None or 0 <= self._clock() - age < PATIENCE):
                    return _BUSY
                if happened and not is_void:
                    try:
                        self._send(event)
                    except Exception as error:
                        return self._record_failure(path, event, state, error)
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(path, name))
                if state.attempts:
                    state = _State()
                    self._write_state(path, state)
            for name in (_STATE, _STATE_DRAFT):
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(path, name))
            try:
                os.rmdir(path)
            except OSError:  # another event has arrived, or an unknown file is there
                return 0.0 if set(_event_names(path)).difference(names) else _LOOK_EVERY
            return None

    def _read_event(self, path: str, name: str) -> tuple[Event, float]:
        """Read an event, and the time when it was put, in seconds since 1970.

        One that is damaged is renamed and named in the log, because no later attempt could deliver it.

        Raises:
            FileNotFoundError: it is gone, is not ours, or is damaged.
        """
        file_path = os.path.join(path, name)
        fd = self._ownership.open(file_path, os.O_RDONLY, names=2)  # one is a draft's, until put() has removed it
        with open(fd, "rb") as file:
            try:
                return _unpack_event(file.read()), os.fstat(file.fileno()).st_mtime
            except ValueError as error:
                log.warning("cannot read the event %s, which becomes %s: %s", file_path, _DAMAGED + name, error)
        os.rename(file_path, os.path.join(path, _DAMAGED + name))
        raise FileNotFoundError(errno.ENOENT, "the event is damaged", file_path)

    def _is_void(self, event: Event, path: str) -> bool:
        """Return whether another event of the stream voids an event. That one was put before its change happened."""
        for name in _event_names(path):
            with suppress(FileNotFoundError):
                other, _ = self._read_event(path, name)
                if other.voids == event.id and self._has_happened(other):
                    return True
        return False

    def _record_failure(self, path: str, event: Event, state: _State, error: Exception) -> float:
        state.attempts += 1
        state.error = f"{type(error).__name__}: {error}"[:500]
        state.is_aside = state.attempts >= self._attempts
        pause = delay(state.attempts)
        state.next_at = self._clock() + pause
        self._write_state(path, state)
        consequence = "it is set aside" if state.is_aside else f"the next attempt follows in {pause:.0f} seconds"
        log.warning("cannot deliver %s of upload %s: %s; %s", event.type, event.upload, state.error, consequence)
        return _ASIDE if state.is_aside else pause

    def _read_state(self, path: str) -> _State:
        try:
            with open(self._ownership.open(os.path.join(path, _STATE), os.O_RDONLY), "rb") as file:
                return _unpack_state(file.read())
        except FileNotFoundError:
            return _State()

    def _write_state(self, path: str, state: _State) -> None:
        draft = os.path.join(path, _STATE_DRAFT)
        unlink(draft)  # of a process that crashed
        with open(self._ownership.create(draft, os.O_WRONLY), "wb") as file:
            file.write(json.dumps(asdict(state)).encode())
        os.replace(draft, os.path.join(path, _STATE))

    @contextmanager
    def _lock(self, stream: str) -> Iterator[str]:
        """Hold the lock of a stream, and yield its path.

        Raises:
            UploadLocked: another thread or process holds it.
            FileNotFoundError: the stream is gone.
        """
        path = os.path.join(self._directory, stream)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | FLAGS)
        try:
            lock(fd, limit=0)
            try:
                if not os.path.samestat(os.fstat(fd), os.stat(path)):  # another process removed and recreated it
                    raise UploadLocked()
                yield path
            finally:
                unlock(fd)
        finally:
            close(fd)

    def _streams(self) -> list[str]:
        try:
            self._check_ours()
            return [name for name in os.listdir(self._directory) if _STREAM.fullmatch(name)]
        except FileNotFoundError:
            return []

    # -- The operator's side --

    def counts(self) -> dict[str, int]:
        """Return the number of ``pending`` events, and how many of them are in streams set ``aside``."""
        counts = {"pending": 0, "aside": 0}
        for stream in self._streams():
            path = os.path.join(self._directory, stream)
            with suppress(FileNotFoundError, NotADirectoryError):
                found = len(_event_names(path))
                counts["pending"] += found
                counts["aside"] += found if self._read_state(path).is_aside else 0
        return counts

    def retry_aside(self) -> int:
        """Make the streams that were set aside due again, and return their number."""
        count = 0
        for stream in self._streams():
            with suppress(FileNotFoundError, NotADirectoryError, UploadLocked), self._lock(stream) as path:
                if self._read_state(path).is_aside:
                    self._write_state(path, _State())
                    self._not_before.pop(stream, None)
                    count += 1
        return count

    # -- In the background --

    def wake(self) -> None:
        """Wake the threads of this process, because an event is due."""
        with self._changed:
            self._wakings += 1
            self._changed.notify_all()

    def start(self) -> None:
        """Start the threads, unless this process has them."""
        if self._process == os.getpid():
            return
        self._process = os.getpid()
        self._changed = threading.Condition()  # the parent process may have held its own when it forked
        self._remove_drafts()
        for number in range(WORKERS):
            threading.Thread(target=_work, args=(ref(self),), name=f"tus-outbox-{number}", daemon=True).start()

    def stop(self) -> None:
        """End the threads of this process; the events stay."""
        self.is_stopped = True
        self.wake()

    def _remove_drafts(self) -> None:
        """Remove the drafts of crashed processes."""
        with suppress(OSError), os.scandir(os.path.join(self._directory, _DRAFTS)) as drafts:
            for draft in drafts:
                with suppress(OSError):
                    if time.time() - draft.stat(follow_symlinks=False).st_mtime > _DRAFT_KEPT:
                        os.unlink(draft.path)

    def wait(self, longest: float, wakings: int) -> int:
        """Wait for the next :meth:`wake`.

        Args:
            longest: seconds to wait at most.
            wakings: the number of calls that the caller knows of.

        Returns:
            The number of calls so far.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._wakings != wakings, longest)
            return self._wakings


def _work(reference: ref[Outbox]) -> None:
    wakings = 0
    while (outbox := reference()) is not None and not outbox.is_stopped:
        try:
            pause = outbox.flush()
        except Exception:
            log.exception("cannot deliver events; the next attempt follows in %d seconds", _LOOK_EVERY)
            pause = None
        wakings = outbox.wait(_LOOK_EVERY if pause is None else min(pause, _LOOK_EVERY), wakings)
        del outbox


def _digest(event_id: str) -> str:
    return hashlib.blake2b(event_id.encode(), digest_size=8).hexdigest()


def _event_names(path: str) -> list[str]:
    return sorted(name for name in os.listdir(path) if _NAME.fullmatch(name))


def _unpack_event(data: bytes) -> Event:
    """Return an event from its JSON.

    Raises:
        ValueError: it is not the JSON of an event.
    """
    try:
        event = Event(**json.loads(data))
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if not all(isinstance(value, str) for value in asdict(event).values()):
        raise ValueError("each value must be text")
    return event


def _unpack_state(data: bytes) -> _State:
    """Return a state from its JSON; an empty one if it was torn by a power failure, because it is not worth a sync."""
    try:
        state = _State(**json.loads(data))
        right = 0 <= state.attempts <= _MOST_ATTEMPTS and state.next_at >= 0.0 and isinstance(state.error, str)
        return state if right else _State()
    except (ValueError, TypeError, RecursionError):
        return _State()
