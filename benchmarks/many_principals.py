"""What a creation costs with limits for each principal, by the number of principals that have uploads.

usage: python benchmarks/many_principals.py [--directory DIR] [NUMBER ...]

The time of a processor is printed, the median of 300 creations by different principals, and that of a sweep.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time

from tus.models import Upload
from tus.stores.directory.store import DirectoryStore
from tus.stores.interface import Limits

ROUNDS = 300


def cpu_of(call):
    """Return the time that a call takes of a processor, in microseconds."""
    began = time.thread_time_ns()
    call()
    return (time.thread_time_ns() - began) / 1000


def measure(directory, number):
    """Print the costs with so many principals."""
    plain = DirectoryStore(directory, fsync="none")
    for user in range(number):
        plain.create(Upload(length=5, principal=f"user {user}"))
    store = DirectoryStore(directory, fsync="none", limits=Limits(uploads_each=100, size_each=1 << 40))
    store.sweep()
    drafts = [Upload(length=5, principal=f"user {user}") for user in range(ROUNDS)]
    creation = statistics.median(cpu_of(lambda draft=draft: store.create(draft)) for draft in drafts)
    print(f"{number:9} principals: creation {creation:8.0f} us, sweep {cpu_of(store.sweep) / 1000:8.0f} ms", flush=True)


def main():
    """Measure each number of principals in a new directory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", help="a directory on the disk to measure")
    parser.add_argument("numbers", nargs="*", type=int, default=[0, 100, 1000, 10_000])
    arguments = parser.parse_args()
    for number in arguments.numbers:
        with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
            measure(directory, number)


if __name__ == "__main__":
    main()
