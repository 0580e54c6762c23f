"""What a request costs in process, as benchmarks/core_cost.py counts it: a change that raises it says why."""

import contextlib
import importlib.util
from collections import Counter
from pathlib import Path

import pytest

from tus import events
from tus.server import view_claims
from tus.stores.directory import record

PATH = Path(__file__).parents[2] / "benchmarks" / "core_cost.py"

#: Calls of functions in Python, of all functions, and of the system. At first all were 309, 226 and 669.
MOST = {
    "create": {"functions": 78, "calls": 143, "system": 7},
    "HEAD": {"functions": 65, "calls": 110, "system": 5},
    "last PATCH": {"functions": 161, "calls": 278, "system": 29},
    "whole": {"functions": 185, "calls": 322, "system": 24},
}

#: The same of the middleware on asyncio, without the event loop itself: one call of a thread, two for a last PATCH.
MOST_ASGI = {
    "create": {"functions": 120, "calls": 264, "system": 7},
    "HEAD": {"functions": 101, "calls": 230, "system": 5},
    "last PATCH": {"functions": 238, "calls": 445, "system": 29},
    "whole": {"functions": 267, "calls": 517, "system": 24},
}

#: The same with the receiver of ``tus serve``, which saves the file. At first the whole took 286, 605 and 48.
MOST_SERVED = {
    "last PATCH": {"functions": 190, "calls": 351, "system": 41},
    "whole": {"functions": 214, "calls": 395, "system": 36},
}


@pytest.fixture(scope="module")
def core_cost():
    spec = importlib.util.spec_from_file_location("core_cost", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def quiet(monkeypatch):
    for kind in events.listeners:  # other tests may have registered the metrics
        monkeypatch.setitem(events.listeners, kind, ())
    monkeypatch.setattr(record, "_unmarked", set())
    monkeypatch.setattr(view_claims, "_held", {})  # of other tests, at which each request looks


@pytest.fixture
def calls(core_cost, quiet, tmp_path):
    return core_cost.list_calls(core_cost.Site(str(tmp_path)))


@pytest.mark.parametrize("kind", MOST)
def test_a_request_makes_no_more_calls(kind, calls, core_cost):
    made = core_cost.count_calls(calls[kind])
    assert all(made[what] <= most for what, most in MOST[kind].items()), (made, Counter(calls[kind]).most_common())


def test_a_file_that_tus_serve_saves_takes_no_more_calls(core_cost, quiet, tmp_path):
    calls = core_cost.list_calls(core_cost.ServingSite(str(tmp_path)))
    for kind, most in MOST_SERVED.items():
        made = core_cost.count_calls(calls[kind])
        assert all(made[what] <= most[what] for what in most), (kind, made, Counter(calls[kind]).most_common())


def test_a_request_to_the_middleware_makes_no_more_calls(core_cost, quiet, tmp_path):
    with contextlib.closing(core_cost.AsgiSite(str(tmp_path))) as site:
        calls = core_cost.list_calls(site)
    for kind, most in MOST_ASGI.items():
        made = core_cost.count_calls(calls[kind])
        assert all(made[what] <= most[what] for what in most), (kind, made, Counter(calls[kind]).most_common())
