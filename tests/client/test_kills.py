"""Clients that are killed; see ``python -m tests.client.kills``."""

import pytest

from tests.client.kills.rounds import Kills


@pytest.mark.parametrize("rounds", [8, pytest.param(40, marks=pytest.mark.long)])
def test_killed_clients_upload_each_file_once(rounds, tmp_path):
    with Kills(tmp_path, seed=rounds) as kills:
        report = kills.run(rounds)
    print(report)
    assert not report.findings
