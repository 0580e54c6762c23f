"""One running server: its start, its processor time, its memory, and its certain end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.install import ROOT
from benchmarks.servers import Programs, Server

PATIENCE = 60  # seconds for a server to start
STARTS = 3  # at most
SAMPLING = 0.02  # seconds between two looks at the memory


class ServerError(Exception):
    """A server does not start, refuses a request or stores wrong bytes."""


def processors() -> tuple[set[int], set[int]]:
    """Return the processors of the server and of the client; both are the same where there is one only."""
    there = sorted(os.sched_getaffinity(0))
    return {there[0]}, {there[-1]}


class Running:
    """A server that runs in a process group of its own.

    Args:
        server: which.
        programs: where its programs are.
        directory: new, for everything that it stores.
        cores: the processors that it may use.
    """

    def __init__(self, server: Server, programs: Programs, directory: Path, cores: set[int]) -> None:
        self.server, self.directory = server, directory
        for name in ("store", "landed", "info"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        self._programs, self._cores = programs, cores
        self._is_stopped = False
        self._log = directory / "log"
        self._start()

    def _start(self) -> None:
        """Start the process at a free port. Another process may take the port before it does."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                self.server.command(self._programs, self.port, self.directory),
                cwd=self.directory,
                env=os.environ | {"PYTHONPATH": str(ROOT), "TUS_BENCHMARK_DIRECTORY": str(self.directory)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log if self.server.language == "Python" else subprocess.DEVNULL,
                preexec_fn=lambda: os.sched_setaffinity(0, self._cores),
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until it accepts connections. One that ends before is started again, twice, at other ports."""
        deadline, starts = time.monotonic() + PATIENCE, 1
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                if starts == STARTS:
                    break
                starts += 1
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                self._start()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise ServerError(f"it did not start: {self.last_words()}")

    def last_words(self) -> str:
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:200] if lines else "it said nothing"

    def _family(self) -> list[psutil.Process]:
        try:
            leader = psutil.Process(self.process.pid)
            return [leader, *leader.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu(self) -> float:
        """Return the processor time of all its processes, also of the ended ones, in seconds."""
        return sum(cpu_of(member) for member in self._family())

    @contextlib.contextmanager
    def watching_memory(self) -> Iterator[list[int]]:
        """Yield a list whose only item becomes the largest resident size of one process, in bytes."""
        found, ends, family = [0], threading.Event(), self._family()

        def watch() -> None:
            while not ends.wait(SAMPLING):
                for member in family:
                    with contextlib.suppress(psutil.Error):
                        found[0] = max(found[0], member.memory_info().rss)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield found
        finally:
            ends.set()
            thread.join()

    def stop(self, patience: float = 2) -> None:
        """End it, gently at first, and remove what it has stored; a second call does nothing."""
        if self._is_stopped:
            return
        self._is_stopped = True
        try:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(patience)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            shutil.rmtree(self.directory, ignore_errors=True)


def cpu_of(process: psutil.Process) -> float:
    """Return the processor time of a process and of its ended children.

    The clock of the process counts nanoseconds, where ``/proc`` counts hundredths of a second.
    """
    clock = (~process.pid << 3) | 2  # as clock_getcpuclockid() of the C library
    times = process.cpu_times()
    return time.clock_gettime(clock) + times.children_user + times.children_system


def stop_all(servers: list[Running]) -> None:
    """End servers together, so that they need no more time than the slowest one."""
    for server in servers:
        server.process.terminate()
    with contextlib.ExitStack() as stack:  # an interruption does not keep the others running
        for server in servers:
            stack.callback(server.stop)
