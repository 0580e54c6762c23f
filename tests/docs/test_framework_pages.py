"""The pages of the frameworks, followed to the letter: each page's file and commands alone, in an empty directory."""

import base64
import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError

import tus
from tests.support.documents import blocks
from tests.support.projects import Project
from tests.support.serving import ROOT
from tests.support.waiting import wait_until
from tests.support.wsgi import OCTETS, TUS
from tus.models import State

DATA = os.urandom(700_000)
INSTALL, RUN = 0, 1


@dataclass
class Page:
    """A page, and what differs between the frameworks.

    Attributes:
        file: the name of the application's file.
        has_session: whether a user logs in at ``/login``, and then has a cookie.
        checks_host: whether the framework refuses a Host that is not the site's.
        servers: the blocks of console whose last lines start a server.
        adjust: makes another variant of the application, as the page says.
    """

    name: str
    file: str = "app.py"
    has_session: bool = False
    checks_host: bool = True
    servers: tuple[int, ...] = (RUN,)
    adjust: Callable[[str], str] = str

    @property
    def document(self):
        return f"docs/{self.name}.rst"


def with_flask_login(text):
    """Do what the page of Flask says of Flask-Login."""
    before, _, rest = text.partition("def current_owner():")
    rest = rest[rest.index('@app.post("/login")') :].replace('session["user"] = user', "login_user(User(user))")
    return f"{before}{blocks('python', 'docs/flask.rst')[1]}\n\n{rest}"


def under_asgi(text):
    """Do what the page of Django says of ASGI."""
    text = text.replace("from tus import Filter", "from tus.asgi import TusMiddleware")
    text = text.replace("Filter(", "TusMiddleware(")
    text = text.replace("wsgi import get_wsgi", "asgi import get_asgi").replace("get_wsgi_", "get_asgi_")
    return text.replace("request.environ", "request.scope")


PAGES = {
    page.name: page
    for page in (
        Page("django", file="mysite.py", has_session=True),
        Page("flask", has_session=True),
        Page("pyramid", checks_host=False, servers=(1, 2)),
        Page("fastapi"),
        Page("starlette"),
    )
}
SITES = [(page, server) for page in PAGES.values() for server in page.servers]
SITES += [(replace(PAGES["flask"], adjust=with_flask_login), RUN), (replace(PAGES["django"], adjust=under_asgi), RUN)]


def name_of(site):
    page, server = site
    variant = f"-{page.adjust.__name__}" if page.adjust is not str else ""
    return f"{page.name}{variant}-{page.servers.index(server)}"


class Site:
    """The project of a page while a server runs."""

    def __init__(self, page, project, command):
        self.page, self.project, self.command = page, project, command
        self.arrived, self.unfinished = project.directory / "arrived", project.directory / "unfinished"

    @contextlib.contextmanager
    def serve(self):
        """Run the server of the page until the application has been imported, not only until the port is open."""
        with self.project.serve(self.command) as served:
            served.send("GET", "/nothing")
            yield served

    def client_commands(self):
        return self.project.commands(self.page.servers[-1] + 1)

    def handover_command(self):
        (line,) = self.project.commands(self.page.servers[-1] + 2)
        return line

    def contents(self):
        return sorted(path.read_bytes() for path in self.arrived.iterdir())

    def kept(self):
        """Return the sizes of all files but those with which the threads share their work."""
        files = [path for path in self.unfinished.iterdir() if not path.name.startswith(".tus-")]
        return {path.name: path.stat().st_size for path in files}


def log_in(site, served, user, password):
    """Return the header fields of a logged-in user, got as a browser gets them."""
    if not site.page.has_session:
        return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}
    jar = site.project.directory / f"cookies-{user}"
    for line in site.client_commands():
        if "/login" in line:
            line = line.replace("cookies", jar.name).replace("username=ann", f"username={user}")
            site.project.run(line.replace("password=secret", f"password={password}"), port=served.port)
    found = re.findall(r"^(?:#HttpOnly_)?127\.0\.0\.1\t.*\t(\w+)\t(\S+)$", jar.read_text(), re.MULTILINE)
    return {"Cookie": "; ".join(f"{name}={value}" for name, value in found)}


def client_of(served, headers):
    return TusClient(f"http://127.0.0.1:{served.port}/files", headers=headers)


def uploader_of(client, data=DATA, **others):
    metadata = {"filename": "a.bin"}
    return client.uploader(file_stream=io.BytesIO(data), chunk_size=300_000, metadata=metadata, retries=0, **others)


@pytest.fixture(scope="module", params=SITES, ids=name_of)
def made(request, tmp_path_factory):
    """A site that no server has run in."""
    page, server = request.param
    return make(page, Project(tmp_path_factory.mktemp("made"), page.document), server)


def copy_of(made, directory):
    project = Project(directory, made.page.document)
    shutil.copytree(made.project.directory, project.directory)
    project.environ = made.project.environ
    return Site(made.page, project, made.command)


@pytest.fixture
def site(made, tmp_path):
    """A copy of one."""
    return copy_of(made, tmp_path / "site")


@pytest.fixture(scope="module")
def _running(made, tmp_path_factory):
    site = copy_of(made, tmp_path_factory.mktemp("running") / "site")
    with site.serve() as served:
        yield site, served


@pytest.fixture
def running(_running):
    """A site in which no file has arrived, and its server, for tests that need them as they are."""
    site, served = _running
    yield site, served
    for path in site.arrived.iterdir():
        path.unlink()


def make(page, project, server, installs=False):
    """Follow the page up to the command that starts the server."""
    project.write(page.file, 0)
    file = project.directory / page.file
    file.write_text(page.adjust(file.read_text()))
    *before, command = project.commands(server)
    for line in [*project.commands(INSTALL), *before]:
        project.run(line, installs)
        if "createsuperuser" in line:
            project.run(line.replace("ann", "ben"))
    if page.adjust is under_asgi:
        command = "$ uvicorn --no-proxy-headers --port 8000 mysite:application"
    return Site(page, project, command)


def second_user(site):
    return ("ben", "secret" if site.page.name == "django" else "hidden")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", directory, ROOT], check=True)
    (file,) = directory.iterdir()
    return file


@pytest.mark.long
@pytest.mark.parametrize("name", PAGES)
def test_the_packages_of_the_page_are_enough(name, tmp_path, wheel):
    """In a new virtual environment, with what the page installs and nothing else."""
    venv.create(tmp_path / "venv", with_pip=True)
    (tmp_path / "empty").mkdir()
    page = PAGES[name]
    project = Project(tmp_path / "empty", page.document, str(tmp_path / "venv" / "bin"))
    project.package = wheel
    site = make(page, project, RUN, installs=True)
    with site.serve() as served:
        for line in site.client_commands():
            project.run(line, port=served.port)
    assert {path.name: path.read_bytes() for path in site.arrived.iterdir()} == {"hello.txt": b"hello\n"}


@pytest.mark.parametrize("name", PAGES)
def test_every_block_is_run(name):
    page = PAGES[name]
    assert len(blocks("python", page.document)) == (2 if name == "flask" else 1)
    assert len(blocks("console", page.document)) == 3 + len(page.servers)  # install, servers, upload, handover


def test_the_commands_of_the_page(running):
    """Those that upload a file by curl."""
    site, served = running
    for line in site.client_commands():
        site.project.run(line, port=served.port)
    assert {path.name: path.read_bytes() for path in site.arrived.iterdir()} == {"hello.txt": b"hello\n"}


def test_files_of_a_user_arrive(site):
    """Two files of one name; then one that the view cannot save, which its client offers again; then a handover."""
    with site.serve() as served:
        client = client_of(served, log_in(site, served, "ann", "secret"))
        uploader_of(client).upload()
        assert {path.name: path.read_bytes() for path in site.arrived.iterdir()} == {"a.bin": DATA}
        uploader_of(client, DATA[1:]).upload()
        assert site.contents() == sorted([DATA, DATA[1:]])
        assert (site.arrived / "a.bin").read_bytes() == DATA

        site.arrived.rename(site.project.directory / "away")
        third, fourth = uploader_of(client, DATA[2:]), uploader_of(client, DATA[3:])
        for failing in (third, fourth):
            with pytest.raises(TusCommunicationError) as failure:
                failing.upload()
            assert failure.value.status_code == 500
        (site.project.directory / "away").rename(site.arrived)
        uploader_of(client, DATA[2:], url=third.url).upload()
        wait_until(lambda: DATA[2:] in site.contents())
    site.project.run(site.handover_command())  # nothing is left, if the server has offered the fourth one itself
    assert site.contents() == sorted([DATA, DATA[1:], DATA[2:], DATA[3:]])
    assert not [name for name in site.kept() if re.fullmatch("[0-9a-f]{32}", name)], "every file was accepted"


def test_a_file_is_offered_without_its_client(site):
    """The process that received it has ended, and the command of the page has neither a cookie nor a password."""
    with site.serve() as served:
        client = client_of(served, log_in(site, served, "ann", "secret"))
        site.arrived.rmdir()
        with pytest.raises(TusCommunicationError):
            uploader_of(client).upload()
        site.arrived.write_bytes(b"")  # still no directory, so that the server cannot accept it either
    site.arrived.unlink()
    site.arrived.mkdir()
    printed = site.project.run(site.handover_command())
    assert printed.endswith("1 accepted\n")
    assert site.contents() == [DATA]


def test_the_rejection_of_the_page(site):
    """Its statement in the place of save_to(); the exception is a rejection where the page says so, and only there."""
    document = (ROOT / site.page.document).read_text()
    (statement,) = re.findall(r"^    ((?:return|raise) .*422.*)$", document, re.MULTILINE)
    catches = site.page.name in ("django", "flask")
    assert statement.startswith("return" if catches else "raise")
    file = site.project.directory / site.page.file
    text = file.read_text()
    for take, status in ((statement, 422), ('raise tus.Rejected("No such files.", 422)', 500 if catches else 422)):
        file.write_text("import tus\n" + re.sub(r"upload\.save_to\(.*", take, text))
        with site.serve() as served:
            ann = log_in(site, served, "ann", "secret")
            url = served.create("/files", 5, ann)
            assert served.send("PATCH", url, OCTETS | {"Upload-Offset": "0"} | ann, b"hello")[0] == status
        state = tus.open_store(str(site.unfinished)).load(url.rpartition("/")[2]).state
        assert state == (State.REJECTED if status == 422 else State.COMPLETE)
    assert site.contents() == []


def test_an_ietf_upload_arrives(running):
    site, served = running
    fields = log_in(site, served, "ann", "secret") | {
        "Upload-Draft-Interop-Version": "8",
        "Upload-Complete": "?0",
        "Content-Type": "text/plain",
        "Content-Disposition": 'attachment; filename="b.txt"',
    }
    status, headers = served.send("POST", "/files", fields, protocol={})
    assert status == 201
    more = fields | {"Upload-Complete": "?1", "Upload-Offset": "0", "Content-Type": "application/partial-upload"}
    status, _ = served.send("PATCH", headers["Location"], more, DATA, protocol={})
    assert status == 204
    assert {path.name: path.read_bytes() for path in site.arrived.iterdir()} == {"b.txt": DATA}


def test_an_anonymous_client_leaves_nothing(running):
    site, served = running
    uploader_of(client_of(served, log_in(site, served, "ann", "secret"))).upload()  # makes all files of the store
    before = site.kept()
    body = os.urandom(5_000_000)
    fields_of_tus = TUS | OCTETS | {"Upload-Length": str(len(body))}
    draft = {"Upload-Draft-Interop-Version": "8", "Upload-Complete": "?1"}
    for fields in (fields_of_tus, draft, fields_of_tus | {"Authorization": "Basic eDp5", "Cookie": "session=x"}):
        assert served.send("POST", "/files", fields, body, protocol={})[0] == 401
    assert site.kept() == before
    assert site.contents() == [DATA]


def test_an_upload_exists_for_its_owner_only(running):
    site, served = running
    ann, ben = (log_in(site, served, *user) for user in (("ann", "secret"), second_user(site)))
    url = served.create("/files", 10, ann)
    for others, status in ((ben, 404), ({}, 401)):
        append = OCTETS | {"Upload-Offset": "0"} | others
        assert served.send("PATCH", url, append, b"evil")[0] == status
        assert served.send("HEAD", url, others)[0] == status
        assert served.send("DELETE", url, others)[0] == status
    assert served.send("PATCH", url, OCTETS | {"Upload-Offset": "0"} | ann, b"0123456789")[0] == 204
    for method in ("HEAD", "DELETE"):
        assert served.send(method, url, ben)[0] == 404
    assert site.contents() == [b"0123456789"]


def test_a_host_of_another_site_is_refused(running):
    site, served = running
    ann = log_in(site, served, "ann", "secret")
    foreign = ann | {"Host": "evil.example"}
    if not site.page.checks_host:  # as the page says
        assert served.send("POST", "/files", foreign | {"Upload-Length": "5"})[0] == 201
        return
    assert served.send("POST", "/files", foreign | {"Upload-Length": "5"})[0] == 400
    url = served.create("/files", 5, ann)
    before = site.kept()
    assert served.send("PATCH", url, OCTETS | {"Upload-Offset": "0"} | foreign, b"hello")[0] == 400
    assert site.kept() == before
    assert served.send("PATCH", url, OCTETS | {"Upload-Offset": "0"} | ann, b"hello")[0] == 204
    assert site.contents() == [b"hello"]


def test_a_request_that_is_no_upload(running):
    """The view responds, also to a form that a page of another origin can send."""
    site, served = running
    ann = log_in(site, served, "ann", "secret")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert served.send("POST", "/files", form | ann, b"a=b", protocol={})[0] == 404
    forged = form | {"Tus-Principal": "ben", "Tus-Upload": "x", "Tus-Intent": "create"}
    for fields in (form, forged):
        assert served.send("POST", "/files", fields, b"a=b", protocol={})[0] == 401
    assert site.contents() == []
