"""Imports point one way, in no circle, and the pure rooms do no I/O."""

import ast
import graphlib
from pathlib import Path

import pytest

import tus

#: The layers of the package, the lowest first. A module may import from its own layer and from those above it in this
#: list. Its layer is that of the longest name here that is its own or its package's; ``tus`` is the package alone.
LAYERS = [
    {"tus.errors", "tus.version"},
    {"tus.http", "tus.checksums"},
    {"tus.client"},
    {"tus.models"},
    {"tus.events", "tus.converters", "tus.options"},
    {"tus.protocols"},
    {"tus.filesystem"},
    {"tus.stores"},
    {"tus.adapters", "tus.monitoring"},
    {"tus.hooks", "tus.handover"},
    {"tus.server"},
    {"tus", "tus.filter", "tus.asgi", "tus.compat", "tus.cors", "tus.pyramid", "tus.zope", "tus.apps"},
    {"tus.cli"},
    {"tus.testing"},
]
#: These rooms get bytes, time and chance as arguments.
PURE = ("tus.errors", "tus.http", "tus.checksums", "tus.models", "tus.events", "tus.protocols")
IMPURE = {
    *("asyncio", "anyio", "io", "multiprocessing", "os", "pathlib", "random", "secrets", "select", "shutil", "signal"),
    *("socket", "subprocess", "tempfile", "threading", "time", "uuid", "webob"),
}
#: Only here is a store known by its class.
CONCRETE_STORES = ("tus.stores.memory", "tus.stores.directory")
KNOW_STORES = ("tus.stores", "tus.cli")

ROOT = Path(tus.__file__).parent
MODULES = {
    ".".join(("tus", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}


def is_in(module, names):
    """Whether a module is one of these, or below one of them."""
    return any(module == name or module.startswith(f"{name}.") for name in names)


def layer_of(module):
    """The number of a module's layer."""
    found = {name: number for number, names in enumerate(LAYERS) for name in names if is_in(module, [name])}
    if module != "tus":
        found.pop("tus", None)
    assert found, f"{module} is in none of the LAYERS"
    return found[max(found, key=len)]


def is_for_types(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports(module, at_import=False):
    """What a module imports, but for types alone; ``at_import`` leaves out what functions import when they run."""
    later = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda) if at_import else ()
    nodes = [ast.parse(MODULES[module].read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from {name if name in MODULES else node.module for name in submodules}
        elif is_for_types(node):
            nodes += node.orelse
        elif not isinstance(node, later):
            nodes += ast.iter_child_nodes(node)


def imports_of_ours(module, at_import=False):
    return {name for name in imports(module, at_import) if name in MODULES}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    layer = layer_of(module)
    wrong = [name for name in sorted(imports_of_ours(module)) if layer_of(name) > layer]
    assert not wrong, f"{module} is below what it imports"


def test_imports_are_no_circle():
    graph = {module: imports_of_ours(module, at_import=True) for module in MODULES}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}", pytrace=False)


@pytest.mark.parametrize("module", [module for module in MODULES if is_in(module, PURE)])
def test_pure_rooms_do_no_io(module):
    assert not {name.partition(".")[0] for name in imports(module)} & IMPURE


@pytest.mark.parametrize("module", [module for module in MODULES if not is_in(module, KNOW_STORES)])
def test_a_store_is_known_by_its_interface(module):
    assert not [name for name in imports(module) if is_in(name, CONCRETE_STORES)]


@pytest.mark.parametrize("names", LAYERS, ids=lambda names: min(names))
def test_layers_name_what_exists(names):
    assert not [name for name in names if name not in MODULES]
