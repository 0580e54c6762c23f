"""A row of the table of failures: one upload over which one thing fails."""

from __future__ import annotations

import random
import threading
import time

from tests.acceptance.site import PATH

OUTSIDE = ("receiver killed", "PATCH reply lost", "POST reply lost", "HEAD reply lost")
#: After these tus-js-client gives up a PATCH, and a POST without a byte; its user has to log in, or whatever is wanted.
ENDS_TUSJS = {"before 400", "before 401", "before 403", "before 404", "before 405"}


def row(site, proxy, client, kind, fault):
    """One upload over which one thing fails, and what has come of it in the end."""
    name = f"take-{kind}-{time.monotonic_ns()}"
    data = b"" if kind == "empty" else random.randbytes(100_000)
    later = None
    if fault.endswith("reply lost"):
        proxy.lose_reply(fault.split()[0], when=lambda seen: seen.headers.get("upload-offset") != "0")
    elif fault == "receiver killed":
        site.kill_receiver()
        later = threading.Timer(0.5, site.start_receiver)
        later.start()
    else:
        site.fail(fault)
    belief = client(proxy.origin + PATH, name, data, kind, patience=30)
    if later is not None:
        later.join()
    assert not site.is_fault_due(), "it did not happen"
    accepted = site.lines("accepted", name)
    if belief.succeeded:
        assert accepted, "success was reported, and the file was not accepted"
        assert accepted[0]["at"] <= belief.at + 0.001, "success was reported before the file was accepted"
    if belief.url is not None and not belief.succeeded and kind != "parts":
        assert belief.url.rpartition("/")[2] in site.pending(), "it is neither accepted nor pending"
    site.hand_over_the_rest()
    accepted = site.lines("accepted", name)
    keys = [line["key"] for line in accepted]
    assert len(set(keys)) == len(keys), "it was accepted twice by its key"
    if kind == "patch":
        assert len(keys) == 1
    return belief, keys
