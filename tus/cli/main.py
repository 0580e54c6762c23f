"""The command line: ``tus serve`` is here, what looks after a directory is in :mod:`tus.cli`."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from tus.cli import fsck as checking
from tus.cli import handover as handing_over
from tus.cli import import_ as importing
from tus.cli import ls as listing
from tus.cli import rm as upkeep
from tus.cli.arguments import add_named_options, read_named_options
from tus.cli.text import printable
from tus.converters import as_origins, as_url_path
from tus.errors import OptionError, TusException
from tus.version import __version__

_T = TypeVar("_T")
_DIR, _PATH = "./uploads", "/files/"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status: 0 done, 1 failed, 2 asked for wrongly."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names have characters that some terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    with suppress(FileNotFoundError):  # for functions that are named; last, so that nothing here hides a package
        if (here := os.getcwd()) not in sys.path:
            sys.path.append(here)
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options) or 0
        sys.stdout.flush()
        return status
    except OptionError as error:
        print(f"tus: {error}", file=sys.stderr)
        return 2
    except TusException as error:
        print(f"tus: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever reads the list has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        what = f": {printable(str(error.filename))}" if error.filename else ""
        print(f"tus: {error.strerror}{what}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tus", description="Resumable uploads.")
    parser.add_argument("--version", action="version", version=f"tus {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser(
        "serve",
        help="receive uploads into a directory, or serve the pipeline of an ini file",
        description="Receive uploads into a directory: unfinished ones live in DIR/.tus, each finished file appears "
        "in DIR under its own name. With CONFIG.ini, serve that paste.deploy pipeline instead.",
    )
    serve.add_argument("config", nargs="?", metavar="CONFIG.ini", help="a paste.deploy configuration file")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    serve.add_argument("--port", type=int, default=1080, help="0 for any free one (default: %(default)s)")
    serve.add_argument("--dir", help=f"directory of the files (default: {_DIR})")
    serve.add_argument("--path", help=f"path of the URL that creates uploads (default: {_PATH})")
    serve.add_argument("--workers", type=int, default=_default_workers(), help="processes (default: %(default)s)")
    serve.add_argument("--threads", type=int, default=32, help="uploads at a time in each (default: %(default)s)")
    serve.add_argument(
        "--cors-allow-origin",
        nargs="+",
        action="extend",
        metavar="ORIGIN",
        help="origins whose pages may upload, or * for any (default: none but the same)",
    )
    add_named_options(serve)
    serve.add_argument(
        "--metrics",
        nargs="?",
        const="/metrics",
        metavar="PATH",
        help="answer with metrics for Prometheus there (default where it is given: /metrics)",
    )
    serve.add_argument(
        "-v", "--verbose", action="count", default=0, help="log the uploads to stderr; twice, each request as well"
    )
    serve.set_defaults(run=_serve)

    for room in (listing, upkeep, handing_over, checking):
        room.add_commands(commands)
    importing.add_command(commands)
    return parser


def _default_workers() -> int:
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)


def _serve(options: argparse.Namespace) -> None:
    from tus.cli import serve

    for name in ("workers", "threads"):
        if getattr(options, name) < 1:
            raise OptionError(f"--{name}", "must be at least 1")
    if not 0 <= options.port <= 65535:
        raise OptionError("--port", "must be between 0 and 65535")
    if options.verbose:
        serve.log_to_stderr(options.verbose)
    if options.config is None:
        path = _checked("--path", as_url_path, options.path or _PATH)
        origins = _checked("--cors-allow-origin", as_origins, options.cors_allow_origin or [])
        metrics = None if options.metrics is None else _checked("--metrics", as_url_path, options.metrics)
        app = serve.build_pipeline(options.dir or _DIR, path, origins, metrics, read_named_options(options.option))
        serve.run(app, options.host, options.port, options.workers, options.threads, path)
    else:
        if options.option:
            raise OptionError("--option", "cannot be given with CONFIG.ini; set it in the file")
        for name in ("dir", "path", "cors_allow_origin", "metrics"):
            if getattr(options, name) is not None:
                raise OptionError("--" + name.replace("_", "-"), "cannot be given with CONFIG.ini; set it in the file")
        app = serve.load_pipeline(options.config)
        serve.run(app, options.host, options.port, options.workers, options.threads, upload_path=None)


def _checked(option: str, convert: Callable[[object], _T], value: object) -> _T:
    try:
        return convert(value)
    except ValueError as error:
        raise OptionError(option, f"{error}; it is {value!r}") from None
