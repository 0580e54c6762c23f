"""docs/service.rst: its programs, run as a reader would, with tuspy as the client."""

import urllib.parse
import urllib.request

import pytest
from tusclient.client import TusClient

from tests.support.documents import blocks, moved
from tests.support.pool import in_pool

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # tuspy never closes what it opens

DATA = b"hello world" * 50_000


@pytest.fixture
def program(tmp_path):
    """Run a block of the document with its directories in ours; return its names."""

    def program(number):
        code = blocks("python", "docs/service.rst")[number]
        assert '"uploads' in code
        names = {"__name__": "program"}
        exec(moved(code, tmp_path), names)
        return names

    return program


@pytest.fixture
def upload(tmp_path):
    """Upload a file in three requests and return its URL."""
    source = tmp_path / "source"
    source.write_bytes(DATA)

    def upload(root, **how):
        client = TusClient(root)
        uploader = client.uploader(str(source), chunk_size=200_000, metadata={"filename": "hello.txt"}, **how)
        uploader.upload()
        return uploader.url

    return upload


def arrived(tmp_path):
    return {path.name: path.read_bytes() for path in (tmp_path / "arrived").iterdir()}


def test_there_are_four(program):
    assert len(blocks("python", "docs/service.rst")) == 4


def test_the_view(program, upload, tmp_path):
    with in_pool(program(0)["app"]) as port:
        upload(f"http://127.0.0.1:{port}/files")
    assert arrived(tmp_path) == {"hello.txt": DATA}


def test_two_services(program, upload, tmp_path):
    with in_pool(program(1)["application"]) as port:
        upload(f"http://127.0.0.1:{port}/photos")
        upload(f"http://127.0.0.1:{port}/videos")
    assert arrived(tmp_path) == {"photo-hello.txt": DATA, "video-hello.txt": DATA}


def test_a_store_of_ones_own(program, upload, tmp_path):
    with in_pool(program(2)["application"]) as port:
        upload(f"http://127.0.0.1:{port}/files")
    assert arrived(tmp_path) == {"hello.txt": DATA}
    assert (tmp_path / "uploads-ann").is_dir()


def test_the_site(program, upload, tmp_path):
    names = program(3)
    with in_pool(names["app"]) as port:
        root = f"http://127.0.0.1:{port}"

        def send_form(url):
            form = urllib.parse.urlencode({"upload": url}).encode()
            with urllib.request.urlopen(f"{root}/form", form) as reply:
                assert reply.read() == b"Thank you."

        send_form(upload(f"{root}/files"))
        assert arrived(tmp_path) == {"hello.txt": DATA}
        with urllib.request.urlopen(f"{root}/new?size={len(DATA)}") as reply:
            created = root + reply.read().decode()
        send_form(upload(f"{root}/files", url=created))
        assert arrived(tmp_path) == {"hello.txt": DATA, "report.pdf": DATA}
        assert list(names["service"].list()) == []
