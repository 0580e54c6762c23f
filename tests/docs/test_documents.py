"""What README and docs say is executed: code, configuration, commands."""

import configparser
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
import venv
from dataclasses import fields
from pathlib import Path

import docutils.core
import docutils.nodes
import pytest
from paste.deploy import loadapp
from webob import Request

import tus
from tests import conformance_table, options_document
from tests.conftest import HEAVY
from tests.support.documents import application_factory, blocks, handed, moved
from tests.support.serving import ROOT, free_port
from tests.support.subjects import FilterSubject, OnLoop
from tests.support.wsgi import OCTETS, TUS, call
from tus.options import Options

DOCUMENTS = (
    "README.rst",
    "CHANGES.rst",
    "CONTRIBUTING.rst",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.rst")),
)
README = ROOT / "README.rst"


def commands():
    return [line.strip() for line in README.read_text().splitlines() if line.startswith("    python3 -m venv")]


def adjusted(text, directory):
    """A block of the README with its directories in ours."""
    (directory / "arrived").mkdir(exist_ok=True)
    return moved(text, directory).replace("%(here)s", str(directory)).replace("/var/lib/", f"{directory}/")


def upload(app, url, data=b"hello world"):
    """What a client does."""
    headers = TUS | {"Upload-Length": str(len(data)), "Upload-Metadata": "filename aGVsbG8udHh0"}
    url = call(app, "POST", url, headers)["Location"]
    for offset in range(0, len(data), 6):
        reply = call(app, "PATCH", url, TUS | OCTETS | {"Upload-Offset": str(offset)}, data[offset : offset + 6])
        assert reply.status == 204
    assert call(app, "HEAD", url, TUS)["Upload-Offset"] == str(len(data))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_are_valid(name):
    path = ROOT / name
    settings = {"report_level": 2, "halt_level": 2, "input_encoding": "utf-8", "syntax_highlight": "none"}
    docutils.core.publish_doctree(path.read_text(), source_path=str(path), settings_overrides=settings)


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) < 150


def run_block(text, directory):
    """Run a block with its directories in ours, and with nothing else but what it imports; return its names."""
    names = {"__name__": "program"}
    exec(moved(text, directory), names)
    return names


def check_saved(app, url, directory):
    """Upload two files of one name, which both arrive."""
    for content in (b"hello world", b"another one"):
        upload(app, url, content)
    files = {path.name: path.read_bytes() for path in (directory / "arrived").iterdir()}
    assert sorted(files.values()) == [b"another one", b"hello world"]
    assert files["hello.txt"] == b"hello world"


def test_the_view_of_the_readme(tmp_path):
    view = run_block(blocks("python")[1], tmp_path)["upload_view"]
    (tmp_path / "arrived").mkdir()

    def app(environ, start_response):
        return view(Request(environ))(environ, start_response)

    check_saved(app, "/anywhere/uploads", tmp_path)
    assert b"upload form" in call(app, "GET", "/anywhere/uploads").body


@pytest.mark.parametrize(("number", "url"), [(0, "/files"), (1, "/files/")])
def test_the_applications_of_asgi(tmp_path, number, url):
    app = run_block(blocks("python", "docs/asgi.rst")[number], tmp_path)["app"]
    check_saved(OnLoop(app, "asyncio"), url, tmp_path)


def test_the_function_of_saving(tmp_path):
    app = run_block(blocks("python", "docs/saving.rst")[0], tmp_path)["application"]
    reply = create_csv(app, "/upload", b"date,size\n2024,5\n")
    assert reply.status == 204
    assert [path.name for path in (tmp_path / "arrived").iterdir()] == ["anonymous-a.csv"]
    reply = create_csv(app, "/upload", b"size\n5\n")
    assert (reply.status, reply.body) == (422, b"The file has no column named date.\n")


def test_the_function_of_handover(tmp_path):
    take = run_block(blocks("python", "docs/handover.rst")[0], tmp_path)["take"]
    app = tus.Filter(None, upload_path="/upload", tmp_file_dir=str(tmp_path / "upload"), on_finished=take)
    for _ in range(2):
        assert create_csv(app, "/upload", b"a,b\n").status == 204
    assert len(list((tmp_path / "arrived").iterdir())) == 2
    url = call(app, "POST", "/upload", TUS | {"Upload-Length": "1"})["Location"]
    assert call(app, "PATCH", url, TUS | OCTETS | {"Upload-Offset": "0"}, b"x").status == 415


def create_csv(app, path, content):
    headers = TUS | {"Upload-Length": str(len(content)), "Upload-Metadata": "filename YS5jc3Y="}
    url = call(app, "POST", path, headers)["Location"]
    return call(app, "PATCH", url, TUS | OCTETS | {"Upload-Offset": "0"}, content)


def test_no_document_stores_a_file_by_itself():
    """The path of the file, and names that are free, are for ``save_to()``."""
    texts = {name: (ROOT / name).read_text() for name in DOCUMENTS}
    texts |= {path.name: path.read_text() for path in (ROOT / "examples").glob("*.py")}
    for name, text in texts.items():
        assert not re.search(r"shutil|os\.rename|os\.replace|os\.link|\"xb\"", text), name
        assert not re.search(r"open\([^)]*(wsgi\.input|\.body)", text), name


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_document_installs_the_release_of_the_index(name):
    """That is the one of 2014, until 2.0 is published; a checkout is the current directory or a path."""
    text = (ROOT / name).read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for line in re.findall(r"pip\s+install\s+([^`\n]*)", text):
        for package in shlex.split(line.partition("&&")[0].partition("#")[0]):
            assert not re.match(r"tus\b", package), f"{name}: pip install {line}"
            if found := re.search(r"(?:^\.|/tus)\[(.+)\]$", package):
                assert set(found[1].split(",")) <= set(extras), f"{name}: pip install {line}"


def test_no_error_installs_the_release_of_the_index():
    for path in Path(tus.__file__).parent.rglob("*.py"):
        assert not re.search(r"pip install '?tus\b", path.read_text()), path


def test_tuswsgi_is_replaced_as_the_document_says(tmp_path):
    namespace = {"application": application_factory({})}
    exec(adjusted(blocks("python", "docs/moving.rst")[0], tmp_path), namespace)
    upload(namespace["application"], "/api/upload/resumable_upload")
    (path,) = handed
    assert Path(path.decode()).read_bytes() == b"hello world"
    handed.clear()


def test_the_tables_of_conformance_are_what_is_tested():
    text = conformance_table.DOCUMENT.read_text()
    assert conformance_table.rewritten(text) == text, "python -m tests.conformance_table"


def test_the_options_are_described_as_they_are_declared():
    text = options_document.DOCUMENT.read_text()
    assert options_document.made() == text, "python -m tests.options_document"
    headings = re.findall(r"^(.+)\n=+$", text, re.MULTILINE)
    assert len(set(headings)) == len(headings), "the options of a group do not stand together"


def test_the_default_of_an_option_can_be_written_as_documented():
    text = options_document.DOCUMENT.read_text()
    for option in fields(Options):
        (entry,) = re.findall(rf"^``{option.name}``\n((?:(?: {{4}}.*)?\n)+)", text, re.MULTILINE)
        ((literal, none),) = re.findall(r"Default:\s+(?:``(.+?)``|(none))\.", entry)
        if none:
            assert not option.default
        else:
            assert getattr(Options.build(**{"tmp_file_dir": "x", option.name: literal}), option.name) == option.default


def test_every_option_is_documented_and_no_other():
    text = (ROOT / "docs/options.rst").read_text()
    named = set(re.findall(r"^``([a-z_]+)``|, ``([a-z_]+)``$", text, re.MULTILINE))
    named = {name for pair in named for name in pair if name}
    assert named == set(Options.__dataclass_fields__)


def test_the_gate_of_the_options(tmp_path):
    namespace = {}
    exec(blocks("python", "docs/options.rst")[0], namespace)
    subject = FilterSubject(tmp_file_dir=str(tmp_path), authorize=namespace["authorize"])
    assert subject.create(1)["WWW-Authenticate"] == 'Basic realm="uploads"'
    program = {"Upload-Metadata": "filename YS5leGU="}
    assert subject.create(1, program, environ={"REMOTE_USER": "ann"}).status == 403
    url = subject.create(1, environ={"REMOTE_USER": "ann"})["Location"]
    assert subject.send("HEAD", url, environ={"REMOTE_USER": "bob"}).status == 404
    assert subject.send("HEAD", url, environ={"REMOTE_USER": "ann"}).status == 200


def test_the_application_that_is_asked(tmp_path):
    namespace = {"user_of": lambda environ: environ.get("HTTP_X_USER")}
    exec(blocks("python", "docs/options.rst")[1], namespace)
    app = tus.Filter(namespace["application"], upload_path="/f", tmp_file_dir=str(tmp_path), ask_app="create head")
    headers = TUS | {"Upload-Length": "5"}
    refused = call(app, "POST", "/f", headers)
    assert (refused.status, refused.body) == (403, b"Log in to upload.\n")
    url = call(app, "POST", "/f", headers | {"X-User": "ann"})["Location"]
    assert call(app, "HEAD", url, TUS | {"X-User": "ann"}).status == 200
    assert call(app, "HEAD", url, TUS | {"X-User": "bob"}).status == 404


def test_the_example_names_options_that_exist():
    parser = configparser.RawConfigParser()
    parser.read(ROOT / "paste_example.ini")
    assert set(parser["filter:tus"]) - {"use"} <= set(Options.__dataclass_fields__)
    commented = re.findall(r"^# ([a-z_]+) =", (ROOT / "paste_example.ini").read_text(), re.MULTILINE)
    assert set(commented) <= set(Options.__dataclass_fields__)


def test_the_ini_files_of_deploying(tmp_path):
    (tmp_path / "site.ini").write_text(
        "[pipeline:main]\npipeline = tus app\n[app:app]\n"
        "paste.app_factory = tests.support.documents:application_factory\n"
        + "\n".join(blocks("ini", "docs/deploying.rst"))
    )
    app = loadapp(f"config:{tmp_path}/site.ini")
    proxy = {"environ": {"REMOTE_ADDR": "127.0.0.1"}}
    headers = TUS | {"Upload-Length": "1", "X-Forwarded-Host": "example.org", "X-Forwarded-Proto": "https"}
    assert call(app, "POST", "/files", headers, **proxy)["Location"].startswith("https://example.org/files/")
    from waitress.adjustments import Adjustments

    parser = configparser.RawConfigParser()
    parser.read(tmp_path / "site.ini")
    Adjustments(**{name: value for name, value in parser["server:main"].items() if name != "use"})


def test_files_that_the_documents_name_exist():
    for name in DOCUMENTS:
        for path in re.findall(r"``((?:tus|tests|docs|benchmarks)/[\w/.]+)``", (ROOT / name).read_text()):
            assert (ROOT / path).exists(), f"{name} names {path}"
    rooms = re.findall(r"^ +(?:\w+/)?\s*(\w+\.py)\b", (ROOT / "docs/design.rst").read_text(), re.MULTILINE)
    existing = {path.name for path in Path(tus.__file__).parent.rglob("*.py")}
    assert set(rooms) <= existing
    assert len(rooms) > 15


def test_versions_agree():
    assert f"{tus.__version__} (unreleased)" in (ROOT / "CHANGES.rst").read_text()
    assert f'version = "{tus.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_the_command_for_the_tests_is_what_is_run():
    assert len(commands()) == 2
    (extraction,) = re.findall(r"command=\$\((sed .*)\)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    found = subprocess.run(["bash", "-ec", extraction], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == commands()[1]
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_markers_of_heavy_tests_are_written_where_the_tests_are():
    """Only files that name the marker of a job are imported for it."""
    named = re.compile(rf"\bmark\.({'|'.join(HEAVY)})\b")
    for path in (ROOT / "tests").rglob("*.py"):
        assert path.name.startswith("test_") or not named.search(path.read_text()), path


@pytest.mark.long
def test_the_command_of_the_readme_runs_the_server(tmp_path):
    """In a copy of the sources and a new virtual environment, to the letter, but for the port."""
    copy = tmp_path / "tus"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    port = free_port()
    process = subprocess.Popen(
        ["bash", "-ec", f"{commands()[0]} --port {port}"],
        cwd=copy,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        for line in process.stdout:
            if "curl" in line:
                break
        answer = subprocess.run(["bash", "-ec", line], capture_output=True, text=True, timeout=60, check=True)
        assert "201 Created" in answer.stdout
        assert (copy / "uploads" / "hello.txt").read_bytes() == b"hello"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=30)


@pytest.mark.long
def test_the_core_installs_light(tmp_path):
    """WebOb, PasteDeploy and http-sf, and what these need, are all that comes with it."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", ROOT], check=True)
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
    )
    names = {line.partition("==")[0].lower().replace("_", "-") for line in listed.stdout.splitlines()}
    ours = {"tus", "webob", "pastedeploy", "http-sf"}
    assert names - {"pip", "setuptools", "legacy-cgi", "typing-extensions"} == ours
    code = (
        "import tus, tus.cli, tus.compat; from tus import Filter, Tus, WebobAdapter, Zope2RequestAdapter, TusException"
    )
    subprocess.run([python, "-W", "ignore", "-c", code], check=True, cwd=tmp_path)
    assert sys.version_info >= (3, 11)


def test_no_document_suggests_a_directory_that_every_user_can_write():
    """Law: another user could make ``/tmp/upload`` first. The package's own words follow it too."""
    searched = [*DOCUMENTS, "paste_example.ini", "SECURITY.md"]
    for folder, pattern in (("examples", "*"), ("tus", "*.py")):
        searched += [str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob(pattern) if path.is_file()]
    shared = re.compile(r"/(var/)?tmp\b")
    explains = {"CHANGES.rst", "docs/deploying.rst", "docs/design.rst", "docs/security.rst"}  # why not to use it
    for name in filter(lambda name: name not in explains and (ROOT / name).exists(), searched):
        assert not shared.search((ROOT / name).read_text(errors="replace")), name
    assert len(searched) > 150
