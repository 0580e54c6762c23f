"""Django views with a database: a file is accepted with the transaction that its row is in."""

import base64
import contextlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIHandler
from django.db import connection, connections, transaction
from django.test import RequestFactory, override_settings
from django.views.decorators.gzip import gzip_page
from webob import Request

from tests.support import django_site
from tests.support.waiting import GUARD
from tests.support.wsgi import OCTETS, TUS, call
from tus import Service, Tus, open_store
from tus.adapters.django import DjangoAdapter
from tus.models import Response, State
from tus.stores.directory.claims import DirectoryClaim

DATA = b"abcdef"
PATH = "/files"


class Broken(Exception):
    """An error of a view."""


class Site:
    """A view that inserts a row for each file.

    Attributes:
        before: called with the ``Tus`` before the row is inserted.
        after: called with the ``Tus`` after the file was settled.
        block: the context managers around the row and the file.
        settle: how the view settles the file.
        seen: the keys that were offered.
    """

    def __init__(self, directory):
        self.service = Service(tmp_file_dir=str(directory), threads=False, download=True)
        self.before = self.after = self.at_end = lambda tus: None
        self.block = ExitStack
        self.settle = Tus.cleanup_file
        self.seen = []
        self.decorate = lambda view: view
        self.app = django_site.django_application(lambda request: self.decorate(self.view)(request))

    def view(self, request):
        adapter = DjangoAdapter(request)
        with Tus(adapter, service=self.service) as tus:
            tus.handle()
            if tus.upload_finished:
                self.seen.append(tus.upload.key)
                self.before(tus)
                with self.block():
                    with connection.cursor() as cursor:
                        cursor.execute("insert into files values (%s, %s)", [tus.upload.key, self.owner])
                    self.settle(tus)
                    self.after(tus)
                self.at_end(tus)
        return adapter.resp

    owner = 1


@pytest.fixture
def site(tmp_path):
    django_site.configure()
    with connection.cursor() as cursor:
        cursor.execute("create table owners (id integer primary key)")
        cursor.execute(
            "create table files (key text unique, owner integer references owners deferrable initially deferred)"
        )
        cursor.execute("insert into owners values (1)")
    yield Site(tmp_path)
    connection.close()
    with connection.cursor() as cursor:
        cursor.execute("drop table files")
        cursor.execute("drop table owners")
    connections.close_all()


@pytest.fixture
def atomic(site, monkeypatch):
    """Django opens a transaction around each view."""
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)


@pytest.fixture(params=["ATOMIC_REQUESTS", "decorator", "block"])
def transactional(request, site):
    """A site whose row and file are in a transaction."""
    if request.param == "ATOMIC_REQUESTS":
        request.getfixturevalue("atomic")
    elif request.param == "decorator":
        site.decorate = transaction.atomic
    else:
        site.block = transaction.atomic
    return site


def send(site, method, url, headers=(), body=b""):
    return call(site.app, method, url, TUS | dict(headers), body, validate=False)


def create(site, headers=(), body=b""):
    return send(site, "POST", PATH, {"Upload-Length": str(len(DATA))} | dict(headers), body)


def patch(site, url, offset=0, body=DATA):
    return send(site, "PATCH", url, OCTETS | {"Upload-Offset": str(offset)}, body)


def offset(site, url):
    """Return the offset for the client; the length of the file means success."""
    return int(send(site, "HEAD", url)["Upload-Offset"])


def state(site, url):
    return site.service.find(url).state


def rows():
    with connection.cursor() as cursor:
        cursor.execute("select key from files")
        return [key for (key,) in cursor.fetchall()]


def assert_kept_then_accepted(site, url):
    """The file is offered again under the same key, and the second work on it stays."""
    assert (rows(), offset(site, url), state(site, url)) == ([], 5, State.COMPLETE)
    site.before = site.after = site.at_end = lambda tus: None
    site.owner = 1
    assert patch(site, url, 5, DATA[5:]).status == 204
    assert (offset(site, url), state(site, url)) == (6, State.ACCEPTED)
    assert rows() == [site.service.find(url).key] == list(set(site.seen))
    assert len(site.seen) == 2


def raise_(error):
    raise error


def test_a_file_is_accepted_with_its_row(transactional):
    site = transactional
    url = create(site)["Location"]
    states = []
    with ThreadPoolExecutor(1) as pool:  # a request in this thread would close the connection
        site.after = lambda tus: states.append(pool.submit(send, site, "HEAD", url).result(GUARD).status)
        reply = patch(site, url)
        pool.submit(connections.close_all).result(GUARD)
    assert (reply.status, reply["Upload-Offset"], reply.body) == (204, "6", b"")
    assert (states, rows()) == ([423], site.seen), "the file is in use until the commit"
    assert (offset(site, url), state(site, url)) == (6, State.ACCEPTED)


def test_a_creation_with_its_data(transactional):
    reply = create(transactional, OCTETS, DATA)
    assert (reply.status, reply["Upload-Offset"]) == (201, "6")
    assert (rows(), state(transactional, reply["Location"])) == (transactional.seen, State.ACCEPTED)


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_view_that_raises(transactional, where):
    url = create(transactional)["Location"]
    setattr(transactional, where, lambda tus: raise_(Broken()))
    reply = patch(transactional, url)
    assert reply.status == 500
    assert_kept_then_accepted(transactional, url)


def test_a_commit_that_fails(transactional):
    """A constraint that the database checks at the commit: the client must not get success."""
    transactional.owner = 2
    url = create(transactional)["Location"]
    assert patch(transactional, url).status == 500
    assert_kept_then_accepted(transactional, url)


def test_a_commit_that_fails_ends_the_claim_before_the_response(transactional, tmp_path):
    """A client that retries at once, at another process, is not refused."""
    transactional.owner = 2
    upload_id = create(transactional)["Location"].rpartition("/")[2]
    environ = Request.blank(
        f"{PATH}/{upload_id}", method="PATCH", body=DATA, headers=TUS | OCTETS | {"Upload-Offset": "0"}
    ).environ
    statuses = []
    response = transactional.app(environ, lambda status, *_: statuses.append(status))
    with contextlib.closing(response):
        assert statuses == ["500 Internal Server Error"]
        other = open_store(str(tmp_path))
        other.claim(other.load(upload_id)).release()


def test_a_commit_that_fails_after_a_creation_with_data(transactional):
    transactional.owner = 2
    reply = create(transactional, OCTETS, DATA)
    assert reply.status == 500
    assert rows() == []
    (upload,) = transactional.service.list()
    assert upload.state == State.COMPLETE


@pytest.mark.parametrize("how", ["PATCH", "POST"])
def test_a_rollback_without_an_exception_is_no_success(transactional, how):
    """The view has its response already, which says success."""
    transactional.after = lambda tus: transaction.set_rollback(True)
    if how == "PATCH":
        url = create(transactional)["Location"]
        reply = patch(transactional, url)
        assert (reply.status, reply.get("Upload-Offset"), reply["Retry-After"].isdigit()) == (503, None, True)
        assert reply["Content-Length"] == str(len(reply.body))
    else:
        reply = create(transactional, OCTETS, DATA)
        url = reply["Location"]
        assert (reply.status, reply["Upload-Offset"]) == (201, "5")
    assert_kept_then_accepted(transactional, url)


def test_a_savepoint_that_is_rolled_back(site, atomic):
    """The view survives the error of an inner block, and its transaction is committed without the row."""

    def settle(tus):
        tus.cleanup_file()
        if len(site.seen) == 1:
            raise Broken

    def view(request):
        adapter = DjangoAdapter(request)
        with Tus(adapter, service=site.service) as tus:
            tus.handle()
            if tus.upload_finished:
                site.seen.append(tus.upload.key)
                try:
                    with transaction.atomic():
                        with connection.cursor() as cursor:
                            cursor.execute("insert into files values (%s, 1)", [tus.upload.key])
                        settle(tus)
                except Broken:
                    pass
        return adapter.resp

    site.view = view
    url = create(site)["Location"]
    assert patch(site, url).status == 503
    assert_kept_then_accepted(site, url)


def test_a_transaction_of_middleware(site):
    """It ends after the view and its decorators, and only the final response shows how."""

    def roll_back(get_response):
        def middleware(request):
            with transaction.atomic():
                response = get_response(request)
                transaction.set_rollback(rolls_back)
            return response

        return middleware

    globals()["roll_back"] = roll_back
    rolls_back = False
    with override_settings(MIDDLEWARE=[f"{__name__}.roll_back", "django.middleware.common.CommonMiddleware"]):
        site.app = WSGIHandler()
    url = create(site)["Location"]
    rolls_back = True
    assert patch(site, url).status == 503
    rolls_back = False
    assert_kept_then_accepted(site, url)


def test_a_refusal_counts_although_its_transaction_is_rolled_back(site, atomic):
    site.settle = lambda tus: (tus.reject_file("Not this one.", 415), transaction.set_rollback(True))
    url = create(site)["Location"]
    reply = patch(site, url)
    assert (reply.status, reply.body) == (415, b"Not this one.\n")
    assert (rows(), state(site, url)) == ([], State.REJECTED)
    assert patch(site, url, 5, DATA[5:]).status == 415
    assert len(site.seen) == 1


def test_a_refusal_of_a_view_that_raises_does_not_count(site, atomic):
    site.settle = lambda tus: (tus.reject_file("Not this one.", 415), raise_(Broken()))
    url = create(site)["Location"]
    assert patch(site, url).status == 500
    site.settle = Tus.cleanup_file
    assert_kept_then_accepted(site, url)


def test_an_acceptance_that_cannot_be_recorded_is_still_a_success(site, atomic, monkeypatch, caplog):
    """The transaction is committed by then, so nothing changes the response. A repetition offers the same key again."""
    url = create(site)["Location"]
    with monkeypatch.context() as broken:
        broken.setattr(DirectoryClaim, "accept", lambda *arguments: raise_(OSError("the disk is away")))
        assert patch(site, url).status == 204
    assert "could not be recorded" in caplog.text
    assert (rows(), state(site, url)) == (site.seen, State.COMPLETE)


def test_without_a_transaction_a_file_is_accepted_at_once(site, tmp_path):
    kept = []
    site.before = lambda tus: tus.upload.open().close()  # data that nothing has taken is kept
    site.after = lambda tus: kept.extend(tmp_path.glob("[0-9a-f]" * 32))
    url = create(site)["Location"]
    assert patch(site, url).status == 204
    assert kept == [], "the data is removed before the view returns"


def test_a_view_that_is_not_atomic(site, atomic, monkeypatch):
    """Then the block in the view counts."""
    monkeypatch.setattr(
        django_site.urlpatterns[0], "callback", transaction.non_atomic_requests(lambda request: site.view(request))
    )
    site.block = transaction.atomic
    url = create(site)["Location"]
    site.at_end = lambda tus: raise_(Broken())
    assert patch(site, url).status == 500
    assert (rows(), state(site, url)) == (site.seen, State.ACCEPTED), "the block was committed"


def test_another_database(site, monkeypatch):
    """The transaction of the database that is named counts."""
    monkeypatch.setitem(connections.settings, "other", connections.settings["default"] | {"ATOMIC_REQUESTS": False})
    settled = []

    def view(request):
        adapter = DjangoAdapter(request, using="other")
        with Tus(adapter, service=site.service) as tus:
            tus.handle()
            if tus.upload_finished:
                with transaction.atomic(using="default"):
                    tus.cleanup_file()
                    settled.append(site.service.find(tus.upload.id).state)
        return adapter.resp

    site.view = view
    assert patch(site, create(site)["Location"]).status == 204
    assert settled == [State.ACCEPTED]
    connections["other"].close()


def test_a_claim_ends_with_its_request(site, tmp_path):
    """Another process can have the file as soon as Django has finished the request, without another request here."""
    site.before = lambda tus: raise_(Broken())
    kept = []
    site.decorate = lambda view: lambda request: kept.append(request) or view(request)
    url = create(site)["Location"]
    assert patch(site, url).status == 500
    other = open_store(str(tmp_path))
    other.claim(other.load(url.rpartition("/")[2])).release()


def test_a_view_without_a_block_that_calls_its_own_site(site, tmp_path):
    """The inner request ends first, and does not end the claim of the outer one."""
    states = []

    def view(request):
        adapter = DjangoAdapter(request)
        tus = Tus(adapter, service=site.service)
        tus.handle()
        if tus.upload_finished:
            states.extend(send(site, "HEAD", url).status for _ in range(2))
            tus.cleanup_file()
        return adapter.resp

    site.view = view
    url = create(site)["Location"]
    assert patch(site, url).status == 204
    assert (states, state(site, url)) == ([423, 423], State.ACCEPTED)


def test_a_download_is_streamed(site):
    site.settle = lambda tus: tus.postpone_file()
    url = create(site)["Location"]
    patch(site, url)
    reply = send(site, "GET", url)
    assert (reply.status, reply.body, reply["Content-Length"]) == (200, DATA, "6")


def test_headers_are_those_of_the_last_response(site, atomic):
    """Cookies and fields of the view and of middleware are kept."""

    def view(request):
        response = plain(request)
        response["X-App"] = "1"
        response.set_cookie("seen", "yes")
        return response

    plain = site.view
    site.view = view
    site.decorate = gzip_page
    site.after = lambda tus: transaction.set_rollback(True)
    url = create(site)["Location"]
    reply = patch(site, url)
    assert (reply.status, reply["X-App"], "seen=yes" in reply["Set-Cookie"]) == (503, "1", True)
    assert reply.get("Content-Type").startswith("text/plain")
    assert "Content-Type" not in create(site).headers


def test_asgi_has_another_way(site):
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    with pytest.raises(TypeError, match="TusMiddleware"):
        DjangoAdapter(ASGIRequest(scope, None))


def test_a_name_in_the_metadata(site, atomic):
    names = []
    site.before = lambda tus: names.append(tus.upload.filename)
    name = base64.b64encode(b"a.bin").decode()
    url = create(site, {"Upload-Metadata": f"filename {name}"})["Location"]
    assert (patch(site, url).status, names) == (204, ["a.bin"])


def test_the_body_of_a_response_is_closed_after_it_was_sent(site):
    """Behind some bodies the rest of the request is read then."""

    class Body:
        is_closed = False

        def __iter__(self):
            return iter([b"too ", b"large"])

        def close(self):
            self.is_closed = True

    body, adapter = Body(), DjangoAdapter(RequestFactory().post(PATH))
    adapter.respond(Response(413, "Content Too Large", [("Content-Type", "text/plain")], body))
    assert (adapter.resp.status_code, adapter.resp.content, body.is_closed) == (413, b"too large", False)
    adapter.resp.close()
    assert body.is_closed
