"""The outbox in a history, and what it promises.

An event of a request that has succeeded is delivered, at least once, whole and in the order of its upload, if its
change was not undone by the loss of power. An event whose change has not happened is not delivered.
"""

import os
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

from tests.powerloss.workers import Broken
from tus.errors import UploadLocked
from tus.hooks.configured import _has_happened
from tus.hooks.outbox import PATIENCE, Event, Outbox
from tus.models import HookType, State

_ORDER = (HookType.POST_CREATE, HookType.POST_FINISH, HookType.POST_TERMINATE)
_LONG = 4000  # seconds, after which each event is due


@dataclass(eq=False)
class Expected:
    """An event as the server and its endpoint know it.

    Attributes:
        event: as it was put last.
        payloads: all that were put; once it is owed, the last one counts.
        is_owed: whether the request has succeeded, and the change is there.
        may_be: whether the change may have happened; a removal also if the upload is lost.
        is_delivered: whether the endpoint has got it.
    """

    event: Event
    payloads: set[str] = field(default_factory=set)
    is_owed: bool = False
    may_be: bool = False
    is_delivered: bool = False


class Deliveries:
    """A server with a webhook, and its endpoint.

    Args:
        choose: the source of randomness.
        is_sure: whether the policy promises that a change outlives a loss of power.
    """

    def __init__(self, choose, is_sure):
        self.choose, self.is_sure = choose, is_sure
        self.expected = {}  # by the id of the event
        self.late = 0
        self.wrong = None
        self.is_reliable = False

    def start(self, store, path):
        self.store = store
        self.outbox = Outbox(os.path.join(path, ".tus-outbox"), self._send, self._happened, self._clock, attempts=1000)

    def _clock(self):
        return time.time() + self.late

    def _happened(self, event):
        return _has_happened(self.store, HookType(event.type), event.upload, event.id[:32])

    def put(self, kind, upload, may_be=False):
        """Put an event into the outbox, as a request does before the change, except for a creation."""
        voids = ""
        if kind == HookType.POST_TERMINATE and upload.state != State.ACCEPTED:
            voids = f"{upload.key}-{HookType.POST_FINISH}"
        payload = self.choose.randbytes(self.choose.choice([10, 900])).hex()
        event = Event(f"{upload.key}-{kind}", str(kind), upload.id, payload, voids)
        expected = self.expected.setdefault(event.id, Expected(event))
        expected.payloads.add(payload)
        expected.event = event
        expected.may_be |= may_be
        self.outbox.put(upload.key, event)
        return SimpleNamespace(
            drop=lambda: self.outbox.drop(upload.key, event.id),
            may_be=lambda: setattr(expected, "may_be", True),
            owe=lambda: setattr(expected, "is_owed", True),
        )

    def act(self):
        """Let the threads of the outbox do something."""
        self.late += self.choose.choice([0, 0, 70, _LONG])
        self.outbox.flush()
        self._raise()

    def _send(self, event):
        expected = self.expected.get(event.id)
        if expected is None or event.payload not in expected.payloads or event.upload != expected.event.upload:
            self.wrong = self.wrong or "an event is delivered that was not put"
            return
        if expected.is_owed and event.payload != expected.event.payload:
            self.wrong = self.wrong or f"{event.type} is delivered as it was put at first"
        is_there = event.type == HookType.POST_TERMINATE and self._happened(event) is not True
        if self.is_sure and (is_there or not expected.may_be):
            self.wrong = self.wrong or f"{event.type} is delivered, and has not happened"
        if not self.is_reliable and self.choose.random() < 0.2:
            raise OSError("the endpoint is down")
        for kind in _ORDER[: _ORDER.index(event.type)] if len(expected.payloads) == 1 else ():
            other = self.expected.get(f"{event.id[:32]}-{kind}")
            if other is not None and other.is_owed and not other.is_delivered:
                self.wrong = self.wrong or f"{event.type} is delivered before {kind}"
        expected.is_delivered = True

    def _raise(self):
        if self.wrong is not None:  # raised here, because the outbox takes any error for a failed delivery
            raise Broken(self.wrong)

    def check(self):
        """Look which changes a crash has undone; the store's own promises say whether it may."""
        for expected in self.expected.values():
            try:
                happened = self._happened(expected.event)
            except UploadLocked:  # its data is gone
                happened = None
            expected.is_owed = expected.is_owed and happened is True
        # An event of a crashed process is dropped here, before its change happens after all.
        self.late += 2 * PATIENCE
        self.outbox.flush()
        self._raise()

    def finish(self):
        """Let each event be delivered."""
        self.is_reliable = True
        for _ in range(50):
            self.late += _LONG
            if self.outbox.flush() is None:
                break
            self._raise()
        else:
            if self.is_sure:  # else the data of an upload may be gone, which is then busy for an hour
                raise Broken("an event stays in the outbox")
        self._raise()
        for expected in self.expected.values():
            if expected.is_owed and not expected.is_delivered:
                raise Broken(f"{expected.event.type} is lost")
