"""What a call of a worker thread costs on an event loop: by anyio, by an executor, and by this package's own threads.

usage: python benchmarks/thread_calls.py [--calls N]

Each function does nothing. CPU is that of the process for one call, the median of five rounds; the kinds take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import anyio.to_thread

from tus.server.threads import Threads

ROUNDS = 5
THREADS = 32


def nothing():
    """Return at once."""


async def measure(call, tasks, calls):
    async def several():
        for _ in range(calls // tasks):
            await call(nothing)

    began = time.process_time()
    await asyncio.gather(*(several() for _ in range(tasks)))
    return (time.process_time() - began) / calls * 1e6


async def main(calls):
    limiter, executor = anyio.CapacityLimiter(THREADS), ThreadPoolExecutor(THREADS)
    kinds = {
        "anyio.to_thread": lambda function: anyio.to_thread.run_sync(function, limiter=limiter),
        "run_in_executor": lambda function: asyncio.get_running_loop().run_in_executor(executor, function),
        "tus.server.threads": Threads("benchmark", lambda: THREADS).run,
    }
    for tasks in (1, 32):
        found = {kind: [] for kind in kinds}
        for number in range(ROUNDS + 1):
            for kind, call in kinds.items():
                cost = await measure(call, tasks, calls)
                if number:  # the first round warms up
                    found[kind].append(cost)
        for kind, costs in found.items():
            print(f"{tasks:2} at once  {kind:20} {statistics.median(costs):6.1f} us")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=3200)
    asyncio.run(main(parser.parse_args().calls))
