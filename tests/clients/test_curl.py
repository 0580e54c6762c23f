"""curl uploads to a real server: what a person does by hand, and what a shell script does."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.clients import UNUSUAL_NAME, Landing, head, offset_of, sample, settled_offset, wait_for_offset
from tests.support.serving import UPLOAD_PATH, serving
from tests.support.waiting import GUARD, wait_until

SIZE = 3 * 1024 * 1024 + 17
CUT = 1_234_567
NAME = base64.b64encode(UNUSUAL_NAME.encode()).decode()
TUS = ("-H", "Tus-Resumable: 1.0.0")
OCTETS = ("-H", "Content-Type: application/offset+octet-stream")
DEFERRED = ("-H", "Upload-Defer-Length: 1")
NAMED = ("-H", f"Upload-Metadata: filename {NAME},is_secret")
METADATA = {"filename": UNUSUAL_NAME, "is_secret": ""}


@dataclass
class Result:
    """What came of a run of curl.

    Attributes:
        exit_status: curl's own.
        statuses: of all replies, the interim ones too.
        headers: of the last reply, by their names in lower case.
        sent: bytes of the body that curl has sent.
        output: the body of the reply, and what curl complained about.
    """

    exit_status: int
    statuses: list[int]
    headers: dict[str, str]
    sent: int
    output: str

    @property
    def status(self) -> int:
        return self.statuses[-1] if self.statuses else 0

    @property
    def offset(self) -> int:
        return int(self.headers["upload-offset"])

    @property
    def location(self) -> str:
        return self.headers["location"]


class Curl:
    """Runs curl; ``arguments`` are its own."""

    def __init__(self, directory: Path) -> None:
        self._heads = directory / "heads"

    def command(self, *arguments: object) -> list[str]:
        options = ["--silent", "--show-error", "--noproxy", "*", "--max-time", "30"]
        told = ["--dump-header", str(self._heads), "--write-out", "\n%{size_upload}"]
        return ["curl", "--disable", *options, *told, *map(str, arguments)]

    def __call__(self, *arguments: object, stdin: bytes | None = None) -> Result:
        self._heads.unlink(missing_ok=True)
        run = subprocess.run(self.command(*arguments), input=stdin, capture_output=True, timeout=3 * GUARD, check=False)
        heads = self._heads.read_text("latin-1") if self._heads.exists() else ""
        statuses = [int(status) for status in re.findall(r"^HTTP/1\.1 (\d+)", heads, re.MULTILINE)]
        last = heads.rstrip().rpartition("HTTP/1.1 ")[2]
        fields = (line.partition(":") for line in last.splitlines()[1:])
        headers = {name.lower(): value.strip() for name, _, value in fields}
        output, _, sent = run.stdout.decode("utf-8", "replace").rpartition("\n")
        return Result(run.returncode, statuses, headers, int(sent), output + run.stderr.decode())


@pytest.fixture(scope="module", params=["gunicorn-gthread", "uvicorn-httptools"])
def server(request, tmp_path_factory):
    with serving(request.param, tmp_path_factory.mktemp("curl")) as running:
        yield running


@pytest.fixture
def curl(tmp_path):
    return Curl(tmp_path)


@pytest.fixture
def file(tmp_path):
    return sample(tmp_path / "file.bin", SIZE)


@pytest.fixture
def url(server, curl):
    """A new upload of SIZE bytes."""
    created = curl(*TUS, *NAMED, "-X", "POST", "-H", f"Upload-Length: {SIZE}", server.url)
    assert created.status == 201
    return created.location


def upload_length(size):
    return ("-H", f"Upload-Length: {size}")


def upload_offset(offset):
    return ("-H", f"Upload-Offset: {offset}")


def patch(offset):
    return (*TUS, *OCTETS, *upload_offset(offset), "-X", "PATCH")


def go_on(curl, url, send):
    """What a careful script does: ask for the offset, and once more where the server says that it has changed."""
    for _ in range(20):
        kept = curl("-I", *TUS, url).offset
        arguments, stdin = send(kept)
        appended = curl(*patch(kept), *arguments, url, stdin=stdin)
        if appended.status != 409:
            break
        time.sleep(0.05)
    return kept, appended


def through(proxy, server, url):
    """The same URL by way of the proxy."""
    return url.replace(f":{server.port}/", f":{proxy.port}/")


# -- Creation -----------------------------------------------------------------------------------------------------


def test_options(server, curl):
    discovered = curl("-X", "OPTIONS", server.url)
    assert discovered.status in (200, 204)
    assert discovered.headers["tus-version"] == "1.0.0"
    assert {"creation", "creation-with-upload", "creation-defer-length"} <= set(
        discovered.headers["tus-extension"].split(",")
    )


@pytest.mark.parametrize("size", [0, 1, 65536, SIZE])
def test_creation_with_upload(server, curl, landing, tmp_path, size):
    file = sample(tmp_path / "file.bin", size)
    created = curl(*TUS, *OCTETS, *NAMED, *upload_length(size), "--data-binary", f"@{file}", server.url)
    assert created.status == 201
    assert created.offset == size
    upload_id = landing.assert_one(file, METADATA)
    assert created.location == f"{server.url}/{upload_id}"
    assert created.headers["x-app"] == "has it"


def test_creation_with_the_first_bytes(server, curl, landing, file):
    data = file.read_bytes()
    created = curl(*TUS, *OCTETS, *NAMED, *upload_length(SIZE), "--data-binary", "@-", server.url, stdin=data[:CUT])
    assert (created.status, created.offset) == (201, CUT)
    landing.assert_none()
    appended = curl(*patch(CUT), "--data-binary", "@-", created.location, stdin=data[CUT:])
    assert (appended.status, appended.offset) == (204, SIZE)
    landing.assert_one(file, METADATA)


def test_creation_with_upload_from_stdin(server, curl, landing, file):
    """The length is announced, the body is chunked."""
    created = curl(*TUS, *OCTETS, *upload_length(SIZE), "-X", "POST", "-T", "-", server.url, stdin=file.read_bytes())
    assert (created.status, created.offset) == (201, SIZE)
    landing.assert_one(file)


def test_creation_by_a_script_that_sends_a_form_s_type(server, curl, landing, tmp_path):
    """``curl -d ''`` adds the type of a form; with headers of the protocol it is no form all the same."""
    created = curl(*TUS, *upload_length(0), "-d", "", server.url)
    assert created.status == 201
    landing.assert_one(sample(tmp_path / "empty", 0))


def test_creation_with_upload_that_is_cut(proxy, server, curl, landing, file):
    """The reply with the URL is lost as well, so nobody can go on; nothing lands."""
    proxy.cut("POST", after=CUT)
    created = curl(*TUS, *OCTETS, *upload_length(SIZE), "--data-binary", f"@{file}", proxy.origin + UPLOAD_PATH)
    assert created.exit_status != 0
    landing.assert_none()


# -- HEAD ---------------------------------------------------------------------------------------------------------


def test_head(url, curl):
    inspected = curl("-I", *TUS, url)
    assert (inspected.exit_status, inspected.status, inspected.offset) == (0, 200, 0)
    assert inspected.headers["upload-length"] == str(SIZE)
    assert inspected.headers["upload-metadata"] == f"filename {NAME},is_secret"
    assert inspected.headers["cache-control"] == "no-store"
    assert inspected.headers["tus-resumable"] == "1.0.0"
    assert inspected.headers.get("content-length", "0") == "0"
    assert inspected.output.endswith("\r\n\r\n")


def test_head_while_the_length_is_not_known(server, curl):
    created = curl(*TUS, *DEFERRED, "-X", "POST", server.url)
    inspected = curl("-I", *TUS, created.location)
    assert (inspected.status, inspected.offset) == (200, 0)
    assert inspected.headers["upload-defer-length"] == "1"
    assert "upload-length" not in inspected.headers


def test_head_of_what_does_not_exist(server, curl):
    inspected = curl("-I", *TUS, f"{server.url}/{'0' * 32}")
    assert (inspected.exit_status, inspected.status) == (0, 404)
    assert "upload-offset" not in inspected.headers


def test_head_of_what_has_landed(url, curl, landing, file):
    curl(*patch(0), "-T", file, url)
    landing.assert_one(file, METADATA)
    inspected = curl("-I", *TUS, url)
    assert (inspected.status, inspected.offset) == (200, SIZE)


def test_delete(url, curl, landing, file):
    curl(*patch(0), "--data-binary", "@-", url, stdin=file.read_bytes()[:CUT])
    assert curl(*TUS, "-X", "DELETE", url).status == 204
    assert curl("-I", *TUS, url).status in (404, 410)
    assert curl(*patch(CUT), "-C", CUT, "-T", file, url).status in (404, 410)
    landing.assert_none()


# -- PATCH --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["-T", "--data-binary"])
def test_patch(url, curl, landing, file, how):
    appended = curl(*patch(0), how, file if how == "-T" else f"@{file}", url)
    assert (appended.exit_status, appended.status, appended.offset) == (0, 204, SIZE)
    landing.assert_one(file, METADATA)


def test_patch_as_an_overridden_post(url, curl, landing, file):
    override = ("-H", "X-HTTP-Method-Override: PATCH")
    appended = curl(*TUS, *OCTETS, *upload_offset(0), *override, "--data-binary", f"@{file}", url)
    assert (appended.status, appended.offset) == (204, SIZE)
    landing.assert_one(file, METADATA)


def test_patches_over_one_connection(url, curl, landing, file, tmp_path):
    """With ``--next`` curl sends them all over one connection, which has to be in step after each."""
    data = file.read_bytes()
    arguments = []
    for start in range(0, SIZE, 700_000):
        part = tmp_path / f"part-{start}"
        part.write_bytes(data[start : start + 700_000])
        arguments += ["--next", "--noproxy", "*", "--verbose", *patch(start), "-T", part, url]
    appended = curl("-I", *TUS, url, *arguments)
    assert appended.output.count("< HTTP/1.1 204") == 5
    assert appended.output.count("< Connection: close") == 0
    assert len(re.findall("Re-?using existing", appended.output)) == 5
    landing.assert_one(file, METADATA)


def test_expectation_met(url, curl, landing, file):
    expecting = ("-H", "Expect: 100-continue", "--expect100-timeout", str(2 * GUARD))
    began = time.monotonic()
    appended = curl(*patch(0), *expecting, "-T", file, url)
    assert appended.statuses == [100, 204]
    assert time.monotonic() - began < GUARD, "curl was not told to go on"
    assert (appended.sent, appended.offset) == (SIZE, SIZE)
    landing.assert_one(file, METADATA)


def test_wrong_offset_before_the_body_is_read(url, curl, landing, tmp_path):
    """gunicorn tells every client by itself to go on; the refusal comes long before the body has."""
    file = sample(tmp_path / "large", 8 * SIZE)
    expecting = ("-H", "Expect: 100-continue", "--expect100-timeout", "20", "--limit-rate", "4M")
    refused = curl(*patch(5), *expecting, "-T", file, url)
    assert refused.status == 409
    assert refused.offset == 0
    assert refused.sent < SIZE
    assert offset_of(url) == 0
    landing.assert_none()


def test_expectation_refused(curl, tmp_path, file):
    """gevent leaves it to the application to begin reading, so not one byte of the body is sent in vain."""
    with serving("gevent", tmp_path) as server:
        landing = Landing(server)
        url = curl(*TUS, *upload_length(SIZE), "-X", "POST", server.url).location
        expecting = ("-H", "Expect: 100-continue", "--expect100-timeout", str(2 * GUARD))
        refused = curl(*patch(5), *expecting, "-T", file, url)
        assert refused.statuses == [409]
        assert refused.sent == 0
        assert refused.offset == 0
        landing.assert_none()

        appended = curl(*patch(0), *expecting, "-T", file, url)
        assert appended.statuses == [100, 204]
        landing.assert_one(file)


@pytest.mark.parametrize("size", [SIZE + 1, SIZE * 2])
@pytest.mark.parametrize("how", ["length", "chunked"])
def test_patch_that_is_too_long(url, curl, landing, tmp_path, size, how):
    file = sample(tmp_path / "too long", size)
    if how == "length":
        refused = curl(*patch(0), "-T", file, url)
        assert offset_of(url) == 0
    else:
        refused = curl(*patch(0), "-T", "-", url, stdin=file.read_bytes())
        assert offset_of(url) < SIZE
    # Where gunicorn closes while curl still sends, the connection may break before curl has read the reply.
    assert refused.status == 413 or refused.exit_status in (55, 56), refused
    landing.assert_none()


# -- Chunked from stdin -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, SIZE])
def test_stdin(proxy, server, curl, landing, tmp_path, size):
    file = sample(tmp_path / "file.bin", size)
    if not size:
        created = curl(*TUS, *DEFERRED, "-X", "POST", proxy.origin + UPLOAD_PATH)
    else:
        created = curl(*TUS, *upload_length(size), "-X", "POST", proxy.origin + UPLOAD_PATH)
    settled = () if size else upload_length(0)
    appended = curl(*patch(0), *settled, "-T", "-", created.location, stdin=file.read_bytes())
    assert (appended.status, appended.offset) == (204, size)
    landing.assert_one(file)
    sent = proxy.of("PATCH")[0]
    assert sent.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in sent.headers


def test_stdin_whose_length_is_told_at_the_end(server, curl, landing, file):
    """Nobody knows how long it will be, as behind ``tar c | curl -T -``."""
    created = curl(*TUS, *NAMED, *DEFERRED, "-X", "POST", server.url)
    appended = curl(*patch(0), "-T", "-", created.location, stdin=file.read_bytes())
    assert (appended.status, appended.offset) == (204, SIZE)
    landing.assert_none()
    settled = curl(*patch(SIZE), *upload_length(SIZE), "--data-binary", "", created.location)
    assert (settled.status, settled.offset) == (204, SIZE)
    landing.assert_one(file, METADATA)


def test_stdin_whose_length_is_told_with_the_last_bytes(server, curl, landing, file):
    data = file.read_bytes()
    created = curl(*TUS, *DEFERRED, "-X", "POST", server.url)
    assert curl(*patch(0), "-T", "-", created.location, stdin=data[:CUT]).offset == CUT
    appended = curl(*patch(CUT), *upload_length(SIZE), "-T", "-", created.location, stdin=data[CUT:])
    assert (appended.status, appended.offset) == (204, SIZE)
    landing.assert_one(file)


@pytest.mark.parametrize("reset", [False, True], ids=["ended", "reset"])
def test_stdin_cut(proxy, server, curl, landing, file, url, reset):
    proxy.cut("PATCH", after=CUT, reset=reset)
    data = file.read_bytes()
    cut = curl(*patch(0), "-T", "-", through(proxy, server, url), stdin=data)
    assert cut.exit_status != 0
    kept = settled_offset(url) if reset else wait_for_offset(url, CUT)
    assert kept <= CUT
    kept, appended = go_on(curl, url, lambda kept: (["-T", "-"], data[kept:]))
    assert kept <= CUT
    assert (appended.status, appended.offset) == (204, SIZE)
    landing.assert_one(file, METADATA)


def test_stdin_over_connections_that_all_break_early(proxy, server, curl, landing, tmp_path):
    """None of them lives for as much as one block, and still there is progress."""
    file = sample(tmp_path / "file.bin", 200_000)
    data = file.read_bytes()
    url = curl(*TUS, *upload_length(len(data)), "-X", "POST", server.url).location
    for start in range(0, 200_000, 50_000):
        assert offset_of(url) == start
        if start < 150_000:
            proxy.cut("PATCH", after=50_000)
        curl(*patch(start), "-T", "-", through(proxy, server, url), stdin=data[start:])
        wait_for_offset(url, start + 50_000)
    landing.assert_one(file)


# -- Cuts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["-T", "--data-binary"])
@pytest.mark.parametrize("reset", [False, True], ids=["ended", "reset"])
def test_cut_and_resumed(proxy, server, curl, landing, file, url, reset, how):
    proxy.cut("PATCH", after=CUT, reset=reset)
    cut = curl(*patch(0), how, file if how == "-T" else f"@{file}", through(proxy, server, url))
    assert cut.exit_status != 0
    if reset:
        settled_offset(url)
    else:
        wait_for_offset(url, CUT)
    landing.assert_none()

    def send(kept):
        return (["-C", kept, "-T", file], None) if how == "-T" else ([how, "@-"], file.read_bytes()[kept:])

    kept, appended = go_on(curl, url, send)
    assert kept <= CUT
    assert reset or kept == CUT
    assert (appended.status, appended.offset, appended.sent) == (204, SIZE, SIZE - kept)
    landing.assert_one(file, METADATA)


def test_killed_and_resumed(curl, landing, file, url):
    slowly = curl.command(*patch(0), "--limit-rate", "500k", "-T", file, url)
    process = subprocess.Popen(slowly, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_offset(url, 300_000)
    finally:
        process.kill()
        process.wait()
    assert 300_000 <= settled_offset(url) < SIZE
    landing.assert_none()
    kept, appended = go_on(curl, url, lambda kept: (["-C", kept, "-T", file], None))
    assert 300_000 <= kept < SIZE
    assert (appended.status, appended.offset) == (204, SIZE)
    landing.assert_one(file, METADATA)


def test_paused_and_replaced(curl, landing, file, url):
    """A client that stands still, and wakes up when another one has gone on, can do no harm."""
    slowly = curl.command(*patch(0), "--limit-rate", "500k", "-T", file, url)
    process = subprocess.Popen(slowly, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_offset(url, 300_000)
        os.kill(process.pid, signal.SIGSTOP)
        middle = SIZE - 1000
        assert settled_offset(url) < middle
        data = file.read_bytes()
        _, appended = go_on(curl, url, lambda kept: (["--data-binary", "@-"], data[kept:middle]))
        assert appended.offset == middle
        os.kill(process.pid, signal.SIGCONT)
        process.wait(30)
        assert offset_of(url) == middle
        appended = curl(*patch(middle), "--data-binary", "@-", url, stdin=data[middle:])
    finally:
        process.kill()
        process.wait()
    assert (appended.status, appended.offset) == (204, SIZE)
    landing.assert_one(file, METADATA)


def test_silent_connection_holds_nobody_up(proxy, server, curl, landing, file, url):
    """The first connection stays open, half a body short, until all is over."""
    proxy.stall("PATCH", after=CUT, held=True)
    given_up = curl("--max-time", "1", *patch(0), "-T", file, through(proxy, server, url))
    assert given_up.exit_status == 28
    kept = wait_for_offset(url, CUT)
    appended = curl(*patch(kept), "-C", kept, "-T", file, url)
    assert (appended.status, appended.offset) == (204, SIZE)
    landing.assert_one(file, METADATA)
    proxy.hang_up()
    assert head(url)[1]["upload-offset"] == str(SIZE)
    landing.assert_one(file, METADATA)


def test_lost_reply_and_repeated_request(proxy, server, curl, landing, file, url):
    """The whole file has landed, but the reply was lost. HEAD shows it; the same PATCH again is refused."""
    proxy.lose_reply("PATCH")
    assert curl(*patch(0), "-T", file, through(proxy, server, url)).exit_status == 52
    landing.assert_one(file, METADATA)
    assert curl("-I", *TUS, url).offset == SIZE
    again = curl(*patch(0), "-T", file, url)
    assert (again.status, again.offset) == (409, SIZE)
    assert curl(*patch(SIZE), "--data-binary", "", url).status == 204
    landing.assert_one(file, METADATA)


def test_retry_by_curl_itself_is_refused_safely(proxy, server, curl, landing, file, url):
    """``--retry`` repeats a request as it was; with some bytes here already, its offset is wrong."""
    proxy.cut("PATCH", after=CUT)
    retrying = ("--retry", "1", "--retry-delay", "1", "--retry-all-errors")
    refused = curl(*patch(0), *retrying, "-T", file, through(proxy, server, url))
    assert refused.status == 409
    assert refused.offset == CUT
    landing.assert_none()
    assert curl(*patch(CUT), "-C", CUT, "-T", file, url).offset == SIZE
    landing.assert_one(file, METADATA)


# -- Concatenation ------------------------------------------------------------------------------------------------


@pytest.fixture
def concat(server, curl, file):
    """What a final upload of two parts is asked for with."""
    data = file.read_bytes()
    urls = []
    for part in (data[:CUT], data[CUT:]):
        partial = (*TUS, *OCTETS, "-H", "Upload-Concat: partial", *upload_length(len(part)))
        created = curl(*partial, "--data-binary", "@-", server.url, stdin=part)
        assert created.offset == len(part)
        urls.append(created.location)
    return (*TUS, *NAMED, "-H", f"Upload-Concat: final;{' '.join(urls)}", "-X", "POST")


def test_concatenation(server, curl, landing, file, concat):
    landing.assert_none()
    final = curl(*concat, server.url)
    assert final.status == 201
    landing.assert_one(file, METADATA)
    inspected = curl("-I", *TUS, final.location)
    assert (inspected.offset, inspected.headers["upload-length"]) == (SIZE, str(SIZE))


def test_lost_reply_to_a_concatenation(proxy, server, curl, landing, file, concat):
    """The same request again learns the URL of the upload that has landed, and does not make it land again."""
    proxy.lose_reply("POST")
    # The parts are URLs of this very server, so the host has to be its own.
    host = ("-H", f"Host: 127.0.0.1:{server.port}")
    assert curl(*concat, *host, proxy.origin + UPLOAD_PATH).exit_status == 52
    upload_id = landing.assert_one(file, METADATA)

    repeated = curl(*concat, server.url)
    assert repeated.status == 201
    landing.assert_one(file, METADATA)
    assert repeated.location == f"{server.url}/{upload_id}"
    assert curl("-I", *TUS, repeated.location).offset == SIZE


# -- The IETF protocol --------------------------------------------------------------------------------------------

IETF = ("-H", "Upload-Draft-Interop-Version: 9")
PARTIAL = ("-H", "Content-Type: application/partial-upload")
INFORMING = ["gunicorn-gthread", "gunicorn-asgi"]  # servers that can send an interim response


@pytest.mark.parametrize("server", INFORMING, indirect=True)
def test_ietf_in_one_request_shows_the_interim_response(server, curl, landing, file):
    """What an upgraded upload looks like: the reply is the application's, and before it comes where to resume."""
    told = curl(*IETF, "-H", "Upload-Complete: ?1", "-H", "Content-Type: text/x-test", "-T", file, server.url)
    assert [status for status in told.statuses if status != 100] == [104, 200]
    assert (told.headers["upload-complete"], told.output) == ("?1", "taken")
    landing.assert_one(file, {"filetype": "text/x-test"})


def test_ietf_without_a_version_has_none(server, curl, landing, file):
    told = curl("-H", "Upload-Complete: ?1", "-H", "Content-Type:", "-T", file, server.url)
    assert [status for status in told.statuses if status != 100] == [200]
    landing.assert_one(file)


@pytest.mark.parametrize("server", INFORMING, indirect=True)
def test_ietf_killed_and_resumed_where_the_interim_response_says(server, curl, landing, file, tmp_path):
    named = ("-H", "Content-Disposition: inline; filename*=UTF-8''na%C3%AFve.bin", "-H", "Content-Type:")
    fields = (*IETF, *named, "-H", "Upload-Complete: ?1", "--limit-rate", "2M")
    slow = subprocess.Popen(curl.command(*fields, "-T", file, server.url), stdout=subprocess.DEVNULL)
    heads = tmp_path / "heads"
    wait_until(lambda: heads.exists() and "ocation: " in heads.read_text())
    assert "HTTP/1.1 104 " in heads.read_text()
    url = re.search(r"[Ll]ocation: (\S+)", heads.read_text()).group(1)
    wait_for_offset(url, 500_000)
    slow.kill()
    slow.wait()
    asked = curl(*IETF, "-I", url)
    assert (asked.status, asked.headers["upload-complete"]) == (204, "?0")
    assert 500_000 <= asked.offset < SIZE
    rest = file.read_bytes()[asked.offset :]
    fields = (*IETF, *PARTIAL, *upload_offset(asked.offset), "-H", "Upload-Complete: ?1")
    told = curl(*fields, "-X", "PATCH", "--data-binary", "@-", url, stdin=rest)
    assert (told.status, told.headers["upload-complete"], told.output) == (200, "?1", "taken")
    landing.assert_one(file, {"filename": "naïve.bin"})
