"""The recipes of docs/deploying.rst, run by the programs that they are for: ``pytest -m proxies``.

It needs nginx, Caddy, Apache with mod_wsgi, and uWSGI: ``apt-get install nginx caddy apache2 libapache2-mod-wsgi-py3
openssl`` and ``pip install uwsgi``.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import ssl
import struct
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest
from tusclient.client import TusClient

from tests.support.deploying import DOCUMENT, PROXIES, mod_wsgi, nginx, program, recipe, uwsgi
from tests.support.serving import ROOT, free_port, serving
from tests.support.waiting import wait_until
from tests.support.wsgi import OCTETS, TUS

pytestmark = [pytest.mark.proxies, pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")]


@pytest.fixture
def behind(tmp_path):
    """Starts a proxy in front of gunicorn; gives the public port and the site."""
    with contextlib.ExitStack() as stack:

        def start(proxy, **how):
            site = stack.enter_context(serving("gunicorn-gthread", tmp_path, trusted_proxies="127.0.0.1"))
            port = free_port()
            directory = tmp_path / "proxy"
            directory.mkdir()
            directory.chmod(0o755)
            stack.enter_context(proxy(directory, port, f"127.0.0.1:{site.port}", **how))
            return port, site

        yield start


def request(port, method, path, headers=(), body=None, scheme="http"):
    made = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    if scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        made = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)
    with closing(made) as connection:
        connection.request(method, path, body, TUS | dict(headers))
        reply = connection.getresponse()
        reply.read()
        return reply.status, reply.headers


def create(port, size, **how):
    status, headers = request(port, "POST", "/files", {"Upload-Length": str(size), "Content-Length": "0"}, **how)
    assert status == 201
    return headers["Location"]


def cut(port, path, end):
    """Send a million bytes of two, and vanish."""
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        head = "".join(f"{name}: {value}\r\n" for name, value in (TUS | OCTETS | {"Upload-Offset": "0"}).items())
        head = f"PATCH {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{head}Content-Length: 2000000\r\n\r\n"
        client.sendall(head.encode() + b"x" * 1_000_000)
        # A reset throws away what the other side has not read yet, as while it imports the site.
        wait_until(lambda: is_read(client), "the server does not read")
        time.sleep(1)  # a proxy passes on what it has read
        if end == "RST":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def is_read(client):
    """Whether nothing waits for the process at the other end of a connection, as Linux tells."""
    ends = [f"{number:04X}" for number in (client.getpeername()[1], client.getsockname()[1])]
    tables = ("/proc/net/tcp", "/proc/net/tcp6")  # the second one for servers that listen on both
    for row in [row for table in tables for row in Path(table).read_text().splitlines()[1:]]:
        _, theirs, ours, _, queues = row.split()[:5]
        if [theirs[-4:], ours[-4:]] == ends:
            return int(queues.partition(":")[2], 16) == 0
    raise AssertionError("the connection is closed")


def kept(port, path):
    """The offset once it rests."""
    seen, since = -1, time.monotonic()
    while time.monotonic() - since < 2:
        status, headers = request(port, "HEAD", path)
        assert status in (200, 423)
        if status == 200 and int(headers["Upload-Offset"]) != seen:
            seen, since = int(headers["Upload-Offset"]), time.monotonic()
        time.sleep(0.1)
    return seen


def documented():
    """The rows of the tables: name to bytes after FIN and after RST."""
    text = (ROOT / DOCUMENT).read_text()
    rows = re.findall(r"^([\w,` ]+?)  +([\d ]+?)  +([\d ]+)$", text, re.MULTILINE)
    return {name: (int(fin.replace(" ", "")), int(rst.replace(" ", ""))) for name, fin, rst in rows}


def measured(port):
    found = []
    for end in ("FIN", "RST"):
        path = "/files/" + create(port, 2_000_000).rpartition("/")[2]
        cut(port, path, end)
        found.append(kept(port, path))
    return tuple(found)


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_passes_on_what_comes(behind, name, tmp_path):
    port, site = behind(PROXIES[name])
    assert create(port, 5).startswith(f"http://127.0.0.1:{port}/files/")
    evil = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/evil"}
    evil |= {"Forwarded": "host=evil.example", "Upload-Length": "5", "Content-Length": "0"}
    assert request(port, "POST", "/files", evil)[1]["Location"].startswith(f"http://127.0.0.1:{port}/files/")
    content = os.urandom(5_000_000)
    (tmp_path / "source").write_bytes(content)
    for chunk_size in (2_000_000, 10_000_000):
        uploader = TusClient(f"http://127.0.0.1:{port}/files").uploader(str(tmp_path / "source"), chunk_size=chunk_size)
        uploader.upload()
        assert (site.landed / uploader.url.rpartition("/")[2]).read_bytes() == content
    assert measured(port) == documented()[name]


def test_a_refusal_of_a_long_body_passes_nginx(behind):
    """Nginx responds with 502 if its connection is reset while it still sends."""
    port, _ = behind(nginx)
    path = create(port, 100)
    for size in (200_000, 20_000_000):
        for _ in range(5):
            assert request(port, "PATCH", path, OCTETS | {"Upload-Offset": "5"}, bytes(size))[0] == 409
            assert request(port, "POST", "/files", OCTETS | {"Upload-Length": "5"}, bytes(size))[0] == 413


def test_a_proxy_that_buffers_keeps_nothing(behind):
    """What the recipe is for; and the other test can fail."""
    change = {"change": lambda text: text.replace("proxy_request_buffering off", "proxy_request_buffering on")}
    port, _ = behind(nginx, **change)
    assert measured(port) == documented()["nginx, ``proxy_request_buffering``"] == (0, 0)


def test_a_hand_over_that_takes_longer_than_nginx_waits(behind):
    port, site = behind(nginx, change=lambda text: text.replace("proxy_read_timeout 10m", "proxy_read_timeout 1s"))
    create(site.port, 5)  # the worker has started, so that nginx waits for the application alone
    seconds = {"Upload-Metadata": "seconds My41"}  # 3.5
    headers = request(port, "POST", "/files", {"Upload-Length": "5", "Content-Length": "0"} | seconds)[1]
    path = headers["Location"].partition(str(port))[2]
    assert request(port, "PATCH", path, OCTETS | {"Upload-Offset": "0"}, b"hello")[0] == 504
    status, headers = request(port, "HEAD", path)
    assert (status, headers["Retry-After"]) == (423, "1")
    assert request(port, "PATCH", path, OCTETS | {"Upload-Offset": "4"}, b"o")[0] == 423
    while status == 423:
        time.sleep(0.1)
        status, headers = request(port, "HEAD", path)
    assert (status, headers["Upload-Offset"]) == (200, "5")
    assert request(port, "PATCH", path, OCTETS | {"Upload-Offset": "5"})[1]["X-App"] == "has it"
    assert len(site.handovers.read_text().split()) == 1


def test_nginx_with_a_prefix(behind):
    def change(text):
        text = text.replace("location /files", "location /site/").replace(
            'X-Forwarded-Prefix ""', "X-Forwarded-Prefix /site"
        )
        return re.sub(r"proxy_pass (http://[0-9.:]+);", r"proxy_pass \1/;", text)

    port, _ = behind(nginx, change=change)
    headers = {"Upload-Length": "5", "Content-Length": "0"}
    location = request(port, "POST", "/site/files", headers)[1]["Location"]
    assert location.startswith(f"http://127.0.0.1:{port}/site/files/")
    path = location.partition(str(port))[2]
    assert request(port, "PATCH", path, OCTETS | {"Upload-Offset": "0"}, b"hello")[0] == 204


def test_nginx_with_tls(behind, tmp_path):
    command = [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    command += ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "certificate")]
    subprocess.run(command, check=True, capture_output=True)
    more = f"ssl_certificate {tmp_path}/certificate; ssl_certificate_key {tmp_path}/key;"

    port, _ = behind(nginx, change=lambda text: re.sub(r"(listen [0-9.:]+);", r"\1 ssl;", text), more=more)
    assert create(port, 5, scheme="https").startswith(f"https://127.0.0.1:{port}/files/")


def test_gunicorn_at_a_unix_socket(tmp_path):
    (tmp_path / "site.ini").write_text(
        "[pipeline:main]\npipeline = tus files\n"
        "[filter:tus]\nuse = egg:tus#main\nupload_path = /files\ntmp_file_dir = %(here)s/uploads.tmp\n"
        "trusted_proxies = unix\n[app:files]\nuse = egg:tus#files\ndirectory = %(here)s/uploads\n"
    )
    line = next(line for line in recipe("console").splitlines() if line.startswith("$ gunicorn"))
    command = line.removeprefix("$ ").replace("127.0.0.1:1080", f"unix:{tmp_path}/site.sock").split()
    gunicorn = subprocess.Popen([program(command[0]), *command[1:]], cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not (tmp_path / "site.sock").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (tmp_path / "site.sock").chmod(0o777)
        directory = tmp_path / "proxy"
        directory.mkdir()
        port = free_port()
        with nginx(directory, port, f"unix:{tmp_path}/site.sock:"):
            assert create(port, 5).startswith(f"http://127.0.0.1:{port}/files/")
    finally:
        gunicorn.terminate()
        gunicorn.wait(20)


def chunked(port):
    """The status of a reply to a chunked creation with bytes."""
    headers = TUS | OCTETS | {"Upload-Length": "5", "Transfer-Encoding": "chunked"}
    return request(port, "POST", "/files", headers, iter([b"hello"]))[0]


@pytest.mark.parametrize(("name", "server"), [("uWSGI", uwsgi), ("mod_wsgi", mod_wsgi)])
def test_servers_that_are_no_python_programs(name, server, tmp_path):
    with server(tmp_path) as port:
        assert measured(port) == documented()[name]
        assert chunked(port) == 411
