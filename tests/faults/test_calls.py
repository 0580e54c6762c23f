"""The seam: nothing that the package does with files goes past it."""

import ast
import fcntl
import inspect
import os
from pathlib import Path

import pytest

import tus
from tests.faults.calls import WATCHED
from tests.faults.lives import LIVES
from tests.faults.rounds import run

ROOT = Path(tus.__file__).parent

#: Functions of ``os`` and ``fcntl`` that work on no file, or call others that are watched.
OTHERS = {"cpu_count", "fdopen", "fsdecode", "fspath", "getcwd", "getegid", "geteuid", "getgrouplist", "getgroups"}
OTHERS |= {"getpid", "register_at_fork", "sched_getaffinity", "setegid", "seteuid", "setgroups", "strerror", "urandom"}
OTHERS |= {"dup2", "getppid", "makedirs", "walk"}
OTHERS |= {"fcntl", "pipe"}  # without a pipe, a body goes through memory


def functions_of(path):
    """The functions of ``os`` and ``fcntl`` that a module uses, each with its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = {"os": os, "fcntl": fcntl}.get(node.value.id)
            if inspect.isroutine(getattr(module, node.attr, None)):
                yield node.attr, node.lineno


@pytest.mark.parametrize("room", ["adapters", "filesystem", "handover", "hooks", "server", "stores"])
def test_each_function_that_works_on_files_is_watched(room):
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in (ROOT / room).rglob("*.py")
        for name, line in functions_of(path)
        if name not in WATCHED | OTHERS and not name.startswith("__")
    ]
    assert not found


#: Calls that Python makes in C for a file object or a listing, and the modules that use one in a life.
IN_C = {
    "webhook that fails, tus in blocks": [
        ("write", "hooks/outbox.py"),
        ("read", "hooks/outbox.py"),
        ("close", "hooks/outbox.py"),
    ],
    "tus spooled": [
        ("write", "handover/spool_entries.py"),
        ("read", "handover/spool_entries.py"),
        ("getdents", "handover/spool.py"),
    ],
    "tus downloaded": [("read", "adapters/filebody.py")],
    "ietf with a long response": [("write", "adapters/filebody.py"), ("read", "adapters/filebody.py")],
    "concatenation with a digest": [("read", "stores/hashing.py")],
    "expiry": [("getdents", "stores/directory/expiry.py")],
    "clean": [("getdents", "handover/spool.py"), ("stat", "handover/spool.py")],
}


@pytest.mark.parametrize("name", IN_C)
def test_what_python_does_in_c_is_watched(name):
    life = next(life for life in LIVES if life.name == name)
    lived = run(life, "wsgi", "finish")
    assert lived.violation is None
    assert {*IN_C[name]} <= {(call.name, call.site.partition(":")[0]) for call in lived.calls}
