"""``TusMiddleware`` where Galaxy, up to its release 25.1, has tuswsgi's."""

from __future__ import annotations

import gc
import re
from urllib.parse import urlsplit

import pytest
from tusclient.client import TusClient

from tests.support.clients import head, sample
from tests.support.galaxy import API_KEY, SIZE, galaxy, post, upload_as_galaxy_s_users
from tests.support.waiting import wait_until
from tests.support.wsgi import OCTETS, TUS, call
from tus.compat import TusMiddleware
from tus.errors import OptionError
from tus.stores.directory.store import DirectoryStore

# tuspy never closes the files that it opens.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture(autouse=True)
def _direct(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    gc.collect()  # what tuspy has left open goes while this module's filter of warnings holds


@pytest.mark.parametrize("prefix", ["", "/galaxy"], ids=["root", "mounted"])
def test_galaxy(tmp_path, prefix):
    upload_as_galaxy_s_users(TusMiddleware, tmp_path, prefix)


def test_a_client_hears_that_it_was_finished_after_the_data_was_moved_away(tmp_path):
    file = sample(tmp_path / "file", SIZE)
    with galaxy(TusMiddleware, tmp_path) as (app, url):
        uploader = TusClient(url + "api/upload/resumable_upload", headers=API_KEY).uploader(str(file), chunk_size=1024)
        uploader.upload()
        session_id = uploader.url.rsplit("/", 1)[1]
        post(url + "api/tools/fetch", {"session_id": session_id})

        store = DirectoryStore(str(app.stores["upload"]))
        for _ in range(2):
            status, headers = head(uploader.url)
            assert (status, headers["upload-offset"], headers["upload-length"]) == (200, str(SIZE), str(SIZE))
            assert store.sweep() == 0
        assert (app.stores["upload"] / "of_somebody_else.info").exists()


def test_an_empty_file_is_no_exception_for_the_application(tmp_path):
    with galaxy(TusMiddleware, tmp_path, "/galaxy") as (app, url):
        client = TusClient(url + "api/upload/resumable_upload", headers=API_KEY)
        uploader = client.uploader(str(sample(tmp_path / "empty", 0)))
        uploader.upload()
        session_id = uploader.url.rsplit("/", 1)[1]
        assert app.bodies == [str(app.stores["upload"] / session_id).encode()]
        assert (app.stores["upload"] / session_id).read_bytes() == b""


# -- Its arguments ------------------------------------------------------------------------------------------------


class App:
    def __init__(self, status="200 OK"):
        self.status = status
        self.calls: list[tuple[str, str, bytes]] = []

    def __call__(self, environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        self.calls.append((environ["REQUEST_METHOD"], environ["SCRIPT_NAME"] + environ["PATH_INFO"], body))
        start_response(self.status, [("Content-Type", "application/json")])
        return [b"null"]


def create(middleware, length, url="http://site/files", **how):
    reply = call(middleware, "POST", url, TUS | {"Upload-Length": str(length)}, **how)
    assert reply.status == 201
    return reply["Location"]


def append(middleware, location, body, offset=0, **how):
    headers = TUS | OCTETS | {"Upload-Offset": str(offset)}
    return call(middleware, "PATCH", urlsplit(location)._replace(netloc="site").geturl(), headers, body, **how)


def finish(middleware, body=b"data", **how):
    location = create(middleware, len(body), **how)
    return location, append(middleware, location, body, **how)


def test_the_order_of_the_arguments_is_tuswsgi_s(tmp_path):
    middleware = TusMiddleware(App(), "/files", "https://cdn.example", str(tmp_path), 60, True, 10, True)
    location = create(middleware, 4)
    assert location.startswith("https://cdn.example/files/")
    assert append(middleware, location, b"data").status == 204
    assert call(middleware, "OPTIONS", "http://site/files")["Tus-Max-Size"] == "10"
    with pytest.raises(TypeError):
        TusMiddleware(App(), "/files", "", str(tmp_path), 60, True, 10, True, None)


def test_the_data_itself_as_the_body(tmp_path):
    app = App()
    finish(TusMiddleware(app, "/files", tmp_dir=str(tmp_path), send_file=True))
    assert app.calls[0][2] == b"data"


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "302 Found", "500 Internal Server Error"])
def test_other_answers_go_to_the_client_and_the_data_stays(tmp_path, status):
    middleware = TusMiddleware(app := App(status), "/files", tmp_dir=str(tmp_path))
    location, reply = finish(middleware)
    assert f"{reply.status} {reply.reason}" == status
    assert reply.body == b"null"
    app.status = "200 OK"
    reply = append(middleware, location, b"", offset=4)
    assert (reply.status, reply.body) == (204, b"")
    assert [method for method, *_ in app.calls] == ["PATCH"] * 2


def test_an_application_below_a_prefix_sees_its_own_path(tmp_path):
    middleware = TusMiddleware(app := App(), "/pre/files", tmp_dir=str(tmp_path))
    mount = {"url": "http://site/pre/files", "environ": {"SCRIPT_NAME": "/pre"}}
    location = create(middleware, 0, **mount)
    assert app.calls == [("PATCH", urlsplit(location).path, str(tmp_path / location.rpartition("/")[2]).encode())]
    assert location.startswith("http://site/pre/files/")


@pytest.mark.parametrize("api_base", ["/proxied", "/proxied/"])
def test_a_path_that_a_proxy_takes_away(tmp_path, api_base):
    middleware = TusMiddleware(App(), "/my files", api_base=api_base, tmp_dir=str(tmp_path))
    location = create(middleware, 4, url="http://site/my%20files")
    assert re.fullmatch("http://site/proxied/my%20files/[0-9a-f]{32}", location)
    assert append(middleware, location.replace("/proxied", ""), b"data").status == 204


def test_what_only_begins_with_the_path_is_the_application_s(tmp_path):
    middleware = TusMiddleware(app := App(), "/files", tmp_dir=str(tmp_path))
    for method, url in (("HEAD", "/files-public"), ("PATCH", "/files-public/1"), ("GET", "/files")):
        call(middleware, method, f"http://site{url}", TUS, validate=method != "HEAD")
    assert [path for _, path, _ in app.calls] == ["/files-public", "/files-public/1", "/files"]


def test_the_same_bytes_twice_are_no_upload(tmp_path):
    middleware = TusMiddleware(app := App(), "/files", tmp_dir=str(tmp_path))
    location = create(middleware, 10)
    assert append(middleware, location, b"first").status == 204
    assert append(middleware, location, b"first").status == 409
    assert append(middleware, location, b"second", offset=5).status == 413
    assert (tmp_path / location.rpartition("/")[2]).read_bytes() == b"first"
    assert app.calls == []


@pytest.mark.parametrize("do_cleanup", [False, True])
def test_nothing_expires_unless_asked_for(tmp_path, do_cleanup):
    middleware = TusMiddleware(App(), "/files", tmp_dir=str(tmp_path), expire=100, do_cleanup=do_cleanup)
    (tmp_path / "of_somebody_else").write_text("old")
    unfinished = create(middleware, 10).rpartition("/")[2]
    reply = append(middleware, f"http://site/files/{unfinished}", b"first")
    assert (reply.get("Upload-Expires") is not None) == do_cleanup
    finished = finish(middleware)[0].rpartition("/")[2]

    def left_after(seconds):
        now = (tmp_path / finished).stat().st_mtime + seconds
        DirectoryStore(str(tmp_path), clock=lambda: now).sweep()
        names = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")}
        return sorted(names - {"of_somebody_else"}), "of_somebody_else" in names

    everything = sorted([unfinished, unfinished + ".tus", finished, finished + ".tus"])
    assert left_after(50) == (everything, True)
    if do_cleanup:
        wait_until(lambda: left_after(10 * 365 * 86400) == ([], True))  # a thread of the middleware may be sweeping
    else:
        assert left_after(10 * 365 * 86400) == (everything, True)


@pytest.mark.parametrize("argument", ["max_size", "expire"])
def test_a_limit_of_nothing(tmp_path, argument):
    with pytest.raises(OptionError, match=argument):
        TusMiddleware(App(), "/files", tmp_dir=str(tmp_path), **{argument: 0})


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match="tmp_dir"):
        TusMiddleware(App(), "/files", tmp_dir=str(tmp_path / "file" / "uploads"))


def test_missing_levels_of_the_directory_are_made(tmp_path):
    finish(TusMiddleware(App(), "/files", tmp_dir=str(tmp_path / "some" / "level")))
    assert (tmp_path / "some" / "level").is_dir()
