"""Imports point one way, and the pure rooms do no I/O: what the whiteboard says, held against the code."""

import ast
from pathlib import Path

import pytest

import tus

ROOT = Path(tus.__file__).parent
MODULES = {
    ".".join(("tus", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}
#: What each room may import of ours; a name covers what is below it.
MAY_IMPORT = {
    "tus.errors": [],
    "tus.structured": [],
    "tus.headers": ["tus.errors"],
    "tus.filenames": [],
    "tus.checksums": ["tus.errors"],
    "tus.hashing": ["tus.checksums"],
    "tus.digests": ["tus.checksums", "tus.models", "tus.structured"],
    "tus.models": ["tus.headers", "tus.filenames"],
    "tus.hooks": [],
    "tus.hooks.events": ["tus.headers", "tus.models"],
    "tus.hooks.calling": ["tus.errors", "tus.hooks.events", "tus.models"],
    "tus.converters": ["tus.digests", "tus.hooks.events", "tus.models"],
    "tus.options": ["tus.converters", "tus.errors", "tus.hooks.events", "tus.models"],
    "tus.cors": ["tus.models", "tus.options"],
    "tus.proxies": ["tus.models", "tus.options"],
    "tus.protocol": [
        "tus.checksums",
        "tus.digests",
        "tus.errors",
        "tus.headers",
        "tus.hooks.events",
        "tus.models",
        "tus.options",
        "tus.protocol",
        "tus.proxies",
        "tus.structured",
    ],
    "tus.exchange": [
        "tus.checksums",
        "tus.cors",
        "tus.digests",
        "tus.errors",
        "tus.exchange",
        "tus.hooks.events",
        "tus.models",
        "tus.options",
        "tus.protocol",
    ],
    "tus.events": ["tus.models"],
    "tus.stores": [
        "tus.checksums",
        "tus.converters",
        "tus.errors",
        "tus.events",
        "tus.hashing",
        "tus.models",
        "tus.options",
        "tus.stores",
    ],
    "tus.sweeper": ["tus.stores.interface"],
    "tus.body": ["tus.models", "tus.patience", "tus.stores.interface", "tus.body_gunicorn"],
    "tus.body_gunicorn": ["tus.patience", "tus.stores.interface"],
    "tus.patience": [],
    "tus.adapters.interface": ["tus.models"],
    "tus.adapters.wsgi": ["tus.filebody", "tus.models", "tus.protocol.tus1"],
    "tus.downloads": ["tus.filebody", "tus.models"],
    "tus.filebody": [],
    "tus.adapters.webob": ["tus.models", "tus.adapters.wsgi"],
    "tus.adapters.zope": ["tus.adapters.wsgi", "tus.models", "tus.protocol"],
    "tus.adapters": [],
    "tus.zope": [
        "tus.adapters.zope",
        "tus.errors",
        "tus.models",
        "tus.options",
        "tus.protocol.tus1_replies",
        "tus.server",
        "tus.zope",
    ],
    "tus.handover": [
        "tus.adapters.interface",
        "tus.errors",
        "tus.events",
        "tus.exchange.effects",
        "tus.hooks.calling",
        "tus.models",
        "tus.protocol.handing",
        "tus.stores.interface",
    ],
    "tus.receivers": [
        "tus.handover",
        "tus.hooks.calling",
        "tus.hooks.webhook",
        "tus.models",
        "tus.options",
        "tus.spooling",
        "tus.errors",
        "tus.hooks.events",
        "tus.stores.interface",
    ],
    "tus.spooling": [
        "tus.errors",
        "tus.filenames",
        "tus.models",
        "tus.spooling.entries",
        "tus.stores.files",
        "tus.stores.locks",
    ],
    "tus.hooks.tusd": ["tus.hooks.events", "tus.models"],
    "tus.hooks.outbox": ["tus.errors", "tus.stores.files", "tus.stores.locks"],
    "tus.hooks.webhook": ["tus", "tus.errors", "tus.hooks", "tus.models"],
    "tus.backlog": [
        "tus.errors",
        "tus.exchange",
        "tus.handover",
        "tus.hooks.calling",
        "tus.models",
        "tus.options",
        "tus.protocol.handing",
        "tus.receivers",
        "tus.stores.interface",
    ],
    "tus.receiving": [
        "tus.checksums",
        "tus.errors",
        "tus.exchange.effects",
        "tus.hooks.events",
        "tus.models",
        "tus.protocol.intake",
        "tus.stores.interface",
    ],
    "tus.logs": ["tus.events", "tus.models"],
    "tus.metrics": ["tus.events", "tus.models", "tus.stores.interface"],
    "tus.operations": [
        "tus.adapters.wsgi",
        "tus.converters",
        "tus.errors",
        "tus.filter",
        "tus.metrics",
        "tus.options",
        "tus.stores",
        "tus.stores.interface",
    ],
    "tus.driver": [
        "tus.adapters.interface",
        "tus.backlog",
        "tus.downloads",
        "tus.errors",
        "tus.events",
        "tus.exchange.effects",
        "tus.handover",
        "tus.hooks",
        "tus.models",
        "tus.options",
        "tus.patience",
        "tus.protocol.tus1",
        "tus.receiving",
        "tus.stores.interface",
        "tus.sweeper",
    ],
    "tus.course": [
        "tus.adapters.interface",
        "tus.backlog",
        "tus.driver",
        "tus.errors",
        "tus.events",
        "tus.exchange",
        "tus.handover",
        "tus.logs",
        "tus.models",
        "tus.options",
        "tus.protocol",
        "tus.receivers",
        "tus.stores.interface",
    ],
    "tus.server": [
        "tus.adapters.interface",
        "tus.backlog",
        "tus.body",
        "tus.course",
        "tus.driver",
        "tus.errors",
        "tus.exchange.effects",
        "tus.handover",
        "tus.models",
        "tus.options",
        "tus.protocol",
        "tus.receivers",
        "tus.stores",
        "tus.stores.interface",
    ],
    "tus.filter": [
        "tus.filebody",
        "tus.adapters.wsgi",
        "tus.backlog",
        "tus.errors",
        "tus.handover",
        "tus.models",
        "tus.options",
        "tus.protocol.handing",
        "tus.protocol.routing",
        "tus.receivers",
        "tus.server",
        "tus.stores",
        "tus.stores.interface",
    ],
    "tus.body_async": [],
    "tus.aio": [
        "tus.adapters.interface",
        "tus.backlog",
        "tus.body_async",
        "tus.converters",
        "tus.course",
        "tus.driver",
        "tus.errors",
        "tus.exchange.effects",
        "tus.handover",
        "tus.models",
        "tus.options",
        "tus.receiving",
        "tus.stores.interface",
    ],
    "tus.adapters.asgi": ["tus.filebody", "tus.models", "tus.protocol.tus1"],
    "tus.asgi": [
        "tus.adapters.asgi",
        "tus.aio",
        "tus.backlog",
        "tus.converters",
        "tus.errors",
        "tus.handover",
        "tus.models",
        "tus.options",
        "tus.protocol.handing",
        "tus.protocol.routing",
        "tus.receivers",
        "tus.stores",
        "tus.stores.interface",
    ],
    "tus.files": ["tus.adapters.wsgi", "tus.errors", "tus.filter", "tus.handover", "tus.models"],
    "tus.page": ["tus.adapters.wsgi", "tus.filter"],
    "tus.serve": [
        "tus.body_gunicorn",
        "tus.errors",
        "tus.files",
        "tus.filter",
        "tus.operations",
        "tus.options",
        "tus.page",
    ],
    "tus.compat": [
        "tus.adapters.wsgi",
        "tus.errors",
        "tus.filter",
        "tus.handover",
        "tus.models",
        "tus.protocol.handing",
        "tus.protocol.routing",
    ],
    "tus.foreign": ["tus.errors", "tus.headers", "tus.models"],
    "tus.importing": [
        "tus.converters",
        "tus.errors",
        "tus.foreign",
        "tus.models",
        "tus.options",
        "tus.stores.adopting",
        "tus.stores.directory",
        "tus.stores.locks",
    ],
    "tus.commands.handing_over": [
        "tus.backlog",
        "tus.commands",
        "tus.errors",
        "tus.files",
        "tus.filter",
        "tus.models",
        "tus.options",
        "tus.protocol.handing",
        "tus.serve",
    ],
    "tus.commands": ["tus.commands", "tus.errors", "tus.models", "tus.options", "tus.stores"],
    "tus.cli": ["tus"],
    "tus.testing": ["tus.errors", "tus.models", "tus.stores.interface", "tus.testing"],
    "tus": [
        "tus.adapters.webob",
        "tus.adapters.zope",
        "tus.errors",
        "tus.filter",
        "tus.hooks.events",
        "tus.models",
        "tus.options",
        "tus.server",
        "tus.spooling",
    ],
}
PURE = {"hooks.events", "hooks.tusd", "converters", "errors", "headers", "filenames", "checksums", "models", "options"}
PURE |= {"cors", "digests", "structured", "events", "proxies", "protocol", "exchange"}
IMPURE = {"os", "io", "time", "asyncio", "socket", "threading", "random", "secrets", "tempfile", "pathlib", "webob"}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            ours = [name for name in submodules if name in MODULES]
            yield from ours or [node.module]


def room(module):
    return max((name for name in MAY_IMPORT if module == name or module.startswith(name + ".")), key=len)


def is_pure(module):
    return any(f"{module}.".startswith(f"tus.{room}.") for room in PURE)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    allowed = MAY_IMPORT[room(module)]
    for name in imports(MODULES[module]):
        if name.partition(".")[0] == "tus":
            assert any(name == other or name.startswith(other + ".") for other in allowed), f"{module} imports {name}"


@pytest.mark.parametrize("module", [name for name in MODULES if is_pure(name)])
def test_pure_rooms_do_no_io(module):
    assert not {name.partition(".")[0] for name in imports(MODULES[module])} & IMPURE


def test_the_drivers_know_no_concrete_store():
    for module in (
        "tus.server",
        "tus.course",
        "tus.driver",
        "tus.backlog",
        "tus.filter",
        "tus.cli",
        "tus.exchange",
        "tus.serve",
    ):
        assert not {"tus.stores.directory", "tus.stores.memory"} & set(imports(MODULES[module])), module


def test_nobody_imports_the_command_line_or_the_test_suite():
    for module, path in MODULES.items():
        found = {name for name in imports(path) if name == "tus.cli" or name.startswith("tus.testing")}
        assert not found or module.startswith("tus.testing"), module


@pytest.mark.parametrize("module", MODULES)
def test_rooms_are_small(module):
    assert len(MODULES[module].read_text().splitlines()) <= 400
