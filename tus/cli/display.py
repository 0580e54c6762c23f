"""What a user sees of running transfers: bars, lines, JSON, or only errors.

Laws of this room:

1. URLs go to stdout, and so does JSON; all else goes to stderr.
2. Text from a server or a file name never reaches a terminal with control characters in it.
3. The methods are called from several threads.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from tus.cli.client_arguments import message_of, status_of
from tus.cli.text import printable, size_text

if TYPE_CHECKING:
    from tus.cli.transfers import Transfer
    from tus.client import Progress

_LINE_EVERY: Final = 10.0  # seconds between two lines about the progress of a file
_EVENT_EVERY: Final = 1.0


class Display:
    """A display of URLs and errors alone, and the base of the others."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the terminal as it was."""

    def begin(self, transfers: Sequence[Transfer]) -> None:
        """Show that these transfers begin."""

    def update(self, transfer: Transfer, progress: Progress) -> None:
        """Show what happens to a file."""

    def succeed(self, transfer: Transfer) -> None:
        """Show that a file is complete."""

    def fail(self, transfer: Transfer, error: Exception) -> None:
        """Show why a file is not complete."""
        self.note(f"tus: {printable(transfer.name)}: {message_of(error)}")

    def result(self, line: str) -> None:
        """Print a line of the command's result."""
        with self._lock:
            try:
                print(line, flush=True)
            except BrokenPipeError:  # the reader has gone, but the files are wanted
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def note(self, line: str) -> None:
        """Print a sentence to stderr."""
        with self._lock:
            print(line, file=sys.stderr, flush=True)

    def summarize(self, transfers: Iterable[Transfer], seconds: float) -> None:
        """Show what became of all files."""


class Lines(Display):
    """A line for each change, for terminals without bars, and for logs."""

    def __init__(self) -> None:
        super().__init__()
        self._told_at: dict[Transfer, float] = {}
        self._waiting: set[Transfer] = set()

    def update(self, transfer: Transfer, progress: Progress) -> None:
        now = time.monotonic()
        name = printable(transfer.name)
        match progress.kind:
            case "started":
                self._told_at[transfer] = now
            case "resumed":
                self.note(f"{name}: {resumed_text(progress)}")
            case "waiting":
                self._waiting.add(transfer)
                self.note(f"{name}: {waiting_text(progress)}")
            case "sent" if transfer in self._waiting:
                self._waiting.discard(transfer)
                self.note(f"{name}: goes on, {progress_text(progress)}")
            case "sent" if now - self._told_at.get(transfer, now) >= _LINE_EVERY:
                self._told_at[transfer] = now
                self.note(f"{name}: {progress_text(progress)}")

    def succeed(self, transfer: Transfer) -> None:
        self.note(f"{printable(transfer.name)}: {done_text(transfer)}")

    def summarize(self, transfers: Iterable[Transfer], seconds: float) -> None:
        for line in summary_lines(list(transfers), seconds):
            self.note(line)


class Events(Display):
    """A JSON object a line, on stdout. New names may be added, but names never change."""

    def __init__(self) -> None:
        super().__init__()
        self._told_at: dict[Transfer, float] = {}

    def update(self, transfer: Transfer, progress: Progress) -> None:
        now = time.monotonic()
        if progress.kind == "finished":  # the result says more
            return
        if progress.kind == "sent":
            if now - self._told_at.get(transfer, 0.0) < _EVENT_EVERY:
                return
            self._told_at[transfer] = now
        event: dict[str, Any] = {"event": progress.kind, "file": transfer.name, "url": progress.url or None}
        event |= {"sent": progress.sent, "accepted": progress.accepted, "total": progress.total}
        event |= {"resumed_from": progress.resumed_from, "attempt": progress.attempt, "rate": round(progress.rate)}
        if progress.kind == "waiting":
            event |= {"reason": progress.reason, "wait": round(progress.wait, 3)}
        self._print(event)

    def succeed(self, transfer: Transfer) -> None:
        result = transfer.result
        event = {"event": "done", "file": transfer.name, "url": getattr(result, "url", None)}
        event |= {"size": result.size, "resumed_from": result.resumed_from, "seconds": round(transfer.seconds, 3)}
        for name in ("attempts", "protocol", "path", "digest"):
            if hasattr(result, name):
                event[name] = getattr(result, name)
        self._print(event)

    def fail(self, transfer: Transfer, error: Exception) -> None:
        event = {"event": "failed", "file": transfer.name, "url": getattr(error, "url", None) or None}
        event |= {"error": message_of(error), "kind": type(error).__name__, "status": getattr(error, "status", None)}
        event |= {"offset": getattr(error, "offset", None), "resumable": bool(getattr(error, "resumable", False))}
        self._print({**event, "exit_status": status_of(error)})

    def result(self, line: str) -> None:
        """Print nothing: the event has it."""

    def summarize(self, transfers: Iterable[Transfer], seconds: float) -> None:
        done, rest = _divided(transfers)
        sizes = sum(transfer.result.size for transfer in done)
        event = {"event": "summary", "done": len(done), "failed": len(rest), "size": sizes}
        self._print({**event, "seconds": round(seconds, 3)})

    def _print(self, event: dict[str, Any]) -> None:
        super().result(json.dumps(event))


def make_display(options: argparse.Namespace) -> Display:
    """Return the display that the arguments ask for."""
    if options.json:
        return Events()
    if options.quiet or options.progress == "none":
        return Display()
    can_move = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    if options.progress == "bar" or (options.progress == "auto" and can_move):
        try:
            from tus.cli.bars import Bars
        except ModuleNotFoundError:  # rich is not installed
            return Lines()
        return Bars()
    return Lines()


# -- Sentences --


def resumed_text(progress: Progress) -> str:
    """Return where a transfer goes on."""
    of = "" if progress.total is None else f" of {size_text(progress.total)}"
    return f"resumed at {size_text(progress.accepted)}{of}"


def waiting_text(progress: Progress) -> str:
    """Return why a transfer waits, and for how long."""
    return f"waiting {seconds_text(progress.wait)}: {printable(progress.reason)}"


def progress_text(progress: Progress) -> str:
    """Return how far a transfer is."""
    if progress.total:
        done = f"{100 * progress.sent // progress.total}%, {size_text(progress.sent)} of {size_text(progress.total)}"
    else:
        done = size_text(progress.sent)
    left = seconds_left(progress)
    return f"{done}, {size_text(int(progress.rate))}/s" + ("" if left is None else f", {seconds_text(left)} left")


def done_text(transfer: Transfer) -> str:
    """Return that a transfer is complete."""
    result = transfer.result
    if getattr(result, "attempts", 1) == 0:
        return "an earlier run has sent it"
    moved = result.size - result.resumed_from
    rate = f", {size_text(int(moved / transfer.seconds))}/s" if moved and transfer.seconds >= 0.1 else ""
    resumed = f", resumed at {size_text(result.resumed_from)}" if result.resumed_from else ""
    return f"done, {size_text(result.size)} in {seconds_text(transfer.seconds)}{rate}{resumed}"


def summary_lines(transfers: list[Transfer], seconds: float) -> list[str]:
    """Return the lines about several files."""
    if len(transfers) < 2:
        return []
    done, rest = _divided(transfers)
    size = size_text(sum(transfer.result.size for transfer in done))
    lines = [f"{len(done)} of {len(transfers)} files done, {size} in {seconds_text(seconds)}"]
    if rest:
        lines.append(f"not done: {', '.join(printable(transfer.name) for transfer in rest)}")
    return lines


def seconds_left(progress: Progress) -> float | None:
    """Return how long a transfer takes still, if that is known."""
    if progress.total is None or progress.rate < 1:
        return None
    return max(progress.total - progress.sent, 0) / progress.rate


def seconds_text(seconds: float) -> str:
    """Return a time span for people."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02} min"


def _divided(transfers: Iterable[Transfer]) -> tuple[list[Transfer], list[Transfer]]:
    """Return the complete transfers and the others."""
    every = list(transfers)
    return [each for each in every if each.result is not None], [each for each in every if each.result is None]
