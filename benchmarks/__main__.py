"""``python -m benchmarks``: this package beside other tus servers, in one run, and docs/benchmarks.rst from it.

Everything that can be had is installed into a cache: servers from PyPI and npm, the client and the limit, which are
built from C sources here. tusd and rustus take part if they are on the PATH. The servers are ended, whatever happens.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks import page
from benchmarks.comparison import Comparison, Found
from benchmarks.install import ROOT, NotHereError, Setup, say
from benchmarks.rows import ALL, QUICK, Scale
from benchmarks.servers import SERVERS


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    servers, rows = [server.name for server in SERVERS], [row.name for row in ALL]
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()
    cache = Path.home() / ".cache" / "tus-benchmarks"
    parser.add_argument("--cache", type=Path, default=cache, help="for what is installed (default: %(default)s)")
    parser.add_argument("--directory", type=Path, default=memory, help="for stores in memory (default: %(default)s)")
    parser.add_argument("--disk", type=Path, help="for stores on a disk (default: the cache)")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument(
        "--servers", nargs="+", default=servers, choices=servers, metavar="NAME", help=", ".join(servers)
    )
    parser.add_argument("--rows", nargs="+", default=rows, choices=rows, metavar="NAME", help=", ".join(rows))
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks.rst", help="default: %(default)s")
    parser.add_argument("--json", type=Path, help="keep all figures in this file")
    parser.add_argument("--from-json", type=Path, help="measure nothing, and write the page from such a file")
    parser.add_argument("--quick", action="store_true", help="small sizes, and only what this interpreter has; no page")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C does, they must end the servers
        signal.signal(number, lambda number, frame: sys.exit(f"ended by signal {number}"))
    if options.from_json:
        found = Found(**json.loads(options.from_json.read_text()))
    else:
        began = time.monotonic()
        try:
            found = measure(options)
        except NotHereError as error:
            say(f"cannot measure: {error}")
            return 1
        found.machine["minutes"] = round((time.monotonic() - began) / 60, 1)
        if options.json:
            options.json.write_text(json.dumps(asdict(found), indent=1) + "\n")
    if options.quick:
        print(page.render(found, options.page.stem))
    else:
        page.write(found, options.page)
        say(f"wrote {options.page}")
    for failure in found.failures:
        say(f"failed: {failure['key']}, {failure['row']}: {failure['reason']}")
    return 0 if found.is_good() else 1


def measure(options: argparse.Namespace) -> Found:
    options.cache.mkdir(parents=True, exist_ok=True)
    comparison = Comparison(
        setup=Setup(options.cache, here=options.quick),
        scale=QUICK if options.quick else Scale(),
        rounds=options.rounds,
        memory=Path(options.directory),
        disk=options.disk or options.cache,
        servers=[server.name for server in SERVERS if server.name in options.servers],
        rows=options.rows,
    )
    return comparison.run()


if __name__ == "__main__":
    sys.exit(main())
