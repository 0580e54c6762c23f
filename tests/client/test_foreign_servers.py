"""Both clients against servers of others: tusd, @tus/server, resumable-upload and tuspyserver.

They are installed and started as ``python -m benchmarks`` does it. tusd has to be on the ``PATH``.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from benchmarks.install import Setup
from benchmarks.rows import Upload, find, index
from benchmarks.servers import BY_NAME
from tests.client.uploading import PATIENT, Uploader
from tests.support.cutting_proxy import CuttingProxy
from tests.support.hostile_proxy import HostileProxy, random_deeds
from tests.support.serving import ROOT, free_port, wait_for_port
from tests.support.sockets import content
from tests.support.waiting import wait_until
from tus.client import (
    NO_RETRIES,
    FinishUncertain,
    GaveUp,
    MemoryRecords,
    NotAuthorized,
    NotSupported,
    Refused,
    Request,
    Retry,
    UploadGone,
)
from tus.client.dialects.ietf import VERSION_FIELD

pytestmark = pytest.mark.peers

SIZE = 3_000_001
DATA = content(SIZE)
SEEDS = int(os.environ.get("TUS_TEST_SEEDS", "1"))
RETRY = Retry(base=0.05, cap=0.5)
CACHE = Path.home() / ".cache" / "tus-benchmarks"


@dataclass(frozen=True)
class Peer:
    """A server of others.

    Attributes:
        server: its name in ``benchmarks.servers``.
        offers: what it is able to do, of what not all of them are.
        protocol: that the clients are to speak.
        options: of the server, behind those that it always has.
    """

    server: str
    offers: frozenset[str]
    protocol: str = "auto"
    options: tuple[str, ...] = ()


PEERS = {
    "tusd": Peer("tusd", frozenset({"concatenation", "downloads", "late lengths"})),
    "tusd-ietf": Peer("tusd", frozenset({"downloads", "late lengths"}), "ietf", ("-enable-experimental-protocol",)),
    "node": Peer("node", frozenset({"downloads", "late lengths"})),
    "resumable": Peer("resumable", frozenset({"concatenation", "checksums"})),
    "tuspyserver": Peer("tuspyserver", frozenset({"concatenation", "late lengths"})),
}
MARKS = {"tusd": [pytest.mark.tusd], "tusd-ietf": [pytest.mark.tusd], "node": [pytest.mark.node]}


@dataclass
class Running:
    """A peer that runs.

    Attributes:
        port: on 127.0.0.1.
        directory: where it keeps everything.
    """

    peer: Peer
    port: int
    directory: Path
    url: str = field(init=False)

    def __post_init__(self) -> None:
        self.url = f"http://127.0.0.1:{self.port}/files/"

    def digest(self, url: str, name: str) -> str:
        """Return the SHA-256 of what is on its disk for an upload."""
        path = find(index(self.directory), Upload(urlsplit(url).path, name, 0))
        return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module", params=[pytest.param(name, marks=MARKS.get(name, [])) for name in PEERS])
def running(request, tmp_path_factory) -> Iterator[Running]:
    peer = PEERS[request.param]
    server, directory = BY_NAME[peer.server], tmp_path_factory.mktemp(request.param)
    programs, port = Setup(CACHE).prepare(server), free_port()
    for name in ("store", "landed"):
        (directory / name).mkdir()
    log = directory / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*server.command(programs, port, directory), *peer.options],
            cwd=directory,
            env=os.environ | {"PYTHONPATH": str(ROOT), "TUS_BENCHMARK_DIRECTORY": str(directory)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for_port(port, process, log)
        yield Running(peer, port, directory)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(params=["threads", "asyncio"])
def uploader(request):
    return Uploader(request.param)


@dataclass
class Ours:
    """A client of ours, that talks to a peer. Each call has a new one, with the same records.

    Attributes:
        name: of the file, other than all others.
        requests: that were sent.
    """

    running: Running
    uploader: Uploader
    name: str = field(default_factory=lambda: f"größe {uuid.uuid4().hex}.bin")
    records: MemoryRecords = field(default_factory=MemoryRecords)
    requests: list[Request] = field(default_factory=list)

    @property
    def is_ietf(self) -> bool:
        return self.running.peer.protocol == "ietf"

    def offers(self, what: str) -> bool:
        return what in self.running.peer.offers

    def call(self, method: str, *arguments: Any, endpoint: str = "", how: Any = None, **settings: Any) -> Any:
        own = {"records": self.records, "retry": RETRY, "protocol": self.running.peer.protocol}
        settings = own | {"on_request": self.requests.append} | settings
        return self.uploader.call(endpoint or self.running.url, settings, method, *arguments, **(how or {}))

    def upload(self, source: Any, *, how: Any = None, **settings: Any) -> Any:
        return self.call("upload", source, how={"filename": self.name} | (how or {}), **settings)

    def assert_stored(self, result: Any, data: bytes = DATA) -> None:
        """The peer says success, and has the bytes."""
        assert result.response.is_success
        assert (result.size, result.offset) == (len(data), len(data))
        assert self.running.digest(result.url, self.name) == hashlib.sha256(data).hexdigest()


@pytest.fixture
def ours(running, uploader):
    return Ours(running, uploader)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "größe.bin"
    path.write_bytes(DATA)
    return path


def blocks():
    for start in range(0, SIZE, 70_000):
        yield DATA[start : start + 70_000]


async def async_blocks():
    for block in blocks():
        yield block


@pytest.fixture
def stream(uploader):
    return blocks() if uploader.kind == "threads" else async_blocks()


def test_a_file(ours, path):
    result = ours.upload(path)
    ours.assert_stored(result)
    assert result.attempts == 1
    assert result.protocol == ("ietf" if ours.is_ietf else "tus")
    if ours.is_ietf:  # the newest version that tusd has
        assert [request.headers[VERSION_FIELD] for request in ours.requests if request.method == "POST"][-1] == "6"


@pytest.mark.parametrize("chunk_size", [1_000_000, SIZE])
def test_chunks(ours, path, chunk_size):
    ours.assert_stored(ours.upload(path, chunk_size=chunk_size))


@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_small_files(ours, size):
    ours.assert_stored(ours.upload(DATA[:size]), DATA[:size])


def test_a_stream_in_one_request(ours, stream):
    ours.assert_stored(ours.upload(stream))


def test_a_stream_in_several_requests(ours, stream):
    if ours.offers("late lengths"):
        ours.assert_stored(ours.upload(stream, chunk_size=1_000_000))
        return
    with pytest.raises(Refused, match="400: Upload-Length header required for deferred-length PATCH"):
        ours.upload(stream, chunk_size=1_000_000)  # resumable-upload wants the length with the first bytes


def test_parts_at_once(ours, path):
    ours.assert_stored(ours.upload(path, how={"parallel": 2}))
    joined = [request for request in ours.requests if "final;" in request.headers.get("Upload-Concat", "")]
    assert len(joined) == ours.offers("concatenation")


def is_version_6(seen):
    return seen.headers[VERSION_FIELD.lower()] == "6"


CUTS = {
    "in the creation": ("POST", None),
    "in the file": ("PATCH", None),
    "before a reply": ("PATCH", 1_000_000),
    "before the last reply": ("PATCH", 2_000_000),
}


@pytest.mark.parametrize("when", CUTS)
def test_another_client_goes_on(ours, path, when):
    """The first client's connection breaks, and it does not try again; the second one has its records."""
    method, chunk_size = CUTS[when]
    if (method == "POST") > ours.is_ietf:
        pytest.skip("the creation has no bytes of a large file")
    if ours.is_ietf and when == "in the file":
        chunk_size = 2_000_000  # tusd does not announce the protocol, so that the creation has the first bytes
    with CuttingProxy(ours.running.port) as proxy:
        endpoint = f"{proxy.origin}/files/"
        if when == "in the creation":
            proxy.cut(method, 900_000, when=is_version_6, once=lambda seen: wait_until(lambda: seen.interim))
        elif when == "in the file":
            proxy.cut(method, 900_000)
        else:
            last = str(SIZE // chunk_size * chunk_size if "last" in when else chunk_size)
            proxy.lose_reply(method, when=lambda seen: seen.headers["upload-offset"] == last)
        with pytest.raises(GaveUp) as caught:
            ours.upload(path, endpoint=endpoint, retry=NO_RETRIES, chunk_size=chunk_size)
        assert caught.value.resumable
        result = ours.upload(path, endpoint=endpoint)
    ours.assert_stored(result)
    assert result.resumed_from > 0
    assert ours.records.all() == []


class Killed(BaseException):
    pass


def test_a_client_that_is_killed_during_the_creation_goes_on(ours, path):
    """The URL of the upload is only in an interim response, and is remembered at once."""
    if not ours.is_ietf:
        pytest.skip("the creation has no bytes of a large file")

    def kill(progress):
        if any(record.url for record in ours.records.all()):
            raise Killed

    with pytest.raises(Killed):
        ours.upload(path, max_rate=6_000_000, how={"on_progress": kill})
    result = ours.upload(path)
    ours.assert_stored(result)
    assert result.resumed_from > 0


@pytest.mark.parametrize("seed", range(SEEDS))
def test_many_deeds(ours, path, seed):
    """A proxy spoils the requests. The client has its file at the peer, or says that it has not."""
    with HostileProxy(ours.running.port, random_deeds(seed), largest=1_000_000) as proxy:
        endpoint = proxy.url("/files/")
        try:
            result = ours.upload(path, endpoint=endpoint, retry=PATIENT, how={"parallel": 1 + seed % 2})
        except (FinishUncertain, GaveUp, NotAuthorized, UploadGone):  # resumable-upload answers 403 at the end
            return
    ours.assert_stored(result)


def test_checksums(ours, path):
    ours.assert_stored(ours.upload(path, checksum="auto", chunk_size=1_000_000))


def test_an_upload_step_by_step(ours, path):
    metadata = {"filename": ours.name, "filetype": "application/octet-stream"}
    url = ours.call("create", SIZE, metadata)
    info = ours.call("head", url)
    assert (info.offset, info.is_complete) == (0, False)
    if not ours.is_ietf:
        assert (info.length, info.metadata["filename"]) == (SIZE, ours.name.encode())
    ours.assert_stored(ours.call("resume", url, path))
    ours.call("delete", url)
    with pytest.raises(UploadGone):
        ours.call("head", url)


def test_a_download(ours, path, tmp_path):
    url = ours.upload(path).url
    if ours.offers("downloads"):
        ours.call("download", url, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == DATA
        return
    with pytest.raises((Refused, NotSupported)):
        ours.call("download", url, tmp_path / "back")
    assert not list(tmp_path.glob("back*"))


def test_what_the_peer_offers(ours):
    offered = ours.call("options")
    assert offered.protocols == ("tus",)  # tusd does not announce the protocol of the IETF
    assert {"creation", "creation-defer-length", "termination"} <= offered.extensions
    if not ours.is_ietf:
        assert ("concatenation" in offered.extensions) == ours.offers("concatenation")
    assert bool(offered.checksums) == ours.offers("checksums")
