"""Pyramid with pyramid_tm and pyramid_retry: a file is accepted with the transaction, and offered again with it."""

import base64
import io
import logging
import subprocess
import sys

import pytest
import transaction
from pyramid.config import Configurator
from webob import Request
from webob import Response as WebobResponse

from tests.support.ietf import PARTIAL, Client, digest
from tests.support.pyramid_site import PATH, Broken, Conflict, Site
from tests.support.wsgi import OCTETS, TUS, call
from tus import Tus, WebobAdapter
from tus.models import State
from tus.stores.directory.claims import DirectoryClaim

NAME = {"Upload-Metadata": "filename " + base64.b64encode(b"a.bin").decode()}
DATA = b"abcdef"
ROW = ("a.bin", DATA)
BOTH = ("pyramid_retry", "pyramid_tm")


def send(site, method, url, headers=(), body=b"", **how):
    return call(site.app, method, url, TUS | dict(headers), body, validate=False, **how)


def create(site, length=6, headers=(), body=b"", **how):
    return send(site, "POST", PATH, {"Upload-Length": str(length)} | NAME | dict(headers), body, **how)


def patch(site, url, offset=0, body=DATA, **how):
    return send(site, "PATCH", url, OCTETS | {"Upload-Offset": str(offset)}, body, **how)


def offset(site, url):
    """Return the offset for the client; the length of the file means success."""
    reply = send(site, "HEAD", url)
    assert reply.status == 200
    return int(reply["Upload-Offset"])


def state(site, url):
    return site.service.find(url).state


@pytest.fixture(params=[BOTH, (*BOTH, "tus.pyramid"), ("tus.pyramid", *BOTH)], ids=["copied", "raw", "raw-first"])
def site(request, tmp_path):
    return Site(tmp_path, *request.param)


# -- Requests that pyramid_retry runs again ----------------------------------------------------------------------


@pytest.mark.parametrize("where", ["in_view", "after_view", "at_commit"])
@pytest.mark.parametrize("how", ["PATCH", "POST", "final"])
def test_a_conflict_offers_the_file_again(site, where, how):
    if how == "PATCH":
        url = create(site)["Location"]
        assert patch(site, url, 0, DATA[:3]).status == 204
        setattr(site, where, site.fail_once())
        reply = patch(site, url, 3, DATA[3:])
        assert (reply.status, reply["Upload-Offset"]) == (204, "6")
    elif how == "POST":
        setattr(site, where, site.fail_once())
        reply = create(site, headers=OCTETS, body=DATA)
        assert (reply.status, reply["Upload-Offset"]) == (201, "6")
        url = reply["Location"]
    else:
        parts = [
            create(site, 3, OCTETS | {"Upload-Concat": "partial"}, data)["Location"] for data in (DATA[:3], DATA[3:])
        ]
        setattr(site, where, site.fail_once())
        reply = send(site, "POST", PATH, NAME | {"Upload-Concat": "final;" + " ".join(parts)})
        assert reply.status == 201
        url = reply["Location"]
    key = site.service.find(url).key
    assert site.seen == [(0, key), (1, key)], "both attempts get the file"
    assert site.rows == [ROW], "the work of the second attempt stays"
    assert (offset(site, url), state(site, url)) == (6, State.ACCEPTED) or how == "final"
    assert state(site, url) == State.ACCEPTED


@pytest.mark.parametrize("version", [3, 6, 9, None])
@pytest.mark.parametrize("where", ["in_view", "at_commit"])
@pytest.mark.parametrize("how", ["PATCH", "POST"])
def test_a_conflict_in_the_ietf_protocol(site, where, how, version):
    client = Client(None, version)

    def send(method, url, complete, headers, body):
        fields = {"Content-Type": "image/png"} | client.spoken | client.mark(complete) | headers
        return call(site.app, method, url, fields, body, validate=False)

    name = {"Content-Disposition": 'attachment; filename="a.bin"'}
    if how == "PATCH":
        url = send("POST", PATH, False, name, DATA[:3])["Location"]
        setattr(site, where, site.fail_once())
        headers = {"Content-Type": PARTIAL, "Upload-Offset": "3", "Content-Digest": digest(DATA[3:])}
        reply = send("PATCH", url, True, headers, DATA[3:])
    else:
        setattr(site, where, site.fail_once())
        reply = send("POST", PATH, True, name | {"Content-Digest": digest(DATA)}, DATA)
        url = reply["Location"]
    assert (reply.status, client.told(reply), reply["Upload-Offset"]) == (204, True, "6")
    assert (len(site.seen), [data for _, data in site.rows]) == (2, [DATA])
    assert state(site, url) == State.ACCEPTED
    assert client.told(send("HEAD", url, None, {}, b"")) is True


def test_a_conflict_on_a_request_that_only_creates(site, tmp_path):
    site.conflicts_of_calls = 2
    reply = create(site)
    assert (reply.status, site.calls) == (201, 3)
    assert len(list(tmp_path.glob("*.tus"))) == 1
    assert offset(site, reply["Location"]) == 0
    assert patch(site, reply["Location"]).status == 204
    assert site.rows == [ROW]


def test_a_conflict_on_a_request_that_only_appends(site):
    url = create(site)["Location"]
    site.conflicts_of_calls, site.calls = 2, 0
    reply = patch(site, url, 0, DATA[:4])
    assert (reply.status, reply["Upload-Offset"], site.calls) == (204, "4", 3)
    assert patch(site, url, 4, DATA[4:]).status == 204
    assert site.rows == [ROW]


@pytest.mark.parametrize("method", ["HEAD", "DELETE", "OPTIONS"])
def test_a_conflict_on_a_request_without_a_body(site, method):
    url = create(site)["Location"]
    site.conflicts_of_calls, site.calls = 1, 0
    reply = send(site, method, url)
    assert (reply.status, site.calls) == ({"DELETE": 204}.get(method, 200), 2)
    assert (reply.get("Upload-Offset") == "0") == (method == "HEAD")


def test_a_conflict_on_a_request_that_is_refused(site):
    url = create(site)["Location"]
    site.conflicts_of_calls, site.calls = 1, 0
    assert (patch(site, url, 5).status, site.calls) == (409, 2)


def test_conflicts_in_every_attempt(site):
    """The last one's exception is the application's response; the file stays."""
    url = create(site)["Location"]

    def fail():
        raise Conflict

    site.at_commit = fail
    with pytest.raises(Conflict):
        patch(site, url)
    assert (len(site.seen), site.rows) == (3, [])
    assert offset(site, url) == len(DATA) - 1
    site.at_commit = lambda: None
    assert patch(site, url, 5, DATA[5:]).status == 204
    assert (offset(site, url), site.rows) == (6, [ROW])


def test_two_adapters_in_one_attempt(site):
    """The second one, of a tween or a subscriber, is not another attempt."""
    made = []
    site.in_view = lambda request, tus: made.append(WebobAdapter(request))
    url = create(site)["Location"]
    assert patch(site, url).status == 204
    assert (made[0].request.method, site.rows) == ("PATCH", [ROW])


def test_a_cut_request_is_run_again(tmp_path):
    """With tus.pyramid, its bytes are kept, and are not read twice."""
    site = Site(tmp_path, *BOTH, "tus.pyramid")
    url = create(site)["Location"]
    site.conflicts_of_calls = 1
    patch(site, url, 0, DATA[:4], length=6)
    assert offset(site, url) == 4


# -- Transactions that end otherwise -----------------------------------------------------------------------------


@pytest.mark.parametrize("includes", [("pyramid_tm",), BOTH, (*BOTH, "tus.pyramid")], ids=len)
@pytest.mark.parametrize("where", ["in_view", "after_view", "at_commit"])
def test_an_error_keeps_the_file(tmp_path, includes, where):
    site = Site(tmp_path, *includes)
    url = create(site)["Location"]
    setattr(site, where, site.fail_once(Broken))
    with pytest.raises(Broken):
        patch(site, url)
    assert (site.rows, offset(site, url), state(site, url)) == ([], 5, State.COMPLETE)
    assert patch(site, url, 5, DATA[5:]).status == 204
    assert (site.rows, offset(site, url), state(site, url)) == ([ROW], 6, State.ACCEPTED)
    assert len({key for _, key in site.seen}) == 1


@pytest.mark.parametrize("how", ["doom", "veto"])
@pytest.mark.parametrize("way", ["PATCH", "POST"])
def test_an_abort_without_an_exception_is_no_success(tmp_path, how, way):
    """pyramid_tm passes the view's response on, which said success."""
    site = Site(tmp_path, *BOTH, "tus.pyramid", settings={"tm.commit_veto": lambda request, response: vetoes.pop()})
    vetoes = [True, False] if way == "PATCH" else [True]  # the last one first
    if how == "doom":
        vetoes = [False] * 3
        site.in_view = lambda request, tus: len(site.seen) > 1 or request.tm.doom()
    if way == "PATCH":
        url = create(site)["Location"]
        reply = patch(site, url)
        assert (reply.status, reply.get("Upload-Offset")) == (503, None)
    else:
        reply = create(site, headers=OCTETS, body=DATA)
        url = reply["Location"]
        assert (reply.status, reply["Upload-Offset"]) == (201, "5")
    assert (site.rows, state(site, url)) == ([], State.COMPLETE)
    vetoes[:] = [False] * 9
    assert offset(site, url) == 5
    assert patch(site, url, 5, DATA[5:]).status == 204
    assert (site.rows, state(site, url)) == ([ROW], State.ACCEPTED)


def test_a_refusal_counts_although_its_transaction_is_aborted(tmp_path):
    """A site with this setting aborts the transaction of every error response."""
    site = Site(tmp_path, *BOTH, settings={"tm.commit_veto": "pyramid_tm.default_commit_veto"})
    site.take = lambda tus: tus.reject_file("Not this one.", 415)
    url = create(site)["Location"]
    reply = patch(site, url)
    assert (reply.status, b"Not this one" in reply.body) == (415, True)
    assert (site.rows, state(site, url)) == ([], State.REJECTED)
    assert patch(site, url, 5, DATA[5:]).status == 415
    assert len(site.seen) == 1


def test_a_refusal_counts_only_if_it_is_the_response(tmp_path):
    site = Site(tmp_path, "pyramid_tm")
    site.take = lambda tus: tus.reject_file("Not this one.", 415)
    url = create(site)["Location"]
    site.after_view = site.fail_once(Broken)
    with pytest.raises(Broken):
        patch(site, url)
    assert state(site, url) == State.COMPLETE


def test_the_file_is_kept_until_the_commit(tmp_path):
    """Another request meanwhile finds the file in use."""
    site = Site(tmp_path, *BOTH)
    url = create(site)["Location"]
    seen = []
    site.at_commit = lambda: seen.append(send(site, "HEAD", url).status)
    assert patch(site, url).status == 204
    assert seen == [423]
    assert not list(tmp_path.glob(url.rpartition("/")[2])), "the data is removed"


def test_a_transaction_that_the_view_has_committed(tmp_path):
    """Then the file is accepted at the end of the request."""
    site = Site(tmp_path, "pyramid_tm", settings={"tm.activate_hook": None})

    def commit(request, tus):
        request.tm.commit()
        request.tm.begin()

    site.in_view = commit
    url = create(site)["Location"]
    assert patch(site, url).status == 204
    assert (site.rows, state(site, url)) == ([ROW], State.ACCEPTED)


def test_an_acceptance_that_cannot_be_recorded_is_still_a_success(tmp_path, monkeypatch, caplog):
    """The transaction is committed by then, so nothing changes the response. A repetition offers the same key again."""
    site = Site(tmp_path, "pyramid_tm")
    url = create(site)["Location"]

    def fail(*arguments):
        raise OSError("the disk is away")

    with monkeypatch.context() as broken:
        broken.setattr(DirectoryClaim, "accept", fail)
        assert patch(site, url).status == 204
    assert "could not be recorded" in caplog.text
    assert state(site, url) == State.COMPLETE
    assert patch(site, url, 5, DATA[5:]).status == 204
    assert [key for _, key in site.seen] == [site.seen[0][1]] * 2


# -- Pyramid without a transaction that is known ------------------------------------------------------------------


def failing_tween(handler, registry):
    """Stands for a site's own tween that commits after the view."""

    def tween(request):
        response = handler(request)
        if failures:
            raise failures.pop()
        return replaced.pop() if replaced else response

    return tween


failures, replaced = [], []


@pytest.fixture
def own_site(tmp_path):
    failures.clear()
    replaced.clear()
    return Site(tmp_path, tween="tests.frameworks.test_pyramid.failing_tween")


def test_a_tween_that_fails_after_the_view(own_site):
    url = create(own_site)["Location"]
    failures.append(Broken())
    with pytest.raises(Broken):
        patch(own_site, url)
    assert (offset(own_site, url), state(own_site, url)) == (5, State.COMPLETE)
    assert patch(own_site, url, 5, DATA[5:]).status == 204
    assert (offset(own_site, url), state(own_site, url)) == (6, State.ACCEPTED)


def test_a_response_that_another_one_replaces(own_site):
    """By a tween, an exception view, or the view itself after it has called cleanup_file()."""
    url = create(own_site)["Location"]
    replaced.append(WebobResponse(status=500))
    assert patch(own_site, url).status == 500
    assert state(own_site, url) == State.COMPLETE
    replaced.append(WebobResponse(status=303))
    assert patch(own_site, url, 5, DATA[5:]).status == 303
    assert state(own_site, url) == State.ACCEPTED


@pytest.mark.parametrize("includes", [(), BOTH], ids=["plain", "transaction"])
def test_a_body_that_accepts_the_file_after_the_request(tmp_path, includes):
    """Pyramid has called every callback by then, and the transaction has ended."""
    site = Site(tmp_path, *includes)
    url = create(site)["Location"]

    def view(request):
        tus = Tus(WebobAdapter(request), service=site.service)
        tus.handle()

        def produce():
            tus.cleanup_file()
            yield b"stored"

        return WebobResponse(app_iter=produce())

    site.view_of_request = view
    assert patch(site, url).body == b"stored"
    assert state(site, url) == State.ACCEPTED


def test_a_webob_view_without_a_framework(tmp_path):
    """Nothing is known of a transaction: the file is accepted at once."""
    states = []

    class Bare(Site):
        def __init__(self, directory):
            super().__init__(directory)
            self.app = lambda environ, start_response: self.view(Request(environ))(environ, start_response)
            self.after_view = lambda request: states.append(list(tmp_path.glob("[0-9a-f]" * 32)))

    site = Bare(tmp_path)
    url = create(site)["Location"]
    states.clear()
    assert patch(site, url).status == 204
    assert states == [[]], "the data is removed before the view returns"


def test_repoze_tm(tmp_path):
    """The WSGI middleware repoze.tm2 marks the environ, and uses the manager of the thread."""

    class Bare(Site):
        def __init__(self, directory):
            super().__init__(directory)
            self.app = self.run

        def run(self, environ, start_response):
            environ["repoze.tm.active"] = True
            transaction.begin()
            response = self.view(Request(environ))
            transaction.abort() if self.aborts else transaction.commit()
            return response(environ, start_response)

    site = Bare(tmp_path)
    site.aborts = False
    url = create(site)["Location"]
    site.aborts = True
    assert patch(site, url).status == 503
    assert state(site, url) == State.COMPLETE
    site.aborts = False
    assert patch(site, url, 5, DATA[5:]).status == 204
    assert state(site, url) == State.ACCEPTED


def test_repoze_tm_around_pyramid(tmp_path):
    """It commits after everything that Pyramid calls."""
    site = Site(tmp_path)
    inner, site.aborts = site.app, False

    def outer(environ, start_response):
        environ["repoze.tm.active"] = True
        transaction.begin()
        response = Request(environ).get_response(inner)
        if site.aborts:
            transaction.abort()
        else:
            transaction.commit()
        return response(environ, start_response)

    site.app = outer
    url = create(site)["Location"]
    site.aborts = True
    patch(site, url)
    assert state(site, url) == State.COMPLETE, "the file is kept"
    site.aborts = False
    assert patch(site, url, 5, DATA[5:]).status == 204
    assert state(site, url) == State.ACCEPTED


class Pipe(io.RawIOBase):
    """A server's input, which cannot be rewound."""

    def __init__(self, data):
        self.data = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self.data.readinto(buffer)


@pytest.mark.parametrize("read", ["body", "json_body", "text"])
def test_a_view_of_its_own_reads_a_request_that_could_be_an_upload(tmp_path, read):
    """A client that may resume says so to every URL, and most of them know nothing of uploads."""
    with Configurator() as config:
        config.include("tus.pyramid")
        config.add_route("api", "/api")
        config.add_view(lambda request: WebobResponse(repr(getattr(request, read)), charset="utf-8"), route_name="api")
        app = config.make_wsgi_app()
    headers = {"Upload-Complete": "?1", "Content-Type": "application/json"}
    request = Request.blank("/api", method="POST", headers=headers)
    request.environ |= {"wsgi.input": Pipe(b'{"a": 1}'), "CONTENT_LENGTH": "8"}
    assert "a" in request.get_response(app).text


# -- Bodies that were copied -------------------------------------------------------------------------------------


@pytest.fixture
def unwarned(monkeypatch):
    monkeypatch.setattr(WebobAdapter, "_has_warned", False)


def test_a_copied_body_is_reported_once(tmp_path, caplog, unwarned):
    site = Site(tmp_path, *BOTH)
    for _ in range(2):
        assert patch(site, create(site)["Location"]).status == 204
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "config.include('tus.pyramid')" in warning.getMessage()


@pytest.mark.parametrize("includes", [(), ("pyramid_tm",), (*BOTH, "tus.pyramid"), ("tus.pyramid", *BOTH)], ids=str)
def test_a_body_that_is_not_copied_is_not_reported(tmp_path, caplog, unwarned, includes):
    site = Site(tmp_path, *includes)
    assert patch(site, create(site)["Location"]).status == 204
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_form_is_still_copied(tmp_path):
    """The include changes uploads alone: a view may read another request's body twice."""
    site = Site(tmp_path, *BOTH, "tus.pyramid")
    seen = []

    def view(request):
        seen.append((request.POST["a"], request.body))
        if len(seen) == 1:
            raise Conflict
        return WebobResponse(status=204)

    with Configurator(settings={"retry.attempts": 3}) as config:
        for name in (*BOTH, "tus.pyramid"):
            config.include(name)
        config.add_route("form", "/form")
        config.add_view(view, route_name="form")
        site.app = config.make_wsgi_app()
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert call(site.app, "POST", "/form", form, b"a=1", validate=False).status == 204
    assert seen == [("1", b"a=1")] * 2


def test_the_include_needs_no_retry(tmp_path):
    site = Site(tmp_path, "tus.pyramid")
    assert patch(site, create(site)["Location"]).status == 204


def test_nothing_of_pyramid_is_imported_without_it():
    code = "import sys, tus; print(sorted({'pyramid', 'transaction', 'django', 'ZPublisher'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "[]\n"
