"""tus-js-client in Node, and what the tests with it upload."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.support.clients import UNUSUAL_NAME

HERE = Path(__file__).parent / "node"

DRIVER = "upload.mjs"

SIZE = 3 * 1024 * 1024 + 17

CHUNK = 1024 * 1024

CUT = 1_234_567

METADATA = {"filename": UNUSUAL_NAME, "filetype": "application/x-☃", "empty": ""}

DELAYS = [0, 50, 100, 200, 400, 800, 1000]


class Node:
    """Installs tus-js-client when it is first needed, and runs the driver with it."""

    def __init__(self, major: str, cache: Path) -> None:
        self._manifest = HERE / f"package-{major}.json"
        version = json.loads(self._manifest.read_text())["dependencies"]["tus-js-client"]
        self.is_5 = major == "5"
        self.directory = cache / f"tus-js-client-{version}"

    def __call__(self, file: Path | None = None, *, source: str = "file", **plan: object) -> dict:
        """Run a plan, see the driver."""
        problem = self.install()
        if problem:
            pytest.fail(problem, pytrace=False)
        plan |= {"file": str(file), "source": source}
        run = subprocess.run(
            ["node", DRIVER, json.dumps(plan)],
            cwd=self.directory,
            env=os.environ | {"NODE_OPTIONS": ""},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        assert run.stdout.startswith("{"), f"the driver ended without a word: {run.stderr}"
        return json.loads(run.stdout)

    @functools.cache  # noqa: B019 - there are two of them, as long as the session
    def install(self) -> str | None:
        """Returns what is wrong, for every test to say it."""
        missing = [tool for tool in ("node", "npm") if shutil.which(tool) is None]
        if missing:
            return (
                f"{' and '.join(missing)} not found: the tests marked 'node' need Node.js 20 or newer with npm."
                " Install it, or leave them out with -m 'not node'."
            )
        version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
        if int(version[1:].split(".")[0]) < 20:
            return f"Node.js {version} is too old: the tests marked 'node' need 20 or newer."
        if not self.directory.exists():
            fresh = Path(tempfile.mkdtemp(dir=self.directory.parent))
            shutil.copy(self._manifest, fresh / "package.json")
            npm = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
            run = subprocess.run(npm, cwd=fresh, capture_output=True, text=True, timeout=240, check=False)
            if run.returncode:
                shutil.rmtree(fresh)
                return f"npm could not install tus-js-client:\n{run.stdout}{run.stderr}"
            try:
                fresh.rename(self.directory)  # only once it is whole, so that half of it is never taken for good
            except OSError:
                shutil.rmtree(fresh)  # another process was quicker
        shutil.copy(HERE / DRIVER, self.directory / DRIVER)
        return None


def has_succeeded(result):
    assert result["outcome"] == "success", result
    return True
