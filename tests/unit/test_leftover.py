"""The rest of a body that is read behind a response: bounded, whatever the client does."""

import socket
import threading
import time

import pytest

from tests.support.waiting import GUARD
from tus.handover.attempt import Attempt
from tus.models import Request, Response
from tus.server import leftover


class Client:
    """Both ends of a connection, and the stream that wsgiref makes of one of them."""

    def __init__(self):
        self.socket, self.server = socket.socketpair()
        self.server.settimeout(GUARD)
        self.server.settimeout(None)
        self.stream = self.server.makefile("rb", -1)

    def unread(self):
        """How many bytes of the client are left in the server's socket."""
        self.server.setblocking(False)
        try:
            return len(self.server.recv(1 << 20))
        except BlockingIOError:
            return 0


@pytest.fixture
def client():
    client = Client()
    yield client
    client.socket.close()
    client.stream.close()
    client.server.close()


def response_to(client, length=None, body=(b"no",), received=0, **fields):
    headers = {} if length is None else {"Content-Length": str(length)}
    headers |= {name.replace("_", "-"): value for name, value in fields.items()}
    response = Response(409, "Conflict", [], body)
    leftover.read_behind(response, Request("PATCH", "http://localhost/", headers), client.stream, received)
    return response


def test_the_rest_is_read_when_the_response_is_closed(client):
    client.socket.sendall(bytes(50_000))
    response = response_to(client, 50_000)
    assert [*response.body] == [b"no"]
    response.body.close()
    assert client.unread() == 0


def test_what_the_stream_holds_already_counts(client):
    client.socket.sendall(bytes(5000))
    assert client.stream.read(1000) == bytes(1000)
    began = time.monotonic()
    response_to(client, 5000, received=1000).body.close()
    assert time.monotonic() - began < leftover.LONGEST


def test_the_next_request_is_not_read(client):
    client.socket.sendall(bytes(5000) + b"GET / HTTP/1.1")
    response_to(client, 5000).body.close()
    assert client.stream.read(14) == b"GET / HTTP/1.1"


def test_the_body_of_the_response_is_closed_first(client):
    closed = []

    class Blocks(list):
        def close(self):
            closed.append(client.unread())
            raise ValueError("the application's own")

    client.socket.sendall(bytes(5))
    with pytest.raises(ValueError, match="own"):
        response_to(client, 5, Blocks([b"no"])).body.close()
    assert closed == [5]


def test_an_empty_response_has_a_block(client):
    assert [*response_to(client, 5, ()).body] == [b""]


@pytest.mark.parametrize(
    ("length", "received", "fields"),
    [
        (None, 0, {}),
        ("", 0, {}),
        (0, 0, {}),
        (5, 5, {}),
        (-5, 0, {}),
        ("x", 0, {}),
        (5, 0, {"Expect": "100-continue"}),
        (None, 0, {"Transfer_Encoding": "chunked"}),  # wsgiref does not decode chunks
    ],
)
def test_nothing_is_read_of_a_body_that_is_read_or_not_sent(client, length, received, fields):
    assert response_to(client, length, received=received, **fields).body == (b"no",)


def test_a_stream_of_another_kind_is_left_alone():
    response = Response(409, "Conflict", [], (b"no",))
    request = Request("PATCH", "http://localhost/", {"Content-Length": "9"})
    leftover.read_behind(response, request, object(), 0)
    assert response.body == (b"no",)


def test_a_silent_client_is_left_after_a_time(client, monkeypatch):
    monkeypatch.setattr(leftover, "LONGEST", 0.05)
    response_to(client, 1000).body.close()
    client.socket.sendall(b"late")
    assert client.stream.read1(4) == b"late"  # the socket blocks again, as the server expects


def test_a_slow_client_is_left_after_a_time(client, monkeypatch):
    monkeypatch.setattr(leftover, "LONGEST", 0.2)
    ended = threading.Event()

    def drip():
        while not ended.wait(0.01):
            client.socket.send(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        response_to(client, 1_000_000).body.close()
    finally:
        ended.set()
        thread.join()


def test_a_fast_client_is_left_after_a_number_of_bytes(client, monkeypatch):
    monkeypatch.setattr(leftover, "LARGEST", 1000)
    client.socket.sendall(bytes(5000))
    response_to(client, 1_000_000).body.close()
    assert len(client.stream.read1(8192)) >= 1


def test_a_client_that_has_gone_is_no_error(client):
    client.socket.sendall(bytes(10))
    client.socket.close()
    response_to(client, 1_000_000).body.close()


def test_the_response_of_an_application_is_not_closed_before_it_is_sent(client):
    """A body around it must not be taken for another response, in whose place it would be closed."""

    class Answer:
        is_closed = False

        def __iter__(self):
            assert not self.is_closed
            return iter([b"a long ", b"answer"])

        def close(self):
            self.is_closed = True

    answer = Answer()
    attempt = Attempt(None, None, None, None)
    response = attempt.take_answer(Response(500, "Oops", [], answer)).answer
    attempt.drop_answer(response)
    leftover.read_behind(response, Request("PATCH", "http://localhost/", {"Content-Length": "9"}), client.stream, 9)
    attempt.drop_answer(Response(500, "Oops", [], ()))
    assert b"".join(response.body) == b"a long answer"
