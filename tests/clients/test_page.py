"""The page of ``tus serve`` in Chromium, with real files, real connections, and what goes wrong with them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import io
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest

from tests.support.clients import sample, settled_offset
from tests.support.cutting_proxy import CuttingProxy
from tests.support.serving import command, free_port, wait_for_port
from tus import Filter
from tus.apps.files import Files
from tus.apps.front import Front
from tus.apps.page import Page
from tus.http.filenames import safe_filename

pytestmark = pytest.mark.browser

MIB = 2**20
LARGE = 24 * MIB + 17
NAMES = ["Grüße aus Köln.bin", 'it\'s "quoted" & <b>bold.bin', "smile 😀 𝄞 файл.bin"]
#: What a page does not tell by itself: errors of its script, and what its policy refused.
LISTEN = """
window.troubles = [];
addEventListener("error", (event) => troubles.push(`error: ${event.message}`));
addEventListener("unhandledrejection", (event) => troubles.push(`rejection: ${event.reason}`));
document.addEventListener("securitypolicyviolation", (event) => troubles.push(`policy: ${event.violatedDirective}`));
"""


def eventually(condition: Callable[[], object], what: str, seconds: float = 20):
    """Wait until something is so, and return it."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"never: {what() if callable(what) else what}"
        time.sleep(0.02)
    return value


class Row:
    """One upload in the page's list, found again each time that it is looked at."""

    def __init__(self, browser, name):
        self._browser, self.name = browser, name

    @property
    def element(self):
        for row in self._browser.find("li"):
            if row.find_element("class name", "name").text == self.name:
                return row
        raise LookupError(self.name)

    @property
    def state(self):
        return self.element.get_attribute("data-state")

    @property
    def text(self):
        return self.element.find_element("class name", "state").text

    @property
    def progress(self):
        return self.element.find_element("tag name", "progress")

    @property
    def sent(self):
        return float(self.progress.get_attribute("value"))

    def click(self, word):
        [button] = [one for one in self.element.find_elements("tag name", "button") if one.text == word]
        button.click()

    def becomes(self, state, seconds=20):
        eventually(lambda: self.state == state, lambda: f"{state}; it is {self.state}: {self.text}", seconds)


class Browser:
    """Chromium, and what the tests do with it."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, origin):
        self.driver.get(origin + "/")

    def find(self, selector):
        return self.driver.find_elements("css selector", selector)

    def choose(self, *files):
        self.find("input")[0].send_keys("\n".join(map(str, files)))
        return [Row(self, file.name) for file in files]

    def drop(self, *files):
        place = {"x": 300, "y": 300, "data": {"items": [], "files": [*map(str, files)], "dragOperationsMask": 1}}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.driver.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, **place})
        return [Row(self, file.name) for file in files]

    def network(self, *, offline=False, upload=-1):
        """Bytes per second that it may send; -1 for any number."""
        self.driver.set_network_conditions(offline=offline, latency=0, download_throughput=-1, upload_throughput=upload)

    def remembered(self):
        return self.driver.execute_script("return Object.keys(localStorage)")

    def troubles(self):
        """Everything that went wrong in the page; of its connections only what is no part of a test."""
        logged = [entry for entry in self.driver.get_log("browser") if entry["source"] != "network"]
        return logged + self.driver.execute_script("return window.troubles")


@pytest.fixture(scope="module")
def _chromium():
    programs = [shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")]
    if None in programs:
        pytest.fail("the tests marked 'browser' need chromium and chromedriver (on Debian: chromium-driver)", False)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in ("--headless=new", "--no-sandbox", "--no-proxy-server", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))
    try:
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": LISTEN})
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def browser(_chromium):
    browser = Browser(_chromium)
    browser.troubles_before = _chromium.get_log("browser")  # reading it empties it
    try:
        yield browser
        assert browser.troubles() == []
    finally:
        _chromium.delete_network_conditions()
        _chromium.get("about:blank")


@contextlib.contextmanager
def tus_serve(directory: Path, port: int):
    arguments = ["tus", "serve", "--port", str(port), "--workers", "2"]
    with command(arguments, directory) as process:
        wait_for_port(port, process, directory / "stderr")
        yield process


@pytest.fixture
def proxy(tmp_path):
    """In front of a ``tus serve`` that runs in ``tmp_path``."""
    port = free_port()
    with tus_serve(tmp_path, port), CuttingProxy(port) as proxy:
        proxy.server = f"http://127.0.0.1:{port}"
        yield proxy


@pytest.fixture
def files(tmp_path):
    """Makes files to upload, outside of the server's directory."""
    directory = tmp_path / "mine"
    directory.mkdir()
    return lambda name, size=LARGE: sample(directory / name, size, seed=size + len(name))


def site_of(tmp_path):
    """The page and its uploads, as a pipeline of WSGI."""
    uploads = tmp_path / "uploads"
    return Front(Filter(Files(str(uploads)), upload_path="/files", tmp_file_dir=str(uploads / ".tus")), Page("/files"))


@contextlib.contextmanager
def here(app):
    """An application in this process; gives its origin."""

    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True

    class Quiet(WSGIRequestHandler):
        def log_message(self, *arguments):
            pass

    server = make_server("127.0.0.1", 0, app, server_class=Server, handler_class=Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def assert_landed(directory: Path, *files: Path):
    """The server has these files, byte for byte, and nothing else."""
    landed = {path.name: digest(path) for path in (directory / "uploads").iterdir() if path.is_file()}
    assert landed == {safe_filename(path.name, ""): digest(path) for path in files}


def digest(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stalled(proxy, after, count=1):
    """Wait until so many requests are held by the proxy, after that many bytes each."""
    held = lambda: [seen for seen in proxy.of("PATCH") if seen.body == after]  # noqa: E731
    eventually(lambda: len(held()) == count, "a request that is held")
    return held()


def stored_part(proxy):
    """The URL, at the server itself, and the settled offset of the one upload."""
    url = proxy.server + proxy.of("PATCH")[0].target
    return url, settled_offset(url)


def appends(proxy):
    """Every PATCH of the page. Chromium repeats one by itself where a connection ends that it had used before; the
    server refuses that, because its offset is the old one."""
    return [seen for seen in proxy.of("PATCH") if seen.status != 409]


# -- As it should go --


def test_several_files(browser, proxy, files, tmp_path):
    chosen = [files("large.bin"), files("small.txt", 5), files("empty", 0), files("middle.bin", MIB)]
    browser.open(proxy.origin)
    for row in browser.choose(*chosen):
        row.becomes("done")
    assert_landed(tmp_path, *chosen)
    assert browser.remembered() == []
    assert browser.driver.get_log("browser") == []  # without faults the network is silent too
    assert {seen.status for seen in proxy.requests} <= {200, 201, 204}


def test_names_of_all_kinds(browser, proxy, files, tmp_path):
    chosen = [files(name, 1000 + number) for number, name in enumerate(NAMES)]
    browser.open(proxy.origin)
    for row in browser.choose(*chosen):
        row.becomes("done")
    told = [base64.b64decode(seen.headers["upload-metadata"].split()[1].split(",")[0]) for seen in proxy.of("POST")]
    assert sorted(told) == sorted(name.encode() for name in NAMES)
    assert_landed(tmp_path, *chosen)


def test_the_type_is_told(browser, proxy, files):
    browser.open(proxy.origin)
    browser.choose(files("a.txt", 5))[0].becomes("done")
    assert proxy.of("POST")[0].headers["upload-metadata"] == "filename YS50eHQ=,filetype dGV4dC9wbGFpbg=="


def test_files_are_dropped(browser, proxy, files, tmp_path):
    folder = tmp_path / "mine" / "folder"
    folder.mkdir()
    chosen = [files("one.bin", MIB), files("two.bin", LARGE)]
    browser.open(proxy.origin)
    browser.driver.execute_script("addEventListener('drop', (event) => { isPrevented = event.defaultPrevented; });")
    for row in browser.drop(chosen[0], folder, chosen[1])[::2]:
        row.becomes("done")
    assert browser.driver.execute_script("return isPrevented")  # else a browser would go to the file
    assert_landed(tmp_path, *chosen)
    assert len(browser.find("li")) == 2
    assert "folder" in browser.find("#notice")[0].text


def test_a_file_larger_than_a_slice(browser, proxy, files, tmp_path):
    chosen = files("huge.bin", 70 * MIB)
    browser.open(proxy.origin)
    browser.choose(chosen)[0].becomes("done", 40)
    assert [seen.body for seen in proxy.of("PATCH")] == [64 * MIB, 6 * MIB]
    assert proxy.of("HEAD") == []
    assert_landed(tmp_path, chosen)


def test_three_at_a_time(browser, proxy, files, tmp_path):
    chosen = [files(f"{number}.bin", 2 * MIB) for number in range(5)]
    for _ in range(3):
        proxy.stall("PATCH", MIB)
    browser.open(proxy.origin)
    rows = browser.choose(*chosen)
    stalled(proxy, MIB, count=3)
    assert [row.state for row in rows] == ["sending"] * 3 + ["waiting"] * 2
    assert len(proxy.of("POST")) == 3
    rows[0].click("Pause")
    rows[3].becomes("done")  # has taken its place
    rows[4].becomes("done")
    proxy.hang_up()
    rows[0].click("Resume")
    for row in rows:
        row.becomes("done")
    assert_landed(tmp_path, *chosen)


# -- What goes wrong with connections --


@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_heals_by_itself(browser, proxy, files, tmp_path, reset):
    chosen = files("large.bin")
    proxy.cut("PATCH", 9_000_000, reset=reset)
    browser.open(proxy.origin)
    browser.choose(chosen)[0].becomes("done")
    assert_landed(tmp_path, chosen)
    assert len(proxy.of("POST")) == 1
    first, second = appends(proxy)
    assert first.body == 9_000_000
    assert int(second.headers["upload-offset"]) + second.body == LARGE
    if not reset:
        assert LARGE - 9_000_000 <= second.body < LARGE


def test_a_second_cut_too(browser, proxy, files, tmp_path):
    chosen = files("large.bin")
    proxy.cut("PATCH", 9_000_000)
    proxy.cut("PATCH", 5_000_000, when=lambda seen: seen.headers["upload-offset"] != "0")
    browser.open(proxy.origin)
    browser.choose(chosen)[0].becomes("done")
    first, second, third = (int(seen.headers["upload-offset"]) for seen in appends(proxy))
    assert first == 0 < second <= 9_000_000  # a busy server may not have read all that the proxy has passed on
    assert second <= third <= second + 5_000_000
    assert_landed(tmp_path, chosen)


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_lost_reply(browser, proxy, files, tmp_path, method):
    chosen = files("large.bin")
    proxy.lose_reply(method)
    browser.open(proxy.origin)
    browser.choose(chosen)[0].becomes("done")
    assert_landed(tmp_path, chosen)
    sent = [(seen.headers["upload-offset"], seen.status) for seen in appends(proxy)]
    if method == "PATCH":  # Chromium may repeat it by itself; then or before that the page asks for the offset
        assert sent in ([("0", 0), (str(LARGE), 204)], [("0", 0), ("0", 409), (str(LARGE), 204)])
        assert all(seen.body < LARGE for seen in appends(proxy)[1:])
    else:
        assert sent == [("0", 204)]


def test_a_restart_of_the_server(browser, files, tmp_path):
    chosen, port = files("large.bin"), free_port()
    with tus_serve(tmp_path, port) as process:
        browser.open(f"http://127.0.0.1:{port}")
        browser.network(upload=8_000_000)
        [row] = browser.choose(chosen)
        eventually(lambda: row.sent > 6_000_000, "some progress")
        os.killpg(process.pid, signal.SIGKILL)
        row.becomes("retrying")
        assert row.sent > 5_000_000
    browser.network()
    with tus_serve(tmp_path, port):
        row.becomes("sending", 10)
        assert row.sent > 0
        row.becomes("done")
    assert_landed(tmp_path, chosen)


def test_online_again_it_does_not_wait(browser, proxy, files, tmp_path):
    chosen = files("large.bin")
    proxy.stall("PATCH", 5_000_000)
    browser.open(proxy.origin)
    [row] = browser.choose(chosen)
    stalled(proxy, 5_000_000)
    browser.network(offline=True)
    proxy.hang_up()
    eventually(lambda: "Trying again in 8 s" in row.text, lambda: f"a longer wait: {row.text}")
    before = time.monotonic()
    browser.network()
    row.becomes("done")
    assert time.monotonic() - before < 6
    assert_landed(tmp_path, chosen)


@contextlib.contextmanager
def shorter(browser, ratio):
    """Timers of a minute and more come that much earlier, in pages that are opened meanwhile."""
    source = f"""
        const real = setTimeout;
        window.setTimeout = (act, ms) => real(act, ms >= 60000 ? ms / {ratio} : ms);
    """
    added = browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": source})
    try:
        yield
    finally:
        browser.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_a_connection_that_takes_all_and_says_nothing(browser, proxy, files, tmp_path):
    chosen = files("large.bin")
    proxy.stall("PATCH", 9_000_000)
    with shorter(browser, 200):
        browser.open(proxy.origin)
        browser.choose(chosen)[0].becomes("done")
    assert [seen.body for seen in appends(proxy)] == [9_000_000, LARGE - 9_000_000]
    assert_landed(tmp_path, chosen)


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_connection_that_takes_nothing_more(browser, files, tmp_path, method):
    asked, is_over = [], threading.Event()

    def hold(environ):
        if environ["REQUEST_METHOD"] == method:
            asked.append(method)
            if len(asked) == 1:
                is_over.wait()
                return "503 Service Unavailable", []
        return None

    chosen = files("large.bin")
    app = site_of(tmp_path)
    with here(in_front(app, hold)) as origin, shorter(browser, 60):
        browser.open(origin)
        [row] = browser.choose(chosen)
        try:
            row.becomes("done")
            assert len(asked) == 2
        finally:
            is_over.set()
    assert_landed(tmp_path, chosen)


def test_a_slow_connection_is_no_dead_one(browser, proxy, files, tmp_path):
    chosen = files("large.bin")
    with shorter(browser, 60):
        browser.open(proxy.origin)
        browser.network(upload=8_000_000)
        before = time.monotonic()
        browser.choose(chosen)[0].becomes("done")
    assert time.monotonic() - before > 2  # twice what would be silence
    assert [seen.meant for seen in proxy.requests[1:]] == ["POST", "PATCH"]
    assert_landed(tmp_path, chosen)


def test_the_offset_in_the_reply_counts(browser, files, tmp_path):
    """A proxy that buffers has got less than was sent, and hands that on with the connection to the client unhurt."""
    pipeline, offsets = site_of(tmp_path), []

    def app(environ, start_response):
        if environ["REQUEST_METHOD"] == "PATCH":
            offsets.append(int(environ["HTTP_UPLOAD_OFFSET"]))
            if len(offsets) == 1:
                body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
                environ["wsgi.input"] = io.BytesIO(body[:5_000_000])
        return pipeline(environ, start_response)

    chosen = files("large.bin")
    with here(app) as origin:
        browser.open(origin)
        browser.choose(chosen)[0].becomes("done")
    assert offsets == [0, 5_000_000]
    assert_landed(tmp_path, chosen)


def test_a_proxy_that_takes_something_off_the_path(browser, files, tmp_path):
    pipeline = site_of(tmp_path)

    def app(environ, start_response):
        assert environ["PATH_INFO"].startswith("/under/it/")
        environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix("/under/it")
        return pipeline(environ, start_response)

    chosen = files("large.bin")
    with here(app) as origin:
        browser.open(origin + "/under/it")
        browser.choose(chosen)[0].becomes("done")
    assert_landed(tmp_path, chosen)


# -- What a person does --


def test_pause_and_resume(browser, proxy, files, tmp_path):
    chosen = files("large.bin")
    browser.open(proxy.origin)
    browser.network(upload=8_000_000)
    [row] = browser.choose(chosen)
    eventually(lambda: row.sent > 6_000_000, "some progress")
    row.click("Pause")
    row.becomes("paused")
    url, offset = stored_part(proxy)
    assert 0 < offset < LARGE
    count = len(proxy.requests)
    assert settled_offset(url, quiet=1.5) == offset  # longer than the first wait between two attempts
    assert len(proxy.requests) == count
    browser.network()
    row.click("Resume")
    row.becomes("done")
    assert [seen.meant for seen in proxy.requests[count:]] == ["HEAD", "PATCH"]
    assert proxy.of("PATCH")[1].headers["upload-offset"] == str(offset)
    assert proxy.of("PATCH")[1].body == LARGE - offset
    assert_landed(tmp_path, chosen)


def test_a_reload_and_the_same_file_again(browser, proxy, files, tmp_path):
    chosen = files("large.bin")
    proxy.stall("PATCH", 7_000_000)
    browser.open(proxy.origin)
    browser.choose(chosen)
    stalled(proxy, 7_000_000)
    browser.driver.refresh()
    assert stored_part(proxy)[1] == 7_000_000
    assert "large.bin" in browser.find("#unfinished")[0].text
    browser.choose(chosen)[0].becomes("done")
    assert len(proxy.of("POST")) == 1
    assert [seen.body for seen in proxy.of("PATCH")] == [7_000_000, LARGE - 7_000_000]
    assert not browser.find("#unfinished")[0].is_displayed()
    assert browser.remembered() == []
    assert_landed(tmp_path, chosen)


def test_the_same_file_twice(browser, proxy, files, tmp_path):
    chosen = files("large.bin")
    proxy.stall("PATCH", 7_000_000)
    browser.open(proxy.origin)
    [row] = browser.choose(chosen)
    stalled(proxy, 7_000_000)
    browser.choose(chosen)
    assert browser.find("#notice")[0].text == "“large.bin” is already in the list."
    row.click("Pause")
    browser.choose(chosen)
    row.becomes("done")
    assert len(browser.find("li")) == 1
    assert len(proxy.of("POST")) == 1
    assert_landed(tmp_path, chosen)


def test_another_file_does_not_go_on_with_what_was_begun(browser, proxy, files, tmp_path):
    chosen, other = files("large.bin"), files("other.bin")
    proxy.stall("PATCH", 7_000_000)
    browser.open(proxy.origin)
    browser.choose(chosen)
    stalled(proxy, 7_000_000)
    browser.driver.refresh()
    os.utime(chosen, (1, 1))  # the same name and size, and another time: another file
    for row in browser.choose(chosen, other):
        row.becomes("done")
    assert len(proxy.of("POST")) == 3
    assert_landed(tmp_path, chosen, other)


def test_what_is_gone_begins_anew(browser, proxy, files, tmp_path):
    chosen = files("large.bin")
    proxy.stall("PATCH", 7_000_000)
    browser.open(proxy.origin)
    browser.choose(chosen)
    stalled(proxy, 7_000_000)
    browser.driver.refresh()
    path = proxy.of("PATCH")[0].target
    connection = http.client.HTTPConnection(proxy.server.removeprefix("http://"), timeout=10)
    with contextlib.closing(connection):
        connection.request("DELETE", path, headers={"Tus-Resumable": "1.0.0"})
        assert connection.getresponse().status == 204
    browser.choose(chosen)[0].becomes("done")
    assert len(proxy.of("POST")) == 2
    assert browser.remembered() == []
    assert_landed(tmp_path, chosen)


def test_what_is_old_is_forgotten(browser, proxy):
    browser.open(proxy.origin)
    browser.driver.execute_script("""
        const day = 86400e3, url = `${location.origin}/files/x`;
        localStorage.setItem("tus /files old", JSON.stringify({ url, name: "old", used: Date.now() - 8 * day }));
        localStorage.setItem("tus /files new", JSON.stringify({ url, name: "new", used: Date.now() - 6 * day }));
        localStorage.setItem("tus /files bad", "no JSON");
        localStorage.setItem("another application's", "stays");
    """)
    browser.driver.refresh()
    assert sorted(browser.remembered()) == ["another application's", "tus /files new"]


def test_cancel(browser, proxy, files, tmp_path):
    proxy.stall("PATCH", 7_000_000)
    browser.open(proxy.origin)
    [row] = browser.choose(files("large.bin"))
    stalled(proxy, 7_000_000)
    row.click("Cancel")
    eventually(lambda: [seen.status for seen in proxy.of("DELETE")] == [204], "DELETE")
    assert browser.find("li") == []
    assert browser.remembered() == []
    assert_landed(tmp_path)


def test_a_file_that_was_changed(browser, proxy, files):
    chosen = files("large.bin")
    proxy.stall("PATCH", 7_000_000)
    browser.open(proxy.origin)
    [row] = browser.choose(chosen)
    stalled(proxy, 7_000_000)
    with chosen.open("ab") as file:
        file.write(b"more")
    proxy.hang_up()
    row.becomes("failed")
    assert "was changed" in row.text


def test_by_keyboard_and_by_name(browser, proxy, files, tmp_path):
    from selenium.webdriver import ActionChains, Keys

    chosen = files("large.bin")
    proxy.stall("PATCH", 7_000_000)
    browser.open(proxy.origin)
    [row] = browser.choose(chosen)
    stalled(proxy, 7_000_000)
    active = lambda: browser.driver.switch_to.active_element  # noqa: E731
    press = lambda *keys: ActionChains(browser.driver).send_keys(*keys).perform()  # noqa: E731
    browser.driver.execute_script("document.activeElement.blur()")
    names = []
    for _ in range(3):
        press(Keys.TAB)
        names.append(active().accessible_name)
    assert names == ["Drop files here, or Choose files", "Pause large.bin", "Cancel large.bin"]
    assert row.progress.accessible_name == "Progress of large.bin"
    ActionChains(browser.driver).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()
    press(Keys.ENTER)
    row.becomes("paused")
    assert active().accessible_name == "Resume large.bin"
    assert browser.find("#news")[0].get_attribute("textContent") == "large.bin: Paused"
    press(Keys.SPACE)
    row.becomes("done")
    assert active().accessible_name == "Remove large.bin"  # the focus is not lost with the button that had it
    assert browser.find("#news")[0].get_attribute("textContent") == "large.bin: Done, 25.2 MB"
    press(Keys.ENTER)
    assert browser.find("li") == []
    assert active().get_attribute("type") == "file"
    assert_landed(tmp_path, chosen)


# -- What servers say --


def test_a_refusal_is_told_in_the_servers_words(browser, files, tmp_path):
    app = Front(
        Filter(lambda *_: [], upload_path="/files", tmp_file_dir=str(tmp_path / "store"), max_size=MIB), Page("/files")
    )
    with here(app) as origin:
        browser.open(origin)
        large, small = browser.choose(files("large.bin"), files("other.bin"))
        for row in (large, small):
            row.becomes("failed")
            assert "1048576" in row.text


def test_an_application_that_refuses_and_then_accepts(browser, files, tmp_path):
    asked, taken = [], []

    def app(environ, start_response):
        asked.append(environ["tus.upload"].id)
        is_refused = len(asked) == 1
        if not is_refused:
            taken.append(hashlib.file_digest(environ["wsgi.input"], "sha256").hexdigest())
        start_response("401 Unauthorized" if is_refused else "200 OK", [("Content-Type", "text/plain; charset=utf-8")])
        return ["Dieses Verzeichnis ist für heute geschlossen.".encode()]

    chosen = files("large.bin")
    uploads = Filter(app, upload_path="/files", tmp_file_dir=str(tmp_path / "store"), send_file=True)
    with here(Front(uploads, Page("/files"))) as origin:
        browser.open(origin)
        [row] = browser.choose(chosen)
        row.becomes("failed")
        assert "Dieses Verzeichnis ist für heute geschlossen." in row.text
        row.click("Try again")
        row.becomes("done")
    assert taken == [digest(chosen)]
    assert len(set(asked)) == 1


def test_an_application_that_rejects(browser, files, tmp_path):
    asked = []

    def app(environ, start_response):
        asked.append(environ["tus.upload"].id)
        fields = [("Content-Type", "text/plain; charset=utf-8"), ("Tus-Outcome", "rejected")]
        start_response("415 Unsupported Media Type", fields)
        return [b"Das ist kein Bild."]

    uploads = Filter(app, upload_path="/files", tmp_file_dir=str(tmp_path / "store"), send_file=True)
    with here(Front(uploads, Page("/files"))) as origin:
        browser.open(origin)
        [row] = browser.choose(files("large.bin"))
        row.becomes("failed")
        row.click("Try again")
        row.becomes("failed")
        assert "Das ist kein Bild." in row.text
    assert len(asked) == 1


def in_front(app, answer):
    """An application with something in front that may answer in its place, after it has read the body."""

    def front(environ, start_response):
        instead = answer(environ)
        if instead is None:
            return app(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response(*instead)
        return [b"<p>a page of the proxy</p>"]

    return front


def test_a_proxy_with_a_limit_gets_smaller_slices(browser, files, tmp_path):
    sizes, limit = [], 5 * MIB

    def refuse(environ):
        if environ["REQUEST_METHOD"] == "PATCH":
            sizes.append(int(environ["CONTENT_LENGTH"]))
            if sizes[-1] > limit:
                return "413 Content Too Large", [("Content-Type", "text/html")]
        return None

    chosen = files("large.bin")
    app = site_of(tmp_path)
    with here(in_front(app, refuse)) as origin:
        browser.open(origin)
        browser.choose(chosen)[0].becomes("done")
    assert sizes == [LARGE, 16 * MIB] + [4 * MIB] * 6 + [17]
    assert_landed(tmp_path, chosen)


@pytest.mark.parametrize("status", ["423 Locked", "503 Service Unavailable", "429 Too Many Requests"])
def test_a_busy_server_says_how_long_to_wait(browser, files, tmp_path, status):
    times = []

    def refuse(environ):
        if environ["REQUEST_METHOD"] == "PATCH":
            times.append(time.monotonic())
            if len(times) == 1:
                return status, [("Content-Type", "text/html"), ("Retry-After", "3")]
        return None

    chosen = files("small.bin", MIB)
    app = site_of(tmp_path)
    with here(in_front(app, refuse)) as origin:
        browser.open(origin)
        [row] = browser.choose(chosen)
        row.becomes("retrying")
        assert row.text.endswith(f"The server responded with {status}. Trying again in 3 s")
        row.becomes("done")
    assert times[1] - times[0] >= 3
    assert_landed(tmp_path, chosen)
