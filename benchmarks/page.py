"""docs/benchmarks.rst, from what was found in one run."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from benchmarks import plot
from benchmarks.comparison import Found
from benchmarks.rows import ALL, MANY, Row
from benchmarks.servers import BY_NAME, LIMIT, SERVERS
from benchmarks.targets import Medians, Verdict, verdicts

COMMAND = """\
::

    python3 -m venv .venv-bench && .venv-bench/bin/pip install -q -r benchmarks/requirements.txt
    .venv-bench/bin/python -m benchmarks --rounds {rounds}
"""


def write(found: Found, path: Path) -> None:
    """Write the page, and beside it the picture."""
    medians = Medians(found.results)
    picture = path.with_suffix(".png")
    has_picture = plot.draw(medians, found.titles, picture)
    path.write_text(render(found, picture.name if has_picture else ""))


def render(found: Found, picture: str = "") -> str:
    """Return the page.

    Args:
        found: in one run.
        picture: the name of the picture's file, if there is one.
    """
    medians = Medians(found.results)
    parts = [heading("Benchmarks"), introduction(found)]
    if picture.endswith(".png"):
        parts.append(f".. image:: {picture}\n   :alt: The speed of each server as a ratio to that of tusd\n")
    parts += [
        "Targets\n=======\n",
        targets(found, medians),
        "Measurements\n============\n",
        HOW_TO_READ,
        client_load(found),
    ]
    parts += [table(row, found, medians) for row in ALL if medians.servers(row.name) and row is not MANY]
    parts += [many(medians), memory(found, medians), OTHERS]
    return "\n".join(part for part in parts if part)


def heading(title: str) -> str:
    line = "=" * len(title)
    return f"{line}\n{title}\n{line}\n"


def paragraph(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 100, break_long_words=False, break_on_hyphens=False) + "\n"


def introduction(found: Found) -> str:
    machine = found.machine
    took = f" It took about {max(1, round(machine['minutes']))} minutes." if "minutes" in machine else ""
    cores = "The server has one core, and the client has another."
    if machine["cores"] == 1:
        cores = "The server and the client share the only core, so the figures are of little use."
    parts = (
        paragraph(
            f"""This page is written by the command below, from one run on {machine["date"]}. The machine has
                {machine["cores"]} cores ({machine["processor"]}), {machine["gib"]} GiB of memory, Linux
                {machine["kernel"]} and Python {machine["python"]}. {cores} Stores are on {machine["memory"]} in
                memory, or on {machine["disk"]} where a table says "on the disk".{took}"""
        ),
        "To repeat it in a checkout, on Linux with a C compiler" + COMMAND.format(rounds=machine["rounds"]),
        paragraph(
            """The command installs the servers of PyPI and npm into ``~/.cache/tus-benchmarks``. tusd and rustus
                take part if they are on the ``PATH``. ``--help`` lists options: single servers and rows, another
                place for the stores, and a file for all figures."""
        ),
        paragraph(
            """Every server has the defaults that it is shipped with, except that a limit is lifted where tuswsgi,
                tussi, rustus or Litestar would refuse a body. gunicorn has one worker with 32 threads, and uvicorn
                writes no access log. An application that renames the file takes each upload; servers without an
                application keep it. The sizes of all stored files are compared, and their SHA-256 in the first
                round."""
        ),
        versions(found),
        absent(found),
        failures(found),
    )
    return "\n".join(part for part in parts if part)


def versions(found: Found) -> str:
    """Return the versions; a package that several environments share is named once for each version."""
    named = dict.fromkeys((name.rpartition(": ")[2], version) for name, version in found.versions.items())
    lines = sorted(named, key=lambda line: line[0].lower())
    return grid([("measured", "version"), *lines]) if lines else ""


def absent(found: Found) -> str:
    reasons = {BY_NAME[name].variant_of or name: reason for name, reason in found.absent.items()}
    lines = [f"- {name}: {literal(reason)}" for name, reason in reasons.items()]
    return "Not here:\n\n" + "\n".join(lines) + "\n" if lines else ""


def literal(text: str) -> str:
    """Return words of a program, cut to one line."""
    return f"``{' '.join(text.replace('`', '').split())[:70]}``"


def failures(found: Found) -> str:
    lines = dict.fromkeys(
        f"- {plot.plain(found.titles[failure['key']])}, {failure['row']}: {literal(failure['reason'])}"
        for failure in found.failures
    )
    return "Rows that failed:\n\n" + "\n".join(lines) + "\n" if lines else ""


HOW_TO_READ = "\n".join(
    (
        paragraph(
            """A figure is the median of all rounds; the least and the greatest follow. A ratio is the median of the
            ratios of single rounds, so compare ratios, not figures, with another machine or another version of this
            page. "CPU" is the processor time of the server with all its processes. The order of the servers is
            another one in each row of each round. Peers other than tusd take part in every third round."""
        ),
        paragraph(
            """The C sink is the limit of the machine: it writes each byte to a file, and promises nothing. With
            "splice", the bytes stay in the kernel. The trivial application does the same behind granian. "Promises
            alone" is the limit of a host for small uploads: the system calls that this package needs to keep its
            promises, and no protocol. On uvicorn, one call of a thread makes those of a request. "Best" is the
            fastest Python peer of the row. Losses stand in the same tables."""
        ),
    )
)


def client_load(found: Found) -> str:
    """Say how far the client was from being the limit."""
    shares: dict[bool, float] = {}
    for result in found.results:
        is_limit = result["server"] in BY_NAME and BY_NAME[result["server"]].kind == LIMIT
        shares[is_limit] = max(shares.get(is_limit, 0), result.get("client", 0))
    if len(shares) < 2:
        return ""
    return paragraph(
        f"""The client was busy for at most {100 * shares[False]:.0f} % of the time of a row, and for
        {100 * shares[True]:.0f} % of it with a limit as the server."""
    )


def table(row: Row, found: Found, medians: Medians) -> str:
    """Return the table of a row, the fastest server first."""
    servers = sorted(medians.servers(row.name), key=lambda server: -(medians.median(row.name, server) or 0))
    peers = [server.name for server in SERVERS if server.is_python_peer]
    best = medians.best(row.name, peers) or ""
    head = ["", row.unit, "least, greatest", "x tusd", "x sink", "x best", f"CPU {row.cpu_unit}", "x tusd"]
    lines = []
    for server in servers:
        values = medians.all(row.name, server)
        others = [
            number(medians.ratio((row.name, server, "value"), (row.name, one, "value")))
            for one in ("tusd", "sink", best)
        ]
        cpu = medians.median(row.name, server, "cpu")
        cost = number(medians.ratio((row.name, server, "cpu"), (row.name, "tusd", "cpu")))
        spread = f"{min(values):.0f}, {max(values):.0f}"
        figure = f"{medians.median(row.name, server):.0f}"
        lines.append([found.titles[server], figure, spread, *others, amount(cpu), cost])
    kept = [n for n in range(len(head)) if n < 2 or any(line[n] != "-" for line in lines)]
    rows = [[line[n] for n in kept] for line in [head, *lines]]
    return section(row.title) + grid(rows)


def section(title: str) -> str:
    return f"{title}\n{'-' * len(title)}\n\n"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def amount(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 10 else f"{value:.2f}"


def grid(rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first row is its head."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    border = "  ".join("=" * max(width, 2) for width in widths)
    text = [
        "  ".join(cell.ljust(max(width, 2)) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    if not rows[0][0]:
        text[0] = "\\ " + text[0][2:]  # a row whose first cell is empty continues the one before
    return "\n".join((border, text[0], border, *text[1:], border)) + "\n"


def targets(found: Found, medians: Medians) -> str:
    judged = verdicts(medians)
    lines = [["measure", "server", "target", "found", ""]]
    lines += [
        [
            verdict.measure,
            found.titles.get(verdict.server, verdict.server),
            bound(verdict),
            number(verdict.found),
            word(verdict),
        ]
        for verdict in judged
        if verdict.found is not None
    ]
    if len(lines) == 1:
        return "No target was measured.\n"
    met = sum(verdict.is_met for verdict in judged)
    missed = sum(verdict.found is not None and not verdict.is_met for verdict in judged)
    unknown = f", {len(judged) - met - missed} not measured" if met + missed < len(judged) else ""
    text = f"""{met} targets are met, {missed} missed{unknown}. A target over several tables counts with its worst one.
    The number of Python calls and of system calls of a request is a target, too: ``tests/unit/test_core_cost.py`` holds
    it. ``python -m tests.slow_clients`` shows what slow clients do to other clients."""
    return paragraph(text) + "\n" + grid(lines)


def bound(verdict: Verdict) -> str:
    return f"{'≥' if verdict.is_least else '≤'} {verdict.bound:g}"


def word(verdict: Verdict) -> str:
    return "met" if verdict.is_met else "**missed**"


def many(medians: Medians) -> str:
    """Return the table of the store with many uploads: times of both stores."""
    if not medians.servers(MANY.name):
        return ""
    lines = [["microseconds", "empty", "100 000", "ratio"]]
    for what, figure in (("HEAD", "head"), ("creation", "create")):
        for kind in ("mean", "p50", "p99"):
            key = f"{figure} {kind}"
            times = [medians.median(MANY.name, server, key) for server in ("many-empty", "many-full")]
            ratio = medians.ratio((MANY.name, "many-full", key), (MANY.name, "many-empty", key))
            lines.append([f"{what}, {kind}", *("-" if t is None else f"{1e6 * t:.0f}" for t in times), number(ratio)])
    text = """``tus serve`` is started in an empty directory, and in one with 100 000 unfinished uploads. For 30 seconds
    one client asks for offsets, and another one creates uploads. This is measured once."""
    return section(MANY.title) + paragraph(text) + "\n" + grid(lines)


def memory(found: Found, medians: Medians) -> str:
    """Return the table of the memory in the row of 16 uploads."""
    row = "16 at once"
    sizes = {server: medians.median(row, server, "memory") for server in medians.servers(row)}
    if not sizes:
        return ""
    lines = [
        ["", "MiB"],
        *([found.titles[name], amount(sizes[name])] for name in sorted(sizes, key=lambda n: sizes[n] or 0)),
    ]
    text = """This is the largest resident size of one process while it receives 16 uploads of 64 MiB at once. It
    includes what earlier rows have left."""
    return section("Memory of a worker with 16 uploads") + paragraph(text) + "\n" + grid(lines)


OTHERS = """\
Other measurements
==================

Other scripts measure one thing each, in one process:

- ``benchmarks/core_cost.py``: the calls, the system calls and the processor time of a request.
- ``benchmarks/store_cost.py``: the same of the operations of the store.
- ``benchmarks/many_uploads.py``: a full store, and the longest pause that its threads cause.
- ``benchmarks/many_principals.py``: limits for each principal.
- ``benchmarks/thread_calls.py``: the calls of worker threads on an event loop.
"""
