"""The programs of docs/deploying.rst, run by its recipes: proxies, and servers that are no Python programs."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.documents import blocks
from tests.support.serving import ROOT, free_port, wait_for_port

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


def nginx(directory, port, backend, change=lambda text: text, more="", connections=512):
    text = change(recipe("nginx").replace("listen 8080", f"listen 127.0.0.1:{port}").replace("127.0.0.1:1080", backend))
    paths = " ".join(
        f"{name}_temp_path {directory}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    (directory / "nginx.conf").write_text(
        f"{user} daemon off; pid {directory}/pid; error_log {directory}/error.log;\n"
        f"events {{ worker_connections {connections}; }}\nhttp {{ access_log off; {paths}\n{more}\n{text}\n}}\n"
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


SITE = """
import sys
sys.path.insert(0, {root!r})
from tus import Filter

def application(environ, start_response):
    start_response("204 No Content", [])
    return []

application = Filter(application, upload_path="/files", tmp_file_dir={store!r}, **{options!r})
"""


@contextlib.contextmanager
def script(**options):
    """A site with these options of ``Filter``, where another user, as the daemon of mod_wsgi is, can read and write.

    pytest's own directories are closed.
    """
    with tempfile.TemporaryDirectory(prefix="tus-deploying-") as directory:
        os.chmod(directory, 0o755)
        store = Path(directory) / "store"
        store.mkdir(0o700)
        path = Path(directory) / "site.py"
        path.write_text(SITE.format(root=str(ROOT), store=str(store), options=options))
        yield path


@contextlib.contextmanager
def uwsgi(directory, **options):
    """Run a site under uWSGI, and yield its port."""
    port = free_port()
    with script(**options) as path:
        text = recipe("uwsgi").replace("127.0.0.1:1080", f"127.0.0.1:{port}").replace("site.py", str(path))
        (directory / "uwsgi.ini").write_text(text)
        command = [program("uwsgi"), "--ini", str(directory / "uwsgi.ini"), "--die-on-term"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        with running(command, directory, port, env=environment):
            yield port


@contextlib.contextmanager
def mod_wsgi(directory, **options):
    """Run a site under Apache with mod_wsgi, and yield its port.

    Debian's module is for Debian's Python; what the package needs it borrows from this one.
    """
    port = free_port()
    with script(**options) as path:
        if os.geteuid() == 0:
            shutil.chown(path.parent / "store", "www-data", "www-data")  # the user of the daemon
        text = recipe("apache", 1).replace("/srv/site.py", str(path))
        paths = ":".join(path for path in sys.path if "site-packages" in path)
        text = text.replace("threads=15", f"threads=15 python-path={paths}")
        text += f"\n<Directory {path.parent}>\nRequire all granted\n</Directory>\nWSGISocketPrefix {path.parent}/wsgi\n"
        with apache(directory, port, text, ["mpm_event", "authz_core", "reqtimeout", "wsgi"]):
            yield port
