"""Stores that leave out one of their syncs. Each must break a promise."""

from tests.powerloss.histories import POLICIES, run


def find(seed, rounds, report=lambda text: None):
    """Return the places whose sync no history needs.

    Args:
        seed: of the histories.
        rounds: the most histories for each place.
        report: is called with a line for each place.
    """
    places, failure = run(seed, 1000)
    assert failure is None, failure
    survivors = []
    for place in sorted(places):
        failure = None
        for policy in (None, *POLICIES):  # at first a mix; some syncs matter under one policy alone
            failure = failure or run(seed, rounds, lambda other, place=place: other == place, policy)[1]
        if failure is None:
            survivors.append(place)
        report(f"{place}: {'NOT FOUND' if failure is None else f'found in round {failure[0]}: {failure[2]}'}")
    return survivors
