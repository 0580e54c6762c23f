"""Versions of gunicorn that sites have pinned: bodies are read from their sockets, too."""

import os
import subprocess
import sys

import httpx
import pytest

from tests.servers.test_tus1 import create, patch_head, settled
from tests.support.serving import serving
from tests.support.sockets import Connection, assert_landed, content
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long


@pytest.fixture(scope="module", params=["23.0.0", "24.1.1", "25.0.3"])
def served(request, tmp_path_factory):
    packages = tmp_path_factory.mktemp("packages")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--target", packages, f"gunicorn=={request.param}"]
    subprocess.run(pip, check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(packages), os.environ.get("PYTHONPATH", ""))))
        with serving("gunicorn-gthread", tmp_path_factory.mktemp("site")) as served:
            wait_until(lambda: f"Starting gunicorn {request.param}" in served.log.read_text(), served.log.read_text)
            yield served


@pytest.mark.parametrize("end", [Connection.close, Connection.reset])
def test_a_cut_body_is_kept_to_its_last_byte(served, end):
    """Without the socket the last block of 64 KiB would be lost."""
    data = content(1_500_000)
    path = create(served, len(data))
    connection = Connection(served)
    connection.send(patch_head(path, 0, len(data)) + data[:1_000_000])
    end(connection)
    assert settled(served, path, 1_000_000) == 1_000_000
    with Connection(served) as connection:
        connection.send(patch_head(path, 1_000_000, 500_000) + data[1_000_000:])
        assert connection.reply().status == 204
    assert_landed(served, path, data)


def test_a_connection_goes_on_after_a_body(served):
    """What follows the body in the same packet is the next request."""
    data = content(300_000)
    path, other = create(served, len(data)), create(served, 5)
    with Connection(served) as connection:
        connection.send(patch_head(path, 0, len(data)) + data + patch_head(other, 0, 5) + b"hello")
        assert [connection.reply().status for _ in range(2)] == [204, 204]
    assert_landed(served, path, data)
    assert_landed(served, other, b"hello")


def test_a_chunked_body(served):
    url = served.url.removesuffix("/files") + create(served, 300_000)
    fields = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    pieces = iter([content(300_000)[start : start + 1000] for start in range(0, 300_000, 1000)])
    assert httpx.patch(url, content=pieces, headers=fields).status_code == 204
