"""``tus serve`` as people run it; and the application that files uploads."""

import concurrent.futures
import contextlib
import http.client
import io
import os
import random
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import psutil
import pytest
from tusclient.client import TusClient

from tests.support.clients import head, offset_of, wait_for_offset
from tests.support.commands import assert_refused, filled, named, run, store_in
from tests.support.descriptors import needs_proc, opened
from tests.support.disk import another_disk, simple_disk
from tests.support.endpoint import Endpoint
from tests.support.serving import ROOT, command, free_port
from tests.support.subjects import OnLoop
from tests.support.waiting import GUARD, wait_until
from tests.support.wsgi import OCTETS, TUS, call
from tus import Filter
from tus.apps.files import Files
from tus.apps.hosts import HostCheck
from tus.cli import main as cli
from tus.cli import serve
from tus.cli.server_section import read_server_section
from tus.errors import OptionError
from tus.models import Upload
from tus.server.service import services_over
from tus.server.waiting import LARGEST_HEAD

PROMPT = 20  # seconds in which a server has ended; gunicorn kills its workers after thirty
URL_LINE = re.compile(r"^(?:Upload to|Serving on) (.+)$", re.MULTILINE)


@pytest.fixture(autouse=True)
def _direct(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@dataclass
class Served:
    """A ``tus serve`` that runs.

    Attributes:
        url: as it was printed.
        directory: where it was started.
        process: the arbiter, the leader of its own process group.
    """

    url: str
    directory: Path
    process: subprocess.Popen

    @property
    def netloc(self):
        return urlsplit(self.url).netloc

    @property
    def printed(self):
        return (self.directory / "stdout").read_text()

    @property
    def complained(self):
        return (self.directory / "stderr").read_text()

    def ends(self):
        """The exit status of a process that was told to end."""
        return self.process.wait(PROMPT)


def open_files(process):
    """The paths of the files that the workers of a server have open, also those without a name any more."""
    for worker in psutil.Process(process.pid).children():
        yield from opened(worker.pid)


@contextlib.contextmanager
def serving(directory, *arguments, has_port=False, program=("tus",), **how):
    """Run ``tus serve`` on a free port, unless the arguments or the ini file have one, until its URL is printed."""
    if "--port" not in arguments and not has_port:
        arguments = (*arguments, "--port", "0")
    if "--workers" not in arguments:
        arguments = (*arguments, "--workers", "2")
    with command([*program, "serve", *map(str, arguments)], directory, **how) as process:
        deadline = time.monotonic() + GUARD
        while not (match := URL_LINE.search((directory / "stdout").read_text())):
            complaint = (directory / "stderr").read_text()
            assert process.poll() is None, complaint
            assert time.monotonic() < deadline, complaint
            time.sleep(0.02)
        wait_for_workers(process.pid, int(arguments[arguments.index("--workers") + 1]), deadline)
        yield Served(match[1], directory, process)


def wait_for_workers(pid, count, deadline):
    """Wait until the workers have come to rest: one that is just being forked does not hear of a signal."""
    looks = 0
    while looks < 3:
        workers = psutil.Process(pid).children()
        resting = len(workers) == count and all(worker.status() == psutil.STATUS_SLEEPING for worker in workers)
        looks = looks + 1 if resting else 0
        assert time.monotonic() < deadline
        time.sleep(0.02)


def request(netloc, method, path, headers=(), body=b""):
    """One request on a connection of its own; gives the status, the header fields by lower-case name, and the body."""
    connection = http.client.HTTPConnection(netloc, timeout=GUARD)
    try:
        connection.request(method, path, body, TUS | dict(headers))
        reply = connection.getresponse()
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
    finally:
        connection.close()


def upload(served, name, content):
    """A whole upload in one request; returns its URL."""
    headers = OCTETS | named(name) | {"Upload-Length": str(len(content))}
    status, answer, _ = request(served.netloc, "POST", urlsplit(served.url).path, headers, content)
    assert status == 201
    assert answer["upload-offset"] == str(len(content))
    return answer["location"]


def create(served, name, size):
    headers = named(name) | {"Upload-Length": str(size)}
    status, answer, _ = request(served.netloc, "POST", urlsplit(served.url).path, headers)
    assert status == 201
    return answer["location"]


def patch(url, offset, body):
    parts = urlsplit(url)
    headers = OCTETS | {"Upload-Offset": str(offset)}
    return request(parts.netloc, "PATCH", parts.path, headers, body)[:2]


def files_in(directory):
    """The files that people see, by name."""
    return {path.name: path.read_bytes() for path in Path(directory).iterdir() if path.name != ".tus"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A server that each test leaves as it was."""
    with serving(tmp_path_factory.mktemp("shared"), "--workers", "2") as served:
        yield served


# -- Whom it serves -----------------------------------------------------------------------------------------------


def status_for(netloc, host, path="/health"):
    connection = http.client.HTTPConnection(netloc, timeout=GUARD)
    with contextlib.closing(connection):
        connection.putrequest("GET", path, skip_host=True)
        connection.putheader("Host", host)
        connection.endheaders()
        reply = connection.getresponse()
        return reply.status, reply.read().decode()


@pytest.mark.parametrize("path", ["/", "/files/", "/health", "/files/" + "0" * 32])
@pytest.mark.parametrize("host", ["evil.example", "evil.example:1080", "localhost.evil.example", "127.0.0.1.nip.io"])
def test_a_page_of_another_site_does_not_reach_a_server_of_this_machine(shared, path, host):
    """Its name may lead to 127.0.0.1 by now, but a browser still sends that name."""
    status, text = status_for(shared.netloc, host, path)
    assert status == 421
    assert f"start tus serve with --allow-host {host.partition(':')[0]}" in text
    _, fields, _ = request(shared.netloc, "POST", path, {"Host": host, "Upload-Length": "1"})
    assert "location" not in fields


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "a.localhost", "127.0.0.1", "127.5.5.5:80", "[::1]:8080"])
def test_the_names_of_this_machine_are_served(shared, host):
    assert status_for(shared.netloc, host)[0] == 200


@pytest.mark.parametrize("host", ["<b>", "evil.example, localhost", "x" * 300 + "/", "[::1", "[evil]", "a@localhost"])
def test_what_is_no_host_is_not_served_and_not_repeated(shared, host):
    status, text = status_for(shared.netloc, host)
    assert status == 421
    assert host not in text


def test_further_names_are_served_if_they_are_given(tmp_path):
    options = ("--allow-host", "up.example", "--allow-host=UP2.example.", "-o", "base_url=https://up3.example:8443/x")
    with serving(tmp_path, *options) as served:
        for host in ("up.example", "up.example.:80", "UP.example:80", "up2.example", "up3.example", "localhost"):
            assert status_for(served.netloc, host)[0] == 200
        assert status_for(served.netloc, "up4.example")[0] == 421


def app_of(host, *names):
    def application(environ, start_response):
        start_response("200 OK", [])
        return [b"served"]

    return serve.check_hosts(application, host, names)


def pipeline_of(directory, *arguments, **others):
    """The pipeline of ``tus serve``, to be called like one of WSGI."""
    return OnLoop(serve.build_pipeline(str(directory), *arguments, **others), "asyncio")


@pytest.mark.parametrize(
    ("address", "names", "host", "status"),
    [
        ("0.0.0.0", (), "evil.example", 200),  # its names are not known, and it serves others anyway
        ("::", (), "evil.example", 200),
        ("0.0.0.0", ("up.example",), "evil.example", 421),
        ("0.0.0.0", ("up.example",), "up.example", 200),
        ("::1", (), "evil.example", 421),
        ("localhost", (), "evil.example", 421),
        ("127.0.0.1", ("*",), "evil.example", 200),
        ("127.0.0.1", ("192.0.2.7",), "192.0.2.7:80", 200),
    ],
)
def test_which_hosts_an_address_serves(address, names, host, status):
    assert call(app_of(address, *names), "GET", "/", environ={"HTTP_HOST": host}, validate=False).status == status


def test_a_refusal_for_the_host_of_others_is_one_of_the_protocol(tmp_path, monkeypatch):
    monkeypatch.setattr("tus.server.service._living", weakref.WeakSet())  # without the services of other tests
    app = serve.build_pipeline(str(tmp_path / "uploads"), "/of-this-test", ("https://page.example",))
    checked = OnLoop(app.behind(serve.host_check("127.0.0.1", ())), "asyncio")
    asked = {"HTTP_HOST": "evil.example"}
    reply = call(checked, "POST", "/of-this-test", TUS | {"Origin": "https://page.example"}, environ=asked)
    assert (reply.status, reply["Tus-Resumable"]) == (421, "1.0.0")
    assert reply["Access-Control-Allow-Origin"] == "https://page.example"
    assert call(checked, "GET", "/", environ=asked).get("Tus-Resumable") is None


def test_the_base_url_does_not_ask_for_the_check():
    """Behind a proxy in another container the server has names that nobody tells it."""
    assert serve.host_check("0.0.0.0", (), ("up.example",)) is None
    assert isinstance(serve.host_check("127.0.0.1", (), ("up.example",)), HostCheck)


def test_the_name_of_a_host_takes_no_file(tmp_path):
    """Else the server would run without the site that the file describes."""
    parsed = cli._parse(["serve", "--allow-host", "up.example", "site.ini"])
    assert (parsed.config, parsed.allow_host) == ("site.ini", ["up.example"])


def test_a_server_of_an_ini_file_is_told_its_names_in_the_file(tmp_path):
    section = "[server:main]\nuse = egg:gunicorn\nallow_host = up.example, up2.example\n"
    (tmp_path / "site.ini").write_text(f"[app:main]\nuse = egg:tus#nothing\n{section}")
    found = read_server_section(str(tmp_path / "site.ini"))
    assert (found.allow_host, found.unused) == ("up.example, up2.example", ())


# -- What it prints, and where it serves --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [None, "/up", "/deep/er/", "/with blank", '/it\'s $(touch pwned) & "more"', "/grün/50%"]
)
def test_the_printed_line_uploads_as_it_is(path, tmp_path):
    with serving(tmp_path, *([] if path is None else ["--path", path])) as served:
        (line,) = re.findall(r"^ +(printf .*curl .*)$", served.printed, re.MULTILINE)
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("HTTP/1.1 201 Created"), done.stdout
        assert re.search(r"^upload-offset: 5\r?$", done.stdout, re.MULTILINE)
        location = re.search(r"^location: (\S+)\r?$", done.stdout, re.MULTILINE)[1]
        assert unquote(location.rpartition("/")[0]) == unquote(served.url)
        assert served.url.isascii()
        assert " " not in served.url
        assert head(location)[1]["upload-length"] == "5"
        assert files_in(tmp_path / "uploads") == {"hello.txt": b"hello"}
        assert not (tmp_path / "pwned").exists()
        assert served.complained == ""


def test_defaults_of_directory_and_path(tmp_path):
    with serving(tmp_path) as served:
        assert re.fullmatch(r"http://127\.0\.0\.1:[1-9][0-9]*/files", served.url)
        upload(served, "a.txt", b"content")
        assert files_in(tmp_path / "uploads") == {"a.txt": b"content"}
        assert served.complained == ""


def test_defaults_of_address_and_numbers(tmp_path, monkeypatch):
    asked = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(serve, "run", lambda app, *arguments, **named: asked.append((arguments, named)))
    assert cli.main(["serve"]) == 0
    assert (
        cli.main(["serve", "--host", "::1", "--port", "81", "--workers", "3", "--threads", "5", "--path", "/x/"]) == 0
    )
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert asked == [
        (("127.0.0.1", 1080, min(processors, 8), 32, "/files"), {}),
        (("::1", 81, 3, 5, "/x"), {}),
    ]


def test_help_tells_the_defaults():
    text = " ".join(run("serve", "--help").stdout.split())
    for default in ("127.0.0.1", "1080", "./uploads", "/files/", "32"):
        assert f"(default: {default})" in text


LIMITS = {
    "max_size": "lift it with -o max_size=0",
    "max_uploads": "10000 unfinished uploads; lift it with -o max_uploads=0",
    "keep_free": "5 % of the disk, at most 5 GiB; lift it with -o keep_free=0",
    "min_rate": "500 bytes per second; lift it with -o min_rate=0",
    "stall_timeout": "60 seconds; lift it with -o stall_timeout=0",
}


def test_help_tells_the_limits_and_how_to_lift_them():
    told = run("serve", "--help").stdout
    for name, words in LIMITS.items():
        (line,) = [line for line in told.splitlines() if f"-o {name}=... " in line]
        assert words in line
    assert (
        f"{serve.MOST_FIELDS} fields, {serve.LARGEST_FIELD >> 10} KiB in one, {LARGEST_HEAD >> 10} KiB in all" in told
    )


KEPT = []  # pipelines, whose services are found as long as they live


def options_of(tmp_path, monkeypatch, disk=400 << 30, **others):
    """The options of a ``tus serve`` on a disk of 400 GiB."""
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_blocks=disk >> 12, f_frsize=1 << 12))
    KEPT.append(serve.build_pipeline(str(tmp_path / "uploads"), "/files", (), others=others))
    return {service.directory: service for service in services_over(None)}[str(tmp_path / "uploads" / ".tus")].options


def test_limits_by_default(tmp_path, monkeypatch):
    options = options_of(tmp_path, monkeypatch)
    assert (options.max_uploads, options.keep_free, options.max_size) == (10_000, 5 << 30, 395 << 30)
    assert (options.min_rate, options.stall_timeout) == (500, 60)


def test_a_small_disk_is_not_kept_free_as_a_whole(tmp_path, monkeypatch):
    assert options_of(tmp_path, monkeypatch, disk=1 << 30).keep_free == (1 << 30) // 20


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_can_be_lifted(tmp_path, monkeypatch, name):
    lifted = {name: "0"} | ({"min_rate": "0"} if name == "stall_timeout" else {})
    assert getattr(options_of(tmp_path, monkeypatch, **lifted), name) == 0


def test_what_does_not_fit_is_refused_and_nothing_else(tmp_path):
    """A file is not refused for its size, but for the room that it needs."""
    pipeline = pipeline_of(tmp_path / "uploads", "/files", ())
    disk = os.statvfs(tmp_path)
    free, size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    kept = min(size // 20, 5 << 30)

    def status(length):
        reply = call(pipeline, "POST", "/files", TUS | {"Upload-Length": str(length)})
        if reply.status == 201:
            call(pipeline, "DELETE", reply["Location"], TUS)
        return reply.status

    assert status(size + 1) == 413
    assert status(free - kept + (1 << 30)) == 507
    if free - kept > 2 << 30:
        assert status((free - kept) // 2) == 201


def test_any_free_port(tmp_path, shared):
    with serving(tmp_path, "--port", "0") as served:
        assert served.netloc != shared.netloc
        upload(served, "a", b"1")
    assert files_in(tmp_path / "uploads") == {"a": b"1"}
    assert "a" not in files_in(shared.directory / "uploads")


def test_a_port_that_is_asked_for(tmp_path):
    port = free_port()
    with serving(tmp_path, "--port", port) as served:
        assert served.url == f"http://127.0.0.1:{port}/files"
        upload(served, "a", b"1")
        served.process.send_signal(signal.SIGTERM)
        assert served.ends() == 0
    with serving(tmp_path, "--port", port) as served:  # at once, although connections linger
        upload(served, "b", b"2")
    assert files_in(tmp_path / "uploads") == {"a": b"1", "b": b"2"}


def test_dir_and_path(tmp_path):
    (tmp_path / "var").mkdir()
    with serving(tmp_path, "--dir", tmp_path / "var" / "my files", "--path", "/api/up/") as served:
        assert urlsplit(served.url).path == "/api/up"
        location = upload(served, "a.txt", b"content")
        assert location.startswith(served.url + "/")
        assert request(served.netloc, "POST", "/files", {"Upload-Length": "1"})[0] == 404
        assert request(served.netloc, "POST", "/api/upload", {"Upload-Length": "1"})[0] == 404
    assert files_in(tmp_path / "var" / "my files") == {"a.txt": b"content"}
    assert not (tmp_path / "uploads").exists()


def test_what_is_no_upload_is_not_found(shared):
    for method, path in (("GET", "/files"), ("POST", "/"), ("GET", "/files-public"), ("GET", "/.tus")):
        status, headers, body = request(shared.netloc, method, path)
        assert (status, headers["content-type"]) == (404, "text/plain; charset=utf-8")
        assert body == b"Not found. This server only receives uploads.\n"
    assert request(shared.netloc, "HEAD", "/x")[0] == 404


def test_its_root_is_a_page(shared):
    status, headers, body = request(shared.netloc, "GET", "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"Upload files" in body
    assert request(shared.netloc, "HEAD", "/")[0] == 200


def test_options_of_the_uploads(tmp_path):
    arguments = ["-o", "max_size=3", "-o", "download=true", "--option", "keep_finished=on"]
    with serving(tmp_path, *arguments) as served:
        assert request(served.netloc, "POST", "/files", {"Upload-Length": "4"})[0] == 413
        location = upload(served, "a.txt", b"abc")
        status, _, body = request(served.netloc, "GET", urlsplit(location).path)
        assert (status, body) == (200, b"abc")


def test_an_async_function_takes_the_files(tmp_path):
    (tmp_path / "taking.py").write_text("async def take(upload):\n    upload.save_to('.', 'taken.txt')\n")
    with serving(tmp_path, "-o", "on_finished=taking:take") as served:
        upload(served, "a.txt", b"content")
    assert (tmp_path / "taken.txt").read_bytes() == b"content"
    assert files_in(tmp_path / "uploads") == {}


def preflight(served, origin):
    headers = {"Origin": origin, "Access-Control-Request-Method": "PATCH"}
    status, answer, _ = request(served.netloc, "OPTIONS", urlsplit(served.url).path, headers)
    assert status == 200
    return {name: value for name, value in answer.items() if name.startswith("access-control-") or name == "vary"}


def test_no_other_origin_by_default(shared):
    assert preflight(shared, "https://a.example") == {}
    created = request(shared.netloc, "POST", "/files", {"Upload-Length": "1", "Origin": "https://a.example"})[1]
    assert not [name for name in created if name.startswith("access-control")]


def test_origins_that_may(tmp_path):
    origins = ("https://a.example", "http://localhost:3000")
    with serving(tmp_path, "--cors-allow-origin", *origins, "--cors-allow-origin", "https://b.example") as served:
        for origin in (*origins, "https://b.example"):
            answer = preflight(served, origin)
            assert answer["access-control-allow-origin"] == origin
            assert "PATCH" in answer["access-control-allow-methods"]
            assert "Upload-Offset" in answer["access-control-allow-headers"]
            headers = {"Upload-Length": "1", "Origin": origin}
            created = request(served.netloc, "POST", "/files", headers)[1]
            assert created["access-control-allow-origin"] == origin
            assert "Location" in created["access-control-expose-headers"]
        assert preflight(served, "https://c.example") == {"vary": "Origin"}


def test_any_origin_may(tmp_path):
    with serving(tmp_path, "--cors-allow-origin", "*") as served:
        assert preflight(served, "https://c.example")["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(("host", "warns"), [("0.0.0.0", True), ("127.0.0.1", False), ("localhost", False)])
def test_a_warning_where_everybody_may_upload(host, warns, tmp_path):
    with serving(tmp_path, "--host", host) as served:
        assert served.url.startswith(f"http://{host}:")
        status, _, _ = request(f"127.0.0.1:{urlsplit(served.url).port}", "OPTIONS", "/files")
        assert status == 200
        if warns:
            assert served.complained.startswith(
                f"warning: anyone who can reach {host} can upload; put an authenticating proxy in front."
            )
            assert served.complained.count("\n") == 1, "once, not by each worker"
        else:
            assert served.complained == ""


def test_several_workers_and_connections(tmp_path):
    contents = {f"file {number}.bin": random.Random(number).randbytes(1_500_000 + number) for number in range(8)}
    with serving(tmp_path, "--workers", "2", "--threads", "4") as served:

        def send(name):
            client = TusClient(served.url)
            stream = io.BytesIO(contents[name])
            client.uploader(file_stream=stream, chunk_size=200_000, metadata={"filename": name}).upload()

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(send, contents))
        assert files_in(tmp_path / "uploads") == contents
        assert len(psutil.Process(served.process.pid).children()) == 2
        assert "Traceback" not in served.complained


# -- Slow clients --------------------------------------------------------------------------------------------------


def connected(served):
    host, _, port = served.netloc.partition(":")
    return socket.create_connection((host, int(port)), timeout=GUARD)


def answered(client):
    """The response of the health check on a connection that stays open."""
    reply = b""
    while not reply.endswith(b"\r\n\r\nok\n"):
        block = client.recv(1000)
        assert block, reply
        reply += block
    return reply


def test_half_sent_heads_hold_no_thread(tmp_path):
    with serving(tmp_path, "--workers", "1", "--threads", "2") as served, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(served)) for _ in range(40)]
        for client in clients:
            client.sendall(b"GET /health HTTP/1.1\r\n")
        for _ in range(5):
            assert request(served.netloc, "GET", "/health")[0] == 200
        assert "Traceback" not in served.complained


_IMPATIENT = """
import sys
import tus.server.protocol_uvicorn as protocol
from tus.cli.main import main
protocol.HEAD_TIMEOUT = protocol.SEND_TIMEOUT = 1
sys.exit(main())
"""
#: ``tus`` whose server waits for clients a second, not a minute.
IMPATIENT = (sys.executable, "-c", _IMPATIENT)


def test_a_head_that_does_not_go_on_is_refused(tmp_path):
    with serving(tmp_path, "--workers", "1", program=IMPATIENT) as served, connected(served) as client:
        client.sendall(b"GET /health HTTP/1.1\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert client.recv(1000) == b""


def test_clients_that_do_not_close_their_connections_hold_no_worker(tmp_path):
    with serving(tmp_path, "--workers", "1", "--threads", "2") as served, contextlib.ExitStack() as stack:
        for _ in range(60):  # one after the other these would last two minutes
            client = stack.enter_context(connected(served))
            client.sendall(f"GET /health HTTP/1.1\r\nHost: {served.netloc}\r\nConnection: close\r\n\r\n".encode())
            assert answered(client).startswith(b"HTTP/1.1 200 OK")
        began = time.monotonic()
        assert request(served.netloc, "GET", "/health")[0] == 200
        assert time.monotonic() - began < GUARD


def test_clients_that_read_no_response_hold_no_thread(tmp_path):
    """Not only downloads: each of these asks for a page again and again."""
    arguments = ("--workers", "1", "--threads", "2")
    with serving(tmp_path, *arguments, program=IMPATIENT) as served, contextlib.ExitStack() as stack:
        head = f"GET / HTTP/1.1\r\nHost: {served.netloc}\r\n\r\n".encode()
        for _ in range(2):
            client = stack.enter_context(connected(served))
            client.settimeout(1)
            with contextlib.suppress(OSError):
                client.sendall(head * 20_000)

        assert request(served.netloc, "GET", "/health")[0] == 200
        assert "Traceback" not in served.complained


def test_a_head_may_come_in_pieces(tmp_path):
    with serving(tmp_path, "--workers", "1", "--threads", "1") as served, connected(served) as client:
        head = f"GET /health HTTP/1.1\r\nHost: {served.netloc}\r\n\r\n".encode()
        client.sendall(head[:9])
        assert request(served.netloc, "GET", "/health")[0] == 200, "the only thread does not wait"
        client.sendall(head[9:] + head[:4])
        assert answered(client).startswith(b"HTTP/1.1 200 OK")
        assert request(served.netloc, "GET", "/health")[0] == 200, "nor on a connection that was kept open"
        client.sendall(head[4:])
        assert answered(client).startswith(b"HTTP/1.1 200 OK")
        client.sendall(head + head)
        assert answered(client).startswith(b"HTTP/1.1 200 OK")


def test_a_head_has_a_largest_size(tmp_path):
    with serving(tmp_path, "--workers", "1") as served, connected(served) as client:
        head = b"GET /health HTTP/1.1\r\n" + b"X-Field: " + b"a" * 1000 + b"\r\n"
        with contextlib.suppress(OSError):
            client.sendall(head + b"X-Other: " + b"b" * (300 << 10))
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1000).startswith(b"HTTP/1.1 431 ")
        assert request(served.netloc, "GET", "/health")[0] == 200


def test_no_connection_waits_for_a_busy_worker_while_another_is_idle(tmp_path):
    """Three of four threads wait for bodies, so one worker of two has no free thread."""
    with serving(tmp_path, "--workers", "2", "--threads", "2") as served, contextlib.ExitStack() as stack:
        urls = [create(served, f"{number}.bin", 1000) for number in range(3)]
        for url in urls:
            stack.enter_context(begin_patch(url, 0, 1000, b"abc"))
        for url in urls:
            wait_for_offset(url, 3)
        for _ in range(20):
            assert request(served.netloc, "GET", "/health")[0] == 200


@pytest.mark.parametrize("most", [2])
def test_clients_without_a_request_do_not_shut_others_out(tmp_path, most):
    program = (sys.executable, "-c", _CROWDED.format(most))
    with serving(tmp_path, "--workers", "1", program=program) as served, contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(connected(served)).sendall(b"GET /health HTTP/1.1\r\n")
        for _ in range(5):
            assert request(served.netloc, "GET", "/health")[0] == 200
        assert served.complained == ""


_CROWDED = """
import sys
from tus.cli import main, serve
serve.MOST_CONNECTIONS = {}
sys.exit(main.main())
"""


_UNKNOWN = """
import sys
import tus.server.worker_uvicorn as worker
from tus.cli.main import main
worker.is_familiar = lambda protocol: False
sys.exit(main())
"""


def test_a_uvicorn_with_other_names_serves_alone_and_the_log_says_so(tmp_path):
    with serving(tmp_path, "--workers", "1", program=(sys.executable, "-c", _UNKNOWN)) as served:
        upload(served, "a.txt", b"content")
        [line] = served.complained.splitlines()
        assert re.fullmatch(r"uvicorn [0-9.]+ is not known, so slow clients can hold .*; put a proxy in front .*", line)
    assert files_in(tmp_path / "uploads") == {"a.txt": b"content"}


def count_descriptors(served, client):
    """The number of descriptors that a worker has of a connection."""
    ours, files = client.getsockname(), list(open_files(served.process))
    for worker in psutil.Process(served.process.pid).children():
        for one in worker.net_connections("tcp4"):
            if one.raddr == ours:
                return files.count(os.readlink(f"/proc/{worker.pid}/fd/{one.fd}"))
    return 0


@needs_proc
def test_the_body_comes_from_the_socket(tmp_path):
    """uvicorn lends it, as the second descriptor of the connection shows; else each byte would be copied twice."""
    with serving(tmp_path) as served:
        url = create(served, "big.bin", 1_000_000)
        with begin_patch(url, 0, 1_000_000, b"x" * 100_000) as client:
            wait_for_offset(url, 100_000)
            assert count_descriptors(served, client) == 2
            client.sendall(b"x" * 900_000)
            assert client.recv(1000).startswith(b"HTTP/1.1 204 ")
            wait_until(lambda: count_descriptors(served, client) == 1)
        assert files_in(tmp_path / "uploads") == {"big.bin": b"x" * 1_000_000}


@pytest.mark.parametrize("size", [100, 1_000_000], ids=["small bodies", "bodies from the socket"])
def test_drips_hold_no_thread(tmp_path, size):
    """Forty clients send a byte now and then, and there are two threads of each kind."""
    with serving(tmp_path, "--workers", "1", "--threads", "2") as served, contextlib.ExitStack() as stack:
        urls = [create(served, f"{number}.bin", size) for number in range(40)]
        clients = [stack.enter_context(begin_patch(url, 0, size, b"x")) for url in urls]
        for sent in (1, 2):
            for url in urls:
                wait_for_offset(url, sent)
            assert upload(served, f"whole {sent}", b"content" * 100_000).startswith(served.url)
            for client in clients:
                client.sendall(b"x")
        for url in urls:
            wait_for_offset(url, 3)


# -- Names --------------------------------------------------------------------------------------------------------

NAMES = {
    "../../etc/passwd": "passwd",
    "/etc/cron.d/job": "job",
    "..\\..\\windows\\win.ini": "win.ini",
    "a\0b\r\n\x1b[31mc.txt": "ab[31mc.txt",
    "naïve ☃ 𝄞.bin": "naïve ☃ 𝄞.bin",
    "u\u0308ber.txt": "über.txt",
    "gpj.\u202eexe": "gpj.exe",
    ".bashrc": "bashrc",
    ".tus": "tus",
    " blank .txt ": "blank.txt",
    "-rf": "rf",
    "C:\\con.txt": "_con.txt",
    'what? "this" <is>|*.txt': "what this is.txt",
    "x" * 300 + ".jpeg": "x" * 195 + ".jpeg",
    "ü" * 150: "ü" * 100,
}
NAMELESS = ["..", ".", "/", "\0", "", "...", "\u202e", b"\0\0"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_safe(name, shared):
    content = os.urandom(20)
    upload(shared, name, content)
    landed = shared.directory / "uploads" / NAMES[name]
    assert landed.read_bytes() == content
    assert stat.S_ISREG(landed.lstat().st_mode)
    landed.unlink()


@pytest.mark.parametrize("name", NAMELESS)
def test_without_a_name_a_file_is_called_by_its_id(name, shared):
    upload_id = upload(shared, name, b"content").rpartition("/")[2]
    landed = shared.directory / "uploads" / upload_id
    assert landed.read_bytes() == b"content"
    landed.unlink()


def test_a_final_upload_of_a_thousand_parts(shared):
    """Each part takes 62 bytes of one header field, and gunicorn allows 8190 bytes by default."""
    path = urlsplit(shared.url).path
    store = store_in(shared.directory / "uploads" / ".tus")
    parts = [store.create(Upload(length=1, concat="partial", service=path)) for _ in range(1000)]
    for part in parts:
        store.append(part, 0, b"x")
    urls = " ".join(f"{shared.url}/{part.id}" for part in parts)
    status, answer, _ = request(shared.netloc, "POST", path, {"Upload-Concat": f"final;{urls}"})
    assert status == 201
    status, answer, _ = request(shared.netloc, "HEAD", urlsplit(answer["location"]).path)
    assert (status, answer["upload-offset"]) == (200, "1000")


def test_nothing_lands_elsewhere(tmp_path):
    with serving(tmp_path) as served:
        for name in (*NAMES, *NAMELESS):
            upload(served, name, b"content")
    assert len(files_in(tmp_path / "uploads")) == len(NAMES) + len(NAMELESS)
    assert {path.name for path in tmp_path.iterdir()} == {"uploads", "stdout", "stderr"}
    assert all(path.is_file() for path in (tmp_path / "uploads").iterdir() if path.name != ".tus")


def test_bytes_that_are_no_text(shared):
    upload(shared, b"caf\xe9.txt", b"content")
    landed = shared.directory / "uploads" / "caf\ufffd.txt"
    assert landed.read_bytes() == b"content"
    landed.unlink()


def test_nothing_is_overwritten(tmp_path):
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    (uploads / "report.txt").write_text("was here before")
    (uploads / "link.txt").symlink_to(tmp_path / "outside.txt")
    (uploads / "folder.txt").mkdir()
    with serving(tmp_path) as served:
        for content in (b"first", b"second"):
            upload(served, "report.txt", content)
        upload(served, "report", b"third")
        upload(served, "link.txt", b"fourth")
        upload(served, "folder.txt", b"fifth")
    (uploads / "link.txt").unlink()
    (uploads / "folder.txt").rmdir()
    assert {re.sub("-[0-9a-f]{6}", "-key", name) for name in files_in(uploads)} == {
        *("report.txt", "report-key.txt", "report", "link-key.txt", "folder-key.txt")
    }
    assert sorted(files_in(uploads).values()) == [
        b"fifth",
        b"first",
        b"fourth",
        b"second",
        b"third",
        b"was here before",
    ]
    assert (uploads / "report.txt").read_text() == "was here before"
    assert not (tmp_path / "outside.txt").exists()


def test_one_name_many_times_at_once(tmp_path):
    contents = [f"content {number}".encode() * 1000 for number in range(16)]
    with serving(tmp_path, "--workers", "2") as served:
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda content: upload(served, "same.txt", content), contents))
        landed = files_in(tmp_path / "uploads")
        assert sorted(landed.values()) == sorted(contents)
        assert "same.txt" in landed
        assert all(re.fullmatch("same-[0-9a-f]{6}.txt", name) for name in set(landed) - {"same.txt"})


def test_a_file_appears_when_it_is_whole(tmp_path):
    with serving(tmp_path, umask=0o027) as served:
        uploads = tmp_path / "uploads"
        url = create(served, "slow.bin", 30)
        upload_id = url.rpartition("/")[2]
        for offset in (0, 10):
            assert patch(url, offset, b"0123456789")[0] == 204
            assert files_in(uploads) == {}
            assert (uploads / ".tus" / upload_id).stat().st_size == offset + 10
        assert stat.S_IMODE((uploads / ".tus").stat().st_mode) == 0o700
        assert stat.S_IMODE((uploads / ".tus" / upload_id).stat().st_mode) == 0o600
        assert patch(url, 20, b"0123456789")[0] == 204
        assert files_in(uploads) == {"slow.bin": b"0123456789" * 3}
        landed = (uploads / "slow.bin").stat()
        assert stat.S_IMODE(landed.st_mode) == 0o640, "as the umask has it"
        assert landed.st_nlink == 1, "the store has let go of it"
        assert not (uploads / ".tus" / upload_id).exists()


# -- Its end ------------------------------------------------------------------------------------------------------


def begin_patch(url, offset, size, first):
    """Open a connection, announce a body and send its beginning."""
    parts = urlsplit(url)
    client = socket.create_connection((parts.hostname, parts.port), timeout=GUARD)
    client.sendall(
        f"PATCH {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nTus-Resumable: 1.0.0\r\n"
        f"Content-Type: application/offset+octet-stream\r\nUpload-Offset: {offset}\r\nContent-Length: {size}\r\n"
        "\r\n".encode()
        + first
    )
    return client


def moved(url, served):
    """The same upload, at a server that was started again."""
    return urlsplit(url)._replace(netloc=served.netloc).geturl()


ENDINGS = {
    "SIGTERM": lambda process: process.send_signal(signal.SIGTERM),
    "SIGTERM to all of them": lambda process: os.killpg(process.pid, signal.SIGTERM),
    "SIGINT": lambda process: process.send_signal(signal.SIGINT),
    "Ctrl-C": lambda process: os.killpg(process.pid, signal.SIGINT),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_end_in_the_middle_of_a_patch_loses_nothing(ending, tmp_path):
    content = random.Random(11).randbytes(1_000_000)
    sent = 345_678
    with serving(tmp_path) as served:
        url = create(served, "big.bin", len(content))
        with begin_patch(url, 0, len(content), content[:sent]):
            assert wait_for_offset(url, sent) == sent
            began = time.monotonic()
            ENDINGS[ending](served.process)
            assert served.ends() == 0
            assert time.monotonic() - began < PROMPT
        assert "Traceback" not in served.complained
        assert files_in(tmp_path / "uploads") == {}
    with serving(tmp_path) as served:
        url = moved(url, served)
        assert offset_of(url) == sent
        status, headers = patch(url, sent, content[sent:])
        assert (status, headers["upload-offset"]) == (204, str(len(content)))
        assert files_in(tmp_path / "uploads") == {"big.bin": content}


def test_the_client_of_a_server_that_ends_hears_how_far_it_came(tmp_path):
    with serving(tmp_path) as served:
        url = create(served, "big.bin", 1_000_000)
        with begin_patch(url, 0, 1_000_000, b"x" * 123_456) as client:
            wait_for_offset(url, 123_456)
            served.process.send_signal(signal.SIGTERM)
            reply = b"".join(iter(lambda: client.recv(65536), b"")).decode()
        assert reply.startswith("HTTP/1.1 204 No Content\r\n")
        assert "\r\nupload-offset: 123456\r\n" in reply
        assert served.ends() == 0


@pytest.mark.parametrize("ending", ["SIGTERM", "Ctrl-C"])
def test_an_end_while_bytes_pour_in(ending, tmp_path):
    """Wherever the signal strikes: what is counted is a prefix of what was sent, and the rest completes it."""
    content = random.Random(13).randbytes(1 << 20) * 64
    with serving(tmp_path) as served:
        url = create(served, "big.bin", len(content))
        with begin_patch(url, 0, len(content), b"") as client:

            def pour():
                with contextlib.suppress(OSError):
                    for start in range(0, len(content), 50_000):
                        client.sendall(content[start : start + 50_000])
                        time.sleep(0.0005)

            sender = threading.Thread(target=pour)
            sender.start()
            wait_for_offset(url, 1_000_000)
            ENDINGS[ending](served.process)
            assert served.ends() == 0
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            sender.join(GUARD)
            assert not sender.is_alive()
        assert "Traceback" not in served.complained
    with serving(tmp_path) as served:
        url = moved(url, served)
        offset = offset_of(url)
        assert 1_000_000 <= offset < len(content), "the signal came in the middle"
        assert (tmp_path / "uploads" / ".tus" / url.rpartition("/")[2]).read_bytes()[:offset] == content[:offset]
        assert patch(url, offset, content[offset:])[0] == 204
        assert files_in(tmp_path / "uploads") == {"big.bin": content}


@pytest.mark.parametrize("size", [100, 1_000_000], ids=["a small body", "a body from the socket"])
def test_a_reload_loses_nothing(tmp_path, size):
    """SIGHUP replaces the workers: the bytes of the old ones count, and new ones serve the rest."""
    with serving(tmp_path) as served:
        workers = {worker.pid for worker in psutil.Process(served.process.pid).children()}
        url = create(served, "big.bin", size)
        with begin_patch(url, 0, size, b"x" * 60) as client:
            wait_for_offset(url, 60)
            served.process.send_signal(signal.SIGHUP)
            reply = client.recv(65536)
            assert reply.startswith(b"HTTP/1.1 204 ")
            assert b"\r\nupload-offset: 60\r\n" in reply
        wait_until(lambda: not workers & {worker.pid for worker in psutil.Process(served.process.pid).children()})
        assert patch(url, 60, b"x" * (size - 60))[0] == 204
        assert files_in(tmp_path / "uploads") == {"big.bin": b"x" * size}
        assert served.complained == ""


def test_a_client_of_the_ietf_learns_the_url_before_the_body_is_there(tmp_path):
    with serving(tmp_path) as served, connected(served) as client:
        client.sendall(
            b"POST /files HTTP/1.1\r\nHost: localhost\r\nUpload-Draft-Interop-Version: 8\r\nUpload-Complete: ?1\r\n"
            b"Content-Length: 200000\r\n\r\n" + b"x" * 100_000
        )
        interim = client.recv(1000)
        assert interim.startswith(b"HTTP/1.1 104 ")
        location = re.search(rb"\r\nlocation: (\S+)\r\n", interim)[1].decode()
        client.sendall(b"x" * 100_000)
        reply = b""
        while not re.search(rb"HTTP/1.1 20[0-9] [^\0]*\r\n\r\n", reply):  # other interim responses may come before
            reply += client.recv(65536)
        assert urlsplit(location).netloc == "localhost"
    [data] = files_in(tmp_path / "uploads").values()
    assert data == b"x" * 200_000


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
def test_a_body_without_a_length_that_a_stop_ends_is_not_the_whole_file(tmp_path, ending):
    """Its end and its cut look alike to a server that only stops to read."""
    with serving(tmp_path) as served, connected(served) as client:
        client.sendall(
            b"POST /files HTTP/1.1\r\nHost: localhost\r\nUpload-Draft-Interop-Version: 8\r\nUpload-Complete: ?1\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n186a0\r\n" + b"x" * 100_000 + b"\r\n"
        )
        data = []

        def has_come():
            data[:] = [
                path for path in (tmp_path / "uploads" / ".tus").glob("?" * 32) if path.stat().st_size == 100_000
            ]
            return data

        wait_until(has_come)
        served.process.send_signal(ending)
        reply = b""
        with contextlib.suppress(ConnectionResetError):
            while block := client.recv(65536):
                reply += block
        assert b"\r\n\r\nHTTP/1.1 201 " in reply, "behind the interim response"
        assert b"\r\nupload-complete: ?0\r\n" in reply
    assert files_in(tmp_path / "uploads") == {}
    assert store_in(tmp_path / "uploads" / ".tus").load(data[0].name).offset == 100_000


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_end_while_nothing_happens(ending, tmp_path):
    """A connection that a client keeps for later holds nobody up."""
    with serving(tmp_path) as served:
        idle = http.client.HTTPConnection(served.netloc)
        idle.request("OPTIONS", "/files", headers=TUS)
        idle.getresponse().read()
        assert idle.sock is not None
        ENDINGS[ending](served.process)
        assert served.ends() == 0
        idle.close()
        assert served.complained == ""


@pytest.mark.parametrize("ending", ["SIGINT", "SIGTERM", "Ctrl-C"])
def test_an_end_while_many_ask(ending, tmp_path):
    """A signal may find a worker in the middle of anything, and yet ends it."""
    with serving(tmp_path, "--workers", "1") as served:
        ended = threading.Event()

        def ask():
            while not ended.is_set():
                with contextlib.suppress(OSError, http.client.HTTPException):
                    request(served.netloc, "OPTIONS", "/files")

        askers = [threading.Thread(target=ask) for _ in range(8)]
        for asker in askers:
            asker.start()
        try:
            time.sleep(0.05)  # while the worker's threads are being started
            ENDINGS[ending](served.process)
            status = served.ends()
        finally:
            ended.set()
            for asker in askers:
                asker.join(GUARD)
        assert status == 0
        assert "Traceback" not in served.complained


# -- Mistakes -----------------------------------------------------------------------------------------------------


MISTAKES = [
    (["--port", "70000"], "--port"),
    (["-o", "max_size"], "--option"),
    (["-o", "tmp_file_dir=x"], "--option"),
    (["-o", "max_sise=3"], "max_sise"),
    (["-o", "max_size=much"], "max_size"),
    (["--metrics", "x"], "--metrics"),
    (["--allow-host", "http://up.example"], "--allow-host"),
    (["--allow-host", "up.example:80"], "--allow-host"),
    (["--port", "-1"], "--port"),
    (["--port", "http"], "--port"),
    (["--workers", "0"], "--workers"),
    (["--workers", "two"], "--workers"),
    (["--threads", "0"], "--threads"),
    (["--path", "files"], "--path"),
    (["--path", "/"], "--path"),
    (["--path", "/a?b"], "--path"),
    (["--cors-allow-origin", "example.org"], "--cors-allow-origin"),
    (["--cors-allow-origin", "*", "https://a.example"], "--cors-allow-origin"),
    (["--cors-allow-origin"], "--cors-allow-origin"),
    (["--dir", "missing/uploads"], "--dir"),
    (["--dir", "a-file"], "--dir"),
    (["--host", "192.0.2.1"], "--host"),
    (["--nonsense"], "--nonsense"),
    (["good.ini", "--dir", "x"], "--dir"),
    (["good.ini", "--path", "/x"], "--path"),
    (["good.ini", "--cors-allow-origin", "*"], "--cors-allow-origin"),
]


@pytest.mark.parametrize(("arguments", "option"), MISTAKES, ids=lambda value: " ".join(value) if value else None)
def test_a_bad_option_is_named(arguments, option, tmp_path):
    (tmp_path / "a-file").write_text("")
    (tmp_path / "good.ini").write_text(GOOD)
    if "--port" not in arguments:
        arguments = [*arguments, "--port", "0"]
    assert_refused(run("serve", *arguments, directory=tmp_path), option)
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["rm"], ["show"], ["ls", "a", "b"], ["serve", "a.ini", "b.ini"]]
)
def test_a_command_that_does_not_exist(arguments, tmp_path):
    done = run(*arguments, directory=tmp_path)
    assert_refused(done, "usage: tus")


def test_a_port_that_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "--port", port, directory=tmp_path)
    assert "Connection in use" not in done.stderr, "gunicorn tries again and again"
    assert_refused(done, "--port", f"127.0.0.1:{port}", "Address already in use")


def test_without_gunicorn_it_is_said_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "gunicorn.app.base", None)
    assert cli.main(["serve", "--port", "0"]) == 1
    assert "pip install gunicorn uvicorn httptools" in capsys.readouterr().err


GOOD = """
[pipeline:main]
pipeline = tus files
[filter:tus]
use = egg:tus
upload_path = /files
tmp_file_dir = %(here)s/store
[app:files]
use = egg:tus#files
directory = %(here)s/landed
"""

BROKEN = {
    "no section": ("upload_path = /files\n", "CONFIG.ini"),
    "no application": ("[server:main]\nuse = egg:waitress\n", "CONFIG.ini"),
    "empty": ("", "CONFIG.ini"),
    "a section twice": (GOOD + "[app:files]\nuse = egg:tus#files\n", "files"),
    "an option twice": (GOOD + "directory = x\n", "directory"),
    "no such filter": (GOOD.replace("pipeline = tus files", "pipeline = tos files"), "tos"),
    "no such entry point": (GOOD.replace("egg:tus#files", "egg:tus#nothing"), "nothing"),
    "no such egg": (GOOD.replace("egg:tus#files", "egg:no-such-distribution"), "no-such-distribution"),
    "no such module": (GOOD.replace("egg:tus#files", "call:no_such_module:app"), "no_such_module"),
    "no such variable": (GOOD.replace("%(here)s/landed", "%(there)s/landed"), "there"),
    "a percent sign": (GOOD.replace("%(here)s/landed", "100%"), "%"),
    "an unknown option": (GOOD.replace("upload_path", "upload_pth"), "upload_pth"),
    "a bad value": (GOOD.replace("[app:files]", "max_size = much\n[app:files]"), "max_size"),
    "a missing option": (GOOD.replace("tmp_file_dir = %(here)s/store\n", ""), "tmp_file_dir"),
    "a missing directory": (GOOD.replace("%(here)s/store", "%(here)s/missing/store"), "tmp_file_dir"),
    "an option of files that is missing": (GOOD.replace("directory = %(here)s/landed\n", ""), "directory"),
    "an option of files that is unknown": (GOOD + "color = green\n", "color"),
    "a directory of files that is missing": (GOOD.replace("%(here)s/landed", "%(here)s/no/landed"), "directory"),
    "logging that is broken": (GOOD + "[loggers]\nkeys = root\n", "CONFIG.ini"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_configuration_is_explained(kind, tmp_path):
    text, word = BROKEN[kind]
    (tmp_path / "broken.ini").write_text(text)
    assert_refused(run("serve", "broken.ini", "--port", "0", directory=tmp_path), word)


def test_a_configuration_that_cannot_be_read(tmp_path):
    assert_refused(run("serve", "missing.ini", "--port", "0", directory=tmp_path), "CONFIG.ini", "missing.ini")
    assert_refused(run("serve", tmp_path, "--port", "0", directory=tmp_path), "CONFIG.ini", str(tmp_path))
    (tmp_path / "latin.ini").write_bytes(GOOD.encode() + "# grün\n".encode("latin-1"))
    assert_refused(run("serve", "latin.ini", "--port", "0", directory=tmp_path), "CONFIG.ini")


@pytest.mark.parametrize("name", ["app.ini", "with blank.ini", "grün.ini", "a#b.ini"])
def test_a_configuration_is_served_whatever_it_is_called(name, tmp_path):
    logging = """
[loggers]
keys = root
[handlers]
keys = file
[formatters]
keys =
[logger_root]
level = INFO
handlers = file
[handler_file]
class = FileHandler
args = (r"%(here)s/log",)
"""
    (tmp_path / name).write_text(GOOD + logging)
    with serving(tmp_path, name) as served:
        assert urlsplit(served.url).path == "/"
        served.url += "files"
        upload(served, "a.txt", b"content")
        assert "Traceback" not in served.complained
    assert files_in(tmp_path / "landed") == {"a.txt": b"content"}
    assert (tmp_path / "log").exists()


SERVERS = {
    "gunicorn": "use = egg:gunicorn#main\nhost = 127.0.0.1\nport = {port}\nworkers = 2\nthreads = 3\n",
    "gunicorn-bind": "use = egg:gunicorn\nbind = 127.0.0.1:{port}\n",
    "waitress": "use = egg:waitress#main\nlisten = 127.0.0.1:{port}\nmax_request_body_size = 1099511627776\n",
    "default": "use = egg:waitress#main\nport = %(the_port)s\n[DEFAULT]\nthe_port = {port}\n",
}


@pytest.mark.parametrize("kind", SERVERS)
def test_the_server_section_is_followed(tmp_path, kind):
    port = free_port()
    (tmp_path / "site.ini").write_text(GOOD + "[server:main]\n" + SERVERS[kind].format(port=port))
    with serving(tmp_path, "site.ini", has_port=True) as served:
        assert urlsplit(served.url).port == port
        served.url += "files"
        upload(served, "a.txt", b"content")
        unused = {"waitress": "use, max_request_body_size", "default": "use"}.get(kind)
        warning = f"warning: tus serve runs gunicorn, and does not use {unused} of [server:main].\n"
        assert (warning in served.complained) == (unused is not None)
        assert ("warning" in served.complained) == (unused is not None)
    assert files_in(tmp_path / "landed") == {"a.txt": b"content"}


def test_the_command_line_comes_before_the_server_section(tmp_path):
    (tmp_path / "site.ini").write_text(GOOD + "[server:main]\nuse = egg:gunicorn\nhost = 192.0.2.1\nport = 1\n")
    with serving(tmp_path, "site.ini", "--host", "127.0.0.1") as served:
        assert urlsplit(served.url).port != 1


@pytest.mark.parametrize("line", ["port = many", "port = 70000", "threads = 0", "workers = -1", "host = %(nothing)s"])
def test_a_mistake_in_the_server_section(tmp_path, line):
    (tmp_path / "site.ini").write_text(GOOD + f"[server:main]\nuse = egg:gunicorn\n{line}\n")
    name = "[server:main]" if line.split()[0] in ("host", "workers") or "many" in line else line.split()[0]
    assert_refused(run("serve", "site.ini", directory=tmp_path), name)


# -- Looking after the directory meanwhile; the rest of that is in test_cli.py ------------------------------------


def test_clean_beside_a_server(tmp_path):
    with serving(tmp_path) as served:
        url = create(served, "a", 10)
        assert patch(url, 0, b"12345")[0] == 204
        store = store_in(tmp_path / "uploads" / ".tus", ago=3600, lifetime=60)
        expired = filled(store, 10, b"1")
        assert run("clean", tmp_path / "uploads").returncode == 0  # if the server itself was not quicker
        assert head(f"{served.url}/{expired.id}")[0] in (404, 410)
        assert patch(url, 5, b"67890")[0] == 204
    assert files_in(tmp_path / "uploads") == {"a": b"1234567890"}


# -- The application that files uploads ---------------------------------------------------------------------------


@pytest.fixture
def landed(tmp_path):
    return tmp_path / "landed"


@pytest.fixture
def land(tmp_path, landed):
    """Upload a file into the directory, and return the names there."""
    app = Filter(Files(str(landed)), upload_path="/files", tmp_file_dir=tmp_path / "store", threads=False)

    def land(name="report.txt", content=b"content"):
        url = call(app, "POST", "/files", TUS | named(name) | {"Upload-Length": str(len(content))})["Location"]
        assert call(app, "PATCH", url, TUS | OCTETS | {"Upload-Offset": "0"}, content).status == 204
        return sorted(os.listdir(landed))

    return land


def test_files_land_under_their_names(land, landed):
    assert land() == ["report.txt"]
    names = land(content=b"another")
    assert len(names) == 2
    assert [re.sub("-[0-9a-f]{6}", "-key", name) for name in names] == ["report-key.txt", "report.txt"]
    assert files_in(landed)[names[0]] == b"another"


def test_files_may_be_on_another_disk(land, landed, tmp_path):
    with another_disk(tmp_path / "store").installed():
        assert land() == ["report.txt"]
    assert (landed / "report.txt").stat().st_nlink == 1
    assert os.listdir(landed) == ["report.txt"]


def test_files_may_be_on_a_disk_without_links(land, landed):
    with simple_disk().installed():
        (name,) = land()
    assert re.fullmatch("report-[0-9a-f]{32}.txt", name)


def test_the_directory_is_made_and_left_clean(landed, tmp_path):
    Files(str(landed))
    assert list(landed.iterdir()) == []
    assert Files(str(landed)).directory == str(landed)
    for bad in (tmp_path / "no" / "landed", tmp_path / "file"):
        (tmp_path / "file").write_text("")
        with pytest.raises(OptionError) as wrong:
            Files(str(bad))
        assert wrong.value.option == "directory"


CRASH = """
import os, sys
import tests.support.wsgi
from tus import Filter
from tus.apps.files import Files

store, landed, url = sys.argv[1:]
link = os.link
app = Filter(Files(landed), upload_path="/files", tmp_file_dir=store)

def dying(*arguments, **words):
    link(*arguments, **words)
    os._exit(9)

os.link = dying
headers = tests.support.wsgi.TUS | tests.support.wsgi.OCTETS | {"Upload-Offset": "5"}
tests.support.wsgi.call(app, "PATCH", url, headers, b"")
raise SystemExit("the process has survived")
"""


@pytest.mark.parametrize("suffixed", [False, True], ids=["first name", "suffixed"])
def test_a_death_between_the_link_and_its_acceptance(suffixed, tmp_path, landed):
    """The process dies once the file has appeared; the client asks again, and the file is there once."""
    failing = Filter(_refuse, upload_path="/files", tmp_file_dir=tmp_path / "store")
    url = call(failing, "POST", "/files", TUS | named("report.txt") | {"Upload-Length": "5"})["Location"]
    assert call(failing, "PATCH", url, TUS | OCTETS | {"Upload-Offset": "0"}, b"hello").status == 503
    landed.mkdir()
    if suffixed:
        (landed / "report.txt").write_text("another")
    script = [sys.executable, "-c", CRASH, str(tmp_path / "store"), str(landed), url]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 9, done.stderr
    (name,) = [path.name for path in landed.iterdir() if path.read_bytes() == b"hello"]
    assert re.fullmatch("report-[0-9a-f]{6}.txt" if suffixed else "report.txt", name)
    assert (landed / name).stat().st_nlink == 2
    if suffixed:
        (landed / "report.txt").unlink()
    app = Filter(Files(str(landed)), upload_path="/files", tmp_file_dir=tmp_path / "store")
    for _ in range(2):
        assert call(app, "PATCH", url, TUS | OCTETS | {"Upload-Offset": "5"}).status == 204
    assert files_in(landed) == {name: b"hello"}
    assert (landed / name).stat().st_nlink == 1


def _refuse(environ, start_response):
    start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
    return [b"not now"]


def test_an_acceptance_that_failed_is_made_up_for(tmp_path, landed, monkeypatch):
    """The same within one process: the record could not be written, and then it can."""
    from tus.stores.directory.claims import DirectoryClaim

    def fail(claim, answer):
        raise OSError(5, "Input/output error")

    app = Filter(Files(str(landed)), upload_path="/files", tmp_file_dir=tmp_path / "store")
    url = call(app, "POST", "/files", TUS | named("report.txt") | {"Upload-Length": "5"})["Location"]
    with monkeypatch.context() as broken:
        broken.setattr(DirectoryClaim, "accept", fail)
        for offset, body in ((0, b"hello"), (5, b"")):
            reply = call(app, "PATCH", url, TUS | OCTETS | {"Upload-Offset": str(offset)}, body)
            assert (reply.status, reply.get("Upload-Offset")) == (204, "5"), (
                "the file is there, and that is what counts"
            )
    assert call(app, "PATCH", url, TUS | OCTETS | {"Upload-Offset": "5"}).status == 204
    assert files_in(landed) == {"report.txt": b"hello"}


def test_what_waits_at_the_start_is_put_in_its_place_without_a_request(tmp_path):
    (tmp_path / "uploads" / ".tus").mkdir(parents=True)
    filled(store_in(tmp_path / "uploads" / ".tus", ago=60), 5, b"hello", "late.txt")
    with serving(tmp_path):
        wait_until((tmp_path / "uploads" / "late.txt").exists)
    assert (tmp_path / "uploads" / "late.txt").read_bytes() == b"hello"


def test_a_webhook_gets_the_path_where_the_file_is(tmp_path):
    with contextlib.closing(Endpoint()) as endpoint:
        options = ("-o", f"webhook={endpoint.url}", "-o", "webhook_events=post-finish")
        with serving(tmp_path, *options) as served:
            upload(served, "film.mp4", b"content")
            (post,) = endpoint.wait(1)
        assert Path(post.upload["Storage"]["Path"]).samefile(tmp_path / "uploads" / "film.mp4")


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="this system has no directory in memory")
def test_no_stalled_disk_stops_a_worker(tmp_path):
    """gunicorn kills a worker that does not touch its file in time; the disk of TMPDIR may be stalled."""
    (tmp_path / "temporary").mkdir()
    env = os.environ | {"TMPDIR": str(tmp_path / "temporary")}
    with serving(tmp_path, "--metrics", env=env) as served:
        call_it = http.client.HTTPConnection(served.netloc, timeout=GUARD)
        call_it.request("GET", "/metrics")
        assert call_it.getresponse().status == 200
        call_it.close()
        wait_until(lambda: any("wgunicorn" in path for path in open_files(served.process)))
        paths = list(open_files(served.process))
        assert all(path.startswith("/dev/shm/") for path in paths if "wgunicorn" in path)
        assert any(path.startswith("/dev/shm/tus-metrics-") for path in paths)
        assert not any(path.startswith(f"{tmp_path}/temporary") for path in paths)
