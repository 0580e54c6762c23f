"""``python -m tests.fuzz --heads 10000000 --processes 2``: the long form of the fuzz room.

Each process sends its share of the heads to sites of every variant, and checks a value of each other kind after every
fourth head, and every hundredth head under ASGI. A finding is printed as a text for ``tests/fuzz/corpus``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.fuzz.heads import Maker
from tests.fuzz.sites import VARIANTS, AsyncSite, Finding, Site
from tests.fuzz.values import Values

EACH = 5_000  # heads of one job
RENEWED = 250  # heads that one site gets, which use its uploads up


@dataclass
class Summary:
    """What a run has seen."""

    heads: int = 0
    values: int = 0
    asynchronous: int = 0
    slowest: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    findings: dict[str, str] = field(default_factory=dict)

    def add(self, other: Summary) -> None:
        self.heads += other.heads
        self.values += other.values
        self.asynchronous += other.asynchronous
        self.slowest = max(self.slowest, other.slowest)
        self.statuses += other.statuses
        self.findings |= other.findings

    def note(self, error: Finding) -> None:
        """Keep the first finding of each kind."""
        self.findings.setdefault(str(error).partition("\n")[0][:120], str(error))

    def __str__(self) -> str:
        statuses = ", ".join(f"{status}: {count}" for status, count in sorted(self.statuses.items()))
        lines = [
            f"{self.heads:,} heads ({self.asynchronous:,} of them under ASGI), {4 * self.values:,} other values",
            f"statuses: {statuses}",
            f"the slowest head took {1000 * self.slowest:.0f} ms of CPU",
            f"findings: {len(self.findings)}",
        ]
        return "\n".join(lines + [f"\n{text}" for text in self.findings.values()])


def run(job: tuple[str, int]) -> Summary:
    """Send so many heads, made from a seed, to one site of each kind."""
    seed, count = job
    summary, maker, values = Summary(), Maker(seed), Values(seed)
    for number in range(count):
        if number % RENEWED == 0:
            variant = maker.random.randrange(len(VARIANTS))
            site, async_site = Site(variant), AsyncSite(variant)
        is_async = number % 100 == 99
        try:
            seen = (async_site if is_async else site).check(maker.head())
            summary.statuses[seen.status] += 1
            summary.slowest = max(summary.slowest, seen.seconds)
            if number % 4 == 0:
                values.check()
        except Finding as error:
            summary.note(error)
        summary.heads += 1
        summary.asynchronous += is_async
        summary.values += number % 4 == 0
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", type=int, default=1_000_000, help="default: %(default)s")
    parser.add_argument("--processes", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--seed", default=str(time.time_ns()), help="the same seed makes the same heads")
    arguments = parser.parse_args()
    total, began = Summary(), time.monotonic()
    jobs = [
        (f"{arguments.seed}-{start}", min(EACH, arguments.heads - start)) for start in range(0, arguments.heads, EACH)
    ]
    with multiprocessing.get_context("fork").Pool(arguments.processes) as pool:
        for done, summary in enumerate(pool.imap_unordered(run, jobs), 1):
            total.add(summary)
            if done % 50 == 0:
                print(f"{total.heads:,} heads, {len(total.findings)} findings", file=sys.stderr, flush=True)
    print(f"seed {arguments.seed}, {arguments.processes} processes, {time.monotonic() - began:.0f} seconds")
    print(total)
    sys.exit(bool(total.findings))


if __name__ == "__main__":
    main()
