"""Waiting for what a test has set going."""

import time

#: Seconds after which a test that hangs is given up. No test measures by it: on a loaded machine much is slow.
GUARD = 60


def wait_until(condition, what="it does not happen"):
    """Wait for a condition, which is looked at again and again."""
    deadline = time.monotonic() + GUARD
    while not condition():
        assert time.monotonic() < deadline, what() if callable(what) else what
        time.sleep(0.01)
