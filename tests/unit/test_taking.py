"""An application that accepts a file without having taken it loses no bytes, and the log says what it must do."""

import contextlib
import io
import logging
import os
import shutil

import anyio
import pytest
from webob import Request

from tests.support.subjects import PATH, OnLoop
from tests.support.wsgi import OCTETS, TUS, call
from tus import Filter, FinishedUpload, Options, Service, Tus, WebobAdapter, open_store
from tus.asgi import TusApp, TusMiddleware
from tus.models import State

LOGGER = "tus.handover.finished"


class Site:
    """A way in, whose application gives the upload and the body to a function.

    Args:
        take: gets the upload and a function that reads the request's body.
        options: of the service.

    Attributes:
        app: the application with the uploads.
    """

    def __init__(self, take, **options):
        self.take = take
        self.options = {"upload_path": PATH, "threads": False} | options
        self.app = self.make()

    def make(self):
        raise NotImplementedError

    def store(self):
        return open_store(str(self.options["tmp_file_dir"]), Options.build_async(**self.options))

    def send(self, content=b"hello"):
        """Send a file, and return its upload as it is stored after that."""
        reply = call(self.app, "POST", PATH, TUS | {"Upload-Length": str(len(content))})
        reply = call(self.app, "PATCH", reply["Location"], TUS | OCTETS | {"Upload-Offset": "0"}, content)
        assert reply.status == 204
        return next(upload for upload in self.store().list() if upload.state == State.ACCEPTED)


class FilterSite(Site):
    def make(self):
        def application(environ, start_response):
            self.take(environ["tus.upload"], environ["wsgi.input"].read)
            start_response("204 No Content", [])
            return []

        return Filter(application, **self.options)


class FunctionSite(Site):
    """``on_finished`` under WSGI."""

    def make(self):
        return Filter(None, on_finished=lambda upload: self.take(upload, None), **self.options)


class ViewSite(Site):
    def make(self):
        service = Service(**{name: value for name, value in self.options.items() if name != "upload_path"})

        def view(environ, start_response):
            adapter = WebobAdapter(Request(environ))
            with Tus(adapter, service=service) as tus:
                tus.handle()
                if tus.upload_finished:
                    self.take(tus.upload, lambda: adapter.stream.read(9999))
                    tus.cleanup_file()
            return adapter.resp(environ, start_response)

        return view


class AsgiSite(Site):
    def make(self):
        async def application(scope, receive, send):
            async def read():
                return (await receive())["body"]

            def take():
                self.take(scope["tus.upload"], lambda: anyio.from_thread.run(read))

            await anyio.to_thread.run_sync(take)
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

        return OnLoop(TusMiddleware(application, **self.options), "asyncio")


class AsyncFunctionSite(Site):
    """An async ``on_finished``."""

    def make(self):
        async def take(upload):
            self.take(upload, None)

        options = {name: value for name, value in self.options.items() if name != "upload_path"}
        return OnLoop(TusApp(on_finished=take, **options), "trio")


CALLED = (FilterSite, ViewSite, AsgiSite)
SITES = (*CALLED, FunctionSite, AsyncFunctionSite)


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.WARNING, LOGGER)
    return caplog


def is_there(upload):
    return os.path.exists(upload.path)


def warnings(log):
    return [record.getMessage() for record in log.records if record.name == LOGGER]


def check_kept(upload, log, content=b"hello"):
    with open(upload.path, "rb") as file:
        assert file.read() == content
    (text,) = warnings(log)
    for words in (upload.id, "send_file", "save_to()", "open()", "completed_keep", upload.path):
        assert words in text


@pytest.mark.parametrize("kind", SITES)
def test_a_file_that_was_not_taken_is_kept(kind, tmp_path, log):
    site = kind(lambda upload, read: upload.filename, tmp_file_dir=str(tmp_path))
    check_kept(site.send(), log)


@pytest.mark.parametrize("kind", CALLED)
def test_the_path_in_the_place_of_the_file_is_not_the_file(kind, tmp_path, log):
    """Not every application knows what its ini file says about ``send_file``."""
    copies = []
    site = kind(lambda upload, read: copies.append(read()), tmp_file_dir=str(tmp_path))
    upload = site.send()
    assert copies == [upload.path.encode()]
    check_kept(upload, log)


def copy_by_path(upload, read, target):
    shutil.copy(read().decode(), target)


def open_by_path(upload, read, target):
    with open(read(), "rb") as file:
        file.read()


def move_by_path(upload, read, target):
    os.rename(read().decode(), target)


def link_by_path(upload, read, target):
    os.link(read().decode(), target)


@pytest.mark.parametrize("take", [copy_by_path, open_by_path, move_by_path, link_by_path])
@pytest.mark.parametrize("kind", CALLED)
def test_an_application_of_2014_takes_the_file_by_the_path_in_the_body(kind, take, tmp_path, log):
    if take in (copy_by_path, open_by_path) and os.statvfs(tmp_path).f_flag & os.ST_NOATIME:
        pytest.skip("the disk of the tests has no access times")
    target = tmp_path / "target"
    (tmp_path / "uploads").mkdir()
    site = kind(lambda upload, read: take(upload, read, target), tmp_file_dir=str(tmp_path / "uploads"))
    assert not is_there(site.send())
    assert not warnings(log)


@pytest.mark.parametrize(
    "take",
    [
        lambda upload, target: upload.path,
        lambda upload, target: upload.open().close(),
        lambda upload, target: upload.save_to(target),
    ],
    ids=["path", "open", "save_to"],
)
@pytest.mark.parametrize("kind", SITES)
def test_a_file_that_was_taken_is_removed(kind, take, tmp_path, log):
    (tmp_path / "uploads").mkdir()
    (tmp_path / "target").mkdir()
    site = kind(lambda upload, read: take(upload, tmp_path / "target"), tmp_file_dir=str(tmp_path / "uploads"))
    assert not is_there(site.send())
    assert not warnings(log)


@pytest.mark.parametrize("kind", SITES)
def test_a_file_that_could_not_be_saved_is_not_taken(kind, tmp_path, log):
    """The application ignores the error, and accepts."""

    def take(upload, read):
        with contextlib.suppress(OSError):
            upload.save_to(tmp_path / "missing")

    check_kept(kind(take, tmp_file_dir=str(tmp_path)).send(), log)


def test_the_path_of_a_view_takes_the_file(tmp_path, log):
    service = Service(tmp_file_dir=str(tmp_path), threads=False)

    def view(environ, start_response):
        adapter = WebobAdapter(Request(environ))
        with Tus(adapter, service=service) as tus:
            tus.handle()
            if tus.upload_finished:
                tus.get_filepath()
                tus.cleanup_file()
        return adapter.resp(environ, start_response)

    url = call(view, "POST", "/up", TUS | {"Upload-Length": "1"})["Location"]
    assert call(view, "PATCH", url, TUS | OCTETS | {"Upload-Offset": "0"}, b"x").status == 204
    assert not [path for path in tmp_path.iterdir() if len(path.name) == 32]
    assert not warnings(log)


@pytest.mark.parametrize("kind", CALLED)
def test_with_send_file_the_body_is_the_file(kind, tmp_path, log):
    got = []
    site = kind(lambda upload, read: got.append(read()), tmp_file_dir=str(tmp_path), send_file=True)
    assert not is_there(site.send())
    assert got == [b"hello"]
    assert not warnings(log)


@pytest.mark.parametrize("kind", SITES)
def test_a_file_that_is_kept_anyway_needs_no_warning(kind, tmp_path, log):
    site = kind(lambda upload, read: None, tmp_file_dir=str(tmp_path), keep_finished=True)
    assert is_there(site.send())
    assert not warnings(log)


@pytest.mark.parametrize("kind", SITES)
def test_an_empty_file_cannot_be_lost(kind, tmp_path, log):
    site = kind(lambda upload, read: None, tmp_file_dir=str(tmp_path))
    reply = call(site.app, "POST", PATH, TUS | {"Upload-Length": "0"})
    assert reply.status == 201
    assert not warnings(log)


@pytest.mark.parametrize("digest", ["", "sha-256"])
@pytest.mark.parametrize("kind", SITES)
def test_reads_of_this_package_are_not_taken_for_those_of_the_application(kind, digest, tmp_path, log):
    """A digest needs the whole file, and a repeated last byte is compared with the stored one."""
    attempts = []

    def take(upload, read):
        attempts.append(upload.key)
        if len(attempts) == 1:
            raise OSError("not now")

    site = kind(take, tmp_file_dir=str(tmp_path), digest=digest)
    url = call(site.app, "POST", PATH, TUS | {"Upload-Length": "6"})["Location"]
    patch = TUS | OCTETS
    assert call(site.app, "PATCH", url, patch | {"Upload-Offset": "0"}, b"hel").status == 204
    with contextlib.suppress(OSError):
        call(site.app, "PATCH", url, patch | {"Upload-Offset": "3"}, b"lo!")
    assert call(site.app, "PATCH", url, patch | {"Upload-Offset": "5"}, b"!").status == 204
    assert len(attempts) == 2
    (upload,) = site.store().list()
    check_kept(upload, log, b"hello!")


@pytest.mark.parametrize("kind", CALLED)
def test_a_refusal_needs_no_warning(kind, tmp_path, log):
    def refuse(upload, read):
        raise OSError("not now")

    site = kind(refuse, tmp_file_dir=str(tmp_path))
    with pytest.raises((AssertionError, OSError)):
        site.send()
    assert not warnings(log)


def test_an_original_request_has_the_file_itself_as_its_body(tmp_path, log):
    """So there is no path that could be mistaken for the file."""
    read = []
    site = FilterSite(lambda upload, read_body: read.append(read_body()), tmp_file_dir=str(tmp_path))
    headers = {"Upload-Draft-Interop-Version": "6", "Upload-Complete": "?1", "Content-Type": "text/plain"}
    assert call(site.app, "POST", PATH, headers, b"hello").status == 204
    assert (read, log.records) == ([b"hello"], [])


def test_without_a_client_too(tmp_path, log):
    answers = ["503 Service Unavailable", "204 No Content"]

    def application(environ, start_response):
        status = answers.pop(0)
        start_response(status, [("Content-Type", "text/plain")] if status.startswith("503") else [])
        return []

    app = Filter(application, upload_path=PATH, tmp_file_dir=str(tmp_path), threads=False)
    url = call(app, "POST", PATH, TUS | {"Upload-Length": "5"})["Location"]
    assert call(app, "PATCH", url, TUS | OCTETS | {"Upload-Offset": "0"}, b"hello").status == 503
    assert [str(outcome) for _, outcome in app.backlog.run(everything=True)] == ["accepted"]
    (upload,) = app.service.store.list()
    check_kept(upload, log)


def test_a_view_that_accepts_after_its_request_keeps_the_file_too(tmp_path, log):
    service = Service(tmp_file_dir=str(tmp_path), threads=False)
    late = []

    def view(environ, start_response):
        adapter = WebobAdapter(Request(environ))
        tus = Tus(adapter, service=service)
        tus.handle()
        late.append(tus)
        return adapter.resp(environ, start_response)

    url = call(view, "POST", "/up", TUS | {"Upload-Length": "5"})["Location"]
    assert call(view, "PATCH", url, TUS | OCTETS | {"Upload-Offset": "0"}, b"hello").status == 503
    call(view, "HEAD", url, TUS)  # another request finds that this one has ended
    finished = late[1]
    assert isinstance(finished.upload, FinishedUpload)
    finished.cleanup_file()
    (upload,) = service.store.list()
    assert upload.state == State.ACCEPTED
    check_kept(upload, log)


def test_a_mount_without_access_times_keeps_the_file(tmp_path, log):
    """Nothing shows a read there, and bytes are not lost for want of evidence."""

    def take(upload, read):
        path = read()
        status = os.stat(path)
        with open(path, "rb") as file:
            file.read()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    site = FilterSite(take, tmp_file_dir=str(tmp_path))
    check_kept(site.send(), log)


def test_the_times_of_a_file_stay_but_for_the_access(tmp_path):
    changed = []

    def take(upload, read):
        path = os.path.join(tmp_path, upload.id)
        changed.append(os.stat(path).st_mtime_ns)
        read()
        changed.append(os.stat(path).st_mtime_ns)

    FilterSite(take, tmp_file_dir=str(tmp_path)).send()
    assert changed[0] == changed[1]


@pytest.mark.parametrize("read", ["read", "readline", "readlines", "list", "readinto", "buffered"])
def test_the_body_with_the_path_is_an_ordinary_stream(read, tmp_path):
    got = []

    def application(environ, start_response):
        body = environ["wsgi.input"]
        if read == "list":
            got.append(b"".join(body))
        elif read == "readinto":
            block = bytearray(500)
            got.append(bytes(block[: body.readinto(block)]))
        elif read == "buffered":
            got.append(io.BufferedReader(body).read())
        else:
            data = getattr(body, read)()
            got.append(data if isinstance(data, bytes) else b"".join(data))
        if read != "buffered":
            body.seek(0)
            assert body.tell() == 0
            assert body.read(3) == got[0][:3]
        start_response("204 No Content", [])
        return []

    app = Filter(application, upload_path=PATH, tmp_file_dir=str(tmp_path), threads=False)
    url = call(app, "POST", PATH, TUS | {"Upload-Length": "1"}, validate=False)["Location"]
    call(app, "PATCH", url, TUS | OCTETS | {"Upload-Offset": "0"}, b"x", validate=False)
    assert got == [os.fsencode(tmp_path / url.rpartition("/")[2])]
