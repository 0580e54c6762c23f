"""The flows of the client against a server in memory that fails in every way that a network and a server can."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.client.model import ENDPOINT, Fault, Player, Server
from tus.client.errors import (
    ChecksumMismatch,
    ClientError,
    FileChanged,
    FinishUncertain,
    ForeignOrigin,
    GaveUp,
    NotAuthorized,
    NotSupported,
    ProtocolViolation,
    Refused,
    UploadGone,
)
from tus.client.flow import simple
from tus.client.flow.asking import describe
from tus.client.flow.parallel import upload as parallel
from tus.client.flow.upload import Upload
from tus.client.messages import Headers, Request, Response
from tus.client.retry import NO_RETRIES, Retry
from tus.client.sources import BytesSource, StreamSource

DATA = bytes(range(256)) * 1200  # more than goes with a creation


def upload(player: Player, data: bytes = DATA, key: str = "k", **arguments: Any):
    return player.run(Upload(player.context, BytesSource(data), {"filename": "a"}, key, **arguments).run())


def is_patch(request: Request) -> bool:
    return request.method == "PATCH"


def is_post(request: Request) -> bool:
    return request.method == "POST"


def methods(server: Server) -> list[str]:
    return [request.method for request in server.requests]


def test_the_everyday_upload_is_three_requests():
    server = Server()
    player = Player(server)
    result = upload(player)
    assert methods(server) == ["OPTIONS", "POST", "PATCH"]
    assert server.files == [DATA]
    assert (result.url, result.size, result.attempts, result.resumed_from) == (ENDPOINT + "1", len(DATA), 1, 0)
    assert result.response.status == 204
    assert [report.kind for report in player.reports] == ["started", "accepted", "finished"]


def test_a_small_file_goes_with_its_creation():
    server = Server()
    result = upload(Player(server), b"small")
    assert methods(server) == ["OPTIONS", "POST"]
    assert server.files == [b"small"]
    assert result.offset == 5


def test_an_empty_file_is_complete_when_it_is_created():
    server = Server()
    upload(Player(server), b"")
    assert methods(server) == ["OPTIONS", "POST"]
    assert server.files == [b""]


@pytest.mark.parametrize("version", range(3, 11))
@pytest.mark.parametrize("data", [b"", b"small", DATA])
def test_each_interop_version_is_found(version, data):
    server = Server("ietf", versions=(version,))
    player = Player(server, protocol="ietf")
    result = upload(player, data)
    assert server.files == [data]
    assert result.protocol == "ietf"
    assert player.context.version == version
    tried = len(server.requests)
    upload(player, data + b"2", key="other")
    assert len(server.requests) - tried <= 2  # the version is known by now


@pytest.mark.parametrize("version", [10, 6, 3])
def test_each_request_finds_the_interop_version(version):
    server = Server("ietf", versions=(version,))
    url = Player(server, protocol="ietf").run(simple.create(Player(server, protocol="ietf").context, 5, {}))
    player = Player(server, protocol="ietf")
    info = player.run(simple.head(player.context, url))
    assert (info.offset, info.is_complete) == (0, False)
    assert player.context.version == version
    result = upload(Player(server, protocol="ietf"), b"hello", key="", url=url)
    assert (server.files, result.size) == ([b"hello"], 5)
    player = Player(server, protocol="ietf")
    player.run(simple.delete(player.context, url))
    assert server.uploads == {}


def test_short_requests_speak_what_the_server_offers():
    server = Server("ietf", versions=(10,))
    player = Player(server)
    url = player.run(simple.create(player.context, 5, {}))
    assert not player.run(simple.head(player.context, url)).is_complete


def test_a_plain_server_gets_one_ordinary_request():
    server = Server("ietf", versions=())
    result = upload(Player(server))
    assert methods(server) == ["OPTIONS", "POST"]
    assert server.files == [DATA]
    assert (result.url, result.response.body) == ("", b"thank you")


def test_the_url_in_an_interim_response_saves_the_upload():
    server = Server("ietf", versions=(10,))
    server.faults = [Fault(104, taken=None, when=is_post)]
    player = Player(server, protocol="ietf")
    player.context.version = 10
    upload(player, b"small")
    assert server.files == [b"small"]
    assert methods(server) == ["OPTIONS", "POST", "HEAD"]


def test_the_url_in_an_interim_response_is_remembered():
    server = Server("ietf", versions=(10,))
    server.faults = [Fault(104, taken=3, when=is_post)]
    player = Player(server, protocol="ietf", retry=NO_RETRIES)
    with pytest.raises(GaveUp):
        upload(player, b"small")
    server.keys.clear()  # the server does not know the key any more
    result = upload(Player(server, protocol="ietf", records=player.records), b"small")
    assert (server.files, result.resumed_from) == ([b"small"], 3)


FAULTS = st.builds(
    Fault,
    status=st.sampled_from([0, 0, 0, 423, 409, 408, 429, 500, 502, 503, 504]),
    taken=st.one_of(st.none(), st.integers(0, 3000)),
    headers=st.sampled_from([(), (("Retry-After", "3"),)]),
)


@pytest.mark.parametrize("speaks", ["tus", "ietf"])
@settings(max_examples=300, deadline=None)
@given(
    size=st.sampled_from([0, 1, 999, 3000]),
    chunk=st.sampled_from([None, 500, 1000, 3000]),
    faults=st.lists(st.tuples(FAULTS, st.integers(0, 3)), max_size=8),
    source=st.sampled_from(["bytes", "stream"]),
    checksum=st.sampled_from([None, "auto"]),
    largest=st.sampled_from([None, None, 20000]),
)
@example(size=3000, chunk=None, faults=[(Fault(500, None), 0)], source="bytes", checksum=None, largest=None)
def test_success_is_the_truth_whatever_goes_wrong(speaks, size, chunk, faults, source, checksum, largest):
    server = Server(speaks, versions=(10,))
    server.largest = largest
    data = bytes(itertools.islice(itertools.cycle(range(251)), size * 10))
    server.faults = [
        Fault(
            fault.status,
            fault.taken,
            fault.headers,
            when=lambda request, left=[skip]: (
                request.method != "OPTIONS" and left.append(left.pop() - 1) is None and left[0] < 0
            ),
        )
        for fault, skip in faults
    ]
    player = Player(server, protocol=speaks, chunk_size=chunk and chunk * 10, checksum=checksum)
    made = (
        BytesSource(data) if source == "bytes" else StreamSource([data[i : i + 700] for i in range(0, len(data), 700)])
    )
    try:
        result = player.run(Upload(player.context, made, {}, "").run())
    except FinishUncertain as error:
        assert error.status and error.status >= 500
        assert speaks == "tus"
        assert server.files == [data]  # it has the bytes, and the client does not claim to know what became of them
    except (GaveUp, FileChanged) as error:
        assert isinstance(error, FileChanged) or len(player.waits) >= 3
    else:
        assert server.files == [data]
        assert result.size == len(data)
        assert result.response.is_success


def test_a_lost_reply_to_a_creation_makes_no_second_upload():
    server = Server()
    server.faults = [Fault(0, taken=None, when=is_post), Fault(503, when=is_post)]
    upload(Player(server), b"small")
    assert len(server.uploads) == 1
    assert server.files == [b"small"]
    keys = {request.headers["Idempotency-Key"] for request in server.requests if request.method == "POST"}
    assert len(keys) == 1


def test_a_cut_goes_on_from_what_the_server_has():
    server = Server()
    server.faults = [Fault(0, taken=1234, when=is_patch)]
    player = Player(server)
    result = upload(player)
    assert methods(server) == ["OPTIONS", "POST", "PATCH", "HEAD", "PATCH"]
    assert server.requests[-1].headers["Upload-Offset"] == "1234"
    assert result.attempts == 2
    assert player.waits == [0.5]


def test_waits_grow_until_the_client_gives_up_and_progress_begins_anew():
    server = Server()
    server.faults = [Fault(0, taken=0, when=is_patch) for _ in range(3)]
    server.faults += [Fault(0, taken=10, when=is_patch)]
    server.faults += [Fault(0, taken=0, when=is_patch) for _ in range(4)]
    player = Player(server, retry=Retry(attempts=4, base=1, cap=4, jitter=False))
    upload(player)
    assert player.waits == [1, 2, 4, 1, 1, 2, 4, 4] or player.waits == [1, 2, 4, 4, 1, 2, 4, 4]
    server = Server()
    server.faults = [Fault(0, taken=0, when=is_patch) for _ in range(9)]
    player = Player(server, retry=Retry(attempts=2, base=1, cap=4, jitter=False))
    with pytest.raises(GaveUp, match="3 times in a row") as caught:
        upload(player)
    assert caught.value.resumable
    assert caught.value.url == ENDPOINT + "1"
    assert player.waits == [1, 2]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("method", [is_post, is_patch, lambda request: request.method == "OPTIONS"])
def test_retry_after_is_obeyed(status, method):
    server = Server()
    server.faults = [Fault(status, headers=(("Retry-After", "20"),), when=method)]
    player = Player(server)
    upload(player)
    assert player.waits == [20]
    waiting = (
        next(report for report in player.reports if report.kind == "waiting")
        if method is not None and player.reports
        else None
    )
    assert waiting is None or waiting.reason == f"{status}, the server asks for 20 s"


def test_retry_after_may_be_a_date_or_too_long():
    server = Server()
    player = Player(server)
    player.now = 1_000_000_000.0
    server.faults = [Fault(503, headers=(("Retry-After", "Sun, 09 Sep 2001 01:46:50 GMT"),), when=is_patch)]
    upload(player)
    assert player.waits == [10]
    server.faults = [Fault(503, headers=(("Retry-After", "86400"),), when=is_patch)]
    with pytest.raises(GaveUp, match="86400 seconds") as caught:
        upload(player, DATA + b"2", key="other")
    assert caught.value.status == 503


@pytest.mark.parametrize("status", [409, 423])
def test_a_conflict_is_looked_into(status):
    server = Server()
    server.faults = [Fault(status, when=is_patch)]
    upload(Player(server))
    assert methods(server) == ["OPTIONS", "POST", "PATCH", "HEAD", "PATCH"]
    assert len(server.uploads) == 1


@pytest.mark.parametrize("status", [400, 402, 405, 415, 422])
def test_other_refusals_are_final(status):
    server = Server()
    server.faults = [Fault(status, when=is_patch)]
    player = Player(server)
    with pytest.raises(Refused, match=f"The server answered {status}: no") as caught:
        upload(player)
    assert (caught.value.status, caught.value.resumable, caught.value.url) == (status, False, ENDPOINT + "1")
    assert player.waits == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"title": "No", "detail": "Too late."}', "Too late."),
        (b'{"title": "No"}', "No"),
        (b'{"detail": 1}', '{"detail": 1}'),
        (b"[]", "[]"),
        (b"{", "{"),
    ],
)
def test_the_sentence_of_a_problem_in_json(body, said):
    response = Response(400, Headers([("Content-Type", "application/problem+json; charset=utf-8")]), body)
    assert describe(response) == f"the server answered 400: {said}"


def test_credentials_are_asked_for_once_more():
    server = Server()
    server.faults = [Fault(401, when=is_patch)]
    upload(Player(server, can_renew=True))
    assert server.files == [DATA]
    server = Server()
    server.faults = [Fault(401, when=is_patch), Fault(401, when=is_patch)]
    with pytest.raises(NotAuthorized) as caught:
        upload(Player(server, can_renew=True))
    assert caught.value.resumable
    server = Server()
    server.faults = [Fault(401, when=is_patch)]
    with pytest.raises(NotAuthorized):
        upload(Player(server))


def test_a_proxy_that_takes_less_gets_less_and_the_endpoint_is_remembered():
    server = Server()
    server.largest = 40_000
    player = Player(server)
    upload(player)
    assert server.files == [DATA]
    assert player.waits == []
    assert player.records.chunk_limit(ENDPOINT) == len(DATA) // 8
    server.requests.clear()
    upload(Player(server, records=player.records), DATA + b"more", key="other")
    assert max(request.body.length for request in server.requests if request.method == "PATCH") <= len(DATA) // 8
    server.largest = 1000
    with pytest.raises(Refused):
        upload(Player(server), key="third")


def test_an_error_at_the_end_is_never_made_a_success():
    server = Server()
    server.faults = [Fault(500, taken=None, when=is_patch)]
    player = Player(server)
    with pytest.raises(FinishUncertain, match="with 500") as caught:
        upload(player)
    assert (caught.value.status, caught.value.response.body) == (500, b"no")
    with pytest.raises(FinishUncertain):  # nor by another process, later
        upload(Player(server, records=player.records))
    assert len(server.uploads) == 1


def test_an_error_at_the_end_is_mended_by_the_servers_own_word():
    server = Server("ietf", versions=(10,))
    server.faults = [Fault(500, taken=None, when=is_patch)]
    player = Player(server, protocol="ietf")
    result = upload(player)  # its look says that the upload is complete
    assert result.response.headers["Upload-Complete"] == "?1"
    server = Server()
    server.faults = [Fault(503, taken=100, when=is_patch), Fault(0, taken=None, when=is_patch)]
    upload(Player(server))  # a lost reply is no error
    assert server.files == [DATA]


def test_a_lost_last_reply_is_found_to_be_a_success():
    server = Server()
    server.faults = [Fault(0, taken=None, when=is_patch)]
    result = upload(Player(server))
    assert methods(server)[-1] == "HEAD"
    assert result.response.status == 200
    assert server.files == [DATA]


class Killed(BaseException):
    pass


def test_another_process_goes_on():
    server = Server()
    player = Player(server)
    server.faults = [Fault(0, taken=5000, when=is_patch) for _ in range(1)]
    player.context.settings.retry  # noqa: B018
    with pytest.raises(GaveUp):
        upload(Player(server, records=player.records, retry=NO_RETRIES))
    server.requests.clear()
    second = Player(server, records=player.records)
    result = upload(second)
    assert methods(server) == ["HEAD", "PATCH"]
    assert result.resumed_from == 5000
    assert [report.kind for report in second.reports] == ["started", "resumed", "accepted", "finished"]
    assert player.records.all() == []


def test_a_process_that_ended_before_the_reply_to_the_creation_makes_no_second_upload():
    server = Server()
    server.faults = [Fault(0, taken=None, when=is_post)]
    player = Player(server, retry=NO_RETRIES)
    with pytest.raises(GaveUp):
        upload(player)
    upload(Player(server, records=player.records))
    assert len(server.uploads) == 1
    assert server.files == [DATA]


def test_an_upload_that_the_server_has_lost_begins_anew():
    server = Server()
    server.faults = [Fault(0, taken=5000, when=is_patch)]
    player = Player(server)
    with pytest.raises(GaveUp):
        upload(Player(server, records=player.records, retry=NO_RETRIES))
    server.uploads.clear()
    server.keys.clear()
    result = upload(Player(server, records=player.records))
    assert result.resumed_from == 0
    assert server.files == [DATA]


def test_an_upload_lost_while_it_runs_begins_anew_once():
    server = Server()
    server.faults = [Fault(404, when=is_patch), Fault(404, when=lambda request: request.method == "HEAD")]
    assert upload(Player(server)).size == len(DATA)
    server = Server()
    server.faults = [
        *(Fault(404, when=is_patch), Fault(404, when=lambda request: request.method == "HEAD")),
        *(Fault(404, when=is_patch), Fault(404, when=lambda request: request.method == "HEAD")),
    ]
    with pytest.raises(UploadGone):
        upload(Player(server))


def test_an_upload_of_another_length_is_not_continued():
    server = Server()
    url = Player(server)
    upload(url, b"x" * 300_000, key="a")
    with pytest.raises(UploadGone, match="for 300000 bytes"):
        upload(Player(server), DATA, key="", url=ENDPOINT + "1")


def test_checksums_are_negotiated():
    server = Server()
    player = Player(server, checksum="auto")
    upload(player)
    assert server.requests[-1].headers["Upload-Checksum"].startswith("sha256 ")
    server.faults = [Fault(460, when=is_patch)]
    upload(player, DATA + b"2", key="other")
    assert server.files == [DATA, DATA + b"2"]
    server.faults = [Fault(460, when=is_patch) for _ in range(20)]
    with pytest.raises(ChecksumMismatch):
        upload(player, DATA + b"3", key="third")
    with pytest.raises(NotSupported, match="it offers sha256, sha1"):
        upload(Player(server, checksum="sha512"))
    upload(Player(Server(extensions="creation"), checksum="auto"))
    with pytest.raises(NotSupported, match="it offers none"):
        upload(Player(Server(extensions="creation"), checksum="sha1"))


def test_a_checksum_follows_the_body_where_the_server_takes_it():
    server = Server(extensions="creation,checksum,checksum-trailer")
    upload(Player(server, checksum="auto", sends_trailers=True))
    assert server.requests[-1].body.trailer == "sha256"
    assert "Upload-Checksum" not in server.requests[-1].headers


@pytest.mark.parametrize("speaks", ["tus", "ietf"])
@pytest.mark.parametrize("size", [0, 1, 100, 1000, 1001])
def test_a_stream_of_unknown_length(speaks, size):
    server = Server(speaks)
    player = Player(server, protocol=speaks)
    data = bytes(size)
    server.faults = [Fault(0, taken=37, when=is_patch)]
    source = StreamSource((data[i : i + 90] for i in range(0, size, 90)), spool=250)
    result = player.run(Upload(player.context, source, {}).run())
    assert server.files == [data]
    assert result.size == size
    if speaks == "tus":
        assert "Upload-Defer-Length" in server.requests[1].headers


def test_a_stream_needs_a_server_that_can_wait_for_its_length():
    player = Player(Server(extensions="creation"))
    with pytest.raises(NotSupported, match="size="):
        player.run(Upload(player.context, StreamSource([b"a"]), {}).run())
    player.run(Upload(player.context, StreamSource([b"a"], size=1), {}).run())
    with pytest.raises(FileChanged, match="has 1 bytes, but 2 were announced"):
        player.run(Upload(player.context, StreamSource([b"a"], size=2), {}).run())


def test_a_server_that_contradicts_itself_is_not_believed():
    server = Server()
    server.faults = [Fault(204, headers=(("Upload-Offset", "999999999"),), when=is_patch)]
    with pytest.raises(ProtocolViolation):
        upload(Player(server))
    server.faults = [Fault(201, when=is_post)]
    with pytest.raises(ProtocolViolation, match="without a Location"):
        upload(Player(server), key="b")


def test_a_file_that_is_too_large_is_not_begun():
    server = Server()
    server.faults = [
        Fault(204, headers=(("Tus-Version", "1.0.0"), ("Tus-Max-Size", "10"), ("Tus-Extension", "creation")))
    ]
    with pytest.raises(Refused, match="takes at most 10"):
        upload(Player(server))
    assert methods(server) == ["OPTIONS"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects(status):
    server = Server()
    server.faults = [Fault(status, headers=(("Location", "/up/"),), when=is_post)]
    if status in (301, 302):  # a client would make GET of it
        with pytest.raises(Refused):
            upload(Player(server))
        return
    upload(Player(server))
    assert server.files == [DATA]
    server.faults = [Fault(status, headers=(("Location", "/up/"),), when=is_post) for _ in range(9)]
    with pytest.raises(ForeignOrigin):
        upload(Player(server), key="other")


@pytest.mark.parametrize(
    ("location", "url", "is_trusted"),
    [
        ("https://cdn.example/up/1", "https://cdn.example/up/1", False),
        ("https://friend.example:444/up/1", "https://friend.example:444/up/1", True),
        ("http://files.example/up/1", "https://files.example/up/1", True),
        ("//files.example/up/1", "https://files.example/up/1", True),
        ("https://files.example:443/up/1", "https://files.example:443/up/1", True),
        ("https://files.example:8443/up/1", "https://files.example:8443/up/1", False),
    ],
)
def test_credentials_stay_with_their_origin(location, url, is_trusted):
    server = Server()
    trusted: list[tuple[str, bool]] = []
    respond = server.respond

    def watched(send):
        trusted.append((send.request.url, send.has_credentials))
        return respond(send)

    server.respond = watched
    server.faults = [Fault(201, headers=(("Location", location),), when=is_post)]
    server.uploads["/up/1"] = __import__("tests.client.model", fromlist=["Stored"]).Stored(len(DATA))
    player = Player(server, trusted=frozenset({"https://friend.example:444"}))
    upload(player)
    assert trusted[-1] == (url, is_trusted)


def test_https_is_never_left():
    server = Server()
    server.faults = [Fault(201, headers=(("Location", "http://cdn.example/up/1"),), when=is_post)]
    with pytest.raises(ForeignOrigin, match=r"http://cdn\.example"):
        upload(Player(server))


def test_parts_are_sent_together_and_joined():
    server = Server()
    player = Player(server)
    data = DATA * 14
    source = BytesSource(data)
    result = player.run(parallel(player.context, source, {"filename": "a"}, "k", 3))
    assert server.files == [data]
    assert sum(upload.is_partial for upload in server.uploads.values()) == 3
    assert result.size == len(data)
    assert result.url == ENDPOINT + "4"
    assert player.records.all() == []
    server = Server(extensions="creation")  # one stream where parts cannot be joined
    player = Player(server)
    player.run(parallel(player.context, source, {}, "k", 3))
    assert methods(server) == ["OPTIONS", "POST", "PATCH"]


def test_parts_go_on_after_the_process_has_ended():
    server = Server()
    records = Player(server).records
    data = DATA * 14
    server.faults = [Fault(0, taken=777, when=is_patch)]
    with pytest.raises(GaveUp):
        player = Player(server, records=records, retry=NO_RETRIES)
        player.run(parallel(player.context, BytesSource(data), {}, "k", 3))
    server.faults = [Fault(0, taken=None, when=lambda request: "final" in request.headers.get("Upload-Concat", ""))]
    player = Player(server, records=records)
    result = player.run(parallel(player.context, BytesSource(data), {}, "k", 3))
    assert result.resumed_from == 777
    assert server.files == [data]
    assert len(server.uploads) == 4
    assert records.all() == []


def test_an_error_of_the_last_step_of_parts_is_no_success():
    server = Server()
    server.faults = [Fault(500, taken=None, when=lambda request: "final" in request.headers.get("Upload-Concat", ""))]
    player = Player(server)
    with pytest.raises(FinishUncertain) as caught:
        player.run(parallel(player.context, BytesSource(DATA * 14), {}, "k", 3))
    assert caught.value.status == 500


def test_every_error_is_in_one_tree():
    from tus.client import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert all(issubclass(kind, ClientError) for kind in kinds if kind.__module__ == errors.__name__)


def test_a_success_that_does_not_say_the_offset_is_looked_into():
    server = Server()
    server.faults = [Fault(204, taken=None, when=is_patch)]
    result = upload(Player(server))
    assert methods(server) == ["OPTIONS", "POST", "PATCH", "HEAD"]
    assert result.response.status == 200
    server = Server()
    server.faults = [Fault(204, when=is_patch) for _ in range(30)]
    with pytest.raises(GaveUp):  # instead of asking for ever
        upload(Player(server))


def test_a_key_that_the_server_does_not_take_again_is_replaced():
    server = Server()
    server.faults = [Fault(0, taken=None, when=is_post)]
    player = Player(server, retry=NO_RETRIES)
    with pytest.raises(GaveUp):
        upload(player)
    server.faults = [Fault(422, when=is_post)]
    upload(Player(server, records=player.records))
    assert server.files == [DATA]
    server.faults = [Fault(422, when=is_post)]
    with pytest.raises(Refused):
        upload(Player(server), key="other")


def test_a_plain_server_gets_its_request_without_a_checksum():
    server = Server("ietf", versions=())
    upload(Player(server, checksum="auto"))
    assert server.files == [DATA]


def test_requests_keep_to_the_servers_limits():
    server = Server()
    limits = (
        ("Tus-Version", "1.0.0"),
        ("Tus-Extension", "creation"),
        ("Upload-Limit", "max-append-size=100000, min-append-size=50000"),
    )
    server.faults = [Fault(204, headers=limits)]
    upload(Player(server, chunk_size=10))
    assert [request.body.length for request in server.requests if is_patch(request)] == [50000] * 6 + [7200]
