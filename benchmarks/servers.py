"""The servers that are measured: how each one is installed and started, and what it cannot do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

OURS, LIMIT, PEER = "ours", "limit", "peer"
UVICORN = "uvicorn[standard]"
NO_WHOLE = frozenset({"whole", "whole 32"})
NO_EXTRAS = frozenset({"checksum", "concatenation"})

#: Gives the command of a server: where its programs are, its port, and its directory.
Command = Callable[["Programs", int, Path], list[str]]


@dataclass(frozen=True)
class Programs:
    """Where the programs are that a server needs.

    Attributes:
        python: the interpreter of its environment.
        cache: the directory of everything that this command has built.
        binaries: programs found on the PATH, by name.
    """

    python: str
    cache: Path
    binaries: dict[str, str]

    def script(self, name: str) -> str:
        return str(Path(self.python).parent / name)


@dataclass(frozen=True)
class Server:
    """A server.

    Attributes:
        name: in options and in the results.
        title: in the page; ``{package}`` stands for the version of a package.
        kind: ``OURS``, ``LIMIT`` or ``PEER``.
        command: see ``Command``.
        environment: the name of its virtual environment; empty if it needs none.
        binary: the program that must be on the PATH, or "node", "cc".
        lacks: the names of the rows that it does not support.
        only: the names of the rows that it takes part in; empty for all.
        language: of a peer.
        variant_of: the name of the server of which it is a variant.
    """

    name: str
    title: str
    kind: str
    command: Command
    environment: str = ""
    binary: str = ""
    lacks: frozenset[str] = frozenset()
    only: frozenset[str] = frozenset()
    language: str = "Python"
    is_asgi: bool = False
    variant_of: str = ""

    @property
    def is_python_peer(self) -> bool:
        return self.kind == PEER and self.language == "Python"

    def takes_part(self, row: str) -> bool:
        return row not in self.lacks and (not self.only or row in self.only)


@dataclass(frozen=True)
class Environment:
    """A virtual environment.

    Attributes:
        packages: what pip installs; ``{root}`` is this project's tree.
        shown: the distributions whose versions the page names.
        python: the oldest version of Python that the packages accept.
    """

    packages: tuple[str, ...]
    shown: tuple[str, ...]
    python: tuple[int, int] = (3, 11)


ENVIRONMENTS = {
    "tus": Environment(("-e", "{root}[asgi,serve]", UVICORN, "granian"), ("tus", "gunicorn", "uvicorn", "granian")),
    "gunicorn23": Environment(("-e", "{root}", "gunicorn==23.0.0"), ("gunicorn",)),
    "tuswsgi": Environment(("tuswsgi", "gunicorn"), ("tuswsgi", "gunicorn")),
    "tussi": Environment(("tussi", UVICORN), ("tussi", "uvicorn")),
    "tuspyserver": Environment(("tuspyserver", UVICORN), ("tuspyserver", "fastapi", "uvicorn")),
    "litestar-tus": Environment(("litestar-tus[s3]", UVICORN), ("litestar-tus", "litestar", "uvicorn"), (3, 13)),
    "resumable-upload": Environment(("resumable-upload", UVICORN), ("resumable-upload", "uvicorn")),
    "tus-client": Environment(("-e", "{root}[client]"), ("tus", "httpx2")),
    "tuspy": Environment(("tuspy",), ("tuspy",)),
    "aiotus": Environment(("aiotus",), ("aiotus",)),
}

NODE_PACKAGES = ("@tus/server", "@tus/file-store")


def gunicorn(application: str) -> Command:
    def command(programs: Programs, port: int, directory: Path) -> list[str]:
        host = ["-k", "gthread", "--threads", "32", "-b", f"127.0.0.1:{port}"]
        return [programs.python, "-m", "gunicorn", *host, f"benchmarks.apps:{application}()"]

    return command


def uvicorn(application: str) -> Command:
    def command(programs: Programs, port: int, directory: Path) -> list[str]:
        host = ["--port", str(port), "--no-access-log", "--log-level", "warning"]
        return [programs.python, "-m", "uvicorn", "--factory", *host, f"benchmarks.apps:{application}"]

    return command


def granian(application: str) -> Command:
    def command(programs: Programs, port: int, directory: Path) -> list[str]:
        host = ["--interface", "wsgi", "--port", str(port)]
        return [programs.python, "-m", "granian", "--factory", *host, f"benchmarks.apps:{application}"]

    return command


def tus_serve(*options: str) -> Command:
    def command(programs: Programs, port: int, directory: Path) -> list[str]:
        settings = [word for option in options for word in ("-o", option)]
        return [programs.script("tus"), "serve", "--port", str(port), "--dir", str(directory / "store"), *settings]

    return command


def sink(mode: str) -> Command:
    return lambda programs, port, directory: [str(programs.cache / "sink"), str(port), str(directory / "store"), mode]


def tusd(programs: Programs, port: int, directory: Path) -> list[str]:
    place = ["-host", "127.0.0.1", "-port", str(port), "-upload-dir", str(directory / "store")]
    return [programs.binaries["tusd"], *place, "-base-path", "/files/"]


def rustus(programs: Programs, port: int, directory: Path) -> list[str]:
    place = ["--host", "127.0.0.1", "--port", str(port), "--url", "/files"]
    kept = ["--data-dir", str(directory / "store"), "--info-dir", str(directory / "info")]
    kept += ["--max-body-size", str(1 << 40)]
    return [programs.binaries["rustus"], *place, *kept]


def node(programs: Programs, port: int, directory: Path) -> list[str]:
    script = programs.cache / "node" / "node_server.mjs"
    return [programs.binaries["node"], str(script), str(port), str(directory / "store")]


def resumable_upload_serve(programs: Programs, port: int, directory: Path) -> list[str]:
    place = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "WARNING"]
    kept = ["--upload-dir", str(directory / "store"), "--db-path", str(directory / "uploads.db")]
    return [programs.script("resumable-upload"), "serve", *place, *kept]


_RU, _BULK = "resumable-upload", frozenset({"1 GiB", "8 MiB", "1 MiB", "16 at once"})
_SMALL = frozenset({"small", "small 32", "whole", "whole 32", "head", "create"})

SERVERS = (
    Server("serve", "**tus serve**", OURS, tus_serve(), "tus"),
    Server("filter", "**Filter**, gunicorn {gunicorn}", OURS, gunicorn("tus_filter"), "tus"),
    Server("filter-23", "**Filter**, gunicorn {gunicorn}", OURS, gunicorn("tus_filter"), "gunicorn23"),
    Server("asgi", "**TusMiddleware**, uvicorn", OURS, uvicorn("tus_middleware"), "tus", is_asgi=True),
    Server("granian", "**Filter**, granian", OURS, granian("tus_filter"), "tus"),
    Server("granian-app", "trivial app, granian", LIMIT, granian("trivial"), "tus", only=_BULK),
    Server("gunicorn-promises", "promises alone, gunicorn", LIMIT, gunicorn("promises_wsgi"), "tus", only=_SMALL),
    Server("uvicorn-promises", "promises alone, uvicorn", LIMIT, uvicorn("promises_asgi"), "tus", only=_SMALL),
    Server("granian-promises", "promises alone, granian", LIMIT, granian("promises_wsgi"), "tus", only=_SMALL),
    Server("sink", "C sink, copy", LIMIT, sink("copy"), binary="cc", lacks=NO_EXTRAS),
    Server("splice", "C sink, splice", LIMIT, sink("splice"), binary="cc", only=_BULK),
    Server("tusd", "tusd", PEER, tusd, binary="tusd", lacks=frozenset({"checksum"}), language="Go"),
    Server("rustus", "rustus", PEER, rustus, binary="rustus", language="Rust"),
    Server("node", "@tus/server", PEER, node, binary="node", lacks=NO_EXTRAS, language="JavaScript"),
    Server("tuswsgi", "tuswsgi", PEER, gunicorn("tuswsgi"), "tuswsgi", lacks=NO_WHOLE | {"concatenation"}),
    Server("tussi", "tussi", PEER, uvicorn("tussi"), "tussi", lacks=NO_WHOLE | NO_EXTRAS, is_asgi=True),
    Server("tuspyserver", "tuspyserver", PEER, uvicorn("tuspyserver"), "tuspyserver", is_asgi=True),
    Server("litestar-tus", "litestar-tus", PEER, uvicorn("litestar_tus"), "litestar-tus", is_asgi=True),
    Server("resumable", "resumable-upload, its serve", PEER, resumable_upload_serve, _RU),
    Server("resumable-asgi", "resumable-upload, ASGI", PEER, uvicorn("resumable_upload"), _RU, is_asgi=True),
)

#: ``tus serve`` in other circumstances, for single rows.
VARIANTS = (
    Server(
        "serve-unsynced", "**tus serve**, ``fsync = none``", OURS, tus_serve("fsync=none"), "tus", variant_of="serve"
    ),
    Server("serve-unlimited", "**tus serve**", OURS, tus_serve("max_uploads=0"), "tus", variant_of="serve"),
)
BY_NAME = {server.name: server for server in (*SERVERS, *VARIANTS)}
