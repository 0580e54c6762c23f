"""Transfers of several files at once, and their end by Ctrl-C.

Laws of this room:

1. A failure does not stop the other files.
2. Ctrl-C once stops sending, and prints the command that goes on; twice ends the process at once. Either way nothing
   is lost that the server has.
"""

from __future__ import annotations

import os
import queue
import shlex
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from tus.cli.choosing import Chosen
from tus.cli.client_arguments import DONE, FAILED, RESUMABLE, status_of
from tus.cli.display import Display
from tus.client import Cancelled, ClientError, Control, Progress

_GRACE: Final = 5.0  # seconds for what was running after the first Ctrl-C; it can wait for stdin
_TICK: Final = 0.1  # signals interrupt no wait on Windows

Work = Callable[["Transfer", Callable[[Progress], None], Control], Any]


class Transfer:
    """One file on its way.

    Attributes:
        file: what is sent, or received.
        result: what the client has returned; None until then.
        error: why there is no result.
        seconds: how long it took.
    """

    def __init__(self, file: Chosen) -> None:
        self.file = file
        self.result: Any = None
        self.error: Exception | None = None
        self.seconds = 0.0

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def status(self) -> int:
        """The exit status, if this were the only file."""
        if self.result is not None:
            return DONE
        status = RESUMABLE if self.error is None else status_of(self.error)
        return FAILED if status == RESUMABLE and not self.file.is_file else status


class Transfers:
    """Runs transfers.

    Args:
        files: what to transfer.
        work: transfers one file, in a thread of its own.
        jobs: how many to run at once.
        display: shows them.
        describe: returns the line of stdout for a result.
    """

    def __init__(
        self, files: Sequence[Chosen], work: Work, jobs: int, display: Display, describe: Callable[[Any], str]
    ) -> None:
        self.all = [Transfer(file) for file in files]
        self._work, self._jobs, self._display, self._describe = work, jobs, display, describe
        self._waiting = deque(self.all)
        self._ended: queue.SimpleQueue[Transfer] = queue.SimpleQueue()
        self._control = Control()
        self._interruptions = 0

    def run(self, command: Sequence[str]) -> int:
        """Transfer the files, and return the exit status.

        Args:
            command: the arguments of the command line, from which the one to go on is made.
        """
        began = time.monotonic()
        with self._display, self._signals():
            self._display.begin(self.all)
            for _ in range(min(self._jobs, len(self.all))):
                threading.Thread(target=self._run_some, daemon=True).start()
            self._wait()
            self._display.summarize(self.all, time.monotonic() - began)
        unfinished = [transfer for transfer in self.all if transfer.status == RESUMABLE]
        if unfinished:
            print(f"tus: to go on, run: {self._command(command)}", file=sys.stderr)
        statuses = {transfer.status for transfer in self.all} - {DONE}
        return FAILED if len(statuses) > 1 else max(statuses, default=DONE)

    def _run_some(self) -> None:
        while not self._control.is_cancelled:
            try:
                transfer = self._waiting.popleft()
            except IndexError:
                return
            began = time.monotonic()
            try:
                transfer.result = self._work(transfer, self._telling(transfer), self._control)
            except Exception as error:  # a defect must not leave the main thread waiting
                transfer.error = error
            transfer.seconds = time.monotonic() - began
            self._ended.put(transfer)

    def _telling(self, transfer: Transfer) -> Callable[[Progress], None]:
        return lambda progress: self._display.update(transfer, progress)

    def _wait(self) -> None:
        """Show the ends of all transfers, and print the results in the order of the command line."""
        left, printed, deadline = set(self.all), 0, None
        while left and (deadline is None or time.monotonic() < deadline):
            if self._interruptions and deadline is None:
                deadline = time.monotonic() + _GRACE
                self._display.note("tus: stopping; press Ctrl-C again to stop at once")
                self._control.cancel()
                left.difference_update(self._waiting)
                self._waiting.clear()
            try:
                transfer = self._ended.get(timeout=_TICK)
            except queue.Empty:
                continue
            left.discard(transfer)
            self._show(transfer)
            while printed < len(self.all) and self.all[printed] not in left:
                self._print(self.all[printed])
                printed += 1
        for transfer in self.all[printed:]:
            self._print(transfer)

    def _show(self, transfer: Transfer) -> None:
        error = transfer.error
        if error is None:
            self._display.succeed(transfer)
        elif not isinstance(error, (ClientError, OSError)):
            raise error
        elif not (isinstance(error, Cancelled) and self._interruptions):
            self._display.fail(transfer, error)

    def _print(self, transfer: Transfer) -> None:
        if transfer.result is not None:
            self._display.result(self._describe(transfer.result))

    def _command(self, command: Sequence[str]) -> str:
        """Return the command that goes on, without the files that are complete."""
        complete = {transfer.file.given for transfer in self.all if transfer.result is not None}
        complete -= {transfer.file.given for transfer in self.all if transfer.result is None}
        return " ".join(["tus", *(_quoted(word) for word in command if word not in complete)])

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Stop at SIGINT and SIGTERM."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self._interrupt) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                # The process is about to end by itself; a second Ctrl-C now must not change its exit status.
                signal.signal(number, signal.SIG_IGN if self._interruptions else handler)

    def _interrupt(self, number: int, frame: Any) -> None:
        self._interruptions += 1
        if self._interruptions > 1:
            self._display.close()
            os._exit(RESUMABLE)


def _quoted(word: str) -> str:
    """Return a word for the shell, without characters that a terminal would obey."""
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(c if c.isprintable() and c not in "'\\" else _escaped(ord(c)) for c in word) + "'"


def _escaped(number: int) -> str:
    if 0xDC80 <= number <= 0xDCFF:  # a byte of a file name that is not UTF-8
        number -= 0xDC00
    elif number > 0x7F:
        return f"\\U{number:08x}"
    return f"\\x{number:02x}"
