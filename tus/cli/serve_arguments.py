"""The arguments of ``tus serve``, and how they become a server of :mod:`tus.cli.serve`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

from tus.cli.arguments import KeepsLines, add_named_options, read_named_options
from tus.cli.serve_limits import describe_defaults
from tus.cli.server_section import SECTION, ServerSection, read_server_section
from tus.converters import as_hosts, as_listed_origins, as_url_path
from tus.errors import OptionError

_T = TypeVar("_T")
_DIR, _PATH = "./uploads", "/files/"
_HOST, _PORT, _THREADS = "127.0.0.1", 1080, 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``tus serve``."""
    parser.description = (
        "Receive uploads into a directory: unfinished uploads are kept in DIR/.tus, each finished file appears in DIR "
        "under its own name, with a suffix if that is taken. With CONFIG.ini, serve that paste.deploy pipeline "
        "instead, at the address and with the numbers in its [server:main] where the command line has none."
    )
    parser.epilog = describe_defaults()
    parser.formatter_class = KeepsLines
    parser.add_argument("config", nargs="?", metavar="CONFIG.ini", help="a paste.deploy configuration file")
    parser.add_argument("--host", help=f"address to listen on (default: {_HOST})")
    parser.add_argument("--port", type=int, help=f"0 for any free port (default: {_PORT})")
    parser.add_argument(
        "--allow-host",
        action="append",
        metavar="NAME",
        help="a further name of this server in the Host of requests, or * for any; can be repeated (default: "
        "localhost, the loopback addresses and --host; any if --host is reachable from other machines)",
    )
    parser.add_argument("--dir", help=f"directory of the files (default: {_DIR})")
    parser.add_argument("--path", help=f"path of the URL that creates uploads (default: {_PATH})")
    parser.add_argument("--workers", type=int, help=f"processes (default: {_default_workers()})")
    parser.add_argument(
        "--threads",
        type=int,
        help="threads in each process: so many bodies are written at a time, or with CONFIG.ini requests served "
        f"(default: {_THREADS})",
    )
    parser.add_argument(
        "--cors-allow-origin",
        nargs="+",
        action="extend",
        metavar="ORIGIN",
        help="origins whose pages may upload, or * for any (default: only the server's own)",
    )
    add_named_options(parser)
    parser.add_argument(
        "--metrics",
        nargs="?",
        const="/metrics",
        metavar="PATH",
        help="serve metrics for Prometheus at this path (default without PATH: /metrics)",
    )
    parser.add_argument(
        "-v", "--verbose", action="count", default=0, help="log each upload to stderr; -vv also logs each request"
    )
    parser.set_defaults(run=_serve)


def _default_workers() -> int:
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)


def _serve(options: argparse.Namespace) -> None:
    from tus.cli import serve  # which the help does not need

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
