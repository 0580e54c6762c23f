"""A server for the commands of the client, and the commands as people run them."""

import json
import os
import re
import subprocess
import time

import pytest

from tests.support.commands import TUS_COMMAND
from tests.support.serving import command as running
from tests.support.waiting import GUARD


class Client:
    """Runs commands of the client, with records of its own.

    Attributes:
        url: where the server creates uploads.
        directory: where the server puts files.
        here: the current directory of the commands.
    """

    def __init__(self, url, directory, here):
        self.url, self.directory, self.here = url, directory, here
        self.state = here / "state.sqlite"
        names = ("http_proxy", "https_proxy", "all_proxy")
        self.environment = {name: value for name, value in os.environ.items() if name.lower() not in (*names, "term")}
        self.environment |= {"HOME": str(here), "XDG_STATE_HOME": str(here / "xdg"), "PYTHONDONTWRITEBYTECODE": "1"}

    @property
    def origin(self):
        return re.match(r"http://[^/]+", self.url)[0]

    @property
    def port(self):
        return int(self.origin.rpartition(":")[2])

    def file(self, name, content=b"hello"):
        path = self.here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def start(self, *arguments, **how):
        how = {"stdin": subprocess.DEVNULL} | how
        return subprocess.Popen(
            [TUS_COMMAND, *map(str, arguments)],
            cwd=self.here,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **how,
        )

    def run(self, *arguments, text=None, **how):
        how = how if text is None else how | {"stdin": subprocess.PIPE}
        with self.start(*arguments, **how) as process:
            process.out, process.err = process.communicate(text, timeout=GUARD)
        assert "Traceback" not in process.err, process.err
        return process

    def events(self, *arguments, **how):
        """The events of a command with ``--json``, and its exit status."""
        done = self.run(*arguments, "--json", **how)
        return [json.loads(line) for line in done.out.splitlines()], done.returncode

    def received(self):
        """What has arrived, by name."""
        found = [path for path in self.directory.iterdir() if path.is_file()]
        return {path.name: path.read_bytes() for path in found}


@pytest.fixture(scope="session")
def _shared_server(tmp_path_factory):
    place = tmp_path_factory.mktemp("serve")
    arguments = [
        *("tus", "serve", "--port", "0", "--workers", "1", "--dir", str(place / "files")),
        "-o",
        "download=true",
    ]
    with running(arguments, place) as process:
        deadline = time.monotonic() + GUARD
        while not (match := re.search(r"Upload to (\S+)", (place / "stdout").read_text())):
            assert process.poll() is None and time.monotonic() < deadline, (place / "stderr").read_text()
            time.sleep(0.02)
        yield match[1], place / "files"


@pytest.fixture
def client(_shared_server, tmp_path):
    """The client of a server that runs for all tests; its files are gone before each."""
    url, directory = _shared_server
    for path in directory.iterdir():
        if path.is_file():
            path.unlink()
    return Client(url, directory, tmp_path)
