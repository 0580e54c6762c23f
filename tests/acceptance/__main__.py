"""``python -m tests.acceptance --kills 200``: real clients upload while the processes they need are killed."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.acceptance.clients import TusJs
from tests.acceptance.frameworks import FRAMEWORKS
from tests.acceptance.rounds import Rounds
from tests.support.tusjs import Node


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="deaths to wait for (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=4, help="of each kind, at a time (default: %(default)s)")
    parser.add_argument("--framework", choices=FRAMEWORKS, default="", help="the application's (default: none)")
    parser.add_argument("--probability", type=float, default=0.3, help="of a failure of the application")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        node = Node("4", Path(directory))
        problem = node.install()
        if problem:
            sys.exit(problem)
        tusjs, framework = TusJs(node.directory), arguments.framework
        chosen = {"framework": framework, "pause": 5 if framework else 0.5}
        rounds = Rounds(Path(directory), tusjs, arguments.clients, arguments.probability, **chosen)
        print(rounds.run(arguments.kills))


if __name__ == "__main__":
    main()
