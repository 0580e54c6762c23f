"""What Apple's URLSession says, word by word, over a real socket: the versions that its systems speak, and cuts.

It sends a whole file with its first request, and can resume once it has seen an interim response that names its version
and the upload's URL: 3 is spoken by iOS 17, 5 by iOS 18.0, 6 from iOS 18.1 on.
"""

import contextlib
import os
import socket
import time
from urllib.parse import urlsplit

import pytest

from tests.support.serving import serving
from tests.support.sockets import PROMPT
from tests.support.waiting import GUARD, wait_until
from tus.stores.directory.store import DirectoryStore

DATA = os.urandom(300_000)
PARTIAL = "application/partial-upload"
APPLE = (3, 5, 6)


class Wire:
    """One connection; what it hears is told head by head."""

    def __init__(self, server):
        self._socket = socket.create_connection(("127.0.0.1", server.port), 10)
        self._reader = self._socket.makefile("rb")

    def ask(self, method, url, headers=(), body=b"", length=None):
        """Send a head and what there is of the body."""
        fields = {"Host": "127.0.0.1", "Content-Length": str(len(body) if length is None else length)} | dict(headers)
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
        self.send(f"{method} {urlsplit(url).path} HTTP/1.1\r\n{lines}\r\n".encode() + body)
        return self

    def send(self, data):
        self._socket.sendall(data)

    def head(self):
        """The next head: the status and the fields, by names in lower case."""
        line = self._reader.readline()
        assert line.startswith(b"HTTP/1.1 "), line
        fields = {}
        while (field := self._reader.readline().rstrip(b"\r\n").decode("latin-1")) != "":
            name, _, value = field.partition(": ")
            assert name.lower() not in fields
            fields[name.lower()] = value
        return int(line.split()[1]), fields

    def heads(self):
        """All heads to that of the final response, and its body."""
        found = [self.head()]
        while found[-1][0] < 200:
            found.append(self.head())
        return found, self._reader.read(int(found[-1][1].get("content-length", 0)))

    def final(self):
        """The final response where none comes before it."""
        ((status, fields),), body = self.heads()
        return status, fields, body

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.close()
        self._socket.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving("gunicorn-gthread", tmp_path_factory.mktemp("urlsession")) as server:
        yield server


def spoken(version):
    return {"Upload-Draft-Interop-Version": str(version)}


def whole(version):
    """What the first request says: that the body is all there is."""
    mark = {"Upload-Incomplete": "?0"} if version == 3 else {"Upload-Complete": "?1"}
    return spoken(version) | mark | {"Content-Type": "image/heic"}


def told_complete(version, fields):
    """Whether a reply says that the upload is complete."""
    return fields["upload-incomplete"] == "?0" if version == 3 else fields["upload-complete"] == "?1"


def rest(version, offset, says_so):
    """What the request with the rest says; some of these clients say nothing of its being the last."""
    fields = spoken(version) | {"Upload-Offset": str(offset)}
    if version >= 6:
        fields["Content-Type"] = PARTIAL
    if says_so:
        fields |= {"Upload-Incomplete": "?0"} if version == 3 else {"Upload-Complete": "?1"}
    return fields


def announced(wire, version):
    """The upload's URL, from the interim response that comes before a byte of the body is sent."""
    status, fields = wire.head()
    assert (status, fields["upload-draft-interop-version"]) == (104, str(version))
    assert ("upload-limit" in fields) == (version >= 6)
    return fields["location"]


def wait_until_stored(server, url, offset):
    """Wait until the server has counted so much. HEAD would end the request that is still under way."""
    store = DirectoryStore(str(server.store))
    wait_until(lambda: store.load(url.rpartition("/")[2]).offset >= offset)


def settled(server, version, url, at_least):
    """Where HEAD says that the upload stands, once the server has taken in what was sent."""
    deadline = time.monotonic() + GUARD
    while True:
        with Wire(server) as wire:
            status, fields, body = wire.ask("HEAD", url, spoken(version) | {"Content-Length": None}).final()
        assert (status, body, fields["cache-control"]) == (204, b"", "no-store")
        offset = int(fields["upload-offset"])
        if offset >= at_least or time.monotonic() > deadline:
            return offset, told_complete(version, fields)


def landed(server, url):
    return (server.landed / url.rpartition("/")[2]).read_bytes()


@pytest.mark.parametrize("says_so", [True, False], ids=["says", "silent"])
@pytest.mark.parametrize("version", APPLE)
def test_a_file_whose_connection_is_cut_twice(server, version, says_so):
    with Wire(server) as wire:
        wire.ask("POST", server.url, whole(version), length=len(DATA))
        url = announced(wire, version)
        wire.send(DATA[:100_000])
        wait_until_stored(server, url, 100_000)
    assert settled(server, version, url, 100_000) == (100_000, False)
    with Wire(server) as wire:
        wire.ask("PATCH", url, rest(version, 100_000, says_so), DATA[100_000:200_000], len(DATA) - 100_000)
        wait_until_stored(server, url, 200_000)
    assert settled(server, version, url, 200_000) == (200_000, False)
    with Wire(server) as wire:
        wire.ask("PATCH", url, rest(version, 200_000, says_so), DATA[200_000:])
        status, fields, body = wire.final()
    assert (status, body, fields["x-app"]) == (200, b"taken", "has it")
    assert told_complete(version, fields)
    assert landed(server, url) == DATA
    assert settled(server, version, url, 0) == (len(DATA), True)


@pytest.mark.parametrize("version", [3, 5, 6, 9, 10])
def test_a_file_that_goes_through(server, version):
    """The announcement, and after a second how far it has come, stand before the application's answer."""
    with Wire(server) as wire:
        wire.ask("POST", server.url, whole(version), length=len(DATA))
        url = announced(wire, version)
        wire.send(DATA[:100_000])
        time.sleep(1.1)
        wire.send(DATA[100_000:200_000])
        if version >= 5:
            status, fields = wire.head()
            assert (status, fields["upload-draft-interop-version"]) == (104, str(version))
            assert 0 < int(fields["upload-offset"]) <= 200_000
            assert "location" not in fields
        wire.send(DATA[200_000:])
        heads, body = wire.heads()
    assert {status for status, _ in heads[:-1]} <= ({104} if version >= 5 else set())
    status, fields = heads[-1]
    assert (status, body, told_complete(version, fields)) == (200, b"taken", True)
    assert fields["upload-draft-interop-version"] == str(version)
    assert landed(server, url) == DATA


@pytest.mark.parametrize("version", APPLE)
def test_the_final_answer_is_lost(server, version):
    with Wire(server) as wire:
        wire.ask("POST", server.url, whole(version), length=len(DATA))
        url = announced(wire, version)
        wire.send(DATA)
        wait_until((server.landed / f"{url.rpartition('/')[2]}.json").exists)
    assert settled(server, version, url, len(DATA)) == (len(DATA), True)
    assert landed(server, url) == DATA
    assert server.handovers.read_text().split().count(url.rpartition("/")[2]) == 1


@pytest.mark.parametrize("version", APPLE)
def test_a_connection_that_is_silent_and_not_ended(server, version):
    """The HEAD of the client that comes back is answered at once, and what the old connection sends is not taken."""
    with Wire(server) as old:
        old.ask("POST", server.url, whole(version), DATA[:100_000], length=len(DATA))
        url = announced(old, version)
        wait_until_stored(server, url, 100_000)
        began = time.monotonic()
        offset, _ = settled(server, version, url, 0)
        assert time.monotonic() - began < PROMPT
        with contextlib.suppress(OSError):
            old.send(b"?" * 100_000)
        with Wire(server) as wire:
            status, fields, _ = wire.ask("PATCH", url, rest(version, offset, True), DATA[offset:]).final()
        assert (status, told_complete(version, fields)) == (200, True)
    assert landed(server, url) == DATA


def test_a_wrong_offset(server):
    with Wire(server) as wire:
        wire.ask("POST", server.url, whole(6), length=4)
        url = announced(wire, 6)
        wire.send(b"ab")
        wait_until_stored(server, url, 2)
    with Wire(server) as wire:
        status, fields, _ = wire.ask("PATCH", url, rest(6, 0, True), b"abcd").final()
    assert (status, fields["upload-offset"], fields["upload-complete"]) == (409, "2", "?0")


def test_an_expectation_is_met_as_well(server):
    with Wire(server) as wire:
        wire.ask("POST", server.url, whole(6) | {"Expect": "100-continue"}, length=4)
        assert sorted([wire.head()[0], wire.head()[0]]) == [100, 104]
        wire.send(b"abcd")
        assert wire.final()[0] == 200


def statuses(server, headers):
    """The statuses that a whole file is answered with."""
    with Wire(server) as wire:
        heads, _ = wire.ask("POST", server.url, {"Upload-Complete": "?1"} | headers, b"abcd").heads()
    return [status for status, _ in heads]


@pytest.mark.parametrize("version", ["4", "6", "9", "10", "6;a=1", " 6 "])
def test_a_version_that_is_known(server, version):
    assert statuses(server, spoken(version)) == [104, 200]


@pytest.mark.parametrize("version", ["2", "11", "15", "99", '"6"', "6.0", "6, 6", "", "six"])
def test_a_version_that_is_not_known(server, version):
    assert statuses(server, spoken(version)) == [200]


def test_no_version(server):
    assert statuses(server, {}) == [200]
    assert statuses(server, {"Upload-Draft-Interop-Version": "6", "Via": "1.1 proxy"}) == [200]
    assert statuses(server, {"Upload-Draft-Interop-Version": "6", "X-Forwarded-For": "192.0.2.1"}) == [200]


@pytest.mark.parametrize("interim", ["always", "never"])
def test_what_the_operator_says(tmp_path, interim):
    with serving("gunicorn-gthread", tmp_path, interim=interim) as server:
        expected = [104, 200] if interim == "always" else [200]
        assert statuses(server, spoken(6)) == expected
        assert statuses(server, spoken(6) | {"X-Forwarded-For": "192.0.2.1"}) == expected
        assert statuses(server, {}) == [200]
