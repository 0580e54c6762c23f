"""``tus upload`` as people run it, against ``tus serve``."""

import contextlib
import hashlib
import json
import os
import random
import shlex
import signal
import subprocess
import time

import pytest

from tests.support.commands import TUS_COMMAND
from tests.support.cutting_proxy import CuttingProxy
from tests.support.serving import uvicorn_in_thread
from tests.support.terminal import terminal
from tests.support.waiting import wait_until
from tus.asgi import TusApp

MIB = 1 << 20


def content(size, seed=0):
    return random.Random(seed).randbytes(size)


def offset_of(client, url):
    return json.loads(client.run("info", url, "--json").out)["offset"]


# -- Files ----------------------------------------------------------------------------------------------------------


def test_a_file(client):
    data = content(3 * MIB)
    done = client.run("upload", client.file("film.mp4", data), client.url)
    assert (done.returncode, done.out.startswith(client.url)) == (0, True), done.err
    assert len(done.out.splitlines()) == 1
    assert done.err.startswith("film.mp4: done, 3.0 MiB in ")
    assert client.received() == {"film.mp4": data}
    assert client.run("state").out == "no unfinished uploads\n"


def test_urls_are_in_the_order_of_the_files(client):
    names = [f"{number}.txt" for number in range(6)]
    for name in names:
        client.file(name, name.encode() * 1000)
    done = client.run("upload", *names, client.url, "--jobs", "3")
    assert done.returncode == 0
    shown = [client.run("info", url, "--json").out for url in done.out.split()]
    assert [json.loads(text)["metadata"]["filename"] for text in shown] == names
    assert "6 of 6 files done" in done.err


def test_a_file_that_is_given_twice(client):
    client.file("a.txt")
    client.file("b.txt")
    done = client.run("upload", "a.txt", "b.txt", "./a.txt", client.url)
    assert (done.returncode, len(done.out.split())) == (0, 2)


@pytest.mark.parametrize("protocol", ["tus", "ietf"])
def test_an_empty_file_and_a_name_that_is_no_text(client, protocol):
    client.file("empty", b"")
    (client.here / os.fsdecode(b"caf\xe9.txt")).write_bytes(b"x")
    (client.here / "\u65e5\u672c.txt").write_bytes(b"y")
    names = [b"empty", b"caf\xe9.txt", "\u65e5\u672c.txt".encode()]
    more = ("--protocol", protocol, "-m", os.fsdecode(b"note=\xe9"))
    done = client.run("upload", *map(os.fsdecode, names), client.url, *more)
    assert done.returncode == 0, done.err
    assert client.received() == {"empty": b"", "caf\ufffd.txt": b"x", "\u65e5\u672c.txt": b"y"}


def test_options_between_the_files_and_the_url(client):
    client.file("a.txt")
    client.file("b.txt")
    assert client.run("upload", "a.txt", "-q", "b.txt", "-j", "1", client.url).returncode == 0
    assert sorted(client.received()) == ["a.txt", "b.txt"]


@pytest.mark.parametrize("before", [[], ["a.txt"]])
def test_a_name_that_begins_with_a_dash(client, before):
    client.file("a.txt")
    client.file("-w.txt")
    done = client.run("upload", "--dry-run", *before, "--", "-w.txt", client.url)
    assert [line.split()[0] for line in done.out.splitlines()] == [*before, "-w.txt"]


def test_quiet(client):
    client.file("a.txt")
    done = client.run("upload", "-q", "a.txt", client.url)
    assert (done.returncode, len(done.out.split()), done.err) == (0, 1, "")


def test_json(client):
    client.file("a.txt")
    events, status = client.events("upload", "a.txt", client.url)
    assert status == 0
    assert events[0]["event"] == "started"
    *_, done, summary = events
    assert (done["event"], done["file"], done["size"], done["resumed_from"]) == ("done", "a.txt", 5, 0)
    assert done["url"].startswith(client.url)
    assert (summary["event"], summary["done"], summary["failed"], summary["size"]) == ("summary", 1, 0, 5)


def test_metadata_name_and_type(client):
    client.file("a.txt")
    url = client.run("upload", "-q", "a.txt", client.url, "-m", "a=b=c", "--name", "z.html").out.strip()
    assert json.loads(client.run("info", url, "--json").out)["metadata"] == {
        "filename": "z.html",
        "filetype": "text/html",
        "a": "b=c",
    }
    url = client.run("upload", "-q", "a.txt", client.url, "--no-filename", "--filetype", "x/y").out.strip()
    assert json.loads(client.run("info", url, "--json").out)["metadata"] == {"filetype": "x/y"}


@pytest.mark.parametrize("protocol", ["tus", "ietf"])
@pytest.mark.parametrize("options", [[], ["--checksum", "auto"], ["--verify"], ["--parallel", "3"]], ids=" ".join)
def test_ways_to_send(client, protocol, options):
    if protocol == "tus":
        options = [*options, "--override-patch"]
    elif options == ["--checksum", "auto"]:
        options = ["--chunk-size", "1M"]
    data = content(4 * MIB)
    client.file("a.bin", data)
    done = client.run("upload", "a.bin", client.url, "--protocol", protocol, *options)
    assert done.returncode == 0, done.err
    assert client.received() == {"a.bin": data}


def test_stdin(client):
    done = client.run("upload", "-", client.url, "--name", "notes.txt", text="from a pipe")
    assert done.returncode == 0, done.err
    assert client.received() == {"notes.txt": b"from a pipe"}
    done = client.run("upload", "-", client.url, "--size", "11", "--name", "known.txt", text="from a pipe")
    assert client.received()["known.txt"] == b"from a pipe"


def test_a_pipe_of_the_shell(client):
    os.mkfifo(client.here / "pipe")
    with client.start("upload", "pipe", client.url, "--name", "p.txt") as process:
        (client.here / "pipe").write_bytes(b"through")
        assert process.wait(60) == 0, process.stderr.read()
    assert client.received() == {"p.txt": b"through"}


# -- Directories ----------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(client):
    for name in ("a.jpg", "b.tmp", "2024/c.jpg", "2024/raw/d.nef", "cache/e.jpg"):
        client.file(f"photos/{name}", name.encode())
    (client.here / "secret").write_text("secret")
    (client.here / "photos/link.jpg").symlink_to(client.here / "secret")
    (client.here / "photos/more").symlink_to(client.here)
    os.mkfifo(client.here / "photos/pipe")
    return client


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["2024/c.jpg", "2024/raw/d.nef", "a.jpg", "b.tmp", "cache/e.jpg"]),
        (["--exclude", "*.tmp", "--exclude", "cache"], ["2024/c.jpg", "2024/raw/d.nef", "a.jpg"]),
        (["--include", "*.jpg", "--exclude", "2024/*"], ["a.jpg", "cache/e.jpg"]),
    ],
)
def test_a_directory_without_its_links(photos, options, expected):
    done = photos.run("upload", "--recursive", "photos", photos.url, "--dry-run", *options)
    assert [line.split()[0] for line in done.out.splitlines()] == [f"photos/{name}" for name in expected]
    assert photos.received() == {}
    done = photos.run("upload", "--recursive", "photos", photos.url, "-q", *options)
    assert done.returncode == 0, done.err
    shown = [json.loads(photos.run("info", url, "--json").out)["metadata"] for url in done.out.split()]
    assert [metadata["relativePath"] for metadata in shown] == [f"photos/{name}" for name in expected]
    assert shown[0]["filename"] == expected[0].rpartition("/")[2]


# -- Errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing", "{url}"], "'missing' cannot be read"),
        (["a.txt", "b.txt"], "must begin with http"),
        ([".", "{url}"], "is a directory; give --recursive"),
        (["a.txt", "{url}", "--chunk-size", "x"], "--chunk-size"),
        (["a.txt", "{url}", "--max-rate", "0"], "--max-rate"),
        (["a.txt", "{url}", "--jobs", "0"], "--jobs"),
        (["a.txt", "{url}", "--checksum", "sha257"], "sha257"),
        (["a.txt", "{url}", "--retries", "-1"], "--retries"),
        (["a.txt", "{url}", "--stall-timeout", "0"], "--stall-timeout"),
        (["a.txt", "{url}", "-m", "a"], "KEY=VALUE"),
        (["a.txt", "{url}", "-H", "a"], "NAME: VALUE"),
        (["a.txt", "{url}", "--bearer-env", "NO_SUCH"], "NO_SUCH"),
        (["a.txt", "{url}", "--cacert", "missing"], "--cacert"),
        (["a.txt", "{url}", "--key", "a.txt"], "--cert"),
        (["a.txt", "-", "{url}", "--name", "x"], "--name"),
        (["-", "-", "{url}"], "only once"),
        (["{url}"], "FILE"),
        ([], "FILE"),
    ],
)
def test_a_wrong_command_line(client, arguments, words):
    client.file("a.txt")
    done = client.run("upload", *(argument.format(url=client.url) for argument in arguments))
    assert (done.returncode, done.out) == (2, "")
    assert words in done.err


def test_a_refusal_does_not_stop_the_others(client):
    client.file("a.txt")
    with uvicorn_in_thread(TusApp(tmp_file_dir=str(client.here / "small"), max_size=3, on_finished=print)) as port:
        events, status = client.events("upload", "a.txt", f"http://127.0.0.1:{port}/")
        assert status == 4
        assert (events[-2]["event"], events[-2]["kind"], events[-2]["resumable"]) == ("failed", "Refused", False)
        client.file("ok.txt", b"ok")
        done = client.run("upload", "a.txt", "ok.txt", f"http://127.0.0.1:{port}/")
    assert (done.returncode, len(done.out.split())) == (4, 1)
    assert "1 of 2 files done" in done.err
    assert "not done: a.txt" in done.err


def test_no_server(client):
    client.file("a.txt")
    done = client.run("upload", "a.txt", "http://127.0.0.1:9/files", "--retries", "1")
    assert (done.returncode, done.out) == (3, "")
    assert "waiting" in done.err
    assert "tus: to go on, run: tus upload a.txt http://127.0.0.1:9/files --retries 1\n" in done.err


def test_several_reasons(client):
    """A file that goes away meanwhile, and a refusal."""
    client.file("a.txt")
    client.file("b.txt", b"b")
    with uvicorn_in_thread(TusApp(tmp_file_dir=str(client.here / "small"), max_size=3, on_finished=print)) as port:
        url = f"http://127.0.0.1:{port}/"
        with client.start("upload", "b.txt", "-", "a.txt", url, "-j", "1", stdin=subprocess.PIPE) as process:
            assert process.stdout.readline().startswith(url)
            (client.here / "a.txt").unlink()
            _, errors = process.communicate("too much", timeout=60)
    assert (process.returncode, "not done: stdin, a.txt" in errors) == (1, True), errors


# -- Interruptions --------------------------------------------------------------------------------------------------


def interrupted(client, *arguments, presses=1, offset=MIB, number=signal.SIGINT):
    """The result of a slow upload that Ctrl-C ends once the server has some of it."""
    with client.start(
        "upload", *arguments, client.url, "--max-rate", "1M", "--json", "--state", client.state
    ) as process:
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "sent" and event["sent"] >= offset:
                break
        process.send_signal(number)
        if presses == 2:
            time.sleep(0.05)
            process.send_signal(number)
        began = time.monotonic()
        _, errors = process.communicate(timeout=60)
        process.seconds = time.monotonic() - began
        process.err = errors
    assert "Traceback" not in errors, errors
    return process


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_and_the_command_that_resumes(client, presses):
    data = content(4 * MIB)
    client.file("a film.bin", data)
    process = interrupted(client, "a film.bin", presses=presses)
    assert process.returncode == 3, process.err
    assert process.seconds < 10
    if presses == 1:
        [command] = [line for line in process.err.splitlines() if line.startswith("tus: to go on, run: ")]
        words = shlex.split(command.removeprefix("tus: to go on, run: "))
        assert words == ["tus", "upload", "a film.bin", client.url, *words[4:]]
    listed = client.run("state", "--state", client.state)
    assert "a film.bin" in listed.out
    events, status = client.events("upload", "a film.bin", client.url, "--state", client.state)
    assert status == 0
    assert events[-2]["resumed_from"] >= MIB // 2
    assert client.received() == {"a film.bin": data}


def test_the_command_that_goes_on_has_no_control_characters(client):
    """A shell reads the same name from it."""
    name = "\x1b[31m it's \\ é\u202e.bin"
    client.file(name)
    done = client.run("upload", name, "http://127.0.0.1:9/", "--retries", "0")
    command = done.err.partition("to go on, run: ")[2].strip()
    assert command.isprintable()
    program = command.replace("tus upload ", "printf %s ", 1).partition(" http")[0]
    assert subprocess.run(["bash", "-c", program], capture_output=True, text=True).stdout == name


def test_ctrl_c_with_several_files(client):
    client.file("small.txt")
    client.file("big.bin", content(4 * MIB))
    client.file("later.txt")
    process = interrupted(client, "-j", "1", "small.txt", "big.bin", "later.txt")
    assert process.returncode == 3
    assert "small.txt" not in process.err.partition("to go on")[2]
    assert "big.bin later.txt" in process.err
    assert sorted(client.received()) == ["small.txt"]


def test_a_directory_goes_on_where_it_stopped(client):
    """Complete files are not sent again, until all of them are."""
    for name in ("a.txt", "b.bin", "c.txt"):
        client.file(f"photos/{name}", content(4 * MIB) if name == "b.bin" else name.encode())
    arguments = ("-r", "photos", "-j", "1")
    assert interrupted(client, *arguments).returncode == 3
    assert "b.bin" in client.run("state", "--state", client.state).out
    assert "a.txt" not in client.run("state", "--state", client.state).out
    done = client.run("upload", *arguments, client.url, "--state", client.state)
    assert done.returncode == 0, done.err
    assert "a.txt: an earlier run has sent it" in done.err
    assert len(done.out.split()) == 3
    assert client.run("info", done.out.split()[0]).returncode == 0
    again = client.run("upload", *arguments, client.url, "--state", client.state)
    assert not set(again.out.split()) & set(done.out.split())


def test_sigterm_is_like_ctrl_c(client):
    client.file("a.bin", content(4 * MIB))
    process = interrupted(client, "a.bin", number=signal.SIGTERM)
    assert (process.returncode, "to go on" in process.err) == (3, True)


def test_a_reader_that_goes_away(client):
    """The files arrive, and the exit status is theirs."""
    for name in ("a.txt", "b.txt"):
        client.file(name, name.encode())
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [TUS_COMMAND, "upload", "a.txt", "b.txt", client.url],
        cwd=client.here,
        env=client.environment,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(writer)
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr
    assert sorted(client.received()) == ["a.txt", "b.txt"]


def test_ctrl_c_while_it_waits_for_stdin(client):
    reader, writer = os.pipe()
    try:
        with client.start("upload", "-", client.url, "--name", "x", "--json", stdin=reader) as process:
            os.write(writer, b"some")
            assert json.loads(process.stdout.readline())["event"] == "started"
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "Traceback" not in errors
        assert "Fatal" not in errors
        assert time.monotonic() - began < 10
    finally:
        os.close(reader)
        os.close(writer)


def test_a_changed_file_begins_anew(client):
    client.file("a.bin", content(4 * MIB))
    interrupted(client, "a.bin")
    data = content(4 * MIB, seed=1)
    client.file("a.bin", data)
    events, status = client.events("upload", "a.bin", client.url, "--state", client.state)
    assert (status, events[-2]["resumed_from"]) == (0, 0)
    assert client.received()["a.bin"] == data


def test_no_resume(client):
    client.file("a.bin", content(4 * MIB))
    interrupted(client, "a.bin")
    events, status = client.events("upload", "a.bin", client.url, "--state", client.state, "--no-resume")
    assert (status, events[-2]["resumed_from"]) == (0, 0)


def test_a_cut_connection(client):
    data = content(4 * MIB)
    client.file("a.bin", data)
    with CuttingProxy(client.port) as proxy:
        proxy.cut("PATCH", 2 * MIB)
        done = client.run("upload", "a.bin", client.url.replace(client.origin, proxy.origin))
    assert done.returncode == 0, done.err
    assert "a.bin: waiting " in done.err
    assert "a.bin: goes on, " in done.err
    assert client.received() == {"a.bin": data}


# -- A terminal -----------------------------------------------------------------------------------------------------


class Moody:
    """Answers the first PATCH with 503, and asks for a second."""

    def __init__(self, app):
        self._app, self._has_refused = app, False

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["method"] != "PATCH" or self._has_refused:
            await self._app(scope, receive, send)
            return
        self._has_refused = True
        await send({"type": "http.response.start", "status": 503, "headers": [(b"retry-after", b"1")]})
        await send({"type": "http.response.body", "body": b""})


@contextlib.contextmanager
def moody_server(client):
    app = Moody(TusApp(tmp_file_dir=str(client.here / "moody"), on_finished=print))
    with uvicorn_in_thread(app, log_level="warning") as port:
        yield f"http://127.0.0.1:{port}/"


def screen_of(client, *arguments, **how):
    return terminal([TUS_COMMAND, *map(str, arguments)], client.environment, cwd=client.here, **how)


def test_bars(client):
    """Several files at once, a wait, and a resumption."""
    for name in ("one.bin", "two.bin"):
        client.file(name, content(2 * MIB, seed=len(name)))
    client.file("\x1b[31mevil\n.txt")
    arguments = ["one.bin", "two.bin", "\x1b[31mevil\n.txt"]
    options = ("--max-rate", "1M", "--state", client.state)
    with moody_server(client) as url, screen_of(client, "upload", *arguments, url, *options) as shown:
        assert shown.wait() == 0, shown.screen
    assert shown.seen("one.bin", r"MiB/2\.0 MiB", "iB/s", r"\d s left")
    assert shown.seen("two.bin", "%")
    assert shown.seen(r"waiting [12]\.\d s: 503, the server asks for 1 s")
    both = [frame for frame in shown.frames if any("one.bin" in row for row in frame)]
    assert any(any("two.bin" in row for row in frame) for frame in both)
    *urls, summary = shown.screen
    assert len(urls) == 3
    assert all(row.startswith(url) for row in urls)
    assert summary.startswith("3 of 3 files done, 4.0 MiB in ")
    assert shown.has_cursor


def test_many_files_have_a_bar_for_all(client):
    names = [f"{number}.bin" for number in range(12)]
    for name in names:
        client.file(name, content(MIB // 8))
    with screen_of(client, "upload", *names, client.url, "--max-rate", "1M", "-j", "2", "-v") as shown:
        assert shown.wait() == 0
    assert shown.seen("all files", "━", r"\d/12")
    assert shown.seen("PATCH http", ": 204") or shown.seen("POST http", ": 201")
    assert shown.screen[-1].startswith("12 of 12 files done")


def test_ctrl_c_in_a_terminal(client):
    data = content(6 * MIB)
    client.file("film.bin", data)
    arguments = ("upload", "film.bin", client.url, "--max-rate", "2M", "--state", client.state)
    with screen_of(client, *arguments) as shown:
        shown.wait_for("film.bin", r" 3\.\d MiB/6\.0 MiB")
        shown.press_ctrl_c()
        assert shown.wait() == 3
        assert shown.has_cursor
    assert any("tus: to go on, run: tus upload film.bin" in row for row in shown.screen)
    with screen_of(client, *arguments) as shown:
        assert shown.wait() == 0
    assert shown.seen("film.bin", r"\(resumed at ")
    assert client.received() == {"film.bin": data}


def test_stdout_in_a_pipe_beside_bars(client):
    """The URL goes to the pipe, and the bars to the terminal."""
    client.file("a.bin", content(MIB))
    arguments = ("upload", "a.bin", client.url, "--max-rate", "2M")
    with (client.here / "urls").open("wb") as urls, screen_of(client, *arguments, stdout=urls) as shown:
        assert shown.wait() == 0
    assert (client.here / "urls").read_text().startswith(client.url)
    assert shown.seen("a.bin", "%")
    assert shown.screen == []


def test_a_narrow_terminal(client):
    client.file("a long name of a file.bin", content(MIB))
    with screen_of(client, "upload", "a long name of a file.bin", client.url, "--max-rate", "1M", columns=40) as shown:
        assert shown.wait() == 0


def test_a_dumb_terminal(client):
    client.environment["TERM"] = "dumb"
    client.file("a.bin", content(MIB))
    with screen_of(client, "upload", "a.bin", client.url) as shown:
        assert shown.wait() == 0
    assert any(row.startswith("a.bin: done, 1.0 MiB in ") for row in shown.screen)


def test_without_rich(client, tmp_path):
    (tmp_path / "rich.py").write_text("raise ModuleNotFoundError('no rich', name='rich')")
    client.environment["PYTHONPATH"] = str(tmp_path)
    client.file("a.bin", content(MIB))
    with screen_of(client, "upload", "a.bin", client.url) as shown:
        assert shown.wait() == 0
    assert any(row.startswith("a.bin: done, 1.0 MiB in ") for row in shown.screen)


def test_the_digest_of_a_verified_file(client):
    data = content(MIB)
    client.file("a.bin", data)
    with CuttingProxy(client.port) as proxy:
        done = client.run("upload", "a.bin", client.url.replace(client.origin, proxy.origin), "--verify")
        assert done.returncode == 0, done.err
        digests = [seen.headers.get("repr-digest", "") for seen in proxy.requests]
        wait_until(lambda: proxy.of("HEAD"))
    assert any(digest.startswith("sha-256=:") for digest in digests), digests
    assert hashlib.sha256(client.received()["a.bin"]).digest() == hashlib.sha256(data).digest()
