"""The oldest versions of uvicorn and httptools that are allowed have every private name that this package uses."""

import os
import re
import subprocess
import sys
import tomllib

import pytest

from tests.support.serving import ROOT

TESTED = (
    "tests/servers/test_connections.py",
    "tests/servers/test_lent_socket.py",
    "tests/cli/test_serve.py::test_the_body_comes_from_the_socket",
)
PROGRAM = """
import sys, httptools, pytest, uvicorn
assert [uvicorn.__version__, httptools.__version__] == sys.argv[1:3], (uvicorn.__version__, httptools.__version__)
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", *sys.argv[3:]]))
"""


def oldest(package):
    """The version that the extra ``serve`` asks for at least."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    least = next(re.match(rf"{package}>=([0-9.]+)", line) for line in extras["serve"] if line.startswith(package))[1]
    return least + ".0" * (2 - least.count("."))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_oldest_uvicorn_is_familiar(tmp_path):
    """No connection is unknown, and no body is read as messages: all tests of both pass."""
    versions = [oldest("uvicorn"), oldest("httptools")]
    packages = [f"{package}=={version}" for package, version in zip(("uvicorn", "httptools"), versions, strict=True)]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", tmp_path, *packages], check=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))}
    command = [sys.executable, "-c", PROGRAM, *versions, *TESTED]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
