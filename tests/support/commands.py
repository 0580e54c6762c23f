"""``tus`` as people run it, and directories for it to look after."""

import base64
import os
import subprocess
import sysconfig
import time

from tus import Upload
from tus.stores.directory.store import DirectoryStore

TUS_COMMAND = os.path.join(sysconfig.get_path("scripts"), "tus")


def run(*arguments, directory=None, **how):
    """Run ``tus`` to its end."""
    return subprocess.run(
        [TUS_COMMAND, *map(str, arguments)],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        **how,
    )


def assert_refused(done, *words):
    """Status 2, one clear message with these words, and no traceback."""
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("tus")], done.stderr
    for word in words:
        assert word in done.stderr
    assert done.stdout == ""


def store_in(directory, ago=0.0, **options):
    return DirectoryStore(str(directory), clock=lambda: time.time() - ago, **options)


def filled(store, size, data=b"", name=None):
    draft = Upload(length=size, raw_metadata="" if name is None else named(name)["Upload-Metadata"])
    made = store.create(draft)
    return store.append(made, 0, data) if data else made


def named(name):
    raw = name if isinstance(name, bytes) else name.encode()
    return {"Upload-Metadata": f"filename {base64.b64encode(raw).decode()}"}
