"""``tus handover``: the hand-over of finished uploads to the application, without their clients."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tus.adapters.wsgi import WsgiApp
from tus.apps.files import Files
from tus.cli import arguments, stored, text
from tus.cli.arguments import add_named_options, read_named_options
from tus.cli.users import acting_as_owner
from tus.converters import as_callable, is_async
from tus.errors import OptionError, TusException
from tus.filter import Filter
from tus.handover.backlog import Backlog, leave_to_command
from tus.models import Outcome, Upload
from tus.options import Options
from tus.server.service import services_over


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``tus handover``."""
    parser.description = _hand_over.__doc__
    parser.add_argument(
        "dir",
        metavar="DIR",
        nargs="?",
        help=f"a tmp_file_dir, or the --dir of tus serve (default: {arguments.DEFAULT}, or all of CONFIG.ini or APP)",
    )
    receiver = parser.add_mutually_exclusive_group()
    receiver.add_argument("--config", metavar="CONFIG.ini", help="the paste.deploy pipeline that receives the files")
    receiver.add_argument(
        "--app", metavar="MODULE:APP", help="the WSGI or ASGI application that receives them, as its server names it"
    )
    receiver.add_argument("--on-finished", metavar="MODULE:FUNCTION", help="the Python function that receives them")
    parser.add_argument(
        "--all", action="store_true", help="also files that are not due yet, and files and events that were set aside"
    )
    add_named_options(parser)
    parser.set_defaults(run=_hand_over)


def _hand_over(options: argparse.Namespace) -> int:
    """Offer the finished uploads that are due to the application, and deliver the pending events to the webhook.

    Servers do the same between requests. Use this command for servers that cannot run threads, and for files and
    events that were set aside. Without --config, --app and --on-finished the files go where tus serve puts them. The
    exit status is 1 if files were postponed or are busy, or if events are left.
    """
    with _acting_as_owner(options):
        if options.app is None:
            return _run(options, _backlogs(options))
        return _hand_over_to_app(options)


def _acting_as_owner(options: argparse.Namespace) -> AbstractContextManager[None]:
    """Let root act as the owner of the directory, if the command line names it; otherwise the service refuses root."""
    directory = options.dir or (arguments.DEFAULT if options.config is options.app is None else None)
    if directory is None or arguments.is_store_url(directory):
        return nullcontext()
    return acting_as_owner(stored.find_directory(directory))


def _hand_over_to_app(options: argparse.Namespace) -> int:
    """Import an application, and offer the uploads of its filters or middleware."""
    if options.option:
        raise OptionError("--option", "cannot be given with --app, which has its own")
    leave_to_command()
    try:
        app = as_callable(options.app)
    except ValueError as error:
        raise OptionError("--app", f"{error}; it is {options.app!r}") from error

    def work() -> int:  # after the start of the application, because Starlette makes its middleware only then
        return _run(options, _living_backlogs(options, f"{options.app!r} has no Filter or TusMiddleware"))

    if not is_async(app):
        return work()
    from tus.cli.lifespan import run_with_lifespan

    return run_with_lifespan(app, work)


def _run(options: argparse.Namespace, backlogs: Sequence[Backlog]) -> int:
    counts: Counter[str] = Counter()
    pending_events = 0
    for backlog in backlogs:
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
    inner = directory if is_url else stored.find_directory(directory)
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
        raise OptionError("DIR", "is not a --dir of tus serve; name the receiver by --config, --app or --on-finished")
    built = Options.build(upload_path="/files", **others)
    backlog = Filter(app, options=built).backlog
    backlog.service = None
    return [backlog]


def _backlogs_of_config(options: argparse.Namespace) -> Sequence[Backlog]:
    from tus.cli import serve

    if options.option:
        raise OptionError("--option", "cannot be given with --config; set it in the file")
    _pipeline = serve.load_pipeline(options.config)  # keeps its services alive until here
    return _living_backlogs(options, f"{options.config!r} has no tus filter")


def _living_backlogs(options: argparse.Namespace, problem: str) -> Sequence[Backlog]:
    """Return the backlogs of the services in this process.

    Raises:
        TusException: there is none.
    """
    directory = None if options.dir is None else stored.find_directory(options.dir)
    found = [service.backlog for service in services_over(directory) if service.backlog is not None]
    if not found:
        raise TusException(f"{problem} for these uploads")
    return found


def _unused_app(environ: Any, start_response: Any) -> Any:
    raise AssertionError("another receiver gets the files")
