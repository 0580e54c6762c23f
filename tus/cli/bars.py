"""Bars of running transfers, by rich."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Table
from rich.table import Column

from tus.cli.display import Display, resumed_text, seconds_left, seconds_text, summary_lines, waiting_text
from tus.cli.text import printable, size_text

if TYPE_CHECKING:
    from tus.cli.transfers import Transfer
    from tus.client import Progress

_MANY: Final = 4  # so many files need no bar for all of them


class Bars(Display):
    """A bar for each running transfer. When it ends, its URL or its error takes the place of the bar."""

    def __init__(self) -> None:
        super().__init__()
        self._console = Console(stderr=True, highlight=False)
        self._tasks: dict[Transfer, TaskID] = {}
        self._whole: TaskID | None = None
        self._ended = self._count = 0
        self._table = Table(
            TextColumn("{task.description}", markup=False, table_column=Column(ratio=2, no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8)),
            TextColumn("{task.fields[percent]}", markup=False, table_column=Column(no_wrap=True, justify="right")),
            TextColumn("{task.fields[moved]}", markup=False, table_column=Column(no_wrap=True, justify="right")),
            TextColumn("{task.fields[note]}", markup=False, table_column=Column(no_wrap=True)),
            console=self._console,
            expand=True,
            transient=True,
            redirect_stdout=False,
        )
        self._table.start()

    def close(self) -> None:
        self._table.stop()

    def begin(self, transfers: Sequence[Transfer]) -> None:
        if len(transfers) > _MANY:
            self._count = len(transfers)
            self._whole = self._add("all files", self._count)

    def update(self, transfer: Transfer, progress: Progress) -> None:
        with self._lock:
            if transfer not in self._tasks:
                self._tasks[transfer] = self._add(printable(transfer.name), progress.total)
            total = progress.total
            percent = f"{100 * progress.sent // total}%" if total else ""
            of = "" if total is None else f"/{size_text(total)}"
            self._table.update(
                self._tasks[transfer],
                total=total,
                completed=progress.sent,
                percent=percent,
                moved=f"{size_text(progress.sent)}{of}",
                note=_note(progress),
            )

    def succeed(self, transfer: Transfer) -> None:
        self._remove(transfer)

    def fail(self, transfer: Transfer, error: Exception) -> None:
        self._remove(transfer)
        super().fail(transfer, error)

    def result(self, line: str) -> None:
        if sys.stdout.isatty():  # the terminal of the bars, or as good as that
            self.note(line)
        else:
            super().result(line)

    def note(self, line: str) -> None:
        with self._lock:
            self._console.print(line, markup=False, soft_wrap=True)

    def summarize(self, transfers: Iterable[Transfer], seconds: float) -> None:
        for line in summary_lines(list(transfers), seconds):
            self.note(line)

    def _remove(self, transfer: Transfer) -> None:
        with self._lock:
            task = self._tasks.pop(transfer, None)
            if task is not None:
                self._table.remove_task(task)
            if self._whole is not None:
                self._ended += 1
                self._table.update(self._whole, completed=self._ended, moved=f"{self._ended}/{self._count}")

    def _add(self, name: str, total: int | None) -> TaskID:
        return self._table.add_task(name, total=total, percent="", moved="", note="")


def _note(progress: Progress) -> str:
    if progress.kind == "waiting":
        return waiting_text(progress)
    parts = []
    if progress.rate >= 1:
        parts.append(f"{size_text(int(progress.rate))}/s")
    if (left := seconds_left(progress)) is not None:
        parts.append(f"{seconds_text(left)} left")
    if progress.resumed_from:
        parts.append(f"(resumed at {size_text(progress.resumed_from)})")
    return "  ".join(parts) or (resumed_text(progress) if progress.kind == "resumed" else "")
