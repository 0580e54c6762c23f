"""The command line."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

import tests.client.kills
from tests.client.kills.rounds import Kills


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.client.kills", description=tests.client.kills.__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="files (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}")
    with tempfile.TemporaryDirectory(prefix="tus-kills-") as directory, Kills(Path(directory), chosen.seed) as kills:
        report = kills.run(chosen.rounds)
    print(report)
    for finding in report.findings:
        print(finding)
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
