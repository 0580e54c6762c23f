"""Hand-over without a client: what failed with one, and what is done in the background, is offered by a daemon thread.

Every process has such a thread, which starts with its first request, because a server may fork after it has loaded the
application. It knows what has failed here, and now and then looks for what others have left. That several find the same
upload does no harm, because one of them can claim it. Where threads do not run, ``tus handover`` does the same.
"""

from __future__ import annotations

import heapq
import logging
import math
import os
import threading
import time
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary, ref

from tus.errors import RequestError, UploadGone, UploadLocked, UploadNotFound
from tus.handover.attempt import Handing, Receiver
from tus.handover.receivers import hooks_of
from tus.hooks.calling import Hooks
from tus.models import Outcome, Response, State, Upload
from tus.options import Options
from tus.protocols.handover import due_at, hand_over_alone
from tus.stores.interface import Lists, Store

log = logging.getLogger(__name__)

LOOK_EVERY = 600.0  # seconds between two looks at every upload
BUSY = 5.0  # seconds until an upload is looked at again that somebody has


_NOTHING = Response(204, "No Content")  # what nobody is told


class Backlog:
    """The uploads of a store that wait for their hand-over.

    Args:
        store: where they are.
        options: the operator's choices.
        receiver: gives one to the application.
        hooks: who else is asked and told.

    Attributes:
        hooks: the same.
        upload_path: whose uploads are meant, because another application may have the same directory; None for
            everybody's.
    """

    def __init__(self, store: Store, options: Options, receiver: Receiver, hooks: Hooks) -> None:
        self._store = store
        self._options = options
        self._receiver = receiver
        self.hooks = hooks
        self.upload_path: str | None = options.upload_path or ""
        self._due: list[tuple[float, str]] = []
        self._due_at: dict[str, float] = {}  # the entry of each upload that counts, the earliest
        self._changed = threading.Condition()
        self._process = 0
        self._thread: threading.Thread | None = None

    def pending(self) -> Iterator[Upload]:
        """The uploads that the application is still to take."""
        if isinstance(self._store, Lists):
            for upload in self._store.list():
                if upload.is_pending and self._is_ours(upload):
                    yield upload

    def _is_ours(self, upload: Upload) -> bool:
        return self.upload_path is None or upload.upload_path in (None, self.upload_path)

    def hand_over(self, upload: Upload) -> Outcome:
        """Ask the application to take one.

        Raises:
            UploadLocked: somebody else is at it.
            RequestError: it is gone, or cannot be read.
        """
        handing = Handing(self._store, self._receiver, self.hooks, None)
        steps = hand_over_alone(upload, self._options)
        try:
            result: Any = None
            while True:
                effect = steps.send(result)
                while True:
                    try:
                        result = handing.perform(effect)
                    except RequestError as error:
                        effect = steps.throw(error)
                    else:
                        break
        except StopIteration as stop:
            handing.drop_answer(_NOTHING)
            outcome: Outcome = stop.value.outcome
            return outcome
        finally:
            handing.leave("the hand-over was broken off")

    def run(self, everything: bool = False) -> Iterator[tuple[Upload, Outcome | None]]:
        """Offer what is due, once; each with what came of it, None where somebody else is at it.

        Args:
            everything: whether also what is not due, or was put aside.
        """
        for upload in self.pending():
            due = due_at(upload, self._options)
            if (everything and upload.is_known) or (due is not None and due <= time.time()):
                try:
                    yield upload, self.hand_over(upload)
                except UploadLocked:
                    yield upload, None
                except (UploadNotFound, UploadGone):
                    continue
                except Exception:  # the others are not to suffer from it
                    log.exception("upload %s could not be handed over", upload.id)
                    yield upload, Outcome.POSTPONED

    def error_of(self, upload_id: str) -> str:
        """What went wrong at the last attempt; empty where that is not known."""
        try:
            return self._store.load(upload_id).error or ""
        except RequestError:
            return ""

    # -- Beside the requests --

    def add(self, upload: Upload) -> None:
        """Have an upload offered once it is due."""
        due = due_at(upload, self._options)
        if due is not None and self._is_ours(upload):
            self._add(due, upload.id)

    def _add(self, due: float, upload_id: str) -> None:
        with self._changed:
            if due < self._due_at.get(upload_id, math.inf):
                self._due_at[upload_id] = due
                heapq.heappush(self._due, (due, upload_id))
                self._changed.notify()

    def start(self) -> None:
        """Start the thread, unless this process has it."""
        # In a process that was forked from its own, the thread is not alive.
        if self._thread is not None and self._thread.is_alive():
            return
        if self._process != os.getpid():
            self._process = os.getpid()
            self.hooks.start()
        if not self._options.handover_attempts:
            return
        self._changed = threading.Condition()  # that of the process we were forked from may be held
        self._due, self._due_at = list(self._due), dict(self._due_at)
        self._thread = threading.Thread(target=_work, args=(ref(self),), name="tus-backlog", daemon=True)
        self._thread.start()

    def look(self) -> None:
        """Find what others have left."""
        for upload in self.pending():
            self.add(upload)

    def next_due(self, longest: float) -> str | None:
        """Wait until an upload is due, and take it; None if none is for so many seconds."""
        deadline = time.monotonic() + longest
        with self._changed:
            while True:
                now = time.time()
                if self._due and self._due[0][0] <= now:
                    due, upload_id = heapq.heappop(self._due)
                    if self._due_at.get(upload_id) == due:
                        del self._due_at[upload_id]
                        return upload_id
                    continue
                pause = deadline - time.monotonic()
                if pause <= 0:
                    return None
                if self._due:
                    pause = min(pause, self._due[0][0] - now)
                self._changed.wait(pause)

    def offer(self, upload_id: str) -> None:
        """Offer an upload if it is due, and see when it is again."""
        try:
            upload = self._store.load(upload_id)
            due = due_at(upload, self._options)
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


_PATIENCE = 60.0  # seconds after which the thread sees whether its backlog is still wanted


def _work(reference: ref[Backlog]) -> None:
    looked_at = -LOOK_EVERY
    while (backlog := reference()) is not None:
        try:
            if time.monotonic() - looked_at >= LOOK_EVERY:
                looked_at = time.monotonic()
                backlog.look()
            upload_id = backlog.next_due(_PATIENCE)
            if upload_id is not None:
                backlog.offer(upload_id)
        except BaseException:  # whatever a hook may raise here: nobody else has the thread do its work
            log.exception("finished uploads could not be handed over; the next look is in %d seconds", LOOK_EVERY)
            time.sleep(1)
        del backlog


_backlogs: WeakKeyDictionary[Store, dict[Options, Backlog]] = WeakKeyDictionary()


def backlog_of(store: Store, options: Options, receiver: Receiver) -> Backlog:
    """The one backlog of a store for these options; it works in this process from now on."""
    known = _backlogs.setdefault(store, {})
    if options not in known:
        known[options] = Backlog(store, options, receiver, hooks_of(options, store))
    known[options].start()
    return known[options]
