"""``import tus`` imports little, and a client's part of the package runs on systems that cannot run a server."""

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import tus

#: An interpreter as on Windows, as far as modules are concerned.
HIDE = """
import sys
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
"""


def python(code, before=""):
    program = textwrap.dedent(before) + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)


def without_posix(*arguments):
    """The result of a command where the modules of POSIX are missing."""
    return python(f"from tus.cli.main import main\nsys.exit(main({list(arguments)}))", HIDE)


def test_every_name_is_there():
    for name in tus.__all__:
        assert getattr(tus, name) is not None
    assert set(tus.__all__) <= set(dir(tus))
    from tus import Filter

    assert tus.Filter is Filter


def test_an_unknown_name_is_an_error():
    with pytest.raises(AttributeError, match="module 'tus' has no attribute 'Fliter'"):
        tus.Fliter  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Fliter' from 'tus'"):
        from tus import Fliter  # noqa: F401


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(tus.__file__).read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name)]
    seen = {(alias.asname, node.module, alias.name) for node in block.body for alias in node.names}
    assert seen == {(name, module, name) for name, module in tus._MODULES.items()}


def test_a_star_imports_all_names():
    assert python("from tus import *\nprint(Filter.__name__, spool.__name__, __version__)").stdout.split() == [
        "Filter",
        "spool",
        tus.__version__,
    ]


def test_the_package_imports_nothing_of_a_server():
    loaded = python("import sys, tus\nprint(*(name for name in sys.modules if name.startswith('tus')))").stdout.split()
    assert sorted(loaded) == ["tus", "tus.version"]


def test_the_shared_modules_need_no_posix():
    result = python("import tus, tus.errors, tus.http.digests, tus.http.headers, tus.http.structured", HIDE)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_command_line_needs_no_posix():
    result = without_posix("--version")
    assert (result.returncode, result.stdout) == (0, f"tus {tus.__version__}\n")
    result = without_posix("--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert "receive uploads into a directory" in result.stdout


@pytest.mark.parametrize("command", ["serve", "ls", "fsck"])
def test_a_command_of_a_server_says_that_it_needs_posix(command):
    result = without_posix(command)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"tus: tus {command} needs a POSIX system such as Linux or macOS\n"
