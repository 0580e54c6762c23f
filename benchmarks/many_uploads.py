"""What many uploads in the store cost a request: HEAD, creation, the first request of a process, and the longest pause.

usage: python benchmarks/many_uploads.py [--uploads N] [--rounds N] [--directory DIR] [--json]

Two directories are compared, an empty one and one with N unfinished uploads (100 000). No server and no socket: an
environ goes into ``tus.Filter``. The first request is the first HEAD of a new process, which starts the threads that
look for waiting uploads and sweep. The longest pause is how late a thread wakes that sleeps for a millisecond, again
and again, while those threads look at every upload and requests come.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from core_cost import COMMON, TUS, Site, path_of

LOOK = 60.0  # seconds for which requests come while the threads work


class Served(Site):
    """A filter over an existing directory, with its threads."""

    def __init__(self, directory, threads):
        from tus import Filter

        self.number = 0
        self.app = Filter(
            self.take,
            upload_path="/files",
            tmp_file_dir=directory,
            on_finished=print,
            threads=threads,
            max_uploads=10**6,
        )


def fill(directory, number):
    from tus import Options
    from tus.models import Upload
    from tus.stores import open_store

    store = open_store(directory, Options.build(tmp_file_dir=directory))
    for _ in range(number):
        store.create(Upload(length=4096, service="/files"))
    store.sweep()


def times_of(run, rounds):
    """Return the time of each of so many calls, in microseconds."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter_ns()
        run()
        times.append((time.perf_counter_ns() - began) / 1000)
    return times


def requests(site, rounds):
    """Return the median times of a creation and a HEAD."""
    path = path_of(site.call(site.create()))
    times_of(lambda: site.call(site.head(path)), 200)
    heads = times_of(lambda: site.call(site.head(path)), rounds)
    creations = times_of(lambda: site.call(site.create()), rounds)
    return {"HEAD": statistics.median(heads), "create": statistics.median(creations)}


def first(directory, rounds):
    """Return the median time of the first request of a process."""
    command = [sys.executable, __file__, "--first", "--directory", directory]
    return statistics.median(float(subprocess.check_output(command, text=True)) for _ in range(rounds))


def first_request(directory):
    site = Served(directory, threads=True)
    environ = {**COMMON, **TUS, "REQUEST_METHOD": "HEAD", "PATH_INFO": "/files/" + "0" * 32, "wsgi.input": sys.stdin}
    began = time.perf_counter_ns()
    site.call(environ)
    print((time.perf_counter_ns() - began) / 1000, flush=True)
    os._exit(0)


def pauses(directory, seconds):
    """Return the longest pause and the median HEAD, in a process whose threads look at every upload."""
    command = [sys.executable, __file__, "--look", str(seconds), "--directory", directory]
    return json.loads(subprocess.check_output(command, text=True))


def look(directory, seconds):
    site, late, ends = Served(directory, threads=True), [], threading.Event()
    path = path_of(site.call(site.create()))  # it starts the sweeper, too

    def wake():
        while not ends.is_set():
            began = time.perf_counter()
            time.sleep(0.001)
            late.append(time.perf_counter() - began - 0.001)

    thread = threading.Thread(target=wake)
    thread.start()
    heads, deadline, cpu = [], time.monotonic() + seconds, time.process_time()
    while time.monotonic() < deadline:
        heads += times_of(lambda: site.call(site.head(path)), 1)
        time.sleep(0.002)
    ends.set()
    thread.join()
    found = {"HEAD": statistics.median(heads), "pause": max(late) * 1e6, "cpu": (time.process_time() - cpu) * 1e6}
    print(json.dumps(found), flush=True)
    os._exit(0)


def measure(directory, rounds):
    found = requests(Served(directory, threads=False), rounds)
    found["first request"] = first(directory, 15)
    found |= {f"{name} while looking": value for name, value in pauses(directory, LOOK).items()}
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uploads", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3000)
    parser.add_argument("--directory", default="/dev/shm" if os.path.isdir("/dev/shm") else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--first", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--look", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.first:
        first_request(options.directory)
    if options.look:
        look(options.directory, options.look)
    with tempfile.TemporaryDirectory(dir=options.directory) as empty:
        few = measure(empty, options.rounds)
    with tempfile.TemporaryDirectory(dir=options.directory) as full:
        fill(full, options.uploads)
        many = measure(full, options.rounds)
    if options.json:
        print(json.dumps({"empty": few, "full": many}))
        return
    for name, value in few.items():
        print(f"{name:<22} empty {value:9.0f} us  full {many[name]:9.0f} us  ratio {many[name] / value:.2f}")


if __name__ == "__main__":
    main()
