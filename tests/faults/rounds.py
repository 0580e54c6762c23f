"""One round: a life in a world of its own, in which one call fails."""

from __future__ import annotations

import contextlib
import gc
import os
import tempfile
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from tests.faults.calls import Call, Calls
from tests.faults.lives import Life
from tests.faults.world import World, require

#: A directory in which a sync takes no time; None if there is none.
_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


@dataclass(frozen=True)
class Round:
    """What happened.

    Attributes:
        calls: that were made, in this order.
        failed: the call that has failed, or None.
        violation: what must not happen and has, or None.
    """

    calls: list[Call]
    failed: Call | None
    violation: str | None


def run(life: Life, face: str, policy: str, at: int | None = None, fault: int | str = 0) -> Round:
    """Let a client live a life, and check what must hold."""
    with (
        tempfile.TemporaryDirectory(prefix="tus-faults-", dir=_MEMORY) as name,
        warnings.catch_warnings(),
        _uncollected(),
        mock.patch.object(tempfile, "tempdir", name),
    ):
        warnings.simplefilter("ignore", ResourceWarning)  # descriptors are checked here
        root = Path(name).resolve()
        world = World(root, face, life.options | {"fsync": policy}, life.manner)
        calls = Calls(str(root), at, fault)
        if policy == "none" and life.options.get("handover") == "background":
            world.may_lose_promised = lambda: calls.has_lost
        violation = None
        try:
            with calls.watched():
                life.live(world)
            if not calls.has_lost:
                require(world.restarts == 0, f"the upload was gone: {[(m, r.status) for m, r in world.replies]}")
            world.check_clean()
        except Exception as error:
            violation = "".join(traceback.format_exception_only(error)).strip()
            if not isinstance(error, AssertionError):
                violation += "\n" + "".join(traceback.format_tb(error.__traceback__)[-4:])
            world.service.close()
        return Round(calls.made, calls.failed, violation)


@contextlib.contextmanager
def _uncollected():
    """Collect no garbage, because nothing may depend on that: no claim, no lock and no descriptor."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
