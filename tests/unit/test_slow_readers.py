"""Clients that read a download more slowly than ``min_rate``, by a clock that passes only here."""

import io
import socket

import anyio
import pytest

from tests.support.subjects import AsgiSubject, FilterSubject
from tus.adapters.asgi import AsgiAdapter
from tus.adapters.filebody import FileBody
from tus.models import Response
from tus.server import body_gunicorn
from tus.server.pace import Patience
from tus.server.sending_gunicorn import Sending

SIZE = 1 << 20
PIECE = 64 << 10


class Clock:
    """Seconds that pass only if the test says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


def sent_under_asgi(clock, seconds, patience):
    """The bytes that a client gets that reads 64 KiB in so many seconds, and whether the response was whole."""
    file, sent = io.BytesIO(bytes(SIZE)), []

    async def send(message):
        clock.wait(seconds)
        sent.append(message)

    async def respond():
        scope = {"type": "http", "method": "GET", "http_version": "1.1", "headers": [], "path": "/", "scheme": "http"}
        adapter = AsgiAdapter(scope, anyio.sleep_forever, send)
        adapter.respond(Response(200, "OK", [], FileBody(file, 0, SIZE, reaches_end=True)))
        await adapter.send_response(patience)

    anyio.run(respond)
    assert file.closed
    return sum(len(message.get("body", b"")) for message in sent), not sent[-1].get("more_body")


@pytest.mark.parametrize(("seconds", "pieces"), [(599, 2), (200, 3), (132, 5)])
def test_under_asgi_a_reader_below_the_rate_is_cut(clock, seconds, pieces):
    """Each of its blocks comes in time."""
    patience = Patience(silence=600, min_rate=500, clock=clock)
    assert sent_under_asgi(clock, seconds, patience) == (pieces * PIECE, False)


@pytest.mark.parametrize("rate", [500, 0])
def test_under_asgi_a_reader_above_the_rate_gets_everything(clock, rate):
    patience = Patience(silence=600, min_rate=rate, clock=clock)
    assert sent_under_asgi(clock, 130 if rate else 599, patience) == (SIZE, True)


def test_under_asgi_the_options_say_how_slow_a_reader_may_be(tmp_path, clock, monkeypatch):
    subject = AsgiSubject(
        tmp_file_dir=str(tmp_path), download=True, keep_finished=True, stall_timeout=60, min_rate=500, threads=False
    )
    url = subject.url(SIZE, body=bytes(SIZE))
    reading = subject.app.app._uploads._reading
    assert (reading.silence, reading.min_rate) == (600, 500)
    assert len(subject.send("GET", url).body) == SIZE
    reading.clock = clock
    start = FileBody.__iter__

    def slow(body):
        for block in start(body):
            clock.wait(PIECE)
            yield block

    monkeypatch.setattr(FileBody, "__iter__", slow)
    with pytest.raises(AssertionError):
        subject.send("GET", url)


# -- Under gunicorn, which lends its socket --


class NeverWritable:
    """The poll of a socket whose client reads so little that its buffer stays full."""

    def __init__(self, clock, looks):
        self.clock = clock
        self.looks = looks

    def poll(self, milliseconds):
        self.clock.wait(milliseconds / 1000)
        self.looks -= bool(milliseconds)
        return self.looks < 0


def sent_under_gunicorn(clock, rate, looks):
    """The seconds until a download ended whose client acknowledges so many bytes each second."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sending = Sending([bytes(1000)], ours, Patience(silence=60, min_rate=500, clock=clock))
        sending._poll = NeverWritable(clock, looks)
        sending._queued = lambda: -int(rate * clock.now)  # relative to what was there at the start
        return len(b"".join(sending)), clock.now


def test_under_gunicorn_a_reader_below_the_rate_is_cut(clock):
    size, seconds = sent_under_gunicorn(clock, rate=100, looks=100_000)
    assert (size, 60 <= seconds < 62) == (0, True)


def test_under_gunicorn_a_reader_above_the_rate_is_waited_for(clock):
    size, seconds = sent_under_gunicorn(clock, rate=600, looks=2000)
    assert (size, seconds) == (1000, 2001 * body_gunicorn.LOOK)


def test_a_long_response_of_the_application_is_watched_too(tmp_path):
    """It lies in a file, which the end of the request must not close before the client has it."""
    subject = FilterSubject(tmp_file_dir=str(tmp_path))
    subject.answer = bytes(3 << 20)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        environ = {"gunicorn.socket": ours, "SERVER_PROTOCOL": "HTTP/1.1"}
        fields = {"Upload-Draft-Interop-Version": "8", "Upload-Complete": "?1"}
        reply = subject.send("POST", headers=fields, body=b"abc", environ=environ)
    assert (reply.status, reply.body == subject.answer) == (200, True)
