"""Real servers, raw sockets, and everything that a bad network does to a PATCH.

What a server keeps of a broken body is not a matter of taste: each has a row in :data:`TABLE`, and a test fails on
one byte more or less. Where the numbers come from:

* Bodies are read in blocks of 64 KiB (for the first MiB), and a server that raises at a cut takes the bytes of the
  unfinished block with it: of 1 000 000 bytes 15 blocks are left, 983 040.
* A server that answers a FIN with a short read loses nothing.
* Under gunicorn a body is received straight from the socket, and chunks are taken as they come: nothing is lost, and
  each byte is counted as soon as it has come.
* waitress buffers the whole body before the application is called, so of a broken one nothing is ever seen.
* cheroot reads a chunk as a whole, and so loses what it had of the last one.
* wsgiref does not decode chunks, nor mark its input as terminated: such a body is refused.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time

import httpx
import pytest

from tests.support.serving import ROOT, UPLOAD_PATH, Serving, serving
from tests.support.sockets import (
    CALM,
    GUNICORNS,
    KEEPERS,
    PATIENCE,
    PROMPT,
    TABLE,
    Connection,
    Reply,
    ask,
    assert_landed,
    chunk,
    content,
)
from tests.support.waiting import wait_until

# -- A client that can misbehave ----------------------------------------------------------------------------------


def head_of(method: str, path: str, **headers: object) -> bytes:
    """A request's head; underscores in names are hyphens."""
    fields = {"Host": "localhost", "Tus_Resumable": "1.0.0", **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "\r\n"]).encode()


def patch_head(path: str, offset: int, length: int | None, **more: object) -> bytes:
    """The head of a PATCH; without a length its body is chunked."""
    framing = {"Transfer_Encoding": "chunked"} if length is None else {"Content_Length": length}
    return head_of(
        "PATCH", path, Content_Type="application/offset+octet-stream", Upload_Offset=offset, **framing, **more
    )


def create(served: Serving, length: int) -> str:
    """The path of a new upload."""
    reply = ask(served, "POST", head_of("POST", UPLOAD_PATH, Upload_Length=length, Content_Length=0))
    assert reply.status == 201
    return UPLOAD_PATH + reply.headers["location"].partition(UPLOAD_PATH)[2]


def offset_of(served: Serving, path: str) -> int:
    reply = ask(served, "HEAD", head_of("HEAD", path))
    assert reply.status == 200
    return int(reply.headers["upload-offset"])


def settled(served: Serving, path: str, expected: int) -> int:
    """The offset, once it has come to what is expected and then stayed for a while where it is."""
    wait_until(lambda: offset_of(served, path) >= expected)
    calm_since, offset = time.monotonic(), offset_of(served, path)
    while time.monotonic() < calm_since + CALM:
        now = offset_of(served, path)
        if now != offset:
            calm_since, offset = time.monotonic(), now
        time.sleep(0.02)
    return offset


def append(served: Serving, path: str, offset: int, data: bytes) -> Reply:
    return ask(served, "PATCH", patch_head(path, offset, len(data)) + data)


def finish(served: Serving, path: str, offset: int, data: bytes) -> None:
    """Go on from an offset to the end, and see that the application got the whole."""
    reply = append(served, path, offset, data[offset:])
    assert (reply.status, reply.headers["upload-offset"]) == (204, str(len(data)))
    assert_landed(served, path, data)


# -- A body that is cut -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["fin", "rst"])
def test_cut_keeps_exact_bytes_and_resumes(served, row, end):
    data = content(2_000_000)
    path = create(served, len(data))
    connection = Connection(served)
    connection.send(patch_head(path, 0, len(data)) + data[:1_000_000])
    connection.close() if end == "fin" else connection.reset()
    kept = row.fin if end == "fin" else row.rst
    assert settled(served, path, kept) == kept
    finish(served, path, kept, data)


def test_cut_of_a_later_patch_keeps_what_was_there(served, row):
    """Blocks are counted from the PATCH's own beginning, not from that of the upload."""
    data = content(2_000_100)
    path = create(served, len(data))
    assert append(served, path, 0, data[:100]).headers["upload-offset"] == "100"
    connection = Connection(served)
    connection.send(patch_head(path, 100, 2_000_000) + data[100:1_000_100])
    connection.reset()
    assert settled(served, path, 100 + row.rst) == 100 + row.rst
    finish(served, path, 100 + row.rst, data)


def test_half_closed_client_hears_how_far_it_came(served, row):
    data = content(2_000_000)
    path = create(served, len(data))
    with Connection(served) as connection:
        connection.send(patch_head(path, 0, len(data)) + data[:1_000_000])
        connection.half_close()
        reply = connection.reply_if_any()
    answer = reply is not None and reply.status != 400  # which is a server's own word
    assert answer == row.answers_half_closed
    if answer:
        assert (reply.status, reply.headers["upload-offset"]) == (204, str(row.fin))
    assert settled(served, path, row.fin) == row.fin
    finish(served, path, row.fin, data)


# -- A body that takes its time -----------------------------------------------------------------------------------


def test_slow_drip_is_counted_as_it_comes(served, row):
    data = content(200_000)
    path = create(served, len(data))
    with Connection(served) as connection:
        connection.send(patch_head(path, 0, len(data)))
        for start in range(0, 10_000, 2500):
            time.sleep(0.1)
            connection.send(data[start : start + 2500])
        assert settled(served, path, row.dripped) == row.dripped
        connection.send(data[10_000:100_000])
        assert settled(served, path, row.later) == row.later
        connection.send(data[100_000:])
        reply = connection.reply()
    assert (reply.status, reply.headers["upload-offset"]) == (204, str(len(data)))
    assert_landed(served, path, data)


def test_expectation_is_answered_before_the_body(served, row):
    data = content(100_000)
    path = create(served, len(data))
    with Connection(served) as connection:
        connection.send(patch_head(path, 0, len(data), Expect="100-continue"))
        if row.continues:
            assert connection.reply().status == 100
        connection.send(data)
        assert connection.reply().status == 204
    assert_landed(served, path, data)


# -- Two requests for one upload ----------------------------------------------------------------------------------


@pytest.mark.parametrize("completes", [True, False], ids=["completes", "goes-on"])
@pytest.mark.parametrize(("size", "sent"), [(150_000, 100_000), (20_000, 5000)], ids=["long", "short"])
def test_half_open_append_is_taken_over(served, row, size, sent, completes):
    """The old client is silent, not gone. What it sends after the takeover must not change a byte."""
    data, other = content(size), content(size, seed=1)
    path = create(served, size)
    with Connection(served) as old:
        old.send(patch_head(path, 0, size) + data[:sent])
        counted = row.later if size == 150_000 else 5000 if row.dripped else 0
        offset = settled(served, path, counted)
        assert offset == counted
        end = size if completes else offset + (size - offset) // 2
        began = time.monotonic()
        reply = append(served, path, offset, data[offset:end])
        assert time.monotonic() - began < PROMPT
        assert (reply.status, reply.headers["upload-offset"]) == (204, str(end))
        old.push(other[sent:] + head_of("HEAD", path))
        reply = old.reply()
        if reply.status == 204:  # a server that shows us the request only now, when it is a repetition of the last one
            assert completes
            assert not row.later
        else:
            assert reply.status == 409
        if row.keeps_alive:  # what was not read of the old body must not be taken for a request
            assert old.reply("HEAD").headers["upload-offset"] == str(end)
    assert offset_of(served, path) == end
    if not completes:
        finish(served, path, end, data)
    assert_landed(served, path, data)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
def test_a_client_that_vanishes_again_and_again_is_served_again_and_again(running, chunked):
    """Each time it leaves a connection half-open; there are more of them than the server has threads."""
    served = running["gunicorn-gthread"]
    data = content(150_000)
    path = create(served, len(data))
    with contextlib.ExitStack() as stack:
        for attempt in range(12):
            offset = attempt * 1000
            wait_until(lambda offset=offset: offset_of(served, path) == offset)
            connection = stack.enter_context(Connection(served))
            if chunked:
                connection.send(patch_head(path, offset, None) + chunk(data[offset : offset + 1000]))
            else:
                connection.send(patch_head(path, offset, len(data) - offset) + data[offset : offset + 1000])
        assert settled(served, path, 12_000) == 12_000
        finish(served, path, 12_000, data)
    assert_landed(served, path, data)


@pytest.mark.parametrize("lead", [0, 1, 2], ids=["heads-first", "one-piece-ahead", "two-pieces-ahead"])
@pytest.mark.parametrize("piece", [1000, 70_000], ids=["short", "long"])
def test_two_appends_at_one_offset_never_mix(served, piece, lead):
    """Their pieces come in turn; one of them has a lead, so that the other begins at different points of it.

    Where the second comes to us once the first has ended, it is a repetition, and hears the same.
    """
    for attempt in range(4):
        size = 3 * piece
        bodies = [content(size, seed) for seed in (2 * attempt, 2 * attempt + 1)]
        path = create(served, size)
        with Connection(served) as first, Connection(served) as second:
            first.send(patch_head(path, 0, size) + bodies[0][: lead * piece])
            second.push(patch_head(path, 0, size))
            for start in range(0, size, piece):
                if start >= lead * piece:
                    first.push(bodies[0][start : start + piece])
                second.push(bodies[1][start : start + piece])
            statuses = [first.reply().status, second.reply().status]
        # The second may come while the application has the file.
        assert sorted(statuses) in ([204, 409], [204, 204], [204, 423])
        assert_landed(served, path, *(body for body, status in zip(bodies, statuses, strict=True) if status == 204))


# -- Chunked bodies -----------------------------------------------------------------------------------------------


def test_chunked_body(served, row):
    pieces = [content(size, seed=size) for size in (1, 100_000, 65_536, 7)]
    data = b"".join(pieces)
    path = create(served, len(data))
    with Connection(served) as connection:
        connection.push(patch_head(path, 0, None) + b"".join(map(chunk, [*pieces, b""])))
        reply = connection.reply()
    assert reply.status == row.chunked
    if reply.status == 204:
        assert reply.headers["upload-offset"] == str(len(data))
    else:
        assert offset_of(served, path) == 0
        finish(served, path, 0, data)
    assert_landed(served, path, data)


def test_broken_chunked_body_keeps_exact_bytes_and_resumes(served, row):
    data = content(400_000)
    path = create(served, len(data))
    chunks = b"".join(chunk(data[start : start + 100_000]) for start in range(0, 400_000, 100_000))
    with Connection(served) as connection:
        connection.push(patch_head(path, 0, None) + chunks[:-50_002])
    kept = row.broken_chunks
    assert settled(served, path, kept) == kept
    finish(served, path, kept, data)


# -- Connections that go on ---------------------------------------------------------------------------------------


def test_early_refusal_can_be_read(served, row):
    """Over the loop-back the refusal arrives before the reset that a server sends which does not drain the body."""
    data = content(5_000_000)
    path = create(served, len(data))
    with Connection(served) as connection:
        sender = threading.Thread(target=connection.push, args=(patch_head(path, 1, len(data)) + data,))
        sender.start()
        reply = connection.reply()
        sender.join()
        assert reply.status == 409
        assert reply.headers["tus-resumable"] == "1.0.0"
        assert reply.body
        if row.drains:
            connection.send(head_of("HEAD", path))
            assert connection.reply("HEAD").headers["upload-offset"] == "0"
        elif row.drains is False:
            assert connection.ends(PATIENCE)
    finish(served, path, 0, data)


def test_pipelined_requests_keep_their_bytes(served, row):
    """Each body is followed at once by the next request, whose first bytes may be in a server's hands already."""
    sizes = (10, 1, 3000, 0, 100_000, 65_536, 65_537, 20)
    data = content(sum(sizes))
    path = create(served, len(data))
    requests, offset = b"", 0
    for size in sizes:
        requests += patch_head(path, offset, size) + data[offset : offset + size] + head_of("HEAD", path)
        offset += size
    with Connection(served) as connection:
        connection.push(requests)
        expected = 0
        for size in sizes if row.keeps_alive else sizes[:1]:
            expected += size
            reply = connection.reply()
            assert (reply.status, reply.headers["upload-offset"]) == (204, str(expected))
            if row.keeps_alive:
                assert connection.reply("HEAD").headers["upload-offset"] == str(expected)
        assert connection.ends(CALM if row.keeps_alive else PATIENCE) != row.keeps_alive
    if not row.keeps_alive:
        assert offset_of(served, path) == expected
        finish(served, path, expected, data)
    assert_landed(served, path, data)


@pytest.mark.parametrize("server", KEEPERS)
def test_one_connection_carries_an_upload_in_pieces(served):
    """The client waits for each reply; chunked bodies and refusals are among the requests."""
    data = content(300_000)
    path = create(served, len(data))
    with Connection(served) as connection:
        for offset in range(0, len(data), 100_000):
            connection.send(patch_head(path, offset, 90_000) + data[offset : offset + 90_000])
            assert connection.reply().headers["upload-offset"] == str(offset + 90_000)
            connection.send(patch_head(path, offset, 5) + b"wrong")
            assert connection.reply().status == 409
            rest = data[offset + 90_000 : offset + 100_000]
            connection.send(patch_head(path, offset + 90_000, None) + chunk(rest) + chunk(b""))
            assert connection.reply().headers["upload-offset"] == str(offset + 100_000)
    assert_landed(served, path, data)


def test_head_has_no_body(served):
    unfinished, finished = create(served, 1000), create(served, 3)
    assert append(served, finished, 0, b"abc").status == 204
    for path, status in [(unfinished, 200), (finished, 200), (f"{UPLOAD_PATH}/{'0' * 32}", 404), (UPLOAD_PATH, 405)]:
        with Connection(served) as connection:
            connection.send(head_of("HEAD", path, Connection="close"))
            head, _, body = connection.everything().partition(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        assert int(lines[0].split()[1]) == status
        assert body == b""
        lengths = [line for line in lines if line.startswith("content-length")]
        assert lengths in ([], ["content-length: 0"])
        assert not any(line.startswith("transfer-encoding") for line in lines)


# -- HTTP/2 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["hypercorn", "hypercorn-trio"])
def test_a_stream_that_is_reset_keeps_its_bytes(served):
    """And the connection goes on. Without a Content-Length, as HTTP/2 allows it."""
    data = content(400_000)
    path = create(served, len(data))
    url = f"http://127.0.0.1:{served.port}{path}"
    headers = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
    with httpx.Client(http1=False, http2=True) as client:

        def broken():
            yield data[:100_000]
            wait_until(lambda: offset_of(served, path) >= 65_535)  # what a stream may send before it is allowed more
            raise ConnectionError("the client gives up")

        with pytest.raises(ConnectionError):
            client.patch(url, content=broken(), headers=headers | {"Upload-Offset": "0"})
        assert settled(served, path, 100_000) == 100_000
        reply = client.patch(url, content=iter([data[100_000:]]), headers=headers | {"Upload-Offset": "100000"})
        assert (reply.http_version, reply.status_code) == ("HTTP/2", 204)
    assert_landed(served, path, data)


# -- A worker that dies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", GUNICORNS)
def test_killed_worker_loses_nothing_that_was_counted(server, tmp_path):
    data = content(8_000_000)
    with serving(server, tmp_path) as served:
        path = create(served, len(data))
        with Connection(served) as connection:
            connection.send(patch_head(path, 0, len(data)) + data[:1_000_000])
            assert settled(served, path, 1_000_000) == 1_000_000
            os.kill(served.worker_of(connection.socket), signal.SIGKILL)
            assert connection.reply_if_any() is None
        assert settled(served, path, 1_000_000) == 1_000_000
        finish(served, path, 1_000_000, data)


@pytest.mark.parametrize("server", GUNICORNS)
def test_killed_worker_in_full_flow(server, tmp_path):
    """Here bytes are on their way at every moment, so only the bounds of what is kept are known."""
    data = content(60_000_000)
    sent = len(data) - 1_000_000  # the rest never comes, if the worker is killed late
    with serving(server, tmp_path) as served:
        path = create(served, len(data))
        with Connection(served) as connection:
            sender = threading.Thread(target=pour, args=(connection, patch_head(path, 0, len(data)) + data[:sent]))
            sender.start()
            wait_until(lambda: offset_of(served, path) > 0)
            worker = served.worker_of(connection.socket)
            counted = offset_of(served, path)
            os.kill(worker, signal.SIGKILL)
            sender.join()
            assert connection.reply_if_any() is None
        offset = settled(served, path, counted)
        assert 0 < counted <= offset <= sent
        finish(served, path, offset, data)


def pour(connection: Connection, data: bytes) -> None:
    """Send in a stream of about 30 MB a second, until the other side is gone."""
    with contextlib.suppress(ConnectionError):
        for start in range(0, len(data), 100_000):
            connection.send(data[start : start + 100_000])
            time.sleep(0.003)


def test_the_documents_say_what_was_measured():
    """The table in docs/servers.rst is this one."""
    lines = (ROOT / "docs" / "servers.rst").read_text().splitlines()
    said = {}
    for line in lines:
        name = line.split(" ", 1)[0]
        if name in TABLE:
            columns = [column.replace(" ", "") for column in re.split(r" {2,}", line)[1:4]]
            said[name] = tuple(map(int, columns))
    assert said == {name: (row.fin, row.rst, row.broken_chunks) for name, row in TABLE.items()}
