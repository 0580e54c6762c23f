"""The process that files go to in the end: it writes each acceptance, once for each key, to a file it only appends to.

``python -m tests.acceptance.receiver PORT JOURNAL``
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar


class Receiver(BaseHTTPRequestHandler):
    """Is told of a file by ``POST`` with JSON: its key, its name and its digest."""

    protocol_version = "HTTP/1.1"
    journal: ClassVar[Path]
    accepted: ClassVar[set[str]]
    lock = threading.Lock()

    def do_POST(self):
        offer = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.lock:
            status = self._decide(offer)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _decide(self, offer):
        self._write("offered", offer)
        if offer["key"] in self.accepted:
            return 200  # the key makes it exactly once
        refuses = offer["name"].startswith("reject") or (offer["name"].startswith("moody") and random.random() < 0.5)
        self._write("rejected" if refuses else "accepted", offer)
        if not refuses:
            self.accepted.add(offer["key"])
        return 415 if refuses else 200

    def _write(self, what, offer):
        line = json.dumps({"what": what, "at": time.time(), **offer}) + "\n"
        fd = os.open(self.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, line.encode())
        os.close(fd)

    def log_message(self, *arguments):
        pass


def read(journal):
    """The lines of a journal."""
    return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []


class Server(ThreadingHTTPServer):
    """Says nothing of connections whose other end was killed."""

    def handle_error(self, request, client_address):
        pass


def main(port, journal):
    Receiver.journal = Path(journal)
    Receiver.accepted = {line["key"] for line in read(Receiver.journal) if line["what"] == "accepted"}
    Server(("127.0.0.1", int(port)), Receiver).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
