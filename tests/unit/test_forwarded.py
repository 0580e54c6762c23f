"""The URL that a client is told, behind proxies, mounts and odd hosts."""

import pytest

from tests.support.subjects import PATH, SUBJECTS, FilterSubject
from tus.models import Request
from tus.options import Options
from tus.protocols.forwarded import Forwarded, forwarded, is_trusted, public_url

TRUSTED = ("10.0.0.0/8", "::1/128")


def request(peer="10.0.0.1", **headers):
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("POST", "http://inner:8080/files", fields, peer=peer)


def url(head, **options):
    options = {"tmp_file_dir": "x", "trusted_proxies": TRUSTED} | options
    return public_url("http://inner:8080/files/ü%20x", head, Options.build(**options))


ALL = {"X_Forwarded_Host": "example.org", "X_Forwarded_Proto": "https", "X_Forwarded_Prefix": "/site"}


def test_a_trusted_proxy_is_believed():
    assert url(request(**ALL)) == "https://example.org/site/files/ü%20x"
    assert url(request(X_Forwarded_Proto="https")) == "https://inner:8080/files/ü%20x"
    assert url(request(X_Forwarded_Host="[2001:db8::1]:8443")) == "http://[2001:db8::1]:8443/files/ü%20x"
    assert url(request(X_Forwarded_Prefix="/a b/")) == "http://inner:8080/files/ü%20x"
    assert url(request(X_Forwarded_Prefix="/a%20b/c/")) == "http://inner:8080/a%20b/c/files/ü%20x"


@pytest.mark.parametrize("peer", ["192.0.2.1", "", "::2", "nonsense", "11.0.0.1"])
def test_nobody_else_is(peer):
    assert url(request(peer, **ALL)) == "http://inner:8080/files/ü%20x"
    assert url(request(peer, Forwarded="host=example.org;proto=https")) == "http://inner:8080/files/ü%20x"


def test_without_trusted_proxies_nobody_is():
    assert url(request(**ALL), trusted_proxies="") == "http://inner:8080/files/ü%20x"
    assert url(request("127.0.0.1", **ALL), trusted_proxies="") == "http://inner:8080/files/ü%20x"


def test_the_base_url_overrides_all():
    assert url(request(**ALL), base_url="https://up.example/x/") == "https://up.example/x/files/ü%20x"
    assert url(request("192.0.2.1"), base_url="https://up.example") == "https://up.example/files/ü%20x"


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        ("10.1.2.3", True),
        ("::1", True),
        ("::ffff:10.0.0.1", True),
        ("fe80::1%eth0", False),
        ("", False),
        ("10.0.0.1:5", True),
    ],
)
def test_peers(peer, trusted):
    assert is_trusted(peer, TRUSTED) is trusted
    assert is_trusted("", ("unix",))
    assert not is_trusted("unix", TRUSTED)


@pytest.mark.parametrize(
    ("field", "seen"),
    [
        ("host=example.org;proto=https", Forwarded("https", "example.org")),
        ('for=192.0.2.9;host="example.org:444";Proto=HTTPS', Forwarded("https", "example.org:444")),
        ('for="[2001:db8::9]:1", for=10.0.0.9;host=b.example;proto=http', Forwarded()),  # the outer one says nothing
        ("for=192.0.2.9;host=a.example, for=10.0.0.9;host=b.example", Forwarded(None, "a.example")),
        ("host=evil.example, for=192.0.2.9;host=b.example", Forwarded(None, "b.example")),
        ("host=evil.example, for=unknown;host=b.example", Forwarded(None, "b.example")),
        ('host="evil.example/x"', Forwarded()),
        ("proto=javascript;host=a.example", Forwarded(None, "a.example")),
        ('host="a\\.example"', Forwarded(None, "a.example")),
        ('host="a.example', Forwarded()),
        (";;,,", Forwarded()),
        ("host=a.example;" + "x" * 2048, Forwarded()),
        ("", Forwarded()),
    ],
)
def test_the_standard_field(field, seen):
    assert forwarded(request(Forwarded=field), TRUSTED) == seen


@pytest.mark.parametrize(
    ("hosts", "hops", "host"),
    [
        ("a.example", "192.0.2.9", "a.example"),
        ("evil.example, a.example", "192.0.2.9", "a.example"),
        ("evil.example, a.example", "203.0.113.5, 192.0.2.9", "a.example"),
        ("a.example, b.example", "192.0.2.9, 10.0.0.9", "a.example"),
        ("evil.example, a.example, b.example", "1.2.3.4, 192.0.2.9, 10.0.0.9", "a.example"),
        ("a.example/x", "192.0.2.9", None),
        ("a.example\tb", "192.0.2.9", None),
        ("user@a.example", "192.0.2.9", None),
        (" , ", "", None),
    ],
)
def test_of_a_list_only_what_trusted_proxies_have_added(hosts, hops, host):
    assert forwarded(request(X_Forwarded_Host=hosts, X_Forwarded_For=hops), TRUSTED).host == host


@pytest.mark.parametrize("prefix", ["//evil.example", "evil", "/a?b", "/a#b", "/../x", "/a b", "\\x"])
def test_a_prefix_is_a_path_or_nothing(prefix):
    assert forwarded(request(X_Forwarded_Prefix=prefix, X_Forwarded_Host="a.example"), TRUSTED).prefix is None


@pytest.mark.parametrize("make", SUBJECTS)
def test_an_upload_through_a_proxy_that_strips_a_prefix(make, tmp_path):
    subject = make(tmp_file_dir=str(tmp_path), trusted_proxies="10.0.0.0/8")
    proxy = {"X-Forwarded-Host": "example.org", "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/site"}
    peer = {"environ": {"REMOTE_ADDR": "10.0.0.1"}}

    def through(method, public, headers=(), body=b""):
        assert public.startswith("https://example.org/site/files")
        return subject.send(
            method, public.removeprefix("https://example.org/site"), proxy | dict(headers), body, **peer
        )

    parts = []
    for data in (b"ab", b"cd"):
        headers = {"Upload-Length": "2", "Upload-Concat": "partial"}
        part = through("POST", "https://example.org/site/files", headers)["Location"]
        octets = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
        assert through("PATCH", part, octets, data).status == 204
        parts.append(part)
    for final in (parts, [part.removeprefix("https://example.org") for part in parts]):
        reply = through("POST", "https://example.org/site/files", {"Upload-Concat": "final;" + " ".join(final)})
        assert reply.status == 201
        assert reply["Location"].startswith("https://example.org/site/files/")
    elsewhere = "final;" + " ".join(part.replace("/site", "") for part in parts)
    assert through("POST", "https://example.org/site/files", {"Upload-Concat": elsewhere}).status == 404
    assert {data for _, data in subject.landed} == {b"abcd"}


@pytest.mark.parametrize(
    ("environ", "location"),
    [
        ({"HTTP_HOST": "[::1]:8080"}, "http://[::1]:8080/files/"),
        ({"HTTP_HOST": "example.org:444", "wsgi.url_scheme": "https"}, "https://example.org:444/files/"),
        ({"HTTP_HOST": "", "SERVER_NAME": "s.example", "SERVER_PORT": "81"}, "http://s.example:81/files/"),
        ({"HTTP_HOST": "", "SERVER_NAME": "s.example", "SERVER_PORT": "443", "wsgi.url_scheme": "https"}, "https://s.example/files/"),
        ({"SCRIPT_NAME": "/mnt", "PATH_INFO": "/files"}, "http://localhost/mnt/files/"),
    ],
)  # fmt: skip
def test_without_a_proxy(tmp_path, environ, location):
    path = environ.get("SCRIPT_NAME", "") + PATH
    subject = FilterSubject(tmp_file_dir=str(tmp_path), upload_path=path)
    assert subject.create(3, environ=environ)["Location"].startswith(location)


@pytest.mark.parametrize("host", ["\x01", "a\x7f", "a\x85b"])
def test_a_host_that_no_field_can_have_gets_no_url(tmp_path, host):
    subject = FilterSubject(tmp_file_dir=str(tmp_path))
    ietf = {"Upload-Draft-Interop-Version": "8", "Upload-Complete": "?0"}
    for headers in ({"Upload-Length": "5"}, ietf):
        reply = subject.send("POST", headers=headers, environ={"HTTP_HOST": host})
        assert reply.status == 400
        assert b"Host" in reply.body
    assert not list(tmp_path.glob("*.tus"))
