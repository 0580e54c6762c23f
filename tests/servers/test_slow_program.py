"""The program that shows which servers bear slow clients, in a short form."""

import pytest

from tests.slow_clients import KINDS, PROBES, SERVE, Compared, Served, compare, measure, running


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_without_threads_for_clients_serves_the_others(tmp_path, kind):
    with running("uvicorn-h11", tmp_path) as port:
        served = measure(port, kind, 40, patience=0, settling=1)
    assert served.answered == PROBES
    assert str(served).startswith("yes, ")


@pytest.mark.parametrize("kind", KINDS)
def test_no_honest_client_of_tus_serve_is_refused(tmp_path, kind):
    with running(SERVE, tmp_path) as port:
        assert compare(port, kind, 40, honest=4, seconds=2).refused == 0


@pytest.mark.long
def test_a_server_of_eight_threads_does_not(tmp_path):
    with running("cheroot", tmp_path) as port:
        served = measure(port, "drips", 12, patience=0, settling=1)
    assert served.answered < PROBES
    assert str(served) == "no"


def test_what_is_printed():
    assert str(Served(PROBES, 0.0123, None)) == "yes, 12 ms"
    assert str(Served(0, 0, 17.4)) == "after 17 s"
    assert str(Compared(0.01, 0.0123, 1)) == "10 -> 12 ms, 1 refused"
