"""Webhooks, with real endpoints on sockets."""

import base64
import errno
import hashlib
import hmac
import itertools
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest

from tests.support.documents import blocks
from tests.support.endpoint import Endpoint
from tests.support.serving import ROOT, free_port
from tests.support.subjects import PATH, AsgiSubject, FilterSubject, ViewSubject
from tests.support.waiting import GUARD, wait_until
from tus import Options
from tus.errors import HookUnavailable, OptionError, StorageUnavailable
from tus.hooks import bounded, outbox, webhook
from tus.hooks.outbox import Event, Outbox
from tus.hooks.webhook import LONGEST_REPLY, Webhook, WebhookError, verify
from tus.models import HookEvent, HookReply, HookType, Upload

ALL = tuple(map(str, HookType))
NAMED = {"Upload-Metadata": "filename w7wudHh0,note eA=="}
ENCODED = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def endpoint(monkeypatch):
    for room, name, value in ((webhook, "PAUSE", 0.01), (outbox, "_BUSY", 0.02), (outbox, "FIRST_DELAY", 0.05)):
        monkeypatch.setattr(room, name, value)
    with closing(Endpoint()) as endpoint:
        yield endpoint


@pytest.fixture
def site(endpoint, tmp_path):
    """Make a site that posts these events."""

    def site(*events, **options):
        options = {"webhook": endpoint.url, "webhook_events": events, "tmp_file_dir": str(tmp_path)} | options
        subject = FilterSubject(**options)
        subject.hooks, subject.store = subject.app.backlog.hooks, subject.app.service.store
        return subject

    return site


def id_of(url):
    return url.strip().rpartition("/")[2]


def test_every_event_as_tusd_has_it(site, endpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("tus.server.reception._TELL_EVERY", 0)
    subject, data = site(*ALL, keep_finished="true"), b"x" * 300_000
    url = subject.url(len(data), NAMED | {"X-Thing": "1"}, environ={"REMOTE_ADDR": "192.0.2.1"})
    endpoint.wait(2)  # one of the outbox is not in order with what is asked at once
    assert subject.patch(url + "?query", 0, data).status == 204
    progress = [post.upload["Offset"] for post in endpoint.heard if post.type == "post-receive"]
    assert progress == sorted({0, *progress})[1:], "each is further than the one before"
    finished = endpoint.wait(len(progress) + 4)[-1].upload["Storage"]
    assert (os.path.getsize(finished["Path"]), os.path.exists(finished["InfoPath"])) == (len(data), True)
    assert subject.send("DELETE", url).status == 204
    heard = endpoint.wait(len(progress) + 6)
    assert tuple(dict.fromkeys(post.type for post in heard)) == ALL
    id, path = id_of(url), str(tmp_path / id_of(url))
    upload = {
        "ID": "", "Size": len(data), "SizeIsDeferred": False, "Offset": 0, "IsPartial": False, "IsFinal": False,
        "MetaData": {"filename": "ü.txt", "note": "x"}, "PartialUploads": None, "Storage": None,
    }  # fmt: skip
    created = upload | {"ID": id, "Storage": {"Type": "filestore", "Path": path, "InfoPath": path + ".tus"}}
    offsets = [0, 0, *progress, *[len(data)] * 4]
    assert [post.upload for post in heard] == [upload, *(created | {"Offset": offset} for offset in offsets[1:])]
    methods = (
        [("POST", PATH)] * 2 + [("PATCH", f"{PATH}/{id}")] * (len(progress) + 2) + [("DELETE", f"{PATH}/{id}")] * 2
    )
    assert [(post.request["Method"], post.request["URI"]) for post in heard] == methods
    assert heard[0].request["RemoteAddr"] == "192.0.2.1"
    head = {"Host": "localhost", "X-Thing": "1", "Upload-Length": "300000", "Tus-Resumable": "1.0.0", **NAMED}
    assert {name: heard[0].request["Header"][name] for name in head} == {name: [value] for name, value in head.items()}
    assert all(json.loads(post.body).keys() == {"Type", "ID", "Event"} for post in heard)
    assert all(post.headers["Content-Type"] == "application/json" for post in heard)
    assert [post.headers["Webhook-Id"] for post in heard] == [post.id for post in heard]
    assert len({post.id for post in heard}) == len(heard)
    assert not any("Webhook-Signature" in post.headers for post in heard)


def test_a_deferred_length_parts_and_a_final_upload(site, endpoint):
    subject = site("pre-create", "post-finish")
    subject.create()
    deferred = endpoint.heard[0].upload
    assert (deferred["Size"], deferred["SizeIsDeferred"], deferred["MetaData"]) == (0, True, {})
    urls = [subject.url(2, {"Upload-Concat": "partial"}, body=b"xy") for _ in range(2)]
    assert [post.upload["IsPartial"] for post in endpoint.wait(3)] == [False, True, True]
    assert subject.send("POST", PATH, {"Upload-Concat": "final;" + " ".join(urls)}).status == 201
    for post, offset in zip(endpoint.wait(5)[3:], (0, 4), strict=True):
        upload = post.upload
        assert (upload["IsPartial"], upload["IsFinal"], upload["Size"], upload["Offset"]) == (False, True, 4, offset)
        assert upload["PartialUploads"] == [id_of(url) for url in urls]


def test_credentials_are_forwarded_only_if_they_are_named(site, endpoint, tmp_path):
    credentials = {"Cookie": "session=1", "Authorization": "Bearer 2", "Proxy-Authorization": "Basic 3"}
    names = "cookie authorization content-length content-type host webhook-id x-missing"
    site("pre-create", "post-finish").create(5, credentials, b"hello")
    endpoint.wait(2)
    options = {"webhook_forward_headers": names, "tmp_file_dir": str(tmp_path / "again")}
    again = site("pre-create", "post-finish", **options)
    again.create(5, credentials | {"Webhook-Id": "forged"}, b"hello")
    for number, post in enumerate(endpoint.wait(4)):
        for name, value in credentials.items():
            passed = [value] if number > 1 and name != "Proxy-Authorization" else None
            assert post.request["Header"].get(name) == post.headers.get_all(name) == passed
            assert (value.encode() in post.body) == bool(passed)
        assert post.headers.get_all("Webhook-Id") == [post.id]
        assert post.headers.get_all("Content-Type") == ["application/json"]
        assert post.headers.get_all("Host") == [f"127.0.0.1:{endpoint.server_port}"]


@pytest.mark.parametrize("secret", [ENCODED, "correct horse battery: ü"], ids=["whsec", "raw"])
def test_the_signature(site, endpoint, secret):
    site("pre-create", "post-create", webhook_secret=secret).create(5)
    key = base64.b64decode(secret[6:]) if secret == ENCODED else secret.encode()
    for post in endpoint.wait(2):
        fields, stamp = dict(post.headers.items()), post.headers["Webhook-Timestamp"]
        assert abs(int(stamp) - time.time()) < 20
        digest = hmac.digest(key, b".".join((post.id.encode(), stamp.encode(), post.body)), hashlib.sha256)
        assert fields["Webhook-Signature"] == "v1," + base64.b64encode(digest).decode()
        assert verify(secret, post.headers, post.body)
        assert verify(secret, fields | {"Webhook-Signature": f"v1,b2xk v2,x {fields['Webhook-Signature']}"}, post.body)
        assert not verify(secret + "Qmad", post.headers, post.body)
        assert not verify(secret, post.headers, post.body + b" ")
        for age, is_fresh in ((300, True), (301, False), (-300, True), (-301, False)):
            assert verify(secret, post.headers, post.body, now=int(stamp) + age) == is_fresh
        for name in ("Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"):
            for garbage in ("", "x", "-1", "9" * 5000, "v1,", "ü\xff"):
                assert not verify(secret, fields | {name: garbage}, post.body)
            assert not verify(secret, {key: value for key, value in fields.items() if key != name}, post.body)
    with pytest.raises(OptionError, match="at least 24 random bytes, and has 0"):
        verify("", fields, post.body)


def test_a_secret_that_can_be_guessed_is_refused(site):
    short = "whsec_" + base64.b64encode(b"x" * 23).decode()
    for bad in ("a", "ü", "x" * 23, short, "whsec_", "whsec_!", "whsec_ü"):
        with pytest.raises(OptionError, match="webhook_secret") as wrong:
            site("pre-create", webhook_secret=bad)
        assert "at least 24 random bytes" in str(wrong.value) or "Base64" in str(wrong.value)
        secret = bad.removeprefix("whsec_")
        assert len(secret) < 3 or secret not in str(wrong.value)
    site("pre-create", webhook_secret="x" * 24)


TEAPOT = {"StatusCode": 418, "Body": "tea ü\n", "Header": {"X-Hook": "é", "Content-Length": "9", "Keep-Alive": "5"}}
GO_ZERO = {"StopUpload": False, "RejectUpload": False, "RejectTermination": False}
GO_ZERO["HTTPResponse"] = {"StatusCode": 0, "Body": "", "Header": None}
GO_ZERO["ChangeFileInfo"] = {"ID": "", "MetaData": None, "Storage": None}


def test_pre_create_rejects(site, endpoint):
    subject = site("pre-create", "post-create")
    endpoint.answers["pre-create"] = [{"RejectUpload": True, "HTTPResponse": TEAPOT}, {"rejectupload": True}]
    reply = subject.create(5)
    assert (reply.status, reply.body.decode(), reply["X-Hook"], reply["Content-Length"]) == (418, "tea ü\n", "é", "7")
    assert reply.get("Keep-Alive") is None
    assert subject.create(5).status == 400, "Go does not care for the case of names"
    assert [post.type for post in endpoint.heard] == ["pre-create"] * 2


def test_pre_create_changes_the_upload(site, endpoint):
    subject, metadata = site("pre-create"), {"filename": "b.txt", "owner": "ü"}
    changes = {"ID": "ab" * 16, "MetaData": metadata, "Storage": {"Path": "c.txt"}}
    added = {"Header": {"X-A": "1", "x-a": "2", "Tus-Resumable": "9"}}
    endpoint.answers["pre-create"] = {"ChangeFileInfo": changes, "HTTPResponse": added}
    reply = subject.create(5, NAMED)
    assert (id_of(reply["Location"]), reply["X-A"], reply["Tus-Resumable"]) == ("ab" * 16, "2", "1.0.0")
    assert subject.store.load("ab" * 16).text_metadata == metadata | {"filename": "c.txt"}
    assert subject.create(5).status == 503, "there is one of this id"


@pytest.mark.parametrize("answer", [GO_ZERO, b"", b" \n", {}, {"Other": [1]}, 204])
def test_answers_that_say_nothing(site, endpoint, answer):
    subject, endpoint.answers = site(*ALL), dict.fromkeys(ALL, answer)
    url = subject.url(5, NAMED)
    assert subject.store.load(id_of(url)).raw_metadata == NAMED["Upload-Metadata"]
    assert (subject.patch(url, 0, b"hello").status, subject.send("DELETE", url).status) == (204, 204)


@pytest.mark.parametrize(
    "answer",
    [
        b"{", b"[]", b"null", b"\xff", b"[" * 3000, b"9" * 5000, b'{"HTTPResponse": {"Body": "\\ud800"}}',
        {"RejectUpload": "no"}, {"RejectUpload": 1}, {"HTTPResponse": []}, {"HTTPResponse": {"StatusCode": "400"}},
        {"HTTPResponse": {"StatusCode": True}}, {"HTTPResponse": {"StatusCode": 999}}, {"HTTPResponse": {"Body": {}}},
        {"HTTPResponse": {"StatusCode": 101}}, {"ChangeFileInfo": {"MetaData": {"a": 1}}},
        {"ChangeFileInfo": {"MetaData": {"a b": "x"}}}, {"ChangeFileInfo": {"Storage": "c.txt"}},
        {"ChangeFileInfo": {"ID": "../etc"}}, b'{"ChangeFileInfo": {"Storage": {"Path": "\\ud800"}}}',
        b" " * (LONGEST_REPLY + 1),
        *({"HTTPResponse": {"Header": {"X-Hook": bad}}} for bad in (["x"], "x\r\nSet-Cookie: a=b", "x\ny", "\0", "€")),
        *({"HTTPResponse": {"Header": {bad: "x"}}} for bad in ("", "X Hook", "X:")),
    ],
    ids=str,
)  # fmt: skip
def test_answers_that_make_no_sense(site, endpoint, caplog, answer):
    """Nothing is done then, and what is wrong is the operator's to read, who publishes his logs."""
    endpoint.answers["pre-create"] = answer
    reply = site("pre-create", webhook_secret="confidential, and long enough").create(5)
    assert (reply.status, reply.get("Set-Cookie"), len(endpoint.heard)) == (503, None, 1)
    assert "the hook pre-create failed" in caplog.text
    assert not any(secret in caplog.text for secret in ("hush", "confidential"))


def test_pre_finish_and_pre_terminate_reject(site, endpoint):
    subject = site("pre-finish", "post-finish", "pre-terminate", "post-terminate")
    endpoint.answers["pre-terminate"] = [{"RejectTermination": True, "HTTPResponse": TEAPOT}, {"RejectUpload": True}]
    endpoint.answers["pre-finish"] = {"RejectUpload": True, "HTTPResponse": TEAPOT}
    url = subject.url(5)
    assert (subject.send("DELETE", url).status, subject.patch(url, 0, b"hello").status) == (418, 418)
    assert subject.send("DELETE", url).status == 204
    types = [post.type for post in endpoint.wait(4)]
    assert (types, subject.landed) == (["pre-terminate", "pre-finish", "pre-terminate", "post-terminate"], [])


def test_post_receive_stops_an_upload(site, endpoint, monkeypatch):
    monkeypatch.setattr("tus.server.reception._TELL_EVERY", 0)
    subject = site("post-receive", "post-terminate")
    endpoint.answers["post-receive"] = [500, b"{", {"StopUpload": True, "HTTPResponse": TEAPOT}]
    url = subject.url(10**6)
    assert subject.patch(url, 0, b"x" * 10**6).status == 418
    assert [post.type for post in endpoint.wait(4)] == ["post-receive"] * 3 + ["post-terminate"], "not repeated"
    assert subject.head(url).status in (404, 410)


@pytest.mark.parametrize(
    ("answers", "status", "tries"), [([500, 408, b""], 201, 3), ([500], 503, 3), ([400], 503, 1), ([302], 503, 1)]
)
def test_how_often_it_is_tried(site, endpoint, answers, status, tries):
    endpoint.answers["pre-create"], endpoint.fields["Location"] = answers, endpoint.url
    assert site("pre-create").create(5).status == status
    assert [post.id for post in endpoint.heard] == [endpoint.heard[0].id] * tries


@pytest.mark.parametrize("head", ["Content-Length: 999\r\n\r\n", "Connection: close\r\n\r\n", "X-", ""])
def test_an_endpoint_that_trickles_is_cut_off(tmp_path, head):
    def trickle():
        client, _ = server.accept()
        with client, suppress(OSError):
            client.recv(1 << 16)
            client.sendall(b"HTTP/1.1 200 OK\r\n" + head.encode())
            for _ in range(2 * GUARD * 20):
                time.sleep(0.05)
                client.sendall(b" " if head else b"")

    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        threading.Thread(target=trickle, daemon=True).start()
        hook = Webhook(f"http://127.0.0.1:{server.getsockname()[1]}", events=(), directory=str(tmp_path))
        began = time.monotonic()
        with pytest.raises(WebhookError, match=r"did not respond within 0\.3 seconds"):
            hook.post(b"{}", "1", 0.3)
        assert 0.3 <= time.monotonic() - began < GUARD


class Silent:
    """An endpoint that accepts connections, and answers when it is told to.

    Attributes:
        connections: all that it has accepted.
    """

    def __init__(self):
        self._server = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}/"
        self.connections = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with suppress(OSError):
            while True:
                self.connections.append(self._server.accept()[0])

    def answer(self):
        for connection in self.connections:
            with suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def close(self):
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # accept() returns
        self._server.close()
        for connection in self.connections:
            connection.close()


@pytest.fixture
def silent():
    with closing(Silent()) as silent:
        yield silent


def in_threads(function, count):
    """Call a function in threads of their own, and return their results as they come."""
    results = []
    for _ in range(count):
        threading.Thread(target=lambda: results.append(function()), daemon=True).start()
    return results


@pytest.mark.parametrize("kind", [FilterSubject, ViewSubject, AsgiSubject])
def test_a_webhook_that_does_not_answer_holds_a_few_threads(silent, tmp_path, kind, monkeypatch, caplog):
    monkeypatch.setattr(bounded, "QUICK", 0.0)  # nobody waits for a place
    options = {
        "webhook": silent.url,
        "webhook_events": "pre-create",
        "webhook_threads": 3,
        "webhook_timeout": 2 * GUARD,
    }
    subject = kind(tmp_file_dir=str(tmp_path), **options)
    held = in_threads(lambda: subject.create(5).status, 3)
    wait_until(lambda: len(silent.connections) == 3)
    for _ in range(5):
        reply = subject.create(5)
        assert (reply.status, reply["Retry-After"], reply["Tus-Resumable"]) == (503, "5", "1.0.0")
        assert reply.body == b"This upload cannot be checked at the moment; try again.\n"
    assert (held, len(silent.connections)) == ([], 3), "the others wait, and nobody else has asked"
    assert "webhook_threads" in caplog.text
    silent.answer()
    wait_until(lambda: held == [201] * 3)
    refused = len(list(subject.stored().list()))
    assert refused == 3


def test_as_many_wait_for_a_place_while_the_webhook_is_quick(silent, tmp_path, monkeypatch):
    monkeypatch.setattr(bounded, "QUICK", 2.0 * GUARD)
    hook = Webhook(silent.url, events={HookType.PRE_CREATE}, directory=str(tmp_path), threads=2)
    ask = partial(hook.pre_create, HookEvent(HookType.PRE_CREATE, "1", Upload()))
    done = in_threads(ask, 4)
    wait_until(lambda: len(silent.connections) == 2 and hook._asking._waiting == 2)
    with pytest.raises(HookUnavailable):
        ask()
    silent.answer()
    wait_until(lambda: len(silent.connections) == 4)
    silent.answer()
    wait_until(lambda: done == [HookReply()] * 4)


def test_no_thread_waits_longer_than_the_option_says(silent, tmp_path):
    options = {"webhook": silent.url, "webhook_events": "pre-create", "webhook_timeout": 1}
    began = time.monotonic()
    reply = FilterSubject(tmp_file_dir=str(tmp_path), **options).create(5)
    assert (reply.status, reply["Retry-After"]) == (503, "5")
    assert 1 <= time.monotonic() - began < GUARD
    assert len(silent.connections) == 1, "the time is over, so it is not tried again"


def test_the_time_is_that_of_all_tries(endpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(webhook, "PAUSE", 2.0 * GUARD)
    endpoint.answers["pre-create"] = 500
    hook = Webhook(endpoint.url, events={HookType.PRE_CREATE}, directory=str(tmp_path), timeout=GUARD)
    with pytest.raises(WebhookError, match="responded with 500"):
        hook.pre_create(HookEvent(HookType.PRE_CREATE, "1", Upload()))
    assert len(endpoint.heard) == 1


def test_a_name_server_that_does_not_answer_holds_nobody_up(tmp_path, monkeypatch):
    """Nothing can end a look-up. It keeps its place until it ends, so that no more and more threads wait."""
    asked, answers, look_up = [], threading.Event(), socket.getaddrinfo

    def getaddrinfo(host, *arguments, **named):
        if host != "h.example":  # a thread of another test
            return look_up(host, *arguments, **named)
        asked.append(host)
        answers.wait(GUARD)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(bounded, "QUICK", 0.0)
    hook = Webhook("http://h.example/", events={HookType.PRE_CREATE}, directory=str(tmp_path), timeout=0.1, threads=2)
    event = HookEvent(HookType.PRE_CREATE, "1", Upload())
    for _ in range(2):
        with pytest.raises(WebhookError, match=r"did not respond within 0\.1 seconds"):
            hook.pre_create(event)
    with pytest.raises(HookUnavailable):
        hook.pre_create(event)
    for _ in range(outbox.WORKERS):
        with pytest.raises(WebhookError, match=r"did not respond within 0\.1 seconds"):
            hook.post(b"{}", "1")
    with pytest.raises(WebhookError, match="earlier posts still wait"):
        hook.post(b"{}", "1")
    wait_until(lambda: len(asked) == 2 + outbox.WORKERS)
    answers.set()
    wait_until(lambda: not hook._asking._began)
    hook._timeout = GUARD
    with pytest.raises(WebhookError, match="cannot be reached"):
        hook.pre_create(event)


def test_receiving_does_not_wait_again_and_again(silent, tmp_path, monkeypatch):
    monkeypatch.setattr(webhook, "POST_RECEIVE_TIMEOUT", 0.05)
    hook = Webhook(silent.url, events={HookType.POST_RECEIVE}, directory=str(tmp_path))
    event = HookEvent(HookType.POST_RECEIVE, "1", Upload())
    for _ in range(3):
        assert hook.post_receive(event) is None
    wait_until(lambda: silent.connections)
    assert len(silent.connections) == 1
    monkeypatch.setattr(hook, "_rests_until", 0.0)
    hook.post_receive(event)
    wait_until(lambda: len(silent.connections) == 2)


@pytest.mark.parametrize(
    "url", ["http://h.example/", "http://169.254.169.254/", "http://127.0.0.1.example/", "http://127.1/"]
)
def test_http_to_another_host_must_be_allowed(tmp_path, url):
    options = {"webhook": url, "tmp_file_dir": str(tmp_path)}
    with pytest.raises(OptionError, match="webhook_allow_http = true") as wrong:
        Options.build(**options)
    assert wrong.value.option == "webhook"
    assert Options.build(**options, webhook_allow_http=True).webhook == url
    assert Options.build(**options | {"webhook": url.replace("http:", "https:")}).webhook


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9:81", "[::1]:81", "localhost", "LocalHost:81", "a.localhost"])
def test_http_to_this_machine_is_allowed(tmp_path, host):
    assert Options.build(webhook=f"HTTP://{host}/", tmp_file_dir=str(tmp_path)).webhook


def test_no_redirect_leads_elsewhere(site, endpoint):
    """As it would around the check of the URL."""
    with closing(Endpoint()) as other:
        endpoint.answers["pre-create"], endpoint.fields["Location"] = 307, other.url
        assert site("pre-create").create(5).status == 503
        assert (len(endpoint.heard), other.heard) == (1, [])


def test_an_endpoint_that_is_down_hears_it_later(site, endpoint, caplog):
    subject = site("post-create", "post-finish", "post-terminate", webhook_secret=ENCODED)
    endpoint.close()
    urls = [subject.url(5) for _ in range(3)]
    for url in urls:
        assert subject.patch(url, 0, b"hello").status == 204
    assert subject.send("DELETE", urls[0]).status == 204
    with closing(Endpoint(endpoint.server_port)) as again:
        again.answers = {"post-create": [500, 200], "post-finish": b"x" * 9000}  # whatever it says, it has heard it
        again.wait(8)
        assert sorted(Counter(post.id for post in again.heard).values()) == [1] * 6 + [2]
        for url in urls:
            types = dict.fromkeys(post.type for post in again.heard if post.upload["ID"] == id_of(url))
            assert list(types) == ["post-create", "post-finish", "post-terminate"][: 2 + (url == urls[0])]
        assert all(verify(ENCODED, post.headers, post.body) for post in again.heard)
    problem = "WebhookError: the endpoint cannot be reached"
    assert re.search(rf"cannot deliver post-\w+ of upload [0-9a-f]{{32}}: {problem}", caplog.text)
    assert not any(secret in caplog.text for secret in ("hush", ENCODED))


def test_what_was_queued_and_then_did_not_happen_is_not_told(site, endpoint, monkeypatch):
    """As after a death in between: of an acceptance, which may be repeated, and of a termination."""
    subject = site("post-finish", "post-terminate", handover_attempts=0)  # nobody asks the application by himself
    subject.fail = "503 Busy"
    taken, removed, left, kept, gone = urls = [subject.url(5) for _ in range(5)]
    for url in urls[:3]:
        assert subject.patch(url, 0, b"hello").status == 503
        subject.hooks.queue(HookType.POST_FINISH, subject.store.load(id_of(url)), None)
    for url in urls[3:]:
        subject.hooks.queue(HookType.POST_TERMINATE, subject.store.load(id_of(url)), None)
    assert (subject.hooks.flush(), endpoint.heard) == (5, [])
    subject.store.remove(id_of(gone))
    subject.fail = None
    assert subject.patch(taken, 4, b"o").status == 204
    assert subject.send("DELETE", removed).status == 204
    told = {("post-finish", id_of(taken)), ("post-terminate", id_of(removed)), ("post-terminate", id_of(gone))}
    assert {(post.type, post.upload["ID"]) for post in endpoint.wait(3)} == told
    wait_until(lambda: subject.hooks.flush() == 2)  # what was heard last may not be taken down yet
    monkeypatch.setattr(outbox, "PATIENCE", 0)
    wait_until(lambda: subject.hooks.flush() == 0)
    assert (subject.hooks.flush(), len(endpoint.wait(3))) == (0, 3)
    assert (subject.store.load(id_of(left)).is_pending, subject.head(kept).status) == (True, 200)


@pytest.mark.parametrize("make", [FilterSubject, AsgiSubject, ViewSubject])
def test_post_finish_has_the_path_where_the_application_has_saved_the_file(endpoint, tmp_path, make):
    (tmp_path / "arrived").mkdir()

    class Saving(make):
        def land(self, upload, data):
            upload.save_to(tmp_path / "arrived", "film.mp4")

    options = {"webhook": endpoint.url, "webhook_events": "post-finish", "tmp_file_dir": str(tmp_path / "uploads")}
    subject = Saving(**options)
    for name in ("film.mp4", None):
        assert subject.patch(subject.url(5), 0, b"hello").status == 204
        storage = endpoint.wait(1 if name else 2)[-1].upload["Storage"]
        assert storage == {"Type": "filestore", "Path": storage["Path"]}
        saved = Path(storage["Path"])
        assert (saved.parent, saved.read_bytes()) == (tmp_path / "arrived", b"hello")
        assert (saved.name == "film.mp4") == bool(name)


@pytest.mark.parametrize("accepted", [False, True])
def test_a_termination_that_nobody_could_tell_voids_an_acceptance_that_was_none(site, endpoint, accepted):
    """As after a death behind the removal, or where another process tells events at that moment."""
    subject = site("post-finish", "post-terminate", handover_attempts=0, completed_keep=60)
    url = subject.url(5)
    if not accepted:
        subject.fail = "503 Busy"
    assert subject.patch(url, 0, b"hello").status == (204 if accepted else 503)
    if accepted:
        endpoint.wait(1)
        wait_until(lambda: subject.hooks.flush() == 0)
    subject.hooks.queue(HookType.POST_FINISH, subject.store.load(id_of(url)), None)
    subject.hooks.queue(HookType.POST_TERMINATE, subject.store.load(id_of(url)), None)
    subject.store.remove(id_of(url))
    wait_until(lambda: subject.hooks.flush() == 0)
    assert [post.type for post in endpoint.heard] == ["post-finish"] * 2 * accepted + ["post-terminate"]


SERVING = """
import sys
from tests.support.subjects import FilterSubject
subject = FilterSubject(tmp_file_dir=sys.argv[1], webhook=sys.argv[2], webhook_events=["post-create", "post-finish"])
while True:
    url = subject.url(5)
    assert subject.patch(url, 0, b"hello").status == 204
    print(url, flush=True)
"""


def test_a_site_that_is_killed_tells_everything(site, endpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(outbox, "PATIENCE", 1)
    endpoint.answers = {"post-create": [200, 200, 500] * 6 + [200], "post-finish": [500, 200, 200] * 6 + [200]}
    urls, rng = [], random.Random(2)
    for _ in range(5):
        command = [sys.executable, "-c", SERVING, tmp_path, endpoint.url]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        urls += [process.stdout.readline() for _ in range(5)]
        time.sleep(rng.uniform(0, 0.03))
        process.kill()
        urls += [line for line in process.communicate()[0].splitlines() if len(id_of(line)) == 32]
    subject = site("post-create", "post-finish")
    wait_until(lambda: subject.hooks.flush() == 0)
    for url in urls:
        posts = [post for post in endpoint.heard if post.upload["ID"] == id_of(url)]
        assert [type for type, _ in itertools.groupby(post.type for post in posts)] == ["post-create", "post-finish"]
        assert len({post.id for post in posts}) == 2


def test_where_the_outbox_does_not_serve_the_application_is_not_asked(site, tmp_path):
    """Or it would be asked again and again, because its yes could not be told."""
    subject = site("post-finish")
    url = subject.url(5)
    (tmp_path / ".tus-outbox").write_bytes(b"")
    assert subject.patch(url, 0, b"hello").status == 503
    assert (subject.landed, subject.offset(url)) == ([], 4)
    assert subject.create(5, body=b"hello").status == 503
    assert subject.landed == []
    (tmp_path / ".tus-outbox").unlink()
    assert subject.patch(url, 4, b"o").status == 204


def test_an_upload_made_by_the_site_needs_its_event(site, endpoint, tmp_path, monkeypatch):
    """An event that cannot be queued must not be missing later."""
    service = site("post-create").app.service

    def fail(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full, pytest.raises(StorageUnavailable):
        full.setattr(Outbox, "put", fail)
        service.create_upload(length=5)
    assert list(service.list()) == []
    assert list(tmp_path.glob("*.tus")) == []
    upload = service.create_upload(length=5)
    service.hooks.flush()
    assert [post.upload["ID"] for post in endpoint.wait(1)] == [upload.id]


@pytest.mark.parametrize("completed_keep", [86400, 0])
def test_a_delete_that_comes_too_early_takes_no_event_along(site, endpoint, completed_keep):
    subject = site("post-finish", "post-terminate", completed_keep=completed_keep)
    url = subject.url(5)
    refused = []
    subject.land = lambda upload, data: refused.append(subject.send("DELETE", url).status)
    assert subject.patch(url, 0, b"hello").status == 204
    assert refused == [423]
    assert [post.type for post in endpoint.wait(1)] == ["post-finish"]
    time.sleep(0.2)
    assert len(endpoint.heard) == 1
    assert subject.hooks.flush() == 0


def test_the_first_request_has_told_what_an_earlier_process_has_left(site, endpoint, tmp_path):
    left = Outbox(str(tmp_path / ".tus-outbox"), print)
    payload = {"Type": "post-terminate", "ID": "1", "Event": {"Upload": {}, "HTTPRequest": {}}}
    left.put("0" * 32, Event("1", "post-terminate", "0" * 32, json.dumps(payload)))
    site("post-terminate", threads=True).head("/files/" + "0" * 32)
    assert endpoint.wait(1)[0].id == "1"


def test_the_endpoint_of_the_documents(site):
    (example,) = blocks("python", "docs/webhooks.rst")
    assert len(example.splitlines()) < 30
    port, processed = free_port(), []
    head, _, last = example.replace("8081", str(port)).rpartition("\n")
    namespace = {"process": processed.append}
    exec(f"{head}\nEndpoint.log_message = print\nserver = {last.removesuffix('.serve_forever()')}", namespace)
    threading.Thread(target=(server := namespace["server"]).serve_forever, args=[0.01], daemon=True).start()
    options = {"webhook": f"http://127.0.0.1:{port}/", "webhook_secret": ENCODED}
    subject = site("pre-create", "post-finish", **options)
    assert (subject.create(5).body, subject.create(5, NAMED, b"hello").status) == (b"It has no name.\n", 201)
    wait_until(lambda: processed)
    assert [upload["MetaData"]["note"] for upload in processed] == ["x"]
    assert site("pre-create", **options | {"webhook_secret": ENCODED + "Qmad"}).create(5, NAMED).status == 503
    server.shutdown()
    server.server_close()
