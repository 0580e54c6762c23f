"""docs/client.rst: its programs, run as a reader would, against a server at the port that they name."""

import subprocess
import sys

import pytest

from tests.support.documents import blocks
from tests.support.serving import command, free_port, wait_for_port

PROGRAMS = blocks("python", "docs/client.rst")
FILES = {"film.mp4": b"film" * 300_000, "a.jpg": b"a" * 5, "b.jpg": b"b" * 6, "c.jpg": b"c" * 7}


@pytest.fixture
def server(tmp_path):
    """The directory of the files that ``tus serve`` gets, and its port."""
    port = free_port()
    with command(["tus", "serve", "--port", str(port), "--workers", "1"], tmp_path) as process:
        wait_for_port(port, process, tmp_path / "stderr")
        yield tmp_path / "uploads", port


@pytest.fixture
def run(server, tmp_path):
    """Run a program of the document in a process of its own, in a directory with its files; return what it prints."""
    directory = tmp_path / "reader"
    directory.mkdir()
    for name, data in FILES.items():
        (directory / name).write_bytes(data)

    def run(number):
        code = PROGRAMS[number].replace(":1080/", f":{server[1]}/")
        environment = {"HOME": str(tmp_path), "PYTHONWARNINGS": "error", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=directory, env=environment, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    return run


def arrived(server):
    return {path.name: path.read_bytes() for path in server[0].iterdir() if path.is_file()}


def test_there_are_six():
    assert len(PROGRAMS) == 6


def test_one_file(server, run):
    assert run(0).startswith(f"http://localhost:{server[1]}/files/")
    assert arrived(server) == {"film.mp4": FILES["film.mp4"]}


def test_several_files(server, run):
    printed = run(1)
    assert sorted(line.split()[0] for line in printed.splitlines()) == ["a.jpg", "b.jpg", "c.jpg"]
    assert arrived(server) == {name: data for name, data in FILES.items() if name.endswith("jpg")}


def test_an_event_loop(server, run):
    run(2)
    assert arrived(server) == {"film.mp4": FILES["film.mp4"]}


def test_a_stream(server, run):
    run(3)
    assert arrived(server) == {"rows.txt": b"all rows\n"}


def test_progress(server, run):
    printed = run(4)
    assert printed.startswith("started 0 0 1200000")
    assert printed.rstrip().endswith("finished 1200000 1200000 1200000")
    assert arrived(server) == {"film.mp4": FILES["film.mp4"]}


def test_other_requests(run):
    assert "creation" in run(5)
