"""What those who run a site see: events, logging, metrics with several processes, health."""

import http.client
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.documents import blocks
from tests.support.serving import ROOT, command, free_port, wait_for_port
from tests.support.subjects import SUBJECTS, FilterSubject
from tests.support.waiting import GUARD, wait_until
from tests.support.wsgi import OCTETS, TUS, call
from tus import events
from tus.apps.front import Front
from tus.apps.operations import Operations, filter_app_factory
from tus.errors import Forbidden, OptionError
from tus.events import Answered, Begun, Created, Ended, Fenced, Finished, HandedOver, Synced, TakenOver
from tus.models import Upload
from tus.monitoring import metrics
from tus.options import Options
from tus.stores import open_store
from tus.stores.directory.store import DirectoryStore


@pytest.fixture
def heard():
    """Every event of the test but syncs."""
    found = []

    def hear(event):
        if not isinstance(event, Synced):
            found.append(event)

    events.listen(hear)
    yield found
    events.ignore(hear)


def kinds(found):
    return [type(event) for event in found]


@pytest.fixture(params=SUBJECTS)
def subject(request, tmp_path):
    return request.param(tmp_file_dir=str(tmp_path))


# -- Labels --


def labels():
    """The values of every label in the metrics, by metric and label."""
    found = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            for name, value in sample.labels.items():
                found.setdefault((sample.name, name), set()).add(value)
    return found


def test_labels_have_few_values(tmp_path, monkeypatch):
    """Whatever clients send, and applications respond: a new value of a label takes memory for ever."""
    for kind in (Begun, Answered):
        monkeypatch.setitem(events.listeners, kind, (metrics.count,))
    subject = FilterSubject(tmp_file_dir=str(tmp_path))

    def requests(word):
        url = subject.url(1)
        subject.send(word, url, validate=False)
        subject.send("POST", url, {"X-HTTP-Method-Override": word})
        subject.send("HEAD", url, {"Tus-Resumable": word})
        call(subject.app, "HEAD", url, {"Upload-Draft-Interop-Version": word})
        for status in (*range(400, 600), 999):
            metrics.count(Answered(word, status, f"Reason {word}", None, 0, False, 0, 0.0))
        subject.fail = f"418 {word}"
        assert subject.patch(url, 0, b"x").status == 418

    requests("A")
    before = labels()
    for number in range(20):
        requests(f"B{number}")
    assert labels() == before
    assert before["tusd_requests_total", "method"] <= {*metrics._METHODS, "other"}
    statuses, codes = (before["tusd_errors_total", name] for name in ("status", "code"))
    assert {"404", "409", "413", "418", "460", "503", "other"} <= statuses
    assert len(codes) <= len(statuses) < 60
    assert {"ERR_NOT_FOUND", "ERR_CONTENT_TOO_LARGE", "ERR_CHECKSUM_MISMATCH", "ERR_OTHER"} <= codes


# -- Events --


def test_the_events_of_a_life(subject, heard):
    url = subject.url(4)
    assert kinds(heard) == [Begun, Created, Answered]
    assert (heard[2].method, heard[2].status, heard[2].received, heard[2].cut) == ("POST", 201, 0, False)
    del heard[:]
    subject.patch(url, 0, b"ab")
    subject.head(url)
    assert kinds(heard) == [Begun, Answered] * 2
    assert (heard[1].received, heard[1].upload.offset, heard[3].method, heard[3].status) == (2, 2, "HEAD", 200)
    del heard[:]
    subject.patch(url, 2, b"cd")
    handed = [event for event in heard if isinstance(event, HandedOver)]
    assert [event.outcome for event in handed] == ["accepted"]
    assert {Begun, Finished, HandedOver, Answered, Ended} == set(kinds(heard))
    assert [event.how for event in heard if isinstance(event, Ended)] == ["accepted"]


def test_a_hand_over_that_fails_ends_no_life(tmp_path, heard):
    subject = FilterSubject(tmp_file_dir=str(tmp_path))
    url = subject.url(1)
    subject.fail = "503 Later"
    subject.patch(url, 0, b"a")
    subject.fail = RuntimeError("oh")
    assert subject.patch(url, 1).status == 500
    assert [event.outcome for event in heard if isinstance(event, HandedOver)] == ["postponed", "postponed"]
    assert Ended not in kinds(heard)
    last = heard[-1]
    assert (type(last), last.status) == (Answered, 500)
    assert kinds(heard).count(Finished) == 1


def test_a_cut_and_what_was_kept_of_it(subject, heard):
    url = subject.url(10)
    subject.patch(url, 0, b"abc", length=10)
    answered = heard[-1]
    assert (answered.cut, answered.received, answered.kept_from_cut) == (True, 3, 3)
    subject.patch(url, 3, b"de", {"Upload-Checksum": "sha1 " + "A" * 27 + "="}, length=7)
    answered = heard[-1]
    assert (answered.cut, answered.received, answered.kept_from_cut) == (True, 2, 0)


def test_other_ends(tmp_path, heard):
    subject = FilterSubject(tmp_file_dir=str(tmp_path))
    subject.send("DELETE", subject.url(1))
    assert [event.how for event in heard if isinstance(event, Ended)] == ["terminated"]
    del heard[:]
    store = DirectoryStore(str(tmp_path), lifetime=60, clock=lambda: 1000.0)
    late = store.create(Upload(length=1))
    assert DirectoryStore(str(tmp_path), clock=lambda: 2000.0).sweep() == 1
    assert [(event.upload.id, event.how) for event in heard if isinstance(event, Ended)] == [(late.id, "expired")]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_takeover_is_told_by_both_sides(tmp_path, heard, at_once):
    store = DirectoryStore(str(tmp_path))
    upload = store.create(Upload(length=9))
    with store.open(upload, 0) as session:
        session.write(b"abc")
        assert heard == []
        if at_once:
            store.append(upload, 3, b"def")
        else:
            with store.open(upload, 3) as newer:
                newer.write(b"def")
        assert kinds(heard) == [TakenOver]
        assert not session.is_current()
        assert not session.is_current()
    assert kinds(heard) == [TakenOver, Fenced]
    store.append(upload, 6, b"ghi")
    assert kinds(heard) == [TakenOver, Fenced]


@pytest.mark.parametrize("staged", [True, False])
def test_what_ended_by_itself_is_not_taken_over(tmp_path, heard, staged):
    store = DirectoryStore(str(tmp_path))
    upload = store.create(Upload(length=9))
    with store.open(upload, 0, staged=staged) as session:
        session.write(b"abc")
        session.commit()
    with store.open(upload, 3, staged=staged):
        pass
    store.append(upload, 3, b"d")
    assert heard == []


def test_a_final_upload_that_is_found_again_was_not_created_again(subject, heard):
    parts = [subject.url(1, {"Upload-Concat": "partial"}, b"x") for _ in range(2)]
    del heard[:]
    subject.fail = "503 Later"
    for _ in range(2):
        subject.send("POST", headers={"Upload-Concat": "final;" + " ".join(parts)})
    assert kinds(heard).count(Created) == 1
    assert kinds(heard).count(Finished) == 1


def test_a_listener_that_fails_disturbs_nobody(subject, caplog):
    def broken(event):
        raise RuntimeError("listener")

    events.listen(broken)
    try:
        assert subject.create(1).status == 201
    finally:
        events.ignore(broken)
    assert "an event listener failed" in caplog.text


# -- Logging --


def test_one_line_a_request_at_debug(subject, caplog):
    secret = {"Upload-Metadata": "filename c2VjcmV0LW5hbWU=", "Authorization": "Bearer s3cret", "Cookie": "s=s3cret"}
    with caplog.at_level(logging.DEBUG, "tus"):
        url = subject.url(4, secret)
        subject.patch(url, 0, b"ab", secret, length=4)
        subject.head(url, secret)
    lines = [record for record in caplog.records if record.name == "tus.requests"]
    assert [(line.method, line.status, line.received, line.kept_from_cut) for line in lines] == [
        ("POST", 201, 0, 0), ("PATCH", 204, 2, 2), ("HEAD", 200, 0, 0),
    ]  # fmt: skip
    upload_id = url.rpartition("/")[2]
    assert {line.upload for line in lines} == {upload_id[:8]}
    assert (lines[1].offset, lines[1].length) == (2, 4)
    assert (
        lines[1]
        .getMessage()
        .startswith(f"PATCH 204 upload={upload_id[:8]} offset=2 length=4 received=2 kept_from_cut=2")
    )
    told = json.dumps([record.__dict__ | {"message": record.getMessage()} for record in lines], default=str)
    for word in (upload_id, "secret-name", "s3cret", "c2VjcmV0"):
        assert word not in told


def test_one_line_an_uploads_life_at_info(subject, caplog):
    with caplog.at_level(logging.INFO, "tus"):
        url = subject.url(4)
        subject.patch(url, 0, b"ab")
        subject.patch(url, 2, b"cd")
        subject.send("DELETE", subject.url(4))
    lines = [record for record in caplog.records if record.name.startswith("tus")]
    assert [(line.ended, line.offset, line.length) for line in lines] == [("accepted", 4, 4), ("terminated", 0, 4)]
    assert re.fullmatch(r"upload [0-9a-f]{8} accepted with 4 of 4 bytes after [0-9.]+ s", lines[0].getMessage())


def test_nothing_is_made_where_nothing_is_logged(subject, caplog):
    with caplog.at_level(logging.WARNING, "tus"):
        subject.patch(subject.url(1), 0, b"a")
    assert caplog.records == []


# -- Health --


def operations(tmp_path, **options):
    def app(environ, start_response):
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"the pipeline"]

    built = Options.build(tmp_file_dir=str(tmp_path / "uploads"), **options)
    return Front(app, Operations(open_store(built.tmp_file_dir, built)))


def test_health(tmp_path):
    app = operations(tmp_path)
    reply = call(app, "GET", "/health")
    assert (reply.status, reply.body, reply["Cache-Control"]) == (200, b"ok\n", "no-store")
    assert call(app, "HEAD", "/health").body == b""
    for method, path in (("POST", "/health"), ("GET", "/health/x"), ("GET", "/"), ("GET", "/metrics")):
        assert call(app, method, path).body == b"the pipeline"
    (tmp_path / "uploads").rmdir()
    assert call(app, "GET", "/health").status == 200, "a directory that a cleaner has removed is made again"
    (tmp_path / "uploads").rmdir()
    (tmp_path / "uploads").write_text("no directory")
    reply = call(app, "GET", "/health")
    assert (reply.status, reply.body) == (503, b"uploads cannot be stored\n")


def test_health_when_the_disk_is_full(tmp_path):
    assert call(operations(tmp_path, keep_free=1 << 60), "GET", "/health").status == 503


def test_the_filter_of_an_ini_file(tmp_path):
    options = {"tmp_file_dir": str(tmp_path), "health_path": "/alive/"}
    app = filter_app_factory(operations(tmp_path), {}, **options)
    assert call(app, "GET", "/alive").status == 200
    assert call(app, "GET", "/metrics").status == 404
    app = filter_app_factory(operations(tmp_path), {}, tmp_file_dir=str(tmp_path), metrics_path="/m")
    assert b"tusd_requests_total" in call(app, "GET", "/m").body
    for wrong in ({"health": "/x"}, {"health_path": "x"}, {"upload_path": "/files"}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            filter_app_factory(None, {}, tmp_file_dir=str(tmp_path), **wrong)


# -- Metrics --


def parsed(text):
    """The samples: name and labels to value."""
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_is_counted(tmp_path):
    """In a process of its own, because the counters of this one are other tests' too."""
    script = """
import sys
from tests.support.subjects import FilterSubject
from tus.events import listen
from tus.monitoring import metrics
listen(metrics.count)
subject = FilterSubject(tmp_file_dir=sys.argv[1], upload_valid_duration="1h")
url = subject.url(10)
subject.patch(url, 0, b"abc", length=7)
subject.head(url)
subject.patch(url, 9, b"x")
subject.patch(url, 3, b"defghij")
subject.send("DELETE", subject.url(1))
subject.send("BREW", url)
subject.fail = "503 Later"
url = subject.url(1)
subject.patch(url, 0, b"a")
subject.url(5)
store = subject.app.service.store
other = store.create(__import__("tus").models.Upload(length=3))
with store.open(other, 0):
    store.append(other, 0, b"a")
store.sweep()
sys.stdout.buffer.write(metrics.expose(store))
"""
    text = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True, cwd=ROOT, timeout=60
    ).stdout.decode()
    samples = parsed(text)
    expected = {
        ("tusd_requests_total", "POST"): 4, ("tusd_requests_total", "PATCH"): 4, ("tusd_requests_total", "HEAD"): 1,
        ("tusd_requests_total", "DELETE"): 1, ("tusd_requests_total", "other"): 1,
        ("tusd_errors_total", "409", "ERR_CONFLICT"): 1, ("tusd_errors_total", "503", "ERR_SERVICE_UNAVAILABLE"): 1,
        ("tusd_errors_total", "405", "ERR_METHOD_NOT_ALLOWED"): 1,
        ("tusd_bytes_received",): 11, ("tusd_uploads_created",): 4, ("tusd_uploads_finished",): 2,
        ("tusd_uploads_terminated",): 1, ("tusd_connections_open",): 0,
        ("tus_resumes_total",): 1, ("tus_cut_requests_total",): 1, ("tus_cut_requests_kept_bytes_total",): 3,
        ("tus_takeovers_total",): 1, ("tus_sessions_fenced_total",): 1,
        ("tus_handover_attempts_total", "accepted"): 1, ("tus_handover_attempts_total", "postponed"): 1,
        ("tus_handover_seconds_count",): 2, ("tus_uploads_expired_total",): 0,
        ("tus_unfinished_uploads",): 2, ("tus_unfinished_bytes",): 1, ("tus_reserved_bytes",): 0,
        ("tus_handover_pending",): 1,
    }  # fmt: skip
    assert {key: samples.get(key) for key in expected} == expected
    assert samples["tus_fsync_seconds_count",] >= 6
    assert 0 <= samples["tus_handover_oldest_pending_seconds",] < 60
    assert abs(samples["tus_last_sweep_timestamp_seconds",] - time.time()) < 60


def request(port, method, path, headers=(), body=None):
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=GUARD)) as connection:
        connection.request(method, path, body, dict(headers))
        reply = connection.getresponse()
        return reply.status, reply.headers, reply.read()


def metrics_of(port):
    status, headers, body = request(port, "GET", "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    return parsed(body.decode())


@pytest.fixture
def site(tmp_path):
    port = free_port()
    arguments = ["tus", "serve", "--port", str(port), "--workers", "3", "--metrics", "-vv"]
    environment = os.environ | {"TMPDIR": str(tmp_path), "HOME": str(tmp_path)}  # killed, it leaves things there
    with command(arguments, tmp_path, env=environment) as process:
        wait_for_port(port, process, tmp_path / "stderr")
        yield port, process


def test_several_processes_count_as_one(site, tmp_path):
    port, process = site
    workers = set()
    for _ in range(40):
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            head = "Host: localhost\r\nTus-Resumable: 1.0.0\r\nUpload-Length: 5\r\nContent-Length: 0\r\n\r\n"
            client.sendall(f"POST /files HTTP/1.1\r\n{head}".encode())
            assert b" 201 " in client.recv(65536)
            ours = client.getsockname()
            workers |= {
                worker.pid
                for worker in psutil.Process(process.pid).children()
                if any(connection.raddr == ours for connection in worker.net_connections("tcp4"))
            }
    assert len(workers) > 1, "the requests were to reach several processes"
    assert {metrics_of(port)[("tusd_uploads_created",)] for _ in range(10)} == {40}
    os.kill(min(workers), signal.SIGKILL)  # what a dead process has counted still counts
    wait_until(lambda: len({child.pid for child in psutil.Process(process.pid).children()} - {min(workers)}) == 3)
    samples = metrics_of(port)
    assert samples["tusd_uploads_created",] == 40
    assert samples["tusd_requests_total", "POST"] == 40


def test_open_requests_are_those_that_live(site):
    port, process = site
    status, headers, _ = request(port, "POST", "/files", TUS | {"Upload-Length": "100"})
    assert status == 201
    path = "/files/" + headers["Location"].rpartition("/")[2]
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        head = "".join(f"{name}: {value}\r\n" for name, value in (TUS | OCTETS | {"Upload-Offset": "0"}).items())
        client.sendall(f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\n{head}Content-Length: 100\r\n\r\nabc".encode())
        wait_until(lambda: metrics_of(port)[("tusd_connections_open",)] == 1)
        ours = client.getsockname()
        (worker,) = [
            worker
            for worker in psutil.Process(process.pid).children()
            if any(connection.raddr == ours for connection in worker.net_connections("tcp4"))
        ]
        worker.kill()
    wait_until(lambda: metrics_of(port)[("tusd_connections_open",)] == 0)


def test_the_command_answers_and_logs(site, tmp_path):
    port, _ = site
    assert request(port, "GET", "/health")[::2] == (200, b"ok\n")
    assert request(port, "POST", "/files", TUS | OCTETS | {"Upload-Length": "3"}, b"abc")[0] == 201
    log = (tmp_path / "stderr").read_text()
    assert "tus.requests DEBUG POST 201 upload=" in log
    assert "accepted with 3 of 3 bytes" in log


def test_without_the_option_there_are_no_metrics(tmp_path):
    port = free_port()
    with command(["tus", "serve", "--port", str(port), "--workers", "1"], tmp_path) as process:
        wait_for_port(port, process, tmp_path / "stderr")
        assert request(port, "GET", "/metrics")[0] == 404
        assert request(port, "GET", "/health")[0] == 200
        request(port, "POST", "/files", TUS | {"Upload-Length": "3"})
        assert (tmp_path / "stderr").read_text() == ""


def test_the_metrics_directory_goes_with_the_server(tmp_path):
    port = free_port()
    arguments = ["tus", "serve", "--port", str(port), "--workers", "2", "--metrics", "/m"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with command(arguments, tmp_path, env=environment) as process:
        wait_for_port(port, process, tmp_path / "stderr")
        assert request(port, "GET", "/m")[0] == 200
        workers = psutil.Process(process.pid).children()
        used = [Path(file.path).parent for worker in workers for file in worker.memory_maps()]
        (directory,) = {path for path in used if path.name.startswith("tus-metrics-")}
        assert directory.is_dir()
        process.send_signal(signal.SIGTERM)
        assert process.wait(GUARD) == 0
    assert not directory.exists()


def test_a_refusal_is_an_error_in_the_metrics_too(tmp_path, heard):
    def gate(request, intent, upload):
        raise Forbidden("no")

    subject = FilterSubject(tmp_file_dir=str(tmp_path), authorize=gate)
    assert subject.create(1).status == 403
    assert (heard[-1].status, heard[-1].reason) == (403, "Forbidden")


def test_the_document_names_every_metric(tmp_path):
    script = "import sys; from tus.monitoring import metrics; from tus.stores.directory.store import DirectoryStore; "
    script += "store = DirectoryStore(sys.argv[1]); store.sweep(); sys.stdout.buffer.write(metrics.expose(store))"
    command = [sys.executable, "-c", script, str(tmp_path)]
    text = subprocess.run(command, check=True, capture_output=True, cwd=ROOT, timeout=60).stdout.decode()
    exposed = {family.name for family in text_string_to_metric_families(text)}
    exposed -= {f"{name}_created" for name in exposed}  # when each was made, which the library adds in a single process
    document = (ROOT / "docs/operating.rst").read_text()
    named = {name.removesuffix("_total") for name in re.findall(r"``(tusd?_[a-z_]+)``", document)}
    assert {name.removesuffix("_total") for name in exposed} == named


def test_the_pipeline_of_the_document(tmp_path):
    from paste.deploy import loadapp

    (text,) = blocks("ini", "docs/operating.rst")
    text += "\n[filter:tus]\nuse = egg:tus#main\nupload_path = /files\ntmp_file_dir = %(here)s/uploads.tmp\n"
    text += "[app:myapp]\npaste.app_factory = tests.support.documents:application_factory\n"
    (tmp_path / "site.ini").write_text(text)
    app = loadapp(f"config:{tmp_path}/site.ini")
    assert call(app, "GET", "/health").body == b"ok\n"
    assert b"tusd_requests_total" in call(app, "GET", "/metrics").body
    assert call(app, "POST", "/files", TUS | {"Upload-Length": "1"}).status == 201
    assert call(app, "GET", "/").body == b"ok"
