"""Views under real servers with pools of threads: a view that raises holds the file no longer than its request."""

import gc
import http.client
import os
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import pytest
from flask import Flask, Response, request

from tests.support.pool import in_pool
from tests.support.serving import ROOT, free_port, wait_for_port
from tests.support.waiting import GUARD
from tests.support.wsgi import OCTETS, TUS
from tus import Service, Tus
from tus.adapters.wsgi import WsgiAdapter

DATA = b"hello"


def send(port, method, path, headers=(), body=b""):
    """Send a request over a connection of its own; return the status and the header fields."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=GUARD)
    try:
        connection.request(method, urlsplit(path).path, body, TUS | dict(headers))
        reply = connection.getresponse()
        reply.read()
        return reply.status, reply.headers
    finally:
        connection.close()


def create(port):
    _, headers = send(port, "POST", "/up", {"Upload-Length": str(len(DATA))})
    return headers["Location"]


def patch(port, url, offset=0, body=DATA):
    return send(port, "PATCH", url, OCTETS | {"Upload-Offset": str(offset)}, body)[0]


def offset(port, url):
    status, headers = send(port, "HEAD", url)
    return status, headers.get("Upload-Offset")


class Site:
    """A Flask application whose view raises, or waits, as the test says; its exceptions are kept."""

    def __init__(self, directory):
        self.service = Service(tmp_file_dir=directory, threads=False)
        self.kept = []
        self.is_broken = True
        self.began, self.may_go_on = threading.Event(), threading.Event()
        self.may_go_on.set()
        self.app = Flask(__name__)
        self.app.add_url_rule("/up", view_func=self.view, methods=["POST"])
        self.app.add_url_rule("/up/<rest>", view_func=self.view, methods=["HEAD", "PATCH"])

    def view(self, rest=""):
        try:
            return self.respond()
        except Exception as error:
            self.kept.append(error)
            raise

    def respond(self):
        adapter = WsgiAdapter(request.environ)
        tus = Tus(adapter, service=self.service)
        tus.handle()
        if tus.upload_finished:
            self.began.set()
            assert self.may_go_on.wait(GUARD)
            if self.is_broken:
                raise RuntimeError("the database is down")
            tus.cleanup_file()
        answer = adapter.response
        return Response(answer.body, answer.status, answer.headers)


@pytest.fixture
def site(tmp_path):
    return Site(str(tmp_path))


@pytest.fixture
def port(site):
    """The port of waitress with four threads, in this process, which collects no garbage meanwhile."""
    gc.disable()
    with in_pool(site.app, threads=4) as port:
        yield port
    gc.enable()


def test_a_view_that_raises_in_a_pool(site, port):
    url = create(port)
    assert patch(port, url) == 500
    assert [offset(port, url) for _ in range(12)] == [(200, "4")] * 12
    assert patch(port, url, 4, b"o") == 500
    assert len(site.kept) == 2
    site.is_broken = False
    assert patch(port, url, 4, b"o") == 204
    assert offset(port, url) == (200, "5")


def test_a_view_at_work_in_a_pool(site, port):
    url = create(port)
    site.may_go_on.clear()
    statuses = []
    client = threading.Thread(target=lambda: statuses.append(patch(port, url)))
    client.start()
    assert site.began.wait(GUARD)
    assert [offset(port, url) for _ in range(12)] == [(423, None)] * 12
    site.is_broken = False
    site.may_go_on.set()
    client.join(GUARD)
    assert statuses == [204]
    assert offset(port, url) == (200, "5")


GEVENT = """
import gevent.monkey
gevent.monkey.patch_all()
import gc, sys, time
from gevent.pywsgi import WSGIServer
from tests.servers.test_views import Site
gc.disable()
site = Site(sys.argv[2])
class Switch:
    def wait(self, seconds):
        time.sleep(1.0)  # others are served meanwhile
        return True
site.may_go_on = Switch()
WSGIServer(("127.0.0.1", int(sys.argv[1])), site.app).serve_forever()
"""


def test_views_under_gevent(tmp_path):
    """Its greenlets are threads to the code that it patches."""
    port, log = free_port(), tmp_path / "log"
    (tmp_path / "site").mkdir()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", GEVENT, str(port), str(tmp_path / "site")],
            cwd=ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=output,
        )
    try:
        wait_for_port(port, process, log)
        url = create(port)
        statuses = []
        client = threading.Thread(target=lambda: statuses.append(patch(port, url)))
        client.start()
        seen = set()
        while client.is_alive():
            seen.add(offset(port, url))
        assert statuses == [500]
        assert (423, None) in seen, "while the view is at work"
        assert seen <= {(423, None), (200, "0"), (200, "4")}
        assert offset(port, url) == (200, "4")
    finally:
        process.kill()
        process.wait()
