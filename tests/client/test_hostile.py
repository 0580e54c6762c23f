"""Both clients, through a proxy that spoils their requests, to our own server: the file arrives whole, and once."""

import contextlib
import hashlib
import os
import random

import pytest

from tests.client.uploading import KINDS, Account, Auditor, Uploader
from tests.support.hostile_proxy import DEEDS, Deed, HostileProxy, random_deeds
from tests.support.serving import serving
from tests.support.sockets import content
from tus.client import FinishUncertain, NotAuthorized, Refused

SERVERS = ("gunicorn-gthread", "uvicorn-httptools")
PROTOCOLS = ("tus", "ietf")
SIZE = 3_000_000
DATA = content(SIZE)
DIGEST = hashlib.sha256(DATA).hexdigest()
#: These may end without the client knowing whether the application took the file.
KIND_DEEDS = tuple(name for name in DEEDS if name != "deny end")
SEEDS = int(os.environ.get("TUS_TEST_SEEDS", "1"))
ROUNDS = int(os.environ.get("TUS_TEST_ROUNDS", "6"))


#: Each server with each protocol, and as few of these as have all.
ALL = [(server, protocol) for server in SERVERS for protocol in PROTOCOLS]
EACH = list(zip(SERVERS, PROTOCOLS, strict=True))


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """The servers that run; each is started when it is asked for."""
    with contextlib.ExitStack() as stack:
        running = {}

        def server(name):
            if name not in running:
                running[name] = stack.enter_context(serving(name, tmp_path_factory.mktemp(name)))
            return running[name]

        yield server


@pytest.fixture
def served(servers, server):
    return servers(server)


@pytest.fixture(params=KINDS)
def uploader(request):
    return Uploader(request.param)


def once():
    """The account of a file that has arrived once."""
    return Account([DIGEST], 1, 1)


def on(number, name, method=None, place=0.5):
    """A schedule that does one thing to one request: the one of this number, counted from 0, of a method."""
    seen = []

    def schedule(passed):
        if method is None or passed.method == method:
            seen.append(passed)
            if len(seen) == number + 1:
                return Deed(name, place)
        return Deed("pass")

    return schedule


@pytest.mark.parametrize("place", [0.1, 0.9])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("name", DEEDS)
@pytest.mark.parametrize(("server", "protocol"), EACH)
def test_each_deed(served, protocol, name, method, place):
    """The second PATCH of three, and the creation."""
    auditor, uploader = Auditor(served), Uploader("threads")
    with HostileProxy(served.port, on(int(method == "PATCH"), name, method, place)) as proxy:
        uploader.upload(proxy.url("/files"), DATA, protocol=protocol, chunk_size=SIZE // 3)
        assert proxy.count(name) == 1
    assert auditor.account() == once()


@pytest.mark.parametrize("name", KIND_DEEDS)
@pytest.mark.parametrize(("server", "protocol"), EACH)
def test_each_deed_to_the_last_byte(served, protocol, name):
    auditor, uploader = Auditor(served), Uploader("threads")
    with HostileProxy(served.port, on(1, name, "PATCH")) as proxy:
        uploader.upload(proxy.url("/files"), DATA, protocol=protocol, chunk_size=SIZE // 2)
        assert proxy.count(name) == 1
    assert auditor.account() == once()


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize(("server", "protocol"), ALL)
def test_many_deeds(served, uploader, protocol, seed):
    auditor = Auditor(served)
    with HostileProxy(served.port, random_deeds(seed, names=KIND_DEEDS), largest=1_000_000) as proxy:
        result = uploader.upload(proxy.url("/files"), DATA, protocol=protocol)
    assert (result.size, result.protocol) == (SIZE, protocol)
    assert auditor.account() == once()
    assert uploader.name in auditor.names()


def a_stream():
    for start in range(0, SIZE, 70_000):
        yield DATA[start : start + 70_000]


async def an_async_stream():
    for block in a_stream():
        yield block


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize(("server", "protocol"), EACH)
@pytest.mark.parametrize("how", ["stream", "checksum", "digest", "parallel", "session", "path"])
def test_many_deeds_to_other_uploads(served, uploader, protocol, how, seed, tmp_path):
    source, settings = DATA, {}
    if how == "stream":
        source = a_stream() if uploader.kind == "threads" else an_async_stream()
    elif how == "checksum":
        settings = {"checksum": "auto", "chunk_size": 900_000}
    elif how == "digest":
        settings = {"digest": "sha-256"}
    elif how == "parallel":
        settings = {"parallel": 2}
    elif how == "path":
        source = tmp_path / "film.mp4"
        source.write_bytes(DATA)
    auditor = Auditor(served)
    names = KIND_DEEDS
    if how == "parallel":  # all parts are at one origin, and an error to their concatenation leaves it uncertain
        names = tuple(name for name in names if name not in ("redirect", "busy"))
    with HostileProxy(served.port, random_deeds(100 + seed, names=names), largest=1_000_000) as proxy:
        if how == "session":
            settings = {"own_session": True, "trusted_origins": [f"http://localhost:{proxy.port}"]}
        uploader.upload(proxy.url("/files"), source, protocol=protocol, **settings)
    account = auditor.account()
    if how == "parallel" and protocol == "tus":
        assert account.stored >= 3  # a part whose creation got no reply is left over
        account.stored = 1
    assert account == once()


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("server", SERVERS[:1])
def test_an_error_to_the_last_byte_is_no_success(served, uploader, place):
    """The server has the file; but the client of tus cannot know whether the application has."""
    auditor = Auditor(served)
    schedule = on(1, "deny end", "PATCH", place)
    with HostileProxy(served.port, schedule) as proxy, pytest.raises(FinishUncertain) as caught:
        uploader.upload(proxy.url("/files"), DATA, protocol="tus", chunk_size=SIZE // 2)
    assert caught.value.status in (500, 502, 504)
    assert auditor.account() == once()


@pytest.mark.parametrize("server", SERVERS[:1])
def test_the_server_of_the_ietf_says_whether_the_file_was_taken(served, uploader):
    auditor = Auditor(served)
    with HostileProxy(served.port, on(1, "deny end", "PATCH")) as proxy:
        uploader.upload(proxy.url("/files"), DATA, protocol="ietf", chunk_size=SIZE // 2)
    assert auditor.account() == once()


@pytest.mark.parametrize(("server", "protocol"), EACH)
def test_a_token_that_expires(served, uploader, protocol):
    tokens = iter(range(1000))
    auditor = Auditor(served)
    with HostileProxy(served.port, on(1, "401", "PATCH")) as proxy:
        uploader.upload(
            proxy.url("/files"),
            DATA,
            protocol=protocol,
            chunk_size=SIZE // 3,
            headers=lambda: {"Authorization": f"Bearer {next(tokens)}"},
        )
        sent = [passed.headers["authorization"] for passed in proxy.passed]
    assert len(set(sent)) == len(sent)
    assert auditor.account() == once()


@pytest.mark.parametrize(("status", "error"), [(401, NotAuthorized), (403, NotAuthorized), (422, Refused)])
@pytest.mark.parametrize("server", SERVERS[:1])
def test_a_refusal_is_final(served, uploader, status, error):
    with HostileProxy(served.port, on(1, str(status), "PATCH")) as proxy:
        with pytest.raises(error) as caught:
            uploader.upload(proxy.url("/files"), DATA, protocol="tus", chunk_size=SIZE // 3)
        assert len([passed for passed in proxy.passed if passed.method == "PATCH"]) == 2
    assert caught.value.status == status


@pytest.mark.parametrize("server", SERVERS[:1])
def test_credentials_stay_with_their_origin(served, uploader):
    """A redirect leads to another origin; the request goes there without them."""
    with HostileProxy(served.port, on(1, "redirect", "PATCH")) as proxy:
        uploader.upload(proxy.url("/files"), DATA, protocol="tus", chunk_size=SIZE // 3, auth=("me", "secret"))
        there = [passed for passed in proxy.passed if passed.headers["host"].startswith("localhost")]
        here = [passed for passed in proxy.passed if passed not in there]
    assert there
    assert not any("authorization" in passed.headers for passed in there)
    assert all("authorization" in passed.headers for passed in here)


@pytest.mark.parametrize(("server", "protocol"), EACH)
def test_a_limit_of_the_proxy_is_found(served, uploader, protocol):
    auditor = Auditor(served)
    with HostileProxy(served.port, lambda passed: Deed("pass"), largest=200_000) as proxy:
        uploader.upload(proxy.url("/files"), DATA, protocol=protocol)
        refused = proxy.count("too large")
    assert 1 <= refused <= 6
    assert auditor.account() == once()


@pytest.mark.long
@pytest.mark.parametrize(("server", "protocol"), ALL)
@pytest.mark.parametrize("kind", KINDS)
def test_very_many_deeds(served, kind, protocol):
    """``TUS_TEST_ROUNDS=50`` takes seven minutes."""
    chance, uploader, auditor = random.Random(f"{kind} {protocol}"), Uploader(kind), Auditor(served)
    for _ in range(ROUNDS):
        seed = chance.randrange(1 << 30)
        with HostileProxy(served.port, random_deeds(seed, names=KIND_DEEDS), largest=1_000_000) as proxy:
            uploader.upload(proxy.url("/files"), DATA, protocol=protocol)
        assert auditor.account() == once(), seed
