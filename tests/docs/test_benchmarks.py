"""``python -m benchmarks``, in small: it measures what this interpreter has, finds wrong bytes, and leaves nothing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from benchmarks import clients, page, rows
from benchmarks.comparison import GROUPS, Found
from benchmarks.rows import Bench, Client, Source, Upload
from benchmarks.running import ServerError, cpu_of
from benchmarks.servers import BY_NAME, OURS, SERVERS
from benchmarks.targets import TARGETS, Medians, verdicts
from tests.support.serving import ROOT
from tests.support.waiting import wait_until

needs_compiler = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler"
)
MACHINE = {"date": "2026-01-02", "processor": "P", "cores": 2, "gib": 8, "kernel": "6.1", "python": "3.11.1"}
MACHINE |= {"memory": "tmpfs", "disk": "ext4", "rounds": 3}


def quick(tmp_path, *arguments, code="from benchmarks.__main__ import main"):
    """The command, with everything below a directory of the test."""
    where = ["--quick", "--rounds", "1", "--cache", tmp_path / "cache", "--directory", tmp_path]
    script = f"import sys; {code}; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", script, *map(str, where), *arguments]


def run(command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)


@pytest.mark.long
@needs_compiler
def test_the_benchmark_runs(tmp_path):
    """Each server of this project on each row, beside the sink."""
    here = [server.name for server in SERVERS if server.environment == "tus" or server.name == "sink"]
    done = run(quick(tmp_path, "--servers", *here))
    assert done.returncode == 0, done.stderr
    measured = set(re.findall(r"^round 1 of 1, (.*), (.*?): \d", done.stderr, re.MULTILINE))
    expected = {
        (row.name, entry.name)
        for group in GROUPS
        for entry in group.entries
        for row in group.rows
        if (BY_NAME[entry.server].variant_of or entry.server) in here and BY_NAME[entry.server].takes_part(row.name)
    }
    assert measured == expected
    assert "1 GiB in one PATCH" in done.stdout
    assert not list(tmp_path.glob("tus-benchmark-*"))


@needs_compiler
@pytest.mark.parametrize(
    ("correct", "wrong"),
    [
        ("pwrite(c->file, data, size, offsets[c->upload])", "pwrite(c->file, block, size, offsets[c->upload])"),
        ("open_upload(c->upload, 0);", "open_upload(c->upload, 0); (void)!ftruncate(c->file, 5000);"),
        ('snprintf(path, sizeof path, "%s/%lx", directory, upload)', 'snprintf(path, sizeof path, "/dev/null")'),
    ],
    ids=["other bytes", "another size", "no file"],
)
def test_a_server_that_stores_something_else_fails(tmp_path, correct, wrong):
    source = (ROOT / "benchmarks" / "sink.c").read_text()
    assert correct in source
    (tmp_path / "sink.c").write_text(source.replace(correct, wrong))
    code = "from benchmarks import install; from benchmarks.__main__ import main; from pathlib import Path; "
    code += f"install.SOURCES['sink'] = Path({str(tmp_path / 'sink.c')!r})"
    done = run(quick(tmp_path, "--servers", "sink", "--rows", "small", code=code))
    assert done.returncode == 1
    assert re.search(r"does not hold what was sent|has 5000 bytes instead of 4096|no file is stored", done.stderr)
    assert "sink: 0 /s" not in done.stdout
    correct = run(quick(tmp_path, "--servers", "sink", "--rows", "small"))
    assert correct.returncode == 0, correct.stderr


@needs_compiler
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_process_and_no_file(tmp_path, number):
    """By Ctrl-C, and by the signal of a machine that goes down."""
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # jobs of a shell may ignore it
    code += "; from benchmarks.__main__ import main"
    asked = ("small", "small 32", "whole", "head")
    command = quick(tmp_path, "--servers", "sink", "filter", "--rows", *asked, code=code)
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        for line in process.stderr:
            if line.startswith("round 1 of 1"):
                break
        assert processes_in(tmp_path)
        os.kill(process.pid, number)
        process.stderr.read()
        assert process.wait() != 0
    wait_until(lambda: not processes_in(tmp_path))
    assert not list(tmp_path.glob("tus-benchmark-*"))


def test_the_processor_time_is_that_of_the_process_and_of_its_ended_children():
    code = "import subprocess, sys, time; until = time.process_time() + 0.03\nwhile time.process_time() < until: pass\n"
    burns = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}]); {code}print(flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", burns], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        found = cpu_of(psutil.Process(process.pid))
        times = psutil.Process(process.pid).cpu_times()
        process.communicate(b"\n")
    assert times.children_user + times.children_system > 0
    assert found == pytest.approx(sum(times[:4]), abs=0.025)
    assert found > 0.06


def processes_in(directory):
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd().startswith(f"{directory}/"):
                found.append(process)
    return found


def test_what_is_stored_is_compared_with_what_was_sent(tmp_path):
    source = Source(tmp_path / "source", 1 << 20)
    bench = Bench(Client(Path("unused"), source), rows.QUICK)
    store = tmp_path / "store"
    store.mkdir()
    uploads = [Upload("/files/one", "a.dat", 0), Upload("/files/two+x", "b.dat", 4096)]
    (store / "a.dat").write_bytes(source.read(0, 4096))
    (store / "two").write_bytes(source.read(4096, 4096))
    (store / "two.info").write_bytes(b"{}")
    rows.verify(tmp_path, uploads, 4096, bench)
    (store / "two").write_bytes(source.read(0, 4096))
    with pytest.raises(ServerError, match="two does not hold what was sent"):
        rows.verify(tmp_path, uploads, 4096, bench)
    bench.thorough = False
    rows.verify(tmp_path, uploads, 4096, bench)
    (store / "a.dat").write_bytes(b"short")
    with pytest.raises(ServerError, match=r"a\.dat has 5 bytes instead of 4096"):
        rows.verify(tmp_path, uploads, 4096, bench)
    (store / "a.dat").unlink()
    with pytest.raises(ServerError, match="no file is stored for /files/one"):
        rows.verify(tmp_path, uploads, 4096, bench)


def results(row, **values):
    """Figures of a row, one for each round."""
    return [
        {"row": row, "server": server.replace("_", "-"), "round": number, "value": value, "cpu": 1 / value}
        for server, each in values.items()
        for number, value in enumerate(each, 1)
    ]


def test_a_ratio_is_the_median_of_the_ratios_of_single_rounds():
    """The machine is ten times as slow in the second round; a peer takes part in two rounds of three."""
    medians = Medians(results("small", serve=(200, 22, 240), tusd=(100, 10, 100)))
    assert medians.median("small", "serve") == 200
    assert medians.ratio(("small", "serve", "value"), ("small", "tusd", "value")) == 2.2
    assert medians.ratio(("small", "serve", "value"), ("small", "tussi", "value")) is None
    peers = results("small", tussi=(50,), tuspyserver=(40,))
    assert Medians(peers).best("small", ["tussi", "tuspyserver", "litestar-tus"]) == "tussi"


def test_targets_count_with_their_worst_row():
    found = results("1 GiB", serve=(90,), sink=(100,)) + results("8 MiB", serve=(99,), sink=(100,))
    (bulk,) = (verdict for verdict in verdicts(Medians(found)) if verdict.found is not None)
    assert (bulk.server, bulk.found, bulk.bound, bulk.is_met) == ("serve", 0.9, 0.95, False)
    cheap = results("1 GiB", serve=(1000,), tusd=(500,))
    found = {verdict.measure: verdict for verdict in verdicts(Medians(cheap)) if verdict.found is not None}
    assert found["large uploads, CPU x tusd"].is_met
    assert {server for target in TARGETS for server in target.bounds if BY_NAME.get(server)} <= {
        server.name for server in SERVERS if server.kind == OURS
    }


def test_the_page_has_losses_absences_and_failures():
    figures = results("small", serve=(100, 120, 110), tusd=(200, 210, 220), tuswsgi=(50,), sink=(1000, 1000, 1000))
    titles = {name: BY_NAME[name].title for name in ("serve", "tusd", "tuswsgi", "sink")}
    found = Found(MACHINE, titles, {"tusd": "v2.9"}, figures, absent={"rustus": "no rustus on the PATH"})
    found.failures.append({"row": "head", "key": "tuswsgi", "server": "tuswsgi", "reason": "HEAD: 500"})
    assert found.is_good()
    text = page.render(found)
    assert re.search(r"^\*\*tus serve\*\* +110 +100, 120 +0\.50 +0\.11 +2\.00", text, re.MULTILINE)
    assert re.search(r"creation and PATCH of 4 KiB, x tusd +\*\*tus serve\*\* +≥ 1\.2 +0\.50 +\*\*missed\*\*", text)
    assert re.search(r"^C sink.*\n(.*\n)?tusd .*\n(.*\n)?\*\*tus serve\*\*.*\n(.*\n)?tuswsgi ", text, re.MULTILINE)
    assert "- rustus: ``no rustus on the PATH``" in text
    assert re.search(r"^tusd +v2\.9$", text, re.MULTILINE)
    assert "- tuswsgi, head: ``HEAD: 500``" in text
    found.failures.append({"row": "head", "key": "serve", "server": "serve", "reason": "HEAD: 500"})
    assert not found.is_good()


def test_the_page_is_written_again_from_the_figures_of_a_run(tmp_path):
    titles = {name: BY_NAME[name].title for name in ("serve", "tusd")}
    found = Found(MACHINE, titles, {"tusd": "v2.9"}, results("small", serve=(100,), tusd=(200,)))
    (tmp_path / "figures.json").write_text(json.dumps(asdict(found)))
    options = ["--from-json", str(tmp_path / "figures.json"), "--page", str(tmp_path / "page.rst")]
    done = run([sys.executable, "-m", "benchmarks", *options])
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "page.rst").read_text().replace(".. image:: page.png\n", ".. image:: any.png\n")
    assert text == page.render(found, "any.png" if (tmp_path / "page.png").exists() else "")


@pytest.mark.long
def test_clients_are_compared(tmp_path):
    command = [sys.executable, "-m", "benchmarks.clients", "--quick", "--rounds", "2", "--size", "8", "--large", "16"]
    where = ["--cache", tmp_path / "cache", "--directory", tmp_path, "--servers", "serve"]
    done = run([*command, *map(str, where), "--clients", "ours", "ours-parallel", "ours-async", "curl"])
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^round \d, serve, ours.*: \d+ MB/s, \d+ MiB$", done.stderr, re.MULTILINE)) == 6
    assert re.search(r"^\*\*AsyncClient\*\* +\d+ +\d+$", done.stdout, re.MULTILINE)  # the memory with two sizes
    assert not list(tmp_path.glob("tus-benchmark-*"))


def test_a_file_that_is_not_the_same_is_found(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"x" * 3_000_000)
    for data, same in ((b"x" * 3_000_000, True), (b"x" * 2_999_999, False), (b"x" * 2_999_999 + b"y", False)):
        other.write_bytes(data)
        assert clients.has_same_bytes(one, other) == clients.has_same_bytes(other, one) == same


def test_the_page_of_clients_is_the_output_of_the_command():
    figures = [row | {"row": "serve"} for row in results("serve", ours=(90, 100), curl=(100, 200))]
    titles = {"serve": "**tus serve**", "ours": "**Client**", "curl": "curl -T"}
    found = Found(MACHINE | {"load": 1.5, "size": 1024, "large": 0}, titles, results=figures)
    text = clients.render(found)
    assert re.search(r"^\*\*Client\*\* +95 +90, 100 +0\.70 ", text, re.MULTILINE)
    page = (ROOT / "docs" / "benchmarks_clients.rst").read_text()
    assert page.split("\n\n")[2] == text.split("\n\n")[2]


def test_the_page_says_how_busy_the_client_was():
    figures = results("small", serve=(100,), sink=(1000,))
    figures[0]["client"], figures[1]["client"] = 0.25, 0.5
    titles = {name: BY_NAME[name].title for name in ("serve", "sink")}
    text = " ".join(page.render(Found(MACHINE, titles, results=figures)).split())
    assert "busy for at most 25 % of the time of a row, and for 50 % of it with a limit" in text


def test_the_page_of_this_project_is_the_output_of_the_command():
    """Its fixed parts are; the figures belong to the run that it names."""
    text = (ROOT / "docs" / "benchmarks.rst").read_text()
    assert text.startswith(page.heading("Benchmarks"))
    assert page.HOW_TO_READ in text
    assert (ROOT / "docs" / "benchmarks.png").stat().st_size < 150_000
    assert ".. image:: benchmarks.png" in text
