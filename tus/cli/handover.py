"""``tus handover``: finished uploads go to the application, without their clients."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tus.adapters.wsgi import WsgiApp
from tus.apps.files import Files
from tus.cli import arguments as directories
from tus.cli import text
from tus.cli.arguments import add_named_options, read_named_options
from tus.errors import OptionError, TusException
from tus.filter import Filter
from tus.handover.backlog import Backlog
from tus.models import Outcome, Upload
from tus.options import Options
from tus.server.service import Service, services_over


def add_commands(commands: Any) -> None:
    """Add ``handover`` to the subparsers of the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "handover", help="hand finished uploads over that wait for it", description=_hand_over.__doc__
    )
    parser.add_argument(
        "dir",
        metavar="DIR",
        nargs="?",
        help=f"a tmp_file_dir, or the --dir of tus serve (default: {directories.DEFAULT}, or all of CONFIG.ini)",
    )
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--config", metavar="CONFIG.ini", help="the paste.deploy pipeline that takes them")
    who.add_argument("--on-finished", metavar="MODULE:FUNCTION", help="the Python function that takes them")
    parser.add_argument("--all", action="store_true", help="also what is not due yet, and what was put aside")
    add_named_options(parser)
    parser.set_defaults(run=_hand_over)


def _hand_over(options: argparse.Namespace) -> int:
    """Ask the application to take the finished uploads that are due, and tell the webhook what it has missed.

    Servers do the same beside their requests; this is for where they cannot run threads, and for what was put aside.
    Without --config and --on-finished the files go where tus serve puts them. The exit status is 1 where something is
    left to be done.
    """
    counts: Counter[str] = Counter()
    untold = 0
    for backlog in _backlogs(options):
        for upload, outcome in backlog.run(everything=options.all):
            counts["busy" if outcome is None else str(outcome)] += 1
            print(_line(upload, outcome, backlog))
        untold += backlog.hooks.flush(retry_aside=options.all)
    parts = [f"{counts[name]} {name}" for name in ("accepted", "rejected", "postponed", "busy") if counts[name]]
    print(", ".join(parts) or "nothing is due")
    if untold:
        print(f"{text.count_text(untold, 'event')} could not be told")
    return 1 if untold or counts["postponed"] or counts["busy"] else 0


def _line(upload: Upload, outcome: Outcome | None, backlog: Backlog) -> str:
    said = "somebody is at it just now" if outcome is None else str(outcome)
    if outcome == Outcome.POSTPONED:
        said += f", {text.printable(backlog.error_of(upload.id))}"
    name = text.printable(text.name_of(upload))
    return f"{upload.id}  {said}{name and '  ' + name}"


def _backlogs(options: argparse.Namespace) -> Sequence[Backlog]:
    if options.config is not None:
        return [service.backlog for service in _services_of(options) if service.backlog is not None]
    directory = options.dir or directories.DEFAULT
    inner = directories.find(directory)
    others = read_named_options(options.option)
    app: WsgiApp
    if options.on_finished is not None:
        app, others["on_finished"] = _nobody, options.on_finished
    elif inner != directory:
        app = Files(directory)
    elif others.get("spool") or others.get("on_finished"):
        app = _nobody
    else:
        raise OptionError("DIR", "is not that of tus serve; say by --config or --on-finished who takes its files")
    built = Options.build(upload_path="/files", tmp_file_dir=inner, **others)
    backlog = Filter(app, options=built).backlog
    backlog.service = None
    return [backlog]


_pipelines: list[WsgiApp] = []


def _services_of(options: argparse.Namespace) -> Sequence[Service]:
    from tus.cli import serve

    if options.option:
        raise OptionError("--option", "cannot be given with --config; set it in the file")
    pipeline = serve.load_pipeline(options.config)
    found = services_over(None if options.dir is None else directories.find(options.dir))
    if not found:
        raise TusException(f"{options.config!r} has no filter of such uploads")
    _pipelines.append(pipeline)  # it keeps them
    return found


def _nobody(environ: Any, start_response: Any) -> Any:
    raise AssertionError("somebody else takes the files")
