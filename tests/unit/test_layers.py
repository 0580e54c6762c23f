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
    "tus.http.structured": [],
    "tus.http.headers": ["tus.errors"],
    "tus.http.filenames": [],
    "tus.checksums": ["tus.errors"],
    "tus.stores.hashing": ["tus.checksums"],
    "tus.protocols.digests": ["tus.checksums", "tus.models", "tus.http.structured"],
    "tus.models": ["tus.http.headers", "tus.http.filenames"],
    "tus.hooks": [],
    "tus.hooks.events": ["tus.http.headers", "tus.models"],
    "tus.hooks.calling": ["tus.errors", "tus.hooks.events", "tus.models"],
    "tus.converters": ["tus.protocols.digests", "tus.hooks.events", "tus.models"],
    "tus.options": ["tus.converters", "tus.errors", "tus.hooks.events", "tus.models"],
    "tus.protocols.cors": ["tus.models", "tus.options"],
    "tus.protocols.forwarded": ["tus.models", "tus.options"],
    "tus.protocol": [
        "tus.checksums",
        "tus.protocols.digests",
        "tus.errors",
        "tus.http.headers",
        "tus.hooks.events",
        "tus.models",
        "tus.options",
        "tus.protocol",
        "tus.protocols.forwarded",
        "tus.http.structured",
    ],
    "tus.exchange": [
        "tus.checksums",
        "tus.protocols.cors",
        "tus.protocols.digests",
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
        "tus.stores.hashing",
        "tus.models",
        "tus.options",
        "tus.stores",
    ],
    "tus.stores.sweeper": ["tus.stores.interface"],
    "tus.server.body": ["tus.models", "tus.server.pace", "tus.stores.interface", "tus.server.body_gunicorn"],
    "tus.server.body_gunicorn": ["tus.server.pace", "tus.stores.interface"],
    "tus.server.pace": [],
    "tus.adapters.interface": ["tus.models"],
    "tus.adapters.wsgi": ["tus.adapters.filebody", "tus.models", "tus.protocols.tus1.requests"],
    "tus.server.downloads": ["tus.adapters.filebody", "tus.models"],
    "tus.adapters.filebody": [],
    "tus.adapters.webob": ["tus.models", "tus.adapters.wsgi"],
    "tus.adapters.zope": ["tus.adapters.wsgi", "tus.models", "tus.protocol"],
    "tus.adapters": [],
    "tus.zope": [
        "tus.adapters.zope",
        "tus.errors",
        "tus.models",
        "tus.options",
        "tus.protocols.tus1.replies",
        "tus.server.sync",
        "tus.zope",
    ],
    "tus.handover.attempt": [
        "tus.adapters.interface",
        "tus.errors",
        "tus.events",
        "tus.protocols.effects",
        "tus.hooks.calling",
        "tus.models",
        "tus.protocols.tus1.withholding",
        "tus.stores.interface",
    ],
    "tus.handover.receivers": [
        "tus.handover.attempt",
        "tus.hooks.calling",
        "tus.hooks.webhook",
        "tus.models",
        "tus.options",
        "tus.handover.spool",
        "tus.errors",
        "tus.hooks.events",
        "tus.stores.interface",
    ],
    "tus.handover.spool": [
        "tus.errors",
        "tus.http.filenames",
        "tus.models",
        "tus.handover.spool_entries",
        "tus.stores.directory.record",
        "tus.filesystem.locks",
    ],
    "tus.hooks.tusd": ["tus.hooks.events", "tus.models"],
    "tus.hooks.outbox": ["tus.errors", "tus.stores.directory.record", "tus.filesystem.locks"],
    "tus.hooks.webhook": ["tus", "tus.errors", "tus.hooks", "tus.models"],
    "tus.handover.backlog": [
        "tus.errors",
        "tus.exchange",
        "tus.handover.attempt",
        "tus.hooks.calling",
        "tus.models",
        "tus.options",
        "tus.protocols.tus1.withholding",
        "tus.handover.receivers",
        "tus.stores.interface",
    ],
    "tus.server.reception": [
        "tus.checksums",
        "tus.errors",
        "tus.protocols.effects",
        "tus.hooks.events",
        "tus.models",
        "tus.protocols.bodies",
        "tus.stores.interface",
    ],
    "tus.monitoring.logs": ["tus.events", "tus.models"],
    "tus.monitoring.metrics": ["tus.events", "tus.models", "tus.stores.interface"],
    "tus.apps.operations": [
        "tus.adapters.wsgi",
        "tus.converters",
        "tus.errors",
        "tus.filter",
        "tus.monitoring.metrics",
        "tus.options",
        "tus.stores",
        "tus.stores.interface",
    ],
    "tus.server.runner": [
        "tus.adapters.interface",
        "tus.handover.backlog",
        "tus.server.downloads",
        "tus.errors",
        "tus.events",
        "tus.protocols.effects",
        "tus.handover.attempt",
        "tus.hooks",
        "tus.models",
        "tus.options",
        "tus.server.pace",
        "tus.protocols.tus1.requests",
        "tus.server.reception",
        "tus.stores.interface",
        "tus.stores.sweeper",
    ],
    "tus.course": [
        "tus.adapters.interface",
        "tus.handover.backlog",
        "tus.server.runner",
        "tus.errors",
        "tus.events",
        "tus.exchange",
        "tus.handover.attempt",
        "tus.monitoring.logs",
        "tus.models",
        "tus.options",
        "tus.protocol",
        "tus.handover.receivers",
        "tus.stores.interface",
    ],
    "tus.server.sync": [
        "tus.adapters.interface",
        "tus.handover.backlog",
        "tus.server.body",
        "tus.course",
        "tus.server.runner",
        "tus.errors",
        "tus.protocols.effects",
        "tus.handover.attempt",
        "tus.models",
        "tus.options",
        "tus.protocol",
        "tus.handover.receivers",
        "tus.stores",
        "tus.stores.interface",
    ],
    "tus.filter": [
        "tus.adapters.filebody",
        "tus.adapters.wsgi",
        "tus.handover.backlog",
        "tus.errors",
        "tus.handover.attempt",
        "tus.models",
        "tus.options",
        "tus.protocols.tus1.withholding",
        "tus.protocols.routing",
        "tus.handover.receivers",
        "tus.server.sync",
        "tus.stores",
        "tus.stores.interface",
    ],
    "tus.server.body_async": [],
    "tus.server.aio": [
        "tus.adapters.interface",
        "tus.handover.backlog",
        "tus.server.body_async",
        "tus.converters",
        "tus.course",
        "tus.server.runner",
        "tus.errors",
        "tus.protocols.effects",
        "tus.handover.attempt",
        "tus.models",
        "tus.options",
        "tus.server.reception",
        "tus.stores.interface",
    ],
    "tus.adapters.asgi": ["tus.adapters.filebody", "tus.models", "tus.protocols.tus1.requests"],
    "tus.asgi": [
        "tus.adapters.asgi",
        "tus.server.aio",
        "tus.handover.backlog",
        "tus.converters",
        "tus.errors",
        "tus.handover.attempt",
        "tus.models",
        "tus.options",
        "tus.protocols.tus1.withholding",
        "tus.protocols.routing",
        "tus.handover.receivers",
        "tus.stores",
        "tus.stores.interface",
    ],
    "tus.apps.files": ["tus.adapters.wsgi", "tus.errors", "tus.filter", "tus.handover.attempt", "tus.models"],
    "tus.apps.page": ["tus.adapters.wsgi", "tus.filter"],
    "tus.cli.serve": [
        "tus.server.body_gunicorn",
        "tus.errors",
        "tus.apps.files",
        "tus.filter",
        "tus.apps.operations",
        "tus.options",
        "tus.apps.page",
    ],
    "tus.compat": [
        "tus.adapters.wsgi",
        "tus.errors",
        "tus.filter",
        "tus.handover.attempt",
        "tus.models",
        "tus.protocols.tus1.withholding",
        "tus.protocols.routing",
    ],
    "tus.cli.import_formats": ["tus.errors", "tus.http.headers", "tus.models"],
    "tus.cli.import_": [
        "tus.converters",
        "tus.errors",
        "tus.cli.import_formats",
        "tus.models",
        "tus.options",
        "tus.stores.directory.adopt",
        "tus.stores.directory.store",
        "tus.filesystem.locks",
    ],
    "tus.cli.handover": [
        "tus.handover.backlog",
        "tus.commands",
        "tus.errors",
        "tus.apps.files",
        "tus.filter",
        "tus.models",
        "tus.options",
        "tus.protocols.tus1.withholding",
        "tus.cli.serve",
    ],
    "tus.commands": ["tus.commands", "tus.errors", "tus.models", "tus.options", "tus.stores"],
    "tus.cli.main": ["tus"],
    "tus.testing": ["tus.errors", "tus.models", "tus.stores.interface", "tus.testing"],
    "tus": [
        "tus.adapters.webob",
        "tus.adapters.zope",
        "tus.errors",
        "tus.filter",
        "tus.hooks.events",
        "tus.models",
        "tus.options",
        "tus.server.sync",
        "tus.handover.spool",
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
        "tus.server.sync",
        "tus.course",
        "tus.server.runner",
        "tus.handover.backlog",
        "tus.filter",
        "tus.cli.main",
        "tus.exchange",
        "tus.cli.serve",
    ):
        assert not {"tus.stores.directory.store", "tus.stores.memory"} & set(imports(MODULES[module])), module


def test_nobody_imports_the_command_line_or_the_test_suite():
    for module, path in MODULES.items():
        found = {name for name in imports(path) if name == "tus.cli.main" or name.startswith("tus.testing")}
        assert not found or module.startswith("tus.testing"), module


@pytest.mark.parametrize("module", MODULES)
def test_rooms_are_small(module):
    assert len(MODULES[module].read_text().splitlines()) <= 400
