"""Each server behind a proxy on this machine, with ``trusted_proxies``: whose address does the package see?"""

from __future__ import annotations

import pytest

from tests.support.serving import SERVERS, UPLOAD_PATH, serving
from tests.support.sockets import ask

#: What a proxy sends for a client elsewhere.
FIELDS = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "public.example",
    "X-Forwarded-Prefix": "/site",
}
PUBLIC = f"https://public.example/site{UPLOAD_PATH}/"

#: Servers whose defaults need a setting, the start of the URL without it, and the setting as a variable.
NEED_A_SETTING = {
    "uvicorn-httptools": ("https://localhost/", {"UVICORN_PROXY_HEADERS": "0"}),
    "uvicorn-h11": ("https://localhost/", {"UVICORN_PROXY_HEADERS": "0"}),
    "waitress": ("http://localhost/", {"TUS_TEST_WAITRESS": '{"clear_untrusted_proxy_headers": false}'}),
}


def location(server, directory):
    """The URL of an upload that is created through the proxy, and what the server has logged."""
    lines = [f"POST {UPLOAD_PATH} HTTP/1.1", "Host: localhost", "Tus-Resumable: 1.0.0", "Upload-Length: 5"]
    lines += ["Content-Length: 0", *(f"{name}: {value}" for name, value in FIELDS.items()), "\r\n"]
    with serving(server, directory, trusted_proxies="127.0.0.1") as served:
        reply = ask(served, "POST", "\r\n".join(lines).encode())
        assert reply.status == 201
        return reply.headers["location"], served.log.read_text()


@pytest.mark.parametrize("server", SERVERS)
def test_a_trusted_proxy_names_the_site(server, tmp_path, monkeypatch):
    _, variables = NEED_A_SETTING.get(server, ("", {}))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    url, log = location(server, tmp_path)
    assert url.startswith(PUBLIC)
    assert "trusted_proxies" not in log


@pytest.mark.parametrize("server", NEED_A_SETTING)
def test_a_server_that_hides_its_peer_is_noticed(server, tmp_path):
    url, log = location(server, tmp_path)
    assert url.startswith(NEED_A_SETTING[server][0])
    assert ("--no-proxy-headers" in log) == server.startswith("uvicorn")
