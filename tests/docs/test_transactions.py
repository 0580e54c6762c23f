"""docs/transactions.rst: each project, made in an empty directory by the page's own commands, and what it accepts."""

import contextlib
import io
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError

from tests.support import projects
from tests.support.documents import blocks

PAGE = "docs/transactions.rst"
DATA = os.urandom(700_000)
SETTINGS, MODELS, VIEWS, URLS, PYRAMID, FLASK = range(6)


class Project(projects.Project):
    """A project of the page.

    Attributes:
        rows: where its rows are: the database's file, and the table.
        arrived: the directory of its files.
    """

    def __init__(self, directory: Path, rows: tuple[str, str], arrived: str) -> None:
        super().__init__(directory, PAGE)
        self._rows, self.arrived = rows, directory / arrived

    def execute(self, statement):
        with contextlib.closing(sqlite3.connect(self.directory / self._rows[0], timeout=60)) as connection:
            found = connection.execute(statement.format(self._rows[1])).fetchall()
            connection.commit()
        return found

    @contextlib.contextmanager
    def no_commits(self):
        """Read in a transaction: SQLite inserts rows meanwhile, and then fails to commit them."""
        with contextlib.closing(sqlite3.connect(self.directory / self._rows[0], isolation_level=None)) as reader:
            reader.execute("begin")
            reader.execute(f"select * from {self._rows[1]}").fetchall()
            yield

    def rows(self):
        return self.execute("select key, name from {}")


def django_project(directory):
    project = Project(directory, ("db.sqlite3", "documents_document"), "media")
    for command in project.commands(0):
        project.run(command)
    project.write("mysite/settings.py", SETTINGS, "a")
    project.write("documents/models.py", MODELS)
    project.write("documents/views.py", VIEWS)
    project.write("mysite/urls.py", URLS)
    *before, last = project.commands(1)
    for command in before:
        project.run(command)
    return project, last


def pyramid_project(directory):
    project = Project(directory, ("site.sqlite3", "documents"), "arrived")
    project.write("app.py", PYRAMID)
    project.run(project.commands(2)[0])
    return project, project.commands(2)[1]


def flask_project(directory):
    project = Project(directory, ("site.sqlite3", "documents"), "arrived")
    project.write("app.py", FLASK)
    project.run(project.commands(3)[0])
    return project, project.commands(3)[1]


@pytest.fixture(params=[django_project, pyramid_project, flask_project], ids=lambda make: make.__name__)
def made(request, tmp_path):
    directory = tmp_path / "empty"
    directory.mkdir()
    return request.param(directory)


def test_every_block_is_run():
    assert (len(blocks("python", PAGE)), len(blocks("console", PAGE))) == (6, 4)


def test_a_project_receives_files(made):
    """Two files of one name; then one whose row cannot be committed; then the same by another process."""
    project, command = made
    with project.serve(command) as served:
        client = TusClient(f"http://127.0.0.1:{served.port}/files")

        def uploader(stream):
            return client.uploader(file_stream=stream, chunk_size=300_000, metadata={"filename": "a.bin"}, retries=0)

        for _ in range(2):
            uploader(io.BytesIO(DATA)).upload()
        assert [name for _, name in project.rows()] == ["a.bin"] * 2
        assert {path.name for path in project.arrived.iterdir()} == {key for key, _ in project.rows()}

        failing = uploader(io.BytesIO(DATA))
        with project.no_commits(), pytest.raises(TusCommunicationError) as failure:
            failing.upload()
        assert failure.value.status_code == 500
        assert served.offset(failing.url) < len(DATA), "the client does not take this for success"
    assert len(project.rows()) == 2  # now, because SQLAlchemy keeps the lock after a commit that SQLite has refused
    with project.serve(command) as served:  # another process
        url = failing.url.replace(failing.url.split("/")[2], f"127.0.0.1:{served.port}")
        resumed = TusClient(f"http://127.0.0.1:{served.port}/files").uploader(file_stream=io.BytesIO(DATA), url=url)
        resumed.upload()
        assert served.offset(url) == len(DATA)
    assert [name for _, name in project.rows()] == ["a.bin"] * 3
    assert sorted(path.name for path in project.arrived.iterdir()) == sorted(key for key, _ in project.rows())
    assert all(path.read_bytes() == DATA for path in project.arrived.iterdir())
    assert list((project.directory / "unfinished").glob("[0-9a-f]" * 32)) == [], "every file was accepted"


def test_a_file_whose_row_exists(made):
    """The process crashed after the commit, before the file was accepted: the row stays as it is."""
    project, command = made
    with project.serve(command) as served:
        url = served.create("/files", 5)
        served.patch(url, 0, b"hell")
        key = _key_of(project, url)
        columns = "key, name, size" if "media" in str(project.arrived) else "key, name"
        values = f"'{key}', 'earlier'" + (", 5" if "size" in columns else "")
        project.execute(f"insert into {{}} ({columns}) values ({values})")
        assert served.patch(url, 4, b"o") == 204
        assert served.offset(url) == 5
    assert project.rows() == [(key, "earlier")]


def _key_of(project, url):
    script = f"import tus; print(tus.open_store('unfinished').load({url.rpartition('/')[2]!r}).key)"
    return subprocess.check_output([sys.executable, "-c", script], cwd=project.directory, text=True).strip()
