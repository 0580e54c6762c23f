"""A response that comes before the end of a long body, and clients that look for it only after that end."""

from __future__ import annotations

import http.client

import pytest

from tests.support.serving import UPLOAD_PATH, Serving
from tests.support.sockets import PATIENCE, Connection
from tests.support.wsgi import OCTETS, TUS

#: More than the buffers of both sockets hold.
SIZE = 20_000_000

REFUSALS = {
    409: OCTETS | {"Upload-Offset": "5"},
    413: OCTETS | {"Upload-Offset": str(SIZE)},
}


def ask(served: Serving, method: str, path: str, fields: dict[str, str], body: bytes = b"") -> http.client.HTTPResponse:
    client = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
    try:
        client.request(method, path, body, TUS | fields)
        response = client.getresponse()
        response.read()
        return response
    finally:
        client.close()


def create(served: Serving) -> str:
    location = ask(served, "POST", UPLOAD_PATH, {"Upload-Length": str(SIZE + 1)}).headers["Location"]
    return UPLOAD_PATH + location.partition(UPLOAD_PATH)[2]


@pytest.mark.parametrize("status", REFUSALS)
def test_a_client_that_sends_first_gets_the_refusal(served, status):
    """Http.client, like Node.js, reports a broken pipe if a write fails, and never looks for the response."""
    path = create(served)
    if status == 413:
        part = OCTETS | {"Upload-Offset": "0"}
        assert ask(served, "PATCH", path, part, bytes(SIZE)).status == 204
    response = ask(served, "PATCH", path, REFUSALS[status], bytes(SIZE))
    assert response.status == status
    assert response.headers["Tus-Resumable"] == "1.0.0"


def test_a_client_that_sends_first_gets_the_refusal_of_a_creation(served):
    fields = OCTETS | {"Upload-Length": str(SIZE - 1)}
    assert ask(served, "POST", UPLOAD_PATH, fields, bytes(SIZE)).status == 413


def test_a_silent_client_gets_the_refusal_at_once(served):
    """The rest of the body is read behind the response."""
    if served.log.stem in ("waitress", "cheroot"):
        pytest.skip("this server reads the whole body before it sends a response")
    path = create(served)
    head = f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 5\r\n"
    head += f"Content-Type: application/offset+octet-stream\r\nContent-Length: {SIZE}\r\n\r\n"
    with Connection(served) as connection:
        connection.send(head.encode() + bytes(1000))
        assert connection.reply().status == 409
