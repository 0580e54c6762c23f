"""``python -m benchmarks.clients``: this package's client beside other ones, and docs/benchmarks_clients.rst from it.

Each client uploads one large file, in a process of its own, in turns with the others. curl is the limit: it sends one
PATCH, and the time of the creation before it counts, too. Everything that was stored is compared with what was sent.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from benchmarks.comparison import Found, describe_machine, warm_memory
from benchmarks.install import ROOT, NotHereError, Setup, say
from benchmarks.page import amount, grid, heading, number, paragraph, section, versions
from benchmarks.rows import GIB, MIB, Source, Upload, ask, emptying, find, index
from benchmarks.running import Running, ServerError, processors
from benchmarks.servers import BY_NAME, Programs
from benchmarks.targets import Medians

SEED = 1
SAMPLING = 0.02  # seconds between two looks at the memory
SERVERS = ("serve", "tusd")
PATCH = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}


@dataclass(frozen=True)
class Client:
    """A client.

    Attributes:
        name: in options, in the results, and of the program in ``uploading.py``.
        title: in the page; ``{package}`` stands for the version of a package.
        environment: the name of its virtual environment; empty for curl.
        binary: the program that must be on the PATH; empty for Python.
    """

    name: str
    title: str
    environment: str = ""
    binary: str = ""


CLIENTS = (
    Client("ours", "**Client**", "tus-client"),
    Client("ours-parallel", "**Client**, ``parallel=4``", "tus-client"),
    Client("ours-async", "**AsyncClient**", "tus-client"),
    Client("curl", "curl -T", binary="curl"),
    Client("tuspy", "tuspy, whole file", "tuspy"),
    Client("tuspy-4m", "tuspy, chunks of 4 MiB", "tuspy"),
    Client("resumable", "resumable-upload, as shipped", "resumable-upload"),
    Client("resumable-4m", "resumable-upload, 4 MiB, no checksums", "resumable-upload"),
    Client("aiotus", "aiotus", "aiotus"),
)
FLAT = ("ours", "ours-parallel", "ours-async")  # whose memory is measured again with a larger file


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.clients", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [client.name for client in CLIENTS]
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()
    cache = Path.home() / ".cache" / "tus-benchmarks"
    parser.add_argument("--cache", type=Path, default=cache, help="for what is installed (default: %(default)s)")
    parser.add_argument("--directory", type=Path, default=memory, help="for all files (default: %(default)s)")
    parser.add_argument("--size", type=int, default=1024, help="of the file, in MiB (default: %(default)s)")
    parser.add_argument("--large", type=int, default=4096, help="of a file for the memory, in MiB; 0 for none")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--clients", nargs="+", default=names, choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--servers", nargs="+", default=SERVERS, choices=SERVERS, metavar="NAME", help="serve, tusd")
    page = ROOT / "docs" / "benchmarks_clients.rst"
    parser.add_argument("--page", type=Path, default=page, help="default: %(default)s")
    parser.add_argument("--json", type=Path, help="keep all figures in this file")
    parser.add_argument("--from-json", type=Path, help="measure nothing, and write the page from such a file")
    parser.add_argument("--quick", action="store_true", help="install nothing, and print the page")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    for end in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C does, they must end the server
        signal.signal(end, lambda end, frame: sys.exit(f"ended by signal {end}"))
    if options.from_json:
        found = Found(**json.loads(options.from_json.read_text()))
    else:
        found = Rounds(options).run()
        if options.json:
            options.json.write_text(json.dumps(asdict(found), indent=1) + "\n")
    if options.quick:
        print(render(found))
    else:
        options.page.write_text(render(found))
        say(f"wrote {options.page}")
    for failure in found.failures:
        say(f"failed: {failure['key']}, {failure['row']}: {failure['reason']}")
    return int(any(failure["key"].startswith("ours") for failure in found.failures))


class Rounds:
    """One run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._setup = Setup(options.cache, here=options.quick)
        self._random = random.Random(SEED)

    def run(self) -> Found:
        options = self._options
        self._found = Found(describe_machine(Path(options.directory), options.cache) | {"rounds": options.rounds})
        self._found.machine |= {"size": options.size, "large": options.large}
        self._clients = dict(self._prepared([client for client in CLIENTS if client.name in options.clients]))
        servers = dict(self._prepared([BY_NAME[name] for name in options.servers]))
        self._found.versions = self._setup.versions
        loads = []
        with tempfile.TemporaryDirectory(prefix="tus-benchmark-", dir=options.directory) as directory:
            place = Path(directory)
            warm_memory(place, 3 * options.size * MIB)
            self._source = Source(place / "source.bin", options.size * MIB)
            for name, programs in servers.items():
                with self._running(name, programs, place) as running:
                    for self._round in range(1, options.rounds + 1):
                        for client in self._random.sample(list(self._clients), len(self._clients)):
                            self._measure(name, client, running, self._source.path)
                            loads.append(os.getloadavg()[0])
            if options.large and (name := next(iter(servers), "")):
                self._measure_large(name, servers[name], place)
        self._found.machine["load"] = round(sum(loads) / max(len(loads), 1), 1)
        return self._found

    def _prepared(self, wanted: Sequence) -> Iterator[tuple[str, Programs]]:
        for each in wanted:
            try:
                yield each.name, self._setup.prepare(each)
            except NotHereError as error:
                say(f"{each.name} is not here: {error}")
                self._found.absent[each.name] = str(error)
            else:
                self._found.titles[each.name] = self._setup.title(each)

    @contextlib.contextmanager
    def _running(self, name: str, programs: Programs, place: Path) -> Iterator[Running]:
        """Run a server on its processor, and this process and the clients on the other one."""
        server_cores, client_cores = processors()
        everywhere = os.sched_getaffinity(0)
        running = Running(BY_NAME[name], programs, place / name, server_cores)
        try:
            os.sched_setaffinity(0, client_cores)
            running.wait()
            yield running
        finally:
            running.stop()
            os.sched_setaffinity(0, everywhere)

    def _measure_large(self, name: str, programs: Programs, place: Path) -> None:
        """Upload a sparse file, for the memory alone."""
        path = place / "large.bin"
        with path.open("wb") as file:
            file.truncate(self._options.large * MIB)
        self._round = 1
        with self._running(name, programs, place) as running:
            for client in FLAT:
                if client in self._clients:
                    self._measure(name, client, running, path, row="large")

    def _measure(self, server: str, client: str, running: Running, path: Path, row: str = "") -> None:
        row = row or server
        try:
            with emptying(running.directory):
                place, figures = upload(client, self._clients[client], running, path)
                stored = find(index(running.directory / "store"), Upload(urlsplit(place).path, path.name, 0))
                if not has_same_bytes(stored, path):
                    raise ServerError("the stored file does not hold what was sent")
        except (ServerError, OSError, ValueError) as error:
            say(f"round {self._round}, {row}, {client}: FAILED: {error}")
            self._found.failures.append({"row": row, "key": client, "server": server, "reason": str(error)})
            return
        self._found.results.append({"row": row, "server": client, "round": self._round} | figures)
        say(f"round {self._round}, {row}, {client}: {figures['value']:.0f} MB/s, {figures['memory']:.0f} MiB")


def upload(client: str, programs: Programs, running: Running, path: Path) -> tuple[str, dict[str, float]]:
    """Upload a file by a client, in its own process. Returns where it is, and the figures."""
    url = f"http://127.0.0.1:{running.port}/files/"
    size, created_in = path.stat().st_size, 0.0
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"HOME": home, "XDG_STATE_HOME": home, "NO_PROXY": "127.0.0.1"}
        command = [programs.python, "-m", "benchmarks.uploading", client, url, str(path)]
        if client == "curl":
            name = {"Upload-Metadata": "filename c291cmNlLmJpbg=="}
            began = time.monotonic()
            location = ask(running, "POST", "/files/", {"Upload-Length": str(size)} | name, 201)["Location"]
            created_in = time.monotonic() - began
            url = urljoin(url, location)
            fields = [word for field, value in PATCH.items() for word in ("-H", f"{field}: {value}")]
            command = [
                programs.binaries["curl"],
                "-q",
                "-fsS",
                "-o",
                os.devnull,
                "-X",
                "PATCH",
                *fields,
                "-H",
                "Expect:",
            ]
            command += ["-w", f"{url} %{{time_total}}", "-T", str(path), url]
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
            memory, cpu = watch(process)
            output.seek(0)
            lines = output.read().split("\n")
        if process.returncode:
            raise ServerError(" ".join(lines)[-300:] or f"it ended with {process.returncode}")
    place, seconds = lines[0].split()
    figures = {"value": size / 1e6 / (float(seconds) + created_in), "cpu": cpu / (size / GIB), "memory": memory / MIB}
    return place, figures


def watch(process: subprocess.Popen) -> tuple[int, float]:
    """Wait for a process. Returns its largest resident size, in bytes, and its processor time.

    The size in the resource usage is of no use: it begins with that of the process which has started this one.
    """
    memory = 0
    while True:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    memory = 1024 * int(line.split()[1])
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return memory, usage.ru_utime + usage.ru_stime
        time.sleep(SAMPLING)


def has_same_bytes(one: Path, other: Path) -> bool:
    with one.open("rb") as first, other.open("rb") as second:
        while block := first.read(MIB):
            if block != second.read(MIB):
                return False
        return not second.read(1)


# -- The page -----------------------------------------------------------------------------------------------------


def render(found: Found) -> str:
    """Return the page."""
    machine, medians = found.machine, Medians(found.results)
    load = f"The mean load was {machine['load']:g}."
    if machine["load"] > 2 * machine["cores"]:
        load = f"{load[:-1]}, because the machine did much else, so compare the CPU and not the speed."
    parts = [
        heading("Benchmarks of clients"),
        paragraph(
            f"""This page is written by ``python -m benchmarks.clients --rounds {machine["rounds"]}``, from one run on
            {machine["date"]}. The machine has {machine["cores"]} cores ({machine["processor"]}), {machine["gib"]} GiB
            of memory, Linux {machine["kernel"]} and Python {machine["python"]}. The server has one core, and the
            client has another. {load} All files are on {machine["memory"]} in memory."""
        ),
        paragraph(
            f"""Each client uploads a file of {machine["size"]} MiB with its defaults, in a process of its own, in
            turns with the others. Its imports are not counted. curl sends one PATCH; it is the limit. The time of the
            creation before it counts, too: a server may reserve the space then. Every stored file is compared with
            what was sent. A figure is the median of all rounds; the least and the greatest follow. A ratio is the
            median of the ratios of single rounds. CPU is that of the client's process, with its start. The memory is
            its largest resident size."""
        ),
        versions(found),
        *(f"- {name}: ``{reason}``\n" for name, reason in found.absent.items()),
    ]
    parts += [table(server, found, medians) for server in SERVERS if medians.servers(server)]
    parts.append(flat(found, medians))
    parts += [f"- {failure['key']}, {failure['row']}: ``{failure['reason'][:70]}``\n" for failure in found.failures]
    return "\n".join(part for part in parts if part)


def table(server: str, found: Found, medians: Medians) -> str:
    """Return the table of a server, the fastest client first."""
    lines = [["", "MB/s", "least, greatest", "x curl", "CPU s/GiB", "MiB"]]
    for client in sorted(medians.servers(server), key=lambda client: -(medians.median(server, client) or 0)):
        values = medians.all(server, client)
        ratio = medians.ratio((server, client, "value"), (server, "curl", "value"))
        cpu, memory = (medians.median(server, client, figure) for figure in ("cpu", "memory"))
        spread = f"{min(values):.0f}, {max(values):.0f}"
        figure = f"{medians.median(server, client):.0f}"
        lines.append([found.titles[client], figure, spread, number(ratio), amount(cpu), amount(memory)])
    return section(f"To {found.titles[server].strip('*')}") + grid(lines)


def flat(found: Found, medians: Medians) -> str:
    """Return the table of the memory with two sizes."""
    if not medians.servers("large"):
        return ""
    small = next(server for server in SERVERS if medians.servers(server))
    size, large = found.machine["size"], found.machine["large"]
    lines = [["MiB", f"file of {size} MiB", f"file of {large} MiB"]]
    for client in medians.servers("large"):
        sizes = (medians.median(row, client, "memory") for row in (small, "large"))
        lines.append([found.titles[client], *map(amount, sizes)])
    return section("Memory by the size of the file") + grid(lines)


if __name__ == "__main__":
    sys.exit(main())
