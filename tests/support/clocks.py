"""Time that passes without waiting: by the clock that operators set, and by the one that only counts seconds."""

import contextlib
import time
from unittest import mock


@contextlib.contextmanager
def later(seconds):
    """Let both clocks tell a later time."""
    now, steady = time.time, time.clock_gettime
    with (
        mock.patch("time.time", lambda: now() + seconds),
        mock.patch("time.clock_gettime", lambda clock: steady(clock) + seconds),
    ):
        yield


class Clocks:
    """Two clocks of one machine, for the arguments ``clock`` and ``steady`` of a store: an operator sets the first."""

    def __init__(self):
        self.now, self.up = 1_700_000_000.0, 50_000.0

    def __call__(self):
        return self.now

    def steady(self):
        return self.up

    def wait(self, seconds):
        self.now += seconds
        self.up += seconds
