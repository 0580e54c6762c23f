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
    for place, numbers in sorted(places.items()):
        # At first the histories that come by this place, under all policies; some syncs matter under one alone.
        failure = _failure_without(place, seed, numbers, None)
        for policy in POLICIES:
            failure = failure or _failure_without(place, seed, rounds, policy)
        if failure is None:
            survivors.append(place)
        report(f"{place}: {'NOT FOUND' if failure is None else f'found in round {failure[0]}: {failure[2]}'}")
    return survivors


def _failure_without(place, seed, rounds, policy):
    """Return the first failure of a store without one sync, or None; an error that no history expects is one, too."""
    try:
        return run(seed, rounds, lambda other: other == place, policy)[1]
    except Exception as error:
        return error.__notes__[0], policy, repr(error)
