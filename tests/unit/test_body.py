"""Reading a body: bounds, cuts of every kind, sizes of blocks, and gunicorn's socket."""

import os
import socket
import threading
import time
from types import SimpleNamespace

import pytest
from gunicorn.http.body import Body as GunicornBody
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.http.unreader import SocketUnreader

from tests.support.wsgi import Stream
from tus.server import body as body_module
from tus.server import body_gunicorn
from tus.server.body import LARGEST, SMALLEST, Body
from tus.server.body_gunicorn import GunicornInput
from tus.server.pace import Patience
from tus.server.piping import Piping


def whole(body):
    return b"".join(map(bytes, body.blocks()))


def sizes(body):
    return [len(block) for block in body.blocks()]


def test_a_known_length_bounds_every_read():
    body = Body(Stream(b"abcdef", ends=False), 4)
    assert whole(body) == b"abcd"
    assert (body.received, body.cut) == (4, False)


def test_an_unknown_length_ends_where_the_stream_does():
    body = Body(Stream(b"abcdef", ends=True), None)
    assert whole(body) == b"abcdef"
    assert (body.received, body.cut) == (6, False)


@pytest.mark.parametrize("length", [0, 1, SMALLEST, SMALLEST + 1, 3 * LARGEST + 7])
def test_every_byte_comes_once(length):
    data = bytes(range(251)) * (length // 251 + 1)
    for known in (length, None):
        assert whole(Body(Stream(data[:length], ends=known is None), known)) == data[:length]


def test_a_short_read_is_a_cut_with_its_bytes_kept():
    body = Body(Stream(b"abc", ends=True), 4)
    assert whole(body) == b"abc"
    assert body.cut


@pytest.mark.parametrize("error", [OSError(), ConnectionResetError(), ValueError(), RuntimeError(), KeyError()])
@pytest.mark.parametrize("length", [200_000, None])
def test_an_error_of_any_kind_is_a_cut_with_the_blocks_before_it_kept(error, length):
    body = Body(Stream(b"x" * 150_000, ends=False, error=error), length)
    assert sizes(body) == [SMALLEST, SMALLEST]
    assert body.cut


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()])
def test_the_end_of_the_process_is_not_swallowed(error):
    """gunicorn's sync worker raises SystemExit inside of read() when a request took too long."""
    seen = 0
    with pytest.raises(type(error)):
        for block in Body(Stream(b"x" * 150_000, ends=False, error=error), 200_000).blocks():
            seen += len(block)
    assert seen == 2 * SMALLEST


def test_blocks_grow_only_after_the_first_mib_and_only_while_bytes_come_fast(monkeypatch):
    quick = sizes(Body(Stream(bytes(20 * LARGEST), ends=True), None))
    assert quick[:16] == [SMALLEST] * 16
    assert max(quick) == LARGEST
    ticks = iter(range(10**9))
    monkeypatch.setattr(body_module.time, "monotonic", lambda: next(ticks))
    assert set(sizes(Body(Stream(bytes(4 * LARGEST), ends=True), None))) == {SMALLEST}


# -- gunicorn's socket --


class Connection:
    """Both ends of a connection, ours as gunicorn would have it after it has read the head of a request."""

    def __init__(self, length, buffered=b"", kind=socket.SOCK_STREAM):
        self.client, self.server = socket.socketpair(type=kind)
        unreader = SocketUnreader(self.server)
        unreader.unread(buffered)
        self.unreader = unreader
        self.input = GunicornBody(LengthReader(unreader, length))
        self.body = Body(self.input, length)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()
        self.server.close()


def test_the_socket_is_received_from_directly(monkeypatch):
    monkeypatch.setattr(GunicornBody, "read", None)
    data = bytes(range(256)) * 20_000
    with Connection(len(data), data[:100]) as connection:
        sender = threading.Thread(target=connection.client.sendall, args=(data[100:],))
        sender.start()
        assert whole(connection.body) == data
        sender.join()
        assert not connection.body.cut
        assert not connection.input.failed
        assert connection.input.reader.length == 0


@pytest.mark.skipif(not hasattr(os, "splice"), reason="only Linux splices")
def test_the_bytes_that_gunicorn_has_read_are_one_block_with_those_that_have_arrived():
    data = bytes(range(256)) * 500
    with Connection(len(data) + 1, data[:100]) as connection:
        connection.client.sendall(data[100:])
        connection.body.can_pour = lambda: True
        blocks = connection.body.blocks()
        assert bytes(next(blocks)) == data
        assert connection.body.received == len(data)
        connection.client.sendall(b"!")
        assert [bytes(block) for block in blocks] == [b"!"]
        assert not connection.body.cut


@pytest.mark.skipif(not hasattr(os, "splice"), reason="only Linux splices")
def test_the_next_request_is_not_taken_into_a_pipe():
    data = bytes(range(256)) * 500
    with Connection(len(data), data[:100]) as connection:
        connection.client.sendall(data[100:] + b"HEAD / HTTP/1.1")
        connection.body.can_pour = lambda: True
        assert whole(connection.body) == data
        assert connection.unreader.read(15) == b"HEAD / HTTP/1.1"


def test_a_socket_that_was_closed_gives_no_pipe():
    ours, theirs = socket.socketpair()
    theirs.close()
    ours.close()
    assert Piping(ours, lambda: True).receive(1 << 20, b"already there") is None


def test_the_next_request_on_the_connection_is_left_alone():
    for buffered, sent in ((b"abcdHEAD / HTTP/1.1", b""), (b"ab", b"cdHEAD / HTTP/1.1"), (b"", b"abcdHEAD / HTTP/1.1")):
        with Connection(4, buffered) as connection:
            connection.client.sendall(sent)
            assert whole(connection.body) == b"abcd"
            assert connection.unreader.read(15) == b"HEAD / HTTP/1.1"


def test_what_came_before_a_cut_is_given_out():
    with Connection(1000, b"abc") as connection:
        connection.client.sendall(b"def")
        connection.client.close()
        assert whole(connection.body) == b"abcdef"
        assert connection.body.cut
        assert connection.input.failed


def test_a_block_is_given_out_as_soon_as_there_is_one():
    with Connection(1000) as connection:
        blocks = connection.body.blocks()
        connection.client.sendall(b"abc")
        assert bytes(next(blocks)) == b"abc"
        connection.client.sendall(b"de")
        assert bytes(next(blocks)) == b"de"


def test_small_blocks_are_gathered(monkeypatch):
    """Each call receives one of these packets, as from a client that sends byte by byte."""
    monkeypatch.setattr(body_gunicorn, "GATHERING", 60)
    monkeypatch.setattr(body_gunicorn, "GATHERED", 60)
    with Connection(100, kind=socket.SOCK_SEQPACKET) as connection:
        for number in range(100):
            connection.client.send(bytes([number]))
        assert sizes(connection.body) == [60, 40]


def test_bytes_do_not_wait_long_for_others(monkeypatch):
    monkeypatch.setattr(body_gunicorn, "GATHERING", 0.01)
    with Connection(100) as connection:
        blocks = connection.body.blocks()
        connection.client.sendall(b"abc")
        assert bytes(next(blocks)) == b"abc", "the rest never comes"


def test_gathered_bytes_before_a_cut_are_given_out():
    with Connection(100, kind=socket.SOCK_SEQPACKET) as connection:
        connection.client.send(b"abc")
        connection.client.send(b"de")
        connection.client.close()
        assert whole(connection.body) == b"abcde"
        assert connection.body.cut


def test_a_server_that_stops_ends_its_bodies(monkeypatch):
    monkeypatch.setattr(body_gunicorn, "LOOK", 0.01)
    with Connection(1000, b"abc") as connection:
        blocks = connection.body.blocks()
        assert bytes(next(blocks)) == b"abc"
        monkeypatch.setattr(body_gunicorn, "_interrupted", False)
        body_gunicorn.interrupt_all()
        assert list(blocks) == []
        assert connection.body.cut


def test_anything_unfamiliar_is_read_like_any_stream():
    with Connection(4, b"abcd") as connection:
        direct = GunicornInput.of
        for strange in ("length", "unreader"):
            reader = connection.input.reader
            kept = getattr(reader, strange)
            setattr(reader, strange, None)
            assert direct(connection.input, 4) is None
            setattr(reader, strange, kept)
        assert direct(connection.input, 5) is None
        assert direct(connection.input, None) is None
        connection.server.settimeout(5)
        assert direct(connection.input, 4) is None
        assert whole(connection.body) == b"abcd"


# -- gunicorn's chunks --


def chunked(connection):
    connection.input = GunicornBody(ChunkedReader(SimpleNamespace(unreader=connection.unreader), connection.unreader))
    return Body(connection.input, None)


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def test_chunks_are_given_out_as_they_come(monkeypatch):
    monkeypatch.setattr(GunicornBody, "read", None)
    with Connection(0) as connection:
        body = chunked(connection)
        blocks = body.blocks()
        connection.client.sendall(chunk(b"abc"))
        assert next(blocks) == b"abc"
        connection.client.sendall(chunk(b"defg") + chunk(b"h")[:4])
        assert next(blocks) == b"defg"
        assert next(blocks) == b"h"
        connection.client.sendall(b"\r\n0\r\n\r\nHEAD / HTTP/1.1")
        assert list(blocks) == []
        assert (body.received, body.cut, connection.input.failed) == (8, False, False)
        assert connection.unreader.read(15) == b"HEAD / HTTP/1.1"


@pytest.mark.parametrize("rest", [b"", b"10\r\nxyz", b"zz\r\n", b"3\r\nxyzzz"])
def test_chunks_before_a_cut_or_a_broken_one_are_given_out(rest):
    with Connection(0) as connection:
        body = chunked(connection)
        connection.client.sendall(chunk(b"abc") + rest)
        connection.client.close()
        assert whole(body) in (b"abc", b"abcxyz")
        assert body.cut
        assert connection.input.failed


@pytest.mark.parametrize("chunks", [False, True], ids=["length", "chunks"])
def test_a_silent_connection_is_given_up(monkeypatch, chunks):
    monkeypatch.setattr(body_gunicorn, "LOOK", 0.01)
    with Connection(1000) as connection:
        body = chunked(connection) if chunks else connection.body
        body._patience = Patience(silence=0.05)
        connection.client.sendall(chunk(b"abc") if chunks else b"abc")
        assert whole(body) == b"abc"
        assert body.cut
        assert connection.input.failed


@pytest.mark.parametrize("chunks", [False, True], ids=["length", "chunks"])
def test_a_slow_connection_is_given_up(monkeypatch, chunks):
    monkeypatch.setattr(body_gunicorn, "LOOK", 0.01)
    with Connection(1000) as connection:
        body = chunked(connection) if chunks else connection.body
        body._patience = Patience(silence=0.1, min_rate=1000)
        received = 0
        connection.client.sendall(chunk(b"x") if chunks else b"x")
        for _ in body.blocks():
            received += 1
            connection.client.sendall(chunk(b"x") if chunks else b"x")
            assert received < 500, "a byte every now and then is not enough"
            time.sleep(0.01)
        assert body.cut
        assert body.received == received


@pytest.mark.parametrize("chunks", [False, True], ids=["length", "chunks"])
def test_a_body_that_nobody_wants_any_more_ends(monkeypatch, chunks):
    monkeypatch.setattr(body_gunicorn, "LOOK", 0.01)
    with Connection(1000) as connection:
        body = chunked(connection) if chunks else connection.body
        connection.client.sendall(chunk(b"abc") if chunks else b"abc")
        blocks = body.blocks()
        assert bytes(next(blocks)) == b"abc"
        body.is_wanted = lambda: False
        assert list(blocks) == []
        assert body.cut


def test_a_server_that_stops_ends_chunked_bodies(monkeypatch):
    monkeypatch.setattr(body_gunicorn, "LOOK", 0.01)
    with Connection(0) as connection:
        body = chunked(connection)
        connection.client.sendall(chunk(b"abc"))
        blocks = body.blocks()
        assert next(blocks) == b"abc"
        monkeypatch.setattr(body_gunicorn, "_interrupted", False)
        body_gunicorn.interrupt_all()
        assert list(blocks) == []
        assert body.cut


def test_a_slow_body_is_judged_from_its_first_read():
    now = [0.0]

    class Slow:
        def read(self, size):
            now[0] += 6
            return b"x"

    body = Body(Slow(), 100, Patience(silence=10, min_rate=1, clock=lambda: now[0]))
    assert list(body.blocks()) == [b"x", b"x"]
    assert body.cut
