"""The command line: ``tus serve``, ``tus ls``, ``tus clean``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import tus
from tus.errors import OptionError, TusException
from tus.models import State, Upload
from tus.options import Options, as_origins, as_url_path
from tus.stores import open_store
from tus.stores.interface import Expires, Lists, Store

_T = TypeVar("_T")
_DIR, _PATH = "./uploads", "/files/"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status: 0 done, 1 failed, 2 asked for wrongly."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except OptionError as error:
        print(f"tus: {error}", file=sys.stderr)
        return 2
    except TusException as error:
        print(f"tus: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever reads the list has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tus", description="Resumable uploads.")
    parser.add_argument("--version", action="version", version=f"tus {tus.__version__}")
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

    listing = commands.add_parser("ls", help="list the uploads of a directory", description=_listing.__doc__)
    listing.add_argument("dir", metavar="DIR", help="a tmp_file_dir, or the --dir of tus serve")
    listing.set_defaults(run=_listing)

    clean = commands.add_parser("clean", help="remove expired uploads", description=_clean.__doc__)
    clean.add_argument("dir", metavar="DIR", help="a tmp_file_dir, or the --dir of tus serve")
    clean.set_defaults(run=_clean)
    return parser


def _default_workers() -> int:
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)


def _serve(options: argparse.Namespace) -> None:
    from tus import serve

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
        app = serve.build_pipeline(options.dir or _DIR, path, origins, metrics)
        serve.run(app, options.host, options.port, options.workers, options.threads, path)
    else:
        for name in ("dir", "path", "cors_allow_origin", "metrics"):
            if getattr(options, name) is not None:
                raise OptionError("--" + name.replace("_", "-"), "cannot be given with CONFIG.ini; set it in the file")
        app = serve.load_pipeline(options.config)
        serve.run(app, options.host, options.port, options.workers, options.threads, upload_path=None)


def _open(directory: str) -> Store:
    inner = os.path.join(directory, ".tus")
    if os.path.isdir(inner):
        directory = inner
    if not os.path.isdir(directory):
        raise OptionError("DIR", f"there is no directory {directory!r}")
    return open_store(Options.build(tmp_file_dir=directory))


def _listing(options: argparse.Namespace) -> None:
    """List the uploads of a directory: id, state, bytes stored, bytes announced, age, and the client's name for it."""
    store = _open(options.dir)
    assert isinstance(store, Lists)
    now = time.time()
    rows = [_row(upload, now) for upload in sorted(store.list(), key=lambda upload: upload.created_at)]
    heading = ("ID", "STATE", "OFFSET", "LENGTH", "AGE", "NAME")
    widths = [max(len(row[column]) for row in [heading, *rows]) for column in range(5)]
    for row in [heading, *rows]:
        cells = [
            cell.rjust(width) if column in (2, 3, 4) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        print("  ".join([*cells, row[5]]))


def _row(upload: Upload, now: float) -> tuple[str, ...]:
    state = "expired" if upload.has_expired(now) else State(upload.state).name.lower()
    if upload.is_partial:
        state += " part"
    length = "?" if upload.length is None else str(upload.length)
    name = upload.filename if upload.filename != upload.id else ""
    return (upload.id, state, str(upload.offset), length, _age(now - upload.created_at), name)


def _age(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(int(seconds), 0)}s"


def _clean(options: argparse.Namespace) -> None:
    """Remove the uploads of a directory that have expired, and the records that were kept long enough."""
    store = _open(options.dir)
    assert isinstance(store, Expires)
    count = store.sweep()
    print(f"{count} removed")


def _checked(option: str, convert: Callable[[object], _T], value: object) -> _T:
    try:
        return convert(value)
    except ValueError as error:
        raise OptionError(option, f"{error}; it is {value!r}") from None
