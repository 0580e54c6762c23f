"""Sets up what can be had, outside of the checkout: virtual environments, Node packages, the client and the C sink."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.servers import ENVIRONMENTS, NODE_PACKAGES, Environment, Programs, Server

ROOT = Path(__file__).parents[1]
SOURCES = {"client": ROOT / "benchmarks" / "client.c", "sink": ROOT / "benchmarks" / "sink.c"}
BINARIES = ("tusd", "rustus", "node", "npm", "cc", "go", "curl")


class NotHereError(Exception):
    """A server cannot be had on this machine; the text says why."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Setup:
    """What the servers need, made on first use.

    Args:
        cache: the directory for everything that is installed or built.
        here: use the interpreter of this process for the servers of this project, and install nothing.
    """

    def __init__(self, cache: Path, here: bool = False) -> None:
        self.cache, self.here = cache.absolute(), here
        self.cache.mkdir(parents=True, exist_ok=True)
        self.binaries = {name: found for name in BINARIES if (found := shutil.which(name))}
        self.versions: dict[str, str] = {}
        self._reasons: dict[str, str] = {}

    def client(self) -> Path:
        return self._compile("client")

    def prepare(self, server: Server) -> Programs:
        """Install what a server needs.

        Raises:
            NotHereError: it cannot be had.
        """
        python = sys.executable
        if self.here and (server.binary == "node" or server.environment not in ("", "tus", "tus-client")):
            raise NotHereError("a quick run installs nothing")
        if server.binary == "node":
            self._prepare_node()
        elif server.binary == "cc":
            self._compile("sink")
        elif server.binary:
            self._find(server.binary)
        elif server.environment:
            python = self._prepare_environment(server.environment)
        return Programs(python, self.cache, self.binaries)

    def title(self, server: Server) -> str:
        """Return the title of a server that is here, with the versions that it shows."""
        versions = {}
        for name in re.findall(r"{(\w+)}", server.title):
            versions[name] = self.versions.get(f"{server.environment}: {name}", "")
        return server.title.format(**versions)

    def _find(self, binary: str) -> str:
        if binary not in self.binaries:
            raise NotHereError(f"no {binary} on the PATH")
        path = self.binaries[binary]
        if binary in ("tusd", "rustus", "curl") and binary not in self.versions:
            self.versions[binary] = self._version_of(binary, path)
        return path

    def _version_of(self, binary: str, path: str) -> str:
        if binary == "rustus":
            return "(built from source)"  # it does not say its version
        flag = "--version" if binary == "curl" else "-version"
        text = subprocess.run([path, flag], capture_output=True, text=True, check=False).stdout
        if version := re.search(r"(?:Version:|^curl) (v?\d\S+)", text):
            return version[1]
        if "go" in self.binaries:  # "go install" leaves the version to the module's own record
            asked = [self.binaries["go"], "version", "-m", path]
            text = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
            version = re.search(r"\bmod\s+\S+\s+(v\S+)", text)
        return version[1] if version else "(built from source)"

    def _compile(self, name: str) -> Path:
        source, target = SOURCES[name], self.cache / name
        compiler = self._find("cc")
        if not target.exists() or target.stat().st_mtime <= source.stat().st_mtime or self.here:
            built = target.with_suffix(".new")
            run([compiler, "-O2", "-pthread", "-o", str(built), str(source)])
            built.replace(target)  # because it may be running
        return target

    def _prepare_environment(self, name: str) -> str:
        if name in self._reasons:
            raise NotHereError(self._reasons[name])
        environment = ENVIRONMENTS[name]
        try:
            python = sys.executable if self.here else self._install(name, environment)
            self._note_versions(name, python, environment)
        except NotHereError as error:
            self._reasons[name] = str(error)
            raise
        return python

    def _install(self, name: str, environment: Environment) -> str:
        directory = self.cache / "venvs" / name
        python = directory / "bin" / "python"
        wanted = [package.format(root=ROOT) for package in environment.packages]
        stamp, state = directory / "installed", json.dumps(wanted)
        if "-e" in wanted:
            state += (ROOT / "pyproject.toml").read_text()
        if stamp.exists() and stamp.read_text() == state:
            return str(python)
        say(f"installing {name} ...")
        run([find_python(environment.python), "-m", "venv", "--clear", str(directory)])
        run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted])
        stamp.write_text(state)
        return str(python)

    def _note_versions(self, name: str, python: str, environment: Environment) -> None:
        code = (
            "import json, platform, sys; from importlib.metadata import version; "
            "print(json.dumps([platform.python_version(), *map(version, sys.argv[1:])]))"
        )
        own, *versions = json.loads(run([python, "-c", code, *environment.shown]))
        self.versions |= {f"{name}: {shown}": found for shown, found in zip(environment.shown, versions, strict=True)}
        if own != platform.python_version():
            self.versions[f"Python of {name}"] = own

    def _prepare_node(self) -> None:
        for binary in ("node", "npm"):
            self._find(binary)
        directory = self.cache / "node"
        directory.mkdir(exist_ok=True)
        modules = [directory / "node_modules" / name / "package.json" for name in NODE_PACKAGES]
        if not all(module.exists() for module in modules):
            say(f"installing {', '.join(NODE_PACKAGES)} ...")
            command = [
                self.binaries["npm"],
                "install",
                "--silent",
                "--no-audit",
                "--no-fund",
                "--prefix",
                str(directory),
            ]
            run([*command, *NODE_PACKAGES])
        shutil.copy(ROOT / "benchmarks" / "node_server.mjs", directory)
        for name, module in zip(NODE_PACKAGES, modules, strict=True):
            self.versions[name] = json.loads(module.read_text())["version"]
        self.versions["Node.js"] = run([self.binaries["node"], "--version"]).strip().lstrip("v")


def find_python(oldest: tuple[int, int]) -> str:
    """Return an interpreter that is new enough: this one, or else the newest on the PATH."""
    if sys.version_info >= oldest:
        return sys.executable
    for minor in range(oldest[1] + 6, oldest[1] - 1, -1):
        if found := shutil.which(f"python{oldest[0]}.{minor}"):
            return found
    raise NotHereError(
        f"it needs Python {oldest[0]}.{oldest[1]}, and there is no python{oldest[0]}.{oldest[1]} on the PATH"
    )


def run(command: list[str]) -> str:
    """Run a command of the setup, and return what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise NotHereError(f"{Path(command[0]).name} failed: {lines[-1][:200]}")
    return done.stdout
