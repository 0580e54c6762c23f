"""tus-js-client speaks two drafts of the IETF protocol, interop versions 5 and 6; unchanged, to a real server."""

from __future__ import annotations

import pytest

from tests.support.clients import sample
from tests.support.serving import serving
from tests.support.tusjs import CHUNK, CUT, DELAYS, METADATA, SIZE, has_succeeded
from tests.support.waiting import wait_until
from tus.stores.directory.store import DirectoryStore

pytestmark = [
    pytest.mark.node,
    # The newer one says "draft" in the same words, and sends chunked bodies besides.
    pytest.mark.parametrize("node", ["4", "5"], indirect=True),
]
VERSIONS = {"ietf-draft-03": "5", "ietf-draft-05": "6"}


@pytest.fixture(params=["gunicorn-gthread", "uvicorn-httptools"], scope="module")
def server(request, tmp_path_factory):
    with serving(request.param, tmp_path_factory.mktemp("tusjs-ietf")) as running:
        yield running


@pytest.fixture
def file(tmp_path):
    return sample(tmp_path / "file.bin", SIZE)


@pytest.fixture(params=VERSIONS)
def ietf(request, node, proxy):
    """Runs the client with the protocol, and sees that it was the one that was spoken."""

    def run(*arguments, options, **plan):
        result = node(*arguments, options={"protocol": request.param, **options}, **plan)
        spoken = {seen.headers.get("upload-draft-interop-version") for seen in proxy.requests}
        assert spoken <= {VERSIONS[request.param]}, spoken
        return result

    return run


@pytest.mark.parametrize("source", ["file", "buffer"])
def test_a_whole_file(ietf, endpoint, landing, file, source):
    result = ietf(file, source=source, options={"endpoint": endpoint, "metadata": METADATA})
    assert has_succeeded(result)
    assert result["requests"] == [["POST", 201], ["PATCH", 200]]  # the application's own answer
    landing.assert_one(file, METADATA)


def test_chunks(ietf, endpoint, landing, file):
    result = ietf(file, options={"endpoint": endpoint, "chunkSize": CHUNK})
    assert has_succeeded(result)
    assert [status for _, status in result["requests"]] == [201, 201, 201, 201, 200]
    landing.assert_one(file)


def test_data_during_creation(ietf, endpoint, landing, file):
    result = ietf(file, options={"endpoint": endpoint, "uploadDataDuringCreation": True, "metadata": METADATA})
    assert has_succeeded(result)
    assert result["requests"] == [["POST", 200]]
    landing.assert_one(file, METADATA)


def test_an_empty_file(ietf, endpoint, landing, tmp_path):
    file = sample(tmp_path / "empty", 0)
    assert has_succeeded(ietf(file, source="buffer", options={"endpoint": endpoint}))
    landing.assert_one(file)


@pytest.mark.parametrize("size", [1, CHUNK + 1, SIZE])
def test_deferred_length_of_a_stream(ietf, endpoint, landing, tmp_path, size):
    file = sample(tmp_path / "file.bin", size)
    options = {"endpoint": endpoint, "uploadLengthDeferred": True, "chunkSize": CHUNK}
    assert has_succeeded(ietf(file, source="stream", options=options))
    landing.assert_one(file)


def test_cut_and_resumed(ietf, proxy, endpoint, landing, file, server):
    def some_is_stored(seen):
        """Else the HEAD that follows would end the request before the server has read a byte of it."""
        store, upload_id = DirectoryStore(str(server.store)), seen.target.rpartition("/")[2]
        wait_until(lambda: store.load(upload_id).offset > int(seen.headers["upload-offset"]))

    proxy.cut("PATCH", after=CUT, once=some_is_stored)
    proxy.cut("PATCH", after=CUT // 3, once=some_is_stored)
    result = ietf(file, options={"endpoint": endpoint, "retryDelays": DELAYS, "metadata": METADATA})
    assert has_succeeded(result)
    assert result["requests"].count(["HEAD", 204]) == 2
    assert len([seen for seen in proxy.of("PATCH") if seen.headers["upload-offset"] != "0"]) == 2
    landing.assert_one(file, METADATA)


def test_the_last_reply_is_lost(ietf, proxy, endpoint, landing, file):
    """What HEAD tells then is enough for the client; nothing is handed over twice."""
    proxy.lose_reply("PATCH", when=lambda seen: seen.headers["upload-offset"] == str(3 * CHUNK))
    result = ietf(file, options={"endpoint": endpoint, "retryDelays": DELAYS, "chunkSize": CHUNK})
    assert has_succeeded(result)
    landing.assert_one(file)


def test_terminated(ietf, proxy, endpoint, landing, file):
    result = ietf(file, options={"endpoint": endpoint, "chunkSize": CHUNK}, abort={"after": CHUNK, "then": "terminate"})
    assert result["outcome"] == "aborted", result
    assert result["requests"][-1] == ["DELETE", 204]
    landing.assert_none()


def test_resumed_from_its_url_by_another_run(ietf, endpoint, landing, file):
    first = ietf(file, options={"endpoint": endpoint, "chunkSize": CHUNK}, abort={"after": CHUNK, "then": "stop"})
    assert first["outcome"] == "aborted", first
    result = ietf(file, options={"uploadUrl": first["url"], "chunkSize": CHUNK})
    assert has_succeeded(result)
    assert result["requests"][0] == ["HEAD", 204]
    landing.assert_one(file)
