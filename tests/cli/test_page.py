"""The page of ``tus serve``, as far as it can be seen without a browser."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin

import pytest

from tests.support.subjects import OnLoop
from tests.support.wsgi import OCTETS, TUS, call
from tus.apps.front import Front
from tus.apps.page import Page
from tus.cli import serve


class Looking(HTMLParser):
    """Every tag of a document with its attributes, and the text of its scripts and style sheets."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.inline = {"script": [], "style": []}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] in self.inline and self.cdata_elem:
            self.inline[self.tags[-1][0]].append(data)

    @property
    def uploads(self):
        return dict(self.tags[[tag for tag, _ in self.tags].index("main")][1])["data-uploads"]


def application(environ, start_response):
    """Says who has called it, by an answer that the page would not give."""
    start_response("418 Teapot", [("Content-Type", "text/plain"), ("X-Seen", str(id(environ)))])
    return [b"the application"]


def page(path="/files", url="http://localhost/", **how):
    return call(Front(application, Page(path)), "GET", url, **how)


def policy(reply):
    directives = (part.split() for part in reply["Content-Security-Policy"].split(";"))
    return {name: values for name, *values in directives}


def test_the_root_is_the_page():
    reply = page()
    assert reply.status == 200
    assert reply["Content-Type"] == "text/html; charset=utf-8"
    assert reply["Content-Length"] == str(len(reply.body))
    assert reply["X-Content-Type-Options"] == "nosniff"
    assert reply["Cache-Control"] == "no-cache"
    assert reply.body.startswith(b"<!doctype html>")


def test_a_query_changes_nothing():
    assert page(url="http://localhost/?a=b").body == page().body


def test_head_has_the_same_headers_and_no_body():
    reply = call(Front(application, Page("/files")), "HEAD", "http://localhost/")
    assert reply.status == 200
    assert reply.header_list == page().header_list
    assert reply.body == b""


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/"),
        ("PATCH", "/"),
        ("OPTIONS", "/"),
        ("DELETE", "/"),
        ("GET", "/files"),
        ("GET", "/files/"),
        ("GET", "//"),
        ("GET", "/index.html"),
        ("HEAD", "/x"),
    ],
)
def test_all_else_passes_untouched(method, path):
    seen = []

    def app(environ, start_response):
        seen.append((environ, dict(environ)))
        return application(environ, start_response)

    environ = {"REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": path}
    before = dict(environ)
    statuses = []
    body = Front(app, Page("/files"))(environ, lambda status, headers: statuses.append(status))
    assert b"".join(body) == b"the application"
    assert statuses == ["418 Teapot"]
    assert seen[0][0] is environ
    assert seen[0][1] == before


@pytest.mark.parametrize("source", ["script-src", "style-src"])
def test_the_policy_names_what_is_inline_by_its_digest(source):
    reply = page(path="/a & b")
    [text] = Looking(reply.body.decode()).inline[source.removesuffix("-src")]
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert policy(reply)[source] == [f"'sha256-{digest}'"]


def test_the_policy_is_strict():
    directives = policy(page())
    assert directives["default-src"] == ["'none'"]
    assert directives["connect-src"] == ["'self'"]
    for name in ("base-uri", "form-action", "frame-ancestors"):
        assert directives[name] == ["'none'"]
    assert "unsafe" not in page()["Content-Security-Policy"]


def test_nothing_comes_from_elsewhere():
    document = Looking(page().body.decode())
    for tag, attributes in document.tags:
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "action", "srcset"):
            assert attributes.get(name, "data:,").startswith("data:"), tag
    [style] = document.inline["style"]
    assert "url(" not in style
    assert "@import" not in style
    assert not re.findall(rb"https?://", page().body)


PATHS = [
    "/files",
    "/a/b/c",
    "/my files",
    "/füße",
    "/100%",
    "/a:b",
    "/javascript:alert(1)",
    '/"><script>alert(1)</script>',
    "/it's & <more>",
    "/{{uploads}}",
    "/\\1",
]


@pytest.mark.parametrize("path", PATHS)
def test_the_page_leads_to_the_uploads(path):
    document = Looking(page(path).body.decode())
    assert [tag for tag, _ in document.tags].count("script") == 1
    url = urljoin("http://localhost/", document.uploads)
    assert unquote(url) == "http://localhost" + path
    assert re.fullmatch("\\./[A-Za-z0-9_.~/%-]+", document.uploads)


@pytest.mark.parametrize(
    ("script", "info", "path", "browser"),
    [
        ("", "", "/files", "http://localhost/"),
        ("/app", "/", "/app/files", "http://localhost/app/"),
        ("/app", "", "/app/files", "http://localhost/app"),
        ("/a b/c", "/", "/a b/c/d", "http://localhost/a%20b/c/"),
        ("/f\xc3\xbc", "/", "/fü/files", "http://localhost/f%C3%BC/"),
    ],
)
def test_the_page_leads_to_the_uploads_from_where_it_is_mounted(script, info, path, browser):
    reply = page(path, environ={"SCRIPT_NAME": script, "PATH_INFO": info}, validate=False)
    assert reply.status == 200
    assert unquote(urljoin(browser, Looking(reply.body.decode()).uploads)) == "http://localhost" + path


def test_there_is_no_page_where_it_could_not_reach_the_uploads():
    assert page("/files", environ={"SCRIPT_NAME": "/app", "PATH_INFO": "/"}).status == 418
    assert page("/application/files", environ={"SCRIPT_NAME": "/app", "PATH_INFO": "/"}).status == 418


def test_the_page_stands_in_the_pipeline_of_tus_serve(tmp_path):
    app = OnLoop(serve.build_pipeline(str(tmp_path / "uploads"), "/up/here", ()), "asyncio")
    document = Looking(call(app, "GET", "http://localhost/").body.decode())
    url = urljoin("http://localhost/", document.uploads)
    created = call(app, "POST", url, TUS | {"Upload-Length": "5", "Upload-Metadata": "filename YQ=="})
    assert created.status == 201
    # The page takes no more of a Location than its last segment.
    upload = url + "/" + created["Location"].rpartition("/")[2]
    assert call(app, "PATCH", upload, TUS | OCTETS | {"Upload-Offset": "0"}, b"hello").status == 204
    assert (tmp_path / "uploads" / "a").read_bytes() == b"hello"
