"""A failure at every step of the hand-over, under unmodified clients: no success too early, and nothing is lost."""

from __future__ import annotations

import random
from contextlib import suppress
from urllib.request import urlopen

import pytest

from tests.acceptance.clients import TUSJS_KINDS, TUSPY_KINDS, tuspy
from tests.acceptance.rows import ENDS_TUSJS, OUTSIDE, row
from tests.acceptance.site import FAULTS, PATH, Site
from tests.support.waiting import GUARD, wait_until


@pytest.mark.parametrize("fault", FAULTS + OUTSIDE)
@pytest.mark.parametrize("kind", TUSPY_KINDS)
def test_tuspy(faulty_site, faulty_proxy, kind, fault):
    belief, keys = row(faulty_site, faulty_proxy, tuspy, kind, fault)
    assert belief.succeeded, belief
    assert keys


@pytest.mark.node
@pytest.mark.parametrize("fault", FAULTS + OUTSIDE)
@pytest.mark.parametrize("kind", TUSJS_KINDS)
def test_tusjs(faulty_site, faulty_proxy, tusjs, kind, fault):
    belief, keys = row(faulty_site, faulty_proxy, tusjs, kind, fault)
    if kind == "post" or (kind != "parts" and fault not in ENDS_TUSJS):
        assert belief.succeeded, belief
    if kind != "parts" and belief.succeeded:
        assert keys


@pytest.mark.parametrize("name", ["reject-1", "reject-2"])
def test_what_is_rejected_stays_so(faulty_site, faulty_proxy, name):
    belief = tuspy(faulty_proxy.origin + PATH, name, b"some data", "patch", patience=2)
    assert belief.was_rejected, belief
    assert len(faulty_site.lines("offered", name)) == 1
    faulty_site.hand_over_the_rest()
    assert faulty_site.lines("accepted", name) == []
    assert [upload.answer.status for upload in faulty_site.uploads() if upload.filename == name] == [415]


def test_in_the_background_a_promise_outlives_the_server(tmp_path):
    """Clients hear success before the application has the file, and the server is killed in just that moment."""
    with Site(tmp_path, first_delay=0.2, handover="background") as site:
        site.fail(None, 0.3)
        endpoint = f"http://127.0.0.1:{site.port}{PATH}"
        names = []
        for number in range(12):
            name, kind = f"take-{number}", TUSPY_KINDS[number % 2]
            data = b"" if kind == "empty" else random.randbytes(50_000)
            if tuspy(endpoint, name, data, kind).succeeded:
                names.append(name)
            site.kill_server()
            site.start_server()
        site.calm()
        assert len(names) > 6

        def have_arrived():
            with suppress(OSError):  # a process that was to die has done so just now
                urlopen(f"http://127.0.0.1:{site.port}/", timeout=GUARD).close()  # some request
            return set(names) <= {line["name"] for line in site.lines("accepted")}

        wait_until(have_arrived, "a file that a client was promised has not arrived")
        keys = [line["key"] for line in site.lines("accepted")]
        assert len(set(keys)) == len(keys)
