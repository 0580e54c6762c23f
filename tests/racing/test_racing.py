"""The short form of ``python -m tests.racing``, and the proof that it can fail."""

import pytest

from tests.racing.bodies import BLOCK, Sent, find_fault
from tests.racing.race import Race
from tests.racing.site import MUTANTS, SERVERS

TAG = b"\1\2\3\4\5\6\7\x08"


def run(directory, requests, **how):
    race = Race(directory, how.pop("server", SERVERS[0]), **how)
    print(race.run(requests))
    return race


def test_a_race_of_both_protocols_with_deaths_of_workers(tmp_path):
    race = run(tmp_path, 600, pause=0.5)
    assert race.findings.texts == []
    assert race.site.deaths + race.site.pauses


@pytest.mark.long
@pytest.mark.parametrize("server", SERVERS)
def test_a_longer_race(tmp_path, server):
    """``python -m tests.racing --requests 100000`` is the longest."""
    race = run(tmp_path, 4000, server=server)
    assert race.findings.texts == []
    assert race.site.deaths


def test_a_race_without_the_generation_check_is_lost(tmp_path):
    assert run(tmp_path, 20_000, mutant="no-generation-check").findings.texts


@pytest.mark.long
@pytest.mark.parametrize("mutant", MUTANTS)
def test_each_mutant_is_found(tmp_path, mutant):
    assert run(tmp_path, 20_000, mutant=mutant).findings.texts


# -- The account of one file --------------------------------------------------------------------------------------


def two_requests():
    """Return two requests, the second of which begins within a block of the first, and the file they make."""
    first, second = Sent(TAG, 1, 0, 200), Sent(TAG, 2, 79, 81)
    return first, second, first.data(79) + second.data()


def test_a_file_of_two_requests():
    first, second, data = two_requests()
    assert len(data) == 5 * BLOCK.size
    assert find_fault(data, [first, second]) is None
    first.counted, second.counted = 79, 160
    assert find_fault(data, [second, first]) is None
    assert find_fault(b"", []) is None


def test_bytes_that_no_request_has_sent():
    first, second, data = two_requests()
    assert "from 79" in find_fault(data, [first])
    assert "from 0" in find_fault(data, [second])
    second.may_count = False
    assert "from 79" in find_fault(data, [first, second])
    for position in range(len(data)):
        wrong = bytearray(data)
        wrong[position] ^= 1
        assert find_fault(bytes(wrong), [*two_requests()[:2]]) is not None


def test_a_block_that_has_moved():
    sent = Sent(TAG, 1, 0, 96)
    data = sent.data()
    assert "from 55 of" in find_fault(data[:32] + data[64:] + data[32:64], [sent])
    assert find_fault(Sent(TAG[::-1], 1, 0, 96).data(), [sent]) is not None


def test_counted_bytes_of_a_request_that_another_one_has_replaced():
    first, second, data = two_requests()
    first.counted = 80
    assert "request 1" in find_fault(data, [first, second])
    first.counted = 161
    assert find_fault(data, [first, second]) == "161 bytes were told as counted, and 160 are there"
