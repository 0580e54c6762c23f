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
