"""A real server with a pool of threads, in this process."""

import contextlib
import threading

from waitress.server import create_server

from tests.support.waiting import GUARD


@contextlib.contextmanager
def in_pool(app, threads=4):
    """Serve a WSGI application by waitress on a port of 127.0.0.1, and yield the port."""
    sockets = {}
    server = create_server(app, host="127.0.0.1", port=0, threads=threads, map=sockets)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server.effective_port
    finally:
        server.trigger.pull_trigger(lambda: [channel.close() for channel in list(sockets.values())])  # in its thread
        thread.join(GUARD)
        server.task_dispatcher.shutdown()
