"""The spool and its workers in a history, and what they promise.

From its acceptance on, an upload is in the spool, once and whole, until a worker is done with it and it is purged. Each
change of an entry is on the disk when the call that made it returns: what is done is not done again, and a failed
attempt is counted, as is one that a crash has ended.
"""

import os
from contextlib import suppress
from dataclasses import dataclass

from tests.powerloss.disk import Killed, PowerLoss
from tus.handover.receivers import SpoolReceiver
from tus.handover.spool import Spool, SpoolEmpty
from tus.handover.spool_entries import STATES

ATTEMPTS = 2


class Broken(AssertionError):
    """A promise was not kept."""


class _Failing(Exception):
    """A worker fails."""


@dataclass(eq=False)
class Spooled:
    """An upload in the spool, as the server and the workers know it.

    Attributes:
        content: the whole file.
        is_promised: whether the server was told that it is in the spool.
        is_done: whether a worker was told that it is done.
        is_vague: whether a disk has failed since, so that attempts may be counted wrongly or made again.
        is_taken: whether a worker has removed the data.
        is_purged: whether it may be removed.
        is_retried: whether the operator was told that the workers have it again, and none has got it since.
        least: the number of failed attempts that are sure to be counted.
        most: the number of failed attempts that may be counted.
    """

    content: bytes
    is_promised: bool = False
    is_done: bool = False
    is_vague: bool = False
    is_taken: bool = False
    is_purged: bool = False
    is_retried: bool = False
    least: int = 0
    most: int = 0


class Workers:
    """The users of a spool.

    Args:
        choose: the source of randomness.
    """

    def __init__(self, choose):
        self.choose = choose
        self.entries = {}  # by key
        self.spool = None

    def start(self, path, disk):
        self.disk = disk
        self.spool = Spool(path, attempts=ATTEMPTS, delay=0)

    def receive(self, client, claim):
        """Put an upload into the spool, as the server does."""
        entry = self.entries.setdefault(claim.upload.key, Spooled(client.content))
        SpoolReceiver(self.spool.put)(claim)
        entry.is_promised = True

    def act(self):
        """Let a worker or the operator do something."""
        failures = len(self.disk.failed)
        try:
            self.choose.choice([self._work, self._work, self._work, self._retry, self._purge])()
        except (Killed, PowerLoss):
            for entry in self.entries.values():
                entry.most += 1
            raise
        finally:
            if len(self.disk.failed) > failures:
                for entry in self.entries.values():
                    entry.is_vague = True

    def _work(self):
        ending = None
        with suppress(SpoolEmpty, _Failing, KeyboardInterrupt):
            with self.spool.claim(timeout=0) as upload:
                entry = self._look_at(upload)
                entry.least = entry.most = upload.attempts + 1
                self.disk.wait()
                ending = self.choose.choice([None, None, _Failing, KeyboardInterrupt])
                if ending is None and self.choose.random() < 0.5 and not entry.is_taken:
                    entry.is_taken = True
                    os.unlink(upload.path)
                if ending is not _Failing:
                    entry.least = upload.attempts
                if ending is not None:
                    raise ending
            entry.is_done = True
        if ending is KeyboardInterrupt:
            entry.most = upload.attempts

    def _retry(self):
        for upload in self.spool.uploads("failed"):
            entry = self.entries[upload.key]
            entry.least = 0
            self.spool.retry(upload.key)
            entry.most = 0
            entry.is_retried = True
            return

    def _purge(self):
        for upload in self.spool.uploads("done"):
            self.entries[upload.key].is_purged = True
        self.spool.purge(0)

    def _look_at(self, upload):
        """Check what a worker gets."""
        entry = self.entries.get(upload.key)
        if entry is None:
            raise Broken("a worker gets an upload that nobody has put into the spool")
        if (entry.is_done or entry.is_purged) and not entry.is_vague:
            raise Broken("a worker gets an upload that was done")
        self._check(entry, upload)
        entry.is_retried = False
        return entry

    def _check(self, entry, upload):
        try:
            with open(upload.path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            content = entry.content if entry.is_taken or entry.is_purged else None
        if content != entry.content or upload.length != len(content):
            raise Broken(f"the data of a spooled upload is {'lost' if content is None else 'damaged'}")
        if not entry.least <= upload.attempts <= entry.most and not entry.is_vague:
            raise Broken(f"{entry.least} to {entry.most} attempts failed, and {upload.attempts} are counted")

    def check(self):
        """Check each upload in the spool, after a crash."""
        self.spool._recover()
        states = {}
        for state in STATES:
            for upload in self.spool.uploads(state):
                if upload.key in states:
                    raise Broken(f"a spooled upload is {states[upload.key]} and {state}")
                states[upload.key] = state
                entry = self.entries.get(upload.key)
                if entry is None:
                    raise Broken("the spool has an upload that nobody has put into it")
                self._check(entry, upload)
                if entry.is_retried and state == "failed" and upload.attempts < ATTEMPTS and not entry.is_vague:
                    raise Broken("an upload that was given back to the workers is failed")
        for key, entry in self.entries.items():
            state = states.get(key)
            if state is None and entry.is_promised and not entry.is_purged:
                raise Broken("an upload that was put into the spool is lost")
            if (entry.is_done or entry.is_purged) and not entry.is_vague and state not in ("done", None):
                raise Broken(f"a spooled upload that was done is {state}")

    def finish(self):
        """Let the workers finish."""
        with suppress(SpoolEmpty):
            while True:
                with self.spool.claim(timeout=0) as upload:
                    entry = self._look_at(upload)
                entry.is_done = True
        self.check()
        left = self.spool.counts()
        if left["new"] or left["claimed"]:
            raise Broken("an upload in the spool reaches no worker")
        self.spool.purge(0)
        if os.listdir(os.path.join(self.spool.directory, "done")):
            raise Broken("an upload that was done cannot be purged")
