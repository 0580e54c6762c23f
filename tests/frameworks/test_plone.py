"""The job that installs Plone and runs ``tests/support/plone_flow.py`` in it: ``pytest -m plone``.

``TUS_PLONE_VENV`` names a directory where the environment is kept for the next time.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.serving import ROOT

# plone.app.layout has a pre-release that pip would take for the newest, and that does not fit.
REQUIREMENTS = [
    "plone.app.content",
    "plone.app.contenttypes",
    "plone.app.testing",
    "plone.app.layout<7",
    "Products.CMFPlone",
]
REQUIREMENTS += ["zope.testrunner", "requests", "tuspy", "http-sf"]


@pytest.mark.plone
@pytest.mark.timeout(1200)
def test_plones_file_upload(tmp_path):
    directory = Path(os.environ.get("TUS_PLONE_VENV") or tmp_path / "venv")
    python = directory / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", *REQUIREMENTS], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", ROOT], check=True)
    command = [python, "-W", "ignore", "-m", "zope.testrunner", f"--path={ROOT}", "-s", "tests"]
    result = subprocess.run(
        [*command, "--tests-pattern", "^plone_flow$"], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stdout
    total = re.search(r"Total: (\d+) tests, 0 failures, 0 errors and 0 skipped", result.stdout)
    assert total, result.stdout
    assert int(total[1]) >= 7
