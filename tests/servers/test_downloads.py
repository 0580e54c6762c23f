"""Downloads of finished uploads by real servers."""

import contextlib
import http.client
import os
from urllib.parse import urlsplit

import pytest

from tests.support.serving import SERVERS, serving


@pytest.mark.parametrize("server", SERVERS)
def test_real_servers_send_exactly_what_was_asked(server, tmp_path):
    with contextlib.ExitStack() as clean:
        site = clean.enter_context(serving(server, tmp_path, download=True, keep_finished=True))
        host = urlsplit(site.url).netloc
        tus = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
        connection = clean.enter_context(contextlib.closing(http.client.HTTPConnection(host, timeout=10)))
        content = os.urandom(3_000_000)
        connection.request("POST", "/files", content, tus | {"Upload-Length": str(len(content))})
        reply = connection.getresponse()
        assert (reply.status, reply.read()) == (201, b"")
        path = urlsplit(reply.headers["Location"]).path
        for field, first, stop in (
            (None, 0, len(content)), ("0-0", 0, 1), ("1000000-", 1_000_000, len(content)), ("5-2000000", 5, 2_000_001),
        ):  # fmt: skip
            connection.request("GET", path, headers={} if field is None else {"Range": f"bytes={field}"})
            reply = connection.getresponse()
            assert reply.read() == content[first:stop]
        connection.request("GET", path, headers={"Range": "bytes=0-9,20-29"})
        reply = connection.getresponse()
        assert len(reply.read()) == int(reply.headers["Content-Length"])
        connection.request("HEAD", path)
        reply = connection.getresponse()
        assert (reply.read(), reply.headers["Content-Length"]) == (b"", str(len(content)))
        connection.request("GET", path, headers={"Range": "bytes=-1"})  # the connection is still in step
        assert connection.getresponse().read() == content[-1:]
