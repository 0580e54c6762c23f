"""The short form of ``python -m tests.faults``: each line that makes a system call fails in some life."""

import logging
from contextlib import nullcontext, suppress
from unittest import mock

import pytest

from tests.faults.calls import FAULTS, can_happen
from tests.faults.lives import LIVES
from tests.faults.rounds import run
from tus.hooks.outbox import Outbox
from tus.protocols.effects import Settle
from tus.server.runner_sync import SyncRunner
from tus.stores.directory.record import SideCar

POLICY = "finish"


@pytest.fixture(scope="module")
def plan():
    """Return for each life the indexes of calls from lines that no earlier life has reached."""
    seen, plan = set(), {}
    for life in LIVES:
        lived = run(life, "wsgi", POLICY)
        assert lived.violation is None
        plan[life.name] = []
        for at, call in enumerate(lived.calls):
            if (call.name, call.site) not in seen:
                seen.add((call.name, call.site))
                plan[life.name].append((at, call))
    assert len(seen) > 50
    return plan


@pytest.fixture(autouse=True)
def _quiet():
    """Write no log; each fault has a traceback in it."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def faults_of(plan, life):
    return [(at, fault) for at, call in plan[life.name] for fault in FAULTS if can_happen(call, fault)]


@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.name)
def test_each_call_fails_once(plan, life):
    for at, fault in faults_of(plan, life):
        result = run(life, "wsgi", POLICY, at, fault)
        assert result.violation is None, (fault, str(result.failed), result.violation)


@pytest.mark.parametrize("face", ["wsgi", "asgi"])
@pytest.mark.parametrize("policy", ["none", "always"])
def test_each_call_of_a_life_fails_once(face, policy):
    """Not only each line: of each call of a life in one request, under the other policies."""
    life = next(life for life in LIVES if life.name == "ietf at once")
    for at in range(len(run(life, face, policy).calls)):
        result = run(life, face, policy, at, FAULTS[at % 2])
        assert result.violation is None, (str(result.failed), result.violation)


def _settle_or_raise(attempt, effect):
    claim = attempt._claimed()
    claim.accept(effect.answer)
    attempt.claim = None
    return claim.upload


def _put_or_forget(outbox, stream, event):
    with suppress(OSError):
        _put(outbox, stream, event)


_put = Outbox._put

#: For each mutant the life that finds it, the change, and a part of what is found.
MUTANTS = {
    "nothing": ("tus in blocks", nullcontext(), None),
    "a failed sync is forgotten": (
        "tus in blocks",
        mock.patch.object(SideCar, "mark", lambda *_, **__: None),
        "not those sent",
    ),
    "an error of the outbox is forgotten": (
        "webhook, tus at once",
        mock.patch.object(Outbox, "_put", _put_or_forget),
        "is missing",
    ),
    "an error after the acceptance is told": (
        "tus at once",
        mock.patch.dict(SyncRunner._PERFORM, {Settle: _settle_or_raise}),
        "after the application has accepted",
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_found(mutant):
    name, change, found = MUTANTS[mutant]
    life = next(life for life in LIVES if life.name == name)
    violations = []
    with change:
        for at, call in enumerate(run(life, "wsgi", POLICY).calls):
            if call.name in ("fdatasync", "fsync", "flock", "pwrite"):
                violations.append(run(life, "wsgi", POLICY, at, FAULTS[0]).violation)
    violations = [text for text in violations if text is not None]
    assert bool(violations) == (found is not None), violations
    assert found is None or any(found in text for text in violations), violations
