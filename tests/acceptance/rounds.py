"""Rounds of uploads under random deaths, and the audit after them."""

from __future__ import annotations

import hashlib
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.clients import SILENCE, TUSJS_IETF_KINDS, TUSJS_KINDS, TUSPY_KINDS, Belief, TusJs, tuspy
from tests.acceptance.site import PATH, Site
from tests.support.cutting_proxy import CuttingProxy
from tus.models import State

_NAMES = ("take", "take", "take", "take", "reject", "moody")  # what the receiver is to do with a file so named


@dataclass
class Upload:
    """What was uploaded, and what its client believes."""

    name: str
    kind: str
    digest: str
    belief: Belief


class BrokenPromise(AssertionError):
    """What the audit has found."""


def promised(is_kept: object, broken: str) -> None:
    """See whether a promise was kept."""
    if not is_kept:
        raise BrokenPromise(broken)


class Rounds:
    """See :mod:`tests.acceptance`.

    Args:
        directory: for everything.
        tusjs: tus-js-client, or None to go without it.
        clients: uploads at a time by each client.
        probability: of a failure at each hand-over.
        sabotage: see :class:`~tests.acceptance.site.Site`.
        kinds: of uploads; by default all that a client can do.
        framework: see :class:`~tests.acceptance.site.Site`.
        pause: the longest time between two deaths, in seconds; a framework takes seconds to start.
    """

    def __init__(
        self,
        directory: Path,
        tusjs: TusJs | None,
        clients: int,
        probability: float,
        sabotage: str = "",
        kinds: tuple[str, ...] = (),
        framework: str = "",
        pause: float = 0.5,
    ) -> None:
        self._site = Site(directory, sabotage=sabotage, framework=framework)
        self._pause = pause
        self._tusjs = tusjs
        self._kinds = kinds
        self._clients = clients
        self._probability = probability
        self._numbers = itertools.count()
        self._uploads: list[Upload] = []
        self._kills: Counter[str] = Counter()
        self._over = threading.Event()
        self._failures: list[BaseException] = []

    def run(self, kills: int) -> str:
        """Go on until so many processes were killed; returns what has come of it.

        Raises:
            BrokenPromise: the audit has found that.
        """
        with self._site as site:
            with CuttingProxy(site.port) as proxy:
                site.fail(None, self._probability)
                endpoint = proxy.origin + PATH
                jobs = [lambda kind, *job: tuspy(endpoint, *job, kind)] * self._clients
                kinds = [self._kinds or TUSPY_KINDS] * self._clients
                if self._tusjs is not None:
                    tusjs = self._tusjs
                    jobs += [lambda kind, *job: tusjs(endpoint, *job, kind)] * self._clients
                    kinds += [self._kinds or TUSJS_KINDS] * self._clients
                    ietf = tusjs.speaking("ietf-draft-05")
                    jobs += [lambda kind, *job: ietf(endpoint, *job, kind)] * self._clients
                    kinds += [self._kinds or TUSJS_IETF_KINDS] * self._clients
                threads = [threading.Thread(target=self._work, args=job) for job in zip(jobs, kinds, strict=True)]
                for thread in threads:
                    thread.start()
                try:
                    while self._kills.total() + site.suicides < kills and not self._failures:
                        self._disturb(site, proxy)
                finally:
                    self._over.set()
                    site.calm()
                    for thread in threads:
                        thread.join()
                    proxy._faults.clear()
            assert not self._failures, self._failures
            return self._audit(site)

    def _work(self, client: Callable[..., Belief], kinds: tuple[str, ...]) -> None:
        try:
            while not self._over.is_set():
                number = next(self._numbers)
                kind = random.choice(kinds)
                name = f"{random.choice(_NAMES)}-{kind}-{number}"
                data = b"" if kind == "empty" else random.randbytes(random.randrange(2, 300_000))
                belief = client(kind, name, data)
                self._uploads.append(Upload(name, kind, hashlib.sha256(data).hexdigest(), belief))
        except BaseException as error:
            self._failures.append(error)

    def _disturb(self, site: Site, proxy: CuttingProxy) -> None:
        time.sleep(random.uniform(self._pause / 10, self._pause))
        match random.choice(("worker", "worker", "server", "receiver", "reply", "reply")):
            case "worker":
                site.kill_worker()
                self._kills["worker"] += 1
            case "server":
                site.kill_server()
                site.start_server()
                self._kills["server"] += 1
            case "receiver":
                site.kill_receiver()
                site.start_receiver()
                self._kills["receiver"] += 1
            case "reply":
                proxy.lose_reply(random.choice(("POST", "PATCH", "PATCH", "HEAD")))

    # -- What must be so afterwards --

    def _audit(self, site: Site) -> str:
        listed = {upload.id for upload in site.uploads()}
        before = len(site.lines("accepted"))
        succeeded = self._check_beliefs(site, listed)
        promised(succeeded or len(self._uploads) < 20, "no client ever succeeded, so the server takes nothing")
        site.hand_over_the_rest()
        uploads = site.uploads()
        accepted = Counter(line["key"] for line in site.lines("accepted"))
        promised(set(accepted.values()) <= {1}, "a key was accepted twice")
        digests = {upload.name: upload.digest for upload in self._uploads}
        for line in site.lines("accepted"):
            promised(line["digest"] == digests[line["name"]], f"{line['name']} was not what was sent")
        for upload in uploads:
            if upload.state == State.ACCEPTED:
                promised(upload.is_partial or upload.key in accepted, f"{upload.filename} was never accepted")
            if upload.state == State.REJECTED:
                promised(upload.key not in accepted, f"{upload.filename} was accepted and rejected")
        keys = Counter(line["name"] for line in site.lines("accepted"))
        twice = [name for name, count in keys.items() if count > 1]
        # A client that has lost the reply to the only request that it makes begins again.
        promised(not [name for name in twice if "-patch-" in name], f"accepted under two keys: {twice}")
        kinds = Counter(upload.kind for upload in self._uploads)
        return (
            f"{len(self._uploads)} uploads ({', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))}), "
            f"{self._kills.total() + site.suicides} deaths ("
            f"{', '.join(f'{count} {kind}' for kind, count in sorted(self._kills.items()))}, "
            f"{site.suicides} in the application); {len(site.lines('offered'))} offers, {len(accepted)} accepted once "
            f"each, {len(accepted) - before} of them without a client after the end; "
            f"{succeeded} clients reported success, all after the acceptance; "
            f"{sum(upload.belief.was_rejected for upload in self._uploads)} heard a rejection, "
            f"{sum(not upload.belief.succeeded for upload in self._uploads)} gave up for any reason, "
            f"{sum(upload.belief.error == SILENCE for upload in self._uploads)} fell silent; "
            f"{len(twice)} began again after a lost reply to a POST and were accepted under both keys"
        )

    def _check_beliefs(self, site: Site, listed: set[str]) -> int:
        """What clients believe holds; returns how many of them have reported success."""
        taken: dict[str, float] = {}
        for line in site.lines("accepted"):
            taken.setdefault(line["name"], line["at"])
        count = 0
        for upload in self._uploads:
            belief = upload.belief
            if belief.succeeded:
                promised(upload.name in taken, f"{upload.name}: success was reported, and it was never accepted")
                promised(taken[upload.name] <= belief.at + 0.001, f"{upload.name}: success was reported before")
                count += 1
            elif belief.was_rejected and "parts" not in upload.kind:
                promised(not upload.name.startswith("take"), f"{upload.name} was rejected: {belief}")
                begins_again = "-post-" in upload.name or "-empty-" in upload.name
                promised(upload.name not in taken or begins_again, f"{upload.name} was rejected and accepted")
            elif belief.url is not None:
                promised(belief.url.rpartition("/")[2] in listed, f"{upload.name} is lost: {belief}")
        return count
