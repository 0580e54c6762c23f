"""The command line of the model of power loss."""

import argparse
import sys
import time

from tests.powerloss.histories import run
from tests.powerloss.mutants import find


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.powerloss")
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--mutants", action="store_true", help="leave out each sync of the store, one at a time")
    arguments = parser.parse_args()
    began = time.monotonic()
    if arguments.mutants:
        survivors = find(arguments.seed, arguments.rounds, report=print)
        return 1 if survivors else 0
    places, failure = run(arguments.seed, arguments.rounds)
    if failure is not None:
        number, policy, error = failure
        print(f"round {number} of seed {arguments.seed}, fsync = {policy}: {error}")
        return 1
    seconds = time.monotonic() - began
    print(f"{arguments.rounds} rounds kept their promises, with {len(places)} places of syncs, in {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
