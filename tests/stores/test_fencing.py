"""The race and kill test, in its short form, and the proof that it can fail."""

import subprocess
import sys

import pytest

from tests.fencing import MUTANTS
from tests.support.serving import ROOT


def race(*arguments):
    command = [sys.executable, "-m", "tests.fencing", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)


def test_no_byte_is_lost_mixed_or_counted_wrongly():
    result = race("--kills", "150")
    assert result.returncode == 0, result.stdout + result.stderr
    kills, _, uploads, blocks, reads, wrong = (int(part.split()[0]) for part in result.stdout.split(","))
    assert (kills, wrong) == (150, 0)
    assert uploads > 5
    assert blocks > 500
    assert reads > 1000


@pytest.mark.long
def test_no_byte_is_lost_in_hundreds_of_kills():
    """``python -m tests.fencing --kills 1500`` is the longer form."""
    result = race("--kills", "400")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("mutant", MUTANTS)
def test_every_safeguard_is_needed(mutant):
    result = race("--kills", "100", "--mutant", mutant)
    assert result.returncode == 1, result.stdout + result.stderr
    assert result.stderr == ""
