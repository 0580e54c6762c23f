"""The command line of the race."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.racing.race import Race
from tests.racing.site import MUTANTS, SERVERS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.racing", description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000, help="(default: %(default)s)")
    parser.add_argument("--server", choices=SERVERS, default=SERVERS[0])
    parser.add_argument("--workers", type=int, default=3, help="processes of the server (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=24, help="at a time (default: %(default)s)")
    parser.add_argument("--pause", type=float, default=1, help="most seconds between two deaths (default: %(default)s)")
    parser.add_argument("--mutant", choices=MUTANTS, default="", help="break the server, to see that it is found")
    parser.add_argument("--keep", metavar="DIR", help="keep everything in this directory, which must be empty")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tus-racing-") as temporary:
        directory = Path(chosen.keep or temporary)
        directory.mkdir(exist_ok=True)
        race = Race(directory, chosen.server, chosen.workers, chosen.clients, chosen.pause, chosen.mutant)
        print(race.run(chosen.requests))
    for text in race.findings.texts:
        print(text)
    return 1 if race.findings.texts else 0


if __name__ == "__main__":
    sys.exit(main())
