"""``tus serve``: several worker processes of gunicorn.

Without an ini file uvicorn serves the uploads in each of them, in one event loop that may face clients. The pipeline of
an ini file speaks WSGI, so a thread serves each request.
"""

from __future__ import annotations

import atexit
import configparser
import errno
import logging.config
import os
import resource
import shlex
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tus.adapters.wsgi import WsgiApp
from tus.apps.files import Files
from tus.apps.front import Front
from tus.apps.hosts import HostCheck
from tus.apps.operations import Operations
from tus.apps.page import Page
from tus.cli.serve_limits import LARGEST_FIELD, MOST_FIELDS, defaults_for
from tus.converters import is_loopback
from tus.errors import OptionError, TusException
from tus.options import Options
from tus.server import body_gunicorn
from tus.server.service import services_over

if TYPE_CHECKING:
    from tus.apps.front_asgi import AsgiFront

GRACE = 10  # seconds for running requests after SIGTERM; bodies end immediately
MOST_CONNECTIONS = 1000  # of each worker process

_OPEN_FILES = 8192  # of each worker process, if the system allows so many
_SHARED_MEMORY = "/dev/shm"


def build_pipeline(
    directory: str,
    path: str,
    cors_allow_origin: Sequence[str],
    metrics_path: str | None = None,
    others: Mapping[str, str] | None = None,
) -> AsgiFront:
    """Build the default pipeline: unfinished uploads are kept in ``DIR/.tus``, finished files appear in ``DIR``.

    Raises:
        OptionError: an option cannot be used.
        TusException: a library is not installed.
    """
    try:
        from tus.apps.front_asgi import AsgiFront, serve_nothing
        from tus.asgi import TusMiddleware
    except ImportError:
        raise TusException("tus serve needs anyio; install it with: pip install anyio") from None
    origins = tuple(cors_allow_origin)
    try:
        files = Files(directory)
        tmp_file_dir = os.path.join(files.directory, ".tus")
        given: dict[str, Any] = dict(others or {})
        limits = defaults_for(files.directory, given)
        takes_files = not (given.get("on_finished") or given.get("spool"))
        if takes_files:
            given["on_finished"] = files.take
        options = Options.build_async(
            upload_path=path, tmp_file_dir=tmp_file_dir, cors_allow_origin=origins, **limits, **given
        )
        uploads = TusMiddleware(serve_nothing, options=options)
        if takes_files:
            uploads.service.need_files("store", "must keep files, which tus serve saves in --dir; or set on_finished")
    except OptionError as error:
        if error.option in ("directory", "tmp_file_dir"):
            raise OptionError("--dir", error.problem) from error
        raise
    if metrics_path is not None:
        _share_metrics()
    return AsgiFront(uploads, Operations(uploads.service.store, "/health", metrics_path), Page(path))


def _share_metrics() -> None:
    """Make a directory in which all worker processes share their metrics; it is removed with this process."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        directory = tempfile.mkdtemp(prefix="tus-metrics-", dir=_memory())
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        ours = os.getpid()  # a forked worker that ends must not remove it
        atexit.register(lambda: shutil.rmtree(directory, ignore_errors=True) if os.getpid() == ours else None)


def _memory() -> str | None:
    """Return a directory in memory, where no stalled disk can stop a worker; None if there is none.

    A worker touches a file several times a second to show that it works, and is killed if it does not.
    """
    return _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK | os.X_OK) else None


def _forget_process(arbiter: Any, worker: Any) -> None:
    """Remove the metrics of a worker process that ended, which has no requests in progress any more."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def log_to_stderr(verbosity: int) -> None:
    """Log to stderr.

    Args:
        verbosity: 1 for a line about each upload, 2 also for a line about each request.
    """
    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("tus").setLevel(logging.DEBUG if verbosity > 1 else logging.INFO)


def load_pipeline(config: str) -> WsgiApp:
    """Load the ``main`` application of an ini file, and configure the logging that the file describes.

    Raises:
        OptionError: the file does not exist, or cannot be served.
    """
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


def host_check(host: str, names: Sequence[str], own: Sequence[str] = ()) -> HostCheck | None:
    """Return the check of ``Host`` for the services of this process, or None if the server responds under any name.

    It is made if only this machine reaches the address, or if names are given.

    Args:
        host: the address to listen on.
        names: further names of the server.
        own: names that the server has anyway; they do not ask for the check.
    """
    if not names and not _is_local(host):
        return None
    return HostCheck((host, *names, *own), [service.options for service in services_over(None)])


def check_hosts(app: WsgiApp, host: str, names: Sequence[str]) -> WsgiApp:
    """Return the pipeline of an ini file behind the check of ``Host``, if there is one."""
    check = host_check(host, names)
    return app if check is None else Front(app, check)


def run(
    app: AsgiFront | WsgiApp, host: str, port: int, workers: int, threads: int, upload_path: str | None = None
) -> None:
    """Serve until a signal ends the process.

    Args:
        app: the application, built before the processes fork, so that its errors are reported once.
        host: the address to listen on.
        port: 0 for any free port.
        workers: the number of processes.
        threads: the number of threads of each kind in each process.
        upload_path: the path in the URL to print, for an ASGI application; None for a WSGI pipeline.

    Raises:
        TusException: a library is not installed, or the address cannot be used.
    """
    try:
        from gunicorn.app.base import BaseApplication

        host_settings = _for_wsgi() if upload_path is None else _for_asgi()
    except ImportError as error:
        needed = "gunicorn" if upload_path is None else "gunicorn uvicorn httptools"
        raise TusException(f"tus serve lacks a package ({error}); install: pip install {needed}") from None

    class Server(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            address = f"[{host}]" if ":" in host else host
            settings = {
                "bind": f"{address}:{port}",
                "workers": workers,
                "threads": threads,
                "worker_tmp_dir": _memory(),
                "graceful_timeout": GRACE,
                "keepalive": 15,
                "limit_request_field_size": LARGEST_FIELD,
                "limit_request_fields": MOST_FIELDS,
                "loglevel": "warning",
                "control_socket_disable": True,
                "when_ready": lambda arbiter: _announce(arbiter, host, upload_path),
                "child_exit": _forget_process,
                **host_settings,
            }
            for name, value in settings.items():
                self.cfg.set(name, value)

        def load(self) -> AsgiFront | WsgiApp:
            return app

    _check_address(host, port)
    _warn_about(host)
    Server().run()


def _for_wsgi() -> dict[str, Any]:
    """Return the settings for a pipeline of WSGI."""
    return {"worker_class": "tus.server.worker_gunicorn.Worker", "post_worker_init": _init_worker}


def _for_asgi() -> dict[str, Any]:
    """Return the settings for an ASGI application, and allow as many open files as it may need."""
    import tus.server.worker_uvicorn  # noqa: F401 - a failure is reported once, and not by each worker

    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        if limit < _OPEN_FILES:
            wanted = _OPEN_FILES if most == resource.RLIM_INFINITY else min(_OPEN_FILES, most)
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    return {"worker_class": "tus.server.worker_uvicorn.Worker", "worker_connections": MOST_CONNECTIONS}


def _init_worker(worker: Any) -> None:
    """Start the background work of a worker, and install signal handlers that end running bodies as cuts.

    So the bytes of these bodies are counted before the worker ends.
    """
    # A terminal sends Ctrl-C to all processes at once. The arbiter would replace a worker that ends before the arbiter
    # handles its own signal. So only the arbiter handles SIGINT, and ends the workers by SIGQUIT.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    # gunicorn's own handler of SIGQUIT acquires the lock of its thread pool. It deadlocks if the signal arrives while
    # the main thread is in submit(). So both signals stop the worker gracefully, which is as fast once no body runs.
    def end(number: int, frame: Any) -> None:
        body_gunicorn.interrupt_all()
        worker.handle_exit(number, frame)

    for number in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, end)
    for service in services_over(None):
        service.start()  # now, because the first request may arrive much later


def _announce(arbiter: Any, host: str, upload_path: str | None) -> None:
    port = arbiter.LISTENERS[0].sock.getsockname()[1]
    name = f"[{host}]" if ":" in host else host
    if upload_path is None:
        print(f"Serving on http://{name}:{port}/", flush=True)
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
    if not _is_local(host):
        print(
            f"warning: anyone who can reach {host} can upload; put an authenticating proxy in front.",
            file=sys.stderr,
            flush=True,
        )


def _is_local(host: str) -> bool:
    """Return whether only this machine reaches the address."""
    try:
        return all(is_loopback(str(info[4][0])) for info in socket.getaddrinfo(host, None))
    except OSError:
        return False  # it cannot be listened on either


def _check_address(host: str, port: int) -> None:
    """Check that the address can be used, because gunicorn would retry for a long time.

    Raises:
        OptionError: the address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise OptionError("--host", f"{host!r} is not an address of this machine: {error.strerror}") from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            option = "--host" if error.errno == errno.EADDRNOTAVAIL else "--port"
            raise OptionError(option, f"{host}:{port} cannot be used: {error.strerror}") from None
