"""docs/moving_clients.rst: its programs run, ours always, and those of the other clients where they can be had."""

import re
import subprocess
import sys

import pytest

import tus.client
from tests.support.documents import blocks
from tests.support.serving import ROOT, command, free_port, wait_for_port
from tus.cli.main import whole_parser

DOCUMENT = (ROOT / "docs/moving_clients.rst").read_text()
OF_TUSPY, THEIR_SYNC, SYNC, THEIR_ASYNC, ASYNC = blocks("python", "docs/moving_clients.rst")
FILM = b"film" * 300_000
OTHERS = ("resumable-upload==0.3.0", "aiotus==1.1.0")


@pytest.fixture
def server(tmp_path):
    """The directory of the files that ``tus serve`` gets, and its port."""
    port = free_port()
    with command(["tus", "serve", "--port", str(port), "--workers", "1"], tmp_path) as process:
        wait_for_port(port, process, tmp_path / "stderr")
        yield tmp_path / "uploads", port


@pytest.fixture
def run(server, tmp_path):
    """Run a program in a process of its own, in a directory with its file; return what it prints."""
    directory = tmp_path / "reader"
    directory.mkdir()
    (directory / "film.mp4").write_bytes(FILM)

    def run(code, path=""):
        code = code.replace(":1080/", f":{server[1]}/")
        environment = {"HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(path)}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=directory, env=environment, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, done.stderr
        assert [path.read_bytes() for path in server[0].iterdir() if path.is_file()] == [FILM]
        return done.stdout

    return run


@pytest.mark.parametrize("package", ["tus.client.tusclient", "tusclient"], ids=["ours", "tuspy"])
def test_tuspy(run, package):
    assert run(OF_TUSPY.replace("tus.client.tusclient", package)).split()[1] == str(len(FILM))


def test_in_place_of_resumable_upload(run):
    printed = run(SYNC).splitlines()
    assert printed[-2] == f"{len(FILM)} {len(FILM)}"
    assert printed[-1].endswith(f" {len(FILM)}")


def test_in_place_of_aiotus(run):
    assert "'project': b'alps'" in run(ASYNC)


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    directory = tmp_path_factory.mktemp("others")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", directory, *OTHERS], check=True)
    return directory


@pytest.mark.peers
def test_resumable_upload(run, others):
    assert run(THEIR_SYNC, others).splitlines()[-1].endswith(f" {len(FILM)}")


@pytest.mark.peers
def test_aiotus(run, others):
    assert "'project': b'alps'" in run(THEIR_ASYNC, others)


def test_what_is_named_exists():
    """The second column of each table has names of ours."""
    column = " ".join(line[48:] for line in DOCUMENT.splitlines() if re.match(r"\S.{45}  \S", line))
    for name in re.findall(r"(?<!httpx2\.)\b([A-Z]\w+[a-z]\w+)\(", column):
        assert hasattr(tus.client, name), name
    methods = set(re.findall(r"(?:``|client\.)([a-z_]+)\(", column))
    assert {"upload", "resume", "head", "delete", "options"} <= methods
    for name in methods:
        assert hasattr(tus.client.Client, name), name
    for command_line in re.findall(r"``(tus [a-z]+)", column):
        whole_parser().parse_args(
            [*command_line.split()[1:], *(["a", "http://b"] if "upload" in command_line else ["u"])]
        )
