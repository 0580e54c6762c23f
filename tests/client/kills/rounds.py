"""The rounds, and the lives of a client in them."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from tests.client.uploading import Auditor
from tests.support.hostile_proxy import HostileProxy, random_deeds
from tests.support.serving import serving
from tests.support.waiting import wait_until
from tus.client import AsyncClient, Client, Retry
from tus.client.records.sqlite import SqliteRecords

SERVERS = ("gunicorn-gthread", "uvicorn-httptools")
#: What the proxy does. Most of it takes time, in which the client can be killed.
DEEDS = ("delay", "delay reply", "throttle", "lose reply", "cut after", "cut in", "reset", "duplicate", "busy")
HASTY = Retry(attempts=100, base=0.01, cap=0.1, stall_timeout=1, answer_timeout=2)
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.client.kills.rounds", "tus.client.transports.httpx_async"])


@dataclass(frozen=True)
class Way:
    """How a round uploads its file."""

    protocol: str
    kind: str
    chunk_size: int | None
    parallel: int


class Marking(SqliteRecords):
    """Marks that the client knows of the end of an upload: it then forgets the record."""

    mark: Path

    def forget(self, key):
        self.mark.touch()
        super().forget(key)


def live(url: str, file: str, directory: str, way: Way) -> None:
    """One life of a client, in a process of its own."""
    records = Marking(Path(directory) / "records.sqlite")
    records.mark = Path(directory) / "done"
    settings = {"protocol": way.protocol, "chunk_size": way.chunk_size, "records": records, "retry": HASTY}
    if way.kind == "threads":
        with Client(url, **settings) as client:
            client.upload(file, parallel=way.parallel)
        return

    async def run():
        async with AsyncClient(url, **settings) as client:
            await client.upload(file, parallel=way.parallel)

    anyio.run(run, backend=way.kind)


@dataclass
class Report:
    """What has happened.

    Attributes:
        kills: how many lives ended in each round.
        stages: the last request at each kill, and whether the client had a response to it.
        findings: broken promises.
    """

    kills: list[int] = field(default_factory=list)
    stages: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    left_over: int = 0
    findings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        stages = ", ".join(f"{count} {stage}" for stage, count in self.stages.most_common())
        return (
            f"{len(self.kills)} files, {sum(self.kills)} kills ({stages}), {self.requests} requests, "
            f"{self.left_over} parts left over, {len(self.findings)} findings"
        )


class Kills:
    """Rounds against both servers; a context manager."""

    def __init__(self, directory: Path, seed: int) -> None:
        self._directory = directory
        self._chance = random.Random(seed)
        self._stack = contextlib.ExitStack()
        self.report = Report()

    def __enter__(self) -> Kills:
        self._servers = []
        for name in SERVERS:
            directory = self._directory / name
            directory.mkdir()
            served = self._stack.enter_context(serving(name, directory))
            self._servers.append((served, Auditor(served)))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def run(self, rounds: int) -> Report:
        for number in range(rounds):
            self._round(number)
        return self.report

    def _round(self, number: int) -> None:
        chance, report = self._chance, self.report
        served, auditor = self._servers[number % len(self._servers)]
        directory = self._directory / str(number)
        directory.mkdir()
        data = chance.randbytes(chance.choice((0, 1000, 300_000, 3_000_000, 6_000_000)))
        (directory / "film.mp4").write_bytes(data)
        protocol = chance.choice(("tus", "ietf"))
        parallel = 2 if protocol == "tus" and chance.random() < 0.2 else 1
        way = Way(protocol, chance.choice(("threads", "asyncio", "trio")), chance.choice((None, 500_000)), parallel)
        is_in_parts = parallel > 1 and len(data) >= 2 << 20
        seed = chance.randrange(1 << 30)
        deeds = DEEDS if not is_in_parts else tuple(deed for deed in DEEDS if deed != "busy")  # see FinishUncertain
        with HostileProxy(served.port, random_deeds(seed, 0.5, deeds)) as proxy:
            report.kills.append(self._lives(proxy, directory, way))
            report.requests += len(proxy.passed)
        account = auditor.account()
        if is_in_parts:  # parts have no key, so that one whose creation got no reply is left over until it expires
            report.left_over += account.stored - 3
            account.stored = 1
        if (account.files, account.handovers, account.stored) != ([hashlib.sha256(data).hexdigest()], 1, 1):
            report.findings.append(f"round {number}: {way}, {len(data)} bytes: {account}")

    def _lives(self, proxy: HostileProxy, directory: Path, way: Way) -> int:
        """Let a client live again and again, until the file is uploaded; returns how often it was killed."""
        kills, most = 0, self._chance.randrange(1, 8)
        while True:
            arguments = (proxy.url("/files"), str(directory / "film.mp4"), str(directory), way)
            process = PROCESSES.Process(target=live, args=arguments)
            before = len(proxy.passed)
            process.start()
            if kills < most:
                if self._chance.random() < 0.9:  # else the kill may come before the first request
                    wait_until(lambda: len(proxy.passed) > before or not process.is_alive())  # noqa: B023
                process.join(self._chance.random() * 0.25)
            else:
                process.join()
            if process.exitcode is None:
                last = proxy.passed[-1] if proxy.passed else None
                stage = "nothing" if last is None else f"{last.method} {'answered' if last.status else 'sent'}"
                process.kill()
                process.join()
                self.report.stages[stage] += 1
                kills += 1
            elif process.exitcode:
                self.report.findings.append(f"the client failed: {way}")
                return kills
            process.close()
            if (directory / "done").exists():
                return kills
