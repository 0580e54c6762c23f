"""What the transports do on real sockets, for threads, asyncio and trio: one suite, and a server that is a script."""

import base64
import contextlib
import hashlib
import logging
import re
import select
import socket
import ssl
import sys
import threading
import time
from pathlib import Path

import anyio
import httpcore2
import httpx2
import pytest

from tests.client.subjects import LOOPS, Subject
from tests.support.scripted import as_proxy, as_socks_proxy, scripted
from tests.support.serving import free_port
from tests.support.waiting import GUARD, wait_until
from tus.client import errors
from tus.client.transports import stream
from tus.client.transports.httpx import HttpxTransport
from tus.client.transports.httpx_async import AsyncHttpxTransport
from tus.client.transports.interface import WireRequest

BLOCK = bytes(range(256)) * 4096  # 1 MiB
NO_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in NO_PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Blocks:
    """A body of blocks, which counts how many were asked for."""

    def __init__(self, number, block=BLOCK):
        self.number, self.block, self.given = number, block, 0

    def __iter__(self):
        for _ in range(self.number):
            self.given += 1
            yield self.block


def url_of(port, scheme="http", host="127.0.0.1"):
    return f"{scheme}://{host}:{port}/files/1"


# -- Requests and responses --


def test_a_request_goes_out_as_given(subject):
    seen = []

    def script(talk):
        seen.append(talk.request())
        talk.answer(201, "made", Location="/files/2")

    with scripted(script) as port:
        got = subject.send(
            *(subject.transport(), "PATCH", url_of(port), [b"hello ", b"world"]),
            headers=[("Upload-Offset", "0"), ("Content-Type", "text/x")],
            length=11,
        )
    assert (got.status, got.headers["location"], got.body) == (201, "/files/2", b"made")
    head, body = seen[0]
    assert head.startswith("PATCH /files/1 HTTP/1.1\r\n")
    assert body == b"hello world"
    for row in ("Upload-Offset: 0", "Content-Type: text/x", "Content-Length: 11", "Accept-Encoding: identity"):
        assert f"\r\n{row}\r\n" in head
    assert "chunked" not in head


def test_a_body_without_length_goes_in_chunks(subject):
    seen = []

    def script(talk):
        seen.append(talk.request())
        talk.answer()

    with scripted(script) as port:
        assert subject.send(subject.transport(), "POST", url_of(port), [b"hello ", b"world"]).status == 204
    assert seen[0][1] == b"6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n"


def test_a_post_without_body_says_so(subject):
    seen = []

    def script(talk):
        seen.append(talk.head())
        talk.answer()

    with scripted(script) as port:
        subject.send(subject.transport(), "POST", url_of(port))
    assert "\r\nContent-Length: 0\r\n" in seen[0]


def test_a_trailer_is_made_after_the_last_block(subject):
    seen, digest = [], hashlib.sha256()

    def script(talk):
        seen.append(talk.request())
        talk.answer()

    def blocks():
        for block in (b"hello ", b"world"):
            digest.update(block)
            yield block

    def trailer():
        return "Upload-Checksum", "sha256 " + base64.b64encode(digest.digest()).decode()

    expected = base64.b64encode(hashlib.sha256(b"hello world").digest())
    with scripted(script) as port:
        transport = subject.transport()
        assert transport.sends_trailers
        subject.send(transport, "PATCH", url_of(port), blocks(), trailer=trailer)
    head, body = seen[0]
    assert "\r\nTrailer: Upload-Checksum\r\n" in head
    assert "Content-Length" not in head
    assert body.endswith(b"world\r\n0\r\nUpload-Checksum: sha256 " + expected + b"\r\n\r\n")


@pytest.mark.parametrize(
    "response",
    [
        "HTTP/1.1 200 OK\r\n\r\nto the end",
        "HTTP/1.0 200 OK\r\n\r\nto the end",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 10\r\n\r\nto the end",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nto the end\r\n0\r\n\r\n",
    ],
)
def test_responses_of_every_framing(subject, response):
    def script(talk):
        talk.request()
        talk.say(response)

    with scripted(script) as port:
        transport = subject.transport()
        for _ in range(2):
            assert subject.send(transport, "GET", url_of(port)).body == b"to the end"


def test_head_and_204_have_no_body(subject):
    def script(talk):
        assert talk.head().startswith("HEAD")
        talk.say("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
        talk.request()
        talk.answer(204)

    with scripted(script) as port:
        transport = subject.transport()
        got = subject.send(transport, "HEAD", url_of(port))
        assert (got.headers["content-length"], got.body) == ("5000", b"")
        assert subject.send(transport, "PATCH", url_of(port), [b"x"], length=1).body == b""


def test_a_connection_is_kept(subject):
    numbers = []

    def script(talk):
        while True:
            talk.request()
            numbers.append(talk.number)
            talk.answer(200, "x")

    with scripted(script) as port:
        transport = subject.transport()
        for _ in range(3):
            subject.send(transport, "PATCH", url_of(port), [b"x"], length=1)
    assert numbers == [0, 0, 0]


def test_redirects_are_not_followed(subject):
    def script(talk):
        talk.request()
        talk.answer(307, "elsewhere", Location="/files/2")

    with scripted(script) as port:
        for transport in (subject.transport(), subject.transport({"follow_redirects": True})):
            assert subject.send(transport, "PATCH", url_of(port), [b"x"], length=1).status == 307


def test_the_blocks_are_given_to_the_socket_as_they_are(monkeypatch):
    """No copies: the buffers that are sent are those of the body."""
    sent = []
    push = stream._Plain.push
    monkeypatch.setattr(stream._Plain, "push", lambda self, data: sent.append(data.obj) or push(self, data))

    def script(talk):
        talk.request()
        talk.answer()

    with Subject("threads") as subject, scripted(script) as port:
        subject.send(subject.transport(), "PATCH", url_of(port), Blocks(3), length=3 * len(BLOCK))
    assert {id(data) for data in sent if len(data) == len(BLOCK)} == {id(BLOCK)}


# -- Before the response --


def test_interim_responses_are_passed_on(subject):
    def script(talk):
        talk.request()
        talk.say("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\nHT")
        time.sleep(0.05)
        talk.say("TP/1.1 104 Upload Resumption\r\nLocation: /files/2\r\nUplo", "ad-Offset: 5\r\n\r\nHTTP/1")
        time.sleep(0.05)
        talk.say(".1 204 No Content\r\nUpload-Offset: 9\r\n\r\n")

    interim = []
    with scripted(script) as port:
        got = subject.send(
            *(subject.transport(), "PATCH", url_of(port), [b"x"]),
            length=1,
            on_interim=lambda status, headers: interim.append((status, dict(headers))),
        )
    assert (got.status, got.headers["upload-offset"]) == (204, "9")
    assert interim == [
        (100, {}),
        (103, {"link": "</a>, </b>"}),
        (104, {"location": "/files/2", "upload-offset": "5"}),
    ]


@pytest.mark.parametrize("end", ["close", "reset"])
def test_interim_responses_are_heard_although_the_connection_is_cut(subject, end):
    def script(talk):
        talk.head()
        talk.body(100_000)
        talk.say("HTTP/1.1 104 Upload Resumption\r\nUpload-Offset: 100000\r\n\r\n")
        if end == "reset":
            talk.reset()

    interim = []
    with scripted(script) as port, pytest.raises(errors.ConnectionFailed):
        subject.send(
            *(subject.transport(), "PATCH", url_of(port), Blocks(64)),
            length=64 * len(BLOCK),
            on_interim=lambda status, headers: interim.append((status, headers["upload-offset"])),
        )
    assert interim == [(104, "100000")]


def test_an_interim_response_is_heard_while_the_body_is_sent(subject):
    def script(talk):
        talk.head()
        talk.body(100_000)
        talk.say("HTTP/1.1 104 Upload Resumption\r\nUpload-Offset: 100000\r\n\r\n")
        talk.body(8 * len(BLOCK) - 100_000)
        talk.answer()

    heard = threading.Event()

    def blocks():
        for number in range(8):
            if number == 7:
                assert heard.is_set()
            yield BLOCK
            time.sleep(0.02)

    with scripted(script) as port:
        subject.send(
            *(subject.transport(), "PATCH", url_of(port), blocks()),
            length=8 * len(BLOCK),
            on_interim=lambda status, headers: heard.set(),
        )


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("reads_on", [True, False])
def test_a_refusal_costs_a_block_or_so(subject, reads_on, scheme, tls, trusted):
    def script(talk):
        talk.head()
        talk.answer(409, "not that offset")
        if reads_on:
            talk.wait_for_end()
        else:
            time.sleep(1)
            ended.wait(GUARD)

    ended = threading.Event()
    blocks = Blocks(10_000)
    started = time.monotonic()
    with scripted(script, tls if scheme == "https" else None) as port:
        try:
            got = subject.send(
                *(subject.transport(verify=trusted), "PATCH", url_of(port, scheme), blocks),
                length=10_000 * len(BLOCK),
            )
        finally:
            ended.set()
    assert (got.status, got.body) == (409, b"not that offset")
    assert blocks.given < 30
    assert time.monotonic() - started < 10


def test_a_final_response_after_interim_ones_ends_the_sending(subject):
    def script(talk):
        talk.head()
        talk.say("HTTP/1.1 104 Upload Resumption\r\nUpload-Offset: 0\r\n\r\n")
        talk.answer(413, "too much")
        talk.wait_for_end()

    interim, blocks = [], Blocks(10_000)
    with scripted(script) as port:
        got = subject.send(
            *(subject.transport(), "PATCH", url_of(port), blocks),
            length=10_000 * len(BLOCK),
            on_interim=lambda status, _: interim.append(status),
        )
    assert (got.status, interim) == (413, [104])
    assert blocks.given < 30


# -- Time --


def test_a_server_that_reads_nothing_is_a_stall(subject):
    def script(talk):
        talk.head()
        ended.wait(GUARD)

    ended = threading.Event()
    with scripted(script) as port:
        started = time.monotonic()
        with pytest.raises(errors.Stalled, match=f"127.0.0.1:{port}"):
            subject.send(
                *(subject.transport(), "PATCH", url_of(port), Blocks(100)),
                length=100 * len(BLOCK),
                stall_timeout=0.5,
            )
        ended.set()
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_slow_server_is_no_stall(subject, scheme, tls, trusted):
    """It takes much longer for one block than the stall timeout."""

    def script(talk):
        talk.head()
        while talk.slow:
            talk.body(16_384)
            talk.slow -= 1
            time.sleep(0.05)
        talk.body(6 * len(BLOCK) - 16_384 * 40)
        talk.answer()

    def slow(talk):
        talk.slow = 40
        script(talk)

    with scripted(slow, tls if scheme == "https" else None, buffer=16_384) as port:
        blocks = [BLOCK * 6]
        got = subject.send(
            *(subject.transport(verify=trusted), "PATCH", url_of(port, scheme), blocks),
            length=6 * len(BLOCK),
            stall_timeout=1,
        )
    assert got.status == 204


def test_no_answer_is_a_stall(subject):
    def script(talk):
        talk.request()
        ended.wait(GUARD)

    ended = threading.Event()
    with scripted(script) as port:
        started = time.monotonic()
        with pytest.raises(errors.Stalled, match=r"nothing came for 0\.5 s"):
            subject.send(subject.transport(), "PATCH", url_of(port), [b"x"], length=1, answer_timeout=0.5)
        assert 0.4 < time.monotonic() - started < 10
        ended.set()


def test_the_answer_may_take_longer_than_a_stall(subject):
    def script(talk):
        talk.request()
        time.sleep(1)
        talk.answer()

    with scripted(script) as port:
        how = {"length": 1, "answer_timeout": GUARD, "stall_timeout": 0.3}
        assert subject.send(subject.transport(), "PATCH", url_of(port), [b"x"], **how).status == 204


@pytest.mark.parametrize("says", ["", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
def test_a_response_that_stalls(subject, says):
    def script(talk):
        talk.request()
        talk.say(says)
        ended.wait(GUARD)

    ended = threading.Event()
    with scripted(script) as port:
        with pytest.raises(errors.Stalled):
            subject.send(subject.transport(), "GET", url_of(port), stall_timeout=0.3, answer_timeout=0.3)
        ended.set()


def test_a_connection_that_takes_too_long(subject):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as stack:
        address = listener.getsockname()
        for _ in range(3):  # the queue is full then
            taker = stack.enter_context(socket.socket())
            taker.setblocking(False)
            taker.connect_ex(address)
        with pytest.raises(errors.Stalled, match=r"No connection to 127\.0\.0\.1:.* after 0\.3 s"):
            subject.send(subject.transport(), "GET", url_of(address[1]), connect_timeout=0.3)


# -- Ends --


@pytest.mark.parametrize("moment", ["sending", "waiting", "reading"])
def test_abort_ends_what_runs_and_nothing_else(subject, moment):
    def script(talk):
        if talk.number:
            talk.request()
            talk.answer()
            return
        talk.head()
        if moment != "sending":
            talk.body(1)
        if moment == "reading":
            talk.say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        reached.set()
        ended.wait(GUARD)

    reached, ended = threading.Event(), threading.Event()
    blocks = Blocks(100) if moment == "sending" else [b"x"]
    length = 100 * len(BLOCK) if moment == "sending" else 1
    transport = subject.transport()

    def abort():
        reached.wait(GUARD)
        time.sleep(0.3)
        times.append(time.monotonic())
        ends[0]()

    times, ends = [], []
    thread = threading.Thread(target=abort)
    with scripted(script) as port:
        thread.start()
        try:
            with pytest.raises(errors.ConnectionFailed, match="aborted") as caught:
                subject.send(transport, "PATCH", url_of(port), blocks, length=length, on_start=ends.append)
            assert time.monotonic() - times[0] < 5
        finally:
            ended.set()
            thread.join()
        assert not isinstance(caught.value, errors.Stalled)
        assert subject.send(transport, "PATCH", url_of(port), [b"x"], length=1).status == 204


def test_abort_before_the_start(subject):
    with scripted(lambda talk: talk.head()) as port, pytest.raises(errors.ConnectionFailed, match="aborted"):
        subject.send(subject.transport(), "GET", url_of(port), on_start=lambda abort: abort())


@pytest.mark.parametrize("moment", ["sending", "waiting", "reading"])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_task_that_is_cancelled(loop, moment):
    """The transport stays usable, and no socket is left open."""

    def script(talk):
        if talk.number:
            talk.request()
            talk.answer()
            return
        talk.head()
        if moment == "reading":
            talk.body(1)
            talk.say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        talk.wait_for_end() if moment == "waiting" else ended.wait(GUARD)

    ended = threading.Event()

    async def body(blocks):
        for block in blocks:
            yield block

    async def cancelled(port):
        transport = AsyncHttpxTransport()
        blocks = Blocks(100) if moment == "sending" else Blocks(1, b"x")
        request = WireRequest("PATCH", url_of(port), body=body(blocks), length=blocks.number * len(blocks.block))
        with anyio.move_on_after(0.5) as scope:
            async with transport.send(request) as response:
                async for _ in response.blocks():
                    pass
        assert scope.cancelled_caught
        ended.set()
        async with transport.send(WireRequest("GET", url_of(port))) as response:
            assert response.status == 204
        await transport.close()

    with scripted(script) as port:
        anyio.run(cancelled, port, backend=loop)


def test_abort_ends_a_connection_that_is_being_made(subject):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as stack:
        address = listener.getsockname()
        for _ in range(3):
            taker = stack.enter_context(socket.socket())
            taker.setblocking(False)
            taker.connect_ex(address)
        with pytest.raises(errors.ConnectionFailed, match="aborted"):
            subject.send(
                *(subject.transport(), "GET", url_of(address[1])),
                on_start=lambda abort: threading.Timer(0.5, abort).start(),
                connect_timeout=GUARD,
            )


def test_a_kept_connection_that_the_server_has_closed_is_replaced(subject):
    def script(talk):
        talk.request()
        talk.answer()

    with scripted(script) as port:
        transport = subject.transport()
        for _ in range(5):
            assert subject.send(transport, "PATCH", url_of(port), [b"x"], length=1).status == 204
            time.sleep(0.05)


@pytest.mark.parametrize("says", ["", "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"])
def test_a_kept_connection_that_ends_after_the_pool_has_looked(subject, says, monkeypatch):
    """The body has not been touched, so that it can go on another one."""
    look = stream.Wire.get_extra_info
    monkeypatch.setattr(stream.Wire, "get_extra_info", lambda wire, info: info != "is_readable" and look(wire, info))

    def script(talk):
        talk.request()
        talk.answer()
        talk.say(says)
        numbers.append(talk.number)

    numbers = []
    with scripted(script) as port:
        transport = subject.transport()
        for number in range(3):
            assert subject.send(transport, "PATCH", url_of(port), iter([b"x"]), length=1).status == 204
            wait_until(lambda: len(numbers) == number + 1)  # noqa: B023
            time.sleep(0.05)
    assert numbers == [0, 1, 2]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_kept_connection_that_ends_when_it_is_used(subject, scheme, tls, trusted):
    """A request without a body goes on another one; a PATCH may have reached the application."""

    def script(talk):
        talk.request()
        talk.answer()
        if talk.number != 2:
            talk.head()
            talk.reset()

    with scripted(script, tls if scheme == "https" else None) as port:
        transport, url = subject.transport(verify=trusted), url_of(port, scheme)
        assert subject.send(transport, "HEAD", url).status == 204
        assert subject.send(transport, "HEAD", url).status == 204
        with pytest.raises(errors.ConnectionFailed):
            subject.send(transport, "PATCH", url, [b"x"], length=1)


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ("", "closed the connection"),
        ("what?\r\n\r\n", "not answer in HTTP"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "closed the connection"),
        ("HTTP/1.1 20", "closed the connection"),
    ],
)
def test_a_connection_that_ends_early(subject, says, words):
    def script(talk):
        talk.request()
        talk.say(says)

    with scripted(script) as port, pytest.raises(errors.ConnectionFailed, match=words) as caught:
        subject.send(subject.transport(), "GET", url_of(port))
    assert caught.value.resumable
    assert caught.value.url == url_of(port)


@pytest.mark.parametrize("client", [None, {}])
def test_no_server(subject, client):
    port = free_port()
    with pytest.raises(errors.ConnectionFailed, match=f"No connection to 127.0.0.1:{port}: .*(refused|failed)"):
        subject.send(subject.transport(client), "GET", url_of(port))


def test_no_such_host(subject):
    with pytest.raises(errors.ConnectionFailed, match=r"No connection to nowhere\.invalid:80"):
        subject.send(subject.transport(), "GET", "http://nowhere.invalid/")


@pytest.mark.parametrize("client", [None, {}])
@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "http://[::1/", "/files"])
def test_no_url_for_http(subject, url, client):
    with pytest.raises(errors.NotSupported):
        subject.send(subject.transport(client), "GET", url)


def test_localhost_is_tried_at_all_its_addresses(subject):
    def script(talk):
        talk.request()
        talk.answer()

    with scripted(script) as port:
        assert subject.send(subject.transport(), "GET", url_of(port, host="localhost")).status == 204


def test_an_address_of_ip_version_6(subject):
    def script(talk):
        seen.append(talk.request()[0])
        talk.answer()

    seen = []
    with scripted(script, host="::1") as port:
        assert subject.send(subject.transport(), "GET", url_of(port, host="[::1]")).status == 204
    assert f"\r\nHost: [::1]:{port}\r\n" in seen[0]


def test_an_error_of_the_source_stays_what_it_is(subject):
    def script(talk):
        talk.request()

    def blocks():
        yield BLOCK
        raise FileNotFoundError("film.mp4")

    with scripted(script) as port, pytest.raises(FileNotFoundError):
        subject.send(subject.transport(), "PATCH", url_of(port), blocks(), length=2 * len(BLOCK))


# -- TLS --


def hello(talk):
    talk.request()
    talk.say("HTTP/1.1 104 Upload Resumption\r\nUpload-Offset: 1\r\n\r\n")
    talk.answer(200, "hello")


def test_tls_by_a_file_a_directory_or_a_context(subject, tls, trusted, tmp_path):
    context = ssl.create_default_context(cafile=trusted)
    with scripted(hello, tls) as port:
        for verify in (trusted, context, False):
            interim = []
            got = subject.send(
                *(subject.transport(verify=verify), "PATCH", url_of(port, "https"), Blocks(3)),
                length=3 * len(BLOCK),
                on_interim=lambda status, _, seen=interim: seen.append(status),
            )
            assert (got.body, interim) == (b"hello", [104])


def test_tls_by_the_environment(subject, tls, trusted, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", trusted)
    with scripted(hello, tls) as port:
        assert subject.send(subject.transport(), "GET", url_of(port, "https")).body == b"hello"


@pytest.mark.parametrize("client", [None, {}])
@pytest.mark.parametrize("wrong", ["issuer", "name"])
def test_a_certificate_that_is_not_trusted(subject, authority, tls, trusted, wrong, client):
    verify = True
    if wrong == "name":
        verify = trusted
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("elsewhere.example").configure_cert(tls)
    if client is not None:
        client = {"verify": ssl.create_default_context(cafile=None if verify is True else verify)}
    words = r"127\.0\.0\.1:[0-9]+: its certificate is not trusted: "
    with scripted(hello, tls) as port, pytest.raises(errors.NotTrusted, match=words) as caught:
        subject.send(subject.transport(client, verify=verify), "GET", url_of(port, "https"))
    assert not caught.value.resumable


def test_a_server_that_asks_for_a_certificate(subject, authority, tls, trusted, tmp_path):
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(trusted)
    ours = authority.issue_cert("client@example.org")
    both, cert, key = (str(tmp_path / name) for name in ("both.pem", "cert.pem", "key.pem"))
    ours.private_key_and_cert_chain_pem.write_to_path(both)
    ours.cert_chain_pems[0].write_to_path(cert)
    ours.private_key_pem.write_to_path(key)
    with scripted(hello, tls) as port:
        for given in (both, (cert, key), (cert, key, "unused")):
            transport = subject.transport(verify=trusted, cert=given)
            assert subject.send(transport, "GET", url_of(port, "https")).body == b"hello"
        with pytest.raises(errors.NotTrusted):
            subject.send(
                *(subject.transport(verify=trusted), "PATCH", url_of(port, "https"), Blocks(30)),
                length=30 * len(BLOCK),
            )


def test_no_tls_at_the_other_end(subject):
    def script(talk):
        talk.say("HTTP/1.1 400 Bad Request\r\n\r\n")

    with scripted(script) as port, pytest.raises(errors.ConnectionFailed, match=r"No connection.*TLS failed") as caught:
        subject.send(subject.transport(), "GET", url_of(port, "https"))
    assert caught.value.resumable


def test_a_tls_handshake_that_stalls(subject):
    def script(talk):
        ended.wait(GUARD)

    ended = threading.Event()
    with scripted(script) as port:
        with pytest.raises(errors.Stalled):
            subject.send(subject.transport(), "GET", url_of(port, "https"), connect_timeout=0.3)
        ended.set()


@pytest.mark.parametrize("settings", [{"verify": "/nowhere"}, {"cert": "/nowhere"}, {"cert": ("/nowhere", "/none")}])
def test_files_that_are_no_certificates(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"{name} must be.*/nowhere.*no such file"):
        HttpxTransport(**settings)


# -- Proxies --


@pytest.mark.parametrize("by", ["argument", "environment", "all"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy(subject, scheme, by, tls, trusted, monkeypatch):
    seen, interim = [], []
    user = base64.b64encode(b"me:secret").decode()
    with scripted(hello, tls if scheme == "https" else None) as port, scripted(as_proxy(seen, user)) as proxy:
        settings = {"verify": trusted}
        if by == "argument":
            settings["proxy"] = f"http://me:secret@127.0.0.1:{proxy}"
        else:
            monkeypatch.setenv(
                f"{scheme}_proxy" if by == "environment" else "ALL_PROXY", f"me:secret@127.0.0.1:{proxy}"
            )
        got = subject.send(
            *(subject.transport(**settings), "PATCH", url_of(port, scheme), Blocks(3)),
            length=3 * len(BLOCK),
            on_interim=lambda status, _: interim.append(status),
        )
    assert (got.body, interim) == (b"hello", [104])
    assert len(seen) == 1
    assert seen[0].startswith("CONNECT" if scheme == "https" else "PATCH http://127.0.0.1")


def test_a_proxy_that_is_reached_by_tls(subject, tls, trusted):
    seen = []
    with scripted(hello, tls) as port, scripted(as_proxy(seen), tls) as proxy:
        transport = subject.transport(verify=trusted, proxy=f"https://127.0.0.1:{proxy}")
        got = subject.send(transport, "PATCH", url_of(port, "https"), Blocks(3), length=3 * len(BLOCK))
    assert (got.body, len(seen)) == (b"hello", 1)


def test_no_proxy_for_some_hosts(subject, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with scripted(hello) as port:
        assert subject.send(subject.transport(), "GET", url_of(port)).body == b"hello"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_asks_for_a_password(subject, scheme):
    with scripted(as_proxy([], "another")) as proxy:
        transport = subject.transport(proxy=f"http://127.0.0.1:{proxy}")
        if scheme == "http":
            assert subject.send(transport, "GET", url_of(1)).status == 407
        else:
            with pytest.raises(errors.NotAuthorized, match="proxy") as caught:
                subject.send(transport, "GET", url_of(1, "https"))
            assert caught.value.status == 407


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_socks_proxy(subject, scheme, tls, trusted):
    seen = []
    with scripted(hello, tls if scheme == "https" else None) as port, scripted(as_socks_proxy(seen)) as proxy:
        transport = subject.transport(verify=trusted, proxy=f"socks5://127.0.0.1:{proxy}")
        assert subject.send(transport, "GET", url_of(port, scheme)).body == b"hello"
    assert len(seen) == 1


def test_a_socks_proxy_needs_a_package(subject, monkeypatch):
    from tus.client.transports import pools

    monkeypatch.setattr(pools, "find_spec", lambda name: None)
    with pytest.raises(errors.NotSupported, match="pip install socksio"):
        subject.transport(proxy="socks5://127.0.0.1:1")


@pytest.mark.parametrize("proxy", ["gopher://127.0.0.1:1", "http://me:secret@[::1", "://"])
def test_no_url_of_a_proxy(subject, proxy, monkeypatch):
    with pytest.raises(ValueError, match="proxy must be a URL") as caught:
        subject.transport(proxy=proxy)
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(errors.NotSupported, match="In the environment, proxy must be a URL") as caught:
        subject.send(subject.transport(), "GET", url_of(1))
    assert "secret" not in str(caught.value)


# -- Where there is no poll, as on Windows --


@pytest.fixture
def _without_poll(monkeypatch):
    monkeypatch.delattr(select, "poll")


@pytest.mark.usefixtures("_without_poll")
def test_select_does_what_poll_does(tls, trusted):
    def script(talk):
        talk.head()
        talk.answer(409, "no")
        talk.wait_for_end()

    with Subject("threads") as subject:
        transport = subject.transport(verify=trusted)
        with scripted(hello, tls) as port:
            got = subject.send(transport, "PATCH", url_of(port, "https"), Blocks(9), length=9 * len(BLOCK))
            assert got.body == b"hello"
        with scripted(script) as port:
            got = subject.send(transport, "PATCH", url_of(port), Blocks(999), length=999 * len(BLOCK))
            assert got.status == 409
        with pytest.raises(errors.ConnectionFailed, match="No connection"):
            subject.send(transport, "GET", url_of(free_port()))


# -- The caller's own client --


def test_the_client_of_the_caller_keeps_its_settings(subject):
    seen, interim = [], []

    def script(talk):
        while True:
            seen.append(talk.request())
            talk.say("HTTP/1.1 104 Upload Resumption\r\n\r\n")
            talk.answer(200, "hello", Set_Cookie="b=2")

    settings = {"headers": {"X-Mine": "yes"}, "cookies": {"a": "1"}, "auth": ("me", "secret")}
    with scripted(script) as port:
        transport = subject.transport(settings)
        assert not transport.sends_trailers
        for _ in range(2):
            got = subject.send(
                *(transport, "PATCH", url_of(port), Blocks(3)),
                length=3 * len(BLOCK),
                on_interim=lambda status, _: interim.append(status),
            )
            assert got.body == b"hello"
        assert not interim
        head, body = seen[1]
        assert body == BLOCK * 3
        assert "X-Mine: yes" in head
        assert {"a=1", "b=2"} == set(re.search("Cookie: (.*)\r\n", head)[1].split("; "))
        assert "Authorization: Basic " + base64.b64encode(b"me:secret").decode() in head
        transport.close() if subject.kind == "threads" else subject._portal.call(transport.close)
        assert not transport.client_of_caller.is_closed


def test_the_client_of_the_caller_sends_no_trailers(subject):
    with pytest.raises(errors.NotSupported, match="trailers"):
        subject.send(subject.transport({}), "PATCH", url_of(1), [b"x"], trailer=lambda: ("A", "b"))


def test_a_client_that_sends_a_body_twice(subject):
    def script(talk):
        while True:
            talk.request()
            talk.answer(401, "who?", WWW_Authenticate='Digest realm="x", nonce="y", qop="auth"')

    with scripted(script) as port, pytest.raises(errors.NotSupported, match="twice"):
        transport = subject.transport({"auth": httpx2.DigestAuth("me", "secret")})
        subject.send(transport, "PATCH", url_of(port), iter([b"x"]), length=1)


def test_abort_with_the_client_of_the_caller(subject):
    def script(talk):
        talk.request()
        talk.answer()

    ends = []

    def blocks():
        yield b"x"
        ends[0]()
        yield b"x"

    with scripted(script) as port, pytest.raises(errors.ConnectionFailed, match="aborted"):
        subject.send(subject.transport({}), "PATCH", url_of(port), blocks(), length=2, on_start=ends.append)


# -- The library --

NAMES = {
    *("NetworkBackend", "NetworkStream", "AsyncNetworkBackend", "AsyncNetworkStream", "ConnectionNotAvailable"),
    *("ConnectError", "ConnectTimeout", "ReadError", "ReadTimeout", "WriteError", "WriteTimeout", "Request", "URL"),
    *("ConnectionPool", "HTTPProxy", "SOCKSProxy", "AsyncConnectionPool", "AsyncHTTPProxy", "AsyncSOCKSProxy"),
    *("TimeoutException", "NetworkError", "ProtocolError", "RemoteProtocolError", "LocalProtocolError", "ProxyError"),
    "UnsupportedProtocol",
}


def test_the_names_of_httpcore2_that_are_used_are_public():
    missing = sorted(NAMES - set(httpcore2.__all__))
    assert not missing, f"httpcore2 {httpcore2.__version__} has no public {missing}, see tus.client.transports.stream"


def test_the_names_that_are_used_are_in_that_list():
    from tus.client.transports import pools

    for module in (stream, pools):
        text = Path(module.__file__).read_text()
        assert {name for name in httpcore2.__all__ if f"httpcore2.{name}" in text} <= NAMES


def strange_pool(**settings):
    raise TypeError("got an unexpected keyword argument 'network_backend'")


@pytest.mark.parametrize("how", ["name", "argument"])
def test_another_httpcore2_sends_without_extras(subject, how, monkeypatch, caplog):
    from tus.client.transports import pools

    with monkeypatch.context() as strange, caplog.at_level(logging.WARNING, "tus.client"):
        if how == "name":
            strange.delattr(httpcore2, "NetworkStream")
            for name in ("pools", "stream"):
                strange.delattr(f"tus.client.transports.{name}")
                strange.delitem(sys.modules, f"tus.client.transports.{name}")
        else:
            for name in ("ListeningTransport", "AsyncListeningTransport"):
                strange.setattr(pools, name, lambda *arguments: strange_pool())
        transport = subject.transport()
    assert not transport.sends_trailers
    assert "httpcore2 is not known" in caplog.text
    with scripted(hello) as port:
        got = subject.send(transport, "PATCH", url_of(port), Blocks(3), length=3 * len(BLOCK))
    assert got.body == b"hello"
