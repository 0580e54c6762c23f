"""A site of forms and pages that uses uploads: received before the form is sent, or created for its clients."""

import html
import re
import urllib.parse
import urllib.request

import pytest
from flask import Flask, request
from tusclient.client import TusClient

from tests.support.pool import in_pool
from tus import Filter, Service
from tus.models import State

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # tuspy never closes what it opens

DATA = b"hello world" * 100_000
PAGE = """<form method="post"><input name="title"><input type="hidden" name="upload" value=""></form>"""
USER = "ann"


class Site:
    """A site whose form posts the URL of an upload, and whose index gives each visitor an upload of their own.

    Attributes:
        documents: what was sent in forms, as tuples of the title, the file's name and its data.
        finished: the names of files of uploads that the site has created.
    """

    def __init__(self, directory):
        self.documents, self.finished = [], []
        keeps = {"keep_finished": True, "completed_keep": "1h"}
        self.service = Service(
            upload_path="/files",
            tmp_file_dir=directory,
            on_finished=self.finish,
            authorize=lambda request, intent, upload: request.headers.get("X-User"),
            threads=False,
            **keeps,
        )
        app = Flask(__name__)
        app.add_url_rule("/form", view_func=self.form, methods=["GET", "POST"])
        app.add_url_rule("/", view_func=self.index)
        app.wsgi_app = Filter(app.wsgi_app, service=self.service)
        self.app = app

    def finish(self, upload):
        self.finished.append(upload.filename)

    def form(self):
        if request.method == "GET":
            return PAGE
        upload = self.service.find(request.form["upload"], principal=USER)
        if upload is None or not upload.is_complete:
            return "Upload the file first.", 400
        file, _ = self.service.store.read(upload)
        with file:
            self.documents.append((request.form["title"], upload.filename, file.read()))
        self.service.cancel(upload)
        return "Thank you."

    def index(self):
        metadata = {"filename": "report.bin"}
        upload = self.service.create_upload(length=len(DATA), metadata=metadata, principal=USER, expires=600)
        return f'<a href="{html.escape(self.service.url_of(upload))}">Upload</a>'


@pytest.fixture
def site(tmp_path):
    return Site(str(tmp_path / "uploads"))


@pytest.fixture
def root(site):
    with in_pool(site.app) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return str(path)


def send_form(root, **fields):
    """Send the form of the page, as a browser does; return the status."""
    with urllib.request.urlopen(f"{root}/form") as page:
        names = re.findall(r'name="(\w+)"', page.read().decode())
    assert set(names) == set(fields)
    try:
        with urllib.request.urlopen(f"{root}/form", urllib.parse.urlencode(fields).encode()) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_a_form_that_posts_the_url_of_an_upload(site, root, file):
    client = TusClient(f"{root}/files", headers={"X-User": USER})
    uploader = client.uploader(file, chunk_size=300_000, metadata={"filename": "a b.bin"})
    uploader.upload_chunk()
    assert send_form(root, title="too early", upload=uploader.url) == 400
    uploader.upload()
    assert send_form(root, title="hello", upload=uploader.url) == 200
    assert site.documents == [("hello", "a b.bin", DATA)]
    assert send_form(root, title="once more", upload=uploader.url) == 400, "the site has taken it"


def test_a_form_that_posts_the_url_of_another_user(site, root, file):
    uploader = TusClient(f"{root}/files", headers={"X-User": "eve"}).uploader(file)
    uploader.upload()
    assert send_form(root, title="mine", upload=uploader.url) == 400
    assert send_form(root, title="mine", upload=f"{root}/files/../../etc/passwd") == 400
    assert site.documents == []


def test_a_page_that_creates_the_upload(site, root, file):
    with urllib.request.urlopen(f"{root}/") as page:
        path = re.search(r'href="([^"]+)"', page.read().decode())[1]
    (upload,) = site.service.list(principal=USER)
    assert (upload.state, upload.expires_at - upload.created_at < 700) == (State.RECEIVING, True)
    client = TusClient(f"{root}/files", headers={"X-User": USER})
    client.uploader(file, url=root + path, chunk_size=300_000).upload()
    assert site.finished == ["report.bin"]
    assert [(found.id, found.state) for found in site.service.list()] == [(upload.id, State.ACCEPTED)]
