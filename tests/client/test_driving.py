"""The account of progress, the pace, and the fields of a request."""

import pytest

from tus.client.commands import Progress
from tus.client.driving import Kept, Meter, Pacer, wire_headers
from tus.client.messages import Request


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_the_rate_is_that_of_the_last_seconds():
    clock = Clock()
    meter = Meter(clock)
    meter.report(Progress("started", total=10**9))
    position = 0
    for _ in range(200):
        clock.now += 0.1
        position += 1000
        meter.sent(position, 1000)
    assert meter.last.rate == pytest.approx(10_000)
    for _ in range(100):
        clock.now += 0.1
        position += 5000
        meter.sent(position, 5000)
    assert meter.last.rate == pytest.approx(50_000, rel=0.01)


def test_a_block_costs_the_same_however_many_came():
    """All blocks of a fast upload of many GiB fall into the seconds of one rate."""
    clock = Clock()
    meter = Meter(clock)
    meter.report(Progress("started", total=10**9))
    for number in range(100_000):
        clock.now += 0.00001
        meter.sent(number, 1)
    assert len(meter._samples) < 30


def test_progress_is_passed_on_now_and_then_and_at_the_end():
    clock = Clock()
    meter = Meter(clock)
    meter.report(Progress("started", total=1000))
    passed = []
    for position in range(10, 1010, 10):
        clock.now += 0.01
        passed += [progress.sent for progress in [meter.sent(position, 10)] if progress]
    assert len(passed) in range(18, 23)
    assert passed[-1] == 1000


def test_parts_add_up():
    clock = Clock()
    meter = Meter(clock)
    meter.report(Progress("started", total=100))
    parts = [meter.part() for _ in range(2)]
    assert [part.report(Progress("started", total=50)) for part in parts] == [None, None]
    told = parts[0].report(Progress("resumed", sent=20, accepted=20, resumed_from=20, total=50))
    assert (told.kind, told.sent, told.accepted, told.resumed_from, told.total) == ("resumed", 20, 20, 20, 100)
    clock.now += 1
    told = parts[1].sent(30, 30)
    assert (told.kind, told.sent, told.accepted) == ("sent", 50, 20)
    told = parts[1].report(Progress("waiting", sent=30, accepted=30, attempt=2, reason="503", wait=2.0))
    assert (told.sent, told.accepted, told.attempt, told.reason, told.wait) == (50, 50, 2, "503", 2.0)


def test_the_pace():
    clock = Clock()
    pacer = Pacer(1_000_000, clock)
    assert pacer.block == 100_000
    assert pacer.delay(100_000) == 0.0
    assert pacer.delay(100_000) == pytest.approx(0.1)
    clock.now += 10
    assert pacer.delay(100_000) == 0.0
    assert Pacer(None, clock).delay(10**9) == 0.0


def test_the_fields_of_the_protocol_win():
    fields = wire_headers(
        Request("PATCH", "/", {"Tus-Resumable": "1.0.0"}), {"tus-resumable": "no", "user-agent": "me"}
    )
    assert {name.lower(): value for name, value in fields} == {
        "accept-encoding": "identity",
        "tus-resumable": "1.0.0",
        "user-agent": "me",
    }


def test_a_response_is_kept_up_to_a_bound():
    kept = Kept()
    assert kept.add(b"a" * 1_000_000)
    assert not kept.add(b"b" * 100_000)
    assert len(kept.whole()) == 1 << 20
