"""Try every fault at every system call of every life; print what must not happen.

Run ``python -m tests.faults``, or with the names of lives. ``--each-site`` tries each line of the code once for each
fault instead of each call. ``--share 0.1`` tries a tenth of all, chosen by ``--seed``.
"""

from __future__ import annotations

import argparse
import errno
import logging
import random
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from tests.faults.calls import FAULTS, can_happen
from tests.faults.lives import FACES, LIVES, POLICIES
from tests.faults.rounds import run


def rounds_of(life, face, policy, each_site=False, share=1.0, seed=0):
    """Return the calls to fail, by their index, each with its faults."""
    calls = run(life, face, policy).calls
    seen, chosen = set(), []
    for at, call in enumerate(calls):
        if each_site and (call.name, call.site) in seen:
            continue
        seen.add((call.name, call.site))
        chosen.extend((at, fault) for fault in FAULTS if can_happen(call, fault))
    if share < 1:
        return random.Random(f"{seed} {life.name} {face} {policy}").sample(chosen, round(len(chosen) * share))
    return chosen


def _try(numbers, how):
    logging.disable()
    life, face, policy = LIVES[numbers[0]], FACES[numbers[1]], POLICIES[numbers[2]]
    plain = run(life, face, policy)
    if plain.violation:
        return 1, [f"{life.name}, {face}, fsync={policy}, no fault: {plain.violation}"], set()
    found, sites, count = {}, set(), 0
    for at, fault in rounds_of(life, face, policy, **how):
        result = run(life, face, policy, at, fault)
        count += 1
        if result.failed is not None:
            sites.add((result.failed.name, result.failed.site))
        if result.violation:
            faults = found.setdefault((at, str(result.failed), result.violation.partition("[")[0]), [result.violation])
            faults.append(errno.errorcode.get(fault, fault))
    where = f"{life.name}, {face}, fsync={policy}"
    texts = [f"{where}, {call}, {' '.join(faults)}: {text[:700]}" for (_, call, _), (text, *faults) in found.items()]
    return count, texts, sites


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("lives", nargs="*", help="names of lives, or beginnings of them; all by default")
    parser.add_argument("--face", choices=FACES, action="append")
    parser.add_argument("--fsync", choices=POLICIES, action="append")
    parser.add_argument("--each-site", action="store_true")
    parser.add_argument("--share", type=float, default=1.0, help="the share of the rounds to try, chosen at random")
    parser.add_argument("--seed", type=int, default=0, help="of that choice")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    tasks = [
        (number, face, policy)
        for number, life in enumerate(LIVES)
        for face in range(len(FACES))
        for policy in range(len(POLICIES))
        if (not arguments.lives or life.name.startswith(tuple(arguments.lives)))
        and FACES[face] in (arguments.face or FACES)
        and FACES[face] in life.faces
        and (not arguments.fsync or POLICIES[policy] in arguments.fsync)
    ]
    how = {"each_site": arguments.each_site, "share": arguments.share, "seed": arguments.seed}
    began, total, violations, sites = time.monotonic(), 0, [], set()
    rounds: dict[str, list[int]] = {}
    with ProcessPoolExecutor(arguments.processes) as pool:
        for task, (count, found, reached) in zip(tasks, pool.map(_try, tasks, [how] * len(tasks)), strict=True):
            rounds.setdefault(LIVES[task[0]].name, []).append(count)
            total += count
            violations += found
            sites |= reached
            for text in found:
                print(text, flush=True)
    for name, counts in rounds.items():
        print(f"{name}: {sum(counts)} rounds ({' '.join(map(str, counts))})")
    names = Counter(name for name, _ in sites)
    print(f"{total} rounds, {len(sites)} system calls in the code ({', '.join(f'{n} {c}' for n, c in names.items())})")
    print(f"{len(violations)} violations, {time.monotonic() - began:.0f} s")
    return bool(violations)


if __name__ == "__main__":
    sys.exit(main())
