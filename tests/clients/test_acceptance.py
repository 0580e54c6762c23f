"""A failure at every step of the hand-over, under unmodified clients: no success too early, and nothing is lost."""

from __future__ import annotations

import random
import threading
import time
from contextlib import suppress
from urllib.request import urlopen

import pytest

from tests.acceptance.clients import TUSJS_IETF_KINDS, TUSJS_KINDS, TUSPY_KINDS, TusJs, tuspy
from tests.acceptance.frameworks import FRAMEWORKS
from tests.acceptance.rounds import BrokenPromise, Rounds
from tests.acceptance.site import FAULTS, PATH, SABOTAGE, Site
from tests.support.cutting_proxy import CuttingProxy
from tests.support.tusjs import Node

OUTSIDE = ("receiver killed", "PATCH reply lost", "POST reply lost", "HEAD reply lost")
#: After these tus-js-client gives up a PATCH, and a POST without a byte; its user has to log in, or whatever is wanted.
ENDS_TUSJS = {"before 400", "before 401", "before 403", "before 404", "before 405"}


@pytest.fixture(scope="module", params=["gthread", "asgi"])
def site(request, tmp_path_factory):
    with Site(tmp_path_factory.mktemp("acceptance"), first_delay=3600, worker=request.param) as site:
        yield site


@pytest.fixture
def proxy(site):
    with CuttingProxy(site.port) as proxy:
        yield proxy
        proxy._faults.clear()  # that of a request which did not come


@pytest.fixture(scope="session")
def tusjs(packages):
    node = Node("4", packages)
    problem = node.install()
    if problem:
        pytest.fail(problem, pytrace=False)
    return TusJs(node.directory)


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
    listed = {upload["id"] for upload in site.uploads("--pending") if upload["is_known"]}
    if belief.url is not None and not belief.succeeded and kind != "parts":
        assert belief.url.rpartition("/")[2] in listed, "it is neither accepted nor pending"
    site.hand_over_the_rest()
    accepted = site.lines("accepted", name)
    keys = [line["key"] for line in accepted]
    assert len(set(keys)) == len(keys), "it was accepted twice by its key"
    if kind == "patch":
        assert len(keys) == 1
    return belief, keys


@pytest.mark.parametrize("fault", FAULTS + OUTSIDE)
@pytest.mark.parametrize("kind", TUSPY_KINDS)
def test_tuspy(site, proxy, kind, fault):
    belief, keys = row(site, proxy, tuspy, kind, fault)
    assert belief.succeeded, belief
    assert keys


@pytest.mark.node
@pytest.mark.parametrize("fault", FAULTS + OUTSIDE)
@pytest.mark.parametrize("kind", TUSJS_KINDS)
def test_tusjs(site, proxy, tusjs, kind, fault):
    belief, keys = row(site, proxy, tusjs, kind, fault)
    if kind == "post" or (kind != "parts" and fault not in ENDS_TUSJS):
        assert belief.succeeded, belief
    if kind != "parts" and belief.succeeded:
        assert keys


@pytest.mark.node
@pytest.mark.parametrize("fault", FAULTS + OUTSIDE)
@pytest.mark.parametrize("kind", TUSJS_IETF_KINDS)
def test_tusjs_over_ietf(site, proxy, tusjs, kind, fault):
    belief, keys = row(site, proxy, tusjs.speaking("ietf-draft-05"), kind, fault)
    if fault not in ENDS_TUSJS:
        assert belief.succeeded, belief
    if belief.succeeded:
        assert keys


@pytest.mark.parametrize("name", ["reject-1", "reject-2"])
def test_what_is_rejected_stays_so(site, proxy, name):
    belief = tuspy(proxy.origin + PATH, name, b"some data", "patch", patience=2)
    assert belief.was_rejected, belief
    assert len(site.lines("offered", name)) == 1
    site.hand_over_the_rest()
    assert site.lines("accepted", name) == []
    assert [upload["answer"] for upload in site.uploads() if upload["filename"] == name] == [415]


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
        deadline = time.monotonic() + 30
        while (accepted := {line["name"] for line in site.lines("accepted")}) < set(names):
            assert time.monotonic() < deadline, set(names) - accepted
            with suppress(OSError):  # a process that was to die has done so just now
                urlopen(f"http://127.0.0.1:{site.port}/", timeout=5).close()  # some request of somebody
            time.sleep(0.1)
        keys = [line["key"] for line in site.lines("accepted")]
        assert len(set(keys)) == len(keys)


def test_random_deaths(tmp_path):
    """The short form of ``python -m tests.acceptance``."""
    print(Rounds(tmp_path, None, clients=3, probability=0.3).run(kills=10))


@pytest.mark.long
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_random_deaths_in_frameworks(tmp_path, framework):
    print(Rounds(tmp_path, None, clients=3, probability=0.3, framework=framework, pause=5).run(kills=8))


@pytest.mark.long
@pytest.mark.node
def test_random_deaths_under_both_clients(tmp_path, tusjs):
    print(Rounds(tmp_path, tusjs, clients=3, probability=0.3).run(kills=60))


@pytest.mark.long
@pytest.mark.node
@pytest.mark.parametrize("sabotage", SABOTAGE)
def test_a_server_that_breaks_a_promise_is_found_out(tmp_path, tusjs, sabotage):
    with pytest.raises(BrokenPromise):
        Rounds(tmp_path, tusjs, clients=3, probability=0.5, sabotage=sabotage, kinds=("patch",)).run(kills=25)
