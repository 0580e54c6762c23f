"""The examples, run as their first lines say, with tuspy."""

import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from tusclient.client import TusClient

from tests.support.serving import ROOT, free_port, wait_for_port

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # tuspy never closes what it opens


def test_there_are_four():
    names = ["django_view.py", "fastapi_app.py", "flask_app.py", "pyramid_app.py"]
    assert [path.name for path in EXAMPLES] == names


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_receives_files(path, tmp_path):
    text = path.read_text()
    assert len(text.splitlines()) < 60
    command = re.search(r"``python (examples/\w+\.py) \[PORT\]``", text)[1]
    port = free_port()
    log = tmp_path / "log"
    arrived = tmp_path / "site" / "arrived"
    arrived.parent.mkdir()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, command, str(port)],
            cwd=ROOT,
            env=os.environ | {"ARRIVED": str(arrived), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for_port(port, process, log)
        content = os.urandom(3_000_000)
        source = tmp_path / "source"
        source.write_bytes(content)
        client = TusClient(f"http://127.0.0.1:{port}/files")
        for _ in range(2):
            metadata = {"filename": "../grün <b>.bin"}
            client.uploader(str(source), chunk_size=1 << 20, metadata=metadata).upload()
        client.uploader(str(source), chunk_size=1 << 20).upload()  # without a name
        files = sorted(arrived.iterdir())
        assert [file.read_bytes() for file in files] == [content] * 3
        assert all(file.parent == arrived for file in arrived.rglob("*"))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as reply:
            page = reply.read().decode()
        assert page.count("3000000 bytes") == 3
        assert "grün" in page
        with pytest.raises(urllib.error.HTTPError) as missing:
            urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/files", b"a=b"), timeout=10)
        missing.value.close()
        assert missing.value.code == 404
        assert "Traceback" not in log.read_text()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
