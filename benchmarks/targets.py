"""Medians and ratios of one run, and the targets that they meet or miss."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.servers import SERVERS

OURS = ("serve", "filter", "filter-23", "asgi", "granian")
BULK, SMALL = ("1 GiB", "8 MiB", "16 at once"), ("small", "small 32")
ASGI_PEERS = tuple(server.name for server in SERVERS if server.is_python_peer and server.is_asgi)


class Medians:
    """What was found, by row and server.

    A ratio is the median of the ratios of the rounds in which both servers took part, so that a slow minute of the
    machine changes it least.
    """

    def __init__(self, results: Iterable[dict[str, Any]]) -> None:
        self._figures: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
        for result in results:
            figures = self._figures.setdefault((result["row"], result["server"]), {})
            figures[result["round"]] = {name: value for name, value in result.items() if isinstance(value, float | int)}

    def servers(self, row: str) -> list[str]:
        return [server for name, server in self._figures if name == row]

    def all(self, row: str, server: str, figure: str = "value") -> list[float]:
        rounds = self._figures.get((row, server), {})
        return [figures[figure] for figures in rounds.values() if figure in figures]

    def median(self, row: str, server: str, figure: str = "value") -> float | None:
        found = self.all(row, server, figure)
        return statistics.median(found) if found else None

    def ratio(self, one: tuple[str, str, str], other: tuple[str, str, str]) -> float | None:
        """Return the ratio of two figures, each a row, a server and the name of a figure."""
        above, below = (self._figures.get(figure[:2], {}) for figure in (one, other))
        ratios = [
            above[number][one[2]] / below[number][other[2]]
            for number in above.keys() & below.keys()
            if one[2] in above[number] and below[number].get(other[2])
        ]
        return statistics.median(ratios) if ratios else None

    def best(self, row: str, servers: Iterable[str]) -> str | None:
        """Return the fastest of some servers, or None if none of them took part."""
        found = {server: value for server in servers if (value := self.median(row, server)) is not None}
        return max(found, key=found.__getitem__) if found else None


#: Gives the values of a server that are compared with its bound.
Values = Callable[[Medians, str], list[float | None]]


@dataclass(frozen=True)
class Target:
    """A target.

    Attributes:
        measure: what is measured, and against what.
        bounds: the value that meets it, by server.
        values: of all its rows; the worst one counts.
        is_least: whether the bounds are the smallest good values, else the largest.
    """

    measure: str
    bounds: dict[str, float]
    values: Values
    is_least: bool = True

    def judge(self, medians: Medians) -> list[Verdict]:
        verdicts = []
        for server, bound in self.bounds.items():
            values = [value for value in self.values(medians, server) if value is not None]
            worst = (min if self.is_least else max)(values) if values else None
            verdicts.append(Verdict(self.measure, server, bound, self.is_least, worst))
        return verdicts


@dataclass(frozen=True)
class Verdict:
    """A target of one server; ``found`` is None if it was not measured."""

    measure: str
    server: str
    bound: float
    is_least: bool
    found: float | None

    @property
    def is_met(self) -> bool:
        return self.found is not None and (self.found >= self.bound if self.is_least else self.found <= self.bound)


def ours(*bounds: float) -> dict[str, float]:
    """Return bounds for the first of this project's servers."""
    return dict(zip(OURS, bounds, strict=False))


def against(other: str, *rows: str, figure: str = "value") -> Values:
    """Compare with another server."""
    return lambda medians, server: [medians.ratio((row, server, figure), (row, other, figure)) for row in rows]


def against_limit(medians: Medians, server: str) -> list[float | None]:
    return against("granian-app" if server == "granian" else "sink", *BULK)(medians, server)


def against_best_asgi_peer(medians: Medians, server: str) -> list[float | None]:
    best = {row: medians.best(row, ASGI_PEERS) or "" for row in SMALL}
    return [medians.ratio((row, server, "value"), (row, best[row], "value")) for row in SMALL]


def within(one: tuple[str, str], other: tuple[str, str]) -> Values:
    """Compare two figures of the same server, each a row and a name."""
    return lambda medians, server: [medians.ratio((one[0], server, one[1]), (other[0], server, other[1]))]


def slowing(medians: Medians, server: str) -> list[float | None]:
    return [medians.ratio(("names", "names-first", "value"), ("names", server, "value"))]


def memory(medians: Medians, server: str) -> list[float | None]:
    return [medians.median("16 at once", server, "memory")]


TARGETS = (
    Target("large uploads, x C sink (granian: x its trivial app)", ours(0.95, 0.95, 0.85, 0.85, 0.9), against_limit),
    Target(
        "large uploads, CPU x tusd", ours(0.7, 0.72, 0.72, 0.85), against("tusd", *BULK, figure="cpu"), is_least=False
    ),
    Target("PATCHes of 1 MiB, x tusd", ours(1, 0.95, 0.95, 0.95, 1), against("tusd", "1 MiB")),
    Target("creation and PATCH of 4 KiB, x tusd", ours(1.2, 0.45, 0.45, 0.8, 1.3), against("tusd", "small")),
    Target("the same, 32 connections, x tusd", ours(1.2, 0.55, 0.55, 0.9, 1.8), against("tusd", "small 32")),
    Target("the same two, x tuswsgi", {"filter": 1.7, "filter-23": 1.7}, against("tuswsgi", *SMALL)),
    Target("the same two, x the best ASGI peer", {"asgi": 2.5}, against_best_asgi_peer),
    Target("creation with 4 KiB, x tusd", ours(1.3, 0.65, 0.65, 0.7, 1.5), against("tusd", "whole")),
    Target(
        "the same, x own creation and PATCH",
        ours(1.7, 1.8, 1.8, 1.5, 1.7),
        within(("whole", "value"), ("small", "value")),
    ),
    Target("HEAD, x tusd", ours(1, 0.6, 0.6, 0.8, 1), against("tusd", "head")),
    Target(
        "checksum, x receiving, then hashing",
        dict.fromkeys(OURS, 1.35),
        within(("checksum", "value"), ("checksum", "sequential")),
    ),
    Target(
        "checksum, CPU x receiving and hashing",
        dict.fromkeys(OURS, 1.1),
        within(("checksum", "cpu"), ("checksum", "sequential cpu")),
        is_least=False,
    ),
    Target("1 GiB on the disk, x without fsync", {"serve": 0.85}, against("serve-unsynced", "disk")),
    *(
        Target(
            f"{what} among 100 000 uploads, {kind}, x empty store",
            {"many-full": 1.1},
            against("many-empty", "many", figure=f"{figure} {kind}"),
            is_least=False,
        )
        for what, figure in (("HEAD", "head"), ("creation", "create"))
        for kind in ("mean", "p99")
    ),
    Target("time of a file of a frequent name, x the first", {"names-full": 1.2}, slowing, is_least=False),
    Target("concatenation, x tusd", {"serve": 1.1}, against("tusd", "concatenation")),
    Target("memory of a worker with 16 bodies, MiB", ours(64, 64, 64, 64), memory, is_least=False),
)


def verdicts(medians: Medians) -> list[Verdict]:
    """Return all targets with what was found."""
    return [verdict for target in TARGETS for verdict in target.judge(medians)]
