"""Random deaths of the server and the application, under clients that go on; see ``python -m tests.acceptance``."""

import pytest

from tests.acceptance.frameworks import FRAMEWORKS
from tests.acceptance.rounds import BrokenPromise, Rounds
from tests.acceptance.site import SABOTAGE


def test_random_deaths(tmp_path):
    """The short form of ``python -m tests.acceptance``."""
    print(Rounds(tmp_path, None, clients=3, probability=0.3).run(kills=10))


@pytest.mark.long
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_random_deaths_in_frameworks(tmp_path, framework):
    """``python -m tests.acceptance --kills 200 --framework NAME`` goes on for longer."""
    print(Rounds(tmp_path, None, clients=3, probability=0.3, framework=framework, pause=5).run(kills=5))


@pytest.mark.long
@pytest.mark.node
def test_random_deaths_under_both_clients(tmp_path, tusjs):
    """``python -m tests.acceptance --kills 200`` goes on for longer."""
    print(Rounds(tmp_path, tusjs, clients=3, probability=0.3).run(kills=40))


@pytest.mark.long
@pytest.mark.node
@pytest.mark.parametrize("sabotage", SABOTAGE)
def test_a_server_that_breaks_a_promise_is_found_out(tmp_path, tusjs, sabotage):
    with pytest.raises(BrokenPromise):
        for attempt in range(5):  # few uploads happen between the deaths on a busy machine: one round may miss it
            directory = tmp_path / str(attempt)
            directory.mkdir()
            Rounds(directory, tusjs, clients=3, probability=0.5, sabotage=sabotage, kinds=("patch",)).run(kills=25)
