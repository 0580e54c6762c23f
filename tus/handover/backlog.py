"""Hand-over without a client: a daemon thread offers uploads after failed attempts, or all uploads by an option.

Every process has such a thread. It starts with the first request, because a server may fork after it has loaded the
application. It knows the uploads that failed in its process. Of all processes of a service, one is elected: it also
looks regularly for uploads that other processes have left. Only one process can claim an upload. If threads do not run,
``tus handover`` does the same.
"""

from __future__ import annotations

import heapq
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from weakref import ref

from tus.errors import OffsetMismatch, RequestError, UploadGone, UploadLocked, UploadNotFound
from tus.handover.attempt import Attempt, Receiver, run
from tus.hooks.calling import Hooks
from tus.models import Outcome, Response, State, Upload
from tus.options import Options
from tus.protocols.handover import LONGEST_DELAY, due_at, hand_over_alone
from tus.stores.interface import Candidate, Elects, Lists, Pending, Store

log = logging.getLogger(__name__)

LOOK_EVERY = 600.0  # seconds between two looks at every upload
LOOK_FIRST = 0.05  # seconds that the first look leaves to the request that has started the thread
MOST = 10_000  # uploads that one look schedules
BUSY = 5.0  # seconds until an upload that another process has claimed is tried again

_NOTHING = Response(204, "No Content")  # sent to no client


_is_left_to_command = False


def leave_to_command() -> None:
    """Start no threads in this process, because a command offers the uploads."""
    global _is_left_to_command
    _is_left_to_command = True


class Backlog:
    """The uploads of a store that wait for their hand-over.

    Args:
        store: the store of the uploads.
        options: the options of the service.
        receiver: gives an upload to the application.
        hooks: the hooks to call.

    Attributes:
        hooks: the hooks to call.
        service: the name of the service whose uploads are offered; None for all. Services may share a directory.
    """

    def __init__(self, store: Store, options: Options, receiver: Receiver, hooks: Hooks) -> None:
        self._store = store
        self._options = options
        self._receiver = receiver
        self.hooks = hooks
        self.service: str | None = options.service_name
        self._due: list[tuple[float, str]] = []
        self._due_at: dict[str, float] = {}  # the valid entry of each upload; others in the heap are outdated
        self._changed = threading.Condition()
        self._threads: dict[int, threading.Thread] = {}  # by process, because a server may fork
        self._is_stopped = False
        self._candidate: Candidate | None = None
        if isinstance(store, Elects):
            self._candidate = store.candidate(f"look for {options.service_name}")
        self._named: set[str] = set()  # other services that the log names already

    def pending(self) -> Iterator[Upload]:
        """Yield the complete uploads of the service that the application has not accepted or rejected."""
        if isinstance(self._store, Lists):
            for upload in self._store.list():
                if upload.is_pending and self._is_ours(upload):
                    yield upload

    def _is_ours(self, upload: Upload) -> bool:
        return self.service is None or upload.service in (None, self.service)

    def hand_over(self, upload: Upload) -> Outcome:
        """Offer an upload to the application, and return the outcome.

        Raises:
            UploadLocked: another process has claimed the upload.
            RequestError: the upload is gone, or cannot be read.
        """
        attempt = Attempt(self._store, self._receiver, self.hooks, None)
        try:
            handed = run(hand_over_alone(upload, self._options), attempt.perform)
            attempt.drop_answer(_NOTHING)
            return handed.outcome
        except OffsetMismatch:  # bytes are lost, and only the client has them
            return Outcome.POSTPONED
        finally:
            attempt.leave("the hand-over was interrupted")

    def run(self, everything: bool = False) -> Iterator[tuple[Upload, Outcome | None]]:
        """Offer every due upload once, and yield it with its outcome; None if another process has claimed it.

        Args:
            everything: whether to offer uploads that are not due or were set aside, too.
        """
        for upload in self.pending():
            due = due_at(upload, self._options, time.time())
            if (everything and upload.is_known) or (due is not None and due <= time.time()):
                try:
                    yield upload, self.hand_over(upload)
                except UploadLocked:
                    yield upload, None
                except (UploadNotFound, UploadGone):
                    continue
                except Exception:  # go on with the other uploads
                    log.exception("upload %s could not be handed over", upload.id)
                    yield upload, Outcome.POSTPONED

    def error_of(self, upload_id: str) -> str:
        """Return the error text of the last attempt; empty if it is not known."""
        try:
            return self._store.load(upload_id).error or ""
        except RequestError:
            return ""

    # -- Between requests --

    def add(self, upload: Upload) -> None:
        """Schedule an upload to be offered once it is due."""
        due = due_at(upload, self._options, time.time())
        if due is not None and self._is_ours(upload):
            self._add(due, upload.id)

    def _add(self, due: float, upload_id: str) -> None:
        with self._changed:
            if due < self._due_at.get(upload_id, math.inf):
                self._due_at[upload_id] = due
                heapq.heappush(self._due, (due, upload_id))
                self._changed.notify()

    def start(self) -> None:
        """Start the thread, unless it runs in this process."""
        process = os.getpid()
        if process in self._threads or not self._options.handover_attempts or _is_left_to_command:
            return
        thread = threading.Thread(target=_work, args=(ref(self),), name="tus-backlog", daemon=True)
        if self._threads.setdefault(process, thread) is not thread:
            return  # another request of this process has started it
        self._changed = threading.Condition()  # after a fork, the parent's condition may be locked for ever
        self._due, self._due_at = list(self._due), dict(self._due_at)
        try:
            thread.start()
        except RuntimeError:  # there are too many threads; the next request tries again
            del self._threads[process]
            raise

    def is_elected(self) -> bool:
        """Return whether this process must look for uploads of other processes; it may become the one later."""
        return self._candidate is None or self._candidate.win()

    def stop(self) -> None:
        """End the thread."""
        self._candidate = None
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    @property
    def is_stopped(self) -> bool:
        """Whether the thread was stopped."""
        return self._is_stopped

    def _list_waiting(self, is_wanted: Callable[[Upload], bool]) -> Iterable[Upload]:
        """Return the wanted uploads that may be due before the next look."""
        if isinstance(self._store, Pending):
            return self._store.pending(math.inf, MOST, is_wanted)  # also those whose clock was wrong
        return filter(is_wanted, self._store.list()) if isinstance(self._store, Lists) else ()

    def look(self) -> None:
        """Schedule the uploads that other processes left, and log the other services whose uploads wait."""
        others: dict[str, int] = {}

        def is_wanted(upload: Upload) -> bool:
            if self._is_ours(upload):
                return True
            if upload.is_pending and upload.is_known:
                others[upload.service or ""] = others.get(upload.service or "", 0) + 1
            return False

        for upload in self._list_waiting(is_wanted):
            self.add(upload)
        for name in others.keys() - self._named:
            log.info("%d finished uploads here wait for the service %r, not for %r", others[name], name, self.service)
        self._named |= others.keys()

    def next_due(self, longest: float) -> str | None:
        """Wait until an upload is due, and return its id; None if no upload is due within ``longest`` seconds."""
        deadline = time.monotonic() + longest
        changed = self._changed
        with changed:
            while True:
                now = time.time()
                if self._due and not now < self._due[0][0] <= now + LONGEST_DELAY:  # else a clock was wrong
                    due, upload_id = heapq.heappop(self._due)
                    if self._due_at.get(upload_id) == due:
                        del self._due_at[upload_id]
                        return upload_id
                    continue
                pause = deadline - time.monotonic()
                if pause <= 0 or self._is_stopped:
                    return None
                if self._due:
                    pause = min(pause, self._due[0][0] - now)
                changed.wait(pause)

    def offer(self, upload_id: str) -> None:
        """Offer an upload if it is due, and schedule the next attempt."""
        try:
            upload = self._store.load(upload_id)
            due = due_at(upload, self._options, time.time())
            if due is None:
                return
            if upload.state == State.HANDING_OVER:
                raise UploadLocked()
            if due <= time.time():
                self.hand_over(upload)
                upload = self._store.load(upload_id)
            self.add(upload)
        except UploadLocked:
            self._add(time.time() + BUSY, upload_id)
        except (UploadNotFound, UploadGone):
            return


_PATIENCE = 60.0  # seconds after which the thread checks whether its backlog still exists


def _work(reference: ref[Backlog]) -> None:
    looked_at = -LOOK_EVERY
    time.sleep(LOOK_FIRST)
    while (backlog := reference()) is not None and not backlog.is_stopped:
        try:
            if time.monotonic() - looked_at >= LOOK_EVERY and backlog.is_elected():
                looked_at = time.monotonic()
                backlog.look()
            upload_id = backlog.next_due(_PATIENCE)
            if upload_id is not None:
                backlog.offer(upload_id)
        except BaseException:  # a hook may raise anything here, and no other thread does this work
            log.exception("finished uploads could not be handed over; the next attempt is in %d seconds", LOOK_EVERY)
            time.sleep(1)
        del backlog
