"""What the commands of the client say about transfers, without a transfer."""

import argparse
import json

import pytest

from tus.cli import display
from tus.cli.choosing import Chosen
from tus.cli.display import Display, Events, Lines, make_display, progress_text, seconds_text
from tus.cli.transfers import Transfer
from tus.client import (
    Cancelled,
    ChecksumMismatch,
    ClientError,
    GaveUp,
    Headers,
    Progress,
    Refused,
    Response,
    UploadResult,
)

MIB = 1 << 20


@pytest.fixture
def clock(monkeypatch):
    """Seconds that a test sets."""
    clock = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: clock[0])
    return clock


@pytest.fixture
def transfer():
    return Transfer(Chosen("dir/film.mp4", "film.mp4", 4 * MIB))


def progress(kind="sent", sent=MIB, **others):
    return Progress(kind, sent=sent, total=4 * MIB, rate=MIB / 2, **others)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1:00 min"), (3725, "1:02:05")],
)
def test_seconds(seconds, text):
    assert seconds_text(seconds) == text


def test_progress():
    assert progress_text(progress()) == "25%, 1.0 MiB of 4.0 MiB, 512.0 KiB/s, 6.0 s left"
    assert progress_text(Progress("sent", sent=5)) == "5 B, 0 B/s"


def test_a_line_for_each_change(clock, transfer, capsys):
    lines = Lines()
    for seconds, event in (
        (0, progress("started", 0)),
        (1, progress("resumed", accepted=MIB)),
        (2, progress()),
        (9, progress("accepted")),
        (11, progress(sent=2 * MIB)),
        (12, progress(sent=3 * MIB)),
        (13, progress("waiting", reason="503, the server\x1b[31m asks for 20 s", wait=20.0)),
        (33, progress(sent=2 * MIB)),
        (34, progress("finished", 4 * MIB)),
    ):
        clock[0] = seconds
        lines.update(transfer, event)
    assert capsys.readouterr().err.splitlines() == [
        "film.mp4: resumed at 1.0 MiB of 4.0 MiB",
        "film.mp4: 50%, 2.0 MiB of 4.0 MiB, 512.0 KiB/s, 4.0 s left",
        "film.mp4: waiting 20 s: 503, the server\\x1b[31m asks for 20 s",
        "film.mp4: goes on, 50%, 2.0 MiB of 4.0 MiB, 512.0 KiB/s, 4.0 s left",
    ]


def test_an_event_a_second(clock, transfer, capsys):
    events = Events()
    for seconds in (5.0, 5.5, 6.0, 6.9):
        clock[0] = seconds
        events.update(transfer, progress(sent=int(seconds * 10)))
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["sent"] for event in shown] == [50, 60]


@pytest.mark.parametrize(
    ("error", "is_file", "status"),
    [
        (None, True, 3),
        (Cancelled("stopped"), True, 3),
        (Cancelled("stopped"), False, 1),
        (GaveUp("no server"), True, 3),
        (GaveUp("busy", response=Response(503, Headers())), True, 3),
        (GaveUp("too many requests", response=Response(429, Headers())), True, 3),
        (ChecksumMismatch("damaged", response=Response(460, Headers())), True, 4),
        (Refused("too large"), True, 4),
        (ClientError("no"), True, 1),
        (OSError(13, "Permission denied"), True, 1),
    ],
)
def test_the_exit_status_of_a_file(error, is_file, status):
    transfer = Transfer(Chosen("a" if is_file else iter(()), "a", None))
    transfer.error = error
    assert transfer.status == status


def test_a_complete_file(transfer, capsys):
    transfer.result = UploadResult("http://x/1", 4 * MIB, 4 * MIB, MIB, 1, "tus", Response(204, Headers()))
    transfer.seconds = 2.0
    Lines().succeed(transfer)
    assert capsys.readouterr().err == "film.mp4: done, 4.0 MiB in 2.0 s, 1.5 MiB/s, resumed at 1.0 MiB\n"
    assert transfer.status == 0


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, Lines),
        ({"progress": "plain"}, Lines),
        ({"progress": "none"}, Display),
        ({"quiet": True}, Display),
        ({"json": True, "quiet": True}, Events),
    ],
)
def test_which_display(options, kind):
    assert (
        type(make_display(argparse.Namespace(**{"progress": "auto", "json": False, "quiet": False} | options))) is kind
    )


def test_errors_are_always_shown(transfer, capsys):
    Display().fail(transfer, ClientError("no\nroom\x07"))
    assert capsys.readouterr().err == "tus: film.mp4: no room\\x07\n"
