"""README.rst as a reader follows it: its files and commands alone, in a new directory, and tuspy as the client."""

import os
import re

import pytest
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError

from tests.support.documents import blocks
from tests.support.serving import ROOT, command, free_port, wait_for_port

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # tuspy never closes what it opens

CONTENT = b"hello world" * 50_000
INI_FILES = (None, 0, 1)


@pytest.fixture
def directory(tmp_path):
    """A new directory with ``myapp.py``."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "myapp.py").write_text(blocks("python")[0])
    return tmp_path


def command_of(number, directory):
    """The command that the README gives for its code, or for one of its ini files."""
    text = (ROOT / "README.rst").read_text()
    if number is None:
        return re.search(r"``(gunicorn [^`]* myapp:\w+)``", text)[1].split()
    (directory / "site" / "site.ini").write_text(blocks("ini")[number])
    return re.search(r"``(gunicorn [^`]*--paste site\.ini)``", text)[1].split()


def send(port, directory, url=None, content=CONTENT):
    """Upload a file in several requests, and return its URL."""
    source = directory / "hello.txt"
    source.write_bytes(content)
    client = TusClient(f"http://127.0.0.1:{port}/upload")
    metadata = {"filename": "hello.txt"}
    uploader = client.uploader(str(source), chunk_size=200_000, metadata=metadata, url=url)
    try:
        uploader.upload()
    except TusCommunicationError as error:
        error.url = uploader.url
        raise
    return uploader.url


@pytest.mark.parametrize("number", INI_FILES, ids=["code", "app", "pipeline"])
def test_the_application_of_the_readme(number, directory):
    port, site, arrived = free_port(), directory / "site", directory / "site" / "arrived"
    program, *arguments = command_of(number, directory)
    with command([program, "-b", f"127.0.0.1:{port}", *arguments], site) as process:
        wait_for_port(port, process, site / "stderr")
        send(port, directory)
        assert {path.name: path.read_bytes() for path in arrived.iterdir()} == {"hello.txt": CONTENT}

        send(port, directory, content=b"another")
        second = {path.name: path.read_bytes() for path in arrived.iterdir()}
        assert len(second) == 2
        assert second["hello.txt"] == CONTENT
        assert b"another" in second.values()

        arrived.rename(directory / "away")
        with pytest.raises(TusCommunicationError) as failed:
            send(port, directory, content=b"the third one")
        (directory / "away").rename(arrived)
        assert len(list(arrived.iterdir())) == 2
        send(port, directory, failed.value.url, b"the third one")
        third = [path.read_bytes() for path in arrived.iterdir()]
        assert sorted(third) == sorted([CONTENT, b"another", b"the third one"])
        assert not [path for path in (site / "uploads").iterdir() if len(path.name) == 32], "nothing is left"
    printed = (site / "stderr").read_text()
    assert "existing directory" in printed, "the log names the failure"
    assert "was accepted, but" not in printed


def test_the_code_and_the_ini_files_have_the_same_options(directory):
    code = blocks("python")[0]
    for text in blocks("ini"):
        options = dict(re.findall(r"^(\w+) = (.+)$", text.partition("[filter:tus]")[2], re.MULTILINE))
        del options["use"]
        options["tmp_file_dir"] = options["tmp_file_dir"].removeprefix("%(here)s/")
        assert options == dict(re.findall(r'(\w+)="([^"]+)"', re.search(r"Filter\((.*)\)", code)[1]))
        assert "paste.app_factory = myapp:make_app" in text
    assert os.path.exists(directory / "site" / "myapp.py")
