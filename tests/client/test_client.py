"""Client and AsyncClient against our own server on a socket, under WSGI and ASGI, in both protocols."""

from __future__ import annotations

import asyncio
import io
import os
import random
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.pool import in_pool
from tests.support.serving import serving
from tests.support.waiting import wait_until
from tus import Filter
from tus.client import (
    NO_RETRIES,
    AsyncClient,
    Cancelled,
    Client,
    Control,
    FileChanged,
    GaveUp,
    MemoryRecords,
    NotAuthorized,
    NotSupported,
    Retry,
    UploadGone,
    driving,
    upload,
)

DATA = random.Random(1).randbytes(3_000_001)


NOWHERE = "http://127.0.0.1:9/"  # the port of the service discard


class Sync:
    """Client, called as it is."""

    def __init__(self, endpoint: str, **arguments: Any) -> None:
        self.client = Client(endpoint, **{"records": None} | arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def many(self, sources: Any, **options: Any) -> list[Any]:
        return list(self.client.upload_many(sources, **options))


class Async:
    """AsyncClient, with an event loop for each call."""

    def __init__(self, endpoint: str, **arguments: Any) -> None:
        self.arguments = endpoint, {"records": MemoryRecords()} | arguments

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **options: Any) -> Any:
            async with AsyncClient(self.arguments[0], **self.arguments[1]) as client:
                return await getattr(client, name)(*args, **options)

        return lambda *args, **options: asyncio.run(call(*args, **options))

    def many(self, sources: Any, **options: Any) -> list[Any]:
        async def call() -> list[Any]:
            async with AsyncClient(self.arguments[0], **self.arguments[1]) as client:
                return [outcome async for outcome in client.upload_many(sources, **options)]

        return asyncio.run(call())

    def close(self) -> None:
        pass


@pytest.fixture(scope="module", params=["gunicorn-gthread", "uvicorn-httptools"])
def server(request, tmp_path_factory):
    options = {"download": True, "digest": ["sha256"], "max_total_size": "1G"}
    with serving(request.param, tmp_path_factory.mktemp("server"), **options) as running:
        yield running


@pytest.fixture(params=[Sync, Async])
def connect(request, server):
    opened = []

    def connect(**arguments):
        opened.append(request.param(server.url, **arguments))
        return opened[-1]

    yield connect
    for client in opened:
        client.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The URL of a server that lets clients have their files back."""
    with in_pool(
        the_filter(tmp_path_factory.mktemp("files"), download=True, keep_finished=True, digest="sha256")
    ) as port:
        yield f"http://127.0.0.1:{port}/files/"


def the_filter(directory, **options):
    def application(environ, start_response):
        start_response("204 No Content", [])
        return []

    return Filter(application, upload_path="/files/", tmp_file_dir=str(directory), **options)


@pytest.fixture(params=[Sync, Async])
def client(request, files):
    client = request.param(files)
    yield client
    client.close()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "größe.bin"
    path.write_bytes(DATA)
    return path


def stored(server, url):
    return (server.landed / url.rpartition("/")[2]).read_bytes()


def pour(descriptor):
    with os.fdopen(descriptor, "wb") as pipe:
        pipe.write(DATA)


def number_landed(server):
    return len([path for path in server.landed.iterdir() if not path.suffix])


@pytest.mark.parametrize("protocol", ["auto", "tus", "ietf"])
@pytest.mark.parametrize("chunk_size", [None, 1_000_000])
def test_a_file(connect, server, path, protocol, chunk_size):
    told = []
    result = connect(protocol=protocol, chunk_size=chunk_size).upload(path, on_progress=told.append)
    assert stored(server, result.url) == DATA
    assert result.response.is_success
    assert (result.size, result.attempts, result.protocol) == (len(DATA), 1, "tus" if protocol == "auto" else protocol)
    assert told[0].kind == "started"
    assert told[-1].kind == "finished"
    sent = [progress.sent for progress in told if progress.kind == "sent"]
    assert sent == sorted(sent)
    assert max(sent) == len(DATA)
    assert all(progress.total == len(DATA) for progress in told)


@pytest.mark.parametrize("protocol", ["tus", "ietf"])
@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_small_files(connect, server, protocol, size):
    result = connect(protocol=protocol).upload(DATA[:size], filename="a")
    assert stored(server, result.url) == DATA[:size]


@pytest.mark.parametrize("protocol", ["tus", "ietf"])
@pytest.mark.parametrize("kind", ["bytes", "file", "memory", "iterator", "pipe"])
def test_each_kind_of_source(connect, server, path, protocol, kind):
    with path.open("rb") as file:
        if kind == "bytes":
            source: Any = bytearray(DATA)
        elif kind == "file":
            source = file
        elif kind == "memory":
            source = io.BytesIO(DATA)
        elif kind == "iterator":
            source = (DATA[start : start + 70_000] for start in range(0, len(DATA), 70_000))
        else:
            reader, writer = os.pipe()
            source = os.fdopen(reader, "rb")
            thread = threading.Thread(target=pour, args=(writer,))
            thread.start()
        result = connect(protocol=protocol, chunk_size=999_999).upload(source)
        if kind == "pipe":
            thread.join()
            source.close()
    assert stored(server, result.url) == DATA


def test_an_async_iterator(server):
    async def blocks() -> AsyncIterator[bytes]:
        for start in range(0, len(DATA), 70_000):
            yield DATA[start : start + 70_000]

    async def run() -> Any:
        async with AsyncClient(server.url, records=None) as client:
            return await client.upload(blocks())

    assert stored(server, asyncio.run(run()).url) == DATA


def test_parts_at_once(connect, server, path):
    told = []
    result = connect().upload(path, parallel=2, on_progress=told.append)
    assert stored(server, result.url) == DATA
    assert told[-1].kind == "finished"
    assert max(progress.sent for progress in told) == len(DATA)


@pytest.mark.parametrize("protocol", ["tus", "ietf"])
def test_checksums_and_digests(connect, server, path, protocol):
    result = connect(protocol=protocol, checksum="auto", digest="sha-256").upload(path)
    assert stored(server, result.url) == DATA


def test_many_files(connect, server, tmp_path):
    paths = [tmp_path / f"{number}" for number in range(6)]
    for number, each in enumerate(paths):
        each.write_bytes(DATA[: number * 1000])
    outcomes = connect().many([*paths, tmp_path / "missing"], jobs=3)
    assert len(outcomes) == 7
    assert [outcome.source for outcome in outcomes if outcome.error] == [tmp_path / "missing"]
    for outcome in outcomes:
        if outcome.result is not None:
            assert stored(server, outcome.result.url) == outcome.source.read_bytes()


def test_an_upload_step_by_step(connect, server, path):
    client = connect()
    url = client.create(len(DATA), {"filename": "größe"})
    info = client.head(url)
    assert (info.offset, info.length, info.is_complete) == (0, len(DATA), False)
    assert info.metadata == {"filename": "größe".encode()}
    result = client.resume(url, path)
    assert stored(server, result.url) == DATA
    client.delete(url)
    client.delete(url)
    with pytest.raises(UploadGone):
        client.head(url)
    with pytest.raises(UploadGone):
        client.resume(url, path)


def test_what_the_server_offers(connect):
    offered = connect().options()
    assert offered.protocols == ("tus", "ietf")
    assert "concatenation" in offered.extensions
    assert "sha256" in offered.checksums


def test_a_file_comes_back(client, tmp_path, path):
    url = client.upload(path).url
    told = []
    result = client.download(url, tmp_path / "back", on_progress=told.append)
    assert (tmp_path / "back").read_bytes() == DATA
    assert (result.size, result.digest) == (len(DATA), "sha256")
    assert told[-1].kind == "finished"
    with pytest.raises(FileExistsError):
        client.download(url, tmp_path / "back")
    client.download(url, tmp_path / "back", overwrite=True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["back", "größe.bin"]


def test_a_download_goes_on(client, tmp_path, path, monkeypatch):
    monkeypatch.setattr(driving, "_INTERVAL", 0.0)
    url = client.upload(path).url
    control = Control()

    def stop(progress):
        if progress.sent > 1_000_000:
            control.cancel()

    with pytest.raises(Cancelled):
        client.download(url, tmp_path / "back", on_progress=stop, control=control)
    there = (tmp_path / "back.part").stat().st_size
    assert 1_000_000 < there < len(DATA)
    result = client.download(url, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == DATA
    assert result.resumed_from == there
    assert not (tmp_path / "back.part").exists()


def test_a_download_of_another_file_begins_anew(client, tmp_path, path):
    url = client.upload(path).url
    (tmp_path / "back.part").write_bytes(b"x" * 1000)
    (tmp_path / "back.part.etag").write_text('"another"')
    result = client.download(url, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == DATA
    assert result.resumed_from == 0


def test_the_state_of_an_upload_is_not_taken_for_its_file(tmp_path):
    with (
        in_pool(the_filter(tmp_path / "store")) as port,
        Client(f"http://127.0.0.1:{port}/files/", records=None) as client,
    ):
        url = client.create(5)
        with pytest.raises(NotSupported, match="no downloads"):
            client.download(url, tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("protocol", ["tus", "ietf"])
def test_a_cancelled_upload_goes_on(connect, server, path, protocol):
    records = MemoryRecords()
    before = number_landed(server)
    control = Control()

    def stop(progress):
        if progress.kind == "accepted" and progress.accepted > 1_000_000:
            control.cancel()

    client = connect(protocol=protocol, records=records, chunk_size=600_000)
    with pytest.raises(Cancelled) as caught:
        client.upload(path, on_progress=stop, control=control)
    assert caught.value.resumable
    result = client.upload(path)
    assert result.resumed_from == 1_200_000
    assert stored(server, result.url) == DATA
    assert number_landed(server) == before + 1
    assert records.all() == []


def test_a_paused_upload_goes_on(connect, server, path):
    control = Control()
    paused = threading.Event()

    def pause(progress):
        if progress.sent > 1_000_000 and not paused.is_set():
            paused.set()
            control.pause()
            threading.Timer(0.3, control.resume).start()

    result = connect(max_rate=30_000_000).upload(path, on_progress=pause, control=control)
    assert paused.is_set()
    assert result.attempts == 2
    assert stored(server, result.url) == DATA


@pytest.mark.parametrize("kind", [Sync, Async])
def test_cancelling_ends_a_wait_at_once(kind):
    control = Control()
    client = kind(NOWHERE, retry=Retry(base=600, cap=600))
    told = []

    def stop(progress):
        told.append(progress)
        if progress.kind == "waiting":
            threading.Timer(0.2, control.cancel).start()

    with pytest.raises(Cancelled):
        client.upload(b"a", on_progress=stop, control=control)
    assert told[-1].wait > 250
    assert "127.0.0.1" in told[-1].reason
    client.close()


def test_a_file_that_changes_is_not_completed(connect, server, path):
    before = number_landed(server)

    def touch(progress):
        if progress.kind == "accepted":
            os.utime(path, ns=(1, 1))

    with pytest.raises(FileChanged, match="has changed"):
        connect(chunk_size=2_000_000).upload(path, on_progress=touch)
    assert number_landed(server) == before


def test_a_changed_file_is_another_upload(connect, server, path):
    records = MemoryRecords()
    control = Control()

    def stop(progress):
        if progress.kind == "accepted":
            control.cancel()

    client = connect(records=records, chunk_size=2_000_000)
    with pytest.raises(Cancelled):
        client.upload(path, on_progress=stop, control=control)
    path.write_bytes(DATA[::-1])
    result = client.upload(path)
    assert result.resumed_from == 0
    assert stored(server, result.url) == DATA[::-1]


def test_fields_and_hooks(connect, server):
    seen = []

    def headers():
        seen.append("headers")
        return {"Authorization": "Bearer x", "Tus-Resumable": "no"}

    def on_request(request):
        seen.append(request.method)
        request.headers["X-Request-ID"] = "1"

    def on_response(request, response):
        seen.append(response.status)

    result = connect(headers=headers, on_request=on_request, on_response=on_response).upload(b"a")
    assert seen[::3] == ["headers", "headers"]
    assert seen[1:3] in (["OPTIONS", 200], ["OPTIONS", 204])
    assert seen[4:] == ["POST", 201]
    assert stored(server, result.url) == b"a"


def test_a_rate(connect):
    started = time.monotonic()
    connect(max_rate=2_000_000).upload(DATA[:1_000_000])
    assert time.monotonic() - started > 0.35


def test_the_short_way(server, path):
    assert stored(server, upload(path, server.url, records=None, metadata={"project": "x"}).url) == DATA


def test_a_server_that_is_not_there():
    with pytest.raises(GaveUp) as caught:
        upload(b"a", NOWHERE, records=None, retry=NO_RETRIES)
    assert caught.value.resumable
    assert "127.0.0.1" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"endpoint": "files.example"}, "must begin with http"),
        ({"protocol": "http"}, "protocol must be one of auto, tus, ietf"),
        ({"chunk_size": 0}, "chunk_size must be at least 1"),
        ({"checksum": "sha0"}, "checksum must be"),
        ({"digest": "md5"}, "digest must be one of"),
    ],
)
def test_bad_arguments_are_refused_when_the_client_is_made(arguments, said):
    with pytest.raises(ValueError, match=said):
        Client(**{"endpoint": "http://localhost/"} | arguments)


def test_credentials_in_the_url_are_sent_as_such_and_kept_out_of_records(tmp_path):
    client = Client("http://me:secret@localhost:1/files/", records=None)
    assert client.endpoint == "http://localhost:1/files/"
    client.close()


@pytest.mark.parametrize("kind", [Sync, Async])
def test_a_refused_user(kind):
    def application(environ, start_response):
        start_response("401 Unauthorized", [("WWW-Authenticate", "Bearer")])
        return [b"Say who you are."]

    with in_pool(application) as port:
        client = kind(f"http://127.0.0.1:{port}/")
        with pytest.raises(NotAuthorized, match="answered 401: Say who you are") as caught:
            client.upload(b"a")
        client.close()
    assert caught.value.status == 401


def test_ctrl_c_loses_nothing(server, path):
    records = MemoryRecords()

    def interrupt(progress):
        if progress.kind == "accepted":
            raise KeyboardInterrupt

    with Client(server.url, records=records, chunk_size=1_000_000) as client:
        with pytest.raises(KeyboardInterrupt):
            client.upload(path, on_progress=interrupt)
        assert len(records.all()) == 1
        assert client.upload(path).resumed_from == 1_000_000


def test_many_threads_share_one_client(server, tmp_path):
    results: list[Any] = []
    with Client(server.url, records=None) as client:
        threads = [
            threading.Thread(target=lambda size=size: results.append(client.upload(DATA[:size])))
            for size in range(1000, 2000, 100)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(result.size for result in results) == list(range(1000, 2000, 100))
    wait_until(lambda: all(stored(server, result.url) for result in results), "the files are not there")


def test_trio_works_too(server):
    import trio

    async def run() -> Any:
        async with AsyncClient(server.url, records=None) as client:
            return await client.upload(DATA, parallel=2)

    assert stored(server, trio.run(run).url) == DATA


def test_pausing_one_upload_leaves_the_others_alone(server, path):
    first, second = Control(), Control()
    with Client(server.url, records=None, max_rate=20_000_000) as client:
        results = {}

        def run(name, control):
            results[name] = client.upload(path, control=control)

        threads = [threading.Thread(target=run, args=pair) for pair in (("paused", first), ("other", second))]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        first.pause()
        threads[1].join()
        assert threads[0].is_alive()
        first.resume()
        threads[0].join()
    assert results["other"].attempts == 1
    assert stored(server, results["paused"].url) == stored(server, results["other"].url) == DATA
