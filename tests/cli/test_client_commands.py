"""The other commands of the client, against ``tus serve``: resume, download, info, rm, options, state, completion."""

import json
import random
import shutil
import signal
import ssl
import subprocess
import sys
import textwrap

import pytest
import trustme

from tests.support.commands import TUS_COMMAND
from tests.support.cutting_proxy import CuttingProxy
from tests.support.serving import uvicorn_in_thread
from tus.asgi import TusApp

MIB = 1 << 20
COMMANDS = ("upload", "resume", "download", "info", "rm", "options", "state", "completion")


def content(size, seed=0):
    return random.Random(seed).randbytes(size)


@pytest.fixture
def unfinished(client):
    """Begin an upload that Ctrl-C ends."""

    def unfinished(name, data, *options):
        client.file(name, data)
        options = ("--max-rate", "1M", "--json", "--state", client.state, *options)
        with client.start("upload", name, client.url, *options) as process:
            for line in process.stdout:
                event = json.loads(line)
                if event["event"] == "sent" and event["sent"] >= MIB:
                    break
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        assert process.returncode == 3
        return event

    return unfinished


def uploaded(client, name="a.txt", data=b"hello"):
    client.file(name, data)
    return client.run("upload", "-q", name, client.url).out.strip()


# -- Help -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(client, command):
    done = client.run(command, "--help")
    assert done.returncode == 0
    assert f"Examples:\n  tus {command}" in done.out
    assert "Exit status" in done.out or "exit status" in done.out or command in ("state", "completion")


# -- tus resume, tus state ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("--parallel", "3"), ("-m", "album=1", "--protocol", "ietf")], ids=" ".join)
def test_resume(client, unfinished, options):
    data = content(4 * MIB)
    unfinished("film.mp4", data, *options)
    (client.here / "elsewhere").mkdir()
    listed = client.run("resume", "--state", client.state)
    assert "film.mp4" in listed.out
    assert len(listed.out.splitlines()) == 2
    events, status = client.events("resume", "film.mp4", "--state", client.state)
    assert status == 0, events
    *_, done, summary = events
    assert done["resumed_from"] > 0
    assert summary["done"] == 1
    assert client.received() == {"film.mp4": data}
    assert client.run("state", "--state", client.state).out == "no unfinished uploads\n"


def test_resume_all(client, unfinished):
    for name in ("a.bin", "b.bin"):
        unfinished(name, content(4 * MIB))
    done = client.run("resume", "--all", "--state", client.state, "-q")
    assert (done.returncode, len(done.out.split())) == (0, 2)
    assert sorted(client.received()) == ["a.bin", "b.bin"]


def test_resume_a_url_with_a_file(client, unfinished):
    """As on another machine, which has no record."""
    data = content(3 * MIB)
    url = (
        unfinished("a.bin", data)["url"]
        or json.loads(client.run("state", "--json", "--state", client.state).out)[0]["url"]
    )
    done = client.run("resume", url, "--file", "a.bin", "-q")
    assert (done.returncode, done.out) == (0, f"{url}\n"), done.err
    assert client.received() == {"a.bin": data}


def test_resume_refuses_a_changed_file(client, unfinished):
    unfinished("a.bin", content(3 * MIB))
    client.file("a.bin", content(3 * MIB, seed=1))
    done = client.run("resume", "a.bin", "--state", client.state)
    assert (done.returncode, done.out) == (1, "")
    assert "a.bin: it has changed since its upload began" in done.err


def test_credentials_go_to_one_server(client, unfinished):
    unfinished("a.bin", content(4 * MIB))
    with CuttingProxy(client.port) as proxy:
        client.url, url = client.url.replace(client.origin, proxy.origin), client.url
        unfinished("b.bin", content(4 * MIB))
        client.url = url
    done = client.run("resume", "--all", "--state", client.state, "-H", "Authorization: secret")
    assert (done.returncode, done.out) == (2, "")
    assert "--header" in done.err
    assert "2 servers" in done.err


def test_state(client, unfinished):
    unfinished("a.bin", content(4 * MIB))
    [listed] = json.loads(client.run("state", "--json", "--state", client.state).out)
    assert (listed["file"], listed["size"]) == (str((client.here / "a.bin").resolve()), 4 * MIB)
    assert listed["url"].startswith(client.url)
    assert client.run("state", "--prune", "--state", client.state).out == "0 uploads forgotten\n"
    assert client.run("state", "--forget", "a.bin", "--state", client.state).out == "1 upload forgotten\n"
    assert client.run("state", "--state", client.state).out == "no unfinished uploads\n"
    done = client.run("state", "--forget", "a.bin", "--state", client.state)
    assert (done.returncode, "no unfinished upload" in done.err) == (1, True)


# -- tus download ---------------------------------------------------------------------------------------------------


@pytest.fixture
def library(client, tmp_path):
    """A server that keeps its files for downloads, in place of the other one."""
    app = TusApp(tmp_file_dir=str(tmp_path / "library"), download=True, keep_finished=True, on_finished=print)
    with uvicorn_in_thread(app, log_level="warning") as port:
        client.url = f"http://127.0.0.1:{port}/"
        yield client


def test_download(library):
    data = content(3 * MIB)
    url = uploaded(library, "film.mp4", data)
    (library.here / "film.mp4").unlink()
    done = library.run("download", url)
    assert (done.returncode, done.out) == (0, "./film.mp4\n"), done.err
    assert (library.here / "film.mp4").read_bytes() == data
    done = library.run("download", url)
    assert (done.returncode, done.out) == (1, "")
    assert "exists" in done.err
    assert library.run("download", url, "film.mp4", "--overwrite", "-q").returncode == 0
    (library.here / "sub").mkdir()
    assert library.run("download", url, "sub", "-q").out == "sub/film.mp4\n"


def test_a_download_goes_on(library):
    """Where an earlier command stopped."""
    data = content(3 * MIB)
    url = uploaded(library, "film.mp4", data)
    with CuttingProxy(library.port) as proxy:
        there = url.replace(library.origin, proxy.origin)
        library.run("download", there, "copy")
        assert (library.here / "copy").read_bytes() == data
        proxy.lose_reply("GET")
        done = library.run("download", there, "again", "--retries", "0")
        assert (done.returncode, "to go on, run: tus download" in done.err) == (3, True), done.err
        assert library.run("download", there, "again", "-q").out == "again\n"


def test_the_name_of_a_download_is_safe(library):
    url = library.run("upload", "-q", library.file("a.txt"), library.url, "--name", "../../evil\n.txt").out.strip()
    done = library.run("download", url, "-q")
    assert (done.returncode, done.out) == (0, "./evil.txt\n"), done.err
    assert (library.here / "evil.txt").read_bytes() == b"hello"


# -- tus info, tus rm, tus options ----------------------------------------------------------------------------------


def test_info(client):
    url = uploaded(client)
    done = client.run("info", url)
    assert done.returncode == 0
    lines = dict(line.split(": ", 1) for line in done.out.splitlines() if ": " in line)
    assert lines["url"].strip() == url
    assert lines["offset"].strip() == "5 bytes"
    assert lines["state"].strip() == "complete"
    assert lines["metadata"].strip() == "filename = a.txt"
    info = json.loads(client.run("info", url, "--json").out)
    assert (info["offset"], info["length"], info["is_complete"]) == (5, 5, True)


def test_rm_at_a_server(client):
    first, second = uploaded(client), uploaded(client, "b.txt")
    done = client.run("rm", first, second)
    assert (done.returncode, done.out) == (0, f"{first} removed\n{second} removed\n")
    done = client.run("info", first)
    assert (done.returncode, done.out) == (4, "")
    assert done.err.startswith("tus: ")
    done = client.run("download", first, "x")
    assert done.err == "tus: x: The server answered 404: There is no such upload; create a new one.\n"


def test_rm_in_a_directory_as_before(client):
    url = uploaded(client)
    upload_id = url.rpartition("/")[2]
    done = client.run("rm", upload_id, "--dir", client.directory)
    assert (done.returncode, done.out) == (0, f"{upload_id} removed\n"), done.err


def test_options(client):
    done = client.run("options", client.url)
    assert done.returncode == 0
    assert "protocols:   tus, ietf\n" in done.out
    assert "creation-with-upload" in done.out
    offers = json.loads(client.run("options", client.url, "--json").out)
    assert offers["protocols"] == ["tus", "ietf"]
    assert "sha256" in offers["checksums"]


@pytest.mark.parametrize("command", ["info", "rm", "options", "download"])
def test_no_server(client, command):
    done = client.run(command, "http://127.0.0.1:9/x", "--retries", "0")
    assert (done.returncode, done.out) == (3, ""), done.err
    assert "tus: " in done.err


def test_the_connection_arguments(client, tmp_path):
    """What is sent to a server, as a proxy sees it."""
    client.environment["TOKEN"] = "secret"
    with CuttingProxy(client.port) as proxy:
        url = client.url.replace(client.origin, proxy.origin)
        done = client.run("options", url, "-H", "X-Trace: 7", "--bearer-env", "TOKEN", "-v")
        assert done.returncode == 0
        assert f"OPTIONS {url}: 204" in done.err or f"OPTIONS {url}: 200" in done.err
        seen = proxy.requests[-1].headers
        assert (seen["x-trace"], seen["authorization"]) == ("7", "Bearer secret")
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ann password pw")
        (tmp_path / ".netrc").chmod(0o600)
        client.environment["NETRC"] = str(tmp_path / ".netrc")
        assert client.run("options", url, "--netrc").returncode == 0
        assert proxy.requests[-1].headers["authorization"] == "Basic YW5uOnB3"
        done = client.run("options", url, "--insecure")
        assert "warning: --insecure" in done.err


def test_certificates(client, tmp_path):
    """A server with an authority of its own, which asks for a client certificate."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name, file in (("127.0.0.1", "server"), ("ann@example.org", "client")):
        issued = authority.issue_cert(name)
        issued.private_key_pem.write_to_path(tmp_path / f"{file}.key")
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{file}.pem")
    app = TusApp(tmp_file_dir=str(tmp_path / "store"), on_finished=print)
    settings = {"ssl_certfile": tmp_path / "server.pem", "ssl_keyfile": tmp_path / "server.key"}
    settings |= {"ssl_ca_certs": str(tmp_path / "ca.pem"), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    own = ("--cert", "client.pem", "--key", "client.key", "--retries", "0")
    with uvicorn_in_thread(app, log_level="critical", **settings) as port:
        url = f"https://127.0.0.1:{port}/"
        assert client.run("options", url, "--cacert", "ca.pem", *own).returncode == 0
        assert client.run("options", url, "--insecure", *own).returncode == 0
        untrusted = client.run("options", url, *own)
        anonymous = client.run("options", url, "--cacert", "ca.pem", "--retries", "0")
    assert "certificate" in untrusted.err
    for done in (untrusted, anonymous):
        assert (done.returncode, done.out) in ((1, ""), (3, "")), done.err


# -- tus completion -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(client, shell):
    done = client.run("completion", shell)
    assert (done.returncode, done.err) == (0, "")
    for command in COMMANDS:
        assert command in done.out
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=done.out, capture_output=True, text=True, timeout=60)
        assert (checked.returncode, checked.stderr) == (0, "")


def completed_by_bash(client, line):
    """What bash offers after a line."""
    words = line.split(" ")
    program = f"""
        source <({TUS_COMMAND} completion bash)
        COMP_WORDS=({" ".join(repr(word) for word in words)})
        COMP_CWORD={len(words) - 1}
        COMP_LINE={line!r}
        COMP_POINT={len(line)}
        function=$(complete -p tus | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
        $function tus {words[-1]!r} {words[-2]!r}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        cwd=client.here,
        env=client.environment,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_completion_in_bash(client):
    client.file("film.mp4")
    assert completed_by_bash(client, "tus upl") == ["upload"]
    assert "--checksum" in completed_by_bash(client, "tus upload --ch")
    assert completed_by_bash(client, "tus upload --protocol ie") == ["ietf"]
    assert "film.mp4" in completed_by_bash(client, "tus upload fi")


# -- Systems without POSIX, and packages that are missing -----------------------------------------------------------


def test_the_client_needs_no_posix(client):
    client.file("a.txt")
    program = f"""
        import sys
        for name in ("fcntl", "grp", "pwd", "resource", "termios"):
            sys.modules[name] = None
        from tus.cli.main import main
        status = main(["upload", "a.txt", {client.url!r}, "--progress", "plain"])
        main(["rm", "--help"]) if status == 0 else sys.exit(status)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        cwd=client.here,
        env=client.environment,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert client.received() == {"a.txt": b"hello"}
    assert "UPLOAD" in done.stdout


@pytest.mark.parametrize(("command", "package"), [("options", "httpx2"), ("completion", "shtab")])
def test_a_missing_package(client, tmp_path, command, package):
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError('no', name={package!r})")
    client.environment["PYTHONPATH"] = str(tmp_path)
    done = client.run(command, "bash" if command == "completion" else client.url)
    assert (done.returncode, done.out) == (1, "")
    assert f"needs the package {package}; run: pip install" in done.err
