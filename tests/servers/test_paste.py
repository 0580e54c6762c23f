"""``paste_example.ini`` is served by every command that it names, and files what a real client uploads."""

import contextlib
import io
import random
import re
import shutil
import signal

import pytest
from tusclient.client import TusClient

from tests.support.clients import head
from tests.support.serving import ROOT, command, free_port, wait_for_port

EXAMPLE = ROOT / "paste_example.ini"
CONTENT = random.Random(1).randbytes(1_234_567)
LISTEN = re.compile(r"^listen = 127\.0\.0\.1:6543$", re.MULTILINE)

#: What is typed; PORT is one that is free. ``pserve`` takes its port from the file alone, so it alone is given a copy
#: in which the one line with the port differs; the others are given the file as it is.
COMMANDS = {
    "pserve": ["pserve", "paste_example.ini"],
    "gunicorn": ["gunicorn", "--paste", "paste_example.ini", "-b", "127.0.0.1:PORT"],
    "gunicorn-workers": ["gunicorn", "--paste", "paste_example.ini", "-b", "127.0.0.1:PORT", "-w", "2"],
    "tus": ["tus", "serve", "paste_example.ini", "--port", "PORT"],
}


@contextlib.contextmanager
def serving_example(name, directory):
    """Serve a copy of the example in a directory of its own; gives the port and the process."""
    port = free_port()
    if name == "pserve":
        text, count = LISTEN.subn(f"listen = 127.0.0.1:{port}", EXAMPLE.read_text())
        assert count == 1
        (directory / EXAMPLE.name).write_text(text)
    else:
        shutil.copy(EXAMPLE, directory)
    with command([word.replace("PORT", str(port)) for word in COMMANDS[name]], directory) as process:
        wait_for_port(port, process, directory / "stderr")
        yield port, process


def upload(url, content, filename):
    """Upload in several requests; returns the upload's URL."""
    uploader = TusClient(url).uploader(
        file_stream=io.BytesIO(content), chunk_size=500_000, metadata={"filename": filename}
    )
    uploader.upload()
    return uploader.url


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_is_served_and_files_an_upload(name, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving_example(name, tmp_path) as (port, process):
        url = upload(f"http://127.0.0.1:{port}/files", CONTENT, "naïve file.bin")
        assert url.startswith(f"http://127.0.0.1:{port}/files/")
        assert [path.name for path in (tmp_path / "uploads").iterdir()] == ["naïve file.bin"]
        assert (tmp_path / "uploads" / "naïve file.bin").read_bytes() == CONTENT
        assert head(url)[1]["upload-offset"] == str(len(CONTENT))
        assert head(f"http://127.0.0.1:{port}/filesystem")[0] == 404, "the application behind the filter answers"
        kept = [path.name for path in (tmp_path / "uploads.tmp").iterdir() if not path.name.startswith(".")]
        assert kept == [url.rpartition("/")[2] + ".tus"], "the record outlives the data"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == (-signal.SIGTERM if name == "pserve" else 0)
    printed = (tmp_path / "stdout").read_text() + (tmp_path / "stderr").read_text()
    assert "Traceback" not in printed


def test_the_example_names_each_command_that_is_tried_here():
    comment = EXAMPLE.read_text().partition("\n[")[0]
    named = re.findall(r"^#   (.+)$", comment, re.MULTILINE)
    assert named == [" ".join(COMMANDS[name][: 2 if name == "pserve" else 3]) for name in ("pserve", "gunicorn", "tus")]


def test_an_upload_through_one_server_goes_on_through_another(tmp_path, monkeypatch):
    """What is on disk is all there is: a server may be replaced by another kind in the middle of an upload."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    path, offset = None, 0
    for name, end in (("pserve", 400_000), ("gunicorn", 900_000), ("tus", len(CONTENT))):
        with serving_example(name, tmp_path) as (port, _):
            client = TusClient(f"http://127.0.0.1:{port}/files")
            address = None if path is None else f"http://127.0.0.1:{port}{path}"
            uploader = client.uploader(file_stream=io.BytesIO(CONTENT), url=address, chunk_size=100_000)
            if address is None:
                uploader.set_url(uploader.create_url())
            assert uploader.get_offset() == offset
            uploader.upload(stop_at=end)
            path = uploader.url.partition(f":{port}")[2]
            offset = end
    (landed,) = (tmp_path / "uploads").iterdir()
    assert landed.name == path.rpartition("/")[2], "without a name it gets the upload's id"
    assert landed.read_bytes() == CONTENT
