"""The IETF protocol on real servers and raw sockets: cuts, takeovers, interim responses, and a hand-over to join."""

from __future__ import annotations

import base64
import threading
import time

import pytest

from tests.support.serving import SERVERS, UPLOAD_PATH, Serving
from tests.support.sockets import GUNICORNS, PROMPT, Connection, ask, assert_landed, chunk, content
from tests.support.waiting import wait_until

NEWEST = 10


def head_of(method: str, path: str, **headers: object) -> bytes:
    """A request's head; underscores in names are hyphens."""
    fields = {"Host": "localhost", "Upload_Draft_Interop_Version": NEWEST, **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "\r\n"]).encode()


def patch_head(path: str, offset: int, length: int | None, complete: bool = True, **more: object) -> bytes:
    framing = {"Transfer_Encoding": "chunked"} if length is None else {"Content_Length": length}
    return head_of(
        "PATCH",
        path,
        Content_Type="application/partial-upload",
        Upload_Offset=offset,
        Upload_Complete="?1" if complete else "?0",
        **framing,
        **more,
    )


def create(served: Serving, **headers: object) -> str:
    reply = ask(served, "POST", head_of("POST", UPLOAD_PATH, Upload_Complete="?0", Content_Length=0, **headers))
    assert (reply.status, reply.headers["upload-complete"]) == (201, "?0")
    return UPLOAD_PATH + reply.headers["location"].partition(UPLOAD_PATH)[2]


def inspect(served: Serving, path: str) -> tuple[int, str]:
    """Offset and completeness; note that asking ends an append that is running."""
    reply = ask(served, "HEAD", head_of("HEAD", path))
    assert reply.status == 204
    return int(reply.headers["upload-offset"]), reply.headers["upload-complete"]


def counted(served: Serving, path: str) -> int:
    """The offset by a HEAD of tus, which ends no append: what has been sent before may still be on its way."""
    reply = ask(served, "HEAD", head_of("HEAD", path, Upload_Draft_Interop_Version=None, Tus_Resumable="1.0.0"))
    return int(reply.headers["upload-offset"])


def final_of(connection: Connection, method: str = "PATCH"):
    """The final response, behind interim ones."""
    while 100 <= (reply := connection.reply(method)).status < 200:
        pass
    return reply


def test_the_completing_reply_is_the_applications(served):
    data = content(150_000)
    path = create(served)
    with Connection(served) as connection:
        connection.send(patch_head(path, 0, 100_000, complete=False) + data[:100_000])
        assert connection.reply().headers["upload-offset"] == "100000"
    with Connection(served) as connection:
        connection.send(patch_head(path, 100_000, 50_000) + data[100_000:])
        reply = connection.reply()
    assert (reply.status, reply.headers["upload-complete"], reply.headers["x-app"]) == (200, "?1", "has it")
    assert reply.body == b"taken"
    assert_landed(served, path, data)
    assert inspect(served, path) == (150_000, "?1")


def test_cut_and_resumed(served, row):
    data = content(1_000_000)
    path = create(served)
    with Connection(served) as connection:
        connection.send(patch_head(path, 0, len(data) + 1) + data)
    wait_until(lambda: counted(served, path) >= row.fin)
    assert inspect(served, path) == (row.fin, "?0")
    with Connection(served) as connection:
        connection.send(patch_head(path, row.fin, len(data) + 1 - row.fin) + data[row.fin :] + b"!")
        assert connection.reply().headers["upload-complete"] == "?1"
    assert_landed(served, path, data + b"!")


def test_a_body_without_a_length_ends_the_upload(served, row):
    path = create(served)
    with Connection(served) as connection:
        connection.send(patch_head(path, 0, None) + chunk(b"some ") + chunk(b"data") + b"0\r\n\r\n")
        reply = connection.reply()
    if row.chunked == 411:
        assert reply.status == 411
        return
    assert (reply.status, reply.headers["upload-complete"]) == (200, "?1")
    assert_landed(served, path, b"some data")


def test_asking_for_the_offset_ends_a_half_open_append(served, row):
    """The old client is silent, not gone. What it sends after that must not change a byte, nor the offset told."""
    data, other = content(150_000), content(150_000, seed=1)
    path = create(served)
    with Connection(served) as old:
        old.send(patch_head(path, 0, len(data)) + data[:100_000])
        if row.later:
            wait_until(lambda: counted(served, path) >= row.later)
        began = time.monotonic()
        offset, complete = inspect(served, path)
        assert time.monotonic() - began < PROMPT
        assert (offset, complete) == (row.later, "?0")
        old.push(other[100_000:])
        old.reply_if_any()
        if not row.later:  # a server that shows us a request once it is whole: it is a new one then
            assert_landed(served, path, data[:100_000] + other[100_000:])
            return
        assert inspect(served, path) == (row.later, "?0")
    with Connection(served) as connection:
        connection.send(patch_head(path, offset, len(data) - offset) + data[offset:])
        assert connection.reply().headers["upload-complete"] == "?1"
    assert_landed(served, path, data)


@pytest.mark.parametrize("server", [*GUNICORNS, "gunicorn-asgi"], indirect=True)
def test_interim_responses(served):
    data = content(100_000)
    with Connection(served) as connection:
        connection.send(head_of("POST", UPLOAD_PATH, Upload_Complete="?1", Content_Length=len(data)))
        early = connection.reply_if_any("HEAD")
        assert early is not None
        assert (early.status, early.headers["upload-draft-interop-version"]) == (104, str(NEWEST))
        path = early.headers["location"].partition("127.0.0.1")[2] or early.headers["location"]
        path = UPLOAD_PATH + path.partition(UPLOAD_PATH)[2]
        assert "max-age" in early.headers["upload-limit"]
        connection.send(data[:60_000])
    wait_until(lambda: counted(served, path) == 60_000)
    with Connection(served) as connection:
        connection.send(patch_head(path, 60_000, 40_000) + data[60_000:70_000])
        for sent in (70_000, 80_000, 90_000):
            time.sleep(0.7)
            connection.send(data[sent : sent + 10_000])
        told = []
        while (reply := connection.reply("HEAD")).status == 104:
            assert "location" not in reply.headers
            told.append(int(reply.headers["upload-offset"]))
    assert reply.status == 200
    assert told
    assert told == sorted(told)
    assert set(told) <= set(range(70_000, 100_001, 10_000))
    assert_landed(served, path, data)


def test_no_interim_response_to_whom_it_is_not_meant(served):
    """To nobody of an unknown version, behind a proxy, or on another server."""
    unmeant = [{"Upload_Draft_Interop_Version": version} for version in (None, "99", '"9"')]
    unmeant += [{"Via": "1.1 proxy"}, {"X_Forwarded_For": "192.0.2.1"}]
    for headers in unmeant:
        with Connection(served) as connection:
            fields = {"Upload_Complete": "?1", "Content_Length": 4} | headers
            connection.send(head_of("POST", UPLOAD_PATH, **fields) + b"data")
            assert connection.reply("POST").status == 200


@pytest.mark.parametrize("server", [one for one in SERVERS if one != "gevent"], indirect=True)  # it would sleep as well
def test_a_running_hand_over_is_joined(served):
    """Whoever lost the reply asks again while the application is still at it, and hears the same; it is asked once."""
    seconds = base64.b64encode(b"0.6").decode()
    path = create(served, Upload_Metadata=f"seconds {seconds}")
    replies = []

    def complete(offset: int, data: bytes) -> None:
        with Connection(served) as connection:
            connection.send(patch_head(path, offset, len(data)) + data)
            replies.append(final_of(connection))

    first = threading.Thread(target=complete, args=(0, b"data"))
    first.start()
    handovers = served.handovers
    wait_until(lambda: handovers.exists() and path.rpartition("/")[2] in handovers.read_text())
    assert inspect(served, path) == (4, "?0")
    complete(4, b"")
    first.join()
    assert [(reply.status, reply.body, reply.headers["upload-complete"]) for reply in replies] == [
        (200, b"taken", "?1")
    ] * 2
    assert served.handovers.read_text().count(path.rpartition("/")[2]) == 1
