"""A project that a document describes, made in a directory of its own by the blocks and commands of the document."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tests.support.documents import blocks
from tests.support.serving import ROOT, free_port, wait_for_port
from tests.support.views import Served


class Project:
    """A project in a directory.

    Attributes:
        directory: of its files.
        page: the document that describes it.
        environ: the environment of its commands, which ``export`` changes.
        package: what its commands install in place of ``/path/to/tus``.
    """

    def __init__(self, directory: Path, page: str, scripts: str | None = None) -> None:
        self.directory, self.page, self.package = directory, page, ROOT
        scripts = scripts or sysconfig.get_path("scripts")
        self.environ = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
        self.environ.pop("PYTHONPATH", None)

    def write(self, name: str, number: int, mode: str = "w") -> None:
        """Write a block of Python of the page into a file."""
        with (self.directory / name).open(mode) as file:
            file.write(("\n" if mode == "a" else "") + blocks("python", self.page)[number] + "\n")

    def commands(self, number: int) -> list[str]:
        """Return the commands of a block of the page, with their prompts."""
        lines = blocks("console", self.page)[number].replace("\\\n", " ").splitlines()
        assert all(line.startswith("$ ") for line in lines)
        return lines

    def run(self, command: str, installs: bool = False, port: int | None = None) -> str:
        """Run a command of the page, and return what it prints.

        Args:
            command: with its prompt.
            installs: whether to install packages; otherwise they are installed already.
            port: of the running server, in place of the page's.
        """
        line = command.removeprefix("$ ")
        if line.startswith("pip install ") and not installs:
            return ""
        line = re.sub("^pip", "python -m pip", line)
        line = line.replace("/path/to/tus", str(self.package))
        if port is not None:
            assert "127.0.0.1:8000" in line or "127.0.0.1" not in line
            line = line.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        if exported := re.fullmatch(r"export (\w+)=(.*)", line):
            name, value = exported.groups()
            self.environ[name] = self._shell(f"echo {value}").strip()
            return ""
        return self._shell(line)

    def _shell(self, line: str) -> str:
        script = ["bash", "-ec", line]
        return subprocess.run(
            script, cwd=self.directory, env=self.environ, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    @contextlib.contextmanager
    def serve(self, command: str) -> Iterator[Served]:
        """Run the page's command of the server on another port."""
        port, log = free_port(), self.directory / "log"
        assert "8000" in command
        with log.open("ab") as output:
            process = subprocess.Popen(
                shlex.split(command.removeprefix("$ ").replace("8000", str(port))),
                cwd=self.directory,
                env=self.environ,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            wait_for_port(port, process, log)
            yield Served(port, log)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
