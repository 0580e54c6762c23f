"""A creation whose response is lost, on real servers: repeated with its key, it makes no second upload."""

from __future__ import annotations

import threading
import uuid

import pytest

from tests.support.serving import UPLOAD_PATH, Serving
from tests.support.sockets import Connection, Reply, assert_landed, content
from tests.support.waiting import wait_until

SIZE = 1_000_000
PROTOCOLS = {
    "tus": {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream", "Upload-Length": SIZE},
    "ietf": {"Upload-Draft-Interop-Version": 9, "Upload-Complete": "?1"},
}


def head_of(method: str, path: str, size: int, fields: dict[str, object]) -> bytes:
    lines = [f"{name}: {value}" for name, value in {"Host": "localhost", "Content-Length": size, **fields}.items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "\r\n"]).encode()


def send(served: Serving, head: bytes, data: bytes) -> Reply:
    """Send a request, and read while sending, because the response may come before the end of the body."""
    with Connection(served) as connection:
        sender = threading.Thread(target=connection.push, args=(head + data,))
        sender.start()
        while 100 <= (reply := connection.reply(head.split()[0].decode())).status < 200:
            pass
        sender.join()
        return reply


def create_until_answered(served: Serving, head: bytes, data: bytes) -> Reply:
    """Repeat the creation while the first one is still being handled."""
    replies: list[Reply] = []

    def is_answered() -> bool:
        replies.append(send(served, head, data))
        return replies[-1].status not in (409, 423, 503)

    wait_until(is_answered)
    return replies[-1]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("sent", [0, SIZE // 2, SIZE], ids=["no-byte", "half", "all"])
@pytest.mark.parametrize("end", ["fin", "rst"])
def test_a_creation_without_a_response_is_repeated(served, protocol, sent, end):
    data = content(SIZE, seed=sent)
    fields = PROTOCOLS[protocol] | {"Idempotency-Key": f'"{uuid.uuid4()}"'}
    head = head_of("POST", UPLOAD_PATH, SIZE, fields)
    before = {path.name for path in served.store.glob("*.tus")}
    first = Connection(served)
    first.send(head + data[:sent])
    first.reset() if end == "rst" else first.close()
    reply = create_until_answered(served, head, data)
    assert reply.status in (200, 201), reply
    path = UPLOAD_PATH + reply.headers["location"].partition(UPLOAD_PATH)[2]
    offset = int(reply.headers["upload-offset"])
    if protocol == "ietf":
        assert reply.headers["upload-complete"] == ("?1" if offset == SIZE else "?0")
        append = {"Content-Type": "application/partial-upload"} | PROTOCOLS["ietf"]
    else:
        append = {"Content-Type": "application/offset+octet-stream", "Tus-Resumable": "1.0.0"}
    if offset < SIZE:
        head_of_rest = head_of("PATCH", path, SIZE - offset, append | {"Upload-Offset": offset})
        assert send(served, head_of_rest, data[offset:]).status in (200, 204)
    assert_landed(served, path, data)
    again = create_until_answered(served, head, data)
    assert (again.headers["location"], again.headers["upload-offset"]) == (reply.headers["location"], str(SIZE))
    assert len({each.name for each in served.store.glob("*.tus")} - before) == 1
    assert served.handovers.read_text().count(path.rpartition("/")[2]) == 1
