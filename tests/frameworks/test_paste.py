"""``egg:tus#main`` in every form in which paste.deploy can load it, and ``Filter`` from Python."""

import base64
import contextlib
import os
import shutil
import stat
import tempfile
from dataclasses import fields
from pathlib import Path
from urllib.parse import urlsplit
from wsgiref.util import setup_testing_defaults

import pytest
from paste.deploy import loadapp

from tests.support.wsgi import OCTETS, TUS, call
from tus import Filter, Options
from tus.errors import OptionError
from tus.models import HookType, Intent

CONTENT = bytes(range(256)) * 300  # more than one block
NAME = "a file.bin"
METADATA = {"Upload-Metadata": f"filename {base64.b64encode(NAME.encode()).decode()}"}

#: Applications that ini files have made, the last one last.
made = []


class Recorder:
    """An application that keeps what it is called with."""

    def __init__(self, **options):
        self.options = options
        self.environs = []
        self.started_by = []
        self.landed = []
        made.append(self)

    def __call__(self, environ, start_response):
        self.environs.append(environ)
        self.started_by.append(start_response)
        upload = environ.get("tus.upload")
        if upload is not None:
            self.landed.append((upload.filename, environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))))
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
        return [b"home"]


def app_factory(global_conf, **options):
    return Recorder(**options)


@pytest.fixture(autouse=True)
def _forget_apps():
    made.clear()
    yield
    made.clear()


@pytest.fixture
def load(tmp_path):
    def load(text, **variables):
        ini = tmp_path / "app.ini"
        ini.write_text(text)
        return loadapp(f"config:{ini}", global_conf=variables)

    return load


def upload_through(app, url, headers=(), location=None):
    """Create an upload and send it in two pieces to where Location points; returns Location."""
    headers = TUS | dict(headers)
    created = call(app, "POST", url, headers | METADATA | {"Upload-Length": str(len(CONTENT))})
    assert created.status == 201
    target = created["Location"]
    creation_url, _, upload_id = target.rpartition("/")
    assert creation_url == (location or url)
    assert len(upload_id) == 32
    # A proxy in front sends the public URL's path on to this application, with its own name as Host.
    inner = urlsplit(url)._replace(path=urlsplit(target).path).geturl()
    half = len(CONTENT) // 2
    for offset, piece in ((0, CONTENT[:half]), (half, CONTENT[half:])):
        reply = call(app, "PATCH", inner, headers | OCTETS | {"Upload-Offset": str(offset)}, piece)
        assert (reply.status, reply["Upload-Offset"]) == (204, str(offset + len(piece)))
    assert call(app, "HEAD", inner, headers)["Upload-Offset"] == str(len(CONTENT))
    return target


def assert_landed(recorder):
    assert recorder.landed == [(NAME, CONTENT)]


LOOKS_LIKE_ONE = {"HTTP_TUS_RESUMABLE": "1.0.0", "HTTP_UPLOAD_LENGTH": "5", "HTTP_X_HTTP_METHOD_OVERRIDE": "PATCH"}


def pass_through(app, path, method="POST", marks=LOOKS_LIKE_ONE, **more):
    """Send a request that looks like one for uploads, and see that the wrapped application gets it untouched."""
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "CONTENT_LENGTH": "5",
        **marks,
        **more,
    }
    setup_testing_defaults(environ)
    before = dict(environ)
    stream = environ["wsgi.input"]

    def start_response(status, headers, exc_info=None):
        assert status == "200 OK"

    blocks = app(environ, start_response)
    assert blocks == [b"home"]
    recorder = next(recorder for recorder in made if recorder.environs)
    assert recorder.environs.pop() is environ
    assert recorder.started_by.pop() is start_response
    assert environ == before
    assert environ["wsgi.input"] is stream


ELSEWHERE = ("/", "", "/file", "/files-public", "/filesystem/x", "/FILES", "/other/files", "//files", "/%66iles")

# -- Every form of section ----------------------------------------------------------------------------------------

APP = """
[app:{name}]
paste.app_factory = tests.frameworks.test_paste:app_factory
greeting = hello
"""

FILTER = """
[filter:tus]
use = egg:tus#main
upload_path = /files
tmp_file_dir = %(here)s/store
send_file = true
"""

FORMS = {
    "filter-with": FILTER + APP.format(name="main") + "filter-with = tus\n",
    "pipeline": "[pipeline:main]\npipeline = tus app\n" + FILTER + APP.format(name="app"),
    "filter-app": "[filter-app:main]\nnext = app\n" + FILTER.replace("[filter:tus]\n", "") + APP.format(name="app"),
    "short name of the egg": "[pipeline:main]\npipeline = tus app\n"
    + FILTER.replace("egg:tus#main", "egg:tus")
    + APP.format(name="app"),
    "factory named": "[pipeline:main]\npipeline = tus app\n"
    + FILTER.replace("use = egg:tus#main", "paste.filter_app_factory = tus.filter:filter_app_factory")
    + APP.format(name="app"),
    "composite at the root": "[composite:main]\nuse = egg:Paste#urlmap\n/ = filtered\n"
    + FILTER
    + APP.format(name="filtered")
    + "filter-with = tus\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_receives_uploads(form, load, tmp_path):
    app = load(FORMS[form])
    upload_through(app, "http://localhost/files")
    (recorder,) = made
    assert recorder.options == {"greeting": "hello"}
    assert_landed(recorder)
    assert [path.suffix for path in (tmp_path / "store").iterdir() if path.name[0] != "."] == [".tus"], (
        "the data is gone, the record stays"
    )


@pytest.mark.parametrize("path", ELSEWHERE)
@pytest.mark.parametrize("form", [form for form in FORMS if not form.startswith("composite")])
def test_requests_elsewhere_pass_untouched(form, path, load):
    app = load(FORMS[form])
    for method in ("GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"):
        pass_through(app, path, method)


def test_what_is_not_for_uploads_passes_untouched_at_the_same_url(load):
    app = load(FORMS["pipeline"])
    pass_through(app, "/files", "GET")
    pass_through(app, "/files", "POST", marks={}, CONTENT_TYPE="multipart/form-data; boundary=x")
    pass_through(app, "/files", "POST", marks={}, CONTENT_TYPE="application/x-www-form-urlencoded")


def test_outermost_is_what_is_named_first(load):
    """A pipeline of two filters: each has its own path, and what is not for one reaches the other."""
    app = load(
        "[pipeline:main]\npipeline = tus second app\n"
        + FILTER
        + FILTER.replace("[filter:tus]", "[filter:second]").replace("/files", "/more").replace("store", "second")
        + APP.format(name="app")
    )
    first = upload_through(app, "http://localhost/files")
    second = upload_through(app, "http://localhost/more")
    assert made[0].landed == [(NAME, CONTENT)] * 2
    for url in (first.replace("/files/", "/more/"), second.replace("/more/", "/files/")):
        assert call(app, "HEAD", url, TUS).status == 404


# -- Mounted under a path -----------------------------------------------------------------------------------------

MOUNTED = (
    "[composite:main]\nuse = egg:Paste#urlmap\n/app = filtered\n/ = root\n"
    + FILTER
    + APP.format(name="filtered")
    + "filter-with = tus\n"
    + APP.format(name="root")
)


def test_below_a_mount_the_upload_path_is_the_full_one(load):
    app = load(MOUNTED.replace("/files", "/app/files"))
    upload_through(app, "http://localhost/app/files")
    mounted = next(recorder for recorder in made if recorder.landed)
    assert_landed(mounted)
    environ = mounted.environs[-1]
    assert environ["SCRIPT_NAME"] == "/app"
    assert environ["PATH_INFO"].startswith("/files/")
    assert call(app, "POST", "/files", TUS | {"Upload-Length": "5"}).body == b"home"
    assert call(app, "POST", "/app/files-public", TUS | {"Upload-Length": "5"}).body == b"home"
    assert call(app, "POST", "/app/app/files", TUS | {"Upload-Length": "5"}).body == b"home"


def test_below_a_mount_the_path_inside_it_is_not_captured(load):
    app = load(MOUNTED)
    for url in ("/app/files", "/app/files/" + "0" * 32, "/files"):
        assert call(app, "POST", url, TUS | {"Upload-Length": "5"}).body == b"home"


def test_the_upload_path_may_be_the_mount_itself(load):
    app = load(MOUNTED.replace("/files", "/app"))
    upload_through(app, "http://localhost/app")
    assert_landed(next(recorder for recorder in made if recorder.landed))


PREFIXED = (
    "[pipeline:main]\npipeline = prefix tus app\n"
    "[filter:prefix]\nuse = egg:PasteDeploy#prefix\nprefix = /site\n{more}\n"
    + FILTER.replace("/files", "/site/files")
    + APP.format(name="app")
)


def test_behind_a_prefix(load):
    app = load(PREFIXED.format(more=""))
    upload_through(app, "http://localhost/site/files")
    assert_landed(made[0])
    assert made[0].environs[-1]["SCRIPT_NAME"] == "/site"
    for path in ("/site/files-public", "/site/other", "/files-public"):
        assert call(app, "POST", path, TUS | {"Upload-Length": "5"}).body == b"home"


def test_behind_a_prefix_that_the_proxy_has_cut_off(load):
    """The prefix is put into SCRIPT_NAME on every request, also where the proxy has removed it from the path."""
    app = load(PREFIXED.format(more=""))
    created = call(app, "POST", "http://localhost/files", TUS | {"Upload-Length": "5"})
    assert created["Location"].startswith("http://localhost/site/files/")
    url = created["Location"].replace("/site", "")
    assert call(app, "PATCH", url, TUS | OCTETS | {"Upload-Offset": "0"}, b"12345").status == 204
    assert made[0].landed[0][1] == b"12345"


FORWARDED = {"X-Forwarded-Host": "public.example:8443, proxy.example", "X-Forwarded-Proto": "https"}


def test_behind_a_prefix_location_is_what_the_proxy_was_asked_for(load):
    app = load(PREFIXED.format(more=""))
    upload_through(app, "http://inner:8080/site/files", FORWARDED, "https://public.example:8443/site/files")
    assert_landed(made[0])


def test_behind_a_prefix_that_does_not_believe_the_proxy(load):
    app = load(PREFIXED.format(more="translate_forwarded_server = false"))
    upload_through(app, "http://inner:8080/site/files", FORWARDED)
    assert_landed(made[0])


def test_without_a_prefix_nobody_believes_a_proxy(load):
    upload_through(load(FORMS["pipeline"]), "http://inner:8080/files", FORWARDED)
    assert_landed(made[0])


# -- Options in an ini file ---------------------------------------------------------------------------------------


def a_gate(request, intent, upload):
    """Stands for a site's own."""


class SomeHooks:
    def pre_create(self, event):
        """Stands for a site's own."""


SOME_HOOKS = SomeHooks()
ASKED = frozenset({Intent.CREATE, Intent.APPEND, Intent.HEAD})

SECRET = "whsec_" + base64.b64encode(b"a secret of 24 bytes, or").decode()

#: Each option as an ini file has it, and what it means.
STRINGS = {
    "tmp_file_dir": [("%(here)s/elsewhere", "HERE/elsewhere")],
    "store": [("%(here)s/other", "HERE/other")],
    "name": [("photos", "photos")],
    "threads": [("false", False), ("yes", True)],
    "upload_path": [("/a/b c/", "/a/b c"), ("/grün", "/grün"), ("/users/{user}/x", "/users/{user}/x")],
    "send_file": [("false", False), ("true", True), ("No", False), ("on", True), ("0", False)],
    "upload_valid_duration": [("3600", 3600), ("24h", 86400), ("0", 0), ("7d", 604800)],
    "completed_keep": [("90m", 5400), ("0", 0)],
    "max_size": [("10 GiB", 10 << 30), ("0", 0), ("500", 500)],
    "max_metadata_size": [("8k", 8192)],
    "digest": [("", ()), ("sha-256", ("sha256",)), ("SHA-512, sha256", ("sha512", "sha256"))],
    "protocols": [
        ("tus", frozenset({"tus"})),
        ("ietf", frozenset({"ietf"})),
        ("tus, ietf", frozenset({"tus", "ietf"})),
    ],
    "interim": [("direct", "direct"), ("always", "always"), ("never", "never")],
    "min_size": [("1M", 1 << 20)],
    "max_append_size": [("100M", 100 << 20), ("0", 0)],
    "min_append_size": [("5k", 5120)],
    "trusted_group": [("", None), (str(os.getegid()), os.getegid())],
    "fsync": [("none", "none"), ("finish", "finish"), ("always", "always")],
    "cors_allow_origin": [
        ("*", ("*",)),
        ("", ()),
        ("https://a.example http://b.example:81", ("https://a.example", "http://b.example:81")),
        ("https://a.example,\n  http://b.example", ("https://a.example", "http://b.example")),
    ],
    "cors_allow_credentials": [("yes", True), ("off", False)],
    "cors_allow_headers": [("", ()), ("X-CSRFToken, X-Api-Key", ("X-CSRFToken", "X-Api-Key"))],
    "cors_expose_headers": [("X-File-Id", ("X-File-Id",))],
    "cors_max_age": [("1h", 3600), ("0", 0)],
    "keep_finished": [("true", True), ("no", False)],
    "download": [("on", True), ("off", False)],
    "authorize": [
        ("", None),
        ("tests.frameworks.test_paste:a_gate", "GATE"),
        ("tests.frameworks.test_paste.a_gate", "GATE"),
    ],
    "ask_app": [
        ("", frozenset()),
        ("create", frozenset({Intent.CREATE})),
        ("head, append\n  create", ASKED),
        ("all", frozenset(Intent)),
    ],
    "max_uploads": [("0", 0), ("100", 100)],
    "max_total_size": [("1 TiB", 1 << 40)],
    "max_uploads_per_principal": [("3", 3)],
    "max_total_size_per_principal": [("500G", 500 << 30)],
    "keep_free": [("10 GiB", 10 << 30), ("0", 0)],
    "stall_timeout": [("0", 0), ("2m", 120)],
    "min_rate": [("4k", 4096)],
    "trusted_proxies": [
        ("", ()),
        ("127.0.0.1, ::1\n  10.0.0.0/8 unix", ("127.0.0.1/32", "::1/128", "10.0.0.0/8", "unix")),
    ],
    "handover": [("request", "request"), ("background", "background")],
    "handover_attempts": [("0", 0), ("20", 20)],
    "reject_statuses": [("422", frozenset({422})), ("400, 404\n 410", frozenset({400, 404, 410})), ("", frozenset())],
    "rejected_keep": [("7d", 604800), ("0", 0)],
    "on_finished": [("", None), ("tests.frameworks.test_paste:a_gate", "GATE")],
    "spool": [("", ""), ("%(here)s/spool", "HERE/spool")],
    "hooks": [("", None), ("tests.frameworks.test_paste:SOME_HOOKS", "HOOKS")],
    "webhook": [("", ""), ("http://127.0.0.1:1/hooks?x=1", "http://127.0.0.1:1/hooks?x=1")],
    "webhook_allow_http": [("yes", True), ("false", False)],
    "webhook_timeout": [("15", 15), ("1m", 60)],
    "webhook_threads": [("8", 8), ("1", 1)],
    "webhook_secret": [("", ""), (f" {SECRET} ", SECRET)],
    "webhook_events": [("post-finish, pre-finish", frozenset({HookType.POST_FINISH, HookType.PRE_FINISH}))],
    "webhook_forward_headers": [("", ()), ("Cookie Authorization", ("Cookie", "Authorization"))],
    "base_url": [("", ""), ("https://example.org/x/", "https://example.org/x"), ("http://[::1]:80", "http://[::1]:80")],
}

#: What each option refuses.
BAD = {
    "tmp_file_dir": ["", "%(here)s/missing/store", "%(here)s/app.ini"],
    "store": ["nowhere://uploads"],
    "name": ["a\tb"],
    "threads": ["perhaps"],
    "upload_path": ["", "/", "files", "http://localhost/files", "/files?x=1", "/a//b"],
    "send_file": ["", "perhaps", "truely", "2"],
    "upload_valid_duration": ["", "soon", "-1", "1w", "3600 ; one hour"],
    "completed_keep": ["for ever", "1.5"],
    "max_size": ["much", "-1", "1.5G", "10 PB"],
    "max_metadata_size": ["4 kibibytes"],
    "digest": ["md5", "sha-1", "true"],
    "protocols": ["", "tus2", "http"],
    "interim": ["", "true", "proxy"],
    "min_size": ["small"],
    "max_append_size": ["-1"],
    "min_append_size": ["1.5k"],
    "trusted_group": ["no such group", "-1"],
    "fsync": ["", "sometimes", "True"],
    "cors_allow_origin": ["example.org", "* https://a.example", "https://a.example/path"],
    "cors_allow_credentials": ["maybe"],
    "cors_allow_headers": ["Coo:kie"],
    "cors_expose_headers": ["a b:"],
    "cors_max_age": ["-1"],
    "keep_finished": ["maybe"],
    "download": [""],
    "authorize": [
        "no_such_module:gate",
        "tests.frameworks.test_paste:no_such_gate",
        "tests.frameworks.test_paste:STRINGS",
        "not a name",
    ],
    "ask_app": ["post", "create; append"],
    "max_uploads": ["many", "-1", "1.5", "10k"],
    "max_total_size": ["much"],
    "max_uploads_per_principal": [""],
    "max_total_size_per_principal": ["-1"],
    "keep_free": ["10 %%"],
    "stall_timeout": ["soon"],
    "min_rate": ["fast"],
    "trusted_proxies": ["localhost", "10.0.0.1/8", "*", "127.0.0.1:80"],
    "handover": ["", "later"],
    "handover_attempts": ["-1", "often"],
    "reject_statuses": ["200", "409", "423", "500", "no"],
    "rejected_keep": ["long"],
    "on_finished": ["no_such_module:f", "tests.frameworks.test_paste:STRINGS"],
    "spool": ["%(here)s/missing/spool", "%(here)s/app.ini"],
    "hooks": ["no_such_module", "tests.frameworks.test_paste:STRINGS", "tests.frameworks.test_paste"],
    "webhook": [
        "example.org",
        "ftp://example.org/",
        "https://example.org/#x",
        "https://h:99999",
        "https://h:abc",
        "http://h/",
    ],
    "webhook_allow_http": ["perhaps"],
    "webhook_timeout": ["0", "soon"],
    "webhook_threads": ["0", "-1", "few"],
    "webhook_secret": ["secret", SECRET],
    "webhook_events": ["post-mortem"],
    "webhook_forward_headers": ["Coo:kie"],
    "base_url": ["example.org", "/prefix", "ftp://example.org", "https://", "https://example.org?x", "https://a@b"],
}

OPTIONS = [option.name for option in fields(Options)]


def ini_with(**options):
    lines = {"upload_path": "/files", "tmp_file_dir": "%(here)s/store"} | options
    section = "".join(f"{name} = {value}\n" for name, value in lines.items() if value is not None)
    return "[pipeline:main]\npipeline = tus app\n[filter:tus]\nuse = egg:tus\n" + section + APP.format(name="app")


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_has_a_form_as_text(name, load, tmp_path):
    default = next(option.default for option in fields(Options) if option.name == name)
    seen = []
    for text, meaning in STRINGS[name]:
        meaning = {"GATE": a_gate, "HOOKS": SOME_HOOKS}.get(meaning, meaning) if isinstance(meaning, str) else meaning
        if isinstance(meaning, str):
            meaning = meaning.replace("HERE", str(tmp_path))
        beside = {"webhook": "http://127.0.0.1:1/"} if name == "webhook_secret" and text else {}
        value = getattr(load(ini_with(**{name: text}, **beside)).service.options, name)
        assert value == meaning
        assert type(value) is type(meaning)
        seen.append(value)
    assert any(value != default for value in seen), "the text is not simply ignored"
    if name not in ("upload_path", "tmp_file_dir"):
        assert getattr(load(ini_with()).service.options, name) == default


@pytest.mark.parametrize(("name", "text"), [(name, text) for name in OPTIONS for text in BAD[name]])
def test_a_bad_value_fails_at_load_time(name, text, load):
    with pytest.raises(OptionError) as wrong:
        load(ini_with(**{name: text}))
    assert wrong.value.option == name
    assert name in str(wrong.value)


@pytest.mark.parametrize("name", ["max_sise", "Send_File", "expire", "tmp-file-dir"])
def test_an_unknown_option_fails_at_load_time(name, load):
    with pytest.raises(
        OptionError, match=r"is unknown(; did you mean [a-z_]+)?; known are tmp_file_dir, store"
    ) as wrong:
        load(ini_with(**{name: "1"}))
    assert wrong.value.option == name


@pytest.mark.parametrize("name", ["upload_path", "tmp_file_dir"])
def test_a_missing_option_fails_at_load_time(name, load):
    with pytest.raises(OptionError, match="is required") as wrong:
        load(ini_with(**{name: None}))
    assert wrong.value.option == name
    bare = "[pipeline:main]\npipeline = egg:tus#main app\n" + APP.format(name="app")
    with pytest.raises(OptionError, match="is required"):
        load(bare)


def test_a_conflict_fails_at_load_time(load):
    with pytest.raises(OptionError) as wrong:
        load(ini_with(cors_allow_origin="*", cors_allow_credentials="true"))
    assert wrong.value.option == "cors_allow_credentials"


def test_default_section_is_not_for_this_filter(load, tmp_path):
    """What other filters keep in [DEFAULT] does no harm, and counts for this one only where it is asked for."""
    shared = f"[DEFAULT]\ndebug = true\nmax_size = 7\nshared_dir = {tmp_path}/shared\n"
    app = load(shared + ini_with(tmp_file_dir=None, **{"get tmp_file_dir": "shared_dir"}))
    assert app.service.options.tmp_file_dir == f"{tmp_path}/shared"
    assert app.service.options.max_size == 0
    with pytest.raises(OptionError) as wrong:
        load(f"[DEFAULT]\ntmp_file_dir = {tmp_path}\n" + ini_with(tmp_file_dir=None))
    assert wrong.value.option == "tmp_file_dir"


def test_options_take_variables_from_the_command_line(load, tmp_path):
    app = load(ini_with(tmp_file_dir="%(uploads)s", max_size="%(limit)s"), uploads=str(tmp_path / "var"), limit="1M")
    assert app.service.options.tmp_file_dir == f"{tmp_path}/var"
    assert app.service.options.max_size == 1 << 20


def test_options_as_text_do_what_they_say(load):
    app = load(ini_with(send_file="false", max_size="1k", upload_valid_duration="0", cors_allow_origin="http://a.test"))
    assert call(app, "POST", "/files", TUS | {"Upload-Length": "1025"}).status == 413
    created = call(app, "POST", "/files", TUS | {"Upload-Length": "5", "Origin": "http://a.test"})
    assert created.get("Upload-Expires") is None
    assert created["Access-Control-Allow-Origin"] == "http://a.test"
    call(app, "PATCH", created["Location"], TUS | OCTETS | {"Upload-Offset": "0"}, b"hello")
    path = made[0].landed[0][1].decode()
    assert path == made[0].environs[-1]["tus.upload"].path
    assert Path(path).name == created["Location"].rpartition("/")[2]


# -- The directory ------------------------------------------------------------------------------------------------


@pytest.fixture
def unprivileged():
    """A context for what a user without special rights can do, and a directory that such a user reaches."""

    @contextlib.contextmanager
    def unprivileged():
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield
        finally:
            if root:
                os.seteuid(0)

    directory = Path(tempfile.mkdtemp())
    yield unprivileged, directory
    directory.chmod(0o700)
    shutil.rmtree(directory)


def test_an_unwritable_directory_fails_at_load_time(unprivileged):
    as_nobody, directory = unprivileged
    ini = directory / "app.ini"
    ini.write_text(ini_with(tmp_file_dir="%(here)s"))
    directory.chmod(0o555)
    with as_nobody(), pytest.raises(OptionError, match="Permission denied") as wrong:
        loadapp(f"config:{ini}")
    assert wrong.value.option == "tmp_file_dir"


def test_a_parent_that_cannot_be_written_fails_at_load_time(unprivileged):
    as_nobody, directory = unprivileged
    ini = directory / "app.ini"
    ini.write_text(ini_with(tmp_file_dir="%(here)s/store"))
    directory.chmod(0o555)
    with as_nobody(), pytest.raises(OptionError, match="Permission denied") as wrong:
        loadapp(f"config:{ini}")
    assert wrong.value.option == "tmp_file_dir"
    assert not (directory / "store").exists()


def test_only_the_last_level_of_the_directory_is_made(load, tmp_path):
    with pytest.raises(OptionError, match="No such file or directory"):
        load(ini_with(tmp_file_dir="%(here)s/one/two"))
    assert not (tmp_path / "one").exists()
    (tmp_path / "one").mkdir()
    load(ini_with(tmp_file_dir="%(here)s/one/two"))
    assert (tmp_path / "one" / "two").is_dir()


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_the_directory_that_is_made_is_private(mask, load, tmp_path):
    before = os.umask(mask)
    try:
        load(ini_with())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700
    assert list((tmp_path / "store").iterdir()) == [], "loading leaves nothing behind"


def test_a_directory_that_exists_keeps_its_mode(load, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(0o750)
    (tmp_path / "store" / "other").write_text("not ours")
    load(ini_with())
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o750
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["other"]


# -- From Python --------------------------------------------------------------------------------------------------


def test_from_python(tmp_path):
    recorder = Recorder()
    app = Filter(recorder, tmp_file_dir=str(tmp_path / "store"), upload_path="/files", send_file=True)
    upload_through(app, "http://localhost/files")
    assert_landed(recorder)
    for path in ELSEWHERE:
        pass_through(app, path)


def test_from_python_in_the_order_of_paste(tmp_path):
    """Where code calls the factory's signature itself, the second argument is the global configuration."""
    recorder = Recorder()
    app = Filter(recorder, {"here": "x", "debug": "true"}, tmp_file_dir=str(tmp_path), upload_path="/files")
    reply = call(app, "POST", "/files", TUS | {"Upload-Length": "0"})
    assert reply.status == 201
    assert recorder.landed[0][1].decode().startswith(str(tmp_path))
    assert Filter(recorder, {}, tmp_file_dir=str(tmp_path), upload_path="/files").service.options == app.service.options


def test_from_python_with_types(tmp_path):
    app = Filter(
        Recorder(),
        tmp_file_dir=tmp_path / "store",
        upload_path="/files",
        send_file=False,
        upload_valid_duration=60,
        completed_keep=0,
        max_size=1 << 40,
        cors_allow_origin=["https://a.example"],
        cors_allow_credentials=True,
    )
    assert app.service.options == Options(
        tmp_file_dir=str(tmp_path / "store"),
        upload_path="/files",
        upload_valid_duration=60,
        completed_keep=0,
        max_size=1 << 40,
        cors_allow_origin=("https://a.example",),
        cors_allow_credentials=True,
    )


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "tmp_file_dir"),
        ({"tmp_file_dir": "DIR"}, "upload_path"),
        ({"upload_path": "/files"}, "tmp_file_dir"),
        ({"tmp_file_dir": None, "upload_path": "/files"}, "tmp_file_dir"),
        ({"tmp_file_dir": 7, "upload_path": "/files"}, "tmp_file_dir"),
        ({"tmp_file_dir": "DIR", "upload_path": None}, "upload_path"),
        ({"tmp_file_dir": "DIR", "upload_path": "/files", "send_file": 2}, "send_file"),
        ({"tmp_file_dir": "DIR", "upload_path": "/files", "send_file": None}, "send_file"),
        ({"tmp_file_dir": "DIR", "upload_path": "/files", "max_size": -1}, "max_size"),
        ({"tmp_file_dir": "DIR", "upload_path": "/files", "fsync": True}, "fsync"),
        ({"tmp_file_dir": "DIR", "upload_path": "/files", "nonsense": 1}, "nonsense"),
        ({"tmp_file_dir": "DIR/missing/store", "upload_path": "/files"}, "tmp_file_dir"),
    ],
)
def test_from_python_mistakes_are_named(options, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a value taken for a relative path shall not land among the sources
    options = {k: v.replace("DIR", str(tmp_path)) if isinstance(v, str) else v for k, v in options.items()}
    with pytest.raises(OptionError) as wrong:
        Filter(Recorder(), **options)
    assert wrong.value.option == name
    assert list(tmp_path.iterdir()) == []


def test_requests_elsewhere_cost_nothing(tmp_path):
    """The store is not looked at, even if it is gone."""
    app = Filter(Recorder(), tmp_file_dir=tmp_path / "store", upload_path="/files")
    (tmp_path / "store").rmdir()
    pass_through(app, "/")
