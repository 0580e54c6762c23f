"""tuspy, unchanged, uploads to a real server; also over connections that break. So do its names over our client."""

from __future__ import annotations

import asyncio
import gc
import importlib
import re
from types import SimpleNamespace

import pytest

from tests.support.clients import UNUSUAL_NAME, offset_of, sample, settled_offset, wait_for_offset
from tests.support.serving import UPLOAD_PATH, serving

# tuspy never closes the files that it opens, and gives aiohttp more bytes at once than that likes.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning"),
]

SIZE = 3 * 1024 * 1024 + 17
CHUNK = 1024 * 1024
CUT = 1_234_567
# After a cut, the server may come to know of it later than the client that goes on: then it says 409, and means "ask".
PATIENT = {"retries": 20, "retry_delay": 0.05}


@pytest.fixture(scope="module", params=["gunicorn-gthread", "uvicorn-httptools"])
def server(request, tmp_path_factory):
    with serving(request.param, tmp_path_factory.mktemp("tuspy")) as running:
        yield running


@pytest.fixture(scope="module", params=["tusclient", "tus.client.tusclient"], ids=["tuspy", "ours"])
def library(request):
    """tuspy, or its names over our client."""

    def module(name):
        return importlib.import_module(f"{request.param}.{name}")

    return SimpleNamespace(
        is_tuspy=request.param == "tusclient",
        TusClient=module("client").TusClient,
        TusUploadFailed=module("exceptions").TusUploadFailed,
        FileStorage=module("storage.filestorage").FileStorage,
        Uploader=module("uploader").Uploader,
    )


@pytest.fixture(autouse=True)
def _direct(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    gc.collect()  # what tuspy has left open goes while this test's filter of warnings holds


@pytest.fixture
def client(library, server):
    return library.TusClient(server.url)


@pytest.fixture
def proxied(library, proxy):
    return library.TusClient(proxy.origin + UPLOAD_PATH)


@pytest.fixture
def file(tmp_path):
    return sample(tmp_path / "file.bin", SIZE)


def test_a_whole_file(client, landing, file):
    uploader = client.uploader(str(file))
    uploader.upload()
    upload_id = landing.assert_one(file)
    assert uploader.url.endswith(f"/{upload_id}")
    assert uploader.request.response_headers["x-app"] == "has it"


def test_a_stream(client, landing, file):
    with file.open("rb") as stream:
        client.uploader(file_stream=stream, chunk_size=CHUNK).upload()
    landing.assert_one(file)


@pytest.mark.parametrize("chunk_size", [CHUNK, 100_000, SIZE - 1, SIZE, SIZE + 1])
def test_chunks(proxied, proxy, landing, file, chunk_size):
    proxied.uploader(str(file), chunk_size=chunk_size).upload()
    landing.assert_one(file)
    assert len(proxy.of("PATCH")) == -(-SIZE // chunk_size)


def test_one_chunk_at_a_time(client, landing, file):
    uploader = client.uploader(str(file), chunk_size=CHUNK)
    offsets = []
    while uploader.offset < SIZE:
        uploader.upload_chunk()
        offsets.append(uploader.offset)
        assert offset_of(uploader.url) == uploader.offset
        assert bool(landing.ids) == (uploader.offset == SIZE)
    assert offsets == [CHUNK, 2 * CHUNK, 3 * CHUNK, SIZE]
    landing.assert_one(file)


@pytest.mark.parametrize("chunk_size", [40_000, CHUNK, SIZE])
def test_a_checksum_on_every_chunk(proxied, proxy, landing, file, chunk_size):
    proxied.uploader(str(file), chunk_size=chunk_size, upload_checksum=True).upload()
    landing.assert_one(file)
    assert len(proxy.of("PATCH")) == -(-SIZE // chunk_size)
    assert all(seen.headers["upload-checksum"].startswith("sha1 ") for seen in proxy.of("PATCH"))


@pytest.mark.parametrize("chunk_size", [40_000, CHUNK, SIZE])
def test_a_byte_changed_on_the_way_is_refused(library, proxied, proxy, landing, file, chunk_size):
    proxy.flip(
        "PATCH", at=chunk_size // 2, when=lambda seen: seen.headers["upload-offset"] != "0" or chunk_size == SIZE
    )
    uploader = proxied.uploader(str(file), chunk_size=chunk_size, upload_checksum=True)
    with pytest.raises(library.TusUploadFailed) as refused:
        uploader.upload()
    assert refused.value.status_code == 460
    assert offset_of(uploader.url) == uploader.offset == (0 if chunk_size == SIZE else chunk_size)
    landing.assert_none()
    uploader.upload()
    landing.assert_one(file)


def test_a_byte_changed_on_the_way_is_sent_again_by_itself(proxied, proxy, landing, file):
    proxy.flip("PATCH", at=SIZE // 2)
    proxied.uploader(str(file), upload_checksum=True, retries=1, retry_delay=0).upload()
    landing.assert_one(file)
    assert [seen.status for seen in proxy.of("PATCH")] == [460, 204]


@pytest.mark.parametrize(
    "metadata",
    [
        {"filename": "plain.bin", "filetype": "application/octet-stream"},
        {"filename": UNUSUAL_NAME, "note": "a, b; c = d\r\n\tand more", "empty": ""},
        {"Größe": "XL"},
    ],
    ids=["ascii", "unusual", "key"],
)
def test_metadata(client, landing, file, metadata):
    client.uploader(str(file), metadata=metadata).upload()
    landing.assert_one(file, metadata)


def test_metadata_in_another_encoding_may_be_no_text(client, landing, file):
    client.uploader(str(file), metadata={"filename": "Grün"}, metadata_encoding="latin-1").upload()
    landing.assert_one(file, {"filename": "Gr\N{REPLACEMENT CHARACTER}n"})


def test_no_metadata(library, proxied, proxy, landing, file):
    proxied.uploader(str(file)).upload()
    assert proxy.of("POST")[0].headers.get("upload-metadata") == ("" if library.is_tuspy else None)
    landing.assert_one(file, {})


@pytest.mark.parametrize("upload_checksum", [False, True])
def test_an_empty_file(proxied, proxy, landing, tmp_path, upload_checksum):
    file = sample(tmp_path / "empty", 0)
    proxied.uploader(str(file), metadata={"filename": "empty"}, upload_checksum=upload_checksum).upload()
    landing.assert_one(file, {"filename": "empty"})
    assert [seen.method for seen in proxy.requests] == ["POST"]


@pytest.mark.parametrize("upload_checksum", [False, True])
def test_another_uploader_goes_on_from_the_url(library, client, landing, file, upload_checksum):
    options = {"chunk_size": CHUNK, "upload_checksum": upload_checksum}
    first = client.uploader(str(file), metadata={"filename": "file.bin"}, **options)
    first.upload(stop_at=2 * CHUNK)
    landing.assert_none()

    second = library.Uploader(str(file), url=first.url, **options)
    assert second.offset == 2 * CHUNK
    second.upload()
    landing.assert_one(file, {"filename": "file.bin"})


def test_a_stop_in_the_middle_of_a_chunk(library, client, landing, file):
    first = client.uploader(str(file), chunk_size=CHUNK)
    first.upload(stop_at=CUT)
    assert offset_of(first.url) == CUT
    library.Uploader(str(file), url=first.url).upload()
    landing.assert_one(file)


def test_another_uploader_goes_on_from_the_url_storage(library, client, proxied, proxy, landing, file, tmp_path):
    storage = library.FileStorage(str(tmp_path / "urls.json"))
    client.uploader(str(file), chunk_size=CHUNK, store_url=True, url_storage=storage).upload(stop_at=CHUNK)
    storage.close()

    storage = library.FileStorage(str(tmp_path / "urls.json"))
    second = proxied.uploader(str(file), chunk_size=CHUNK, store_url=True, url_storage=storage)
    assert second.offset == CHUNK
    second.upload()
    storage.close()
    assert not proxy.of("POST")
    landing.assert_one(file)


@pytest.mark.parametrize("reset", [False, True], ids=["ended", "reset"])
@pytest.mark.parametrize("chunk_size", [CHUNK, SIZE], ids=["chunks", "whole"])
def test_a_cut_in_the_middle_of_a_patch(library, proxied, proxy, server, landing, file, reset, chunk_size):
    in_chunk = CUT - CHUNK if chunk_size == CHUNK else CUT
    start = CUT - in_chunk
    proxy.cut("PATCH", after=in_chunk, reset=reset, when=lambda seen: seen.headers["upload-offset"] == str(start))
    first = proxied.uploader(str(file), chunk_size=chunk_size, metadata={"filename": UNUSUAL_NAME})
    with pytest.raises(library.TusUploadFailed):
        first.upload()
    assert re.fullmatch(rf"{proxy.origin}{UPLOAD_PATH}/[0-9a-f]{{32}}", first.url)
    # Every byte that had come is kept; how many come through before a reset is up to the kernel.
    direct = first.url.replace(proxy.origin, f"http://127.0.0.1:{server.port}")
    kept = settled_offset(direct) if reset else wait_for_offset(direct, CUT)
    assert start <= kept <= CUT
    landing.assert_none()

    second = library.Uploader(str(file), url=direct, chunk_size=chunk_size, **PATIENT)
    second.upload()
    landing.assert_one(file, {"filename": UNUSUAL_NAME})


@pytest.mark.parametrize("reset", [False, True], ids=["ended", "reset"])
def test_several_cuts_and_the_uploader_s_own_retries(proxied, proxy, landing, file, reset):
    for after in (CUT, 1, 900_000):
        proxy.cut("PATCH", after=after, reset=reset)
    uploader = proxied.uploader(str(file), **PATIENT)
    uploader.upload()
    landing.assert_one(file)
    assert len(proxy.of("PATCH")) >= 4
    assert len(proxy.of("HEAD")) >= 3


def test_bytes_under_a_checksum_are_not_kept_after_a_cut(library, proxied, proxy, landing, file):
    proxy.cut("PATCH", after=700_000, when=lambda seen: seen.headers["upload-offset"] == str(CHUNK))
    uploader = proxied.uploader(str(file), chunk_size=CHUNK, upload_checksum=True)
    with pytest.raises(library.TusUploadFailed):
        uploader.upload()
    assert settled_offset(uploader.url) == CHUNK
    landing.assert_none()
    library.Uploader(str(file), url=uploader.url, chunk_size=CHUNK, upload_checksum=True, **PATIENT).upload()
    landing.assert_one(file)


def test_the_last_reply_is_lost(proxied, proxy, landing, file):
    proxy.lose_reply("PATCH")
    uploader = proxied.uploader(str(file), retries=1, retry_delay=0)
    uploader.upload()
    assert uploader.offset == SIZE
    landing.assert_one(file)
    # What tuspy makes of it: it asks, and sends the nothing that is left.
    assert [seen.method for seen in proxy.requests] == ["POST", "PATCH", "HEAD", "PATCH"]


def test_a_silent_connection_holds_nobody_up(library, proxied, proxy, client, server, landing, file):
    """A second uploader takes over while the first one's connection is still open, and says nothing."""
    proxy.stall("PATCH", after=CUT, held=True)
    first = proxied.uploader(str(file))
    first.set_url(first.create_url())
    direct = first.url.replace(proxy.origin, f"http://127.0.0.1:{server.port}")

    async def both():
        stuck = asyncio.create_task(asyncio.to_thread(first.upload))
        await asyncio.to_thread(wait_for_offset, direct, CUT)
        await asyncio.to_thread(library.Uploader(str(file), url=direct).upload)
        landing.assert_one(file)
        proxy.hang_up()
        with pytest.raises(library.TusUploadFailed):
            await stuck

    asyncio.run(both())
    landing.assert_one(file)


@pytest.mark.parametrize("upload_checksum", [False, True])
def test_the_asynchronous_uploader(proxied, proxy, landing, file, upload_checksum):
    async def upload():
        uploader = proxied.async_uploader(
            str(file), chunk_size=CHUNK, metadata={"filename": UNUSUAL_NAME}, upload_checksum=upload_checksum
        )
        await uploader.upload()

    asyncio.run(upload())
    landing.assert_one(file, {"filename": UNUSUAL_NAME})
    assert len(proxy.of("PATCH")) == 4


def test_the_asynchronous_uploader_after_a_cut(proxied, proxy, landing, file):
    proxy.cut("PATCH", after=CUT)

    async def upload():
        await proxied.async_uploader(str(file), **PATIENT).upload()

    asyncio.run(upload())
    landing.assert_one(file)
