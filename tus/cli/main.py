"""The entry point of the command line, and the arguments of ``tus serve``."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar
from urllib.parse import urlsplit

from tus.cli import fsck, handover, import_, ls, rm
from tus.cli.arguments import add_named_options, read_named_options
from tus.cli.serve_limits import describe_defaults
from tus.cli.server_section import SECTION, ServerSection, read_server_section
from tus.cli.text import printable
from tus.converters import as_hosts, as_listed_origins, as_url_path, suggestion
from tus.errors import OptionError, TusException
from tus.version import __version__

_T = TypeVar("_T")
_DIR, _PATH = "./uploads", "/files/"
_HOST, _PORT, _THREADS = "127.0.0.1", 1080, 32


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit status: 0 for success, 1 for a failure, 2 for a usage error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names contain characters that a terminal's encoding may not have
            stream.reconfigure(errors="backslashreplace")
    with suppress(FileNotFoundError):  # for the modules of --on-finished; last, so that no file here hides a package
        if (here := os.getcwd()) not in sys.path:
            sys.path.append(here)
    parser, commands = _parser()
    given = sys.argv[1:] if arguments is None else arguments
    if given and not given[0].startswith("-") and given[0] not in commands:
        near = suggestion(given[0], commands)
        parser.error(f"there is no command {given[0]!r}{near}; the commands are {', '.join(commands)}")
    options = parser.parse_args(arguments)
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
    except BrokenPipeError:  # the reader of the output, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        what = f": {printable(str(error.filename))}" if error.filename else ""
        print(f"tus: {error.strerror}{what}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


class _KeepsEpilog(argparse.HelpFormatter):
    """A formatter that leaves the lines of a table as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


def _parser() -> tuple[argparse.ArgumentParser, tuple[str, ...]]:
    """Return the parser of the command line, and the names of the commands."""
    parser = argparse.ArgumentParser(prog="tus", description="Resumable uploads.")
    parser.add_argument("--version", action="version", version=f"tus {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser(
        "serve",
        help="receive uploads into a directory, or serve the pipeline of an ini file",
        description="Receive uploads into a directory: unfinished uploads are kept in DIR/.tus, each finished file "
        "appears in DIR under its own name, with a suffix if that is taken. With CONFIG.ini, serve that paste.deploy "
        "pipeline instead, at the address and with the numbers in its [server:main] where the command line has none.",
        epilog=describe_defaults(),
        formatter_class=_KeepsEpilog,
    )
    serve.add_argument("config", nargs="?", metavar="CONFIG.ini", help="a paste.deploy configuration file")
    serve.add_argument("--host", help=f"address to listen on (default: {_HOST})")
    serve.add_argument("--port", type=int, help=f"0 for any free port (default: {_PORT})")
    serve.add_argument(
        "--allow-host",
        action="append",
        metavar="NAME",
        help="a further name of this server in the Host of requests, or * for any; can be repeated (default: "
        "localhost, the loopback addresses and --host; any if --host is reachable from other machines)",
    )
    serve.add_argument("--dir", help=f"directory of the files (default: {_DIR})")
    serve.add_argument("--path", help=f"path of the URL that creates uploads (default: {_PATH})")
    serve.add_argument("--workers", type=int, help=f"processes (default: {_default_workers()})")
    serve.add_argument(
        "--threads",
        type=int,
        help="threads in each process: so many bodies are written at a time, or with CONFIG.ini requests served "
        f"(default: {_THREADS})",
    )
    serve.add_argument(
        "--cors-allow-origin",
        nargs="+",
        action="extend",
        metavar="ORIGIN",
        help="origins whose pages may upload, or * for any (default: only the server's own)",
    )
    add_named_options(serve)
    serve.add_argument(
        "--metrics",
        nargs="?",
        const="/metrics",
        metavar="PATH",
        help="serve metrics for Prometheus at this path (default without PATH: /metrics)",
    )
    serve.add_argument(
        "-v", "--verbose", action="count", default=0, help="log each upload to stderr; -vv also logs each request"
    )
    serve.set_defaults(run=_serve)

    for module in (ls, rm, handover, fsck, import_):
        module.add_commands(commands)
    return parser, tuple(commands.choices)


def _default_workers() -> int:
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)


def _serve(options: argparse.Namespace) -> None:
    from tus.cli import serve

    _add_server_options(options)
    for name in ("workers", "threads"):
        if getattr(options, name) < 1:
            raise OptionError(f"--{name}", "must be at least 1")
    if not 0 <= options.port <= 65535:
        raise OptionError("--port", "must be between 0 and 65535")
    if options.verbose:
        serve.log_to_stderr(options.verbose)
    if options.config is None:
        path = _convert("--path", as_url_path, options.path or _PATH)
        origins = _convert("--cors-allow-origin", as_listed_origins, options.cors_allow_origin or [])
        metrics = None if options.metrics is None else _convert("--metrics", as_url_path, options.metrics)
        others = read_named_options(options.option)
        app = serve.build_pipeline(options.dir or _DIR, path, origins, metrics, others)
        own = urlsplit(others.get("base_url", "")).hostname
        check = serve.host_check(options.host, options.allow_host, (own,) if own else ())
        serve.run(
            app if check is None else app.behind(check),
            options.host,
            options.port,
            options.workers,
            options.threads,
            path,
        )
    else:
        if options.option:
            raise OptionError("--option", "cannot be given with CONFIG.ini; set it in the file")
        for name in ("dir", "path", "cors_allow_origin", "metrics"):
            if getattr(options, name) is not None:
                raise OptionError("--" + name.replace("_", "-"), "cannot be given with CONFIG.ini; set it in the file")
        pipeline = serve.check_hosts(serve.load_pipeline(options.config), options.host, options.allow_host)
        serve.run(pipeline, options.host, options.port, options.workers, options.threads)


def _add_server_options(options: argparse.Namespace) -> None:
    """Set what the command line does not say: from the ini file if there is one, else the defaults."""
    section = ServerSection()
    if options.config is not None:
        section = read_server_section(options.config)
        if section.unused:
            print(
                f"warning: tus serve runs gunicorn, and does not use {', '.join(section.unused)} of [{SECTION}].",
                file=sys.stderr,
                flush=True,
            )
    options.allow_host = _convert("--allow-host", as_hosts, options.allow_host or section.allow_host or ())
    defaults = {"host": _HOST, "port": _PORT, "workers": _default_workers(), "threads": _THREADS}
    for name, default in defaults.items():
        if getattr(options, name) is None:
            said = getattr(section, name)
            setattr(options, name, default if said is None else said)


def _convert(option: str, convert: Callable[[object], _T], value: object) -> _T:
    try:
        return convert(value)
    except ValueError as error:
        raise OptionError(option, f"{error}; it is {value!r}") from None
