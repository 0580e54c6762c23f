"""docs/spool.rst: its ini file and its worker together, as a reader has them."""

import contextlib
import io
import re
import subprocess
import sys

import pytest
from tusclient.client import TusClient

import tus
from tests.support.documents import blocks
from tests.support.serving import ROOT, command, free_port
from tests.support.waiting import wait_until

PAGE = "docs/spool.rst"


@pytest.fixture
def site(tmp_path):
    """A directory in the place of the page's own, with ``site.ini`` and ``worker.py``."""
    (tmp_path / "myapp").mkdir()
    for name, language in (("site.ini", "ini"), ("worker.py", "python")):
        (text,) = blocks(language, PAGE)
        (tmp_path / name).write_text(text.replace("/var/lib/myapp", str(tmp_path / "myapp")))
    return tmp_path


def test_one_directory_is_named():
    assert set(re.findall(r"/var/[a-z/]*spool", (ROOT / PAGE).read_text())) == {"/var/lib/myapp/spool"}


def test_a_worker_takes_what_the_server_puts(site):
    port = free_port()
    with contextlib.ExitStack() as stack:
        stack.enter_context(command(["tus", "serve", "site.ini", "--port", str(port), "--workers", "1"], site))
        printed = stack.enter_context((site / "printed").open("wb"))
        worker = subprocess.Popen([sys.executable, "worker.py"], cwd=site, stdout=printed, stderr=printed)
        stack.callback(worker.wait)
        stack.callback(worker.kill)
        wait_until(lambda: "Serving on" in (site / "stdout").read_text())
        client = TusClient(f"http://127.0.0.1:{port}/upload")
        for _ in range(2):
            uploader = client.uploader(
                file_stream=io.BytesIO(b"x" * 300_000), chunk_size=100_000, metadata={"filename": "a.bin"}
            )
            uploader.upload()
        wait_until(lambda: (site / "printed").read_text() == "a.bin has 300000 bytes\n" * 2)
        spool = tus.spool(str(site / "myapp" / "spool"))
        wait_until(lambda: spool.counts()["done"] == 2)
    assert not list((site / "myapp" / "files").iterdir()), "the application is not called"


def test_the_name_of_the_exception(tmp_path):
    assert "``tus.SpoolEmpty``" in (ROOT / PAGE).read_text()
    with pytest.raises(tus.SpoolEmpty) as empty, tus.spool(str(tmp_path)).claim(timeout=0):
        pass
    assert isinstance(empty.value, TimeoutError)
