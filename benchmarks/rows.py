"""The rows of the comparison: what is sent, what is measured, and the check of everything that was stored."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.running import Running, ServerError

MIB, GIB = 1 << 20, 1 << 30
SMALL = 4096
TUS = {"Tus-Resumable": "1.0.0"}
SIDE_CARS = {".info", ".json", ".meta", ".tus", ".lock", ".db"}


@dataclass(frozen=True)
class Scale:
    """How much is sent.

    Attributes:
        large: bytes of one large upload, and of the source of all bodies.
        seconds: that a row of small requests lasts.
        many: uploads in a full store, and files of one name.
        look: seconds after the start in which a full store is watched.
    """

    large: int = GIB
    seconds: float = 0.6
    many: int = 100_000
    look: float = 30


QUICK = Scale(large=32 * MIB, seconds=0.1, many=300, look=1)


@dataclass(frozen=True)
class Load:
    """What the client sends; see client.c."""

    operation: str
    size: int
    step: int = 0
    connections: int = 1
    seconds: float = 0
    count: int = 1
    pause: int = 0  # microseconds
    fields: str = ""


@dataclass(frozen=True)
class Upload:
    path: str
    name: str
    place: int


@dataclass(frozen=True)
class Sent:
    """What the client reports, times in seconds."""

    operations: int
    seconds: float
    cpu: float
    p50: float
    p99: float
    mean: float
    uploads: list[Upload] = field(default_factory=list)


class Source:
    """The file of random bytes that all bodies come from."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size
        with path.open("wb") as file:
            for _ in range(0, size, MIB):
                file.write(os.urandom(min(MIB, size)))

        self._digests: dict[tuple[tuple[int, int], ...], bytes] = {}

    def read(self, place: int, size: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(place)
            return file.read(size)

    def digest(self, *ranges: tuple[int, int]) -> bytes:
        """Return the SHA-256 of ranges, each a place and a size, one after the other."""
        if ranges not in self._digests:
            self._digests[ranges] = self._compute(ranges)
        return self._digests[ranges]

    def _compute(self, ranges: Iterable[tuple[int, int]]) -> bytes:
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            for place, size in ranges:
                file.seek(place)
                for at in range(0, size, MIB):
                    digest.update(file.read(min(MIB, size - at)))
        return digest.digest()


class Client:
    """Runs the client, on the processors of this process."""

    def __init__(self, program: Path, source: Source) -> None:
        self.program, self.source = program, source

    def start(self, port: int, load: Load, name: str) -> subprocess.Popen[str]:
        numbers = [load.connections, load.seconds, load.count, load.size, load.step or load.size, load.pause]
        return subprocess.Popen(
            [
                self.program,
                str(port),
                "/files",
                load.operation,
                *map(str, numbers),
                name,
                load.fields,
                self.source.path,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def send(self, port: int, load: Load, name: str) -> Sent:
        return self.finish(self.start(port, load, name))

    @staticmethod
    def finish(process: subprocess.Popen[str]) -> Sent:
        try:
            output, errors = process.communicate()
        finally:
            process.kill()
        if process.returncode:
            raise ServerError(" ".join(errors.split())[:300] or f"the client ended with {process.returncode}")
        first, *others = output.splitlines()
        operations, *times = first.split()
        uploads = [Upload(path, name, int(place)) for path, name, place in (line.rsplit(" ", 2) for line in others)]
        return Sent(int(operations), *map(float, times), uploads)


@dataclass
class Bench:
    """What every measurement needs.

    Attributes:
        thorough: whether digests are compared, too; sizes always are.
    """

    client: Client
    scale: Scale
    thorough: bool = True
    number: int = 0

    def names(self) -> str:
        """Return a pattern of file names that no other row has used."""
        self.number += 1
        return f"upload-{self.number}-*"


Figures = dict[str, float]
Measure = Callable[[Bench, Running], Figures]


@dataclass(frozen=True)
class Row:
    """A row.

    Attributes:
        name: in options and in the results.
        title: in the page.
        unit: of the figure.
        measure: performs it.
    """

    name: str
    title: str
    unit: str
    measure: Measure

    @property
    def cpu_unit(self) -> str:
        return "s/GiB" if self.unit == "MB/s" else "us"


@contextlib.contextmanager
def measured(running: Running, figures: Figures, amount: Callable[[], float]) -> Iterator[None]:
    """Add the server's processor time for each of an amount that is known afterwards."""
    before = running.cpu()
    yield
    figures["cpu"] = (running.cpu() - before) / amount()


def bulk(bench: Bench, running: Running, load: Load) -> Figures:
    figures: Figures = {}
    total = load.size * load.count * load.connections
    with running.watching_memory() as memory, measured(running, figures, lambda: total / GIB):
        sent = bench.client.send(running.port, load, bench.names())
    verify(running.directory, sent.uploads, load.size, bench)
    return figures | {"value": total / 1e6 / sent.seconds, "client": sent.cpu / sent.seconds, "memory": memory[0] / MIB}


def small(bench: Bench, running: Running, operation: str, connections: int = 1) -> Figures:
    figures: Figures = {}
    load = Load(operation, SMALL, connections=connections, seconds=bench.scale.seconds)
    with measured(running, figures, lambda: sent.operations / 1e6):
        sent = bench.client.send(running.port, load, bench.names())
    if operation in ("create", "head"):
        verify_offsets(running, sent.uploads, SMALL)
    else:
        verify(running.directory, sent.uploads, SMALL, bench)
    return figures | report(sent)


def report(sent: Sent) -> Figures:
    times = {"p50": sent.p50, "p99": sent.p99, "mean": sent.mean}
    return {"value": sent.operations / sent.seconds, "client": sent.cpu / sent.seconds, **times}


def checksum(bench: Bench, running: Running) -> Figures:
    """Measure a PATCH with a checksum, and the same without; beside them, what hashing alone costs."""
    size = bench.scale.large // 4
    plain = bulk(bench, running, Load("upload", size))
    data = bench.client.source.read(size % (bench.client.source.size - size + 1), size)  # as a client's first upload
    began, digest = time.thread_time(), hashlib.sha1()
    for at in range(0, size, MIB):
        digest.update(memoryview(data)[at : at + MIB])
    hashing = time.thread_time() - began
    field = f"Upload-Checksum: sha1 {b64encode(digest.digest()).decode()}\r\n"
    checked = bulk(bench, running, Load("upload", size, fields=field))
    sequential = {
        "sequential": size / 1e6 / (size / 1e6 / plain["value"] + hashing),
        "sequential cpu": plain["cpu"] + hashing * GIB / size,
    }
    return checked | sequential


def concatenation(bench: Bench, running: Running) -> Figures:
    size, figures = bench.scale.large // 4, {}
    load = Load("upload", size, count=4, fields="Upload-Concat: partial\r\n")
    parts = bench.client.send(running.port, load, bench.names()).uploads
    name = bench.names().replace("*", "whole.dat")
    fields = {"Upload-Concat": "final;" + " ".join(part.path for part in parts)}
    fields["Upload-Metadata"] = f"filename {b64encode(name.encode()).decode()},filetype aW1hZ2UvanBlZw=="
    with measured(running, figures, lambda: 4 * size / GIB):
        began = time.monotonic()
        location = ask(running, "POST", "/files", fields, 201)["Location"]
        seconds = time.monotonic() - began
    path = urlsplit(location).path
    verify_ranges(find(index(running.directory), Upload(path, name, 0)), [(part.place, size) for part in parts], bench)
    for part in parts:
        ask(running, "DELETE", part.path, {})
    return figures | {"value": 4 * size / 1e6 / seconds}


def ask(running: Running, method: str, path: str, fields: dict[str, str], status: int = 0) -> http.client.HTTPMessage:
    """Send a request that the client of the rows does not know."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=120)
    with contextlib.closing(connection):
        connection.request(method, path, headers=TUS | fields)
        reply = connection.getresponse()
        text = reply.read()
        if status and reply.status != status:
            raise ServerError(f"{method}: {reply.status} {text[:100]!r}")
        return reply.headers


def warm_up(bench: Bench, running: Running) -> None:
    """Let the server import and allocate what it needs, before anything is measured."""
    bench.client.send(running.port, Load("upload", SMALL, count=20), bench.names())
    bench.client.send(running.port, Load("upload", bench.scale.large // 64, connections=2), bench.names())


# -- What was stored ----------------------------------------------------------------------------------------------


def index(directory: Path) -> dict[str, Path]:
    """Return the files below a directory by their names, and by their names without a suffix."""
    found: dict[str, Path] = {}
    for folder, _, names in os.walk(directory):
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix not in SIDE_CARS:
                found[name] = found[stem] = Path(folder, name)
    return found


def find(files: dict[str, Path], upload: Upload) -> Path:
    """Return the file of an upload: it has the upload's name, or else its id."""
    identifier = upload.path.rstrip("/").rpartition("/")[2]
    for name in (upload.name, identifier, identifier.partition("+")[0]):
        if name in files:
            return files[name]
    raise ServerError(f"no file is stored for {upload.path} ({upload.name})")


def verify(directory: Path, uploads: list[Upload], size: int, bench: Bench) -> None:
    """Compare everything that was stored with what was sent.

    Raises:
        ServerError: a file is missing or has other bytes.
    """
    files = index(directory)
    for upload in uploads:
        verify_ranges(find(files, upload), [(upload.place, size)], bench)


def verify_ranges(path: Path, ranges: list[tuple[int, int]], bench: Bench) -> None:
    size = sum(length for _, length in ranges)
    if path.stat().st_size != size:
        raise ServerError(f"{path.name} has {path.stat().st_size} bytes instead of {size}")
    if bench.thorough:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").digest() != bench.client.source.digest(*ranges):
                raise ServerError(f"{path.name} does not hold what was sent")


def verify_offsets(running: Running, uploads: list[Upload], size: int) -> None:
    """Ask for some of the uploads that were only created."""
    for upload in uploads[:: len(uploads) // 10 + 1]:
        fields = ask(running, "HEAD", upload.path, {})
        if (fields["Upload-Offset"], fields["Upload-Length"]) != ("0", str(size)):
            raise ServerError(f"{upload.path} was not created as asked: {fields['Upload-Offset']}")


@contextlib.contextmanager
def emptying(directory: Path) -> Iterator[None]:
    """Remove large files in the end, because the memory file system could not hold those of all rows."""
    try:
        yield
    finally:
        empty(directory)


def empty(directory: Path) -> None:
    for folder, _, names in os.walk(directory):
        for name in names:
            path = Path(folder, name)
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_size > 16 * SMALL and path.suffix != ".db" and name != "log":
                    path.unlink()


# -- The rows -----------------------------------------------------------------------------------------------------


def _bulk(name: str, title: str, share: int, step: int = 0, connections: int = 1) -> Row:
    """Return a row that sends a share of the largest size in all, in steps."""

    def measure(bench: Bench, running: Running) -> Figures:
        size = bench.scale.large // share // connections
        return bulk(bench, running, Load("upload", size, step, connections))

    return Row(name, title, "MB/s", measure)


def _small(name: str, title: str, operation: str, connections: int = 1) -> Row:
    return Row(name, title, "/s", lambda bench, running: small(bench, running, operation, connections))


ROWS = (
    _bulk("1 GiB", "1 GiB in one PATCH", 1),
    _bulk("8 MiB", "256 MiB in PATCHes of 8 MiB", 4, 8 * MIB),
    _bulk("1 MiB", "128 MiB in PATCHes of 1 MiB", 8, MIB),
    _bulk("16 at once", "16 uploads of 64 MiB at once", 1, 0, 16),
    _small("small", "Creation and PATCH of 4 KiB, 1 connection", "upload"),
    _small("small 32", "Creation and PATCH of 4 KiB, 32 connections", "upload", 32),
    _small("whole", "Creation with 4 KiB, 1 connection", "whole"),
    _small("whole 32", "Creation with 4 KiB, 32 connections", "whole", 32),
    _small("head", "HEAD, 1 connection", "head"),
    _small("create", "Creation without a body, 1 connection", "create"),
    Row("concatenation", "Concatenation of 4 parts of 256 MiB", "MB/s", concatenation),
)
CHECKSUM = Row("checksum", "PATCH of 256 MiB with its SHA-1, server and client on both processors", "MB/s", checksum)
ON_DISK = (
    _bulk("disk", "On the disk: 1 GiB in one PATCH", 1),
    _small("disk small", "On the disk: creation and PATCH of 4 KiB, 1 connection", "upload"),
)


def same_name(bench: Bench, running: Running) -> Figures:
    """Create files of one name, and count what has arrived."""
    load = Load("whole", SMALL, seconds=bench.scale.seconds)
    before, figures = _images(running), {}
    with measured(running, figures, lambda: sent.operations / 1e6):
        sent = bench.client.send(running.port, load, "image.jpg")
    if _images(running) - before != sent.operations:
        raise ServerError(f"{_images(running) - before} files were stored instead of {sent.operations}")
    return figures | report(sent)


def _images(running: Running) -> int:
    with os.scandir(running.directory / "store") as entries:
        return sum(entry.name.startswith("image") and entry.stat().st_size == SMALL for entry in entries)


NAMES = Row("names", "Creation with 4 KiB, files of one name", "/s", same_name)


def after_start(bench: Bench, running: Running) -> Figures:
    """Ask for offsets and create uploads while the server's threads look at the store."""
    times = {"seconds": bench.scale.look, "size": SMALL}
    heads = bench.client.start(running.port, Load("head", pause=2000, **times), bench.names())
    creations = bench.client.start(running.port, Load("create", pause=10_000, **times), bench.names())
    try:
        found = {"head": Client.finish(heads), "create": Client.finish(creations)}
    finally:
        heads.kill()
        creations.kill()
    verify_offsets(running, found["create"].uploads, SMALL)
    figures = {f"{name} {key}": value for name, sent in found.items() for key, value in report(sent).items()}
    return figures | {"value": 1e6 * found["head"].mean}


MANY = Row("many", "A store with 100 000 uploads, the first 30 seconds", "us", after_start)
ALL = (*ROWS, CHECKSUM, *ON_DISK, NAMES, MANY)
BY_NAME = {row.name: row for row in ALL}
