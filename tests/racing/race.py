"""The race for so many shared uploads at a time, and the audit after it."""

from __future__ import annotations

import contextlib
import random
import threading
import time
import traceback
from collections import Counter
from pathlib import Path

from tests.racing.clients import Client
from tests.racing.site import Site
from tests.racing.uploads import Findings, Upload, Watch, files_of, some_blocks
from tests.support.commands import run as run_tus
from tests.support.waiting import GUARD
from tus.models import State
from tus.stores.directory.store import DirectoryStore

SHARED = 12


class Slot:
    """The place of one shared upload."""

    def __init__(self) -> None:
        self.upload: Upload | None = None
        self.lock = threading.Lock()


class Race:
    """See :mod:`tests.racing`.

    Args:
        directory: for everything.
        server: one of :data:`tests.racing.site.SERVERS`.
        workers: processes of it.
        clients: threads that send requests.
        pause: the longest time between two disturbances, in seconds.
        mutant: one of :data:`tests.racing.site.MUTANTS`; the race ends with the first finding then.
    """

    VISITS = 100  # after so many requests an upload is left as it is, for the audit

    def __init__(
        self, directory: Path, server: str, workers: int = 3, clients: int = 24, pause: float = 1.0, mutant: str = ""
    ) -> None:
        self.site = Site(directory, server, workers, mutant)
        self.findings = Findings()
        self.watch = Watch(self.site, self.findings)
        self.slots = [Slot() for _ in range(SHARED)]
        self._uploads: dict[str, Upload] = {}
        self._clients = [Client(self) for _ in range(clients)]
        self._pause, self._ends_early = pause, bool(mutant)
        self._sent = self._wanted = 0
        self._workers = workers
        self._lock = threading.Lock()

    def is_over(self) -> bool:
        return self._sent >= self._wanted or (self._ends_early and bool(self.findings.texts))

    def count(self) -> None:
        with self._lock:
            self._sent += 1

    def new_upload(self, is_partial: bool = False, parts: tuple[Upload, ...] = ()) -> Upload:
        upload = Upload(some_blocks(), parts, is_partial)
        self._uploads[upload.name] = upload
        return upload

    def run(self, requests: int) -> str:
        """Send so many requests, and return what was seen; :attr:`findings` has what must not happen."""
        began = time.monotonic()
        self._wanted = requests
        with self.site.running():
            self._race(began)
            seconds = time.monotonic() - began
            self._wait_for_workers()
            self._finish()
            descriptors = self._check_descriptors()
            self._check_log()
        checked = self._check_store()
        landed = self._audit()
        statuses = sum((client.statuses for client in self._clients), Counter())
        return (
            f"{self._sent} requests in {seconds:.0f} s: "
            f"{', '.join(f'{count} {status}' for status, count in sorted(statuses.items()))}\n"
            f"{self.site.deaths} deaths of workers, {self.site.pauses} pauses; descriptors at the end: {descriptors}\n"
            f"{len(self._uploads)} uploads begun, {landed} accepted, {self._left} of the others in the store; "
            f"tus fsck: {checked}; {self.findings.counts.total()} findings"
        )

    def _race(self, began: float) -> None:
        threads = [threading.Thread(target=self._run_client, args=[client]) for client in self._clients]
        for thread in threads:
            thread.start()
        reported = 0
        while any(thread.is_alive() for thread in threads):
            if not self.is_over():
                self.site.disturb()
            time.sleep(random.uniform(self._pause / 4, self._pause))
            if self._sent - reported >= 5000:
                reported = self._sent
                found, seconds = self.findings.counts.total(), time.monotonic() - began
                print(f"{reported} requests after {seconds:.0f} s, {found} findings", flush=True)

    def _run_client(self, client: Client) -> None:
        try:
            client.race_on()
        except Exception:
            self.findings.add("a client has failed", traceback.format_exc())

    # -- What must be so afterwards --

    def _wait_for_workers(self) -> None:
        deadline = time.monotonic() + GUARD
        while len(self.site.workers()) < self._workers and time.monotonic() < deadline:
            time.sleep(0.1)

    def _finish(self) -> None:
        """A patient client comes through with each upload that is left."""
        client = self._clients[0]
        with contextlib.closing(client):
            for upload in filter(None, (slot.upload for slot in self.slots)):
                if not client.finish(upload):
                    self.findings.add("an upload cannot be finished", f"{upload.id} after {upload.visits} requests")

    def _check_descriptors(self) -> list[int]:
        deadline = time.monotonic() + GUARD
        while (leaks := self.site.leaks()) and time.monotonic() < deadline:
            time.sleep(0.2)
        for leak in leaks:
            self.findings.add("a leak", leak)
        descriptors = self.site.descriptors()
        if max(descriptors) > min(descriptors) + 20:  # a worker that has just started has opened little
            self.findings.add("a leak", f"the workers have {descriptors} descriptors, the eldest one first")
        return descriptors

    def _check_log(self) -> None:
        log = self.site.log.read_text()
        if "Traceback" in log:
            self.findings.add("a traceback in the log", log[log.index("Traceback") :][:3000])

    def _check_store(self) -> str:
        """Return what ``tus fsck`` says in the end."""
        checked = run_tus("fsck", self.site.store)
        total = [line for line in checked.stdout.splitlines() if line.startswith("no damage")]
        if checked.returncode or not total:
            self.findings.add("tus fsck", checked.stdout + checked.stderr)
        return "".join(total)

    def _audit(self) -> int:
        """Look at every file, and return how many uploads the application has got."""
        landed = 0
        for upload in list(self._uploads.values()):
            files = files_of(self.site, upload)
            landed += bool(files)
            if len(files) > 1 + (upload.removals if upload.parts else 0):
                self.findings.add("given to the application twice", f"{upload.name} as {[path.name for path in files]}")
            for path in files:
                self.watch.see_data(upload, path.read_bytes(), path.name, is_whole=True)
        self._check_left()
        return landed

    def _check_left(self) -> None:
        """Look at what is still in the store."""
        there, self._left = set(), 0
        for stored in DirectoryStore(str(self.site.store)).list():
            upload = self._uploads[stored.filename]
            there.add(stored.id)
            if stored.id == upload.id and stored.offset < upload.floor:
                self.findings.add("an offset decreased", f"{stored.id} ends at {stored.offset}, not {upload.floor}")
            if stored.state == State.ACCEPTED:
                if not any(path.name.startswith(stored.id) for path in files_of(self.site, upload)):
                    self.findings.add("accepted without the application", stored.id)
                continue
            self._left += 1
            if not upload.parts or stored.is_complete:
                data = (self.site.store / stored.id).read_bytes()[: stored.offset]
                if len(data) < stored.offset:
                    self.findings.add("an offset is ahead", f"{stored.id}: {stored.offset} of {len(data)} bytes")
                self.watch.see_data(upload, data, stored.id, stored.is_complete)
        for upload in self._uploads.values():
            if upload.id is not None and upload.id not in there:
                self.watch.see_absence(upload, upload.id)
