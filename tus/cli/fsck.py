"""``tus fsck``: the check and repair of a directory store."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from textwrap import wrap

from tus.cli import arguments, stored, text
from tus.cli.users import acting_as_owner
from tus.errors import StorageUnavailable
from tus.filesystem.locks import check_locks_work
from tus.stores.directory.fsck import check as fsck
from tus.stores.directory.fsck.check import Finding, Severity
from tus.stores.directory.fsck.place import Place

_WIDTH = 100  # characters in a line, unless a word is longer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``tus fsck``."""
    parser.description = (
        "Check the uploads of a directory for damage; servers may run meanwhile. The exit status is 0 if there is no "
        "damage or all of it was repaired, and otherwise 1."
    )
    arguments.add_directory(parser)
    parser.add_argument(
        "--repair",
        action="store_true",
        help="repair damage if it is safe; no received bytes are removed, uploads that cannot be trusted are set aside",
    )
    parser.add_argument("--verbose", action="store_true", help="also print states that are normal while servers run")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.set_defaults(run=_fsck)


@dataclass(slots=True)
class _Totals:
    """The numbers of findings."""

    damaged: int = 0
    repaired: int = 0  # counted in damaged too
    repairable: int = 0  # not repaired, but could be
    notices: int = 0
    expired: int = 0

    def add(self, finding: Finding, outcome: str | None) -> None:
        if finding.kind == "expired":
            self.expired += 1
        elif finding.severity == Severity.DAMAGE:
            self.damaged += 1
            self.repaired += outcome == ""
        elif finding.severity == Severity.NOTICE:
            self.notices += 1
        if finding.repair and outcome is None:
            self.repairable += 1

    @property
    def status(self) -> int:
        """The exit status."""
        return 0 if self.damaged == self.repaired else 1

    def __str__(self) -> str:
        parts = [f"{self.damaged} damaged" if self.damaged else "no damage"]
        if self.repaired:
            parts.append(f"{self.repaired} of them repaired")
        if self.notices:
            parts.append(text.count_text(self.notices, "notice"))
        if self.expired:
            parts.append(f"{self.expired} expired, which tus clean removes")
        return ", ".join(parts)


def _fsck(options: argparse.Namespace) -> int:
    directory = stored.find_directory(options.dir)
    with acting_as_owner(directory):
        return _report(options, directory)


def _report(options: argparse.Namespace, directory: str) -> int:
    if options.repair:
        with suppress(StorageUnavailable):  # a full disk; the servers have checked the locks
            check_locks_work(directory)
    totals = _Totals()
    findings = _count(_check(options, directory), totals)
    shown = ((finding, outcome) for finding, outcome in findings if options.verbose or _matters(finding))
    if options.json:
        print('{"findings":')
        for line in text.json_array(_as_json(finding, outcome) for finding, outcome in shown):
            print(line)
        rest = {"damaged": totals.damaged, "repaired": totals.repaired, "expired": totals.expired}
        print(f", {json.dumps(rest)[1:]}")
        return totals.status
    for finding, outcome in shown:
        for line in _lines(finding, outcome):
            print(line)
    print(totals)
    if totals.repairable and not options.repair:
        print(f"{totals.repairable} can be repaired, by tus fsck --repair")
    return totals.status


def _check(options: argparse.Namespace, directory: str) -> Iterator[tuple[Finding, str | None]]:
    ownership = stored.ownership_of(options)
    yield from fsck.check(Place(directory, ownership), options.repair)
    # In its --dir, tus serve checks with probe files that it can write, and copies finished files to hidden names.
    if not os.path.samefile(options.dir, directory):
        yield from fsck.check(Place(options.dir, ownership), options.repair, probes_only=True)


def _count(findings: Iterator[tuple[Finding, str | None]], totals: _Totals) -> Iterator[tuple[Finding, str | None]]:
    for finding, outcome in findings:
        totals.add(finding, outcome)
        yield finding, outcome


def _matters(finding: Finding) -> bool:
    return finding.severity != Severity.NORMAL


def _lines(finding: Finding, outcome: str | None) -> Iterator[str]:
    yield f"{finding.severity}: {text.printable(finding.id)}: {finding.kind}"
    yield from _wrap(finding.explanation)
    if finding.repair and outcome == "":
        yield from _wrap(f"Repaired: {finding.repair.done}.")
    elif finding.repair and outcome is not None:
        yield from _wrap(f"Not repaired: {outcome}.")
    elif finding.repair:
        yield from _wrap(f"--repair would {finding.repair.words}.")
    elif finding.reason:
        yield from _wrap(f"No repair: {finding.reason}.")


def _wrap(sentence: str) -> list[str]:
    return wrap(
        sentence,
        _WIDTH,
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _as_json(finding: Finding, outcome: str | None) -> dict[str, object]:
    return {
        "id": finding.id,
        "kind": finding.kind,
        "severity": str(finding.severity),
        "explanation": finding.explanation,
        "repair": finding.repair.words if finding.repair else None,
        "repaired": None if outcome is None else outcome == "",
        "reason": outcome or finding.reason or None,
    }
