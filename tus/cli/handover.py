"""``tus handover``: the hand-over of finished uploads to the application, without their clients."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tus.adapters.wsgi import WsgiApp
from tus.apps.files import Files
from tus.cli import arguments, text
from tus.cli.arguments import add_named_options, read_named_options
from tus.errors import OptionError, TusException
from tus.filter import Filter
from tus.handover.backlog import Backlog
from tus.models import Outcome, Upload
from tus.options import Options
from tus.server.service import services_over


def add_commands(commands: Any) -> None:
    """Add ``handover`` to the subparsers of the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "handover", help="hand pending uploads over to the application", description=_hand_over.__doc__
    )
    parser.add_argument(
        "dir",
        metavar="DIR",
        nargs="?",
        help=f"a tmp_file_dir, or the --dir of tus serve (default: {arguments.DEFAULT}, or all of CONFIG.ini)",
    )
    receiver = parser.add_mutually_exclusive_group()
    receiver.add_argument("--config", metavar="CONFIG.ini", help="the paste.deploy pipeline that receives the files")
    receiver.add_argument("--on-finished", metavar="MODULE:FUNCTION", help="the Python function that receives them")
    parser.add_argument(
        "--all", action="store_true", help="also files that are not due yet, and files and events that were set aside"
    )
    add_named_options(parser)
    parser.set_defaults(run=_hand_over)


def _hand_over(options: argparse.Namespace) -> int:
    """Offer the finished uploads that are due to the application, and deliver the pending events to the webhook.

    Servers do the same between requests. Use this command for servers that cannot run threads, and for files and
    events that were set aside. Without --config and --on-finished the files go where tus serve puts them. The exit
    status is 1 if files were postponed or are busy, or if events are left.
    """
    counts: Counter[str] = Counter()
    pending_events = 0
    for backlog in _backlogs(options):
        for upload, outcome in backlog.run(everything=options.all):
            counts["busy" if outcome is None else str(outcome)] += 1
            print(_line(upload, outcome, backlog))
        pending_events += backlog.hooks.flush(retry_aside=options.all)
    parts = [f"{counts[name]} {name}" for name in ("accepted", "rejected", "postponed", "busy") if counts[name]]
    print(", ".join(parts) or "nothing is due")
    if pending_events:
        print(f"{text.count_text(pending_events, 'event')} not delivered")
    return 1 if pending_events or counts["postponed"] or counts["busy"] else 0


def _line(upload: Upload, outcome: Outcome | None, backlog: Backlog) -> str:
    result = "busy, another process is handing it over" if outcome is None else str(outcome)
    if outcome == Outcome.POSTPONED:
        result += f", {text.printable(backlog.error_of(upload.id))}"
    name = text.printable(text.name_of(upload))
    return f"{upload.id}  {result}{name and '  ' + name}"


def _backlogs(options: argparse.Namespace) -> Sequence[Backlog]:
    if options.config is not None:
        return _backlogs_of_config(options)
    directory = options.dir or arguments.DEFAULT
    is_url = arguments.is_store_url(directory)
    inner = directory if is_url else arguments.find_directory(directory)
    others = read_named_options(options.option)
    others["store" if is_url else "tmp_file_dir"] = inner
    app: WsgiApp
    if options.on_finished is not None:
        app, others["on_finished"] = _unused_app, options.on_finished
    elif inner != directory:
        app = Files(directory)
    elif others.get("spool") or others.get("on_finished"):
        app = _unused_app
    else:
        raise OptionError("DIR", "is not a --dir of tus serve; name the receiver by --config or --on-finished")
    built = Options.build(upload_path="/files", **others)
    backlog = Filter(app, options=built).backlog
    backlog.service = None
    return [backlog]


def _backlogs_of_config(options: argparse.Namespace) -> Sequence[Backlog]:
    from tus.cli import serve

    if options.option:
        raise OptionError("--option", "cannot be given with --config; set it in the file")
    directory = None if options.dir is None else arguments.find_directory(options.dir)
    _pipeline = serve.load_pipeline(options.config)  # keeps its services alive until here
    found = [service.backlog for service in services_over(directory) if service.backlog is not None]
    if not found:
        raise TusException(f"{options.config!r} has no tus filter for these uploads")
    return found


def _unused_app(environ: Any, start_response: Any) -> Any:
    raise AssertionError("another receiver gets the files")
