"""tus-js-client in Node, its two current lines unchanged, uploads to real servers, also where connections break."""

from __future__ import annotations

import re
import uuid

import pytest

from tests.support.clients import head, offset_of, sample
from tests.support.serving import serving
from tests.support.tusjs import CHUNK, CUT, DELAYS, METADATA, SIZE, Node, has_succeeded

pytestmark = pytest.mark.node


#: Versions of the client, and the servers to which each of them does the same.
PAIRS = [("4", "gunicorn-gthread"), ("5", "gunicorn-gthread"), ("5", "uvicorn-httptools")]


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def pair(request):
    return request.param


@pytest.fixture(scope="module")
def node(pair, packages):
    return Node(pair[0], packages)


@pytest.fixture(scope="module")
def server(pair, tmp_path_factory):
    with serving(pair[1], tmp_path_factory.mktemp("tusjs")) as running:
        yield running


@pytest.fixture
def file(tmp_path):
    return sample(tmp_path / "file.bin", SIZE)


# -- One upload ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["file", "buffer"])
def test_a_whole_file(node, server, landing, file, source):
    result = node(file, source=source, options={"endpoint": server.url})
    assert has_succeeded(result)
    assert result["requests"] == [["POST", 201], ["PATCH", 204]]
    assert result["url"] == f"{server.url}/{landing.assert_one(file)}"
    if node.is_5:  # the older one does not show the last reply
        assert result["app"] == "has it"


@pytest.mark.parametrize("chunk_size", [100_000, CHUNK, SIZE - 1, SIZE])
def test_chunks(node, server, landing, file, chunk_size):
    result = node(file, options={"endpoint": server.url, "chunkSize": chunk_size})
    assert has_succeeded(result)
    assert len(result["requests"]) == 1 + -(-SIZE // chunk_size)
    landing.assert_one(file)


@pytest.mark.parametrize("source", ["file", "buffer"])
@pytest.mark.parametrize("chunk_size", [CHUNK, SIZE])
def test_bodies_are_chunked_from_5_on(node, proxy, endpoint, landing, file, source, chunk_size):
    assert has_succeeded(node(file, source=source, options={"endpoint": endpoint, "chunkSize": chunk_size}))
    landing.assert_one(file)
    patches = proxy.of("PATCH")
    assert len(patches) == -(-SIZE // chunk_size)
    for seen in patches:
        if node.is_5:
            assert seen.headers["transfer-encoding"] == "chunked"
            assert "content-length" not in seen.headers
        else:
            assert seen.headers["content-length"] == str(seen.body)
            assert "transfer-encoding" not in seen.headers
    assert sum(seen.body for seen in patches) == SIZE


@pytest.mark.parametrize(
    "metadata",
    [{}, {"filename": "plain.bin"}, METADATA, {"n": 1, "list": "a,b c"}],
    ids=["none", "ascii", "unusual", "converted"],
)
def test_metadata(node, server, landing, file, metadata):
    result = node(file, options={"endpoint": server.url, "metadata": metadata})
    assert has_succeeded(result)
    landing.assert_one(file, {key: str(value) for key, value in metadata.items()})


@pytest.mark.parametrize("source", ["file", "buffer"])
def test_an_empty_file(node, server, landing, tmp_path, source):
    file = sample(tmp_path / "empty", 0)
    result = node(file, source=source, options={"endpoint": server.url, "metadata": METADATA})
    assert has_succeeded(result)
    assert result["requests"] == [["POST", 201]]
    landing.assert_one(file, METADATA)


@pytest.mark.parametrize("chunk_size", [None, CHUNK], ids=["whole", "chunks"])
def test_data_during_creation(node, proxy, endpoint, landing, file, chunk_size):
    options = {"endpoint": endpoint, "uploadDataDuringCreation": True, "metadata": METADATA}
    if chunk_size is not None:
        options["chunkSize"] = chunk_size
    result = node(file, options=options)
    assert has_succeeded(result)
    landing.assert_one(file, METADATA)
    assert proxy.of("POST")[0].body == (chunk_size or SIZE)
    assert [method for method, _ in result["requests"]] == ["POST"] + ["PATCH"] * (3 if chunk_size else 0)


def test_data_during_creation_of_an_empty_file(node, server, landing, tmp_path):
    file = sample(tmp_path / "empty", 0)
    options = {"endpoint": server.url, "uploadDataDuringCreation": True}
    assert has_succeeded(node(file, source="buffer", options=options))
    landing.assert_one(file)


@pytest.mark.parametrize("chunk_size", [SIZE, CHUNK], ids=["whole", "chunks"])
def test_overridden_patch(node, proxy, endpoint, landing, file, chunk_size):
    options = {"endpoint": endpoint, "overridePatchMethod": True, "chunkSize": chunk_size, "addRequestId": True}
    assert has_succeeded(node(file, options=options))
    landing.assert_one(file)
    assert {seen.method for seen in proxy.requests} == {"POST"}
    assert len(proxy.of("PATCH")) == -(-SIZE // chunk_size)


@pytest.mark.parametrize("size", [1, CHUNK - 1, CHUNK + 1, SIZE])
def test_deferred_length_of_a_stream(node, proxy, endpoint, landing, tmp_path, size):
    """The length comes with the last bytes. (Both versions wait for ever where a stream ends with a whole chunk.)"""
    file = sample(tmp_path / "file.bin", size)
    options = {"endpoint": endpoint, "uploadLengthDeferred": True, "chunkSize": CHUNK, "metadata": METADATA}
    assert has_succeeded(node(file, source="stream", options=options))
    landing.assert_one(file, METADATA)
    assert proxy.of("POST")[0].headers["upload-defer-length"] == "1"
    patches = proxy.of("PATCH")
    assert [seen.headers.get("upload-length") for seen in patches] == [None] * (len(patches) - 1) + [str(size)]


@pytest.mark.parametrize("pair", PAIRS[1:], ids="-".join, indirect=True)
@pytest.mark.parametrize("size", [1, CHUNK, 2 * CHUNK, SIZE])
def test_deferred_length_of_a_web_stream(node, proxy, endpoint, landing, tmp_path, size):
    """Where a stream ends with a whole chunk, the length comes with a PATCH that has no body."""
    file = sample(tmp_path / "file.bin", size)
    options = {"endpoint": endpoint, "uploadLengthDeferred": True, "chunkSize": CHUNK, "metadata": METADATA}
    assert has_succeeded(node(file, source="web-stream", options=options))
    landing.assert_one(file, METADATA)
    patches = proxy.of("PATCH")
    assert [seen.headers.get("upload-length") for seen in patches] == [None] * (len(patches) - 1) + [str(size)]
    assert (patches[-1].body == 0) == (size % CHUNK == 0)


def test_a_stream_of_a_known_size(node, server, landing, file):
    options = {"endpoint": server.url, "uploadSize": SIZE, "chunkSize": CHUNK}
    assert has_succeeded(node(file, source="stream", options=options))
    landing.assert_one(file)


# -- In parts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [None, 500_000], ids=["whole", "chunks"])
def test_parallel_uploads(node, proxy, endpoint, landing, file, chunk_size):
    options = {"endpoint": endpoint, "parallelUploads": 4, "metadata": METADATA}
    options["metadataForPartialUploads"] = {"part": "☃"}
    if chunk_size is not None:
        options["chunkSize"] = chunk_size
    result = node(file, options=options)
    assert has_succeeded(result)
    assert result["url"].endswith(landing.assert_one(file, METADATA))
    concat = [seen.headers["upload-concat"] for seen in proxy.of("POST")]
    assert concat[:4] == ["partial"] * 4
    assert re.fullmatch(r"final;\S+ \S+ \S+ \S+", concat[4])
    assert len(concat) == 5


def test_parallel_uploads_with_data_during_creation(node, server, landing, file):
    options = {"endpoint": server.url, "parallelUploads": 4, "uploadDataDuringCreation": True, "metadata": METADATA}
    result = node(file, options=options)
    assert has_succeeded(result)
    assert result["requests"] == [["POST", 201]] * 5
    landing.assert_one(file, METADATA)


def test_parallel_uploads_with_more_parts_than_threads(node, server, landing, file):
    options = {"endpoint": server.url, "parallelUploads": 24}
    assert has_succeeded(node(file, options=options))
    landing.assert_one(file)


def test_a_part_is_cut(node, proxy, endpoint, landing, file):
    proxy.cut("PATCH", after=400_000)
    proxy.cut("PATCH", after=400_001)
    options = {"endpoint": endpoint, "parallelUploads": 4, "retryDelays": DELAYS, "metadata": METADATA}
    result = node(file, options=options)
    assert has_succeeded(result)
    assert ["HEAD", 200] in result["requests"]
    landing.assert_one(file, METADATA)


def test_parts_are_resumed_from_the_url_storage(node, proxy, endpoint, landing, file, tmp_path):
    plan = {
        "storage": str(tmp_path / "urls.json"),
        "options": {"endpoint": endpoint, "parallelUploads": 4, "chunkSize": 100_000, "metadata": METADATA},
    }
    # One part stands still in its second chunk, the others come to their ends: the upload cannot.
    proxy.stall("PATCH", after=50_000, when=lambda seen: seen.headers["upload-offset"] == "100000")
    stopped = node(file, abort={"parts": 1_000_000, "then": "stop"}, **plan)
    assert stopped["outcome"] == "aborted", stopped
    landing.assert_none()
    created = len(proxy.of("POST"))
    assert created == 4

    result = node(file, previous=True, **plan)
    assert has_succeeded(result)
    assert len(proxy.of("POST")) == created + 1
    landing.assert_one(file, METADATA)


def test_the_reply_to_a_concatenation_is_lost(node, proxy, endpoint, landing, file):
    """The older client reports it; the newer one asks again, and may not make the file land twice."""
    proxy.lose_reply("POST", when=lambda seen: seen.headers["upload-concat"].startswith("final"))
    options = {"endpoint": endpoint, "parallelUploads": 2, "retryDelays": DELAYS, "metadata": METADATA}
    result = node(file, options=options)
    assert result["outcome"] == ("success" if node.is_5 else "error")
    landing.assert_one(file, METADATA)


# -- Abort and resume ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["file", "buffer"])
@pytest.mark.parametrize("by", ["url", "storage"])
def test_aborted_between_chunks_and_resumed(node, proxy, endpoint, landing, file, tmp_path, source, by):
    options = {"endpoint": endpoint, "chunkSize": CHUNK, "metadata": METADATA}
    plan = {"storage": str(tmp_path / "urls.json")} if by == "storage" else {}
    stopped = node(file, source=source, abort={"after": CHUNK, "then": "stop"}, options=options, **plan)
    assert stopped["outcome"] == "aborted", stopped
    assert CHUNK <= offset_of(stopped["url"]) < SIZE
    landing.assert_none()

    if by == "url":
        result = node(file, source=source, options={"uploadUrl": stopped["url"], "chunkSize": CHUNK})
    else:
        result = node(file, source=source, options=options, previous=True, **plan)
    assert has_succeeded(result)
    assert result["requests"][0] == ["HEAD", 200]
    assert result["url"] == stopped["url"]
    landing.assert_one(file, METADATA)


@pytest.mark.parametrize("chunk_size", [CHUNK, SIZE], ids=["chunks", "whole"])
@pytest.mark.parametrize("then", ["start", "stop"])
def test_aborted_in_the_middle_of_a_request_and_resumed(node, proxy, endpoint, landing, file, chunk_size, then):
    start = CUT // chunk_size * chunk_size
    proxy.stall("PATCH", after=CUT - start, when=lambda seen: seen.headers["upload-offset"] == str(start))
    options = {"endpoint": endpoint, "chunkSize": chunk_size, "metadata": METADATA}
    result = node(file, abort={"stored": CUT, "then": then}, options=options)
    if then == "stop":
        assert result["outcome"] == "aborted", result
        assert offset_of(result["url"]) == CUT
        landing.assert_none()
        result = node(file, options={"uploadUrl": result["url"], "chunkSize": chunk_size})
    assert has_succeeded(result)
    assert ["HEAD", 200] in result["requests"]
    landing.assert_one(file, METADATA)


def test_an_upload_that_has_landed_is_found_complete(node, server, landing, file, tmp_path):
    plan = {"storage": str(tmp_path / "urls.json"), "options": {"endpoint": server.url, "metadata": METADATA}}
    first = node(file, **plan)
    assert has_succeeded(first)
    again = node(file, previous=True, **plan)
    assert has_succeeded(again)
    assert again["requests"] == [["HEAD", 200]]
    assert again["url"] == first["url"]
    landing.assert_one(file, METADATA)


# -- Termination --------------------------------------------------------------------------------------------------


def stored(server, url):
    return [path.name for path in server.store.iterdir() if path.name == url.rpartition("/")[2]]


def test_aborted_and_terminated(node, proxy, endpoint, server, landing, file):
    proxy.stall("PATCH", after=CUT)
    result = node(file, abort={"stored": CUT, "then": "terminate"}, options={"endpoint": endpoint})
    assert result["outcome"] == "aborted", result
    assert result["requests"][-1] == ["DELETE", 204]
    assert head(result["url"])[0] in (404, 410)
    assert stored(server, result["url"]) == []
    landing.assert_none()


def test_terminated_later(node, server, landing, file):
    options = {"endpoint": server.url, "chunkSize": CHUNK}
    stopped = node(file, abort={"after": CHUNK, "then": "stop"}, options=options)
    assert stored(server, stopped["url"])
    result = node(terminate=stopped["url"], options={})
    assert (result["outcome"], result["requests"]) == ("terminated", [["DELETE", 204]])
    assert head(stopped["url"])[0] in (404, 410)
    assert stored(server, stopped["url"]) == []
    landing.assert_none()


def test_terminated_twice(node, server, landing, file):
    stopped = node(file, abort={"after": CHUNK, "then": "stop"}, options={"endpoint": server.url, "chunkSize": CHUNK})
    assert node(terminate=stopped["url"], options={})["outcome"] == "terminated"
    again = node(terminate=stopped["url"], options={"retryDelays": DELAYS})
    assert again["outcome"] == "error"
    assert again["requests"] in ([["DELETE", 404]], [["DELETE", 410]])
    landing.assert_none()


def test_terminated_after_it_has_landed(node, server, landing, file):
    """The application has the file, and keeps it."""
    finished = node(file, options={"endpoint": server.url})
    node(terminate=finished["url"], options={})
    landing.assert_one(file)


# -- Retries ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True], ids=["ended", "reset"])
@pytest.mark.parametrize("source", ["file", "buffer"])
@pytest.mark.parametrize("chunk_size", [CHUNK, SIZE], ids=["chunks", "whole"])
def test_cut_and_retried(node, proxy, endpoint, landing, file, reset, source, chunk_size):
    for after in (700_000, 1, 300_000):
        proxy.cut("PATCH", after=after, reset=reset)
    options = {"endpoint": endpoint, "chunkSize": chunk_size, "retryDelays": DELAYS, "metadata": METADATA}
    result = node(file, source=source, options=options)
    assert has_succeeded(result)
    assert result["requests"].count(["POST", 201]) == 1
    assert result["requests"].count(["HEAD", 200]) >= 3
    landing.assert_one(file, METADATA)


def test_cut_while_overriding_and_retried(node, proxy, endpoint, landing, file):
    proxy.cut("PATCH", after=CUT)
    options = {"endpoint": endpoint, "overridePatchMethod": True, "retryDelays": DELAYS}
    assert has_succeeded(node(file, options=options))
    landing.assert_one(file)


def test_a_stream_is_cut_and_retried(node, proxy, endpoint, landing, file):
    """A stream gives a chunk again, as long as none of it was accepted."""
    proxy.cut("PATCH", after=700_000, when=lambda seen: seen.headers["upload-offset"] == str(CHUNK))
    options = {"endpoint": endpoint, "uploadLengthDeferred": True, "chunkSize": CHUNK, "retryDelays": DELAYS}
    assert has_succeeded(node(file, source="stream", options=options))
    landing.assert_one(file)


def test_the_creation_is_cut_and_retried(node, proxy, endpoint, landing, file):
    """The client learns no URL, and begins anew; only one of the two uploads is ever complete."""
    proxy.cut("POST", after=CUT)
    options = {"endpoint": endpoint, "uploadDataDuringCreation": True, "retryDelays": DELAYS, "metadata": METADATA}
    result = node(file, options=options)
    assert has_succeeded(result)
    assert result["requests"] == [["POST", 201]]
    landing.assert_one(file, METADATA)


@pytest.mark.parametrize("with_data", [False, True], ids=["empty", "with-data"])
def test_the_reply_to_a_creation_is_lost(node, server, proxy, endpoint, landing, file, with_data):
    """With a key the repeated creation finds its upload, and no second one is left behind."""
    before = len(list(server.store.glob("*.tus")))
    proxy.lose_reply("POST")
    options = {
        "endpoint": endpoint,
        "retryDelays": DELAYS,
        "chunkSize": CHUNK,
        "uploadDataDuringCreation": with_data,
        "headers": {"Idempotency-Key": f'"{uuid.uuid4()}"'},
    }
    assert has_succeeded(node(file, options=options))
    landing.assert_one(file)
    assert len(proxy.of("POST")) == 2
    assert len(list(server.store.glob("*.tus"))) == before + 1


def test_the_reply_to_the_last_patch_is_lost(node, proxy, endpoint, landing, file):
    proxy.lose_reply("PATCH")
    options = {"endpoint": endpoint, "retryDelays": DELAYS, "metadata": METADATA}
    result = node(file, options=options)
    assert has_succeeded(result)
    assert result["requests"] == [["POST", 201], ["HEAD", 200]]
    landing.assert_one(file, METADATA)


def test_without_retries_a_cut_is_an_error(node, proxy, endpoint, landing, file):
    proxy.cut("PATCH", after=CUT)
    result = node(file, options={"endpoint": endpoint, "retryDelays": None})
    assert result["outcome"] == "error"
    landing.assert_none()
    assert has_succeeded(node(file, options={"uploadUrl": result["url"]}))
    landing.assert_one(file)
