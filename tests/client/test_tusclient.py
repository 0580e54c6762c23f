"""tuspy's names over our client: what its users rely on, and what tuspy itself gets wrong.

tests/clients/test_tuspy.py has the uploads to real servers, where one suite runs over tuspy and over these names.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import inspect
import io
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tarfile
import threading

import pytest
from tusclient import client as their_tuspy
from tusclient.fingerprint.fingerprint import Fingerprint as TheirFingerprint
from tusclient.storage.filestorage import FileStorage as TheirStorage

from tests.support.scripted import scripted
from tests.support.serving import ROOT, free_port
from tus.client.tusclient import client as tuspy
from tus.client.tusclient.exceptions import TusCommunicationError, TusUploadFailed
from tus.client.tusclient.fingerprint.fingerprint import Fingerprint
from tus.client.tusclient.fingerprint.interface import Fingerprint as AnyFingerprint
from tus.client.tusclient.storage.filestorage import FileStorage
from tus.client.tusclient.storage.interface import Storage
from tus.client.tusclient.uploader import AsyncUploader, Uploader

HELLO = b"hello world"


class Server:
    """A tus server as small as can be, whose answers a test can replace.

    Attributes:
        uploads: the bytes of each upload by its path.
        lengths: their lengths.
        requests: the method, the path, and the fields of each request.
        answers: what to answer instead: a method, and a list of ``(status, body, fields)`` that is used up; None in it
            stands for the usual answer.
        connections: how many there were.
    """

    def __init__(self):
        self.uploads, self.lengths, self.requests, self.answers, self.connections = {}, {}, [], {}, set()
        self.location = "/files/{}"

    def __call__(self, talk):
        self.connections.add(talk.number)
        while True:
            head, body = talk.request()
            first, *rows = head.split("\r\n")
            method, path, _ = first.split(" ")
            fields = {name.lower(): value for name, _, value in (row.partition(": ") for row in rows)}
            self.requests.append((method, path, fields))
            planned = self.answers.get(method)
            instead = planned.pop(0) if planned else None
            status, text, more = instead or getattr(self, method.lower())(path, fields, body)
            talk.answer(status, "" if method == "HEAD" else text, **more)

    def post(self, path, fields, body):
        path = f"/files/{len(self.uploads) + 1}"
        self.uploads[path], self.lengths[path] = bytearray(), fields["upload-length"]
        return 201, "", {"Location": self.location.format(len(self.uploads))}

    def head(self, path, fields, body):
        if path not in self.uploads:
            return 404, "", {}
        return 200, "", {"Upload-Offset": str(len(self.uploads[path])), "Upload-Length": self.lengths[path]}

    def patch(self, path, fields, body):
        if path not in self.uploads:
            return 404, "no such upload", {}
        if fields["upload-offset"] != str(len(self.uploads[path])):
            return 409, "", {}
        self.uploads[path] += body
        return 204, "", {"Upload-Offset": str(len(self.uploads[path]))}

    def methods(self):
        return [method for method, _, _ in self.requests]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server():
    server = Server()
    with scripted(server) as port:
        server.origin = f"http://127.0.0.1:{port}"
        yield server


@pytest.fixture
def client(server):
    return tuspy.TusClient(f"{server.origin}/files/", {"X-Token": "secret"})


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "hello.txt"
    path.write_bytes(HELLO)
    return str(path)


@pytest.fixture(params=["threads", "asyncio"])
def upload(request):
    """Makes an uploader and uploads: by threads or on an event loop."""

    def run(client, *arguments, **options):
        if request.param == "threads":
            uploader = client.uploader(*arguments, **options)
            uploader.upload()
        else:
            uploader = client.async_uploader(*arguments, **options)
            asyncio.run(uploader.upload())
        return uploader

    return run


# -- What its users rely on --


def test_an_upload_in_chunks_has_one_connection(server, client, file, upload):
    uploader = upload(client, file, chunk_size=4, metadata={"filename": "hello.txt", "n": b"1"})
    assert server.uploads == {"/files/1": HELLO}
    assert (uploader.url, uploader.offset) == (f"{server.origin}/files/1", len(HELLO))
    assert server.methods() == ["POST", "PATCH", "PATCH", "PATCH"]
    assert len(server.connections) == 1
    assert server.requests[0][2]["upload-metadata"] == "filename aGVsbG8udHh0,n MQ=="
    assert all(fields["x-token"] == "secret" for _, _, fields in server.requests)
    assert uploader.request.status_code == 204
    assert uploader.request.response_headers["upload-offset"] == str(len(HELLO))
    assert uploader.request.response_content == b""


def test_headers_that_change_between_two_chunks(server, client, file):
    uploader = client.uploader(file, chunk_size=6)
    uploader.upload_chunk()
    client.set_headers({"X-Token": "another"})
    uploader.upload_chunk()
    assert [fields["x-token"] for _, _, fields in server.requests] == ["secret", "secret", "another"]


def test_methods_that_a_subclass_replaces(server, client, file):
    chunks = []

    class Mine(Uploader):
        CHECKSUM_ALGORITHM_PAIR = ("sha256", hashlib.sha256)

        def get_headers(self):
            return super().get_headers() | {"X-Mine": "yes"}

        def get_url_creation_headers(self):
            return super().get_url_creation_headers() | {"X-Creation": "yes"}

        def encode_metadata(self):
            return ["own AA=="]

        def upload_chunk(self):
            super().upload_chunk()
            chunks.append(self.offset)

        def get_file_stream(self):
            return io.BytesIO(HELLO * 2)

    Mine(file, client=client, chunk_size=10, upload_checksum=True).upload()
    assert bytes(server.uploads["/files/1"]) == HELLO * 2
    assert chunks == [10, 20, 22]
    fields = [fields for _, _, fields in server.requests]
    assert all(each["x-mine"] == "yes" for each in fields)
    assert ["x-creation" in each for each in fields] == [True, False, False, False]
    assert fields[0]["upload-metadata"] == "own AA=="
    assert all(each["upload-checksum"].startswith("sha256 ") for each in fields[1:])


def test_an_uploader_needs_a_file_and_a_place(file):
    with pytest.raises(ValueError, match="file_path or file_stream"):
        Uploader(url="http://localhost/1")
    with pytest.raises(ValueError, match="url or client"):
        Uploader(file)
    with pytest.raises(ValueError, match="url_storage"):
        Uploader(file, url="http://localhost/1", store_url=True)
    with pytest.raises(ValueError, match="is not a file"):
        Uploader(f"{file}.not", url="http://localhost/1")


@pytest.mark.parametrize("kind", [Uploader, AsyncUploader])
def test_a_key_of_the_metadata(client, file, kind):
    for key in ("", "a b", "a,b", "a\nb"):
        with pytest.raises(ValueError, match="spaces"):
            kind(file, client=client, metadata={key: ""}).encode_metadata()


# -- Errors --


def test_a_creation_that_is_refused(server, client, file, upload):
    server.answers["POST"] = [(403, "not you", {})]
    with pytest.raises(TusCommunicationError, match="not you") as caught:
        upload(client, file)
    assert (caught.value.status_code, caught.value.response_content) == (403, b"not you")


def test_a_chunk_that_is_refused(server, client, file, upload):
    server.answers["PATCH"] = [(413, "too much", {})]
    with pytest.raises(TusUploadFailed, match="413") as caught:
        upload(client, file)
    assert (caught.value.status_code, caught.value.response_content) == (413, b"too much")
    assert caught.value.message == str(caught.value)
    assert server.methods() == ["POST", "PATCH"]  # without retries there are none


def test_a_server_that_is_not_there(file, upload):
    with pytest.raises(TusCommunicationError) as caught:
        upload(tuspy.TusClient(f"http://127.0.0.1:{free_port()}/files/"), file)
    assert caught.value.status_code is None


def test_an_upload_that_is_not_there(server, client, file):
    with pytest.raises(TusCommunicationError) as caught:
        client.uploader(file, url=f"{server.origin}/files/9")
    assert caught.value.status_code == 404


@pytest.mark.parametrize("offset", [None, "", "x", "0", "99", "-1"])
def test_a_chunk_whose_response_makes_no_sense(server, client, file, upload, offset):
    server.answers["PATCH"] = [(204, "", {} if offset is None else {"Upload-Offset": offset})]
    with pytest.raises(TusUploadFailed):
        upload(client, file)
    assert server.methods() == ["POST", "PATCH"]


def test_retries_and_what_is_logged(server, client, file, upload):
    server.answers["PATCH"] = [(500, "", {}), (503, "", {"Retry-After": "1"})]
    server.answers["HEAD"] = [(500, "", {})]
    logged = []
    upload(client, file, retries=3, retry_delay=0, log_func=logged.append)
    assert server.uploads == {"/files/1": HELLO}
    assert server.methods() == ["POST", "PATCH", "HEAD", "HEAD", "PATCH", "HEAD", "PATCH"]
    assert [re.search(r"Attempt (\d) of 3 follows in (\d) s", line).groups() for line in logged] == [
        ("1", "0"),
        ("2", "0"),
        ("3", "1"),
    ]


def test_retries_end(server, client, file, upload):
    server.answers["PATCH"] = [(500, "", {})] * 9
    with pytest.raises(TusUploadFailed):
        upload(client, file, retries=2, retry_delay=0)
    assert server.methods() == ["POST", "PATCH", "HEAD", "PATCH", "HEAD", "PATCH"]


def test_a_server_that_asks_for_a_day(server, client, file, upload):
    server.answers["PATCH"] = [(503, "", {"Retry-After": "86400"})]
    with pytest.raises(TusUploadFailed):
        upload(client, file, retries=2, retry_delay=0)
    assert server.methods() == ["POST", "PATCH"]


def test_an_error_after_the_last_byte_is_no_success(server, client, file, upload):
    """The server has every byte, but the application refuses the file each time. HEAD alone does not say so."""

    def patch(path, fields, body):
        server.uploads[path] += body
        return 500, "virus", {}

    server.patch = patch
    with pytest.raises(TusUploadFailed) as caught:
        upload(client, file, retries=2, retry_delay=0)
    assert caught.value.response_content == b"virus"
    assert server.uploads["/files/1"] == HELLO


def test_a_file_that_changes_while_it_is_sent(server, client, tmp_path):
    path = tmp_path / "growing"
    path.write_bytes(HELLO)

    def change():
        path.write_bytes(b"shorter")
        return hashlib.sha1()

    class Mine(Uploader):
        CHECKSUM_ALGORITHM_PAIR = ("sha1", change)

    with pytest.raises(TusCommunicationError, match="changed"):
        Mine(str(path), client=client, upload_checksum=True, retries=5, retry_delay=0).upload()
    assert server.uploads == {"/files/1": b""}


# -- Origins --


@pytest.fixture
def other():
    other = Server()
    with scripted(other) as port:
        other.origin = f"http://127.0.0.1:{port}"
        yield other


def test_headers_do_not_follow_a_location_to_another_origin(server, other, client, file, upload):
    server.location = f"{other.origin}/files/{{}}"
    other.uploads["/files/1"], other.lengths["/files/1"] = bytearray(), str(len(HELLO))
    upload(client, file)
    assert other.uploads == {"/files/1": HELLO}
    assert [fields.get("x-token") for _, _, fields in server.requests + other.requests] == ["secret", None]


def test_headers_follow_a_url_of_the_caller(other, client, file, upload):
    other.uploads["/files/1"], other.lengths["/files/1"] = bytearray(), str(len(HELLO))
    upload(client, file, url=f"{other.origin}/files/1")
    assert other.uploads == {"/files/1": HELLO}
    assert [fields.get("x-token") for _, _, fields in other.requests] == ["secret", "secret"]


# -- Stored URLs --


@pytest.fixture
def storage(tmp_path):
    return FileStorage(tmp_path / "urls.json")


def test_an_upload_that_goes_on(server, client, file, storage):
    client.uploader(file, store_url=True, url_storage=storage, chunk_size=4).upload(stop_at=4)
    again = client.uploader(file, store_url=True, url_storage=FileStorage(storage._path))
    assert again.offset == 4
    again.upload()
    assert server.uploads == {"/files/1": HELLO}
    assert server.methods() == ["POST", "PATCH", "HEAD", "PATCH"]


def test_a_stored_upload_that_is_gone(server, client, file, storage, upload):
    first = upload(client, file, store_url=True, url_storage=storage)
    server.uploads["/files/0"] = server.uploads.pop("/files/1")
    second = upload(client, file, store_url=True, url_storage=storage)
    assert first.url != second.url
    assert server.uploads["/files/2"] == HELLO
    assert storage.get_item(Fingerprint().get_fingerprint(io.BytesIO(HELLO))) == second.url


def test_a_stored_upload_of_another_length(server, client, file, storage, upload):
    storage.set_item(Fingerprint().get_fingerprint(io.BytesIO(HELLO)), f"{server.origin}/files/1")
    server.uploads["/files/1"], server.lengths["/files/1"] = bytearray(b"other"), "20"
    upload(client, file, store_url=True, url_storage=storage)
    assert server.uploads == {"/files/1": b"other", "/files/2": HELLO}


def test_two_files_that_begin_alike(server, client, storage, upload):
    first, second = (bytes(200_000) + end for end in (b"one", b"two"))
    for content in (first, second):
        upload(client, file_stream=io.BytesIO(content), store_url=True, url_storage=storage)
    assert [*server.uploads.values()] == [first, second]


def test_a_server_that_fails_when_a_stored_upload_is_looked_for(server, client, file, storage):
    storage.set_item(Fingerprint().get_fingerprint(io.BytesIO(HELLO)), f"{server.origin}/files/1")
    server.answers["HEAD"] = [(503, "", {})]
    with pytest.raises(TusCommunicationError) as caught:
        client.uploader(file, store_url=True, url_storage=storage)
    assert caught.value.status_code == 503


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_the_file_of_tuspy(tmp_path):
    path = str(tmp_path / "urls.json")
    theirs = TheirStorage(path)
    theirs.set_item("a", "http://host/1")
    theirs.set_item("b", "http://host/2")
    theirs.close()
    ours = FileStorage(path)
    assert (ours.get_item("a"), ours.get_item("b"), ours.get_item("c")) == ("http://host/1", "http://host/2", None)
    ours.set_item("a", "http://host/3")
    ours.set_item("c", "http://host/4")
    ours.remove_item("b")
    ours.remove_item("not there")
    ours.close()
    theirs = TheirStorage(path)
    assert [theirs.get_item(key) for key in "abc"] == ["http://host/3", None, "http://host/4"]
    theirs.set_item("d", "http://host/5")
    theirs.close()
    assert ours.get_item("d") == "http://host/5"


def test_the_file_of_urls(tmp_path):
    path = tmp_path / "urls.json"
    storage = FileStorage(str(path))
    assert path.exists()
    storage.set_item("a", "http://host/1")
    assert json.loads(path.read_text()) == {"_default": {"1": {"key": "a", "url": "http://host/1"}}}
    assert path.stat().st_mode & 0o777 == 0o600 or sys.platform == "win32"
    assert [*tmp_path.iterdir()] == [path]


def test_a_file_of_urls_that_threads_share(tmp_path):
    storage = FileStorage(tmp_path / "urls.json")
    threads = [
        threading.Thread(target=lambda name=name: [storage.set_item(f"{name}-{n}", "u") for n in range(10)])
        for name in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(storage.get_item(f"{name}-{n}") == "u" for name in range(4) for n in range(10))


def test_fingerprints():
    for content in (b"", HELLO, bytes(65536)):
        theirs = TheirFingerprint().get_fingerprint(io.BytesIO(content))
        assert Fingerprint().get_fingerprint(io.BytesIO(content)) == theirs
    assert Fingerprint().get_fingerprint(io.StringIO("hello")) == Fingerprint().get_fingerprint(io.BytesIO(b"hello"))
    long = [Fingerprint().get_fingerprint(io.BytesIO(bytes(65536) + end)) for end in (b"a", b"b", b"aa")]
    assert len(set(long)) == 3


def test_a_storage_and_a_fingerprint_of_the_caller(server, client, file):
    items = {}

    class Names(Storage, AnyFingerprint):
        def get_item(self, key):
            return items.get(key)

        def set_item(self, key, value):
            items[key] = value

        def remove_item(self, key):
            del items[key]

        def get_fingerprint(self, fs):
            return "mine"

    client.uploader(file, store_url=True, url_storage=Names(), fingerprinter=Names()).upload()
    assert items == {"mine": f"{server.origin}/files/1"}


# -- Files --


def test_a_large_file_is_not_read_into_memory(server, client, tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as stream:
        stream.truncate(4 << 20)
    sizes = []

    class Counting(io.FileIO):
        def read(self, size=-1):
            sizes.append(size)
            return super().read(size)

    def patch(path, fields, body):
        return 204, "", {"Upload-Offset": str(len(body))}

    server.patch = patch
    with Counting(path) as stream:
        client.uploader(file_stream=stream).upload()
    assert all(0 < size <= 1 << 20 for size in sizes)


def test_a_text_file(client, tmp_path):
    with pytest.raises(TypeError, match="binary"):
        client.uploader(file_stream=io.StringIO("text")).upload()


# -- TLS --


@pytest.fixture
def secure(tls):
    server = Server()
    with scripted(server, tls) as port:
        server.origin = f"https://localhost:{port}"
        yield server


def test_certificates_are_verified(secure, file, trusted, upload):
    client = tuspy.TusClient(f"{secure.origin}/files/")
    with pytest.raises(TusCommunicationError, match="certificate"):
        upload(client, file)
    upload(client, file, verify_tls_cert=False)
    upload(client, file, verify_tls_cert=trusted)
    assert [*secure.uploads.values()] == [HELLO, HELLO]


def test_the_client_s_certificate(authority, tls, file, tmp_path, trusted, upload):
    tls.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(tls)
    both, cert, key = (tmp_path / name for name in ("both.pem", "cert.pem", "key.pem"))
    issued = authority.issue_cert("me@example.org")
    issued.private_key_and_cert_chain_pem.write_to_path(str(both))
    issued.private_key_pem.write_to_path(str(key))
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    server = Server()
    with scripted(server, tls) as port:
        for one in (str(both), (str(cert), str(key))):
            client = tuspy.TusClient(f"https://localhost:{port}/files/", client_cert=one)
            upload(client, file, verify_tls_cert=trusted)
    assert [*server.uploads.values()] == [HELLO, HELLO]


# -- tuspy's own names and tests --


MODULES = {
    "client": {"TusClient"},
    "exceptions": {"TusCommunicationError", "TusUploadFailed"},
    "fingerprint.fingerprint": {"Fingerprint"},
    "fingerprint.interface": {"Fingerprint"},
    "storage.filestorage": {"FileStorage"},
    "storage.interface": {"Storage"},
    "uploader": {"AsyncUploader", "Uploader"},
    "uploader.baseuploader": {"BaseUploader"},
    "uploader.uploader": {"AsyncUploader", "Uploader"},
}


@pytest.mark.parametrize("module", MODULES)
def test_every_name_of_tuspy(module):
    theirs, ours = (importlib.import_module(f"{package}.{module}") for package in ("tusclient", "tus.client.tusclient"))
    for name in MODULES[module]:
        their, our = getattr(theirs, name), getattr(ours, name)
        assert {each for each in dir(their) if not each.startswith("_")} <= set(dir(our))
        if "args" not in inspect.signature(their).parameters:
            their_arguments, our_arguments = (list(inspect.signature(kind).parameters) for kind in (their, our))
            assert our_arguments[: len(their_arguments)] == their_arguments


def test_every_attribute_of_tuspy():
    theirs, ours = (
        package.TusClient("http://localhost/").uploader(file_stream=io.BytesIO()) for package in (their_tuspy, tuspy)
    )
    assert [name for name in vars(theirs) if not name.startswith("_") and not hasattr(ours, name)] == []


def as_ours(text):
    """tuspy's test with our names."""
    return re.sub(r"(?<![\w.])tusclient(?=[. ])", "tus.client.tusclient", text)


@pytest.mark.peers
def test_the_tests_of_tuspy(tmp_path):
    """They run unchanged but for imports. Stand-ins answer in place of the libraries that tuspy's transports need."""
    where = ["-q", "--no-deps", "--no-binary", ":all:", "-d", tmp_path]
    subprocess.run([sys.executable, "-m", "pip", "download", *where, "tuspy==1.1.0"], check=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as source:
        source.extractall(tmp_path, filter="data")
    source = tmp_path / "tuspy-1.1.0"
    work = tmp_path / "work"
    (work / "tests" / "sample_files").mkdir(parents=True)
    shims = ROOT / "tests/client/tuspy_shims"
    for shim in shims.glob("*.py"):
        shutil.copy(shim, work / "tests" if shim.name == "mixin.py" else work)
    (work / "tests/__init__.py").touch()
    shutil.copy(source / "LICENSE", work)
    for test in source.glob("tests/test_*.py"):
        (work / "tests" / test.name).write_text(as_ours(test.read_text()))
    samples = {"text.txt": (source / "LICENSE").read_bytes(), "binary.png": bytes(range(256)) * 500}
    urls = FileStorage(work / "tests/storage_file")
    for name, content in samples.items():
        (work / "tests/sample_files" / name).write_bytes(content)
        urls.set_item(Fingerprint().get_fingerprint(io.BytesIO(content)), "http://tusd.tusdemo.net/files/foo_bar")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--rootdir", work, "tests"]
    environment = {**os.environ, "PYTHONPATH": f"{work}:{ROOT}"}
    ran = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
    assert int(re.search(r"(\d+) passed", ran.stdout)[1]) >= 30
