"""Events are made for the functions that listen, and for no others."""

import logging

import pytest

from tus import events
from tus.events import Answered, Ended, ignore, is_wanted, listen
from tus.monitoring.logs import log_events

pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for kind in events.listeners:
        monkeypatch.setitem(events.listeners, kind, ())


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
