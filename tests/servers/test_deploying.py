"""The recipes of docs/deploying.rst, run by the programs that they are for: ``pytest -m proxies``.

It needs nginx, Caddy, Apache with mod_wsgi, and uWSGI: ``apt-get install nginx caddy apache2 libapache2-mod-wsgi-py3
openssl`` and ``pip install uwsgi``.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import pytest
from tusclient.client import TusClient

from tests.support.documents import blocks
from tests.support.serving import ROOT, free_port, serving, wait_for_port
from tests.support.wsgi import OCTETS, TUS

pytestmark = [pytest.mark.proxies, pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")]

DOCUMENT = "docs/deploying.rst"
MODULES = "/usr/lib/apache2/modules"


def program(name):
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    found = found or shutil.which(name, path=os.path.dirname(sys.executable))
    assert found, f"{name} is not installed; see the first lines of this file"
    return found


def recipe(language, number=0):
    return blocks(language, DOCUMENT)[number]


@contextlib.contextmanager
def running(command, directory, port, **how):
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=directory, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, **how
        )
    try:
        wait_for_port(port, process, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def nginx(directory, port, backend, change=lambda text: text, more=""):
    text = change(recipe("nginx").replace("listen 8080", f"listen 127.0.0.1:{port}").replace("127.0.0.1:1080", backend))
    paths = " ".join(
        f"{name}_temp_path {directory}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    (directory / "nginx.conf").write_text(
        f"{user} daemon off; pid {directory}/pid; error_log {directory}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; {paths}\n{more}\n{text}\n}}\n"
    )
    return running([program("nginx"), "-p", str(directory), "-c", str(directory / "nginx.conf")], directory, port)


def caddy(directory, port, backend):
    text = recipe("caddyfile").replace(":8080", f"http://127.0.0.1:{port}").replace("127.0.0.1:1080", backend)
    text = text.replace(f"http://127.0.0.1:{port} ", f"http://:{port} ")
    (directory / "Caddyfile").write_text("{\n admin off\n auto_https off\n}\n" + text + "\n")
    environment = os.environ | {"HOME": str(directory), "XDG_DATA_HOME": str(directory)}
    command = [program("caddy"), "run", "--adapter", "caddyfile", "--config", str(directory / "Caddyfile")]
    return running(command, directory, port, env=environment)


def apache(directory, port, text, modules):
    loaded = "".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so\n" for name in modules)
    user = "User www-data\nGroup www-data\n" if os.geteuid() == 0 else ""
    (directory / "apache.conf").write_text(
        f"ServerRoot {directory}\nPidFile {directory}/pid\nListen 127.0.0.1:{port}\nServerName 127.0.0.1\n"
        f"ErrorLog {directory}/error.log\n{loaded}{user}{text}\n"
    )
    command = [program("apache2"), "-DFOREGROUND", "-f", str(directory / "apache.conf")]
    return running(command, directory, port)


APACHE = ("mpm_event", "authz_core", "reqtimeout", "headers")


def apache_proxy(directory, port, backend):
    text = recipe("apache").replace("*:8080", f"127.0.0.1:{port}").replace("127.0.0.1:1080", backend)
    return apache(directory, port, text, [*APACHE, "proxy", "proxy_http"])


PROXIES = {"nginx": nginx, "Caddy": caddy, "Apache": apache_proxy}


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
        time.sleep(1)  # a reset throws away what the other side has not read yet
        if end == "RST":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


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


SITE = """
import sys
sys.path.insert(0, {root!r})
from tus import Filter

def application(environ, start_response):
    start_response("204 No Content", [])
    return []

application = Filter(application, upload_path="/files", tmp_file_dir={store!r})
"""


@pytest.fixture
def script():
    """Where another user, as the daemon of mod_wsgi is, can read and write: pytest's own directories are closed."""
    with tempfile.TemporaryDirectory(prefix="tus-deploying-") as directory:
        os.chmod(directory, 0o755)
        store = Path(directory) / "store"
        store.mkdir(0o700)
        path = Path(directory) / "site.py"
        path.write_text(SITE.format(root=str(ROOT), store=str(store)))
        yield path


def chunked(port):
    """The status of a reply to a chunked creation with bytes."""
    headers = TUS | OCTETS | {"Upload-Length": "5", "Transfer-Encoding": "chunked"}
    return request(port, "POST", "/files", headers, iter([b"hello"]))[0]


def test_uwsgi(script, tmp_path):
    port = free_port()
    text = recipe("uwsgi").replace("127.0.0.1:1080", f"127.0.0.1:{port}").replace("site.py", str(script))
    (tmp_path / "uwsgi.ini").write_text(text)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with running(
        [program("uwsgi"), "--ini", str(tmp_path / "uwsgi.ini"), "--die-on-term"], tmp_path, port, env=environment
    ):
        assert measured(port) == documented()["uWSGI"]
        assert chunked(port) == 411


def test_mod_wsgi(script, tmp_path):
    """Debian's module is for Debian's Python; what the package needs it borrows from this one."""
    port = free_port()
    if os.geteuid() == 0:
        shutil.chown(script.parent / "store", "www-data", "www-data")  # the user of the daemon
    text = recipe("apache", 1).replace("/srv/site.py", str(script))
    paths = ":".join(path for path in sys.path if "site-packages" in path)
    text = text.replace("threads=15", f"threads=15 python-path={paths}")
    text += f"\n<Directory {script.parent}>\nRequire all granted\n</Directory>\nWSGISocketPrefix {script.parent}/wsgi\n"
    with apache(tmp_path, port, text, ["mpm_event", "authz_core", "wsgi"]):
        assert measured(port) == documented()["mod_wsgi"]
        assert chunked(port) == 411
