"""``tus serve``: a pipeline behind gunicorn, with threads in several worker processes."""

from __future__ import annotations

import atexit
import configparser
import errno
import logging.config
import os
import shlex
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from tus.adapters.wsgi import WsgiApp
from tus.apps.files import Files
from tus.apps.operations import Operations
from tus.apps.page import Page
from tus.errors import OptionError, TusException
from tus.filter import Filter
from tus.options import Options
from tus.server import body_gunicorn
from tus.server.service import Service, services_over

GRACE = 10  # seconds for running requests after SIGTERM; bodies end at once


def build_pipeline(
    directory: str,
    path: str,
    cors_allow_origin: Sequence[str],
    metrics_path: str | None = None,
    others: Mapping[str, str] | None = None,
) -> WsgiApp:
    """The built-in pipeline: unfinished uploads live in ``DIR/.tus``, finished files appear in ``DIR``."""
    origins = tuple(cors_allow_origin)
    try:
        files = Files(directory)
        tmp_file_dir = os.path.join(files.directory, ".tus")
        options = Options.build(
            upload_path=path, tmp_file_dir=tmp_file_dir, cors_allow_origin=origins, **dict(others or {})
        )
        service = Service(options=options)
        if options.on_finished is None and not options.spool:
            service.need_files("store", "must keep files, which tus serve links into --dir; or set on_finished")
        uploads = Filter(files, service=service)
    except OptionError as error:
        if error.option in ("directory", "tmp_file_dir"):
            raise OptionError("--dir", error.problem) from error
        raise
    if metrics_path is not None:
        _share_metrics()
    return Operations(Page(uploads, path), uploads.service.store, "/health", metrics_path)


def _share_metrics() -> None:
    """Have all worker processes count into one directory, which is the library's way; it goes with this process."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        directory = tempfile.mkdtemp(prefix="tus-metrics-")
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        ours = os.getpid()  # the workers, which are forked from this process, are not to take it with them
        atexit.register(lambda: shutil.rmtree(directory, ignore_errors=True) if os.getpid() == ours else None)


def _forget_process(arbiter: Any, worker: Any) -> None:
    """A worker that has died has no requests at work any more."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def log_to_stderr(verbosity: int) -> None:
    """Show what happens: 1 for a line about each upload's life, 2 for one about each request as well."""
    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("tus").setLevel(logging.DEBUG if verbosity > 1 else logging.INFO)


def load_pipeline(config: str) -> WsgiApp:
    """The ``main`` application of an ini file, with the logging that it asks for."""
    from paste.deploy import loadapp

    path = os.path.abspath(config)
    if not os.path.isfile(path):
        raise OptionError("CONFIG.ini", f"there is no file {config!r}")
    try:
        parser = configparser.RawConfigParser()
        parser.read(path)
        if parser.has_section("loggers"):
            here = {"here": os.path.dirname(path), "__file__": path}
            logging.config.fileConfig(path, defaults=here, disable_existing_loggers=False)
        app: WsgiApp = loadapp("config:" + quote(path))
    except (LookupError, ImportError, UnicodeError, configparser.Error) as error:
        raise OptionError("CONFIG.ini", f"{config!r} cannot be served: {error}") from error
    return app


def run(app: WsgiApp, host: str, port: int, workers: int, threads: int, upload_path: str | None) -> None:
    """Serve until a signal ends it.

    Args:
        app: the pipeline; it was built before the processes fork, so its mistakes are told once.
        host: the address to listen at.
        port: 0 for any that is free.
        workers: processes.
        threads: in each of them.
        upload_path: what to print a URL for, where it is known.

    Raises:
        TusException: gunicorn is not installed, or the address cannot be had.
    """
    try:
        from gunicorn.app.base import BaseApplication
    except ImportError:
        raise TusException("tus serve needs gunicorn; install it by: pip install 'tus[serve]'") from None

    class Server(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            address = f"[{host}]" if ":" in host else host
            settings = {
                "bind": f"{address}:{port}",
                "workers": workers,
                "threads": threads,
                "worker_class": "gthread",
                "graceful_timeout": GRACE,
                "keepalive": 15,
                "loglevel": "warning",
                "control_socket_disable": True,
                "when_ready": lambda arbiter: _announce(arbiter, host, upload_path),
                "post_worker_init": _begin_work,
                "child_exit": _forget_process,
            }
            for name, value in settings.items():
                self.cfg.set(name, value)

        def load(self) -> WsgiApp:
            return app

    _check_address(host, port)
    _warn_about(host)
    Server().run()


def _begin_work(worker: Any) -> None:
    """Look for what waits, and on a signal that ends a worker, let running bodies end first, so that they count."""
    # A terminal sends Ctrl-C to all processes at once. One that ended by itself would be replaced before the arbiter
    # has heard of it; so the arbiter alone listens, and ends the others by SIGQUIT.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    # gunicorn's own handler of SIGQUIT takes the lock of its thread pool, and waits for itself where the signal has met
    # the main thread in submit(). So both signals lead to the graceful end, which is as quick once no body runs.
    def end(number: int, frame: Any) -> None:
        body_gunicorn.interrupt_all()
        worker.handle_exit(number, frame)

    for number in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, end)
    for service in services_over(None):
        service.start()  # and not with the first request, which may not come for long


def _announce(arbiter: Any, host: str, upload_path: str | None) -> None:
    port = arbiter.LISTENERS[0].sock.getsockname()[1]
    name = f"[{host}]" if ":" in host else host
    if upload_path is None:
        print(f"Serving at http://{name}:{port}/", flush=True)
        return
    url = f"http://{name}:{port}{quote(upload_path)}"
    print(f"Upload to {url}")
    print(f"or open http://{name}:{port}/ in a browser. Try it:")
    print(
        "  printf 'hello' | curl -sS -i --data-binary @- -H 'Tus-Resumable: 1.0.0' -H 'Upload-Length: 5'"
        " -H 'Upload-Metadata: filename aGVsbG8udHh0' -H 'Content-Type: application/offset+octet-stream'"
        f" {shlex.quote(url)}",
        flush=True,
    )


def _warn_about(host: str) -> None:
    addresses = {info[4][0] for info in socket.getaddrinfo(host, None)}
    if not all(str(address).startswith("127.") or address == "::1" for address in addresses):
        print(
            f"warning: whoever reaches {host} can upload here; put a proxy that asks who they are in front of it.",
            file=sys.stderr,
            flush=True,
        )


def _check_address(host: str, port: int) -> None:
    """Fail at once where gunicorn would try again and again."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise OptionError("--host", f"{host!r} is no address of this machine: {error.strerror}") from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            option = "--host" if error.errno == errno.EADDRNOTAVAIL else "--port"
            raise OptionError(option, f"{host}:{port} cannot be had: {error.strerror}") from None
