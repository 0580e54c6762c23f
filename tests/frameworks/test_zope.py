"""Real Zope: the adapter on its requests, the view in its publisher, and both behind real servers."""

import base64
import contextlib
import http.client
import io
import os
import socket
import subprocess
import sys
import tempfile
import warnings
from contextlib import closing

import pytest
from tusclient.client import TusClient

from tests.support import zope_site
from tests.support.documents import blocks
from tests.support.ietf import PARTIAL, Client, digest
from tests.support.serving import ROOT, free_port, wait_for_port
from tests.support.wsgi import OCTETS, TUS, call
from tus import Tus, Zope2RequestAdapter, errors
from tus.models import State, Upload
from tus.stores.directory.store import DirectoryStore

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]


def basic(user):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:secret".encode()).decode()}


ANN, BOB, EVE = basic("ann"), basic("bob"), basic("eve")


def metadata(**fields):
    return {
        "Upload-Metadata": ",".join(
            f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in fields.items()
        )
    }


class NotSeekable(io.RawIOBase):
    """An input as gunicorn has it."""

    def __init__(self, data):
        self._data = io.BytesIO(data)

    def read(self, size=-1):
        return self._data.read(size)

    def readline(self, size=-1):
        return self._data.readline(size)


class _Plain:
    """An input without ``seek``, which ``io`` classes all have."""

    def __init__(self, data):
        self.read, self.readline = NotSeekable(data).read, NotSeekable(data).readline


class Site:
    """The publisher of this process."""

    def __init__(self, seekable=True):
        self.app, self.directory = zope_site.site()
        self.store = DirectoryStore(str(self.directory / "uploads"))
        self.seekable = seekable

    def send(self, method, url, headers=(), body=b"", user=ANN):
        source = io.BytesIO(body) if self.seekable else _Plain(body)
        environ = {"wsgi.input": source}
        return call(self.app, method, url, TUS | user | dict(headers), body, environ=environ, validate=False)

    def create(self, base, length, headers=(), body=b"", user=ANN):
        typed = OCTETS if body else {}
        return self.send("POST", base, {"Upload-Length": str(length)} | typed | dict(headers), body, user)

    def patch(self, url, offset, body=b"", headers=(), user=ANN):
        return self.send("PATCH", url, OCTETS | {"Upload-Offset": str(offset)} | dict(headers), body, user)


@pytest.fixture(params=[True, False], ids=["seekable", "not-seekable"])
def site(request):
    return Site(request.param)


BASES = ["/f/tus", "/f/@@tus", "/tus", "/@@tus", "/f/tus/"]


def named(name):
    return metadata(filename=name)


@pytest.mark.parametrize("base", BASES)
def test_every_method_on_a_folder_and_on_the_root(site, base, request):
    name = f"{abs(hash(request.node.name))}.txt"
    reply = site.send("OPTIONS", base)
    assert (reply.status, reply["Tus-Version"]) == (200, "1.0.0")
    assert "concatenation" in reply["Tus-Extension"]
    created = site.create(base, 10, named(name))
    assert created.status == 201
    url = created["Location"]
    assert url.startswith("http://localhost" + base.rstrip("/") + "/")
    head = site.send("HEAD", url)
    assert (head.status, head["Upload-Offset"], head["Upload-Length"], head.body) == (200, "0", "10", b"")
    reply = site.patch(url, 0, b"01234")
    assert (reply.status, reply["Upload-Offset"], reply.body) == (204, "5", b"")
    assert site.send("OPTIONS", url)["Tus-Resumable"] == "1.0.0"
    reply = site.patch(url, 5, b"56789")
    assert (reply.status, reply["Upload-Offset"], reply.body) == (204, "10", b"")
    where = "f" if base.startswith("/f") else "/"
    assert reply["Location"].endswith(name)
    assert zope_site.contents(where)[name] == b"0123456789"
    assert site.send("HEAD", url)["Upload-Offset"] == "10"
    got = site.send("GET", url)
    assert (got.status, got.body, got["Content-Length"]) == (200, b"0123456789", "10")
    assert site.send("GET", url, {"Range": "bytes=2-3"}).body == b"23"
    other = site.create(base, 3)["Location"]
    assert site.send("DELETE", other).status == 204
    assert site.send("HEAD", other).status == 404


def test_a_creation_with_all_its_bytes(site, request):
    name = f"{abs(hash(request.node.name))}"
    reply = site.create("/f/tus", 3, named(name), b"abc")
    assert (reply.status, reply["Upload-Offset"]) == (201, "3")
    assert "/f/tus/" in reply["Location"]
    assert zope_site.contents()[name] == b"abc"
    assert site.create("/f/tus", 0, named(name + "0")).status == 201
    assert zope_site.contents()[name + "0"] == b""


def test_errors_as_zope_would_not_say_them(site):
    url = site.create("/f/tus", 10)["Location"]
    wrong = base64.b64encode(b"x" * 20).decode()
    for reply, status in (
        (site.patch(url, 3, b"x"), 409),
        (site.patch(url, 0, b"x" * 11), 413),
        (site.patch(url, 0, b"abc", {"Upload-Checksum": f"sha1 {wrong}"}), 460),
        (site.patch(url, 0, b"abc", {"Content-Type": "text/plain"}), 415),
        (site.patch(url, 0, b"abc", {"Tus-Resumable": "0.2"}), 412),
        (site.send("PATCH", "/f/tus/" + "0" * 32, OCTETS | {"Upload-Offset": "0"}, b"a"), 404),
        (site.send("POST", "/f/tus", {"Upload-Length": "x"}), 400),
    ):
        assert reply.status == status
        assert reply["Tus-Resumable"] == "1.0.0"
        assert b"Traceback" not in reply.body
        assert reply["Content-Length"] == str(len(reply.body))
    reply = site.send("HEAD", "/f/tus/" + "0" * 32)
    assert (reply.status, reply.body) == (404, b"")
    assert site.send("HEAD", url)["Upload-Offset"] == "0"


def test_urls_as_the_virtual_host_monster_has_them(site, request):
    base = "/VirtualHostBase/https/example.org:443/f/VirtualHostRoot/_vh_a/_vh_b/tus"
    reply = site.create(base, 3)
    assert reply["Location"].startswith("https://example.org/a/b/tus/")
    inner = base + "/" + reply["Location"].rpartition("/")[2]
    assert site.send("HEAD", inner)["Upload-Offset"] == "0"
    assert site.patch(inner, 0, b"abc", named("ignored")).status == 204
    root = "/VirtualHostBase/http/example.org:8080/VirtualHostRoot/tus"
    reply = site.create(root, 3)
    assert reply["Location"].startswith("http://example.org:8080/tus/")
    assert site.send("HEAD", root + "/" + reply["Location"].rpartition("/")[2]).status == 200


def test_the_permission_is_asked_for_on_every_request(site):
    url = site.create("/f/tus", 4)["Location"]
    for user, status in (({}, 401), (EVE, 403)):
        for reply in (
            site.create("/f/tus", 4, user=user),
            site.send("HEAD", url, user=user),
            site.patch(url, 0, b"ab", user=user),
            site.send("DELETE", url, user=user),
            site.send("GET", url, user=user),
        ):
            assert reply.status == status
            assert (reply.get("WWW-Authenticate") is None) == (status == 403)
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "PATCH"}
    assert site.send("OPTIONS", "/f/tus", preflight, user={}).status == 200
    assert site.send("HEAD", url)["Upload-Offset"] == "0"


def test_an_upload_is_its_users(site):
    url = site.create("/f/tus", 4)["Location"]
    assert site.send("HEAD", url, user=BOB).status == 404
    assert site.patch(url, 0, b"abcd", user=BOB).status == 404
    assert site.patch(url, 0, b"abcd").status == 204


def test_what_is_no_upload_is_not_found(site):
    for path in ("/f/tus/x", "/f/tus/" + "0" * 32 + "/x", "/f/tus/../x/y"):
        assert site.send("GET", path).status == 404
    assert site.send("GET", "/f/tus").status == 404


def test_a_receiver_that_raises_has_not_accepted(site, request):
    name = f"{abs(hash(request.node.name))}"
    url = site.create("/f/tus", 3, metadata(filename=name, do="raise"))["Location"]
    upload_id = url.rpartition("/")[2]
    with pytest.raises(RuntimeError, match="does not want it"):  # Zope leaves it to the server
        site.patch(url, 0, b"abc")
    with pytest.raises(RuntimeError, match="does not want it"):
        site.patch(url, 3)
    assert zope_site.attempts[upload_id] == 2
    assert (site.directory / "uploads" / upload_id).read_bytes() == b"abc"
    assert site.store.load(upload_id).state == State.COMPLETE
    assert name not in zope_site.contents()


def test_a_transaction_that_is_aborted_has_not_accepted(site, request):
    name = f"{abs(hash(request.node.name))}"
    url = site.create("/f/tus", 3, metadata(filename=name, do="abort"))["Location"]
    site.patch(url, 0, b"abc")
    assert name not in zope_site.contents()
    assert (site.directory / "uploads" / url.rpartition("/")[2]).read_bytes() == b"abc"
    assert site.store.load(url.rpartition("/")[2]).state == State.COMPLETE
    site.store.claim(site.store.load(url.rpartition("/")[2])).release()  # nobody holds it


@pytest.mark.parametrize("do", ["conflict", "conflict at commit", "conflict for real"])
@pytest.mark.parametrize("how", ["PATCH", "POST", "final"])
def test_a_request_that_zope_runs_again(site, request, do, how):
    name = f"{abs(hash(request.node.name))}"
    told = metadata(filename=name, do=do)
    before = {path.name for path in (site.directory / "uploads").glob("*.tus")}
    if how == "PATCH":
        url = site.create("/f/tus", 6, told)["Location"]
        assert site.patch(url, 0, b"abc").status == 204
        reply = site.patch(url, 3, b"def")
        assert (reply.status, reply["Upload-Offset"]) == (204, "6")
    elif how == "POST":
        reply = site.create("/f/tus", 6, told, b"abcdef")
        assert (reply.status, reply["Upload-Offset"]) == (201, "6")
        url = reply["Location"]
    else:
        parts = [site.create("/f/tus", 3, {"Upload-Concat": "partial"}, data)["Location"] for data in (b"abc", b"def")]
        reply = site.send("POST", "/f/tus", told | {"Upload-Concat": "final;" + " ".join(parts)})
        assert reply.status == 201
        url = reply["Location"]
    upload_id = url.rpartition("/")[2]
    assert zope_site.attempts[upload_id] == (3 if do == "conflict at commit" else 2)
    assert os.path.samefile(zope_site.blob_of(upload_id), site.directory / "uploads" / upload_id), "by a hard link"
    assert [data for key, data in zope_site.contents().items() if key == name] == [b"abcdef"]
    after = {path.name for path in (site.directory / "uploads").glob("*.tus")}
    assert len(after - before) == (3 if how == "final" else 1)
    assert site.store.load(upload_id).state == State.ACCEPTED
    assert (site.directory / "uploads" / upload_id).read_bytes() == b"abcdef"  # keep_finished
    assert not list((site.directory / "uploads").glob(".tus-handover-*"))


@pytest.mark.parametrize("do", ["", "conflict", "conflict at commit", "conflict for real"])
@pytest.mark.parametrize("how", ["PATCH", "POST"])
@pytest.mark.parametrize("version", [3, 6, 9, 10, None])
def test_a_request_of_the_ietf_protocol_that_zope_runs_again(site, request, do, how, version):
    name = f"{abs(hash(request.node.name))}"
    told = metadata(filename=name, do=do) if do else metadata(filename=name)

    def send(method, url, complete, headers, body):
        source = io.BytesIO(body) if site.seekable else _Plain(body)
        fields = (
            {"Content-Type": "image/png"} | Client(None, version).spoken | Client(None, version).mark(complete) | ANN
        )
        return call(site.app, method, url, fields | headers, body, environ={"wsgi.input": source}, validate=False)

    before = {path.name for path in (site.directory / "uploads").glob("*.tus")}
    if how == "PATCH":
        url = send("POST", "/f/tus", False, told, b"abc")["Location"]
        headers = {"Content-Type": PARTIAL, "Upload-Offset": "3", "Content-Digest": digest(b"def")}
        reply = send("PATCH", url, True, headers, b"def")
    else:
        reply = send("POST", "/f/tus", True, told | {"Content-Digest": digest(b"abcdef")}, b"abcdef")
        url = reply["Location"]
    assert (reply.status, Client(None, version).told(reply), reply["Upload-Offset"]) == (204, True, "6")
    upload_id = url.rpartition("/")[2]
    assert zope_site.attempts[upload_id] == {"": 1, "conflict at commit": 3}.get(do, 2)
    assert [data for key, data in zope_site.contents().items() if key == name] == [b"abcdef"]
    assert len({path.name for path in (site.directory / "uploads").glob("*.tus")} - before) == 1
    assert site.store.load(upload_id).state == State.ACCEPTED
    assert Client(None, version).told(send("HEAD", url, None, {}, b"")) is True


@pytest.fixture(params=["one device", "across devices"])
def blobs(request, tmp_path):
    """A database with blobs, and whether they are on the device of the uploads."""
    elsewhere = "/dev/shm"
    if request.param == "across devices" and (
        sys.platform != "linux" or os.stat(elsewhere).st_dev == os.stat(tmp_path).st_dev
    ):
        pytest.skip("there is no other device")
    from ZODB import DB
    from ZODB.FileStorage import FileStorage

    with tempfile.TemporaryDirectory(dir=tmp_path if request.param == "one device" else elsewhere) as directory:
        database = DB(FileStorage(str(tmp_path / "Data.fs"), blob_dir=directory))
        yield database, os.stat(directory).st_dev == os.stat(tmp_path).st_dev
        database.close()


@pytest.mark.parametrize("end", ["commit", "abort", "conflict"])
def test_a_file_becomes_a_blob(blobs, tmp_path, end):
    import transaction
    from transaction import TransactionManager
    from ZODB.blob import Blob
    from ZODB.POSException import ConflictError

    database, is_one_device = blobs
    uploads = tmp_path / "uploads"
    path = created(uploads, 3)
    request = made("PATCH", path, OCTETS | {"Upload-Offset": "0"}, b"abc")
    tus, _, _ = handled(request, uploads, send_file=True)
    original = os.stat(tus.get_filepath())
    root = database.open().root()
    root["file"] = blob = Blob()
    blob.consumeFile(request._file.name)
    tus.cleanup_file()
    assert os.path.exists(tus.get_filepath()), "until the commit"
    if end == "conflict":
        manager = TransactionManager()
        other = database.open(manager)
        other.root()["file"] = "of somebody else"
        manager.commit()
        with pytest.raises(ConflictError):
            transaction.commit()
    if end == "commit":
        transaction.commit()
        with blob.open() as file:
            assert file.read() == b"abc"
        assert (os.stat(blob.committed()).st_ino == original.st_ino) == is_one_device
        assert not os.path.exists(tus.get_filepath())
    else:
        transaction.abort()
        assert os.stat(tus.get_filepath()).st_ino == original.st_ino
        assert (uploads / tus.upload.id).read_bytes() == b"abc"
    state = DirectoryStore(str(uploads)).load(tus.upload.id).state
    assert state == (State.ACCEPTED if end == "commit" else State.COMPLETE)
    assert not list(uploads.glob(".tus-handover-*"))


# -- The adapter by itself, as a view of a site's own uses it --


def made(method, path, headers=(), body=b"", **environ):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ZPublisher.HTTPRequest import WSGIRequest
        from ZPublisher.HTTPResponse import WSGIResponse
    full = {
        "REQUEST_METHOD": method, "SERVER_NAME": "localhost", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1",
        "SCRIPT_NAME": "", "PATH_INFO": path, "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(body),
        "CONTENT_LENGTH": str(len(body)), "REMOTE_ADDR": "192.0.2.1",
    } | environ  # fmt: skip
    for name, value in (TUS | dict(headers)).items():
        key = name.upper().replace("-", "_")
        full[key if key.startswith("CONTENT_") else "HTTP_" + key] = value
    request = WSGIRequest(full["wsgi.input"], full, WSGIResponse(stdout=io.BytesIO(), stderr=io.BytesIO()))
    request.processInputs()
    request["URL"] = request.URL = "http://localhost" + path
    return request


@pytest.fixture(autouse=True)
def _no_transaction_is_left():
    yield
    import transaction

    transaction.abort()


def handled(request, tmp_path, **options):
    tus = Tus(Zope2RequestAdapter(request), tmp_file_dir=str(tmp_path), **options)
    assert tus.valid
    tus.handle()
    status, headers = request.response.finalize()
    return tus, int(status.split()[0]), {name.lower(): value for name, value in headers}


def created(tmp_path, length, **fields):
    request = made("POST", "/view", {"Upload-Length": str(length)} | (metadata(**fields) if fields else {}))
    _, status, headers = handled(request, tmp_path)
    assert status == 201
    return "/view/" + headers["location"].rpartition("/")[2]


@pytest.mark.parametrize("send_file", [True, False])
def test_a_view_finds_the_file_on_the_request(tmp_path, send_file):
    import transaction

    path = created(tmp_path, 3, filename="grün.txt")
    request = made("PATCH", path, OCTETS | {"Upload-Offset": "0"}, b"abc")
    tus = Tus(Zope2RequestAdapter(request), tmp_file_dir=str(tmp_path), send_file=send_file)
    tus.handle()
    assert tus.upload_finished
    assert request.response.getStatus() == 503, "what the client hears of a view that never says what it did"
    assert request.getHeader("FILENAME") == "grün.txt"
    data = tmp_path / path.rpartition("/")[2]
    if send_file:
        assert type(request._file) is io.BufferedReader
        request._file.filename = "plone.namedfile sets this"
        assert request._file.read() == b"abc"
    else:
        with open(request._file.read(), "rb") as file:
            assert file.read() == b"abc"
    tus.cleanup_file()
    assert request.response.getHeader("Upload-Offset") == "3"
    request.response.setBody('{"the view": "has words of its own"}')
    assert request.response.finalize()[0] == "200 OK"
    assert data.exists(), "the transaction decides"
    transaction.commit()
    assert not data.exists()


def test_an_abort_keeps_the_file_and_lets_it_go(tmp_path):
    import transaction

    path = created(tmp_path, 3)
    request = made("PATCH", path, OCTETS | {"Upload-Offset": "0"}, b"abc")
    tus, _, _ = handled(request, tmp_path)
    tus.cleanup_file()
    transaction.abort()
    again, _, _ = handled(made("PATCH", path, OCTETS | {"Upload-Offset": "3"}), tmp_path)
    assert again.upload_finished
    transaction.commit()  # which the view did not ask for by cleanup_file()
    third, _, _ = handled(made("PATCH", path, OCTETS | {"Upload-Offset": "3"}), tmp_path)
    assert third.upload_finished
    assert third.get_filepath() == str(tmp_path / path.rpartition("/")[2])
    third.cleanup_file()
    transaction.commit()
    assert not (tmp_path / path.rpartition("/")[2]).exists()


def test_an_ordinary_form_at_the_same_url_is_not_ours(tmp_path):
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc\r\n--x--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Tus-Resumable": ""}
    request = made("POST", "/view", headers, body)
    del request.environ["HTTP_TUS_RESUMABLE"]
    tus = Tus(Zope2RequestAdapter(request), tmp_file_dir=str(tmp_path))
    assert not tus.valid
    assert request.form["file"].read() == b"abc"


def test_bodies_without_a_type_are_refused_and_not_read_as_forms(tmp_path):
    path = created(tmp_path, 3)
    request = made("PATCH", path, {"Upload-Offset": "0"}, b"abc")
    _, status, _ = handled(request, tmp_path)
    assert status == 415


def test_a_read_is_bounded_where_the_server_has_no_end(tmp_path):
    path = created(tmp_path, 10)

    class Endless:
        def read(self, size=-1):
            assert 0 <= size <= 3, "this would wait for ever"
            return b"x" * size

        def readline(self, size=-1):
            raise AssertionError

    request = made("PATCH", path, OCTETS | {"Upload-Offset": "0"}, b"abc", **{"wsgi.input": Endless()})
    _, status, headers = handled(request, tmp_path)
    assert (status, headers["upload-offset"]) == (204, "3")


ERRORS = [
    error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, errors.RequestError)
]


@pytest.mark.parametrize("method", ["PATCH", "HEAD"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: f"{error.status}-{error.__name__}")
def test_every_status_reaches_the_client(tmp_path, error, method):
    from tus.protocols.tus1 import replies as tus1_replies

    try:
        refusal = error()
    except TypeError:
        refusal = error(7) if error is errors.OffsetMismatch else error("words")
    request = made(method, "/view/" + "0" * 32)
    Zope2RequestAdapter(request).respond(tus1_replies.refused(refusal, method == "HEAD"))
    request.response.setBody("")  # what a view returns
    status, headers = request.response.finalize()
    assert status == f"{error.status} {error.reason}"
    assert request.response.body == (b"" if method == "HEAD" else f"{refusal}\n".encode())
    assert {"Tus-Resumable", "Content-Type"} <= {name.title() for name, _ in headers}


def test_the_receiver_of_the_document():
    import transaction
    import Zope2

    Site()
    namespace = {}
    exec(blocks("python", "docs/zope.rst")[0], namespace)
    root = Zope2.app()
    upload = Upload(id="a" * 32, raw_metadata="filename eA==")
    assert namespace["Receiver"](root["f"], None).receive(upload, io.BytesIO(b"abc")).endswith("f/x")
    assert bytes(root["f"]["x"].data) == b"abc"
    transaction.abort()
    root._p_jar.close()


@pytest.fixture
def own_view(request, tmp_path, monkeypatch):
    """A site with the document's package for a view of one's own, as a reader would have it, or without a part."""
    from zope.component import getGlobalSiteManager
    from zope.configuration import xmlconfig

    site = Site()
    package = tmp_path / "own_uploads"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "uploads.py").write_text(
        blocks("python", "docs/zope.rst")[1].replace("/var/lib/uploads", str(tmp_path / "unfinished"))
    )
    (page,) = [block for block in blocks("xml", "docs/zope.rst") if "browser:page" in block]
    if getattr(request, "param", None) == "without the subscriber":
        page = page[: page.index("<subscriber")]
    (package / "configure.zcml").write_text(
        f'<configure xmlns="http://namespaces.zope.org/zope"><include package="Products.Five"/>{page}</configure>'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import own_uploads

    xmlconfig.file("configure.zcml", own_uploads)
    yield site
    getGlobalSiteManager().unregisterHandler(sys.modules["own_uploads.uploads"].prepare, _published())
    for name in ("own_uploads.uploads", "own_uploads"):
        del sys.modules[name]


def _published():
    from ZPublisher.interfaces import IPubStart

    return (IPubStart,)


@pytest.mark.parametrize("where", ["", "/f"], ids=["root", "folder"])
@pytest.mark.parametrize("name", ["upload", "@@upload"])
def test_the_view_of_the_document(own_view, tmp_path, request, where, name):
    site, file = own_view, f"{abs(hash(request.node.name))}"
    url = site.create(f"{where}/{name}", 5, named(file))["Location"]
    assert site.patch(url, 0, b"hel").status == 204
    assert site.send("HEAD", url)["Upload-Offset"] == "3"
    assert site.patch(url, 3, b"lo").status == 204
    assert zope_site.contents(where.strip("/"))[file] == b"hello"
    assert not (tmp_path / "unfinished" / url.rpartition("/")[2]).exists()
    assert site.send("GET", f"{where}/{name}").body == b"the page with the upload form"
    second = site.create(f"{where}/{name}", 5, named(file + "-2"))["Location"]
    assert site.send("DELETE", second).status == 204
    assert site.send("OPTIONS", f"{where}/{name}").status == 200
    url = site.create(f"{where}/{name}", 5, named(file))["Location"]  # a name that is in use
    assert site.patch(url, 0, b"again").status >= 400
    assert site.send("HEAD", url)["Upload-Offset"] == "4", "the file is kept"


@pytest.mark.parametrize("own_view", ["without the subscriber"], indirect=True)
def test_the_view_of_the_document_needs_its_subscriber(own_view):
    url = own_view.create("/upload", 5)["Location"]
    assert [own_view.send(method, url).status for method in ("PATCH", "HEAD", "DELETE")] == [404] * 3


START = """
import pathlib, sys
from tests.support import zope_site
settings, receiver = sys.argv[2:]
zope_site.CONF = zope_site.CONF.replace("  tmp_file_dir {directory}/uploads\\n", settings)
if not receiver:
    zope_site.ZCML = zope_site.ZCML[:zope_site.ZCML.index("  <adapter")] + "</configure>"
zope_site.make(pathlib.Path(sys.argv[1]) / "zope")
print("started")
"""


@pytest.mark.parametrize(
    ("settings", "receiver", "started", "message"),
    [
        ("  tmp_file_dir {directory}/uploads\n", "yes", True, ""),
        ("", "yes", False, "tmp_file_dir"),
        ("  tmp_file_dir {directory}/uploads\n  max_siz 1\n", "yes", False, "max_siz"),
        ("  tmp_file_dir {directory}/uploads\n  max_size much\n", "yes", False, "max_size"),
        ("  tmp_file_dir {directory}/uploads\n  upload_path /x\n", "yes", False, "upload_path"),
        ("  tmp_file_dir {directory}/uploads\n", "", True, "no adapter provides tus.zope.interfaces.IUploadReceiver"),
    ],
)
def test_misconfiguration_is_found_at_the_start(tmp_path, settings, receiver, started, message):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TUS_")}
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", START, str(tmp_path), settings, receiver],
        cwd=ROOT, capture_output=True, text=True, timeout=100, env=environment,
    )  # fmt: skip
    assert ("started" in result.stdout, result.returncode == 0) == (started, started), result.stderr
    assert message in result.stderr
    assert ("OptionError" in result.stderr) != started
    assert ("IUploadReceiver" in result.stderr) == (not receiver)


def test_a_folder_without_a_receiver(monkeypatch):
    from tus.zope import view

    monkeypatch.setattr(view, "queryMultiAdapter", lambda objects, interface: None)
    site = Site()
    reply = site.create("/f/tus", 5)
    assert (reply.status, reply["Tus-Resumable"], reply["Retry-After"]) == (503, "1.0.0", "5")
    reply = site.send("POST", "/f/tus", {"Upload-Draft-Interop-Version": "8", "Upload-Complete": "?0"})
    assert (reply.status, reply["Upload-Complete"], reply["Upload-Draft-Interop-Version"]) == (503, "?0", "8")


# -- Under Zope's own test case --


@pytest.mark.parametrize("version", [3, 6, 9])
@pytest.mark.parametrize("do", ["", "conflict", "conflict at commit", "conflict for real"])
@pytest.mark.parametrize("how", ["PATCH", "POST"])
def test_the_ietf_protocol(site, request, do, how, version):
    name = f"{abs(hash(request.node.name))}"
    field = "Upload-Incomplete" if version == 3 else "Upload-Complete"
    yes, no = ("?0", "?1") if version == 3 else ("?1", "?0")

    def send(method, url, headers, body=b""):
        fields = {"Upload-Draft-Interop-Version": str(version), "Tus-Resumable": "1.0.0"}
        return site.send(method, url, fields | headers, body)

    partial = {"Content-Type": "application/partial-upload"}
    told = metadata(filename=name, do=do)
    if how == "PATCH":
        created = send("POST", "/f/tus", told | partial | {field: no}, b"ab")
        assert (created.status, created["Upload-Offset"], created[field]) == (201, "2", no)
        url = created["Location"]
        reply = send("PATCH", url, partial | {field: no, "Upload-Offset": "2"}, b"c")
        assert (reply.status, reply["Upload-Offset"], reply[field]) == (204 if version == 9 else 201, "3", no)
        reply = send("PATCH", url, partial | {field: yes, "Upload-Offset": "3"}, b"def")
    else:
        reply = send("POST", "/f/tus", told | partial | {field: yes}, b"abcdef")
        made = [upload.id for upload in site.store.list() if upload.filename == name]  # the view has its own Location
        assert len(made) == 1
        url = f"http://localhost/f/tus/{made[0]}"
    assert (reply.status, reply[field], reply["Upload-Offset"]) == (204, yes, "6")
    upload_id = url.rpartition("/")[2]
    attempts = {"": 1, "conflict at commit": 3}.get(do, 2)
    assert zope_site.attempts[upload_id] == attempts
    assert [data for key, data in zope_site.contents().items() if key == name] == [b"abcdef"]
    told = send("HEAD", url, {})
    assert (told.status, told["Upload-Offset"], told[field]) == (204, "6", yes)


def test_zopes_functional_test_case():
    command = [sys.executable, "-W", "ignore", "-m", "unittest", "-v", "tests.support.zope_case"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "Ran 2 tests" in result.stderr


# -- Behind real servers --


@contextlib.contextmanager
def served(server, tmp_path):
    port = free_port()
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.support.zope_site", server, str(port), tmp_path / "zope"],
            cwd=ROOT, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait_for_port(port, process, log)
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize(("server", "kept"), [("waitress", 0), ("gunicorn", 300_000)])
def test_real_servers_with_a_cut(tmp_path, server, kept):
    content = os.urandom(1_000_000)
    (tmp_path / "big.bin").write_bytes(content)
    with served(server, tmp_path) as port:
        url = f"http://127.0.0.1:{port}/f/tus"
        client = TusClient(url, headers=ANN)
        uploader = client.uploader(str(tmp_path / "big.bin"), chunk_size=400_000, metadata={"filename": "big.bin"})
        uploader.upload(stop_at=400_000)
        path = "/" + uploader.url.partition("://")[2].partition("/")[2]
        with socket.create_connection(("127.0.0.1", port), 10) as broken:
            head = "".join(f"{n}: {v}\r\n" for n, v in (TUS | OCTETS | ANN | {"Upload-Offset": "400000"}).items())
            broken.sendall(f"PATCH {path} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: 600000\r\n\r\n".encode())
            broken.sendall(content[400_000:700_000])
            broken.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                while broken.recv(65536):
                    pass
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            for _ in range(2):  # the connection stays in step after a HEAD
                connection.request("HEAD", path, headers=TUS | ANN)
                reply = connection.getresponse()
                assert (reply.status, reply.headers["Upload-Offset"], reply.read()) == (200, str(400_000 + kept), b"")
        client.uploader(str(tmp_path / "big.bin"), chunk_size=400_000, url=uploader.url).upload()
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            connection.request("GET", "/f/big.bin", headers=ANN)
            assert connection.getresponse().read() == content
