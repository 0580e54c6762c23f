"""The rounds: each server on each row, in a new order each time, and what was found."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import itertools
import os
import platform
import random
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks import rows as all_rows
from benchmarks.install import ROOT, NotHereError, Setup, say
from benchmarks.rows import Bench, Client, Row, Scale, Source, emptying, warm_up
from benchmarks.running import Running, ServerError, processors, stop_all
from benchmarks.servers import BY_NAME, LIMIT, OURS, SERVERS, Programs

SEED = 1
PEERS_EVERY = 3  # rounds; but tusd takes part in each one, because the targets are about it


@dataclass(frozen=True)
class Entry:
    """A server in a row.

    Attributes:
        server: the name of a server.
        key: in the results; the server's name if empty.
        filling: what its directory is filled with before it starts, see filling.py.
        note: what the page adds to the title of the server.
    """

    server: str
    key: str = ""
    filling: str = ""
    note: str = ""

    @property
    def name(self) -> str:
        return self.key or self.server


@dataclass(frozen=True)
class Group:
    """Rows that are measured on the same running servers.

    Attributes:
        entries: the servers.
        rows: in this order.
        on_disk: whether they store on the disk, else in memory.
        cores: 1, or 2 for rows in which the server may use both.
        is_alone: start each server only when it is measured, and measure at once.
        rounds: at most so many.
    """

    entries: Sequence[Entry]
    rows: Sequence[Row]
    on_disk: bool = False
    cores: int = 1
    is_alone: bool = False
    rounds: int = 1000


def _entries(*names: str) -> list[Entry]:
    return [Entry(name) for name in names]


_EVERYONE = _entries(*(server.name for server in SERVERS))
GROUPS = (
    Group(_EVERYONE, all_rows.ROWS),
    Group([entry for entry in _EVERYONE if BY_NAME[entry.server].kind != LIMIT], [all_rows.CHECKSUM], cores=2),
    Group(_entries("serve", "serve-unsynced", "sink", "tusd"), all_rows.ON_DISK, on_disk=True),
    Group(
        [
            Entry("serve", "names-first", note="the first ones"),
            Entry("serve", "names-full", "names", "after 100 000 others"),
        ],
        [all_rows.NAMES],
    ),
    Group(
        [
            Entry("serve-unlimited", "many-empty", note="an empty store"),
            Entry("serve-unlimited", "many-full", "uploads", "100 000 uploads"),
        ],
        [all_rows.MANY],
        is_alone=True,
        rounds=1,
    ),
)


@dataclass
class Found:
    """Everything that the page is written from; it is what ``--json`` keeps.

    Attributes:
        machine: what the figures belong to.
        titles: of the keys in the results.
        versions: of what was measured.
        results: a row, a key, a round and the figures, each.
        absent: why a server is not here.
        failures: what went wrong, with the row and the key.
    """

    machine: dict[str, Any]
    titles: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)

    def is_good(self) -> bool:
        """Return whether everything was measured that this project answers for."""
        return not any(BY_NAME[failure["server"]].kind != "peer" for failure in self.failures)


@dataclass
class Comparison:
    """One run.

    Args:
        setup: installs.
        scale: how much is sent.
        rounds: how often.
        memory: a directory on a memory file system.
        disk: a directory on a disk.
        servers: the names of the servers that take part.
        rows: the names of the rows.
    """

    setup: Setup
    scale: Scale
    rounds: int
    memory: Path
    disk: Path
    servers: Sequence[str]
    rows: Sequence[str]

    def run(self) -> Found:
        self._found = Found(describe_machine(self.memory, self.disk) | {"rounds": self.rounds})
        self._random = random.Random(SEED)
        self._seen: set[tuple[str, str]] = set()
        self._places = itertools.count()
        self._programs = self._prepare()
        with (
            tempfile.TemporaryDirectory(prefix="tus-benchmark-", dir=self.memory) as memory,
            tempfile.TemporaryDirectory(prefix="tus-benchmark-", dir=self.disk) as disk,
        ):
            warm_memory(Path(memory), 6 * self.scale.large)
            source = Source(Path(memory, "source"), self.scale.large)
            self._bench = Bench(Client(self.setup.client(), source), self.scale)
            for number, group in itertools.product(range(1, self.rounds + 1), GROUPS):
                if number <= group.rounds:
                    self._number = number
                    self._measure(group, Path(disk if group.on_disk else memory))
        return self._found

    def _prepare(self) -> dict[str, Programs]:
        """Install the servers, and note the ones that are not here."""
        self.setup.client()
        programs = {}
        for name, server in BY_NAME.items():
            if (server.variant_of or name) not in self.servers:
                continue
            try:
                programs[name] = self.setup.prepare(server)
            except NotHereError as error:
                say(f"{name} is not here: {error}")
                self._found.absent[name] = self._without_paths(str(error))
        self._found.versions = self.setup.versions
        for entry in (entry for group in GROUPS for entry in group.entries if entry.server in programs):
            title = self.setup.title(BY_NAME[entry.server])
            self._found.titles[entry.name] = f"{title}, {entry.note}" if entry.note else title
        return programs

    def _measure(self, group: Group, place: Path) -> None:
        """Measure the rows of a group once, this process being on the client's processor."""
        rows = [row for row in group.rows if row.name in self.rows]
        entries = [entry for entry in group.entries if entry.server in self._programs and self._is_due(entry)]
        entries = [entry for entry in entries if any(BY_NAME[entry.server].takes_part(row.name) for row in rows)]
        everywhere = os.sched_getaffinity(0)
        server_cores, client_cores = processors() if group.cores == 1 else (everywhere, everywhere)
        os.sched_setaffinity(0, client_cores)
        begun: list[Running] = []
        try:
            started = {} if group.is_alone else self._start(entries, begun, place, server_cores)
            for row, entry in ((row, entry) for row in rows for entry in self._random.sample(entries, len(entries))):
                if group.is_alone:
                    started = self._start([entry], begun, place, server_cores, warms_up=False)
                if entry.name in started and BY_NAME[entry.server].takes_part(row.name):
                    self._measure_one(row, entry, started[entry.name], group.on_disk)
                if group.is_alone:
                    stop_all(begun)
        finally:
            stop_all(begun)
            os.sched_setaffinity(0, everywhere)

    def _start(
        self, entries: Sequence[Entry], begun: list[Running], place: Path, cores: set[int], warms_up: bool = True
    ) -> dict[str, Running]:
        """Start servers together, note them in ``begun`` at once, and return those that work."""
        started = {}
        for entry in entries:
            directory = place / f"{entry.name}-{next(self._places)}"
            self._fill(entry, directory)
            begun.append(Running(BY_NAME[entry.server], self._programs[entry.server], directory, cores))
        for entry, running in zip(entries, begun[-len(entries) :], strict=True):
            with self._noting(entry, "start"):
                running.wait()
                if warms_up:
                    warm_up(self._bench, running)
                started[entry.name] = running
        return started

    def _is_due(self, entry: Entry) -> bool:
        is_often = BY_NAME[entry.server].kind in (OURS, LIMIT) or entry.server == "tusd"
        return is_often or self._number % PEERS_EVERY == 1

    def _fill(self, entry: Entry, directory: Path) -> None:
        (directory / "store").mkdir(parents=True)
        if entry.filling:
            say(f"filling a directory with {self.scale.many} {entry.filling} ...")
            command = [self._programs[entry.server].python, "-m", "benchmarks.filling", entry.filling]
            subprocess.run([*command, directory / "store", str(self.scale.many)], cwd=ROOT, check=True)

    def _measure_one(self, row: Row, entry: Entry, running: Running, on_disk: bool) -> None:
        seen = (row.name, entry.name)
        self._bench.thorough = seen not in self._seen
        if on_disk:
            os.sync()
        with self._noting(entry, row.name), emptying(running.directory):
            figures = row.measure(self._bench, running)
            self._seen.add(seen)
            result = {"row": row.name, "server": entry.name, "round": self._number}
            self._found.results.append(result | {name: float(f"{value:.6g}") for name, value in figures.items()})
            cpu = f", CPU {figures['cpu']:.3g} {row.cpu_unit}" if "cpu" in figures else ""
            self._say(row.name, entry, f"{figures['value']:.0f} {row.unit}{cpu}")

    def _say(self, row: str, entry: Entry, text: str) -> None:
        say(f"round {self._number} of {self.rounds}, {row}, {entry.name}: {text}")

    def _without_paths(self, text: str) -> str:
        return re.sub(r"/\S*tus-benchmark\S*/", ".../", text.replace(str(self.setup.cache), "..."))

    @contextlib.contextmanager
    def _noting(self, entry: Entry, row: str) -> Iterator[None]:
        """Note an error of a server, and go on with the others."""
        try:
            yield
        except (ServerError, OSError, EOFError, ValueError, http.client.HTTPException, psutil.Error) as error:
            text = self._without_paths(str(error) or type(error).__name__)
            self._say(row, entry, f"FAILED: {text}")
            self._found.failures.append({"row": row, "key": entry.name, "server": entry.server, "reason": text})


def warm_memory(directory: Path, size: int) -> None:
    """Touch as much memory as is needed: the first touch of a page is dear in a virtual machine."""
    block = bytes(1 << 20)
    path = directory / "warm"
    with path.open("wb") as file:
        for _ in range(0, size, len(block)):
            file.write(block)
    path.unlink()


def describe_machine(memory: Path, disk: Path) -> dict[str, Any]:
    """Return what the figures depend on, without a name of a machine or a path."""
    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    kinds = {"memory": file_system(memory), "disk": file_system(disk)}
    system = {"kernel": platform.release(), "python": platform.python_version()}
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    processor = models[0] if models else platform.machine()
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    machine = {"date": date, "processor": processor, "cores": os.cpu_count(), "gib": round(size / (1 << 30))}
    return machine | system | kinds


def file_system(directory: Path) -> str:
    """Return the type of the file system of a directory."""
    device = directory.stat().st_dev
    for line in _lines("/proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        if before.split()[2] == f"{os.major(device)}:{os.minor(device)}":
            return after.split()[0]
    return "unknown"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
