"""Events are made for the functions that listen, and for no others."""

import logging
from dataclasses import dataclass

import pytest

from tus import events
from tus.events import Answered, Ended, emit, ignore, is_wanted, listen
from tus.monitoring.logs import log_events

pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for kind in events.listeners:
        monkeypatch.setitem(events.listeners, kind, ())
    monkeypatch.setattr(events, "_conditions", [])


def test_an_event_is_wanted_while_a_function_listens():
    def hear(event):
        pass

    assert not is_wanted(Ended)
    listen(hear, Ended)
    assert is_wanted(Ended)
    assert not is_wanted(Answered)
    ignore(hear)
    assert not is_wanted(Ended)


def test_the_log_wants_the_events_of_its_levels(caplog):
    log_events()
    caplog.set_level(logging.WARNING, "tus.requests")
    caplog.set_level(logging.WARNING, "tus.uploads")
    assert not is_wanted(Answered)
    assert not is_wanted(Ended)
    caplog.set_level(logging.DEBUG, "tus.requests")
    caplog.set_level(logging.INFO, "tus.uploads")
    assert is_wanted(Answered)
    assert is_wanted(Ended)


def test_an_object_without_a_hash_can_listen():
    @dataclass
    class Counter:
        count: int = 0

        def __call__(self, event):
            self.count += 1

    listen(counter := Counter(), Answered)
    assert is_wanted(Answered)
    emit(Answered("HEAD", 200, "OK", None, 0, False, 0, 0.0))
    assert counter.count == 1


def test_a_function_that_was_ignored_can_listen_at_all_times():
    def hear(event):
        pass

    listen(hear, Ended, when=lambda: False)
    listen(hear, Ended)  # a second registration does nothing
    assert not is_wanted(Ended)
    ignore(hear)
    listen(hear, Ended)
    assert is_wanted(Ended)
